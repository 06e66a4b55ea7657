-- Looking: views and functions that show a caller what it may see. The
-- functions read with a snapshot of their own, as of now, at every isolation
-- level; that is not possible in parallel mode, hence PARALLEL UNSAFE.

CREATE FUNCTION jobq._jobs() RETURNS SETOF jobq.job_row
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
	AS 'MODULE_PATHNAME', 'jobq_view_jobs';
COMMENT ON FUNCTION jobq._jobs() IS
	'Rows of view jobq.jobs; use the view.';

CREATE FUNCTION jobq._history() RETURNS SETOF jobq.job_row
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
	AS 'MODULE_PATHNAME', 'jobq_view_history';
COMMENT ON FUNCTION jobq._history() IS
	'Rows of view jobq.history; use the view.';

CREATE FUNCTION jobq._dead_jobs() RETURNS SETOF jobq.job_row
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100
	AS 'MODULE_PATHNAME', 'jobq_view_dead_jobs';
COMMENT ON FUNCTION jobq._dead_jobs() IS
	'Rows of view jobq.dead_jobs; use the view.';

-- Stable, so that a view whose payload nobody asks for opens none.
CREATE FUNCTION jobq._payload(payload jsonb, sealed bytea, queue_id int, id bigint)
	RETURNS jsonb
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_payload';
COMMENT ON FUNCTION jobq._payload(jsonb, bytea, int, bigint) IS
	'The payload of a job, opened if it is sealed and the caller may dequeue from the queue or read it; else null. For the views.';

CREATE FUNCTION jobq._queues(
	OUT queue text,
	OUT id int,
	OUT owner text,
	OUT paused boolean,
	OUT draining boolean,
	OUT options jsonb,
	OUT created_at timestamptz,
	OUT paused_by text,
	OUT paused_at timestamptz,
	OUT draining_by text,
	OUT draining_at timestamptz
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_view_queues';
COMMENT ON FUNCTION jobq._queues() IS
	'Rows of view jobq.queues; use the view.';

CREATE VIEW jobq.jobs WITH (security_barrier) AS
	SELECT j.id, j.queue, j.kind, j.state, j.is_final, j.priority,
		j.group_key, j.unique_key, j.run_at, j.attempt, j.max_attempts,
		j.enqueued_at, j.enqueued_by, j.expires_at, j.worker,
		j.lease_expires_at, j.finished_at, j.last_error, j.progress,
		j.retry_of, j.moved_to, j.result,
		jobq._payload(j.payload, j.sealed, j.queue_id, j.id) AS payload,
		j.headers
	FROM jobq._jobs() j;
COMMENT ON VIEW jobq.jobs IS
	'Live jobs (scheduled, available, blocked, retryable, running) that the caller may see: those of queues it may read or manage, and those it enqueued. Shows the present moment at every isolation level. On a standby a running job shows as available.';

CREATE VIEW jobq.history WITH (security_barrier) AS
	SELECT j.id, j.queue, j.kind, j.state, j.is_final, j.priority,
		j.group_key, j.unique_key, j.run_at, j.attempt, j.max_attempts,
		j.enqueued_at, j.enqueued_by, j.expires_at, j.worker,
		j.lease_expires_at, j.finished_at, j.last_error, j.progress,
		j.retry_of, j.moved_to, j.result,
		jobq._payload(j.payload, j.sealed, j.queue_id, j.id) AS payload,
		j.headers
	FROM jobq._history() j;
COMMENT ON VIEW jobq.history IS
	'Final jobs (completed, cancelled, dead, expired) that are still kept, as far as the caller may see them. last_error of a cancelled job is the reason it was given.';

CREATE VIEW jobq.dead_jobs WITH (security_barrier) AS
	SELECT j.id, j.queue, j.kind, j.state, j.is_final, j.priority,
		j.group_key, j.unique_key, j.run_at, j.attempt, j.max_attempts,
		j.enqueued_at, j.enqueued_by, j.expires_at, j.worker,
		j.lease_expires_at, j.finished_at, j.last_error, j.progress,
		j.retry_of, j.moved_to, j.result,
		jobq._payload(j.payload, j.sealed, j.queue_id, j.id) AS payload,
		j.headers
	FROM jobq._dead_jobs() j;
COMMENT ON VIEW jobq.dead_jobs IS
	'Dead jobs that nobody has run again, as far as the caller may see them; moved_to names the copy in the dead-letter queue, if there is one.';

CREATE VIEW jobq.queues WITH (security_barrier) AS
	SELECT q.queue, q.id, q.owner, q.paused, q.draining, q.options, q.created_at,
		q.paused_by, q.paused_at, q.draining_by, q.draining_at
	FROM jobq._queues() q;
COMMENT ON VIEW jobq.queues IS
	'Queues on which the caller has a privilege; all of them for jobq_admin and jobq_monitor. options holds what was set, the rest has its default. paused_by and draining_by are the roles that called pause_queue and drain_queue.';

CREATE FUNCTION jobq.job(id bigint) RETURNS SETOF jobq.job_info
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_job';
COMMENT ON FUNCTION jobq.job(bigint) IS
	'The job as views jobs and history show it; no row if there is none that the caller may see.';

CREATE FUNCTION jobq._job(id bigint) RETURNS SETOF jobq.job_row
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_job';
COMMENT ON FUNCTION jobq._job(bigint) IS
	'The same without opening its payload; use jobq.job().';

CREATE FUNCTION jobq.attempts(
	id bigint,
	OUT attempt int,
	OUT lease bigint,
	OUT worker text,
	OUT started_at timestamptz,
	OUT finished_at timestamptz,
	OUT outcome text,
	OUT error text,
	OUT traceparent text
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 3
	AS 'MODULE_PATHNAME', 'jobq_sql_attempts';
COMMENT ON FUNCTION jobq.attempts(bigint) IS
	'The last 100 attempts of a job, oldest first: completed, failed, released, cancelled, lease_expired or rolled_back; outcome is null while it runs. traceparent is that of the job''s headers. A released attempt is not counted: the next one has the same number.';

CREATE FUNCTION jobq.health(
	OUT item text,
	OUT status text,
	OUT detail text,
	OUT hint text
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_health';
COMMENT ON FUNCTION jobq.health() IS
	'The state of the installation, one item a row, status ok, warning or error. For members of jobq_admin and jobq_monitor.';

CREATE FUNCTION jobq.check_install(
	OUT item text,
	OUT status text,
	OUT detail text,
	OUT hint text
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_check_install';
COMMENT ON FUNCTION jobq.check_install() IS
	'Is the installation sound: versions, tables, indexes, triggers, owners, privileges, numbers; one item a row, status ok, warning or error. Reads all claims, so it takes a while where there are many. For members of jobq_admin.';

CREATE FUNCTION jobq.run_maintenance() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_run_maintenance';
COMMENT ON FUNCTION jobq.run_maintenance() IS
	'Has the keeper do at once what it would do by itself later, and waits until it has. For members of jobq_admin.';
