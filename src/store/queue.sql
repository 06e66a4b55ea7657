-- The catalog of queues and who may do what with them.

CREATE TABLE jobq.queue (
	queue_id	int			GENERATED ALWAYS AS IDENTITY (START WITH 2) PRIMARY KEY,
	queue		text		NOT NULL UNIQUE,
	owner		jobq.role	NOT NULL,
	class		int			NOT NULL DEFAULT 1,
	paused		bool		NOT NULL DEFAULT false,
	draining	bool		NOT NULL DEFAULT false,
	options		jsonb		NOT NULL DEFAULT '{}',
	created_at	timestamptz	NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	paused_by	jobq.role,
	paused_at	timestamptz,
	draining_by	jobq.role,
	draining_at	timestamptz
);
COMMENT ON TABLE jobq.queue IS
	'One row per queue; options holds what was set, the rest has its default; who paused or drains it, and since when. Written by create_queue, alter_queue, pause_queue, drain_queue, resume_queue, drop_queue; the row leaves with drop_queue.';

CREATE TABLE jobq.queue_acl (
	queue_id	int			NOT NULL,
	grantee		jobq.role	NOT NULL,
	privileges	int			NOT NULL,
	PRIMARY KEY (queue_id, grantee)
);
COMMENT ON TABLE jobq.queue_acl IS
	'Privileges on queues, a sum of 1 enqueue, 2 dequeue, 4 read, 8 manage. Written by grant_queue and revoke_queue; rows leave with drop_queue, and mean nothing once their queue or role is gone. No foreign key: pg_restore -j may load this table first.';
