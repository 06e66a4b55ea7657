-- enqueue_jobs: many jobs, any queues, one call; what each key does, in which
-- order the jobs are, and that one that is refused keeps the others out.
\ir setup.psql
SELECT jobq.create_queue('bulk a', '{"max_batch": 5, "max_attempts": 7, "max_payload_bytes": 100}') AS x,
	jobq.create_queue('bulk b', '{"max_attempts": 3, "ttl": "1 h"}') AS y \gset
CREATE FUNCTION pg_temp.refused(jobs text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM jobq.enqueue_jobs(jobs::jsonb);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ' ' || SQLERRM || ' ' || detail;
END
$$;

-- ---- what is in them ----

CREATE TEMP TABLE made AS SELECT * FROM jobq.enqueue_jobs('[
	{"queue": "bulk b", "payload": {"a": [1, null]}, "kind": "k", "priority": -3, "max_attempts": 2,
		"group_key": "g", "headers": {"traceparent": "00-1"}, "expires_at": "2100-01-01T01:00:00+01:00"},
	{"queue": "bulk a", "payload": "text"},
	{"queue": "bulk b", "payload": null, "kind": null, "priority": null, "run_at": null, "delay": null,
		"max_attempts": null, "group_key": null, "headers": null, "expires_at": null},
	{"queue": "bulk b", "payload": 1.0, "run_at": "2100-01-01 00:00:00Z", "priority": 5.0},
	{"queue": "bulk a", "payload": [], "delay": "1 h"},
	{"queue": "bulk a", "payload": false, "run_at": "2001-01-01 12:00:00-05"}]');
SELECT results_eq('SELECT ord, outcome FROM made',
	$$SELECT n::int, 'inserted' FROM generate_series(1, 6) n$$, 'a row for each, in order');
SELECT ok(bool_and(after), 'ids ascend as in the array, whatever the queue')
	FROM (SELECT id > lag(id, 1, 0::bigint) OVER (ORDER BY ord) AS after FROM made) t;
-- keys are taken in their own order, ids in that of the array
CREATE TEMP TABLE keyed AS SELECT * FROM jobq.enqueue_jobs('[
	{"queue": "bulk b", "unique_key": "y"}, {"queue": "bulk b", "unique_key": "x"},
	{"queue": "bulk b"}, {"queue": "bulk b", "unique_key": "y"},
	{"queue": "bulk b", "unique_key": "x", "on_conflict": "replace"}]');
SELECT results_eq('SELECT ord, outcome, id = min(id) OVER (PARTITION BY ord % 3 = 1) FROM keyed ORDER BY ord',
	$$VALUES (1, 'inserted', true), (2, 'inserted', true), (3, 'inserted', false),
		(4, 'existing', true), (5, 'replaced', true)$$, 'what becomes of unique keys');
SELECT ok(bool_and(after), 'ids ascend with keys, too')
	FROM (SELECT id > lag(id, 1, 0::bigint) OVER (ORDER BY ord) AS after FROM keyed WHERE ord <= 3) t;
SELECT is(count(jobq.cancel(id)), 3::bigint, 'and away with them')
	FROM (SELECT DISTINCT id FROM keyed) k;
SELECT results_eq('SELECT m.ord, j.queue, j.state, j.payload, j.kind, j.priority, j.max_attempts, j.group_key, j.headers
		FROM made m JOIN jobq.jobs j USING (id) ORDER BY 1',
	$$VALUES (1, 'bulk b', 'available', '{"a": [1, null]}'::jsonb, 'k', -3, 2, 'g', '{"traceparent": "00-1"}'::jsonb),
		(2, 'bulk a', 'available', '"text"', NULL, 0, 7, NULL, NULL),
		(3, 'bulk b', 'available', '{}', NULL, 0, 3, NULL, NULL),
		(4, 'bulk b', 'scheduled', '1.0', NULL, 5, 3, NULL, NULL),
		(5, 'bulk a', 'scheduled', '[]', NULL, 0, 7, NULL, NULL),
		(6, 'bulk a', 'available', 'false', NULL, 0, 7, NULL, NULL)$$, 'as they were described');
SELECT results_eq('SELECT m.ord, j.run_at = j.enqueued_at, j.run_at - j.enqueued_at = ''1 h'', j.run_at = ''2100-01-01Z'',
		j.expires_at - j.run_at = ''1 h'', j.expires_at = ''2100-01-01Z'', j.enqueued_by = current_user
		FROM made m JOIN jobq.jobs j USING (id) ORDER BY 1',
	$$VALUES (1, true, false, false, false, true, true), (2, true, false, false, NULL, NULL, true),
		(3, true, false, false, true, false, true), (4, false, false, true, true, false, true),
		(5, false, true, false, NULL, NULL, true), (6, true, false, false, NULL, NULL, true)$$, 'and when');
SELECT is(array_agg(payload), '{"\"text\"",false}', 'delivered in order') FROM jobq.dequeue('bulk a', 10);
SELECT is(array_agg(payload), '{"{\"a\": [1, null]}","{}"}', 'and by priority') FROM jobq.dequeue('bulk b', 10);
SELECT is((available, scheduled, running)::text, '(0,1,2)', queue || ' is counted')
	FROM jobq.queue_stats WHERE queue LIKE 'bulk _';
SELECT is(pg_temp.check_dispatch(), NULL, 'memory is consistent');

-- ---- in one transaction, and not ----

BEGIN;
SELECT count(*) AS n FROM jobq.enqueue_jobs('[{"queue": "bulk a"}, {"queue": "bulk b"}]') \gset
SELECT count(*) AS own FROM jobq.dequeue('bulk b', 10) \gset
ROLLBACK;
SELECT is((:n, :own)::text, '(2,1)', 'the transaction''s own');
SELECT is((SELECT count(*) FROM jobq.jobs WHERE queue LIKE 'bulk _'), 6::bigint, 'and nobody else''s');
SELECT is(count(*), 0::bigint, 'no jobs, no rows') FROM jobq.enqueue_jobs('[]');

-- ---- all or nothing ----

SELECT is(left(pg_temp.refused(jobs), length(says)), says, jobs) FROM (VALUES
	('[{"queue": "bulk a"}, {"payload": 1}]', 'JQ007 "jobs[2].queue" must not be null'),
	('[{"queue": "bulk a"}, {"queue": null}]', 'JQ007 "jobs[2].queue" must not be null'),
	('[{"queue": "bulk a"}, {"queue": "nowhere"}]', 'JQ002'),
	('[{"queue": "bulk a"}, {"queue": 1}]', 'JQ007 invalid value for "jobs[2].queue"'),
	('[{"queue": "bulk a"}, {"queue": "bulk b", "unique": 1}]',
		'JQ007 unknown key "jobs[2].unique" Valid are: queue, payload, kind, priority, run_at, delay, max_attempts, group_key, unique_key, on_conflict, unique_while, unique_for, debounce_max, expires_at, headers.'),
	('[{"queue": "bulk a"}, {"queue": "bulk b", "priority": 101}]', 'JQ007 invalid value for "jobs[2].priority"'),
	('[{"queue": "bulk a"}, {"queue": "bulk b", "priority": "1"}]', 'JQ007 invalid value for "jobs[2].priority"'),
	('[{"queue": "bulk a", "run_at": "2100-01-01 00:00:00"}]', 'JQ007 invalid value for "jobs[1].run_at" It must be a point in time with its offset'),
	('[{"queue": "bulk a", "run_at": "2100-01-01"}]', 'JQ007 invalid value for "jobs[1].run_at"'),
	('[{"queue": "bulk a", "run_at": "infinity"}]', 'JQ007 invalid value for "jobs[1].run_at"'),
	('[{"queue": "bulk a", "run_at": "now:Z"}]', 'JQ007 invalid value for "jobs[1].run_at"'),
	('[{"queue": "bulk a", "run_at": 1}]', 'JQ007 invalid value for "jobs[1].run_at"'),
	('[{"queue": "bulk a", "run_at": "2100-01-01 00:00Z", "delay": 1}]', 'JQ007 invalid value for "jobs[1].delay" Only one of'),
	('[{"queue": "bulk a", "delay": -1}]', 'JQ007 invalid value for "jobs[1].delay"'),
	('[{"queue": "bulk a", "max_attempts": 0}]', 'JQ007 invalid value for "jobs[1].max_attempts"'),
	('[{"queue": "bulk a", "expires_at": "2001-01-01 00:00Z"}]', 'JQ007 invalid value for "expires_at"'),
	('[{"queue": "bulk a", "headers": []}]', 'JQ007 invalid value for "headers"'),
	('[{"queue": "bulk a", "headers": {"dead_letter": 1}}]', 'JQ007 invalid value for "headers"'),
	('[{"queue": "bulk a", "kind": ["k"]}]', 'JQ007 invalid value for "jobs[1].kind"'),
	(format('[{"queue": "bulk a", "kind": "%s"}]', repeat('k', 256)), 'JQ007 invalid value for "kind"'),
	(format('[{"queue": "bulk b"}, {"queue": "bulk a", "payload": "%s"}]', repeat('p', 100)), 'JQ004'),
	('[{"queue": "bulk a"}, 1]', 'JQ007 invalid value for "jobs"'),
	('{"queue": "bulk a"}', 'JQ007 invalid value for "jobs"'),
	('"bulk a"', 'JQ007 invalid value for "jobs"'),
	((SELECT jsonb_agg(jsonb_build_object('queue', 'bulk a'))::text FROM generate_series(1, 6)),
		'JQ007 invalid value for "jobs" Queue "bulk a" takes at most 5 in one call.')) v (jobs, says);
SELECT is(pg_temp.refused(jobs::text), 'ok', 'as many as may be, of each queue')
	FROM (SELECT jsonb_agg(jsonb_build_object('queue', CASE n % 2 WHEN 0 THEN 'bulk a' ELSE 'bulk b' END)) AS jobs
		FROM generate_series(1, 10) n) t;
SELECT is((SELECT count(*) FROM jobq.jobs WHERE queue LIKE 'bulk _'), 16::bigint, 'nothing came of what was refused');

-- ---- many ----

SELECT jobq.alter_queue('bulk a', '{"max_batch": 100000}') AS x \gset
SELECT is((count(*), count(DISTINCT id), bool_and(ord = n))::text, '(12000,12000,t)', 'many')
	FROM (SELECT *, row_number() OVER () AS n FROM jobq.enqueue_jobs(
		(SELECT jsonb_agg(jsonb_build_object('queue', CASE n % 3 WHEN 0 THEN 'bulk b' ELSE 'bulk a' END, 'payload', n))
			FROM generate_series(1, 12000) n))) t;
SELECT is((SELECT available FROM jobq.queue_stats WHERE queue = 'bulk a'), 8005::bigint, 'all of them');
SELECT is(count(*), 8005::bigint, 'all are delivered') FROM jobq.dequeue('bulk a', 10000);

SELECT is(pg_temp.check_dispatch(), NULL, 'memory is consistent at the end');
SELECT jobq.drop_queue('bulk a', true) AS x, jobq.drop_queue('bulk b', true) AS y \gset
SELECT * FROM finish();
