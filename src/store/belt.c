/*
 * belt.c: opens and reads the tables of an epoch, and refuses everybody else
 * who would write them. Rows of the belt are only ever inserted, so what is
 * committed or our own is what SnapshotSelf sees; never updates or deletes.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "security/audit.h"
#include "store/rows.h"

PG_FUNCTION_INFO_V1(jobq_refuse_write);

static const int belt_natts[] = {
	[BELT_JOB] = JOB_NATTS,
	[BELT_CLAIM] = CLAIM_NATTS,
	[BELT_OUTCOME] = OUT_NATTS,
};

/*
 * Trigger of all belt tables. Our own writes go around triggers, so whoever
 * gets here is not us.
 */
Datum
jobq_refuse_write(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("jobq._refuse_write() is a trigger function"),
				 errhint("It is called by triggers of pg_jobq only.")));

	jobq_audit_refusal(psprintf("write %s",
								RelationGetRelationName(trigger->tg_relation)),
					   0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "is not for SQL to write");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("table \"jobq.%s\" is written by pg_jobq only",
					RelationGetRelationName(trigger->tg_relation)),
			 errdetail("Its rows and what is in memory must agree."),
			 errhint("Use functions such as jobq.enqueue(), jobq.complete(), jobq.cancel() or jobq.purge_queue().")));
}

/*
 * The name is resolved again under the lock: whoever drops an epoch may have
 * come first. (We hear of that when we get the lock.)
 */
Relation
jobq_belt_open(int32 epoch, JobqBeltKind kind, LOCKMODE lockmode)
{
	Relation	rel;
	Oid			relid;

	for (;;)
	{
		relid = jobq_belt_oid(epoch, kind);
		if (!OidIsValid(relid))
			return NULL;
		LockRelationOid(relid, lockmode);
		if (jobq_belt_oid(epoch, kind) == relid)
			break;
		UnlockRelationOid(relid, lockmode);
	}
	rel = relation_open(relid, NoLock);
	jobq_check_columns(rel, belt_natts[kind]);
	return rel;
}

/*
 * The row at a TID that may be any number at all: a page that is not there
 * must not be read.
 */
static bool
fetch_at(Relation rel, JobqReader *reader, ItemPointer tid)
{
	if (reader->slot == NULL)
		reader->slot = table_slot_create(rel, NULL);
	if (tid == NULL || !ItemPointerIsValid(tid))
		return false;
	/* belts only grow, and asking for their size is a system call */
	if (ItemPointerGetBlockNumber(tid) >= reader->blocks)
		reader->blocks = RelationGetNumberOfBlocks(rel);
	return ItemPointerGetBlockNumber(tid) < reader->blocks &&
		table_tuple_fetch_row_version(rel, tid, SnapshotSelf, reader->slot);
}

void
jobq_reader_close(JobqReader *reader)
{
	if (reader->slot != NULL)
		ExecDropSingleTupleTableSlot(reader->slot);
	reader->slot = NULL;
	reader->blocks = 0;
}

/* ---- job rows ---- */

/* What most jobs have in common is left out of job_N: NULL stands for it. */
static void
leave_out(JobqRow *row)
{
	row->nulls[JOB_ENQUEUED_AT] =
		row->values[JOB_ENQUEUED_AT] == row->values[JOB_RUN_AT];
	row->nulls[JOB_ATTEMPT] = DatumGetInt32(row->values[JOB_ATTEMPT]) == 0;
}

void
jobq_belt_fill_in(JobqRow *row)
{
	if (row->nulls[JOB_ENQUEUED_AT])
		row->values[JOB_ENQUEUED_AT] = row->values[JOB_RUN_AT];
	if (row->nulls[JOB_ATTEMPT])
		row->values[JOB_ATTEMPT] = Int32GetDatum(0);
	row->nulls[JOB_ENQUEUED_AT] = false;
	row->nulls[JOB_ATTEMPT] = false;
}

void
jobq_belt_insert_jobs(Relation job, JobqRow *rows, int nrows,
					  ItemPointerData *tids)
{
	for (int i = 0; i < nrows; i++)
		leave_out(&rows[i]);
	jobq_insert_many(job, rows, nrows, tids);
	for (int i = 0; i < nrows; i++)
		jobq_belt_fill_in(&rows[i]);
}

static bool
slot_has_int8(TupleTableSlot *slot, int column, int64 value)
{
	bool		isnull;
	Datum		datum = slot_getattr(slot, column + 1, &isnull);

	return !isnull && DatumGetInt64(datum) == value;
}

static void
copy_job(TupleTableSlot *slot, JobqRow *row)
{
	jobq_copy_values(slot, row->values, row->nulls);
	jobq_belt_fill_in(row);
	for (int i = JOB_NATTS; i < SHELF_NATTS; i++)
	{
		row->values[i] = (Datum) 0;
		row->nulls[i] = true;
	}
}

bool
jobq_belt_read_ticket(Relation job_rel, JobqReader *reader, ItemPointer hint,
					  int64 id, int64 ticket, JobqRow *row)
{
	bool		found;
	JobqScan	scan;

	found = fetch_at(job_rel, reader, hint) &&
		slot_has_int8(reader->slot, JOB_TICKET, ticket) &&
		slot_has_int8(reader->slot, JOB_ID, id);
	if (found)
		copy_job(reader->slot, row);
	ExecClearTuple(reader->slot);
	if (found)
		return true;

	jobq_scan_begin_int8(&scan, job_rel, SnapshotSelf, JOB_ID + 1, id);
	while (!found && jobq_scan_next(&scan))
		found = slot_has_int8(scan.slot, JOB_TICKET, ticket);
	if (found)
		copy_job(scan.slot, row);
	jobq_scan_end(&scan);
	return found;
}

bool
jobq_belt_is_own(Relation job_rel, int64 id, int64 ticket)
{
	bool		own = false;
	JobqScan	scan;

	jobq_scan_begin_int8(&scan, job_rel, SnapshotSelf, JOB_ID + 1, id);
	while (jobq_scan_next(&scan))
	{
		if (slot_has_int8(scan.slot, JOB_TICKET, ticket))
			own = TransactionIdIsCurrentTransactionId(jobq_writer_of(scan.slot));
	}
	jobq_scan_end(&scan);
	return own;
}

static int
compare_tickets(const void *a, const void *b)
{
	int64		ta = DatumGetInt64(((const JobqRow *) a)->values[JOB_TICKET]);
	int64		tb = DatumGetInt64(((const JobqRow *) b)->values[JOB_TICKET]);

	return (ta > tb) - (ta < tb);
}

int
jobq_belt_read_id(Relation job_rel, int64 id, JobqRow **rows)
{
	int			size = 4;
	int			n = 0;
	JobqScan	scan;

	*rows = palloc(size * sizeof(JobqRow));
	jobq_scan_begin_int8(&scan, job_rel, SnapshotSelf, JOB_ID + 1, id);
	while (jobq_scan_next(&scan))
	{
		if (n == size)
		{
			size *= 2;
			*rows = repalloc(*rows, size * sizeof(JobqRow));
		}
		copy_job(scan.slot, &(*rows)[n++]);
	}
	jobq_scan_end(&scan);
	qsort(*rows, n, sizeof(JobqRow), compare_tickets);
	return n;
}

bool
jobq_belt_read_outcome(Relation outcome_rel, int64 ticket, JobqOutcomeRow *row)
{
	JobqScan	scan;
	bool		found;

	jobq_scan_begin_int8(&scan, outcome_rel, SnapshotSelf, OUT_TICKET + 1,
						 ticket);
	found = jobq_scan_next(&scan);
	if (found)
		jobq_copy_values(scan.slot, row->values, row->nulls);
	jobq_scan_end(&scan);
	return found;
}

bool
jobq_belt_read_claim(Relation claim_rel, ItemPointer hint, int64 lease,
					 Datum *values, bool *nulls)
{
	JobqReader	reader = {0};
	bool		found;

	found = fetch_at(claim_rel, &reader, hint) &&
		slot_has_int8(reader.slot, CLAIM_LEASE, lease);
	if (found)
		jobq_copy_values(reader.slot, values, nulls);
	jobq_reader_close(&reader);
	return found;
}
