/*
 * slotenter.c: a ticket gets a slot: first in the hash, where whoever ends it
 * must find it, then linked; or it takes the place of an older one of its job.
 *
 * Must not allocate or raise an error.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"

#include "dispatch/internal.h"

/* ---- entering ---- */

/* Everything but identity and place. */
static void
fill_slot(JobqSlot *slot, const JobqTicket *ticket, const JobqLease *lease)
{
	jobq_slot_forget_probe(slot);
	slot->flags = 0;
	slot->mark = InvalidTransactionId;
	slot->claim_proc = -1;
	slot->t = *ticket;
	if (lease != NULL)
		slot->l = *lease;
	else
	{
		memset(&slot->l, 0, offsetof(JobqLease, worker));
		slot->l.worker[0] = '\0';
	}
}

/* One that is on the shelf is in no tree. */
static void
start_slot(JobqSlot *slot)
{
	if (slot->t.ticket == 0)
	{
		jobq_slot_set_state(slot, SLOT_SHELVED);
		return;
	}
	jobq_slot_set_state(slot, slot->l.lease != 0 ? SLOT_RUNNING : SLOT_READY);
	jobq_slot_link(slot);
}

/*
 * Has the job gone on from the slot's ticket to this one? Not as long as the
 * old one is in somebody's hands, except ours: then we have moved it ourselves.
 * From the shelf it goes on when a transaction says so: what is found on disk
 * may be the ticket it had before.
 */
static bool
goes_on(const JobqSlot *slot, JobqSource source, const JobqTicket *ticket)
{
	if (slot->t.queue_id != ticket->queue_id)
		return false;
	if (TransactionIdIsValid(slot->mark))
		return (ticket->ticket == 0 || ticket->ticket > slot->t.ticket) &&
			TransactionIdIsCurrentTransactionId(slot->mark);
	if (slot->state == SLOT_SHELVED)
		return source == FROM_COMMIT &&
			(ticket->ticket > 0 ||
			 jobq_group_compare_keys(&slot->t.group, &ticket->group) != 0);
	return ticket->ticket > slot->t.ticket && slot->state == SLOT_READY;
}

/* In one lock hold, so that no place in a group gets free in between. */
static void
go_on(JobqSlot *slot, const JobqTicket *ticket, const JobqLease *lease)
{
	JobqPart   *part = jobq_slot_part(slot);

	/* the end of a marked ticket, which will not find it any more */
	if (slot->state == SLOT_READY && TransactionIdIsValid(slot->mark))
		part->counters[COUNT_AVAILABLE]--;
	jobq_slot_unlink(slot);
	if (part->groups.on)
		jobq_group_leave(part, slot);
	fill_slot(slot, ticket, lease);
	start_slot(slot);
}

/*
 * The job is in memory already, its hash lock is held. A newer ticket takes
 * the place of an older one; HELD when that is still in somebody's hands. Where
 * steering has entered a ticket before those who have claimed it could, it
 * becomes theirs. *left is the epoch that the job has left, or 0.
 */
static JobqEntered
meet(JobqSlot *slot, JobqSource source, const JobqTicket *ticket,
	 const JobqLease *lease, int32 *left)
{
	JobqPart   *part = jobq_slot_part(slot);
	bool		held;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	held = slot->t.ticket < ticket->ticket && slot->state != SLOT_SHELVED;
	if (goes_on(slot, source, ticket))
	{
		*left = slot->t.epoch;
		go_on(slot, ticket, lease);
		held = false;
	}
	else if (slot->t.ticket == ticket->ticket && slot->state == SLOT_READY &&
			 lease != NULL && lease->lease != 0)
	{
		jobq_slot_unlink(slot);
		slot->l = *lease;
		jobq_slot_set_state(slot, SLOT_RUNNING);
		if (!TransactionIdIsValid(slot->mark))
			jobq_slot_link(slot);
	}
	LWLockRelease(part->lock);
	return held ? ENTER_HELD : ENTER_PRESENT;
}

JobqEntered
jobq_slot_enter(JobqPart *part, int db, uint32 gen, JobqSource source,
				const JobqTicket *t, const JobqLease *l, bool any,
				int32 *number)
{
	uint32		bucket = jobq_bucket(db, t->id);
	LWLock	   *hash_lock = jobq_hash_lock_of(bucket);
	JobqEntered entered = ENTER_DONE;
	int32		found;
	int32		left = 0;

	LWLockAcquire(hash_lock, LW_EXCLUSIVE);
	found = jobq_chain_find(bucket, db, gen, t->id);
	if (found != JOBQ_NIL)
		entered = meet(&jobq_slots[found], source, t, l, &left);
	else if ((*number = jobq_pop_free(part, any)) == JOBQ_NIL)
		entered = ENTER_NO_SLOT;
	else
	{
		JobqSlot   *slot = &jobq_slots[*number];

		slot->node.left = JOBQ_NIL;
		slot->node.right = JOBQ_NIL;
		fill_slot(slot, t, l);
		slot->state = SLOT_LINKING;
		slot->part = jobq_part_index(part);
		slot->gen = gen;
		slot->db = db;
		slot->hash_next = jobq_buckets[bucket];
		jobq_buckets[bucket] = *number;
	}
	LWLockRelease(hash_lock);
	if (left != 0)
	{
		jobq_slot_gone(&jobq_dbs[db], left);
		jobq_wake_keeper_by(&jobq_dbs[db], t->expires_at);
	}
	return entered;
}

/*
 * A holder of the queue ends tickets from the frontier on without slots: one
 * that gets there by our pushing out must not come to be handed out.
 */
static bool
is_held_back(JobqPart *part, const JobqSlot *slot)
{
	JobqKey		key = jobq_slot_key(slot);

	if (slot->l.lease != 0 || !TransactionIdIsValid(part->holder) ||
		(jobq_key_before(&key, &part->frontier) &&
		 !jobq_is_behind_group(part, &slot->t)))
		return false;
	jobq_retreat(part, &key);
	return true;
}

/*
 * There is no entry for its group, so it goes out as if there was no slot; one
 * that must stay does.
 */
static bool
lacks_group(JobqPart *part, JobqSlot *slot)
{
	JobqKey		key = jobq_slot_key(slot);

	if (!part->groups.on || jobq_group_join(part, slot) ||
		slot->l.lease != 0 || slot->t.ticket == 0 ||
		jobq_is_kept(part, &slot->t))
		return false;
	jobq_retreat(part, &key);
	return true;
}

void
jobq_slots_link(JobqPart *part, uint32 gen, int32 queue_id,
				const int32 *numbers, int n, const uint64 *since,
				TimestampTz *first_expiry)
{
	int32		out[JOBQ_CHUNK];
	int			nout = 0;
	bool		open;
	bool		verify;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	open = jobq_part_is(part, gen, queue_id);
	verify = since != NULL &&
		((*since & 1) || *since != pg_atomic_read_u64(&part->entries));
	for (int i = 0; i < n; i++)
	{
		JobqSlot   *slot = &jobq_slots[numbers[i]];

		if (!open || (since != NULL && is_held_back(part, slot)) ||
			lacks_group(part, slot))
		{
			out[nout++] = numbers[i];
			continue;
		}
		if (verify)
			slot->flags |= SLOT_VERIFY;
		start_slot(slot);
		if (slot->l.lease != 0)
			*first_expiry = Min(*first_expiry, slot->l.expires_at);
		else
			*first_expiry = Min(*first_expiry, slot->t.expires_at);
	}
	LWLockRelease(part->lock);

	for (int i = 0; i < nout; i++)
	{
		JobqSlotRef ref;

		jobq_slot_fill_ref(&jobq_slots[out[i]], &ref);
		(void) jobq_slot_remove(jobq_slots[out[i]].db, &ref, jobq_is_linking);
	}
}
