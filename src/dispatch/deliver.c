/*
 * deliver.c: jobs are taken, in order, and what happens to a delivery until
 * it is settled: its claim commits or aborts, its lease runs out.
 *
 * Must not allocate, raise an error, or hold a lock for more than JOBQ_CHUNK
 * slots; parts of it run in commit and abort callbacks.
 */
#include "postgres.h"

#include "access/transam.h"

#include "compat.h"
#include "dispatch/internal.h"

/* ---- walking; under the part's lock ---- */

static int32
first_ready(const JobqPart *part)
{
	return jobq_tree_first(&jobq_ready_tree, jobq_slots, part->ready_root);
}

static int32
ready_after(const JobqPart *part, const JobqSlot *key)
{
	return jobq_tree_after(&jobq_ready_tree, jobq_slots, part->ready_root,
						   key);
}

static int32
first_lease(const JobqPart *part)
{
	return jobq_tree_first(&jobq_lease_tree, jobq_slots, part->lease_root);
}

static int32
lease_after(const JobqPart *part, const JobqSlot *key)
{
	return jobq_tree_after(&jobq_lease_tree, jobq_slots, part->lease_root,
						   key);
}

/* ---- taking ---- */

static bool
is_before_frontier(const JobqPart *part, const JobqSlot *slot)
{
	JobqKey		key = jobq_key_of(&slot->t);

	return jobq_key_before(&key, &part->frontier);
}

/* Whoever takes jobs brings the queue's present rules along. */
static void
follow_rules(JobqPart *part, const JobqRules *rules)
{
	if (memcmp(&part->rules, rules, sizeof(JobqRules)) != 0)
		part->rules = *rules;
}

/*
 * One lock hold. Says in *more whether there may be more to take, in *db whose
 * the jobs were if there were any, and in *ask whether the keeper is to load
 * more from disk, or to end jobs that have expired.
 */
static int
take_some(JobqPart *part, uint32 gen, int max, const JobqTake *take,
		  JobqTaken *taken, bool *more, int *db, bool *ask)
{
	int			n = 0;
	int			naside = 0;

	*more = false;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen))
		follow_rules(part, take->rules);
	while (n < max && naside < JOBQ_CHUNK && jobq_part_is_mine(part, gen))
	{
		int32		number;
		JobqSlot   *slot;

		number = first_ready(part);
		if (number == JOBQ_NIL)
			break;
		slot = &jobq_slots[number];
		if (take->before != NULL &&
			jobq_compare_tickets(&slot->t, take->before) >= 0)
			break;
		if (!is_before_frontier(part, slot))
			break;
		if (slot->t.expires_at <= take->lease->claimed_at)
		{
			jobq_slot_set_aside(slot);
			naside++;
			continue;
		}

		jobq_slot_unlink(slot);
		jobq_slot_set_state(slot, SLOT_RUNNING);
		slot->l = *take->lease;
		slot->flags |= SLOT_CLAIM_OPEN | take->flags;
		slot->claim_proc = jobq_my_procno();
		jobq_slot_link(slot);

		part->counters[COUNT_AVAILABLE]--;
		taken[n].t = slot->t;
		taken[n].verify = (slot->flags & SLOT_VERIFY) != 0;
		jobq_slot_fill_ref(slot, &taken[n].ref);
		n++;
	}
	*more = n == max || naside == JOBQ_CHUNK;
	*db = part->db;
	*ask = *db >= 0 && (jobq_part_asks(part) || naside > 0);
	LWLockRelease(part->lock);
	return n;
}

int
jobq_take(JobqPart *part, uint32 gen, int max, JobqTake *take,
		  JobqTaken *taken)
{
	int			n = 0;
	bool		more = true;

	take->retry_at = JOBQ_NEVER;
	while (more && n < max)
	{
		int			db;
		int			got;
		bool		ask;

		got = take_some(part, gen, Min(max - n, JOBQ_CHUNK), take, taken + n,
						&more, &db, &ask);
		if (ask)
			jobq_wake_keeper(&jobq_dbs[db]);
		if (got == 0)
			continue;
		n += got;
		if (take->flags & SLOT_START_WANTED)
			jobq_wake_keeper(&jobq_dbs[db]);
		else
			jobq_wake_keeper_by(&jobq_dbs[db], take->lease->expires_at);
	}
	return n;
}

bool
jobq_may_take(JobqPart *part, uint32 gen, TimestampTz now,
			  TimestampTz *retry_at)
{
	int32		at = JOBQ_NIL;

	*retry_at = JOBQ_NEVER;
	LWLockAcquire(part->lock, LW_SHARED);
	if (jobq_part_is_mine(part, gen))
		at = first_ready(part);
	for (int i = 0; i < JOBQ_CHUNK && at != JOBQ_NIL &&
		 jobq_slots[at].t.expires_at <= now; i++)
		at = ready_after(part, &jobq_slots[at]);
	if (at != JOBQ_NIL && (jobq_slots[at].t.expires_at <= now ||
						   !is_before_frontier(part, &jobq_slots[at])))
		at = JOBQ_NIL;
	LWLockRelease(part->lock);
	return at != JOBQ_NIL;
}

int
jobq_look(JobqPart *part, uint32 gen, const JobqTicket *after, int max,
		  JobqTicket *tickets)
{
	JobqSlot	key;
	int			n = 0;
	bool		more = true;

	while (more && n < max)
	{
		int			stop = n + Min(max - n, JOBQ_CHUNK);
		int32		at = JOBQ_NIL;

		LWLockAcquire(part->lock, LW_SHARED);
		if (jobq_part_is_mine(part, gen))
		{
			if (after != NULL)
			{
				key.t = *after;
				at = ready_after(part, &key);
			}
			else
				at = first_ready(part);
		}
		while (at != JOBQ_NIL && n < stop &&
			   is_before_frontier(part, &jobq_slots[at]))
		{
			tickets[n++] = jobq_slots[at].t;
			at = ready_after(part, &jobq_slots[at]);
		}
		LWLockRelease(part->lock);
		more = at != JOBQ_NIL && n == stop;
		if (more)
			after = &tickets[n - 1];
	}
	return n;
}

/* ---- a claiming transaction ends ---- */

void
jobq_close_claim(JobqDb *db, const JobqSlotRef *ref)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);

	if (slot == NULL)
		return;
	slot->flags &= ~SLOT_CLAIM_OPEN;
	jobq_slot_unlock(slot);
}

/*
 * The delivery counts as an attempt that has ended now: due at once, claimed
 * when it was. A start record that is still wanted is so no more, and grace,
 * if the job was cancelled meanwhile, is over: nobody is left to learn it.
 */
void
jobq_undo_claim(JobqDb *db, const JobqSlotRef *ref)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);
	bool		undone;

	if (slot == NULL)
		return;
	undone = (slot->flags & SLOT_CLAIM_OPEN) != 0;
	if (undone)
	{
		jobq_slot_unlink(slot);
		if (slot->state == SLOT_RUNNING)
			jobq_slot_set_state(slot, SLOT_ROLLED_BACK);
		slot->flags &= ~(SLOT_CLAIM_OPEN | SLOT_START_WANTED);
		slot->l.expires_at = 0;
		if (!TransactionIdIsValid(slot->mark))
			jobq_slot_link(slot);
	}
	jobq_slot_unlock(slot);
	if (undone)
		jobq_wake_keeper(db);
}

void
jobq_unclaim(JobqDb *db, const JobqSlotRef *ref)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);
	JobqPart   *part;
	TimestampTz expires_at;

	if (slot == NULL)
		return;
	part = jobq_slot_part(slot);
	expires_at = slot->t.expires_at;
	if (slot->state == SLOT_RUNNING && (slot->flags & SLOT_CLAIM_OPEN) &&
		!(slot->flags & SLOT_START_DONE) && !TransactionIdIsValid(slot->mark))
	{
		jobq_slot_unlink(slot);
		slot->flags &= ~(SLOT_CLAIM_OPEN | SLOT_START_WANTED);
		memset(&slot->l, 0, sizeof(slot->l));
		jobq_slot_set_state(slot, SLOT_READY);
		jobq_slot_part(slot)->counters[COUNT_AVAILABLE]++;
		jobq_slot_link(slot);
	}
	jobq_slot_unlock(slot);
	jobq_wake_keeper_by(db, expires_at);
	jobq_wake_waiters(part, ref->gen, 1);
}

void
jobq_postpone(JobqDb *db, const JobqSlotRef *ref, TimestampTz until)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);

	if (slot == NULL)
		return;
	if (!TransactionIdIsValid(slot->mark) &&
		(slot->state == SLOT_RUNNING || slot->state == SLOT_ROLLED_BACK))
	{
		jobq_slot_unlink(slot);
		slot->l.expires_at = until;
		jobq_slot_link(slot);
	}
	jobq_slot_unlock(slot);
}

void
jobq_set_claim_tid(JobqDb *db, const JobqSlotRef *ref, ItemPointer tid)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);

	if (slot == NULL)
		return;
	slot->l.claim_tid = *tid;
	jobq_slot_unlock(slot);
}

/* ---- the keeper's views ---- */

int
jobq_due_leases(JobqPart *part, uint32 gen, TimestampTz now, int max,
				JobqSlot *copies, TimestampTz *next)
{
	int			n = 0;
	bool		more = true;

	*next = JOBQ_NEVER;
	while (more && n < max)
	{
		int			stop = n + Min(max - n, JOBQ_CHUNK);
		int32		at = JOBQ_NIL;

		LWLockAcquire(part->lock, LW_SHARED);
		if (jobq_part_is_mine(part, gen))
			at = n == 0 ? first_lease(part) : lease_after(part, &copies[n - 1]);
		while (at != JOBQ_NIL && n < stop &&
			   jobq_slots[at].l.expires_at <= now)
		{
			copies[n++] = jobq_slots[at];
			at = lease_after(part, &jobq_slots[at]);
		}
		*next = at != JOBQ_NIL ? jobq_slots[at].l.expires_at : JOBQ_NEVER;
		LWLockRelease(part->lock);
		more = *next <= now;
	}
	return n;
}

int
jobq_start_wanted(JobqPart *part, uint32 gen, int max, JobqSlot *copies)
{
	JobqSlot	key;
	bool		first = true;
	bool		more = true;
	int			n = 0;

	while (more)
	{
		int32		at = JOBQ_NIL;

		LWLockAcquire(part->lock, LW_SHARED);
		if (jobq_part_is_mine(part, gen) && n < part->start_wanted)
			at = first ? first_lease(part) : lease_after(part, &key);
		for (int i = 0; i < JOBQ_CHUNK && at != JOBQ_NIL && n < max; i++)
		{
			if (jobq_slots[at].flags & SLOT_START_WANTED)
				copies[n++] = jobq_slots[at];
			key.l.expires_at = jobq_slots[at].l.expires_at;
			key.t.id = jobq_slots[at].t.id;
			at = lease_after(part, &jobq_slots[at]);
		}
		LWLockRelease(part->lock);
		first = false;
		more = at != JOBQ_NIL && n < max;
	}
	return n;
}

void
jobq_start_done(JobqDb *db, const JobqSlotRef *ref)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);
	int			waiter = -1;

	if (slot == NULL)
		return;
	if (slot->flags & SLOT_START_WANTED)
	{
		if (slot->flags & SLOT_LINKED)
			jobq_slot_part(slot)->start_wanted--;
		slot->flags &= ~SLOT_START_WANTED;
		slot->flags |= SLOT_START_DONE;
		waiter = slot->claim_proc;
	}
	jobq_slot_unlock(slot);
	if (waiter >= 0)
		jobq_set_latch(waiter);
}
