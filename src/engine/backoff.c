/*
 * backoff.c: how long a job waits before its next run. Pure arithmetic.
 *
 * delay(n) = base * factor^(n - 1) after n counted attempts, cut to cap, times
 * a uniform random factor from [1 - jitter, 1 + jitter], then held within
 * [1 s, cap] (no floor when base is 0).
 */
#include "postgres.h"

#include <math.h>

#include "compat.h"
#include "engine/engine.h"
#ifdef JOBQ_TEST_BUILD
#include "fmgr.h"
#endif

#define BACKOFF_FLOOR	USECS_PER_SEC

int64
jobq_backoff_delay(const JobqBackoff *backoff, int32 attempt)
{
	double		delay;

	if (backoff->base == 0)
		return 0;
	delay = (double) backoff->base *
		pow(backoff->factor, (double) Max(attempt - 1, 0));
	if (!(delay < (double) backoff->cap))	/* also infinity */
		delay = (double) backoff->cap;
	delay *= 1.0 + backoff->jitter * (2.0 * jobq_random() - 1.0);
	delay = Max(delay, (double) BACKOFF_FLOOR);
	return (int64) Min(delay, (double) backoff->cap);
}

#ifdef JOBQ_TEST_BUILD

PG_FUNCTION_INFO_V1(jobq_test_backoff);

/* (base, factor, cap, jitter, attempt): the delay; times in us. */
Datum
jobq_test_backoff(PG_FUNCTION_ARGS)
{
	JobqBackoff backoff = {
		.base = PG_GETARG_INT64(0),
		.factor = PG_GETARG_FLOAT8(1),
		.cap = PG_GETARG_INT64(2),
		.jitter = PG_GETARG_FLOAT8(3)
	};

	PG_RETURN_INT64(jobq_backoff_delay(&backoff, PG_GETARG_INT32(4)));
}

#endif							/* JOBQ_TEST_BUILD */
