/*
 * mark.c: a transaction marks the slot of a ticket that it is ending, so that
 * nobody else does, and what becomes of it at the transaction's end.
 *
 * Runs in commit and abort callbacks: must not allocate or raise an error.
 * Waiting for a mark is the caller's business.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "storage/procarray.h"

#include "compat.h"
#include "dispatch/internal.h"
#include "dispatch/meter.h"

/* What a caller with this lease (0 = steering) may do, marks aside. */
static JobqMarkResult
may_mark(const JobqSlot *slot, int32 queue_id, int64 lease)
{
	if (lease != 0 && slot->t.queue_id != queue_id)
		return MARK_OTHER_QUEUE;
	switch ((JobqSlotState) slot->state)
	{
		case SLOT_RUNNING:
			return lease == 0 || slot->l.lease == lease ?
				MARK_OK : MARK_NOT_YOURS;
		case SLOT_READY:
		case SLOT_ROLLED_BACK:
			return lease == 0 ? MARK_OK : MARK_NOT_YOURS;
		case SLOT_GRACE:
			return lease != 0 && slot->l.lease == lease ?
				MARK_GRACE : MARK_NOT_YOURS;
		case SLOT_FREE:
		case SLOT_LINKING:
		case SLOT_SHELVED:
			break;
	}
	return MARK_NO_SLOT;
}

static void
set_mark(JobqSlot *slot, TransactionId xid)
{
	JobqPart   *part = jobq_slot_part(slot);

	slot->mark = xid;
	if (part->groups.on)
		jobq_group_sync(part, slot);
}

JobqMarkResult
jobq_mark(JobqDb *db, uint32 gen, int64 id, int32 queue_id, int64 lease,
		  TransactionId xid, JobqSlot *copy, JobqSlotRef *ref,
		  TransactionId *busy)
{
	JobqSlot   *slot = jobq_slot_lock(db, gen, id);
	JobqMarkResult result;

	if (slot == NULL)
		return MARK_NO_SLOT;
	result = may_mark(slot, queue_id, lease);
	if (result == MARK_OK && TransactionIdIsValid(slot->mark))
	{
		*busy = slot->mark;
		result = MARK_BUSY;
	}
	if (result == MARK_OK)
	{
		jobq_slot_unlink(slot);
		set_mark(slot, xid);
	}
	*copy = *slot;
	jobq_slot_fill_ref(slot, ref);
	jobq_slot_unlock(slot);
	return result;
}

void
jobq_unmark(JobqDb *db, const JobqSlotRef *ref, TransactionId xid)
{
	JobqSlot   *slot = jobq_slot_lock_marked(db, ref, xid);
	JobqPart   *part;
	TimestampTz due;
	bool		wanted;
	bool		ready;

	if (slot == NULL)
		return;
	part = jobq_slot_part(slot);
	slot->mark = InvalidTransactionId;
	jobq_slot_link(slot);
	ready = slot->state == SLOT_READY;
	due = ready ? slot->t.expires_at : slot->l.expires_at;
	wanted = slot->flags & SLOT_START_WANTED;
	jobq_slot_unlock(slot);
	if (ready)
		jobq_wake_waiters(part, ref->gen, 1);
	if (wanted)
		jobq_wake_keeper(db);
	else
		jobq_wake_keeper_by(db, due);
}

/* The slot was entered: mark it, if the part is still there. */
static bool
mark_entered(JobqPart *part, uint32 gen, const JobqTicket *t,
			 TransactionId xid, JobqSlot *slot)
{
	bool		open;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	open = jobq_part_is(part, gen, t->queue_id);
	if (open)
	{
		slot->flags |= SLOT_VERIFY;
		jobq_slot_set_state(slot, SLOT_READY);
		set_mark(slot, xid);
	}
	LWLockRelease(part->lock);
	return open;
}

/*
 * In nobody's sight until it is marked; first of all its publisher, if it is
 * still to come, gets to know that it may be late. It may be running, though,
 * while somebody is about to publish such tickets. A queue's last job makes room
 * if there is no free slot.
 */
bool
jobq_enter_marked(JobqDb *db, uint32 gen, const JobqTicket *t,
				  TransactionId xid, TransactionId top, JobqSlotRef *ref,
				  TransactionId *busy)
{
	JobqPart   *part = jobq_part_get(db, gen, t->queue_id);
	int			index = jobq_db_index(db);
	TransactionId holder;
	int32		number;

	*busy = InvalidTransactionId;
	if (part == NULL ||
		(pg_atomic_read_u64(&part->claimers) & PG_UINT32_MAX) != 0)
		return false;
	if (jobq_is_held(part, top, &holder))
	{
		*busy = holder;
		return false;
	}
	(void) pg_atomic_fetch_add_u64(&part->entries, 2);
	if (jobq_enter_or_push_out(part, index, gen, FROM_DISK, t, NULL, true,
							   &number) != ENTER_DONE)
		return false;
	jobq_slot_fill_ref(&jobq_slots[number], ref);
	if (mark_entered(part, gen, t, xid, &jobq_slots[number]))
		return true;
	(void) jobq_slot_remove(index, ref, jobq_is_linking);
	return false;
}

/* Its slot is unlinked, as it is marked. */
static bool
is_marked(const JobqSlot *slot, const JobqSlotRef *ref)
{
	return slot->state != SLOT_LINKING && slot->t.ticket == ref->ticket &&
		TransactionIdIsValid(slot->mark);
}

void
jobq_drop_marked(JobqDb *db, const JobqSlotRef *ref)
{
	(void) jobq_slot_remove(jobq_db_index(db), ref, is_marked);
}

/* A claim that was undone meanwhile is not brought back by an extension. */
void
jobq_extended(JobqDb *db, const JobqSlotRef *ref, TransactionId xid,
			  TimestampTz expires_at)
{
	JobqSlot   *slot = jobq_slot_lock_marked(db, ref, xid);

	if (slot == NULL)
		return;
	if (slot->state == SLOT_RUNNING)
		slot->l.expires_at = expires_at;
	jobq_tally_seen(jobq_slot_part(slot), &slot->l.by_worker,
					GetCurrentTransactionStopTimestamp());
	jobq_slot_unlock(slot);
	jobq_unmark(db, ref, xid);
}

/*
 * Cancelled with grace: if its worker has gone meanwhile, there is nobody to
 * learn it, so grace is over at once.
 */
void
jobq_hold(JobqDb *db, const JobqSlotRef *ref, TransactionId xid,
		  TimestampTz until)
{
	JobqSlot   *slot = jobq_slot_lock_marked(db, ref, xid);
	JobqPart   *part;
	int			waiter = -1;

	if (slot == NULL)
		return;
	part = jobq_slot_part(slot);
	if (slot->flags & SLOT_START_WANTED)
		waiter = slot->claim_proc;
	slot->flags &= ~SLOT_START_WANTED;
	slot->l.expires_at = slot->state == SLOT_RUNNING ? until : 0;
	jobq_slot_set_state(slot, SLOT_GRACE);
	jobq_slot_unlock(slot);
	if (waiter >= 0)
		jobq_set_latch(waiter);
	jobq_unmark(db, ref, xid);
	jobq_wake_if_idle(part);
	jobq_wake_for_job(db, ref->id);
}

void
jobq_set_grace(JobqDb *db, const JobqSlotRef *ref, TimestampTz until)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);

	if (slot == NULL)
		return;
	if (slot->state == SLOT_RUNNING && !TransactionIdIsValid(slot->mark))
	{
		jobq_slot_unlink(slot);
		slot->l.expires_at = until;
		jobq_slot_set_state(slot, SLOT_GRACE);
		jobq_slot_link(slot);
	}
	jobq_slot_unlock(slot);
}

bool
jobq_load_grace(JobqDb *db, uint32 gen, const JobqTicket *t,
				const JobqLease *l)
{
	JobqPart   *part = jobq_part_get(db, gen, t->queue_id);
	JobqEntered entered;
	int32		number;
	bool		open;

	if (part == NULL)
		return false;
	entered = jobq_enter_or_push_out(part, jobq_db_index(db), gen, FROM_DISK,
									 t, l, true, &number);
	if (entered != ENTER_DONE)
		return entered == ENTER_PRESENT;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	open = jobq_part_is(part, gen, t->queue_id);
	if (open)
	{
		jobq_slot_set_state(&jobq_slots[number], SLOT_GRACE);
		jobq_slot_link(&jobq_slots[number]);
	}
	LWLockRelease(part->lock);
	if (!open)
	{
		JobqSlotRef ref;

		jobq_slot_fill_ref(&jobq_slots[number], &ref);
		(void) jobq_slot_remove(jobq_db_index(db), &ref, jobq_is_linking);
	}
	return open;
}

bool
jobq_find(JobqDb *db, uint32 gen, int64 id, JobqSlot *copy)
{
	JobqSlot   *slot = jobq_slot_lock(db, gen, id);

	if (slot == NULL)
		return false;
	*copy = *slot;
	jobq_slot_unlock(slot);
	return true;
}
