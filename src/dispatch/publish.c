/*
 * publish.c: committed tickets become available, or running, in memory.
 *
 * Runs in commit callbacks: must not allocate, raise an error, or hold a lock
 * for more than JOBQ_CHUNK slots.
 */
#include "postgres.h"

#include "access/xact.h"

#include "dispatch/internal.h"
#include "dispatch/meter.h"

/* Up to JOBQ_CHUNK tickets of one queue. */
typedef struct Publish
{
	JobqDb	   *db;
	uint32		gen;
	int32		queue_id;
	JobqPart   *part;
	const JobqTicket *tickets;
	const JobqLease *leases;	/* NULL = none runs */
	int			n;
	int			nnew;
	uint64		since;
	bool		keep[JOBQ_CHUNK];	/* before the frontier, or running */
	int			nspilled;
	int			nready;			/* that can be taken now */
	bool		wake_keeper;
	TimestampTz first_expiry;
} Publish;

static const JobqLease *
lease_of(const Publish *p, int i)
{
	return p->leases != NULL && p->leases[i].lease != 0 ? &p->leases[i] : NULL;
}

static bool
must_enter(const Publish *p, int i)
{
	return lease_of(p, i) != NULL || jobq_is_kept(p->part, &p->tickets[i]);
}

/* Count them, and leave those behind the frontier on disk. */
static bool
sort_out(Publish *p)
{
	bool		open;

	LWLockAcquire(p->part->lock, LW_EXCLUSIVE);
	open = jobq_part_is(p->part, p->gen, p->queue_id);
	for (int i = 0; open && i < p->n; i++)
	{
		JobqKey		key = jobq_key_of(&p->tickets[i], p->part->aging);

		p->keep[i] = true;
		if (lease_of(p, i) != NULL)
			continue;
		p->part->counters[COUNT_AVAILABLE]++;
		if (must_enter(p, i))
			continue;
		if (!jobq_key_before(&key, &p->part->frontier))
		{
			if (jobq_key_before(&key, &p->part->missed))
				p->part->missed = key;
		}
		else if (!jobq_group_leaves_out(p->part, &p->tickets[i]))
			continue;
		p->keep[i] = false;
		p->nspilled++;
	}
	if (open && p->nspilled > 0)
		p->wake_keeper = jobq_part_asks(p->part);
	if (open && p->nnew > 0)
		jobq_meter_count(p->part, COUNT_ENQUEUED, p->nnew,
						 GetCurrentTransactionStopTimestamp());
	LWLockRelease(p->part->lock);
	return open;
}

static void
lose_lease(JobqDb *db)
{
	SpinLockAcquire(&db->mutex);
	db->lost_leases = true;
	SpinLockRelease(&db->mutex);
}

/* No slot for it, or its job's slot is still in somebody's hands. */
static void
leave(Publish *p, int i)
{
	JobqKey		key;

	p->wake_keeper = true;
	if (must_enter(p, i))
	{
		lose_lease(p->db);
		return;
	}
	p->nspilled++;
	LWLockAcquire(p->part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(p->part, p->gen, p->queue_id))
	{
		key = jobq_key_of(&p->tickets[i], p->part->aging);
		jobq_retreat(p->part, &key);
		p->part->asked = true;
	}
	LWLockRelease(p->part->lock);
}

static void
publish_chunk(Publish *p)
{
	int32		fresh[JOBQ_CHUNK];
	int			nfresh = 0;

	if (!sort_out(p))
		return;
	for (int i = 0; i < p->n; i++)
	{
		JobqEntered entered;

		if (!p->keep[i])
		{
			if (p->tickets[i].started)
				jobq_unshelve(p->db, p->gen, p->tickets[i].id);
			continue;
		}
		entered = jobq_enter_or_push_out(p->part, jobq_db_index(p->db), p->gen,
										 FROM_COMMIT, &p->tickets[i],
										 lease_of(p, i), must_enter(p, i),
										 &fresh[nfresh]);
		if (entered == ENTER_DONE)
			nfresh++;
		else if (entered != ENTER_PRESENT)
		{
			leave(p, i);
			continue;
		}
		if (lease_of(p, i) == NULL)
			p->nready++;
	}
	if (nfresh > 0)
		jobq_slots_link(p->part, p->gen, p->queue_id, fresh, nfresh,
						&p->since, &p->first_expiry);
	jobq_wake_waiters(p->part, p->gen, p->nready);
}

static void
count_spills(JobqDb *db, int n)
{
	SpinLockAcquire(&db->mutex);
	db->spills += n;
	SpinLockRelease(&db->mutex);
}

uint64
jobq_before_publish(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_get(db, gen, queue_id);

	/* odd: whatever there will be is to be looked at */
	return part != NULL ? pg_atomic_read_u64(&part->entries) : 1;
}

#define ONE_CLAIMER		((UINT64CONST(1) << 32) + 1)

void
jobq_claimer_comes(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_get(db, gen, queue_id);

	if (part != NULL)
		(void) pg_atomic_fetch_add_u64(&part->claimers, ONE_CLAIMER);
}

void
jobq_claimer_goes(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);

	if (part != NULL)
		(void) pg_atomic_fetch_sub_u64(&part->claimers, 1);
}

bool
jobq_claimer_is_coming(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);

	return part == NULL ||
		(pg_atomic_read_u64(&part->claimers) & PG_UINT32_MAX) != 0;
}

void
jobq_publish(JobqDb *db, uint32 gen, const JobqTicket *tickets,
			 const JobqLease *leases, int n, uint64 since, int nnew)
{
	JobqPart   *part;

	if (n <= 0)
		return;
	part = jobq_part_get(db, gen, tickets[0].queue_id);
	if (part == NULL)
	{
		count_spills(db, n);
		return;
	}
	for (int from = 0; from < n; from += JOBQ_CHUNK)
	{
		Publish		p;

		p.db = db;
		p.gen = gen;
		p.queue_id = tickets[0].queue_id;
		p.part = part;
		p.tickets = tickets + from;
		p.leases = leases != NULL ? leases + from : NULL;
		p.n = Min(n - from, JOBQ_CHUNK);
		p.nnew = from == 0 ? nnew : 0;
		p.since = since;
		p.nspilled = 0;
		p.nready = 0;
		p.wake_keeper = false;
		p.first_expiry = JOBQ_NEVER;
		publish_chunk(&p);
		if (p.nspilled > 0)
			count_spills(db, p.nspilled);
		if (p.wake_keeper)
			jobq_wake_keeper(db);
		if (p.first_expiry != JOBQ_NEVER)
			jobq_wake_keeper_by(db, p.first_expiry);
	}
}

/* ---- on the shelf ---- */

void
jobq_shelve(JobqDb *db, uint32 gen, const JobqTicket *t)
{
	JobqPart   *part = jobq_part_find(db, gen, t->queue_id);
	TimestampTz never = JOBQ_NEVER;
	JobqEntered entered;
	int32		number;
	bool		keeps;

	/* whoever makes the part, or its rules, loads what is there then */
	if (part == NULL)
		return;
	LWLockAcquire(part->lock, LW_SHARED);
	keeps = jobq_part_is(part, gen, t->queue_id) && jobq_is_kept(part, t);
	LWLockRelease(part->lock);
	if (!keeps)
		return;
	entered = jobq_enter_or_push_out(part, jobq_db_index(db), gen, FROM_COMMIT,
									 t, NULL, true, &number);
	if (entered == ENTER_DONE)
		jobq_slots_link(part, gen, t->queue_id, &number, 1, NULL, &never);
	else if (entered != ENTER_PRESENT)
	{
		lose_lease(db);
		jobq_wake_keeper(db);
	}
	jobq_wake_waiters(part, gen, 1);
}

static bool
is_shelved(const JobqSlot *slot, const JobqSlotRef *ref)
{
	return slot->state == SLOT_SHELVED;
}

void
jobq_unshelve(JobqDb *db, uint32 gen, int64 id)
{
	JobqSlotRef ref = {.slot = JOBQ_NIL,.gen = gen,.id = id};

	(void) jobq_slot_remove(jobq_db_index(db), &ref, is_shelved);
}
