/*
 * worker.c: what launcher and keeper share: signals, sleeping, surviving an
 * error. Must not know what either of them works on.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "common/int.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "dispatch/dispatch.h"
#include "engine/engine.h"
#include "worker/worker.h"

void
jobq_worker_begin(void)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
}

int
jobq_worker_backoff(int failures, int cap)
{
	int			seconds = 1;

	while (--failures > 0 && seconds < cap)
		seconds *= 2;
	return Min(seconds, cap);
}

/* Milliseconds until then, rounded up so that we do not wake up too early. */
static long
ms_until(TimestampTz until)
{
	int64		us;

	if (until == JOBQ_NEVER)
		return -1;
	if (pg_sub_s64_overflow(until, jobq_now(), &us))
		return INT_MAX;
	if (us <= 0)
		return 0;
	return (long) Min((us - 1) / 1000 + 1, INT_MAX);
}

static int
wait_for(long ms, uint32 wait_event)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (ms >= 0)
		events |= WL_TIMEOUT;
	return WaitLatch(MyLatch, events, ms, wait_event);
}

/*
 * Statistics that the server did not want so soon are sent in the middle of
 * the sleep, without waking the caller.
 */
void
jobq_worker_sleep(TimestampTz until, const char *wait_event)
{
	uint32		event = jobq_wait_event(wait_event);
	long		stats_ms = jobq_report_stat(false);
	long		ms = ms_until(until);

	if (stats_ms > 0 && (ms < 0 || stats_ms < ms))
	{
		if (wait_for(stats_ms, event) & WL_LATCH_SET)
			return;
		(void) jobq_report_stat(true);
		ms = ms_until(until);
	}
	(void) wait_for(ms, event);
}
