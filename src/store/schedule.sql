-- Schedules: jobs that are enqueued again and again.

CREATE TABLE jobq.schedule (
	schedule_id		int			GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name			text		NOT NULL,
	owner			jobq.role	NOT NULL,
	queue_id		int			NOT NULL,
	cron			text		NOT NULL,
	timezone		text		NOT NULL,
	catch_up		text		NOT NULL,
	catch_up_max	int			NOT NULL,
	paused			bool		NOT NULL DEFAULT false,
	kind			text,
	priority		int2		NOT NULL,
	max_attempts	int,
	group_key		text,
	headers			jsonb,
	payload			jsonb		NOT NULL,
	last_tick		timestamptz	NOT NULL,
	last_run		timestamptz,
	last_job		bigint,
	misses			bigint		NOT NULL DEFAULT 0,
	last_miss		timestamptz,
	last_miss_reason text,
	paused_by		jobq.role,
	paused_at		timestamptz
);
-- what belonged to roles that a dump's target does not know is nobody's
CREATE UNIQUE INDEX schedule_owner_name ON jobq.schedule (owner, name)
	WHERE owner::pg_catalog.oid <> 0::pg_catalog.oid;
CREATE INDEX schedule_name ON jobq.schedule (name);
CREATE INDEX schedule_queue ON jobq.schedule (queue_id);
COMMENT ON TABLE jobq.schedule IS
	'One row per schedule; all ticks up to last_tick have been dealt with. Written by schedule, pause_schedule, resume_schedule and, together with a tick''s job, by the keeper; the row leaves with unschedule, or with its queue.';
