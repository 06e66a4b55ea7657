
-- Nothing for PUBLIC, and nothing for anybody whom ALTER DEFAULT PRIVILEGES has
-- given something. Every grant comes after this, from calls.tsv.

REVOKE ALL ON SCHEMA jobq FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA jobq FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA jobq FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA jobq FROM PUBLIC;

DO $$
DECLARE
	given record;
BEGIN
	FOR given IN
		SELECT DISTINCT pg_catalog.pg_get_userbyid(a.grantee) AS role
		FROM (
			SELECT n.nspacl, n.nspowner FROM pg_catalog.pg_namespace n
			WHERE n.nspname OPERATOR(pg_catalog.=) 'jobq'
			UNION ALL
			SELECT c.relacl, c.relowner FROM pg_catalog.pg_class c
			WHERE c.relnamespace OPERATOR(pg_catalog.=) 'jobq'::pg_catalog.regnamespace
			UNION ALL
			SELECT p.proacl, p.proowner FROM pg_catalog.pg_proc p
			WHERE p.pronamespace OPERATOR(pg_catalog.=) 'jobq'::pg_catalog.regnamespace
		) o (acl, owner), pg_catalog.aclexplode(o.acl) a
		WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
			AND a.grantee OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA jobq FROM %I', given.role);
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA jobq FROM %I', given.role);
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA jobq FROM %I', given.role);
		EXECUTE pg_catalog.format('REVOKE ALL ON ALL ROUTINES IN SCHEMA jobq FROM %I', given.role);
	END LOOP;
END
$$;

