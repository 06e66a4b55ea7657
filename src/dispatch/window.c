/*
 * window.c: a log of times and counts, oldest first. Where there is no room
 * for another entry it is joined with the newest, at the later time: capacity
 * comes back later then, but never is there more than the limit in a window.
 *
 * Plain C, no server headers. Must not allocate or fail.
 */
#include "dispatch/window.h"

#include <string.h>

/* A place in the older entries. */
typedef struct Cursor
{
	int32_t		chunk;
	int32_t		index;
} Cursor;

static Cursor
oldest(const JobqWindow *window)
{
	Cursor		at = {window->first, window->from};

	return at;
}

static void
step(Cursor *at)
{
	if (++at->index < JOBQ_WINDOW_CHUNK)
		return;
	at->chunk = jobq_window_chunks[at->chunk].next;
	at->index = 0;
}

static int64_t *
time_at(const Cursor *at)
{
	return &jobq_window_chunks[at->chunk].at[at->index];
}

static int32_t *
count_at(const Cursor *at)
{
	return &jobq_window_chunks[at->chunk].n[at->index];
}

static int32_t
older(const JobqWindow *window)
{
	return window->entries > 0 ? window->entries - 1 : 0;
}

/* ---- at both ends ---- */

/* The oldest entry goes, and its chunk with the last one in it. */
static void
drop_oldest(JobqWindow *window)
{
	int32_t		chunk = window->first;

	if (window->entries == 1)
	{
		memset(window, 0, sizeof(*window));
		return;
	}
	window->total -= jobq_window_chunks[chunk].n[window->from];
	window->from++;
	window->entries--;
	if (window->from < JOBQ_WINDOW_CHUNK && window->entries > 1)
		return;
	window->first = jobq_window_chunks[chunk].next;
	window->from = 0;
	jobq_window_chunk_put(chunk);
}

static int64_t
oldest_time(const JobqWindow *window)
{
	Cursor		at = oldest(window);

	return window->entries > 1 ? *time_at(&at) : window->newest;
}

static void
drop_past(JobqWindow *window, int64_t period, int64_t now)
{
	while (window->entries > 0 && oldest_time(window) + period < now)
		drop_oldest(window);
}

/* The newest entry becomes an older one; false if there is no room for it. */
static int
push_newest(JobqWindow *window)
{
	int32_t		n = older(window);
	int32_t		index = (window->from + n) % JOBQ_WINDOW_CHUNK;

	if (n == 0 || index == 0)
	{
		int32_t		chunk = jobq_window_chunk_get();

		if (chunk < 0)
			return 0;
		if (n == 0)
		{
			window->first = chunk;
			window->from = 0;
			index = 0;
		}
		else
			jobq_window_chunks[window->last].next = chunk;
		window->last = chunk;
	}
	jobq_window_chunks[window->last].at[index] = window->newest;
	jobq_window_chunks[window->last].n[index] = window->n;
	return 1;
}

/* ---- time ---- */

/* With a large limit, entries of about the same time are one. */
static int64_t
grain_of(int32_t limit, int64_t period)
{
	int64_t		grain = period / JOBQ_WINDOW_GRAINS;

	return limit > JOBQ_WINDOW_GRAINS && grain > 1 ? grain : 1;
}

static int64_t
round_up(int64_t when, int64_t grain)
{
	return when + grain - 1 - (when + grain - 1) % grain;
}

/* The clock was set back: nothing is later than `end`. */
static void
set_back(JobqWindow *window, int64_t end)
{
	Cursor		at = oldest(window);

	if (window->entries == 0 || window->newest <= end)
		return;
	window->newest = end;
	for (int32_t i = older(window); i > 0; i--)
	{
		if (*time_at(&at) > end)
			*time_at(&at) = end;
		if (i > 1)
			step(&at);
	}
}

/* ---- for others ---- */

int32_t
jobq_window_room(JobqWindow *window, int32_t limit, int64_t period,
				 int64_t now)
{
	set_back(window, round_up(now, grain_of(limit, period)));
	drop_past(window, period, now);
	return window->total < limit ? limit - window->total : 0;
}

int64_t
jobq_window_when(const JobqWindow *window, int32_t limit, int64_t period,
				 int32_t n)
{
	int64_t		total = window->total;
	Cursor		at = oldest(window);

	if (n > limit)
		return JOBQ_WINDOW_NEVER;
	if (total + n <= limit)
		return INT64_MIN;
	for (int32_t i = older(window); i > 0; i--)
	{
		total -= *count_at(&at);
		if (total + n <= limit)
			return *time_at(&at) + period + 1;
		if (i > 1)
			step(&at);
	}
	return window->newest + period + 1;
}

/* n more with the newest entry, or as the first one. */
static int64_t
put(JobqWindow *window, int64_t at, int32_t n)
{
	if (window->entries == 0)
		window->entries = 1;
	else if (at < window->newest)
		at = window->newest;
	window->newest = at;
	window->n += n;
	window->total += n;
	return at;
}

int64_t
jobq_window_add(JobqWindow *window, int32_t limit, int64_t period,
				int64_t now, int32_t n)
{
	int64_t		at = round_up(now, grain_of(limit, period));

	if (window->entries > 0 && at > window->newest && window->n > 0 &&
		push_newest(window))
	{
		window->entries++;
		window->n = 0;
	}
	return put(window, at, n);
}

int64_t
jobq_window_join(JobqWindow *window, int32_t limit, int64_t period,
				 int64_t now, int32_t n)
{
	return put(window, round_up(now, grain_of(limit, period)), n);
}

int32_t
jobq_window_chunks_of(const JobqWindow *window)
{
	int32_t		n = older(window);

	return n > 0 ? (window->from + n - 1) / JOBQ_WINDOW_CHUNK + 1 : 0;
}

bool
jobq_window_is_full(const JobqWindow *window)
{
	int32_t		n = older(window);

	return n == 0 || (window->from + n) % JOBQ_WINDOW_CHUNK == 0;
}

int32_t
jobq_window_copy(const JobqWindow *window, int32_t max, int64_t *at,
				 int32_t *n)
{
	int32_t		each = (window->entries + max - 1) / max;
	int32_t		copied = 0;
	Cursor		cursor = oldest(window);

	for (int32_t i = 0; i < window->entries; i++)
	{
		bool		last = i + 1 == window->entries;

		if (i % each == 0)
			n[copied++] = 0;
		at[copied - 1] = last ? window->newest : *time_at(&cursor);
		n[copied - 1] += last ? window->n : *count_at(&cursor);
		if (i + 2 < window->entries)
			step(&cursor);
	}
	return copied;
}

/* Chunks behind the one in which the last older entry is. */
static void
cut_after(JobqWindow *window, int32_t chunk)
{
	int32_t		last = window->last;
	int32_t		next = jobq_window_chunks[chunk].next;

	window->last = chunk;
	while (chunk != last)
	{
		chunk = next;
		next = jobq_window_chunks[chunk].next;
		jobq_window_chunk_put(chunk);
	}
}

/* Older entries that count nothing go. */
static void
squeeze(JobqWindow *window)
{
	Cursor		from = oldest(window);
	Cursor		to = from;
	int32_t		last = from.chunk;
	int32_t		kept = 0;
	int32_t		n = older(window);

	for (int32_t i = 0; i < n; i++)
	{
		if (*count_at(&from) > 0)
		{
			*time_at(&to) = *time_at(&from);
			*count_at(&to) = *count_at(&from);
			last = to.chunk;
			kept++;
			if (i + 1 < n)
				step(&to);
		}
		if (i + 1 < n)
			step(&from);
	}
	if (n == 0)
		return;
	window->entries = kept + 1;
	cut_after(window, last);
	if (kept == 0)
		jobq_window_chunk_put(last);
}

void
jobq_window_take_back(JobqWindow *window, int64_t period, int64_t now,
					  int64_t at, int32_t n)
{
	Cursor		cursor;
	int			emptied = 0;

	drop_past(window, period, now);
	if (at + period < now)
		return;
	cursor = oldest(window);

	for (int32_t i = older(window); i > 0 && n > 0; i--)
	{
		int32_t    *count = count_at(&cursor);

		if (*time_at(&cursor) >= at)
		{
			int32_t		taken = *count < n ? *count : n;

			*count -= taken;
			window->total -= taken;
			n -= taken;
			emptied |= *count == 0;
		}
		if (i > 1)
			step(&cursor);
	}
	if (n > 0 && window->entries > 0 && window->newest >= at)
	{
		int32_t		taken = window->n < n ? window->n : n;

		window->n -= taken;
		window->total -= taken;
	}
	if (emptied)
		squeeze(window);
}

void
jobq_window_clear(JobqWindow *window)
{
	while (window->entries > 0)
		drop_oldest(window);
}
