/*
 * slot.c: slots in the hash: finding and locking one, making it free.
 *
 * A slot in the hash stays what it is (id, part) while its part's lock is
 * held. It is found by its id, never by its number alone, which may long
 * belong to another job. Must not allocate or raise an error.
 */
#include "postgres.h"

#include "access/transam.h"

#include "compat.h"
#include "dispatch/internal.h"

/* ---- free slots ---- */

int32
jobq_pop_free(const JobqPart *part, bool any)
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

int32
jobq_chain_find(uint32 bucket, int db, uint32 gen, int64 id)
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

void
jobq_expect_jobs(const JobqDb *db, const int64 *ids, int n, bool are_there)
{
	int			index = jobq_db_index(db);
	size_t		bytes = are_there ? sizeof(JobqSlot) : sizeof(JobqTreeNode);

	for (int i = 0; i < n; i++)
		jobq_prefetch(&jobq_buckets[jobq_bucket(index, ids[i])],
					  sizeof(int32));
	for (int i = 0; i < n; i++)
	{
		int32		first = jobq_buckets[jobq_bucket(index, ids[i])];

		/* without a lock: if it is wrong by now, nothing is gained */
		if (first != JOBQ_NIL)
			jobq_prefetch(&jobq_slots[first], bytes);
	}
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
	LWLock	   *hash_lock = jobq_hash_lock_of(bucket);
	JobqSlot   *slot;
	int32		number;

	LWLockAcquire(hash_lock, LW_SHARED);
	number = jobq_chain_find(bucket, jobq_db_index(db), gen, id);
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
	LWLock	   *hash_lock = jobq_hash_lock_of(bucket);
	bool		entered;

	LWLockAcquire(hash_lock, LW_SHARED);
	entered = jobq_chain_find(bucket, jobq_db_index(db), gen, id) != JOBQ_NIL;
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
	LWLock	   *hash_lock = jobq_hash_lock_of(bucket);
	LWLock	   *part_lock;
	JobqSlot   *slot;
	JobqPart   *part;
	int32		number;
	bool		refill;
	bool		place_free;
	int			waiter = -1;
	int32		epoch;

	LWLockAcquire(hash_lock, LW_EXCLUSIVE);
	number = jobq_chain_find(bucket, db, ref->gen, ref->id);
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
