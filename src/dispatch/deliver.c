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
#include "dispatch/meter.h"

#define GIVE_UP_MAX		4096	/* slots pushed out in one go */

/* ---- walking; under the part's lock ---- */

static int32
first_ready(const JobqPart *part)
{
	return part->ready_tree.first;
}

/* key NULL: the first. */
static int32
available_in(const JobqTree *tree, const JobqSlot *key)
{
	return key != NULL ?
		jobq_tree_after(&jobq_ready_tree, jobq_slots, tree, key) :
		tree->first;
}

/* The next available one in order, also of those that keep a place. */
static int32
available_after(const JobqPart *part, const JobqSlot *key)
{
	int32		ready = available_in(&part->ready_tree, key);
	int32		kept = available_in(&part->groups.kept, key);

	if (ready == JOBQ_NIL || kept == JOBQ_NIL)
		return ready != JOBQ_NIL ? ready : kept;
	return jobq_compare_ready(&jobq_slots[ready], &jobq_slots[kept]) < 0 ?
		ready : kept;
}

static int32
first_lease(const JobqPart *part)
{
	return part->lease_tree.first;
}

static int32
lease_after(const JobqPart *part, const JobqSlot *key)
{
	return jobq_tree_after(&jobq_lease_tree, jobq_slots, &part->lease_tree,
						   key);
}

/* ---- taking ---- */

bool
jobq_is_before_frontier(const JobqPart *part, const JobqSlot *slot)
{
	JobqKey		key = jobq_slot_key(slot);

	return jobq_key_before(&key, &part->frontier);
}

/*
 * Whoever takes jobs brings the queue's present rules along. How many of max
 * may be taken.
 */
static int
begin_take(JobqPart *part, JobqTake *take, int max)
{
	jobq_part_follow(part, take->rules);
	take->limited = false;
	take->retry_at = JOBQ_NEVER;
	return part->limits.on ? jobq_limits_room(part, take, max) : max;
}

/* Where running jobs lack entries, waiting ones give theirs up. */
static void
give_up_entries(JobqPart *part, uint32 gen)
{
	for (int i = 0; i < GIVE_UP_MAX && jobq_groups_lack_entries(part) &&
		 jobq_push_out(part, gen, NULL); i++)
		;
}

/*
 * Where groups count, all slots are in theirs before anything is taken. False
 * when that, or what else must be known, is still to be loaded.
 */
bool
jobq_follow_rules(JobqPart *part, uint32 gen, const JobqRules *rules)
{
	bool		mine = true;
	bool		done = false;
	bool		ready = true;
	int			db = -1;

	if (!part->groups.on && !jobq_rules_group(rules))
		return true;
	for (bool first = true; mine && !done; first = false)
	{
		JobqSlotRef strays[JOBQ_CHUNK];
		int			nstrays = 0;

		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		mine = jobq_part_is_mine(part, gen);
		if (mine)
		{
			jobq_part_follow(part, rules);
			done = jobq_groups_catch_up(part, first, strays, &nstrays);
			ready = jobq_groups_ready(part);
			db = part->db;
		}
		LWLockRelease(part->lock);
		for (int i = 0; i < nstrays; i++)
			(void) jobq_push_out_slot(db, &strays[i]);
	}
	if (!mine)
		return false;
	if (part->groups.strays > 0)
		give_up_entries(part, gen);
	if (ready && !jobq_lacks_leases(&jobq_dbs[db]))
		return true;
	jobq_wake_keeper(&jobq_dbs[db]);
	return false;
}

/*
 * The slot to be taken next, if there is one before the frontier; *skipped is
 * how much else was looked at.
 */
static int32
next_ready(JobqPart *part, TimestampTz now, int *skipped)
{
	int32		number;

	if (part->groups.on)
		return jobq_group_next(part, now, skipped);
	number = first_ready(part);
	return number != JOBQ_NIL &&
		jobq_is_before_frontier(part, &jobq_slots[number]) ?
		number : JOBQ_NIL;
}

/*
 * One lock hold. Says in *more whether there may be more to take, in *db whose
 * the jobs were if there were any, and in *ask whether the keeper is to load
 * more from disk, or to end jobs that have expired.
 */
static int
take_some(JobqPart *part, uint32 gen, int max, JobqTake *take,
		  JobqTaken *taken, bool *more, int *db, bool *ask)
{
	int			n = 0;
	int			naside = 0;
	int			room = 0;
	TimestampTz now = 0;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen))
		room = begin_take(part, take, max);
	/* what counts for a group's rate is the time that the claim tells */
	if (part->groups.on)
		now = part->limits.on ? take->lease->claimed_at :
			GetCurrentTimestamp();
	while (n < room && naside < JOBQ_CHUNK && jobq_part_is_mine(part, gen))
	{
		int32		number;
		JobqSlot   *slot;

		number = next_ready(part, now, &naside);
		if (number == JOBQ_NIL)
			break;
		slot = &jobq_slots[number];
		if (take->before != NULL && !jobq_comes_before(part, slot, take->before))
			break;
		if (slot->t.expires_at <= take->lease->claimed_at)
		{
			jobq_slot_set_aside(slot);
			naside++;
			continue;
		}

		jobq_slot_unlink(slot);
		/* whoever takes the next one finds it warm */
		if (part->ready_tree.first != JOBQ_NIL)
			jobq_prefetch(&jobq_slots[part->ready_tree.first],
						  sizeof(JobqSlot));
		slot->l = *take->lease;
		jobq_slot_set_state(slot, SLOT_RUNNING);
		slot->flags |= SLOT_CLAIM_OPEN | take->flags;
		slot->claim_proc = jobq_my_procno();
		jobq_slot_link(slot);
		if (part->groups.on)
			jobq_group_taken(part, &jobq_groups[slot->group], slot->t.id,
							 now);

		part->counters[COUNT_AVAILABLE]--;
		taken[n].t = slot->t;
		taken[n].verify = (slot->flags & SLOT_VERIFY) != 0;
		jobq_slot_fill_ref(slot, &taken[n].ref);
		n++;
	}
	if (n > 0 && part->limits.on)
		jobq_limits_taken(part, n, take->lease->claimed_at);
	if (n > 0)
	{
		jobq_meter_taken(part, take->lease, taken, n);
		take->fresh = false;
	}
	take->limited = take->limited && n == room;
	*more = n == max || naside == JOBQ_CHUNK;
	/* without room nobody has looked at the groups */
	if (room > 0)
		take->retry_at = Min(take->retry_at, jobq_group_next_wake(part));
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
	bool		more = jobq_follow_rules(part, gen, take->rules);

	take->loading = !more;
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

/* Only what all limits let through is counted by any of them. */
JobqOwnPlace
jobq_take_own(JobqPart *part, uint32 gen, const JobqTicket *t, JobqTake *take)
{
	JobqOwnPlace place = OWN_PLACE_REFUSED;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && begin_take(part, take, 1) > 0)
		place = jobq_group_take_own(part, t, take->lease->claimed_at);
	if (place != OWN_PLACE_REFUSED)
	{
		part->limits.own_running++;
		if (take->lease->probe)
			part->limits.probes++;
		if (part->limits.on)
			jobq_limits_taken(part, 1, take->lease->claimed_at);
		take->fresh = false;
	}
	LWLockRelease(part->lock);
	return place;
}

bool
jobq_may_take(JobqPart *part, uint32 gen, TimestampTz now,
			  TimestampTz *retry_at)
{
	int			skipped;
	int32		at;

	do
	{
		skipped = 0;
		at = JOBQ_NIL;
		*retry_at = JOBQ_NEVER;
		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		while (jobq_part_is_mine(part, gen) && skipped < JOBQ_CHUNK)
		{
			at = next_ready(part, now, &skipped);
			if (at == JOBQ_NIL || jobq_slots[at].t.expires_at > now)
				break;
			jobq_slot_set_aside(&jobq_slots[at]);
			at = JOBQ_NIL;
			skipped++;
		}
		if (part->groups.on)
			*retry_at = jobq_group_next_wake(part);
		LWLockRelease(part->lock);
	} while (at == JOBQ_NIL && skipped >= JOBQ_CHUNK);
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
				key.part = jobq_part_index(part);
				key.t = *after;
			}
			at = available_after(part, after != NULL ? &key : NULL);
		}
		while (at != JOBQ_NIL && n < stop &&
			   jobq_is_before_frontier(part, &jobq_slots[at]))
		{
			tickets[n++] = jobq_slots[at].t;
			at = available_after(part, &jobq_slots[at]);
		}
		LWLockRelease(part->lock);
		more = at != JOBQ_NIL && n == stop;
		if (more)
			after = &tickets[n - 1];
	}
	return n;
}

/* ---- a claiming transaction ends ---- */

static JobqPart *
part_of(const JobqSlotRef *ref)
{
	return jobq_slot_part(&jobq_slots[ref->slot]);
}

/*
 * With the lock of a part: the slot of a claim that we have made, or NULL if
 * it is not the part's any more, or not under our lease. A lease begins and
 * ends under the part's lock, so that the hash need not be asked.
 */
static JobqSlot *
claimed_slot(const JobqPart *part, const JobqSlotRef *ref)
{
	JobqSlot   *slot = &jobq_slots[ref->slot];

	if (jobq_slot_part(slot) != part || slot->gen != ref->gen ||
		slot->t.id != ref->id || slot->t.ticket != ref->ticket ||
		slot->l.lease != ref->lease || slot->state == SLOT_LINKING)
		return NULL;
	return slot;
}

/*
 * Elements of an array that begin with the ref of a claim: do something with
 * the slots of those that still are claimed so, a part's in one lock hold.
 */
static inline void
with_claims(const void *array, Size element, int n,
			void (*work) (JobqSlot *slot, const void *at, const void *state),
			const void *state)
{
	const char *at = array;
	const char *end = at + n * element;

	while (at < end)
	{
		JobqPart   *part = part_of((const JobqSlotRef *) at);

		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		for (; at < end && part_of((const JobqSlotRef *) at) == part;
			 at += element)
		{
			JobqSlot   *slot = claimed_slot(part, (const JobqSlotRef *) at);

			if (slot != NULL)
				work(slot, at, state);
		}
		LWLockRelease(part->lock);
	}
}

static void
close_claim(JobqSlot *slot, const void *at, const void *state)
{
	slot->flags &= ~SLOT_CLAIM_OPEN;
}

void
jobq_close_claims(const JobqSlotRef *refs, int n)
{
	with_claims(refs, sizeof(JobqSlotRef), n, close_claim, NULL);
}

/* tid NULL: it is not known yet. */
static void
set_claim(JobqSlot *slot, const void *at, const void *tid)
{
	const JobqClaimed *claimed = at;

	slot->l.by_kind = claimed->by_kind;
	if (tid != NULL)
		slot->l.claim_tid = *(const ItemPointerData *) tid;
}

void
jobq_set_claims(const JobqClaimed *claimed, int n, ItemPointer tid)
{
	StaticAssertStmt(offsetof(JobqClaimed, ref) == 0, "it begins with its ref");
	with_claims(claimed, sizeof(JobqClaimed), n, set_claim, tid);
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
	JobqPart   *part;
	bool		undone;

	if (slot == NULL)
		return;
	part = jobq_slot_part(slot);
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
	if (!undone)
		return;
	jobq_wake_keeper(db);
	jobq_wake_waiters(part, ref->gen, 1);
}

/* A delivery of this slot was not handed out. */
static void
not_taken(const JobqSlot *slot)
{
	JobqPart   *part = jobq_slot_part(slot);

	if (part->limits.on)
		jobq_limits_not_taken(part, slot->l.claimed_at);
	if (slot->group >= 0)
		jobq_group_not_taken(part, &jobq_groups[slot->group],
							 slot->l.claimed_at);
}

void
jobq_drop_taken(JobqDb *db, const JobqSlotRef *ref)
{
	JobqSlot   *slot = jobq_slot_lock_leased(db, ref);

	if (slot != NULL)
	{
		not_taken(slot);
		jobq_slot_unlock(slot);
	}
	jobq_drop_stale(db, ref);
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
		not_taken(slot);
		jobq_slot_set_state(slot, SLOT_READY);
		memset(&slot->l, 0, sizeof(slot->l));
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

bool
jobq_holds_lease(JobqDb *db, uint32 gen, int32 queue_id, int proc,
				 TimestampTz since)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	JobqSlot	key;
	bool		found = false;
	int32		at = JOBQ_NIL;

	if (part == NULL)
		return false;
	for (bool first = true; first || (at != JOBQ_NIL && !found); first = false)
	{
		LWLockAcquire(part->lock, LW_SHARED);
		at = JOBQ_NIL;
		if (jobq_part_is(part, gen, queue_id))
			at = first ? first_lease(part) : lease_after(part, &key);
		for (int i = 0; i < JOBQ_CHUNK && at != JOBQ_NIL && !found; i++)
		{
			const JobqSlot *slot = &jobq_slots[at];

			found = slot->state == SLOT_RUNNING && slot->claim_proc == proc &&
				slot->l.claimed_at >= since;
			key.l.expires_at = slot->l.expires_at;
			key.t.id = slot->t.id;
			at = lease_after(part, slot);
		}
		LWLockRelease(part->lock);
	}
	return found;
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
jobq_look_leases(JobqDb *db, uint32 gen, int32 queue_id,
				 const JobqSlot *after, int max, JobqSlot *copies)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	int32		at = JOBQ_NIL;
	int			n = 0;

	if (part == NULL)
		return 0;
	LWLockAcquire(part->lock, LW_SHARED);
	if (jobq_part_is(part, gen, queue_id))
		at = after == NULL ? first_lease(part) : lease_after(part, after);
	while (at != JOBQ_NIL && n < Min(max, JOBQ_CHUNK))
	{
		copies[n++] = jobq_slots[at];
		at = lease_after(part, &jobq_slots[at]);
	}
	LWLockRelease(part->lock);
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
