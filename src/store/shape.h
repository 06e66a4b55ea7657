/*
 * shape.h: what writing to a table needs to know of it, kept from one row to
 * the next.
 */
#ifndef JOBQ_SHAPE_H
#define JOBQ_SHAPE_H

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

typedef struct JobqShape
{
	Oid			relid;
	int			nindexes;		/* that take entries */
	Oid		   *indexes;
	IndexInfo **infos;
	int			indexed;		/* columns up to the last one in an index */
	TupleTableSlot *slot;		/* of the row before; NULL: none yet */
	MemoryContext context;		/* of all this */
} JobqShape;

/*
 * Of a table that is locked for writing; good until the next call. Error
 * 55000 when it has an index that we cannot fill.
 */
extern JobqShape *jobq_shape_of(Relation rel);

/*
 * The first columns of a table. A tuple may end early: what it lacks at its end
 * reads as NULL, and where nothing else is NULL it needs no bitmap. Not a
 * counted descriptor: each slot would remember it.
 */
extern TupleDesc jobq_first_columns(Relation rel, int natts);

/* A slot for one row of so many columns. It is the shape's: not to be dropped. */
extern TupleTableSlot *jobq_shape_slot(JobqShape *shape, Relation rel,
									   int natts);

#endif							/* JOBQ_SHAPE_H */
