/*
 * histogram_test.c: buckets against their definition, and percentiles against
 * sorted values. Built without the server.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/histogram.h"
#include "unit.h"

#define VALUES	20000
#define ERROR	0.2				/* a bucket's width, of its start */

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return x < y ? -1 : x > y;
}

/* Every bucket holds what lies from its start to the next one's. */
static int
buckets_fit(void)
{
	for (int b = 0; b < JOBQ_BUCKETS - 1; b++)
	{
		int64_t		from = (int64_t) jobq_histogram_start(b);
		int64_t		to = (int64_t) jobq_histogram_start(b + 1);

		if (from >= to || jobq_histogram_bucket(from) != b ||
			jobq_histogram_bucket(to - 1) != b ||
			(b > 0 && (double) (to - from) > 0.26 * (double) from))
			return 0;
	}
	return jobq_histogram_bucket(-1) == 0 && jobq_histogram_bucket(0) == 0 &&
		jobq_histogram_bucket(INT64_MAX) == JOBQ_BUCKETS - 1;
}

static int64_t
random_value(void)
{
	int64_t		octave = 8 + rand() % 26;

	return (INT64_C(1) << octave) + rand() % (INT64_C(1) << octave);
}

static int
is_near(double got, int64_t value)
{
	return got >= (1 - ERROR) * (double) value &&
		got <= (1 + ERROR) * (double) value;
}

static double
percentile(const double *sums, double share)
{
	double		us;

	jobq_histogram_percentiles(sums, &share, 1, &us);
	return us;
}

static int
percentiles_fit(void)
{
	static int64_t values[VALUES];
	static JobqHistogram histogram;
	double		sums[JOBQ_BUCKETS] = {0};
	static const double shares[] = {0.01, 0.5, 0.95, 0.99, 1};
	double		got[5];

	for (int i = 0; i < VALUES; i++)
	{
		values[i] = random_value();
		jobq_histogram_add(&histogram, values[i], 1);
	}
	qsort(values, VALUES, sizeof(int64_t), compare);
	jobq_histogram_sum(&histogram, 0.5, sums);
	jobq_histogram_percentiles(sums, shares, 5, got);
	for (int i = 0; i < 5; i++)
	{
		int64_t		value = values[(int) (shares[i] * VALUES) - 1];

		if (!is_near(got[i], value) || percentile(sums, shares[i]) != got[i])
			return 0;
	}
	return 1;
}

/* What came last outweighs whatever there was before. */
static int
fading_forgets(void)
{
	static JobqFading fading;
	double		before[JOBQ_BUCKETS] = {0};
	double		after[JOBQ_BUCKETS] = {0};

	jobq_fading_add(&fading, 1000000, 1000000);
	jobq_fading_sum(&fading, before);
	for (int i = 0; i < 20000; i++)
		jobq_fading_add(&fading, 1000, 1);
	jobq_fading_sum(&fading, after);
	return is_near(percentile(before, 0.95), 1000000) &&
		is_near(percentile(after, 0.95), 1000);
}

static int
empty_is_none(void)
{
	double		sums[JOBQ_BUCKETS] = {0};

	return percentile(sums, 0.5) < 0;
}

int
main(void)
{
	srand(1);
	ok(buckets_fit(), "histogram: buckets hold what they should");
	ok(percentiles_fit(), "histogram: percentiles are those of the values");
	ok(fading_forgets(), "histogram: old values fade");
	ok(empty_is_none(), "histogram: nothing has no percentile");
	return done_testing();
}
