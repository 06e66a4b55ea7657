/*
 * steer.c: the SQL face of steering: cancel, reschedule, retry, redrive,
 * purge, peek. Arguments and privileges; the rules are the engine's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "api/delivery.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/security.h"

#define REASON_MAX		1000	/* bytes */
#define GRACE_MAX		(7 * USECS_PER_DAY)

PG_FUNCTION_INFO_V1(jobq_sql_cancel);
PG_FUNCTION_INFO_V1(jobq_sql_reschedule);
PG_FUNCTION_INFO_V1(jobq_sql_retry);
PG_FUNCTION_INFO_V1(jobq_sql_redrive);
PG_FUNCTION_INFO_V1(jobq_sql_purge_queue);
PG_FUNCTION_INFO_V1(jobq_sql_reseal);
PG_FUNCTION_INFO_V1(jobq_sql_peek);

/* The job that is to be steered. */
typedef struct Steered
{
	JobqSession session;
	int64		id;
	int32		queue_id;
	bool		audit;			/* another role's, or the queue asks for it */
} Steered;

/*
 * First argument id: JQ020 unless the caller may see the job, 42501 unless it
 * may manage it or, where that is enough, has enqueued it.
 */
static int64
require_job(FunctionCallInfo fcinfo, const char *what, bool enqueuer_may,
			Steered *job)
{
	JobqSession *session = &job->session;
	int64		id;
	int32		queue_id;
	Oid			enqueued_by;
	JobqQueue	queue;

	jobq_begin_write(what, session);
	jobq_arg_required(fcinfo, 0, "id");
	id = PG_GETARG_INT64(0);
	if (!jobq_job_owner(session, id, &queue_id, &enqueued_by) ||
		!jobq_queue_by_id(queue_id, &queue))
		jobq_raise_lost(JOBQ_LOST_NO_JOB, id, 0);
	if (!jobq_may_see_job(session, &queue, id, enqueued_by))
	{
		jobq_audit_refusal(NULL, queue_id, id, ERRCODE_JOBQ_NO_JOB,
						   "may not see the job");
		jobq_raise_lost(JOBQ_LOST_NO_JOB, id, 0);
	}
	job->id = id;
	job->queue_id = queue_id;
	job->audit = queue.audit || GetUserId() != enqueued_by;
	if (!enqueuer_may || !jobq_is_enqueuer(&queue, enqueued_by))
		jobq_check_queue(&queue, JOBQ_PRIV_MANAGE);
	jobq_await_settle(session);
	return id;
}

static bool
steered(FunctionCallInfo fcinfo, const char *what, const Steered *job,
		JobqSteered result)
{
	if (result == JOBQ_STEER_NO_JOB)
		jobq_raise_lost(JOBQ_LOST_NO_JOB, job->id, 0);
	if (result == JOBQ_STEER_DONE && job->audit)
		jobq_audit_act_with(fcinfo, what, job->queue_id, job->id, NULL);
	return result == JOBQ_STEER_DONE;
}

Datum
jobq_sql_cancel(PG_FUNCTION_ARGS)
{
	const char *what = "jobq.cancel()";
	Steered		job;
	int64		id = require_job(fcinfo, what, true, &job);
	char	   *reason = NULL;
	int64		grace = 0;

	if (!PG_ARGISNULL(1))
		reason = jobq_arg_text(PG_GETARG_TEXT_PP(1), "reason", REASON_MAX);
	if (!PG_ARGISNULL(2))
		grace = jobq_arg_interval(PG_GETARG_INTERVAL_P(2), "grace", 0,
								  GRACE_MAX);
	PG_RETURN_BOOL(steered(fcinfo, what, &job,
						   jobq_cancel(&job.session, id, reason, grace)));
}

Datum
jobq_sql_reschedule(PG_FUNCTION_ARGS)
{
	const char *what = "jobq.reschedule()";
	Steered		job;
	int64		id = require_job(fcinfo, what, false, &job);
	TimestampTz run_at = jobq_now();
	int64		priority = 0;

	if (!PG_ARGISNULL(1))
		run_at = Max(run_at, jobq_arg_time(PG_GETARG_TIMESTAMPTZ(1), "run_at"));
	if (!PG_ARGISNULL(2))
		priority = jobq_arg_int(PG_GETARG_INT32(2), "priority",
								JOBQ_PRIORITY_MIN, JOBQ_PRIORITY_MAX);
	PG_RETURN_BOOL(steered(fcinfo, what, &job,
						   jobq_reschedule(&job.session, id, run_at,
										   !PG_ARGISNULL(2),
										   (int16) priority)));
}

Datum
jobq_sql_retry(PG_FUNCTION_ARGS)
{
	const char *what = "jobq.retry()";
	Steered		job;
	int64		id = require_job(fcinfo, what, false, &job);
	int64		again = jobq_retry(&job.session, id);

	if (job.audit)
		jobq_audit_act_with(fcinfo, what, job.queue_id, id,
							psprintf("runs again as job " INT64_FORMAT,
									 again));
	PG_RETURN_INT64(again);
}

Datum
jobq_sql_redrive(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	from;
	JobqQueue	to;
	JobqRedrive what = {.from = &from,.max = PG_INT64_MAX,.died_after = DT_NOBEGIN};
	int64		n;

	jobq_begin_write("jobq.redrive()", &session);
	jobq_arg_required(fcinfo, 0, "from_queue");
	jobq_require_queue(jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "from_queue"),
					   JOBQ_PRIV_MANAGE, &from);
	if (!PG_ARGISNULL(2))
	{
		jobq_require_queue(jobq_arg_queue_name(PG_GETARG_TEXT_PP(2),
											   "to_queue"),
						   JOBQ_PRIV_ENQUEUE, &to);
		what.to = &to;
	}
	if (!PG_ARGISNULL(1))
		what.max = jobq_arg_int(PG_GETARG_INT64(1), "max_jobs", 1, PG_INT64_MAX);
	if (!PG_ARGISNULL(3))
		what.kind = text_to_cstring(PG_GETARG_TEXT_PP(3));
	if (!PG_ARGISNULL(4))
		what.died_after = jobq_arg_time(PG_GETARG_TIMESTAMPTZ(4), "died_after");
	jobq_await_settle(&session);
	n = jobq_redrive(&session, &what);
	jobq_audit_act_with(fcinfo, "jobq.redrive()", from.queue_id, 0,
						what.to == NULL ?
						psprintf(INT64_FORMAT " jobs", n) :
						psprintf(INT64_FORMAT " jobs to queue \"%s\"", n,
								 to.name));
	PG_RETURN_INT64(n);
}

static int
get_states(FunctionCallInfo fcinfo, int argno)
{
	static const struct
	{
		const char *name;
		int			state;
	}			known[] = {
		{"scheduled", JOBQ_PURGE_SCHEDULED},
		{"available", JOBQ_PURGE_AVAILABLE},
		{"blocked", JOBQ_PURGE_BLOCKED},
		{"retryable", JOBQ_PURGE_RETRYABLE},
	};
	ArrayType  *array;
	Datum	   *words;
	bool	   *nulls;
	int			n;
	int			states = 0;

	if (PG_ARGISNULL(argno))
		return JOBQ_PURGE_SCHEDULED | JOBQ_PURGE_AVAILABLE |
			JOBQ_PURGE_BLOCKED | JOBQ_PURGE_RETRYABLE;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		jobq_bad_argument("states", "It must be a one-dimensional array.");
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &words, &nulls,
					  &n);
	for (int i = 0; i < n; i++)
	{
		bool		found = false;

		CHECK_FOR_INTERRUPTS();
		for (size_t k = 0; k < lengthof(known) && !nulls[i] && !found; k++)
		{
			found = strcmp(TextDatumGetCString(words[i]), known[k].name) == 0;
			if (found)
				states |= known[k].state;
		}
		if (!found)
			jobq_bad_argument("states", "Each element must be scheduled, available, blocked or retryable.");
	}
	return states;
}

Datum
jobq_sql_purge_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	int			states;
	int64		n;

	jobq_begin_write("jobq.purge_queue()", &session);
	jobq_arg_required(fcinfo, 0, "queue");
	jobq_require_queue(jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue"),
					   JOBQ_PRIV_MANAGE, &queue);
	states = get_states(fcinfo, 1);
	jobq_await_settle(&session);
	n = states == 0 ? 0 : jobq_purge(&session, &queue, states);
	jobq_audit_act_with(fcinfo, "jobq.purge_queue()", queue.queue_id, 0,
						psprintf(INT64_FORMAT " jobs", n));
	PG_RETURN_INT64(n);
}

/* reseal(queue text) → bigint */
Datum
jobq_sql_reseal(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	int64		n;

	jobq_begin_write("jobq.reseal()", &session);
	jobq_arg_required(fcinfo, 0, "queue");
	jobq_require_queue(jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue"),
					   JOBQ_PRIV_MANAGE, &queue);
	if (queue.seal[0] == '\0')
		jobq_bad_argument("queue",
						  "The queue has no key to seal with, see its option \"seal\".");
	jobq_await_settle(&session);
	n = jobq_reseal(&session, &queue);
	jobq_audit_act_with(fcinfo, "jobq.reseal()", queue.queue_id, 0,
						psprintf(INT64_FORMAT " jobs", n));
	PG_RETURN_INT64(n);
}

Datum
jobq_sql_peek(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	int64		max = 10;

	jobq_begin_read(&session);
	jobq_audit_call = "jobq.peek()";
	jobq_arg_required(fcinfo, 0, "queue");
	jobq_require_queue(jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue"),
					   JOBQ_PRIV_READ, &queue);
	if (!PG_ARGISNULL(1))
		max = jobq_arg_int(PG_GETARG_INT64(1), "max_jobs", 1, PG_INT64_MAX);
	return jobq_return_deliveries(fcinfo, jobq_peek(&session, &queue, max));
}
