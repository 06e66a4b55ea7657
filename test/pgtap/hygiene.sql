-- Names and texts are data: what looks like SQL, like a format or like the end
-- of a quotation comes back as it was, through every function that takes it, and
-- nothing else happens. And what the catalog must look like for that.
BEGIN;
SET client_min_messages = warning;
\set QUIET 1
SELECT no_plan();

CREATE TABLE public.canary AS SELECT 'alive' AS canary;
CREATE FUNCTION pg_temp.objects() RETURNS text LANGUAGE sql AS $$
	SELECT md5(string_agg(o, ' ' ORDER BY o)) FROM (
		SELECT 'class ' || oid || relname || coalesce(relacl::text, '') FROM pg_class
			WHERE relpersistence <> 't' AND relnamespace <> 'pg_toast'::regnamespace
		UNION ALL SELECT 'proc ' || oid || proname || coalesce(proacl::text, '') FROM pg_proc
		UNION ALL SELECT 'role ' || oid || rolname || rolsuper FROM pg_authid
		UNION ALL SELECT 'setting ' || setdatabase || setrole || setconfig::text FROM pg_db_role_setting
		UNION ALL SELECT 'namespace ' || nspname FROM pg_namespace
			WHERE nspname !~ '^pg_(toast_)?temp') x (o)
$$;

CREATE TEMP TABLE hostile (n int GENERATED ALWAYS AS IDENTITY, name text);
INSERT INTO hostile (name) VALUES
	('''; DROP TABLE public.canary; --'),
	('"; DROP TABLE public.canary; --'),
	('''); DROP TABLE public.canary; --'),
	('$$; DROP TABLE public.canary; $$'),
	('$1'), ('%s%n%1$I%L'), ('\'), ('\''; DROP TABLE public.canary; --'),
	('E''\x27'), ('x" CASCADE; --'), ('public.canary'), ('jobq.queue'),
	('pg_catalog'), ('NULL'), ('-- x'), ('/* x'), ('*/'), ('{"a":1}'), ('{a,b}'),
	('<script>alert(1)</script>'), ('${jndi:ldap://x}'), ('; rm -rf / #'), ('`id`'),
	('../../etc/passwd'), ('SELECT pg_sleep(9)'), ('||pg_sleep(9)||'),
	(U&'\02BC; DROP TABLE public.canary'), (U&'\FF07; DROP TABLE public.canary'),
	(U&'\202Eelbat'), (U&'e\0301'), (U&'\+01F4A3'), (' '), ('  two  ');
SELECT pg_temp.objects() AS before \gset

-- ---- a queue's name, and all else that a job is told by ----

SELECT ok(jobq.create_queue(name, jsonb_build_object('dead_letter', 'dl ' || n)),
	'create_queue: ' || name) FROM hostile ORDER BY n;
SELECT results_eq('SELECT q.queue FROM jobq.queues q JOIN hostile h ON h.name = q.queue ORDER BY n',
	'SELECT name FROM hostile ORDER BY n', 'the view shows the names as they are');

CREATE TEMP TABLE enqueued AS
	SELECT n, name, jobq.enqueue(name, jsonb_build_object(name, name), kind => name,
		group_key => name, unique_key => name, headers => jsonb_build_object(name, name)) AS id
	FROM hostile;
CREATE TEMP TABLE delivered AS
	SELECT h.n, h.name, d.* FROM hostile h, jobq.dequeue(h.name, worker => h.name) d;
SELECT is((queue, kind, group_key, payload, headers)::text,
	(name, name, name, jsonb_build_object(name, name), jsonb_build_object(name, name))::text,
	'delivered: ' || name) FROM delivered ORDER BY n;
SELECT is(count(*), (SELECT count(*) FROM hostile), 'each of them') FROM delivered;
SELECT is(jobq.extend(id, lease, progress => jsonb_build_object(name, name)) > now(), true,
	'extend: ' || name) FROM delivered ORDER BY n;
SELECT is(jobq.fail(id, lease, name, false), 'dead', 'fail: ' || name) FROM delivered ORDER BY n;
SELECT is((j.queue, j.kind, j.group_key, j.unique_key, a.worker, j.last_error, j.payload)::text,
	(d.name, d.name, d.name, d.name, d.name, d.name, jsonb_build_object(d.name, d.name))::text,
	'dead: ' || d.name)
	FROM delivered d, jobq.job(d.id) j, jobq.attempts(d.id) a ORDER BY n;
SELECT is(jobq.redrive('dl ' || n, to_queue => name, kind => name), 1::bigint,
	'redrive: ' || name) FROM hostile ORDER BY n;

-- ---- calls that take names ----

SELECT lives_ok(format('SELECT jobq.%s', replace(call, '$', quote_literal(name))), call || ': ' || name)
	FROM hostile, unnest(ARRAY[
		'alter_queue($, ''{"max_attempts": 2}'')', 'alter_group($, $, ''{"limit": 2}'')',
		'explain_queue($)', 'peek($)', 'enqueue_unique($, unique_key => $, on_conflict => ''replace'')',
		'enqueue_jobs(jsonb_build_array(jsonb_build_object(''queue'', $, ''kind'', $, ''group_key'', $)))',
		'dequeue_any(ARRAY[$], worker => $)', 'schedule($, ''@yearly'', $, to_jsonb($::text), kind => $)',
		'pause_schedule($)', 'resume_schedule($)', 'run_schedule($)', 'unschedule($)',
		'pause_queue($)', 'drain_queue($)', 'resume_queue($)', 'purge_queue($)']) WITH ORDINALITY c (call, o)
	ORDER BY n, o;
SELECT throws_ok(format('SELECT jobq.%s', replace(call, '$', quote_literal(name))), state, NULL, call || ': ' || name)
	FROM hostile, (VALUES
		('grant_queue(''default'', $, ''{read}'')', 'JQ007'),
		('grant_queue(''default'', ''public'', ARRAY[$])', 'JQ007'),
		('preview_schedule($)', 'JQ007'), ('preview_schedule(''@daily'', $)', 'JQ007'),
		('purge_queue(''default'', ARRAY[$])', 'JQ007'),
		('create_queue(''new'', if_exists => $)', 'JQ007'),
		('create_queue(''new'', jsonb_build_object($, 1))', 'JQ007'),
		('complete_many(''{}'', 1, $)', 'JQ007'),
		('enqueue(''default'', on_conflict => $, unique_key => ''k'')', 'JQ007')) c (call, state)
	ORDER BY n, call;
SELECT lives_ok('SELECT jobq.metrics()', 'metrics');
SELECT lives_ok('SELECT jobq.health()', 'health');
SELECT lives_ok('SELECT jobq.check_install()', 'check_install');

-- ---- roles ----

SELECT is(pg_temp.objects(), :'before', 'no object was made, changed or dropped');
DO $$
DECLARE
	wanted text;
BEGIN
	FOR wanted IN SELECT name FROM hostile WHERE name !~ '^pg_' LOOP
		EXECUTE format('CREATE ROLE %I', wanted);
	END LOOP;
END
$$;
SELECT pg_temp.objects() AS before \gset
SELECT lives_ok(format('SELECT jobq.grant_queue(%1$L, %1$L, ''{enqueue,dequeue,read,manage}'')', name),
	'grant_queue: ' || name) FROM hostile WHERE name !~ '^pg_' ORDER BY n;
SELECT ok(has_function_privilege(r.oid, 'jobq.pause_queue(text)', 'EXECUTE'),
	'EXECUTE for ' || name) FROM hostile JOIN pg_roles r ON r.rolname = name ORDER BY n;
SELECT lives_ok(format('SELECT jobq.revoke_queue(%1$L, %1$L, ''{enqueue,dequeue,read,manage}'')', name),
	'revoke_queue: ' || name) FROM hostile WHERE name !~ '^pg_' ORDER BY n;
SELECT is(pg_temp.objects(), :'before', 'grants went, and nothing else happened');

SELECT lives_ok(format('SELECT jobq.drop_queue(%L, true)', name), 'drop_queue: ' || name)
	FROM hostile ORDER BY n;
SELECT is(canary, 'alive', 'the canary lives') FROM public.canary;

-- ---- sizes ----

SELECT jobq.create_queue('sizes') \g /dev/null
SELECT jobq.enqueue('sizes', to_jsonb(repeat('again ', 50000))) \g /dev/null
SELECT is(octet_length(payload::text), 300002, 'who may read can measure')
	FROM jobq.jobs WHERE queue = 'sizes';
CREATE FUNCTION pg_temp.stored_size(queue text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	epoch int;
	size bigint;
	total bigint := 0;
BEGIN
	FOR epoch IN SELECT e.epoch FROM jobq.epoch e LOOP
		EXECUTE format('SELECT sum(pg_column_size(payload)) FROM jobq.job_%s j'
			' JOIN jobq.queue q USING (queue_id) WHERE q.queue = $1', epoch)
			INTO size USING queue;
		total := total + coalesce(size, 0);
	END LOOP;
	RETURN total;
END
$$;
SELECT cmp_ok(pg_temp.stored_size('sizes'), '<', 10000::bigint, 'on disk it is compressed');
SELECT cmp_ok(pg_temp.stored_size('sizes'), '>', 0::bigint, 'and there');

-- ---- the catalog ----

SELECT is_empty($$
	SELECT rolname FROM pg_authid WHERE rolname LIKE 'jobq\_%'
		AND (rolcanlogin OR rolpassword IS NOT NULL OR rolsuper OR rolcreaterole
			OR rolcreatedb OR rolreplication OR rolbypassrls)
	$$, 'the roles that are made cannot log in, have no password and no attributes');

SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
		WHERE pronamespace = 'jobq'::regnamespace AND l.lanname <> 'c'
		AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)
	$$, 'what is not C pins its search_path');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
		WHERE pronamespace = 'jobq'::regnamespace AND proleakproof
	$$, 'nothing claims to be leakproof');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
		WHERE pronamespace = 'jobq'::regnamespace
		AND ('internal'::regtype = ANY (proargtypes) OR prorettype = 'internal'::regtype)
		AND p.oid NOT IN (SELECT typreceive FROM pg_type)
	$$, 'nothing but a type''s receive function takes internal values');
SELECT is_empty($$
	SELECT extname FROM pg_extension WHERE extname = 'pg_jobq'
		AND (extrelocatable OR extnamespace <> 'pg_catalog'::regnamespace)
	$$, 'the extension cannot be moved to another schema');
SELECT is_empty($$
	SELECT name FROM pg_available_extension_versions
		WHERE name = 'pg_jobq' AND (trusted OR NOT superuser OR relocatable)
	$$, 'only a superuser can install it');
SELECT is_empty($$
	SELECT r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
		WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind <> 'v'
	$$, 'no table has a rule');
SELECT is_empty($$
	SELECT conrelid::regclass, conname FROM pg_constraint
		WHERE connamespace = 'jobq'::regnamespace AND contype = 'x'
	UNION ALL
	SELECT indrelid::regclass, indexrelid::regclass::name FROM pg_index i
		JOIN pg_class c ON c.oid = i.indrelid
		WHERE c.relnamespace = 'jobq'::regnamespace AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
		AND c.relname ~ '^(job|claim|outcome)_[0-9]+$'
	$$, 'no index of the belt calls a function');

SELECT * FROM finish();
ROLLBACK;
