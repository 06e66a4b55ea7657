/*
 * maintenance.c: jobq.run_maintenance(): asks the keeper for a round and waits
 * for its end. What is done in it is the keeper's business.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "api/report.h"
#include "engine/engine.h"
#include "errors.h"

#define WAIT_MS		20000

PG_FUNCTION_INFO_V1(jobq_sql_run_maintenance);

Datum
jobq_sql_run_maintenance(PG_FUNCTION_ARGS)
{
	JobqSession session;
	TimestampTz deadline;
	int64		asked;

	jobq_require_admin("jobq.run_maintenance()");
	jobq_begin_read(&session);
	jobq_await_ready(&session, JOBQ_DEQUEUE_WAIT_MS);
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WAIT_MS);
	asked = jobq_maintenance_ask(session.db);
	while (!jobq_maintenance_is_done(session.db, asked))
	{
		if (!jobq_wait_a_moment(deadline))
			ereport(ERROR,
					(errcode(ERRCODE_JOBQ_NOT_READY),
					 errmsg("the keeper has not finished its work in time"),
					 errdetail("It does not run, or has been busy for %d seconds.",
							   WAIT_MS / 1000),
					 errhint("jobq.health() says whether it runs; what was asked for is done as soon as it can.")));
	}
	PG_RETURN_VOID();
}
