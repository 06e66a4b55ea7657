/*
 * internal.h: what the files of this room share. Not for other rooms, which
 * see dispatch.h only.
 */
#ifndef JOBQ_DISPATCH_INTERNAL_H
#define JOBQ_DISPATCH_INTERNAL_H

#include "dispatch/bucket.h"
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

static inline uint32
jobq_bucket(int db, int64 id)
{
	return jobq_bucket_hash(db, id) & jobq_bucket_mask;
}

/* Wake every keeper that has jobs to load from disk. */
extern void jobq_wake_refillers(void);

/* ---- windowpool.c ---- */

extern Size jobq_window_pool_size(void);
extern void jobq_window_pool_startup(void);

/* ---- audit.c ---- */

extern Size jobq_refusals_size(void);
extern void jobq_refusals_init(LWLock *lock);

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

/* The same with its lock held exclusive, or NULL and no lock. */
extern JobqPart *jobq_part_lock(JobqDb *db, uint32 gen, int32 queue_id);

/* Under its lock: these are the queue's rules now. */
extern void jobq_part_follow(JobqPart *part, const JobqRules *rules);

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

/* Where it stands in its part's ready tree. */
static inline JobqKey
jobq_slot_key(const JobqSlot *slot)
{
	return jobq_key_of(&slot->t, jobq_slot_part(slot)->aging);
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

/* Does the slot go before the ticket, in the part's order? */
static inline bool
jobq_comes_before(const JobqPart *part, const JobqSlot *slot,
				  const JobqTicket *t)
{
	JobqKey		key = jobq_slot_key(slot);
	JobqKey		other = jobq_key_of(t, part->aging);

	return jobq_key_before(&key, &other);
}

/* ---- slotstate.c ---- */

extern int	jobq_compare_ready(const void *a, const void *b);
extern const JobqTreeType jobq_ready_tree;	/* jobq_slot_key() */
extern const JobqTreeType jobq_lease_tree;	/* expires_at, id */
extern const JobqTreeType jobq_expiry_tree; /* the ticket's expires_at, id */

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

/* It gets another ticket: if it was a breaker's probe, it is none any more. */
extern void jobq_slot_forget_probe(JobqSlot *slot);

/* ---- slotenter.c ---- */

/*
 * A slot for a ticket: into the hash, in no tree yet (SLOT_LINKING). HELD: the
 * job has one, with an older ticket that is in somebody's hands. NO_SLOT: the
 * part may have no more, or, with any, there is none.
 */
typedef enum JobqSource
{
	FROM_COMMIT,				/* its transaction says that the job is there */
	FROM_DISK					/* found; the job may have gone on since */
} JobqSource;

typedef enum JobqEntered
{
	ENTER_DONE,
	ENTER_PRESENT,
	ENTER_HELD,
	ENTER_NO_SLOT
} JobqEntered;

extern JobqEntered jobq_slot_enter(JobqPart *part, int db, uint32 gen,
								   JobqSource source, const JobqTicket *t,
								   const JobqLease *l, bool any,
								   int32 *number);

/*
 * Link what was entered, smallest expiry in *first_expiry; if the part has
 * gone meanwhile, take it out again. since, of a publisher, as in dispatch.h;
 * what somebody may have ended as being on disk only stays there.
 */
extern void jobq_slots_link(JobqPart *part, uint32 gen, int32 queue_id,
							const int32 *numbers, int n, const uint64 *since,
							TimestampTz *first_expiry);

/* ---- slot.c, the rest ---- */

static inline LWLock *
jobq_hash_lock_of(uint32 bucket)
{
	return &jobq_hash_locks[bucket % JOBQ_HASH_LOCKS].lock;
}

/* Under the hash lock: the slot of a job, or JOBQ_NIL. */
extern int32 jobq_chain_find(uint32 bucket, int db, uint32 gen, int64 id);

/*
 * A free slot for a part, or JOBQ_NIL. Unless any will do, the last few stay,
 * and of few a part gets no more than its share.
 */
extern int32 jobq_pop_free(const JobqPart *part, bool any);

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

/* ---- late.c ---- */

extern Size jobq_late_size(void);
extern void jobq_late_init(void);

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
 * jobq_slot_enter; where there is no slot the queue's last job makes room: for
 * one that must have a slot in any case, else only if it comes after it.
 */
extern JobqEntered jobq_enter_or_push_out(JobqPart *part, int db, uint32 gen,
										  JobqSource source,
										  const JobqTicket *t,
										  const JobqLease *l, bool must,
										  int32 *number);

/* Drop all slots of closing parts of a database. */
extern void jobq_slot_drop_closing(int db);

/* Under the part's lock: may this available slot be handed out? */
extern bool jobq_is_before_frontier(const JobqPart *part,
									const JobqSlot *slot);

/* Push this one out, if it is still there. */
extern bool jobq_push_out_slot(int db, const JobqSlotRef *ref);

/* ---- group.c; all but the pool under the part's lock ---- */

extern JobqGroup *jobq_groups;
extern int32 jobq_group_count(void);
extern Size jobq_group_pool_size(void);
extern void jobq_group_pool_startup(void);

/* Is there an entry for another group? */
extern bool jobq_groups_have_room(void);

/* Entries not in use, chained through by_key.left. */
extern int32 jobq_group_free_entries(int32 *first);

extern void jobq_part_groups_reset(JobqPart *part);
extern JobqGroup *jobq_group_find(const JobqPart *part,
								  const JobqGroupKey *key);

/* The same, made when missing; NULL when there is no entry left. */
extern JobqGroup *jobq_group_get(JobqPart *part, const JobqGroupKey *key,
								 bool must);

/*
 * Bring a slot to where it belongs in its group, after its flags or mark, or,
 * in the second form, its state have changed. Only where groups are on.
 */
extern void jobq_group_sync(JobqPart *part, JobqSlot *slot);
extern void jobq_group_new_state(JobqPart *part, JobqSlot *slot,
								 JobqSlotState old);

/* In which of its group's trees does it belong? */
extern JobqGroupTree jobq_group_tree_for(const JobqSlot *slot);

/* A slot gets an entry (false: there is none), and leaves it. */
extern bool jobq_group_join(JobqPart *part, JobqSlot *slot);
extern void jobq_group_leave(JobqPart *part, JobqSlot *slot);

/* A started job that keeps its place: it is always in memory. */
extern bool jobq_is_kept(const JobqPart *part, const JobqTicket *t);

/* A group that nothing refers to goes. */
extern void jobq_group_forget_unused(JobqPart *part, JobqGroup *group);

/* The part's rules are others than before. */
extern void jobq_group_rules_changed(JobqPart *part, const JobqRules *old);

/*
 * One step of what a change of rules needs; true when all is done. Up to
 * JOBQ_CHUNK slots that find no entry come back, to be pushed out; with
 * strays_too all are looked at again if there are any.
 */
extern bool jobq_groups_catch_up(JobqPart *part, bool strays_too,
								 JobqSlotRef *strays, int *nstrays);

/* Do slots that must have an entry find none? */
extern bool jobq_groups_lack_entries(const JobqPart *part);

/* Is everything known that decides what may be delivered? */
extern bool jobq_groups_ready(const JobqPart *part);

/* Of all groups of a part, the next by key; NULL: the first. */
/* Under the part's lock: before and after its order changes. */
extern int32 jobq_groups_unorder(JobqPart *part);
extern void jobq_groups_reorder(JobqPart *part, int32 list);
extern JobqGroup *jobq_group_after(const JobqPart *part,
								   const JobqGroup *after);

/* ---- groupspill.c; under the part's lock, but for the last two ---- */

/* Is some of it on disk only, before the part's frontier? */
static inline bool
jobq_group_is_spilled(const JobqGroup *group)
{
	return group->frontier.priority != JOBQ_KEY_END;
}

/* The caller settles the group. */
extern void jobq_group_set_frontier(JobqPart *part, JobqGroup *group,
									const JobqKey *key);

/* Note whether it has little in memory, or more than its share. */
extern void jobq_group_weigh(JobqPart *part, JobqGroup *group);
extern bool jobq_is_before_group_frontier(const JobqGroup *group,
										  const JobqSlot *slot);

/* A publisher's ticket: is it behind its group's frontier, so that it stays
 * on disk? And only the question. */
extern bool jobq_group_leaves_out(JobqPart *part, const JobqTicket *t);
extern bool jobq_is_behind_group(const JobqPart *part, const JobqTicket *t);

/* A refill's: does it stay on disk? */
extern bool jobq_group_skips(JobqPart *part, const JobqTicket *t);

/* Where a refill of groups has to begin, and that it has come to its end. */
extern bool jobq_group_first_frontier(JobqPart *part, uint32 gen,
									  JobqKey *from);
extern void jobq_group_refill_end(JobqPart *part, uint32 gen,
								  const JobqKey *reached);

#ifdef JOBQ_TEST_BUILD
/* ---- checktree.c ---- */

/* Elements are numbered from 0 to n - 1 and lie as in a JobqTreeType. */
extern bool jobq_tree_is_sound(const void *base, size_t stride, size_t offset,
							   const JobqTree *tree, int n);

/* ---- checkgroup.c ---- */

/* Memory for it, one element for each group. */
typedef struct JobqGroupCheck
{
	JobqGroup  *expected;
	bool	   *met;
} JobqGroupCheck;

/*
 * What is wrong with a part's groups, under its lock, or NULL. Its slots are
 * chained through next[]; the stack has room for all slots.
 */
extern const char *jobq_groups_check(const JobqPart *part,
									 JobqGroupCheck *check, int32 first_slot,
									 const int32 *next, int32 *stack);
extern bool jobq_groups_check_free(JobqGroupCheck *check);
#endif

/* ---- groupuse.c ---- */

/*
 * Under the part's lock: does an own uncommitted job need a place in its
 * group, and gets it one?
 */
extern JobqOwnPlace jobq_group_take_own(JobqPart *part, const JobqTicket *t,
										TimestampTz now);

/* ---- turn.c; under the part's lock ---- */

/* The slot that goes next, or JOBQ_NIL. */
extern int32 jobq_group_choose(const JobqPart *part, const JobqGroup *group);

extern const JobqTreeType jobq_group_slots; /* the trees of a group */
extern int	jobq_group_compare_keys(const JobqGroupKey *a,
									const JobqGroupKey *b);

/* How many of a group may run, 0 = any number. */
extern int32 jobq_group_limit(const JobqPart *part, const JobqGroup *group);

/* How fast, limit 0 = at any speed. */
extern JobqRate jobq_group_rate(const JobqPart *part, const JobqGroup *group);

/* No place for a job that has, or has not, been started before? */
extern bool jobq_group_is_full(const JobqPart *part, const JobqGroup *group,
							   bool started);

/* Not before that time, for a pause or a rate limit; now = at once. */
extern TimestampTz jobq_group_not_before(const JobqPart *part,
										 JobqGroup *group, TimestampTz now);

/* After a change of its jobs; the second also if it was asleep. */
extern void jobq_group_settle(JobqPart *part, JobqGroup *group);
extern void jobq_group_wake(JobqPart *part, JobqGroup *group);
extern void jobq_group_unlink_turn(JobqPart *part, JobqGroup *group);
extern void jobq_group_set_oldest(JobqPart *part, JobqGroup *group,
								  TimestampTz oldest);

/* What its oldest is, and that of all groups of the part. */
extern TimestampTz jobq_group_oldest(const JobqPart *part,
									 const JobqGroup *group);
extern TimestampTz jobq_groups_oldest(const JobqPart *part);

/* run_at of the oldest of a tree of slots, looking at so many priorities. */
extern TimestampTz jobq_oldest_of(const JobqPart *part,
								  const JobqTreeType *type,
								  const JobqTree *tree,
								  int priorities);

/* The oldest of a part's ready trees. */
extern TimestampTz jobq_look_for_oldest(const JobqPart *part);

extern TimestampTz jobq_group_next_wake(const JobqPart *part);

/*
 * The slot that goes next, or JOBQ_NIL; *skipped counts what was looked at
 * besides, and when it reaches JOBQ_CHUNK there may be more.
 */
extern int32 jobq_group_next(JobqPart *part, TimestampTz now, int *skipped);

/* Do its jobs keep their places while they wait for another attempt? */
extern bool jobq_group_keeps_places(const JobqPart *part,
									const JobqGroup *group);

/* The first place in the order of all groups that may go; NULL: none may. */
extern const JobqKey *jobq_group_first(const JobqPart *part);

/*
 * Where jobs go in their order: none of it is in memory, and its first job on
 * disk could go. Then it has its turn, and holds those that come after it.
 */
extern bool jobq_group_waits_for_disk(const JobqPart *part,
									  const JobqGroup *group);

/*
 * A refill has ended, of the queue or of groups: which groups are held may be
 * another matter now.
 */
extern void jobq_group_refilled(JobqPart *part, bool groups, bool crowded);
extern void jobq_group_taken(JobqPart *part, JobqGroup *group, int64 id,
							 TimestampTz now);

/* It was not handed out after all. */
extern void jobq_group_not_taken(JobqPart *part, JobqGroup *group,
								 TimestampTz claimed_at);

/* Does it stay without jobs, as what it has delivered still counts? */
extern bool jobq_group_outlives_jobs(JobqPart *part, JobqGroup *group);

#endif							/* JOBQ_DISPATCH_INTERNAL_H */
