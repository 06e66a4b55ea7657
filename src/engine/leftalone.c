/*
 * leftalone.c: a short list of jobs that could not be dealt with, so that the
 * keeper leaves them alone for a moment while all others go on. One list, of
 * this process. When it is full the oldest entry makes room.
 */
#include "postgres.h"

#include "engine/keeperxact.h"

#define MAX_ENTRIES		1000
#define LEAVE_FOR		(5 * USECS_PER_SEC)

typedef struct Entry
{
	int64		id;
	TimestampTz until;
} Entry;

/* A ring, in order of time. */
static Entry entries[MAX_ENTRIES];
static int	first;
static int	n_entries;

static void
forget_oldest(void)
{
	first = (first + 1) % MAX_ENTRIES;
	n_entries--;
}

static void
forget_old(void)
{
	TimestampTz now;

	if (n_entries == 0)
		return;
	now = jobq_now();
	while (n_entries > 0 && entries[first].until <= now)
		forget_oldest();
}

void
jobq_leave_alone(int64 id)
{
	if (n_entries == MAX_ENTRIES)
		forget_oldest();
	entries[(first + n_entries++) % MAX_ENTRIES] =
		(Entry) {.id = id,.until = jobq_now() + LEAVE_FOR};
}

bool
jobq_is_left_alone(int64 id)
{
	for (int i = 0; i < n_entries; i++)
	{
		if (entries[(first + i) % MAX_ENTRIES].id == id)
			return true;
	}
	return false;
}

TimestampTz
jobq_left_alone_until(void)
{
	forget_old();
	return n_entries > 0 ? entries[first].until : JOBQ_NEVER;
}
