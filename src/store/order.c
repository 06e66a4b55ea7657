/*
 * order.c: the tickets of a queue in its order, from a place on, and whether a
 * ticket has ended: scans of one epoch that stay open for many questions.
 * Knows no shared memory.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "store/order.h"
#include "store/rows.h"

static Relation
require_index(Relation rel, const AttrNumber *columns, int n)
{
	Relation	index = jobq_open_index_on(rel, columns, n);

	if (index == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"jobq.%s\" lacks an index",
						RelationGetRelationName(rel)),
				 errdetail("One of the indexes it was made with is missing or not valid."),
				 errhint("Look at jobq.check_install(); make the index again or restore it from a backup.")));
	return index;
}

/* ---- in order ---- */

/*
 * A row comparison (priority, run_at, id) >= from, as the executor would make
 * it: the header's argument is the array of members.
 */
static void
from_key(JobqOrderScan *scan, int32 priority, TimestampTz run_at, int64 id)
{
	static const struct
	{
		RegProcedure compare;
		Oid			subtype;
	}			members[] = {
		{F_BTINT2CMP, INT2OID},
		{F_TIMESTAMPTZ_CMP, TIMESTAMPTZOID},
		{F_BTINT8CMP, INT8OID},
	};
	Datum		values[] = {
		Int16GetDatum((int16) priority),
		TimestampTzGetDatum(run_at),
		Int64GetDatum(id)
	};
	ScanKey		header = &scan->keys[1];

	for (int i = 0; i < 3; i++)
		ScanKeyEntryInitialize(&scan->members[i],
							   SK_ROW_MEMBER | (i == 2 ? SK_ROW_END : 0),
							   i + 2, BTGreaterEqualStrategyNumber,
							   members[i].subtype, InvalidOid,
							   members[i].compare, values[i]);
	memset(header, 0, sizeof(*header));
	header->sk_flags = SK_ROW_HEADER;
	header->sk_attno = scan->members[0].sk_attno;
	header->sk_strategy = BTGreaterEqualStrategyNumber;
	header->sk_argument = PointerGetDatum(scan->members);
}

void
jobq_order_begin(JobqOrderScan *scan, Relation job, Snapshot snapshot,
				 int32 queue_id, bool from_start, int32 priority,
				 TimestampTz run_at, int64 id)
{
	static const AttrNumber columns[] = {
		JOB_QUEUE_ID + 1, JOB_PRIORITY + 1, JOB_RUN_AT + 1, JOB_ID + 1
	};
	int			nkeys = from_start ? 1 : 2;

	scan->index = require_index(job, columns, lengthof(columns));
	scan->slot = table_slot_create(job, NULL);
	ScanKeyInit(&scan->keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(queue_id));
	if (!from_start)
		from_key(scan, priority, run_at, id);
	scan->scan = jobq_index_beginscan(job, scan->index, snapshot, nkeys);
	index_rescan(scan->scan, scan->keys, nkeys, NULL, 0);
}

bool
jobq_order_next(JobqOrderScan *scan)
{
	return index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);
}

void
jobq_order_end(JobqOrderScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, NoLock);
}

/* ---- has it ended? ---- */

void
jobq_probe_begin(JobqProbe *probe, Relation outcome)
{
	static const AttrNumber columns[] = {OUT_TICKET + 1};

	probe->index = require_index(outcome, columns, 1);
	probe->slot = table_slot_create(outcome, NULL);
	probe->scan = jobq_index_beginscan(outcome, probe->index, SnapshotSelf, 1);
}

static void
rescan(JobqProbe *probe, StrategyNumber strategy, RegProcedure operator,
	   int64 ticket)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, strategy, operator, Int64GetDatum(ticket));
	index_rescan(probe->scan, &key, 1, NULL, 0);
}

bool
jobq_probe_ended(JobqProbe *probe, int64 ticket)
{
	rescan(probe, BTEqualStrategyNumber, F_INT8EQ, ticket);
	return index_getnext_slot(probe->scan, ForwardScanDirection, probe->slot);
}

/* The next ticket that has ended, in the scan's order. */
static int64
next_ended(JobqProbe *probe)
{
	bool		null;

	if (!index_getnext_slot(probe->scan, ForwardScanDirection, probe->slot))
		return PG_INT64_MAX;
	return DatumGetInt64(slot_getattr(probe->slot, OUT_TICKET + 1, &null));
}

void
jobq_probe_many(JobqProbe *probe, const int64 *tickets, int n, bool *ended)
{
	int64		found = 0;

	for (int i = 0; i < n; i++)
	{
		if (i > 0 && found < tickets[i])
			found = next_ended(probe);
		if (i == 0 || found < tickets[i])
		{
			rescan(probe, BTGreaterEqualStrategyNumber, F_INT8GE, tickets[i]);
			found = next_ended(probe);
		}
		ended[i] = found == tickets[i];
	}
}

void
jobq_probe_end(JobqProbe *probe)
{
	index_endscan(probe->scan);
	ExecDropSingleTupleTableSlot(probe->slot);
	index_close(probe->index, NoLock);
}
