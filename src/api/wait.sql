-- Waiting: procedures that hold no snapshot, lock or transaction id while they
-- wait, and so must not be called inside a transaction block; wait_for for
-- those who have to stay inside one.

CREATE PROCEDURE jobq.receive(
	queue			text,
	max_jobs		bigint		DEFAULT 1,
	wait			interval	DEFAULT '20 s',
	lease_for		interval	DEFAULT NULL,
	worker			text		DEFAULT NULL,
	INOUT deliveries jsonb		DEFAULT NULL
)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'jobq_sql_receive';
COMMENT ON PROCEDURE jobq.receive(text, bigint, interval, interval, text, jsonb) IS
	'Like jobq.dequeue(), but waits as long as asked: deliveries is an array of objects, [] when none came in time. Commits first, inside a procedure or DO block the transaction of the caller.';

CREATE PROCEDURE jobq.receive_any(
	queues			text[],
	max_jobs		bigint		DEFAULT 1,
	wait			interval	DEFAULT '20 s',
	lease_for		interval	DEFAULT NULL,
	worker			text		DEFAULT NULL,
	INOUT deliveries jsonb		DEFAULT NULL
)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'jobq_sql_receive_any';
COMMENT ON PROCEDURE jobq.receive_any(text[], bigint, interval, interval, text, jsonb) IS
	'Like jobq.receive(), from several queues in the order given, 64 at most. Commits first, inside a procedure or DO block the transaction of the caller.';

CREATE PROCEDURE jobq.wait_for_jobs(
	queue			text,
	wait			interval	DEFAULT '20 s',
	INOUT available	boolean		DEFAULT NULL
)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'jobq_sql_wait_for_jobs';
COMMENT ON PROCEDURE jobq.wait_for_jobs(text, interval, boolean) IS
	'Waits until a job of the queue can be dequeued, which the caller should then do: one session is told of each job. available is false when the time was over. Commits first, inside a procedure or DO block the transaction of the caller.';

CREATE PROCEDURE jobq.wait_until_idle(
	queue			text,
	wait			interval	DEFAULT '60 s',
	INOUT idle		boolean		DEFAULT NULL
)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'jobq_sql_wait_until_idle';
COMMENT ON PROCEDURE jobq.wait_until_idle(text, interval, boolean) IS
	'Waits until no job of the queue is available, blocked, retryable or running; scheduled ones do not count. idle is false when the time was over. Commits first, inside a procedure or DO block the transaction of the caller.';

CREATE FUNCTION jobq.wait_for(
	id				bigint,
	wait			interval	DEFAULT '20 s'
) RETURNS TABLE (state text, result jsonb, error text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_wait_for';
COMMENT ON FUNCTION jobq.wait_for(bigint, interval) IS
	'Waits for a job''s end, for 20 seconds at most, and shows its state then; no row if there is no job that the caller may see.';

CREATE PROCEDURE jobq.wait_for_result(
	id				bigint,
	wait			interval	DEFAULT '20 s',
	INOUT outcome	jsonb		DEFAULT NULL
)
	LANGUAGE c
	AS 'MODULE_PATHNAME', 'jobq_sql_wait_for_result';
COMMENT ON PROCEDURE jobq.wait_for_result(bigint, interval, jsonb) IS
	'Like jobq.wait_for(), but waits as long as asked: outcome is an object with state, result and error, or null if there is no job that the caller may see. Commits first, inside a procedure or DO block the transaction of the caller.';
