-- What the catalogs must say of everything in schema jobq: the rules of pgspot
-- (its codes are in the names), row level security, and nothing that could be
-- used to run something with the rights of the owner.
BEGIN;
SET client_min_messages = warning;
\set QUIET 1
SELECT no_plan();

-- ---- functions ----

SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
		WHERE p.pronamespace = 'jobq'::regnamespace
		AND NOT (l.lanname = 'c' AND p.probin = '$libdir/pg_jobq')
		AND NOT coalesce(p.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)
	$$, 'PS001, PS005, PS016, PS017: every function is C or pins search_path');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
		WHERE p.pronamespace = 'jobq'::regnamespace AND p.prosecdef
		AND NOT coalesce(p.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)
	$$, 'PS003, PS004: no SECURITY DEFINER without a pinned search_path');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p, unnest(p.proconfig) c
		WHERE p.pronamespace = 'jobq'::regnamespace AND c LIKE 'search_path=%"%'
	$$, 'PS018: no search_path that is one quoted name');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
		WHERE p.pronamespace = 'jobq'::regnamespace
		AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
			WHERE a.grantee = 0)
	$$, 'no EXECUTE for PUBLIC');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
		WHERE p.pronamespace = 'jobq'::regnamespace
		AND ('internal'::regtype = ANY (p.proargtypes::oid[]) OR p.prorettype = 'internal'::regtype)
		AND EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee <> p.proowner)
	$$, 'nobody calls what takes or gives internal');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
		WHERE p.pronamespace = 'jobq'::regnamespace AND p.proleakproof
	$$, 'no function passes for leakproof');
SELECT is_empty($$
	SELECT proname FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace
		GROUP BY proname HAVING count(*) > 1
	$$, 'no overloaded function');

-- ---- tables ----

SELECT isnt_empty($$
	SELECT FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relname ~ '^job_[0-9]+$'
	$$, 'there is an epoch');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
		WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind IN ('r', 'p')
		AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
	$$, 'every table has row level security, enabled and forced');
SELECT is_empty($$
	SELECT c.oid::regclass, p.polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
		WHERE c.relnamespace = 'jobq'::regnamespace
		AND NOT (p.polcmd = 'r' AND p.polroles = ARRAY['pg_database_owner'::regrole]::oid[]
			AND p.polpermissive)
	$$, 'no policy but for reading, by the database''s owner');
SELECT set_eq($$
	SELECT regexp_replace(c.relname, '_[0-9]+$', '_N')
		FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
		WHERE c.relnamespace = 'jobq'::regnamespace
	$$, $$
	SELECT regexp_replace(c.relname, '_[0-9]+$', '_N')
		FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind = 'r'
		AND a.grantee = 'pg_database_owner'::regrole
	$$, 'and only where it may read, for a dump');
SELECT is_empty($$
	SELECT c.oid::regclass, a.grantee::regrole, a.privilege_type
		FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.relnamespace = 'jobq'::regnamespace AND a.grantee <> c.relowner
		AND a.privilege_type <> 'SELECT'
	$$, 'nobody but the owner may write, truncate, refer to or put triggers on anything');
SELECT is_empty($$
	SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'jobq'::regnamespace AND a.attacl IS NOT NULL
	$$, 'no privileges on columns');
SELECT is_empty($$
	SELECT c.oid::regclass, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
		JOIN pg_proc p ON p.oid = t.tgfoid
		WHERE c.relnamespace = 'jobq'::regnamespace
		AND p.pronamespace <> 'jobq'::regnamespace
	$$, 'no trigger runs somebody else''s function');
SELECT is_empty($$
	SELECT c.oid::regclass, r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
		WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind <> 'v'
	$$, 'no rules');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
		WHERE c.relnamespace = 'jobq'::regnamespace AND i.indexprs IS NOT NULL
	$$, 'no index calls a function');
SELECT is_empty($$
	SELECT c.oid::regclass, a.attname, a.atttypid::regtype
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
		WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
		AND t.typnamespace <> 'pg_catalog'::regnamespace AND a.atttypid <> 'jobq.role'::regtype
	$$, 'no column of a type that somebody else made');

-- ---- the rest ----

SELECT is_empty($$
	SELECT oid::regclass FROM pg_class
		WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'v'
		AND NOT coalesce(reloptions && '{security_barrier=true,security_barrier}', false)
	$$, 'every view is a security barrier');
SELECT is_empty($$
	SELECT oid::regoperator::text FROM pg_operator WHERE oprnamespace = 'jobq'::regnamespace
	UNION ALL SELECT opcname::text FROM pg_opclass WHERE opcnamespace = 'jobq'::regnamespace
	UNION ALL SELECT collname::text FROM pg_collation WHERE collnamespace = 'jobq'::regnamespace
	UNION ALL SELECT conname::text FROM pg_conversion WHERE connamespace = 'jobq'::regnamespace
	UNION ALL SELECT evtname::text FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
		WHERE p.pronamespace = 'jobq'::regnamespace
	$$, 'PS006, PS007: no operators, aggregates, event triggers and the like');
SELECT is_empty($$
	SELECT defaclrole::regrole FROM pg_default_acl WHERE defaclnamespace = 'jobq'::regnamespace
	$$, 'no default privileges');
SELECT is(e.extowner, n.nspowner, 'extension and schema have one owner')
	FROM pg_extension e, pg_namespace n WHERE e.extname = 'pg_jobq' AND n.nspname = 'jobq';
SELECT is_empty($$
	SELECT o.name FROM pg_namespace n, (
		SELECT c.relname::text, c.relowner FROM pg_class c WHERE c.relnamespace = 'jobq'::regnamespace
		UNION ALL SELECT p.oid::regprocedure::text, p.proowner FROM pg_proc p
			WHERE p.pronamespace = 'jobq'::regnamespace
		UNION ALL SELECT t.typname::text, t.typowner FROM pg_type t
			WHERE t.typnamespace = 'jobq'::regnamespace) o (name, owner)
		WHERE n.nspname = 'jobq' AND o.owner <> n.nspowner
	$$, 'so has everything in it');
SELECT ok(NOT extrelocatable, 'the extension stays in its schema') FROM pg_extension WHERE extname = 'pg_jobq';
SELECT ok(superuser AND NOT trusted, 'only a superuser installs it')
	FROM pg_available_extension_versions WHERE name = 'pg_jobq';

-- ---- the second wall stands where the first one has a hole ----

CREATE ROLE jc_guest;
GRANT USAGE ON SCHEMA jobq TO jc_guest;
GRANT ALL ON ALL TABLES IN SCHEMA jobq TO jc_guest;
SELECT jobq.create_queue('catalog');
SELECT jobq.grant_queue('catalog', 'jc_guest', '{read}');
SELECT jobq.enqueue('catalog', '"secret"', delay => '1 h', unique_key => 'k');
SELECT jobq.enqueue('catalog', '"secret"');
CREATE TEMP TABLE own AS
	SELECT relname FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r';
GRANT SELECT ON own TO jc_guest;
CREATE FUNCTION pg_temp.try_all(command text) RETURNS TABLE (relname name, result text)
LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	FOR relname IN SELECT o.relname FROM own o ORDER BY 1 LOOP
		BEGIN
			EXECUTE format(command, relname);
			GET DIAGNOSTICS n = ROW_COUNT;
			result := n;
		EXCEPTION WHEN insufficient_privilege THEN
			result := 'refused';
		END;
		RETURN NEXT;
	END LOOP;
END
$$;
SELECT isnt_empty($$SELECT FROM pg_temp.try_all('TABLE jobq.%I') WHERE result::int > 0$$,
	'the tables are not empty');
SET ROLE jc_guest;
SELECT is_empty($$SELECT * FROM pg_temp.try_all('TABLE jobq.%I') WHERE result <> '0'$$,
	'whoever has been given all privileges on tables sees nothing');
SELECT is_empty($$SELECT * FROM pg_temp.try_all('DELETE FROM jobq.%I')
	WHERE result <> CASE WHEN relname ~ '^((job|claim|outcome)_[0-9]+|audit_[a-z]+)$' THEN 'refused' ELSE '0' END$$,
	'and deletes nothing');
SELECT throws_ok($$INSERT INTO jobq.queue_acl VALUES (1, 'jc_guest', 15)$$, '42501', NULL,
	'nor writes');
SELECT throws_ok($$INSERT INTO jobq.lease_mark VALUES (1)$$, '42501');
SELECT is(count(*), 2::bigint, 'while views show what it may see') FROM jobq.jobs WHERE queue = 'catalog';
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
