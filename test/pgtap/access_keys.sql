-- Access keys: what a role without privileges may do with one and without, that
-- a key ends with its transaction, its savepoint, when it is let go, revoked or
-- expired, and that nothing keeps it. Across sessions: test/tap/063_access_keys.pl.
\set QUIET 1
SET client_min_messages = warning;
\ir setup.psql
BEGIN;
SELECT no_plan();

CREATE ROLE ak_owner;
CREATE ROLE ak_manager;
CREATE ROLE ak_app IN ROLE jobq_key_user;
CREATE ROLE ak_other IN ROLE jobq_key_user;
GRANT ak_other TO ak_app;
GRANT USAGE ON SCHEMA jobq TO ak_owner;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO ak_owner;
SET ROLE ak_owner;
SELECT jobq.create_queue('ak', '{"dead_letter": "ak dead"}') \g /dev/null
SELECT jobq.create_queue('ak two') \g /dev/null
SELECT jobq.grant_queue('ak two', 'ak_manager', '{manage}') \g /dev/null
SELECT jobq.enqueue('ak', '"owner"') AS owners \gset

-- ---- what a key is ----

SELECT jobq.create_access_key('producer', 'ak', '{enqueue}') AS producer \gset
SELECT jobq.create_access_key('consumer', 'ak', '{dequeue,read,dequeue}', '1 hour') AS consumer \gset
SELECT jobq.create_access_key('consumer', 'ak two', '{dequeue}') AS two \gset
SELECT matches(:'producer'::text, '^jq_[0-9a-f]{64}$', 'a key is jq_ and 64 hex digits');
CREATE TEMP TABLE made AS
	SELECT jobq.create_access_key('many ' || i, 'ak two', '{read}') AS key
	FROM generate_series(1, 200) i;
SELECT is(count(DISTINCT key), 200::bigint, 'no two are alike') FROM made;
-- 12,800 digits: each should come 800 times, give or take
SELECT is(count(*) FILTER (WHERE n BETWEEN 600 AND 1000), 16::bigint, 'all digits come as often')
	FROM (SELECT count(*) FROM made, regexp_split_to_table(substr(key, 4), '') d GROUP BY d) v (n);
SELECT is(count(*) FILTER (WHERE n >= 12), 64::bigint, 'and nearly all at every place')
	FROM (SELECT count(DISTINCT digit) FROM made, regexp_split_to_table(substr(key, 4), '')
		WITH ORDINALITY d (digit, place) GROUP BY place) v (n);
RESET ROLE;

CREATE FUNCTION pg_temp.tables_with(hex text) RETURNS SETOF regclass
	LANGUAGE plpgsql AS $$
DECLARE
	t regclass;
	n bigint;
BEGIN
	FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r'
		AND relnamespace = 'jobq'::regnamespace
	LOOP
		EXECUTE format('SELECT count(*) FROM %s t WHERE strpos(t::text, $1) > 0', t)
			INTO n USING hex;
		IF n > 0 THEN
			RETURN NEXT t;
		END IF;
	END LOOP;
END
$$;
SELECT is_empty(format('SELECT pg_temp.tables_with(%L)', substr(:'producer', 13)),
	'no table has what follows a key''s prefix, neither as text nor as bytes');
SELECT isnt_empty(format('SELECT pg_temp.tables_with(%L)', left(:'producer', 12)),
	'the prefix would have been found');

-- ---- without a key ----

CREATE FUNCTION pg_temp.as_app(statement text, role text DEFAULT 'ak_app')
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE statement;
	GET DIAGNOSTICS n = ROW_COUNT;
	RESET ROLE;
	RETURN n || CASE n WHEN 1 THEN ' row' ELSE ' rows' END;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT is(pg_temp.as_app('SELECT * FROM jobq.' || call), '0 rows', 'without a key: view ' || call)
	FROM (SELECT DISTINCT call FROM jobq.call WHERE is_view
		AND privilege IN ('enqueue', 'dequeue', 'read')) c ORDER BY call;
SELECT is(pg_temp.as_app('TABLE jobq.access_keys'), '42501', 'without a key: access_keys');
SELECT is(pg_temp.as_app('SELECT * FROM jobq.' || replace(call, '$', :'owners')), result,
		'without a key: ' || call) FROM (VALUES
	('enqueue(''ak'')', 'JQ002'), ('enqueue_many(''ak'', ''{1}'')', 'JQ002'),
	('enqueue_unique(''ak'', unique_key => ''k'')', 'JQ002'),
	('enqueue_jobs(''[{"queue": "ak"}]'')', 'JQ002'),
	('dequeue(''ak'')', 'JQ002'), ('dequeue_any(''{ak}'')', 'JQ002'),
	('complete($, 1)', 'JQ020'), ('complete_many(ARRAY[$::bigint], 1)', 'JQ020'),
	('complete_and_dequeue(''ak'', ''{}'', NULL)', 'JQ002'),
	('fail($, 1)', 'JQ020'), ('release($, 1)', 'JQ020'), ('extend($, 1)', 'JQ020'),
	('settle_jobs(''[{"id": $, "lease": 1, "do": "complete"}]'')', 'JQ020'),
	('cancel($)', 'JQ020'), ('peek(''ak'')', 'JQ002'), ('job($)', '0 rows'),
	('attempts($)', '0 rows'), ('explain_job($)', '0 rows'), ('wait_for($)', '0 rows'),
	('explain_queue(''ak'')', 'JQ002'), ('schedule(''s'', ''@daily'', queue => ''ak'')', 'JQ002'),
	('create_queue(''mine'')', '42501'), ('alter_queue(''ak'', ''{}'')', '42501'),
	('drop_queue(''ak'')', '42501'), ('retry($)', '42501'), ('health()', '42501'),
	('create_access_key(''k'', ''ak'', ''{read}'')', '42501'),
	('revoke_access_key(''producer'')', '42501')) v (call, result);

-- ---- with one ----

CREATE FUNCTION pg_temp.use(key text, for_session boolean DEFAULT NULL)
	RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM jobq.use_access_key(key, for_session);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SET SESSION AUTHORIZATION ak_app;
SELECT lives_ok(format('SELECT jobq.use_access_key(%L)', :'producer'), 'a key is used');
SELECT jobq.enqueue('ak', '"by key"') AS mine \gset
SELECT results_eq('SELECT queue FROM jobq.queues', ARRAY['ak'], 'the key''s queue is there, no other');
SELECT is(pg_temp.try('dequeue(''ak'')'), '42501', 'it gives nothing but its privileges');
SELECT is(pg_temp.try('peek(''ak'')'), '42501', 'nor to read');
SELECT is(pg_temp.try('enqueue(''ak two'')'), 'JQ002', 'on no other queue');
SELECT is(pg_temp.try('enqueue(''ak dead'')'), 'JQ002', 'nor on its dead-letter queue');
SELECT is(pg_temp.try('schedule(''s'', ''@daily'', queue => ''ak'')'), '42501',
	'a schedule, which goes on without the key, takes a role''s own privilege');
SELECT results_eq('SELECT id FROM jobq.jobs', ARRAY[:mine::bigint], 'one sees what one has enqueued');
SELECT is(enqueued_by, 'ak_app', 'as whom') FROM jobq.job(:mine);

-- another key in its place
SELECT is(pg_temp.use(:'consumer'), 'ok', 'another key is used');
SELECT is(pg_temp.try('enqueue(''ak'')'), '42501', 'one key at a time');
SELECT results_eq('SELECT id FROM jobq.jobs ORDER BY id', ARRAY[:owners, :mine]::bigint[], 'it reads');
SELECT lease FROM jobq.dequeue('ak') WHERE id = :owners \gset
SELECT is(pg_temp.try(format('complete(%s, %s)', :owners, :lease)), 'ok', 'it consumes');

-- let go
SELECT is(pg_temp.use(NULL), 'ok', 'NULL lets go');
SELECT is(pg_temp.try('enqueue(''ak'')'), 'JQ002', 'then nothing is there again');
SELECT is_empty('SELECT id FROM jobq.jobs', 'not even what one has enqueued');
SELECT is_empty(format('SELECT id FROM jobq.job(%s)', :mine), 'nor by its id');
SELECT is_empty(format('SELECT reason FROM jobq.explain_job(%s)', :mine), 'nor explained');
SELECT is_empty(format('SELECT state FROM jobq.wait_for(%s)', :mine), 'nor waited for');
SELECT is(pg_temp.try(format('cancel(%s)', :mine)), 'JQ020', 'nor cancelled');
SELECT is(pg_temp.use(:'two'), 'ok', 'with a key for another queue');
SELECT is_empty(format('SELECT id FROM jobq.job(%s)', :mine), 'it is not seen');
SELECT is(pg_temp.try(format('cancel(%s)', :mine)), 'JQ020', 'nor cancelled');
SELECT is(pg_temp.use(:'producer'), 'ok', 'with the key for its queue');
SELECT is(pg_temp.try(format('cancel(%s)', :mine)), 'ok', 'it is cancelled');
SELECT jobq.use_access_key(NULL);

-- savepoints, both forms
SAVEPOINT one;
SELECT jobq.use_access_key(:'producer');
SELECT is(pg_temp.try('enqueue(''ak'')'), 'ok', 'in use');
ROLLBACK TO one;
SELECT is(pg_temp.try('enqueue(''ak'')'), 'JQ002', 'gone with its savepoint');
SELECT jobq.use_access_key(:'consumer');
SAVEPOINT two;
SELECT jobq.use_access_key(:'producer', true);
ROLLBACK TO two;
SELECT is(pg_temp.try('peek(''ak'')'), 'ok', 'the one before is back');
SELECT is(pg_temp.try('enqueue(''ak'')'), '42501', 'and it alone');
SELECT jobq.use_access_key(NULL);

-- it is the role's that presented it
SELECT jobq.use_access_key(:'producer', true);
SET ROLE ak_other;
SELECT is(pg_temp.try('enqueue(''ak'')'), 'JQ002', 'another role does not have the key');
RESET ROLE;
SELECT is(pg_temp.try('enqueue(''ak'')'), 'ok', 'the first one still has');

-- what poolers do between clients
RESET ALL;
SELECT is(pg_temp.try('enqueue(''ak'')'), 'JQ002', 'RESET ALL lets go');

-- nobody sets the setting
SELECT throws_ok('SET jobq.access_key = 1', '42501', NULL, 'the setting is not for users');
SELECT throws_ok('SHOW jobq.access_key', '42501', NULL, 'nor to be seen');
RESET SESSION AUTHORIZATION;
SELECT key_id FROM jobq.access_key WHERE name = 'many 1' \gset
SET jobq.access_key = :key_id;
SET ROLE ak_app;
SELECT is(pg_temp.try('peek(''ak two'')'), 'JQ002', 'a number alone is no key');
RESET ROLE;
RESET jobq.access_key;

-- ---- keys that are not good ----

SET SESSION AUTHORIZATION ak_app;
SELECT is(pg_temp.use(key), 'JQ013: the access key is not known', 'not known: ' || why)
	FROM (VALUES ('no key at all', 'key'), ('a wrong key', 'jq_' || repeat('0', 64)),
		('a right prefix', left(:'producer', 12) || repeat('0', 55))) v (why, key);
RESET SESSION AUTHORIZATION;
SET ROLE ak_owner;
SELECT jobq.create_access_key('short', 'ak', '{enqueue}', '2 s') AS short \gset
SET ROLE ak_app;
SELECT is(pg_temp.use(:'short'), 'ok', 'a key for two seconds');
RESET ROLE;
SELECT pg_temp.await_clock(expires_at) FROM jobq.access_key WHERE name = 'short' \g /dev/null
SET ROLE ak_app;
SELECT is(pg_temp.try('enqueue(''ak'')'), 'JQ013', 'is of no use after it');
SELECT is(pg_temp.use(:'short'), 'JQ013: the access key has expired', 'nor can it be used again');
SELECT is(pg_temp.use(NULL), 'ok', 'but let go');
SELECT is(pg_temp.try('enqueue(''ak'')'), 'JQ002', 'as if it had never been');

-- ---- rotating and revoking ----

SET ROLE ak_owner;
SELECT throws_ok($$SELECT jobq.create_access_key('producer', 'ak', '{enqueue}')$$, 'JQ008', NULL,
	'a name that is taken');
SELECT throws_ok($$SELECT jobq.rotate_access_key('consumer')$$, 'JQ007', NULL,
	'a name of keys of two queues');
SELECT throws_ok($$SELECT jobq.revoke_access_key('consumer')$$, 'JQ007', NULL, 'also to revoke');
SELECT jobq.rotate_access_key('consumer', queue => 'ak') AS consumer2 \gset
SELECT isnt(:'consumer2'::text, :'consumer', 'rotating makes another key');
SELECT results_eq($$SELECT privileges, expires_at - created_at, replaced_at IS NOT NULL, state
	FROM jobq.access_keys WHERE name = 'consumer' AND queue = 'ak' ORDER BY created_at$$,
	$$VALUES ('{dequeue,read}'::text[], '1 hour'::interval, true, 'active'),
		('{dequeue,read}', '1 hour', false, 'active')$$,
	'it has the same privileges and time to live');
SET ROLE ak_app;
SELECT is(pg_temp.use(key), 'ok', 'both are good') FROM unnest(ARRAY[:'consumer', :'consumer2']) key;
SET ROLE ak_owner;
SELECT jobq.rotate_access_key('producer', '0 s') AS producer2 \gset
SET ROLE ak_app;
SELECT is(pg_temp.use(:'producer'), 'JQ013: the access key has expired', 'without overlap the old one is not');
SELECT is(pg_temp.use(:'producer2'), 'ok', 'the new one is');
SELECT is(pg_temp.try('enqueue(''ak'')'), 'ok', 'and in use');
SET ROLE ak_owner;
SELECT jobq.revoke_access_key('producer');
SELECT lives_ok($$SELECT jobq.revoke_access_key('producer')$$, 'revoked twice is revoked');
SELECT throws_ok($$SELECT jobq.rotate_access_key('producer')$$, 'JQ020', NULL, 'and not to be rotated');
SET ROLE ak_app;
SELECT throws_ok($$SELECT jobq.enqueue('ak')$$, 'JQ013', 'the access key has been revoked',
	'revoked: the next call fails');
SELECT throws_ok($$TABLE jobq.jobs$$, 'JQ013', 'the access key has been revoked', 'also a view');
SELECT is(pg_temp.use(:'producer2'), 'JQ013: the access key has been revoked', 'it is not good again');
SET ROLE ak_owner;
SELECT isnt(jobq.create_access_key('producer', 'ak', '{enqueue}'), :'producer2',
	'the name is free again');

-- ---- who sees what ----

SELECT results_eq($$SELECT queue, count(*) FROM jobq.access_keys GROUP BY queue ORDER BY queue$$,
	$$VALUES ('ak', 6::bigint), ('ak two', 201)$$, 'those who manage a queue see its keys');
SELECT results_eq($$SELECT name, prefix, privileges, created_by, state, uses, secret_version
	FROM jobq.access_keys WHERE queue = 'ak' AND name = 'producer' ORDER BY created_at LIMIT 2$$,
	format($$VALUES ('producer', %L, '{enqueue}'::text[], 'ak_owner', 'revoked', 5::bigint, 1),
		('producer', %L, '{enqueue}', 'ak_owner', 'revoked', 1, 1)$$,
		left(:'producer', 12), left(:'producer2', 12)), 'and how often each was presented');
SELECT ok(last_used_at <= clock_timestamp() AND last_used_at > clock_timestamp() - interval '2 min',
		'and when last')
	FROM jobq.access_keys WHERE name = 'consumer' AND queue = 'ak';
SET ROLE ak_manager;
SELECT results_eq($$SELECT DISTINCT queue FROM jobq.access_keys$$, ARRAY['ak two'],
	'others see those of theirs');
SELECT throws_ok($$SELECT jobq.revoke_access_key('producer')$$, 'JQ020', NULL,
	'what one does not manage does not exist');
SELECT lives_ok($$SELECT jobq.revoke_access_key('consumer')$$, 'and is not in the way');
RESET ROLE;

-- the query of docs/access-keys.md
UPDATE jobq.access_key SET created_at = created_at - interval '40 days'
	WHERE name IN ('many 1', 'many 2');
SET SESSION AUTHORIZATION ak_app;
SELECT jobq.use_access_key(NULL);
RESET SESSION AUTHORIZATION;
SELECT results_eq($$
	SELECT name FROM jobq.access_keys
	WHERE state = 'active' AND coalesce(last_used_at, created_at) < now() - interval '30 days'
		AND queue LIKE 'ak%' ORDER BY name
	$$, ARRAY['many 1', 'many 2'], 'keys that nobody uses are found');

-- ---- they go with their queue, and when they are long over ----

UPDATE jobq.access_key SET expires_at = now() - interval '91 days' WHERE name = 'many 1';
UPDATE jobq.access_key SET revoked_at = now() - interval '91 days' WHERE name = 'many 2';
UPDATE jobq.access_key SET revoked_at = now() - interval '89 days' WHERE name = 'many 3';
SELECT jobq.create_access_key('one more', 'ak two', '{read}') AS more \gset
SELECT results_eq($$SELECT name FROM jobq.access_key WHERE name IN ('many 1', 'many 2', 'many 3')$$,
	ARRAY['many 3'], 'keys leave 90 days after their end');
SELECT jobq.use_access_key(:'more');
SELECT jobq.drop_queue('ak two', true);
SELECT is_empty($$SELECT FROM jobq.access_key WHERE name = 'one more'$$, 'or with their queue');
SELECT jobq.use_access_key(NULL);

SELECT * FROM finish();
ROLLBACK;
