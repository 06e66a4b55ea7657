/*
 * uncommitted.c: rows that transactions which have not ended have added to a
 * table: the work of prepared ones, which no snapshot shows. Changes nothing.
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "store/rows.h"

void
jobq_belt_read_uncommitted(Relation rel, JobqUncommittedVisitor visit,
						   void *state)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			natts = RelationGetNumberOfAttributes(rel);
	SnapshotData dirty;
	TableScanDesc scan;

	Assert(natts <= SHELF_NATTS);
	InitDirtySnapshot(dirty);
	scan = table_beginscan(rel, &dirty, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		JobqRow		row;

		CHECK_FOR_INTERRUPTS();
		if (!TransactionIdIsValid(dirty.xmin))
			continue;
		slot_getallattrs(slot);
		memcpy(row.values, slot->tts_values, sizeof(Datum) * natts);
		memcpy(row.nulls, slot->tts_isnull, sizeof(bool) * natts);
		jobq_belt_fill_in(&row);
		visit(&row, dirty.xmin, state);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}
