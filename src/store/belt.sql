-- The belt: epochs of append-only tables. The tables job_N, claim_N and
-- outcome_N of an epoch are made by the extension's C code, not here: they are
-- no members of the extension, so that pg_dump keeps them.

CREATE TABLE jobq.epoch (
	epoch		int			NOT NULL PRIMARY KEY,
	class		int			NOT NULL,
	opened_at	timestamptz	NOT NULL,
	sealed_at	timestamptz
);
COMMENT ON TABLE jobq.epoch IS
	'One row for each epoch of the belt (tables job_N, claim_N, outcome_N). Written by the extension when an epoch opens and seals; a row leaves never.';

-- Ids, tickets: blocks of numbers are taken by advancing this sequence, whose
-- WAL is flushed before the first number of a block is handed out.
CREATE SEQUENCE jobq.number_block AS bigint INCREMENT BY 8192 MINVALUE 1 START WITH 1 MAXVALUE 9007199254740991 NO CYCLE CACHE 1;
COMMENT ON SEQUENCE jobq.number_block IS
	'First number of the next block of job ids and tickets. Advanced by the keeper ahead of need, by producers when no keeper runs.';

CREATE TABLE jobq.lease_mark (
	only_row	bool		NOT NULL DEFAULT true PRIMARY KEY CHECK (only_row),
	lease		bigint		NOT NULL
);
INSERT INTO jobq.lease_mark (lease) VALUES (0);
COMMENT ON TABLE jobq.lease_mark IS
	'Every lease that was ever handed out is below this mark. Raised by the keeper ahead of need; the row never leaves.';

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
