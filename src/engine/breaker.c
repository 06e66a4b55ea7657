/*
 * breaker.c: which state a circuit breaker is in after what has happened to
 * it, for a keeper that starts. Pure: reads nothing, changes nothing.
 */
#include "postgres.h"

#include "engine/limit.h"

bool
jobq_is_failure(char attempt_outcome)
{
	return attempt_outcome == ATTEMPT_FAILED ||
		attempt_outcome == ATTEMPT_LEASE_EXPIRED ||
		attempt_outcome == ATTEMPT_ROLLED_BACK;
}

static int
compare_failures(const void *a, const void *b)
{
	const JobqFailure *x = a;
	const JobqFailure *y = b;

	return (x->finished_at > y->finished_at) -
		(x->finished_at < y->finished_at);
}

/* What the newest probe has left behind; 0 = closed. */
static TimestampTz
after_probe(const JobqProbeEnd *probe, int64 open)
{
	if (probe->claimed_at == 0 ||
		probe->attempt_outcome == ATTEMPT_COMPLETED)
		return 0;
	return jobq_is_failure(probe->attempt_outcome) ?
		probe->finished_at + open : probe->finished_at;
}

/*
 * A failure of a job that was taken when the breaker was half-open was a
 * probe's, rolled back: such a one has left no claim.
 */
TimestampTz
jobq_breaker_replay(const JobqBreaker *breaker, const JobqProbeEnd *probe,
					JobqFailure *failures, int nfailures,
					TimestampTz *closed, int *nclosed)
{
	TimestampTz open_until = after_probe(probe, breaker->open);
	int			first = 0;
	int			n = 0;

	qsort(failures, nfailures, sizeof(JobqFailure), compare_failures);
	for (int i = 0; i < nfailures; i++)
	{
		const JobqFailure *failure = &failures[i];

		if (failure->finished_at <= probe->finished_at)
			continue;
		if (open_until != 0)
		{
			if (failure->claimed_at >= open_until)
				open_until = failure->finished_at + breaker->open;
			continue;
		}
		closed[n++] = failure->finished_at;
		while (closed[first] < failure->finished_at - breaker->window)
			first++;
		if (n - first >= breaker->failures)
			open_until = failure->finished_at + breaker->open;
	}
	*nclosed = open_until == 0 ? n - first : 0;
	memmove(closed, closed + first, sizeof(TimestampTz) * *nclosed);
	return open_until;
}
