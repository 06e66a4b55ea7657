-- Unique keys: who had a key last. Whether that job still holds it is what the
-- job itself says, so a row is never updated.

CREATE TABLE jobq.ukey (
	queue_id		int			NOT NULL,
	key				text		COLLATE pg_catalog."C" NOT NULL,
	scope			jobq.role	NOT NULL,
	gen				bigint		NOT NULL,
	id				bigint		NOT NULL,
	free_at			timestamptz	NOT NULL,
	unique_while	"char"		NOT NULL,
	PRIMARY KEY (queue_id, key, scope, gen)
);
COMMENT ON TABLE jobq.ukey IS
	'One row each time a job (id) took a unique key: scope is the role that enqueued it, the largest gen of a scope is its newest row. The key is held until free_at at least, and while the job is live (unique_while l) or waiting (w). Written by enqueue, retry and redrive, and when a job that held its key while it waited comes back; rows leave when they have long had no meaning, and with drop_queue.';
