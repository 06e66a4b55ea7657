/*
 * produce.c: the SQL face of enqueuing: arguments, privileges, rows. What
 * becomes of the rows is decided in the engine.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "api/job.h"
#include "api/unique.h"
#include "compat.h"
#include "engine/engine.h"
#include "security/input.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_sql_enqueue);
PG_FUNCTION_INFO_V1(jobq_sql_enqueue_unique);
PG_FUNCTION_INFO_V1(jobq_sql_enqueue_many);

/* Arguments that enqueue and enqueue_many share, by position. */
enum
{
	ARG_QUEUE,
	ARG_PAYLOAD,
	ARG_KIND,
	ARG_PRIORITY,
	ARG_RUN_AT,
	ARG_DELAY,
	ARG_MAX_ATTEMPTS,
	ARG_GROUP_KEY
};

/* Those of enqueue only, and the last two, which come later in it. */
enum
{
	ENQUEUE_UNIQUE_KEY = 8,
	ENQUEUE_ON_CONFLICT,
	ENQUEUE_UNIQUE_WHILE,
	ENQUEUE_UNIQUE_FOR,
	ENQUEUE_DEBOUNCE_MAX,
	ENQUEUE_EXPIRES_AT,
	ENQUEUE_HEADERS,
	ENQUEUE_MANY_EXPIRES_AT = 8,
	ENQUEUE_MANY_HEADERS
};

/* Bytes of a varlena once it is decompressed, without reading it. */
static int64
datum_bytes(Datum value)
{
	return (int64) toast_raw_datum_size(value) - VARHDRSZ;
}

static int64
headers_bytes(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? 0 : datum_bytes(PG_GETARG_DATUM(argno));
}

/* run_at or now + delay. */
static TimestampTz
get_run_at(FunctionCallInfo fcinfo, TimestampTz now)
{
	if (!PG_ARGISNULL(ARG_RUN_AT) && !PG_ARGISNULL(ARG_DELAY))
		jobq_bad_argument("delay", "Only one of run_at and delay can be given.");
	if (!PG_ARGISNULL(ARG_RUN_AT))
		return jobq_arg_time(PG_GETARG_TIMESTAMPTZ(ARG_RUN_AT), "run_at");
	if (PG_ARGISNULL(ARG_DELAY))
		return now;
	(void) jobq_arg_interval(PG_GETARG_INTERVAL_P(ARG_DELAY), "delay", 0,
							 JOBQ_DELAY_MAX);
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(now),
												   PG_GETARG_DATUM(ARG_DELAY)));
}

static void
set_expires_at(FunctionCallInfo fcinfo, int argno, const JobqQueue *queue,
			   JobqRow *row)
{
	TimestampTz expires_at;

	if (PG_ARGISNULL(argno))
	{
		jobq_job_set_expiry(NULL, queue, row);
		return;
	}
	expires_at = jobq_arg_time(PG_GETARG_TIMESTAMPTZ(argno), "expires_at");
	jobq_job_set_expiry(&expires_at, queue, row);
}

/* All columns but payload, expiry, ticket, id and queue. */
static void
fill_row(FunctionCallInfo fcinfo, text *unique_key, int headers,
		 const JobqQueue *queue, TimestampTz now, JobqRow *row)
{
	JobqJobArgnos at = {
		.kind = ARG_KIND,
		.group_key = ARG_GROUP_KEY,
		.priority = ARG_PRIORITY,
		.max_attempts = ARG_MAX_ATTEMPTS,
		.headers = headers
	};
	JobqJobArgs args = {.unique_key = unique_key};

	jobq_job_read_args(fcinfo, &at, &args);
	args.run_at = get_run_at(fcinfo, now);
	jobq_job_fill(&args, queue, now, row);
}

static void
begin(FunctionCallInfo fcinfo, const char *what, JobqSession *session,
	  JobqQueue *queue)
{
	jobq_begin_write(what, session);
	jobq_arg_required(fcinfo, ARG_QUEUE, "queue");
	jobq_require_queue(jobq_arg_queue_name(PG_GETARG_TEXT_PP(ARG_QUEUE),
										   "queue"),
					   JOBQ_PRIV_ENQUEUE, queue);
	jobq_refuse_draining(session, queue);
}

static char *
get_word(FunctionCallInfo fcinfo, int argno)
{
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

static void
get_unique(FunctionCallInfo fcinfo, JobqUnique *unique)
{
	jobq_unique_defaults(unique);
	if (!PG_ARGISNULL(ENQUEUE_ON_CONFLICT))
		unique->on_conflict =
			jobq_unique_on_conflict(get_word(fcinfo, ENQUEUE_ON_CONFLICT));
	if (!PG_ARGISNULL(ENQUEUE_UNIQUE_WHILE))
		unique->unique_while =
			jobq_unique_while(get_word(fcinfo, ENQUEUE_UNIQUE_WHILE));
	if (!PG_ARGISNULL(ENQUEUE_UNIQUE_FOR))
		unique->unique_for =
			jobq_arg_interval(PG_GETARG_INTERVAL_P(ENQUEUE_UNIQUE_FOR),
							  "unique_for", 0, JOBQ_DELAY_MAX);
	if (!PG_ARGISNULL(ENQUEUE_DEBOUNCE_MAX))
		unique->debounce_max =
			jobq_arg_interval(PG_GETARG_INTERVAL_P(ENQUEUE_DEBOUNCE_MAX),
							  "debounce_max", 0, JOBQ_DELAY_MAX);
	unique->set_run_at = !PG_ARGISNULL(ARG_RUN_AT) ||
		!PG_ARGISNULL(ARG_DELAY);
	unique->default_expiry = PG_ARGISNULL(ENQUEUE_EXPIRES_AT);
	jobq_unique_check(unique);
}

/* One job; the other arguments of a unique key mean nothing without it. */
static int64
enqueue_one(FunctionCallInfo fcinfo, const char *what, JobqEnqueued *outcome)
{
	JobqSession session;
	JobqQueue	queue;
	JobqRow		row;
	JobqUnique	unique;
	text	   *unique_key = NULL;
	TimestampTz now;
	Datum		payload;

	begin(fcinfo, what, &session, &queue);
	payload = PG_ARGISNULL(ARG_PAYLOAD) ? jobq_job_no_payload() :
		PG_GETARG_DATUM(ARG_PAYLOAD);
	jobq_job_check_size(&queue, datum_bytes(payload) +
						headers_bytes(fcinfo, ENQUEUE_HEADERS));
	now = jobq_now();
	if (!PG_ARGISNULL(ENQUEUE_UNIQUE_KEY))
		unique_key = PG_GETARG_TEXT_PP(ENQUEUE_UNIQUE_KEY);
	fill_row(fcinfo, unique_key, ENQUEUE_HEADERS, &queue, now, &row);
	set_expires_at(fcinfo, ENQUEUE_EXPIRES_AT, &queue, &row);
	jobq_job_set_payload(payload, &row);
	get_unique(fcinfo, &unique);
	jobq_input_check(&queue, &row, 0);
	if (unique_key == NULL)
	{
		*outcome = JOBQ_INSERTED;
		jobq_admit(&session, &queue, &row, 1);
		return jobq_enqueue_row(&session, &queue, &row, now);
	}
	return jobq_enqueue_unique(&session, &queue, &row, 0, now, &unique,
							   outcome);
}

Datum
jobq_sql_enqueue(PG_FUNCTION_ARGS)
{
	JobqEnqueued outcome;

	PG_RETURN_INT64(enqueue_one(fcinfo, "jobq.enqueue()", &outcome));
}

Datum
jobq_sql_enqueue_unique(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqEnqueued outcome;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	InitMaterializedSRF(fcinfo, 0);
	values[0] = Int64GetDatum(enqueue_one(fcinfo, "jobq.enqueue_unique()",
										  &outcome));
	values[1] = CStringGetTextDatum(jobq_enqueued_word(outcome));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

/* The payloads of enqueue_many. */
static int
get_payloads(FunctionCallInfo fcinfo, const JobqQueue *queue, Datum **payloads)
{
	ArrayType  *array;
	bool	   *nulls;
	int			n;

	jobq_arg_required(fcinfo, ARG_PAYLOAD, "payloads");
	array = PG_GETARG_ARRAYTYPE_P(ARG_PAYLOAD);
	if (ARR_NDIM(array) > 1)
		jobq_bad_argument("payloads", "It must be a one-dimensional array.");
	deconstruct_array(array, JSONBOID, -1, false, TYPALIGN_INT, payloads,
					  &nulls, &n);
	if (n > queue->max_batch)
		jobq_bad_argument("payloads",
						  psprintf("It has %d elements; queue \"%s\" takes at most %d in one call.",
								   n, queue->name, queue->max_batch));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			jobq_bad_argument("payloads",
							  psprintf("Element %d is null.", i + 1));
	}
	return n;
}

Datum
jobq_sql_enqueue_many(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	JobqRow		model;
	JobqRow    *rows;
	TimestampTz now;
	Datum	   *payloads;
	int64	   *ids;
	Datum	   *datums;
	int			n;

	begin(fcinfo, "jobq.enqueue_many()", &session, &queue);
	n = get_payloads(fcinfo, &queue, &payloads);
	for (int i = 0; i < n; i++)
		jobq_job_check_size(&queue, datum_bytes(payloads[i]) +
							headers_bytes(fcinfo, ENQUEUE_MANY_HEADERS));
	now = jobq_now();
	fill_row(fcinfo, NULL, ENQUEUE_MANY_HEADERS, &queue, now, &model);
	set_expires_at(fcinfo, ENQUEUE_MANY_EXPIRES_AT, &queue, &model);
	if (n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));

	rows = palloc_extended(sizeof(JobqRow) * n, MCXT_ALLOC_HUGE);
	ids = palloc(sizeof(int64) * n);
	datums = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		rows[i] = model;
		jobq_job_set_payload(payloads[i], &rows[i]);
		jobq_input_check(&queue, &rows[i], i + 1);
	}
	jobq_admit(&session, &queue, rows, n);
	jobq_enqueue_rows(&session, &queue, rows, n, now, ids);
	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(ids[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(datums, n, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
