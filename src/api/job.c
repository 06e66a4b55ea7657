/*
 * job.c: a new job as a caller describes it, made into a row: what is allowed
 * and what the defaults are. Does not know where the description comes from.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "api/job.h"
#include "errors.h"

#define KEY_MAX			255		/* bytes */

void
jobq_job_check_size(const JobqQueue *queue, int64 bytes)
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

void
jobq_job_read_args(FunctionCallInfo fcinfo, const JobqJobArgnos *at,
				   JobqJobArgs *args)
{
	if (!PG_ARGISNULL(at->kind))
		args->kind = PG_GETARG_TEXT_PP(at->kind);
	if (!PG_ARGISNULL(at->group_key))
		args->group_key = PG_GETARG_TEXT_PP(at->group_key);
	if (!PG_ARGISNULL(at->priority))
		args->priority = PG_GETARG_INT32(at->priority);
	if (!PG_ARGISNULL(at->max_attempts))
		args->max_attempts = jobq_arg_int(PG_GETARG_INT32(at->max_attempts),
										  "max_attempts", 1,
										  JOBQ_ATTEMPTS_MAX);
	if (!PG_ARGISNULL(at->headers))
		args->headers = PG_GETARG_JSONB_P(at->headers);
}

static void
check_reserved(Jsonb *headers, const char *key, const char *what_for)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(&headers->root, key, strlen(key),
									 &value) != NULL)
		jobq_bad_argument("headers",
						  psprintf("The key \"%s\" is reserved for %s.", key,
								   what_for));
}

/* An object, without what pg_jobq itself says of a job's origin. */
static void
check_headers(Jsonb *headers)
{
	jobq_arg_object(headers, "headers");
	check_reserved(headers, JOBQ_DEAD_LETTER_KEY, "dead-letter queues");
	check_reserved(headers, JOBQ_SCHEDULE_KEY, "schedules");
}

static void
set(JobqRow *row, int attr, Datum value)
{
	row->values[attr] = value;
	row->nulls[attr] = false;
}

/* A text that goes into a column as it is. */
static void
set_key(text *value, const char *name, JobqRow *row, int attr)
{
	if (value == NULL)
		return;
	(void) jobq_arg_text(value, name, KEY_MAX);
	set(row, attr, PointerGetDatum(value));
}

void
jobq_job_fill(const JobqJobArgs *args, const JobqQueue *queue,
			  TimestampTz now, JobqRow *row)
{
	int64		priority = jobq_arg_int(args->priority, "priority",
										JOBQ_PRIORITY_MIN, JOBQ_PRIORITY_MAX);
	int64		max_attempts = queue->max_attempts;

	memset(row->nulls, true, sizeof(row->nulls));
	set_key(args->kind, "kind", row, JOB_KIND);
	set_key(args->group_key, "group_key", row, JOB_GROUP_KEY);
	set_key(args->unique_key, "unique_key", row, JOB_UNIQUE_KEY);
	if (args->max_attempts != 0)
		max_attempts = jobq_arg_int(args->max_attempts, "max_attempts", 1,
									JOBQ_ATTEMPTS_MAX);
	if (args->headers != NULL)
	{
		check_headers(args->headers);
		set(row, JOB_HEADERS, JsonbPGetDatum(args->headers));
	}
	set(row, JOB_RUN_AT, TimestampTzGetDatum(Max(args->run_at, now)));
	set(row, JOB_ENQUEUED_AT, TimestampTzGetDatum(now));
	set(row, JOB_ATTEMPT, Int32GetDatum(0));
	set(row, JOB_MAX_ATTEMPTS, Int32GetDatum((int32) max_attempts));
	set(row, JOB_ENQUEUED_BY, ObjectIdGetDatum(GetUserId()));
	set(row, JOB_PRIORITY, Int16GetDatum((int16) priority));
}

void
jobq_job_set_expiry(const TimestampTz *expires_at, const JobqQueue *queue,
					JobqRow *row)
{
	if (expires_at == NULL)
	{
		jobq_set_default_expiry(queue, row);
		return;
	}
	/* which is not before now */
	if (*expires_at <= DatumGetTimestampTz(row->values[JOB_RUN_AT]))
		jobq_bad_argument("expires_at", "It must be in the future and after run_at.");
	set(row, JOB_EXPIRES_AT, TimestampTzGetDatum(*expires_at));
}

void
jobq_job_set_payload(Datum payload, JobqRow *row)
{
	set(row, JOB_PAYLOAD, payload);
}

Datum
jobq_job_no_payload(void)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
}
