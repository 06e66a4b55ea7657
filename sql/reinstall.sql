-- Another DROP and CREATE EXTENSION, where ALTER DEFAULT PRIVILEGES gives all
-- that is made to a role: it gets nothing of pg_jobq.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_greedy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_greedy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_greedy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_greedy;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO regress_greedy;
DROP EXTENSION pg_jobq;
CREATE EXTENSION pg_jobq;

SELECT count(*) FROM (
	SELECT nspacl AS acl FROM pg_namespace WHERE nspname = 'jobq'
	UNION ALL
	SELECT relacl FROM pg_class WHERE relnamespace = 'jobq'::regnamespace
	UNION ALL
	SELECT proacl FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace
) o, aclexplode(o.acl) a WHERE a.grantee = 'regress_greedy'::regrole;
-- the tables of the first epoch were among them
SELECT count(*) FROM pg_class WHERE relnamespace = 'jobq'::regnamespace
	AND relname ~ '^(job|claim|outcome)_[0-9]+$';

-- and it works
SELECT jobq.enqueue('default', '{"again": true}') > 0 AS enqueued;
SELECT payload FROM jobq.dequeue('default');

ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM regress_greedy;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM regress_greedy;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM regress_greedy;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM regress_greedy;
DROP ROLE regress_greedy;
