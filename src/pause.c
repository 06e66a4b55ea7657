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

/* Is the point among the names, which spaces part? */
static bool
is_armed(const char *point, bool *for_one)
{
	const char *name = jobq_control->test_pause;
	size_t		length = strlen(point);

	while (*name != '\0')
	{
		size_t		end;

		*for_one = strncmp(name, ONE, strlen(ONE)) == 0;
		name += *for_one ? strlen(ONE) : 0;
		end = strcspn(name, " ");
		if (end == length && strncmp(name, point, length) == 0)
			return true;
		name += end + strspn(name + end, " ");
	}
	return false;
}

void
jobq_pause(const char *point)
{
	bool		for_one;

	if (!is_armed(point, &for_one))
		return;
	if (pg_atomic_fetch_add_u32(&jobq_control->test_paused, 1) > 0 &&
		for_one)
	{
		pg_atomic_fetch_sub_u32(&jobq_control->test_paused, 1);
		return;
	}
	for (int i = 0; i < MAX_POLLS && is_armed(point, &for_one); i++)
		pg_usleep(POLL_US);
	pg_atomic_fetch_sub_u32(&jobq_control->test_paused, 1);
}

/* Stop whoever comes to these points; other names let all go on. */
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
