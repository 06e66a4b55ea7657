/*
 * meter.c: the minutes and hours of queues go from memory to disk, once an
 * hour and only while something happens, and when the server is stopped, from
 * where they come back; and both together are shown.
 *
 * Must not count anything: dispatch/meter.c does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "engine/keeperxact.h"
#include "engine/meter.h"
#include "pause.h"
#include "security/security.h"

#define MINUTES_KEPT	USECS_PER_DAY
#define HOURS_KEPT		(30 * USECS_PER_DAY)
#define SAVE_TIME		(2 * USECS_PER_SEC)	/* while a server is stopped */

#define SQL_WRITE_MINUTE \
	"INSERT INTO jobq.queue_minute" \
	" (queue_id, minute, enqueued, completed, failed, dead)" \
	" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (minute, queue_id)" \
	" DO UPDATE SET enqueued = excluded.enqueued," \
	" completed = excluded.completed, failed = excluded.failed," \
	" dead = excluded.dead"
#define SQL_WRITE_HOUR \
	"INSERT INTO jobq.queue_hour" \
	" (queue_id, hour, enqueued, completed, failed, dead, wait, run)" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (hour, queue_id)" \
	" DO UPDATE SET enqueued = excluded.enqueued," \
	" completed = excluded.completed, failed = excluded.failed," \
	" dead = excluded.dead," \
	" wait = coalesce(excluded.wait, queue_hour.wait)," \
	" run = coalesce(excluded.run, queue_hour.run)"
#define SQL_DELETE_MINUTES \
	"DELETE FROM jobq.queue_minute WHERE minute < $1"
#define SQL_DELETE_HOURS \
	"DELETE FROM jobq.queue_hour WHERE hour < $1"
#define SQL_LOAD_MINUTES \
	"SELECT t.queue_id, t.minute, t.enqueued, t.completed, t.failed, t.dead" \
	" FROM jobq.queue_minute t JOIN jobq.queue q USING (queue_id)" \
	" WHERE t.minute >= $1"
#define SQL_READ_MINUTES \
	"SELECT t.queue_id, t.minute, t.enqueued, t.completed, t.failed, t.dead" \
	" FROM jobq.queue_minute t" \
	" WHERE t.queue_id = ANY ($1) AND t.minute >= $2" \
	" ORDER BY t.queue_id, t.minute"
#define SQL_READ_HOURS \
	"SELECT t.queue_id, t.hour, t.enqueued, t.completed, t.failed, t.dead," \
	" t.wait[1], t.wait[2], t.wait[3], t.run[1], t.run[2], t.run[3]" \
	" FROM jobq.queue_hour t" \
	" WHERE t.queue_id = ANY ($1) AND t.hour >= $2" \
	" ORDER BY t.queue_id, t.hour"

/* Columns of all these, and of the views. */
typedef enum Attr
{
	ATTR_QUEUE,
	ATTR_TIME,
	ATTR_COUNTS,
	ATTR_WAIT = ATTR_COUNTS + METER_N,
	MINUTE_NATTS = ATTR_WAIT,
	ATTR_RUN = ATTR_WAIT + JOBQ_PERCENTILES,
	HOUR_NATTS = ATTR_RUN + JOBQ_PERCENTILES,
	WRITE_WAIT = ATTR_WAIT,		/* as arrays */
	WRITE_RUN,
	WRITE_NATTS
} Attr;

static void
set_counts(Datum *values, const uint32 *minute)
{
	for (int what = 0; what < METER_N; what++)
		values[ATTR_COUNTS + what] = Int64GetDatum((int64) minute[what]);
}

static void
set_sums(Datum *values, const JobqHour *hour)
{
	for (int what = 0; what < METER_N; what++)
	{
		int64		sum = 0;

		for (int minute = 0; minute < JOBQ_MINUTES; minute++)
			sum += hour->n[minute][what];
		values[ATTR_COUNTS + what] = Int64GetDatum(sum);
	}
}

static bool
is_quiet(const uint32 *minute)
{
	for (int what = 0; what < METER_N; what++)
	{
		if (minute[what] != 0)
			return false;
	}
	return true;
}

/* ---- writing ---- */

static void
write_row(const char *command, Datum *values, const bool *nulls, int n)
{
	Oid			types[WRITE_NATTS] = {INT4OID, TIMESTAMPTZOID, INT8OID,
	INT8OID, INT8OID, INT8OID, FLOAT8ARRAYOID, FLOAT8ARRAYOID};
	char		null_chars[WRITE_NATTS];

	for (int i = 0; i < n; i++)
		null_chars[i] = nulls[i] ? 'n' : ' ';
	if (SPI_execute_with_args(command, n, types, values, null_chars, false,
							  0) != SPI_OK_INSERT)
		elog(ERROR, "could not write what was counted");
}

/* Null when nothing was measured. */
static Datum
percentile_array(const JobqHistogram *histogram, bool *null)
{
	double		percentiles[JOBQ_PERCENTILES];
	Datum		values[JOBQ_PERCENTILES];

	jobq_meter_percentiles(histogram, percentiles);
	*null = percentiles[0] < 0;
	for (int i = 0; i < JOBQ_PERCENTILES; i++)
		values[i] = Float8GetDatum(percentiles[i]);
	return PointerGetDatum(construct_array(values, JOBQ_PERCENTILES,
										   FLOAT8OID, sizeof(float8),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
write_hour(int32 queue_id, const JobqHour *hour)
{
	Datum		values[WRITE_NATTS];
	bool		nulls[WRITE_NATTS] = {0};

	values[ATTR_QUEUE] = Int32GetDatum(queue_id);
	for (int minute = 0; minute < JOBQ_MINUTES; minute++)
	{
		if (is_quiet(hour->n[minute]))
			continue;
		values[ATTR_TIME] =
			TimestampTzGetDatum(jobq_meter_minute_start(hour->at, minute));
		set_counts(values, hour->n[minute]);
		write_row(SQL_WRITE_MINUTE, values, nulls, MINUTE_NATTS);
	}
	values[ATTR_TIME] =
		TimestampTzGetDatum(jobq_meter_minute_start(hour->at, 0));
	set_sums(values, hour);
	values[WRITE_WAIT] = percentile_array(&hour->wait, &nulls[WRITE_WAIT]);
	values[WRITE_RUN] = percentile_array(&hour->run, &nulls[WRITE_RUN]);
	write_row(SQL_WRITE_HOUR, values, nulls, WRITE_NATTS);
}

/* So many of one queue, in a transaction. */
static bool
write_hours(const JobqSession *session, int32 queue_id, const JobqHour *hours,
			int n)
{
	if (n == 0)
		return true;
	if (!jobq_keeper_begin(session->db->install))
		return false;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	for (int i = 0; i < n; i++)
		write_hour(queue_id, &hours[i]);
	SPI_finish();
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	return true;
}

/* Those of one queue that are over; they do not change any more. */
static bool
write_finished(const JobqSession *session, int32 queue_id, TimestampTz now)
{
	JobqHour   *hours = palloc(sizeof(JobqHour) * 2);
	int			n = jobq_part_hours(session->db, session->gen, queue_id, now,
									true, hours);
	bool		done = write_hours(session, queue_id, hours, n);

	for (int i = 0; i < n && done; i++)
		jobq_part_hour_written(session->db, session->gen, queue_id,
							   hours[i].at);
	pfree(hours);
	return done;
}

static void
delete_old(const char *command, TimestampTz until)
{
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(until)};

	(void) jobq_execute(command, 1, types, values, SPI_OK_DELETE);
}

void
jobq_tend_meters(const JobqSession *session, TimestampTz now)
{
	static int64 done = 0;		/* the hour in which we have looked */
	MemoryContext context = CurrentMemoryContext;
	int64		hour = jobq_meter_hour(now);
	JobqPart   *part;

	if (done == hour)
		return;
	for (int i = jobq_parts_of(session->db, session->gen, 0, &part); i >= 0;
		 i = jobq_parts_of(session->db, session->gen, i, &part))
	{
		CHECK_FOR_INTERRUPTS();
		if (!write_finished(session, part->queue_id, now))
			return;
		MemoryContextSwitchTo(context);
	}
	if (!jobq_keeper_begin(session->db->install))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	delete_old(SQL_DELETE_MINUTES, jobq_meter_clock(now) - MINUTES_KEPT);
	delete_old(SQL_DELETE_HOURS, jobq_meter_clock(now) - HOURS_KEPT);
	SPI_finish();
	jobq_keeper_commit();
	done = hour;
}

/*
 * Not taken for written: they go on where memory does. Nor waited for, as the
 * server writes all to disk before it stops.
 */
void
jobq_save_meters(JobqDb *db, uint32 gen)
{
	JobqSession session = {.db = db,.gen = gen};
	MemoryContext context = CurrentMemoryContext;
	TimestampTz start = jobq_now();
	JobqHour   *hours = palloc(sizeof(JobqHour) * 2);
	JobqPart   *part;
	bool		going = !db->copy;

	for (int i = jobq_parts_of(db, gen, 0, &part); i >= 0 && going;
		 i = jobq_parts_of(db, gen, i, &part))
	{
		int			n = jobq_part_hours(db, gen, part->queue_id, start, false,
										hours);

		CHECK_FOR_INTERRUPTS();
		going = write_hours(&session, part->queue_id, hours, n) &&
			jobq_now() - start < SAVE_TIME;
		MemoryContextSwitchTo(context);
	}
	pfree(hours);
}

/* ---- loading ---- */

typedef struct Minute
{
	int32		queue_id;
	TimestampTz start;
	int64		counts[METER_N];
} Minute;

typedef struct Minutes
{
	Minute	   *rows;
	int			n;
	int			size;
} Minutes;

static void
take_minute(HeapTuple tuple, TupleDesc desc, void *state)
{
	Minutes    *minutes = state;
	Minute	   *row;

	if (minutes->n == minutes->size)
	{
		minutes->size *= 2;
		minutes->rows = repalloc_huge(minutes->rows,
									  sizeof(Minute) * minutes->size);
	}
	row = &minutes->rows[minutes->n++];
	row->queue_id = DatumGetInt32(jobq_row_value(tuple, desc, ATTR_QUEUE + 1,
												 NULL));
	row->start = DatumGetTimestampTz(jobq_row_value(tuple, desc,
													ATTR_TIME + 1, NULL));
	for (int what = 0; what < METER_N; what++)
		row->counts[what] = DatumGetInt64(jobq_row_value(tuple, desc,
														 ATTR_COUNTS + what + 1,
														 NULL));
}

/* Added to what memory has counted already, when nothing can fail any more. */
void
jobq_load_meters(const JobqSession *session, MemoryContext context)
{
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[1];
	Minutes		minutes = {.size = 64};

	minutes.rows = MemoryContextAlloc(context,
									  sizeof(Minute) * minutes.size);
	values[0] =
		TimestampTzGetDatum(jobq_meter_minute_start(jobq_meter_hour(jobq_now()),
													0));
	jobq_keeper_query(SQL_LOAD_MINUTES, 1, types, values, take_minute,
					  &minutes);
	jobq_keeper_commit();
	for (int i = 0; i < minutes.n; i++)
		jobq_part_minute_load(session->db, session->gen,
							  minutes.rows[i].queue_id, minutes.rows[i].start,
							  minutes.rows[i].counts);
	pfree(minutes.rows);
}

/* ---- showing ---- */

/* What memory has of the queues that are shown, and what the disk has not. */
typedef struct Show
{
	const JobqQueue *queues;
	int			nqueues;
	JobqHour   *hours;			/* two for each queue */
	int		   *nhours;
	TimestampTz from;
	Tuplestorestate *store;
	TupleDesc	desc;
} Show;

static Show
begin_show(const JobqSession *session, const JobqQueue *queues, int nqueues,
		   int64 kept, Tuplestorestate *store, TupleDesc desc)
{
	TimestampTz now = jobq_now();
	Show		show = {.queues = queues,.nqueues = nqueues,
		.from = jobq_meter_clock(now) - kept,.store = store,.desc = desc};

	show.hours = palloc_extended(sizeof(JobqHour) * 2 * Max(nqueues, 1),
								 MCXT_ALLOC_HUGE);
	show.nhours = palloc(sizeof(int) * Max(nqueues, 1));
	for (int i = 0; i < nqueues; i++)
		show.nhours[i] = jobq_part_hours(session->db, session->gen,
										 queues[i].queue_id, now, false,
										 &show.hours[2 * i]);
	return show;
}

/* Rows come by queue, like the queues. */
static const JobqQueue *
queue_of_row(const Show *show, int32 queue_id, int *at)
{
	while (*at < show->nqueues && show->queues[*at].queue_id < queue_id)
		(*at)++;
	return *at < show->nqueues && show->queues[*at].queue_id == queue_id ?
		&show->queues[*at] : NULL;
}

/* Memory knows the hour of this time better. */
static bool
is_in_memory(const Show *show, int queue, TimestampTz time)
{
	for (int i = 0; i < show->nhours[queue]; i++)
	{
		if (show->hours[2 * queue + i].at == time / USECS_PER_HOUR)
			return true;
	}
	return false;
}

static void
show_rows(const Show *show, const char *query)
{
	Oid			types[] = {INT4ARRAYOID, TIMESTAMPTZOID};
	Datum	   *ids = palloc(sizeof(Datum) * Max(show->nqueues, 1));
	Datum		args[2];
	JobqOwnerContext owner;
	int			at = 0;

	for (int i = 0; i < show->nqueues; i++)
		ids[i] = Int32GetDatum(show->queues[i].queue_id);
	args[0] = PointerGetDatum(construct_array(ids, show->nqueues, INT4OID,
											  sizeof(int32), true,
											  TYPALIGN_INT));
	args[1] = TimestampTzGetDatum(show->from);
	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(query, 2, types, args, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read what was counted");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[HOUR_NATTS];
		bool		nulls[HOUR_NATTS];
		const JobqQueue *queue;

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
						  values, nulls);
		queue = queue_of_row(show, DatumGetInt32(values[ATTR_QUEUE]), &at);
		if (queue == NULL ||
			is_in_memory(show, at, DatumGetTimestampTz(values[ATTR_TIME])))
			continue;
		values[ATTR_QUEUE] = CStringGetTextDatum(queue->name);
		tuplestore_putvalues(show->store, show->desc, values, nulls);
	}
	PopActiveSnapshot();
	jobq_disconnect(&owner);
}

static void
show_minutes_of(const Show *show, Datum name, const JobqHour *hour)
{
	for (int minute = 0; minute < JOBQ_MINUTES; minute++)
	{
		TimestampTz start = jobq_meter_minute_start(hour->at, minute);
		Datum		values[MINUTE_NATTS];
		bool		nulls[MINUTE_NATTS] = {0};

		if (start < show->from || is_quiet(hour->n[minute]))
			continue;
		values[ATTR_QUEUE] = name;
		values[ATTR_TIME] = TimestampTzGetDatum(start);
		set_counts(values, hour->n[minute]);
		tuplestore_putvalues(show->store, show->desc, values, nulls);
	}
}

static void
set_percentiles(Datum *values, bool *nulls, int attr,
				const JobqHistogram *histogram)
{
	double		percentiles[JOBQ_PERCENTILES];

	jobq_meter_percentiles(histogram, percentiles);
	for (int i = 0; i < JOBQ_PERCENTILES; i++)
	{
		values[attr + i] = Float8GetDatum(percentiles[i]);
		nulls[attr + i] = percentiles[i] < 0;
	}
}

static void
show_hour(const Show *show, Datum name, const JobqHour *hour)
{
	TimestampTz start = jobq_meter_minute_start(hour->at, 0);
	Datum		values[HOUR_NATTS];
	bool		nulls[HOUR_NATTS] = {0};

	if (start < show->from)
		return;
	values[ATTR_QUEUE] = name;
	values[ATTR_TIME] = TimestampTzGetDatum(start);
	set_sums(values, hour);
	set_percentiles(values, nulls, ATTR_WAIT, &hour->wait);
	set_percentiles(values, nulls, ATTR_RUN, &hour->run);
	tuplestore_putvalues(show->store, show->desc, values, nulls);
}

static void
show_memory(const Show *show,
			void (*show_one) (const Show *show, Datum name,
							  const JobqHour *hour))
{
	for (int q = 0; q < show->nqueues; q++)
	{
		for (int i = 0; i < show->nhours[q]; i++)
			show_one(show, CStringGetTextDatum(show->queues[q].name),
					 &show->hours[2 * q + i]);
	}
}

void
jobq_show_minutes(const JobqSession *session, const JobqQueue *queues,
				  int nqueues, Tuplestorestate *store, TupleDesc desc)
{
	Show		show = begin_show(session, queues, nqueues, MINUTES_KEPT,
								  store, desc);

	show_rows(&show, SQL_READ_MINUTES);
	show_memory(&show, show_minutes_of);
}

void
jobq_show_hours(const JobqSession *session, const JobqQueue *queues,
				int nqueues, Tuplestorestate *store, TupleDesc desc)
{
	Show		show = begin_show(session, queues, nqueues, HOURS_KEPT, store,
								  desc);

	show_rows(&show, SQL_READ_HOURS);
	show_memory(&show, show_hour);
}
