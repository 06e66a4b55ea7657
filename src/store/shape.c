/*
 * shape.c: the indexes of a table and a slot for its rows, which writing asks
 * for with each row; kept as long as no relation changes: whoever makes, drops
 * or replaces an index waits for those who have locked its table, and whoever
 * locks it next has heard of it. Opens indexes only to read what they are.
 */
#include "postgres.h"

#include "access/genam.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "store/shape.h"
#include "store/store.h"

#define SHAPES			16

/* Each in the place that its table's OID gives; relid InvalidOid: none. */
static JobqShape shapes[SHAPES];
static uint64 good_for;			/* jobq_relation_changes() of all of them */

/*
 * We fill in index entries ourselves, so an index somebody has added must be
 * one that needs neither an executor nor an operator class's cooperation.
 */
static void
check_index(Relation rel, Relation index, const IndexInfo *info)
{
	if (index->rd_rel->relam == BTREE_AM_OID &&
		info->ii_Expressions == NIL && info->ii_Predicate == NIL &&
		info->ii_ExclusionOps == NULL && index->rd_index->indimmediate)
		return;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot write to table \"%s.%s\" because of index \"%s\"",
					get_namespace_name(RelationGetNamespace(rel)),
					RelationGetRelationName(rel),
					RelationGetRelationName(index)),
			 errdetail("Tables of pg_jobq may only have plain btree indexes, without expressions, predicates or deferred checks."),
			 errhint("Drop the index.")));
}

/* The index's lock stays to commit. */
static void
add_index(JobqShape *shape, Relation rel, Oid relid)
{
	Relation	index = index_open(relid, RowExclusiveLock);
	IndexInfo  *info;

	if (index->rd_index->indisready)
	{
		info = BuildIndexInfo(index);
		check_index(rel, index, info);
		for (int i = 0; i < info->ii_NumIndexAttrs; i++)
			shape->indexed = Max(shape->indexed, info->ii_IndexAttrNumbers[i]);
		shape->indexes[shape->nindexes] = relid;
		shape->infos[shape->nindexes] = info;
		shape->nindexes++;
	}
	index_close(index, NoLock);
}

static void
read_shape(JobqShape *shape, Relation rel)
{
	List	   *oids = RelationGetIndexList(rel);
	MemoryContext caller;
	ListCell   *cell;

	if (shape->context == NULL)
		shape->context = AllocSetContextCreate(TopMemoryContext, "jobq shape",
											   ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(shape->context);
	shape->nindexes = 0;
	shape->indexed = 0;
	shape->slot = NULL;
	shape->indexes = palloc(Max(list_length(oids), 1) * sizeof(Oid));
	shape->infos = palloc(Max(list_length(oids), 1) * sizeof(IndexInfo *));
	foreach(cell, oids)
		add_index(shape, rel, lfirst_oid(cell));
	MemoryContextSwitchTo(caller);
	list_free(oids);
}

static void
forget(JobqShape *shape)
{
	shape->relid = InvalidOid;
	if (shape->context != NULL)
		MemoryContextReset(shape->context);
}

JobqShape *
jobq_shape_of(Relation rel)
{
	uint64		changes = jobq_relation_changes();
	JobqShape  *shape = &shapes[RelationGetRelid(rel) % SHAPES];

	if (good_for != changes)
	{
		for (int i = 0; i < SHAPES; i++)
			forget(&shapes[i]);
		good_for = changes;
	}
	if (shape->relid != RelationGetRelid(rel))
	{
		forget(shape);
		read_shape(shape, rel);
		shape->relid = RelationGetRelid(rel);
	}
	return shape;
}

TupleDesc
jobq_first_columns(Relation rel, int natts)
{
	TupleDesc	desc = CreateTemplateTupleDesc(natts);

	for (int i = 1; i <= natts; i++)
		TupleDescCopyEntry(desc, i, RelationGetDescr(rel), i);
	return desc;
}

TupleTableSlot *
jobq_shape_slot(JobqShape *shape, Relation rel, int natts)
{
	MemoryContext caller;

	if (shape->slot != NULL &&
		shape->slot->tts_tupleDescriptor->natts == natts)
		return shape->slot;
	caller = MemoryContextSwitchTo(shape->context);
	if (shape->slot != NULL)
	{
		TupleDesc	old = shape->slot->tts_tupleDescriptor;

		ExecDropSingleTupleTableSlot(shape->slot);
		FreeTupleDesc(old);
		shape->slot = NULL;
	}
	shape->slot = MakeSingleTupleTableSlot(jobq_first_columns(rel, natts),
										   &TTSOpsVirtual);
	MemoryContextSwitchTo(caller);
	return shape->slot;
}
