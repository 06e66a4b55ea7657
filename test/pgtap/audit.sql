-- What the audit log has: every administrative act, every refusal, and the
-- jobs of queues that ask for it, without payloads; who may read it, and that
-- nobody can change it.
\set QUIET 1
SET client_min_messages = warning;
SET application_name = 'audit test';
\ir setup.psql
CREATE ROLE at_admin IN ROLE jobq_admin;
CREATE ROLE at_monitor IN ROLE jobq_monitor;
CREATE ROLE at_maker;
CREATE ROLE at_taker;
CREATE ROLE at_stranger;
CREATE ROLE at_dropped;
SELECT now() AS start \gset

-- ---- acts ----

-- A call, and what is to be found about it.
CREATE TEMP TABLE act (n int GENERATED ALWAYS AS IDENTITY, statement text,
	call text, queue text, detail text, arguments jsonb);
INSERT INTO act (statement, call, queue, detail, arguments) VALUES
	($$create_queue('at', '{"max_batch": 7}')$$, 'create_queue', 'at',
		'options {"max_batch": 7}', '{"queue": 2, "options": 32, "if_exists": 5}'),
	($$create_queue('at', '{"max_batch": 8}', 'alter')$$, 'create_queue', 'at',
		'altered, options {"max_batch": 8}', NULL),
	($$alter_queue('at', '{"max_batch": 9}')$$, 'alter_queue', 'at',
		'options {"max_batch": 9}', NULL),
	($$pause_queue('at')$$, 'pause_queue', 'at', NULL, '{"queue": 2}'),
	($$drain_queue('at')$$, 'drain_queue', 'at', NULL, NULL),
	($$resume_queue('at')$$, 'resume_queue', 'at', NULL, NULL),
	($$grant_queue('at', 'at_maker', '{enqueue}')$$, 'grant_queue', 'at',
		'enqueue to at_maker', NULL),
	($$grant_queue('at', 'at_dropped', '{enqueue,read}')$$, 'grant_queue', 'at',
		'enqueue, read to at_dropped', NULL),
	($$revoke_queue('at', 'at_dropped', '{read}')$$, 'revoke_queue', 'at',
		'read from at_dropped', NULL),
	($$alter_group('at', 'g', '{"limit": 3}')$$, 'alter_group', 'at',
		'group "g", options {"limit": 3}', '{"queue": 2, "options": 28, "group_key": 1}'),
	($$schedule('at s', '@yearly', 'at', '"SECRET"', headers => '{"h": "SECRET"}')$$,
		'schedule', 'at', 'schedule "at s" of postgres, @yearly UTC', NULL),
	($$pause_schedule('at s')$$, 'pause_schedule', 'at',
		'schedule "at s" of postgres, @yearly UTC', NULL),
	($$resume_schedule('at s')$$, 'resume_schedule', 'at',
		'schedule "at s" of postgres, @yearly UTC', NULL),
	($$run_schedule('at s')$$, 'run_schedule', 'at',
		'schedule "at s" of postgres, @yearly UTC', NULL),
	($$unschedule('at s')$$, 'unschedule', 'at',
		'schedule "at s" of postgres, @yearly UTC', NULL),
	($$purge_queue('at')$$, 'purge_queue', 'at', '1 jobs', NULL),
	($$redrive('at')$$, 'redrive', 'at', '0 jobs', NULL),
	($$create_queue('at gone')$$, 'create_queue', 'at gone', 'options {}', NULL),
	($$drop_queue('at gone', true)$$, 'drop_queue', 'at gone',
		'with all that was in it', NULL);
\t on
\o /dev/null
SELECT format('SELECT jobq.%s', statement) FROM act ORDER BY n \gexec
\o
\t off
SELECT results_eq(format('SELECT call, queue, detail FROM jobq.audit WHERE at >= %L AND outcome = %L ORDER BY at', :'start', 'done'),
	'SELECT call, queue, detail FROM act ORDER BY n', 'every act has its entry');
SELECT is(e.arguments, a.arguments, e.call || ': names and sizes of its arguments')
	FROM jobq.audit e JOIN act a USING (call, queue)
	WHERE e.at >= :'start' AND a.arguments IS NOT NULL
		AND e.detail IS NOT DISTINCT FROM a.detail;
SELECT is_empty($$SELECT call FROM jobq.audit WHERE outcome = 'done' AND (role <> 'postgres'
	OR session_role <> 'postgres' OR application_name <> 'audit test' OR sqlstate IS NOT NULL
	OR latency_ms < 0 OR latency_ms > 60000 OR client_addr IS NOT NULL)
	AND at >= '$$ || :'start' || $$'$$, 'who did it, and from where');

-- the calls that must have one, so that none is forgotten
SELECT set_eq($$SELECT DISTINCT split_part(call, '(', 1) FROM jobq.call
	WHERE privilege IN ('manage', 'admin') AND NOT is_view AND call NOT LIKE '\_%'
	AND call NOT LIKE 'wait%' AND split_part(call, '(', 1) NOT IN ('job', 'attempts',
	'explain_job', 'explain_queue', 'preview_schedule', 'metrics', 'health',
	'check_install', 'run_maintenance', 'verify_audit',
	'cancel', 'reschedule', 'retry', 'adopt', 'verify_signature', 'rate_limit_take',
	'create_key', 'rotate_key', 'revoke_key', 'reseal',
	'create_access_key', 'rotate_access_key', 'revoke_access_key')$$,
	$$SELECT DISTINCT call FROM act WHERE call <> 'schedule'$$,
	'every call that changes a queue is among them');

-- an act that is rolled back has not happened
BEGIN;
SELECT jobq.pause_queue('at') \g /dev/null
SELECT count(*) AS paused FROM jobq.audit WHERE call = 'pause_queue' AND at >= now() \gset
SAVEPOINT a;
SELECT jobq.resume_queue('at') \g /dev/null
ROLLBACK TO a;
SELECT count(*) AS resumed FROM jobq.audit WHERE call = 'resume_queue' AND at >= now() \gset
ROLLBACK;
SELECT is(:paused, 1, 'in its transaction an act has an entry');
SELECT is(:resumed, 0, 'but not when a savepoint has undone it');
SELECT is(count(*), 1::bigint, 'nor after ROLLBACK')
	FROM jobq.audit WHERE call = 'pause_queue' AND at >= :'start';

-- ---- other roles' jobs ----

SELECT clock_timestamp() AS steering \gset
SET ROLE at_maker;
SELECT jobq.enqueue('at') AS one \gset
SELECT jobq.enqueue('at') AS two \gset
SELECT jobq.cancel(:one, 'SECRET') \g /dev/null
RESET ROLE;
SELECT jobq.reschedule(:two, '2100-01-01') \g /dev/null
SELECT jobq.cancel(:two, 'SECRET') \g /dev/null
SELECT jobq.cancel(:two, 'SECRET') \g /dev/null
SELECT jobq.retry(:two) AS three \gset
SELECT results_eq(format('SELECT call, job_id, detail FROM jobq.audit WHERE at >= %L AND outcome = %L ORDER BY at', :'steering', 'done'),
	format($$VALUES ('reschedule', %1$s::bigint, NULL), ('cancel', %1$s, NULL),
		('retry', %1$s, 'runs again as job %2$s')$$, :two, :three),
	'steering of another role''s job is an act, of one''s own it is not');

-- ---- jobs of a queue that asks for it ----

SELECT jobq.create_queue('at jobs', '{"audit": true, "backoff": {"base": "1 h"}}'), jobq.create_queue('at quiet') \g /dev/null
SELECT jobq.grant_queue('at jobs', 'at_taker', '{enqueue,dequeue}'),
	jobq.grant_queue('at quiet', 'at_taker', '{enqueue,dequeue}') \g /dev/null
SELECT clock_timestamp() AS jobs \gset
SET ROLE at_taker;
SELECT (jobq.enqueue_many('at quiet', array_fill('"SECRET"'::jsonb, ARRAY[8])))[1] AS quiet \gset
SELECT (jobq.enqueue_many('at jobs', array_fill('"SECRET"'::jsonb, ARRAY[8])))[1] AS first \gset
SELECT lease FROM jobq.dequeue_any('{at quiet,at jobs}', 14) LIMIT 1 \gset
SELECT jobq.complete(:first, :lease, '"SECRET"') \g /dev/null
SELECT jobq.fail(:first + 1, :lease, 'SECRET') \g /dev/null
SELECT jobq.release(:first + 2, :lease) \g /dev/null
SELECT jobq.extend(:first + 3, :lease, progress => '"SECRET"') \g /dev/null
SELECT jobq.complete_many(ARRAY[:first + 3, :quiet], :lease) \g /dev/null
SELECT count(*) FROM jobq.settle_jobs(jsonb_build_array(
	jsonb_build_object('id', :first + 4, 'lease', :lease, 'do', 'fail', 'error', 'SECRET'),
	jsonb_build_object('id', :first + 5, 'lease', :lease, 'do', 'complete'))) \g /dev/null
SELECT id AS last, lease FROM jobq.dequeue('at jobs') \gset
SELECT count(*) FROM jobq.complete_and_dequeue('at jobs', ARRAY[:last], :lease) \g /dev/null
RESET ROLE;
SELECT results_eq(format('SELECT call, queue, job_id, detail, role FROM jobq.audit WHERE at >= %L ORDER BY at', :'jobs'),
	format($$VALUES ('dequeue_any', 'at jobs', NULL, '6 jobs: %1$s-%7$s', 'at_taker'),
		('complete', 'at jobs', %1$s::bigint, '1 job: %1$s', 'at_taker'),
		('fail', 'at jobs', %2$s, 'retryable: 1 job: %2$s', 'at_taker'),
		('release', 'at jobs', %3$s, '1 job: %3$s', 'at_taker'),
		('complete_many', 'at jobs', %4$s, '1 job: %4$s', 'at_taker'),
		('settle_jobs', 'at jobs', %6$s, 'complete: 1 job: %6$s', 'at_taker'),
		('settle_jobs', 'at jobs', %5$s, 'fail: 1 job: %5$s', 'at_taker'),
		('dequeue', 'at jobs', %8$s, '1 job: %8$s', 'at_taker'),
		('complete_and_dequeue', 'at jobs', %8$s, 'complete: 1 job: %8$s', 'at_taker'),
		('complete_and_dequeue', 'at jobs', %9$s, '1 job: %9$s', 'at_taker')$$,
		:first, :first + 1, :first + 2, :first + 3, :first + 4, :first + 5, :first + 5, :last,
		(SELECT id FROM jobq.jobs WHERE queue = 'at jobs' AND state = 'running')),
	'each dequeue and settling call has an entry, and only in that queue');

-- jobs that were handed out, but not for good
SELECT id FROM jobq.jobs WHERE queue = 'at jobs' AND state = 'available' \gset
BEGIN;
SELECT count(*) FROM jobq.dequeue('at jobs') \g /dev/null
ROLLBACK;
CALL pg_temp.await($$EXISTS (SELECT FROM jobq.audit WHERE outcome = 'rolled_back')$$);
SELECT is(ROW(call, queue, detail)::text, ROW('dequeue', 'at jobs', format('1 job: %s', :id))::text,
	'a dequeue that was rolled back has one, too')
	FROM jobq.audit WHERE outcome = 'rolled_back';

-- ---- refusals ----

SELECT clock_timestamp() AS refusing \gset
SELECT jobq.enqueue('at') AS other \gset
SELECT jobq.create_queue('at fast', '{"enqueue_limit": {"limit": 1, "period": "1 h"}}') \g /dev/null
SELECT jobq.grant_queue('at fast', 'at_stranger', '{enqueue,read}') \g /dev/null
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO at_stranger;
SET ROLE at_stranger;
SELECT pg_temp.try($$enqueue('at fast', '"SECRET"')$$) \g /dev/null
SELECT pg_temp.try(format(c, :other)) FROM unnest(ARRAY[
	$$enqueue('at fast', '"SECRET"')$$,
	$$dequeue('at fast')$$,
	$$enqueue('at', '"SECRET"')$$,
	$$enqueue('nowhere', '"SECRET"')$$,
	$$pause_schedule('nothing')$$,
	$$revoke_access_key('nothing')$$,
	$$revoke_key('nothing')$$,
	$$peek('at')$$,
	$$explain_queue('at')$$,
	$$pause_queue('at fast')$$,
	$$cancel(%s)$$,
	$$complete(%s, 1)$$,
	$$health()$$,
	$$metrics()$$,
	$$check_install()$$,
	$$verify_audit()$$,
	$$_audit_gate()$$,
	$$adopt()$$]) c \g /dev/null
RESET ROLE;
SELECT pg_temp.try(c) FROM unnest(ARRAY[
	$$enqueue('nowhere')$$,
	$$pause_schedule('nothing')$$,
	$$revoke_access_key('nothing')$$,
	$$revoke_key('nothing')$$]) c \g /dev/null
CALL pg_temp.await(format($$(SELECT count(*) FROM jobq.audit WHERE at >= %L AND outcome = 'refused') >= 18$$, :'refusing'));
SELECT results_eq(format($$SELECT call, queue, job_id, sqlstate, detail FROM jobq.audit
		WHERE at >= %L AND outcome = 'refused' ORDER BY at$$, :'refusing'),
	format($$VALUES ('enqueue', 'at fast', NULL, 'JQ005', '1 asked for, the limit is 1 jobs in 3600 s'),
		('dequeue', 'at fast', NULL, '42501', 'lacks the privilege dequeue'),
		('enqueue', 'at', NULL, 'JQ002', 'has no privilege on the queue'),
		('enqueue', NULL, NULL, 'JQ002', 'there is no queue of that name'),
		('pause_schedule', NULL, NULL, 'JQ020', 'there is no schedule of that name'),
		('revoke_access_key', NULL, NULL, 'JQ020', 'there is no access key of that name'),
		('revoke_key', NULL, NULL, 'JQ013', 'there is no key of that name'),
		('peek', 'at', NULL, 'JQ002', 'has no privilege on the queue'),
		('explain_queue', 'at', NULL, 'JQ002', 'has no privilege on the queue'),
		('pause_queue', 'at fast', NULL, '42501', 'lacks the privilege manage'),
		('cancel', 'at', %1$s::bigint, 'JQ020', 'may not see the job'),
		('complete', 'at', %1$s, 'JQ020', 'may not see the job'),
		('health', NULL, NULL, '42501', 'is no member of jobq_admin or jobq_monitor'),
		('metrics', NULL, NULL, '42501', 'is no member of jobq_admin or jobq_monitor'),
		('check_install', NULL, NULL, '42501', 'is no member of jobq_admin'),
		('verify_audit', NULL, NULL, '42501', 'is no member of jobq_admin'),
		('view jobq.audit', NULL, NULL, '42501', 'is no member of jobq_admin'),
		('adopt', NULL, NULL, '42501', 'is no member of jobq_admin')$$, :other),
	'every refusal has its entry, also what is not there, but not where an admin is wrong');
SELECT is_empty(format($$SELECT call FROM jobq.audit WHERE at >= %L AND outcome = 'refused'
	AND (role <> 'at_stranger' OR session_role <> 'postgres' OR application_name <> 'audit test')$$, :'refusing'),
	'the effective role and who logged in');
SELECT is(count(*), 0::bigint, 'no payload, result, error or reason is in it')
	FROM jobq.audit a WHERE a::text LIKE '%SECRET%';

-- ---- keys ----

SELECT clock_timestamp() AS keys \gset
SELECT jobq.create_key('at sign', 'sign') \g /dev/null
SELECT jobq.create_key('at seal', 'seal') \g /dev/null
SELECT jobq.rotate_key('at sign') \g /dev/null
SELECT jobq.create_queue('at sealed', '{"seal": "at seal"}') \g /dev/null
SELECT jobq.reseal('at sealed') \g /dev/null
SELECT jobq.create_access_key('at key', 'at', '{enqueue}') AS raw \gset
SET ROLE at_stranger;
SELECT pg_temp.try(c) FROM unnest(ARRAY[
	$$rotate_access_key('at key')$$,
	$$revoke_access_key('at key')$$,
	$$revoke_access_key('at key', 'at')$$,
	$$rotate_key('at sign')$$]) c \g /dev/null
RESET ROLE;
SELECT jobq.rotate_access_key('at key') \g /dev/null
SELECT jobq.revoke_access_key('at key') \g /dev/null
SELECT pg_temp.try(format('use_access_key(%L)', c)) FROM unnest(ARRAY[:'raw', 'jq_' || repeat('0', 64)]) c \g /dev/null
SELECT pg_temp.try($$verify_signature('at sign', 1, '{}', '{"signature": "sha256=00", "signature_key": "at sign:2", "signature_time": 1}')$$) \g /dev/null
SELECT jobq.enqueue('at sealed') AS sealed \gset
SELECT jobq.revoke_key('at sign'), jobq.revoke_key('at seal') \g /dev/null
SELECT pg_temp.try($$alter_queue('at', '{"sign": "at sign"}')$$) \g /dev/null
SELECT is(pg_temp.try(format($$verify_signature('at sign', 1, '{}', '{"signature": "sha256=%s", "signature_key": "at sign:2", "signature_time": 1}', on_wrong => '%s')$$,
	repeat('0', 64), w)), 'JQ013', 'a revoked key verifies nothing, on_wrong ' || w) FROM unnest('{error,false}'::text[]) w;
SELECT jobq.grant_queue('at sealed', 'at_taker', '{enqueue,dequeue,read}') \g /dev/null
SET ROLE at_taker;
SELECT pg_temp.try(format('job(%s)', :sealed)), pg_temp.try('dequeue(''at sealed'')') \g /dev/null
RESET ROLE;
SELECT results_eq(format('SELECT call, queue FROM jobq.audit WHERE at >= %L AND outcome = %L ORDER BY at', :'keys', 'done'),
	$$VALUES ('create_key', NULL), ('create_key', NULL), ('rotate_key', NULL), ('create_queue', 'at sealed'),
		('reseal', 'at sealed'), ('create_access_key', 'at'), ('rotate_access_key', 'at'),
		('revoke_access_key', 'at'), ('revoke_key', NULL), ('revoke_key', NULL),
		('grant_queue', 'at sealed')$$,
	'every act with keys has its entry');
CALL pg_temp.await(format($$(SELECT count(*) FROM jobq.audit WHERE at >= %L AND outcome = 'refused') >= 12$$, :'keys'));
SELECT bag_eq(format($$SELECT call, queue, sqlstate, role FROM jobq.audit WHERE at >= %L AND outcome = 'refused'$$, :'keys'),
	$$VALUES ('use_access_key', 'at', 'JQ013', 'postgres'), ('use_access_key', NULL, 'JQ013', 'postgres'),
		('verify_signature', NULL, 'JQ019', 'postgres'), ('alter_queue', NULL, 'JQ013', 'postgres'),
		('rotate_access_key', 'at', 'JQ020', 'at_stranger'), ('revoke_access_key', 'at', 'JQ020', 'at_stranger'),
		('revoke_access_key', 'at', 'JQ002', 'at_stranger'), ('rotate_key', NULL, 'JQ013', 'at_stranger'),
		('verify_signature', NULL, 'JQ013', 'postgres'), ('verify_signature', NULL, 'JQ013', 'postgres'),
		('look', NULL, 'JQ013', 'at_taker'), ('dequeue', NULL, 'JQ013', 'at_taker')$$,
	'and every key and signature that is refused, to whoever called, also while the owner reads for them');
SELECT is(count(*), 0::bigint, 'without the key')
	FROM jobq.audit a WHERE a::text LIKE '%' || :'raw' || '%';

-- ---- what roles own ----

SET ROLE at_admin;
SELECT jobq.create_queue('at owned'), jobq.schedule('at owned s', '@yearly', 'at owned'),
	jobq.create_key('at owned k', 'sign'), jobq.rotate_key('at owned k'),
	jobq.grant_queue('at owned', 'at_dropped', '{enqueue,read}') \g /dev/null
RESET ROLE;
SELECT clock_timestamp() AS owned \gset
BEGIN;
REASSIGN OWNED BY at_admin TO at_taker;
DROP OWNED BY at_dropped;
ROLLBACK;
REASSIGN OWNED BY at_admin, at_stranger TO at_maker;
REASSIGN OWNED BY at_admin TO at_maker;
DROP OWNED BY at_dropped;
DROP OWNED BY at_dropped;
SELECT bag_eq(format('SELECT call, queue, detail, outcome, role FROM jobq.audit WHERE at >= %L', :'owned'),
	$$VALUES ('REASSIGN OWNED', 'at owned', 'the queue of at_admin to at_maker', 'done', 'postgres'),
		('REASSIGN OWNED', 'at owned', 'schedule "at owned s" of at_admin to at_maker', 'done', 'postgres'),
		('REASSIGN OWNED', NULL, 'key "at owned k" of at_admin to at_maker', 'done', 'postgres'),
		('DROP OWNED', 'at', 'enqueue from at_dropped', 'done', 'postgres'),
		('DROP OWNED', 'at owned', 'enqueue, read from at_dropped', 'done', 'postgres')$$,
	'REASSIGN OWNED and DROP OWNED are acts, of what there is');

-- ---- who may read it ----

CREATE FUNCTION pg_temp.as_role(who text, todo text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text := 'ok';
BEGIN
	BEGIN
		PERFORM set_config('role', who, true);
		EXECUTE todo;
	EXCEPTION WHEN OTHERS THEN
		result := SQLSTATE;
	END;
	PERFORM set_config('role', 'postgres', true);
	RETURN result;
END
$$;
SELECT is(pg_temp.as_role('at_admin', 'SELECT 1 / count(*) FROM jobq.audit'), 'ok', 'an admin reads it');
SELECT is(pg_temp.as_role('at_admin', 'SELECT 1 / count(*) FROM jobq.verify_audit()'), 'ok', 'and verifies it');
SELECT is(pg_temp.as_role('at_admin', 'TABLE jobq.audit_entry'), '42501', 'but does not get past the view');
SELECT is(pg_temp.as_role('at_monitor', 'TABLE jobq.audit'), '42501', 'a monitor does not read it');
GRANT SELECT ON jobq.audit TO at_stranger;
SELECT is(pg_temp.as_role('at_stranger', 'SELECT at FROM jobq.audit'), '42501',
	'nor a stranger, whatever was granted');

-- ---- nobody changes it ----

SELECT throws_ok(format(c, t), '42501', NULL, format(c, t))
	FROM unnest('{audit_entry,audit_chain,audit_mark}'::text[]) t,
		unnest(ARRAY['DELETE FROM jobq.%s', 'TRUNCATE jobq.%s',
			'INSERT INTO jobq.%1$s SELECT * FROM jobq.%1$s']) c;
SELECT throws_ok(c, '42501', NULL, c)
	FROM unnest(ARRAY[$$UPDATE jobq.audit_entry SET detail = 'nothing'$$,
		$$UPDATE jobq.audit_chain SET hash = hash$$,
		$$UPDATE jobq.audit_mark SET seq = seq$$,
		$$UPDATE jobq.audit_entry SET detail = 'nothing' WHERE false$$]) c;
SET session_replication_role = replica;
SELECT throws_ok($$DELETE FROM jobq.audit_entry$$, '42501', NULL, 'nor as a replica does');
RESET session_replication_role;
SELECT is(pg_temp.as_role('at_admin', 'DELETE FROM jobq.audit_entry'), '42501', 'nor does an admin');
-- one who has become the owner of the tables, but is no superuser
BEGIN;
ALTER TABLE jobq.audit_entry OWNER TO at_admin;
ALTER TABLE jobq.audit_mark OWNER TO at_admin;
GRANT SELECT ON jobq.installation TO at_admin;
SELECT pg_temp.as_role('at_admin', 'DELETE FROM jobq.audit_entry') AS owner_deletes,
	pg_temp.as_role('at_admin', $$INSERT INTO jobq.audit_mark VALUES (gen_random_uuid(), false, 1, '')$$) AS owner_restores \gset
ROLLBACK;
SELECT is(:'owner_deletes'::text, '42501', 'nor the owner');
SELECT is(:'owner_restores'::text, '42501', 'who cannot make believe that a dump is restored, either');
CALL pg_temp.await($$EXISTS (SELECT FROM jobq.audit WHERE call = 'TRUNCATE audit_chain'
	AND outcome = 'refused')$$);
SELECT is(min(sqlstate), '42501', 'who tries is written down') FROM jobq.audit
	WHERE call IN ('UPDATE audit_entry', 'DELETE audit_chain', 'TRUNCATE audit_mark', 'INSERT audit_entry')
	HAVING count(DISTINCT call) = 4;

-- ---- the chain ----

CALL pg_temp.await($$(SELECT count(*) FROM jobq.audit WHERE seq IS NULL) = 0$$);
SELECT is(ROW(count(*), min(seq))::text, ROW(max(seq), 1)::text, 'every entry is in the chain, without gaps')
	FROM jobq.audit;
SELECT is(ROW(whole, first_bad_seq, problem, first_seq, unchained, is_own)::text,
	'(t,,,1,0,t)', 'which is whole')
	FROM jobq.verify_audit();
SELECT last_seq, last_hash FROM jobq.verify_audit() \gset
SELECT is(hash, :'last_hash'::bytea, 'its end is that of the view') FROM jobq.audit WHERE seq = :last_seq;
SELECT is(whole, true, 'it has what was written down') FROM jobq.verify_audit(:last_seq, :'last_hash');
SELECT is(ROW(whole, first_bad_seq)::text, ROW(false, :last_seq)::text, 'not something else')
	FROM jobq.verify_audit(:last_seq, sha256(:'last_hash'));
SELECT is(problem, 'the chain ends before the link that was written down',
	'nor what comes later') FROM jobq.verify_audit(:last_seq + 1000, :'last_hash');

-- ---- clean up ----

SELECT jobq.drop_queue(q, true) FROM unnest('{at,at jobs,at quiet,at fast,at sealed,at owned}'::text[]) q \g /dev/null
REVOKE ALL ON ALL ROUTINES IN SCHEMA jobq FROM at_stranger;
REVOKE ALL ON jobq.audit FROM at_stranger;
REVOKE ALL ON SCHEMA jobq FROM at_stranger;
DROP ROLE at_admin, at_monitor, at_maker, at_taker, at_stranger, at_dropped;
SELECT isnt_empty($$SELECT FROM jobq.audit WHERE role = 'at_stranger' AND queue = 'at'$$,
	'entries outlive roles and queues');
SELECT * FROM finish();
