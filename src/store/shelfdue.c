/*
 * shelfdue.c: the due end of the shelf: takes rows whose time has come, in
 * order of run_at and id, from a mark on, so that what has been taken before
 * is not walked again. For the keeper; never waits for a row.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/rows.h"

/* Index entries in one call, dead ones too; and of those that are not due. */
#define LOOK_MAX		5000
#define LOOK_AHEAD_MAX	100

/* The entries of the shelf by run_at and id, visible or not. */
typedef struct Walk
{
	Relation	shelf;
	Relation	index;			/* NULL: the whole table, unordered */
	IndexScanDesc by_index;
	TableScanDesc by_table;
	TupleTableSlot *slot;
	JobqShelfKey at;			/* key of the present entry */
	bool		visible;		/* it is a row, in slot */
} Walk;

/* (run_at, id) >= from and run_at < infinity, where the dead ones are. */
static void
begin_by_index(Walk *walk, const JobqShelfKey *from, ScanKeyData members[2])
{
	ScanKeyData keys[2];

	ScanKeyEntryInitialize(&members[0], SK_ROW_MEMBER, 1,
						   BTGreaterEqualStrategyNumber, InvalidOid,
						   InvalidOid, F_TIMESTAMPTZ_CMP,
						   TimestampTzGetDatum(from->run_at));
	ScanKeyEntryInitialize(&members[1], SK_ROW_MEMBER | SK_ROW_END, 2,
						   BTGreaterEqualStrategyNumber, InvalidOid,
						   InvalidOid, F_BTINT8CMP, Int64GetDatum(from->id));
	memset(keys, 0, sizeof(keys));
	keys[0].sk_flags = SK_ROW_HEADER;
	keys[0].sk_attno = 1;
	keys[0].sk_strategy = BTGreaterEqualStrategyNumber;
	keys[0].sk_argument = PointerGetDatum(members);
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_TIMESTAMPTZ_LT,
				TimestampTzGetDatum(DT_NOEND));

	walk->by_index = jobq_index_beginscan(walk->shelf, walk->index,
										  SnapshotSelf, 2);
	walk->by_index->xs_want_itup = true;	/* the keys of dead entries too */
	index_rescan(walk->by_index, keys, 2, NULL, 0);
}

static bool
next_by_index(Walk *walk)
{
	IndexScanDesc scan = walk->by_index;
	bool		null;

	if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
		return false;
	walk->at.run_at = DatumGetTimestampTz(index_getattr(scan->xs_itup, 1,
														scan->xs_itupdesc,
														&null));
	walk->at.id = DatumGetInt64(index_getattr(scan->xs_itup, 2,
											  scan->xs_itupdesc, &null));
	walk->visible = index_fetch_heap(scan, walk->slot);
	return true;
}

static bool
next_by_table(Walk *walk)
{
	bool		null;

	if (!table_scan_getnextslot(walk->by_table, ForwardScanDirection,
								walk->slot))
		return false;
	walk->at.run_at = DatumGetTimestampTz(slot_getattr(walk->slot,
													   JOB_RUN_AT + 1, &null));
	walk->at.id = DatumGetInt64(slot_getattr(walk->slot, JOB_ID + 1, &null));
	walk->visible = true;
	return true;
}

static bool
next_entry(Walk *walk)
{
	return walk->index != NULL ? next_by_index(walk) : next_by_table(walk);
}

static bool
is_waiting(TupleTableSlot *slot)
{
	bool		null;
	char		state = DatumGetChar(slot_getattr(slot, SHELF_STATE + 1, &null));

	return state == SHELF_SCHEDULED || state == SHELF_RETRYABLE;
}

static bool
is_started(TupleTableSlot *slot)
{
	return !slot_attisnull(slot, JOB_ATTEMPTS + 1);
}

static int
compare_keys(const JobqShelfKey *a, const JobqShelfKey *b)
{
	if (a->run_at != b->run_at)
		return a->run_at < b->run_at ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

/*
 * Take the present row. False when somebody else is at it, so that it may
 * still come to us; one that is gone by now is nobody's business.
 */
static bool
take(Walk *walk, JobqRow *row, int *n)
{
	TM_FailureData failure;
	TM_Result	result;

	jobq_copy_values(walk->slot, row->values, row->nulls);
	result = table_tuple_delete(walk->shelf, &walk->slot->tts_tid,
								GetCurrentCommandId(true), InvalidSnapshot,
								InvalidSnapshot, false, &failure, false);
	if (result == TM_Ok)
		(*n)++;
	return result == TM_Ok || result == TM_Updated || result == TM_Deleted;
}

/*
 * Row by row until there are max, or enough was looked at, or the first that
 * is not due. Over the whole table nothing comes in order: the mark stays.
 */
static int
walk_on(Walk *walk, TimestampTz now, int max, JobqRow *rows,
		JobqShelfWalk *result)
{
	static const JobqShelfKey end = {DT_NOEND, 0};
	JobqShelfKey reached = end;
	int			ahead = 0;
	int			n = 0;

	result->next = PG_INT64_MAX;
	result->first_busy = end;
	for (int looked = 1; next_entry(walk); looked++)
	{
		CHECK_FOR_INTERRUPTS();
		if (compare_keys(&walk->at, &result->end) >= 0 && walk->index != NULL)
		{
			reached = result->end;
			break;
		}
		if (walk->visible && is_waiting(walk->slot))
		{
			if (walk->at.run_at > now)
				result->next = Min(result->next, walk->at.run_at);
			else if ((result->skip(walk->at.id, is_started(walk->slot)) ||
					  !take(walk, &rows[n], &n)) &&
					 compare_keys(&walk->at, &result->first_busy) < 0)
				result->first_busy = walk->at;
			if (walk->at.run_at > now && walk->index != NULL)
			{
				reached = walk->at;
				break;
			}
		}
		ahead += walk->at.run_at > now;
		if (n == max || (walk->index != NULL && (looked >= LOOK_MAX ||
												 ahead >= LOOK_AHEAD_MAX)))
		{
			result->next = Min(result->next, walk->at.run_at);
			reached = walk->at;
			reached.id++;
			break;
		}
	}
	if (walk->index != NULL)
		result->mark = reached;
	return n;
}

int
jobq_shelf_take_due(TimestampTz now, int max, JobqRow *rows,
					JobqShelfWalk *result)
{
	static const AttrNumber order[] = {JOB_RUN_AT + 1, JOB_ID + 1};
	Walk		walk = {0};
	ScanKeyData members[2];
	int			n;

	walk.shelf = table_open(jobq_table_oid(JOBQ_TABLE_SHELF),
							RowExclusiveLock);
	jobq_check_columns(walk.shelf, SHELF_NATTS);
	walk.slot = table_slot_create(walk.shelf, NULL);
	walk.index = jobq_open_index_on(walk.shelf, order, lengthof(order));
	if (walk.index != NULL)
		begin_by_index(&walk, &result->mark, members);
	else
		walk.by_table = table_beginscan(walk.shelf, SnapshotSelf, 0, NULL);

	n = walk_on(&walk, now, max, rows, result);

	ExecDropSingleTupleTableSlot(walk.slot);
	if (walk.index != NULL)
	{
		index_endscan(walk.by_index);
		index_close(walk.index, NoLock);
	}
	else
		table_endscan(walk.by_table);
	table_close(walk.shelf, NoLock);
	return n;
}
