/*
 * numbers.c: ids, tickets and leases out of shared memory.
 *
 * Hands out only numbers below a mark that is durable already. Must not know
 * tables, with one exception: a fresh block comes from
 * jobq_store_next_block() of the store, which may raise an error and is never
 * called with a lock held.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "dispatch/dispatch.h"
#include "store/store.h"

/* Days from PostgreSQL's epoch, 2000-01-01, to that of leases, 2024-01-01. */
#define LEASE_EPOCH_DAYS		8766
#define LEASES_PER_MS			4096
#define USECS_PER_MS			1000

/*
 * Keep a block that was taken from disk, as the present one or as the spare.
 * One that would not ascend, or that nobody needs, is thrown away.
 */
static void
keep_block(JobqDb *db, int64 start)
{
	SpinLockAcquire(&db->mutex);
	if (start >= db->number_limit)
	{
		if (db->number_next < db->number_limit)
		{
			if (db->spare_start == 0)
				db->spare_start = start;
		}
		else if (db->spare_start == 0 || start < db->spare_start)
		{
			db->number_next = start;
			db->number_limit = start + JOBQ_NUMBER_BLOCK;
		}
		else
		{
			db->number_next = db->spare_start;
			db->number_limit = db->spare_start + JOBQ_NUMBER_BLOCK;
			db->spare_start = start;
		}
	}
	SpinLockRelease(&db->mutex);
}

void
jobq_take_numbers(JobqDb *db, int n, int64 *numbers)
{
	int			got = 0;

	while (got < n)
	{
		int64		start;
		int64		left;
		int64		count;
		bool		low;

		SpinLockAcquire(&db->mutex);
		if (db->number_next >= db->number_limit && db->spare_start != 0)
		{
			db->number_next = db->spare_start;
			db->number_limit = db->spare_start + JOBQ_NUMBER_BLOCK;
			db->spare_start = 0;
		}
		start = db->number_next;
		left = db->number_limit - start;
		count = Min((int64) (n - got), left);
		db->number_next = start + count;
		low = db->spare_start == 0 && left >= JOBQ_NUMBER_BLOCK / 2 &&
			left - count < JOBQ_NUMBER_BLOCK / 2;
		SpinLockRelease(&db->mutex);

		if (count == 0)
		{
			keep_block(db, jobq_store_next_block());
			continue;
		}
		for (int64 i = 0; i < count; i++)
			numbers[got++] = start + i;
		if (low)
			jobq_wake_keeper(db);
	}
}

int64
jobq_take_number(JobqDb *db)
{
	int64		number;

	jobq_take_numbers(db, 1, &number);
	return number;
}

static bool
has_spare(JobqDb *db)
{
	bool		result;

	SpinLockAcquire(&db->mutex);
	result = db->spare_start != 0;
	SpinLockRelease(&db->mutex);
	return result;
}

void
jobq_reserve_numbers(JobqDb *db)
{
	while (!has_spare(db))
		keep_block(db, jobq_store_next_block());
}

/* The lease that the clock alone would give; 0 before 2024. */
int64
jobq_lease_from_time(TimestampTz when)
{
	int64		us = when - LEASE_EPOCH_DAYS * USECS_PER_DAY;

	return us > 0 ? us / USECS_PER_MS * LEASES_PER_MS : 0;
}

int64
jobq_try_take_lease(JobqDb *db, TimestampTz now)
{
	int64		clock = jobq_lease_from_time(now);
	int64		lease;
	int64		left;

	SpinLockAcquire(&db->mutex);
	lease = Max(db->lease_last + 1, clock);
	left = db->lease_limit - lease;
	if (left > 0)
		db->lease_last = lease;
	if (left < JOBQ_LEASE_RESERVE / 2)
		db->lease_wanted = true;
	SpinLockRelease(&db->mutex);

	if (left < JOBQ_LEASE_RESERVE / 2)
		jobq_wake_keeper(db);
	return left > 0 ? lease : 0;
}
