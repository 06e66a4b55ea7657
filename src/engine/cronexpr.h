/*
 * cronexpr.h: cron expressions: what they say, and the next moment they mean.
 *
 * Plain C, no server headers: also built into a stand-alone test. Never
 * allocates, never fails but by saying so. Knows no clock and no time zone but
 * through the caller's function.
 */
#ifndef JOBQ_CRONEXPR_H
#define JOBQ_CRONEXPR_H

#include <stdbool.h>
#include <stdint.h>

#define JOBQ_CRON_LENGTH	255 /* bytes of an expression */
#define JOBQ_CRON_NEVER		INT64_MAX

/* Bit n of a field is set when value n is wanted. */
typedef struct JobqCron
{
	uint64_t	seconds;
	uint64_t	minutes;
	uint64_t	hours;
	uint64_t	days;			/* of the month, from 1 */
	uint64_t	months;			/* from 1 */
	uint64_t	weekdays;		/* 0 = Sunday */
	bool		either_day;		/* day of month or day of week is enough */
	bool		elapsed;		/* by real elapsed time: second, minute or hour
								 * has a wildcard */
} JobqCron;

/* What is wrong with an expression. */
typedef struct JobqCronFault
{
	const char *field;			/* NULL: all of it */
	char		why[2 * JOBQ_CRON_LENGTH];	/* a clause without a full stop */
} JobqCronFault;

extern bool jobq_cron_parse(const char *text, JobqCron *cron,
							JobqCronFault *fault);

/*
 * A time zone: the offset from UTC, in seconds, at a moment, and the first
 * second at which it may be another one, or JOBQ_CRON_NEVER. False when that
 * is not known. Moments are seconds since 1970.
 */
typedef struct JobqCronZone
{
	bool		(*look) (const void *zone, int64_t at, int64_t *offset,
						 int64_t *until);
	const void *zone;
} JobqCronZone;

/*
 * The first tick later than `after`, or JOBQ_CRON_NEVER.
 *
 * By elapsed time a tick is every moment whose wall-clock time matches.
 * Otherwise each matching wall-clock time is one tick: the first of the moments
 * that show it, or the end of the gap that it falls into.
 */
extern int64_t jobq_cron_next(const JobqCron *cron, const JobqCronZone *zone,
							  int64_t after);

#endif							/* JOBQ_CRONEXPR_H */
