/*
 * explain.c: the SQL face of explain_job() and explain_queue(). Whether a job
 * may be seen is for the engine to say. Must never write.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "engine/explain.h"
#include "security/audit.h"
#include "security/security.h"

/* Columns of both. */
typedef enum ReasonAttr
{
	REASON_REASON,
	REASON_UNTIL,
	REASON_DETAIL,
	REASON_HINT,
	REASON_NATTS
} ReasonAttr;

PG_FUNCTION_INFO_V1(jobq_sql_explain_job);
PG_FUNCTION_INFO_V1(jobq_sql_explain_queue);

static void
show_reason(FunctionCallInfo fcinfo, const JobqReason *reason)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[REASON_NATTS] = {0};
	bool		nulls[REASON_NATTS] = {0};

	values[REASON_REASON] = CStringGetTextDatum(reason->reason);
	values[REASON_UNTIL] = TimestampTzGetDatum(reason->until);
	nulls[REASON_UNTIL] = reason->until == JOBQ_NEVER;
	values[REASON_DETAIL] = CStringGetTextDatum(reason->detail);
	nulls[REASON_HINT] = reason->hint == NULL;
	if (reason->hint != NULL)
		values[REASON_HINT] = CStringGetTextDatum(reason->hint);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
jobq_sql_explain_job(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqReason	reason;

	jobq_arg_required(fcinfo, 0, "id");
	jobq_begin_read(&session);
	jobq_await_ready(&session, JOBQ_DEQUEUE_WAIT_MS);
	InitMaterializedSRF(fcinfo, 0);
	if (jobq_explain_job(&session, PG_GETARG_INT64(0), &reason))
		show_reason(fcinfo, &reason);
	return (Datum) 0;
}

/* For whoever may know of the queue, monitors included. */
Datum
jobq_sql_explain_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqReason	reason;
	JobqQueue	queue;
	char	   *name;

	jobq_arg_required(fcinfo, 0, "queue");
	name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue");
	jobq_begin_read(&session);
	jobq_audit_call = "jobq.explain_queue()";
	if (!jobq_is_monitor(GetUserId()) ||
		!jobq_queue_by_name(name, &queue))
		jobq_require_queue(name, 0, &queue);
	if (!jobq_counts_queue(&queue))
		jobq_check_queue(&queue, JOBQ_PRIV_MANAGE);
	jobq_await_ready(&session, JOBQ_DEQUEUE_WAIT_MS);
	InitMaterializedSRF(fcinfo, 0);
	jobq_explain_queue(&session, &queue, &reason);
	show_reason(fcinfo, &reason);
	return (Datum) 0;
}
