-- Groups: jobs of a queue that share a group_key.

CREATE FUNCTION jobq.alter_group(queue text, group_key text, options jsonb)
	RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_alter_group';
COMMENT ON FUNCTION jobq.alter_group(text, text, jsonb) IS
	'Makes one group different from the others of its queue: limit, rate_limit, weight, paused_until; leaves what it does not name. null returns one to what the queue says.';

CREATE VIEW jobq.groups WITH (security_barrier) AS
	SELECT j.queue, j.group_key,
		pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'available') AS available,
		pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'blocked') AS blocked,
		pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'running') AS running,
		pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)
			pg_catalog.min(j.run_at) FILTER (WHERE j.state OPERATOR(pg_catalog.=) ANY
				('{available,blocked}'::text[]))) AS oldest_seconds
	FROM jobq._jobs() j
	WHERE j.group_key IS NOT NULL
	GROUP BY j.queue, j.group_key;
COMMENT ON VIEW jobq.groups IS
	'Groups with live jobs that the caller may see, and how many of these are available, blocked and running; oldest_seconds is how long the oldest of those that could run has waited. Reads all live jobs.';
