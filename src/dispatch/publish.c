/*
 * publish.c: tickets become available, or running, in memory.
 *
 * Runs in commit callbacks: must not allocate, raise an error, or hold a lock
 * for more than JOBQ_CHUNK slots.
 */
#include "postgres.h"

#include "access/transam.h"

#include "dispatch/internal.h"

typedef struct Publish
{
	JobqDb	   *db;
	uint32		gen;
	JobqPart   *part;
	uint8		flags;
	int			nspilled;
	int64		min_spilled;	/* id */
	TimestampTz first_expiry;
	int32		fresh[JOBQ_CHUNK];	/* slots that wait to be linked */
	int			nfresh;
	bool		wake_keeper;	/* a ticket was left out that is to come soon */
} Publish;

static void
spill(Publish *p, int64 id)
{
	p->nspilled++;
	p->min_spilled = Min(p->min_spilled, id);
}

/* Everything but identity and place. */
static void
fill_slot(JobqSlot *slot, const JobqTicket *ticket, const JobqLease *lease,
		  uint8 flags)
{
	static const JobqLease no_lease = {0};

	slot->flags = flags;
	slot->mark = InvalidTransactionId;
	slot->claim_proc = -1;
	slot->t = *ticket;
	slot->l = lease != NULL ? *lease : no_lease;
}

static void
start_slot(Publish *p, JobqSlot *slot)
{
	if (slot->l.lease != 0)
	{
		jobq_slot_set_state(slot, SLOT_RUNNING);
		p->first_expiry = Min(p->first_expiry, slot->l.expires_at);
	}
	else
	{
		jobq_slot_set_state(slot, SLOT_READY);
		p->first_expiry = Min(p->first_expiry, slot->t.expires_at);
	}
	jobq_slot_link(slot);
}

/*
 * The job is in memory already, its hash lock is held: a newer ticket takes
 * the place of an older one that nobody has claimed or marked. False when the
 * older one is still in somebody's hands.
 */
static bool
replace_older(Publish *p, JobqSlot *slot, const JobqTicket *ticket,
			  const JobqLease *lease)
{
	JobqPart   *part = jobq_slot_part(slot);
	bool		held;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	held = slot->t.ticket < ticket->ticket;
	if (slot->state == SLOT_READY && slot->t.ticket < ticket->ticket &&
		slot->t.queue_id == ticket->queue_id &&
		!TransactionIdIsValid(slot->mark))
	{
		jobq_slot_unlink(slot);
		fill_slot(slot, ticket, lease, p->flags);
		start_slot(p, slot);
		held = false;
	}
	LWLockRelease(part->lock);
	return !held;
}

/* Into the hash, unless the job is there already; not yet in a tree. */
static void
enter(Publish *p, const JobqTicket *ticket, const JobqLease *lease)
{
	int			db = jobq_db_index(p->db);
	uint32		bucket = jobq_bucket(db, ticket->id);
	LWLock	   *hash_lock = jobq_hash_lock(bucket);
	JobqSlot   *slot;
	int32		number;

	LWLockAcquire(hash_lock, LW_EXCLUSIVE);
	number = jobq_chain_find(bucket, db, p->gen, ticket->id);
	if (number != JOBQ_NIL)
	{
		bool		settled = replace_older(p, &jobq_slots[number], ticket,
											lease);

		LWLockRelease(hash_lock);
		if (!settled)
		{
			spill(p, ticket->id);
			p->wake_keeper = true;
		}
		return;
	}
	number = jobq_slot_pop_free();
	if (number == JOBQ_NIL)
	{
		LWLockRelease(hash_lock);
		spill(p, ticket->id);
		return;
	}
	slot = &jobq_slots[number];
	slot->node.left = JOBQ_NIL;
	slot->node.right = JOBQ_NIL;
	fill_slot(slot, ticket, lease, p->flags);
	slot->state = SLOT_LINKING;
	slot->part = jobq_part_index(p->part);
	slot->gen = p->gen;
	slot->db = db;
	slot->hash_next = jobq_buckets[bucket];
	jobq_buckets[bucket] = number;
	LWLockRelease(hash_lock);

	p->fresh[p->nfresh++] = number;
}

static bool
is_linking(const JobqSlot *slot, const JobqSlotRef *ref)
{
	return slot->state == SLOT_LINKING;
}

/* Link what was entered; if the part has gone meanwhile, take it out again. */
static void
link_fresh(Publish *p, int32 queue_id)
{
	bool		open;

	LWLockAcquire(p->part->lock, LW_EXCLUSIVE);
	open = jobq_part_is(p->part, p->gen, queue_id);
	for (int i = 0; open && i < p->nfresh; i++)
		start_slot(p, &jobq_slots[p->fresh[i]]);
	LWLockRelease(p->part->lock);

	for (int i = 0; !open && i < p->nfresh; i++)
	{
		JobqSlotRef ref;

		jobq_slot_fill_ref(&jobq_slots[p->fresh[i]], &ref);
		jobq_slot_remove(jobq_db_index(p->db), &ref, is_linking);
		spill(p, ref.id);
	}
	p->nfresh = 0;
}

/* Leave word for the keeper; what has no slot waits for one on disk. */
static void
report_spilled(Publish *p)
{
	if (p->nspilled == 0)
		return;
	/* what is loaded from disk and has to stay there was counted before */
	jobq_note_reload(p->db, p->gen, p->min_spilled,
					 (p->flags & SLOT_FROM_SCAN) ? 0 : p->nspilled);

	/*
	 * Slots may have become free in plenty just before it was noted. Without
	 * a part, though, trying again is of no use until one is freed.
	 */
	if (p->wake_keeper ||
		(p->part != NULL && jobq_free_slots() >= jobq_reload_threshold()))
		jobq_wake_keeper(p->db);
}

int
jobq_publish(JobqDb *db, uint32 gen, const JobqTicket *tickets,
			 const JobqLease *leases, int n, uint8 flags)
{
	Publish		p;

	if (n <= 0)
		return 0;
	p.db = db;
	p.gen = gen;
	p.part = jobq_part_get(db, gen, tickets[0].queue_id);
	p.flags = flags;
	p.nspilled = 0;
	p.min_spilled = JOBQ_NEVER;
	p.first_expiry = JOBQ_NEVER;
	p.nfresh = 0;
	p.wake_keeper = false;

	for (int i = 0; i < n; i++)
	{
		if (p.part == NULL)
			spill(&p, tickets[i].id);
		else
			enter(&p, &tickets[i], leases != NULL ? &leases[i] : NULL);
		if (p.nfresh == JOBQ_CHUNK || (i == n - 1 && p.nfresh > 0))
			link_fresh(&p, tickets[0].queue_id);
	}
	report_spilled(&p);
	if (p.first_expiry != JOBQ_NEVER)
		jobq_wake_keeper_by(db, p.first_expiry);
	return p.nspilled;
}
