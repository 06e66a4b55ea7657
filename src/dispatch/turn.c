/*
 * turn.c: which job of a group is next, and which group's turn it is: in the
 * order of the jobs, in turn where the queue is fair, or not before a time.
 *
 * Everything here is done under the part's lock. Must not allocate or raise an
 * error, nor change how many jobs of a group run.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "dispatch/internal.h"

#define MIXED_MAX	8			/* priorities of a group whose oldest count */

/* ---- trees ---- */

int
jobq_group_compare_keys(const JobqGroupKey *a, const JobqGroupKey *b)
{
	for (int i = 0; i < 2; i++)
	{
		if (a->hash[i] != b->hash[i])
			return a->hash[i] < b->hash[i] ? -1 : 1;
	}
	return 0;
}

static int
compare_order(const void *a, const void *b)
{
	const JobqGroup *x = a;
	const JobqGroup *y = b;
	int			order = jobq_key_compare(&x->place, &y->place);

	/* frontiers may be the same */
	return order != 0 ? order : jobq_group_compare_keys(&x->key, &y->key);
}

static int
compare_asleep(const void *a, const void *b)
{
	const JobqGroup *x = a;
	const JobqGroup *y = b;

	if (x->asleep_until != y->asleep_until)
		return x->asleep_until < y->asleep_until ? -1 : 1;
	return jobq_group_compare_keys(&x->key, &y->key);
}

static int
compare_age(const void *a, const void *b)
{
	const JobqGroup *x = a;
	const JobqGroup *y = b;

	if (x->oldest != y->oldest)
		return x->oldest < y->oldest ? -1 : 1;
	return jobq_group_compare_keys(&x->key, &y->key);
}

const JobqTreeType jobq_group_slots = {
	sizeof(JobqSlot), offsetof(JobqSlot, in_group), jobq_compare_ready
};

static const JobqTreeType order_tree = {
	sizeof(JobqGroup), offsetof(JobqGroup, turn), compare_order
};

static const JobqTreeType asleep_tree = {
	sizeof(JobqGroup), offsetof(JobqGroup, turn), compare_asleep
};

static const JobqTreeType age_tree = {
	sizeof(JobqGroup), offsetof(JobqGroup, by_age), compare_age
};

/* ---- the ring ---- */

/* Behind all others. */
static void
ring_add(int32 *ring, int32 number)
{
	JobqGroup  *group = &jobq_groups[number];
	JobqGroup  *first;

	if (*ring == JOBQ_NIL)
	{
		group->turn.left = number;
		group->turn.right = number;
		*ring = number;
		return;
	}
	first = &jobq_groups[*ring];
	group->turn.left = first->turn.left;
	group->turn.right = *ring;
	jobq_groups[first->turn.left].turn.right = number;
	first->turn.left = number;
}

static void
ring_remove(int32 *ring, int32 number)
{
	const JobqGroup *group = &jobq_groups[number];

	jobq_groups[group->turn.left].turn.right = group->turn.right;
	jobq_groups[group->turn.right].turn.left = group->turn.left;
	if (*ring == number)
		*ring = group->turn.right != number ? group->turn.right : JOBQ_NIL;
}

/* ---- limits ---- */

static bool
is_fair(const JobqPart *part)
{
	return part->rules.ordering == JOBQ_ORDER_FAIR;
}

int32
jobq_group_limit(const JobqPart *part, const JobqGroup *group)
{
	if (!jobq_has_group(&group->key))
		return 0;
	return group->rules.limit > 0 ? group->rules.limit :
		part->rules.group_limit;
}

JobqRate
jobq_group_rate(const JobqPart *part, const JobqGroup *group)
{
	JobqRate	none = {0};

	if (!jobq_has_group(&group->key))
		return none;
	return group->rules.rate_limit.limit > 0 ? group->rules.rate_limit :
		part->rules.group_rate_limit;
}

bool
jobq_group_keeps_places(const JobqPart *part, const JobqGroup *group)
{
	return part->rules.group_on_retry == JOBQ_ON_RETRY_BLOCK ||
		(part->rules.group_on_retry == JOBQ_ON_RETRY_DEFAULT &&
		 jobq_group_limit(part, group) == 1);
}

bool
jobq_group_is_full(const JobqPart *part, const JobqGroup *group, bool started)
{
	int32		limit = jobq_group_limit(part, group);
	int64		taken = group->active;

	if (limit == 0)
		return false;
	if (jobq_group_keeps_places(part, group) && !started)
		taken += group->kept;
	return taken >= limit;
}

/* ---- which job is next ---- */

static int32
first_in(const JobqGroup *group, JobqGroupTree tree)
{
	return group->trees[tree].first;
}

static bool
is_before(int32 a, int32 b)
{
	return jobq_compare_ready(&jobq_slots[a], &jobq_slots[b]) < 0;
}

static int32
earlier(int32 a, int32 b)
{
	if (a == JOBQ_NIL || b == JOBQ_NIL)
		return a == JOBQ_NIL ? b : a;
	return is_before(a, b) ? a : b;
}

/*
 * One at a time means in order: not past a job that is in a transaction's
 * hands, which may give it back.
 */
static bool
overtakes(const JobqPart *part, const JobqGroup *group, int32 next)
{
	return group->waiting[GROUP_TREE_MARKED] > 0 &&
		jobq_group_limit(part, group) == 1 &&
		is_before(first_in(group, GROUP_TREE_MARKED), next);
}

/* A job that keeps its place goes before those that have none yet. */
int32
jobq_group_choose(const JobqPart *part, const JobqGroup *group)
{
	int32		fresh = JOBQ_NIL;
	int32		again = JOBQ_NIL;
	int32		next;

	if (!jobq_group_is_full(part, group, true))
		again = first_in(group, GROUP_TREE_AGAIN);
	if (again != JOBQ_NIL && jobq_group_keeps_places(part, group))
		return again;
	if (!jobq_group_is_full(part, group, false))
		fresh = first_in(group, GROUP_TREE_FRESH);
	next = earlier(fresh, again);
	return next != JOBQ_NIL && !overtakes(part, group, next) ? next : JOBQ_NIL;
}

/* Where its next job stands, whether it is in memory or not. */
static JobqKey
place_of(const JobqGroup *group)
{
	int32		first = earlier(first_in(group, GROUP_TREE_FRESH),
								first_in(group, GROUP_TREE_AGAIN));
	JobqKey		place = group->frontier;

	if (first != JOBQ_NIL)
	{
		JobqKey		key = jobq_slot_key(&jobq_slots[first]);

		if (jobq_key_before(&key, &place))
			place = key;
	}
	return place;
}

bool
jobq_group_waits_for_disk(const JobqPart *part, const JobqGroup *group)
{
	return !is_fair(part) && jobq_group_is_spilled(group) &&
		group->waiting[GROUP_TREE_FRESH] == 0 &&
		!jobq_group_is_full(part, group, false) &&
		(group->waiting[GROUP_TREE_MARKED] == 0 ||
		 jobq_group_limit(part, group) != 1);
}

static void
count_blocked(JobqPart *part, JobqGroup *group)
{
	int32		blocked = 0;

	if (jobq_group_is_full(part, group, false))
		blocked += group->waiting[GROUP_TREE_FRESH];
	if (jobq_group_is_full(part, group, true))
		blocked += group->waiting[GROUP_TREE_AGAIN];
	part->counters[COUNT_BLOCKED] += blocked - group->blocked;
	group->blocked = blocked;
}

/* ---- how long the oldest has waited ---- */

/*
 * The first of each priority is the one of it that has waited longest. In an
 * aging queue the first of all stands for it.
 */
TimestampTz
jobq_oldest_of(const JobqPart *part, const JobqTreeType *type,
			   const JobqTree *tree, int priorities)
{
	TimestampTz oldest = JOBQ_NEVER;
	int32		at = tree->first;

	for (int i = 0; i < priorities && at != JOBQ_NIL; i++)
	{
		JobqSlot	key;

		oldest = Min(oldest, jobq_slots[at].t.run_at);
		if (part->aging != 0)
			break;
		key.part = jobq_part_index(part);
		key.t = jobq_slots[at].t;
		key.t.run_at = PG_INT64_MAX;
		key.t.id = PG_INT64_MAX;
		at = jobq_tree_after(type, jobq_slots, tree, &key);
	}
	return oldest;
}

TimestampTz
jobq_group_oldest(const JobqPart *part, const JobqGroup *group)
{
	int			priorities = group->mixed ? MIXED_MAX : 1;
	TimestampTz oldest = JOBQ_NEVER;

	if (!jobq_group_is_full(part, group, false))
		oldest = jobq_oldest_of(part, &jobq_group_slots,
								&group->trees[GROUP_TREE_FRESH], priorities);
	if (group->waiting[GROUP_TREE_AGAIN] > 0 &&
		!jobq_group_is_full(part, group, true))
		oldest = Min(oldest,
					 jobq_oldest_of(part, &jobq_group_slots,
									&group->trees[GROUP_TREE_AGAIN],
									priorities));
	return oldest;
}

void
jobq_group_set_oldest(JobqPart *part, JobqGroup *group, TimestampTz oldest)
{
	int32		number = (int32) (group - jobq_groups);

	if (oldest == group->oldest)
		return;
	if (group->oldest != JOBQ_NEVER)
		jobq_tree_remove(&age_tree, jobq_groups, &part->groups.by_age, number);
	group->oldest = oldest;
	if (oldest != JOBQ_NEVER)
		jobq_tree_insert(&age_tree, jobq_groups, &part->groups.by_age, number);
}

TimestampTz
jobq_groups_oldest(const JobqPart *part)
{
	int32		first = part->groups.by_age.first;

	return first != JOBQ_NIL ? jobq_groups[first].oldest : JOBQ_NEVER;
}

/* ---- whose turn it is ---- */

static int32
group_number(const JobqGroup *group)
{
	return (int32) (group - jobq_groups);
}

void
jobq_group_unlink_turn(JobqPart *part, JobqGroup *group)
{
	int32		number = group_number(group);

	switch ((JobqTurn) group->turn_at)
	{
		case TURN_NONE:
			break;
		case TURN_ORDER:
			jobq_tree_remove(&order_tree, jobq_groups, &part->groups.order,
							 number);
			break;
		case TURN_RING:
			ring_remove(&part->groups.ring, number);
			break;
		case TURN_ASLEEP:
			jobq_tree_remove(&asleep_tree, jobq_groups, &part->groups.asleep,
							 number);
			break;
	}
	group->turn_at = TURN_NONE;
}

static void
link_turn(JobqPart *part, JobqGroup *group, JobqTurn at)
{
	int32		number = group_number(group);

	switch (at)
	{
		case TURN_NONE:
			break;
		case TURN_ORDER:
			jobq_tree_insert(&order_tree, jobq_groups, &part->groups.order,
							 number);
			break;
		case TURN_RING:
			group->turns_left = Max(1, group->rules.weight);
			ring_add(&part->groups.ring, number);
			break;
		case TURN_ASLEEP:
			jobq_tree_insert(&asleep_tree, jobq_groups, &part->groups.asleep,
							 number);
			break;
	}
	group->turn_at = at;
}

void
jobq_group_settle(JobqPart *part, JobqGroup *group)
{
	int32		next = jobq_group_choose(part, group);
	JobqKey		place = place_of(group);
	bool		moved = jobq_key_compare(&place, &group->place) != 0;
	JobqTurn	at = is_fair(part) ? TURN_RING : TURN_ORDER;

	count_blocked(part, group);
	jobq_group_set_oldest(part, group, jobq_group_oldest(part, group));
	jobq_group_weigh(part, group);
	/* one that sleeps without jobs, for what it has delivered, wakes up */
	if (group->turn_at == TURN_ASLEEP && group->place.priority != JOBQ_KEY_END &&
		(group->asleep_until != JOBQ_NEVER || !moved))
		at = TURN_ASLEEP;
	else if (next == JOBQ_NIL && !jobq_group_waits_for_disk(part, group))
		at = TURN_NONE;
	if (at != group->turn_at || (at == TURN_ORDER && moved))
	{
		jobq_group_unlink_turn(part, group);
		group->place = place;
		link_turn(part, group, at);
	}
	group->place = place;
	group->next = next;
}

static void
sleep_until(JobqPart *part, JobqGroup *group, TimestampTz until)
{
	jobq_group_unlink_turn(part, group);
	group->asleep_until = until;
	link_turn(part, group, TURN_ASLEEP);
}

void
jobq_group_wake(JobqPart *part, JobqGroup *group)
{
	if (group->turn_at == TURN_ASLEEP)
		jobq_group_unlink_turn(part, group);
	jobq_group_settle(part, group);
}

/* The next time a group wakes up; JOBQ_NEVER = none does by itself. */
TimestampTz
jobq_group_next_wake(const JobqPart *part)
{
	int32		first = part->groups.asleep.first;

	return first != JOBQ_NIL ? jobq_groups[first].asleep_until : JOBQ_NEVER;
}

static void
wake_due(JobqPart *part, TimestampTz now, int *skipped)
{
	while (*skipped < JOBQ_CHUNK && jobq_group_next_wake(part) <= now)
	{
		int32		first = part->groups.asleep.first;

		/* what has been delivered long ago is forgotten by asking */
		(void) jobq_group_not_before(part, &jobq_groups[first], now);
		jobq_group_wake(part, &jobq_groups[first]);
		jobq_group_forget_unused(part, &jobq_groups[first]);
		(*skipped)++;
	}
}

TimestampTz
jobq_group_not_before(const JobqPart *part, JobqGroup *group, TimestampTz now)
{
	JobqRate	rate = jobq_group_rate(part, group);

	if (group->rules.paused_until > now)
		return group->rules.paused_until;
	if (rate.limit > 0 &&
		jobq_window_room(&group->window, rate.limit, rate.period, now) <= 0)
		return Max(now + 1, jobq_window_when(&group->window, rate.limit,
											 rate.period, 1));
	return now;
}

/*
 * Something on disk may come before its next job. One that keeps its place goes
 * first in its group, and when there is no room for what is on disk, it goes:
 * nothing else would make room.
 */
static bool
is_held(const JobqPart *part, const JobqGroup *group)
{
	const JobqSlot *next;

	if (group->next == JOBQ_NIL)
		return true;
	next = &jobq_slots[group->next];
	if ((next->flags & SLOT_KEPT) && part->groups.crowded)
		return false;
	return part->groups.passed ||
		!jobq_key_before(&group->place, &part->frontier) ||
		!jobq_is_before_group_frontier(group, next);
}

/*
 * In the jobs' order one that is held holds all that come after it, or, when it
 * is crowded, all but kept places; in a fair queue only its group.
 */
int32
jobq_group_next(JobqPart *part, TimestampTz now, int *skipped)
{
	wake_due(part, now, skipped);
	while (*skipped < JOBQ_CHUNK)
	{
		int32		number = is_fair(part) ? part->groups.ring :
			part->groups.order.first;
		JobqGroup  *group;
		TimestampTz until;

		if (number == JOBQ_NIL)
			return JOBQ_NIL;
		group = &jobq_groups[number];
		until = jobq_group_not_before(part, group, now);
		if (until <= now && is_held(part, group))
		{
			if (!is_fair(part) && !part->groups.crowded)
				return JOBQ_NIL;
			part->groups.passed = !is_fair(part);
			until = JOBQ_NEVER;
		}
		if (until <= now)
			return group->next;
		sleep_until(part, group, until);
		(*skipped)++;
	}
	return JOBQ_NIL;
}

const JobqKey *
jobq_group_first(const JobqPart *part)
{
	int32		number = is_fair(part) ? part->groups.ring :
		part->groups.order.first;

	return number != JOBQ_NIL ? &jobq_groups[number].place : NULL;
}

void
jobq_group_refilled(JobqPart *part, bool groups, bool crowded)
{
	if (part->groups.on && ((is_fair(part) && !groups) || crowded ||
							part->groups.crowded))
		part->groups.recheck = RECHECK_ALL;
	part->groups.crowded = crowded;
	part->groups.passed = false;
}

/* A delivery counts, and with the last of its turns a group goes behind. */
void
jobq_group_taken(JobqPart *part, JobqGroup *group, int64 id, TimestampTz now)
{
	JobqRate	rate = jobq_group_rate(part, group);

	group->taken_id = id;
	group->taken_at = now;
	if (rate.limit > 0)
		(void) jobq_window_add(&group->window, rate.limit, rate.period, now,
							   1);
	if (group->turn_at == TURN_RING && --group->turns_left <= 0)
	{
		jobq_group_unlink_turn(part, group);
		link_turn(part, group, TURN_RING);
	}
}

void
jobq_group_not_taken(JobqPart *part, JobqGroup *group, TimestampTz claimed_at)
{
	JobqRate	rate = jobq_group_rate(part, group);

	if (rate.limit == 0)
		return;
	jobq_window_take_back(&group->window, rate.period,
						  GetCurrentTimestamp(), claimed_at, 1);
	jobq_group_wake(part, group);
}

/*
 * Without jobs it stays as long as what it has delivered counts. True if so:
 * then it sleeps until that is over.
 */
bool
jobq_group_outlives_jobs(JobqPart *part, JobqGroup *group)
{
	JobqRate	rate = jobq_group_rate(part, group);

	if (group->window.total == 0)
		return false;
	if (rate.limit == 0)
	{
		jobq_window_clear(&group->window);
		return false;
	}
	sleep_until(part, group, group->window.newest + rate.period + 1);
	return true;
}
