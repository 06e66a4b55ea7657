/*
 * windowpool.c: the chunks of windows, in shared memory. Must not know what
 * they are used for, nor allocate or raise an error.
 */
#include "postgres.h"

#include "storage/shmem.h"

#include "dispatch/internal.h"
#include "dispatch/rate.h"
#include "dispatch/window.h"

#define MIN_CHUNKS		256
#define JOBS_A_CHUNK	32

typedef struct WindowPool
{
	slock_t		mutex;
	int32		free;			/* -1 = none */
	int32		nfree;
} WindowPool;

static WindowPool *pool;
JobqWindowChunk *jobq_window_chunks;

static int32
chunk_count(void)
{
	return Max(MIN_CHUNKS, jobq_max_live_jobs / JOBS_A_CHUNK) +
		jobq_rate_chunks();
}

static Size
chunks_size(void)
{
	return mul_size((Size) chunk_count(), sizeof(JobqWindowChunk));
}

Size
jobq_window_pool_size(void)
{
	return add_size(MAXALIGN(sizeof(WindowPool)), MAXALIGN(chunks_size()));
}

void
jobq_window_pool_startup(void)
{
	bool		found;

	pool = ShmemInitStruct("pg_jobq window pool", sizeof(WindowPool), &found);
	jobq_window_chunks = ShmemInitStruct("pg_jobq windows", chunks_size(),
										 &found);
	if (found)
		return;
	SpinLockInit(&pool->mutex);
	pool->free = 0;
	pool->nfree = chunk_count();
	for (int32 i = 0; i < chunk_count(); i++)
		jobq_window_chunks[i].next = i + 1 < chunk_count() ? i + 1 : -1;
}

int32_t
jobq_window_chunk_get(void)
{
	int32		chunk;

	SpinLockAcquire(&pool->mutex);
	chunk = pool->free;
	if (chunk >= 0)
	{
		pool->free = jobq_window_chunks[chunk].next;
		pool->nfree--;
	}
	SpinLockRelease(&pool->mutex);
	return chunk;
}

void
jobq_window_chunk_put(int32_t chunk)
{
	SpinLockAcquire(&pool->mutex);
	jobq_window_chunks[chunk].next = pool->free;
	pool->free = chunk;
	pool->nfree++;
	SpinLockRelease(&pool->mutex);
}

int32
jobq_window_free_chunks(int32 *all)
{
	int32		nfree;

	*all = chunk_count();
	SpinLockAcquire(&pool->mutex);
	nfree = pool->nfree;
	SpinLockRelease(&pool->mutex);
	return nfree;
}
