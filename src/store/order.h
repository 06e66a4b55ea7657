/*
 * order.h: scans of one epoch's tickets in a queue's order, and repeated
 * questions whether a ticket has ended. The caller keeps the tables open.
 */
#ifndef JOBQ_ORDER_H
#define JOBQ_ORDER_H

#include "access/genam.h"
#include "access/skey.h"

#include "store/store.h"

typedef struct JobqOrderScan
{
	Relation	index;
	IndexScanDesc scan;
	ScanKeyData keys[2];
	ScanKeyData members[3];
	TupleTableSlot *slot;		/* the row found, as in job_N */
} JobqOrderScan;

/* Tickets of the queue from (priority, run_at, id) on, or from the start. */
extern void jobq_order_begin(JobqOrderScan *scan, Relation job,
							 Snapshot snapshot, int32 queue_id,
							 bool from_start, int32 priority,
							 TimestampTz run_at, int64 id);
extern bool jobq_order_next(JobqOrderScan *scan);
extern void jobq_order_end(JobqOrderScan *scan);

typedef struct JobqProbe
{
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
} JobqProbe;

/* Has a ticket an outcome that is committed, or our own, at this moment? */
extern void jobq_probe_begin(JobqProbe *probe, Relation outcome);
extern bool jobq_probe_ended(JobqProbe *probe, int64 ticket);

/*
 * The same of n tickets that ascend, at moments that come after the call: one
 * walk, which is short where few of those in between have ended.
 */
extern void jobq_probe_many(JobqProbe *probe, const int64 *tickets, int n,
							bool *ended);
extern void jobq_probe_end(JobqProbe *probe);

#endif							/* JOBQ_ORDER_H */
