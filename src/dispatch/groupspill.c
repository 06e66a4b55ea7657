/*
 * groupspill.c: no group's backlog takes all slots of its queue. When slots
 * are short, the tickets of a group from its own frontier on stay on disk, and
 * the queue's refill passes them over. When few of it are left in memory, a
 * refill of groups begins at the first such frontier. Must not allocate, raise
 * an error, nor look at many groups in one lock hold.
 */
#include "postgres.h"

#include "dispatch/internal.h"

#define MIN_ROOM		16
#define ROOM_SHARE		16		/* of the queue's slots for one group */
#define TRIM_MAX		4096	/* slots pushed out in one go */

/* So many of a group may wait in memory when slots are short. */
static int32
room(void)
{
	return Max(MIN_ROOM, (int32) pg_atomic_read_u32(&jobq_control->share) /
			   ROOM_SHARE);
}

static bool
slots_are_short(void)
{
	return jobq_free_slots() <= jobq_few_slots();
}

/* ---- under the part's lock ---- */

/* Little is left in memory, or nothing of that may go. */
static bool
is_hungry(const JobqGroup *group)
{
	int32		first;

	if (!jobq_group_is_spilled(group))
		return false;
	if (group->waiting[GROUP_TREE_FRESH] < room() / 2)
		return true;
	first = group->trees[GROUP_TREE_FRESH].first;
	return !jobq_is_before_group_frontier(group, &jobq_slots[first]);
}

void
jobq_group_weigh(JobqPart *part, JobqGroup *group)
{
	bool		hungry = is_hungry(group);

	bool		fat = group->waiting[GROUP_TREE_FRESH] > room();

	part->groups.hungry += hungry - group->hungry;
	group->hungry = hungry;
	part->groups.fat += fat - group->fat;
	group->fat = fat;
}

void
jobq_group_set_frontier(JobqPart *part, JobqGroup *group, const JobqKey *key)
{
	part->groups.spilled -= jobq_group_is_spilled(group);
	group->frontier = *key;
	part->groups.spilled += jobq_group_is_spilled(group);
	jobq_group_weigh(part, group);
}

bool
jobq_is_before_group_frontier(const JobqGroup *group, const JobqSlot *slot)
{
	JobqKey		key = jobq_slot_key(slot);

	return (slot->flags & SLOT_KEPT) ||
		jobq_key_before(&key, &group->frontier);
}

/* The group of a ticket, if that is where the group's are on disk only. */
static const JobqGroup *
leaving_group(const JobqPart *part, const JobqTicket *t, JobqKey *key)
{
	const JobqGroup *group = part->groups.spilled > 0 ?
		jobq_group_find(part, &t->group) : NULL;

	*key = jobq_key_of(t, part->aging);
	return group != NULL && !jobq_key_before(key, &group->frontier) ?
		group : NULL;
}

bool
jobq_is_behind_group(const JobqPart *part, const JobqTicket *t)
{
	JobqKey		key;

	return leaving_group(part, t, &key) != NULL;
}

/* In a refill of groups: it has begun behind what the group lacks first. */
static bool
is_left_behind(const JobqPart *part, const JobqGroup *group)
{
	return jobq_key_before(&group->frontier, &part->groups.from);
}

/* A refill that has nothing to do with the group goes on as if nothing was. */
bool
jobq_group_leaves_out(JobqPart *part, const JobqTicket *t)
{
	JobqKey		key;
	const JobqGroup *group = leaving_group(part, t, &key);

	if (group == NULL)
		return false;
	if (!(part->groups.refilling && is_left_behind(part, group)) &&
		jobq_key_before(&key, &part->groups.missed))
		part->groups.missed = key;
	return true;
}

/*
 * In a refill of groups: only those that have a frontier take tickets, until
 * there are enough; but some in any case, as what there is may be behind it.
 */
static bool
skips_for_groups(JobqPart *part, JobqGroup *group, const JobqKey *key)
{
	if (group == NULL || jobq_key_before(key, &group->frontier) ||
		is_left_behind(part, group) ||
		!jobq_key_before(key, &part->frontier) || group->stopped)
		return true;
	if (group->waiting[GROUP_TREE_FRESH] < room() ||
		group->entered < room() / 2)
	{
		group->entered++;
		return false;
	}
	group->stopped = true;
	group->stop = *key;
	return true;
}

bool
jobq_group_skips(JobqPart *part, const JobqTicket *t)
{
	JobqKey		key = jobq_key_of(t, part->aging);
	JobqGroup  *group = jobq_group_find(part, &t->group);

	if (part->groups.refilling)
		return skips_for_groups(part, group, &key);
	if (group == NULL)
		return false;
	if (!jobq_key_before(&key, &group->frontier))
		return true;
	if (group->waiting[GROUP_TREE_FRESH] < room() || !slots_are_short())
		return false;
	jobq_group_set_frontier(part, group, &key);
	jobq_group_settle(part, group);
	return true;
}

/* ---- all groups of a part, a few at a time ---- */

typedef void (*Visitor) (JobqPart *part, JobqGroup *group, JobqKey *key);

static bool
visit_groups(JobqPart *part, uint32 gen, Visitor visit, JobqKey *key)
{
	JobqGroup	last;
	JobqGroup  *group;
	bool		mine = true;

	for (bool first = true; mine; first = false)
	{
		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		mine = jobq_part_is_mine(part, gen);
		group = mine ? jobq_group_after(part, first ? NULL : &last) : NULL;
		for (int i = 0; i < JOBQ_CHUNK && group != NULL; i++)
		{
			last.key = group->key;
			visit(part, group, key);
			group = jobq_group_after(part, &last);
		}
		LWLockRelease(part->lock);
		if (group == NULL)
			break;
	}
	return mine;
}

static void
note_first(JobqPart *part, JobqGroup *group, JobqKey *from)
{
	group->stopped = false;
	group->entered = 0;
	if (group->hungry && jobq_key_before(&group->frontier, from))
		*from = group->frontier;
}

bool
jobq_group_first_frontier(JobqPart *part, uint32 gen, JobqKey *from)
{
	from->priority = JOBQ_KEY_END;
	return visit_groups(part, gen, note_first, from) &&
		from->priority != JOBQ_KEY_END;
}

/*
 * All up to `reached` are in memory now, but for what it was stopped at, and
 * what was published meanwhile. From the part's frontier on, that says it all.
 */
static void
move_frontier(JobqPart *part, JobqGroup *group, JobqKey *reached)
{
	JobqKey		to = *reached;

	if (!jobq_group_is_spilled(group) || is_left_behind(part, group))
		return;
	if (!jobq_key_before(&to, &part->frontier))
		to.priority = JOBQ_KEY_END;
	if (group->stopped && jobq_key_before(&group->stop, &to))
		to = group->stop;
	if (jobq_key_before(&part->groups.missed, &to))
		to = part->groups.missed;
	group->stopped = false;
	if (!jobq_key_before(&group->frontier, &to))
		return;
	jobq_group_set_frontier(part, group, &to);
	jobq_group_wake(part, group);
	jobq_group_forget_unused(part, group);
}

void
jobq_group_refill_end(JobqPart *part, uint32 gen, const JobqKey *reached)
{
	JobqKey		key = *reached;

	(void) visit_groups(part, gen, move_frontier, &key);
}

/* ---- pushing out ---- */

/* It is on disk only, with all of its group that come after it. */
static bool
goes_out(const JobqSlot *slot, const JobqSlotRef *ref)
{
	JobqPart   *part = jobq_slot_part(slot);
	JobqKey		key = jobq_slot_key(slot);
	JobqGroup  *group;

	if (slot->state != SLOT_READY || !(slot->flags & SLOT_LINKED) ||
		slot->t.ticket != ref->ticket || slot->group < 0)
		return false;
	group = &jobq_groups[slot->group];
	if (jobq_key_before(&key, &group->frontier))
		jobq_group_set_frontier(part, group, &key);
	return true;
}

static void
fill_last(const JobqGroup *group, JobqSlotRef *ref)
{
	int32		last = group->trees[GROUP_TREE_FRESH].last;

	jobq_slot_fill_ref(&jobq_slots[last], ref);
}

/* The last waiting slot of the first group that has too many. */
static bool
find_fat(JobqPart *part, uint32 gen, JobqGroup *last, JobqSlotRef *ref)
{
	bool		found = false;
	bool		mine = true;
	JobqGroup  *group = NULL;

	do
	{
		LWLockAcquire(part->lock, LW_SHARED);
		mine = jobq_part_is_mine(part, gen);
		group = mine ? jobq_group_find(part, &last->key) : NULL;
		if (mine && group == NULL)
			group = jobq_group_after(part, last);
		for (int i = 0; i < JOBQ_CHUNK && group != NULL && !found; i++)
		{
			last->key = group->key;
			found = group->waiting[GROUP_TREE_FRESH] > room();
			if (found)
				fill_last(group, ref);
			else
				group = jobq_group_after(part, group);
		}
		if (group != NULL)
			last->key = group->key;
		LWLockRelease(part->lock);
	} while (!found && group != NULL);
	return found;
}

void
jobq_group_trim(JobqPart *part, uint32 gen)
{
	JobqGroup	last = {0};
	JobqSlotRef ref;
	int			db = part->db;

	if (!part->groups.on || db < 0 || !slots_are_short())
		return;
	for (int i = 0; i < TRIM_MAX && find_fat(part, gen, &last, &ref); i++)
		(void) jobq_slot_remove(db, &ref, goes_out);
}
