-- The row types that functions return.

CREATE TYPE jobq.delivery AS (
	id					bigint,
	lease				bigint,
	attempt				int,
	max_attempts		int,
	queue				text,
	kind				text,
	priority			int,
	group_key			text,
	payload				jsonb,
	headers				jsonb,
	enqueued_at			timestamptz,
	run_at				timestamptz,
	lease_expires_at	timestamptz,
	last_error			text,
	progress			jsonb
);
COMMENT ON TYPE jobq.delivery IS
	'A job as a worker gets it: with the lease to settle it by, and the number of this attempt.';

CREATE TYPE jobq.job_info AS (
	id					bigint,
	queue				text,
	kind				text,
	state				text,
	is_final			boolean,
	priority			int,
	group_key			text,
	unique_key			text,
	run_at				timestamptz,
	attempt				int,
	max_attempts		int,
	enqueued_at			timestamptz,
	enqueued_by			text,
	expires_at			timestamptz,
	worker				text,
	lease_expires_at	timestamptz,
	finished_at			timestamptz,
	last_error			text,
	progress			jsonb,
	retry_of			bigint,
	moved_to			bigint,
	result				jsonb,
	payload				jsonb,
	headers				jsonb
);
COMMENT ON TYPE jobq.job_info IS
	'A job as the views jobs, history and dead_jobs show it.';

-- The same with what the views need to open payloads that are asked for.
CREATE TYPE jobq.job_row AS (
	id					bigint,
	queue				text,
	kind				text,
	state				text,
	is_final			boolean,
	priority			int,
	group_key			text,
	unique_key			text,
	run_at				timestamptz,
	attempt				int,
	max_attempts		int,
	enqueued_at			timestamptz,
	enqueued_by			text,
	expires_at			timestamptz,
	worker				text,
	lease_expires_at	timestamptz,
	finished_at			timestamptz,
	last_error			text,
	progress			jsonb,
	retry_of			bigint,
	moved_to			bigint,
	result				jsonb,
	payload				jsonb,
	headers				jsonb,
	sealed				bytea,
	queue_id			int
);
COMMENT ON TYPE jobq.job_row IS
	'A job as the functions behind the views give it: a sealed payload still is.';

