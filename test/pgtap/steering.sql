-- Steering in its finer points: what a cancelled worker learns within its grace,
-- purging by states, redriving a dead-letter queue with filters.
\ir setup.psql
SELECT jobq.create_queue('steer', '{"max_attempts": 1, "dead_letter": "steer dead"}') AS x,
	jobq.create_queue('steer other') AS y,
	jobq.create_queue('steer plain', '{"backoff": {"base": "1 h", "jitter": 0}}') AS z \gset

-- ---- grace: every way to settle tells the worker ----

CREATE TEMP TABLE way (n int, call text);
INSERT INTO way SELECT row_number() OVER (), call FROM unnest(ARRAY['complete(%s, %s)', 'complete_many(''{%s}'', %s)',
	'fail(%s, %s)', 'release(%s, %s)', 'extend(%s, %s)', 'extend(%s, %s, progress => ''1'')',
	'settle_jobs(''[{"id": %s, "lease": %s, "do": "extend"}]'')',
	'complete_and_dequeue(''steer plain'', ''{%s}'', %s)']) call;
SELECT count(jobq.enqueue('steer plain', to_jsonb(n))) AS x FROM way \gset
CREATE TEMP TABLE held AS SELECT payload::int AS n, id, lease FROM jobq.dequeue('steer plain', 100);
SELECT is(bool_and(jobq.cancel(id, 'stop', '1 h')), true, 'cancelled with grace') FROM held;
SELECT is(pg_temp.try(format(call, id, lease)), 'JQ014', 'within its grace: ' || call) FROM held JOIN way USING (n) ORDER BY n;
SELECT is(pg_temp.try(format(call, id, lease)), 'JQ014', 'and again: ' || call) FROM held JOIN way USING (n) ORDER BY n;
SELECT is(count(*), (SELECT count(*) FROM held), 'all end cancelled, with that attempt')
	FROM held h, jobq.job(h.id) j, jobq.attempts(h.id) a
	WHERE (j.state, j.attempt, j.last_error, a.attempt, a.outcome) = ('cancelled', 1, 'stop', 1, 'cancelled');
DROP TABLE held;

-- those of a batch that were not cancelled go on
SELECT count(jobq.enqueue('steer plain', to_jsonb(n))) AS x FROM generate_series(1, 3) n \gset
CREATE TEMP TABLE held AS SELECT payload::int AS n, id, lease FROM jobq.dequeue('steer plain', 100);
SELECT ok(jobq.cancel(id, grace => '1 h'), 'one of three') FROM held WHERE n = 2;
SELECT results_eq('SELECT h.n, e.lease_expires_at IS NULL FROM jobq.extend_many((SELECT array_agg(id) FROM held), (SELECT max(lease) FROM held)) e
	JOIN held h USING (id) ORDER BY 1', $$VALUES (1, false), (2, true), (3, false)$$, 'it has no lease any more');
SELECT set_eq('SELECT unnest(jobq.complete_many((SELECT array_agg(id) FROM held), (SELECT max(lease) FROM held), ''skip''))',
	'SELECT id FROM held WHERE n <> 2', 'the others are completed');
DROP TABLE held;

-- a cancel that is undone leaves the lease as it was
SELECT jobq.enqueue('steer plain') AS a \gset
SELECT lease FROM jobq.dequeue('steer plain') \gset
BEGIN;
SELECT jobq.cancel(:a, grace => '1 h') AS x \gset
ROLLBACK;
SELECT is(pg_temp.try(format('extend(%s, %s)', :a, :lease)), 'ok', 'undone');
BEGIN;
SELECT jobq.cancel(:a) AS x \gset
ROLLBACK;
SELECT is(pg_temp.try(format('complete(%s, %s)', :a, :lease)), 'ok', 'undone without grace');

-- ---- purge by states ----

CREATE FUNCTION pg_temp.states() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n
		FROM jobq.jobs WHERE queue = 'steer plain' GROUP BY 1) t
$$;
-- to be failed, released for later (no attempt, so it is scheduled), held, and
-- rolled back
SELECT count(jobq.enqueue('steer plain', to_jsonb(n))) AS x FROM generate_series(1, 3) n \gset
CREATE TEMP TABLE held AS SELECT payload::int AS n, id, lease FROM jobq.dequeue('steer plain', 3);
SELECT jobq.fail(id, lease, 'x') AS x FROM held WHERE n = 1 \gset
SELECT jobq.release(id, lease, '1 h') AS x FROM held WHERE n = 2 \gset
SELECT jobq.enqueue('steer plain') AS rolled_back \gset
BEGIN;
SELECT count(*) AS x FROM jobq.dequeue('steer plain') \gset
ROLLBACK;
SELECT count(jobq.enqueue('steer plain')) AS x FROM generate_series(1, 5) \gset
SELECT count(jobq.enqueue('steer plain', delay => '1 h')) AS x FROM generate_series(1, 4) \gset
SELECT is(pg_temp.states(), 'available 5, retryable 2, running 1, scheduled 5', 'one of each and more');
SELECT is(jobq.purge_queue('steer plain', '{blocked}'), 0::bigint, 'none is blocked');
BEGIN;
SELECT jobq.purge_queue('steer plain') AS x \gset
SELECT pg_temp.states() AS within \gset
ROLLBACK;
SELECT is((:x, :'within')::text, '(12,"running 1")', 'all but the running one');
SELECT is(pg_temp.states(), 'available 5, retryable 2, running 1, scheduled 5', 'undone');
SELECT is(jobq.purge_queue('steer plain', '{retryable}'), 2::bigint, 'the retryable ones, one rolled back');
SELECT is((state, last_error, attempt)::text, '(cancelled,purged,1)', 'which counts') FROM jobq.job(:rolled_back);
SELECT is(jobq.purge_queue('steer plain', '{available}'), 5::bigint, 'the available ones');
SELECT is(pg_temp.states(), 'running 1, scheduled 5', 'are gone');
SELECT is(jobq.purge_queue('steer plain', NULL), 5::bigint, 'null: all that wait');
SELECT is(pg_temp.states(), 'running 1', 'are gone');
SELECT is(pg_temp.try(format('complete(%s, %s)', id, lease)), 'ok', 'the running one goes on') FROM held WHERE n = 3;
DROP TABLE held;

-- ---- redrive of a dead-letter queue, with filters ----

SELECT count(jobq.enqueue('steer', to_jsonb(n), kind => (ARRAY['a', 'b', NULL])[1 + n % 3])) AS x FROM generate_series(1, 12) n \gset
CREATE TEMP TABLE held AS SELECT payload::int AS n, id, lease FROM jobq.dequeue('steer', 12);
SELECT count(jobq.fail(id, lease)) AS x FROM held WHERE n <= 6 \gset
SELECT clock_timestamp() AS between \gset
SELECT count(jobq.fail(id, lease)) AS x FROM held WHERE n > 6 \gset
SELECT is(jobq.redrive('steer dead', kind => 'c'), 0::bigint, 'none of that kind');
SELECT is(jobq.redrive('steer dead', kind => ''), 0::bigint, 'nor of an empty one');
SELECT is(jobq.redrive('steer dead', died_after => clock_timestamp()), 0::bigint, 'none died since');
SELECT is(jobq.redrive('steer dead', kind => 'a', died_after => :'between'), 2::bigint, 'two of a kind that died later');
SELECT results_eq('SELECT j.payload::int, j.kind, j.attempt, j.retry_of = h.id FROM jobq.jobs j JOIN held h ON h.n = j.payload::int
	WHERE queue = ''steer'' ORDER BY 1', $$VALUES (9, 'a', 0, true), (12, 'a', 0, true)$$, 'these');
SELECT is(jobq.redrive('steer dead', 3, kind => 'b', to_queue => 'steer other'), 3::bigint, 'three of another kind, elsewhere');
SELECT is(jobq.redrive('steer dead', 3, 'steer other', 'b'), 1::bigint, 'the one that is left of it');
SELECT is(array_agg(payload::int ORDER BY id), array_agg(payload::int ORDER BY payload::int), 'the order in which they died is kept')
	FROM jobq.jobs WHERE queue = 'steer other' AND kind = 'b' AND payload::int < 10;

-- one is taken and stays, one was put back for later, one was taken and rolled back
SELECT is(array_agg(n ORDER BY n), '{2,3,5,6,8,11}', 'copies that are left') FROM jobq.jobs j, LATERAL (SELECT payload::int AS n) p
	WHERE queue = 'steer dead';
SELECT id AS taken, lease FROM jobq.dequeue('steer dead') \gset
SELECT id AS later, lease AS second FROM jobq.dequeue('steer dead') \gset
SELECT jobq.release(:later, :second, '1 h') AS x \gset
BEGIN;
SELECT count(*) AS x FROM jobq.dequeue('steer dead') \gset
ROLLBACK;
SELECT is(jobq.redrive('steer dead'), 5::bigint, 'all but the one that runs');
SELECT is(count(*), 1::bigint, 'which stays') FROM jobq.jobs WHERE queue = 'steer dead' AND state = 'running';
SELECT is((state, last_error)::text, '(cancelled,redriven)', 'a copy on the shelf has ended') FROM jobq.job(:later);
SELECT jobq.release(:taken, :lease) AS x \gset
SELECT is(jobq.redrive('steer dead'), 1::bigint, 'until it is given back');
SELECT is(count(*), 12::bigint, 'each ran again once') FROM jobq.jobs j JOIN held h ON j.retry_of = h.id;
SELECT is(pg_temp.try(format('retry(%s)', id)), 'JQ008', 'and not by retry') FROM held ORDER BY n LIMIT 2;

-- ---- option aging ----

SELECT is(pg_temp.try(format('alter_queue(''steer plain'', ''{"aging": %s}'')', value)), state, 'aging: ' || value)
	FROM (VALUES ('0.001', 'ok'), ('"365 days"', 'ok'), ('null', 'ok'), ('"1 min"', 'ok'), ('0', 'JQ007'),
		('0.0004', 'JQ007'), ('"-1 s"', 'JQ007'), ('"366 days"', 'JQ007'), ('"soon"', 'JQ007'), ('true', 'JQ007'),
		('{}', 'JQ007')) v (value, state);
SELECT is(options->>'aging', '1 min', 'shown as it was given') FROM jobq.queues WHERE queue = 'steer plain';

SELECT is(pg_temp.check_dispatch(), NULL, 'memory is consistent');
SELECT is((available, scheduled, retryable, running)::text,
	(SELECT (count(*) FILTER (WHERE state = 'available'), count(*) FILTER (WHERE state = 'scheduled'),
		count(*) FILTER (WHERE state = 'retryable'), count(*) FILTER (WHERE state = 'running'))::text
		FROM jobq.jobs j WHERE j.queue = s.queue), s.queue || ' is counted')
	FROM jobq.queue_stats s WHERE queue LIKE 'steer%' ORDER BY queue;
SELECT jobq.drop_queue('steer', true) AS w, jobq.drop_queue('steer dead', true) AS x,
	jobq.drop_queue('steer other', true) AS y, jobq.drop_queue('steer plain', true) AS z \gset
SELECT * FROM finish();
