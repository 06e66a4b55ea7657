/*
 * dequeue.c: the SQL face of dequeuing: dequeue() and dequeue_any(), and the
 * procedures receive() and receive_any(). Arguments, privileges, results; how
 * to wait is the engine's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "api/args.h"
#include "api/delivery.h"
#include "api/dequeue.h"
#include "compat.h"
#include "security/audit.h"
#include "security/security.h"

#define CALL_WAIT		(20 * USECS_PER_SEC)	/* default of a procedure */
#define QUEUES_MAX		10000	/* each takes more than a kilobyte */

PG_FUNCTION_INFO_V1(jobq_sql_dequeue);
PG_FUNCTION_INFO_V1(jobq_sql_dequeue_any);
PG_FUNCTION_INFO_V1(jobq_sql_receive);
PG_FUNCTION_INFO_V1(jobq_sql_receive_any);

/* ---- arguments ---- */

/* A worker's name: what was given, else application_name; cut to fit. */
static char *
worker_name(FunctionCallInfo fcinfo, int argno)
{
	char	   *name;

	if (!PG_ARGISNULL(argno))
		name = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	else
		name = application_name != NULL ? pstrdup(application_name) : NULL;
	if (name == NULL || name[0] == '\0')
		return NULL;
	name[pg_mbcliplen(name, (int) strlen(name), JOBQ_WORKER_MAX)] = '\0';
	return name;
}

int64
jobq_arg_wait(FunctionCallInfo fcinfo, int argno, int64 default_wait,
			  int64 max_wait)
{
	int64		wait;

	if (PG_ARGISNULL(argno))
		return default_wait;
	wait = jobq_arg_interval(PG_GETARG_INTERVAL_P(argno), "wait", 0,
							 JOBQ_DELAY_MAX);
	return Min(wait, max_wait);
}

TimestampTz
jobq_wait_deadline(int64 wait)
{
	return wait > 0 ? GetCurrentTimestamp() + wait : 0;
}

void
jobq_dequeue_args(FunctionCallInfo fcinfo, int first, int64 max_wait,
				  JobqDequeue *call)
{
	call->max_jobs = PG_ARGISNULL(first) ? 1 :
		jobq_arg_int(PG_GETARG_INT64(first), "max_jobs", 1, PG_INT64_MAX);
	call->wait = jobq_arg_wait(fcinfo, first + 1,
							   call->in_call ? CALL_WAIT : 0, max_wait);
	call->lease_for = PG_ARGISNULL(first + 2) ? 0 :
		jobq_arg_interval(PG_GETARG_INTERVAL_P(first + 2), "lease_for",
						  JOBQ_LEASE_FOR_MIN, JOBQ_LEASE_FOR_MAX);
	call->worker = worker_name(fcinfo, first + 3);
	if (call->wait > 0 && call->nqueues > JOBQ_WAIT_QUEUES)
		jobq_bad_argument("queues",
						  psprintf("At most %d queues can be waited for at a time.",
								   JOBQ_WAIT_QUEUES));
}

static void
make_room(JobqDequeue *call, int nqueues)
{
	call->nqueues = nqueues;
	call->names = palloc(sizeof(char *) * Max(nqueues, 1));
	call->queues = palloc(sizeof(JobqQueue) * Max(nqueues, 1));
}

void
jobq_dequeue_from_one(FunctionCallInfo fcinfo, JobqDequeue *call)
{
	jobq_arg_required(fcinfo, 0, "queue");
	make_room(call, 1);
	call->names[0] = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue");
}

void
jobq_dequeue_from_any(FunctionCallInfo fcinfo, JobqDequeue *call)
{
	ArrayType  *array;
	Datum	   *names;
	bool	   *nulls;
	int			n;

	jobq_arg_required(fcinfo, 0, "queues");
	array = PG_GETARG_ARRAYTYPE_P(0);
	if (ARR_NDIM(array) > 1)
		jobq_bad_argument("queues", "It must be a one-dimensional array.");
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls,
					  &n);
	if (n > QUEUES_MAX)
		jobq_bad_argument("queues",
						  psprintf("It may have %d elements at most.",
								   QUEUES_MAX));
	make_room(call, n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			jobq_bad_argument("queues", psprintf("Element %d is null.", i + 1));
		call->names[i] = jobq_arg_queue_name(DatumGetTextPP(names[i]), "queue");
	}
}

/* ---- dequeue ---- */

/* One queue; says where to wait for more. */
static void
dequeue_from(JobqDequeue *call, const JobqSession *session,
			 const JobqQueue *queue, JobqWaiting *wait)
{
	int64		left = call->max_jobs - list_length(call->deliveries);
	TimestampTz retry_at = JOBQ_NEVER;

	if (queue->paused)
		jobq_wakeup_used(session->gen, queue->queue_id);
	else
		call->deliveries = jobq_claim(session, queue, left, call->lease_for,
									  call->worker, &call->lease,
									  call->deliveries, &retry_at);
	if (call->wait > 0)
		jobq_wait_at(wait, session, queue,
					 queue->paused ? WAIT_TO_RESUME : WAIT_TO_TAKE, retry_at);
}

/* Note what has come since there were so many. */
static void
audit_claimed(const JobqDequeue *call, const JobqQueue *queue, int before)
{
	JobqAuditJobs jobs = {0};

	for (int i = before; i < list_length(call->deliveries); i++)
	{
		const JobqDelivery *delivery = list_nth(call->deliveries, i);

		jobq_audit_note(&jobs, queue->queue_id,
						DatumGetInt64(delivery->row.values[JOB_ID]));
	}
	jobq_audit_claimed(call->what, &jobs);
}

static void
look_up(JobqDequeue *call)
{
	for (int i = 0; i < call->nqueues; i++)
		jobq_require_queue(call->names[i], JOBQ_PRIV_DEQUEUE,
						   &call->queues[i]);
	/* of none of them when one lacks its key */
	for (int i = 0; i < call->nqueues; i++)
		jobq_require_signing_key(&call->queues[i]);
}

void
jobq_dequeue_begin(JobqDequeue *call, JobqSession *session)
{
	jobq_begin_write(call->what, session);
	look_up(call);
}

/* Large values can be fetched only as long as there is a snapshot. */
static bool
attempt_dequeue(JobqWaiting *wait)
{
	JobqDequeue *call = wait->state;
	JobqSession session;

	if (call->begun != NULL)
		session = *call->begun;
	else
		jobq_begin_write(call->what, &session);
	call->begun = NULL;
	look_up(call);
	call->deliveries = NIL;
	call->lease = 0;
	for (int i = 0;
		 i < call->nqueues && list_length(call->deliveries) < call->max_jobs;
		 i++)
	{
		int			before = list_length(call->deliveries);

		dequeue_from(call, &session, &call->queues[i], wait);
		if (call->queues[i].audit)
			audit_claimed(call, &call->queues[i], before);
	}
	if (call->in_call)
		call->json = jobq_deliveries_to_jsonb(call->deliveries);
	return call->deliveries != NIL;
}

List *
jobq_dequeue(JobqDequeue *call)
{
	JobqWaiting wait = {.attempt = attempt_dequeue,.state = call,
	.in_call = call->in_call,.wait_event = "JobqDequeue"};

	if (call->nqueues > 0)
		wait.deadline = jobq_wait_deadline(call->wait);
	(void) jobq_wait(&wait);
	return call->deliveries;
}

Datum
jobq_sql_dequeue(PG_FUNCTION_ARGS)
{
	JobqDequeue call = {.what = "jobq.dequeue()"};

	jobq_dequeue_from_one(fcinfo, &call);
	jobq_dequeue_args(fcinfo, 1, JOBQ_FUNCTION_WAIT, &call);
	return jobq_return_deliveries(fcinfo, jobq_dequeue(&call));
}

Datum
jobq_sql_dequeue_any(PG_FUNCTION_ARGS)
{
	JobqDequeue call = {.what = "jobq.dequeue_any()"};

	jobq_dequeue_from_any(fcinfo, &call);
	jobq_dequeue_args(fcinfo, 1, JOBQ_FUNCTION_WAIT, &call);
	return jobq_return_deliveries(fcinfo, jobq_dequeue(&call));
}

/* ---- receive ---- */

/* Nothing of the caller is committed for one who may not do this. */
static Datum
receive(FunctionCallInfo fcinfo, JobqDequeue *call)
{
	JobqSession session;

	jobq_dequeue_args(fcinfo, 1, JOBQ_DELAY_MAX, call);
	jobq_dequeue_begin(call, &session);
	jobq_call_begin(fcinfo, call->what);
	(void) jobq_dequeue(call);
	jobq_call_end();
	return jobq_return_inout(fcinfo, JsonbPGetDatum(call->json), false);
}

/* receive(queue, max_jobs, wait, lease_for, worker, INOUT deliveries jsonb) */
Datum
jobq_sql_receive(PG_FUNCTION_ARGS)
{
	JobqDequeue call = {.what = "jobq.receive()",.in_call = true};

	jobq_dequeue_from_one(fcinfo, &call);
	return receive(fcinfo, &call);
}

/* receive_any(queues, …the same…) */
Datum
jobq_sql_receive_any(PG_FUNCTION_ARGS)
{
	JobqDequeue call = {.what = "jobq.receive_any()",.in_call = true};

	jobq_dequeue_from_any(fcinfo, &call);
	return receive(fcinfo, &call);
}
