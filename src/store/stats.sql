-- What was counted, by minute and by hour.

CREATE TABLE jobq.queue_minute (
	queue_id	int			NOT NULL,
	minute		timestamptz	NOT NULL,
	enqueued	bigint		NOT NULL,
	completed	bigint		NOT NULL,
	failed		bigint		NOT NULL,
	dead		bigint		NOT NULL,
	PRIMARY KEY (minute, queue_id)
);
COMMENT ON TABLE jobq.queue_minute IS
	'Jobs enqueued, completed and dead and attempts failed in a minute in which there were any. Written by the keeper when an hour is over and something happens in the next one, and when the server is stopped; a row leaves when it is a day old.';

CREATE TABLE jobq.queue_hour (
	queue_id	int			NOT NULL,
	hour		timestamptz	NOT NULL,
	enqueued	bigint		NOT NULL,
	completed	bigint		NOT NULL,
	failed		bigint		NOT NULL,
	dead		bigint		NOT NULL,
	wait		float8[],
	run			float8[],
	PRIMARY KEY (hour, queue_id)
);
COMMENT ON TABLE jobq.queue_hour IS
	'The same by hour, with p50, p95 and p99 of the seconds that jobs waited and ran. Written with queue_minute; a row leaves when it is 30 days old.';
