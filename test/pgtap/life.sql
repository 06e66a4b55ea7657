-- The life of a job: the same story, first with each call in a transaction of
-- its own, then all of it in one transaction, where nothing is committed and
-- shared memory knows none of the jobs.
\set QUIET 1
SET client_min_messages = warning;
SELECT no_plan();

-- The SQLSTATE of a call, 'ok' when there is none; as a function so that the
-- surrounding transaction goes on.
CREATE FUNCTION pg_temp.try(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT jobq.' || call;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

-- What a worker can call for a job; all must fail alike and change nothing.
CREATE FUNCTION pg_temp.refused(job bigint, lease bigint, state text, what text)
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before jobq.job_info := (SELECT j FROM jobq.job(job) j);
	attempts text := (SELECT string_agg(a::text, ' ') FROM jobq.attempts(job) a);
	wrong text := '';
	got text;
	call text;
BEGIN
	FOREACH call IN ARRAY ARRAY['complete(%1$s, %2$s)',
		'complete(%1$s, %2$s, ''{"late": true}'')', 'fail(%1$s, %2$s, ''late'')',
		'fail(%1$s, %2$s, NULL, false)', 'release(%1$s, %2$s)',
		'release(%1$s, %2$s, ''1 h'')', 'extend(%1$s, %2$s)',
		'complete_many(ARRAY[%1$s], %2$s)',
		'complete_and_dequeue(''life'', ARRAY[%1$s], %2$s)',
		'settle_jobs(''[{"id": %1$s, "lease": %2$s, "do": "complete"}]'')',
		'settle_jobs(''[{"id": %1$s, "lease": %2$s, "do": "extend"}]'')']
	LOOP
		got := pg_temp.try(format(call, job, lease));
		IF got <> state THEN
			wrong := wrong || format(call, job, lease) || ': ' || got || '; ';
		END IF;
	END LOOP;
	IF jobq.complete_many(ARRAY[job], lease, 'skip') <> '{}' THEN
		wrong := wrong || 'complete_many with skip; ';
	END IF;
	IF EXISTS (SELECT FROM jobq.extend_many(ARRAY[job], lease)
			WHERE lease_expires_at IS NOT NULL) THEN
		wrong := wrong || 'extend_many; ';
	END IF;
	IF (SELECT j FROM jobq.job(job) j) IS DISTINCT FROM before
		OR (SELECT string_agg(a::text, ' ') FROM jobq.attempts(job) a)
			IS DISTINCT FROM attempts THEN
		wrong := wrong || 'something has changed';
	END IF;
	RETURN is(wrong, '', what || ' ' || state);
END
$$;

\set in ' (committed)'
\ir life.psql

\set in ' (uncommitted)'
BEGIN;
\ir life.psql
ROLLBACK;
SELECT is_empty('SELECT FROM jobq.queues WHERE queue LIKE ''life%''',
	'nothing is left of a transaction rolled back');

SELECT * FROM finish();
