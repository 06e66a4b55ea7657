/*
 * epoch.c: which epochs there are, and making the tables of a new one.
 *
 * The tables are no members of the extension, so that pg_dump keeps them, but
 * go with it. What becomes of an epoch later is not done here.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "security/security.h"
#include "store/rows.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(jobq_open_first_epoch);

/* Columns of jobq.epoch. */
typedef enum EpochAttr
{
	EPOCH_EPOCH,
	EPOCH_CLASS,
	EPOCH_INSTALLATION,
	EPOCH_OPENED_AT,
	EPOCH_CLOSED_AT,
	EPOCH_SEALED_AT,
	EPOCH_DRAINED_AT,
	EPOCH_LAST_FINISHED_AT,
	EPOCH_NATTS
} EpochAttr;

#define DAYS_2000_TO_2024	8766

/* How each kind of table is made; %1$d stands for the epoch. */
#define BELT_OPTIONS \
	" USING heap" \
	" WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off)"
/*
 * Numbers ascend, so pages split at their end and what goes over is logged; and
 * are different, so before it is split nothing in a page can be merged.
 */
#define INDEX_OPTIONS \
	" WITH (fillfactor = 97, deduplicate_items = off)"
#define REFUSE_WRITE_ON(table) \
	"CREATE TRIGGER refuse_write" \
	" BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE" \
	" ON jobq." table " EXECUTE FUNCTION jobq._refuse_write()"
#define REFUSE_WRITE(kind)	REFUSE_WRITE_ON(kind "_%1$d")

/* Commands that take back what ALTER DEFAULT PRIVILEGES has given away. */
#define REVOKE_COMMANDS \
	"SELECT pg_catalog.format('REVOKE ALL ON TABLE jobq.%%I FROM %%s'," \
	" c.relname, CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid" \
	" THEN 'PUBLIC' ELSE pg_catalog.quote_ident(" \
	"pg_catalog.pg_get_userbyid(a.grantee)) END)" \
	" FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a" \
	" WHERE c.relnamespace OPERATOR(pg_catalog.=)" \
	" 'jobq'::pg_catalog.regnamespace" \
	" AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY[" \
	"'job_%1$d', 'claim_%1$d', 'outcome_%1$d']::pg_catalog.name[])" \
	" AND a.grantee OPERATOR(pg_catalog.<>) c.relowner"

/* Policies that a dump has brought along. */
#define DROP_POLICY_COMMANDS \
	"SELECT pg_catalog.format('DROP POLICY %%I ON jobq.%%I'," \
	" p.polname, c.relname)" \
	" FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c" \
	" ON c.oid OPERATOR(pg_catalog.=) p.polrelid" \
	" WHERE c.relnamespace OPERATOR(pg_catalog.=)" \
	" 'jobq'::pg_catalog.regnamespace" \
	" AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY[" \
	"'job_%1$d', 'claim_%1$d', 'outcome_%1$d']::pg_catalog.name[])"

#define GRANT_DUMP \
	"GRANT SELECT ON TABLE jobq.job_%1$d, jobq.claim_%1$d," \
	" jobq.outcome_%1$d TO pg_database_owner"

/* A wall even where somebody has privileges, as on all of our tables. */
#define SECURE_ROWS(kind) \
	"ALTER TABLE jobq." kind "_%1$d" \
	" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
#define DUMP_POLICY(kind) \
	"CREATE POLICY dump ON jobq." kind "_%1$d" \
	" FOR SELECT TO pg_database_owner USING (true)"

static const char *const rights_ddl[] = {
	GRANT_DUMP,
	SECURE_ROWS("job"), DUMP_POLICY("job"),
	SECURE_ROWS("claim"), DUMP_POLICY("claim"),
	SECURE_ROWS("outcome"), DUMP_POLICY("outcome"),
};

static const char *const epoch_ddl[] = {
	"CREATE TABLE jobq.job_%1$d ("
	" ticket bigint NOT NULL,"
	" id bigint NOT NULL,"
	" run_at timestamptz NOT NULL,"
	" queue_id int NOT NULL,"
	" max_attempts int NOT NULL,"
	" enqueued_by jobq.role NOT NULL,"
	" priority int2 NOT NULL,"
	" payload jsonb NOT NULL,"
	" kind text,"
	" headers jsonb,"
	" group_key text,"
	" unique_key text,"
	" expires_at timestamptz,"
	" enqueued_at timestamptz,"
	" attempt int,"
	" retry_of bigint,"
	" last_error text,"
	" progress jsonb,"
	" attempts jsonb,"
	" sealed bytea)" BELT_OPTIONS,
	"ALTER TABLE jobq.job_%1$d"
	" ALTER last_error SET STATISTICS 0,"
	" ALTER progress SET STATISTICS 0,"
	" ALTER attempts SET STATISTICS 0,"
	" ALTER headers SET STATISTICS 0,"
	" ALTER payload SET STATISTICS 0,"
	" ALTER sealed SET STATISTICS 0,"
	" ALTER sealed SET STORAGE EXTERNAL",
	"CREATE INDEX job_%1$d_order ON jobq.job_%1$d"
	" (queue_id, priority, run_at, id)" INDEX_OPTIONS,
	"CREATE INDEX job_%1$d_id ON jobq.job_%1$d (id)" INDEX_OPTIONS,
	REFUSE_WRITE("job"),
	"COMMENT ON TABLE jobq.job_%1$d IS 'One row per ticket, one stay of a job"
	" on the belt. Written by the extension only, never changed; rows leave"
	" when the whole epoch is dropped.'",

	"CREATE TABLE jobq.claim_%1$d ("
	" lease bigint NOT NULL,"
	" claimed_at timestamptz NOT NULL,"
	" expires_at timestamptz NOT NULL,"
	" claimed_by jobq.role NOT NULL,"
	" flag \"char\" NOT NULL,"
	" tickets bytea NOT NULL,"
	" worker text,"
	" progress jsonb)" BELT_OPTIONS,
	"ALTER TABLE jobq.claim_%1$d"
	" ALTER tickets SET STATISTICS 0,"
	" ALTER progress SET STATISTICS 0",
	REFUSE_WRITE("claim"),
	"COMMENT ON TABLE jobq.claim_%1$d IS 'One row per dequeue or extend call:"
	" which tickets run under which lease. Written by the extension only,"
	" never changed; rows leave when the whole epoch is dropped.'",

	"CREATE TABLE jobq.outcome_%1$d ("
	" ticket bigint NOT NULL,"
	" lease bigint,"
	" claimed_at timestamptz,"
	" finished_at timestamptz NOT NULL,"
	" queue_id int NOT NULL,"
	" claim_tid tid,"
	" ended \"char\" NOT NULL,"
	" attempt_outcome \"char\","
	" result jsonb,"
	" finished_by jobq.role,"
	" next bigint,"
	" moved_to bigint,"
	" held_until timestamptz,"
	" worker text,"
	" reason text,"
	" error text)" BELT_OPTIONS,
	"ALTER TABLE jobq.outcome_%1$d"
	" ALTER reason SET STATISTICS 0,"
	" ALTER error SET STATISTICS 0,"
	" ALTER result SET STATISTICS 0",
	"CREATE UNIQUE INDEX outcome_%1$d_ticket ON jobq.outcome_%1$d (ticket)"
	INDEX_OPTIONS,
	REFUSE_WRITE("outcome"),
	"COMMENT ON TABLE jobq.outcome_%1$d IS 'One row per ended ticket. Written"
	" by the extension only, never changed; rows leave when the whole epoch is"
	" dropped.'",
};

static int
compare_epochs(const void *a, const void *b)
{
	int32		ea = ((const JobqEpoch *) a)->epoch;
	int32		eb = ((const JobqEpoch *) b)->epoch;

	return (ea > eb) - (ea < eb);
}

static TimestampTz
time_or_zero(TupleTableSlot *slot, EpochAttr attr)
{
	return slot->tts_isnull[attr] ? 0 :
		DatumGetTimestampTz(slot->tts_values[attr]);
}

/* Which installation this is; epochs of others do not count. */
static void
read_installation(Snapshot snapshot, pg_uuid_t *id)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_INSTALLATION),
								 AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		isnull;

	memset(id, 0, sizeof(*id));
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		memcpy(id, DatumGetUUIDP(slot_getattr(slot, 2, &isnull)), sizeof(*id));
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, NoLock);
}

/* Ascending; `all` also those of other installations. */
static int
read_epochs(JobqEpoch **epochs, bool all)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_EPOCH),
								 AccessShareLock);
	Snapshot	snapshot = jobq_fresh_snapshot();
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			size = 16;
	int			n = 0;
	pg_uuid_t	ours;

	read_installation(snapshot, &ours);
	*epochs = palloc(size * sizeof(JobqEpoch));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		JobqEpoch  *epoch;

		slot_getallattrs(slot);
		if (!all &&
			memcmp(DatumGetUUIDP(slot->tts_values[EPOCH_INSTALLATION]), &ours,
				   sizeof(ours)) != 0)
			continue;
		if (n == size)
		{
			size *= 2;
			*epochs = repalloc(*epochs, size * sizeof(JobqEpoch));
		}
		epoch = &(*epochs)[n++];
		epoch->epoch = DatumGetInt32(slot->tts_values[EPOCH_EPOCH]);
		epoch->class_id = DatumGetInt32(slot->tts_values[EPOCH_CLASS]);
		epoch->opened_at = time_or_zero(slot, EPOCH_OPENED_AT);
		epoch->closed_at = time_or_zero(slot, EPOCH_CLOSED_AT);
		epoch->sealed_at = time_or_zero(slot, EPOCH_SEALED_AT);
		epoch->drained_at = time_or_zero(slot, EPOCH_DRAINED_AT);
		epoch->last_finished_at = time_or_zero(slot, EPOCH_LAST_FINISHED_AT);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	qsort(*epochs, n, sizeof(JobqEpoch), compare_epochs);
	return n;
}

int
jobq_epoch_read(JobqEpoch **epochs)
{
	return read_epochs(epochs, false);
}

/*
 * Numbers are never used twice, also not by another CREATE EXTENSION: where
 * the table of epochs knows no better, the seconds since 2024 are one.
 */
static int32
next_number(void)
{
	int64		number = GetCurrentTimestamp() / USECS_PER_SEC -
		(int64) DAYS_2000_TO_2024 * SECS_PER_DAY;
	JobqEpoch  *epochs;
	int			n = read_epochs(&epochs, true);

	if (n > 0)
		number = Max(number, (int64) epochs[n - 1].epoch + 1);
	return (int32) Max(number, 1);
}

static void
execute_for(const char *pattern, int32 epoch, int expected)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, pattern, epoch);
	(void) jobq_execute(sql.data, 0, NULL, NULL, expected);
	pfree(sql.data);
}

static void
make_tables(int32 epoch)
{
	for (int i = 0; i < (int) lengthof(epoch_ddl); i++)
		execute_for(epoch_ddl[i], epoch, SPI_OK_UTILITY);
}

/* Run the commands that a query about an epoch gives. */
static void
execute_found(const char *pattern, int32 epoch)
{
	SPITupleTable *commands;
	uint64		n;

	execute_for(pattern, epoch, SPI_OK_SELECT);
	commands = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
		(void) jobq_execute(SPI_getvalue(commands->vals[i],
										 commands->tupdesc, 1),
							0, NULL, NULL, SPI_OK_UTILITY);
}

/* The database's owner may read what pg_dump reads, nobody else anything. */
void
jobq_epoch_set_rights(int32 epoch)
{
	execute_found(REVOKE_COMMANDS, epoch);
	execute_found(DROP_POLICY_COMMANDS, epoch);
	for (int i = 0; i < (int) lengthof(rights_ddl); i++)
		execute_for(rights_ddl[i], epoch, SPI_OK_UTILITY);
}

static void
enter_epoch(int32 epoch, int32 class_id)
{
	Oid			types[] = {INT4OID, INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {
		Int32GetDatum(epoch),
		Int32GetDatum(class_id),
		TimestampTzGetDatum(GetCurrentTimestamp())
	};

	if (SPI_execute_with_args("INSERT INTO jobq.epoch (epoch, class, installation, opened_at)"
							  " SELECT $1, $2, i.id, $3 FROM jobq.installation i",
							  lengthof(types), types, values, NULL,
							  false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not enter an epoch");
}

char *
jobq_epoch_trigger(const char *table)
{
	return psprintf(REFUSE_WRITE_ON("%s"), table);
}

/* Not members, but gone with the extension; a dump does not say so. */
void
jobq_epoch_tie(int32 epoch)
{
	static const JobqBeltKind kinds[] = {BELT_JOB, BELT_CLAIM, BELT_OUTCOME};
	ObjectAddress extension;

	ObjectAddressSet(extension, ExtensionRelationId,
					 get_extension_oid("pg_jobq", false));
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		Relation	rel = jobq_belt_open(epoch, kinds[i], AccessShareLock);
		ObjectAddress table;

		ObjectAddressSet(table, RelationRelationId, RelationGetRelid(rel));
		if (getAutoExtensionsOfObject(RelationRelationId,
									  table.objectId) == NIL)
			recordDependencyOn(&table, &extension, DEPENDENCY_AUTO_EXTENSION);
		table_close(rel, NoLock);
	}
}

bool
jobq_epoch_lock_numbers(bool nowait)
{
	Oid			relid = jobq_table_oid(JOBQ_TABLE_EPOCH);

	if (nowait)
		return ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock);
	LockRelationOid(relid, ShareUpdateExclusiveLock);
	return true;
}

int32
jobq_epoch_create(int32 class_id)
{
	JobqOwnerContext context;
	volatile int32 epoch = 0;
	bool		was_creating = creating_extension;

	jobq_become_owner(&context);
	set_config_option("default_tablespace", "", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	creating_extension = false;
	PG_TRY();
	{
		SPI_connect();
		epoch = next_number();
		make_tables(epoch);
		jobq_epoch_set_rights(epoch);
		enter_epoch(epoch, class_id);
		jobq_epoch_tie(epoch);
		SPI_finish();
	}
	PG_FINALLY();
	{
		creating_extension = was_creating;
	}
	PG_END_TRY();
	jobq_leave_owner(&context);
	return epoch;
}

/* The last statement of the extension's script. */
Datum
jobq_open_first_epoch(PG_FUNCTION_ARGS)
{
	if (!creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("jobq._open_first_epoch() is called by CREATE EXTENSION only"),
				 errhint("CREATE EXTENSION pg_jobq opens the first epoch.")));

	jobq_epoch_create(JOBQ_CLASS_DEFAULT);
	jobq_database_changed();
	PG_RETURN_VOID();
}

int32
jobq_epoch_find_open(int32 class_id)
{
	JobqEpoch  *epochs;
	int			n = jobq_epoch_read(&epochs);
	int32		newest = 0;

	for (int i = 0; i < n; i++)
	{
		if (epochs[i].closed_at == 0 && epochs[i].class_id == class_id)
			newest = epochs[i].epoch;
	}
	pfree(epochs);
	return newest;
}

static int
list_epochs(int32 **numbers, bool undrained_only)
{
	JobqEpoch  *epochs;
	int			n = jobq_epoch_read(&epochs);
	int			count = 0;

	*numbers = palloc(sizeof(int32) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (epochs[i].drained_at == 0 || !undrained_only)
			(*numbers)[count++] = epochs[i].epoch;
	}
	pfree(epochs);
	return count;
}

int
jobq_epoch_list(int32 **epochs)
{
	return list_epochs(epochs, false);
}

int
jobq_epoch_list_undrained(int32 **epochs)
{
	return list_epochs(epochs, true);
}
