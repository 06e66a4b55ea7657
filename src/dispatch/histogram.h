/*
 * histogram.h: how long things take, counted in buckets that grow by a quarter
 * of an octave, so that a percentile is right within a tenth of itself.
 *
 * Plain C, no server headers: also built into a stand-alone test. Never
 * allocates, never fails. Not thread-safe: the caller holds the lock.
 */
#ifndef JOBQ_HISTOGRAM_H
#define JOBQ_HISTOGRAM_H

#include <stdint.h>

/* The first bucket ends at 128 us, the last one begins after three days. */
#define JOBQ_BUCKETS		128

typedef struct JobqHistogram
{
	uint32_t	n[JOBQ_BUCKETS];
} JobqHistogram;

/* One that forgets: the older, the less it counts. */
typedef struct JobqFading
{
	uint16_t	total;
	uint16_t	n[JOBQ_BUCKETS];
} JobqFading;

extern int	jobq_histogram_bucket(int64_t us);
extern double jobq_histogram_start(int bucket); /* us */

extern void jobq_histogram_add(JobqHistogram *histogram, int64_t us,
							   uint32_t n);
extern void jobq_fading_add(JobqFading *fading, int64_t us, uint32_t n);

/* Add weight times what is in the histogram to sums of JOBQ_BUCKETS. */
extern void jobq_histogram_sum(const JobqHistogram *histogram, double weight,
							   double *sums);
extern void jobq_fading_sum(const JobqFading *fading, double *sums);

/*
 * So many us are not exceeded by each of these shares, which ascend from 0 to
 * 1; -1 when nothing is there.
 */
extern void jobq_histogram_percentiles(const double *sums,
									   const double *shares, int n,
									   double *us);

#endif							/* JOBQ_HISTOGRAM_H */
