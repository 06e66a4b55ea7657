/*
 * claimrow.c: writing rows of claim_N and outcome_N. Decides nothing; the
 * callers hold the slots.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "engine/claimrow.h"
#include "engine/place.h"
#include "engine/xact.h"
#include "errors.h"

void
jobq_set_text(Datum *value, bool *null, const char *text)
{
	*null = text == NULL;
	*value = text != NULL ? CStringGetTextDatum(text) : (Datum) 0;
}

char
jobq_claim_flag(const JobqLease *lease)
{
	return lease->probe ? CLAIM_PROBE : CLAIM_DEQUEUE;
}

bool
jobq_write_claim(JobqBelts *belts, int32 epoch, char flag,
				 const JobqLease *lease, const int64 *tickets, int ntickets,
				 Datum progress, bool progress_null, ItemPointer tid)
{
	Relation	rel = jobq_belts_write(belts, epoch, BELT_CLAIM);
	Datum		values[CLAIM_NATTS];
	bool		nulls[CLAIM_NATTS] = {0};

	if (rel == NULL)
		return false;
	values[CLAIM_LEASE] = Int64GetDatum(lease->lease);
	values[CLAIM_CLAIMED_AT] = TimestampTzGetDatum(lease->claimed_at);
	values[CLAIM_EXPIRES_AT] = TimestampTzGetDatum(lease->expires_at);
	values[CLAIM_CLAIMED_BY] = ObjectIdGetDatum(lease->claimed_by);
	values[CLAIM_FLAG] = CharGetDatum(flag);
	values[CLAIM_TICKETS] = PointerGetDatum(jobq_tickets_pack(tickets, ntickets));
	jobq_set_text(&values[CLAIM_WORKER], &nulls[CLAIM_WORKER],
				  lease->worker[0] != '\0' ? lease->worker : NULL);
	values[CLAIM_PROGRESS] = progress;
	nulls[CLAIM_PROGRESS] = progress_null;
	jobq_insert(rel, values, nulls, tid);
	return true;
}

static void
set_int64(JobqRow *row, int att, int64 value)
{
	row->nulls[att] = value == 0;
	row->values[att] = Int64GetDatum(value);
}

static void
fill_outcome(JobqRow *row, const JobqHeld *held, const JobqEnding *ending,
			 TimestampTz now)
{
	bool		claim_row = ItemPointerIsValid(&held->l.claim_tid) &&
	ending->attempt_outcome != ATTEMPT_ROLLED_BACK;

	memset(row, 0, sizeof(*row));
	row->values[OUT_TICKET] = Int64GetDatum(held->t.ticket);
	set_int64(row, OUT_LEASE, held->l.lease);
	row->values[OUT_CLAIMED_AT] = TimestampTzGetDatum(held->l.claimed_at);
	row->nulls[OUT_CLAIMED_AT] = held->l.lease == 0;
	row->values[OUT_FINISHED_AT] = TimestampTzGetDatum(now);
	set_int64(row, OUT_NEXT, ending->next);
	set_int64(row, OUT_MOVED_TO, ending->moved_to);
	row->values[OUT_HELD_UNTIL] = TimestampTzGetDatum(ending->held_until);
	row->nulls[OUT_HELD_UNTIL] = ending->held_until == 0;
	row->values[OUT_QUEUE_ID] = Int32GetDatum(held->t.queue_id);
	row->values[OUT_FINISHED_BY] = ObjectIdGetDatum(GetUserId());
	row->nulls[OUT_FINISHED_BY] = claim_row && held->l.lease != 0 &&
		held->l.claimed_by == GetUserId();
	row->values[OUT_CLAIM_TID] = PointerGetDatum(&held->l.claim_tid);
	row->nulls[OUT_CLAIM_TID] = !claim_row;
	row->values[OUT_ENDED] = CharGetDatum(ending->ended);
	row->values[OUT_ATTEMPT_OUTCOME] = CharGetDatum(ending->attempt_outcome);
	row->nulls[OUT_ATTEMPT_OUTCOME] = ending->attempt_outcome == 0;
	/* the claim row names the worker, unless it was rolled back */
	jobq_set_text(&row->values[OUT_WORKER], &row->nulls[OUT_WORKER],
				  held->l.lease != 0 && !claim_row && held->l.worker[0] != '\0' ?
				  held->l.worker : NULL);
	jobq_set_text(&row->values[OUT_REASON], &row->nulls[OUT_REASON],
				  ending->reason);
	jobq_set_text(&row->values[OUT_ERROR], &row->nulls[OUT_ERROR],
				  ending->error);
	row->values[OUT_RESULT] = ending->result;
	row->nulls[OUT_RESULT] = !ending->has_result;
}

static void
insert_outcomes(JobqBelts *belts, const JobqHeld *held, JobqRow *rows, int n)
{
	int			to;

	for (int from = 0; from < n; from = to)
	{
		Relation	rel = jobq_belts_write(belts, held[from].t.epoch,
										   BELT_OUTCOME);

		for (to = from + 1; to < n && held[to].t.epoch == held[from].t.epoch;)
			to++;
		if (rel == NULL)
			elog(ERROR, "epoch %d is gone although it has live jobs",
				 held[from].t.epoch);
		if (to == from + 1)
			jobq_insert(rel, rows[from].values, rows[from].nulls, NULL);
		else
			jobq_insert_many(rel, &rows[from], to - from, NULL);
	}
}

static void
count_conflict(JobqDb *db)
{
	SpinLockAcquire(&db->mutex);
	db->index_conflicts++;
	SpinLockRelease(&db->mutex);
}

void
jobq_write_outcomes(const JobqSession *session, JobqBelts *belts,
					const JobqHeld *held, int nheld, const JobqEnding *ending,
					TimestampTz now)
{
	JobqRow		single;
	JobqRow    *rows = nheld == 1 ? &single : palloc(sizeof(JobqRow) * nheld);
	MemoryContext context = CurrentMemoryContext;

	for (int i = 0; i < nheld; i++)
		fill_outcome(&rows[i], &held[i], ending, now);
	PG_TRY();
	{
		insert_outcomes(belts, held, rows, nheld);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		count_conflict(session->db);
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_SETTLED),
				 errmsg("a job of this call has already been settled"),
				 errdetail("The unique index on the outcomes refused a second outcome."),
				 errhint("Look at the job with jobq.job().")));
	}
	PG_END_TRY();
	if (rows != &single)
		pfree(rows);
	if (ending->ended == ENDED_MOVED)
		return;
	for (int i = 0; i < nheld; i++)
	{
		if (held[i].own < 0 && !TransactionIdIsValid(held[i].xid))
			jobq_xact_ended(session, held[i].t.id);
	}
}
