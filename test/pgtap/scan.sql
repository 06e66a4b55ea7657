-- The plan node that reads deliveries (src/api/scan.c): when it is used, and
-- that it gives what a function scan gives.
\ir setup.psql
SELECT jobq.create_queue('scan', '{"backoff": {"base": 1, "factor": 1, "jitter": 0}, "max_payload_bytes": 5000000}') AS x \gset
CREATE FUNCTION pg_temp.plan(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	lines text := '';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
		lines := lines || line || E'\n';
	END LOOP;
	RETURN CASE WHEN lines LIKE '%Custom Scan (JobqScan)%Function Name: %' THEN 'own'
		WHEN lines LIKE '%Function Scan on %' THEN 'function' ELSE lines END;
END
$$;
CREATE FUNCTION pg_temp.explain(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE 'EXPLAIN (VERBOSE, COSTS off) ' || query;
END
$$;
CREATE FUNCTION pg_temp.fill(n int) RETURNS int LANGUAGE sql AS
	$$ SELECT cardinality(jobq.enqueue_many('scan', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, n) i))) $$;

CREATE TEMP TABLE taken (id bigint);

-- ---- when ----

SELECT is(pg_temp.plan(query), 'own', query) FROM unnest(ARRAY[
	'SELECT * FROM jobq.dequeue(''scan'')',
	'SELECT id, lease, payload FROM jobq.dequeue(''scan'', 10, lease_for => ''1 min'')',
	'SELECT id FROM jobq.dequeue_any(''{scan}'')',
	'SELECT ARRAY[id] AS done, lease FROM jobq.complete_and_dequeue(''scan'', ''{}'', NULL)',
	'SELECT count(*) FROM jobq.dequeue(''scan'')',
	'SELECT 1 FROM jobq.dequeue(''scan'')',
	'SELECT max(id), string_agg(payload::text, '','') FROM jobq.dequeue(''scan'', 5)',
	'SELECT upper(queue), id + lease FROM jobq.dequeue(''scan'', 5) ORDER BY id DESC LIMIT 3',
	'SELECT a, b FROM jobq.dequeue(''scan'') AS d (a, b)',
	'WITH d AS (SELECT id FROM jobq.dequeue(''scan'')) SELECT * FROM d, pg_class',
	'SELECT * FROM (SELECT id FROM jobq.dequeue(''scan'') OFFSET 0) d, pg_class',
	'SELECT id FROM jobq.dequeue(''scan'') FOR UPDATE',
	'INSERT INTO taken SELECT id FROM jobq.dequeue(''scan'')']) query;
SELECT is(pg_temp.plan(query), 'function', query) FROM unnest(ARRAY[
	'SELECT id FROM jobq.dequeue(''scan'') WHERE id > 0',
	'SELECT d FROM jobq.dequeue(''scan'') d',
	'SELECT to_jsonb(d) FROM jobq.dequeue(''scan'') d',
	'SELECT id, relname FROM jobq.dequeue(''scan''), pg_class',
	'SELECT id FROM pg_class, jobq.dequeue(relname::text)',
	'UPDATE taken SET id = 0 FROM jobq.dequeue(''scan'') d WHERE d.id = taken.id',
	'SELECT relname FROM jobq.dequeue(''scan'') d, pg_class FOR UPDATE OF pg_class',
	'SELECT (SELECT id FROM jobq.dequeue(relname::text)) FROM pg_class',
	'SELECT id FROM jobq.dequeue((SELECT relname::text FROM pg_class LIMIT 1))',
	'SELECT id, ordinality FROM jobq.dequeue(''scan'') WITH ORDINALITY',
	'SELECT * FROM ROWS FROM (jobq.dequeue(''scan''), generate_series(1, 2))',
	'SELECT id FROM jobq.dequeue(''scan'') UNION ALL SELECT id FROM jobq.dequeue(''scan'')',
	'SELECT id FROM jobq.peek(''scan'')',
	'SELECT n FROM generate_series(1, 2) n']) query;
SELECT is(running, 0::bigint, 'a plan takes nothing') FROM jobq.queue_stats WHERE queue = 'scan';

-- ---- the same rows ----

SELECT jobq.enqueue('scan', '{"a": [1, null]}', 'mail', 7, group_key => 'g', headers => '{"h": 1}') AS a \gset
CREATE TEMP TABLE first AS SELECT * FROM jobq.dequeue('scan', 1, worker => 'w');
SELECT jobq.extend(id, lease, progress => '{"p": 1}'), jobq.fail(id, lease, 'oops', retry_in => '0 s') FROM first;
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
CREATE TEMP TABLE own AS SELECT * FROM jobq.dequeue('scan', 1, worker => 'w');
SELECT jobq.release(id, lease) FROM own;
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
CREATE TEMP TABLE function AS SELECT * FROM jobq.dequeue('scan', 1, worker => 'w') WHERE id > 0;
SELECT is((SELECT to_jsonb(o) - 'lease' - 'lease_expires_at' - 'run_at' FROM own o),
	(SELECT to_jsonb(f) - 'lease' - 'lease_expires_at' - 'run_at' FROM function f), 'all columns');
SELECT is((id, lease > 0, attempt, max_attempts, queue, kind, priority, group_key, payload, headers, enqueued_at <= run_at,
	lease_expires_at > clock_timestamp(), last_error, progress)::text,
	format('(%s,t,2,10,scan,mail,7,g,"{""a"": [1, null]}","{""h"": 1}",t,t,oops,"{""p"": 1}")', :a), 'with their values') FROM own;
SELECT jobq.complete(id, lease) FROM function;
SELECT is((SELECT count(*) FROM jobq.dequeue('scan', 10)), 0::bigint, 'none: no row');
SELECT is_empty('SELECT id + 1, payload FROM jobq.dequeue(''scan'', 10)', 'none: nothing to compute');

SELECT pg_temp.fill(10) AS n \gset
SELECT is_empty('SELECT id FROM jobq.dequeue(''scan'', 10) LIMIT 0', 'no row is wanted');
SELECT is(running, 0::bigint, 'none was taken') FROM jobq.queue_stats WHERE queue = 'scan';
SELECT is((SELECT array_agg(payload::int ORDER BY id) FROM jobq.dequeue('scan', 3)), '{1,2,3}', 'a batch');
SELECT is((SELECT count(*) FROM jobq.dequeue('scan', 3)), 3::bigint, 'no column of it');
SELECT results_eq('SELECT payload::int + 1, attempt, payload, payload FROM jobq.dequeue(''scan'', 2)',
	'VALUES (8, 1, ''7''::jsonb, ''7''::jsonb), (9, 1, ''8'', ''8'')', 'computed');
WITH d AS (SELECT id, lease FROM jobq.dequeue('scan', 9))
SELECT is(cardinality(jobq.complete_many(array_agg(id), max(lease))), 2, 'read twice') FROM d;
SELECT is(running, 8::bigint, 'no more than these were taken') FROM jobq.queue_stats WHERE queue = 'scan';
SELECT jobq.enqueue('scan', to_jsonb(string_agg(md5(i::text), ''))) AS big FROM generate_series(1, 50000) i \gset
SELECT is((SELECT md5(payload #>> '{}') FROM jobq.dequeue('scan')),
	(SELECT md5(string_agg(md5(i::text), '')) FROM generate_series(1, 50000) i), 'a large payload');
SELECT jobq.enqueue('scan', '1') AS x \gset
DO $$
DECLARE
	d record;
	q text := 'scan';
BEGIN
	FOR i IN 1..8 LOOP
		SELECT id, lease, payload INTO STRICT d FROM jobq.dequeue(q);
		ASSERT d.payload = to_jsonb(i);
		PERFORM jobq.complete(d.id, d.lease);
		PERFORM jobq.enqueue(q, to_jsonb(i + 1));
	END LOOP;
END
$$;
SELECT is((SELECT payload FROM jobq.dequeue('scan')), '9', 'variables of PL/pgSQL, plans of any kind');

-- ---- read again, and backwards ----

SELECT pg_temp.fill(3) AS n \gset
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT payload::int FROM jobq.dequeue('scan', 3);
SELECT is(running, 10::bigint, 'not before the first row is fetched') FROM jobq.queue_stats WHERE queue = 'scan';
CREATE FUNCTION pg_temp.fetch(direction text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	c refcursor := 'c';
	v int;
	got text := '';
BEGIN
	FOR i IN 1..5 LOOP
		IF direction = 'next' THEN
			FETCH NEXT FROM c INTO v;
		ELSE
			FETCH PRIOR FROM c INTO v;
		END IF;
		EXIT WHEN NOT FOUND;
		got := got || v;
	END LOOP;
	RETURN got;
END
$$;
SELECT is(pg_temp.fetch('next'), '123', 'forwards');
SELECT is(pg_temp.fetch('prior'), '321', 'backwards');
SELECT is(pg_temp.fetch('next'), '123', 'and again');
COMMIT;
SELECT is(running, 13::bigint, 'taken once') FROM jobq.queue_stats WHERE queue = 'scan';
SELECT pg_temp.fill(3) AS n \gset
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT payload::int FROM jobq.dequeue('scan', 3);
COMMIT;
SELECT is(pg_temp.fetch('next'), '123', 'a cursor that is held');
CLOSE c;
SELECT pg_temp.fill(5) AS n \gset
SELECT is((SELECT array_agg((SELECT payload::int FROM (SELECT id, payload FROM jobq.dequeue('scan') OFFSET 0) d WHERE id > g)) FROM generate_series(1, 3) g),
	'{1,1,1}', 'read again for another row: taken once');
SELECT is((SELECT array_agg((SELECT payload::int FROM jobq.dequeue('scan', g))) FROM generate_series(1, 1) g), '{2}', 'other arguments: a call of its own');
SELECT is((SELECT array_agg((SELECT sum(payload::int) FROM jobq.dequeue('scan', g))) FROM generate_series(1, 2) g), '{3,9}', 'for each');

SELECT jobq.purge_queue('scan') AS x \gset
SELECT pg_temp.fill(50) AS n \gset
SELECT is((SELECT string_agg(left(p, 3), ' ' ORDER BY id) FROM (SELECT id, lpad(payload::text, 3, '0') || repeat('y', 5000) AS p
		FROM jobq.dequeue('scan', 50) OFFSET 0) d),
	(SELECT string_agg(lpad(i::text, 3, '0'), ' ' ORDER BY i) FROM generate_series(1, 50) i), 'rows stay what they are while others are computed');
SELECT cardinality(jobq.enqueue_many('scan', array_fill(to_jsonb(repeat('x', 1000)), ARRAY[2000]))) AS n \gset
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM jobq.dequeue('scan', 2000);
MOVE 1000 IN c;
SELECT cmp_ok(sum(used_bytes), '<', 500000::numeric, 'what is not read takes no memory')
	FROM pg_backend_memory_contexts WHERE name IN ('ExecutorState', 'ExprContext');
COMMIT;

-- ---- rights, errors, counts ----

CREATE ROLE scan_worker;
SELECT jobq.grant_queue('scan', 'scan_worker', '{dequeue}') AS x \gset
SET ROLE scan_worker;
PREPARE take AS SELECT id, payload FROM jobq.dequeue('scan');
SELECT is(pg_temp.plan('EXECUTE take'), 'own', 'its plan');
SELECT lives_ok('EXECUTE take', 'may');
RESET ROLE;
BEGIN;
REVOKE EXECUTE ON FUNCTION jobq.dequeue(text, bigint, interval, interval, text) FROM scan_worker;
SET LOCAL ROLE scan_worker;
SELECT throws_ok('EXECUTE take', '42501', 'permission denied for function dequeue', 'may no more, though it is planned');
SELECT throws_ok('SELECT id FROM jobq.dequeue(''scan'')', '42501', 'permission denied for function dequeue', 'nor planned anew');
ROLLBACK;
DEALLOCATE take;
SELECT jobq.revoke_queue('scan', 'scan_worker', '{dequeue}') AS x \gset
DROP ROLE scan_worker;
SELECT throws_ok('SELECT id FROM jobq.dequeue(''no such queue'')', 'JQ002', NULL, 'an error');
SELECT throws_ok('SELECT id FROM jobq.dequeue(NULL)', 'JQ007', NULL, 'a null');

PREPARE take(text, bigint) AS SELECT id, payload FROM jobq.dequeue($1, $2);
SET plan_cache_mode = force_generic_plan;
SELECT is(pg_temp.plan('EXECUTE take (''scan'', 1)'), 'own', 'a generic plan');
BEGIN;
ALTER FUNCTION jobq.dequeue SET work_mem = '1MB';
SELECT is(pg_temp.plan('EXECUTE take (''scan'', 1)'), 'function', 'changed by its owner: as it is called');
SELECT lives_ok('EXECUTE take (''scan'', 1)', 'which works');
ROLLBACK;
SELECT is(pg_temp.plan('EXECUTE take (''scan'', 1)'), 'own', 'as before');
BEGIN;
ALTER FUNCTION jobq.dequeue STRICT;
SELECT is_empty('SELECT id FROM jobq.dequeue(NULL)', 'STRICT: not called for a null');
ROLLBACK;
RESET plan_cache_mode;
BEGIN;
SET LOCAL track_functions = 'all';
SELECT count(*) AS n FROM jobq.dequeue('scan') \gset
SELECT count(*) AS n FROM jobq.dequeue('scan') \gset
SELECT is(calls, 2::bigint, 'calls are counted') FROM pg_stat_xact_user_functions WHERE schemaname = 'jobq' AND funcname = 'dequeue';
ROLLBACK;

-- what is explained when the function has gone
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_format = json;
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM jobq.dequeue('scan');
MOVE ALL IN c;
SAVEPOINT here;
DROP EXTENSION pg_jobq CASCADE;
CLOSE c;
ROLLBACK TO here;
COMMIT;
SET auto_explain.log_min_duration = -1;
SELECT is(count(*), 1::bigint, 'it is still there') FROM jobq.queues WHERE queue = 'scan';
SELECT ok(string_agg(line, '') LIKE '%Function Name: dequeue%Function Call: jobq.dequeue(''scan''::text%', 'VERBOSE shows the call')
	FROM pg_temp.explain('SELECT id FROM jobq.dequeue(''scan'')') line;

SELECT is(pg_temp.check_dispatch(), NULL, 'memory is consistent');
SELECT jobq.purge_queue('scan') AS x \gset
SELECT * FROM finish();
