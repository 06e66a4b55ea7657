/*
 * check.c: is shared memory consistent? For test suites, between their steps.
 *
 * Exists in test builds only. Must not change anything.
 */
#include "postgres.h"

#ifdef JOBQ_TEST_BUILD

#include "access/transam.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "dispatch/internal.h"

PG_FUNCTION_INFO_V1(jobq_test_check_dispatch);

typedef enum Tree
{
	TREE_READY = 1,
	TREE_LEASE = 2,
	TREE_EXPIRY = 4,
	TREE_KEPT = 8				/* ready, and it keeps a place in its group */
} Tree;

/* What is found, by slot; allocated before the first lock is taken. */
typedef struct Walk
{
	uint8	   *hashed;			/* how often met in the hash */
	uint8	   *trees;			/* Tree, a sum of bits */
	bool	   *is_free;
	int32	   *part_first;		/* by part: slots in the hash, chained ... */
	int32	   *next;			/* ... through this */
	int32	   *stack;
	JobqGroupCheck groups;
	char	   *why;
	size_t		len;
	bool		ok;
} Walk;

/* The first complaint stays. */
static void
wrong(Walk *walk, const char *what, int64 which)
{
	if (walk->ok)
		snprintf(walk->why, walk->len, "%s (" INT64_FORMAT ")", what, which);
	walk->ok = false;
}

static void
check_hash(Walk *walk)
{
	for (uint32 b = 0; b <= jobq_bucket_mask; b++)
	{
		int32		at = jobq_buckets[b];

		while (at != JOBQ_NIL)
		{
			const JobqSlot *slot = &jobq_slots[at];

			if (walk->hashed[at])
			{
				wrong(walk, "slot is in the hash twice", at);
				return;
			}
			walk->hashed[at] = 1;
			if (slot->db < 0 || slot->state == SLOT_FREE)
				wrong(walk, "free slot is in the hash", at);
			else if (jobq_bucket(slot->db, slot->t.id) != b)
				wrong(walk, "slot is in the wrong bucket", at);
			walk->next[at] = walk->part_first[slot->part];
			walk->part_first[slot->part] = at;
			at = slot->hash_next;
		}
	}
}

static void
check_free(Walk *walk)
{
	int			n = 0;
	int32		at;

	SpinLockAcquire(&jobq_control->free_mutex);
	at = jobq_control->free_head;
	while (at != JOBQ_NIL && n <= jobq_max_live_jobs)
	{
		walk->is_free[at] = true;
		n++;
		at = jobq_slots[at].node.left;
	}
	at = jobq_control->free_count;
	SpinLockRelease(&jobq_control->free_mutex);

	if (n != at)
		wrong(walk, "free_count differs from the length of the free list", n);
	for (int i = 0; i < jobq_max_live_jobs; i++)
	{
		if (walk->is_free[i] == (walk->hashed[i] != 0))
			wrong(walk, "slot is not in exactly one of free list and hash", i);
		if (walk->is_free[i] && jobq_slots[i].state != SLOT_FREE)
			wrong(walk, "slot in the free list is not free", i);
	}
}

/* Note who is in a tree. */
static void
walk_tree(Walk *walk, const JobqTreeType *type, const JobqTree *set,
		  Tree tree, int32 part)
{
	int			depth = 0;

	if (!jobq_tree_is_sound(jobq_slots, type->stride, type->offset, set,
							jobq_max_live_jobs))
	{
		wrong(walk, "a tree is not linked as it should be", part);
		return;
	}
	if (!jobq_tree_is_empty(set))
		walk->stack[depth++] = set->root;
	while (depth > 0)
	{
		int32		at = walk->stack[--depth];
		const JobqSlot *slot = &jobq_slots[at];
		const JobqTreeNode *node = (const JobqTreeNode *)
		((const char *) slot + type->offset);

		if (walk->trees[at] & tree)
		{
			wrong(walk, "slot is in a tree twice", at);
			return;
		}
		walk->trees[at] |= tree;
		if (slot->part != part || !walk->hashed[at])
		{
			wrong(walk, "slot is in a tree of another part", at);
			return;
		}
		if (node->left != JOBQ_NIL)
			walk->stack[depth++] = node->left;
		if (node->right != JOBQ_NIL)
			walk->stack[depth++] = node->right;
	}
}

/* The trees that its state asks for. */
static int
trees_of(const JobqSlot *slot)
{
	int			trees = 0;

	if (slot->state == SLOT_LINKING || slot->state == SLOT_SHELVED ||
		TransactionIdIsValid(slot->mark))
		return 0;
	if (slot->state != SLOT_READY)
		return TREE_LEASE;
	if (slot->t.expires_at != DT_NOEND)
		trees |= TREE_EXPIRY;
	if (!(slot->flags & SLOT_ASIDE))
		trees |= slot->flags & SLOT_KEPT ? TREE_KEPT : TREE_READY;
	return trees;
}

static void
check_slot(Walk *walk, int32 at, const JobqPart *part)
{
	const JobqSlot *slot = &jobq_slots[at];
	int			trees = trees_of(slot);

	if (((slot->flags & SLOT_LINKED) != 0) != (trees != 0))
		wrong(walk, "slot's linked flag is wrong", at);
	if ((slot->flags & SLOT_ASIDE) && trees != TREE_EXPIRY)
		wrong(walk, "slot is aside although it does not expire", at);
	if (walk->trees[at] != trees)
		wrong(walk, "slot is not in the trees that its state asks for", at);
	if ((slot->flags & SLOT_KEPT) && slot->state != SLOT_READY)
		wrong(walk, "slot keeps a place although it is not ready", at);
	if (slot->state == SLOT_LINKING)
		return;
	if (slot->db != part->db || slot->gen != part->gen ||
		slot->t.queue_id != part->queue_id)
		wrong(walk, "slot is of another queue than its part", at);
	if (slot->state == SLOT_READY &&
		(slot->flags & (SLOT_CLAIM_OPEN | SLOT_START_WANTED)))
		wrong(walk, "available slot has a claim", at);
}

static void
check_part(Walk *walk, int index)
{
	const JobqPart *part = &jobq_parts[index];
	int64		states[SLOT_SHELVED + 1] = {0};
	int64		start_wanted = 0;
	int64		probes = 0;
	const char *groups;

	LWLockAcquire(part->lock, LW_SHARED);
	walk_tree(walk, &jobq_ready_tree, &part->ready_tree, TREE_READY, index);
	walk_tree(walk, &jobq_ready_tree, &part->groups.kept, TREE_KEPT, index);
	walk_tree(walk, &jobq_lease_tree, &part->lease_tree, TREE_LEASE, index);
	walk_tree(walk, &jobq_expiry_tree, &part->expiry_tree, TREE_EXPIRY, index);
	for (int32 at = walk->part_first[index]; at != JOBQ_NIL;
		 at = walk->next[at])
	{
		check_slot(walk, at, part);
		states[jobq_slots[at].state]++;
		if (jobq_slots[at].flags & SLOT_PROBE)
			probes++;
		if ((jobq_slots[at].flags & SLOT_LINKED) &&
			(jobq_slots[at].flags & SLOT_START_WANTED))
			start_wanted++;
	}
	groups = jobq_groups_check(part, &walk->groups, walk->part_first[index],
							   walk->next, walk->stack);
	if (groups != NULL)
		wrong(walk, groups, part->queue_id);
	if (part->oldest != JOBQ_OLDEST_UNKNOWN && part->aging == 0 &&
		part->oldest != jobq_look_for_oldest(part))
		wrong(walk, "the oldest job is another one", part->queue_id);
	if (part->ready != states[SLOT_READY])
		wrong(walk, "count of available slots is wrong", part->ready);
	if (part->running != states[SLOT_RUNNING])
		wrong(walk, "count of running slots is wrong", part->running);
	if (part->rolled_back != states[SLOT_ROLLED_BACK])
		wrong(walk, "count of rolled-back slots is wrong", part->rolled_back);
	if (part->grace != states[SLOT_GRACE])
		wrong(walk, "count of cancelled slots is wrong", part->grace);
	if (part->limits.probes < probes)
		wrong(walk, "count of probes is wrong", part->limits.probes);
	if (part->start_wanted != start_wanted)
		wrong(walk, "count of wanted starts is wrong", part->start_wanted);
	if (!jobq_part_waiters_sound(part))
		wrong(walk, "a list of waiters is broken", index);
	LWLockRelease(part->lock);
}

/* The database's own entry. */
static void
check_db(Walk *walk, JobqDb *db)
{
	int64		next;
	int64		limit;
	int64		spare;
	uint32		gen;

	SpinLockAcquire(&db->mutex);
	next = db->number_next;
	limit = db->number_limit;
	spare = db->spare_start;
	gen = db->gen;
	SpinLockRelease(&db->mutex);

	if (next > limit)
		wrong(walk, "numbers were handed out beyond their block", next);
	if (spare != 0 && spare < limit)
		wrong(walk, "spare block of numbers does not ascend", spare);
	for (int i = 0; i < jobq_max_queues; i++)
		if (jobq_parts[i].db == jobq_db_index(db) && jobq_parts[i].gen > gen)
			wrong(walk, "part is of a generation to come", i);
}

/*
 * All hash locks are held throughout, so nothing enters or leaves; they are
 * taken in order, and nobody else takes a second one.
 */
bool
jobq_dispatch_check(JobqDb *db, char *why, size_t len)
{
	Walk		walk;

	walk.hashed = palloc0(jobq_max_live_jobs);
	walk.trees = palloc0(jobq_max_live_jobs);
	walk.is_free = palloc0(sizeof(bool) * jobq_max_live_jobs);
	walk.next = palloc(sizeof(int32) * jobq_max_live_jobs);
	walk.stack = palloc(sizeof(int32) * (jobq_max_live_jobs + 2));
	walk.part_first = palloc(sizeof(int32) * jobq_max_queues);
	walk.groups.expected = palloc(sizeof(JobqGroup) * jobq_group_count());
	walk.groups.met = palloc(jobq_group_count());
	for (int i = 0; i < jobq_max_queues; i++)
		walk.part_first[i] = JOBQ_NIL;
	walk.why = why;
	walk.len = len;
	walk.ok = true;

	for (int i = 0; i < JOBQ_HASH_LOCKS; i++)
		LWLockAcquire(&jobq_hash_locks[i].lock, LW_SHARED);
	check_hash(&walk);
	check_free(&walk);
	if (!jobq_groups_check_free(&walk.groups))
		wrong(&walk, "group is not in exactly one of free list and part", 0);
	for (int i = 0; i < jobq_max_queues; i++)
		check_part(&walk, i);
	for (int i = JOBQ_HASH_LOCKS - 1; i >= 0; i--)
		LWLockRelease(&jobq_hash_locks[i].lock);
	check_db(&walk, db);

	pfree(walk.hashed);
	pfree(walk.trees);
	pfree(walk.is_free);
	pfree(walk.next);
	pfree(walk.stack);
	pfree(walk.part_first);
	pfree(walk.groups.expected);
	pfree(walk.groups.met);
	return walk.ok;
}

/* NULL when all is well, else what is not. */
Datum
jobq_test_check_dispatch(PG_FUNCTION_ARGS)
{
	JobqDb	   *db = jobq_db_find(MyDatabaseId);
	char		why[200];

	if (db == NULL || jobq_dispatch_check(db, why, sizeof(why)))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(why));
}

#endif							/* JOBQ_TEST_BUILD */
