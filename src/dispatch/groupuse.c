/*
 * groupuse.c: what others ask of a single group, or tell it: its own rules,
 * own uncommitted jobs that take a place in it, why its jobs wait.
 *
 * Parts of it run in commit and abort callbacks: must not allocate or raise an
 * error.
 */
#include "postgres.h"

#include "utils/timestamp.h"

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
		int32		first = group->trees[i].first;

		if (first != JOBQ_NIL && jobq_group_limit(part, group) == 1 &&
			jobq_comes_before(part, &jobq_slots[first], t))
			return false;
	}
	return true;
}

JobqOwnPlace
jobq_group_take_own(JobqPart *part, const JobqTicket *t, TimestampTz now)
{
	JobqGroup  *group;

	if (!part->groups.on)
		return OWN_PLACE_NONE;
	group = jobq_groups_ready(part) ?
		jobq_group_get(part, &t->group, false) : NULL;
	if (group == NULL)
		return OWN_PLACE_REFUSED;
	if (!may_take_own(part, group, t, now))
	{
		jobq_group_forget_unused(part, group);
		return OWN_PLACE_REFUSED;
	}
	group->own++;
	group->active++;
	jobq_group_taken(part, group, t->id, now);
	jobq_group_settle(part, group);
	return OWN_PLACE_TAKEN;
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
jobq_group_explain(JobqPart *part, uint32 gen, const JobqTicket *t,
				   JobqGroupReason *reason)
{
	JobqGroup  *group = NULL;

	memset(reason, 0, sizeof(*reason));
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && part->groups.on)
		group = jobq_group_find(part, &t->group);
	if (group != NULL)
	{
		JobqKey		key = jobq_key_of(t, part->aging);
		/* an earlier time is older than what the window may have seen */
		TimestampTz now = GetCurrentTimestamp();

		reason->limit = jobq_group_limit(part, group);
		reason->active = group->active;
		reason->kept = jobq_group_keeps_places(part, group) ? group->kept : 0;
		reason->taken_id = group->taken_id;
		reason->taken_at = group->taken_at;
		reason->full = jobq_group_is_full(part, group, t->started);
		reason->paused_until = group->rules.paused_until > now ?
			group->rules.paused_until : 0;
		reason->not_before = jobq_group_not_before(part, group, now);
		if (reason->not_before <= now)
			reason->not_before = 0;
		reason->delivered = group->window.total;
		reason->rate = jobq_group_rate(part, group);
		reason->spilled = !jobq_key_before(&key, &group->frontier);
		reason->waiting = group->waiting[GROUP_TREE_FRESH];
	}
	LWLockRelease(part->lock);
	return group != NULL;
}

static void
explain_one(const JobqPart *part, JobqGroup *group, TimestampTz now,
			JobqGroupsReason *reason)
{
	int32		waiting = group->waiting[GROUP_TREE_FRESH] +
		group->waiting[GROUP_TREE_AGAIN];
	bool		on_disk = jobq_group_is_spilled(group);
	TimestampTz not_before;

	reason->looked_at++;
	if (waiting == 0 && !on_disk)
		return;
	reason->waiting++;
	not_before = jobq_group_not_before(part, group, now);
	if (jobq_group_is_full(part, group, group->waiting[GROUP_TREE_AGAIN] > 0))
		reason->full++;
	else if (not_before > now)
	{
		reason->paused += group->rules.paused_until > now;
		reason->too_fast += group->rules.paused_until <= now;
		reason->go_on = Min(reason->go_on, not_before);
	}
	else
		reason->spilled += on_disk;
}

void
jobq_groups_explain(JobqPart *part, uint32 gen, JobqGroupsReason *reason)
{
	JobqGroup	last = {0};
	JobqGroup  *group;
	TimestampTz now;

	memset(reason, 0, sizeof(*reason));
	reason->go_on = JOBQ_NEVER;
	do
	{
		group = NULL;
		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		if (jobq_part_is_mine(part, gen) && part->groups.on)
			group = jobq_group_after(part, reason->looked_at == 0 ? NULL :
									 &last);
		now = GetCurrentTimestamp();
		for (int i = 0; i < JOBQ_CHUNK && group != NULL; i++)
		{
			last.key = group->key;
			explain_one(part, group, now, reason);
			group = jobq_group_after(part, group);
		}
		LWLockRelease(part->lock);
	} while (group != NULL && reason->looked_at < JOBQ_GROUPS_LOOK);
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

/* All is counted anew: what was under another rate is among it. */
static bool
forget_counted(JobqPart *part, uint32 gen)
{
	JobqGroup	last = {0};
	bool		mine = true;
	bool		more = true;

	for (bool first = true; mine && more; first = false)
	{
		JobqGroup  *group = NULL;

		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		mine = jobq_part_is_mine(part, gen) && !part->groups.counting;
		if (mine)
			group = jobq_group_after(part, first ? NULL : &last);
		for (int i = 0; i < JOBQ_CHUNK && group != NULL; i++)
		{
			JobqGroup  *next = jobq_group_after(part, group);

			last.key = group->key;
			jobq_window_clear(&group->window);
			jobq_group_wake(part, group);
			jobq_group_forget_unused(part, group);
			group = next;
		}
		more = group != NULL;
		LWLockRelease(part->lock);
	}
	return mine;
}

bool
jobq_groups_count(JobqPart *part, uint32 gen, const JobqGroupTaken *taken,
				  int n)
{
	bool		mine = forget_counted(part, gen);

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
