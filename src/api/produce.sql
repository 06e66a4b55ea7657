-- Producing jobs.

CREATE FUNCTION jobq.enqueue(
	queue			text,
	payload			jsonb		DEFAULT '{}',
	kind			text		DEFAULT NULL,
	priority		int			DEFAULT 0,
	run_at			timestamptz	DEFAULT NULL,
	delay			interval	DEFAULT NULL,
	max_attempts	int			DEFAULT NULL,
	group_key		text		DEFAULT NULL,
	unique_key		text		DEFAULT NULL,
	on_conflict		text		DEFAULT 'ignore',
	unique_while	text		DEFAULT 'live',
	unique_for		interval	DEFAULT NULL,
	debounce_max	interval	DEFAULT NULL,
	expires_at		timestamptz	DEFAULT NULL,
	headers			jsonb		DEFAULT NULL
) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_enqueue';
COMMENT ON FUNCTION jobq.enqueue(text, jsonb, text, int, timestamptz, interval, int, text, text, text, text, interval, interval, timestamptz, jsonb) IS
	'Puts a job into a queue and returns its id. The job exists when the transaction commits. Smaller priorities run first (-100 to 100); run_at or delay postpone it; one that has not started by expires_at never runs. While another job holds its unique_key, on_conflict decides: ignore returns that job''s id, error raises JQ008, replace and debounce change that job while it waits.';

CREATE FUNCTION jobq.enqueue_unique(
	queue			text,
	payload			jsonb		DEFAULT '{}',
	kind			text		DEFAULT NULL,
	priority		int			DEFAULT 0,
	run_at			timestamptz	DEFAULT NULL,
	delay			interval	DEFAULT NULL,
	max_attempts	int			DEFAULT NULL,
	group_key		text		DEFAULT NULL,
	unique_key		text		DEFAULT NULL,
	on_conflict		text		DEFAULT 'ignore',
	unique_while	text		DEFAULT 'live',
	unique_for		interval	DEFAULT NULL,
	debounce_max	interval	DEFAULT NULL,
	expires_at		timestamptz	DEFAULT NULL,
	headers			jsonb		DEFAULT NULL
) RETURNS TABLE (id bigint, outcome text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_enqueue_unique';
COMMENT ON FUNCTION jobq.enqueue_unique(text, jsonb, text, int, timestamptz, interval, int, text, text, text, text, interval, interval, timestamptz, jsonb) IS
	'The same as enqueue, and tells what has become of it: inserted, existing, replaced or debounced.';

CREATE FUNCTION jobq.enqueue_many(
	queue			text,
	payloads		jsonb[],
	kind			text		DEFAULT NULL,
	priority		int			DEFAULT 0,
	run_at			timestamptz	DEFAULT NULL,
	delay			interval	DEFAULT NULL,
	max_attempts	int			DEFAULT NULL,
	group_key		text		DEFAULT NULL,
	expires_at		timestamptz	DEFAULT NULL,
	headers			jsonb		DEFAULT NULL
) RETURNS bigint[]
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_enqueue_many';
COMMENT ON FUNCTION jobq.enqueue_many(text, jsonb[], text, int, timestamptz, interval, int, text, timestamptz, jsonb) IS
	'Puts one job per payload into a queue, all or nothing, and returns their ids in the order given.';

CREATE FUNCTION jobq.enqueue_jobs(
	jobs			jsonb,
	OUT ord			int,
	OUT id			bigint,
	OUT outcome		text
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100
	AS 'MODULE_PATHNAME', 'jobq_sql_enqueue_jobs';
COMMENT ON FUNCTION jobq.enqueue_jobs(jsonb) IS
	'Puts jobs into any queues, all or nothing: an array of objects with the arguments of enqueue as keys, of which queue must be there. A row for each, in the order given.';
