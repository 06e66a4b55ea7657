/*
 * groupuse.c: what others ask of a single group, or tell it: its own rules,
 * own uncommitted jobs that take a place in it, why its jobs wait.
 *
 * Parts of it run in commit and abort callbacks: must not allocate or raise an
 * error.
 */
#include "postgres.h"

#include "dispatch/internal.h"

bool
jobq_group_set_rules(JobqDb *db, uint32 gen, int32 queue_id,
					 const JobqGroupKey *key, const JobqGroupRules *rules,
					 bool altered)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	JobqGroup  *group;
	bool		room = true;

	if (part == NULL)
		return true;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id) && part->groups.on)
	{
		group = jobq_group_get(part, key, true);
		room = group != NULL;
		if (altered)
			part->groups.alters++;
		if (group == NULL)
			part->groups.known = GROUPS_UNKNOWN;
		else
		{
			group->rules = *rules;
			jobq_group_wake(part, group);
			jobq_group_forget_unused(part, group);
		}
	}
	LWLockRelease(part->lock);
	return room;
}

/*
 * Of one at a time, the group's next job goes first: one that may be on disk,
 * and one of another transaction's hands, too.
 */
static bool
may_take_own(JobqPart *part, JobqGroup *group, const JobqTicket *t,
			 TimestampTz now)
{
	JobqKey		key = jobq_key_of(t, part->aging);

	if (jobq_group_is_full(part, group, false) ||
		jobq_group_not_before(part, group, now) > now)
		return false;
	if (jobq_group_limit(part, group) == 1 &&
		(!jobq_key_before(&key, &part->frontier) ||
		 !jobq_key_before(&key, &group->frontier)))
		return false;
	for (int i = 0; i < GROUP_TREES; i++)
	{
		int32		first = jobq_tree_first(&jobq_group_slots, jobq_slots,
											group->root[i]);

		if (first != JOBQ_NIL && jobq_group_limit(part, group) == 1 &&
			jobq_comes_before(part, &jobq_slots[first], t))
			return false;
	}
	return true;
}

JobqOwnPlace
jobq_group_take_own(JobqPart *part, uint32 gen, const JobqTicket *t,
					TimestampTz now)
{
	JobqOwnPlace place = OWN_PLACE_NONE;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (!jobq_part_is_mine(part, gen))
		place = OWN_PLACE_REFUSED;
	else if (part->groups.on)
	{
		JobqGroup  *group = jobq_groups_ready(part) ?
			jobq_group_get(part, &t->group, false) : NULL;

		place = OWN_PLACE_REFUSED;
		if (group != NULL && may_take_own(part, group, t, now))
		{
			place = OWN_PLACE_TAKEN;
			group->own++;
			group->active++;
			jobq_group_taken(part, group, t->id, now);
			jobq_group_settle(part, group);
		}
		else if (group != NULL)
			jobq_group_forget_unused(part, group);
	}
	LWLockRelease(part->lock);
	return place;
}

void
jobq_group_leave_own(JobqDb *db, uint32 gen, int32 queue_id,
					 const JobqGroupKey *key)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	JobqGroup  *group;

	if (part == NULL)
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id) &&
		(group = jobq_group_find(part, key)) != NULL && group->own > 0)
	{
		group->own--;
		group->active--;
		jobq_group_settle(part, group);
		jobq_group_forget_unused(part, group);
	}
	LWLockRelease(part->lock);
	jobq_wake_waiters(part, gen, 1);
}

bool
jobq_group_explain(JobqPart *part, uint32 gen, const JobqGroupKey *key,
				   bool started, TimestampTz now, JobqGroupReason *reason)
{
	JobqGroup  *group = NULL;

	memset(reason, 0, sizeof(*reason));
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && part->groups.on)
		group = jobq_group_find(part, key);
	if (group != NULL)
	{
		reason->limit = jobq_group_limit(part, group);
		reason->active = group->active;
		reason->kept = group->kept;
		reason->taken_id = group->taken_id;
		reason->taken_at = group->taken_at;
		reason->full = jobq_group_is_full(part, group, started);
		reason->paused_until = group->rules.paused_until > now ?
			group->rules.paused_until : 0;
		reason->not_before = jobq_group_not_before(part, group, now);
	}
	LWLockRelease(part->lock);
	return group != NULL;
}

bool
jobq_group_blocks(JobqDb *db, uint32 gen, int32 queue_id,
				  const JobqGroupKey *key, bool started)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	const JobqGroup *group = NULL;
	bool		blocks = false;

	if (part == NULL || !part->groups.on)
		return false;
	LWLockAcquire(part->lock, LW_SHARED);
	if (jobq_part_is(part, gen, queue_id) && part->groups.on)
		group = jobq_group_find(part, key);
	if (group != NULL)
		blocks = jobq_group_is_full(part, group, started);
	LWLockRelease(part->lock);
	return blocks;
}

/* ---- what was delivered before ---- */

static void
count_one(JobqPart *part, const JobqGroupTaken *taken)
{
	JobqGroup  *group = jobq_group_get(part, &taken->group, true);
	JobqRate	rate;

	if (group == NULL)
		return;
	rate = jobq_group_rate(part, group);
	if (rate.limit > 0)
		(void) jobq_window_add(&group->window, rate.limit, rate.period,
							   taken->at, 1);
	jobq_group_forget_unused(part, group);
}

bool
jobq_groups_count(JobqPart *part, uint32 gen, const JobqGroupTaken *taken,
				  int n)
{
	bool		mine = true;

	for (int from = 0; from < n && mine; from += JOBQ_CHUNK)
	{
		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		mine = jobq_part_is_mine(part, gen) && !part->groups.counting;
		for (int i = from; mine && i < Min(n, from + JOBQ_CHUNK); i++)
			count_one(part, &taken[i]);
		LWLockRelease(part->lock);
	}
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	mine = mine && jobq_part_is_mine(part, gen);
	if (mine)
		part->groups.counting = true;
	LWLockRelease(part->lock);
	return mine;
}
