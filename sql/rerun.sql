-- A dead job is run again at most once, whether as the original or as the copy
-- in the dead-letter queue, and headers cannot pretend to be an origin.
\set VERBOSITY terse
SELECT jobq.create_queue('work', '{"max_attempts": 1, "dead_letter": "graves"}');
SELECT jobq.alter_queue('graves', '{"max_attempts": 1}');

CREATE PROCEDURE fail_one(queue text, error text) LANGUAGE sql AS
$$ SELECT jobq.fail(id, lease, error) FROM jobq.dequeue(queue) $$;
CREATE FUNCTION fresh(queue text) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM jobq.jobs j WHERE j.queue = fresh.queue $$;
CREATE FUNCTION try(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE answer text;
BEGIN EXECUTE command INTO answer; RETURN 'ok';
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;

-- original dead, copy waits: retry of the original ends the copy
SELECT jobq.enqueue('work', '"a"') AS a \gset
CALL fail_one('work', 'first');
SELECT fresh('work') AS work, fresh('graves') AS graves;
SELECT jobq.retry(:a) > 0 AS retried;
SELECT fresh('work') AS work, fresh('graves') AS graves;
SELECT try(format('SELECT jobq.retry(%s)', :a));
SELECT jobq.redrive('graves');
SELECT jobq.purge_queue('work');

-- original dead, copy dead too: one of the two
SELECT jobq.enqueue('work', '"b"') AS b \gset
CALL fail_one('work', 'first');
CALL fail_one('graves', 'second');
SELECT payload, last_error, queue FROM jobq.dead_jobs ORDER BY id;
SELECT jobq.retry(:b) > 0 AS retried;
SELECT jobq.redrive('graves');
SELECT fresh('work') AS work, fresh('graves') AS graves;
SELECT jobq.purge_queue('work');

-- the same the other way round
SELECT jobq.enqueue('work', '"c"') AS c \gset
CALL fail_one('work', 'first');
CALL fail_one('graves', 'second');
SELECT jobq.redrive('graves');
SELECT try(format('SELECT jobq.retry(%s)', :c));
SELECT fresh('work') AS work, fresh('graves') AS graves;

-- nobody can make up an origin
SELECT try($$SELECT jobq.enqueue('graves', '1', headers => '{"dead_letter": {"id": 1, "queue": "work"}}')$$);
SELECT try($$SELECT jobq.enqueue_many('graves', '{1}', headers => '{"dead_letter": {"id": 1e300}}')$$);

-- what does not go together in settle_jobs is refused, and nothing happens
SELECT jobq.enqueue('work', '"d"') > 0 AS enqueued;
SELECT id, lease FROM jobq.dequeue('work') \gset
SELECT try(format('SELECT * FROM jobq.settle_jobs(''[{"id": %s, "lease": %s, "do": "release", "result": 1}]'')', :id, :lease));
SELECT try(format('SELECT * FROM jobq.settle_jobs(''[{"id": %s, "lease": %s, "do": "complete", "retry": false}]'')', :id, :lease));
SELECT try(format('SELECT * FROM jobq.settle_jobs(''[{"id": %s, "lease": %s, "do": "complete", "colour": 1}]'')', :id, :lease));
SELECT outcome FROM jobq.settle_jobs(jsonb_build_array(jsonb_build_object(
	'id', :id, 'lease', :lease, 'do', 'complete', 'result', 1)));

SELECT jobq.drop_queue('work', true), jobq.drop_queue('graves', true);
DROP PROCEDURE fail_one(text, text);
DROP FUNCTION fresh(text);
DROP FUNCTION try(text);
