/*
 * window_test.c: compares the window with a plain list of times over many
 * random steps, with a pool that runs empty. Prints TAP. Knows the window
 * only through its header.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/window.h"
#include "unit.h"

#define CHUNKS		40
#define MAX_EVENTS	20000
#define STEPS		20000

/* ---- the pool ---- */

static JobqWindowChunk chunks[CHUNKS];
JobqWindowChunk *jobq_window_chunks = chunks;
static int32_t free_chunks[CHUNKS];
static int	nfree;

int32_t
jobq_window_chunk_get(void)
{
	return nfree > 0 ? free_chunks[--nfree] : -1;
}

void
jobq_window_chunk_put(int32_t chunk)
{
	if (nfree == CHUNKS || chunk < 0 || chunk >= CHUNKS)
		abort();
	for (int i = 0; i < nfree; i++)
	{
		if (free_chunks[i] == chunk)
			abort();
	}
	memset(&chunks[chunk], 0x5a, sizeof(chunks[chunk]));
	free_chunks[nfree++] = chunk;
}

static void
fill_pool(int n)
{
	nfree = 0;
	for (int i = 0; i < n; i++)
		free_chunks[nfree++] = i;
}

/* ---- the model: every event that was not taken back ---- */

typedef struct Event
{
	int64_t		now;			/* when it really happened */
	int64_t		at;				/* when it counts */
	int32_t		n;
} Event;

static Event events[MAX_EVENTS];
static int	nevents;

/* So many happened within period before now, now included. */
static int64_t
happened(int64_t now, int64_t period)
{
	int64_t		sum = 0;

	for (int i = 0; i < nevents; i++)
	{
		if (events[i].now >= now - period)
			sum += events[i].n;
	}
	return sum;
}

static int64_t
counted(int64_t now, int64_t period)
{
	int64_t		sum = 0;

	for (int i = 0; i < nevents; i++)
	{
		if (events[i].at >= now - period)
			sum += events[i].n;
	}
	return sum;
}

typedef struct Run
{
	const char *name;
	int32_t		limit;
	int64_t		period;
	int			pool;			/* chunks */
	int64_t		late;			/* capacity may come back so much later;
								 * -1 = as late as it likes */
} Run;

/* Which of what a run has promised it has broken, or NULL. */
static const char *
step_of(const Run *run, JobqWindow *window, int64_t now)
{
	int32_t		room = jobq_window_room(window, run->limit, run->period, now);
	int64_t		used = happened(now, run->period);
	int64_t		when;

	if (used + room > run->limit)
		return "more than the limit";
	if (run->late >= 0 &&
		run->limit - happened(now, run->period + run->late) > room)
		return "capacity is lost";
	if (run->late >= 0 && counted(now, run->period) != window->total)
		return "it counts wrongly";
	when = jobq_window_when(window, run->limit, run->period, 1);
	if ((when <= now) != (room > 0))
		return "it names a wrong time";
	if (room > 0 && random_below(3) > 0 && nevents < MAX_EVENTS)
	{
		int32_t		n = 1 + (int32_t) random_below((uint32_t) room);

		if (random_below(4) > 0)
			n = 1;
		events[nevents].now = now;
		events[nevents].n = n;
		events[nevents].at = jobq_window_add(window, run->limit, run->period,
											 now, n);
		if (events[nevents].at < now)
			return "it counts from too early";
		nevents++;
	}
	if (nevents > 0 && random_below(5) == 0)
	{
		int			i = nevents - 1 -
			(int) random_below(nevents < 20 ? (uint32_t) nevents : 20);

		jobq_window_take_back(window, run->period, now, events[i].at,
							  events[i].n);
		events[i].n = 0;
	}
	return NULL;
}

static void
try_run(const Run *run)
{
	JobqWindow	window = {0};
	const char *broken = NULL;
	int64_t		now = INT64_C(800000000000000);
	char		name[200];

	fill_pool(run->pool);
	nevents = 0;
	for (int i = 0; i < STEPS && broken == NULL; i++)
	{
		now += random_below(10) == 0 ? (int64_t) random_below(3000) :
			(int64_t) random_below(20);
		broken = step_of(run, &window, now);
	}
	jobq_window_clear(&window);
	if (broken == NULL && (nfree != run->pool || window.total != 0))
		broken = "chunks are lost";
	snprintf(name, sizeof(name), "%s: %s", run->name,
			 broken != NULL ? broken : "no more than the limit, nothing lost");
	ok(broken == NULL, name);
}

/* When there is room again for n, and that there is, at that time. */
static void
try_when(void)
{
	JobqWindow	window = {0};
	int64_t		when;

	fill_pool(CHUNKS);
	for (int i = 0; i < 100; i++)
		(void) jobq_window_add(&window, 100, 1000, i, 1);
	when = jobq_window_when(&window, 100, 1000, 50);
	ok(when == 1050, "room for 50 once 50 have left the window");
	ok(jobq_window_room(&window, 100, 1000, when - 1) == 49,
	   "one less just before");
	ok(jobq_window_room(&window, 100, 1000, when) == 50, "and at the time");
	ok(jobq_window_when(&window, 100, 1000, 101) == JOBQ_WINDOW_NEVER,
	   "never for more than the limit");
	jobq_window_clear(&window);
}

/* The clock is set back by an hour. */
static void
try_set_back(void)
{
	JobqWindow	window = {0};
	int64_t		hour = INT64_C(3600000000);

	fill_pool(CHUNKS);
	for (int i = 0; i < 100; i++)
		(void) jobq_window_add(&window, 100, 1000, hour + 1000 + i, 1);
	ok(jobq_window_room(&window, 100, 1000, 2000) == 0,
	   "what has happened counts also when the clock is set back");
	ok(jobq_window_room(&window, 100, 1000, 3001) == 100,
	   "for no longer than the period");
	jobq_window_clear(&window);
}

int
main(void)
{
	static const Run runs[] = {
		{"limit 1", 1, 1000, CHUNKS, 0},
		{"limit 7", 7, 1000, CHUNKS, 0},
		{"limit 100", 100, 5000, CHUNKS, 0},
		{"limit 1000", 1000, 20000, CHUNKS, 0},
		{"limit 3000, rounded", 3000, 20480, CHUNKS, 20},
		{"limit 1000, no pool", 1000, 20000, 0, -1},
		{"limit 1000, small pool", 1000, 20000, 2, -1},
	};

	random_state = UINT64_C(88172645463325252);
	for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++)
		try_run(&runs[i]);
	try_when();
	try_set_back();
	return done_testing();
}
