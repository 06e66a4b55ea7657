-- Restoring a dump, and noticing that this database is a copy.

CREATE TABLE jobq.restored (
	noted_at	timestamptz	NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE jobq.restored REPLICA IDENTITY FULL;
COMMENT ON TABLE jobq.restored IS
	'Has a row when a dump was restored here: the queues are paused then. Written by triggers on jobq.audit_entry, jobq.audit_chain, jobq.class, jobq.epoch, jobq.queue, jobq.schedule and jobq.shelf; rows leave with jobq.adopt().';

CREATE FUNCTION jobq._note_restore() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_note_restore';
COMMENT ON FUNCTION jobq._note_restore() IS
	'Trigger: rows that pg_jobq does not write itself come from a dump, so this is a copy.';

CREATE FUNCTION jobq._restore_queue() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_restore_queue';
COMMENT ON FUNCTION jobq._restore_queue() IS
	'Trigger: a queue from a dump replaces one of the same number or name.';

CREATE FUNCTION jobq._restore_grant() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_restore_grant';
COMMENT ON FUNCTION jobq._restore_grant() IS
	'Trigger: privileges in a dump of roles that do not exist here are left out.';

CREATE FUNCTION jobq._restore_class() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_restore_class';
COMMENT ON FUNCTION jobq._restore_class() IS
	'Trigger: a retention class from a dump replaces one of the same number or retention.';

CREATE TRIGGER note_restore BEFORE INSERT ON jobq.shelf
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._note_restore();
CREATE TRIGGER note_restore BEFORE INSERT ON jobq.epoch
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._note_restore();
CREATE TRIGGER note_restore BEFORE INSERT ON jobq.schedule
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._note_restore();
CREATE TRIGGER note_restore BEFORE INSERT ON jobq.queue
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._note_restore();
CREATE TRIGGER note_restore BEFORE INSERT ON jobq.class
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._note_restore();
CREATE TRIGGER note_restore BEFORE INSERT ON jobq.audit_entry
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._note_restore();
CREATE TRIGGER note_restore BEFORE INSERT ON jobq.audit_chain
	FOR EACH STATEMENT EXECUTE FUNCTION jobq._note_restore();
CREATE TRIGGER restore_queue BEFORE INSERT ON jobq.queue
	FOR EACH ROW EXECUTE FUNCTION jobq._restore_queue();
CREATE TRIGGER restore_grant BEFORE INSERT ON jobq.queue_acl
	FOR EACH ROW EXECUTE FUNCTION jobq._restore_grant();
CREATE TRIGGER restore_class BEFORE INSERT ON jobq.class
	FOR EACH ROW EXECUTE FUNCTION jobq._restore_class();

ALTER TABLE jobq.shelf ENABLE ALWAYS TRIGGER note_restore;
ALTER TABLE jobq.epoch ENABLE ALWAYS TRIGGER note_restore;
ALTER TABLE jobq.schedule ENABLE ALWAYS TRIGGER note_restore;
ALTER TABLE jobq.queue ENABLE ALWAYS TRIGGER note_restore;
ALTER TABLE jobq.class ENABLE ALWAYS TRIGGER note_restore;
ALTER TABLE jobq.audit_entry ENABLE ALWAYS TRIGGER note_restore;
ALTER TABLE jobq.audit_chain ENABLE ALWAYS TRIGGER note_restore;
ALTER TABLE jobq.queue ENABLE ALWAYS TRIGGER restore_queue;
ALTER TABLE jobq.queue_acl ENABLE ALWAYS TRIGGER restore_grant;
ALTER TABLE jobq.class ENABLE ALWAYS TRIGGER restore_class;

