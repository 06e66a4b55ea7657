/*
 * slotstate.c: a slot's state: the order of the trees, into and out of them as
 * the state says, what a part counts of it. All under the part's lock.
 *
 * Must not look into the hash, allocate or raise an error.
 */
#include "postgres.h"

#include "dispatch/internal.h"

/* ---- order ---- */

int
jobq_compare_ready(const void *a, const void *b)
{
	JobqKey		x = jobq_slot_key(a);
	JobqKey		y = jobq_slot_key(b);

	return jobq_key_compare(&x, &y);
}

static int
compare_times(TimestampTz a, int64 a_id, TimestampTz b, int64 b_id)
{
	if (a != b)
		return a < b ? -1 : 1;
	if (a_id != b_id)
		return a_id < b_id ? -1 : 1;
	return 0;
}

static int
compare_lease(const void *a, const void *b)
{
	const JobqSlot *x = a;
	const JobqSlot *y = b;

	return compare_times(x->l.expires_at, x->t.id, y->l.expires_at, y->t.id);
}

static int
compare_expiry(const void *a, const void *b)
{
	const JobqSlot *x = a;
	const JobqSlot *y = b;

	return compare_times(x->t.expires_at, x->t.id, y->t.expires_at, y->t.id);
}

const JobqTreeType jobq_ready_tree = {
	sizeof(JobqSlot), offsetof(JobqSlot, node), jobq_compare_ready
};

const JobqTreeType jobq_lease_tree = {
	sizeof(JobqSlot), offsetof(JobqSlot, node), compare_lease
};

const JobqTreeType jobq_expiry_tree = {
	sizeof(JobqSlot), offsetof(JobqSlot, expiry), compare_expiry
};

/* ---- trees and counters; under the part's lock ---- */

/* The tree of those that may be pushed out, or of those that keep a place. */
static JobqTree *
ready_tree(JobqPart *part, const JobqSlot *slot)
{
	return slot->flags & SLOT_KEPT ? &part->groups.kept : &part->ready_tree;
}

static void
leaves_ready(JobqPart *part, const JobqSlot *slot)
{
	if (slot->t.run_at <= part->oldest)
		part->oldest = JOBQ_OLDEST_UNKNOWN;
}

static void
link_ready(JobqPart *part, JobqSlot *slot)
{
	part->oldest = Min(part->oldest, slot->t.run_at);
	if (part->groups.on && jobq_is_kept(part, &slot->t))
		slot->flags |= SLOT_KEPT;
	jobq_tree_insert(&jobq_ready_tree, jobq_slots, ready_tree(part, slot),
					 jobq_slot_number(slot));
	if (slot->t.expires_at != DT_NOEND)
		jobq_tree_insert(&jobq_expiry_tree, jobq_slots, &part->expiry_tree,
						 jobq_slot_number(slot));
}

static void
unlink_ready(JobqPart *part, JobqSlot *slot)
{
	leaves_ready(part, slot);
	if (!(slot->flags & SLOT_ASIDE))
		jobq_tree_remove(&jobq_ready_tree, jobq_slots, ready_tree(part, slot),
						 jobq_slot_number(slot));
	slot->flags &= ~(SLOT_ASIDE | SLOT_KEPT);
	if (slot->t.expires_at != DT_NOEND)
		jobq_tree_remove(&jobq_expiry_tree, jobq_slots, &part->expiry_tree,
						 jobq_slot_number(slot));
}

void
jobq_slot_set_aside(JobqSlot *slot)
{
	JobqPart   *part = jobq_slot_part(slot);

	Assert(slot->state == SLOT_READY && (slot->flags & SLOT_LINKED) &&
		   !(slot->flags & SLOT_ASIDE));
	jobq_tree_remove(&jobq_ready_tree, jobq_slots, ready_tree(part, slot),
					 jobq_slot_number(slot));
	leaves_ready(part, slot);
	slot->flags |= SLOT_ASIDE;
	if (part->groups.on)
		jobq_group_sync(part, slot);
}

void
jobq_slot_link(JobqSlot *slot)
{
	JobqPart   *part = jobq_slot_part(slot);

	if (slot->state == SLOT_READY)
		link_ready(part, slot);
	else
		jobq_tree_insert(&jobq_lease_tree, jobq_slots, &part->lease_tree,
						 jobq_slot_number(slot));
	slot->flags |= SLOT_LINKED;
	if (slot->flags & SLOT_START_WANTED)
		part->start_wanted++;
	if (part->groups.on)
		jobq_group_sync(part, slot);
}

/* No-op for a marked slot, which is in no tree. */
void
jobq_slot_unlink(JobqSlot *slot)
{
	JobqPart   *part = jobq_slot_part(slot);

	if (!(slot->flags & SLOT_LINKED))
		return;
	if (slot->state == SLOT_READY)
		unlink_ready(part, slot);
	else
		jobq_tree_remove(&jobq_lease_tree, jobq_slots, &part->lease_tree,
						 jobq_slot_number(slot));
	slot->flags &= ~SLOT_LINKED;
	if (slot->flags & SLOT_START_WANTED)
		part->start_wanted--;
	if (part->groups.on)
		jobq_group_sync(part, slot);
}

static void
count_state(JobqPart *part, JobqSlotState state, int delta)
{
	switch (state)
	{
		case SLOT_READY:
			part->ready += delta;
			break;
		case SLOT_RUNNING:
			part->running += delta;
			break;
		case SLOT_ROLLED_BACK:
			part->rolled_back += delta;
			break;
		case SLOT_GRACE:
			part->grace += delta;
			break;
		case SLOT_FREE:
		case SLOT_LINKING:
		case SLOT_SHELVED:
			break;
	}
}

static bool
is_delivered(JobqSlotState state)
{
	return state == SLOT_RUNNING || state == SLOT_ROLLED_BACK ||
		state == SLOT_GRACE;
}

/* A breaker's probe is one as long as it is delivered under its lease. */
static void
count_probe(JobqPart *part, JobqSlot *slot, bool probe)
{
	bool		counted = (slot->flags & SLOT_PROBE) != 0;

	part->limits.probes += probe - counted;
	slot->flags = probe ? slot->flags | SLOT_PROBE : slot->flags & ~SLOT_PROBE;
}

/*
 * The slot must not be linked: its state says in which tree it is. A delivery
 * has its lease before it begins.
 */
void
jobq_slot_set_state(JobqSlot *slot, JobqSlotState state)
{
	JobqPart   *part = jobq_slot_part(slot);
	JobqSlotState old = slot->state;

	Assert(!(slot->flags & SLOT_LINKED));
	if (slot->l.probe || (slot->flags & SLOT_PROBE))
		count_probe(part, slot, slot->l.probe && is_delivered(state));
	count_state(part, old, -1);
	slot->state = state;
	count_state(part, state, 1);
	if (part->groups.on)
		jobq_group_new_state(part, slot, old);
}

void
jobq_slot_forget_probe(JobqSlot *slot)
{
	if (slot->flags & SLOT_PROBE)
		count_probe(jobq_slot_part(slot), slot, false);
}
