/*
 * histogram.c: counts by duration in buckets that grow by a quarter of an
 * octave, and percentiles of them.
 *
 * Must not know what is measured, nor use anything of the server.
 */
#include "histogram.h"

#define FIRST_OCTAVE		7		/* the second bucket begins at 2^7 us */
#define PER_OCTAVE			4
#define PER_OCTAVE_BITS		2
#define FADING_MAX			4096	/* counts of a fading one, then it halves */

int
jobq_histogram_bucket(int64_t us)
{
	int			octave;
	int			part;
	int			bucket;

	if (us < (INT64_C(1) << FIRST_OCTAVE))
		return 0;
	octave = 63 - __builtin_clzll((unsigned long long) us);
	part = (int) (us >> (octave - PER_OCTAVE_BITS)) & (PER_OCTAVE - 1);
	bucket = 1 + (octave - FIRST_OCTAVE) * PER_OCTAVE + part;
	return bucket < JOBQ_BUCKETS ? bucket : JOBQ_BUCKETS - 1;
}

double
jobq_histogram_start(int bucket)
{
	int			octave = FIRST_OCTAVE + (bucket - 1) / PER_OCTAVE;
	int			part = (bucket - 1) % PER_OCTAVE;

	if (bucket == 0)
		return 0;
	return (double) ((INT64_C(1) << octave) +
					 ((int64_t) part << (octave - PER_OCTAVE_BITS)));
}

void
jobq_histogram_add(JobqHistogram *histogram, int64_t us, uint32_t n)
{
	histogram->n[jobq_histogram_bucket(us)] += n;
}

void
jobq_fading_add(JobqFading *fading, int64_t us, uint32_t n)
{
	if (n > FADING_MAX)
		n = FADING_MAX;
	if (fading->total + n > FADING_MAX)
	{
		fading->total = 0;
		for (int i = 0; i < JOBQ_BUCKETS; i++)
		{
			fading->n[i] /= 2;
			fading->total = (uint16_t) (fading->total + fading->n[i]);
		}
	}
	fading->n[jobq_histogram_bucket(us)] += (uint16_t) n;
	fading->total = (uint16_t) (fading->total + n);
}

void
jobq_histogram_sum(const JobqHistogram *histogram, double weight,
				   double *sums)
{
	for (int i = 0; i < JOBQ_BUCKETS; i++)
		sums[i] += weight * histogram->n[i];
}

void
jobq_fading_sum(const JobqFading *fading, double *sums)
{
	for (int i = 0; i < JOBQ_BUCKETS; i++)
		sums[i] += fading->n[i];
}

/* The last bucket has no end. */
static double
end_of(int bucket)
{
	return jobq_histogram_start(bucket < JOBQ_BUCKETS - 1 ? bucket + 1 : bucket);
}

/* Within a bucket they are taken to be spread evenly. */
void
jobq_histogram_percentiles(const double *sums, const double *shares, int n,
						   double *us)
{
	double		total = 0;
	double		before = 0;
	int			bucket = 0;

	for (int i = 0; i < JOBQ_BUCKETS; i++)
		total += sums[i];
	for (int k = 0; k < n; k++)
	{
		double		wanted = shares[k] * total;
		double		start;

		us[k] = -1;
		if (total <= 0)
			continue;
		while (bucket < JOBQ_BUCKETS - 1 && before + sums[bucket] < wanted)
			before += sums[bucket++];
		start = jobq_histogram_start(bucket);
		us[k] = start;
		if (sums[bucket] > 0)
			us[k] += (wanted - before) / sums[bucket] * (end_of(bucket) - start);
	}
}
