/*
 * wait.c: the SQL face of waiting for something else than a delivery: for jobs
 * to be there, for a queue to be idle, for the end of a job. Arguments,
 * privileges, results; how to wait is the engine's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "api/delivery.h"
#include "api/dequeue.h"
#include "compat.h"
#include "errors.h"
#include "security/audit.h"
#include "security/security.h"

#define WAIT_FOR_JOBS	(20 * USECS_PER_SEC)
#define WAIT_FOR_IDLE	(60 * USECS_PER_SEC)
#define WAIT_FOR_RESULT	(20 * USECS_PER_SEC)

PG_FUNCTION_INFO_V1(jobq_sql_wait_for_jobs);
PG_FUNCTION_INFO_V1(jobq_sql_wait_until_idle);
PG_FUNCTION_INFO_V1(jobq_sql_wait_for);
PG_FUNCTION_INFO_V1(jobq_sql_wait_for_result);

/* ---- queues ---- */

/* A queue and what the caller must be allowed. */
typedef struct QueueWait
{
	const char *what;			/* the call */
	const char *name;
	void		(*require) (const char *name, JobqQueue *queue);
} QueueWait;

static void
begin(const QueueWait *call, JobqSession *session, JobqQueue *queue)
{
	jobq_begin_read(session);
	jobq_audit_call = call->what;
	call->require(call->name, queue);
}

static void
require_dequeue(const char *name, JobqQueue *queue)
{
	jobq_require_queue(name, JOBQ_PRIV_DEQUEUE, queue);
}

static void
require_read_or_manage(const char *name, JobqQueue *queue)
{
	jobq_require_queue(name, 0, queue);
	if (!jobq_reads_queue(queue))
		jobq_check_queue(queue, queue->isolation == JOBQ_ISOLATION_OWNER ?
						 JOBQ_PRIV_MANAGE : JOBQ_PRIV_READ);
}

static bool
attempt_to_look(JobqWaiting *wait)
{
	JobqSession session;
	JobqQueue	queue;
	TimestampTz retry_at;

	begin(wait->state, &session, &queue);
	if (jobq_has_jobs(&session, &queue, &retry_at))
		return true;
	jobq_wait_at(wait, &session, &queue,
				 queue.paused ? WAIT_TO_RESUME : WAIT_TO_LOOK, retry_at);
	return false;
}

static bool
attempt_idle(JobqWaiting *wait)
{
	JobqSession session;
	JobqQueue	queue;

	begin(wait->state, &session, &queue);
	jobq_await_ready(&session, JOBQ_DEQUEUE_WAIT_MS);
	if (jobq_part_is_idle(jobq_require_part(&session, &queue), session.gen))
		return true;
	jobq_wait_at(wait, &session, &queue, WAIT_TO_IDLE, JOBQ_NEVER);
	return false;
}

/*
 * Arguments queue and wait; the answer is whether the attempt succeeded.
 * Nothing of the caller is committed for one who may not do this.
 */
static Datum
wait_for_queue(FunctionCallInfo fcinfo, const char *what, JobqWaiting *wait,
			   int64 default_wait)
{
	QueueWait  *call = wait->state;
	JobqSession session;
	JobqQueue	queue;
	int64		us;
	bool		done;

	call->what = what;
	jobq_arg_required(fcinfo, 0, "queue");
	call->name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue");
	us = jobq_arg_wait(fcinfo, 1, default_wait, JOBQ_DELAY_MAX);
	begin(call, &session, &queue);
	wait->in_call = true;
	jobq_call_begin(fcinfo, what);
	wait->deadline = jobq_wait_deadline(us);
	done = jobq_wait(wait);
	jobq_call_end();
	return jobq_return_inout(fcinfo, BoolGetDatum(done), false);
}

/* wait_for_jobs(queue text, wait interval, INOUT available boolean) */
Datum
jobq_sql_wait_for_jobs(PG_FUNCTION_ARGS)
{
	QueueWait	call = {.require = require_dequeue};
	JobqWaiting wait = {.attempt = attempt_to_look,.state = &call,
	.only_looks = true,.wait_event = "JobqWaitForJobs"};

	return wait_for_queue(fcinfo, "jobq.wait_for_jobs()", &wait,
						  WAIT_FOR_JOBS);
}

/* wait_until_idle(queue text, wait interval, INOUT idle boolean) */
Datum
jobq_sql_wait_until_idle(PG_FUNCTION_ARGS)
{
	QueueWait	call = {.require = require_read_or_manage};
	JobqWaiting wait = {.attempt = attempt_idle,.state = &call,
	.wait_event = "JobqWaitUntilIdle"};

	return wait_for_queue(fcinfo, "jobq.wait_until_idle()", &wait,
						  WAIT_FOR_IDLE);
}

/* ---- one job ---- */

/*
 * An earlier attempt's error is none of a job that has been completed. The
 * payload is not asked for: whether it can be opened is all the same.
 */
#define SQL_JOB \
	"SELECT j.is_final, j.state, j.result," \
	" CASE WHEN j.state OPERATOR(pg_catalog.<>) 'completed'" \
	" THEN j.last_error END FROM jobq._job($1) j"

typedef enum JobAttr
{
	JOB_IS_FINAL,
	JOB_STATE,
	JOB_RESULT,
	JOB_ERROR,
	JOB_COLUMNS
} JobAttr;

/* A job that is waited for, as the last attempt found it. */
typedef struct AwaitedJob
{
	int64		id;
	bool		found;
	Datum		values[JOB_COLUMNS];
	bool		nulls[JOB_COLUMNS];
} AwaitedJob;

/* Values are copied to the caller's memory, large ones as a whole. */
static void
look_at_job(AwaitedJob *job)
{
	Oid			type = INT8OID;
	Datum		id = Int64GetDatum(job->id);
	MemoryContext caller = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	job->found = jobq_execute(SQL_JOB, 1, &type, &id, SPI_OK_SELECT) > 0;
	for (int i = 0; job->found && i < JOB_COLUMNS; i++)
	{
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0], desc, i + 1,
										  &job->nulls[i]);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		if (!job->nulls[i])
			job->values[i] = TupleDescAttr(desc, i)->attbyval ? value :
				PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
}

static void
refuse_uncommitted(int64 id)
{
	if (jobq_is_uncommitted(id))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", "id"),
				 errdetail("Job " INT64_FORMAT " was enqueued or changed in this transaction, so nobody can run it before the transaction commits.",
						   id),
				 errhint("Commit before waiting for the job.")));
}

/* One that nobody knows is not waited for either. */
static bool
attempt_job(JobqWaiting *wait)
{
	AwaitedJob *job = wait->state;
	JobqSession session;

	jobq_begin_read(&session);
	look_at_job(job);
	if (!job->found || DatumGetBool(job->values[JOB_IS_FINAL]))
		return true;
	refuse_uncommitted(job->id);
	/* on a standby nobody would wake us */
	if (wait->deadline != 0)
		jobq_await_ready(&session, JOBQ_DEQUEUE_WAIT_MS);
	jobq_wait_at_job(wait, &session, job->id);
	return false;
}

static int64
get_job_args(FunctionCallInfo fcinfo, int64 max_wait, AwaitedJob *job)
{
	jobq_arg_required(fcinfo, 0, "id");
	job->id = PG_GETARG_INT64(0);
	return jobq_arg_wait(fcinfo, 1, WAIT_FOR_RESULT, max_wait);
}

/* wait_for(id bigint, wait interval) → TABLE(state, result, error) */
Datum
jobq_sql_wait_for(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	AwaitedJob	job = {0};
	JobqWaiting wait = {.attempt = attempt_job,.state = &job,
	.wait_event = "JobqWaitForJob"};

	wait.deadline = jobq_wait_deadline(get_job_args(fcinfo, JOBQ_FUNCTION_WAIT,
													&job));
	(void) jobq_wait(&wait);
	InitMaterializedSRF(fcinfo, 0);
	if (job.found)
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
							 &job.values[JOB_STATE], &job.nulls[JOB_STATE]);
	return (Datum) 0;
}

/* wait_for_result(id bigint, wait interval, INOUT outcome jsonb) */
Datum
jobq_sql_wait_for_result(PG_FUNCTION_ARGS)
{
	AwaitedJob	job = {0};
	JobqWaiting wait = {.attempt = attempt_job,.state = &job,.in_call = true,
	.wait_event = "JobqWaitForJob"};
	int64		us = get_job_args(fcinfo, JOBQ_DELAY_MAX, &job);
	Datum		outcome = (Datum) 0;

	jobq_call_begin(fcinfo, "jobq.wait_for_result()");
	wait.deadline = jobq_wait_deadline(us);
	(void) jobq_wait(&wait);
	if (job.found)
		outcome = JsonbPGetDatum(jobq_outcome_to_jsonb(&job.values[JOB_STATE],
													   &job.nulls[JOB_STATE]));
	jobq_call_end();
	return jobq_return_inout(fcinfo, outcome, !job.found);
}
