/*
 * walk.c: reading a belt table from its first block to its last, a piece at a
 * time, so that nobody has to wait for the whole. Changes nothing.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "store/rows.h"

#define WALK_BLOCKS		32		/* between two looks at the clock */
#define SAMPLE_BLOCKS	100

static void
walk_blocks(Relation rel, Snapshot snapshot, BlockNumber from, BlockNumber to,
			TupleTableSlot *slot, JobqRowVisitor visit, void *state)
{
	ItemPointerData first;
	ItemPointerData last;
	TableScanDesc scan;

	ItemPointerSet(&first, from, FirstOffsetNumber);
	ItemPointerSet(&last, to - 1, MaxOffsetNumber);
	scan = table_beginscan_tidrange(rel, snapshot, &first, &last);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
		visit(slot, state);
	table_endscan(scan);
}

bool
jobq_belt_walk(Relation rel, BlockNumber *next, int64 us, JobqRowVisitor visit,
			   void *state)
{
	TimestampTz deadline = GetCurrentTimestamp() + us;
	Snapshot	snapshot = jobq_fresh_snapshot();
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	BlockNumber end = RelationGetNumberOfBlocks(rel);
	bool		in_time = true;

	while (*next < end && in_time)
	{
		BlockNumber to = Min(*next + WALK_BLOCKS, end);

		CHECK_FOR_INTERRUPTS();
		walk_blocks(rel, snapshot, *next, to, slot, visit, state);
		*next = to;
		in_time = GetCurrentTimestamp() < deadline;
	}
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return *next < end;
}

bool
jobq_belt_walk_block(Relation rel, BlockNumber *next, JobqRowVisitor visit,
					 void *state)
{
	Snapshot	snapshot = jobq_fresh_snapshot();
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	BlockNumber end = RelationGetNumberOfBlocks(rel);

	CHECK_FOR_INTERRUPTS();
	if (*next < end)
	{
		walk_blocks(rel, snapshot, *next, *next + 1, slot, visit, state);
		(*next)++;
	}
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	return *next < end;
}

static int
rows_on(Relation rel, BlockNumber block)
{
	Buffer		buffer = ReadBuffer(rel, block);
	int			rows;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	rows = PageGetMaxOffsetNumber(BufferGetPage(buffer));
	UnlockReleaseBuffer(buffer);
	return rows;
}

int64
jobq_belt_estimate(Relation rel)
{
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	BlockNumber sample = Min(blocks, SAMPLE_BLOCKS);
	int64		rows = 0;

	for (BlockNumber i = 0; i < sample; i++)
	{
		CHECK_FOR_INTERRUPTS();
		rows += rows_on(rel, (BlockNumber) ((uint64) i * blocks / sample));
	}
	return sample > 0 ? rows * blocks / sample : 0;
}
