/*
 * internal.h: what the files of this room share. Not for other rooms, which
 * see dispatch.h only.
 */
#ifndef JOBQ_DISPATCH_INTERNAL_H
#define JOBQ_DISPATCH_INTERNAL_H

#include "dispatch/dispatch.h"
#include "guc.h"

#define JOBQ_HASH_LOCKS			64	/* a power of two */

/* ---- shmem.c ---- */

/*
 * The hash from (database, id) to slot: chains through hash_next, the first
 * of each in here. Bucket b is under hash lock b % JOBQ_HASH_LOCKS.
 */
extern int32 *jobq_buckets;
extern uint32 jobq_bucket_mask; /* number of buckets, a power of two, - 1 */
extern LWLockPadded *jobq_hash_locks;

/* Sequential ids land in different buckets and under different locks. */
static inline uint32
jobq_bucket(int db, int64 id)
{
	uint64		h = (uint64) id + ((uint64) (uint32) db << 48);

	h *= UINT64CONST(0x9E3779B97F4A7C15);
	return (uint32) (h >> 32) & jobq_bucket_mask;
}

/* Wake every keeper that has jobs to load from disk. */
extern void jobq_wake_refillers(void);

/* ---- part.c ---- */

/* The part of a queue; NULL when there is none, or db has been reset. */
extern JobqPart *jobq_part_find(JobqDb *db, uint32 gen, int32 queue_id);

/* What a backend expects to find in a part; called once by the postmaster. */
extern void jobq_part_prepare(void);

static inline int
jobq_part_index(const JobqPart *part)
{
	return (int) (part - jobq_parts);
}

/* Is the part (under its lock) still open, and of this reset and queue? */
static inline bool
jobq_part_is(const JobqPart *part, uint32 gen, int32 queue_id)
{
	return part->db >= 0 && !part->closing && part->gen == gen &&
		part->queue_id == queue_id;
}

/*
 * The same for a part that the caller got earlier: it may have been freed
 * and given to another queue since then.
 */
extern bool jobq_part_is_mine(const JobqPart *part, uint32 gen);

/*
 * Free all parts of a database, and their slots, that are older than
 * generation `keep`: generations ascend.
 */
extern void jobq_part_free_before(JobqDb *db, uint32 keep);

/* ---- slot.c ---- */

/*
 * Slots that only leases and steering may use; below the second number a queue
 * may not fill more than its share, and keepers hear when as many are free.
 */
static inline int
jobq_reserved_slots(void)
{
	return Max(2, jobq_max_live_jobs / 64);
}

static inline int
jobq_few_slots(void)
{
	return Max(4, jobq_max_live_jobs / 8);
}

static inline int32
jobq_slot_number(const JobqSlot *slot)
{
	return (int32) (slot - jobq_slots);
}

static inline JobqPart *
jobq_slot_part(const JobqSlot *slot)
{
	return &jobq_parts[slot->part];
}

/* Bring memory nearer that is about to be used. */
static inline void
jobq_prefetch(const void *address, size_t bytes)
{
#ifdef __GNUC__
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch((const char *) address + at, 1);
#endif
}

extern const JobqTreeType jobq_ready_tree;	/* priority, run_at, id */
extern const JobqTreeType jobq_lease_tree;	/* expires_at, id */
extern const JobqTreeType jobq_expiry_tree; /* the ticket's expires_at, id */
extern int	jobq_compare_tickets(const JobqTicket *a, const JobqTicket *b);

/*
 * Into or out of the tree that the slot's state asks for; to unlink one that
 * is in none, because it is marked, does nothing. The state changes only
 * while it is unlinked. All under the part's lock.
 */
extern void jobq_slot_link(JobqSlot *slot);
extern void jobq_slot_unlink(JobqSlot *slot);
extern void jobq_slot_set_state(JobqSlot *slot, JobqSlotState state);

/* An available slot that has expired: nobody takes it any more. */
extern void jobq_slot_set_aside(JobqSlot *slot);

/*
 * A slot for a ticket: into the hash, in no tree yet (SLOT_LINKING). HELD: the
 * job has one, with an older ticket that is in somebody's hands. NO_SLOT: the
 * part may have no more, or, with any, there is none.
 */
typedef enum JobqEntered
{
	ENTER_DONE,
	ENTER_PRESENT,
	ENTER_HELD,
	ENTER_NO_SLOT
} JobqEntered;

extern void jobq_slots_expect(int db, const JobqTicket *tickets, int n);
extern JobqEntered jobq_slot_enter(JobqPart *part, int db, uint32 gen,
								   const JobqTicket *t, const JobqLease *l,
								   bool any, int32 *number);

/*
 * Link what was entered, smallest expiry in *first_expiry; if the part has
 * gone meanwhile, take it out again. since, of a publisher, as in dispatch.h;
 * what somebody may have ended as being on disk only stays there.
 */
extern void jobq_slots_link(JobqPart *part, uint32 gen, int32 queue_id,
							const int32 *numbers, int n, const uint64 *since,
							TimestampTz *first_expiry);

/*
 * A job's slot with its part's lock held exclusive, or NULL and no lock: by
 * id; also under this lease; also marked by this transaction.
 */
extern JobqSlot *jobq_slot_lock(const JobqDb *db, uint32 gen, int64 id);
extern JobqSlot *jobq_slot_lock_leased(const JobqDb *db,
									   const JobqSlotRef *ref);
extern JobqSlot *jobq_slot_lock_marked(const JobqDb *db,
									   const JobqSlotRef *ref,
									   TransactionId xid);
extern void jobq_slot_unlock(const JobqSlot *slot);
extern void jobq_slot_fill_ref(const JobqSlot *slot, JobqSlotRef *ref);

/* Make the slot of a job free if, under all locks, may_go says so. */
extern bool jobq_slot_remove(int db, const JobqSlotRef *ref,
							 bool (*may_go) (const JobqSlot *slot,
											 const JobqSlotRef *ref));

/* It was never linked. */
extern bool jobq_is_linking(const JobqSlot *slot, const JobqSlotRef *ref);

/* ---- wait.c ---- */

extern Size jobq_wait_shmem_size(void);
extern void jobq_wait_shmem_init(void);
extern void jobq_part_waiters_init(JobqPart *part);
extern void jobq_part_waiters_reset(JobqPart *part);

/* All who wait for it are to look again. */
extern void jobq_wake_all_waiters(JobqPart *part, uint32 gen);

#ifdef JOBQ_TEST_BUILD
extern bool jobq_part_waiters_sound(const JobqPart *part);
#endif

/* Jobs of the queue have gone: if it is idle, those who wait for that look. */
extern void jobq_wake_if_idle(JobqPart *part);

/* ---- frontier.c ---- */

/* Under the part's lock: tickets from key on may be on disk only. */
extern void jobq_retreat(JobqPart *part, const JobqKey *key);

/* Under the part's lock: must the keeper be woken for it, as news? */
extern bool jobq_part_asks(JobqPart *part);

/*
 * Is an open transaction other than `mine` the queue's holder? Tickets without
 * a slot are its to end. *holder is the one that was found, ended or not.
 */
extern bool jobq_is_held(JobqPart *part, TransactionId mine,
						 TransactionId *holder);

/*
 * Push the last available slot of the queue out to disk, if it comes after
 * key (NULL: whatever it is).
 */
extern bool jobq_push_out(JobqPart *part, uint32 gen, const JobqKey *key);

/*
 * jobq_slot_enter; where there is no slot the queue's last job makes room: for
 * one that must have a slot in any case, else only if it comes after it.
 */
extern JobqEntered jobq_enter_or_push_out(JobqPart *part, int db, uint32 gen,
										  const JobqTicket *t,
										  const JobqLease *l, bool must,
										  int32 *number);

/* Drop all slots of closing parts of a database. */
extern void jobq_slot_drop_closing(int db);

#endif							/* JOBQ_DISPATCH_INTERNAL_H */
