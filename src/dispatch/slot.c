/*
 * slot.c: slots: their order, their place in trees and hash, finding and
 * locking one, making it free.
 *
 * A slot in the hash stays what it is (id, part) while its part's lock is
 * held. It is found by its id, never by its number alone, which may long
 * belong to another job. Must not allocate or raise an error.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"

#include "compat.h"
#include "dispatch/internal.h"

/* ---- order ---- */

int
jobq_compare_ready(const void *a, const void *b)
{
	JobqKey		x = jobq_slot_key(a);
	JobqKey		y = jobq_slot_key(b);

	return jobq_key_compare(&x, &y);
}

static int
compare_times(TimestampTz a, int64 a_id, TimestampTz b, int64 b_id)
{
	if (a != b)
		return a < b ? -1 : 1;
	if (a_id != b_id)
		return a_id < b_id ? -1 : 1;
	return 0;
}

static int
compare_lease(const void *a, const void *b)
{
	const JobqSlot *x = a;
	const JobqSlot *y = b;

	return compare_times(x->l.expires_at, x->t.id, y->l.expires_at, y->t.id);
}

static int
compare_expiry(const void *a, const void *b)
{
	const JobqSlot *x = a;
	const JobqSlot *y = b;

	return compare_times(x->t.expires_at, x->t.id, y->t.expires_at, y->t.id);
}

const JobqTreeType jobq_ready_tree = {
	sizeof(JobqSlot), offsetof(JobqSlot, node), jobq_compare_ready
};

const JobqTreeType jobq_lease_tree = {
	sizeof(JobqSlot), offsetof(JobqSlot, node), compare_lease
};

const JobqTreeType jobq_expiry_tree = {
	sizeof(JobqSlot), offsetof(JobqSlot, expiry), compare_expiry
};

/* ---- trees and counters; under the part's lock ---- */

/* The tree of those that may be pushed out, or of those that keep a place. */
static int32 *
ready_root(JobqPart *part, const JobqSlot *slot)
{
	return slot->flags & SLOT_KEPT ? &part->groups.kept : &part->ready_root;
}

static void
leaves_ready(JobqPart *part, const JobqSlot *slot)
{
	if (slot->t.run_at <= part->oldest)
		part->oldest = JOBQ_OLDEST_UNKNOWN;
}

static void
link_ready(JobqPart *part, JobqSlot *slot)
{
	part->oldest = Min(part->oldest, slot->t.run_at);
	if (part->groups.on && jobq_is_kept(part, &slot->t))
		slot->flags |= SLOT_KEPT;
	jobq_tree_insert(&jobq_ready_tree, jobq_slots, ready_root(part, slot),
					 jobq_slot_number(slot));
	if (slot->t.expires_at != DT_NOEND)
		jobq_tree_insert(&jobq_expiry_tree, jobq_slots, &part->expiry_root,
						 jobq_slot_number(slot));
}

static void
unlink_ready(JobqPart *part, JobqSlot *slot)
{
	leaves_ready(part, slot);
	if (!(slot->flags & SLOT_ASIDE))
		jobq_tree_remove(&jobq_ready_tree, jobq_slots, ready_root(part, slot),
						 jobq_slot_number(slot));
	slot->flags &= ~(SLOT_ASIDE | SLOT_KEPT);
	if (slot->t.expires_at != DT_NOEND)
		jobq_tree_remove(&jobq_expiry_tree, jobq_slots, &part->expiry_root,
						 jobq_slot_number(slot));
}

void
jobq_slot_set_aside(JobqSlot *slot)
{
	JobqPart   *part = jobq_slot_part(slot);

	Assert(slot->state == SLOT_READY && (slot->flags & SLOT_LINKED) &&
		   !(slot->flags & SLOT_ASIDE));
	jobq_tree_remove(&jobq_ready_tree, jobq_slots, ready_root(part, slot),
					 jobq_slot_number(slot));
	leaves_ready(part, slot);
	slot->flags |= SLOT_ASIDE;
	if (part->groups.on)
		jobq_group_sync(part, slot);
}

void
jobq_slot_link(JobqSlot *slot)
{
	JobqPart   *part = jobq_slot_part(slot);

	if (slot->state == SLOT_READY)
		link_ready(part, slot);
	else
		jobq_tree_insert(&jobq_lease_tree, jobq_slots, &part->lease_root,
						 jobq_slot_number(slot));
	slot->flags |= SLOT_LINKED;
	if (slot->flags & SLOT_START_WANTED)
		part->start_wanted++;
	if (part->groups.on)
		jobq_group_sync(part, slot);
}

/* No-op for a marked slot, which is in no tree. */
void
jobq_slot_unlink(JobqSlot *slot)
{
	JobqPart   *part = jobq_slot_part(slot);

	if (!(slot->flags & SLOT_LINKED))
		return;
	if (slot->state == SLOT_READY)
		unlink_ready(part, slot);
	else
		jobq_tree_remove(&jobq_lease_tree, jobq_slots, &part->lease_root,
						 jobq_slot_number(slot));
	slot->flags &= ~SLOT_LINKED;
	if (slot->flags & SLOT_START_WANTED)
		part->start_wanted--;
	if (part->groups.on)
		jobq_group_sync(part, slot);
}

static void
count_state(JobqPart *part, JobqSlotState state, int delta)
{
	switch (state)
	{
		case SLOT_READY:
			part->ready += delta;
			break;
		case SLOT_RUNNING:
			part->running += delta;
			break;
		case SLOT_ROLLED_BACK:
			part->rolled_back += delta;
			break;
		case SLOT_GRACE:
			part->grace += delta;
			break;
		case SLOT_FREE:
		case SLOT_LINKING:
		case SLOT_SHELVED:
			break;
	}
}

static bool
is_delivered(JobqSlotState state)
{
	return state == SLOT_RUNNING || state == SLOT_ROLLED_BACK ||
		state == SLOT_GRACE;
}

/* A breaker's probe is one as long as it is delivered under its lease. */
static void
count_probe(JobqPart *part, JobqSlot *slot, bool probe)
{
	bool		counted = (slot->flags & SLOT_PROBE) != 0;

	part->limits.probes += probe - counted;
	slot->flags = probe ? slot->flags | SLOT_PROBE : slot->flags & ~SLOT_PROBE;
}

/*
 * The slot must not be linked: its state says in which tree it is. A delivery
 * has its lease before it begins.
 */
void
jobq_slot_set_state(JobqSlot *slot, JobqSlotState state)
{
	JobqPart   *part = jobq_slot_part(slot);
	JobqSlotState old = slot->state;

	Assert(!(slot->flags & SLOT_LINKED));
	if (slot->l.probe || (slot->flags & SLOT_PROBE))
		count_probe(part, slot, slot->l.probe && is_delivered(state));
	count_state(part, old, -1);
	slot->state = state;
	count_state(part, state, 1);
	if (part->groups.on)
		jobq_group_new_state(part, slot, old);
}

/* ---- free slots ---- */

/*
 * A free slot for a part, or JOBQ_NIL. Unless any will do, the last few stay,
 * and of few a part gets no more than its share.
 */
static int32
pop_free(const JobqPart *part, bool any)
{
	int64		share = pg_atomic_read_u32(&jobq_control->share);
	int32		number = JOBQ_NIL;
	int32		next = JOBQ_NIL;

	SpinLockAcquire(&jobq_control->free_mutex);
	if (any || (jobq_control->free_count > jobq_reserved_slots() &&
				(jobq_control->free_count > jobq_few_slots() ||
				 part->ready < share)))
		number = jobq_control->free_head;
	if (number != JOBQ_NIL)
	{
		next = jobq_slots[number].node.left;
		jobq_control->free_head = next;
		jobq_control->free_count--;
	}
	SpinLockRelease(&jobq_control->free_mutex);
	if (next != JOBQ_NIL)
		jobq_prefetch(&jobq_slots[next], sizeof(JobqSlot));
	return number;
}

/* True when just now enough slots are free for a refill to be worth it. */
static bool
push_free(JobqSlot *slot)
{
	int			count;

	slot->node.right = JOBQ_NIL;
	SpinLockAcquire(&jobq_control->free_mutex);
	slot->node.left = jobq_control->free_head;
	jobq_control->free_head = jobq_slot_number(slot);
	count = ++jobq_control->free_count;
	SpinLockRelease(&jobq_control->free_mutex);
	return count == jobq_few_slots();
}

int
jobq_free_slots(void)
{
	int			count;

	SpinLockAcquire(&jobq_control->free_mutex);
	count = jobq_control->free_count;
	SpinLockRelease(&jobq_control->free_mutex);
	return count;
}

/* ---- the hash; under the hash lock ---- */

static LWLock *
hash_lock_of(uint32 bucket)
{
	return &jobq_hash_locks[bucket % JOBQ_HASH_LOCKS].lock;
}

/* The slot of a job, or JOBQ_NIL. */
static int32
chain_find(uint32 bucket, int db, uint32 gen, int64 id)
{
	int32		at = jobq_buckets[bucket];

	while (at != JOBQ_NIL)
	{
		const JobqSlot *slot = &jobq_slots[at];

		if (slot->t.id == id && slot->db == db && slot->gen == gen)
			return at;
		at = slot->hash_next;
	}
	return JOBQ_NIL;
}

static void
chain_remove(uint32 bucket, int32 number)
{
	int32	   *link = &jobq_buckets[bucket];

	while (*link != number)
		link = &jobq_slots[*link].hash_next;
	*link = jobq_slots[number].hash_next;
	jobq_slots[number].hash_next = JOBQ_NIL;
}

/* ---- finding and locking ---- */

void
jobq_slot_unlock(const JobqSlot *slot)
{
	LWLockRelease(jobq_slot_part(slot)->lock);
}

/* A job's slot with its part's lock held, or NULL and no lock. */
JobqSlot *
jobq_slot_lock(const JobqDb *db, uint32 gen, int64 id)
{
	uint32		bucket = jobq_bucket(jobq_db_index(db), id);
	LWLock	   *hash_lock = hash_lock_of(bucket);
	JobqSlot   *slot;
	int32		number;

	LWLockAcquire(hash_lock, LW_SHARED);
	number = chain_find(bucket, jobq_db_index(db), gen, id);
	if (number == JOBQ_NIL)
	{
		LWLockRelease(hash_lock);
		return NULL;
	}
	slot = &jobq_slots[number];
	LWLockAcquire(jobq_slot_part(slot)->lock, LW_EXCLUSIVE);
	LWLockRelease(hash_lock);
	if (slot->state == SLOT_LINKING)
	{
		jobq_slot_unlock(slot);
		return NULL;
	}
	return slot;
}

bool
jobq_is_entered(JobqDb *db, uint32 gen, int64 id)
{
	uint32		bucket = jobq_bucket(jobq_db_index(db), id);
	LWLock	   *hash_lock = hash_lock_of(bucket);
	bool		entered;

	LWLockAcquire(hash_lock, LW_SHARED);
	entered = chain_find(bucket, jobq_db_index(db), gen, id) != JOBQ_NIL;
	LWLockRelease(hash_lock);
	return entered;
}

static inline bool
is_slot(int32 number, const JobqSlotRef *ref)
{
	return ref->slot == JOBQ_NIL || ref->slot == number;
}

/* The same for a slot seen before, NULL unless it holds the same ticket. */
static JobqSlot *
lock_by_ref(const JobqDb *db, const JobqSlotRef *ref)
{
	JobqSlot   *slot = jobq_slot_lock(db, ref->gen, ref->id);

	if (slot != NULL &&
		(!is_slot(jobq_slot_number(slot), ref) ||
		 slot->t.ticket != ref->ticket))
	{
		jobq_slot_unlock(slot);
		return NULL;
	}
	return slot;
}

/* The same, and it is still delivered under the same lease. */
JobqSlot *
jobq_slot_lock_leased(const JobqDb *db, const JobqSlotRef *ref)
{
	JobqSlot   *slot = lock_by_ref(db, ref);

	if (slot != NULL && slot->l.lease != ref->lease)
	{
		jobq_slot_unlock(slot);
		return NULL;
	}
	return slot;
}

/* The same, and this transaction has marked it. */
JobqSlot *
jobq_slot_lock_marked(const JobqDb *db, const JobqSlotRef *ref,
					  TransactionId xid)
{
	JobqSlot   *slot = lock_by_ref(db, ref);

	if (slot != NULL && slot->mark != xid)
	{
		jobq_slot_unlock(slot);
		return NULL;
	}
	return slot;
}

void
jobq_slot_fill_ref(const JobqSlot *slot, JobqSlotRef *ref)
{
	ref->slot = jobq_slot_number(slot);
	ref->gen = slot->gen;
	ref->id = slot->t.id;
	ref->ticket = slot->t.ticket;
	ref->lease = slot->l.lease;
}

/* ---- entering ---- */

/* Everything but identity and place. */
static void
fill_slot(JobqSlot *slot, const JobqTicket *ticket, const JobqLease *lease)
{
	if (slot->flags & SLOT_PROBE)
		count_probe(jobq_slot_part(slot), slot, false);
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

/* Many will be entered: have what they need come while others are. */
void
jobq_slots_expect(int db, const JobqTicket *tickets, int n)
{
	for (int i = 0; i < n; i++)
		jobq_prefetch(&jobq_buckets[jobq_bucket(db, tickets[i].id)],
					  sizeof(int32));
	for (int i = 0; i < n; i++)
	{
		int32		first = jobq_buckets[jobq_bucket(db, tickets[i].id)];

		/* without a lock: if it is wrong by now, nothing is gained */
		if (first != JOBQ_NIL)
			jobq_prefetch(&jobq_slots[first], sizeof(JobqTreeNode));
	}
}

JobqEntered
jobq_slot_enter(JobqPart *part, int db, uint32 gen, JobqSource source,
				const JobqTicket *t, const JobqLease *l, bool any,
				int32 *number)
{
	uint32		bucket = jobq_bucket(db, t->id);
	LWLock	   *hash_lock = hash_lock_of(bucket);
	JobqEntered entered = ENTER_DONE;
	int32		found;
	int32		left = 0;

	LWLockAcquire(hash_lock, LW_EXCLUSIVE);
	found = chain_find(bucket, db, gen, t->id);
	if (found != JOBQ_NIL)
		entered = meet(&jobq_slots[found], source, t, l, &left);
	else if ((*number = pop_free(part, any)) == JOBQ_NIL)
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

/* ---- removing ---- */

bool
jobq_is_linking(const JobqSlot *slot, const JobqSlotRef *ref)
{
	return slot->state == SLOT_LINKING;
}

/*
 * Make the slot of a job free if may_go agrees. Its claimer may be waiting
 * for the start record: it has to look again.
 */
bool
jobq_slot_remove(int db, const JobqSlotRef *ref,
			bool (*may_go) (const JobqSlot *slot, const JobqSlotRef *ref))
{
	uint32		bucket = jobq_bucket(db, ref->id);
	LWLock	   *hash_lock = hash_lock_of(bucket);
	LWLock	   *part_lock;
	JobqSlot   *slot;
	JobqPart   *part;
	int32		number;
	bool		refill;
	bool		place_free;
	int			waiter = -1;
	int32		epoch;

	LWLockAcquire(hash_lock, LW_EXCLUSIVE);
	number = chain_find(bucket, db, ref->gen, ref->id);
	if (number == JOBQ_NIL || !is_slot(number, ref))
	{
		LWLockRelease(hash_lock);
		return false;
	}
	slot = &jobq_slots[number];
	part = jobq_slot_part(slot);
	part_lock = part->lock;
	LWLockAcquire(part_lock, LW_EXCLUSIVE);
	if (!may_go(slot, ref))
	{
		LWLockRelease(part_lock);
		LWLockRelease(hash_lock);
		return false;
	}
	if (slot->flags & SLOT_START_WANTED)
		waiter = slot->claim_proc;
	epoch = slot->t.epoch;
	/* one that waits for its place can be taken, if there is a limit */
	place_free = part->ready > 0 &&
		(slot->l.lease != 0 || slot->state == SLOT_SHELVED ||
		 (part->groups.on && slot->state == SLOT_READY &&
		  TransactionIdIsValid(slot->mark)));
	jobq_slot_unlink(slot);
	jobq_slot_set_state(slot, SLOT_FREE);
	chain_remove(bucket, number);
	slot->flags = 0;
	slot->mark = InvalidTransactionId;
	slot->db = -1;
	slot->gen = 0;
	slot->t.id = 0;
	LWLockRelease(part_lock);
	refill = push_free(slot);
	LWLockRelease(hash_lock);

	if (waiter >= 0)
		jobq_set_latch(waiter);
	jobq_slot_gone(&jobq_dbs[db], epoch);
	jobq_wake_if_idle(part);
	if (place_free)
		jobq_wake_waiters(part, ref->gen, 1);
	if (refill)
		jobq_wake_refillers();
	return true;
}

/* Publishers that come too late remove their slots themselves. */
static bool
is_closing(const JobqSlot *slot, const JobqSlotRef *ref)
{
	return slot->state != SLOT_LINKING && jobq_slot_part(slot)->closing;
}

static bool
is_same_ticket(const JobqSlot *slot, const JobqSlotRef *ref)
{
	return slot->state != SLOT_LINKING && slot->t.ticket == ref->ticket;
}

/* An available job that ends is one less. */
static bool
ends(const JobqSlot *slot, const JobqSlotRef *ref)
{
	if (!is_same_ticket(slot, ref))
		return false;
	if (slot->state == SLOT_READY)
		jobq_slot_part(slot)->counters[COUNT_AVAILABLE]--;
	return true;
}

static bool
is_unmarked(const JobqSlot *slot, const JobqSlotRef *ref)
{
	return is_same_ticket(slot, ref) && slot->l.lease == ref->lease &&
		!TransactionIdIsValid(slot->mark);
}

void
jobq_ref_of(const JobqSlot *copy, JobqSlotRef *ref)
{
	ref->slot = JOBQ_NIL;
	ref->gen = copy->gen;
	ref->id = copy->t.id;
	ref->ticket = copy->t.ticket;
	ref->lease = copy->l.lease;
}

void
jobq_end(JobqDb *db, const JobqSlotRef *ref)
{
	(void) jobq_slot_remove(jobq_db_index(db), ref, ends);
	jobq_wake_for_job(db, ref->id);
}

void
jobq_drop_stale(JobqDb *db, const JobqSlotRef *ref)
{
	(void) jobq_slot_remove(jobq_db_index(db), ref, is_unmarked);
}

/*
 * Looks at all slots without a lock, then again under locks. One that is
 * linked before its part was closed cannot be overlooked, and none is linked
 * after that.
 */
void
jobq_slot_drop_closing(int db)
{
	for (int32 i = 0; i < jobq_max_live_jobs; i++)
	{
		const JobqSlot *slot = &jobq_slots[i];
		JobqSlotRef ref;

		if (slot->db != db || !jobq_slot_part(slot)->closing)
			continue;
		jobq_slot_fill_ref(slot, &ref);
		(void) jobq_slot_remove(db, &ref, is_closing);
	}
}
