/*
 * checkgroup.c: are the groups in shared memory consistent with the slots and
 * with each other? A part of check.c.
 *
 * Exists in test builds only. Must not change anything.
 */
#include "postgres.h"

#ifdef JOBQ_TEST_BUILD

#include "dispatch/internal.h"

/* What slots say of their groups. */
static const char *
add_slot(const JobqPart *part, const JobqSlot *slot, JobqGroup *expected,
		 int64 *strays)
{
	JobqGroup  *group;

	if (slot->group == JOBQ_STRAY)
		(*strays)++;
	if (slot->group == JOBQ_NO_GROUP && slot->state != SLOT_LINKING &&
		part->groups.unseen == 0)
		return "slot is in no group";
	if (slot->group < 0)
		return slot->group_tree == GROUP_TREE_NONE ? NULL :
			"slot of no group is in a group's tree";
	group = &expected[slot->group];
	if (jobq_groups[slot->group].part != jobq_part_index(part))
		return "slot is in a group of another part";
	if (jobq_group_compare_keys(&jobq_groups[slot->group].key,
								&slot->t.group) != 0)
		return "slot is in a wrong group";
	if (slot->group_tree != jobq_group_tree_for(slot))
		return "slot is in a wrong tree of its group";
	group->slots++;
	group->waiting[slot->group_tree]++;
	group->active += slot->state == SLOT_RUNNING || slot->state == SLOT_GRACE;
	group->kept += slot->state == SLOT_ROLLED_BACK ||
		slot->state == SLOT_SHELVED ||
		(slot->state == SLOT_READY && slot->t.started);
	return NULL;
}

static int
count_tree(const JobqGroup *group, JobqGroupTree tree, int32 *stack)
{
	int			depth = 0;
	int			n = 0;

	if (!jobq_tree_is_sound(jobq_slots, sizeof(JobqSlot),
							offsetof(JobqSlot, in_group), &group->trees[tree],
							jobq_max_live_jobs))
		return -1;
	if (!jobq_tree_is_empty(&group->trees[tree]))
		stack[depth++] = group->trees[tree].root;
	while (depth > 0)
	{
		const JobqSlot *slot = &jobq_slots[stack[--depth]];

		if (slot->group != group - jobq_groups || slot->group_tree != tree)
			return -1;
		n++;
		if (slot->in_group.left != JOBQ_NIL)
			stack[depth++] = slot->in_group.left;
		if (slot->in_group.right != JOBQ_NIL)
			stack[depth++] = slot->in_group.right;
	}
	return n;
}

static const char *
check_group(const JobqPart *part, const JobqGroup *group,
			const JobqGroup *expected, int32 *stack)
{
	bool		moving = part->groups.recheck != RECHECK_NONE;
	int32		next = jobq_group_choose(part, group);

	if (group->slots != expected->slots)
		return "count of a group's slots is wrong";
	if (group->active != expected->active + group->own)
		return "count of a group's running jobs is wrong";
	if (group->kept != expected->kept)
		return "count of a group's kept places is wrong";
	for (int i = GROUP_TREE_FRESH; i < GROUP_TREES; i++)
	{
		if (group->waiting[i] != expected->waiting[i] ||
			count_tree(group, i, stack) != group->waiting[i])
			return "tree of a group is wrong";
	}
	if (moving)
		return NULL;
	if (group->next != next)
		return "group's next job is wrong";
	if (group->oldest != jobq_group_oldest(part, group))
		return "group's oldest job is wrong";
	if ((group->turn_at == TURN_NONE) !=
		(next == JOBQ_NIL && !jobq_group_waits_for_disk(part, group)) &&
		group->turn_at != TURN_ASLEEP)
		return "group's turn is wrong";
	return NULL;
}

/* All of a tree of groups are there, linked as they say. */
static int
count_groups(JobqGroupCheck *check, const JobqTree *tree, size_t node,
			 int turn_at, int32 *stack)
{
	int			depth = 0;
	int			n = 0;

	if (!jobq_tree_is_sound(jobq_groups, sizeof(JobqGroup), node, tree,
							jobq_group_count()))
		return -1;
	if (!jobq_tree_is_empty(tree))
		stack[depth++] = tree->root;
	while (depth > 0)
	{
		int32		at = stack[--depth];
		const JobqGroup *group = &jobq_groups[at];
		const JobqTreeNode *links = (const JobqTreeNode *)
			((const char *) group + node);

		if (check->met[at] || (turn_at >= 0 && group->turn_at != turn_at))
			return -1;
		check->met[at] = true;
		n++;
		if (links->left != JOBQ_NIL)
			stack[depth++] = links->left;
		if (links->right != JOBQ_NIL)
			stack[depth++] = links->right;
	}
	return n;
}

static int
count_ring(JobqGroupCheck *check, int32 first)
{
	int			n = 0;
	int32		at = first;

	if (first == JOBQ_NIL)
		return 0;
	do
	{
		const JobqGroup *group = &jobq_groups[at];

		if (check->met[at] || group->turn_at != TURN_RING ||
			jobq_groups[group->turn.right].turn.left != at)
			return -1;
		check->met[at] = true;
		n++;
		at = group->turn.right;
	} while (at != first);
	return n;
}

static const char *
check_links(const JobqPart *part, JobqGroupCheck *check, int32 *stack)
{
	int			turns[TURN_ASLEEP + 1] = {0};
	int			n = 0;
	int			aged = 0;
	int64		blocked = 0;

	for (int32 i = 0; i < jobq_group_count(); i++)
	{
		if (jobq_groups[i].part != jobq_part_index(part))
			continue;
		n++;
		turns[jobq_groups[i].turn_at]++;
		blocked += jobq_groups[i].blocked;
		aged += jobq_groups[i].oldest != JOBQ_NEVER;
	}
	memset(check->met, 0, jobq_group_count());
	if (count_groups(check, &part->groups.by_key,
					 offsetof(JobqGroup, by_key), -1, stack) != n)
		return "tree of groups by key is wrong";
	memset(check->met, 0, jobq_group_count());
	if (count_groups(check, &part->groups.by_age, offsetof(JobqGroup, by_age),
					 -1, stack) != aged)
		return "tree of groups by age is wrong";
	memset(check->met, 0, jobq_group_count());
	if (count_groups(check, &part->groups.order, offsetof(JobqGroup, turn),
					 TURN_ORDER, stack) != turns[TURN_ORDER] ||
		count_groups(check, &part->groups.asleep, offsetof(JobqGroup, turn),
					 TURN_ASLEEP, stack) != turns[TURN_ASLEEP] ||
		count_ring(check, part->groups.ring) != turns[TURN_RING])
		return "order of groups is wrong";
	if (part->counters[COUNT_BLOCKED] != blocked)
		return "count of blocked jobs is wrong";
	return NULL;
}

const char *
jobq_groups_check(const JobqPart *part, JobqGroupCheck *check,
				  int32 first_slot, const int32 *next, int32 *stack)
{
	const char *wrong = NULL;
	int64		strays = 0;

	if (!part->groups.on)
		return NULL;
	memset(check->expected, 0, sizeof(JobqGroup) * jobq_group_count());
	for (int32 at = first_slot; at != JOBQ_NIL && wrong == NULL;
		 at = next[at])
		wrong = add_slot(part, &jobq_slots[at], check->expected, &strays);
	if (wrong == NULL && strays != part->groups.strays)
		wrong = "count of slots without a group is wrong";
	for (int32 i = 0; i < jobq_group_count() && wrong == NULL; i++)
	{
		if (jobq_groups[i].part == jobq_part_index(part))
			wrong = check_group(part, &jobq_groups[i], &check->expected[i],
								stack);
	}
	return wrong != NULL ? wrong : check_links(part, check, stack);
}

bool
jobq_groups_check_free(JobqGroupCheck *check)
{
	int32		at;
	int32		n = jobq_group_free_entries(&at);

	memset(check->met, 0, jobq_group_count());
	for (; at != JOBQ_NIL; at = jobq_groups[at].by_key.left)
	{
		if (check->met[at] || jobq_groups[at].part >= 0)
			return false;
		check->met[at] = true;
		n--;
	}
	return n == 0;
}

#endif							/* JOBQ_TEST_BUILD */
