-- Groups: jobs of a queue that share a group_key.

CREATE FUNCTION jobq.alter_group(queue text, group_key text, options jsonb)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_alter_group';
COMMENT ON FUNCTION jobq.alter_group(text, text, jsonb) IS
	'Makes one group different from the others of its queue: limit, rate_limit, weight, paused_until; leaves what it does not name. null returns one to what the queue says.';

CREATE FUNCTION jobq._groups(
	OUT queue text,
	OUT group_key text,
	OUT available bigint,
	OUT blocked bigint,
	OUT running bigint,
	OUT oldest_seconds float8,
	OUT paused_until timestamptz,
	OUT paused_by text,
	OUT paused_at timestamptz
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100
	AS 'MODULE_PATHNAME', 'jobq_view_groups';
COMMENT ON FUNCTION jobq._groups() IS
	'Rows of view jobq.groups; use the view.';

CREATE VIEW jobq.groups WITH (security_barrier) AS
	SELECT g.queue, g.group_key, g.available, g.blocked, g.running,
		g.oldest_seconds, g.paused_until, g.paused_by, g.paused_at
	FROM jobq._groups() g;
COMMENT ON VIEW jobq.groups IS
	'Groups with live jobs that the caller may see, all of them for jobq_monitor: how many of these are available, blocked and running; oldest_seconds is how long the oldest of those that could run has waited; until when alter_group has paused it, by whom and since when. Reads all live jobs.';
