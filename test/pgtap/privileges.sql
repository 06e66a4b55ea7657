-- Who may do what: every call × every kind of caller, as jobq.call says; once
-- with the EXECUTE that grants give, once with EXECUTE on everything, so that
-- the checks in C decide alone. Then grants, revokes, and what nobody gets.
-- The matrix is held against the catalogs: what is missing in it is a failure.
BEGIN;
SET client_min_messages = warning;
\set QUIET 1
SELECT no_plan();

CREATE ROLE jt_super SUPERUSER;
CREATE ROLE jt_admin IN ROLE jobq_admin;
CREATE ROLE jt_monitor IN ROLE jobq_monitor;
CREATE ROLE jt_owner;
CREATE ROLE jt_enqueue;
CREATE ROLE jt_dequeue;
CREATE ROLE jt_read;
CREATE ROLE jt_manage;
CREATE ROLE jt_stranger;
-- applications that share it have nothing but their access keys
CREATE ROLE jt_key IN ROLE jobq_key_user;

-- ---- the fixture ----

-- a role that is no admin makes queues once it has been given EXECUTE
GRANT USAGE ON SCHEMA jobq TO jt_owner;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO jt_owner;
SET ROLE jt_owner;
SELECT ok(jobq.create_queue('pt', '{"dead_letter": null}'),
	'EXECUTE is what create_queue needs');
SELECT lives_ok(format('SELECT jobq.grant_queue(%L, %L, %L)', 'pt', 'jt_' || p, ARRAY[p]),
	'the owner grants ' || p)
	FROM unnest(ARRAY['enqueue', 'dequeue', 'read', 'manage']) p;
SELECT matches(jobq.create_access_key('pt', 'pt', '{read}'), '^jq_', 'and makes a key');
SELECT set_config('jt.key_' || p, jobq.create_access_key('pt ' || p, 'pt', ARRAY[p]), false)
	FROM unnest(ARRAY['enqueue', 'dequeue']) p;
RESET ROLE;
SELECT jobq.create_queue('other');

SET ROLE jt_enqueue;
SELECT set_config('jt.waiting', jobq.enqueue('pt', '1', priority => 10, group_key => 'pt group')::text, false);
SELECT set_config('jt.leased', jobq.enqueue('pt', '2', priority => 0)::text, false);
SELECT set_config('jt.dead', jobq.enqueue('pt', '3', priority => 1)::text, false);
SELECT jobq.schedule('pt', '@yearly', 'pt');
RESET ROLE;
SELECT jobq.create_key('pt box', 'seal');
SELECT jobq.alter_queue('pt', '{"seal": "pt box"}');
SELECT set_config('jt.lease', lease::text, false)
	FROM jobq.dequeue('pt', 2) WHERE id = current_setting('jt.leased')::bigint;
SELECT is(jobq.fail(current_setting('jt.dead')::bigint,
	current_setting('jt.lease')::bigint, 'fixture', false), 'dead', 'fixture');

-- One statement for each call; $w, $l, $d, $t stand for the waiting, the
-- leased and the dead job, and the lease.
CREATE TEMP TABLE sample (call text PRIMARY KEY, statement text);
INSERT INTO sample VALUES
	('create_access_key(text, text, text[], interval)', $$SELECT jobq.create_access_key('new', 'pt', '{read}')$$),
	('rotate_access_key(text, interval, text)', $$SELECT jobq.rotate_access_key('pt')$$),
	('revoke_access_key(text, text)', $$SELECT jobq.revoke_access_key('pt')$$),
	('use_access_key(text, boolean)', $$SELECT jobq.use_access_key(NULL)$$),
	('create_queue(text, jsonb, text)', $$SELECT jobq.create_queue('new')$$),
	('alter_queue(text, jsonb)', $$SELECT jobq.alter_queue('pt', '{"max_batch": 5}')$$),
	('alter_group(text, text, jsonb)', $$SELECT jobq.alter_group('pt', 'k', '{"limit": 5}')$$),
	('drop_queue(text, boolean)', $$SELECT jobq.drop_queue('pt', true)$$),
	('pause_queue(text)', $$SELECT jobq.pause_queue('pt')$$),
	('drain_queue(text)', $$SELECT jobq.drain_queue('pt')$$),
	('resume_queue(text)', $$SELECT jobq.resume_queue('pt')$$),
	('purge_queue(text, text[])', $$SELECT jobq.purge_queue('pt')$$),
	('grant_queue(text, text, text[])', $$SELECT jobq.grant_queue('pt', 'jt_super', '{read}')$$),
	('revoke_queue(text, text, text[])', $$SELECT jobq.revoke_queue('pt', 'jt_super', '{read}')$$),
	('enqueue(text, jsonb, text, int, timestamptz, interval, int, text, text, text, text, interval, interval, timestamptz, jsonb)', $$SELECT jobq.enqueue('pt')$$),
	('enqueue_unique(text, jsonb, text, int, timestamptz, interval, int, text, text, text, text, interval, interval, timestamptz, jsonb)', $$SELECT jobq.enqueue_unique('pt', unique_key => 'k')$$),
	('enqueue_many(text, jsonb[], text, int, timestamptz, interval, int, text, timestamptz, jsonb)', $$SELECT jobq.enqueue_many('pt', '{1,2}')$$),
	('enqueue_jobs(jsonb)', $$SELECT jobq.enqueue_jobs('[{"queue": "pt"}]')$$),
	('dequeue(text, bigint, interval, interval, text)', $$SELECT jobq.dequeue('pt')$$),
	('dequeue_any(text[], bigint, interval, interval, text)', $$SELECT jobq.dequeue_any('{pt}')$$),
	('receive(text, bigint, interval, interval, text, jsonb)', $$CALL jobq.receive('pt')$$),
	('receive_any(text[], bigint, interval, interval, text, jsonb)', $$CALL jobq.receive_any('{pt}')$$),
	('wait_for_jobs(text, interval, boolean)', $$CALL jobq.wait_for_jobs('pt')$$),
	('wait_until_idle(text, interval, boolean)', $$CALL jobq.wait_until_idle('pt')$$),
	('wait_for(bigint, interval)', $$SELECT jobq.wait_for($d)$$),
	('wait_for_result(bigint, interval, jsonb)', $$CALL jobq.wait_for_result($w)$$),
	('complete(bigint, bigint, jsonb)', $$SELECT jobq.complete($l, $t)$$),
	('complete_many(bigint[], bigint, text)', $$SELECT jobq.complete_many(ARRAY[$l], $t)$$),
	('complete_and_dequeue(text, bigint[], bigint, bigint, interval, interval, text)', $$SELECT jobq.complete_and_dequeue('pt', ARRAY[$l], $t)$$),
	('fail(bigint, bigint, text, boolean, interval)', $$SELECT jobq.fail($l, $t)$$),
	('release(bigint, bigint, interval)', $$SELECT jobq.release($l, $t)$$),
	('extend(bigint, bigint, interval, jsonb)', $$SELECT jobq.extend($l, $t)$$),
	('extend_many(bigint[], bigint, interval)', $$SELECT jobq.extend_many(ARRAY[$l], $t)$$),
	('settle_jobs(jsonb)', $$SELECT jobq.settle_jobs('[{"id": $l, "lease": $t, "do": "complete"}]')$$),
	('cancel(bigint, text, interval)', $$SELECT jobq.cancel($w)$$),
	('reschedule(bigint, timestamptz, int)', $$SELECT jobq.reschedule($w)$$),
	('retry(bigint)', $$SELECT jobq.retry($d)$$),
	('redrive(text, bigint, text, text, timestamptz)', $$SELECT jobq.redrive('pt')$$),
	('peek(text, bigint)', $$SELECT jobq.peek('pt')$$),
	('job(bigint)', $$SELECT jobq.job($w)$$),
	('_job(bigint)', $$SELECT jobq._job($w)$$),
	('attempts(bigint)', $$SELECT jobq.attempts($w)$$),
	('explain_job(bigint)', $$SELECT jobq.explain_job($w)$$),
	('explain_queue(text)', $$SELECT jobq.explain_queue('pt')$$),
	('metrics()', $$SELECT jobq.metrics()$$),
	('health()', $$SELECT jobq.health()$$),
	('schedule(text, text, text, jsonb, text, text, int, text, int, int, text, jsonb)', $$SELECT jobq.schedule('new', '@yearly', 'pt')$$),
	('unschedule(text)', $$SELECT jobq.unschedule('pt')$$),
	('pause_schedule(text)', $$SELECT jobq.pause_schedule('pt')$$),
	('resume_schedule(text)', $$SELECT jobq.resume_schedule('pt')$$),
	('run_schedule(text)', $$SELECT jobq.run_schedule('pt')$$),
	('preview_schedule(text, text, bigint)', $$SELECT jobq.preview_schedule('@daily')$$),
	('rate_limit_take(text, bigint, interval, bigint)', $$SELECT jobq.rate_limit_take('n', 5, '1 s')$$),
	('adopt()', $$SELECT jobq.adopt()$$),
	('_payload(jsonb, bytea, int, bigint)', $$SELECT jobq._payload('1', NULL, 1, 1)$$),
	('create_key(text, text)', $$SELECT jobq.create_key('pt new', 'sign')$$),
	('rotate_key(text, interval)', $$SELECT jobq.create_key('pt key', 'sign'), jobq.rotate_key('pt key')$$),
	('revoke_key(text)', $$SELECT jobq.create_key('pt key', 'sign'), jobq.revoke_key('pt key')$$),
	('reseal(text)', $$SELECT jobq.reseal('pt')$$),
	('verify_signature(text, bigint, text, jsonb, interval, text)', $$SELECT jobq.verify_signature('pt key', 1, '1', '{}', on_wrong => 'false')$$),
	('check_install()', $$SELECT jobq.check_install()$$),
	('verify_audit(bigint, bytea)', $$SELECT jobq.verify_audit()$$),
	('run_maintenance()', $$SELECT jobq.run_maintenance()$$);
INSERT INTO sample
	SELECT call, 'SELECT * FROM jobq.' || call
	FROM jobq.call WHERE is_view OR call LIKE '\_%()' GROUP BY call;

SELECT set_eq('SELECT call FROM sample', 'SELECT DISTINCT call FROM jobq.call',
	'the matrix has every call');
SELECT set_eq($$SELECT to_regprocedure('jobq.' || call)::oid FROM sample WHERE call LIKE '%(%'
	UNION SELECT to_regclass('jobq.' || call)::oid FROM sample WHERE call NOT LIKE '%(%'$$,
	$$SELECT p.oid FROM pg_proc p WHERE pronamespace = 'jobq'::regnamespace
		AND (proname NOT LIKE '\_%' OR EXISTS
			(SELECT FROM aclexplode(proacl) a WHERE a.grantee <> proowner))
	UNION SELECT oid FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'v'$$,
	'which is every function, procedure and view that is there for somebody');

-- What the caller gets: allowed, denied, or something that must not be.
CREATE FUNCTION pg_temp.attempt(caller text, call text) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	todo text := (SELECT statement FROM sample s WHERE s.call = attempt.call);
BEGIN
	todo := replace(todo, '$w', current_setting('jt.waiting'));
	todo := replace(todo, '$l', current_setting('jt.leased'));
	todo := replace(todo, '$d', current_setting('jt.dead'));
	todo := replace(todo, '$t', current_setting('jt.lease'));
	IF caller LIKE 'jt\_key\_%' THEN
		PERFORM set_config('role', 'jt_key', true);
		PERFORM jobq.use_access_key(current_setting(replace(caller, 'jt_', 'jt.'), true));
	ELSE
		PERFORM set_config('role', caller, true);
	END IF;
	EXECUTE todo;
	RAISE EXCEPTION USING ERRCODE = 'JT000';
EXCEPTION
	WHEN SQLSTATE 'JT000' THEN RETURN 'allowed';
	-- a procedure that has got past the checks, and cannot commit here
	WHEN SQLSTATE '25001' THEN RETURN 'allowed';
	WHEN SQLSTATE '42501' THEN RETURN 'denied';
	WHEN SQLSTATE 'JQ002' THEN RETURN 'does not exist';
	WHEN SQLSTATE 'JQ020' THEN RETURN 'does not exist';
	WHEN OTHERS THEN RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;

-- What jobq.call says. The holder of a key has the key's privilege, but is not
-- the role that has enqueued the jobs or made the schedule; and makes none.
CREATE FUNCTION pg_temp.expected(caller text, call text) RETURNS boolean
	LANGUAGE sql AS $$
	SELECT caller IN ('super', 'admin')
		OR (caller = 'owner' AND call LIKE 'create\_queue(%')
		OR EXISTS (SELECT FROM jobq.call c WHERE c.call = expected.call
			AND (c.privilege = caller
				OR caller = 'owner' AND c.privilege IN ('enqueue', 'dequeue', 'read', 'manage')
				OR caller IN ('key_none', 'key_enqueue', 'key_dequeue')
					AND c.privilege IN ('key', substr(caller, 5))
					AND call !~ '^(cancel|schedule|(un|pause_|resume_|run_)schedule)\('))
$$;

-- What C says to those whom EXECUTE does not stop. Some calls ask for nothing
-- else: what they give is the caller's own, or nobody's; others pass over what
-- the caller may not see (that this is all of it for strangers is seen below).
-- "denied" is for those who know that it exists: all who have a privilege on the
-- queue know the queue; enqueue (which has made the jobs), read and manage know
-- the jobs; schedules and access keys are known to whom may change them.
CREATE FUNCTION pg_temp.expected_of_c(caller text, call text) RETURNS text
	LANGUAGE sql AS $$
	SELECT CASE WHEN pg_temp.expected(caller, call) THEN 'allowed'
		WHEN call ~ '^(create_queue|use_access_key|rate_limit_take|verify_signature|preview_schedule|_payload)\('
			OR call ~ '^(_?job|attempts|explain_job|wait_for|wait_for_result)\('
			OR call ~ '^(_[a-z_]+\(\)|[a-z_]+)$' AND call !~ 'audit' THEN 'allowed'
		-- of the whole database, or of any queue that the caller manages
		WHEN call ~ '^(create|rotate|revoke)_key\(' OR NOT EXISTS
			(SELECT FROM jobq.call c WHERE c.call = expected_of_c.call
				AND c.privilege NOT IN ('admin', 'monitor')) THEN 'denied'
		-- lost jobs are passed over, and so is what is not there
		WHEN call LIKE 'extend\_many(%'
			AND caller IN ('stranger', 'monitor', 'key_none', 'key_enqueue') THEN 'allowed'
		WHEN caller IN ('stranger', 'monitor', 'key_none')
			OR call ~ '^(un|pause_|resume_|run_)schedule\('
			OR call ~ '^(rotate|revoke)_access_key' THEN 'does not exist'
		WHEN s.statement ~ '''pt''|"pt"|\{pt\}'
			OR caller IN ('enqueue', 'read', 'manage') THEN 'denied'
		ELSE 'does not exist' END
	FROM sample s WHERE s.call = expected_of_c.call
$$;

CREATE TEMP TABLE caller (caller text);
INSERT INTO caller VALUES ('super'), ('admin'), ('monitor'), ('owner'),
	('enqueue'), ('dequeue'), ('read'), ('manage'), ('stranger'),
	('key_none'), ('key_enqueue'), ('key_dequeue');

-- ---- the matrix, as granted ----

SELECT is(pg_temp.attempt('jt_' || caller, call),
	CASE WHEN pg_temp.expected(caller, call) THEN 'allowed'
		-- jobq_key_user has EXECUTE on whatever some key could give
		WHEN caller LIKE 'key\_%' AND EXISTS (SELECT FROM jobq.call c WHERE c.call = sample.call
			AND c.privilege IN ('enqueue', 'dequeue', 'read', 'key'))
			THEN pg_temp.expected_of_c(caller, call)
		ELSE 'denied' END,
	caller || ' calls ' || call)
	FROM caller, sample ORDER BY call, caller;

-- ---- the matrix, when EXECUTE stops nobody ----

CREATE ROLE jt_all;
GRANT jt_all TO jt_admin, jt_monitor, jt_owner, jt_enqueue, jt_dequeue, jt_read,
	jt_manage, jt_stranger, jt_key;
GRANT USAGE ON SCHEMA jobq TO jt_all;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO jt_all;
SELECT format('GRANT SELECT ON jobq.%I TO jt_all', call) FROM sample WHERE call !~ '\(' \gexec

SELECT is(pg_temp.attempt('jt_' || caller, call), pg_temp.expected_of_c(caller, call),
	caller || ' with EXECUTE on everything calls ' || call)
	FROM caller, sample ORDER BY call, caller;

-- keys are their maker's, whoever manages a queue besides
INSERT INTO sample VALUES
	('rotate', $$SELECT jobq.rotate_key('pt box')$$),
	('revoke', $$SELECT jobq.revoke_key('pt box')$$);
SELECT is(pg_temp.attempt('jt_' || caller, call), 'JQ013: key "pt box" does not exist',
	caller || ' cannot ' || call || ' somebody else''s key')
	FROM caller, unnest(ARRAY['rotate', 'revoke']) call
	WHERE caller NOT IN ('super', 'admin');
DELETE FROM sample WHERE call IN ('rotate', 'revoke');

CREATE TEMP TABLE inner_call AS
	SELECT call FROM sample
	WHERE statement ~ '\$[wldt]|''pt''|\{pt\}|"pt"'
	AND call !~ '^(_?job|attempts|explain_job|wait_for|wait_for_result)\(';

-- what is not there and what is somebody else's are told of in the same words
CREATE FUNCTION pg_temp.words(caller text, todo text) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	message text; detail text; hint text;
BEGIN
	PERFORM set_config('role', caller, true);
	EXECUTE todo;
	RAISE EXCEPTION USING ERRCODE = 'JT000';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws('|', SQLSTATE, message, detail, hint);
END
$$;
CREATE FUNCTION pg_temp.filled(statement text, waiting text, leased text, dead text, queue text) RETURNS text
	LANGUAGE sql AS $$
	SELECT regexp_replace(replace(replace(replace(replace(statement,
		'$w', waiting), '$l', leased), '$d', dead), '$t', current_setting('jt.lease')),
		'([''"{])pt([''"}])', '\1' || queue || '\2', 'g')
$$;
SELECT is(regexp_replace(replace(pg_temp.words(caller, pg_temp.filled(statement,
		current_setting('jt.waiting'), current_setting('jt.leased'), current_setting('jt.dead'), 'pt')),
		'"pt"', '"tp"'), '\m\d+\M', 'N', 'g'),
	regexp_replace(pg_temp.words(caller, pg_temp.filled(statement,
		'4503599627370495', '4503599627370495', '4503599627370495', 'tp')), '\m\d+\M', 'N', 'g'),
	caller || ' reads nothing between the lines of ' || call)
	FROM unnest(ARRAY['jt_stranger', 'jt_key']) caller, inner_call JOIN sample USING (call);

DROP OWNED BY jt_all;
DROP ROLE jt_all;
SELECT jobq.grant_queue('other', 'jt_' || caller, '{enqueue,dequeue,read,manage}')
	FROM caller WHERE caller NOT IN ('super', 'admin', 'owner') AND caller NOT LIKE 'key\_%';

-- a stranger sees nothing of the queue
SET ROLE jt_stranger;
SELECT is_empty($$SELECT queue FROM jobq.queues WHERE queue = 'pt'$$, 'queues');
SELECT is_empty($$SELECT queue FROM jobq.queue_stats WHERE queue = 'pt'$$, 'queue_stats');
SELECT is_empty($$SELECT name FROM jobq.schedules WHERE queue = 'pt'$$, 'schedules');
SELECT is_empty($$SELECT queue FROM jobq.queue_minutes WHERE queue = 'pt'$$, 'queue_minutes');
SELECT is_empty($$SELECT queue FROM jobq.queue_hours WHERE queue = 'pt'$$, 'queue_hours');
SELECT is_empty($$SELECT queue FROM jobq.kinds WHERE queue = 'pt'$$, 'kinds');
SELECT is_empty($$SELECT queue FROM jobq.groups WHERE queue = 'pt'$$, 'groups');
SELECT is_empty($$SELECT queue FROM jobq.workers WHERE queue = 'pt'$$, 'workers');
SELECT is_empty($$SELECT id FROM jobq.jobs WHERE queue = 'pt'$$, 'jobs');
SELECT is_empty($$SELECT id FROM jobq.history WHERE queue = 'pt'$$, 'history');
SELECT is_empty($$SELECT id FROM jobq.dead_jobs WHERE queue = 'pt'$$, 'dead_jobs');
SELECT is_empty(format('SELECT id FROM jobq.job(%s)', current_setting('jt.' || j)), 'job ' || j)
	FROM unnest(ARRAY['waiting', 'leased', 'dead']) j;
SELECT is_empty(format('SELECT attempt FROM jobq.attempts(%s)', current_setting('jt.' || j)), 'attempts ' || j)
	FROM unnest(ARRAY['waiting', 'leased', 'dead']) j;
SELECT is_empty(format('SELECT reason FROM jobq.explain_job(%s)', current_setting('jt.' || j)), 'explain_job ' || j)
	FROM unnest(ARRAY['waiting', 'leased', 'dead']) j;
SELECT is_empty(format('SELECT state FROM jobq.wait_for(%s)', current_setting('jt.' || j)), 'wait_for ' || j)
	FROM unnest(ARRAY['waiting', 'leased', 'dead']) j;
SELECT throws_ok($$SELECT jobq.health()$$, '42501');
SELECT throws_ok($$SELECT jobq.create_queue('stranger')$$, '42501');
RESET ROLE;

-- an enqueuer has its own jobs explained, wherever they are
SET ROLE jt_enqueue;
SELECT is(reason, r, 'explain_job of an own job: ' || r)
	FROM (VALUES ('waiting', 'uncommitted'), ('leased', 'running'), ('dead', 'dead')) v (j, r),
		jobq.explain_job(current_setting('jt.' || j)::bigint);
RESET ROLE;

-- a monitor sees no job
SET ROLE jt_monitor;
SELECT is_empty(format('SELECT reason FROM jobq.explain_job(%s)', current_setting('jt.waiting')), 'no reason of a job');
SELECT is_empty($$SELECT payload FROM jobq.jobs WHERE queue = 'pt'$$, 'no payload');
SELECT isnt_empty($$SELECT queue FROM jobq.queue_stats WHERE queue = 'pt'$$, 'but counts');
SELECT results_eq($$SELECT group_key, available FROM jobq.groups WHERE queue = 'pt'$$,
	$$VALUES ('pt group', 1::bigint)$$, 'also of groups');
RESET ROLE;

-- nor can it pass dead jobs into a queue that it may not enqueue to
SET ROLE jt_stranger;
SELECT throws_ok($$SELECT jobq.alter_queue('other', '{"dead_letter": "pt"}')$$, '42501');
RESET ROLE;
SET ROLE jt_owner;
SELECT throws_ok($$SELECT jobq.create_queue('mine', '{"dead_letter": "other"}')$$, '42501');
SELECT throws_ok($$SELECT jobq.create_queue('other', if_exists => 'alter')$$, '42501');
SELECT throws_ok($$SELECT jobq.create_queue('other')$$, 'JQ008');
SELECT throws_ok($$SELECT jobq.create_queue('mine', if_exists => 'never')$$, 'JQ007');
RESET ROLE;
SELECT is_empty($$SELECT FROM jobq.queues WHERE queue = 'mine'$$, 'nothing was made');

-- the owner made the dead-letter queue, whoever altered
SET ROLE jt_manage;
SELECT jobq.alter_queue('pt', '{"dead_letter": "pt dead"}');
RESET ROLE;
SELECT is(owner, 'jt_owner', 'a dead-letter queue has its queue''s owner')
	FROM jobq.queues WHERE queue = 'pt dead';

-- ---- grant and revoke: arguments ----

SELECT throws_ok($$SELECT jobq.grant_queue(NULL, 'jt_read', '{read}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.grant_queue('nowhere', 'jt_read', '{read}')$$, 'JQ002');
SELECT throws_ok($$SELECT jobq.grant_queue('pt', NULL, '{read}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.grant_queue('pt', 'jt_nobody', '{read}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.grant_queue('pt', 'public', '{read}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.grant_queue('pt', 'jt_read', NULL)$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.grant_queue('pt', 'jt_read', '{write}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.grant_queue('pt', 'jt_read', '{read,NULL}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.grant_queue('pt', 'jt_read', '{{read}}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.revoke_queue('pt', 'jt_nobody', '{read}')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.revoke_queue('pt', 'jt_read', '{all}')$$, 'JQ007');
SELECT lives_ok($$SELECT jobq.grant_queue('pt', 'jt_read', '{}')$$);

-- ---- the role counts, not its name ----

CREATE ROLE "jt Odd ""name""";
SELECT jobq.grant_queue('pt', 'jt Odd "name"', '{enqueue}');
SET ROLE "jt Odd ""name""";
SELECT ok(jobq.enqueue('pt') > 0, 'a name that needs quotes');
RESET ROLE;
ALTER ROLE "jt Odd ""name""" RENAME TO jt_even;
SET ROLE jt_even;
SELECT ok(jobq.enqueue('pt') > 0, 'renamed');
RESET ROLE;

CREATE ROLE jt_member;
GRANT jt_even TO jt_member;
SET ROLE jt_member;
SELECT ok(jobq.enqueue('pt') > 0, 'a member has its group''s privileges');
RESET ROLE;
REVOKE jt_even FROM jt_member;
SET ROLE jt_member;
SELECT throws_ok($$SELECT jobq.enqueue('pt')$$, '42501', NULL, 'membership gone');
RESET ROLE;

-- whatever changes with a role counts at once, with what was found before kept
CREATE ROLE jt_kept;
SELECT jobq.grant_queue('other', 'jt_kept', '{enqueue}');
CREATE FUNCTION pg_temp.tries() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL ROLE jt_kept;
	PERFORM jobq.enqueue('pt');
	RESET ROLE;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT is(pg_temp.tries(), 'JQ002', 'kept: a stranger');
GRANT jt_even TO jt_kept;
SELECT is(pg_temp.tries(), 'ok', 'kept: a new member');
ALTER ROLE jt_kept NOINHERIT;
SELECT is(pg_temp.tries(), 'JQ002', 'kept: one that inherits nothing');
ALTER ROLE jt_kept INHERIT;
SELECT is(pg_temp.tries(), 'ok', 'kept: one that does again');
REVOKE jt_even FROM jt_kept;
SELECT is(pg_temp.tries(), 'JQ002', 'kept: no member any more');
GRANT jobq_admin TO jt_kept;
SELECT is(pg_temp.tries(), 'ok', 'kept: an admin');
REVOKE jobq_admin FROM jt_kept;
SELECT is(pg_temp.tries(), 'JQ002', 'kept: an admin no more');
ALTER ROLE jt_kept SUPERUSER;
SELECT is(pg_temp.tries(), 'ok', 'kept: a superuser');
ALTER ROLE jt_kept NOSUPERUSER;
SELECT is(pg_temp.tries(), 'JQ002', 'kept: a superuser no more');

GRANT jt_even TO jt_member;
ALTER ROLE jt_member NOINHERIT;
SET ROLE jt_member;
SELECT throws_ok($$SELECT jobq.enqueue('pt')$$, '42501', NULL,
	'privileges that are not inherited do not count');
RESET ROLE;

DROP OWNED BY jt_even;
DROP ROLE jt_even;
CREATE ROLE jt_even;
SELECT jobq.grant_queue('other', 'jt_even', '{enqueue}');
SET ROLE jt_even;
SELECT throws_ok($$SELECT jobq.enqueue('pt')$$, 'JQ002', NULL,
	'a new role of an old name starts with nothing');
RESET ROLE;
SELECT is_empty($$SELECT FROM jobq.queue_acl a WHERE NOT EXISTS
	(SELECT FROM pg_roles r WHERE r.oid = a.grantee)$$,
	'rows of dropped roles were cleaned');

-- within a SECURITY DEFINER function its owner counts
CREATE FUNCTION pg_temp.produce() RETURNS bigint LANGUAGE sql SECURITY DEFINER
	AS $$SELECT jobq.enqueue('pt')$$;
ALTER FUNCTION pg_temp.produce() OWNER TO jt_enqueue;
SET ROLE jt_stranger;
SELECT ok(pg_temp.produce() > 0, 'the effective role is asked');
SELECT throws_ok($$SELECT jobq.enqueue('pt')$$, 'JQ002');
RESET ROLE;

-- the role of the moment counts, also for plans and cursors made for another one
CREATE ROLE jt_reader;
SELECT jobq.grant_queue('pt', 'jt_reader', '{read}');
CREATE FUNCTION pg_temp.count_jobs() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT count(*) FROM jobq.jobs WHERE queue = 'pt');
END
$$;
SET plan_cache_mode = force_generic_plan;
SET ROLE jt_reader;
PREPARE seen AS SELECT count(*) > 0 FROM jobq.jobs WHERE queue = 'pt';
PREPARE produced AS SELECT jobq.enqueue('pt');
SELECT results_eq('EXECUTE seen', 'VALUES (true)', 'a plan for who may read') FROM generate_series(1, 7);
SELECT ok(pg_temp.count_jobs() > 0, 'in a function, too') FROM generate_series(1, 7);
DECLARE c CURSOR FOR SELECT id FROM jobq.jobs WHERE queue = 'pt';
SET ROLE jt_stranger;
SELECT results_eq('EXECUTE seen', 'VALUES (false)', 'the same plan for a stranger');
SELECT is(pg_temp.count_jobs(), 0::bigint, 'in a function, too');
SELECT is_empty('FETCH ALL FROM c', 'a cursor that was opened before shows nothing');
SELECT throws_ok('EXECUTE produced', 'JQ002');
SET ROLE jt_enqueue;
SELECT lives_ok('EXECUTE produced', 'a plan that a reader has prepared');
SET ROLE jt_reader;
SELECT throws_ok('EXECUTE produced', '42501');
SELECT results_eq('EXECUTE seen', 'VALUES (true)', 'and back');
RESET ROLE;
SELECT jobq.revoke_queue('pt', 'jt_reader', '{read}');
SELECT jobq.grant_queue('other', 'jt_reader', '{read}');
SET ROLE jt_reader;
SELECT results_eq('EXECUTE seen', 'VALUES (false)', 'a privilege that was revoked is gone at once');
RESET ROLE;
RESET plan_cache_mode;

-- SET SESSION AUTHORIZATION is a change of role, too
SET SESSION AUTHORIZATION jt_stranger;
SELECT throws_ok($$SELECT jobq.enqueue('pt')$$, 'JQ002');
SELECT throws_ok('SET ROLE jt_enqueue', '42501');
RESET SESSION AUTHORIZATION;

-- ---- DROP OWNED and REASSIGN OWNED ----

CREATE ROLE jt_old;
CREATE ROLE jt_new;
CREATE ROLE jt_friend;
GRANT USAGE ON SCHEMA jobq TO jt_old;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO jt_old;
SET ROLE jt_old;
SELECT jobq.create_queue('moving');
SELECT jobq.grant_queue('moving', 'jt_friend', '{enqueue,dequeue}');
SELECT jobq.schedule('moving', '@yearly', 'moving');
SELECT jobq.enqueue('moving');
RESET ROLE;
SELECT jobq.grant_queue('other', 'jt_friend', '{read}');
DROP OWNED BY jt_friend;
SELECT is_empty($$SELECT FROM jobq.queue_acl WHERE grantee = 'jt_friend'::regrole$$,
	'DROP OWNED takes privileges on queues');
SELECT jobq.grant_queue('pt', 'jt_friend', '{enqueue,dequeue}');
SET ROLE jt_friend;
SELECT throws_ok($$SELECT jobq.enqueue('moving')$$, 'JQ002', NULL, 'which do not come back with another one');
RESET ROLE;
SELECT is(owner, 'jt_old', 'a queue is not dropped by it') FROM jobq.queues WHERE queue = 'moving';
REASSIGN OWNED BY jt_old TO jt_new;
SELECT is(owner, 'jt_new', 'REASSIGN OWNED gives a queue to the new owner') FROM jobq.queues WHERE queue = 'moving';
SET ROLE jt_new;
SELECT lives_ok($$SELECT jobq.alter_queue('moving', '{"max_batch": 7}')$$, 'who may do everything with it');
SELECT isnt_empty($$SELECT FROM jobq.jobs WHERE queue = 'moving'$$, 'sees the old one''s jobs');
SELECT lives_ok($$SELECT jobq.pause_schedule('moving')$$, 'has its schedule');
RESET ROLE;
SET ROLE jt_old;
SELECT throws_ok($$SELECT jobq.alter_queue('moving', '{"max_batch": 8}')$$, '42501', NULL, 'the old one has nothing left');
RESET ROLE;
REVOKE ALL ON FUNCTION jobq.create_queue(text, jsonb, text) FROM jt_old;
REVOKE USAGE ON SCHEMA jobq FROM jt_old;
SELECT lives_ok('DROP ROLE jt_old', 'and can be dropped');
SET ROLE jt_enqueue;
SELECT jobq.schedule('moving', '@yearly', 'pt');
RESET ROLE;
SELECT throws_ok('REASSIGN OWNED BY jt_enqueue TO jt_new', 'JQ008',
	'more than one of the roles has a schedule "moving"', 'two schedules of a name');
SELECT jobq.drop_queue('moving', true);

-- ---- revoke ----

CREATE ROLE jt_leaver;
SELECT jobq.grant_queue('pt', 'jt_leaver', '{enqueue,read}');
SELECT jobq.grant_queue('other', 'jt_leaver', '{dequeue}');
SELECT jobq.revoke_queue('pt', 'jt_leaver', '{enqueue,manage}');
SELECT is(privileges, 4, 'the others stay')
	FROM jobq.queue_acl JOIN jobq.queue USING (queue_id)
	WHERE queue = 'pt' AND grantee = 'jt_leaver'::regrole;
SELECT jobq.revoke_queue('pt', 'jt_leaver', '{read}');
SELECT is(count(*), 1::bigint, 'a row without privileges goes')
	FROM jobq.queue_acl WHERE grantee = 'jt_leaver'::regrole;
SELECT ok(has_schema_privilege('jt_leaver', 'jobq', 'USAGE'), 'another queue needs USAGE');
SELECT jobq.revoke_queue('other', 'jt_leaver', '{dequeue}');
SELECT ok(NOT has_schema_privilege('jt_leaver', 'jobq', 'USAGE'), 'USAGE goes with the last');
SELECT lives_ok('DROP ROLE jt_leaver', 'nothing is left of it');

-- dropping the queue does the same
CREATE ROLE jt_leaver;
SELECT jobq.create_queue('short');
SELECT jobq.grant_queue('short', 'jt_leaver', '{enqueue,dequeue,read,manage}');
SELECT jobq.drop_queue('short');
SELECT lives_ok('DROP ROLE jt_leaver', 'nor after drop_queue');

-- but what was given by hand stays
CREATE ROLE jt_leaver;
GRANT USAGE ON SCHEMA jobq TO jt_leaver;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO jt_leaver;
SELECT jobq.grant_queue('pt', 'jt_leaver', '{read}');
SELECT jobq.revoke_queue('pt', 'jt_leaver', '{read}');
SELECT ok(has_schema_privilege('jt_leaver', 'jobq', 'USAGE')
	AND has_function_privilege('jt_leaver', 'jobq.create_queue(text, jsonb, text)', 'EXECUTE')
	AND NOT has_function_privilege('jt_leaver', 'jobq.peek(text, bigint)', 'EXECUTE'),
	'EXECUTE given by hand stays, and USAGE with it');

-- revoking from our own roles takes nothing of theirs
SELECT jobq.grant_queue('pt', 'jobq_monitor', '{read}');
SELECT jobq.revoke_queue('pt', 'jobq_monitor', '{read}');
SELECT is(pg_temp.attempt('jt_monitor', 'queue_stats'), 'allowed', 'jobq_monitor keeps its own');

-- ---- what nobody gets ----

SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(p.proacl) a
		WHERE pronamespace = 'jobq'::regnamespace AND a.grantee = 0
	$$, 'no EXECUTE for PUBLIC');
SELECT is_empty($$
	SELECT oid::regprocedure FROM pg_proc
		WHERE pronamespace = 'jobq'::regnamespace AND proacl IS NULL
	$$, 'no function with default privileges');
SELECT is_empty($$
	SELECT c.relname, a.grantee::regrole, a.privilege_type
		FROM pg_class c, aclexplode(c.relacl) a
		WHERE relnamespace = 'jobq'::regnamespace AND a.grantee <> c.relowner
		AND NOT (c.relkind = 'v' AND a.privilege_type = 'SELECT' AND a.grantee <> 0)
		AND NOT (c.relkind <> 'v' AND a.privilege_type = 'SELECT'
			AND a.grantee = 'pg_database_owner'::regrole)
	$$, 'nothing on tables and sequences, only SELECT on views, and what pg_dump needs');
SELECT set_eq($$
	SELECT regexp_replace(c.relname, '_[0-9]+$', '_N')
		FROM pg_class c, aclexplode(c.relacl) a
		WHERE relnamespace = 'jobq'::regnamespace
		AND a.grantee = 'pg_database_owner'::regrole
	$$, ARRAY['job_N', 'claim_N', 'outcome_N', 'queue', 'queue_queue_id_seq',
		'queue_acl', 'queue_group', 'crypto_key', 'class', 'epoch', 'epoch_total', 'shelf', 'ukey', 'lease_mark',
		'schedule', 'schedule_schedule_id_seq', 'number_block', 'access_key',
		'access_key_key_id_seq', 'access_key_use',
		'audit_entry', 'audit_chain', 'audit_mark'],
	'the database''s owner may read what a dump holds, and nothing else');
SELECT is_empty($$
	SELECT a.grantee FROM pg_namespace n, aclexplode(n.nspacl) a
		WHERE nspname = 'jobq' AND (a.grantee = 0
			OR a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner)
	$$, 'nothing on the schema for PUBLIC, no CREATE for anyone');
SELECT is_empty($$
	SELECT oid::regprocedure FROM pg_proc
		WHERE pronamespace = 'jobq'::regnamespace
		AND (proparallel <> 'u' OR prosecdef
			OR obj_description(oid, 'pg_proc') IS NULL)
	$$, 'every function is PARALLEL UNSAFE, SECURITY INVOKER and has a comment');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
		WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'v'
		AND NOT coalesce(reloptions @> '{security_barrier=true}'
			OR reloptions @> '{security_barrier}', false)
	$$, 'every view is a security barrier');

-- ---- names that one may not know ----

CREATE FUNCTION pg_temp.detail(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN detail;
END
$$;
SELECT jobq.create_queue('way end'),
	jobq.create_queue('way hidden', '{"dead_letter": "way end"}'),
	jobq.create_queue('way start', '{"dead_letter": "way hidden"}'),
	jobq.grant_queue('way end', 'jt_manage', '{manage}'),
	jobq.grant_queue('way start', 'jt_manage', '{enqueue}');
SET ROLE jt_manage;
SELECT is(pg_temp.detail($$SELECT jobq.alter_queue('way end', '{"dead_letter": "way start"}')$$),
	'Dead jobs would go in a circle: "way end" to "way start" to another queue to "way end".',
	'a circle of dead jobs does not tell the names of queues of others');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
