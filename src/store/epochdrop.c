/*
 * epochdrop.c: locking and dropping the tables of an epoch as a whole. Waits
 * for nobody; whether an epoch may go is decided elsewhere.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "store/store.h"

/* A dump lists the tables first and locks them later. */
#define SQL_PG_DUMP \
	"SELECT FROM pg_catalog.pg_stat_activity a" \
	" WHERE a.datname = pg_catalog.current_database()" \
	" AND a.application_name LIKE 'pg_dump%'" \
	" AND a.xact_start IS NOT NULL"

static const JobqBeltKind kinds[] = {BELT_JOB, BELT_CLAIM, BELT_OUTCOME};

bool
jobq_epoch_no_writer(int32 epoch)
{
	Oid			relid = jobq_belt_oid(epoch, BELT_JOB);

	return !OidIsValid(relid) ||
		ConditionalLockRelationOid(relid, ShareLock);
}

static bool lock_with_parts(Oid relid);

static bool
lock_all_of(Relation rel)
{
	List	   *indexes;
	ListCell   *cell;
	bool		locked = true;

	if (rel->rd_rel->relkind == RELKIND_INDEX)
		return true;
	indexes = RelationGetIndexList(rel);
	foreach(cell, indexes)
		locked = locked && lock_with_parts(lfirst_oid(cell));
	list_free(indexes);
	return locked && (!OidIsValid(rel->rd_rel->reltoastrelid) ||
					  lock_with_parts(rel->rd_rel->reltoastrelid));
}

static bool
lock_with_parts(Oid relid)
{
	Relation	rel;
	bool		locked;

	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return false;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		return true;			/* it has gone already */
	locked = lock_all_of(rel);
	relation_close(rel, NoLock);
	return locked;
}

static bool
pg_dump_runs(void)
{
	bool		runs;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute(SQL_PG_DUMP, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_stat_activity");
	runs = SPI_processed > 0;
	SPI_finish();
	return runs;
}

bool
jobq_epoch_lock_all(int32 epoch)
{
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		Oid			relid = jobq_belt_oid(epoch, kinds[i]);

		if (OidIsValid(relid) && !lock_with_parts(relid))
			return false;
	}
	return !pg_dump_runs();
}

/*
 * Not by DROP TABLE: event triggers are not to be run by us. RESTRICT: what
 * somebody has made to depend on the tables is not ours to drop.
 */
void
jobq_epoch_drop_tables(int32 epoch)
{
	ObjectAddresses *tables = new_object_addresses();

	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		Oid			relid = jobq_belt_oid(epoch, kinds[i]);
		ObjectAddress table;

		if (!OidIsValid(relid))
			continue;
		ObjectAddressSet(table, RelationRelationId, relid);
		add_exact_object_address(&table, tables);
	}
	performMultipleDeletions(tables, DROP_RESTRICT,
							 PERFORM_DELETION_INTERNAL);
	free_object_addresses(tables);
}

int64
jobq_epoch_size(int32 epoch)
{
	int64		size = 0;

	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		Relation	rel = jobq_belt_open(epoch, kinds[i], AccessShareLock);
		Datum		relid;

		if (rel == NULL)
			continue;
		relid = ObjectIdGetDatum(RelationGetRelid(rel));
		size += DatumGetInt64(DirectFunctionCall1(pg_total_relation_size,
												  relid));
		table_close(rel, NoLock);
	}
	return size;
}
