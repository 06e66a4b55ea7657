/*
 * epochfreeze.c: how old the tables of an epoch are, and having the server's
 * own VACUUM freeze them. Must run in a process that has nothing else to do:
 * it takes as long as it takes. Waits for no lock.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "nodes/makefuncs.h"
#include "postmaster/autovacuum.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "compat.h"
#include "store/store.h"

static const JobqBeltKind kinds[] = {BELT_JOB, BELT_CLAIM, BELT_OUTCOME};

/*
 * Shares of the age at which autovacuum is forced. What is younger than the
 * second stays as it is: freezing what a standby's queries may still look for
 * would end them.
 */
#define OLD(max_age)	((max_age) / 2)
#define YOUNG(max_age)	((max_age) / 4)

static bool
has_old_numbers(const FormData_pg_class *class)
{
	int32		xids = (int32) (ReadNextTransactionId() - class->relfrozenxid);
	int32		mxids = (int32) (ReadNextMultiXactId() - class->relminmxid);

	return (TransactionIdIsNormal(class->relfrozenxid) &&
			xids > OLD(autovacuum_freeze_max_age)) ||
		(MultiXactIdIsValid(class->relminmxid) &&
		 mxids > OLD(autovacuum_multixact_freeze_max_age));
}

/* A table, or its TOAST table. */
static bool
is_old(Oid relid)
{
	HeapTuple	tuple;
	Oid			toast;
	bool		old;

	if (!OidIsValid(relid))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;			/* it has gone */
	old = has_old_numbers((Form_pg_class) GETSTRUCT(tuple));
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	ReleaseSysCache(tuple);
	return old || is_old(toast);
}

bool
jobq_epoch_is_old(int32 epoch)
{
	bool		old = false;

	for (int i = 0; i < (int) lengthof(kinds); i++)
		old = old || is_old(jobq_belt_oid(epoch, kinds[i]));
	return old;
}

static List *
find_old(int32 epoch)
{
	List	   *found = NIL;

	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		Oid			relid = jobq_belt_oid(epoch, kinds[i]);

		if (is_old(relid))
			found = lappend(found, makeVacuumRelation(NULL, relid, NIL));
	}
	return found;
}

void
jobq_epoch_freeze(int32 epoch)
{
	VacuumParams params = {
		.options = JOBQ_VACUUM_ALL | VACOPT_SKIP_LOCKED,
		.freeze_min_age = YOUNG(autovacuum_freeze_max_age),
		.multixact_freeze_min_age = YOUNG(autovacuum_multixact_freeze_max_age),
		.log_min_duration = -1,
		.index_cleanup = VACOPTVALUE_DISABLED,
		.truncate = VACOPTVALUE_DISABLED,
		.nworkers = -1
	};
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "pg_jobq freezer",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	List	   *tables = NIL;

	StartTransactionCommand();
	old = MemoryContextSwitchTo(context);
	if (OidIsValid(jobq_table_oid_missing_ok(JOBQ_TABLE_EPOCH)))
		tables = find_old(epoch);
	MemoryContextSwitchTo(old);
	if (tables != NIL)
		jobq_vacuum(tables, &params, context);
	CommitTransactionCommand();
	MemoryContextDelete(context);
}
