/*
 * move.c: a job leaves its ticket and goes on elsewhere: a new ticket, the
 * shelf, or death with or without a copy in a dead-letter queue. One outcome
 * and one new place, in one transaction.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "engine/claimrow.h"
#include "engine/deadletter.h"
#include "engine/hold.h"
#include "engine/move.h"
#include "engine/place.h"
#include "engine/unique.h"
#include "engine/xact.h"
#include "pause.h"

/* Who looks at dead jobs by then knows the queue's retention of that time. */
#define DEAD_LOOK			USECS_PER_HOUR

void
jobq_read_held(const JobqHeld *held, JobqRow *row)
{
	JobqBelts	belts = {0};
	Relation	job = jobq_belts_read(&belts, held->t.epoch, BELT_JOB);
	ItemPointerData tid = held->t.tid;

	if (job == NULL ||
		!jobq_belt_read_ticket(job, &belts.jobs, &tid, held->t.id,
							   held->t.ticket, row))
		elog(ERROR, "ticket " INT64_FORMAT " of job " INT64_FORMAT " is missing",
			 held->t.ticket, held->t.id);
	jobq_belts_close(&belts);
}

void
jobq_keep_progress(const JobqHeld *held, JobqRow *row)
{
	JobqBelts	belts = {0};
	Relation	claim;
	ItemPointerData tid = held->l.claim_tid;
	Datum		values[CLAIM_NATTS];
	bool		nulls[CLAIM_NATTS];

	if (held->l.lease == 0 || !ItemPointerIsValid(&tid))
		return;
	claim = jobq_belts_read(&belts, held->t.epoch, BELT_CLAIM);
	if (claim != NULL &&
		jobq_belt_read_claim(claim, &tid, held->l.lease, values, nulls) &&
		!nulls[CLAIM_PROGRESS])
	{
		row->values[JOB_PROGRESS] = values[CLAIM_PROGRESS];
		row->nulls[JOB_PROGRESS] = false;
	}
	jobq_belts_close(&belts);
}

/* The attempt that ends joins the list of earlier ones. */
static void
keep_attempt(const JobqHeld *held, const JobqMove *move, TimestampTz now,
			 JobqRow *row)
{
	JobqAttempt attempt = {0};
	Jsonb	   *list = NULL;

	if (move->attempt_outcome == 0)
		return;
	attempt.attempt = held->t.attempt + 1;
	attempt.lease = held->l.lease;
	attempt.worker = held->l.worker[0] != '\0' ? (char *) held->l.worker : NULL;
	attempt.started_at = held->l.claimed_at;
	attempt.finished_at = now;
	attempt.outcome = move->attempt_outcome;
	attempt.error = (char *) move->error;
	if (!row->nulls[JOB_ATTEMPTS])
		list = DatumGetJsonbP(row->values[JOB_ATTEMPTS]);
	row->values[JOB_ATTEMPTS] = JsonbPGetDatum(jobq_attempts_add(list, &attempt));
	row->nulls[JOB_ATTEMPTS] = false;
	if (move->counted)
		row->values[JOB_ATTEMPT] = Int32GetDatum(attempt.attempt);
	if (move->error != NULL)
		jobq_set_text(&row->values[JOB_LAST_ERROR],
					  &row->nulls[JOB_LAST_ERROR], move->error);
}

static void
count_failure(const JobqSession *session, const JobqHeld *held,
			  const JobqMove *move)
{
	if (!move->counted)
		return;
	jobq_xact_count_attempt(session, held, COUNT_FAILED,
							move->attempt_outcome == ATTEMPT_FAILED);
	if (held->l.probe)
		jobq_xact_verdict(session, held->t.queue_id, false);
}

/* The ticket ends, and the job goes on as this row says. */
static void
go_on(const JobqSession *session, JobqHeld *held, const JobqQueue *queue,
	  JobqEnding *ending, JobqRow *row, bool shelved, TimestampTz now)
{
	JobqBelts	belts = {0};

	/* on the shelf it has no ticket */
	row->nulls[JOB_TICKET] = shelved;
	if (!shelved)
	{
		ending->next = jobq_take_number(session->db);
		row->values[JOB_TICKET] = Int64GetDatum(ending->next);
	}
	jobq_write_outcomes(session, &belts, held, 1, ending, now);
	jobq_belts_close(&belts);
	JOBQ_PAUSE("between-move-writes");
	jobq_end_held(session, held);
	if (shelved)
		jobq_place_on_shelf(session, row,
							DatumGetInt32(row->values[JOB_ATTEMPT]) > 0 ?
							SHELF_RETRYABLE : SHELF_SCHEDULED);
	else
		jobq_place_on_belt(session, queue, row, 1);
}

/* Its attempt has ended, and somebody else is to do its work. */
static void
end_superseded(const JobqSession *session, JobqHeld *held,
			   const JobqMove *move, TimestampTz now)
{
	JobqEnding	ending = {.ended = ENDED_CANCELLED,
		.attempt_outcome = move->attempt_outcome,
	.error = move->error,.reason = "superseded"};
	JobqBelts	belts = {0};

	jobq_write_outcomes(session, &belts, held, 1, &ending, now);
	jobq_belts_close(&belts);
	jobq_end_held(session, held);
	count_failure(session, held, move);
	jobq_xact_count(session, held->t.queue_id, COUNT_CANCELLED, 1);
}

JobqGivenBack
jobq_move(const JobqSession *session, JobqHeld *held, const JobqQueue *queue,
		  const JobqMove *move)
{
	TimestampTz now = jobq_now();
	TimestampTz run_at = move->run_at != 0 ? move->run_at : now + move->delay;
	JobqEnding	ending = {.ended = ENDED_MOVED,.attempt_outcome = move->attempt_outcome,
	.error = move->error,.reason = move->reason};
	JobqRow		row;

	jobq_read_held(held, &row);
	if (move->attempt_outcome != 0 && !row.nulls[JOB_UNIQUE_KEY])
	{
		switch (jobq_key_returns(session, &row))
		{
			case KEY_KEPT:
				break;
			case KEY_LOST:
				end_superseded(session, held, move, now);
				return JOBQ_BACK_SUPERSEDED;
			case KEY_IN_DOUBT:
				return JOBQ_BACK_IN_DOUBT;
		}
	}
	keep_attempt(held, move, now, &row);
	jobq_keep_progress(held, &row);
	/* a job given back at once keeps its place in the order */
	if (run_at > now || move->run_at != 0)
		row.values[JOB_RUN_AT] = TimestampTzGetDatum(run_at);
	if (move->set_priority)
		row.values[JOB_PRIORITY] = Int16GetDatum(move->priority);
	go_on(session, held, queue, &ending, &row, run_at > now, now);
	count_failure(session, held, move);
	return JOBQ_BACK_WAITING;
}

void
jobq_move_as(const JobqSession *session, JobqHeld *held,
			 const JobqQueue *queue, JobqRow *row, const char *reason)
{
	TimestampTz now = jobq_now();
	JobqEnding	ending = {.ended = ENDED_MOVED,.reason = reason};

	go_on(session, held, queue, &ending, row,
		  DatumGetTimestampTz(row->values[JOB_RUN_AT]) > now, now);
}

void
jobq_move_to_dead(const JobqSession *session, JobqHeld *held,
				  const JobqQueue *queue, const JobqMove *move)
{
	TimestampTz now = jobq_now();
	JobqEnding	ending = {.ended = ENDED_DEAD,.attempt_outcome = move->attempt_outcome,
	.error = move->error,.reason = move->reason};
	JobqBelts	belts = {0};
	JobqRow		row;

	jobq_read_held(held, &row);
	keep_attempt(held, move, now, &row);
	jobq_keep_progress(held, &row);
	ending.moved_to = jobq_dead_letter(session, queue, &row, move, now);
	jobq_write_outcomes(session, &belts, held, 1, &ending, now);
	jobq_belts_close(&belts);
	JOBQ_PAUSE("between-move-writes");
	jobq_end_held(session, held);

	row.nulls[JOB_TICKET] = true;
	row.values[JOB_RUN_AT] = TimestampTzGetDatum(DT_NOEND);
	row.values[SHELF_DIED_AT] = TimestampTzGetDatum(now);
	row.nulls[SHELF_DIED_AT] = false;
	row.values[SHELF_MOVED_TO] = Int64GetDatum(ending.moved_to);
	row.nulls[SHELF_MOVED_TO] = ending.moved_to == 0;
	row.nulls[SHELF_RERUN_AS] = true;
	jobq_place_on_shelf(session, &row, SHELF_DEAD);
	count_failure(session, held, move);
	jobq_xact_count(session, held->t.queue_id, COUNT_DEAD, 1);
	jobq_xact_died(session, now + Min(queue->dead_retention, DEAD_LOOK));
}

void
jobq_new_job_like(const JobqRow *old, const JobqQueue *queue, TimestampTz now,
				  JobqRow *row)
{
	*row = *old;
	row->values[JOB_RUN_AT] = TimestampTzGetDatum(now);
	row->nulls[JOB_RUN_AT] = false;
	row->values[JOB_ENQUEUED_AT] = TimestampTzGetDatum(now);
	row->values[JOB_ENQUEUED_BY] = ObjectIdGetDatum(GetUserId());
	row->values[JOB_ATTEMPT] = Int32GetDatum(0);
	row->values[JOB_RETRY_OF] = old->values[JOB_ID];
	row->nulls[JOB_RETRY_OF] = false;
	row->nulls[JOB_LAST_ERROR] = true;
	row->nulls[JOB_PROGRESS] = true;
	row->nulls[JOB_ATTEMPTS] = true;
	jobq_set_default_expiry(queue, row);
}
