-- Option isolation: "owner": in one shared queue a role sees and settles what it
-- has enqueued or leased, and learns nothing of the rest; whoever manages the
-- queue has all of it. Every function and view, for each of the roles.
\set QUIET 1
SET client_min_messages = warning;
\ir setup.psql

CREATE ROLE ti_owner;
CREATE ROLE ti_ann;
CREATE ROLE ti_bob;
CREATE ROLE ti_cid;
CREATE ROLE ti_boss;
CREATE ROLE ti_admin IN ROLE jobq_admin;
CREATE ROLE ti_monitor IN ROLE jobq_monitor;
CREATE ROLE ti_stranger;
CREATE ROLE ti_group IN ROLE ti_ann;
GRANT USAGE ON SCHEMA jobq TO ti_owner;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO ti_owner;
SET ROLE ti_owner;
SELECT jobq.create_queue('ti', '{"isolation": "owner", "backoff": {"base": "1 h"}, "lease_for": "1 h"}') AS x \gset
SELECT jobq.grant_queue('ti', r, '{enqueue,dequeue,read}') FROM unnest(ARRAY['ti_ann', 'ti_bob', 'ti_cid']) r \g /dev/null
SELECT jobq.grant_queue('ti', 'ti_boss', '{enqueue,dequeue,manage}') AS x \gset
RESET ROLE;
SELECT jobq.create_queue('ti other') AS x \gset
SELECT jobq.grant_queue('ti other', r, '{enqueue,dequeue,read,manage}')
	FROM unnest(ARRAY['ti_stranger', 'ti_monitor']) r \g /dev/null

-- ---- the option ----

SELECT is(options->>'isolation', 'owner', 'the option shows') FROM jobq.queues WHERE queue = 'ti';
SELECT is(pg_temp.try(format('alter_queue(%L, %L)', 'ti', o)), 'JQ007', 'not an isolation: ' || o)
	FROM unnest(ARRAY['{"isolation": ""}', '{"isolation": "Owner"}', '{"isolation": true}',
		'{"isolation": ["owner"]}', '{"isolation": "role"}']) o;

-- ---- jobs of ann, in every state; those named b_ were leased by bob ----

CREATE TEMP TABLE job (name text PRIMARY KEY, id bigint, lease bigint);
GRANT ALL ON job TO PUBLIC;
-- Enqueue, and lease where somebody is named.
CREATE PROCEDURE pg_temp.make(name text, enqueuer text, lessee text, delay interval DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
	job bigint;
	token bigint;
BEGIN
	PERFORM set_config('role', enqueuer, false);
	job := jobq.enqueue('ti', to_jsonb(name), kind => 'kind of ' || name, priority => -50, delay => delay,
		group_key => 'group ' || name, unique_key => 'key ' || name);
	COMMIT;
	IF lessee IS NOT NULL THEN
		PERFORM set_config('role', lessee, false);
		SELECT d.lease INTO STRICT token FROM jobq.dequeue('ti', worker => 'worker ' || lessee) d
			WHERE d.id = job;
		COMMIT;
	END IF;
	INSERT INTO job VALUES (name, job, token);
	PERFORM set_config('role', 'none', false);
	COMMIT;
END
$$;
CALL pg_temp.make('completed', 'ti_ann', 'ti_ann');
CALL pg_temp.make('b_completed', 'ti_ann', 'ti_bob');
CALL pg_temp.make('retryable', 'ti_ann', 'ti_ann');
CALL pg_temp.make('b_retryable', 'ti_ann', 'ti_bob');
CALL pg_temp.make('dead', 'ti_ann', 'ti_ann');
CALL pg_temp.make('b_dead', 'ti_ann', 'ti_bob');
CALL pg_temp.make('b_cancelled', 'ti_ann', 'ti_bob');
SET ROLE ti_bob;
SELECT jobq.complete(id, lease, '"done"') FROM job WHERE name = 'b_completed' \g /dev/null
SELECT jobq.fail(id, lease, 'bob''s words') FROM job WHERE name = 'b_retryable' \g /dev/null
SELECT jobq.fail(id, lease, 'bob''s words', false) FROM job WHERE name = 'b_dead' \g /dev/null
SET ROLE ti_ann;
SELECT jobq.complete(id, lease, '"done"') FROM job WHERE name = 'completed' \g /dev/null
SELECT jobq.fail(id, lease, 'ann''s words') FROM job WHERE name = 'retryable' \g /dev/null
SELECT jobq.fail(id, lease, 'ann''s words', false) FROM job WHERE name = 'dead' \g /dev/null
SELECT jobq.cancel(id) FROM job WHERE name = 'b_cancelled' \g /dev/null
RESET ROLE;
CALL pg_temp.make('running', 'ti_ann', 'ti_ann');
CALL pg_temp.make('b_running', 'ti_ann', 'ti_bob');
CALL pg_temp.make('cancelled', 'ti_ann', NULL);
SET ROLE ti_ann;
SELECT jobq.cancel(id) FROM job WHERE name = 'cancelled' \g /dev/null
RESET ROLE;
CALL pg_temp.make('available', 'ti_ann', NULL);
CALL pg_temp.make('scheduled', 'ti_ann', NULL, '1 h');
INSERT INTO job VALUES ('missing', 4503599627370495, 4503599627370495);

-- What each role may see of these.
CREATE TEMP TABLE sight (role text, name text);
GRANT SELECT ON sight TO PUBLIC;
INSERT INTO sight
	SELECT r, name FROM unnest(ARRAY['ti_ann', 'ti_group', 'ti_boss', 'ti_owner', 'ti_admin']) r, job
	WHERE name <> 'missing'
	UNION ALL SELECT 'ti_bob', unnest(ARRAY['b_running', 'b_completed', 'b_cancelled']);
CREATE TEMP TABLE role (role text);
INSERT INTO role VALUES ('ti_ann'), ('ti_group'), ('ti_bob'), ('ti_cid'), ('ti_boss'), ('ti_owner'),
	('ti_admin'), ('ti_monitor'), ('ti_stranger');

-- A statement as a role: number of rows, or SQLSTATE; nothing is left of it.
CREATE FUNCTION pg_temp.attempt(role text, statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE statement;
	GET DIAGNOSTICS n = ROW_COUNT;
	RAISE EXCEPTION USING ERRCODE = 'JT000', MESSAGE = n;
EXCEPTION
	WHEN SQLSTATE 'JT000' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE;
END
$$;
-- The first column of all rows, as one text.
CREATE FUNCTION pg_temp.list(role text, query text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE format('SELECT coalesce(string_agg(x, '' '' ORDER BY x COLLATE "C"), '''') FROM (%s) q (x)', query) INTO result;
	RAISE EXCEPTION USING ERRCODE = 'JT000', MESSAGE = result;
EXCEPTION
	WHEN SQLSTATE 'JT000' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE;
END
$$;
-- What a role is to see, of those names that the pattern lets through.
CREATE FUNCTION pg_temp.sights(role text, pattern text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(name, ' ' ORDER BY name COLLATE "C"), '') FROM sight s
		WHERE s.role = sights.role AND name ~ pattern
$$;

-- ---- views of jobs ----

SELECT is(pg_temp.list(role, 'SELECT payload #>> ''{}'' FROM jobq.jobs WHERE queue = ''ti'''),
	pg_temp.sights(role, 'running|available|scheduled|retryable'), role || ': jobs') FROM role;
SELECT is(pg_temp.list(role, 'SELECT payload #>> ''{}'' FROM jobq.history WHERE queue = ''ti'''),
	pg_temp.sights(role, 'completed|cancelled|dead'), role || ': history') FROM role;
SELECT is(pg_temp.list(role, 'SELECT payload #>> ''{}'' FROM jobq.dead_jobs WHERE queue = ''ti'''),
	pg_temp.sights(role, 'dead'), role || ': dead_jobs') FROM role;
SELECT is(pg_temp.list(role, 'SELECT g.group_key FROM jobq.groups g WHERE g.queue = ''ti'''),
	coalesce((SELECT string_agg('group ' || name, ' ' ORDER BY name COLLATE "C")
		FROM sight s WHERE s.role = CASE role.role WHEN 'ti_monitor' THEN 'ti_admin' ELSE role.role END
			AND name ~ 'running|available|scheduled|retryable'), ''),
	role || ': groups') FROM role;
SELECT is(pg_temp.list(role, 'SELECT p.payload #>> ''{}'' FROM jobq.peek(''ti'') p'),
	CASE WHEN role IN ('ti_ann', 'ti_owner', 'ti_admin') THEN 'available'
		WHEN role IN ('ti_bob', 'ti_cid') THEN ''
		WHEN role IN ('ti_group') THEN 'available'
		WHEN role = 'ti_boss' THEN '42501' ELSE 'JQ002' END, role || ': peek') FROM role;

-- ---- functions that show one job ----

SELECT is(pg_temp.attempt(role, format(f, id)),
	CASE WHEN EXISTS (SELECT FROM sight s WHERE s.role = role.role AND s.name = job.name)
		THEN CASE WHEN f LIKE '%attempts%' AND name IN ('available', 'scheduled', 'cancelled') THEN '0' ELSE '1' END
		ELSE '0' END,
	format('%s: %s of %s', role, split_part(split_part(f, '.', 2), '(', 1), name))
	FROM role, job, unnest(ARRAY['SELECT FROM jobq.job(%s)', 'SELECT FROM jobq.attempts(%s)',
		'SELECT FROM jobq.explain_job(%s)', 'SELECT FROM jobq.wait_for(%s, ''0'')']) f;
SET ROLE ti_cid;
SELECT id AS available FROM job WHERE name = 'available' \gset
SELECT id AS completed FROM job WHERE name = 'completed' \gset
SELECT id AS b_completed FROM job WHERE name = 'b_completed' \gset
CALL jobq.wait_for_result(:completed, '0', NULL) \gset w_
\if :{?w_outcome}
SELECT is(:'w_outcome'::text, NULL, 'wait_for_result: nothing of a foreign job');
\else
SELECT pass('wait_for_result: nothing of a foreign job');
\endif
SET ROLE ti_bob;
CALL jobq.wait_for_result(:b_completed, '0', NULL) \gset w_
SELECT is(:'w_outcome'::jsonb->>'state', 'completed', 'wait_for_result: of the job that one has completed');
RESET ROLE;

-- ---- settling: with the right lease, for whoever is neither enqueuer nor lessee ----

CREATE TEMP TABLE settling (call text, ok text);
INSERT INTO settling VALUES
	('SELECT jobq.complete($i, $l)', '1'),
	('SELECT jobq.fail($i, $l)', '1'),
	('SELECT jobq.release($i, $l)', '1'),
	('SELECT jobq.extend($i, $l)', '1'),
	('SELECT jobq.complete_many(ARRAY[$i], $l)', '1'),
	('SELECT jobq.settle_jobs(''[{"id": $i, "lease": $l, "do": "complete"}]'')', '1'),
	('SELECT jobq.settle_jobs(''[{"id": $i, "lease": $l, "do": "fail"}]'')', '1'),
	('SELECT jobq.settle_jobs(''[{"id": $i, "lease": $l, "do": "release"}]'')', '1'),
	('SELECT jobq.settle_jobs(''[{"id": $i, "lease": $l, "do": "extend"}]'')', '1'),
	('SELECT jobq.complete_and_dequeue(''ti other'', ARRAY[$i], $l)', '0'),
	('SELECT unnest(jobq.complete_many(ARRAY[$i], $l, ''skip''))', '1'),
	('SELECT FROM jobq.extend_many(ARRAY[$i], $l) WHERE lease_expires_at IS NOT NULL', '1');
SELECT jobq.grant_queue('ti other', r, '{enqueue,dequeue,read,manage}') FROM unnest(ARRAY['ti_ann', 'ti_bob', 'ti_cid', 'ti_boss']) r \g /dev/null
SELECT is(pg_temp.attempt(role, replace(replace(call, '$i', id::text), '$l', lease::text)),
	CASE WHEN role IN ('ti_ann', 'ti_boss', 'ti_owner', 'ti_admin')
			OR role = 'ti_bob' AND name = 'b_running'
		THEN CASE WHEN role = 'ti_owner' AND call LIKE '%ti other%' THEN 'JQ002' ELSE ok END
		WHEN call LIKE '%skip%' OR call LIKE '%extend\_many%' THEN '0'
		ELSE 'JQ020' END,
	format('%s: %s of %s', role, call, name))
	FROM role, job, settling
	WHERE name IN ('running', 'b_running') AND role NOT IN ('ti_monitor', 'ti_stranger', 'ti_group')
	ORDER BY name, role;
SELECT is(pg_temp.attempt(role, format('SELECT jobq.complete(%s, %s)', id, lease + d)), 'JQ020',
	format('%s: another lease of %s', role, name))
	FROM unnest(ARRAY['ti_bob', 'ti_cid', 'ti_stranger', 'ti_monitor']) role, job, unnest(ARRAY[-1, 0, 1]) d
	WHERE name IN ('running', 'completed', 'available', 'scheduled', 'retryable', 'dead', 'missing') AND lease IS NOT NULL;
-- the lease is a lease of one's own, though it is over
SELECT is(pg_temp.attempt('ti_bob', format('SELECT jobq.complete(%s, %s)', id, lease)), state, 'bob learns what became of ' || name)
	FROM job, (VALUES ('b_completed', 'JQ015'), ('b_retryable', 'JQ015'), ('b_dead', 'JQ015'), ('b_cancelled', 'JQ014')) v (job_name, state)
	WHERE name = job_name;
SELECT is(pg_temp.attempt('ti_cid', format('SELECT jobq.complete(%s, %s)', id, lease)), 'JQ020', 'cid does not of ' || name)
	FROM job WHERE name LIKE 'b\_%';

-- ---- steering ----

SELECT is(pg_temp.attempt(role, format('SELECT jobq.%s(%s)', f, id)),
	CASE WHEN NOT EXISTS (SELECT FROM sight s WHERE s.role = role.role AND s.name = job.name) THEN 'JQ020'
		WHEN role IN ('ti_boss', 'ti_owner', 'ti_admin') THEN
			CASE WHEN f = 'retry' AND name IN ('available', 'scheduled', 'running') THEN 'JQ007' ELSE '1' END
		WHEN role IN ('ti_ann', 'ti_group') AND f = 'cancel' THEN '1'
		ELSE '42501' END, format('%s: %s of %s', role, f, name))
	FROM role, job, unnest(ARRAY['cancel', 'reschedule', 'retry']) f
	WHERE name IN ('available', 'scheduled', 'running', 'b_completed', 'dead', 'missing')
		AND role <> 'ti_group';
SELECT is(pg_temp.attempt('ti_bob', format('SELECT jobq.cancel(%s)', id)), '42501', 'a lessee may not cancel')
	FROM job WHERE name = 'b_running';
SELECT is(pg_temp.attempt(role, f),
	CASE WHEN role IN ('ti_boss', 'ti_owner', 'ti_admin') THEN '1'
		WHEN role IN ('ti_ann', 'ti_bob', 'ti_cid', 'ti_group') THEN '42501' ELSE 'JQ002' END, role || ': ' || f)
	FROM role, unnest(ARRAY['SELECT jobq.purge_queue(''ti'')', 'SELECT jobq.redrive(''ti'')',
		'SELECT jobq.alter_group(''ti'', ''group available'', ''{"limit": 1}'')',
		'SELECT jobq.alter_queue(''ti'', ''{"isolation": null}'')']) f;

-- ---- what is counted of all ----

SELECT is(pg_temp.attempt(role, format('SELECT FROM jobq.%s WHERE queue = ''ti''', v)) <> '0',
	role IN ('ti_boss', 'ti_owner', 'ti_admin', 'ti_monitor'), role || ': ' || v)
	FROM role, unnest(ARRAY['queue_stats', 'queue_minutes', 'queue_hours', 'kinds', 'workers']) v;
SELECT is(pg_temp.attempt(role, 'SELECT FROM jobq.queues WHERE queue = ''ti'''),
	CASE role WHEN 'ti_stranger' THEN '0' ELSE '1' END, role || ': queues') FROM role;
SELECT is(pg_temp.attempt(role, 'SELECT FROM jobq.explain_queue(''ti'')'),
	CASE WHEN role IN ('ti_boss', 'ti_owner', 'ti_admin', 'ti_monitor') THEN '1'
		WHEN role = 'ti_stranger' THEN 'JQ002' ELSE '42501' END, role || ': explain_queue') FROM role;
SET ROLE ti_ann;
\set VERBOSITY sqlstate
\set ON_ERROR_STOP off
CALL jobq.wait_until_idle('ti', '0', NULL);
\set ON_ERROR_STOP on
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '42501', 'wait_until_idle would tell of others');
SET ROLE ti_boss;
CALL jobq.wait_until_idle('ti', '0', NULL) \gset
SELECT is(:'idle'::text, 'f', 'but not to whoever manages the queue');
SET ROLE ti_bob;
CALL jobq.wait_for_jobs('ti', '0', NULL) \gset w_
SELECT is(:'w_available'::text, 't', 'whoever may take a job may wait for one');
RESET ROLE;

-- ---- unique keys ----

SELECT is(pg_temp.list(role, 'SELECT outcome FROM jobq.enqueue_unique(''ti'', unique_key => ''key available'', on_conflict => ' || quote_literal(m) || ')'),
	CASE WHEN role IN ('ti_ann', 'ti_boss') THEN
		CASE m WHEN 'error' THEN 'JQ008' WHEN 'replace' THEN 'replaced' WHEN 'ignore' THEN 'existing' ELSE 'debounced' END
		ELSE 'inserted' END, role || ': a taken key, ' || m)
	FROM unnest(ARRAY['ti_ann', 'ti_bob', 'ti_cid', 'ti_boss']) role,
		unnest(ARRAY['ignore', 'error', 'replace', 'debounce']) m;

-- ---- no message tells more of a foreign job than of one that is not there ----

CREATE FUNCTION pg_temp.words(role text, statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	message text; detail text; hint text;
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN regexp_replace(concat_ws('|', SQLSTATE, message, detail, hint), '\m\d+\M', 'N', 'g');
END
$$;
SELECT is(pg_temp.words('ti_cid', replace(replace(call, '$i', id::text), '$l', coalesce(lease, 11)::text)),
	pg_temp.words('ti_cid', replace(replace(call, '$i', '4503599627370495'), '$l', coalesce(lease, 11)::text)),
	format('the words of %s of %s', call, name))
	FROM job, (SELECT call FROM settling UNION ALL
		SELECT format('SELECT jobq.%s($i)', f) FROM unnest(ARRAY['cancel', 'reschedule', 'retry']) f) c
	WHERE name IN ('running', 'b_completed', 'available', 'scheduled', 'dead');

-- ---- in one transaction ----

BEGIN;
SET LOCAL ROLE ti_ann;
SELECT jobq.enqueue('ti', '"own"', priority => -90) AS own \gset
SELECT lease AS token FROM jobq.dequeue('ti') WHERE id = :own \gset
SET LOCAL ROLE ti_bob;
SELECT is_empty(format('SELECT FROM jobq.job(%s)', :own), 'a role that is taken on meanwhile sees no more');
SELECT throws_ok(format('SELECT jobq.complete(%s, %s)', :own, :token), 'JQ020', NULL, 'nor does it settle');
SET LOCAL ROLE ti_ann;
SELECT lives_ok(format('SELECT jobq.complete(%s, %s)', :own, :token), 'what the other role has leased');
COMMIT;

-- ---- leasing is what makes it yours ----

SET ROLE ti_bob;
SELECT is_empty(format('SELECT FROM jobq.job(%s)', :available), 'before');
SELECT id AS got, lease AS token FROM jobq.dequeue('ti') \gset
SELECT is(:got::bigint, :available::bigint, 'dequeue gives the job of another role');
SELECT is(payload #>> '{}' || state, 'availablerunning', 'now it is there') FROM jobq.job(:available);
SELECT ok(jobq.extend(:got, :token, progress => '1') > now(), 'it can be extended');
SELECT is(progress::text, '1', 'and looked at') FROM jobq.jobs WHERE id = :got;
SET ROLE ti_cid;
SELECT is_empty(format('SELECT FROM jobq.job(%s)', :available), 'not for a third');
SET ROLE ti_ann;
SELECT is(state, 'running', 'it is still there for its enqueuer') FROM jobq.job(:available);
SET ROLE ti_bob;
SELECT jobq.release(:got, :token) AS x \gset
SELECT is_empty(format('SELECT FROM jobq.job(%s)', :available), 'what was given back is the enqueuer''s again');
SELECT throws_ok(format('SELECT jobq.complete(%s, %s)', :got, :token), 'JQ015', NULL, 'which the one who did it may know');
SELECT lease AS token FROM jobq.dequeue('ti', lease_for => '1 s') WHERE id = :got \gset
RESET ROLE;
CALL pg_temp.await(format('(SELECT state = ''retryable'' FROM jobq.job(%s))', :got));
SET ROLE ti_bob;
SELECT is_empty(format('SELECT FROM jobq.job(%s)', :got), 'a lease that ran out gives nothing');
SELECT throws_ok(format('SELECT jobq.complete(%s, %s)', :got, :token), 'JQ001', NULL, 'but is known as lost to its holder');
SET ROLE ti_cid;
SELECT throws_ok(format('SELECT jobq.complete(%s, %s)', :got, :token), 'JQ020', NULL, 'and to no other');
RESET ROLE;

-- whoever extends a lease does not take it over
CALL pg_temp.make('extended', 'ti_ann', 'ti_bob');
SET ROLE ti_ann;
SELECT jobq.extend(id, lease, progress => '1') FROM job WHERE name = 'extended' \g /dev/null
SET ROLE ti_bob;
SELECT jobq.complete(id, lease) FROM job WHERE name = 'extended' \g /dev/null
SELECT is(j.state, 'completed', 'whoever extends a lease does not take it over')
	FROM (SELECT 1) one LEFT JOIN (job LEFT JOIN jobq.history j USING (id)) ON name = 'extended';
RESET ROLE;

-- ---- altered at run time ----

SELECT jobq.alter_queue('ti', '{"isolation": null}') AS x \gset
SELECT is(pg_temp.list('ti_cid', 'SELECT payload #>> ''{}'' FROM jobq.jobs WHERE queue = ''ti'''),
	pg_temp.list('ti_boss', 'SELECT payload #>> ''{}'' FROM jobq.jobs WHERE queue = ''ti'''), 'without it read is enough');
SELECT is(pg_temp.attempt('ti_cid', format('SELECT jobq.complete(%s, %s)', id, lease)), '1', 'and so is dequeue')
	FROM job WHERE name = 'running';
SELECT is(pg_temp.attempt('ti_cid', format('SELECT jobq.cancel(%s)', id)), '42501', 'who reads a job is told that cancelling is not permitted')
	FROM job WHERE name = 'running';
SELECT is(pg_temp.list('ti_bob', 'SELECT outcome FROM jobq.enqueue_unique(''ti'', unique_key => ''key scheduled'')'),
	'existing', 'keys are those of all');
SELECT jobq.alter_queue('ti', '{"isolation": "owner"}') AS x \gset
SELECT is(pg_temp.list('ti_cid', 'SELECT payload #>> ''{}'' FROM jobq.jobs WHERE queue = ''ti'''), '', 'with it it is not');
SELECT is(pg_temp.attempt('ti_cid', format('SELECT jobq.complete(%s, %s)', id, lease)), 'JQ020', 'at once')
	FROM job WHERE name = 'running';

-- a role that has lost the privilege to dequeue has no leases either
SELECT jobq.revoke_queue('ti', 'ti_bob', '{dequeue}') AS x \gset
SELECT is(pg_temp.list('ti_bob', 'SELECT payload #>> ''{}'' FROM jobq.jobs WHERE queue = ''ti'''), '', 'dequeue revoked');

-- of one lease over several queues, what is left is what the role may still settle
SELECT jobq.create_queue('ti two') AS x, jobq.grant_queue('ti two', 'ti_cid', '{dequeue}') AS y,
	jobq.enqueue('ti other') AS a, jobq.enqueue('ti two') AS b, jobq.enqueue('ti two') AS c \gset
SET ROLE ti_cid;
SELECT max(lease) AS token, count(*) AS taken FROM jobq.dequeue_any('{ti other,ti two}', 10) \gset
SELECT is(:taken::bigint, 3::bigint, 'three jobs of two queues');
RESET ROLE;
SELECT jobq.revoke_queue('ti two', 'ti_cid', '{dequeue}') AS x \gset
SET ROLE ti_cid;
SELECT is(jobq.complete_many(ARRAY[:a, :b, :c]::bigint[], :token, 'skip'), ARRAY[:a]::bigint[], 'one of them is left');
RESET ROLE;

-- ---- clean up ----

SELECT jobq.drop_queue('ti', true) AS x, jobq.drop_queue('ti other', true) AS y, jobq.drop_queue('ti two', true) AS z \gset
DROP OWNED BY ti_owner;
DROP ROLE ti_owner, ti_group, ti_ann, ti_bob, ti_cid, ti_boss, ti_admin, ti_monitor, ti_stranger;
SELECT * FROM finish();
