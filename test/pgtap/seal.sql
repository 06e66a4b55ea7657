-- Sealed payloads: none is in a table as it was, whichever way a job goes; only
-- who may dequeue or read gets one; what was altered, or whose key is refused,
-- is an error.
BEGIN;
\ir setup.psql
SET client_min_messages = error;

CREATE ROLE seal_owner;
CREATE ROLE seal_enqueue;
CREATE ROLE seal_dequeue;
CREATE ROLE seal_read;
CREATE ROLE seal_manage;
GRANT USAGE ON SCHEMA jobq TO seal_owner;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO seal_owner;

-- All rows that hold payloads, of belt and shelf.
CREATE FUNCTION pg_temp.stored() RETURNS TABLE (id bigint, queue_id int, payload jsonb, sealed bytea, line text)
	LANGUAGE plpgsql AS $$
DECLARE
	rel regclass;
BEGIN
	FOR rel IN SELECT oid FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r'
		AND (relname ~ '^job_[0-9]+$' OR relname = 'shelf') LOOP
		RETURN QUERY EXECUTE format('SELECT j.id, j.queue_id, j.payload, j.sealed, j::text FROM %s j', rel);
	END LOOP;
END
$$;
-- The version and name of the key of a sealed payload.
CREATE FUNCTION pg_temp.key_of(sealed bytea) RETURNS text LANGUAGE sql AS $$
	SELECT convert_from(substr(sealed, 7, get_byte(sealed, 5)), 'UTF8') || ':' ||
		((get_byte(sealed, 1) * 256 + get_byte(sealed, 2)) * 256 + get_byte(sealed, 3)) * 256 + get_byte(sealed, 4)
$$;

SET ROLE seal_owner;
SELECT jobq.create_queue('sealed', '{"max_attempts": 1, "max_payload_bytes": 10000}') AS made \gset
SELECT jobq.create_key('box', 'seal') AS key \gset
SELECT jobq.schedule('with', '@yearly', 'sealed', '{"marker": 1}') \g /dev/null
SELECT throws_ok($$SELECT jobq.alter_queue('sealed', '{"seal": "box"}')$$, 'JQ007', NULL,
	'a schedule''s payload would not be sealed');
SELECT jobq.schedule('with', '@yearly', 'sealed') \g /dev/null
SELECT lives_ok($$SELECT jobq.alter_queue('sealed', '{"seal": "box"}')$$, 'without one it can be');
SELECT throws_ok($$SELECT jobq.schedule('with', '@yearly', 'sealed', '{"marker": 1}')$$, 'JQ007', NULL,
	'nor do new ones get a payload');
SELECT jobq.grant_queue('sealed', 'seal_' || p, ARRAY[p])
	FROM unnest('{enqueue,dequeue,read,manage}'::text[]) p \g /dev/null
RESET ROLE;

-- ---- what is stored, and what comes out ----

CREATE TEMP TABLE given (n int GENERATED ALWAYS AS IDENTITY, payload jsonb, id bigint);
INSERT INTO given (payload) VALUES ('{"marker": "ä€😀", "a": [1, 2.50, null, {"b": false}]}'), ('"marker"'),
	('["marker"]'), ('1.0'), ('null'), ('true'), ('{}'), ('""'), (to_jsonb(repeat('marker', 1000)));
-- what looks like something sealed is a payload like others
INSERT INTO given (payload) SELECT to_jsonb(encode(decode('0100000001', 'hex') || 'box', 'hex'));
UPDATE given SET id = jobq.enqueue('sealed', payload, priority => n);
SELECT is_empty($$SELECT id FROM given JOIN pg_temp.stored() s USING (id)
	WHERE s.payload <> 'null' OR s.sealed IS NULL OR s.line LIKE '%marker%'
	OR position('marker'::bytea IN s.sealed) > 0$$, 'nothing of it is in the tables');
SELECT is(count(DISTINCT pg_temp.key_of(s.sealed)), 1::bigint, 'the key''s id is in front')
	FROM given JOIN pg_temp.stored() s USING (id) WHERE pg_temp.key_of(s.sealed) = 'box:1';
SELECT is_empty($$SELECT g.n, g.payload, j.payload FROM given g JOIN jobq.jobs j USING (id)
	WHERE g.payload::text IS DISTINCT FROM j.payload::text$$, 'jobs opens it');
SELECT is_empty($$SELECT g.n FROM given g, jobq.job(g.id) j WHERE g.payload::text IS DISTINCT FROM j.payload::text$$,
	'so does job()');
SET ROLE seal_read;
SELECT is(count(payload), 10::bigint, 'for one who may read') FROM jobq.jobs WHERE queue = 'sealed';
RESET ROLE;
SET ROLE seal_enqueue;
SELECT jobq.enqueue('sealed', '"marker of my own"', priority => 50) AS mine \gset
SELECT is(payload, NULL, 'not for one who may enqueue only') FROM jobq.jobs WHERE id = :mine;
SELECT is(payload, NULL, 'not by job() either') FROM jobq.job(:mine);
SELECT is(jobq._payload(NULL, sealed, queue_id, id), NULL, 'nor by hand') FROM jobq._jobs() WHERE id = :mine;
RESET ROLE;
SET ROLE seal_manage;
SELECT is(count(payload), 0::bigint, 'nor for one who may manage only') FROM jobq.jobs WHERE queue = 'sealed';
SELECT is(payload, NULL, 'by job() either') FROM jobq.job(:mine);
RESET ROLE;
SELECT jobq.cancel(:mine) \g /dev/null
SELECT is(payload, '"marker of my own"', 'history opens it') FROM jobq.history WHERE id = :mine;
SET ROLE seal_dequeue;
CREATE TEMP TABLE got AS SELECT * FROM jobq.dequeue('sealed', 100);
RESET ROLE;
SELECT results_eq('SELECT id, payload::text FROM got ORDER BY id', 'SELECT id, payload::text FROM given ORDER BY id',
	'the worker gets what was enqueued');
SELECT is(count(jobq.complete(id, lease)), 10::bigint, 'and away with them') FROM got;

-- the same twice is not the same on disk
CREATE TEMP TABLE twice AS SELECT unnest(jobq.enqueue_many('sealed', array_fill('"marker"'::jsonb, ARRAY[50]),
	delay => '1 h')) AS id;
SELECT is(count(DISTINCT substr(sealed, 10, 12)), 50::bigint, 'an IV of its own for each')
	FROM twice JOIN pg_temp.stored() USING (id);
SELECT is(count(DISTINCT substr(sealed, 22, 8)), 50::bigint, 'and another ciphertext')
	FROM twice JOIN pg_temp.stored() USING (id);

-- ---- every way into the queue ----

SELECT id AS jobs FROM jobq.enqueue_jobs('[{"queue": "sealed", "payload": "marker jobs"}]') \gset
SELECT jobq.enqueue('sealed', '"marker unique"', unique_key => 'k', delay => '1 h') AS unique \gset
SELECT is(jobq.enqueue('sealed', '"marker replaced"', unique_key => 'k', on_conflict => 'replace'), :unique::bigint);
SELECT is(payload, '"marker replaced"', 'a replaced payload') FROM jobq.job(:unique);
SELECT jobq.enqueue('sealed', '"marker waiting"', unique_key => 'w') AS waiting \gset
SELECT is(jobq.enqueue('sealed', '"marker debounced"', unique_key => 'w', on_conflict => 'debounce'), :waiting::bigint);
SELECT is(payload, '"marker debounced"', 'a debounced one, on the belt') FROM jobq.job(:waiting);
SELECT id AS bulk FROM jobq.enqueue_jobs('[{"queue": "sealed", "payload": "marker bulk", "unique_key": "b"}]') \gset
SELECT is(payload, '"marker bulk"', 'in bulk with a key') FROM jobq.job(:bulk);
SELECT ok(jobq.reschedule(:waiting, now() + '1 h'), 'to the shelf');
SELECT ok(jobq.reschedule(:waiting), 'and back');
SELECT is(payload, '"marker debounced"', 'it can still be opened') FROM jobq.job(:waiting);
SELECT ok(jobq.run_schedule('with') > 0, 'a schedule without payload');
SELECT throws_ok(format('SELECT jobq.enqueue(%L, %L)', 'sealed', to_jsonb(repeat('x', 10000))), 'JQ004', NULL,
	'the payload''s size counts');
SELECT lives_ok(format('SELECT jobq.enqueue(%L, %L)', 'sealed', to_jsonb(repeat('x', 9900))), 'not that of what is stored');
SELECT is_empty($$SELECT s.id FROM pg_temp.stored() s JOIN jobq.queue q USING (queue_id)
	WHERE q.queue = 'sealed' AND (s.payload <> 'null' OR s.sealed IS NULL OR s.line LIKE '%marker%')
	AND s.id NOT IN (SELECT id FROM given)$$, 'none is stored as it was');

-- ---- new jobs that repeat others ----

SELECT jobq.create_key('other box', 'seal') \g /dev/null
SELECT jobq.create_queue('plain') \g /dev/null
SELECT jobq.create_queue('other', '{"seal": "other box"}') \g /dev/null
SELECT jobq.create_queue('to plain', '{"seal": "box", "max_attempts": 1, "dead_letter": "plain"}') \g /dev/null
SELECT jobq.create_queue('to other', '{"seal": "box", "max_attempts": 1, "dead_letter": "other"}') \g /dev/null
SELECT jobq.create_queue('from plain', '{"max_attempts": 1, "dead_letter": "other"}') \g /dev/null
CREATE FUNCTION pg_temp.die(queue text, text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	made bigint := jobq.enqueue(queue, to_jsonb('marker ' || $2));
	got jobq.delivery := (SELECT d FROM jobq.dequeue(queue) d);
BEGIN
	PERFORM jobq.fail(got.id, got.lease, 'no', false);
	RETURN made;
END
$$;
CREATE TEMP TABLE dead AS SELECT queue, pg_temp.die(queue, queue) AS id
	FROM unnest('{to plain,to other,from plain}'::text[]) queue;
SELECT results_eq($$SELECT d.queue, c.queue, c.payload #>> '{}' FROM dead d
	JOIN jobq.history h USING (id), jobq.job(h.moved_to) c ORDER BY d.id$$,
	$$VALUES ('to plain', 'plain', 'marker to plain'), ('to other', 'other', 'marker to other'),
		('from plain', 'other', 'marker from plain')$$, 'copies of dead jobs can be opened');
SELECT results_eq($$SELECT d.queue, pg_temp.key_of(s.sealed) FROM dead d
	JOIN jobq.history h USING (id) JOIN pg_temp.stored() s ON s.id = h.moved_to ORDER BY d.id$$,
	$$VALUES ('to plain', 'box:1'), ('to other', 'other box:1'), ('from plain', 'other box:1')$$,
	'by their queue''s key, or else by the one they had');
SELECT is_empty($$SELECT s.id FROM pg_temp.stored() s JOIN jobq.queue q USING (queue_id)
	WHERE q.queue IN ('to plain', 'to other', 'plain', 'other')
	AND (s.payload <> 'null' OR s.sealed IS NULL OR s.line LIKE '%marker%')$$, 'what was sealed stays so');
SELECT is(jobq.redrive('plain'), 1::bigint, 'a copy goes back');
SELECT results_eq($$SELECT payload #>> '{}' FROM jobq.peek('to plain')$$, 'SELECT ''''::text LIMIT 0',
	'(it is not committed yet)');
SELECT is(payload, '"marker to plain"', 'and is what it was') FROM jobq.jobs WHERE queue = 'to plain';
SELECT jobq.complete(id, lease) FROM jobq.dequeue('to plain') \g /dev/null
SELECT jobq.retry(id) AS again FROM dead WHERE queue = 'to other' \gset
SELECT is(payload, '"marker to other"', 'as is a retried one') FROM jobq.job(:again);
-- its original is not kept any more
SELECT pg_temp.die('to plain', 'orphan') AS orphan \gset
SELECT moved_to AS copy FROM jobq.history WHERE id = :orphan \gset
DELETE FROM jobq.shelf WHERE id = :orphan;
SELECT is(jobq.redrive('plain', to_queue => 'other'), 1::bigint, 'a copy without its original');
SELECT is(payload, '"marker orphan"', 'is opened and sealed, too') FROM jobq.jobs WHERE queue = 'other' AND retry_of = :orphan;

-- ---- rotation ----

SELECT is(jobq.rotate_key('box'), 'box:2', 'a new version');
SELECT jobq.enqueue('sealed', '"marker 2"', delay => '1 h') AS id2 \gset
SELECT is(pg_temp.key_of(sealed), 'box:2', 'seals what comes then') FROM pg_temp.stored() WHERE id = :id2;
SELECT is(payload, '"marker"', 'the former one opens') FROM jobq.jobs JOIN twice USING (id) LIMIT 1;
CREATE TEMP TABLE before AS SELECT id, state, priority, run_at, payload, attempt, unique_key FROM jobq.jobs WHERE queue = 'sealed';
SELECT is(jobq.reseal('sealed'), count(*) - 1, 'all but the new one are sealed again') FROM before;
SELECT set_eq($$SELECT id, state, priority, run_at, payload, attempt, unique_key FROM jobq.jobs WHERE queue = 'sealed'$$,
	'TABLE before', 'and are as they were');
SELECT is(count(DISTINCT pg_temp.key_of(sealed)), 1::bigint, 'those on the shelf in their place')
	FROM pg_temp.stored() JOIN twice USING (id) WHERE pg_temp.key_of(sealed) = 'box:2';
SELECT is(jobq.reseal('sealed'), 0::bigint, 'once is enough');
SELECT is(jobq.enqueue('sealed', '"x"', unique_key => 'k'), :unique::bigint, 'a unique key is still held');
SELECT throws_ok($$SELECT jobq.reseal('plain')$$, 'JQ007', NULL, 'a queue without a key');
SELECT jobq.enqueue('plain', '"marker in clear"', priority => 9) AS clear \gset
SELECT jobq.alter_queue('plain', '{"seal": "other box"}') \g /dev/null
SELECT is(payload, '"marker in clear"', 'what was there before is as it was') FROM jobq.job(:clear);
SELECT ok(jobq.reseal('plain') >= 1, 'until it is sealed');
SELECT ok(bool_or(sealed IS NOT NULL), 'which is another row') FROM pg_temp.stored() WHERE id = :clear;
SELECT is(payload, '"marker in clear"', 'with the same payload') FROM jobq.job(:clear);

-- ---- what was altered ----

SELECT min(id) AS one, max(id) AS two FROM twice \gset
CREATE TEMP TABLE kept AS SELECT id, sealed, queue_id FROM jobq.shelf WHERE id IN (:one, :two);
CREATE FUNCTION pg_temp.with(sealed bytea, changed bigint, reader text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	seen text;
BEGIN
	UPDATE jobq.shelf s SET sealed = $1 WHERE s.id = changed;
	EXECUTE 'SELECT payload::text FROM ' || reader || ' WHERE id = ' || changed INTO seen;
	RAISE EXCEPTION USING MESSAGE = seen, ERRCODE = 'YES01';
EXCEPTION
	WHEN SQLSTATE 'YES01' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE;
END
$$;
SELECT is(pg_temp.with(sealed, id, 'jobq.jobs'), '"marker"', 'as it was') FROM kept WHERE id = :one;
SELECT results_eq(format('SELECT DISTINCT pg_temp.with(set_byte(sealed, i, get_byte(sealed, i) # (1 << b)), id, %L)
		FROM kept, generate_series(0, length(sealed) - 1) i, generate_series(0, 7) b WHERE id = %s', 'jobq.jobs', :one),
	'VALUES (''JQ013'')', 'one bit anywhere');
SELECT results_eq(format('SELECT DISTINCT pg_temp.with(substr(sealed, 1, n), id, %L)
		FROM kept, generate_series(0, length(sealed) - 1) n WHERE id = %s', 'jobq.jobs', :one),
	'VALUES (''JQ013'')', 'cut anywhere');
SELECT is(pg_temp.with((SELECT sealed FROM kept WHERE id = :two), :one, 'jobq.jobs'), 'JQ013', 'that of another job');
SELECT is(pg_temp.with((SELECT sealed FROM kept WHERE id = :two), :one, format('jobq.job(%s)', :one)), 'JQ013', 'by job(), too');
UPDATE jobq.shelf SET queue_id = (SELECT queue_id FROM jobq.queue WHERE queue = 'other') WHERE id = :two;
SELECT throws_ok(format('SELECT payload FROM jobq.jobs WHERE id = %s', :two), 'JQ013', NULL, 'in another queue');
UPDATE jobq.shelf s SET queue_id = k.queue_id FROM kept k WHERE s.id = k.id;
-- the message tells nothing of it
CREATE FUNCTION pg_temp.message(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
	context text;
BEGIN
	EXECUTE call;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws('/', SQLERRM, detail, hint, context);
END
$$;

-- ---- a key that is refused ----

SELECT is(jobq.fail(id, lease, 'no'), 'dead', 'one that is dead by then') FROM jobq.dequeue('to other');
SELECT jobq.enqueue('to other', '"marker last"') AS last \gset
SELECT lease FROM jobq.dequeue('to other') \gset
SET ROLE seal_owner;
SELECT jobq.revoke_key('box') \g /dev/null
RESET ROLE;
SELECT throws_ok($$SELECT jobq.enqueue('sealed')$$, 'JQ013', NULL, 'nothing is stored as it is instead');
SELECT throws_ok($$SELECT jobq.dequeue('sealed')$$, 'JQ013', NULL, 'nothing delivered');
SELECT throws_ok($$SELECT payload FROM jobq.jobs WHERE queue = 'sealed'$$, 'JQ013', NULL, 'nothing shown');
SELECT throws_ok(format('SELECT * FROM jobq.job(%s)', :one), 'JQ013');
SELECT throws_ok($$SELECT jobq.reseal('sealed')$$, 'JQ013');
SELECT ok(count(*) > 50, 'views without the payload work') FROM (SELECT id, state, headers FROM jobq.jobs WHERE queue = 'sealed') j;
SELECT ok(count(payload) > 0, 'others'' payloads, too') FROM jobq.jobs WHERE queue = 'other';
SELECT unalike(pg_temp.message('SELECT payload FROM jobq.jobs'), '%marker%', 'no message has a payload');
SELECT is(jobq.fail(:last, :lease, 'no'), 'dead', 'a job can still die');
SELECT results_eq(format('SELECT state, moved_to FROM jobq.dead_jobs WHERE id = %s', :last), $$VALUES ('dead', NULL::bigint)$$,
	'in its own queue');
SELECT ok(jobq.cancel(:one), 'and be cancelled');
SELECT results_eq(format('SELECT state FROM jobq.wait_for(%s)', :one), $$VALUES ('cancelled')$$,
	'which one who waits for it learns');
SELECT throws_ok(format('SELECT jobq.retry(%s)', :last), 'JQ013', NULL, 'but not run again');
SELECT jobq.alter_queue('sealed', '{"seal": "other box"}') \g /dev/null
SELECT is(jobq.reseal('sealed'), 0::bigint, 'with another key for the queue they stay as they are');
SELECT jobq.enqueue('sealed', '"marker new"', priority => 90) AS new \gset
SELECT results_eq($$SELECT id, payload FROM jobq.dequeue('sealed')$$, format('VALUES (%s::bigint, %L::jsonb)', :new, '"marker new"'),
	'new ones are delivered, behind them');

-- ---- others' jobs that nobody can open any more ----

SELECT jobq.create_key('gone box', 'seal') \g /dev/null
SELECT jobq.create_queue('mixed') \g /dev/null
SELECT jobq.create_queue('gone', '{"seal": "gone box", "max_attempts": 1, "dead_letter": "mixed"}') \g /dev/null
SELECT jobq.create_queue('fine', '{"max_attempts": 1, "dead_letter": "mixed"}') \g /dev/null
CREATE TEMP TABLE gone AS SELECT pg_temp.die('gone', n::text) AS id, NULL::bigint AS copy FROM generate_series(1, 3) n;
UPDATE gone SET copy = (SELECT moved_to FROM jobq.dead_jobs d WHERE d.id = gone.id);
-- of one the original is not kept any more
DELETE FROM jobq.shelf WHERE id = (SELECT min(id) FROM gone);
SELECT pg_temp.die('fine', 'fine') AS fine \gset
SELECT jobq.revoke_key('gone box') \g /dev/null
SELECT is(jobq.redrive('mixed'), 1::bigint, 'redriven are those that can be opened');
SELECT is(retry_of, :fine::bigint, 'others stay') FROM jobq.jobs WHERE queue = 'fine';
CREATE TEMP TABLE sound AS SELECT jobq.enqueue('mixed', to_jsonb(n)) AS id, n FROM generate_series(1, 3) n;
SELECT results_eq($$SELECT id, payload, attempt FROM jobq.dequeue('mixed', 2)$$,
	'SELECT id, to_jsonb(n), 1 FROM sound WHERE n < 3', 'delivered are as many as were asked for');
SELECT results_eq($$SELECT id, state, attempt, last_error, moved_to FROM jobq.dead_jobs WHERE queue = 'mixed' ORDER BY id$$,
	$$SELECT copy, 'dead', 1, 'the payload could not be opened', NULL::bigint FROM gone ORDER BY copy$$, 'those before them are dead');
SELECT results_eq($$SELECT a.outcome, a.error FROM gone, jobq.attempts(copy) a$$,
	$$SELECT 'failed', 'the payload could not be opened' FROM gone$$, 'in one attempt');
SELECT jobq.fail(id, lease, 'no', false) FROM jobq.dequeue('mixed') \g /dev/null
SELECT is(jobq.redrive('mixed'), 1::bigint, 'nor do they stop the dead ones that can be run again');

-- one call does not go on for ever, one that waits begins again
SELECT jobq.create_key('many box', 'seal') \g /dev/null
SELECT jobq.create_queue('many', '{"seal": "many box", "max_batch": 3001}') \g /dev/null
SELECT jobq.enqueue_many('many', array_fill('{}'::jsonb, '{3001}')) \g /dev/null
SELECT jobq.alter_queue('many', '{"seal": null}') \g /dev/null
SELECT jobq.revoke_key('many box') \g /dev/null
SELECT jobq.enqueue('many', '"sound"') AS behind \gset
SELECT is_empty($$SELECT id FROM jobq.dequeue('many', 10)$$, 'very many are ended a part at a time');
SELECT is(count(*), 1000::bigint, 'so far') FROM jobq.dead_jobs WHERE queue = 'many';
SELECT clock_timestamp() AS begun \gset
SELECT is(id, :behind::bigint, 'then comes what is behind them') FROM jobq.dequeue('many', 10, wait => '20 s');
SELECT cmp_ok(clock_timestamp() - :'begun', '<', '15 s', 'at once');

SELECT * FROM finish();
ROLLBACK;
