/*
 * part.c: the parts of queues: finding, making, freeing and counting.
 *
 * An open table of parts, probed linearly from a hashed position. A freed
 * part keeps its generation as a tombstone, so that a search ends only at one
 * that was never used. Must not look into slots.
 */
#include "postgres.h"

#include "access/transam.h"
#include "common/hashfn.h"
#include "utils/memutils.h"

#include "dispatch/internal.h"
#include "dispatch/meter.h"

#define CACHE_SIZE				1024	/* a power of two */

/* Which queue a backend found where. */
typedef struct PartKey
{
	uint32		gen;			/* 0 = unused; tells databases apart too */
	int32		queue_id;
} PartKey;

/*
 * Local to the backend: where recently used queues were, and, by part, as
 * whose the backend last got it.
 */
static struct
{
	PartKey		key;
	int			part;
}			cache[CACHE_SIZE];

static PartKey *expected;

static const JobqKey all = {.priority = JOBQ_KEY_END};

/* In the postmaster; backends inherit it, so that none has to allocate. */
void
jobq_part_prepare(void)
{
	if (expected != NULL)
		pfree(expected);
	expected = MemoryContextAllocZero(TopMemoryContext,
									  sizeof(PartKey) * jobq_max_queues);
}

bool
jobq_part_is_mine(const JobqPart *part, uint32 gen)
{
	const PartKey *mine = &expected[jobq_part_index(part)];

	return mine->gen == gen && jobq_part_is(part, gen, mine->queue_id);
}

static JobqPart *
remember(JobqPart *part, uint32 gen, int32 queue_id)
{
	int			index = jobq_part_index(part);
	PartKey		key = {gen, queue_id};

	expected[index] = key;
	cache[queue_id & (CACHE_SIZE - 1)].key = key;
	cache[queue_id & (CACHE_SIZE - 1)].part = index;
	return part;
}

/*
 * Without any lock: whoever uses the part looks again under its lock. So an
 * outdated look costs a search or an empty answer, never a wrong one.
 */
static JobqPart *
recall(const JobqDb *db, uint32 gen, int32 queue_id)
{
	const PartKey *key = &cache[queue_id & (CACHE_SIZE - 1)].key;
	JobqPart   *part;

	if (key->gen != gen || key->queue_id != queue_id || db->gen != gen)
		return NULL;
	part = &jobq_parts[cache[queue_id & (CACHE_SIZE - 1)].part];
	if (!jobq_part_is(part, gen, queue_id))
		return NULL;
	return remember(part, gen, queue_id);
}

/*
 * Under control->lock: the part, closing or not. When there is none, *vacant
 * is where it can be made, NULL when all are taken.
 */
static JobqPart *
search(uint32 gen, int32 queue_id, JobqPart **vacant)
{
	uint32		start = hash_combine(murmurhash32(gen),
									 murmurhash32((uint32) queue_id));

	*vacant = NULL;
	for (int i = 0; i < jobq_max_queues; i++)
	{
		JobqPart   *part;

		part = &jobq_parts[(start + (uint32) i) % (uint32) jobq_max_queues];
		if (part->db >= 0)
		{
			if (part->gen == gen && part->queue_id == queue_id)
				return part;
			continue;
		}
		if (*vacant == NULL)
			*vacant = part;
		if (part->gen == 0)
			break;
	}
	return NULL;
}

/* Take a vacant part, or give one back, with control->lock exclusive. */
static void
assign(JobqPart *part, int db, uint32 gen, int32 queue_id,
	   const JobqKey *frontier)
{
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	part->db = db;
	part->gen = gen;
	part->queue_id = queue_id;
	part->closing = false;
	jobq_tree_init(&part->ready_tree);
	jobq_tree_init(&part->lease_tree);
	jobq_tree_init(&part->expiry_tree);
	part->oldest = JOBQ_NEVER;
	part->ready = 0;
	part->running = 0;
	part->rolled_back = 0;
	part->grace = 0;
	part->start_wanted = 0;
	memset(part->counters, 0, sizeof(part->counters));
	part->frontier = *frontier;
	part->missed.priority = JOBQ_KEY_END;
	part->refilling = false;
	part->asked = false;
	part->holder = InvalidTransactionId;
	memset(&part->rules, 0, sizeof(part->rules));
	part->aging = 0;
	part->aging_wanted = -1;
	jobq_limits_reset(part);
	jobq_part_groups_reset(part);
	jobq_part_meter_reset(part);
	jobq_part_waiters_reset(part);
	pg_atomic_write_u64(&part->entries,
						(pg_atomic_read_u64(&part->entries) + 2) &
						~UINT64CONST(1));
	pg_atomic_write_u64(&part->claimers, 0);
	LWLockRelease(part->lock);
}

JobqPart *
jobq_part_find(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = recall(db, gen, queue_id);
	JobqPart   *vacant;

	if (part != NULL)
		return part;
	LWLockAcquire(jobq_control->lock, LW_SHARED);
	part = db->gen == gen ? search(gen, queue_id, &vacant) : NULL;
	if (part != NULL && part->closing)
		part = NULL;
	LWLockRelease(jobq_control->lock);
	return part != NULL ? remember(part, gen, queue_id) : NULL;
}

JobqPart *
jobq_part_lock(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);

	if (part == NULL)
		return NULL;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id))
		return part;
	LWLockRelease(part->lock);
	return NULL;
}

void
jobq_part_follow(JobqPart *part, const JobqRules *rules)
{
	JobqRules	old = part->rules;

	if (jobq_rules_are(rules, &old))
		return;
	part->rules = *rules;
	jobq_limits_follow(part);
	jobq_group_rules_changed(part, &old);
}

/*
 * What a new part may know of its queue: all, which is nothing, unless memory
 * is not loaded yet or did not have room for the queue before.
 */
static JobqKey
first_frontier(JobqDb *db)
{
	JobqKey		frontier = {.priority = JOBQ_KEY_END};

	SpinLockAcquire(&db->mutex);
	if (db->state != JOBQ_DB_READY || db->lost_parts)
		frontier.priority = JOBQ_KEY_START;
	SpinLockRelease(&db->mutex);
	return frontier;
}

/* Under control->lock: a part that is made later does not know all. */
static void
lose_part(JobqDb *db)
{
	SpinLockAcquire(&db->mutex);
	db->lost_parts = true;
	SpinLockRelease(&db->mutex);
}

static void
ask_for_parts(void)
{
	pg_atomic_fetch_add_u32(&jobq_control->parts_lacking, 1);
	for (int i = 0; i < jobq_max_databases; i++)
		jobq_wake_keeper(&jobq_dbs[i]);
}

JobqPart *
jobq_part_get(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	JobqPart   *vacant;

	if (part != NULL)
		return part;
	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	if (db->gen == gen)
	{
		part = search(gen, queue_id, &vacant);
		if (part != NULL && part->closing)
			part = NULL;
		else if (part == NULL && vacant != NULL)
		{
			JobqKey		frontier = first_frontier(db);

			assign(vacant, jobq_db_index(db), gen, queue_id, &frontier);
			part = vacant;
		}
	}
	if (part == NULL)
		lose_part(db);
	LWLockRelease(jobq_control->lock);
	if (part == NULL)
		ask_for_parts();
	return part != NULL ? remember(part, gen, queue_id) : NULL;
}

int
jobq_parts_of(JobqDb *db, uint32 gen, int from, JobqPart **part)
{
	int			index = jobq_db_index(db);

	*part = NULL;
	LWLockAcquire(jobq_control->lock, LW_SHARED);
	for (int i = from; i < jobq_max_queues && *part == NULL; i++)
		if (jobq_parts[i].db == index && jobq_parts[i].gen == gen &&
			!jobq_parts[i].closing)
			*part = remember(&jobq_parts[i], gen, jobq_parts[i].queue_id);
	LWLockRelease(jobq_control->lock);
	return *part != NULL ? jobq_part_index(*part) + 1 : -1;
}

/* ---- freeing ---- */

/*
 * First step, with control->lock exclusive: from now on nothing is linked
 * here. A publisher that comes too late notices and drops its slots itself,
 * and whoever waits looks elsewhere.
 */
static void
close_part(JobqPart *part)
{
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	part->closing = true;
	LWLockRelease(part->lock);
	jobq_wake_all_waiters(part, part->gen);
}

void
jobq_part_free(JobqDb *db, uint32 gen, int32 queue_id, bool for_good)
{
	int			index = jobq_db_index(db);
	JobqPart   *part;
	JobqPart   *vacant;

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	part = search(gen, queue_id, &vacant);
	if (part != NULL)
	{
		close_part(part);
		if (!for_good)
			lose_part(db);
	}
	LWLockRelease(jobq_control->lock);
	if (part == NULL)
		return;

	jobq_slot_drop_closing(index);

	/* A sweep may have freed it meanwhile. */
	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	if (part->closing && part->gen == gen && part->queue_id == queue_id)
		assign(part, -1, gen, 0, &all);
	LWLockRelease(jobq_control->lock);
	jobq_wake_refillers();
}

void
jobq_part_free_before(JobqDb *db, uint32 keep)
{
	int			index = jobq_db_index(db);
	int			nclosed = 0;

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < jobq_max_queues; i++)
	{
		if (jobq_parts[i].db != index || jobq_parts[i].gen >= keep)
			continue;
		close_part(&jobq_parts[i]);
		nclosed++;
	}
	LWLockRelease(jobq_control->lock);
	if (nclosed == 0)
		return;

	jobq_slot_drop_closing(index);

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < jobq_max_queues; i++)
		if (jobq_parts[i].db == index && jobq_parts[i].gen < keep &&
			jobq_parts[i].closing)
			assign(&jobq_parts[i], -1, jobq_parts[i].gen, 0, &all);
	LWLockRelease(jobq_control->lock);
	jobq_wake_refillers();
}

/* ---- counters ---- */

bool
jobq_lacks_leases(JobqDb *db)
{
	bool		lacks;

	SpinLockAcquire(&db->mutex);
	lacks = jobq_db_lacks_leases(db);
	SpinLockRelease(&db->mutex);
	return lacks;
}

void
jobq_part_count(JobqDb *db, uint32 gen, int32 queue_id, JobqCounter counter,
				int64 delta)
{
	JobqPart   *part;

	if (counter == COUNT_NONE || delta == 0)
		return;
	part = jobq_part_get(db, gen, queue_id);
	if (part == NULL)
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id))
	{
		part->counters[counter] += delta;
		if (counter == COUNT_FAILED && delta > 0)
			jobq_limits_failed(part, (int) delta);
	}
	LWLockRelease(part->lock);
	if (delta < 0)
		jobq_wake_if_idle(part);
}

bool
jobq_part_stats(JobqDb *db, uint32 gen, int32 queue_id, JobqPart *copy)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	bool		found;

	if (part == NULL)
		return false;
	LWLockAcquire(part->lock, LW_SHARED);
	found = jobq_part_is(part, gen, queue_id);
	if (found)
		*copy = *part;
	LWLockRelease(part->lock);
	return found;
}
