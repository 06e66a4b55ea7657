-- Columns that hold a role: stored as its OID, written as its name, so that a
-- dump finds the role again in another cluster.

CREATE TYPE jobq.role;

CREATE FUNCTION jobq._role_in(cstring) RETURNS jobq.role
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_role_in';
COMMENT ON FUNCTION jobq._role_in(cstring) IS
	'Reads a role''s name; one that does not exist is nobody, never an error.';

CREATE FUNCTION jobq._role_out(jobq.role) RETURNS cstring
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_role_out';
COMMENT ON FUNCTION jobq._role_out(jobq.role) IS
	'Writes a role''s name; nobody, or a role that is gone, is a minus sign.';

CREATE FUNCTION jobq._role_recv(internal) RETURNS jobq.role
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_role_recv';
COMMENT ON FUNCTION jobq._role_recv(internal) IS
	'The same as _role_in, for the binary protocol, which carries the name, too.';

CREATE FUNCTION jobq._role_send(jobq.role) RETURNS bytea
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_role_send';
COMMENT ON FUNCTION jobq._role_send(jobq.role) IS
	'The same as _role_out, for the binary protocol.';

CREATE TYPE jobq.role (
	INPUT = jobq._role_in,
	OUTPUT = jobq._role_out,
	RECEIVE = jobq._role_recv,
	SEND = jobq._role_send,
	LIKE = pg_catalog.oid
);
COMMENT ON TYPE jobq.role IS
	'A role: on disk its OID, in a dump its name. A minus sign stands for nobody, also for a role that does not exist where a dump is restored.';

CREATE CAST (jobq.role AS pg_catalog.oid) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (pg_catalog.oid AS jobq.role) WITHOUT FUNCTION AS ASSIGNMENT;

