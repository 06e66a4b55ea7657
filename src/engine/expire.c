/*
 * expire.c: jobs that have not started by their expires_at end: the available
 * ones when the keeper comes by, those on the shelf when it takes them off. A
 * running job is never touched. Never waits for a mark.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "engine/claimrow.h"
#include "engine/deadletter.h"
#include "engine/hold.h"
#include "engine/keeperxact.h"
#include "engine/place.h"
#include "engine/xact.h"
#include "pause.h"

#define BUSY_RETRY		INT64CONST(100000)	/* us; somebody has what we need */
#define TURN			INT64CONST(50000)	/* us, then others have theirs */

static bool batch_failed = false;	/* the last batch did not end */

static void
end_expired(const JobqSession *session, const JobqHeld *held, int64 copy)
{
	JobqEnding	ending = {.ended = ENDED_EXPIRED,.reason = "expired",
	.moved_to = copy};
	JobqBelts	belts = {0};

	jobq_write_outcomes(session, &belts, held, 1, &ending, jobq_now());
	jobq_belts_close(&belts);
	jobq_xact_count(session, held->t.queue_id, COUNT_EXPIRED, 1);
}

/* A copy for the dead letters where the queue wants one; its id, else 0. */
static int64
copy_expired(const JobqSession *session, const JobqQueue *queue,
			 const JobqRow *row)
{
	JobqMove	move = {.reason = "expired"};

	return jobq_dead_letter(session, queue, row, &move, jobq_now());
}

void
jobq_expire_held(const JobqSession *session, JobqHeld *held,
				 const JobqQueue *queue)
{
	JobqRow		row;
	int64		copy = 0;

	if (queue->expired_to == JOBQ_EXPIRED_DEAD_LETTER)
	{
		jobq_read_held(held, &row);
		copy = copy_expired(session, queue, &row);
	}
	end_expired(session, held, copy);
	jobq_end_held(session, held);
}

/* Final states live on the belt: it gets a ticket and ends at once. */
void
jobq_expire_shelved(const JobqSession *session, JobqRow *row,
					const JobqQueue *queue)
{
	JobqBelts	belts = {0};
	JobqHeld	held = {.own = -1};
	ItemPointerData tid;
	int64		copy = 0;
	int32		epoch;

	if (queue->expired_to == JOBQ_EXPIRED_DEAD_LETTER)
		copy = copy_expired(session, queue, row);
	epoch = jobq_belts_current(session, &belts, queue->class_id);
	jobq_left_shelf(session, row);
	jobq_give_ticket(session, row);
	jobq_belt_insert_jobs(belts.rel[BELT_JOB], row, 1, &tid);
	jobq_count_tickets(session->db, queue->class_id, 1);
	jobq_belts_close(&belts);
	jobq_ticket_of_row(row, epoch, &tid, &held.t);
	end_expired(session, &held, copy);
}

/* One that is to be ended; it may have been taken or moved since we saw it. */
typedef struct Expiry
{
	const JobqSession *session;
	TimestampTz now;
	const JobqSlot *slot;
} Expiry;

static void
expire_slot(void *state)
{
	const Expiry *expiry = state;
	const JobqSession *session = expiry->session;
	JobqHeld	held;
	JobqQueue	queue;

	if (jobq_hold_any(session, expiry->slot->t.id, true, &held) != HOLD_OK)
		return;
	if (held.state != SLOT_READY || held.t.expires_at > expiry->now ||
		!jobq_queue_by_id(held.t.queue_id, &queue))
	{
		jobq_let_go(session, &held);
		return;
	}
	jobq_expire_held(session, &held, &queue);
}

/*
 * One transaction. After one has failed each job has a subtransaction, and
 * those that fail are left alone for a moment, so that they stop no others.
 */
static void
expire_batch(const JobqSession *session, TimestampTz now,
			 const JobqSlot *slots, int n)
{
	bool		careful = batch_failed ||
		jobq_left_alone_until() != JOBQ_NEVER;

	batch_failed = true;
	for (int i = 0; i < n; i++)
	{
		Expiry		expiry = {session, now, &slots[i]};

		if (!careful)
			expire_slot(&expiry);
		else if (!jobq_is_left_alone(slots[i].t.id) &&
				 !jobq_keeper_try(expire_slot, &expiry))
			jobq_leave_alone(slots[i].t.id);
	}
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	batch_failed = false;
}

/* Each is looked at once; what is still there then has its turn later. */
TimestampTz
jobq_tend_expiry(const JobqSession *session, JobqPart *part, TimestampTz now)
{
	JobqSlot	slots[JOBQ_CHUNK];
	JobqSlot	last;
	const JobqSlot *after = NULL;
	TimestampTz begun = jobq_now();
	TimestampTz next;
	int			n;

	while ((n = jobq_due_expiry(part, session->gen, now, after, JOBQ_CHUNK,
								slots, &next)) > 0)
	{
		if (!jobq_keeper_begin(session->db->install))
			return now + BUSY_RETRY;
		expire_batch(session, now, slots, n);
		CHECK_FOR_INTERRUPTS();
		if (jobq_now() - begun > TURN)
			return now;
		last = slots[n - 1];
		after = &last;
	}
	if (after != NULL && jobq_due_expiry(part, session->gen, now, NULL, 1,
										 slots, &next) > 0)
		next = jobq_is_left_alone(slots[0].t.id) ?
			jobq_left_alone_until() : now + BUSY_RETRY;
	return next;
}
