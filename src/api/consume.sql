-- Consuming jobs: leasing them and settling them.

CREATE FUNCTION jobq.dequeue(
	queue			text,
	max_jobs		bigint		DEFAULT 1,
	wait			interval	DEFAULT '0',
	lease_for		interval	DEFAULT NULL,
	worker			text		DEFAULT NULL
) RETURNS SETOF jobq.delivery
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_dequeue';
COMMENT ON FUNCTION jobq.dequeue(text, bigint, interval, interval, text) IS
	'Leases up to max_jobs available jobs, in order of priority, run_at and id, under one lease. Waits for the first one, for 20 seconds at most; jobq.receive() waits longer. Put no WHERE or LIMIT on it: rows filtered away stay leased.';

CREATE FUNCTION jobq.dequeue_any(
	queues			text[],
	max_jobs		bigint		DEFAULT 1,
	wait			interval	DEFAULT '0',
	lease_for		interval	DEFAULT NULL,
	worker			text		DEFAULT NULL
) RETURNS SETOF jobq.delivery
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_dequeue_any';
COMMENT ON FUNCTION jobq.dequeue_any(text[], bigint, interval, interval, text) IS
	'Like dequeue, from several queues in the order given; each job is leased for as long as its own queue says.';

CREATE FUNCTION jobq.complete(
	id				bigint,
	lease			bigint,
	result			jsonb		DEFAULT NULL
) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_complete';
COMMENT ON FUNCTION jobq.complete(bigint, bigint, jsonb) IS
	'Ends a leased job as completed and keeps its result.';

CREATE FUNCTION jobq.complete_many(
	ids				bigint[],
	lease			bigint,
	on_lost			text		DEFAULT 'error'
) RETURNS bigint[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_complete_many';
COMMENT ON FUNCTION jobq.complete_many(bigint[], bigint, text) IS
	'Completes jobs of one lease and returns the ids settled. A job whose lease is lost raises an error, or is left out with on_lost => ''skip''.';

CREATE FUNCTION jobq.complete_and_dequeue(
	queue			text,
	done			bigint[],
	lease			bigint,
	max_jobs		bigint		DEFAULT 1,
	wait			interval	DEFAULT '0',
	lease_for		interval	DEFAULT NULL,
	worker			text		DEFAULT NULL
) RETURNS SETOF jobq.delivery
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_complete_and_dequeue';
COMMENT ON FUNCTION jobq.complete_and_dequeue(text, bigint[], bigint, bigint, interval, interval, text) IS
	'Completes the jobs done and leases the next ones, in one transaction and one round trip. On the first turn done is empty and lease NULL. Waits like dequeue, but only if done is empty: jobs are completed when the transaction commits, which is not put off.';

CREATE FUNCTION jobq.fail(
	id				bigint,
	lease			bigint,
	error			text		DEFAULT NULL,
	retry			boolean		DEFAULT true,
	retry_in		interval	DEFAULT NULL
) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_fail';
COMMENT ON FUNCTION jobq.fail(bigint, bigint, text, boolean, interval) IS
	'Ends an attempt as failed. Returns retryable when the job will run again (after retry_in, or the queue''s backoff), else dead; or cancelled when another job has taken its unique key and waits in its place. The error is cut at 5,000 characters.';

CREATE FUNCTION jobq.release(
	id				bigint,
	lease			bigint,
	delay			interval	DEFAULT '0'
) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_release';
COMMENT ON FUNCTION jobq.release(bigint, bigint, interval) IS
	'Gives a leased job back, at once or after a delay; the attempt is not counted. If another job has taken its unique key and waits in its place, it is cancelled.';

CREATE FUNCTION jobq.extend(
	id				bigint,
	lease			bigint,
	lease_for		interval	DEFAULT NULL,
	progress		jsonb		DEFAULT NULL
) RETURNS timestamptz
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_extend';
COMMENT ON FUNCTION jobq.extend(bigint, bigint, interval, jsonb) IS
	'Heartbeat: the lease now ends lease_for from now (NULL: as long as when taken); returns when. Progress shows in jobq.jobs and in the next delivery.';

CREATE FUNCTION jobq.extend_many(
	ids				bigint[],
	lease			bigint,
	lease_for		interval	DEFAULT NULL
) RETURNS TABLE (id bigint, lease_expires_at timestamptz)
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_extend_many';
COMMENT ON FUNCTION jobq.extend_many(bigint[], bigint, interval) IS
	'Extends the lease of several jobs. Those whose lease is lost come back with NULL, the others are extended.';

CREATE FUNCTION jobq.settle_jobs(
	jobs			jsonb
) RETURNS TABLE (id bigint, outcome text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_settle_jobs';
COMMENT ON FUNCTION jobq.settle_jobs(jsonb) IS
	'Settles several jobs, leases mixed: an array of {"id", "lease", "do": complete|fail|release|extend, "result", "error", "retry", "retry_in", "delay"}, all or nothing.';
