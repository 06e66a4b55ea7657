-- Indexes that come and go, and rows that are wider or narrower than the one
-- before: what writing keeps of a table is right for each row.
BEGIN;
SET client_min_messages = warning;
\set QUIET 1
SELECT no_plan();

SELECT jobq.create_queue('q');
SELECT jobq.enqueue('q', kind => 'first') AS first \gset

CREATE FUNCTION pg_temp.on_belt(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE replace(command, 'BELT', 'jobq.job_' || (SELECT max(epoch) FROM jobq.epoch));
END
$$;

-- By an index, or the plan is told.
CREATE FUNCTION pg_temp.found(kind text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	query text := replace(format('SELECT count(*) FROM BELT WHERE kind = %L', kind), 'BELT',
		'jobq.job_' || (SELECT max(epoch) FROM jobq.epoch));
	line text;
	plan text := '';
	n bigint;
BEGIN
	SET LOCAL enable_seqscan = off;
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		plan := plan || line;
	END LOOP;
	EXECUTE query INTO n;
	RETURN CASE WHEN plan LIKE '%by_kind%' THEN n::text ELSE plan END;
END
$$;

SELECT pg_temp.on_belt('CREATE INDEX by_kind ON BELT (kind)');
SELECT jobq.enqueue('q', kind => 'second') AS second \gset
SELECT is(pg_temp.found('first'), '1', 'an index finds what was there');
SELECT is(pg_temp.found('second'), '1', 'and what comes after it');
SELECT is(cardinality(jobq.enqueue_many('q', ARRAY['3', '4']::jsonb[], kind => 'many')), 2,
	'many at once');
SELECT is(pg_temp.found('many'), '2', 'as well');
SELECT pg_temp.on_belt('REINDEX INDEX jobq.by_kind');
SELECT jobq.enqueue('q', kind => 'third') AS third \gset
SELECT is(pg_temp.found('third'), '1', 'made anew, it finds what comes');
DROP INDEX jobq.by_kind;
SELECT lives_ok($$SELECT jobq.enqueue('q')$$, 'it may go again');

SELECT pg_temp.on_belt('CREATE INDEX by_lower ON BELT (lower(kind))');
SELECT throws_ok($$SELECT jobq.enqueue('q')$$, '55000', NULL, 'an index that we cannot fill');
SELECT throws_ok($$SELECT jobq.enqueue('q')$$, '55000', NULL, 'each time');
DROP INDEX jobq.by_lower;
SELECT lives_ok($$SELECT jobq.enqueue('q')$$, 'until it is gone');

-- An error after the row was formed, then narrower and wider ones.
SELECT pg_temp.on_belt('CREATE INDEX too_small ON BELT (payload)');
SELECT throws_ok(format($$SELECT jobq.enqueue('q', %L)$$,
	(SELECT to_jsonb(string_agg(md5(n::text), '')) FROM generate_series(1, 1000) n)),
	'54000', NULL, 'a row that an index refuses');
SELECT is((SELECT count(*) FROM jobq.dequeue('q', 1000)), 7::bigint, 'it left nothing');
SELECT jobq.enqueue('q', to_jsonb(n), headers => CASE WHEN n % 2 = 0 THEN '{"a": "b"}'::jsonb ELSE '{}' END,
	unique_key => CASE WHEN n % 3 = 0 THEN n::text END)
	FROM generate_series(1, 12) n;
SELECT results_eq($$SELECT payload::int, headers ->> 'a', (SELECT unique_key FROM jobq.job(id))
	FROM jobq.dequeue('q', 100) ORDER BY 1$$,
	$$SELECT n, CASE WHEN n % 2 = 0 THEN 'b' END, CASE WHEN n % 3 = 0 THEN n::text END
	FROM generate_series(1, 12) n$$, 'each row has its own columns');
DROP INDEX jobq.too_small;

SELECT * FROM finish();
ROLLBACK;
