/*
 * rows.c: writes and reads rows of our tables through the table and index
 * access methods, without the executor. Fires no trigger and checks no
 * privilege or constraint; must never update a row.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "nodes/execnodes.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "store/rows.h"
#include "store/shape.h"

#define CHUNK_ROWS		1000	/* rows in one table_multi_insert */
#define CHUNK_BYTES		(256 * 1024)	/* and about how much of their data */

/* All indexes that want entries; their locks stay to commit. */
static Relation *
open_indexes(const JobqShape *shape)
{
	Relation   *rels = palloc(Max(shape->nindexes, 1) * sizeof(Relation));

	for (int i = 0; i < shape->nindexes; i++)
		rels[i] = index_open(shape->indexes[i], RowExclusiveLock);
	return rels;
}

static void
close_indexes(const JobqShape *shape, Relation *rels)
{
	for (int i = 0; i < shape->nindexes; i++)
		index_close(rels[i], NoLock);
	pfree(rels);
}

static void
insert_index_entry(Relation rel, Relation index, IndexInfo *info,
				   TupleTableSlot *slot)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	FormIndexDatum(info, slot, NULL, values, nulls);
	index_insert(index, values, nulls, &slot->tts_tid, rel,
				 index->rd_index->indisunique ?
				 UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
				 false, info);
}

/*
 * Belt rows do not take part in logical replication; the shelf, unique keys and
 * the audit log are ordinary tables.
 */
static bool
is_belt(Relation rel)
{
	static const JobqTable ordinary[] = {JOBQ_TABLE_SHELF, JOBQ_TABLE_UKEY,
		JOBQ_TABLE_AUDIT_ENTRY, JOBQ_TABLE_AUDIT_CHAIN,
	JOBQ_TABLE_AUDIT_MARK};

	for (size_t i = 0; i < lengthof(ordinary); i++)
	{
		if (RelationGetRelid(rel) == jobq_table_oid(ordinary[i]))
			return false;
	}
	return true;
}

/* Columns up to the last one that is not NULL, and at least so many. */
static int
count_filled(const bool *nulls, int natts, int least)
{
	while (natts > least && nulls[natts - 1])
		natts--;
	return natts;
}

static void
fill_slot(TupleTableSlot *slot, const Datum *values, const bool *nulls)
{
	int			natts = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
}

void
jobq_insert(Relation rel, const Datum *values, const bool *nulls,
			ItemPointer tid)
{
	JobqShape  *shape = jobq_shape_of(rel);
	Relation   *indexes = open_indexes(shape);
	int			natts = count_filled(nulls, RelationGetNumberOfAttributes(rel),
									 shape->indexed);
	TupleTableSlot *slot = jobq_shape_slot(shape, rel, natts);

	fill_slot(slot, values, nulls);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true),
					   RelationIsLogicallyLogged(rel) && is_belt(rel) ?
					   TABLE_INSERT_NO_LOGICAL : 0, NULL);
	for (int i = 0; i < shape->nindexes; i++)
		insert_index_entry(rel, indexes[i], shape->infos[i], slot);
	if (tid != NULL)
		*tid = slot->tts_tid;
	ExecClearTuple(slot);
	close_indexes(shape, indexes);
}

/* About how much memory a row takes once it is formed into a tuple. */
static Size
row_bytes(TupleDesc desc, const JobqRow *row)
{
	Size		bytes = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attlen == -1 && !row->nulls[i])
			bytes += toast_raw_datum_size(row->values[i]);
	}
	return bytes;
}

/*
 * Write a chunk's rows. heap_multi_insert does not know NO_LOGICAL, so belt
 * rows go one by one where they would be logged for logical decoding.
 */
static void
insert_chunk(Relation rel, TupleTableSlot **slots, int n, CommandId cid)
{
	if (!RelationIsLogicallyLogged(rel) || !is_belt(rel))
	{
		table_multi_insert(rel, slots, n, cid, 0, NULL);
		return;
	}
	for (int i = 0; i < n; i++)
		table_tuple_insert(rel, slots[i], cid, TABLE_INSERT_NO_LOGICAL, NULL);
}

void
jobq_insert_many(Relation rel, const JobqRow *rows, int nrows,
				 ItemPointerData *tids)
{
	TupleDesc	desc;
	int			natts;
	int			nslots = Min(nrows, CHUNK_ROWS);
	CommandId	cid;
	TupleTableSlot **slots;
	MemoryContext context;
	MemoryContext chunk_context;
	MemoryContext caller;
	JobqShape  *shape;
	Relation   *indexes;

	if (nrows <= 0)
		return;
	if (nrows == 1)
	{
		jobq_insert(rel, rows[0].values, rows[0].nulls, tids);
		return;
	}

	cid = GetCurrentCommandId(true);
	shape = jobq_shape_of(rel);
	indexes = open_indexes(shape);
	context = AllocSetContextCreate(CurrentMemoryContext, "jobq insert",
									ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	natts = shape->indexed;
	for (int i = 0; i < nrows; i++)
		natts = count_filled(rows[i].nulls,
							 RelationGetNumberOfAttributes(rel), natts);
	desc = jobq_first_columns(rel, natts);
	slots = palloc(nslots * sizeof(TupleTableSlot *));
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	/* tuples, and what the access methods leave behind */
	chunk_context = AllocSetContextCreate(context, "jobq insert chunk",
										  ALLOCSET_DEFAULT_SIZES);

	for (int done = 0; done < nrows;)
	{
		Size		bytes = 0;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(chunk_context);
		do
		{
			const JobqRow *row = &rows[done + n];

			fill_slot(slots[n], row->values, row->nulls);
			bytes += row_bytes(desc, row);
			n++;
		} while (n < nslots && done + n < nrows && bytes < CHUNK_BYTES);

		insert_chunk(rel, slots, n, cid);
		for (int i = 0; i < shape->nindexes; i++)
		{
			for (int j = 0; j < n; j++)
				insert_index_entry(rel, indexes[i], shape->infos[i], slots[j]);
		}
		for (int j = 0; tids != NULL && j < n; j++)
			tids[done + j] = slots[j]->tts_tid;

		MemoryContextReset(chunk_context);
		done += n;
	}

	MemoryContextSwitchTo(caller);
	close_indexes(shape, indexes);
	MemoryContextDelete(context);
}

static bool
index_serves(Relation index, const AttrNumber *columns, int n)
{
	if (!index->rd_index->indisvalid ||
		index->rd_rel->relam != BTREE_AM_OID ||
		IndexRelationGetNumberOfKeyAttributes(index) != n)
		return false;
	for (int i = 0; i < n; i++)
	{
		if (index->rd_index->indkey.values[i] != columns[i] ||
			index->rd_indoption[i] != 0)
			return false;
	}
	return RelationGetIndexPredicate(index) == NIL;
}

Relation
jobq_open_index_on(Relation rel, const AttrNumber *columns, int n)
{
	List	   *oids = RelationGetIndexList(rel);
	Relation	found = NULL;
	ListCell   *cell;

	foreach(cell, oids)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index_serves(index, columns, n))
		{
			found = index;
			break;
		}
		index_close(index, AccessShareLock);
	}
	list_free(oids);
	return found;
}

static void
scan_begin(JobqScan *scan, Relation rel, Snapshot snapshot,
		   AttrNumber column, StrategyNumber strategy,
		   RegProcedure compare, Datum value)
{
	ScanKeyData key;

	scan->by_index = NULL;
	scan->by_table = NULL;
	scan->touched = false;
	scan->slot = table_slot_create(rel, NULL);
	scan->index = jobq_open_index_on(rel, &column, 1);
	if (scan->index != NULL)
	{
		ScanKeyInit(&key, 1, strategy, compare, value);
		scan->by_index = jobq_index_beginscan(rel, scan->index, snapshot, 1);
		index_rescan(scan->by_index, &key, 1, NULL, 0);
	}
	else
	{
		ScanKeyInit(&key, column, strategy, compare, value);
		scan->by_table = table_beginscan(rel, snapshot, 1, &key);
		scan->touched = true;
	}
}

void
jobq_scan_begin_int8(JobqScan *scan, Relation rel, Snapshot snapshot,
					 AttrNumber column, int64 value)
{
	scan_begin(scan, rel, snapshot, column, BTEqualStrategyNumber,
			   F_INT8EQ, Int64GetDatum(value));
}

bool
jobq_scan_next(JobqScan *scan)
{
	if (scan->by_index == NULL)
		return table_scan_getnextslot(scan->by_table, ForwardScanDirection,
									  scan->slot);

	while (index_getnext_tid(scan->by_index, ForwardScanDirection) != NULL)
	{
		scan->touched = true;
		if (index_fetch_heap(scan->by_index, scan->slot))
			return true;
	}
	return false;
}

/* The index lock stays to commit, like all of ours. */
void
jobq_scan_end(JobqScan *scan)
{
	ExecDropSingleTupleTableSlot(scan->slot);
	if (scan->by_index != NULL)
	{
		index_endscan(scan->by_index);
		index_close(scan->index, NoLock);
	}
	else
		table_endscan(scan->by_table);
}

TransactionId
jobq_writer_of(TupleTableSlot *slot)
{
	bool		isnull;

	return DatumGetTransactionId(slot_getsysattr(slot,
												 MinTransactionIdAttributeNumber,
												 &isnull));
}

/* One allocation: the values point into a copy of the tuple. */
void
jobq_copy_values(TupleTableSlot *slot, Datum *values, bool *nulls)
{
	HeapTuple	tuple = ExecCopySlotHeapTuple(slot);

	heap_deform_tuple(tuple, slot->tts_tupleDescriptor, values, nulls);
}

void
jobq_check_columns(Relation rel, int natts)
{
	if (RelationGetNumberOfAttributes(rel) == natts)
		return;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s.%s\" does not have the columns it was made with",
					get_namespace_name(RelationGetNamespace(rel)),
					RelationGetRelationName(rel)),
			 errdetail("Columns expected: %d, found: %d.",
					   natts, RelationGetNumberOfAttributes(rel)),
			 errhint("Do not alter the tables of pg_jobq.")));
}

Snapshot
jobq_fresh_snapshot(void)
{
	if (IsInParallelMode())
		return RegisterSnapshot(GetActiveSnapshot());

	/* so that it sees what the current command has done */
	CommandCounterIncrement();
	return RegisterSnapshot(GetLatestSnapshot());
}
