-- Savepoints and blocks with exceptions: what ROLLBACK TO undoes, for jobs that
-- are committed and for those of the transaction itself. Results are compared
-- after the transactions, so that no test is rolled back.
\ir setup.psql

-- Memory is consistent and counts what the tables hold.
CREATE FUNCTION pg_temp.sound(what text) RETURNS text LANGUAGE sql AS $$
	SELECT is(coalesce(pg_temp.check_dispatch(), 'sound') || ' ' ||
		(SELECT (available, scheduled, retryable, running)::text
			FROM jobq.queue_stats WHERE queue = 'sp'),
		'sound ' || (SELECT (count(*) FILTER (WHERE state = 'available'),
			count(*) FILTER (WHERE state = 'scheduled'),
			count(*) FILTER (WHERE state = 'retryable'),
			count(*) FILTER (WHERE state = 'running'))::text
			FROM jobq.jobs WHERE queue = 'sp'), what || ': sound')
$$;

SELECT jobq.create_queue('sp', '{"max_attempts": 3,
	"backoff": {"base": "1 h", "factor": 1, "jitter": 0}}') AS x \gset

-- ---- enqueue ----

BEGIN;
SELECT jobq.enqueue('sp', '"a"') AS a \gset
SAVEPOINT one;
SELECT jobq.enqueue('sp', '"b"') AS b \gset
SAVEPOINT two;
SELECT jobq.enqueue('sp', '"c"') AS c, jobq.enqueue_many('sp', '{1,2,3}') AS cs, jobq.enqueue('sp', '"l"', delay => '1 h') AS l \gset
ROLLBACK TO two;
SELECT jobq.enqueue('sp', '"d"') AS d \gset
SAVEPOINT three;
SELECT jobq.enqueue('sp', '"e"', priority => -1) AS e \gset
RELEASE three;
ROLLBACK TO two;
RELEASE one;
SAVEPOINT four;
SELECT jobq.enqueue('sp', '"f"', priority => -2) AS f \gset
RELEASE four;
SELECT array_agg(payload ->> 0 ORDER BY id) AS own FROM jobq.jobs WHERE queue = 'sp' \gset
COMMIT;
SELECT is(:'own'::text[], '{a,b,f}', 'seen by the transaction: what was not rolled back');
SELECT is(array_agg(payload ->> 0), '{f,a,b}', 'and by others') FROM jobq.peek('sp');
SELECT is(pg_temp.try(format('cancel(%s)', :c)), 'JQ020', 'the others never were');
SELECT ok(:b > :a AND :f > :e AND :e > :d AND :d > :c, 'numbers go on');
SELECT pg_temp.sound('enqueue');
BEGIN;
SELECT jobq.enqueue('sp') AS x \gset
ROLLBACK;
SELECT is(count(*), 0::bigint, 'ROLLBACK') FROM jobq.job(:x);
BEGIN;
SELECT jobq.enqueue('sp') AS x \gset
SAVEPOINT a;
SELECT jobq.enqueue('sp') AS y \gset
ROLLBACK;
SELECT is(count(*), 0::bigint, 'ROLLBACK with an open savepoint')
	FROM unnest(ARRAY[:x, :y]) i, jobq.job(i);
BEGIN;
SAVEPOINT a;
SELECT jobq.enqueue('sp') AS y \gset
ROLLBACK TO a;
COMMIT;
SELECT jobq.enqueue('sp', '"after"') AS x \gset
SELECT is(state, 'available', 'the next transaction is not disturbed') FROM jobq.job(:x);
SELECT is(jobq.purge_queue('sp'), 4::bigint, 'purged');
SELECT pg_temp.sound('purge');

-- ---- dequeue ----

SELECT jobq.enqueue_many('sp', '{1,2}') AS ids \gset
SELECT (:'ids'::bigint[])[1] AS a, (:'ids'::bigint[])[2] AS b \gset
BEGIN;
SAVEPOINT one;
SELECT lease FROM jobq.dequeue('sp', worker => 'w') \gset
SELECT state AS before FROM jobq.job(:a) \gset
ROLLBACK TO one;
SELECT state AS after FROM jobq.job(:a) \gset
SELECT pg_temp.try(format('complete(%s, %s)', :a, :lease)) AS tried \gset
SELECT count(*) FILTER (WHERE id = :a) AS again, count(*) FILTER (WHERE id = :b) AS other,
	max(lease) AS lease_b FROM jobq.dequeue('sp', 5) \gset
SELECT jobq.complete(:b, :lease_b) AS x \gset
COMMIT;
SELECT is(:'before'::text, 'running', 'it ran');
SELECT is(:'after'::text, 'retryable', 'a dequeue rolled back returns its job as retryable');
SELECT is(:'tried'::text, 'JQ001', 'its lease is void');
SELECT is((:again, :other), (0, 1), 'it waits, the others do not');
CALL pg_temp.await(format('EXISTS (SELECT FROM jobq.attempts(%s) WHERE finished_at IS NOT NULL)', :a));
SELECT is((state, attempt, worker, run_at - clock_timestamp() BETWEEN '59 min' AND '1 h')::text,
	'(retryable,1,,t)', 'the attempt counts, it waits for its backoff') FROM jobq.job(:a);
SELECT is(string_agg((attempt, lease = :lease, worker, outcome)::text, ''), '(1,t,w,rolled_back)', 'rolled_back')
	FROM jobq.attempts(:a);
SELECT is(state, 'completed', 'the other one is completed') FROM jobq.job(:b);
SELECT is(pg_temp.try(format('complete(%s, %s)', :a, :lease)), 'JQ001', 'still void');
SELECT pg_temp.sound('dequeue');

-- three times is max_attempts
SELECT jobq.reschedule(:a) AS x \gset
BEGIN;
SELECT lease FROM jobq.dequeue('sp') \gset
ROLLBACK;
CALL pg_temp.await(format('(SELECT count(*) = 2 FROM jobq.attempts(%s) WHERE finished_at IS NOT NULL)', :a));
SELECT jobq.reschedule(:a) AS x \gset
DO $$
BEGIN
	PERFORM jobq.dequeue('sp');
	RAISE 'poison';
EXCEPTION WHEN raise_exception THEN
	NULL;
END
$$;
CALL pg_temp.await(format('(SELECT is_final FROM jobq.job(%s))', :a));
SELECT is((state, attempt)::text, '(dead,3)', 'rolled back max_attempts times: dead') FROM jobq.job(:a);
SELECT is(string_agg(attempt || outcome, ' '), '1rolled_back 2rolled_back 3rolled_back', 'so') FROM jobq.attempts(:a);
SELECT is(jobq.redrive('sp'), 1::bigint, 'redriven');
SELECT is(jobq.purge_queue('sp'), 1::bigint, 'purged');

-- own jobs are just restored
BEGIN;
SELECT jobq.enqueue('sp', '1') AS a \gset
SAVEPOINT one;
SELECT lease AS one FROM jobq.dequeue('sp') \gset
ROLLBACK TO one;
SELECT (state, attempt) AS after FROM jobq.job(:a) \gset
SELECT pg_temp.try(format('complete(%s, %s)', :a, :one)) AS tried \gset
SAVEPOINT two;
SELECT id AS got, lease AS two, attempt FROM jobq.dequeue('sp') \gset
RELEASE two;
SELECT jobq.complete(:a, :two) AS x \gset
COMMIT;
SELECT is(:'after'::text, '(available,0)', 'an own job is restored');
SELECT is(:'tried'::text, 'JQ001', 'without its lease');
SELECT is((:got::bigint, :two > :one, :attempt), (:a::bigint, true, 1), 'delivered again, as the first attempt');
SELECT is((state, attempt)::text, '(completed,1)', 'completed') FROM jobq.job(:a);
SELECT pg_temp.sound('own dequeue');

-- an own job that stays leased at commit
BEGIN;
SELECT jobq.enqueue('sp', '1') AS a \gset
SELECT lease FROM jobq.dequeue('sp', worker => 'me') \gset
COMMIT;
SELECT is((state, attempt, worker)::text, '(running,1,me)', 'runs on after the commit') FROM jobq.job(:a);
SELECT is(pg_temp.try(format('complete(%s, %s)', :a, :lease)), 'ok', 'and is completed with its lease');

-- ---- settling and steering, undone ----

-- For committed jobs and own ones: each call is undone and the lease good.
CREATE FUNCTION pg_temp.undo(call text, job bigint, lease bigint) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	before text := (SELECT j::text FROM jobq.job(job) j);
	attempts text := (SELECT string_agg(a::text, ' ') FROM jobq.attempts(job) a);
	inside text;
BEGIN
	BEGIN
		EXECUTE format(call, job, lease);
		inside := (SELECT j::text FROM jobq.job(job) j);
		RAISE 'undo';
	EXCEPTION WHEN raise_exception THEN
		IF (SELECT j::text FROM jobq.job(job) j) IS DISTINCT FROM before THEN
			RETURN 'not undone';
		ELSIF (SELECT string_agg(a::text, ' ') FROM jobq.attempts(job) a) IS DISTINCT FROM attempts THEN
			RETURN 'attempts not undone';
		END IF;
		RETURN CASE WHEN inside IS DISTINCT FROM before THEN 'undone' ELSE 'did nothing' END;
	END;
END
$$;
CREATE TEMP TABLE undone (call text, place text, result text, at_end text);
CREATE TEMP TABLE calls (call text);
INSERT INTO calls VALUES
	('SELECT jobq.complete(%1$s, %2$s)'),
	('SELECT jobq.complete(%1$s, %2$s, ''{}'')'),
	('SELECT jobq.complete_many(ARRAY[%1$s], %2$s)'),
	('SELECT jobq.complete_and_dequeue(''sp'', ARRAY[%1$s], %2$s)'),
	('SELECT jobq.fail(%1$s, %2$s, ''e'')'),
	('SELECT jobq.fail(%1$s, %2$s, ''e'', retry_in => ''0'')'),
	('SELECT jobq.fail(%1$s, %2$s, ''e'', retry => false)'),
	('SELECT jobq.release(%1$s, %2$s)'),
	('SELECT jobq.release(%1$s, %2$s, ''1 h'')'),
	('SELECT jobq.release(%1$s, %2$s), (SELECT count(*) FROM jobq.dequeue(''sp''))'),
	('SELECT jobq.cancel(%1$s), %2$s'),
	('SELECT jobq.cancel(%1$s, ''r'', ''1 h''), %2$s'),
	('SELECT jobq.extend(%1$s, %2$s, ''1 day'', ''{"p": 2}'')'),
	('SELECT jobq.extend(%1$s, %2$s, ''1 day''), jobq.extend(%1$s, %2$s, ''2 days'', ''{"p": 2}'')'),
	('SELECT jobq.extend(%1$s, %2$s, ''1 day''), jobq.complete(%1$s, %2$s)'),
	('SELECT jobq.extend(%1$s, %2$s, progress => ''{"p": 2}''), jobq.fail(%1$s, %2$s)'),
	('SELECT jobq.extend_many(ARRAY[%1$s], %2$s, ''1 day'')'),
	('SELECT jobq.fail(%1$s, %2$s), jobq.cancel(%1$s)'),
	('SELECT jobq.fail(%1$s, %2$s), jobq.reschedule(%1$s)'),
	('SELECT jobq.fail(%1$s, %2$s), jobq.reschedule(%1$s), jobq.cancel(%1$s)'),
	('SELECT jobq.fail(%1$s, %2$s, retry => false), jobq.retry(%1$s)'),
	('SELECT jobq.fail(%1$s, %2$s, retry => false), jobq.redrive(''sp''), jobq.purge_queue(''sp'')'),
	('SELECT jobq.drop_queue(''sp'', true), %1$s, %2$s');
CREATE PROCEDURE pg_temp.undo_all(committed boolean, extended boolean) LANGUAGE plpgsql AS $$
DECLARE
	one text;
	a bigint;
	b bigint;
	result text;
	again text;
BEGIN
	FOR one IN SELECT call FROM calls LOOP
		a := jobq.enqueue('sp', '1');
		IF committed THEN
			COMMIT;
		END IF;
		b := (SELECT lease FROM jobq.dequeue('sp'));
		IF extended THEN
			PERFORM jobq.extend(a, b, '2 h', '{"p": 1}');
		END IF;
		IF committed THEN
			COMMIT;
		END IF;
		result := pg_temp.undo(one, a, b);
		again := pg_temp.undo(one, a, b);
		IF extended THEN
			-- also in a transaction that has extended the lease itself
			PERFORM jobq.extend(a, b, progress => '{"p": 3}');
			result := result || ', ' || pg_temp.undo(one, a, b);
		END IF;
		PERFORM jobq.complete(a, b);
		COMMIT;
		INSERT INTO undone VALUES (one, CASE WHEN committed THEN 'committed' ELSE 'own' END
			|| CASE WHEN extended THEN ', extended' ELSE '' END,
			result || ', ' || again,
			(SELECT (state, attempt, progress)::text FROM jobq.job(a)));
	END LOOP;
END
$$;
CALL pg_temp.undo_all(true, false);
CALL pg_temp.undo_all(false, false);
CALL pg_temp.undo_all(true, true);
CALL pg_temp.undo_all(false, true);
SELECT is(result, CASE WHEN place LIKE '%, extended' THEN 'undone, undone, undone' ELSE 'undone, undone' END, place || ': ' || call)
	FROM undone;
SELECT is(at_end, CASE WHEN place LIKE '%, extended' THEN '(completed,1,"{""p"": 3}")' ELSE '(completed,1,)' END,
	place || ', in the end: ' || call) FROM undone;
SELECT pg_temp.sound('undone');

-- waiting jobs
SELECT jobq.enqueue('sp', '1') AS a, jobq.enqueue('sp', '2', delay => '1 h') AS b \gset
SELECT is(pg_temp.undo(call, job, 0), 'undone', call) FROM unnest(ARRAY[:a, :b]) job,
	unnest(ARRAY['SELECT jobq.cancel(%1$s)', 'SELECT jobq.reschedule(%1$s, now() + ''2 h'')',
		'SELECT jobq.reschedule(%1$s, priority => 5)', 'SELECT jobq.purge_queue(''sp'')',
		'SELECT jobq.reschedule(%1$s), jobq.reschedule(%1$s, now() + ''2 h''), jobq.cancel(%1$s)']) call;
SELECT pg_temp.sound('waiting');
SELECT is(array_agg(id), ARRAY[:a::bigint], 'delivered after all') FROM jobq.dequeue('sp', 5);
SELECT jobq.cancel(:a) AS x, jobq.cancel(:b) AS y \gset

-- redrive and retry: not twice, but again when undone
SELECT jobq.enqueue('sp', '1') AS a \gset
SELECT jobq.fail(id, lease, 'e', false) AS x FROM jobq.dequeue('sp') \gset
BEGIN;
SAVEPOINT one;
SELECT jobq.redrive('sp') AS one \gset
ROLLBACK TO one;
SELECT jobq.retry(:a) AS again \gset
ROLLBACK TO one;
SELECT jobq.redrive('sp') AS two, jobq.redrive('sp') AS three \gset
COMMIT;
SELECT is((:one, :two, :three), (1, 1, 0), 'redriven once, those undone aside');
SELECT is(count(*), 1::bigint, 'one new job') FROM jobq.jobs WHERE retry_of = :a;
SELECT is(jobq.purge_queue('sp'), 1::bigint, 'purged');

-- ---- deep and many ----

-- a claim outside, settled and undone inside, then all undone
SELECT jobq.enqueue('sp', '1') AS a \gset
BEGIN;
SELECT lease FROM jobq.dequeue('sp') \gset
SAVEPOINT one;
SELECT jobq.complete(:a, :lease) AS x \gset
SAVEPOINT two;
SELECT pg_temp.try(format('complete(%s, %s)', :a, :lease)) AS inside \gset
ROLLBACK TO one;
SELECT pg_temp.try(format('extend(%s, %s)', :a, :lease)) AS outside \gset
ROLLBACK;
SELECT is(:'inside'::text, 'JQ015', 'completed inside');
SELECT is(:'outside'::text, 'ok', 'not so outside');
CALL pg_temp.await(format('EXISTS (SELECT FROM jobq.attempts(%s) WHERE finished_at IS NOT NULL)', :a));
SELECT is((state, attempt)::text, '(retryable,1)', 'and rolled back in the end') FROM jobq.job(:a);
SELECT is(jobq.purge_queue('sp'), 1::bigint, 'purged');

-- 200 levels, every other one rolled back
DO $$
DECLARE
	dive text := 'SELECT 1';
BEGIN
	CREATE FUNCTION pg_temp.dive(depth int) RETURNS void LANGUAGE plpgsql AS $f$
	BEGIN
		IF depth = 0 THEN
			RETURN;
		END IF;
		PERFORM jobq.enqueue('sp', to_jsonb(depth), priority => -depth / 2);
		BEGIN
			PERFORM jobq.enqueue('sp', to_jsonb(-depth), priority => -100);
			PERFORM jobq.complete(id, lease) FROM jobq.dequeue('sp', 3);
			PERFORM pg_temp.dive(depth - 1);
			IF depth % 2 = 0 THEN
				RAISE 'undo';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END $f$;
	PERFORM pg_temp.dive(199);
END
$$;
SELECT is(array_agg(payload ORDER BY id), '{198}', 'what is left of 199 levels') FROM jobq.jobs WHERE queue = 'sp';
SELECT is(count(*), 2::bigint, 'and what was completed') FROM jobq.history
	WHERE queue = 'sp' AND (payload = '199' OR payload = '-199');
SELECT pg_temp.sound('deep');
SELECT is(jobq.purge_queue('sp'), 1::bigint, 'purged');

-- errors of our own functions caught, many times in one transaction
DO $$
BEGIN
	FOR i IN 1..2000 LOOP
		BEGIN
			PERFORM jobq.complete(0, 1);
		EXCEPTION WHEN SQLSTATE 'JQ020' THEN
			NULL;
		END;
		BEGIN
			PERFORM jobq.enqueue('sp', delay => '-1 s');
		EXCEPTION WHEN SQLSTATE 'JQ007' THEN
			NULL;
		END;
	END LOOP;
	PERFORM jobq.enqueue('sp', '"kept"');
END
$$;
SELECT is(array_agg(payload ->> 0), '{kept}', 'errors caught leave the rest as it is') FROM jobq.peek('sp');
SELECT is(pg_temp.try('purge_queue(''sp'')'), 'ok', 'purged');
SELECT pg_temp.sound('in the end');
SELECT is(jobq.drop_queue('sp')::text, '', 'dropped');

SELECT * FROM finish();
