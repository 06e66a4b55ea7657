
-- The audit log: who did what, and who was refused. Entries are written by
-- those who do it, in their transactions; the keeper puts them into a chain of
-- hashes, in which none can be changed without being found out.

CREATE TABLE jobq.audit_entry (
	origin		uuid		NOT NULL,
	id			bigint		NOT NULL,
	at			timestamptz	NOT NULL,
	role		text		NOT NULL,
	session_role	text	NOT NULL,
	client_addr	inet,
	application_name	text,
	call		text		NOT NULL,
	queue		text,
	job_id		bigint,
	outcome		text		NOT NULL,
	sqlstate	text,
	detail		text,
	latency_us	bigint		NOT NULL,
	arguments	jsonb,
	PRIMARY KEY (origin, id)
);
CREATE INDEX audit_entry_at ON jobq.audit_entry (at);
COMMENT ON TABLE jobq.audit_entry IS
	'What was done, or refused, and by whom; origin is the installation that wrote it down. Written with the act, or by the keeper where a call was refused; never changed; rows leave, by the keeper, after jobq.audit_retention.';

CREATE TABLE jobq.audit_chain (
	chain		uuid		NOT NULL,
	seq			bigint		NOT NULL,
	origin		uuid		NOT NULL,
	id			bigint		NOT NULL,
	hash		bytea		NOT NULL,
	PRIMARY KEY (chain, seq),
	UNIQUE (origin, id)
);
COMMENT ON TABLE jobq.audit_chain IS
	'The place of an entry (origin, id) in the chain of an installation, and the hash of the link before and all of the entry. Written by the keeper, within a second of the entry; rows leave with their entries.';

CREATE TABLE jobq.audit_mark (
	chain		uuid		NOT NULL,
	cut			bool		NOT NULL,
	seq			bigint		NOT NULL,
	hash		bytea		NOT NULL,
	PRIMARY KEY (chain, cut, seq)
);
COMMENT ON TABLE jobq.audit_mark IS
	'The last link of a chain, and (cut) the last one that has left it. Written by the keeper with each batch of links; a row leaves when the next one comes.';

CREATE FUNCTION jobq._guard_audit() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_guard_audit';
COMMENT ON FUNCTION jobq._guard_audit() IS
	'Trigger of the tables of the audit log: nobody changes them by SQL; only what a dump brings along from elsewhere is let in.';

CREATE TRIGGER guard_row BEFORE INSERT ON jobq.audit_entry
	FOR EACH ROW EXECUTE FUNCTION jobq._guard_audit();
CREATE TRIGGER guard_row BEFORE INSERT ON jobq.audit_chain
	FOR EACH ROW EXECUTE FUNCTION jobq._guard_audit();
CREATE TRIGGER guard_row BEFORE INSERT ON jobq.audit_mark
	FOR EACH ROW EXECUTE FUNCTION jobq._guard_audit();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON jobq.audit_entry
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._guard_audit();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON jobq.audit_chain
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._guard_audit();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE OR TRUNCATE ON jobq.audit_mark
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._guard_audit();

ALTER TABLE jobq.audit_entry ENABLE ALWAYS TRIGGER guard_row;
ALTER TABLE jobq.audit_chain ENABLE ALWAYS TRIGGER guard_row;
ALTER TABLE jobq.audit_mark ENABLE ALWAYS TRIGGER guard_row;
ALTER TABLE jobq.audit_entry ENABLE ALWAYS TRIGGER guard;
ALTER TABLE jobq.audit_chain ENABLE ALWAYS TRIGGER guard;
ALTER TABLE jobq.audit_mark ENABLE ALWAYS TRIGGER guard;

CREATE FUNCTION jobq._audit_gate() RETURNS boolean
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_audit_gate';
COMMENT ON FUNCTION jobq._audit_gate() IS
	'True for those who may read view jobq.audit, an error for others.';

CREATE VIEW jobq.audit WITH (security_barrier) AS
	SELECT e.at, e.role, e.session_role, e.client_addr, e.call, e.queue,
		e.job_id, e.outcome, e.sqlstate, e.detail, e.application_name,
		e.latency_us / 1000.0::float8 AS latency_ms, e.arguments, c.seq,
		c.hash, c.chain
	FROM jobq.audit_entry e
		LEFT JOIN jobq.audit_chain c ON c.origin = e.origin AND c.id = e.id
	WHERE jobq._audit_gate();
COMMENT ON VIEW jobq.audit IS
	'Administrative acts, refused calls, and, of queues with the option audit, each dequeue and settling call; for members of jobq_admin. role is the effective role, session_role who logged in. outcome: done, refused, rolled_back (jobs had been handed out, and the dequeue was undone) or lost (so many refusals could not be kept). arguments has the names of arguments and how many bytes each had. seq is the place in the chain of hashes, within a second.';

CREATE FUNCTION jobq.verify_audit(
	known_seq bigint DEFAULT NULL,
	known_hash bytea DEFAULT NULL,
	OUT whole boolean,
	OUT first_bad_seq bigint,
	OUT problem text,
	OUT first_seq bigint,
	OUT last_seq bigint,
	OUT last_hash bytea,
	OUT unchained bigint,
	OUT is_own boolean,
	OUT chain uuid
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_verify_audit';
COMMENT ON FUNCTION jobq.verify_audit(bigint, bytea) IS
	'Is each chain of the audit log whole, and if not, where does it break first? A row for each installation whose entries are here; known_seq and known_hash, a last_seq and last_hash that were written down elsewhere, are compared with this installation''s. Reads all of the log. For members of jobq_admin.';
