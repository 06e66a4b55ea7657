/*
 * rows.h: writing and reading rows of our tables without the executor.
 *
 * Private to src/store, except for jobq_insert and jobq_insert_many, which
 * store.h declares for everybody.
 */
#ifndef JOBQ_ROWS_H
#define JOBQ_ROWS_H

#include "access/attnum.h"
#include "access/genam.h"
#include "access/skey.h"
#include "access/tableam.h"

#include "store/store.h"

/*
 * The first valid plain btree index on exactly these columns, ascending; NULL
 * = there is none. REINDEX CONCURRENTLY replaces indexes, so it is to be asked
 * for each time. The lock on it is AccessShareLock.
 */
extern Relation jobq_open_index_on(Relation rel, const AttrNumber *columns,
								   int n);

/*
 * A scan for one comparison on one column: through the plain btree index whose
 * only key is that column, ascending, or over the whole table, unordered, when
 * there is no valid one.
 */
typedef struct JobqScan
{
	Relation	index;			/* NULL: over the whole table */
	IndexScanDesc by_index;
	TableScanDesc by_table;
	TupleTableSlot *slot;		/* the row found */
	bool		touched;		/* some row was looked at, visible or not */
} JobqScan;

extern bool jobq_scan_next(JobqScan *scan);
extern void jobq_scan_end(JobqScan *scan);

/* A scan for column = value of a bigint column. */
extern void jobq_scan_begin_int8(JobqScan *scan, Relation rel,
								 Snapshot snapshot, AttrNumber column,
								 int64 value);

/*
 * The same for a table that only administration writes: a scan for rows whose
 * column has that value, through any index that begins with it. It is of
 * queue.c.
 */
extern SysScanDesc jobq_begin_lookup(Relation rel, AttrNumber attno,
									 RegProcedure equal, Datum value,
									 Snapshot snapshot);

/* Who has written the row that the slot has. */
extern TransactionId jobq_writer_of(TupleTableSlot *slot);

/* Copy a slot's row into the current memory context. */
extern void jobq_copy_values(TupleTableSlot *slot, Datum *values, bool *nulls);

/* ERROR unless the table has exactly this many columns, as it was made. */
extern void jobq_check_columns(Relation rel, int natts);

/*
 * A registered snapshot of this very moment, whatever the isolation level,
 * with all that we have done ourselves; in parallel mode, where nothing can
 * be done, the active one. The caller unregisters it.
 */
extern Snapshot jobq_fresh_snapshot(void);

#endif							/* JOBQ_ROWS_H */
