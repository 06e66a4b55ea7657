-- What jobs, history, dead_jobs, queues, queue_stats, job() and attempts()
-- show, and to whom. No ids and no times in the output.
\set ON_ERROR_STOP 0
SET client_min_messages = warning;
CREATE ROLE look_reader;
CREATE ROLE look_producer;
CREATE ROLE look_worker;
CREATE ROLE look_monitor IN ROLE jobq_monitor;
CREATE ROLE look_admin IN ROLE jobq_admin;
CREATE ROLE look_stranger;
SELECT jobq.create_queue('looking',
	'{"backoff": {"base": "1 h", "factor": 1, "jitter": 0}, "max_attempts": 2}');
SELECT jobq.grant_queue('looking', 'look_reader', '{read}');
SELECT jobq.grant_queue('looking', 'look_producer', '{enqueue}');
SELECT jobq.grant_queue('looking', 'look_worker', '{dequeue}');

-- available and scheduled
SELECT jobq.enqueue('looking', '{"n": 1}', kind => 'first',
	headers => '{"h": 1}') AS first \gset
SET ROLE look_producer;
SELECT jobq.enqueue('looking', '{"n": 2}', priority => 5,
	delay => '1 day') AS later \gset
RESET ROLE;
SELECT queue, kind, state, is_final, priority, attempt, max_attempts, worker,
	payload, headers, enqueued_by = 'look_producer' AS of_producer,
	run_at > enqueued_at AS later, lease_expires_at, finished_at
FROM jobq.jobs WHERE queue = 'looking' ORDER BY id;
SELECT available, scheduled, retryable, running, completed_total,
	failed_total, dead_total, cancelled_total
FROM jobq.queue_stats WHERE queue = 'looking';

-- running, with progress
SELECT lease FROM jobq.dequeue('looking', worker => 'w1') \gset
SELECT state, is_final, attempt, worker, lease_expires_at > enqueued_at AS leased
FROM jobq.job(:first);
SELECT attempt, lease = :lease AS same_lease, worker, started_at IS NOT NULL AS started,
	finished_at, outcome, error
FROM jobq.attempts(:first);
SELECT jobq.extend(:first, :lease, progress => '{"done": 0.5}') IS NOT NULL AS extended;
SELECT state, progress FROM jobq.jobs WHERE id = :first;

-- failed: retryable, then dead
SELECT jobq.fail(:first, :lease, 'no luck');
SELECT state, attempt, worker, last_error, progress, run_at > enqueued_at AS later
FROM jobq.jobs WHERE id = :first;
SELECT attempt, worker, finished_at >= started_at AS finished, outcome, error
FROM jobq.attempts(:first);
SELECT jobq.reschedule(:first);
SELECT lease FROM jobq.dequeue('looking', worker => 'w2') \gset
SELECT state, attempt, worker, last_error FROM jobq.job(:first);
SELECT jobq.fail(:first, :lease, 'no luck again');
SELECT state, is_final, attempt, run_at, finished_at > enqueued_at AS finished,
	last_error, moved_to
FROM jobq.dead_jobs WHERE queue = 'looking';
SELECT state, attempt FROM jobq.history WHERE id = :first;
SELECT state, attempt FROM jobq.job(:first);
SELECT count(*) FROM jobq.jobs WHERE id = :first;
SELECT attempt, worker, finished_at >= started_at AS finished, outcome, error
FROM jobq.attempts(:first);
-- run again: not in dead_jobs any more, but still in history
SELECT jobq.retry(:first) AS again \gset
SELECT count(*) FROM jobq.dead_jobs WHERE id = :first;
SELECT state FROM jobq.history WHERE id = :first;
SELECT state, attempt, retry_of = :first AS points_back, last_error
FROM jobq.job(:again);

-- completed
SELECT lease FROM jobq.dequeue('looking', worker => 'w3') \gset
SELECT jobq.complete(:again, :lease, '{"sum": 3}');
SELECT state, is_final, attempt, worker, result, payload,
	finished_at > enqueued_at AS finished
FROM jobq.history WHERE id = :again;
SELECT attempt, worker, finished_at >= started_at AS finished, outcome, error
FROM jobq.attempts(:again);
SELECT count(*) FROM jobq.jobs WHERE id = :again;

-- released: not counted
SELECT jobq.enqueue('looking', '{"n": 3}') AS given_back \gset
SELECT lease FROM jobq.dequeue('looking', worker => 'w4') \gset
SELECT jobq.release(:given_back, :lease);
SELECT state, attempt FROM jobq.job(:given_back);
SELECT attempt, outcome FROM jobq.attempts(:given_back);

-- cancelled, while it waits and while it runs
SELECT jobq.cancel(:later, 'not wanted');
SELECT state, is_final, attempt, last_error FROM jobq.job(:later);
SELECT count(*) FROM jobq.attempts(:later);
SELECT lease FROM jobq.dequeue('looking', worker => 'w5') \gset
SELECT jobq.cancel(:given_back, 'too slow');
SELECT state, attempt, worker, last_error FROM jobq.job(:given_back);
SELECT attempt, worker, outcome, error FROM jobq.attempts(:given_back);

-- of the own transaction
BEGIN;
SELECT jobq.enqueue('looking', '{"n": 4}') AS own \gset
SELECT state, attempt FROM jobq.job(:own);
SELECT lease FROM jobq.dequeue('looking', worker => 'me') \gset
SELECT state, attempt, worker, lease_expires_at IS NOT NULL AS leased
FROM jobq.job(:own);
SELECT attempt, worker, outcome FROM jobq.attempts(:own);
SELECT jobq.complete(:own, :lease);
SELECT state, attempt FROM jobq.job(:own);
ROLLBACK;
SELECT count(*) FROM jobq.job(:own);

-- a claim rolled back counts
SELECT jobq.enqueue('looking', '{"n": 5}') AS undone \gset
BEGIN;
SELECT count(*) FROM jobq.dequeue('looking', worker => 'w6');
SELECT state, attempt, worker FROM jobq.job(:undone);
ROLLBACK;
SELECT state, attempt, worker FROM jobq.job(:undone);
SELECT attempt, worker, outcome FROM jobq.attempts(:undone);
-- the keeper puts it on the shelf
DO $$
BEGIN
	FOR i IN 1..1000 LOOP
		EXIT WHEN (SELECT bool_and(a.finished_at IS NOT NULL)
			FROM jobq.jobs j, jobq.attempts(j.id) a
			WHERE j.queue = 'looking' AND j.state = 'retryable');
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT state, attempt, worker FROM jobq.job(:undone);
SELECT attempt, worker, finished_at >= started_at AS finished, outcome
FROM jobq.attempts(:undone);

-- the present moment at every isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT jobq.cancel(:undone);
SELECT state FROM jobq.job(:undone);
SELECT count(*) FROM jobq.jobs WHERE id = :undone;
COMMIT;

-- with a dead-letter queue: the original is dead, the copy an ordinary job
SELECT jobq.create_queue('looking well',
	'{"dead_letter": "looking ill", "max_attempts": 1}');
SELECT jobq.enqueue('looking well', '{"n": 6}') AS ill \gset
SELECT lease FROM jobq.dequeue('looking well', worker => 'w7') \gset
SELECT jobq.fail(:ill, :lease, 'ill');
SELECT queue, state, moved_to IS NOT NULL AS moved, last_error FROM jobq.job(:ill);
SELECT c.queue, c.state, c.attempt, c.headers->'dead_letter'->'id' = to_jsonb(d.id) AS points_back
FROM jobq.dead_jobs d JOIN jobq.jobs c ON c.id = d.moved_to
WHERE d.id = :ill;
SELECT count(*) FROM jobq.dead_jobs WHERE queue LIKE 'looking %';

-- counts
SELECT queue, available, scheduled, retryable, running, completed_total,
	failed_total, dead_total, cancelled_total
FROM jobq.queue_stats WHERE queue LIKE 'looking%' ORDER BY queue COLLATE "C";
SELECT queue, id > 0 AS has_id, owner = current_user AS mine, paused,
	options->'max_attempts' AS max_attempts, created_at <= now() AS created
FROM jobq.queues WHERE queue LIKE 'looking%' ORDER BY queue COLLATE "C";

-- who sees what
CREATE FUNCTION pg_temp.seen() RETURNS TABLE (what text, n bigint)
LANGUAGE plpgsql AS $$
DECLARE
	source text;
BEGIN
	FOREACH source IN ARRAY '{jobs,history,dead_jobs,queues,queue_stats}'::text[] LOOP
		what := source;
		BEGIN
			EXECUTE format('SELECT count(*) FROM jobq.%I WHERE queue LIKE ''looking%%''', source) INTO n;
		EXCEPTION WHEN insufficient_privilege THEN
			n := NULL;
		END;
		RETURN NEXT;
	END LOOP;
END $$;
GRANT USAGE ON SCHEMA jobq TO look_stranger;
SET ROLE look_admin;
SELECT * FROM pg_temp.seen();
SET ROLE look_monitor;
SELECT * FROM pg_temp.seen();
SET ROLE look_reader;
SELECT * FROM pg_temp.seen();
SELECT state FROM jobq.job(:first);
SELECT count(*) FROM jobq.attempts(:first);
SELECT count(*) FROM jobq.job(:ill);
SELECT count(*) FROM jobq.attempts(:ill);
SELECT count(*) FROM jobq.health();
SET ROLE look_producer;
SELECT * FROM pg_temp.seen();
SELECT state FROM jobq.job(:later);
SELECT count(*) FROM jobq.job(:first);
SELECT count(*) FROM jobq.attempts(:first);
SET ROLE look_worker;
SELECT * FROM pg_temp.seen();
SET ROLE look_stranger;
SELECT * FROM pg_temp.seen();
SELECT count(*) FROM jobq.job(:first);
RESET ROLE;

-- ids that are none
\set VERBOSITY sqlstate
SELECT * FROM jobq.job(NULL);
SELECT * FROM jobq.attempts(NULL);
\set VERBOSITY default
SELECT count(*) FROM jobq.job(0);
SELECT count(*) FROM jobq.attempts(0);
SELECT count(*) FROM jobq.job(-1);
SELECT count(*) FROM jobq.job(9223372036854775807);
SELECT count(*) FROM jobq.attempts(9223372036854775807);
PREPARE look AS SELECT state FROM jobq.job($1);
EXECUTE look(:later);
PREPARE look_int (int) AS SELECT count(*) FROM jobq.attempts($1);
EXECUTE look_int(0);

-- health
SET ROLE look_monitor;
SELECT item, status FROM jobq.health()
WHERE item = ANY ('{launcher,keeper,live_jobs,index_conflicts,publications}')
ORDER BY item;
RESET ROLE;
SET client_min_messages = error;
CREATE PUBLICATION look_all FOR ALL TABLES;
SET client_min_messages = warning;
SELECT item, status, detail FROM jobq.health() WHERE item = 'publications';
DROP PUBLICATION look_all;

SELECT jobq.drop_queue('looking well', force => true);
SELECT jobq.drop_queue('looking ill', force => true);
SELECT jobq.drop_queue('looking', force => true);
SELECT count(*) FROM jobq.history WHERE queue LIKE 'looking%';
REVOKE ALL ON SCHEMA jobq FROM look_stranger;
DROP OWNED BY look_reader, look_producer, look_worker,
	look_monitor, look_admin, look_stranger;
DROP ROLE look_reader, look_producer, look_worker, look_monitor,
	look_admin, look_stranger;
