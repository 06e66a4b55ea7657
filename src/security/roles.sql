-- The roles that administer and watch every queue, and the one whose members
-- may use access keys. Roles belong to the whole
-- cluster: another database may have made them already, and DROP EXTENSION
-- leaves them.

DO $$
DECLARE
	wanted text;
BEGIN
	FOREACH wanted IN ARRAY ARRAY['jobq_admin', 'jobq_monitor', 'jobq_key_user'] LOOP
		IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted)
		THEN
			EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
		ELSE
			RAISE NOTICE 'role % exists already; look at who its members are', wanted;
		END IF;
	END LOOP;
END
$$;

