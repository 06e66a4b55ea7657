-- Steering jobs that are not (or no longer) in a worker's hands.

CREATE FUNCTION jobq.cancel(
	id				bigint,
	reason			text		DEFAULT NULL,
	grace			interval	DEFAULT '0'
) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_cancel';
COMMENT ON FUNCTION jobq.cancel(bigint, text, interval) IS
	'Ends a job as cancelled; false when it had ended before. The worker of a running job gets JQ014 from its next call; with grace its place stays taken until then, at most that long.';

CREATE FUNCTION jobq.reschedule(
	id				bigint,
	run_at			timestamptz	DEFAULT NULL,
	priority		int			DEFAULT NULL
) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_reschedule';
COMMENT ON FUNCTION jobq.reschedule(bigint, timestamptz, int) IS
	'Gives a waiting job another time (NULL: now) and, if given, another priority; false when it runs or has ended.';

CREATE FUNCTION jobq.retry(
	id				bigint
) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_retry';
COMMENT ON FUNCTION jobq.retry(bigint) IS
	'Makes a new job that repeats one that has ended, and returns its id. A dead job can be retried once; its waiting copy in a dead-letter queue ends.';

CREATE FUNCTION jobq.redrive(
	from_queue		text,
	max_jobs		bigint		DEFAULT NULL,
	to_queue		text		DEFAULT NULL,
	kind			text		DEFAULT NULL,
	died_after		timestamptz	DEFAULT NULL
) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_redrive';
COMMENT ON FUNCTION jobq.redrive(text, bigint, text, text, timestamptz) IS
	'Runs dead jobs again: the waiting jobs of a dead-letter queue go back to where each came from (or to to_queue), the dead jobs of a queue without one into it. Returns how many.';

CREATE FUNCTION jobq.purge_queue(
	queue			text,
	states			text[]		DEFAULT '{scheduled,available,blocked,retryable}'
) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_purge_queue';
COMMENT ON FUNCTION jobq.purge_queue(text, text[]) IS
	'Cancels all waiting jobs of a queue in these states and returns their number.';

CREATE FUNCTION jobq.peek(
	queue			text,
	max_jobs		bigint		DEFAULT 10
) RETURNS SETOF jobq.delivery
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_peek';
COMMENT ON FUNCTION jobq.peek(text, bigint) IS
	'The jobs that would be delivered next, in order; nothing is leased.';
