/*
 * ukey.c: rows of jobq.ukey: the newest of a key, one more, and the ones that
 * can go. A row is never updated. Works alike at every isolation level; must
 * not know what becomes of jobs.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "store/rows.h"
#include "store/ukey.h"

typedef enum KeyAttr
{
	KEY_QUEUE_ID,
	KEY_KEY,
	KEY_SCOPE,
	KEY_GEN,
	KEY_ID,
	KEY_FREE_AT,
	KEY_WHILE,
	KEY_NATTS
} KeyAttr;

static Relation
open_table(LOCKMODE lockmode)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_UKEY), lockmode);

	jobq_check_columns(rel, KEY_NATTS);
	return rel;
}

/* Without it nothing would be unique, so there is no other way. */
static Relation
open_primary_key(Relation rel)
{
	List	   *oids = RelationGetIndexList(rel);
	ListCell   *cell;

	foreach(cell, oids)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisprimary && index->rd_index->indisvalid)
		{
			list_free(oids);
			return index;
		}
		index_close(index, AccessShareLock);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"jobq.ukey\" has no primary key"),
			 errdetail("It was dropped, or could not be built."),
			 errhint("Add it again, on queue_id, key, scope and gen.")));
	return NULL;
}

/* ---- one at a time ---- */

/* Two keys may share a lock; then they wait for each other for a moment. */
static void
lock_numbers(int32 queue_id, Datum key, Oid *first, uint16 *second)
{
	text	   *value = DatumGetTextPP(key);
	uint64		hash;

	hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(value),
							   VARSIZE_ANY_EXHDR(value), (uint64) queue_id);
	*first = (Oid) hash;
	*second = (uint16) (hash >> 32);
}

bool
jobq_ukey_lock(int32 queue_id, Datum key, bool nowait)
{
	Oid			table = jobq_table_oid(JOBQ_TABLE_UKEY);
	Oid			first;
	uint16		second;

	lock_numbers(queue_id, key, &first, &second);
	if (nowait)
		return ConditionalLockDatabaseObject(table, first, second,
											 ExclusiveLock);
	LockDatabaseObject(table, first, second, ExclusiveLock);
	return true;
}

void
jobq_ukey_unlock(int32 queue_id, Datum key)
{
	Oid			first;
	uint16		second;

	lock_numbers(queue_id, key, &first, &second);
	UnlockDatabaseObject(jobq_table_oid(JOBQ_TABLE_UKEY), first, second,
						 ExclusiveLock);
}

/* ---- reading ---- */

/* A walk over rows of one key, the newest of the largest scope first. */
typedef struct KeyScan
{
	Relation	rel;
	Relation	index;
	SnapshotData dirty;			/* sees what is about to be committed, too */
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData keys[3];
} KeyScan;

/* Rows of this scope, or of smaller ones. */
static void
begin_scan(KeyScan *scan, int32 queue_id, Datum key, StrategyNumber strategy,
		   Oid scope)
{
	scan->rel = open_table(AccessShareLock);
	scan->index = open_primary_key(scan->rel);
	InitDirtySnapshot(scan->dirty);
	scan->slot = table_slot_create(scan->rel, NULL);
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(queue_id));
	ScanKeyEntryInitialize(&scan->keys[1], 0, 2, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ, key);
	ScanKeyInit(&scan->keys[2], 3, strategy,
				strategy == BTEqualStrategyNumber ? F_OIDEQ : F_OIDLE,
				ObjectIdGetDatum(scope));
	scan->scan = jobq_index_beginscan(scan->rel, scan->index, &scan->dirty,
									  lengthof(scan->keys));
	index_rescan(scan->scan, scan->keys, lengthof(scan->keys), NULL, 0);
}

static void
end_scan(KeyScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, NoLock);
	table_close(scan->rel, NoLock);
}

/* The next row; one that is being deleted counts, for it may stay. */
static bool
next_row(KeyScan *scan, JobqKeyRow *row)
{
	Datum	   *values = scan->slot->tts_values;

	while (index_getnext_tid(scan->scan, BackwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (!index_fetch_heap(scan->scan, scan->slot))
			continue;
		slot_getallattrs(scan->slot);
		row->scope = DatumGetObjectId(values[KEY_SCOPE]);
		row->gen = DatumGetInt64(values[KEY_GEN]);
		row->id = DatumGetInt64(values[KEY_ID]);
		row->free_at = DatumGetTimestampTz(values[KEY_FREE_AT]);
		row->unique_while = DatumGetChar(values[KEY_WHILE]);
		row->writer = scan->dirty.xmin;
		return true;
	}
	return false;
}

/* All scopes are smaller than the largest OID plus one. */
int
jobq_ukey_newest(int32 queue_id, Datum key, JobqKeyRow **rows)
{
	int			size = 4;
	int			n = 0;
	bool		more = true;
	Oid			scope = OID_MAX;

	*rows = palloc(sizeof(JobqKeyRow) * size);
	while (more)
	{
		KeyScan		scan;

		if (n == size)
		{
			size *= 2;
			*rows = repalloc(*rows, sizeof(JobqKeyRow) * size);
		}
		begin_scan(&scan, queue_id, key, BTLessEqualStrategyNumber, scope);
		more = next_row(&scan, &(*rows)[n]);
		end_scan(&scan);
		if (!more)
			break;
		/* on with what is below this one's scope */
		scope = (*rows)[n++].scope;
		more = scope != InvalidOid;
		scope--;
	}
	return n;
}

bool
jobq_ukey_of_job(int32 queue_id, Datum key, Oid scope, int64 id,
				 JobqKeyRow *row)
{
	KeyScan		scan;
	bool		found = false;

	begin_scan(&scan, queue_id, key, BTEqualStrategyNumber, scope);
	while (!found && next_row(&scan, row))
		found = row->id == id;
	end_scan(&scan);
	return found;
}

void
jobq_ukey_insert(int32 queue_id, Datum key, const JobqKeyRow *row)
{
	Relation	rel = open_table(RowExclusiveLock);
	Datum		values[KEY_NATTS];
	bool		nulls[KEY_NATTS] = {0};

	values[KEY_QUEUE_ID] = Int32GetDatum(queue_id);
	values[KEY_KEY] = key;
	values[KEY_SCOPE] = ObjectIdGetDatum(row->scope);
	values[KEY_GEN] = Int64GetDatum(row->gen);
	values[KEY_ID] = Int64GetDatum(row->id);
	values[KEY_FREE_AT] = TimestampTzGetDatum(row->free_at);
	values[KEY_WHILE] = CharGetDatum(row->unique_while);
	jobq_insert(rel, values, nulls, NULL);
	table_close(rel, NoLock);
}

/* ---- for the keeper ---- */

typedef struct Walk
{
	TimestampTz before;
	bool		while_waiting;
	JobqKeySeen *seen;
	int			n;
} Walk;

static void
note_free(TupleTableSlot *slot, void *state)
{
	Walk	   *walk = state;
	JobqKeySeen *seen = &walk->seen[walk->n];

	Datum	   *values = slot->tts_values;

	slot_getallattrs(slot);
	seen->tid = slot->tts_tid;
	seen->id = DatumGetInt64(values[KEY_ID]);
	seen->free_at = DatumGetTimestampTz(values[KEY_FREE_AT]);
	seen->while_waiting = DatumGetChar(values[KEY_WHILE]) == UKEY_WAITING;
	if (seen->free_at < walk->before ||
		(walk->while_waiting && seen->while_waiting))
		walk->n++;
}

bool
jobq_ukey_walk(BlockNumber *next, TimestampTz before, bool while_waiting,
			   int max, JobqKeySeen *seen, int *nseen)
{
	Relation	rel = open_table(AccessShareLock);
	Walk		walk = {.before = before,.while_waiting = while_waiting,
	.seen = seen};
	bool		more = true;

	while (more && walk.n <= max - JOBQ_UKEY_BLOCK_ROWS)
		more = jobq_belt_walk_block(rel, next, note_free, &walk);
	table_close(rel, NoLock);
	*nseen = walk.n;
	return more;
}

/* Nobody but drop_queue deletes rows beside us, and what it has is as good. */
void
jobq_ukey_delete(ItemPointer tid)
{
	Relation	rel = open_table(RowExclusiveLock);
	TM_FailureData failure;

	(void) table_tuple_delete(rel, tid, GetCurrentCommandId(true),
							  InvalidSnapshot, InvalidSnapshot, false,
							  &failure, false);
	table_close(rel, NoLock);
}
