/*
 * window.h: how much has happened in the last so many microseconds: a log of
 * times and counts, so that no more than a limit happens in any window.
 *
 * Plain C, no server headers: also built into a stand-alone model test. Never
 * allocates, never fails. Not thread-safe: the caller holds the lock.
 */
#ifndef JOBQ_WINDOW_H
#define JOBQ_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define JOBQ_WINDOW_CHUNK	31	/* entries */
#define JOBQ_WINDOW_GRAINS	1024

/* Entries of a window; from a pool that all windows share. */
typedef struct JobqWindowChunk
{
	int64_t		at[JOBQ_WINDOW_CHUNK];
	int32_t		n[JOBQ_WINDOW_CHUNK];
	int32_t		next;			/* the next newer one's; free list */
} JobqWindowChunk;

/*
 * One log, the newest entry at hand, the others in chunks. All zeroes: empty.
 * Before its memory goes it is to be cleared. An entry counts up to and
 * including the moment `period` after it.
 */
typedef struct JobqWindow
{
	int64_t		newest;			/* its time and count */
	int32_t		n;
	int32_t		total;			/* of all counts */
	int32_t		entries;		/* the newest one included */
	int32_t		from;			/* where the oldest is, in its chunk */
	int32_t		first;			/* chunks, if there are older entries */
	int32_t		last;
} JobqWindow;

#define JOBQ_WINDOW_NEVER	INT64_MAX

/*
 * How many more may be added at `now`, which comes from a clock read under
 * the lock: should it have been set back, what lies in the future moves to now.
 */
extern int32_t jobq_window_room(JobqWindow *window, int32_t limit,
								int64_t period, int64_t now);

/*
 * When n more may be added: now or earlier if there is room by now,
 * JOBQ_WINDOW_NEVER if the limit is less than n.
 */
extern int64_t jobq_window_when(const JobqWindow *window, int32_t limit,
								int64_t period, int32_t n);

/*
 * Add n, and learn at which time they count: `now`, or a little later, for
 * where limits are large, or the pool is empty, entries are joined.
 */
extern int64_t jobq_window_add(JobqWindow *window, int32_t limit,
							   int64_t period, int64_t now, int32_t n);

/* The same, with the newest entry: never takes another chunk. */
extern int64_t jobq_window_join(JobqWindow *window, int32_t limit,
								int64_t period, int64_t now, int32_t n);

/* How many chunks it has, and does another entry take one more? */
extern int32_t jobq_window_chunks_of(const JobqWindow *window);
extern bool jobq_window_is_full(const JobqWindow *window);

/*
 * What it counts, oldest first, in at most `max` times and counts; entries that
 * are joined for that count at the latest time of theirs. How many there are.
 */
extern int32_t jobq_window_copy(const JobqWindow *window, int32_t max,
								int64_t *at, int32_t *n);

/* n that were added at the time `at` have not happened after all. */
extern void jobq_window_take_back(JobqWindow *window, int64_t period,
								  int64_t now, int64_t at, int32_t n);

extern void jobq_window_clear(JobqWindow *window);

/* ---- the pool, provided by windowpool.c ---- */

extern JobqWindowChunk *jobq_window_chunks;
extern int32_t jobq_window_chunk_get(void);	/* -1 = none is left */
extern void jobq_window_chunk_put(int32_t chunk);

#endif							/* JOBQ_WINDOW_H */
