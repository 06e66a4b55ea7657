/*
 * group.c: the groups of a part: their entries, which slots belong to them and
 * how many of these run, wait, or keep a place.
 *
 * All but the pool is under the part's lock. Must not allocate or raise an
 * error; which group's turn it is, is turn.c's business.
 */
#include "postgres.h"

#include "access/transam.h"
#include "common/hashfn.h"
#include "storage/shmem.h"

#include "dispatch/internal.h"

#define MIN_GROUPS		64
#define JOBS_A_GROUP	4
#define SLOTS_A_STEP	1024	/* slots looked at in one lock hold */

/* Entries that are not in use: chained through by_key.left. */
typedef struct GroupPool
{
	slock_t		mutex;
	int32		free;
	int32		nfree;
} GroupPool;

static GroupPool *pool;
JobqGroup  *jobq_groups;

/* ---- the pool ---- */

int32
jobq_group_count(void)
{
	return Max(MIN_GROUPS, jobq_max_live_jobs / JOBS_A_GROUP);
}

static Size
groups_size(void)
{
	return mul_size((Size) jobq_group_count(), sizeof(JobqGroup));
}

Size
jobq_group_pool_size(void)
{
	return add_size(MAXALIGN(sizeof(GroupPool)), MAXALIGN(groups_size()));
}

void
jobq_group_pool_startup(void)
{
	bool		found;

	pool = ShmemInitStruct("pg_jobq group pool", sizeof(GroupPool), &found);
	jobq_groups = ShmemInitStruct("pg_jobq groups", groups_size(), &found);
	if (found)
		return;
	SpinLockInit(&pool->mutex);
	pool->free = 0;
	pool->nfree = jobq_group_count();
	memset(jobq_groups, 0, groups_size());
	for (int32 i = 0; i < jobq_group_count(); i++)
	{
		jobq_groups[i].part = -1;
		jobq_groups[i].by_key.left = i + 1 < jobq_group_count() ? i + 1 :
			JOBQ_NIL;
	}
}

/* The last few are for jobs that must have one. */
static int32
reserved(void)
{
	return jobq_group_count() / 16;
}

/* Without lock: it will be asked again. */
bool
jobq_groups_have_room(void)
{
	return pool->nfree > reserved();
}

static int32
pop_free(bool must)
{
	int32		number = JOBQ_NIL;

	SpinLockAcquire(&pool->mutex);
	if (must || pool->nfree > reserved())
		number = pool->free;
	if (number != JOBQ_NIL)
	{
		pool->free = jobq_groups[number].by_key.left;
		pool->nfree--;
	}
	SpinLockRelease(&pool->mutex);
	return number;
}

static void
push_free(int32 number)
{
	SpinLockAcquire(&pool->mutex);
	jobq_groups[number].by_key.left = pool->free;
	pool->free = number;
	pool->nfree++;
	SpinLockRelease(&pool->mutex);
}

int32
jobq_group_free_entries(int32 *first)
{
	int32		nfree;

	SpinLockAcquire(&pool->mutex);
	*first = pool->free;
	nfree = pool->nfree;
	SpinLockRelease(&pool->mutex);
	return nfree;
}

/* ---- entries ---- */

JobqGroupKey
jobq_group_key(const char *key, int length)
{
	JobqGroupKey hash;

	for (int i = 0; i < 2; i++)
		hash.hash[i] = hash_bytes_extended((const unsigned char *) key, length,
										   jobq_control->group_seed[i]);
	/* all zeroes would be no key */
	hash.hash[1] |= 1;
	return hash;
}

static int
compare_groups(const void *a, const void *b)
{
	return jobq_group_compare_keys(&((const JobqGroup *) a)->key,
								   &((const JobqGroup *) b)->key);
}

static const JobqTreeType key_tree = {
	sizeof(JobqGroup), offsetof(JobqGroup, by_key), compare_groups
};

JobqGroup *
jobq_group_find(const JobqPart *part, const JobqGroupKey *key)
{
	int32		at = part->groups.by_key.root;

	while (at != JOBQ_NIL)
	{
		JobqGroup  *group = &jobq_groups[at];
		int			order = jobq_group_compare_keys(key, &group->key);

		if (order == 0)
			return group;
		at = order < 0 ? group->by_key.left : group->by_key.right;
	}
	return NULL;
}

JobqGroup *
jobq_group_get(JobqPart *part, const JobqGroupKey *key, bool must)
{
	JobqGroup  *group = jobq_group_find(part, key);
	int32		number;

	if (group != NULL || (number = pop_free(must)) == JOBQ_NIL)
		return group;
	group = &jobq_groups[number];
	memset(group, 0, sizeof(*group));
	group->key = *key;
	group->part = jobq_part_index(part);
	group->place.priority = JOBQ_KEY_END;
	group->next = JOBQ_NIL;
	group->frontier.priority = JOBQ_KEY_END;
	group->oldest = JOBQ_NEVER;
	for (int i = 0; i < GROUP_TREES; i++)
		jobq_tree_init(&group->trees[i]);
	jobq_tree_insert(&key_tree, jobq_groups, &part->groups.by_key, number);
	return group;
}

static void
free_group(JobqPart *part, JobqGroup *group)
{
	static const JobqKey end = {.priority = JOBQ_KEY_END};
	int32		number = (int32) (group - jobq_groups);

	jobq_group_unlink_turn(part, group);
	jobq_group_set_oldest(part, group, JOBQ_NEVER);
	jobq_group_set_frontier(part, group, &end);
	Assert(!group->hungry && !group->fat);
	jobq_window_clear(&group->window);
	jobq_tree_remove(&key_tree, jobq_groups, &part->groups.by_key, number);
	group->part = -1;
	push_free(number);
}

void
jobq_group_forget_unused(JobqPart *part, JobqGroup *group)
{
	if (group->slots == 0 && group->own == 0 && !jobq_rules_alter_group(&group->rules) &&
		!jobq_group_is_spilled(group) &&
		!jobq_group_outlives_jobs(part, group))
		free_group(part, group);
}

/* ---- belonging to a group ---- */

static void
count(JobqGroup *group, const JobqSlot *slot, JobqSlotState state, int delta)
{
	switch (state)
	{
		case SLOT_RUNNING:
		case SLOT_GRACE:
			group->active += delta;
			break;
		case SLOT_READY:
			if (slot->t.started)
				group->kept += delta;
			break;
		case SLOT_ROLLED_BACK:
		case SLOT_SHELVED:
			group->kept += delta;
			break;
		case SLOT_FREE:
		case SLOT_LINKING:
			break;
	}
}

JobqGroupTree
jobq_group_tree_for(const JobqSlot *slot)
{
	if (slot->state != SLOT_READY)
		return GROUP_TREE_NONE;
	if (TransactionIdIsValid(slot->mark))
		return GROUP_TREE_MARKED;
	if (!(slot->flags & SLOT_LINKED) || (slot->flags & SLOT_ASIDE))
		return GROUP_TREE_NONE;
	return slot->t.started ? GROUP_TREE_AGAIN : GROUP_TREE_FRESH;
}

/* Once they are of several priorities, that holds until none is left. */
static void
note_priority(JobqGroup *group, int16 priority)
{
	if (group->waiting[GROUP_TREE_FRESH] + group->waiting[GROUP_TREE_AGAIN] +
		group->waiting[GROUP_TREE_MARKED] == 0)
	{
		group->priority = priority;
		group->mixed = false;
	}
	else if (priority != group->priority)
		group->mixed = true;
}

static void
move_to_tree(JobqGroup *group, JobqSlot *slot, JobqGroupTree tree)
{
	int32		number = jobq_slot_number(slot);

	if (slot->group_tree == tree)
		return;
	if (slot->group_tree != GROUP_TREE_NONE)
	{
		jobq_tree_remove(&jobq_group_slots, jobq_slots,
						 &group->trees[slot->group_tree], number);
		group->waiting[slot->group_tree]--;
	}
	if (tree != GROUP_TREE_NONE)
	{
		note_priority(group, slot->t.priority);
		jobq_tree_insert(&jobq_group_slots, jobq_slots, &group->trees[tree],
						 number);
		group->waiting[tree]++;
	}
	slot->group_tree = tree;
}

/* One that was taken before it came here: by a restart, or from the shelf. */
static void
note_taken(JobqGroup *group, const JobqSlot *slot)
{
	TimestampTz at = 0;

	if (slot->state == SLOT_RUNNING || slot->state == SLOT_GRACE)
		at = slot->l.claimed_at;
	else if (slot->state != SLOT_SHELVED && !slot->t.started)
		return;
	if (group->taken_id == 0 || at > group->taken_at)
	{
		group->taken_id = slot->t.id;
		group->taken_at = at;
	}
}

/* What runs, or keeps a place, is in memory whatever becomes of it. */
static bool
must_join(const JobqPart *part, const JobqSlot *slot)
{
	return slot->l.lease != 0 || slot->t.ticket == 0 ||
		jobq_is_kept(part, &slot->t);
}

bool
jobq_group_join(JobqPart *part, JobqSlot *slot)
{
	JobqGroup  *group;

	if (slot->group >= 0)
		return true;
	group = jobq_group_get(part, &slot->t.group, must_join(part, slot));
	if (group == NULL)
		return false;
	if (slot->group == JOBQ_STRAY)
		part->groups.strays--;
	slot->group = (int32) (group - jobq_groups);
	group->slots++;
	note_taken(group, slot);
	count(group, slot, slot->state, 1);
	return true;
}

void
jobq_group_leave(JobqPart *part, JobqSlot *slot)
{
	JobqGroup  *group;

	if (slot->group == JOBQ_STRAY)
		part->groups.strays--;
	if (slot->group < 0)
	{
		slot->group = JOBQ_NO_GROUP;
		return;
	}
	group = &jobq_groups[slot->group];
	move_to_tree(group, slot, GROUP_TREE_NONE);
	count(group, slot, slot->state, -1);
	group->slots--;
	slot->group = JOBQ_NO_GROUP;
	jobq_group_settle(part, group);
	jobq_group_forget_unused(part, group);
}

void
jobq_group_sync(JobqPart *part, JobqSlot *slot)
{
	JobqGroup  *group;

	if (!jobq_group_join(part, slot))
	{
		if (slot->group == JOBQ_NO_GROUP)
			part->groups.strays++;
		slot->group = JOBQ_STRAY;
		return;
	}
	group = &jobq_groups[slot->group];
	move_to_tree(group, slot, jobq_group_tree_for(slot));
	jobq_group_settle(part, group);
}

void
jobq_group_new_state(JobqPart *part, JobqSlot *slot, JobqSlotState old)
{
	if (slot->group >= 0)
	{
		count(&jobq_groups[slot->group], slot, old, -1);
		count(&jobq_groups[slot->group], slot, slot->state, 1);
	}
	if (slot->state == SLOT_FREE)
		jobq_group_leave(part, slot);
	else
		jobq_group_sync(part, slot);
}

/* ---- parts ---- */

void
jobq_part_groups_reset(JobqPart *part)
{
	while (!jobq_tree_is_empty(&part->groups.by_key))
		free_group(part, &jobq_groups[part->groups.by_key.root]);
	memset(&part->groups, 0, sizeof(part->groups));
	jobq_tree_init(&part->groups.by_key);
	jobq_tree_init(&part->groups.order);
	jobq_tree_init(&part->groups.asleep);
	jobq_tree_init(&part->groups.by_age);
	jobq_tree_init(&part->groups.kept);
	part->groups.ring = JOBQ_NIL;
}

/*
 * Must all started jobs, all altered groups and the latest deliveries be known
 * before anything is delivered?
 */
static bool
must_know(const JobqPart *part)
{
	return jobq_rules_keep_places(&part->rules) ||
		part->rules.altered_groups || part->rules.group_rate_limit.limit > 0;
}

bool
jobq_keeps_places(const JobqPart *part)
{
	return part->groups.on && jobq_rules_keep_places(&part->rules);
}

bool
jobq_is_kept(const JobqPart *part, const JobqTicket *t)
{
	return t->started && jobq_has_group(&t->group) && jobq_keeps_places(part);
}

void
jobq_group_rules_changed(JobqPart *part, const JobqRules *old)
{
	JobqPartGroups *groups = &part->groups;
	bool		keeps = jobq_rules_keep_places(&part->rules);

	if (!groups->on && !jobq_rules_group(&part->rules))
		return;
	if (!groups->on || keeps != jobq_rules_keep_places(old))
		groups->unseen = jobq_max_live_jobs;
	if (!groups->on || (keeps && !jobq_rules_keep_places(old)))
		groups->known = GROUPS_UNKNOWN;
	if (part->rules.group_rate_limit.limit != old->group_rate_limit.limit ||
		part->rules.group_rate_limit.period != old->group_rate_limit.period)
	{
		groups->known = GROUPS_UNKNOWN;
		groups->counting = false;
	}
	groups->on = true;
	groups->recheck = RECHECK_ALL;
}

/* One that was linked under other rules goes where it belongs. */
static void
see_slot(JobqPart *part, JobqSlot *slot)
{
	bool		kept = (slot->flags & SLOT_KEPT) != 0;

	if (slot->state == SLOT_READY && (slot->flags & SLOT_LINKED) &&
		!(slot->flags & SLOT_ASIDE) && kept != jobq_is_kept(part, &slot->t))
	{
		jobq_slot_unlink(slot);
		jobq_slot_link(slot);
	}
	jobq_group_sync(part, slot);
}

static void
see_slots(JobqPart *part, JobqSlotRef *strays, int *nstrays)
{
	for (int i = 0; i < SLOTS_A_STEP && part->groups.unseen > 0 &&
		 *nstrays < JOBQ_CHUNK; i++)
	{
		JobqSlot   *slot = &jobq_slots[--part->groups.unseen];

		if (jobq_slot_part(slot) != part || slot->state == SLOT_FREE ||
			slot->state == SLOT_LINKING)
			continue;
		see_slot(part, slot);
		if (slot->group == JOBQ_STRAY && slot->state == SLOT_READY &&
			(slot->flags & SLOT_LINKED) && !must_join(part, slot))
			jobq_slot_fill_ref(slot, &strays[(*nstrays)++]);
	}
}

JobqGroup *
jobq_group_after(const JobqPart *part, const JobqGroup *after)
{
	int32		at = after == NULL ?
		part->groups.by_key.first :
		jobq_tree_after(&key_tree, jobq_groups, &part->groups.by_key, after);

	return at != JOBQ_NIL ? &jobq_groups[at] : NULL;
}

/*
 * The order is about to change. Out of it with those that are marked, which come
 * back as a list through in_group.left; and all is to be read again.
 */
int32
jobq_groups_unorder(JobqPart *part)
{
	static const JobqKey end = {.priority = JOBQ_KEY_END};
	int32		list = JOBQ_NIL;
	JobqGroup  *next;

	for (JobqGroup *group = jobq_group_after(part, NULL); group != NULL;
		 group = next)
	{
		int32		at;

		next = jobq_group_after(part, group);
		while ((at = group->trees[GROUP_TREE_MARKED].first) != JOBQ_NIL)
		{
			move_to_tree(group, &jobq_slots[at], GROUP_TREE_NONE);
			jobq_slots[at].in_group.left = list;
			list = at;
		}
		jobq_group_set_frontier(part, group, &end);
		jobq_group_settle(part, group);
		jobq_group_forget_unused(part, group);
	}
	return list;
}

void
jobq_groups_reorder(JobqPart *part, int32 list)
{
	while (list != JOBQ_NIL)
	{
		JobqSlot   *slot = &jobq_slots[list];

		list = slot->in_group.left;
		slot->in_group.left = JOBQ_NIL;
		jobq_group_sync(part, slot);
	}
}

static void
recheck(JobqPart *part)
{
	JobqPartGroups *groups = &part->groups;
	JobqGroup	from = {.key = groups->recheck_from};
	JobqGroup  *group;

	group = jobq_group_after(part, groups->recheck == RECHECK_ALL ? NULL :
							 &from);
	for (int i = 0; i < JOBQ_CHUNK && group != NULL; i++)
	{
		groups->recheck_from = group->key;
		groups->recheck = RECHECK_REST;
		jobq_group_wake(part, group);
		group = jobq_group_after(part, group);
	}
	if (group == NULL)
		groups->recheck = RECHECK_NONE;
}

bool
jobq_groups_catch_up(JobqPart *part, bool strays_too, JobqSlotRef *strays,
					 int *nstrays)
{
	*nstrays = 0;
	if (strays_too && part->groups.strays > 0 && part->groups.unseen == 0)
		part->groups.unseen = jobq_max_live_jobs;
	if (part->groups.unseen > 0)
		see_slots(part, strays, nstrays);
	else if (part->groups.recheck != RECHECK_NONE)
		recheck(part);
	return part->groups.unseen == 0 &&
		part->groups.recheck == RECHECK_NONE && *nstrays == 0;
}

bool
jobq_groups_lack_entries(const JobqPart *part)
{
	int32		first;

	return jobq_group_free_entries(&first) < part->groups.strays;
}

bool
jobq_groups_ready(const JobqPart *part)
{
	return part->groups.strays == 0 &&
		(part->groups.known == GROUPS_KNOWN || !must_know(part));
}

/* ---- loading ---- */

bool
jobq_groups_to_load(JobqPart *part, uint32 gen)
{
	bool		wanted;

	LWLockAcquire(part->lock, LW_SHARED);
	wanted = jobq_part_is_mine(part, gen) && part->groups.on &&
		part->groups.known != GROUPS_KNOWN && must_know(part);
	LWLockRelease(part->lock);
	return wanted;
}

bool
jobq_groups_load_begin(JobqPart *part, uint32 gen, uint32 *alters,
					   uint64 *claimers, bool *counting)
{
	bool		begun = false;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && part->groups.on)
	{
		part->groups.known = GROUPS_LOADING;
		*alters = part->groups.alters;
		*claimers = pg_atomic_read_u64(&part->claimers);
		*counting = part->groups.counting;
		begun = true;
	}
	LWLockRelease(part->lock);
	return begun;
}

/* Has nobody altered a group, nor wants all of it anew, since we began? */
bool
jobq_groups_load_end(JobqPart *part, uint32 gen, uint32 alters)
{
	bool		known = false;
	int64		ready = 0;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && part->groups.known == GROUPS_LOADING)
	{
		known = part->groups.alters == alters;
		part->groups.known = known ? GROUPS_KNOWN : GROUPS_UNKNOWN;
		ready = part->ready;
	}
	LWLockRelease(part->lock);
	jobq_wake_waiters(part, gen, ready);
	return known;
}

void
jobq_groups_forget(JobqDb *db, uint32 gen)
{
	JobqPart   *part;

	for (int i = jobq_parts_of(db, gen, 0, &part); i >= 0;
		 i = jobq_parts_of(db, gen, i, &part))
	{
		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		if (jobq_part_is_mine(part, gen))
			part->groups.known = GROUPS_UNKNOWN;
		LWLockRelease(part->lock);
	}
}
