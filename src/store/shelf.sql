-- The shelf: jobs that wait for a time, and dead ones. The first 20 columns
-- are those of job_N, in the same order.

CREATE TABLE jobq.shelf (
	ticket			bigint,
	id				bigint		NOT NULL PRIMARY KEY,
	run_at			timestamptz	NOT NULL,
	queue_id		int			NOT NULL,
	max_attempts	int			NOT NULL,
	enqueued_by		jobq.role	NOT NULL,
	priority		int2		NOT NULL,
	payload			jsonb		NOT NULL,
	kind			text,
	headers			jsonb,
	group_key		text,
	unique_key		text,
	expires_at		timestamptz,
	enqueued_at		timestamptz	NOT NULL,
	attempt			int			NOT NULL,
	retry_of		bigint,
	last_error		text,
	progress		jsonb,
	attempts		jsonb,
	sealed			bytea,
	state			"char"		NOT NULL,
	died_at			timestamptz,
	moved_to		bigint,
	rerun_as		bigint
);
CREATE INDEX shelf_run_at ON jobq.shelf (run_at, id);
CREATE INDEX shelf_group ON jobq.shelf (queue_id, group_key);
CREATE INDEX shelf_died ON jobq.shelf (queue_id, died_at);
ALTER TABLE jobq.shelf
	ALTER payload SET STATISTICS 0,
	ALTER sealed SET STATISTICS 0,
	ALTER sealed SET STORAGE EXTERNAL,
	ALTER headers SET STATISTICS 0,
	ALTER last_error SET STATISTICS 0,
	ALTER attempts SET STATISTICS 0;
COMMENT ON TABLE jobq.shelf IS
	'Jobs that wait for a time (state s scheduled, r retryable) and dead ones (d; moved_to names the copy in the dead-letter queue, rerun_as the job that retry or redrive made). Written by the extension; a row leaves when the job goes to the belt, is cancelled, or its dead_retention has passed.';
