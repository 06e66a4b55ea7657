/*
 * schedule.c: rows of jobq.schedule: read, locked, written. Must not know what
 * a cron expression means, nor who may do what.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "security/security.h"

/* Columns of the queries below. */
enum
{
	COL_ID,
	COL_NAME,
	COL_OWNER,
	COL_QUEUE_ID,
	COL_CRON,
	COL_TIMEZONE,
	COL_CATCH_UP,
	COL_CATCH_UP_MAX,
	COL_PAUSED,
	COL_LAST_TICK,
	COL_KIND,
	COL_PRIORITY,
	COL_MAX_ATTEMPTS,
	COL_GROUP_KEY,
	COL_HEADERS,
	COL_PAYLOAD,
	COL_COUNT
};

#define SELECT_SCHEDULE \
	"SELECT s.schedule_id, s.name, s.owner, s.queue_id, s.cron, s.timezone," \
	" s.catch_up, s.catch_up_max, s.paused, s.last_tick, s.kind, s.priority," \
	" s.max_attempts, s.group_key, s.headers, s.payload FROM jobq.schedule s"

#define SELECT_NAMED \
	SELECT_SCHEDULE " WHERE s.name = $1 ORDER BY s.schedule_id"

#define SELECT_LOCKED \
	SELECT_SCHEDULE " WHERE s.schedule_id = $1 FOR UPDATE SKIP LOCKED"

#define SELECT_TIMERS \
	"SELECT s.schedule_id, s.cron, s.timezone, s.last_tick" \
	" FROM jobq.schedule s WHERE NOT s.paused"

/* Of a queue, all or some of them, in words. */
#define SELECT_OF_QUEUE(some) \
	"SELECT count(*) || CASE count(*) WHEN 1 THEN ' schedule: '" \
	"  ELSE ' schedules: ' END || string_agg('\"' || n.name || '\"', ', '" \
	"  ORDER BY n.name) FILTER (WHERE n.nth <= 10)" \
	"  || CASE WHEN count(*) > 10 THEN ', ...' ELSE '' END" \
	" FROM (SELECT s.name, row_number() OVER (ORDER BY s.name)" \
	"  FROM jobq.schedule s WHERE s.queue_id = $1" some ") n (name, nth)" \
	" HAVING count(*) > 0"

/*
 * The ticks of one that is replaced go on where they were, unless it means
 * other ticks now. It stays paused.
 */
#define INSERT_SCHEDULE \
	"INSERT INTO jobq.schedule AS s (name, owner, queue_id, cron, timezone," \
	"  catch_up, catch_up_max, last_tick, kind, priority, max_attempts," \
	"  group_key, headers, payload)" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)" \
	" ON CONFLICT (owner, name)" \
	"  WHERE owner::pg_catalog.oid <> 0::pg_catalog.oid" \
	" DO UPDATE SET queue_id = excluded.queue_id, cron = excluded.cron," \
	"  timezone = excluded.timezone, catch_up = excluded.catch_up," \
	"  catch_up_max = excluded.catch_up_max, kind = excluded.kind," \
	"  priority = excluded.priority, max_attempts = excluded.max_attempts," \
	"  group_key = excluded.group_key, headers = excluded.headers," \
	"  payload = excluded.payload, last_tick = CASE" \
	"   WHEN (s.cron, s.timezone) = (excluded.cron, excluded.timezone)" \
	"   THEN s.last_tick ELSE greatest(s.last_tick, excluded.last_tick) END"

#define PAUSE_SCHEDULE \
	"UPDATE jobq.schedule SET paused = true," \
	" paused_by = CASE WHEN paused THEN paused_by::pg_catalog.oid" \
	"  ELSE $2 END," \
	" paused_at = CASE WHEN paused THEN paused_at" \
	"  ELSE pg_catalog.clock_timestamp() END WHERE schedule_id = $1"

/* What came while it was paused is over. */
#define RESUME_SCHEDULE \
	"UPDATE jobq.schedule SET paused = false, paused_by = NULL," \
	" paused_at = NULL," \
	" last_tick = CASE WHEN paused THEN greatest(last_tick, $2)" \
	"  ELSE last_tick END WHERE schedule_id = $1"

#define DELETE_SCHEDULE \
	"DELETE FROM jobq.schedule WHERE schedule_id = $1"

#define DELETE_OF_QUEUE \
	"DELETE FROM jobq.schedule WHERE queue_id = $1"

#define UPDATE_TICKED \
	"UPDATE jobq.schedule SET last_tick = $2," \
	" last_run = coalesce($3, last_run), last_job = coalesce($4, last_job)," \
	" misses = misses + $5, last_miss = coalesce($6, last_miss)," \
	" last_miss_reason = coalesce($7, last_miss_reason)" \
	" WHERE schedule_id = $1"

/* ---- reading ---- */

static void
set_job(JobqSchedule *schedule, int attr, Datum value, bool null)
{
	schedule->job.values[attr] = value;
	schedule->job.nulls[attr] = null;
}

/* Everything in the current memory context, nothing left outside the row. */
static void
read_row(HeapTuple tuple, TupleDesc desc, JobqSchedule *schedule)
{
	Datum		values[COL_COUNT];
	bool		nulls[COL_COUNT];

	heap_deform_tuple(tuple, desc, values, nulls);
	for (int i = 0; i < COL_COUNT; i++)
	{
		if (!nulls[i] && TupleDescAttr(desc, i)->attlen == -1)
			values[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[i]));
	}
	memset(schedule, 0, sizeof(*schedule));
	memset(schedule->job.nulls, true, sizeof(schedule->job.nulls));
	schedule->schedule_id = DatumGetInt32(values[COL_ID]);
	schedule->name = TextDatumGetCString(values[COL_NAME]);
	schedule->owner = DatumGetObjectId(values[COL_OWNER]);
	schedule->queue_id = DatumGetInt32(values[COL_QUEUE_ID]);
	schedule->cron = TextDatumGetCString(values[COL_CRON]);
	schedule->timezone = TextDatumGetCString(values[COL_TIMEZONE]);
	schedule->catch_up = TextDatumGetCString(values[COL_CATCH_UP]);
	schedule->catch_up_max = DatumGetInt32(values[COL_CATCH_UP_MAX]);
	schedule->paused = DatumGetBool(values[COL_PAUSED]);
	schedule->last_tick = DatumGetTimestampTz(values[COL_LAST_TICK]);
	set_job(schedule, JOB_KIND, values[COL_KIND], nulls[COL_KIND]);
	set_job(schedule, JOB_PRIORITY, values[COL_PRIORITY],
			nulls[COL_PRIORITY]);
	set_job(schedule, JOB_MAX_ATTEMPTS, values[COL_MAX_ATTEMPTS],
			nulls[COL_MAX_ATTEMPTS]);
	set_job(schedule, JOB_GROUP_KEY, values[COL_GROUP_KEY],
			nulls[COL_GROUP_KEY]);
	set_job(schedule, JOB_HEADERS, values[COL_HEADERS], nulls[COL_HEADERS]);
	set_job(schedule, JOB_PAYLOAD, values[COL_PAYLOAD], nulls[COL_PAYLOAD]);
}

/* Run a query for schedules; they come back in the caller's memory. */
static int
query(const char *command, Oid type, Datum value, JobqSchedule **schedules)
{
	MemoryContext context = CurrentMemoryContext;
	JobqOwnerContext owner;
	int			n;

	jobq_connect_as_owner(&owner);
	n = (int) jobq_execute(command, 1, &type, &value, SPI_OK_SELECT);
	MemoryContextSwitchTo(context);
	*schedules = palloc(sizeof(JobqSchedule) * Max(n, 1));
	for (int i = 0; i < n; i++)
		read_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
				 &(*schedules)[i]);
	jobq_disconnect(&owner);
	MemoryContextSwitchTo(context);
	return n;
}

int
jobq_schedule_named(const char *name, JobqSchedule **schedules)
{
	return query(SELECT_NAMED, TEXTOID, CStringGetTextDatum(name), schedules);
}

bool
jobq_schedule_try_lock(int32 schedule_id, JobqSchedule *schedule)
{
	JobqSchedule *found;

	if (query(SELECT_LOCKED, INT4OID, Int32GetDatum(schedule_id),
			  &found) == 0)
		return false;
	*schedule = *found;
	return true;
}

int
jobq_schedule_timers(JobqSchedule **schedules)
{
	MemoryContext context = CurrentMemoryContext;
	JobqOwnerContext owner;
	int			n;

	jobq_connect_as_owner(&owner);
	n = (int) jobq_execute(SELECT_TIMERS, 0, NULL, NULL, SPI_OK_SELECT);
	MemoryContextSwitchTo(context);
	*schedules = palloc0(sizeof(JobqSchedule) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		JobqSchedule *schedule = &(*schedules)[i];
		bool		null;

		schedule->schedule_id =
			DatumGetInt32(SPI_getbinval(tuple, desc, 1, &null));
		schedule->cron = SPI_getvalue(tuple, desc, 2);
		schedule->timezone = SPI_getvalue(tuple, desc, 3);
		schedule->last_tick =
			DatumGetTimestampTz(SPI_getbinval(tuple, desc, 4, &null));
	}
	jobq_disconnect(&owner);
	MemoryContextSwitchTo(context);
	return n;
}

static char *
describe_some(const char *query, int32 queue_id)
{
	MemoryContext context = CurrentMemoryContext;
	JobqOwnerContext owner;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(queue_id);
	char	   *found = NULL;

	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(query, 1, &type, &value, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the schedules");
	PopActiveSnapshot();
	MemoryContextSwitchTo(context);
	if (SPI_processed > 0)
		found = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	jobq_disconnect(&owner);
	MemoryContextSwitchTo(context);
	return found;
}

char *
jobq_schedules_of_queue(int32 queue_id)
{
	return describe_some(SELECT_OF_QUEUE(""), queue_id);
}

char *
jobq_schedules_with_payload(int32 queue_id)
{
	return describe_some(SELECT_OF_QUEUE(" AND s.payload <> '{}'"), queue_id);
}

bool
jobq_has_payload(const JobqRow *job)
{
	Jsonb	   *payload = DatumGetJsonbP(job->values[JOB_PAYLOAD]);

	return !JB_ROOT_IS_OBJECT(payload) || JB_ROOT_COUNT(payload) > 0;
}

/* ---- writing ---- */

/* Change rows of ours; how many it were. */
static uint64
change(const char *command, int nargs, Oid *types, Datum *values,
	   const char *nulls, int expected)
{
	JobqOwnerContext owner;
	uint64		n;

	jobq_connect_as_owner(&owner);
	if (SPI_execute_with_args(command, nargs, types, values, nulls, false,
							  0) != expected)
		elog(ERROR, "unexpected result of \"%s\"", command);
	n = SPI_processed;
	jobq_disconnect(&owner);
	return n;
}

static char
null_mark(const JobqSchedule *schedule, int attr)
{
	return schedule->job.nulls[attr] ? 'n' : ' ';
}

void
jobq_schedule_put(const JobqSchedule *schedule)
{
	const Datum *job = schedule->job.values;
	Oid			types[] = {TEXTOID, OIDOID, INT4OID, TEXTOID, TEXTOID,
		TEXTOID, INT4OID, TIMESTAMPTZOID, TEXTOID, INT2OID, INT4OID, TEXTOID,
	JSONBOID, JSONBOID};
	Datum		values[] = {
		CStringGetTextDatum(schedule->name),
		ObjectIdGetDatum(schedule->owner),
		Int32GetDatum(schedule->queue_id),
		CStringGetTextDatum(schedule->cron),
		CStringGetTextDatum(schedule->timezone),
		CStringGetTextDatum(schedule->catch_up),
		Int32GetDatum(schedule->catch_up_max),
		TimestampTzGetDatum(schedule->last_tick),
		job[JOB_KIND], job[JOB_PRIORITY], job[JOB_MAX_ATTEMPTS],
		job[JOB_GROUP_KEY], job[JOB_HEADERS], job[JOB_PAYLOAD]
	};
	char		nulls[] = "              ";

	StaticAssertStmt(lengthof(nulls) == lengthof(values) + 1, "one for each");
	nulls[8] = null_mark(schedule, JOB_KIND);
	nulls[10] = null_mark(schedule, JOB_MAX_ATTEMPTS);
	nulls[11] = null_mark(schedule, JOB_GROUP_KEY);
	nulls[12] = null_mark(schedule, JOB_HEADERS);
	(void) change(INSERT_SCHEDULE, lengthof(values), types, values, nulls,
				  SPI_OK_INSERT);
}

bool
jobq_schedule_pause(int32 schedule_id, Oid role)
{
	Oid			types[] = {INT4OID, OIDOID};
	Datum		values[] = {Int32GetDatum(schedule_id),
	ObjectIdGetDatum(role)};

	return change(PAUSE_SCHEDULE, lengthof(values), types, values, NULL,
				  SPI_OK_UPDATE) == 1;
}

bool
jobq_schedule_resume(int32 schedule_id, TimestampTz now)
{
	Oid			types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {Int32GetDatum(schedule_id),
	TimestampTzGetDatum(now)};

	return change(RESUME_SCHEDULE, lengthof(values), types, values, NULL,
				  SPI_OK_UPDATE) == 1;
}

bool
jobq_schedule_delete(int32 schedule_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(schedule_id);

	return change(DELETE_SCHEDULE, 1, &type, &value, NULL,
				  SPI_OK_DELETE) == 1;
}

bool
jobq_schedule_delete_of_queue(int32 queue_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(queue_id);

	return change(DELETE_OF_QUEUE, 1, &type, &value, NULL,
				  SPI_OK_DELETE) > 0;
}

void
jobq_schedule_ticked(int32 schedule_id, const JobqTicked *ticked)
{
	bool		ran = ticked->last_job != 0;
	bool		missed = ticked->misses > 0;
	Oid			types[] = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
	INT8OID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[] = {
		Int32GetDatum(schedule_id),
		TimestampTzGetDatum(ticked->last_tick),
		TimestampTzGetDatum(ticked->last_run),
		Int64GetDatum(ticked->last_job),
		Int64GetDatum(ticked->misses),
		TimestampTzGetDatum(ticked->last_miss),
		missed ? CStringGetTextDatum(ticked->reason) : (Datum) 0
	};
	char		nulls[] = "       ";

	nulls[2] = nulls[3] = ran ? ' ' : 'n';
	nulls[5] = nulls[6] = missed ? ' ' : 'n';
	if (change(UPDATE_TICKED, lengthof(values), types, values, nulls,
			   SPI_OK_UPDATE) != 1)
		elog(ERROR, "schedule %d has gone while it was locked", schedule_id);
}
