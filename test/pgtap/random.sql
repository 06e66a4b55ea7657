-- Random calls in random nests of savepoints, by one session. After each
-- ROLLBACK TO everything is as it was (but for claims of committed jobs, which
-- count), a call succeeds exactly when the lease is the job's present one, and
-- after each transaction memory agrees with the tables and no job is lost or
-- there twice.
\ir setup.psql
SELECT jobq.create_queue('random dead', '{"backoff": {"base": "1 h", "jitter": 0}}') AS x, jobq.create_queue('random', '{"max_attempts": 3,
	"dead_letter": "random dead", "backoff": {"base": "1 h", "jitter": 0}}') AS y,
	jobq.create_queue('random plain', '{"max_attempts": 2, "backoff": {"base": "1 h", "jitter": 0}}') AS z \gset

-- What this session knows; rolled back with the calls.
CREATE TEMP TABLE known (id bigint PRIMARY KEY);
CREATE TEMP TABLE leased (id bigint, lease bigint, PRIMARY KEY (id, lease));
CREATE TEMP TABLE complaint (what text);

CREATE FUNCTION pg_temp.pick(words text[]) RETURNS text LANGUAGE sql VOLATILE
	AS $$SELECT words[1 + floor(random() * cardinality(words))::int]$$;

-- All jobs, one line each; and the number of running ones of each queue.
CREATE FUNCTION pg_temp.world() RETURNS TABLE (id bigint, state text, line text) LANGUAGE sql AS $$
	SELECT j.id, j.state, j::text || ' ' || coalesce((SELECT string_agg(a::text, ' ') FROM jobq.attempts(j.id) a), '')
		FROM (SELECT * FROM jobq.jobs UNION ALL SELECT * FROM jobq.history) j
		WHERE queue LIKE 'random%'
$$;

-- One random call. Raises what is wrong with it.
CREATE FUNCTION pg_temp.step() RETURNS void LANGUAGE plpgsql AS $$
<<step>>
DECLARE
	what text := pg_temp.pick('{enqueue,enqueue,enqueue,enqueue,many,later,dequeue,dequeue,dequeue,dequeue,dequeue,any,
		complete,complete,complete,complete,many_done,next,fail,fail,fail_now,fail_never,release,release_later,extend,extend,
		extend_many,settle,settle,cancel,cancel_grace,put_off,now,now,retry,redrive,redrive_plain,purge}');
	queue text := pg_temp.pick('{random,random,random plain,random dead}');
	job bigint;
	lease bigint;
	present boolean;
	got bigint[];
BEGIN
	SELECT l.id, l.lease INTO job, lease FROM leased l
		WHERE random() < 0.3 OR EXISTS (SELECT FROM jobq.jobs j WHERE j.id = l.id AND j.state = 'running')
		ORDER BY random() LIMIT 1;
	IF job IS NULL OR what IN ('cancel', 'put_off', 'now', 'retry') THEN
		lease := 0;
		job := (SELECT k.id FROM known k ORDER BY random() LIMIT 1);
	END IF;
	IF job IS NULL THEN
		what := 'enqueue';
		job := 0;
	END IF;
	present := EXISTS (SELECT FROM jobq.attempts(job) a WHERE a.lease = step.lease AND a.finished_at IS NULL
		AND a.outcome IS NULL);
	BEGIN
		CASE what
			WHEN 'enqueue' THEN
				INSERT INTO known VALUES (jobq.enqueue(queue, to_jsonb(random()), priority => floor(random() * 3)::int));
			WHEN 'many' THEN
				INSERT INTO known SELECT unnest(jobq.enqueue_many(queue, '{1,2,3}'));
			WHEN 'later' THEN
				INSERT INTO known VALUES (jobq.enqueue(queue, delay => '1 h'));
			WHEN 'dequeue' THEN
				INSERT INTO leased SELECT d.id, d.lease FROM jobq.dequeue(queue, 1 + floor(random() * 4)::int) d;
			WHEN 'any' THEN
				INSERT INTO leased SELECT d.id, d.lease FROM jobq.dequeue_any('{random dead,random plain,random}', 5) d;
			WHEN 'complete' THEN
				PERFORM jobq.complete(job, lease, '{"done": 1}');
			WHEN 'many_done' THEN
				got := jobq.complete_many((SELECT array_agg(l.id) FROM leased l WHERE l.lease = step.lease), lease, 'skip');
				IF present <> coalesce(job = ANY (got), false) THEN
					RAISE 'complete_many settled %, job % is leased: %', got, job, present;
				END IF;
			WHEN 'next' THEN
				INSERT INTO leased SELECT d.id, d.lease FROM jobq.complete_and_dequeue(queue, ARRAY[job], lease, 2) d;
			WHEN 'fail' THEN
				PERFORM jobq.fail(job, lease, 'an error');
			WHEN 'fail_now' THEN
				PERFORM jobq.fail(job, lease, 'an error', retry_in => '0');
			WHEN 'fail_never' THEN
				PERFORM jobq.fail(job, lease, 'an error', false);
			WHEN 'release' THEN
				PERFORM jobq.release(job, lease);
			WHEN 'release_later' THEN
				PERFORM jobq.release(job, lease, '1 h');
			WHEN 'extend' THEN
				PERFORM jobq.extend(job, lease, '1 h', to_jsonb(random()));
			WHEN 'extend_many' THEN
				PERFORM jobq.extend_many((SELECT array_agg(l.id) FROM leased l WHERE l.lease = step.lease), lease);
			WHEN 'settle' THEN
				PERFORM jobq.settle_jobs(jsonb_build_array(
					jsonb_build_object('id', job, 'lease', greatest(lease, 1), 'do', 'extend'),
					jsonb_build_object('id', job, 'lease', greatest(lease, 1), 'do', pg_temp.pick('{complete,fail,release}'))));
			WHEN 'cancel' THEN
				PERFORM jobq.cancel(job);
			WHEN 'cancel_grace' THEN
				PERFORM jobq.cancel(job, 'grace', '1 h');
			WHEN 'put_off' THEN
				PERFORM jobq.reschedule(job, clock_timestamp() + '1 h', 1);
			WHEN 'now' THEN
				PERFORM jobq.reschedule(job);
			WHEN 'retry' THEN
				INSERT INTO known VALUES (jobq.retry(job));
			WHEN 'redrive' THEN
				PERFORM jobq.redrive('random dead', 3);
			WHEN 'redrive_plain' THEN
				PERFORM jobq.redrive('random plain');
			WHEN 'purge' THEN
				IF random() < 0.2 THEN
					PERFORM jobq.purge_queue(queue, ARRAY[pg_temp.pick('{scheduled,available,retryable}')]);
				END IF;
		END CASE;
		IF NOT present AND what IN ('complete', 'next', 'fail', 'fail_now', 'fail_never', 'release', 'release_later',
				'extend', 'settle') THEN
			RAISE '% of job % with lease % succeeded', what, job, lease;
		END IF;
	EXCEPTION
		WHEN SQLSTATE 'JQ001' OR SQLSTATE 'JQ014' OR SQLSTATE 'JQ015' OR SQLSTATE 'JQ020' THEN
			IF present THEN
				RAISE '% of job % with its lease %: %', what, job, lease, SQLERRM;
			END IF;
		WHEN SQLSTATE 'JQ007' OR SQLSTATE 'JQ008' THEN
			IF what <> 'retry' THEN
				RAISE '% of job %: %', what, job, SQLERRM;
			END IF;
	END;
	INSERT INTO known SELECT w.id FROM pg_temp.world() w ON CONFLICT DO NOTHING;
END
$$;

CREATE FUNCTION pg_temp.walk(depth int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	difference text;
BEGIN
	FOR i IN 1..1 + floor(random() * 6)::int LOOP
		IF depth > 0 AND random() < 0.35 THEN
			CREATE TEMP TABLE IF NOT EXISTS before (depth int, id bigint, state text, line text);
			DELETE FROM before b WHERE b.depth = walk.depth;
			INSERT INTO before SELECT walk.depth, w.* FROM pg_temp.world() w;
			BEGIN
				PERFORM pg_temp.walk(depth - 1);
				IF random() < 0.5 THEN
					RAISE 'undo' USING ERRCODE = 'UNDO1';
				END IF;
			EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
				SELECT string_agg(format('[%s] [%s]', b.line, w.line), E'\n') INTO difference
					FROM (SELECT * FROM before b WHERE b.depth = walk.depth) b FULL JOIN pg_temp.world() w USING (id)
					WHERE b.line IS DISTINCT FROM w.line
					AND NOT coalesce(b.state IN ('available', 'retryable') AND w.line LIKE '%rolled_back%', false)
					-- a copy of one that died of it
					AND NOT coalesce(b.id IS NULL AND w.line LIKE '%rolled_back%' , false);
				IF difference IS NOT NULL THEN
					RAISE 'not undone: %', difference;
				END IF;
			END;
		ELSE
			PERFORM pg_temp.step();
		END IF;
	END LOOP;
END
$$;

-- After a transaction. Rolled-back claims are moved by the keeper any moment,
-- so what disagrees is looked at again.
CREATE FUNCTION pg_temp.audit() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	wrong text;
BEGIN
	FOR i IN 1..500 LOOP
		wrong := concat_ws('; ', pg_temp.check_dispatch(),
			(SELECT string_agg(format('%s counts %s, has %s', s.queue, (available, scheduled, retryable, running), n), ', ')
				FROM jobq.queue_stats s, LATERAL (SELECT (count(*) FILTER (WHERE state = 'available'),
					count(*) FILTER (WHERE state = 'scheduled'), count(*) FILTER (WHERE state = 'retryable'),
					count(*) FILTER (WHERE state = 'running'))::text AS n FROM jobq.jobs j WHERE j.queue = s.queue) x
				WHERE s.queue LIKE 'random%' AND (available, scheduled, retryable, running)::text <> n),
			(SELECT 'twice: ' || string_agg(id::text, ',') FROM (SELECT id FROM pg_temp.world() GROUP BY id HAVING count(*) > 1) x),
			(SELECT 'lost: ' || string_agg(id::text, ',') FROM known WHERE id NOT IN (SELECT id FROM pg_temp.world())),
			(SELECT 'conflict' FROM jobq.health() WHERE item = 'index_conflicts' AND status <> 'ok'));
		EXIT WHEN wrong = '';
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN wrong;
END
$$;

CREATE PROCEDURE pg_temp.run(seed float8, rounds int) LANGUAGE plpgsql AS $$
DECLARE
	wrong text;
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1..rounds LOOP
		BEGIN
			PERFORM pg_temp.walk(3);
			IF random() < 0.2 THEN
				RAISE 'undo' USING ERRCODE = 'UNDO1';
			END IF;
		EXCEPTION
			WHEN SQLSTATE 'UNDO1' THEN
				NULL;
			WHEN OTHERS THEN
				INSERT INTO complaint VALUES (format('round %s: %s', i, SQLERRM));
				RETURN;
		END;
		COMMIT;
		wrong := pg_temp.audit();
		IF wrong <> '' THEN
			INSERT INTO complaint VALUES (format('after round %s: %s', i, wrong));
			RETURN;
		END IF;
		COMMIT;
	END LOOP;
END
$$;
SELECT coalesce(nullif(current_setting('jobq_test.seed', true), ''), '0.42')::float8 AS seed \gset
CALL pg_temp.run(:seed, 40);
SELECT is((SELECT string_agg(what, E'\n') FROM complaint), NULL, 'random calls');
SELECT cmp_ok(count(DISTINCT outcome), '>=', 2::bigint, 'many outcomes') FROM known, jobq.attempts(id);
SELECT jobq.drop_queue(queue, true) AS x FROM jobq.queues WHERE queue LIKE 'random%' \g /dev/null
SELECT is_empty('SELECT FROM pg_temp.world()', 'nothing is left');
SELECT * FROM finish();
