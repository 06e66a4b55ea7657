/*
 * late.c: started jobs that a transaction has put on the shelf, or taken off
 * it, which can be seen before the end of its commit has told memory of it.
 * Kept for each session as a set of bits by job, so that a few too many may be
 * held for late. The lock of a transaction would not tell: that of a
 * subtransaction is gone by then.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/shmem.h"

#include "compat.h"
#include "dispatch/dispatch.h"
#include "dispatch/internal.h"

typedef struct Late
{
	pg_atomic_uint32 sessions;	/* how many have something below */
	pg_atomic_uint64 jobs[FLEXIBLE_ARRAY_MEMBER];	/* by pgprocno */
} Late;

static Late *late;

Size
jobq_late_size(void)
{
	return add_size(offsetof(Late, jobs),
					mul_size(jobq_max_backends(), sizeof(pg_atomic_uint64)));
}

void
jobq_late_init(void)
{
	bool		found;

	late = ShmemInitStruct("pg_jobq late", jobq_late_size(), &found);
	if (found)
		return;
	pg_atomic_init_u32(&late->sessions, 0);
	for (int i = 0; i < jobq_max_backends(); i++)
		pg_atomic_init_u64(&late->jobs[i], 0);
}

/* Fibonacci hashing: the upper bits of the product by 2^64 / phi. */
#define FIBONACCI		UINT64CONST(0x9E3779B97F4A7C15)

uint64
jobq_late_bit(int64 job)
{
	uint64		seed = (uint64) job ^ ((uint64) MyDatabaseId << 32);

	return UINT64CONST(1) << ((seed * FIBONACCI) >> 58);
}

void
jobq_late_begin(uint64 jobs)
{
	pg_atomic_fetch_add_u32(&late->sessions, 1);
	pg_atomic_write_u64(&late->jobs[jobq_my_procno()], jobs);
	/* before anybody can see what we have written */
	pg_memory_barrier();
}

void
jobq_late_end(void)
{
	/* after all that we have told */
	pg_memory_barrier();
	pg_atomic_write_u64(&late->jobs[jobq_my_procno()], 0);
	pg_atomic_fetch_sub_u32(&late->sessions, 1);
}

bool
jobq_is_late(int64 job)
{
	uint64		bit = jobq_late_bit(job);

	/* after its row was read */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&late->sessions) == 0)
		return false;
	for (int i = 0; i < jobq_max_backends(); i++)
	{
		if (i != jobq_my_procno() &&
			(pg_atomic_read_u64(&late->jobs[i]) & bit) != 0)
			return true;
	}
	return false;
}
