/*
 * consume.c: the SQL face of settling: arguments, privileges, result sets. The
 * rules are the engine's; dequeuing is in dequeue.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "api/args.h"
#include "api/delivery.h"
#include "api/dequeue.h"
#include "api/settle.h"
#include "compat.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_sql_complete);
PG_FUNCTION_INFO_V1(jobq_sql_complete_many);
PG_FUNCTION_INFO_V1(jobq_sql_complete_and_dequeue);
PG_FUNCTION_INFO_V1(jobq_sql_fail);
PG_FUNCTION_INFO_V1(jobq_sql_release);
PG_FUNCTION_INFO_V1(jobq_sql_extend);
PG_FUNCTION_INFO_V1(jobq_sql_extend_many);

/* ---- settling one job ---- */

/* Arguments id and lease: the job in our hands, or the error that says why. */
static void
hold(FunctionCallInfo fcinfo, const char *what, JobqSession *session,
	 JobqHeld *held, JobqQueue *queue)
{
	int64		id;
	int64		lease;
	JobqLost	lost;

	jobq_begin_write(what, session);
	jobq_arg_required(fcinfo, 0, "id");
	jobq_arg_required(fcinfo, 1, "lease");
	id = PG_GETARG_INT64(0);
	lease = PG_GETARG_INT64(1);
	jobq_await_settle(session);
	queue->queue_id = 0;
	lost = jobq_hold_leased(session, id, lease, held, queue);
	if (lost != JOBQ_HELD)
		jobq_raise_lost(lost, id, lease);
}

/* How it was settled, if there is more to say than the call does. */
static void
audit_one(const JobqQueue *queue, const JobqHeld *held, const char *call,
		  const char *how)
{
	JobqAuditJobs jobs = {0};

	if (!queue->audit)
		return;
	jobq_audit_note(&jobs, queue->queue_id, held->t.id);
	jobq_audit_settled(call, how, &jobs);
}

Datum
jobq_sql_complete(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqHeld	held;
	JobqQueue	queue;

	hold(fcinfo, "jobq.complete()", &session, &held, &queue);
	if (!PG_ARGISNULL(2))
		jobq_check_result_size(&queue, PG_GETARG_DATUM(2));
	jobq_complete(&session, &held, 1, PG_ARGISNULL(2) ? (Datum) 0 :
				  PG_GETARG_DATUM(2), PG_ARGISNULL(2));
	audit_one(&queue, &held, "jobq.complete()", NULL);
	PG_RETURN_VOID();
}

Datum
jobq_sql_fail(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqHeld	held;
	JobqQueue	queue;
	int64		retry_in = -1;
	char	   *error = NULL;
	JobqGivenBack back;
	const char *word;

	hold(fcinfo, "jobq.fail()", &session, &held, &queue);
	if (!PG_ARGISNULL(2))
		error = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (!PG_ARGISNULL(4))
		retry_in = jobq_arg_interval(PG_GETARG_INTERVAL_P(4), "retry_in", 0,
									 JOBQ_DELAY_MAX);
	back = jobq_fail(&session, &held, &queue, ATTEMPT_FAILED, error,
					 PG_ARGISNULL(3) || PG_GETARG_BOOL(3), retry_in);
	word = jobq_given_back_word(back, "retryable");
	audit_one(&queue, &held, "jobq.fail()", word);
	PG_RETURN_TEXT_P(cstring_to_text(word));
}

Datum
jobq_sql_release(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqHeld	held;
	JobqQueue	queue;
	int64		delay = 0;

	hold(fcinfo, "jobq.release()", &session, &held, &queue);
	if (!PG_ARGISNULL(2))
		delay = jobq_arg_interval(PG_GETARG_INTERVAL_P(2), "delay", 0,
								  JOBQ_DELAY_MAX);
	(void) jobq_release(&session, &held, &queue, delay);
	audit_one(&queue, &held, "jobq.release()", NULL);
	PG_RETURN_VOID();
}

Datum
jobq_sql_extend(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqHeld	held;
	JobqQueue	queue;
	int64		lease_for = 0;

	hold(fcinfo, "jobq.extend()", &session, &held, &queue);
	if (!PG_ARGISNULL(2))
		lease_for = jobq_arg_interval(PG_GETARG_INTERVAL_P(2), "lease_for",
									  JOBQ_LEASE_FOR_MIN, JOBQ_LEASE_FOR_MAX);
	if (!PG_ARGISNULL(3))
		jobq_check_result_size(&queue, PG_GETARG_DATUM(3));
	jobq_extend(&session, &held, 1, lease_for,
				PG_ARGISNULL(3) ? (Datum) 0 : PG_GETARG_DATUM(3),
				PG_ARGISNULL(3));
	PG_RETURN_TIMESTAMPTZ(held.l.expires_at);
}

/* ---- settling many jobs of one lease ---- */

static int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/*
 * Take jobs into our hands in ascending order of id, so that two sessions
 * with the same jobs do not deadlock. Jobs whose lease is lost raise an error
 * or, with skip, are left out. An id given twice counts once. Returns how many
 * are held; those of queues that audit are noted, unless that is NULL.
 */
static int
hold_many(const JobqSession *session, const int64 *given, int n, int64 lease,
		  bool skip, JobqHeld *held, JobqAuditJobs *audit)
{
	int64	   *ids = palloc(sizeof(int64) * Max(n, 1));
	int			nheld = 0;
	JobqQueue	queue;

	queue.queue_id = 0;
	memcpy(ids, given, sizeof(int64) * n);
	qsort(ids, n, sizeof(int64), compare_ids);
	for (int i = 0; i < n; i++)
	{
		JobqLost	lost;

		if (i % JOBQ_CHUNK == 0)
			jobq_expect_jobs(session->db, &ids[i], Min(n - i, JOBQ_CHUNK),
							 true);
		if (i > 0 && ids[i] == ids[i - 1])
			continue;
		CHECK_FOR_INTERRUPTS();
		lost = jobq_hold_leased(session, ids[i], lease, &held[nheld], &queue);
		if (lost == JOBQ_HELD)
		{
			if (queue.audit && audit != NULL)
				jobq_audit_note(audit, queue.queue_id, ids[i]);
			nheld++;
		}
		else if (!skip)
			jobq_raise_lost(lost, ids[i], lease);
	}
	pfree(ids);
	return nheld;
}

static const JobqHeld *
find_held(const JobqHeld *held, int nheld, int64 id)
{
	JobqHeld	key = {.t = {.id = id}};

	return bsearch(&key, held, nheld, sizeof(JobqHeld), jobq_compare_held_ids);
}

Datum
jobq_sql_complete_many(PG_FUNCTION_ARGS)
{
	JobqSession session;
	int64	   *ids;
	int			n;
	bool		skip = false;
	JobqHeld   *held;
	int			nheld;
	JobqAuditJobs audit = {0};
	bool	   *listed;
	Datum	   *settled;
	int			nsettled = 0;

	jobq_begin_write("jobq.complete_many()", &session);
	n = jobq_arg_ids(fcinfo, 0, "ids", &ids);
	if (!PG_ARGISNULL(2))
		skip = jobq_arg_on_lost(PG_GETARG_TEXT_PP(2));
	if (n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));
	jobq_arg_required(fcinfo, 1, "lease");
	jobq_await_settle(&session);
	held = palloc_extended(sizeof(JobqHeld) * n, MCXT_ALLOC_HUGE);
	nheld = hold_many(&session, ids, n, PG_GETARG_INT64(1), skip, held,
					  &audit);
	jobq_complete(&session, held, nheld, (Datum) 0, true);
	jobq_audit_settled("jobq.complete_many()", NULL, &audit);

	qsort(held, nheld, sizeof(JobqHeld), jobq_compare_held_ids);
	settled = palloc(sizeof(Datum) * n);
	listed = palloc0(sizeof(bool) * n);
	for (int i = 0; i < n; i++)
	{
		const JobqHeld *found = find_held(held, nheld, ids[i]);

		if (found == NULL || listed[found - held])
			continue;
		listed[found - held] = true;
		settled[nsettled++] = Int64GetDatum(ids[i]);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(settled, nsettled, INT8OID,
										  sizeof(int64), FLOAT8PASSBYVAL,
										  TYPALIGN_DOUBLE));
}

Datum
jobq_sql_extend_many(PG_FUNCTION_ARGS)
{
	JobqSession session;
	int64	   *ids;
	int			n;
	int64		lease_for = 0;
	JobqHeld   *held;
	int			nheld = 0;
	ReturnSetInfo *rsinfo;

	jobq_begin_write("jobq.extend_many()", &session);
	n = jobq_arg_ids(fcinfo, 0, "ids", &ids);
	if (!PG_ARGISNULL(2))
		lease_for = jobq_arg_interval(PG_GETARG_INTERVAL_P(2), "lease_for",
									  JOBQ_LEASE_FOR_MIN, JOBQ_LEASE_FOR_MAX);
	held = palloc_extended(sizeof(JobqHeld) * Max(n, 1), MCXT_ALLOC_HUGE);
	if (n > 0)
	{
		jobq_arg_required(fcinfo, 1, "lease");
		jobq_await_settle(&session);
		nheld = hold_many(&session, ids, n, PG_GETARG_INT64(1), true, held,
						  NULL);
		jobq_extend(&session, held, nheld, lease_for, (Datum) 0, true);
		qsort(held, nheld, sizeof(JobqHeld), jobq_compare_held_ids);
	}
	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	for (int i = 0; i < n; i++)
	{
		Datum		values[2] = {Int64GetDatum(ids[i])};
		bool		nulls[2] = {false, true};
		const JobqHeld *found;

		found = find_held(held, nheld, ids[i]);
		if (found != NULL)
		{
			values[1] = TimestampTzGetDatum(found->l.expires_at);
			nulls[1] = false;
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * Jobs that are done are done once we commit: with any, what there is now is
 * all that is waited for.
 */
Datum
jobq_sql_complete_and_dequeue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqDequeue call = {.what = "jobq.complete_and_dequeue()"};
	int64	   *done;
	int			n;

	jobq_dequeue_from_one(fcinfo, &call);
	jobq_dequeue_begin(&call, &session);
	call.begun = &session;
	n = jobq_arg_ids(fcinfo, 1, "done", &done);
	jobq_dequeue_args(fcinfo, 3, JOBQ_FUNCTION_WAIT, &call);
	if (n > 0)
	{
		JobqHeld   *held = palloc_extended(sizeof(JobqHeld) * n, MCXT_ALLOC_HUGE);
		int			nheld;
		JobqAuditJobs audit = {0};

		jobq_arg_required(fcinfo, 2, "lease");
		jobq_await_settle(&session);
		nheld = hold_many(&session, done, n, PG_GETARG_INT64(2), false, held,
						  &audit);
		jobq_complete(&session, held, nheld, (Datum) 0, true);
		jobq_audit_settled(call.what, "complete", &audit);
		call.wait = 0;
	}
	return jobq_return_deliveries(fcinfo, jobq_dequeue(&call));
}
