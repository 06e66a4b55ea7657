/*
 * session.c: what every entry point starts with: the gate, this database's
 * entry in shared memory, waiting for the keeper. Must not look at jobs.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"

#define JOBQ_WAIT_STEP_MS	2

TimestampTz
jobq_now(void)
{
	return GetCurrentTimestamp();
}

static void
begin(JobqSession *session, Oid install)
{
	session->db = jobq_db_attach(MyDatabaseId, install);
	session->gen = session->db->gen;
}

void
jobq_begin_write(const char *what, JobqSession *session)
{
	jobq_audit_call = what;
	PreventCommandIfReadOnly(what);
	PreventCommandIfParallelMode(what);
	begin(session, jobq_enter());
}

void
jobq_begin_read(JobqSession *session)
{
	jobq_audit_call = NULL;
	begin(session, jobq_enter_by_view());
}

bool
jobq_wait_a_moment(TimestampTz deadline)
{
	if (GetCurrentTimestamp() >= deadline)
		return false;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 JOBQ_WAIT_STEP_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return true;
}

void
jobq_raise_not_ready(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_NOT_READY),
			 errmsg("pg_jobq is not ready in this database"),
			 errdetail("Its keeper process has not loaded the queues yet, or could not be started."),
			 errhint("Try again in a moment; if that does not help, jobq.health() names the cause, for example max_worker_processes.")));
}

/* Only reading functions get here on a standby. */
static void
refuse_standby(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_NOT_READY),
				 errmsg("this server is a standby, which does not know what the primary delivers"),
				 errdetail("Counts and the order of delivery are known to the memory of the primary only."),
				 errhint("Ask the primary; the views jobs, history, dead_jobs and queues work here, too.")));
}

void
jobq_await_ready(const JobqSession *session, int timeout_ms)
{
	TimestampTz deadline = 0;

	refuse_standby();
	while (!jobq_db_ready(session->db, session->gen))
	{
		if (deadline == 0)
		{
			deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   timeout_ms);
			jobq_wake_launcher();
		}
		if (!jobq_wait_a_moment(deadline))
			jobq_raise_not_ready();
	}
}

int64
jobq_take_lease(const JobqSession *session, TimestampTz now)
{
	TimestampTz deadline = 0;
	int64		lease;

	while ((lease = jobq_try_take_lease(session->db, now)) == 0)
	{
		if (deadline == 0)
			deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   JOBQ_DEQUEUE_WAIT_MS);
		jobq_wake_keeper(session->db);
		if (!jobq_wait_a_moment(deadline))
			jobq_raise_not_ready();
	}
	return lease;
}
