/*
 * frontier.c: how much of a queue is in memory. Everything before the
 * frontier is; behind it tickets may be on disk only, until the keeper refills
 * in the queue's order. Knows no table: the keeper reads, we place.
 *
 * Parts of it run in commit callbacks: must not allocate or raise an error.
 */
#include "postgres.h"

#include "access/transam.h"
#include "storage/procarray.h"

#include "dispatch/internal.h"

static int
slots_share(void)
{
	return Max(1, (int) pg_atomic_read_u32(&jobq_control->share));
}

/* ---- under the part's lock ---- */

void
jobq_retreat(JobqPart *part, const JobqKey *key)
{
	if (jobq_key_before(key, &part->frontier))
		part->frontier = *key;
	if (jobq_key_before(key, &part->missed))
		part->missed = *key;
}

static bool
is_spilled(const JobqPart *part)
{
	return part->frontier.priority != JOBQ_KEY_END;
}

/* As far as groups are concerned, can more come in? */
static bool
has_room(const JobqPart *part)
{
	return !part->groups.on || jobq_groups_have_room();
}

/* Is the first job that could be handed out in memory? */
static bool
has_first(const JobqPart *part)
{
	const JobqKey *place;
	JobqKey		key;
	int32		first;

	if (part->groups.on)
		place = jobq_group_first(part);
	else
	{
		first = part->ready_tree.first;
		if (first != JOBQ_NIL)
			key = jobq_slot_key(&jobq_slots[first]);
		place = first != JOBQ_NIL ? &key : NULL;
	}
	return place != NULL && jobq_key_before(place, &part->frontier);
}

/* Is the first job that could be handed out, or more than half, on disk? */
static bool
is_hungry(const JobqPart *part)
{
	if (part->groups.hungry > 0)
		return true;
	if (!is_spilled(part))
		return false;
	return (part->ready < slots_share() / 2 && has_room(part)) ||
		part->groups.fat > 0 || !has_first(part);
}

bool
jobq_part_asks(JobqPart *part)
{
	if (part->asked || !is_hungry(part))
		return false;
	part->asked = true;
	return true;
}

bool
jobq_is_held(JobqPart *part, TransactionId mine, TransactionId *holder)
{
	LWLockAcquire(part->lock, LW_SHARED);
	*holder = part->holder;
	LWLockRelease(part->lock);
	return TransactionIdIsValid(*holder) && *holder != mine &&
		TransactionIdIsInProgress(*holder);
}

/* ---- for everybody ---- */

void
jobq_ask_refill(JobqPart *part, uint32 gen)
{
	int			db = -1;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) &&
		(is_spilled(part) || part->groups.spilled > 0))
	{
		part->asked = true;
		db = part->db;
	}
	LWLockRelease(part->lock);
	if (db >= 0)
		jobq_wake_keeper(&jobq_dbs[db]);
}

void
jobq_leave_on_disk(JobqDb *db, uint32 gen, int32 queue_id,
				   const JobqKey *first, int64 aging, int64 n)
{
	JobqPart   *part = jobq_part_get(db, gen, queue_id);
	JobqKey		from = *first;
	bool		wake = false;

	if (part == NULL)
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id))
	{
		if (aging != part->aging && from.priority != JOBQ_KEY_END)
			from.priority = JOBQ_KEY_START;
		jobq_retreat(part, &from);
		part->counters[COUNT_AVAILABLE] += n;
		wake = jobq_part_asks(part);
	}
	LWLockRelease(part->lock);
	SpinLockAcquire(&db->mutex);
	db->spills += n;
	SpinLockRelease(&db->mutex);
	if (wake)
		jobq_wake_keeper(db);
}

bool
jobq_is_behind(JobqDb *db, uint32 gen, const JobqTicket *t)
{
	JobqPart   *part = jobq_part_get(db, gen, t->queue_id);
	bool		behind = true;

	if (part == NULL)
		return true;
	LWLockAcquire(part->lock, LW_SHARED);
	if (jobq_part_is(part, gen, t->queue_id))
	{
		JobqKey		key = jobq_key_of(t, part->aging);

		behind = !jobq_key_before(&key, &part->frontier) ||
			jobq_is_behind_group(part, t);
	}
	LWLockRelease(part->lock);
	return behind;
}

bool
jobq_hold_refill(JobqDb *db, uint32 gen, int32 queue_id, TransactionId xid,
				 TransactionId *busy)
{
	JobqPart   *part = jobq_part_get(db, gen, queue_id);
	TransactionId holder;
	bool		held = false;

	*busy = InvalidTransactionId;
	if (part == NULL)
		return false;
	if (jobq_is_held(part, xid, &holder))
	{
		*busy = holder;
		return false;
	}
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id) &&
		(part->holder == holder || part->holder == xid))
	{
		part->holder = xid;
		held = !part->refilling;
	}
	LWLockRelease(part->lock);
	return held;
}

/* ---- pushing out ---- */

/* Still the last one, and nobody's: what comes from here on is on disk. */
static bool
goes_out(const JobqSlot *slot, const JobqSlotRef *ref)
{
	JobqKey		key = jobq_slot_key(slot);

	if (slot->state != SLOT_READY || !(slot->flags & SLOT_LINKED) ||
		slot->t.ticket != ref->ticket)
		return false;
	jobq_retreat(jobq_slot_part(slot), &key);
	return true;
}

bool
jobq_push_out_slot(int db, const JobqSlotRef *ref)
{
	return jobq_slot_remove(db, ref, goes_out);
}

/* Out with the last one; if there is a `t`, only if it comes after that. */
bool
jobq_push_out(JobqPart *part, uint32 gen, const JobqTicket *t)
{
	JobqSlotRef ref;
	int			db;
	int32		last = JOBQ_NIL;

	LWLockAcquire(part->lock, LW_SHARED);
	db = part->db;
	if (db >= 0 && !part->closing && part->gen == gen)
		last = part->ready_tree.last;
	if (last != JOBQ_NIL)
	{
		JobqKey		last_key = jobq_slot_key(&jobq_slots[last]);
		JobqKey		key;

		jobq_slot_fill_ref(&jobq_slots[last], &ref);
		if (t != NULL)
		{
			key = jobq_key_of(t, part->aging);
			if (!jobq_key_before(&key, &last_key))
				last = JOBQ_NIL;
		}
	}
	LWLockRelease(part->lock);
	return last != JOBQ_NIL && jobq_push_out_slot(db, &ref);
}

JobqEntered
jobq_enter_or_push_out(JobqPart *part, int db, uint32 gen, JobqSource source,
					   const JobqTicket *t, const JobqLease *l, bool must,
					   int32 *number)
{
	JobqEntered entered = jobq_slot_enter(part, db, gen, source, t, l, must,
										  number);

	if (entered == ENTER_NO_SLOT &&
		jobq_push_out(part, gen, must ? NULL : t))
		entered = jobq_slot_enter(part, db, gen, source, t, l, true, number);
	return entered;
}

/* ---- refilling ---- */

/*
 * Also when slots lie behind the frontier: then it can go on cheaply.
 */
static bool
could_go_on(const JobqPart *part)
{
	int32		last;
	JobqKey		key;

	if (part->groups.hungry > 0)
		return true;
	if (!is_spilled(part))
		return false;
	if (part->asked || is_hungry(part))
		return true;
	if (!has_room(part))
		return false;
	last = part->ready_tree.last;
	if (last == JOBQ_NIL)
		return true;
	key = jobq_slot_key(&jobq_slots[last]);
	return !jobq_key_before(&key, &part->frontier);
}

bool
jobq_refill_wanted(JobqPart *part, uint32 gen)
{
	TransactionId holder;
	bool		wanted = false;

	LWLockAcquire(part->lock, LW_SHARED);
	if (jobq_part_is_mine(part, gen))
		wanted = could_go_on(part);
	LWLockRelease(part->lock);
	return wanted && !jobq_is_held(part, InvalidTransactionId, &holder);
}

/* Publishers notice it by the odd number of entries, and its end. */
static void
set_refilling(JobqPart *part, bool refilling)
{
	if (part->refilling == refilling)
		return;
	part->refilling = refilling;
	(void) pg_atomic_fetch_add_u64(&part->entries, 1);
}

bool
jobq_refill_is_clear(JobqPart *part, uint64 claimers)
{
	return (claimers & PG_UINT32_MAX) == 0 &&
		pg_atomic_read_u64(&part->claimers) == claimers;
}

/* Under the part's lock: is the order in effect not the one that is wanted? */
static bool
is_outdated(const JobqPart *part)
{
	return part->aging_wanted >= 0 && part->aging != part->aging_wanted;
}

bool
jobq_refill_clear(JobqPart *part, uint32 gen)
{
	bool		outdated;
	int			n = 0;

	LWLockAcquire(part->lock, LW_SHARED);
	outdated = jobq_part_is_mine(part, gen) && is_outdated(part);
	LWLockRelease(part->lock);
	while (outdated && n < JOBQ_CHUNK && jobq_push_out(part, gen, NULL))
		n++;
	return n > 0;
}

/* Those that keep a place stay in memory, and are put in order anew. */
static void
set_aging(JobqPart *part, int64 aging)
{
	int32		list = JOBQ_NIL;
	int32		marked;
	int32		at;

	while ((at = part->groups.kept.first) != JOBQ_NIL)
	{
		jobq_slot_unlink(&jobq_slots[at]);
		jobq_slots[at].node.left = list;
		list = at;
	}
	marked = jobq_groups_unorder(part);
	part->aging = aging;
	jobq_groups_reorder(part, marked);
	while (list != JOBQ_NIL)
	{
		at = list;
		list = jobq_slots[at].node.left;
		jobq_slot_link(&jobq_slots[at]);
	}
}

/*
 * Under the part's lock: from now on by the order that is wanted, if nothing
 * stands in the old one any more.
 */
static bool
follow_order(JobqPart *part)
{
	if (!is_outdated(part))
		return true;
	if (!jobq_tree_is_empty(&part->ready_tree))
		return false;
	set_aging(part, part->aging_wanted);
	part->frontier.priority = JOBQ_KEY_START;
	return true;
}

void
jobq_part_set_aging(JobqDb *db, uint32 gen, int32 queue_id, int64 aging)
{
	JobqPart   *part = jobq_part_get(db, gen, queue_id);
	bool		wake = false;

	if (part == NULL)
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id))
	{
		part->aging_wanted = aging;
		if (!is_spilled(part) && !part->refilling &&
			part->groups.spilled == 0 && jobq_tree_is_empty(&part->ready_tree))
			set_aging(part, aging);
		else if (is_outdated(part))
		{
			/* also for a refill that is going on: it ends before all */
			part->frontier.priority = JOBQ_KEY_START;
			part->missed.priority = JOBQ_KEY_START;
			part->asked = true;
			wake = true;
		}
	}
	LWLockRelease(part->lock);
	if (wake)
		jobq_wake_keeper(db);
}

/* Without the lock: what is not known yet is looked at again under it. */
bool
jobq_part_knows_aging(const JobqPart *part)
{
	return part->aging_wanted >= 0;
}

void
jobq_part_learn_aging(JobqPart *part, uint32 gen, int64 aging)
{
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && part->aging_wanted < 0)
		part->aging_wanted = aging;
	LWLockRelease(part->lock);
}

/*
 * First refilling is set, then the caller takes its snapshot: whoever commits
 * after that finds it set and leaves word of what it keeps out.
 */
bool
jobq_refill_begin(JobqPart *part, uint32 gen, JobqKey *from, uint64 *claimers)
{
	TransactionId holder;
	JobqKey		first = {.priority = JOBQ_KEY_END};
	bool		groups;
	bool		begun = false;

	if (jobq_is_held(part, InvalidTransactionId, &holder))
		return false;
	groups = part->groups.hungry > 0 &&
		jobq_group_first_frontier(part, gen, &first);
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && part->holder == holder &&
		(groups || is_spilled(part)) && follow_order(part))
	{
		/* a change of order has ended those of groups */
		groups = groups && part->groups.hungry > 0;
		part->holder = InvalidTransactionId;
		set_refilling(part, true);
		*claimers = pg_atomic_read_u64(&part->claimers);
		part->asked = false;
		part->missed.priority = JOBQ_KEY_END;
		part->groups.missed.priority = JOBQ_KEY_END;
		part->groups.refilling = groups;
		part->groups.from = first;
		*from = groups ? first : part->frontier;
		begun = true;
	}
	LWLockRelease(part->lock);
	return begun;
}

/* Is the group of a ticket in memory? */
static bool
has_entry(JobqPart *part, uint32 gen, const JobqGroupKey *key)
{
	bool		has;

	LWLockAcquire(part->lock, LW_SHARED);
	has = jobq_part_is_mine(part, gen) && jobq_group_find(part, key) != NULL;
	LWLockRelease(part->lock);
	return has;
}

static bool
stays_out(JobqPart *part, uint32 gen, const JobqTicket *t)
{
	bool		out;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	out = jobq_part_is_mine(part, gen) && jobq_group_skips(part, t);
	LWLockRelease(part->lock);
	return out;
}

bool
jobq_refill_has_entry(JobqPart *part, uint32 gen, const JobqTicket *t)
{
	return !part->groups.on || jobq_groups_have_room() ||
		has_entry(part, gen, &t->group);
}

int
jobq_refill_put(JobqPart *part, uint32 gen, const JobqTicket *tickets,
				const JobqLease *leases, int n, JobqSlotRef *fresh,
				JobqLack *lack)
{
	int			db = part->db;
	int64		ids[JOBQ_CHUNK] = {0};
	int			done;
	JobqLack	lacks = LACKS_NOTHING;

	if (db < 0)
		return 0;
	Assert(n <= JOBQ_CHUNK);
	for (int i = 0; i < n; i++)
		ids[i] = tickets[i].id;
	jobq_expect_jobs(&jobq_dbs[db], ids, n, false);
	for (done = 0; done < n; done++)
	{
		int32		number;
		const JobqLease *lease = leases != NULL ? &leases[done] : NULL;
		bool		must = (lease != NULL && lease->lease != 0) ||
			jobq_is_kept(part, &tickets[done]);
		JobqEntered entered;

		fresh[done].slot = JOBQ_NIL;
		if (part->groups.on && !must &&
			!jobq_is_entered(&jobq_dbs[db], gen, tickets[done].id))
		{
			if (stays_out(part, gen, &tickets[done]))
				continue;
			if (!jobq_refill_has_entry(part, gen, &tickets[done]))
			{
				lacks = LACKS_ENTRY;
				break;
			}
		}
		entered = jobq_enter_or_push_out(part, db, gen, FROM_DISK,
										 &tickets[done], lease, must,
										 &number);
		if (entered == ENTER_NO_SLOT)
			lacks = LACKS_SLOT;
		if (entered == ENTER_NO_SLOT || entered == ENTER_HELD)
			break;
		if (entered == ENTER_DONE)
			jobq_slot_fill_ref(&jobq_slots[number], &fresh[done]);
	}
	if (lack != NULL)
		*lack = lacks;
	return done;
}

void
jobq_refill_link(JobqPart *part, uint32 gen, JobqSlotRef *fresh,
				 const bool *ended, int n)
{
	int32		numbers[JOBQ_CHUNK];
	TimestampTz first_expiry = JOBQ_NEVER;
	int			count = 0;
	int			db = part->db;
	int32		queue_id = part->queue_id;

	for (int i = 0; i < n; i++)
	{
		if (fresh[i].slot == JOBQ_NIL)
			continue;
		if (ended[i])
			(void) jobq_slot_remove(jobq_slots[fresh[i].slot].db, &fresh[i],
									jobq_is_linking);
		else
			numbers[count++] = fresh[i].slot;
	}
	if (count > 0)
		jobq_slots_link(part, gen, queue_id, numbers, count, NULL,
						&first_expiry);
	if (first_expiry != JOBQ_NEVER && db >= 0)
		jobq_wake_keeper_by(&jobq_dbs[db], first_expiry);
}

void
jobq_refill_end(JobqPart *part, uint32 gen, const JobqKey *reached,
				bool crowded)
{
	int64		ready = 0;
	bool		groups;

	LWLockAcquire(part->lock, LW_SHARED);
	groups = part->groups.refilling;
	LWLockRelease(part->lock);
	if (groups)
		jobq_group_refill_end(part, gen, reached);

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen) && part->refilling)
	{
		set_refilling(part, false);
		part->groups.refilling = false;
		if (!groups)
			part->frontier = jobq_key_before(&part->missed, reached) ?
				part->missed : *reached;
		jobq_group_refilled(part, groups,
							crowded && (groups || !has_first(part)));
		ready = part->ready;
	}
	LWLockRelease(part->lock);
	jobq_wake_waiters(part, gen, ready);
}

bool
jobq_refill_enough(JobqPart *part, uint32 gen)
{
	bool		enough;

	LWLockAcquire(part->lock, LW_SHARED);
	enough = !jobq_part_is_mine(part, gen) ||
		(part->groups.refilling ? part->groups.hungry == 0 :
		 part->ready >= slots_share());
	LWLockRelease(part->lock);
	return enough;
}

bool
jobq_refill_missed(JobqPart *part, uint32 gen, const JobqKey *key)
{
	const JobqKey *missed;
	bool		before;

	LWLockAcquire(part->lock, LW_SHARED);
	missed = part->groups.refilling ? &part->groups.missed : &part->missed;
	before = jobq_part_is_mine(part, gen) && jobq_key_before(missed, key);
	LWLockRelease(part->lock);
	return before;
}

void
jobq_refill_reset(JobqDb *db, uint32 gen)
{
	JobqPart   *part;

	for (int i = jobq_parts_of(db, gen, 0, &part); i >= 0;
		 i = jobq_parts_of(db, gen, i, &part))
	{
		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		if (jobq_part_is_mine(part, gen))
		{
			set_refilling(part, false);
			part->groups.refilling = false;
		}
		LWLockRelease(part->lock);
	}
}

/* ---- shares ---- */

/* What a queue could use, without a lock: a wrong look is put right later. */
static int64
need(const JobqPart *part)
{
	if (part->db < 0)
		return 0;
	return Max(part->counters[COUNT_AVAILABLE], is_spilled(part) ? 1 : 0);
}

/*
 * The share s for which queues that take min(need, s) fill what there is,
 * found by raising it as long as small queues leave something over.
 */
static int64
fair_share(int64 slots)
{
	int64		share = 0;

	for (int round = 0; round < 8; round++)
	{
		int64		small = 0;
		int64		large = 0;
		int64		next;

		for (int i = 0; i < jobq_max_queues; i++)
		{
			int64		n = need(&jobq_parts[i]);

			if (n > share)
				large++;
			else
				small += n;
		}
		if (large == 0)
			return Max(share, slots);
		next = Max(1, (slots - small) / large);
		if (next <= share)
			break;
		share = next;
	}
	return share;
}

void
jobq_share_slots(void)
{
	int64		slots = jobq_max_live_jobs - jobq_few_slots();
	int			wanted;

	for (int i = 0; i < jobq_max_queues; i++)
	{
		if (jobq_parts[i].db >= 0)
			slots -= jobq_parts[i].running;
	}
	pg_atomic_write_u32(&jobq_control->share,
						(uint32) fair_share(Max(1, slots)));

	wanted = jobq_few_slots() / 2 - jobq_free_slots();
	for (int i = 0; i < jobq_max_queues && wanted > 0; i++)
	{
		JobqPart   *part = &jobq_parts[i];

		while (wanted > 0 && part->ready > slots_share() &&
			   jobq_push_out(part, part->gen, NULL))
			wanted--;
	}
}
