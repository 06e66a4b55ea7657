/*
 * meter.c: how many jobs of a queue came and went lately, and how long they
 * waited and ran: in pieces of time that are used again and again, so that
 * nothing has to be done for time to pass.
 *
 * Called in commit callbacks and under locks: must not allocate, raise an
 * error, or ask for the time.
 */
#include "postgres.h"

#include "fmgr.h"
#include "storage/shmem.h"

#include "dispatch/internal.h"
#include "dispatch/meter.h"

#define RATE_LENGTH		(10 * USECS_PER_SEC)
#define RATE_WINDOW		60.0	/* s */
#define PRIORITIES_MAX	256		/* more than there are */

static JobqMeter *meters;

static const double shares[JOBQ_PERCENTILES] = {0.5, 0.95, 0.99};

/* ---- shared memory ---- */

Size
jobq_meters_size(void)
{
	return mul_size(jobq_max_queues, sizeof(JobqMeter));
}

void
jobq_meters_init(void)
{
	bool		found;

	meters = ShmemInitStruct("pg_jobq meters", jobq_meters_size(), &found);
	if (!found)
		memset(meters, 0, jobq_meters_size());
}

static JobqMeter *
meter_of(const JobqPart *part)
{
	return &meters[jobq_part_index(part)];
}

void
jobq_part_meter_reset(JobqPart *part)
{
	memset(meter_of(part), 0, sizeof(JobqMeter));
}

/* ---- time ---- */

TimestampTz
jobq_meter_clock(TimestampTz now)
{
	return now + jobq_control->test_ahead;
}

static int64
rate_number(TimestampTz now)
{
	return jobq_meter_clock(now) / RATE_LENGTH;
}

static int64
minute_number(TimestampTz now)
{
	return jobq_meter_clock(now) / USECS_PER_MINUTE;
}

int64
jobq_meter_hour(TimestampTz now)
{
	return jobq_meter_clock(now) / USECS_PER_HOUR;
}

TimestampTz
jobq_meter_minute_start(int64 hour, int minute)
{
	return hour * USECS_PER_HOUR + minute * USECS_PER_MINUTE;
}

/* ---- the present pieces; after a step back of the clock the last ones ---- */

static JobqRatePiece *
present_rate(JobqMeter *meter, TimestampTz now)
{
	int64		at = rate_number(now);
	JobqRatePiece *piece = &meter->rates[at % RATE_PIECES];

	if (piece->at < at)
	{
		memset(piece, 0, sizeof(*piece));
		piece->at = at;
	}
	return piece;
}

static JobqTimes *
present_window(JobqMeter *meter, TimestampTz now)
{
	int64		at = minute_number(now);
	JobqTimes *window = &meter->windows[at % WINDOW_PIECES];

	if (window->at < at)
	{
		memset(window, 0, sizeof(*window));
		window->at = at;
	}
	return window;
}

static void
begin_hour(JobqMeter *meter, int64 at)
{
	meter->hour = 1 - meter->hour;
	memset(&meter->hours[meter->hour], 0, sizeof(JobqHour));
	meter->hours[meter->hour].at = at;
}

/*
 * Another hour begins with the first thing that happens in it, which tells the
 * keeper to write down the last one. So nothing is done while nothing happens.
 */
static JobqHour *
present_hour(JobqPart *part, TimestampTz now)
{
	JobqMeter  *meter = meter_of(part);
	int64		at = jobq_meter_hour(now);

	if (meter->hours[meter->hour].at < at)
	{
		begin_hour(meter, at);
		if (part->db >= 0)
			jobq_wake_keeper(&jobq_dbs[part->db]);
	}
	meter->hours[meter->hour].written = false;
	return &meter->hours[meter->hour];
}

/* ---- what happens ---- */

static JobqMetered
metered_as(JobqCounter counter)
{
	switch (counter)
	{
		case COUNT_ENQUEUED:
			return METER_ENQUEUED;
		case COUNT_COMPLETED:
			return METER_COMPLETED;
		case COUNT_FAILED:
			return METER_FAILED;
		case COUNT_DEAD:
			return METER_DEAD;
		default:
			return METER_N;
	}
}

void
jobq_meter_count(JobqPart *part, JobqCounter counter, int64 n,
				 TimestampTz now)
{
	JobqMetered what = metered_as(counter);
	int			minute = (int) (minute_number(now) % JOBQ_MINUTES);

	part->counters[counter] += n;
	if (what == METER_N)
		return;
	present_rate(meter_of(part), now)->n[what] += n;
	present_hour(part, now)->n[minute][what] += (uint32) n;
}

/* Waiting begins when a job may run. */
void
jobq_meter_taken(JobqPart *part, const JobqLease *lease,
				 const JobqTaken *taken, int n)
{
	JobqMeter  *meter = meter_of(part);
	JobqTimes *window = present_window(meter, lease->claimed_at);
	JobqHour   *hour = present_hour(part, lease->claimed_at);

	for (int i = 0; i < n; i++)
	{
		int64		us = Max(lease->claimed_at - taken[i].t.run_at, 0);

		jobq_histogram_add(&window->wait, us, 1);
		jobq_histogram_add(&hour->wait, us, 1);
		meter->wait_us += us;
	}
	meter->waits += n;
	meter->last_taken = lease->claimed_at;
	jobq_tally_seen(part, &lease->by_worker, lease->claimed_at);
}

static void
time_runs(JobqPart *part, const JobqCount *count, TimestampTz now)
{
	JobqMeter  *meter = meter_of(part);
	int64		us = Max(now - count->claimed_at, 0);

	jobq_histogram_add(&present_window(meter, now)->run, us,
					   (uint32) count->n);
	jobq_histogram_add(&present_hour(part, now)->run, us, (uint32) count->n);
	meter->runs += count->n;
	meter->run_us += count->n * us;
}

void
jobq_part_counts(JobqDb *db, uint32 gen, int32 queue_id,
				 const JobqCount *counts, int ncounts, TimestampTz now)
{
	JobqPart   *part = jobq_part_get(db, gen, queue_id);
	bool		less = false;

	if (part == NULL)
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ncounts && jobq_part_is(part, gen, queue_id); i++)
	{
		jobq_meter_count(part, counts[i].counter, counts[i].n, now);
		less |= counts[i].n < 0;
		if (counts[i].counter == COUNT_FAILED && counts[i].n > 0)
			jobq_limits_failed(part, (int) counts[i].n);
		if (counts[i].claimed_at != 0)
			time_runs(part, &counts[i], now);
		jobq_tally_attempts(part, &counts[i], now);
	}
	LWLockRelease(part->lock);
	if (less)
		jobq_wake_if_idle(part);
}

/* ---- reading ---- */

/* How much of a piece counts: of the oldest one what is not too old yet. */
static double
weight_of(int64 at, int64 present, int npieces, double passed)
{
	if (at > present || at <= present - npieces)
		return 0;
	return at == present - npieces + 1 ? 1 - passed : 1;
}

static void
read_rates(const JobqMeter *meter, TimestampTz now, double *per_second)
{
	int64		present = rate_number(now);
	double		passed = (double) (jobq_meter_clock(now) % RATE_LENGTH) /
		RATE_LENGTH;

	memset(per_second, 0, sizeof(double) * METER_N);
	for (int i = 0; i < RATE_PIECES; i++)
	{
		const JobqRatePiece *piece = &meter->rates[i];
		double		weight = weight_of(piece->at, present, RATE_PIECES, passed);

		for (int what = 0; what < METER_N; what++)
			per_second[what] += weight * (double) piece->n[what] / RATE_WINDOW;
	}
}

static void
read_windows(const JobqMeter *meter, TimestampTz now, double *wait,
			 double *run)
{
	int64		present = minute_number(now);
	double		passed = (double) (jobq_meter_clock(now) % USECS_PER_MINUTE) /
		USECS_PER_MINUTE;

	for (int i = 0; i < WINDOW_PIECES; i++)
	{
		const JobqTimes *window = &meter->windows[i];
		double		weight = weight_of(window->at, present, WINDOW_PIECES,
									   passed);

		if (weight == 0)
			continue;
		jobq_histogram_sum(&window->wait, weight, wait);
		jobq_histogram_sum(&window->run, weight, run);
	}
}

static void
fill_percentiles(const double *sums, double *percentiles)
{
	jobq_histogram_percentiles(sums, shares, JOBQ_PERCENTILES, percentiles);
	for (int i = 0; i < JOBQ_PERCENTILES; i++)
	{
		if (percentiles[i] >= 0)
			percentiles[i] /= USECS_PER_SEC;
	}
}

void
jobq_meter_percentiles(const JobqHistogram *histogram, double *percentiles)
{
	double		sums[JOBQ_BUCKETS] = {0};

	jobq_histogram_sum(histogram, 1, sums);
	fill_percentiles(sums, percentiles);
}

/* ---- the oldest; under the part's lock ---- */

TimestampTz
jobq_look_for_oldest(const JobqPart *part)
{
	return Min(jobq_oldest_of(part, &jobq_ready_tree, &part->ready_tree,
							  PRIORITIES_MAX),
			   jobq_oldest_of(part, &jobq_ready_tree, &part->groups.kept,
							  PRIORITIES_MAX));
}

/*
 * One look for it takes long where there are many priorities: what it has
 * found is good as long as that job is there. In an aging queue it is not
 * known of the others.
 */
static void
know_oldest(JobqPart *part, uint32 gen, int32 queue_id)
{
	if (part->oldest != JOBQ_OLDEST_UNKNOWN)
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id) && part->aging == 0 &&
		part->oldest == JOBQ_OLDEST_UNKNOWN)
		part->oldest = jobq_look_for_oldest(part);
	LWLockRelease(part->lock);
}

/* Where groups count, blocked ones do not. */
static TimestampTz
oldest_available(const JobqPart *part)
{
	if (part->groups.on && part->groups.unseen == 0)
		return jobq_groups_oldest(part);
	return part->oldest != JOBQ_OLDEST_UNKNOWN ? part->oldest :
		jobq_look_for_oldest(part);
}

static void
see(const JobqPart *part, TimestampTz now, JobqSeen *seen, double *wait,
	double *run)
{
	const JobqMeter *meter = meter_of(part);

	seen->ready = part->ready;
	seen->running = part->running;
	seen->rolled_back = part->rolled_back;
	memcpy(seen->counters, part->counters, sizeof(seen->counters));
	seen->frontier = part->frontier;
	seen->aging = part->aging;
	seen->spilled = part->groups.spilled;
	seen->holder = part->holder;
	seen->oldest = oldest_available(part);
	seen->last_taken = meter->last_taken;
	seen->waits = meter->waits;
	seen->wait_sum = (double) meter->wait_us / USECS_PER_SEC;
	seen->runs = meter->runs;
	seen->run_sum = (double) meter->run_us / USECS_PER_SEC;
	read_rates(meter, now, seen->per_second);
	read_windows(meter, now, wait, run);
}

bool
jobq_part_see(JobqDb *db, uint32 gen, int32 queue_id, TimestampTz now,
			  JobqSeen *seen)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	double		wait[JOBQ_BUCKETS] = {0};
	double		run[JOBQ_BUCKETS] = {0};
	bool		found = false;

	memset(seen, 0, sizeof(*seen));
	seen->frontier.priority = JOBQ_KEY_END;
	seen->oldest = JOBQ_NEVER;
	if (part != NULL)
	{
		know_oldest(part, gen, queue_id);
		LWLockAcquire(part->lock, LW_SHARED);
		found = jobq_part_is(part, gen, queue_id);
		if (found)
			see(part, now, seen, wait, run);
		LWLockRelease(part->lock);
	}
	fill_percentiles(wait, seen->wait);
	fill_percentiles(run, seen->run);
	return found;
}

int
jobq_part_hours(JobqDb *db, uint32 gen, int32 queue_id, TimestampTz now,
				bool finished, JobqHour *hours)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	int64		present = jobq_meter_hour(now);
	int			n = 0;

	if (part == NULL)
		return 0;
	LWLockAcquire(part->lock, LW_SHARED);
	if (jobq_part_is(part, gen, queue_id))
	{
		const JobqMeter *meter = meter_of(part);

		for (int i = 1; i <= 2; i++)
		{
			const JobqHour *hour = &meter->hours[(meter->hour + i) % 2];

			if (hour->at != 0 && !hour->written &&
				(!finished || hour->at < present))
				hours[n++] = *hour;
		}
	}
	LWLockRelease(part->lock);
	return n;
}

void
jobq_part_hour_written(JobqDb *db, uint32 gen, int32 queue_id, int64 at)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);

	if (part == NULL)
		return;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is(part, gen, queue_id))
	{
		JobqMeter  *meter = meter_of(part);

		for (int i = 0; i < 2; i++)
		{
			if (meter->hours[i].at == at)
				meter->hours[i].written = true;
		}
	}
	LWLockRelease(part->lock);
}

void
jobq_part_minute_load(JobqDb *db, uint32 gen, int32 queue_id,
					  TimestampTz start, const int64 *counts)
{
	int64		at = start / USECS_PER_HOUR;
	int			minute = (int) (start / USECS_PER_MINUTE % JOBQ_MINUTES);
	JobqPart   *part;
	JobqMeter  *meter;

	(void) jobq_part_get(db, gen, queue_id);
	part = jobq_part_lock(db, gen, queue_id);
	if (part == NULL)
		return;
	meter = meter_of(part);
	if (meter->hours[meter->hour].at < at)
	{
		begin_hour(meter, at);
		meter->hours[meter->hour].written = true;
	}
	for (int what = 0; what < METER_N; what++)
	{
		if (meter->hours[meter->hour].at == at)
			meter->hours[meter->hour].n[minute][what] += (uint32) counts[what];
	}
	LWLockRelease(part->lock);
}

#ifdef JOBQ_TEST_BUILD

PG_FUNCTION_INFO_V1(jobq_test_meters_ahead);

/* Have time pass for meters, in us, without waiting for it. */
Datum
jobq_test_meters_ahead(PG_FUNCTION_ARGS)
{
	jobq_control->test_ahead = PG_GETARG_INT64(0);
	PG_RETURN_VOID();
}

#endif							/* JOBQ_TEST_BUILD */
