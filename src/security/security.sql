-- Privileges: what each call needs, and how queues are shared.

CREATE TABLE jobq.call (
	call		text	NOT NULL,
	privilege	text	NOT NULL,
	is_view		boolean	NOT NULL,
	PRIMARY KEY (call, privilege)
);
COMMENT ON TABLE jobq.call IS
	'Which privileges each function or view needs, any of them: enqueue, dequeue, read, manage on a queue, or the roles monitor, admin and key. Filled from calls.tsv by the install script; read by grant_queue. Rows never leave.';

CREATE FUNCTION jobq.grant_queue(queue text, role text, privileges text[])
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_grant_queue';
COMMENT ON FUNCTION jobq.grant_queue(text, text, text[]) IS
	'Gives a role privileges on a queue (enqueue, dequeue, read, manage), and with them USAGE on the schema and EXECUTE on what they need.';

CREATE FUNCTION jobq.revoke_queue(queue text, role text, privileges text[])
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_revoke_queue';
COMMENT ON FUNCTION jobq.revoke_queue(text, text, text[]) IS
	'Takes privileges on a queue back. A role without any privilege on any queue loses EXECUTE and USAGE, too.';

