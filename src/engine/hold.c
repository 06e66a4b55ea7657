/*
 * hold.c: taking a job into our hands: own uncommitted ones, marked slots,
 * waiting for whoever has it, and why a lease is lost. Writes nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "compat.h"
#include "engine/belts.h"
#include "engine/hold.h"
#include "engine/own.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "errors.h"
#include "security/audit.h"
#include "security/security.h"

#define SPILLED_WAIT_MS		2000
#define SPILLED_SLOTS		64		/* of a transaction, for jobs that are on
									 * disk only */

static void
hold_own(int own, JobqHeld *held)
{
	JobqOwnJob *job = jobq_own(own);

	memset(held, 0, sizeof(*held));
	held->own = own;
	held->state = job->state == OWN_RUNNING ? SLOT_RUNNING : SLOT_READY;
	held->claim_is_ours = true;
	held->t = job->t;
	held->l = job->l;
}

static void
hold_slot(const JobqSlot *slot, const JobqSlotRef *ref, TransactionId xid,
		  JobqHeld *held)
{
	memset(held, 0, sizeof(*held));
	held->own = -1;
	held->ref = *ref;
	held->xid = xid;
	held->state = slot->state;
	held->flags = slot->flags;
	held->claim_is_ours = (slot->flags & SLOT_CLAIM_OPEN) &&
		slot->claim_proc == jobq_my_procno();
	held->t = slot->t;
	if (slot->state == SLOT_RUNNING || slot->state == SLOT_ROLLED_BACK)
		held->l = slot->l;
}

/*
 * A slot that this transaction has marked: ours again if it was only
 * extended, else it is ending.
 */
static bool
retake(const JobqSlot *slot, const JobqSlotRef *ref, JobqHeld *held)
{
	if (jobq_xact_ends(ref))
		return false;
	hold_slot(slot, ref, slot->mark, held);
	jobq_xact_see_extended(ref, &held->l);
	jobq_xact_at_commit(ref, AT_COMMIT_END, 0);
	held->retaken = true;
	return true;
}

static void
refuse_settle(const JobqQueue *queue, int64 id)
{
	jobq_audit_refusal(NULL, queue->queue_id, id,
					   ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "lacks the privilege dequeue");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for queue \"%s\"", queue->name),
			 errdetail("Settling a job needs the privilege \"dequeue\"."),
			 errhint("Ask the owner of the queue to call jobq.grant_queue().")));
}

static bool
settles(const JobqSession *session, int32 queue_id, int64 id, int64 lease,
		JobqQueue *queue)
{
	Oid			enqueued_by;

	if (!jobq_queue_by_id(queue_id, queue) || queue->my_privileges == 0)
		return false;
	if (queue->my_privileges & JOBQ_PRIV_DEQUEUE)
		return queue->isolation != JOBQ_ISOLATION_OWNER ||
			jobq_may_settle(session, queue, id, lease);
	if (jobq_job_owner(session, id, &queue_id, &enqueued_by) &&
		jobq_may_see_job(session, queue, id, enqueued_by))
		refuse_settle(queue, id);
	return false;
}

/*
 * May the caller settle this job of this queue under this lease? False: for
 * the caller there is no such job, and nothing is known of the queue. 42501 if
 * it may see the job.
 */
static bool
may_settle(const JobqSession *session, int32 queue_id, int64 id, int64 lease,
		   JobqQueue *queue)
{
	if (settles(session, queue_id, id, lease, queue))
		return true;
	jobq_audit_refusal(NULL, queue_id, id, ERRCODE_JOBQ_NO_JOB,
					   "may not see the job");
	queue->queue_id = 0;
	return false;
}

static bool
has_ended(const JobqTicket *t)
{
	JobqBelts	belts = {0};
	bool		ended = jobq_has_ended(&belts, t);

	jobq_belts_close(&belts);
	return ended;
}

/*
 * We have marked a slot that may be of a ticket that had ended before it got
 * there: then it goes, and the job is to be looked for elsewhere.
 */
static bool
drop_if_ended(const JobqSession *session, const JobqHeld *held)
{
	if (!(held->flags & SLOT_VERIFY) || !has_ended(&held->t))
		return false;
	jobq_xact_at_commit(&held->ref, AT_COMMIT_NOTHING, 0);
	jobq_drop_marked(session->db, &held->ref);
	return true;
}

void
jobq_await_holder(TransactionId busy)
{
	if (!TransactionIdIsInProgress(busy) && jobq_xact_lock_is_free(busy))
		(void) jobq_wait_a_moment(DT_NOEND);
	else
		XactLockTableWait(busy, NULL, NULL, XLTW_None);
	CHECK_FOR_INTERRUPTS();
}

JobqHoldResult
jobq_hold_any(const JobqSession *session, int64 id, bool nowait,
			  JobqHeld *held)
{
	int			own = jobq_own_find(id);

	if (own >= 0)
	{
		hold_own(own, held);
		return HOLD_OK;
	}
	for (;;)
	{
		TransactionId xid = GetCurrentTransactionId();
		TransactionId busy = InvalidTransactionId;
		JobqSlot	slot;
		JobqSlotRef ref;

		jobq_xact_reserve(1);
		switch (jobq_mark(session->db, session->gen, id, 0, 0, xid, &slot,
						  &ref, &busy))
		{
			case MARK_OK:
				jobq_xact_marked(session, &ref, xid, &slot);
				hold_slot(&slot, &ref, xid, held);
				if (drop_if_ended(session, held))
					continue;
				return HOLD_OK;
			case MARK_NO_SLOT:
			case MARK_OTHER_QUEUE:
				return HOLD_NO_SLOT;
			case MARK_GRACE:
			case MARK_NOT_YOURS:
				return HOLD_GRACE;
			case MARK_BUSY:
				break;
		}
		if (TransactionIdIsCurrentTransactionId(busy))
			return retake(&slot, &ref, held) ? HOLD_OK : HOLD_MINE;
		if (nowait)
			return HOLD_BUSY;
		jobq_await_holder(busy);
	}
}

/* ---- tickets that are on disk only ---- */

/* One of ours beyond those that the transaction remembers one by one. */
static bool
is_own_on_disk(const JobqTicket *t)
{
	JobqBelts	belts = {0};
	Relation	job;
	bool		own;

	if (!jobq_xact_spilled(t->queue_id))
		return false;
	job = jobq_belts_read(&belts, t->epoch, BELT_JOB);
	own = job != NULL && jobq_belt_is_own(job, t->id, t->ticket);
	jobq_belts_close(&belts);
	return own;
}

/* It is not in memory and not available any more once we have ended it. */
static void
hold_on_disk(const JobqSession *session, const JobqTicket *t, JobqHeld *held)
{
	*held = (JobqHeld) {.own = -1,.ref = {.slot = JOBQ_NIL},
		.state = SLOT_READY,.t = *t};
	jobq_xact_count(session, t->queue_id, COUNT_AVAILABLE, -1);
}

/*
 * Give it a slot of its own, marked: whoever would load or publish it finds
 * it there. Only then look whether it has ended before.
 */
static bool
hold_in_slot(const JobqSession *session, const JobqTicket *t, JobqHeld *held)
{
	TransactionId xid = GetCurrentTransactionId();
	TransactionId busy;
	JobqSlotRef ref;

	jobq_xact_reserve(1);
	if (!jobq_enter_marked(session->db, session->gen, t, xid,
						   GetTopTransactionId(), &ref, &busy))
	{
		if (TransactionIdIsValid(busy) && !jobq_in_keeper)
			jobq_await_holder(busy);
		return false;
	}
	jobq_xact_marked(session, &ref, xid, NULL);
	*held = (JobqHeld) {.own = -1,.ref = ref,.xid = xid,
		.state = SLOT_READY,.flags = SLOT_VERIFY,.t = *t};
	return !drop_if_ended(session, held);
}

/* Until we end, nothing of the queue is loaded. */
static void
hold_queue(const JobqSession *session, int32 queue_id)
{
	TimestampTz deadline;
	TransactionId busy;

	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   JOBQ_SETTLE_WAIT_MS);
	jobq_xact_holds(session);
	while (!jobq_hold_refill(session->db, session->gen, queue_id,
							 GetTopTransactionId(), &busy))
	{
		CHECK_FOR_INTERRUPTS();
		if (TransactionIdIsValid(busy))
			XactLockTableWait(busy, NULL, NULL, XLTW_None);
		else if (!jobq_wait_a_moment(deadline))
			jobq_raise_not_ready();
	}
}

static bool
hold_behind(const JobqSession *session, const JobqTicket *t, JobqHeld *held)
{
	hold_queue(session, t->queue_id);
	if (!jobq_is_behind(session->db, session->gen, t) ||
		jobq_is_entered(session->db, session->gen, t->id) || has_ended(t))
		return false;
	hold_on_disk(session, t, held);
	return true;
}

bool
jobq_hold_spilled(const JobqSession *session, const JobqTicket *t, bool many,
				  JobqHeld *held)
{
	static TransactionId counted;	/* transaction that slots are counted of */
	static int	slots;

	if (is_own_on_disk(t))
	{
		hold_on_disk(session, t, held);
		return true;
	}
	if (counted != GetTopTransactionId())
	{
		counted = GetTopTransactionId();
		slots = 0;
	}
	if (many || slots >= SPILLED_SLOTS)
		return hold_behind(session, t, held);
	if (hold_in_slot(session, t, held))
	{
		slots++;
		return true;
	}
	/* not for lack of room; the keeper tries another time */
	return jobq_free_slots() == 0 && !jobq_in_keeper &&
		hold_behind(session, t, held);
}

void
jobq_let_go(const JobqSession *session, JobqHeld *held)
{
	if (held->own >= 0)
		return;
	if (held->retaken)
	{
		jobq_xact_revert(&held->ref);
		return;
	}
	jobq_xact_at_commit(&held->ref, AT_COMMIT_NOTHING, 0);
	jobq_unmark(session->db, &held->ref, held->xid);
}

void
jobq_give_up_grace(const JobqSession *session, int64 id, int64 lease)
{
	JobqSlot	slot;

	if (jobq_find(session->db, session->gen, id, &slot) &&
		slot.state == SLOT_GRACE && slot.l.lease == lease)
	{
		JobqSlotRef ref;

		jobq_ref_of(&slot, &ref);
		jobq_end(session->db, &ref);
	}
}

static char
attempt_outcome(const JobqOutcomeRow *ended)
{
	return ended->nulls[OUT_ATTEMPT_OUTCOME] ? '\0' :
		DatumGetChar(ended->values[OUT_ATTEMPT_OUTCOME]);
}

/* Did the holder of this lease end it? Also where the job was superseded. */
static bool
was_settled(const JobqOutcomeRow *ended, int64 lease)
{
	char		how = attempt_outcome(ended);

	return !ended->nulls[OUT_LEASE] &&
		DatumGetInt64(ended->values[OUT_LEASE]) == lease &&
		(how == ATTEMPT_COMPLETED || how == ATTEMPT_FAILED ||
		 how == ATTEMPT_RELEASED);
}

static bool
was_cancelled(const JobqOutcomeRow *ended, int64 lease)
{
	if (ended->nulls[OUT_LEASE])
		return DatumGetChar(ended->values[OUT_ENDED]) == ENDED_CANCELLED;
	return DatumGetInt64(ended->values[OUT_LEASE]) == lease &&
		(DatumGetChar(ended->values[OUT_ENDED]) == ENDED_CANCELLED ||
		 attempt_outcome(ended) == ATTEMPT_CANCELLED);
}

/* What the tables say about a lease that is not the job's present one. */
static JobqLost
cause_on_disk(const JobqSession *session, int64 id, int64 lease,
			  JobqQueue *queue)
{
	int32	   *epochs;
	int			nepochs = jobq_epoch_list(&epochs);
	JobqBelts	belts = {0};
	JobqLost	lost = JOBQ_LOST_NO_JOB;
	JobqRow		shelved;

	for (int e = 0; e < nepochs; e++)
	{
		Relation	job = jobq_belts_read(&belts, epochs[e], BELT_JOB);
		Relation	outcome = jobq_belts_read(&belts, epochs[e], BELT_OUTCOME);
		JobqRow    *rows;
		int			n = job != NULL ? jobq_belt_read_id(job, id, &rows) : 0;

		for (int i = 0; i < n; i++)
		{
			JobqOutcomeRow ended;

			if (lost == JOBQ_LOST_NO_JOB)
			{
				if (!may_settle(session,
								DatumGetInt32(rows[i].values[JOB_QUEUE_ID]),
								id, lease, queue))
					break;
				lost = JOBQ_LOST_LEASE;
			}
			if (outcome == NULL ||
				!jobq_belt_read_outcome(outcome,
										DatumGetInt64(rows[i].values[JOB_TICKET]),
										&ended))
				continue;
			/* settled under this very lease says more than what came later */
			if (lost == JOBQ_LOST_SETTLED)
				continue;
			if (was_settled(&ended, lease))
				lost = JOBQ_LOST_SETTLED;
			else if (was_cancelled(&ended, lease))
				lost = JOBQ_LOST_CANCELLED;
		}
	}
	jobq_belts_close(&belts);
	if (lost == JOBQ_LOST_NO_JOB && jobq_shelf_read(id, &shelved) &&
		may_settle(session, DatumGetInt32(shelved.values[JOB_QUEUE_ID]), id,
				   lease, queue))
		lost = JOBQ_LOST_LEASE;
	return lost;
}

/*
 * The job may be running under this lease without a slot, for lack of one.
 * Running ones come first when the keeper loads.
 */
static void
await_slot(const JobqSession *session, TimestampTz *deadline)
{
	if (*deadline == 0)
		*deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												SPILLED_WAIT_MS);
	jobq_wake_keeper(session->db);
	if (!jobq_wait_a_moment(*deadline))
		jobq_raise_not_ready();
}

JobqLost
jobq_hold_leased(const JobqSession *session, int64 id, int64 lease,
				 JobqHeld *held, JobqQueue *queue)
{
	int			own = jobq_own_find(id);
	TimestampTz deadline = 0;
	JobqLost	lost;

	/* there each job is to be looked at */
	if (queue->queue_id != 0 && queue->isolation == JOBQ_ISOLATION_OWNER)
		queue->queue_id = 0;
	if (own >= 0)
	{
		if (!may_settle(session, jobq_own(own)->t.queue_id, id, lease, queue))
			return JOBQ_LOST_NO_JOB;
		if (jobq_own(own)->state != OWN_RUNNING ||
			jobq_own(own)->l.lease != lease)
			return cause_on_disk(session, id, lease, queue);
		hold_own(own, held);
		return JOBQ_HELD;
	}
	/* no lease is smaller; 0 would stand for steering below */
	if (lease <= 0)
		return cause_on_disk(session, id, lease, queue);
	for (;;)
	{
		TransactionId xid;
		TransactionId busy = InvalidTransactionId;
		JobqSlot	slot;
		JobqSlotRef ref;
		JobqMarkResult result;

		xid = GetCurrentTransactionId();
		jobq_xact_reserve(1);
		result = jobq_mark(session->db, session->gen, id, queue->queue_id,
						   lease, xid, &slot, &ref, &busy);
		if (result == MARK_NO_SLOT)
		{
			lost = cause_on_disk(session, id, lease, queue);
			if (lost != JOBQ_LOST_LEASE || !jobq_lacks_leases(session->db))
				return lost;
			await_slot(session, &deadline);
			continue;
		}
		/* before the job is touched */
		if (result == MARK_OTHER_QUEUE)
		{
			if (!may_settle(session, slot.t.queue_id, id, lease, queue))
				return JOBQ_LOST_NO_JOB;
			continue;
		}
		if (result == MARK_OK)
		{
			jobq_xact_marked(session, &ref, xid, &slot);
			jobq_xact_settles();
			hold_slot(&slot, &ref, xid, held);
			if (drop_if_ended(session, held))
				continue;
			return JOBQ_HELD;
		}
		if (result == MARK_GRACE)
		{
			jobq_give_up_grace(session, id, lease);
			return JOBQ_LOST_CANCELLED;
		}
		if (result == MARK_NOT_YOURS)
			return cause_on_disk(session, id, lease, queue);
		if (TransactionIdIsCurrentTransactionId(busy))
		{
			if (slot.l.lease != lease)
				return cause_on_disk(session, id, lease, queue);
			return retake(&slot, &ref, held) ? JOBQ_HELD :
				cause_on_disk(session, id, lease, queue);
		}
		jobq_await_holder(busy);
	}
}

void
jobq_end_held(const JobqSession *session, JobqHeld *held)
{
	if (held->own >= 0)
		jobq_own_end(held->own);
}

void
jobq_raise_lost(JobqLost lost, int64 id, int64 lease)
{
	switch (lost)
	{
		case JOBQ_LOST_CANCELLED:
			ereport(ERROR,
					(errcode(ERRCODE_JOBQ_CANCELLED),
					 errmsg("job " INT64_FORMAT " was cancelled", id),
					 errdetail("Lease " INT64_FORMAT " is void.", lease),
					 errhint("Stop working on the job; nothing needs to be settled.")));
			break;
		case JOBQ_LOST_SETTLED:
			ereport(ERROR,
					(errcode(ERRCODE_JOBQ_SETTLED),
					 errmsg("job " INT64_FORMAT " has already been settled under this lease",
							id),
					 errdetail("Lease " INT64_FORMAT " has been completed, failed or released before.",
							   lease),
					 errhint("A repeated call after a lost answer can ignore this error.")));
			break;
		case JOBQ_LOST_NO_JOB:
			ereport(ERROR,
					(errcode(ERRCODE_JOBQ_NO_JOB),
					 errmsg("job " INT64_FORMAT " does not exist", id),
					 errdetail("There is no such job, or it is none of yours, or its retention has passed."),
					 errhint("Look at the view jobq.jobs for the jobs you may see.")));
			break;
		case JOBQ_LOST_LEASE:
		case JOBQ_HELD:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_LEASE_LOST),
			 errmsg("lease of job " INT64_FORMAT " is lost", id),
			 errdetail("Lease " INT64_FORMAT " has expired or the job was delivered again.",
					   lease),
			 errhint("Throw this run's effects away; ask for a longer lease_for or call jobq.extend() in time.")));
	pg_unreachable();
}
