/*
 * schedule.c: the SQL face of schedules: arguments, who may do what with which
 * one, the view. What happens at a tick is the engine's business.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "api/job.h"
#include "compat.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/input.h"
#include "security/security.h"

#define NAME_MAX_BYTES	255
#define CATCH_UP_DEFAULT	100
#define CATCH_UP_LIMIT	10000
#define PREVIEW_DEFAULT	10
#define PREVIEW_LIMIT	1000000

PG_FUNCTION_INFO_V1(jobq_sql_schedule);
PG_FUNCTION_INFO_V1(jobq_sql_unschedule);
PG_FUNCTION_INFO_V1(jobq_sql_pause_schedule);
PG_FUNCTION_INFO_V1(jobq_sql_resume_schedule);
PG_FUNCTION_INFO_V1(jobq_sql_run_schedule);
PG_FUNCTION_INFO_V1(jobq_sql_preview_schedule);
PG_FUNCTION_INFO_V1(jobq_view_schedules);

/* Arguments of schedule(), by position. */
enum
{
	ARG_NAME,
	ARG_CRON,
	ARG_QUEUE,
	ARG_PAYLOAD,
	ARG_TIMEZONE,
	ARG_CATCH_UP,
	ARG_CATCH_UP_MAX,
	ARG_KIND,
	ARG_PRIORITY,
	ARG_MAX_ATTEMPTS,
	ARG_GROUP_KEY,
	ARG_HEADERS
};

/* ---- arguments ---- */

static char *
read_name(FunctionCallInfo fcinfo)
{
	char	   *name;

	jobq_arg_required(fcinfo, ARG_NAME, "name");
	name = jobq_arg_text(PG_GETARG_TEXT_PP(ARG_NAME), "name", NAME_MAX_BYTES);
	if (name[0] == '\0')
		jobq_bad_argument("name", "A schedule's name has at least one character.");
	return name;
}

static char *
read_cron(FunctionCallInfo fcinfo, int argno, JobqCron *cron)
{
	JobqCronFault fault;
	char	   *expression;

	jobq_arg_required(fcinfo, argno, "cron");
	expression = jobq_arg_text(PG_GETARG_TEXT_PP(argno), "cron", JOBQ_CRON_LENGTH);
	if (jobq_cron_parse(expression, cron, &fault))
		return expression;
	if (fault.field == NULL)
		jobq_bad_argument("cron", psprintf("In \"%s\": %s.",
										   expression, fault.why));
	jobq_bad_argument("cron", psprintf("In \"%s\", field %s: %s.",
									   expression, fault.field, fault.why));
}

static pg_tz *
read_timezone(FunctionCallInfo fcinfo, int argno)
{
	char	   *name = PG_ARGISNULL(argno) ? pstrdup("UTC") :
		jobq_arg_text(PG_GETARG_TEXT_PP(argno), "timezone", TZ_STRLEN_MAX);
	pg_tz	   *zone = jobq_cron_zone(name);

	if (zone == NULL)
		jobq_bad_argument("timezone",
						  psprintf("There is no time zone \"%s\"; view pg_timezone_names lists them, such as \"Europe/Berlin\".",
								   name));
	return zone;
}

static const char *
read_catch_up(FunctionCallInfo fcinfo)
{
	static const char *const words[] = {"skip", "one", "all"};
	char	   *value;

	if (PG_ARGISNULL(ARG_CATCH_UP))
		return words[0];
	value = text_to_cstring(PG_GETARG_TEXT_PP(ARG_CATCH_UP));
	for (size_t i = 0; i < lengthof(words); i++)
	{
		if (strcmp(value, words[i]) == 0)
			return words[i];
	}
	jobq_bad_argument("catch_up", "Valid are: skip, one, all.");
}

static int32
read_catch_up_max(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(ARG_CATCH_UP_MAX))
		return CATCH_UP_DEFAULT;
	return (int32) jobq_arg_int(PG_GETARG_INT32(ARG_CATCH_UP_MAX),
								"catch_up_max", 1, CATCH_UP_LIMIT);
}

/* Bytes of an argument once it is decompressed, without reading it. */
static int64
bytes_of(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? 0 :
		(int64) toast_raw_datum_size(PG_GETARG_DATUM(argno)) - VARHDRSZ;
}

/*
 * What its jobs are made of. The number of attempts, if it was not given, is
 * the queue's at each tick.
 */
static void
read_job(FunctionCallInfo fcinfo, const JobqQueue *queue, JobqRow *job)
{
	static const JobqJobArgnos at = {
		.kind = ARG_KIND,
		.group_key = ARG_GROUP_KEY,
		.priority = ARG_PRIORITY,
		.max_attempts = ARG_MAX_ATTEMPTS,
		.headers = ARG_HEADERS
	};
	JobqJobArgs args = {0};

	jobq_job_check_size(queue, bytes_of(fcinfo, ARG_PAYLOAD) +
						bytes_of(fcinfo, ARG_HEADERS));
	jobq_job_read_args(fcinfo, &at, &args);
	jobq_job_fill(&args, queue, jobq_now(), job);
	job->nulls[JOB_MAX_ATTEMPTS] = PG_ARGISNULL(ARG_MAX_ATTEMPTS);
	jobq_job_set_payload(PG_ARGISNULL(ARG_PAYLOAD) ? jobq_job_no_payload() :
						 PG_GETARG_DATUM(ARG_PAYLOAD), job);
	if (queue->seal[0] != '\0' && jobq_has_payload(job))
		jobq_bad_argument("payload",
						  "The queue's payloads are sealed, and a schedule would keep this one as it is: it must be {}.");
	jobq_input_check(queue, job, 0);
}

static void
require_queue(FunctionCallInfo fcinfo, JobqQueue *queue)
{
	const char *name = "default";

	if (!PG_ARGISNULL(ARG_QUEUE))
		name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(ARG_QUEUE), "queue");
	jobq_require_queue(name, JOBQ_PRIV_ENQUEUE, queue);
	jobq_check_role(queue, JOBQ_PRIV_ENQUEUE);
}

static void
audit(FunctionCallInfo fcinfo, const char *call,
	  const JobqSchedule *schedule, int64 job_id)
{
	jobq_audit_act_with(fcinfo, call, schedule->queue_id, job_id,
						psprintf("schedule \"%s\" of %s, %s %s",
								 schedule->name,
								 jobq_role_shown(schedule->owner),
								 schedule->cron, schedule->timezone));
}

/* schedule(name text, cron text, …) → void */
Datum
jobq_sql_schedule(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	JobqSchedule schedule = {0};
	JobqCron	cron;
	pg_tz	   *zone;

	jobq_begin_write("jobq.schedule()", &session);
	jobq_xact_steered(&session);
	require_queue(fcinfo, &queue);
	schedule.name = read_name(fcinfo);
	schedule.owner = GetUserId();
	schedule.cron = read_cron(fcinfo, ARG_CRON, &cron);
	zone = read_timezone(fcinfo, ARG_TIMEZONE);
	schedule.timezone = pstrdup(pg_get_timezone_name(zone));
	schedule.catch_up = read_catch_up(fcinfo);
	schedule.catch_up_max = read_catch_up_max(fcinfo);
	read_job(fcinfo, &queue, &schedule.job);
	jobq_schedule_make(&session, &schedule, &queue);
	audit(fcinfo, "jobq.schedule()", &schedule, 0);
	PG_RETURN_VOID();
}

/* ---- one that exists ---- */

static bool
may_steer(const JobqSchedule *schedule)
{
	JobqQueue	queue;

	if (OidIsValid(schedule->owner) &&
		has_privs_of_role(GetUserId(), schedule->owner))
		return true;
	if (jobq_queue_by_id(schedule->queue_id, &queue))
		return (queue.my_privileges & JOBQ_PRIV_MANAGE) != 0;
	return jobq_is_admin(GetUserId());
}

JOBQ_NORETURN static void
raise_none(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_NO_JOB),
			 errmsg("schedule \"%s\" does not exist", name),
			 errdetail("Role \"%s\" has no schedule of this name, nor may it steer one of another role.",
					   GetUserNameFromId(GetUserId(), false)),
			 errhint("SELECT name, owner FROM jobq.schedules lists them.")));
}

/*
 * Another role's schedule (its queue) is refused as one that is not there (0),
 * and noted likewise, so that the time it takes does not tell. An admin, who
 * may steer all there are, has used a wrong name and nothing else.
 */
JOBQ_NORETURN static void
refuse_unknown(const char *name, int32 queue_id)
{
	if (!jobq_is_admin(GetUserId()))
		jobq_audit_refusal(NULL, queue_id, 0, ERRCODE_JOBQ_NO_JOB,
						   queue_id != 0 ?
						   "may not steer another role's schedule" :
						   "there is no schedule of that name");
	raise_none(name);
}

static void
raise_several(const char *name, Oid one, Oid other)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("more than one role has a schedule \"%s\"", name),
			 errdetail("Among them are \"%s\" and \"%s\".",
					   GetUserNameFromId(one, true),
					   GetUserNameFromId(other, true)),
			 errhint("SET ROLE to the one whose schedule is meant, and call again.")));
}

/*
 * The caller's own of that name, or else the only one that it may steer.
 * Nobody's, which nobody can become, come last.
 */
static void
find(FunctionCallInfo fcinfo, JobqSchedule *found)
{
	char	   *name = read_name(fcinfo);
	JobqSchedule *all;
	int			n = jobq_schedule_named(name, &all);
	const JobqSchedule *best = NULL;

	for (int i = 0; i < n; i++)
	{
		const JobqSchedule *one = &all[i];

		if (one->owner == GetUserId())
		{
			*found = *one;
			return;
		}
	}
	for (int i = 0; i < n; i++)
	{
		const JobqSchedule *one = &all[i];

		if (!may_steer(one))
			continue;
		if (best == NULL || GetUserNameFromId(best->owner, true) == NULL)
			best = one;
		else if (GetUserNameFromId(one->owner, true) != NULL)
			raise_several(name, best->owner, one->owner);
	}
	if (best == NULL)
		refuse_unknown(name, n > 0 ? all[0].queue_id : 0);
	*found = *best;
}

static void
begin(FunctionCallInfo fcinfo, const char *what, JobqSession *session,
	  JobqSchedule *schedule)
{
	jobq_begin_write(what, session);
	find(fcinfo, schedule);
}

/* It was changed, or had gone meanwhile. */
static void
changed(const JobqSession *session, const JobqSchedule *schedule,
		bool is_there)
{
	if (!is_there)
		raise_none(schedule->name);
	jobq_xact_cron_news(session);
}

/* unschedule(name text) → void */
Datum
jobq_sql_unschedule(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqSchedule schedule;

	begin(fcinfo, "jobq.unschedule()", &session, &schedule);
	changed(&session, &schedule, jobq_schedule_delete(schedule.schedule_id));
	audit(fcinfo, "jobq.unschedule()", &schedule, 0);
	PG_RETURN_VOID();
}

/* pause_schedule(name text) → void */
Datum
jobq_sql_pause_schedule(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqSchedule schedule;

	begin(fcinfo, "jobq.pause_schedule()", &session, &schedule);
	changed(&session, &schedule,
			jobq_schedule_pause(schedule.schedule_id, GetUserId()));
	audit(fcinfo, "jobq.pause_schedule()", &schedule, 0);
	PG_RETURN_VOID();
}

/* resume_schedule(name text) → void */
Datum
jobq_sql_resume_schedule(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqSchedule schedule;

	begin(fcinfo, "jobq.resume_schedule()", &session, &schedule);
	changed(&session, &schedule,
			jobq_schedule_resume(schedule.schedule_id, jobq_now()));
	audit(fcinfo, "jobq.resume_schedule()", &schedule, 0);
	PG_RETURN_VOID();
}

/* run_schedule(name text) → bigint */
Datum
jobq_sql_run_schedule(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqSchedule schedule;
	JobqQueue	queue;
	TimestampTz now;
	int64		id;

	begin(fcinfo, "jobq.run_schedule()", &session, &schedule);
	/* with the validator, which the keeper does not run */
	if (jobq_queue_by_id(schedule.queue_id, &queue))
		jobq_input_check(&queue, &schedule.job, 0);
	now = jobq_now();
	id = jobq_schedule_enqueue(&session, &schedule, now, now);
	audit(fcinfo, "jobq.run_schedule()", &schedule, id);
	PG_RETURN_INT64(id);
}

/* ---- looking ---- */

/* preview_schedule(cron text, timezone text, n bigint) */
Datum
jobq_sql_preview_schedule(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqCron	cron;
	pg_tz	   *zone;
	TimestampTz tick = jobq_now();
	int64		n = PREVIEW_DEFAULT;
	Datum		name;

	(void) read_cron(fcinfo, 0, &cron);
	zone = read_timezone(fcinfo, 1);
	if (!PG_ARGISNULL(2))
		n = jobq_arg_int(PG_GETARG_INT64(2), "n", 1, PREVIEW_LIMIT);
	name = CStringGetTextDatum(pg_get_timezone_name(zone));
	InitMaterializedSRF(fcinfo, 0);
	for (int64 i = 0; i < n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};

		CHECK_FOR_INTERRUPTS();
		tick = jobq_cron_tick(&cron, zone, tick);
		if (tick == DT_NOEND)
			break;
		values[0] = TimestampTzGetDatum(tick);
		values[1] = DirectFunctionCall2(timestamptz_zone, name, values[0]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

/* Columns of view schedules, and one more of the query. */
enum
{
	VIEW_NAME,
	VIEW_QUEUE,
	VIEW_CRON,
	VIEW_TIMEZONE,
	VIEW_PAUSED,
	VIEW_NEXT_RUN,
	VIEW_LAST_RUN,
	VIEW_LAST_JOB,
	VIEW_MISSES,
	VIEW_LAST_MISS,
	VIEW_LAST_MISS_REASON,
	VIEW_OWNER,
	VIEW_CATCH_UP,
	VIEW_CATCH_UP_MAX,
	VIEW_KIND,
	VIEW_PRIORITY,
	VIEW_MAX_ATTEMPTS,
	VIEW_GROUP_KEY,
	VIEW_HEADERS,
	VIEW_PAYLOAD,
	VIEW_PAUSED_BY,
	VIEW_PAUSED_AT,
	VIEW_NATTS,
	VIEW_QUEUE_ID = VIEW_NATTS,
	VIEW_NQUERY
};

/* In the place of the next run stands the last tick; the owner is a number. */
#define SELECT_SCHEDULES \
	"SELECT s.name, q.queue, s.cron, s.timezone, s.paused, s.last_tick," \
	" s.last_run, s.last_job, s.misses, s.last_miss, s.last_miss_reason," \
	" s.owner, s.catch_up, s.catch_up_max, s.kind, s.priority::int," \
	" s.max_attempts, s.group_key, s.headers, s.payload, s.paused_by," \
	" s.paused_at, s.queue_id" \
	" FROM jobq.schedule s LEFT JOIN jobq.queue q ON q.queue_id = s.queue_id" \
	" ORDER BY s.schedule_id"

/* Who is shown a schedule, and who only that it exists? */
typedef struct Viewer
{
	Oid			role;
	bool		admin;
	bool		monitor;
	JobqQueue  *queues;
	int			nqueues;
} Viewer;

static void
get_viewer(Viewer *viewer)
{
	viewer->role = GetUserId();
	viewer->admin = jobq_is_admin(viewer->role);
	viewer->monitor = jobq_is_monitor(viewer->role);
	viewer->nqueues = jobq_queue_list(&viewer->queues);
}

static bool
may_see(const Viewer *viewer, Oid owner, int32 queue_id)
{
	if (viewer->admin ||
		(OidIsValid(owner) && has_privs_of_role(viewer->role, owner)))
		return true;
	for (int i = 0; i < viewer->nqueues; i++)
	{
		if (viewer->queues[i].queue_id == queue_id)
			return (viewer->queues[i].my_privileges & JOBQ_PRIV_MANAGE) != 0;
	}
	return false;
}

static void
set_next_run(Datum *values, bool *nulls)
{
	TimestampTz next = DT_NOEND;

	if (!DatumGetBool(values[VIEW_PAUSED]))
		next = jobq_schedule_next(TextDatumGetCString(values[VIEW_CRON]),
								  TextDatumGetCString(values[VIEW_TIMEZONE]),
								  DatumGetTimestampTz(values[VIEW_NEXT_RUN]));
	values[VIEW_NEXT_RUN] = TimestampTzGetDatum(next);
	nulls[VIEW_NEXT_RUN] = next == DT_NOEND;
}

static void
show(const Viewer *viewer, HeapTuple tuple, TupleDesc desc,
	 ReturnSetInfo *rsinfo)
{
	Datum		values[VIEW_NQUERY];
	bool		nulls[VIEW_NQUERY];
	Oid			owner;

	heap_deform_tuple(tuple, desc, values, nulls);
	owner = DatumGetObjectId(values[VIEW_OWNER]);
	if (!may_see(viewer, owner, DatumGetInt32(values[VIEW_QUEUE_ID])))
	{
		if (!viewer->monitor)
			return;
		nulls[VIEW_HEADERS] = nulls[VIEW_PAYLOAD] = true;
	}
	set_next_run(values, nulls);
	values[VIEW_OWNER] = CStringGetTextDatum(jobq_role_shown(owner));
	if (!nulls[VIEW_PAUSED_BY])
	{
		owner = DatumGetObjectId(values[VIEW_PAUSED_BY]);
		values[VIEW_PAUSED_BY] = CStringGetTextDatum(jobq_role_shown(owner));
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
jobq_view_schedules(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;
	JobqOwnerContext owner;
	Viewer		viewer;

	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	get_viewer(&viewer);

	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(SELECT_SCHEDULES, 0, NULL, NULL, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the schedules");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		CHECK_FOR_INTERRUPTS();
		show(&viewer, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, rsinfo);
	}
	PopActiveSnapshot();
	jobq_disconnect(&owner);
	return (Datum) 0;
}
