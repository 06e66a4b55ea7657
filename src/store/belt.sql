-- The belt: epochs of append-only tables. The tables job_N, claim_N and
-- outcome_N of an epoch are made by the extension's C code, not here: they are
-- no members of the extension, so that pg_dump keeps them.

-- Which CREATE EXTENSION made this, and in which database of which cluster: a
-- copy notices that it is one.
CREATE TABLE jobq.installation (
	only_row	bool		NOT NULL DEFAULT true PRIMARY KEY CHECK (only_row),
	id			uuid		NOT NULL,
	system_identifier	bigint	NOT NULL,
	database	oid			NOT NULL
);
INSERT INTO jobq.installation (id, system_identifier, database)
	SELECT pg_catalog.gen_random_uuid(), c.system_identifier, d.oid
	FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d
	WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();
COMMENT ON TABLE jobq.installation IS
	'Which CREATE EXTENSION made this, in which database of which cluster; how a copy is told from the original. Written at installation; the row never leaves.';

-- Queues that keep their finished jobs equally long share their epochs.
CREATE TABLE jobq.class (
	class		int			NOT NULL PRIMARY KEY CHECK (class BETWEEN 1 AND 8),
	retention	bigint		NOT NULL UNIQUE
);
INSERT INTO jobq.class (class, retention) VALUES (1, 86400000000);
COMMENT ON TABLE jobq.class IS
	'Retention classes, retention in microseconds. A row comes with the first queue of that retention and leaves when neither a queue nor an epoch is of it.';

CREATE TABLE jobq.epoch (
	epoch			int			NOT NULL PRIMARY KEY,
	class			int			NOT NULL,
	installation	uuid		NOT NULL,
	opened_at		timestamptz	NOT NULL,
	closed_at		timestamptz,
	sealed_at		timestamptz,
	drained_at		timestamptz,
	last_finished_at timestamptz
);
COMMENT ON TABLE jobq.epoch IS
	'One row for each epoch of the belt (tables job_N, claim_N, outcome_N): new tickets go elsewhere since closed_at, no writer was left at sealed_at, all tickets had ended by drained_at, the last one at last_finished_at. Written by the extension; the row leaves with the tables. Epochs of another installation, as after a restore, count only once they have been adopted.';

CREATE TABLE jobq.epoch_total (
	epoch		int			NOT NULL,
	queue_id	int			NOT NULL,
	completed	bigint		NOT NULL DEFAULT 0,
	failed		bigint		NOT NULL DEFAULT 0,
	dead		bigint		NOT NULL DEFAULT 0,
	cancelled	bigint		NOT NULL DEFAULT 0,
	expired		bigint		NOT NULL DEFAULT 0,
	PRIMARY KEY (epoch, queue_id)
);
COMMENT ON TABLE jobq.epoch_total IS
	'How many jobs, and failed attempts, of a queue ended in a drained epoch; epoch 0 stands for all that were dropped. Written when an epoch has drained, folded into epoch 0 when it is dropped.';

-- Ids, tickets: blocks of numbers are taken by advancing this sequence, whose
-- WAL is flushed before the first number of a block is handed out.
CREATE SEQUENCE jobq.number_block AS bigint INCREMENT BY 8192 MINVALUE 1 START WITH 1 MAXVALUE 9007199254740991 NO CYCLE CACHE 1;
COMMENT ON SEQUENCE jobq.number_block IS
	'First number of the next block of job ids and tickets. Advanced by the keeper ahead of need, by producers when no keeper runs.';

CREATE TABLE jobq.lease_mark (
	lease		bigint		NOT NULL
);
ALTER TABLE jobq.lease_mark REPLICA IDENTITY FULL;
INSERT INTO jobq.lease_mark (lease) VALUES (0);
COMMENT ON TABLE jobq.lease_mark IS
	'Every lease that was ever handed out is below this mark. Raised by the keeper ahead of need. A restore adds the mark of the original: the largest counts, and jobq.adopt() leaves one row, which never leaves.';

-- Emptied by crash recovery, kept by a clean restart: how the keeper tells the
-- two apart.
CREATE UNLOGGED TABLE jobq.clean_start (
	only_row	bool		NOT NULL DEFAULT true PRIMARY KEY CHECK (only_row)
);
INSERT INTO jobq.clean_start DEFAULT VALUES;
COMMENT ON TABLE jobq.clean_start IS
	'Unlogged, so empty after a crash: for a minute the keeper then commits a start record for each delivery before it is handed out. Written by the keeper.';

CREATE FUNCTION jobq._refuse_write() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_refuse_write';
COMMENT ON FUNCTION jobq._refuse_write() IS
	'Trigger of the belt tables: only pg_jobq itself writes them.';

CREATE FUNCTION jobq._open_first_epoch() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_open_first_epoch';
COMMENT ON FUNCTION jobq._open_first_epoch() IS
	'Makes the first epoch and tells the launcher about this database; called once, by CREATE EXTENSION.';
