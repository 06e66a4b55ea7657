-- Error texts are stored and shown without secrets, by every way in and out;
-- cut at 5,000 characters; patterns of the administrator; names of rates.
\set QUIET 1
SET client_min_messages = warning;
SELECT no_plan();
SELECT jobq.create_queue('redact', '{"backoff": {"base": 0}, "dead_letter": "redact dead", "max_attempts": 20}') AS x \gset
SELECT jobq.create_queue('redact plain', '{"backoff": {"base": 0}}') AS x \gset
CREATE FUNCTION pg_temp.next(queue text, OUT id bigint, OUT lease bigint, OUT last_error text) LANGUAGE sql AS $$
	SELECT id, lease, last_error FROM jobq.dequeue(queue)
$$;
CREATE FUNCTION pg_temp.error_of(error text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	job record := pg_temp.next('redact');
BEGIN
	PERFORM jobq.fail(job.id, job.lease, error);
	RETURN (SELECT j.last_error FROM jobq.job(job.id) j);
END
$$;

\set said 'connect to postgres://app:hunter2@db/x failed, token=hunter2'
\set kept 'connect to postgres://***@db/x failed, token=***'

-- ---- ways in ----

SELECT jobq.enqueue('redact') AS id \gset
SELECT is(jobq.fail(n.id, n.lease, :'said'), 'retryable', 'failed') FROM pg_temp.next('redact') n;
SELECT is(last_error, :'kept', 'job()') FROM jobq.job(:id);
SELECT is(last_error, :'kept', 'jobs') FROM jobq.jobs WHERE id = :id;
SELECT is(error, :'kept', 'attempts()') FROM jobq.attempts(:id);
SELECT is(last_error, :'kept', 'peek()') FROM jobq.peek('redact');
SELECT n.lease, n.last_error AS delivered FROM pg_temp.next('redact') n \gset
SELECT is(:'delivered'::text, :'kept', 'the next delivery');
SELECT is(outcome, 'retryable', 'settled') FROM jobq.settle_jobs(jsonb_build_array(jsonb_build_object(
	'id', :id, 'lease', :lease, 'do', 'fail', 'error', 'secret: s3cr3t hunter2=1'::text)));
SELECT is(last_error, 'secret: *** hunter2=1', 'settle_jobs()') FROM jobq.job(:id);
SELECT is(jobq.fail(n.id, n.lease, 'dead: ' || :'said', false), 'dead', 'dead') FROM pg_temp.next('redact') n;
SELECT is(last_error, 'dead: ' || :'kept', 'dead_jobs') FROM jobq.dead_jobs WHERE id = :id;
SELECT is(error, 'dead: ' || :'kept', 'wait_for()') FROM jobq.wait_for(:id);
SELECT is(headers #>> '{dead_letter,error}', 'dead: ' || :'kept', 'headers of the copy') FROM jobq.jobs WHERE queue = 'redact dead';
SELECT results_eq(format('SELECT error FROM jobq.attempts(%s) ORDER BY attempt', :id),
	ARRAY[:'kept', 'secret: *** hunter2=1', 'dead: ' || :'kept'], 'all attempts');
SELECT jobq.enqueue('redact plain') AS waiting, jobq.enqueue('redact plain') AS running \gset
SELECT ok(jobq.cancel(:waiting, 'as ' || :'said'), 'cancelled');
SELECT is(last_error, 'as ' || :'kept', 'history has the reason') FROM jobq.history WHERE id = :waiting;
SELECT is(error, 'as ' || :'kept', 'wait_for() as well') FROM jobq.wait_for(:waiting);
SELECT n.lease FROM pg_temp.next('redact plain') n \gset
SELECT ok(jobq.cancel(:running, 'as ' || :'said', '1 min'), 'cancelled with grace');
SELECT is(error, 'as ' || :'kept', 'attempts() as well') FROM jobq.attempts(:running);

-- what keeps a schedule from enqueuing
CREATE ROLE redact_role;
SELECT jobq.create_queue('password=hunter2') AS x \gset
SELECT jobq.grant_queue('password=hunter2', 'redact_role', '{enqueue}') AS x \gset
SET ROLE redact_role;
SELECT jobq.schedule('redact', '* * * * * *', 'password=hunter2') AS x \gset
RESET ROLE;
SELECT jobq.revoke_queue('password=hunter2', 'redact_role', '{enqueue}') AS x \gset
DO $$
BEGIN
	FOR i IN 1 .. 200 LOOP
		EXIT WHEN EXISTS (SELECT FROM jobq.schedule WHERE name = 'redact' AND misses > 0);
		PERFORM pg_sleep(0.1);
		COMMIT;
	END LOOP;
END
$$;
SELECT ok(last_miss_reason LIKE '%password=***%' AND last_miss_reason NOT LIKE '%hunter2%', 'last_miss_reason')
	FROM jobq.schedule WHERE name = 'redact';
SELECT jobq.unschedule('redact') AS x \gset

-- ---- cut ----

SELECT jobq.enqueue('redact') AS id \gset
SELECT is(pg_temp.error_of(repeat('x', 5000)), repeat('x', 5000), '5,000 characters stay');
SELECT is(pg_temp.error_of(repeat('x', 5001)), repeat('x', 5000) || '... (truncated)', 'one more is cut');
SELECT is(pg_temp.error_of(repeat(U&'\00e9', 6000)), repeat(U&'\00e9', 5000) || '... (truncated)', 'between characters');
SELECT is(pg_temp.error_of(repeat('x', 5000) || '... (truncated)'), repeat('x', 5000) || '... (truncated)', 'once');
SELECT is(pg_temp.error_of(repeat('x', 4980) || ' password=hunter2hunter2hunter2 y'), repeat('x', 4980) || ' password=*** y',
	'a secret is hidden before the text is cut');
SELECT is(pg_temp.error_of(repeat('x', 4986) || ' token=hunter2hunter2hunter2 yy'), repeat('x', 4986) || ' token=*** yy',
	'its place does not count');
SELECT is(pg_temp.error_of('-----BEGIN KEY-----' || E'\n' || repeat('MIIEpAIBAAKC' || E'\n', 1000) || '-----END KEY-----'), '***', 'a long one');
SELECT is(pg_temp.error_of(repeat('password=hunter2 ', 200000)),
	left(repeat('password=*** ', 400), 5000) || '... (truncated)', 'three MB');
SELECT is(pg_temp.error_of('said: password=' || repeat('k7', 100000) || ' and more'),
	'said: password=*** and more', 'all of 200 kB is looked at');
SELECT is(pg_temp.error_of('said: password=' || repeat('k7', 140000) || ' and more'),
	'said: ... (truncated)', 'of more the first 256 kB, so that no text takes long');
SELECT is(pg_temp.error_of(''), '', 'an empty one');

-- ---- patterns ----

SET jobq.redact_patterns = 'CUST-######, acme_pin=';
SELECT is(pg_temp.error_of('CUST-123456 acme_pin=1 CUST-1'), '*** acme_pin=*** CUST-1', 'patterns');
SET jobq.redact_patterns = 'CUST-######', 'EMP-*';
SELECT is(pg_temp.error_of('CUST-123456 EMP-7 acme_pin=1'), '*** *** acme_pin=1', 'a list of them');
RESET jobq.redact_patterns;
SELECT is(pg_temp.error_of('CUST-123456 password=x'), 'CUST-123456 password=***', 'none');
SELECT throws_ok('SET jobq.redact_patterns = ''a''', '22023');
SELECT throws_ok('SET jobq.redact_patterns = ''ab*cd''', '22023');
CREATE ROLE redact_nobody;
SET ROLE redact_nobody;
SELECT throws_ok('SET jobq.redact_patterns = ''''', '42501');
SELECT throws_ok('SHOW jobq.redact_patterns', '42501');
RESET ROLE;

-- ---- names of rates ----

SELECT results_eq($$SELECT allowed, remaining, retry_after FROM jobq.rate_limit_take('r', 5, '1 h', 3)$$,
	'VALUES (true, 2::bigint, 0::float8)', 'three of five');
SELECT results_eq($$SELECT allowed, remaining, retry_after BETWEEN 3500 AND 3600.1 FROM jobq.rate_limit_take('r', 5, '1 h', 3)$$,
	'VALUES (false, 2::bigint, true)', 'not three more');
SELECT results_eq($$SELECT allowed, remaining FROM jobq.rate_limit_take('r', 5, '1 h', 2)$$, 'VALUES (true, 0::bigint)',
	'refused calls take nothing');
SELECT results_eq($$SELECT allowed, remaining, reset_at BETWEEN now() + interval '59 min' AND now() + interval '61 min'
	FROM jobq.rate_limit_take('r', 5, '1 h', 0)$$, 'VALUES (true, 0::bigint, true)', 'looking is allowed');
SELECT results_eq($$SELECT allowed, remaining FROM jobq.rate_limit_take('r', 6, '1 h')$$, 'VALUES (true, 0::bigint)',
	'a higher limit holds at once');
SELECT results_eq($$SELECT allowed, remaining, reset_at <= clock_timestamp() FROM jobq.rate_limit_take('other', 5, '1 h', 0)$$,
	'VALUES (true, 5::bigint, true)', 'another name');
BEGIN;
SELECT remaining FROM jobq.rate_limit_take('undone', 5, '1 h') \g /dev/null
ROLLBACK;
SELECT is(remaining, 4::bigint, 'a rollback gives nothing back') FROM jobq.rate_limit_take('undone', 5, '1 h', 0);
SELECT jobq.grant_queue('redact', 'redact_role', '{read}') AS x \gset
SET ROLE redact_role;
SELECT is(remaining, 4::bigint, 'each role has names of its own') FROM jobq.rate_limit_take('r', 5, '1 h');
SET ROLE redact_nobody;
SELECT throws_ok($$SELECT jobq.rate_limit_take('r', 5, '1 h')$$, '42501');
RESET ROLE;
PREPARE untyped AS SELECT allowed FROM jobq.rate_limit_take($1, $2, $3, $4);
SELECT lives_ok($$EXECUTE untyped('untyped', 5, '1 s', 1)$$, 'parameters without types');
SELECT lives_ok($$SELECT jobq.rate_limit_take('small', 5::smallint, '1 s', 1::smallint)$$, 'small integers');
SELECT lives_ok($$SELECT jobq.rate_limit_take(name => 'named', "limit" => 5, period => '1 s')$$, 'by the names of the arguments');

SELECT jobq.drop_queue(q, true) AS x FROM unnest(ARRAY['redact', 'redact plain', 'redact dead', 'password=hunter2']) q \g /dev/null
DROP ROLE redact_role;
DROP ROLE redact_nobody;
SELECT * FROM finish();
