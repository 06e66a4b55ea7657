/*
 * steer.c: cancelling, rescheduling and purging jobs wherever they are: slot,
 * shelf, or belt only. Privileges are checked by the callers.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "engine/claimrow.h"
#include "engine/hold.h"
#include "engine/move.h"
#include "engine/own.h"
#include "engine/place.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "errors.h"
#include "pause.h"
#include "security/redact.h"

#define STEER_TRIES		1000	/* of about 2 ms each */

/* Let a commit's callback or the keeper finish what it is at. */
static void
pause_briefly(int attempt)
{
	if (attempt > STEER_TRIES)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_NOT_READY),
				 errmsg("a job is between two states for too long"),
				 errdetail("The keeper has not moved it on."),
				 errhint("Look at jobq.health() and try again.")));
	(void) jobq_wait_a_moment(DT_NOEND);
}

/* ---- a job without a slot ---- */

typedef enum FoundWhere
{
	FOUND_NO_JOB,
	FOUND_FINAL,
	FOUND_SHELVED,				/* taken off the shelf: row */
	FOUND_SPILLED,				/* a ticket memory has no room for: held */
	FOUND_MOVING				/* between two places: look again from the
								 * start */
} FoundWhere;

typedef struct Found
{
	JobqRow		row;
	JobqHeld	held;
} Found;

static FoundWhere
look_elsewhere(const JobqSession *session, int64 id, bool many, int attempt,
			   Found *found)
{
	JobqWhere	where;

	JOBQ_PAUSE("before-shelf-take");
	if (jobq_shelf_take(id, false, &found->row))
		return FOUND_SHELVED;
	switch (jobq_where_is(session, id, &where))
	{
		case WHERE_NOWHERE:
			return FOUND_NO_JOB;
		case WHERE_FINAL:
			return FOUND_FINAL;
		case WHERE_SPILLED:
			if (jobq_hold_spilled(session, &where.t, many, &found->held))
				return FOUND_SPILLED;
			pause_briefly(attempt);
			break;
		case WHERE_ELSEWHERE:
			pause_briefly(attempt);
			break;
	}
	return FOUND_MOVING;
}

/* ---- cancel ---- */

static void
count_cancelled(const JobqSession *session, int32 queue_id)
{
	jobq_xact_count(session, queue_id, COUNT_CANCELLED, 1);
}

static void
cancel_held(const JobqSession *session, JobqHeld *held, const char *reason,
			int64 grace)
{
	TimestampTz now = jobq_now();
	JobqEnding	ending = {.ended = ENDED_CANCELLED,.reason = reason};
	JobqBelts	belts = {0};

	if (held->state == SLOT_RUNNING)
		ending.attempt_outcome = ATTEMPT_CANCELLED;
	else if (held->state == SLOT_ROLLED_BACK)
	{
		ending.attempt_outcome = ATTEMPT_ROLLED_BACK;
		jobq_xact_count_attempt(session, held, COUNT_FAILED, false);
	}
	if (grace > 0 && held->state == SLOT_RUNNING)
		ending.held_until = now + grace;
	jobq_write_outcomes(session, &belts, held, 1, &ending, now);
	jobq_belts_close(&belts);
	jobq_end_held(session, held);
	if (held->own < 0 && ending.held_until != 0)
		jobq_xact_at_commit(&held->ref, AT_COMMIT_HOLD, ending.held_until);
	count_cancelled(session, held->t.queue_id);
}

void
jobq_cancel_held(const JobqSession *session, JobqHeld *held,
				 const char *reason)
{
	cancel_held(session, held, reason, 0);
}

/* Final states live on the belt: give the job a ticket and end it. */
static void
cancel_shelved(const JobqSession *session, JobqRow *row, const char *reason)
{
	JobqQueue	queue;
	JobqBelts	belts = {0};
	JobqEnding	ending = {.ended = ENDED_CANCELLED,.reason = reason};
	JobqHeld	held = {.own = -1};
	ItemPointerData tid;
	int32		queue_id = DatumGetInt32(row->values[JOB_QUEUE_ID]);
	int32		epoch;

	jobq_xact_count(session, queue_id, jobq_shelf_counter(row), -1);
	jobq_left_shelf(session, row);
	if (!jobq_queue_by_id(queue_id, &queue))
		return;
	epoch = jobq_belts_current(session, &belts, queue.class_id);
	jobq_give_ticket(session, row);
	jobq_belt_insert_jobs(belts.rel[BELT_JOB], row, 1, &tid);
	jobq_count_tickets(session->db, queue.class_id, 1);
	jobq_ticket_of_row(row, epoch, &tid, &held.t);
	jobq_write_outcomes(session, &belts, &held, 1, &ending, jobq_now());
	jobq_belts_close(&belts);
	count_cancelled(session, queue_id);
}

JobqSteered
jobq_cancel(const JobqSession *session, int64 id, const char *reason,
			int64 grace)
{
	Found		found = {0};

	if (reason != NULL)
		reason = jobq_redact(reason);
	jobq_xact_steered(session);
	for (int attempt = 0;; attempt++)
	{
		JobqHeld	held;

		switch (jobq_hold_any(session, id, false, &held))
		{
			case HOLD_OK:
				if (grace == JOBQ_ONLY_WAITING && held.state == SLOT_RUNNING)
				{
					jobq_let_go(session, &held);
					return JOBQ_STEER_RUNNING;
				}
				cancel_held(session, &held, reason, grace);
				return JOBQ_STEER_DONE;
			case HOLD_GRACE:
				return JOBQ_STEER_FINAL;
			case HOLD_MINE:		/* it may go on elsewhere */
			case HOLD_BUSY:
			case HOLD_NO_SLOT:
				break;
		}
		switch (look_elsewhere(session, id, grace == JOBQ_ONLY_WAITING, attempt,
							   &found))
		{
			case FOUND_NO_JOB:
				return JOBQ_STEER_NO_JOB;
			case FOUND_FINAL:
				return JOBQ_STEER_FINAL;
			case FOUND_SHELVED:
				cancel_shelved(session, &found.row, reason);
				return JOBQ_STEER_DONE;
			case FOUND_SPILLED:
				cancel_held(session, &found.held, reason, 0);
				return JOBQ_STEER_DONE;
			case FOUND_MOVING:
				break;
		}
	}
}

/* ---- reschedule ---- */

static void
reschedule_shelved(const JobqSession *session, JobqRow *row,
				   TimestampTz run_at, bool set_priority, int16 priority)
{
	char		state = DatumGetChar(row->values[SHELF_STATE]);
	int32		queue_id = DatumGetInt32(row->values[JOB_QUEUE_ID]);
	JobqQueue	queue;

	row->values[JOB_RUN_AT] = TimestampTzGetDatum(run_at);
	if (set_priority)
		row->values[JOB_PRIORITY] = Int16GetDatum(priority);
	jobq_xact_count(session, queue_id, jobq_shelf_counter(row), -1);
	if (run_at > jobq_now() || !jobq_queue_by_id(queue_id, &queue))
	{
		jobq_place_on_shelf(session, row, state);
		return;
	}
	jobq_left_shelf(session, row);
	jobq_give_ticket(session, row);
	jobq_place_on_belt(session, &queue, row, 1);
}

static JobqSteered
reschedule_held(const JobqSession *session, JobqHeld *held,
				TimestampTz run_at, bool set_priority, int16 priority)
{
	JobqMove	move = {.run_at = run_at,.set_priority = set_priority,
	.priority = priority,.reason = "rescheduled"};
	JobqQueue	queue;

	if (!jobq_queue_by_id(held->t.queue_id, &queue))
		return JOBQ_STEER_NO_JOB;
	(void) jobq_move(session, held, &queue, &move);
	return JOBQ_STEER_DONE;
}

/*
 * Look first: a running job is not to be marked for nothing. True: it runs, or
 * *later, the keeper is about to move it.
 */
static bool
is_not_waiting(const JobqSession *session, int64 id, bool *later)
{
	int			own = jobq_own_find(id);
	JobqSlot	slot;

	*later = false;
	if (own >= 0)
		return jobq_own(own)->state == OWN_RUNNING;
	if (!jobq_find(session->db, session->gen, id, &slot))
		return false;
	*later = slot.state == SLOT_ROLLED_BACK;
	return *later ||
		((slot.state == SLOT_RUNNING || slot.state == SLOT_GRACE) &&
		 !TransactionIdIsCurrentTransactionId(slot.mark));
}

JobqWaitingJob
jobq_take_waiting(const JobqSession *session, int64 id, JobqHeld *held,
				  JobqRow *row)
{
	Found		found = {0};

	jobq_xact_steered(session);
	for (int attempt = 0;; attempt++)
	{
		bool		later;

		if (is_not_waiting(session, id, &later))
		{
			if (!later)
				return WAITING_NOT_RUNS;
			jobq_wake_keeper(session->db);
			pause_briefly(attempt);
			continue;
		}
		switch (jobq_hold_any(session, id, false, held))
		{
			case HOLD_OK:
				if (held->state == SLOT_READY)
					return WAITING_HELD;
				jobq_let_go(session, held);
				pause_briefly(attempt);
				continue;
			case HOLD_GRACE:
				return WAITING_NOT_FINAL;
			case HOLD_MINE:		/* it may go on elsewhere */
			case HOLD_BUSY:
			case HOLD_NO_SLOT:
				break;
		}
		switch (look_elsewhere(session, id, false, attempt, &found))
		{
			case FOUND_NO_JOB:
				return WAITING_NO_JOB;
			case FOUND_FINAL:
				return WAITING_NOT_FINAL;
			case FOUND_SHELVED:
				*row = found.row;
				return WAITING_SHELVED;
			case FOUND_SPILLED:
				*held = found.held;
				return WAITING_HELD;
			case FOUND_MOVING:
				break;
		}
	}
}

JobqSteered
jobq_reschedule(const JobqSession *session, int64 id, TimestampTz run_at,
				bool set_priority, int16 priority)
{
	JobqHeld	held;
	JobqRow		row;

	switch (jobq_take_waiting(session, id, &held, &row))
	{
		case WAITING_HELD:
			return reschedule_held(session, &held, run_at, set_priority,
								   priority);
		case WAITING_SHELVED:
			reschedule_shelved(session, &row, run_at, set_priority, priority);
			return JOBQ_STEER_DONE;
		case WAITING_NOT_RUNS:
			return JOBQ_STEER_RUNNING;
		case WAITING_NOT_FINAL:
			return JOBQ_STEER_FINAL;
		case WAITING_NO_JOB:
			break;
	}
	return JOBQ_STEER_NO_JOB;
}

/* ---- purge ---- */

static int64
cancel_ids(const JobqSession *session, const int64 *ids, int n, int64 grace)
{
	int64		count = 0;

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (jobq_cancel(session, ids[i], "purged", grace) == JOBQ_STEER_DONE)
			count++;
	}
	return count;
}

/* Does it wait on the belt, and does its group keep it from running? */
static bool
waits_on_belt(const JobqSession *session, int64 id, bool *blocked)
{
	JobqSlot	slot;
	JobqWhere	where;
	const JobqTicket *t = &slot.t;

	if (jobq_find(session->db, session->gen, id, &slot))
	{
		if (slot.state != SLOT_READY)
			return false;
	}
	else if (jobq_newest(id, &where) && !where.on_shelf && !where.has_outcome)
		t = &where.t;
	else
		return false;
	*blocked = jobq_has_group(&t->group) &&
		jobq_group_blocks(session->db, session->gen, t->queue_id, &t->group,
						  t->started);
	return true;
}

/* Of those that wait on the belt, only the blocked ones, or only the others. */
static void
choose_blocked(const JobqSession *session, bool wanted, JobqIdList *list)
{
	int			n = 0;

	for (int i = 0; i < list->n; i++)
	{
		bool		blocked;

		CHECK_FOR_INTERRUPTS();
		if (!waits_on_belt(session, list->ids[i], &blocked) ||
			blocked == wanted)
			list->ids[n++] = list->ids[i];
	}
	list->n = n;
}

int64
jobq_purge(const JobqSession *session, const JobqQueue *queue, int states)
{
	JobqIdList	list = {0};
	int			waiting = states & (JOBQ_PURGE_AVAILABLE | JOBQ_PURGE_BLOCKED);
	int64		count;

	jobq_xact_steered(session);
	if (states & JOBQ_PURGE_SCHEDULED)
		jobq_list_shelved(queue->queue_id, SHELF_SCHEDULED, &list);
	if (states & JOBQ_PURGE_RETRYABLE)
		jobq_list_shelved(queue->queue_id, SHELF_RETRYABLE, &list);
	jobq_list_belt(session, queue->queue_id,
				   waiting != 0, (states & JOBQ_PURGE_RUNNING) != 0,
				   (states & JOBQ_PURGE_RETRYABLE) != 0, &list);
	if (waiting == JOBQ_PURGE_AVAILABLE || waiting == JOBQ_PURGE_BLOCKED)
		choose_blocked(session, waiting == JOBQ_PURGE_BLOCKED, &list);
	count = cancel_ids(session, list.ids, list.n,
					   (states & JOBQ_PURGE_RUNNING) ? 0 : JOBQ_ONLY_WAITING);
	return count;
}

int64
jobq_count_live(const JobqSession *session, int32 queue_id)
{
	JobqIdList	list = {0};

	jobq_list_shelved(queue_id, SHELF_SCHEDULED, &list);
	jobq_list_shelved(queue_id, SHELF_RETRYABLE, &list);
	jobq_list_belt(session, queue_id, true, true, true, &list);
	return list.n;
}
