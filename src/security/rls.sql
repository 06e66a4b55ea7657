
-- A second wall: row level security on every table, forced, and no policy that
-- lets anybody in, but for reading what a dump holds. A privilege on a table
-- that somebody was given by mistake shows no row, and writes none. Superusers
-- are never held up, and pg_jobq itself writes as the tables' owner.

DO $$
DECLARE
	own record;
BEGIN
	FOR own IN
		SELECT c.relname, EXISTS (
			SELECT FROM pg_catalog.aclexplode(c.relacl) a
			WHERE a.grantee OPERATOR(pg_catalog.=)
				'pg_database_owner'::pg_catalog.regrole) AS dumped
		FROM pg_catalog.pg_class c
		WHERE c.relnamespace OPERATOR(pg_catalog.=) 'jobq'::pg_catalog.regnamespace
			AND c.relkind OPERATOR(pg_catalog.=) 'r'
	LOOP
		EXECUTE pg_catalog.format('ALTER TABLE jobq.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', own.relname);
		IF own.dumped THEN
			EXECUTE pg_catalog.format('CREATE POLICY dump ON jobq.%I FOR SELECT TO pg_database_owner USING (true)', own.relname);
		END IF;
	END LOOP;
END
$$;
