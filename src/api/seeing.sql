-- Seeing: what memory and the keeper have counted, and why something does not
-- run. Numbers only, whatever the number of jobs.

CREATE FUNCTION jobq._queue_stats(
	OUT queue text,
	OUT available bigint,
	OUT scheduled bigint,
	OUT blocked bigint,
	OUT retryable bigint,
	OUT running bigint,
	OUT completed_total bigint,
	OUT failed_total bigint,
	OUT dead_total bigint,
	OUT cancelled_total bigint,
	OUT expired_total bigint,
	OUT oldest_available_seconds float8,
	OUT enqueued_per_second_1m float8,
	OUT completed_per_second_1m float8,
	OUT failed_per_second_1m float8,
	OUT wait_p50_seconds_5m float8,
	OUT wait_p95_seconds_5m float8,
	OUT wait_p99_seconds_5m float8,
	OUT run_p50_seconds_5m float8,
	OUT run_p95_seconds_5m float8,
	OUT run_p99_seconds_5m float8
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_view_queue_stats';
COMMENT ON FUNCTION jobq._queue_stats() IS
	'Rows of view jobq.queue_stats; use the view.';

CREATE FUNCTION jobq._queue_minutes(
	OUT queue text,
	OUT minute timestamptz,
	OUT enqueued bigint,
	OUT completed bigint,
	OUT failed bigint,
	OUT dead bigint
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
	AS 'MODULE_PATHNAME', 'jobq_view_queue_minutes';
COMMENT ON FUNCTION jobq._queue_minutes() IS
	'Rows of view jobq.queue_minutes; use the view.';

CREATE FUNCTION jobq._queue_hours(
	OUT queue text,
	OUT hour timestamptz,
	OUT enqueued bigint,
	OUT completed bigint,
	OUT failed bigint,
	OUT dead bigint,
	OUT wait_p50_seconds float8,
	OUT wait_p95_seconds float8,
	OUT wait_p99_seconds float8,
	OUT run_p50_seconds float8,
	OUT run_p95_seconds float8,
	OUT run_p99_seconds float8
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000
	AS 'MODULE_PATHNAME', 'jobq_view_queue_hours';
COMMENT ON FUNCTION jobq._queue_hours() IS
	'Rows of view jobq.queue_hours; use the view.';

CREATE FUNCTION jobq._kinds(
	OUT queue text,
	OUT kind text,
	OUT completed bigint,
	OUT failed bigint,
	OUT run_p95_seconds float8
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 50
	AS 'MODULE_PATHNAME', 'jobq_view_kinds';
COMMENT ON FUNCTION jobq._kinds() IS
	'Rows of view jobq.kinds; use the view.';

CREATE FUNCTION jobq._workers(
	OUT worker text,
	OUT queue text,
	OUT running bigint,
	OUT completed bigint,
	OUT failed bigint,
	OUT first_seen timestamptz,
	OUT last_seen timestamptz
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 50
	AS 'MODULE_PATHNAME', 'jobq_view_workers';
COMMENT ON FUNCTION jobq._workers() IS
	'Rows of view jobq.workers; use the view.';

CREATE VIEW jobq.queue_stats WITH (security_barrier) AS
	SELECT s.queue, s.available, s.scheduled, s.blocked, s.retryable,
		s.running, s.completed_total, s.failed_total, s.dead_total,
		s.cancelled_total, s.expired_total, s.oldest_available_seconds,
		s.enqueued_per_second_1m, s.completed_per_second_1m,
		s.failed_per_second_1m, s.wait_p50_seconds_5m, s.wait_p95_seconds_5m,
		s.wait_p99_seconds_5m, s.run_p50_seconds_5m, s.run_p95_seconds_5m,
		s.run_p99_seconds_5m
	FROM jobq._queue_stats() s;
COMMENT ON VIEW jobq.queue_stats IS
	'Counts, rates and times of the queues that view queues shows, from shared memory, whatever the number of jobs. failed_total counts attempts, the other totals jobs. Waiting is from when a job may run to its delivery, running from there to its completion or failure; percentiles are right within a tenth, and null when there was nothing to measure.';

CREATE VIEW jobq.queue_minutes WITH (security_barrier) AS
	SELECT m.queue, m.minute, m.enqueued, m.completed, m.failed, m.dead
	FROM jobq._queue_minutes() m;
COMMENT ON VIEW jobq.queue_minutes IS
	'What happened in each minute of the last day in which anything did, of the queues that view queues shows. failed counts attempts.';

CREATE VIEW jobq.queue_hours WITH (security_barrier) AS
	SELECT h.queue, h.hour, h.enqueued, h.completed, h.failed, h.dead,
		h.wait_p50_seconds, h.wait_p95_seconds, h.wait_p99_seconds,
		h.run_p50_seconds, h.run_p95_seconds, h.run_p99_seconds
	FROM jobq._queue_hours() h;
COMMENT ON VIEW jobq.queue_hours IS
	'The same for each hour of the last 30 days, the present one included, with percentiles of the seconds that jobs waited and ran.';

CREATE VIEW jobq.kinds WITH (security_barrier) AS
	SELECT k.queue, k.kind, k.completed, k.failed, k.run_p95_seconds
	FROM jobq._kinds() k;
COMMENT ON VIEW jobq.kinds IS
	'Attempts completed and failed by kind of job since the server was started, of the queues that view queues shows; the kinds seen last, cut at 63 bytes, null stands for none. run_p95_seconds is of the last few thousand attempts.';

CREATE VIEW jobq.workers WITH (security_barrier) AS
	SELECT w.worker, w.queue, w.running, w.completed, w.failed, w.first_seen,
		w.last_seen
	FROM jobq._workers() w;
COMMENT ON VIEW jobq.workers IS
	'Workers that have dequeued, settled or extended within a day, or that run a job: how many they run, and how many attempts they have completed and failed since the server was started, of the queues that view queues shows.';

CREATE FUNCTION jobq.explain_job(
	id bigint,
	OUT reason text,
	OUT until timestamptz,
	OUT detail text,
	OUT hint text
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_explain_job';
COMMENT ON FUNCTION jobq.explain_job(bigint) IS
	'The one reason why a job is not running, until when if that is known, the number that decides, and what helps; no row if there is no such job that the caller may see.';

CREATE FUNCTION jobq.explain_queue(
	queue text,
	OUT reason text,
	OUT until timestamptz,
	OUT detail text,
	OUT hint text
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_explain_queue';
COMMENT ON FUNCTION jobq.explain_queue(text) IS
	'The one reason why dequeue gives nothing of a queue, until when if that is known, the number that decides, and what helps.';

CREATE FUNCTION jobq.metrics() RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_metrics';
COMMENT ON FUNCTION jobq.metrics() IS
	'Counts, times and the state of memory as OpenMetrics text, for Prometheus and its like. For members of jobq_admin and jobq_monitor.';
