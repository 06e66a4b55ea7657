/*
 * shelf.c: rows of jobq.shelf: put there, taken off, looked at.
 *
 * A row is never updated here: whoever changes one takes it and puts it back.
 * Works alike at every isolation level; never looks at shared memory.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "store/rows.h"

static Relation
open_shelf(LOCKMODE lockmode)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_SHELF), lockmode);

	jobq_check_columns(rel, SHELF_NATTS);
	return rel;
}

static bool
is_waiting(Datum state)
{
	return DatumGetChar(state) == SHELF_SCHEDULED ||
		DatumGetChar(state) == SHELF_RETRYABLE;
}

/* One look for a job's row. */
static bool
find_with(Relation rel, Snapshot snapshot, int64 id, JobqRow *row,
		  ItemPointer tid, bool *touched)
{
	JobqScan	scan;
	bool		found;

	jobq_scan_begin_int8(&scan, rel, snapshot, JOB_ID + 1, id);
	found = jobq_scan_next(&scan);
	if (found)
	{
		jobq_copy_values(scan.slot, row->values, row->nulls);
		*tid = scan.slot->tts_tid;
	}
	*touched = scan.touched;
	jobq_scan_end(&scan);
	return found;
}

/*
 * A job's row, committed or our own. SnapshotSelf can miss a row that is
 * replaced (deleted and put back) while we look: it sees the old version
 * already gone and has passed the place of the new one. So where it met
 * versions and none that counts, a real snapshot has the last word.
 */
static bool
find_row(Relation rel, int64 id, JobqRow *row, ItemPointer tid)
{
	bool		touched;
	bool		found;
	Snapshot	snapshot;

	if (find_with(rel, SnapshotSelf, id, row, tid, &touched))
		return true;
	if (!touched)
		return false;

	snapshot = jobq_fresh_snapshot();
	found = find_with(rel, snapshot, id, row, tid, &touched);
	UnregisterSnapshot(snapshot);
	return found;
}

/* CommandCounterIncrement: a row of our own current command may be deleted. */
static TM_Result
delete_row(Relation rel, ItemPointer tid)
{
	TM_FailureData failure;

	CommandCounterIncrement();
	return table_tuple_delete(rel, tid, GetCurrentCommandId(true),
							  InvalidSnapshot, InvalidSnapshot, true,
							  &failure, false);
}

static bool
take_row(Relation rel, int64 id, bool dead_too, JobqRow *row)
{
	for (;;)
	{
		ItemPointerData tid;
		TM_Result	result;

		CHECK_FOR_INTERRUPTS();
		if (!find_row(rel, id, row, &tid) ||
			(!dead_too && !is_waiting(row->values[SHELF_STATE])))
			return false;

		result = delete_row(rel, &tid);
		if (result == TM_Ok)
			return true;
		if (result != TM_Updated && result != TM_Deleted)
			elog(ERROR, "unexpected result %d of deleting a shelf row",
				 (int) result);
		/* another transaction was first: see what it has left */
	}
}

void
jobq_shelf_insert(const JobqRow *row)
{
	Relation	rel = open_shelf(RowExclusiveLock);

	jobq_insert(rel, row->values, row->nulls, NULL);
	table_close(rel, NoLock);
}

bool
jobq_shelf_take(int64 id, bool dead_too, JobqRow *row)
{
	Relation	rel = open_shelf(RowExclusiveLock);
	bool		taken = take_row(rel, id, dead_too, row);

	table_close(rel, NoLock);
	return taken;
}

bool
jobq_shelf_look(int64 id, JobqRow *row, TransactionId *busy)
{
	Relation	rel = open_shelf(AccessShareLock);
	SnapshotData dirty;
	ItemPointerData tid;
	bool		touched;
	bool		found;

	InitDirtySnapshot(dirty);
	found = find_with(rel, &dirty, id, row, &tid, &touched);
	*busy = !found ? InvalidTransactionId :
		TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
	table_close(rel, NoLock);
	return found;
}

bool
jobq_shelf_read(int64 id, JobqRow *row)
{
	Relation	rel = open_shelf(AccessShareLock);
	ItemPointerData tid;
	bool		found = find_row(rel, id, row, &tid);

	table_close(rel, NoLock);
	return found;
}

void
jobq_shelf_read_uncommitted(JobqUncommittedVisitor visit, void *state)
{
	Relation	rel = open_shelf(AccessShareLock);

	jobq_belt_read_uncommitted(rel, visit, state);
	table_close(rel, NoLock);
}

bool
jobq_shelf_is_own(int64 id)
{
	Relation	rel = open_shelf(AccessShareLock);
	JobqScan	scan;
	bool		own = false;

	jobq_scan_begin_int8(&scan, rel, SnapshotSelf, JOB_ID + 1, id);
	if (jobq_scan_next(&scan))
		own = TransactionIdIsCurrentTransactionId(jobq_writer_of(scan.slot));
	jobq_scan_end(&scan);
	table_close(rel, NoLock);
	return own;
}
