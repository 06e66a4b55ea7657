/*
 * meter.h: what happened lately: for each queue how many jobs came and went,
 * how long they waited and ran; for each kind of job and each worker how many
 * attempts ended, and how.
 *
 * Counted under locks that are held anyway. Functions that take a part's lock
 * themselves say so.
 */
#ifndef JOBQ_METER_H
#define JOBQ_METER_H

#include "dispatch/dispatch.h"
#include "dispatch/histogram.h"

typedef enum JobqMetered
{
	METER_ENQUEUED,
	METER_COMPLETED,
	METER_FAILED,
	METER_DEAD,
	METER_N
} JobqMetered;

#define JOBQ_PERCENTILES	3	/* p50, p95, p99 */
#define JOBQ_MINUTES		60	/* of an hour */

/* Ten seconds, of the last 60 to 70. */
typedef struct JobqRatePiece
{
	int64		at;				/* number of the piece */
	int64		n[METER_N];
} JobqRatePiece;

/* A minute, of the last five to six: how long jobs waited and ran. */
typedef struct JobqTimes
{
	int64		at;				/* number of the minute */
	JobqHistogram wait;
	JobqHistogram run;
} JobqTimes;

/* The present hour, or the last one before it in which anything happened. */
typedef struct JobqHour
{
	int64		at;				/* number of the hour, 0 = unused */
	bool		written;		/* it is on disk */
	uint32		n[JOBQ_MINUTES][METER_N];
	JobqHistogram wait;
	JobqHistogram run;
} JobqHour;

#define RATE_PIECES		7
#define WINDOW_PIECES	6

/* Of a part, and under its lock. */
typedef struct JobqMeter
{
	JobqRatePiece rates[RATE_PIECES];	/* by number, modulo */
	JobqTimes	windows[WINDOW_PIECES];
	JobqHour	hours[2];
	int			hour;			/* which of them is the present one */
	int64		waits;			/* since memory was loaded */
	int64		wait_us;
	int64		runs;
	int64		run_us;
	TimestampTz last_taken;		/* 0 = never */
} JobqMeter;

/* ---- for the places where things happen; under the part's lock ---- */

/* Jobs were taken, with this lease. */
extern void jobq_meter_taken(JobqPart *part, const JobqLease *lease,
							 const JobqTaken *taken, int n);

/* Add to a counter what has happened now, rather than what was loaded. */
extern void jobq_meter_count(JobqPart *part, JobqCounter counter, int64 n,
							 TimestampTz now);

/* The worker has shown itself. */
extern void jobq_tally_seen(const JobqPart *part,
							const JobqTallyRef *by_worker, TimestampTz now);

extern void jobq_part_meter_reset(JobqPart *part);

/* ---- counting at commit; takes the part's lock ---- */

/* Attempts that ended alike, or just something to count. */
typedef struct JobqCount
{
	JobqCounter counter;
	int64		n;
	TimestampTz claimed_at;		/* to be timed from then on; 0 = not */
	JobqTallyRef by_kind;
	JobqTallyRef by_worker;
} JobqCount;

extern void jobq_part_counts(JobqDb *db, uint32 gen, int32 queue_id,
							 const JobqCount *counts, int ncounts,
							 TimestampTz now);

/* ---- kinds and workers ---- */

typedef enum JobqTallyWhat
{
	TALLY_KIND,
	TALLY_WORKER,
	TALLY_N
} JobqTallyWhat;

/*
 * An entry. The first group changes under the tallies' lock and that of the
 * part it was of; the second under the part's lock.
 */
typedef struct JobqTally
{
	uint32		serial;			/* 0 = never used */
	int32		part;
	uint32		gen;
	int32		queue_id;
	char		name[JOBQ_WORKER_MAX + 1];	/* cut; empty = none */

	int64		completed;
	int64		failed;
	TimestampTz first_seen;
	TimestampTz last_seen;
	JobqFading	run;
} JobqTally;

/*
 * The entry of a name, for leases of the part; the one that was not seen for
 * longest makes room when there is none. Takes locks.
 */
extern JobqTallyRef jobq_tally_get(JobqPart *part, uint32 gen, int32 queue_id,
								   JobqTallyWhat what, const char *name,
								   TimestampTz now);

/*
 * Those of a database's generation, one a call: start with from = 0, go on
 * with what comes back; -1 when there are no more. Takes locks.
 */
extern int	jobq_tally_next(uint32 gen, JobqTallyWhat what, int from,
							JobqTally *copy);

/* Under the part's lock: attempts of this kind and worker have ended. */
extern void jobq_tally_attempts(const JobqPart *part, const JobqCount *count,
								TimestampTz now);

/* ---- reading; takes the part's lock ---- */

/* What there is to see of a queue, whatever the number of its jobs. */
typedef struct JobqSeen
{
	int64		ready;			/* available and in memory */
	int64		running;
	int64		rolled_back;
	int64		counters[COUNT_N];
	JobqKey		frontier;
	int64		aging;			/* of the order that the frontier is in */
	int32		spilled;		/* groups that have jobs on disk */
	TransactionId holder;
	TimestampTz oldest;			/* run_at of the available one, not blocked,
								 * that has waited longest; JOBQ_NEVER = none
								 * is in memory */
	TimestampTz last_taken;		/* 0 = never */
	double		per_second[METER_N];
	double		wait[JOBQ_PERCENTILES]; /* s; -1 = nothing to tell */
	double		run[JOBQ_PERCENTILES];
	int64		waits;			/* since memory was loaded */
	double		wait_sum;		/* s */
	int64		runs;
	double		run_sum;
} JobqSeen;

/* False, and all of it nothing, when memory does not know the queue. */
extern bool jobq_part_see(JobqDb *db, uint32 gen, int32 queue_id,
						  TimestampTz now, JobqSeen *seen);

/*
 * The hours in memory that are not on disk yet, at most two, ascending. With
 * finished only those that are over at `now`. The keeper says when it has
 * written one.
 */
extern int	jobq_part_hours(JobqDb *db, uint32 gen, int32 queue_id,
							TimestampTz now, bool finished, JobqHour *hours);
extern void jobq_part_hour_written(JobqDb *db, uint32 gen, int32 queue_id,
								   int64 at);

/*
 * Keeper, once, when it loads memory: what is on disk of a minute of the
 * present hour; it was written before the server was stopped.
 */
extern void jobq_part_minute_load(JobqDb *db, uint32 gen, int32 queue_id,
								  TimestampTz start, const int64 *counts);

extern void jobq_meter_percentiles(const JobqHistogram *histogram,
								   double *percentiles);

/* The meters' clock, and what it says. */
extern TimestampTz jobq_meter_clock(TimestampTz now);
extern int64 jobq_meter_hour(TimestampTz now);
extern TimestampTz jobq_meter_minute_start(int64 hour, int minute);

/* ---- shared memory ---- */

extern Size jobq_meters_size(void);
extern void jobq_meters_init(void);
extern Size jobq_tallies_size(void);
extern void jobq_tallies_init(LWLock *lock);

#endif							/* JOBQ_METER_H */
