-- The delay before the next run: growth, floor, cap and jitter as documented,
-- also after 10,000 attempts. Times in seconds.
\set QUIET 1
BEGIN;
SET client_min_messages = warning;
SELECT no_plan();
CREATE FUNCTION pg_temp.backoff_us(base bigint, factor float8, cap bigint, jitter float8, attempt int)
	RETURNS bigint AS '$libdir/pg_jobq', 'jobq_test_backoff' LANGUAGE c VOLATILE STRICT;
CREATE FUNCTION pg_temp.backoff(base numeric, factor float8, cap numeric, jitter float8, attempt int)
	RETURNS numeric LANGUAGE sql AS
	$$SELECT pg_temp.backoff_us((base * 1000000)::bigint, factor, (cap * 1000000)::bigint, jitter, attempt) / 1000000.0$$;

-- without jitter it is exact
SELECT is(pg_temp.backoff(base, factor, cap, 0, attempt), wanted,
		format('base %s, factor %s, cap %s, attempt %s', base, factor, cap, attempt))
	FROM (VALUES
		(5.0, 2, 3600.0, 1, 5.0), (5, 2, 3600, 2, 10), (5, 2, 3600, 3, 20),
		(5, 2, 3600, 10, 2560), (5, 2, 3600, 11, 3600),
		(5, 2, 3600, 10000, 3600), (5, 2, 3600, 1000000, 3600),
		(5, 2, 3600, 2147483647, 3600),
		(5, 1, 3600, 1, 5), (5, 1, 3600, 10000, 5),
		(5, 1000, 31536000, 10000, 31536000),
		(31536000, 1000, 31536000, 2147483647, 31536000),
		(1, 1.5, 100, 2, 1.5), (1, 1.5, 100, 3, 2.25),
		-- the floor is 1 s, unless base is 0
		(0.000001, 1, 3600, 1, 1), (0.2, 2, 3600, 1, 1), (0.2, 2, 3600, 3, 1),
		(0.2, 2, 3600, 4, 1.6), (0.5, 1, 1, 10000, 1),
		(0, 2, 3600, 1, 0), (0, 2, 3600, 10000, 0), (0, 1, 0, 1, 0))
	v (base, factor, cap, attempt, wanted);

-- with jitter it stays within both its range and [1 s, cap], and is spread
CREATE TEMP TABLE run AS
	SELECT v.*, pg_temp.backoff(base, 2, cap, jitter, attempt) AS delay,
		least(greatest(base * power(2, attempt - 1), 0), cap) AS middle
	FROM (VALUES (5.0, 3600.0, 0.1, 1), (5, 3600, 0.1, 2), (5, 3600, 0.5, 5), (5, 3600, 1, 1),
		(5, 3600, 0.1, 20), (1, 3600, 1, 1), (100, 100, 1, 1)) v (base, cap, jitter, attempt),
		generate_series(1, 2000);
SELECT ok(bool_and(delay >= greatest(1, floor(middle * (1 - jitter))) AND delay <= least(cap, ceil(middle * (1 + jitter)))),
		format('jitter %s of %s s, cap %s: in its range', jitter, middle, cap))
	FROM run GROUP BY base, cap, jitter, attempt, middle;
SELECT ok(max(delay) - min(delay) > 0.9 * (least(cap, middle * (1 + jitter)) - greatest(1, middle * (1 - jitter))),
		format('jitter %s of %s s, cap %s: all of it', jitter, middle, cap))
	FROM run GROUP BY base, cap, jitter, attempt, middle;
SELECT ok(abs(avg(delay) - 5) < 0.05, 'the mean is the delay without jitter')
	FROM run WHERE base = 5 AND jitter = 0.1 AND attempt = 1;
SELECT ok(bool_and(delay BETWEEN 1 AND 3600), 'at attempt 10,000, all jitter')
	FROM (SELECT pg_temp.backoff(5, 2, 3600, 1, 10000) AS delay FROM generate_series(1, 2000)) x;

-- and a job that fails gets it
SELECT jobq.create_queue('backoff', '{"backoff": {"base": 7, "factor": 3, "cap": 60, "jitter": 0}, "max_attempts": 5}') \g /dev/null
SELECT jobq.enqueue('backoff') AS id \gset
CREATE FUNCTION pg_temp.fail_once(id bigint) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	result text;
	delay numeric;
BEGIN
	PERFORM jobq.reschedule(id);
	result := jobq.fail(id, (SELECT lease FROM jobq.dequeue('backoff')));
	RETURN (SELECT round(extract(epoch FROM run_at - clock_timestamp())) FROM jobq.job(id));
END
$$;
SELECT is(pg_temp.fail_once(:id), wanted, format('after attempt %s', n))
	FROM (VALUES (1, 7::numeric), (2, 21), (3, 60), (4, 60), (5, NULL)) v (n, wanted);

-- defaults: 5 s, doubled, an hour at most, 10 % jitter
SELECT jobq.create_queue('backoff default') \g /dev/null
SELECT jobq.enqueue('backoff default') AS id \gset
SELECT jobq.fail(id, lease) FROM jobq.dequeue('backoff default') \g /dev/null
SELECT ok(run_at - clock_timestamp() BETWEEN '4.3 s' AND '5.5 s', 'the default') FROM jobq.job(:id);

SELECT * FROM finish();
ROLLBACK;
