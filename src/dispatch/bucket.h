/*
 * bucket.h: the bucket of a job in the hash. Plain C, no server headers: also
 * built into a stand-alone test.
 */
#ifndef JOBQ_BUCKET_H
#define JOBQ_BUCKET_H

#include <stdint.h>

/*
 * A number of which the low bits say the bucket and the lock. Sixteen ids in a
 * row have buckets in a row, in one cache line: whoever adds the next job finds
 * it warm. Above that all is mixed (Knuth's multiplicative hash), so that jobs
 * whose ids keep a distance do not meet in few buckets or under few locks.
 */
static inline uint32_t
jobq_bucket_hash(int db, int64_t id)
{
	uint64_t	h = ((uint64_t) id >> 4) + ((uint64_t) (uint32_t) db << 44);

	h *= UINT64_C(0x9E3779B97F4A7C15);
	h >>= 32;
	return (uint32_t) ((h << 4) ^ ((uint64_t) id & 15) ^ (h >> 28));
}

#endif							/* JOBQ_BUCKET_H */
