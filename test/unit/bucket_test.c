/*
 * bucket_test.c: jobs that stay share no bucket with many others, whatever
 * distance their ids keep, and neighbours lie together. Built without the
 * server.
 */
#include <stdlib.h>
#include <string.h>

#include "dispatch/bucket.h"
#include "unit.h"

#define BUCKETS		131072		/* as many as there are for JOBS */
#define JOBS		100000
#define LOCKS		64
#define CHAIN_MAX	12			/* about what chance gives */

static int	chains[BUCKETS];
static bool locks[LOCKS];

static bool
spreads(int db, int64_t first, int64_t distance)
{
	int			longest = 0;
	int			nlocks = 0;

	memset(chains, 0, sizeof(chains));
	memset(locks, 0, sizeof(locks));
	for (int i = 0; i < JOBS; i++)
	{
		uint32_t	hash = jobq_bucket_hash(db, first + i * distance);
		int			chain = ++chains[hash & (BUCKETS - 1)];

		longest = chain > longest ? chain : longest;
		nlocks += !locks[hash % LOCKS];
		locks[hash % LOCKS] = true;
	}
	return longest <= CHAIN_MAX && nlocks == LOCKS;
}

static bool
neighbours_lie_together(int db)
{
	for (int64_t id = 1600; id < 3200; id++)
	{
		if (jobq_bucket_hash(db, id) / 16 != jobq_bucket_hash(db, id / 16 * 16) / 16)
			return false;
	}
	return true;
}

int
main(void)
{
	static const int64_t distances[] = {1, 2, 3, 7, 10, 16, 17, 64, 100, 256,
	1000, 1024, 4096, 65536, 1000000, INT64_C(1) << 32};

	for (size_t i = 0; i < sizeof(distances) / sizeof(distances[0]); i++)
	{
		char		name[100];

		snprintf(name, sizeof(name), "ids at a distance of %lld",
				 (long long) distances[i]);
		ok(spreads(0, 1, distances[i]) &&
		   spreads(7, 123456789, distances[i]), name);
	}
	ok(neighbours_lie_together(0) && neighbours_lie_together(5),
	   "sixteen in a row");
	return done_testing();
}
