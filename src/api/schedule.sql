-- Schedules: jobs that are enqueued again and again.

CREATE FUNCTION jobq.schedule(
	name			text,
	cron			text,
	queue			text		DEFAULT 'default',
	payload			jsonb		DEFAULT '{}',
	timezone		text		DEFAULT 'UTC',
	catch_up		text		DEFAULT 'skip',
	catch_up_max	int			DEFAULT 100,
	kind			text		DEFAULT NULL,
	priority		int			DEFAULT 0,
	max_attempts	int			DEFAULT NULL,
	group_key		text		DEFAULT NULL,
	headers			jsonb		DEFAULT NULL
) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_schedule';
COMMENT ON FUNCTION jobq.schedule(text, text, text, jsonb, text, text, int, text, int, int, text, jsonb) IS
	'Enqueues a job at every tick of a cron expression of five fields, or six with the second first, in a time zone; replaces the caller''s schedule of the same name. After the server was down catch_up makes up for none of the missed ticks (skip), the last one (one), or the last catch_up_max (all).';

CREATE FUNCTION jobq.unschedule(name text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_unschedule';
COMMENT ON FUNCTION jobq.unschedule(text) IS
	'Removes a schedule; its jobs stay.';

CREATE FUNCTION jobq.pause_schedule(name text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_pause_schedule';
COMMENT ON FUNCTION jobq.pause_schedule(text) IS
	'Enqueues nothing for a schedule until resume_schedule is called.';

CREATE FUNCTION jobq.resume_schedule(name text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_resume_schedule';
COMMENT ON FUNCTION jobq.resume_schedule(text) IS
	'Ends pause_schedule. Ticks that came meanwhile are over, whatever catch_up says.';

CREATE FUNCTION jobq.run_schedule(name text) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_run_schedule';
COMMENT ON FUNCTION jobq.run_schedule(text) IS
	'Enqueues a job of a schedule at once, for its owner, and returns the job''s id; ticks go on as they would without.';

CREATE FUNCTION jobq.preview_schedule(
	cron text,
	timezone text DEFAULT 'UTC',
	n bigint DEFAULT 10,
	OUT tick timestamptz,
	OUT local_time timestamp
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_sql_preview_schedule';
COMMENT ON FUNCTION jobq.preview_schedule(text, text, bigint) IS
	'The next n ticks of a cron expression, and what clocks show then in that time zone.';

CREATE FUNCTION jobq._schedules(
	OUT name text,
	OUT queue text,
	OUT cron text,
	OUT timezone text,
	OUT paused boolean,
	OUT next_run timestamptz,
	OUT last_run timestamptz,
	OUT last_job bigint,
	OUT misses bigint,
	OUT last_miss timestamptz,
	OUT last_miss_reason text,
	OUT owner text,
	OUT catch_up text,
	OUT catch_up_max int,
	OUT kind text,
	OUT priority int,
	OUT max_attempts int,
	OUT group_key text,
	OUT headers jsonb,
	OUT payload jsonb,
	OUT paused_by text,
	OUT paused_at timestamptz
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10
	AS 'MODULE_PATHNAME', 'jobq_view_schedules';
COMMENT ON FUNCTION jobq._schedules() IS
	'Rows of view jobq.schedules; use the view.';

CREATE VIEW jobq.schedules WITH (security_barrier) AS
	SELECT s.name, s.queue, s.cron, s.timezone, s.paused, s.next_run,
		s.last_run, s.last_job, s.misses, s.last_miss, s.last_miss_reason,
		s.owner, s.catch_up, s.catch_up_max, s.kind, s.priority,
		s.max_attempts, s.group_key, s.headers, s.payload,
		s.paused_by, s.paused_at
	FROM jobq._schedules() s;
COMMENT ON VIEW jobq.schedules IS
	'Schedules of the caller, of roles that it is a member of, and of queues that it manages; all of them, without payload and headers, for jobq_monitor. last_run is the last tick that has got a job, misses counts those that have not.';
