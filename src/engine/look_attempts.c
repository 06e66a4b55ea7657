/*
 * look_attempts.c: the attempts of one job, those its newest row carries and
 * the one of its newest ticket. Must never show those of a job its caller may
 * not see.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "engine/look.h"

#define LOOK_TRIES		3

/* The newest ticket of a job in an epoch, and how it ended. */
typedef enum NewestAttr
{
	NEWEST_QUEUE,
	NEWEST_ENQUEUED_BY,
	NEWEST_ATTEMPTS,
	NEWEST_TRACEPARENT,
	NEWEST_TICKET,
	NEWEST_ATTEMPT,
	NEWEST_ENDED,
	NEWEST_LEASE,
	NEWEST_CLAIMED_AT,
	NEWEST_FINISHED_AT,
	NEWEST_OUTCOME,
	NEWEST_WORKER,
	NEWEST_ERROR,
	NEWEST_LESSEE,
	NEWEST_NATTS
} NewestAttr;

/* The LIMIT also tells the planner, which has no statistics, of one row. */
#define SQL_BELT_NEWEST \
	"SELECT j.queue_id, j.enqueued_by, j.attempts," \
	" j.headers ->> 'traceparent', j.ticket, coalesce(j.attempt, 0)," \
	" o.ended, o.lease, o.claimed_at, o.finished_at, o.attempt_outcome," \
	" coalesce(o.worker, c.worker), coalesce(o.error, o.reason)," \
	" c.claimed_by" \
	" FROM (SELECT t.* FROM jobq.job_%1$d t WHERE t.id = $1" \
	" ORDER BY t.ticket DESC LIMIT 1) j" \
	" LEFT JOIN jobq.outcome_%1$d o ON o.ticket = j.ticket" \
	" LEFT JOIN jobq.claim_%1$d c ON c.ctid = o.claim_tid" \
	" AND c.lease = o.lease"

#define SQL_SHELF_ATTEMPTS \
	"SELECT j.queue_id, j.enqueued_by, j.attempts," \
	" j.headers ->> 'traceparent'" \
	" FROM jobq.shelf j WHERE j.id = $1"

static const char *
outcome_word(char outcome)
{
	switch (outcome)
	{
		case ATTEMPT_COMPLETED:
			return "completed";
		case ATTEMPT_FAILED:
			return "failed";
		case ATTEMPT_RELEASED:
			return "released";
		case ATTEMPT_CANCELLED:
			return "cancelled";
		case ATTEMPT_LEASE_EXPIRED:
			return "lease_expired";
		case ATTEMPT_ROLLED_BACK:
			return "rolled_back";
	}
	elog(ERROR, "unknown outcome \"%c\" of an attempt", outcome);
	return NULL;
}

/* One row of jobq.attempts(). 0 stands for "none" in lease and the times. */
static void
look_add_attempt(JobqLook *look, int32 number, int64 lease, const char *worker,
				 TimestampTz started_at, TimestampTz finished_at,
				 const char *outcome, const char *error)
{
	Datum		values[8] = {0};
	bool		nulls[8];

	memset(nulls, true, sizeof(nulls));
	jobq_look_set(values, nulls, 0, Int32GetDatum(number));
	if (lease != 0)
		jobq_look_set(values, nulls, 1, Int64GetDatum(lease));
	if (worker != NULL && worker[0] != '\0')
		jobq_look_set(values, nulls, 2, CStringGetTextDatum(worker));
	if (started_at != 0)
		jobq_look_set(values, nulls, 3, TimestampTzGetDatum(started_at));
	if (finished_at != 0)
		jobq_look_set(values, nulls, 4, TimestampTzGetDatum(finished_at));
	if (outcome != NULL)
		jobq_look_set(values, nulls, 5, CStringGetTextDatum(outcome));
	if (error != NULL)
		jobq_look_set(values, nulls, 6, CStringGetTextDatum(error));
	jobq_look_set(values, nulls, 7, look->traceparent);
	nulls[7] = look->no_traceparent;
	tuplestore_putvalues(look->store, look->desc, values, nulls);
}

/* The attempts a row carries: those before its own ticket. */
static void
look_add_carried(JobqLook *look, Datum list, bool isnull)
{
	JobqAttempt *attempts;
	int			nattempts;

	if (isnull)
		return;
	nattempts = jobq_attempts_unpack(DatumGetJsonbP(list), &attempts);
	for (int i = 0; i < nattempts; i++)
		look_add_attempt(look, attempts[i].attempt, attempts[i].lease,
						 attempts[i].worker, attempts[i].started_at,
						 attempts[i].finished_at,
						 outcome_word(attempts[i].outcome), attempts[i].error);
}

/* The attempt made, or being made, of the newest ticket itself. */
static void
look_add_newest(JobqLook *look, const Datum *values, const bool *nulls)
{
	int32		number = DatumGetInt32(values[NEWEST_ATTEMPT]) + 1;
	JobqHolder	holder;

	if (!nulls[NEWEST_ENDED])
	{
		if (nulls[NEWEST_OUTCOME])
			return;
		look_add_attempt(look, number,
						 nulls[NEWEST_LEASE] ? 0 :
						 DatumGetInt64(values[NEWEST_LEASE]),
						 nulls[NEWEST_WORKER] ? NULL :
						 TextDatumGetCString(values[NEWEST_WORKER]),
						 nulls[NEWEST_CLAIMED_AT] ? 0 :
						 DatumGetTimestampTz(values[NEWEST_CLAIMED_AT]),
						 DatumGetTimestampTz(values[NEWEST_FINISHED_AT]),
						 outcome_word(DatumGetChar(values[NEWEST_OUTCOME])),
						 nulls[NEWEST_ERROR] ? NULL :
						 TextDatumGetCString(values[NEWEST_ERROR]));
		return;
	}

	if (jobq_look_holder(look, look->id, DatumGetInt64(values[NEWEST_TICKET]),
						 &holder) == HOLDER_WORKER)
		look_add_attempt(look, number, holder.l.lease, holder.l.worker,
						 holder.l.claimed_at, 0,
						 holder.rolled_back ?
						 outcome_word(ATTEMPT_ROLLED_BACK) : NULL, NULL);
}

/*
 * Run a query for one job that gives at most one row. False when it gave
 * none; values live until jobq_look_end().
 */
static bool
look_one(JobqLook *look, const char *sql, Datum *values, bool *nulls)
{
	Oid			types[1] = {INT8OID};
	Datum		args[1] = {Int64GetDatum(look->id)};

	if (SPI_execute_with_args(sql, 1, types, args, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read a job");
	if (SPI_processed == 0)
		return false;
	heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, values,
					  nulls);
	return true;
}

/* The job's newest ticket over all epochs. */
static bool
look_newest(JobqLook *look, Datum *values, bool *nulls)
{
	int32	   *epochs;
	int			nepochs = jobq_epoch_list(&epochs);
	JobqBelts	belts = {0};
	bool		found = false;

	for (int i = 0; i < nepochs; i++)
	{
		Datum		row[NEWEST_NATTS];
		bool		row_nulls[NEWEST_NATTS];

		if (!jobq_look_open_epoch(&belts, epochs[i]))
			continue;
		if (look_one(look, psprintf(SQL_BELT_NEWEST, epochs[i]), row,
					 row_nulls) &&
			(!found || DatumGetInt64(row[NEWEST_TICKET]) >
			 DatumGetInt64(values[NEWEST_TICKET])))
		{
			memcpy(values, row, sizeof(row));
			memcpy(nulls, row_nulls, sizeof(row_nulls));
			found = true;
		}
	}
	jobq_belts_close(&belts);
	return found;
}

/*
 * A ticket that has not ended and is not in memory either may have ended since
 * the snapshot; then a new snapshot shows it.
 */
static bool
look_too_late(JobqLook *look, const Datum *values, const bool *nulls)
{
	JobqHolder	holder;

	return nulls[NEWEST_ENDED] &&
		jobq_look_holder(look, look->id, DatumGetInt64(values[NEWEST_TICKET]),
						 &holder) == HOLDER_UNKNOWN;
}

/* Has the caller leased the job: its newest ticket, running or ended? */
static bool
look_leased(JobqLook *look, const JobqLookQueue *queue, const Datum *values,
			const bool *nulls)
{
	JobqHolder	holder;

	if (!queue->leasable)
		return false;
	if (!nulls[NEWEST_ENDED])
		return !nulls[NEWEST_LESSEE] &&
			DatumGetChar(values[NEWEST_ENDED]) != ENDED_MOVED &&
			jobq_look_leased(look, queue,
							 DatumGetObjectId(values[NEWEST_LESSEE]));
	return jobq_look_holder(look, look->id,
							DatumGetInt64(values[NEWEST_TICKET]),
							&holder) == HOLDER_WORKER &&
		!holder.rolled_back &&
		jobq_look_leased(look, queue, holder.l.claimed_by);
}

/*
 * A row on the shelf is newer than any ticket and carries all attempts; else
 * the newest ticket carries those before it. False: the snapshot was too old,
 * and nothing was shown; never at the last try.
 */
static bool
look_at_attempts(JobqLook *look, bool last_try)
{
	JobqLookQueue *queue;
	JobqLookRole *role;
	Datum		values[NEWEST_NATTS];
	bool		nulls[NEWEST_NATTS];
	bool		on_shelf;

	on_shelf = look_one(look, SQL_SHELF_ATTEMPTS, values, nulls);
	if (!on_shelf && !look_newest(look, values, nulls))
		return true;
	if (!jobq_look_up(look, DatumGetInt32(values[NEWEST_QUEUE]),
					  DatumGetObjectId(values[NEWEST_ENQUEUED_BY]),
					  &queue, &role))
		return true;
	if (!jobq_look_visible(look, queue, role) &&
		(on_shelf || !look_leased(look, queue, values, nulls)))
		return true;
	if (!on_shelf && !last_try && look_too_late(look, values, nulls))
		return false;
	look->traceparent = values[NEWEST_TRACEPARENT];
	look->no_traceparent = nulls[NEWEST_TRACEPARENT];
	look_add_carried(look, values[NEWEST_ATTEMPTS], nulls[NEWEST_ATTEMPTS]);
	if (!on_shelf)
		look_add_newest(look, values, nulls);
	return true;
}

void
jobq_show_attempts(const JobqSession *session, int64 id,
				   Tuplestorestate *store, TupleDesc desc)
{
	JobqLook	look;
	bool		shown = false;

	jobq_look_await_leases(session);
	for (int i = LOOK_TRIES; i > 0 && !shown; i--)
	{
		jobq_look_begin(&look, session, id, store, desc);
		shown = look_at_attempts(&look, i == 1);
		jobq_look_end(&look);
	}
}
