/*
 * produce.c: the SQL face of enqueuing: arguments, privileges, rows. What
 * becomes of the rows is decided in the engine.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "compat.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/security.h"


PG_FUNCTION_INFO_V1(jobq_sql_enqueue);
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

/* The last two, which come later in enqueue, and then those of enqueue only. */
enum
{
	ENQUEUE_EXPIRES_AT = 13,
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

static void
check_size(const JobqQueue *queue, int64 bytes)
{
	if (bytes > queue->max_payload_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_TOO_LARGE),
				 errmsg("payload of " INT64_FORMAT " bytes is too large for queue \"%s\"",
						bytes, queue->name),
				 errdetail("Payload and headers may have %d bytes together.",
						   queue->max_payload_bytes),
				 errhint("Store large data elsewhere and enqueue a reference, or raise the queue's max_payload_bytes.")));
}

/* run_at or now + delay; never before now. */
static TimestampTz
get_run_at(FunctionCallInfo fcinfo, TimestampTz now)
{
	TimestampTz run_at = now;

	if (!PG_ARGISNULL(ARG_RUN_AT) && !PG_ARGISNULL(ARG_DELAY))
		jobq_bad_argument("delay", "Only one of run_at and delay can be given.");
	if (!PG_ARGISNULL(ARG_RUN_AT))
		run_at = jobq_arg_time(PG_GETARG_TIMESTAMPTZ(ARG_RUN_AT), "run_at");
	else if (!PG_ARGISNULL(ARG_DELAY))
	{
		(void) jobq_arg_interval(PG_GETARG_INTERVAL_P(ARG_DELAY), "delay", 0,
								 JOBQ_DELAY_MAX);
		run_at = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
														 TimestampTzGetDatum(now),
														 PG_GETARG_DATUM(ARG_DELAY)));
	}
	return Max(run_at, now);
}

/* The argument, or what the queue's ttl makes of run_at. */
static void
set_expires_at(FunctionCallInfo fcinfo, int argno, const JobqQueue *queue,
			   JobqRow *row)
{
	TimestampTz expires_at;

	if (PG_ARGISNULL(argno))
	{
		jobq_set_default_expiry(queue, row);
		return;
	}
	expires_at = jobq_arg_time(PG_GETARG_TIMESTAMPTZ(argno),
							   "expires_at");
	/* which is not before now */
	if (expires_at <= DatumGetTimestampTz(row->values[JOB_RUN_AT]))
		jobq_bad_argument("expires_at", "It must be in the future and after run_at.");
	row->values[JOB_EXPIRES_AT] = TimestampTzGetDatum(expires_at);
	row->nulls[JOB_EXPIRES_AT] = false;
}

/* An object, without what pg_jobq itself says of a job's origin. */
static void
check_headers(Jsonb *headers)
{
	JsonbValue	value;

	jobq_arg_object(headers, "headers");
	if (getKeyJsonValueFromContainer(&headers->root, JOBQ_DEAD_LETTER_KEY,
									 strlen(JOBQ_DEAD_LETTER_KEY),
									 &value) != NULL)
		jobq_bad_argument("headers", "The key \"" JOBQ_DEAD_LETTER_KEY "\" is reserved for dead-letter queues.");
}

/* A text argument that goes into a column as it is. */
static void
set_key(FunctionCallInfo fcinfo, int argno, const char *name, JobqRow *row,
		int attr)
{
	if (PG_ARGISNULL(argno))
		return;
	(void) jobq_arg_text(PG_GETARG_TEXT_PP(argno), name, JOBQ_KEY_MAX);
	row->values[attr] = PG_GETARG_DATUM(argno);
	row->nulls[attr] = false;
}

/* All columns but payload, ticket, id and queue. */
static void
fill_row(FunctionCallInfo fcinfo, int headers, const JobqQueue *queue,
		 TimestampTz now, JobqRow *row)
{
	int64		priority = 0;
	int64		max_attempts = queue->max_attempts;

	memset(row->nulls, true, sizeof(row->nulls));
	set_key(fcinfo, ARG_KIND, "kind", row, JOB_KIND);
	set_key(fcinfo, ARG_GROUP_KEY, "group_key", row, JOB_GROUP_KEY);
	if (!PG_ARGISNULL(ARG_PRIORITY))
		priority = jobq_arg_int(PG_GETARG_INT32(ARG_PRIORITY), "priority",
								JOBQ_PRIORITY_MIN, JOBQ_PRIORITY_MAX);
	if (!PG_ARGISNULL(ARG_MAX_ATTEMPTS))
		max_attempts = jobq_arg_int(PG_GETARG_INT32(ARG_MAX_ATTEMPTS),
									"max_attempts", 1, JOBQ_ATTEMPTS_MAX);
	if (!PG_ARGISNULL(headers))
	{
		check_headers(PG_GETARG_JSONB_P(headers));
		row->values[JOB_HEADERS] = PG_GETARG_DATUM(headers);
		row->nulls[JOB_HEADERS] = false;
	}
	row->values[JOB_RUN_AT] = TimestampTzGetDatum(get_run_at(fcinfo, now));
	row->values[JOB_ENQUEUED_AT] = TimestampTzGetDatum(now);
	row->values[JOB_ATTEMPT] = Int32GetDatum(0);
	row->values[JOB_MAX_ATTEMPTS] = Int32GetDatum((int32) max_attempts);
	row->values[JOB_ENQUEUED_BY] = ObjectIdGetDatum(GetUserId());
	row->values[JOB_PRIORITY] = Int16GetDatum((int16) priority);
	row->nulls[JOB_RUN_AT] = false;
	row->nulls[JOB_ENQUEUED_AT] = false;
	row->nulls[JOB_ATTEMPT] = false;
	row->nulls[JOB_MAX_ATTEMPTS] = false;
	row->nulls[JOB_ENQUEUED_BY] = false;
	row->nulls[JOB_PRIORITY] = false;
}

static void
set_payload(JobqRow *row, Datum payload)
{
	row->values[JOB_PAYLOAD] = payload;
	row->nulls[JOB_PAYLOAD] = false;
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
}

static Datum
empty_object(void)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
}

Datum
jobq_sql_enqueue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	JobqRow		row;
	TimestampTz now;
	Datum		payload;

	begin(fcinfo, "jobq.enqueue()", &session, &queue);
	payload = PG_ARGISNULL(ARG_PAYLOAD) ? empty_object() :
		PG_GETARG_DATUM(ARG_PAYLOAD);
	check_size(&queue, datum_bytes(payload) +
			   headers_bytes(fcinfo, ENQUEUE_HEADERS));
	now = jobq_now();
	fill_row(fcinfo, ENQUEUE_HEADERS, &queue, now, &row);
	set_expires_at(fcinfo, ENQUEUE_EXPIRES_AT, &queue, &row);
	set_payload(&row, payload);
	PG_RETURN_INT64(jobq_enqueue_row(&session, &queue, &row, now));
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
		check_size(&queue, datum_bytes(payloads[i]) +
				   headers_bytes(fcinfo, ENQUEUE_MANY_HEADERS));
	now = jobq_now();
	fill_row(fcinfo, ENQUEUE_MANY_HEADERS, &queue, now, &model);
	set_expires_at(fcinfo, ENQUEUE_MANY_EXPIRES_AT, &queue, &model);
	if (n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));

	rows = palloc_extended(sizeof(JobqRow) * n, MCXT_ALLOC_HUGE);
	ids = palloc(sizeof(int64) * n);
	datums = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		rows[i] = model;
		set_payload(&rows[i], payloads[i]);
	}
	jobq_enqueue_rows(&session, &queue, rows, n, now, ids);
	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(ids[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(datums, n, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
