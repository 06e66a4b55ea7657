-- Options of queues: which there are, their bounds, and that anything else is
-- refused by name.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_jobq_options SUPERUSER;
SET ROLE regress_jobq_options;
SELECT jobq.create_queue('o');

-- shapes
SELECT jobq.alter_queue('o', '[]');
SELECT jobq.alter_queue('o', '"lease_for"');
SELECT jobq.alter_queue('o', 'null');
SELECT jobq.alter_queue('o', '{"leas_for": 5}');
SELECT jobq.alter_queue('o', '{"Lease_For": 5}');
SELECT jobq.alter_queue('o', '{"": 5}');
SELECT jobq.create_queue('not made', '{"tl": null}');

-- what is accepted, what not: SQLSTATE and detail of each
CREATE FUNCTION pg_temp.try(options jsonb) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM jobq.alter_queue('o', options);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(detail, ''));
END
$$;
\pset format unaligned
\pset tuples_only on
SELECT options, pg_temp.try(options) FROM unnest(ARRAY[
	'{"lease_for": "1 s"}',
	'{"ttl": "1 ms"}',
	'{"ttl": 0.0009}',
	'{"ttl": "3650 days"}',
	'{"ttl": "3651 days"}',
	'{"expired_to": "drop"}',
	'{"expired_to": "dead_letter"}',
	'{"expired_to": "Drop"}',
	'{"lease_for": 1}',
	'{"lease_for": 0.5}',
	'{"lease_for": "999 ms"}',
	'{"lease_for": "7 days"}',
	'{"lease_for": 604800.000001}',
	'{"lease_for": "-1 min"}',
	'{"lease_for": "1000000000 days"}',
	'{"lease_for": "1 month"}',
	'{"lease_for": 1e300}',
	'{"lease_for": "5 parsecs"}',
	'{"lease_for": "99999999999999999999 days"}',
	'{"lease_for": ""}',
	'{"lease_for": true}',
	'{"lease_for": {}}',
	'{"lease_for": null}',
	'{"max_attempts": 1}',
	'{"max_attempts": 1000000}',
	'{"max_attempts": 0}',
	'{"max_attempts": 1000001}',
	'{"max_attempts": 2.5}',
	'{"max_attempts": "3"}',
	'{"max_attempts": 1e100}',
	'{"max_attempts": [3]}',
	'{"backoff": {}}',
	'{"backoff": {"base": 0}}',
	'{"backoff": {"base": "10 s", "factor": 1, "cap": "10 s", "jitter": 0}}',
	'{"backoff": {"base": null, "factor": null, "cap": null, "jitter": null}}',
	'{"backoff": {"base": "2 h"}}',
	'{"backoff": {"base": "0.1 s", "cap": "0.5 s"}}',
	'{"backoff": {"base": -1}}',
	'{"backoff": {"factor": 0.5}}',
	'{"backoff": {"factor": 1001}}',
	'{"backoff": {"factor": "2"}}',
	'{"backoff": {"jitter": 1.1}}',
	'{"backoff": {"jitter": -0.1}}',
	'{"backoff": {"cap": "400 days"}}',
	'{"backoff": {"limit": 3}}',
	'{"backoff": 5}',
	'{"backoff": []}',
	'{"backoff": "exponential"}',
	'{"backoff": null}',
	'{"dead_letter": 5}',
	'{"dead_letter": ""}',
	'{"dead_letter": "a\u0001b"}',
	'{"dead_letter": ["d"]}',
	'{"dead_letter": null}',
	'{"retention": 0}',
	'{"retention": "3650 days"}',
	'{"retention": "3651 days"}',
	'{"retention": "-1 s"}',
	'{"dead_retention": "1 year"}',
	'{"dead_retention": false}',
	'{"max_payload_bytes": 2}',
	'{"max_payload_bytes": 1}',
	'{"max_payload_bytes": 268435455}',
	'{"max_payload_bytes": 268435456}',
	'{"max_batch": 1}',
	'{"max_batch": 0}',
	'{"max_batch": 1000000}',
	'{"max_batch": 1000001}'
]::jsonb[]) AS options;
\pset format aligned
\pset tuples_only off
SELECT jsonb_pretty(options) FROM jobq.queues WHERE queue = 'o';

-- one wrong option and nothing is changed
SELECT jobq.alter_queue('o', '{"max_batch": 7, "nope": 1}');
SELECT options -> 'max_batch' AS max_batch FROM jobq.queues WHERE queue = 'o';

-- all defaults again
SELECT jobq.alter_queue('o', (SELECT jsonb_object_agg(key, NULL) FROM jsonb_object_keys(options) key))
	FROM jobq.queues WHERE queue = 'o';
SELECT options FROM jobq.queues WHERE queue = 'o';
SELECT jobq.drop_queue('o');

RESET ROLE;
DROP FUNCTION pg_temp.try(jsonb);
DROP ROLE regress_jobq_options;
