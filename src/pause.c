/*
 * pause.c: named points at which test builds can stop a process, for tests of
 * races. Nothing of it is in other builds; waits even in commit callbacks,
 * which only a test may do.
 */
#include "postgres.h"

#ifdef JOBQ_TEST_BUILD

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "dispatch/dispatch.h"
#include "pause.h"

#define POLL_US		1000L
#define MAX_POLLS	60000		/* about a minute */

PG_FUNCTION_INFO_V1(jobq_test_pause_at);
PG_FUNCTION_INFO_V1(jobq_test_paused);

#define ONE		"one:"			/* before a name: only one process stops */

static bool
is_for_one(void)
{
	return strncmp(jobq_control->test_pause, ONE, strlen(ONE)) == 0;
}

static bool
is_armed(const char *point)
{
	return strcmp(jobq_control->test_pause +
				  (is_for_one() ? strlen(ONE) : 0), point) == 0;
}

void
jobq_pause(const char *point)
{
	if (!is_armed(point))
		return;
	if (pg_atomic_fetch_add_u32(&jobq_control->test_paused, 1) > 0 &&
		is_for_one())
	{
		pg_atomic_fetch_sub_u32(&jobq_control->test_paused, 1);
		return;
	}
	for (int i = 0; i < MAX_POLLS && is_armed(point); i++)
		pg_usleep(POLL_US);
	pg_atomic_fetch_sub_u32(&jobq_control->test_paused, 1);
}

/* Stop whoever comes to this point; another name lets all go on. */
Datum
jobq_test_pause_at(PG_FUNCTION_ARGS)
{
	strlcpy(jobq_control->test_pause, text_to_cstring(PG_GETARG_TEXT_PP(0)),
			sizeof(jobq_control->test_pause));
	PG_RETURN_VOID();
}

/* How many processes are stopped. */
Datum
jobq_test_paused(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32((int32) pg_atomic_read_u32(&jobq_control->test_paused));
}

#endif							/* JOBQ_TEST_BUILD */
