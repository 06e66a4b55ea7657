-- Queues: making, changing, pausing and dropping them.

CREATE FUNCTION jobq.create_queue(
	queue text,
	options jsonb DEFAULT '{}',
	if_exists text DEFAULT 'error'
) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_create_queue';
COMMENT ON FUNCTION jobq.create_queue(text, jsonb, text) IS
	'Makes a queue that the current role owns; true if it was made. if_exists: error, keep (leave it as it is) or alter (as alter_queue). Safe when several processes call it at once.';

CREATE FUNCTION jobq.alter_queue(queue text, options jsonb) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_alter_queue';
COMMENT ON FUNCTION jobq.alter_queue(text, jsonb) IS
	'Sets the options it names and leaves the others; null returns one to its default. an option that is an object is replaced as a whole.';

CREATE FUNCTION jobq.drop_queue(queue text, force boolean DEFAULT false)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_drop_queue';
COMMENT ON FUNCTION jobq.drop_queue(text, boolean) IS
	'Drops a queue with its dead jobs. Refuses while it has live jobs, schedules name it, or it is the dead-letter queue of another; with force its jobs are cancelled, its schedules removed, and the others lose their dead_letter.';

CREATE FUNCTION jobq.pause_queue(queue text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_pause_queue';
COMMENT ON FUNCTION jobq.pause_queue(text) IS
	'From its commit on dequeue gives nothing; enqueue goes on.';

CREATE FUNCTION jobq.drain_queue(queue text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_drain_queue';
COMMENT ON FUNCTION jobq.drain_queue(text) IS
	'From its commit on the queue takes no new jobs (JQ003), while those it has go on, with their retries and releases and what is enqueued under a lease of one of them.';

CREATE FUNCTION jobq.resume_queue(queue text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_resume_queue';
COMMENT ON FUNCTION jobq.resume_queue(text) IS
	'Undoes pause_queue and drain_queue.';

-- The queue that is always there. Its number is not taken from the sequence:
-- what a sequence gives in the transaction that makes it is given again after
-- a crash, with wal_level = minimal.
INSERT INTO jobq.queue (queue_id, queue, owner) OVERRIDING SYSTEM VALUE
	SELECT 1, 'default', c.relowner
	FROM pg_catalog.pg_class c
	WHERE c.oid = 'jobq.queue'::pg_catalog.regclass;
-- With wal_level = minimal, nextval() in the transaction that makes a sequence
-- counts 32 numbers as logged that are not: after a crash they would come again.
SELECT pg_catalog.setval('jobq.queue_queue_id_seq', 1);


