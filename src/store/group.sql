-- What alter_group() says of single groups.

CREATE TABLE jobq.queue_group (
	queue_id		int			NOT NULL,
	group_key		text		NOT NULL,
	running_limit	int			NOT NULL DEFAULT 0,
	weight			int			NOT NULL DEFAULT 0,
	rate_limit		int			NOT NULL DEFAULT 0,
	rate_period		bigint		NOT NULL DEFAULT 0,
	paused_until	timestamptz,
	paused_by		jobq.role,
	paused_at		timestamptz,
	PRIMARY KEY (queue_id, group_key)
);
COMMENT ON TABLE jobq.queue_group IS
	'Groups that are not like the others of their queue, by their group_key; 0 or null stands for what the queue says, rate_period is in microseconds; paused_by is who set paused_until, at paused_at. Written by alter_group; a row leaves when nothing is left of it, or with drop_queue. No foreign key: pg_restore -j may load this table first.';
