/*
 * numbers.c: blocks of ids and tickets, taken from sequence jobq.number_block.
 *
 * Makes sure that a block never comes again, whatever crashes. Must not hand
 * out single numbers; that is done in shared memory.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "commands/sequence.h"

#include "store/store.h"

/*
 * End of the WAL written so far. GetXLogInsertRecPtr() says where the next
 * record will begin: at a page boundary that is behind a page header which
 * does not exist yet, and XLogFlush() refuses to go there.
 */
static XLogRecPtr
end_of_wal(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
		return end - SizeOfXLogLongPHD;
	if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return end - SizeOfXLogShortPHD;
	return end;
}

/*
 * The record that covers this value may be an earlier one, perhaps of another
 * session, that nobody has flushed yet: so everything is flushed.
 */
int64
jobq_store_next_block(void)
{
	int64		start;

	start = nextval_internal(jobq_table_oid(JOBQ_TABLE_NUMBER_BLOCK), false);
	XLogFlush(end_of_wal());
	return start;
}
