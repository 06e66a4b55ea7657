/*
 * cron.c: ticks of schedules: when the next one is, and the keeper's part,
 * which enqueues each tick's job in the transaction that notes the tick as dealt
 * with. Never waits for a row; never deals with a tick twice, whatever the
 * clock does.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "engine/copy.h"
#include "engine/keeperxact.h"
#include "engine/place.h"
#include "errors.h"
#include "pause.h"
#include "security/input.h"
#include "security/redact.h"
#include "security/security.h"

#define BATCH			100		/* schedules in one transaction */
#define TURN			INT64CONST(50000)	/* us, then others have theirs */
#define BUSY_RETRY		INT64CONST(100000)	/* somebody has what we need */
#define POSTPONE		(5 * USECS_PER_SEC)	/* after an error */

/* A tick is missed once it is that late, or if the server was down then. */
#define LATE_SECONDS	60

/*
 * Of a time without ticks at most so many are looked at, from its beginning,
 * and at most as many at its end.
 */
#define LOOK_MAX		INT64CONST(1000000)

#define NOT_IN_TIME \
	"it was not run in time, and the schedule's catch_up leaves it out"

/* When to look at a schedule; what is to be done says its row. */
typedef struct Timer
{
	int32		schedule_id;
	TimestampTz due;
} Timer;

static MemoryContext timer_context;
static Timer *timers;
static int	ntimers;
static TimestampTz next_due = JOBQ_NEVER;	/* the first of them */
static bool unread = true;		/* the timers do not say all */

/* ---- expressions and zones ---- */

/*
 * pg_tzset() also takes POSIX rules, so that a slip such as "Europe/Berlin2"
 * or "UTC+2" would be a zone. Their canonical names have digits and no small
 * letter, which of IANA's names only these have.
 */
static bool
is_posix_rule(const char *canonical)
{
	static const char *const names[] = {"EST5EDT", "CST6CDT", "MST7MDT",
	"PST8PDT", "GMT0", "GMT+0", "GMT-0"};

	for (size_t i = 0; i < lengthof(names); i++)
	{
		if (strcmp(canonical, names[i]) == 0)
			return false;
	}
	return strpbrk(canonical, "0123456789") != NULL &&
		strpbrk(canonical, "abcdefghijklmnopqrstuvwxyz") == NULL;
}

pg_tz *
jobq_cron_zone(const char *name)
{
	pg_tz	   *zone = pg_tzset(name);

	if (zone == NULL || !pg_tz_acceptable(zone) ||
		is_posix_rule(pg_get_timezone_name(zone)))
		return NULL;
	return zone;
}

static bool
look(const void *zone, int64_t at, int64_t *offset, int64_t *until)
{
	pg_time_t	from = at;
	pg_time_t	boundary = 0;
	long		before = 0;
	long		after;
	int			is_dst;
	int			found = pg_next_dst_boundary(&from, &before, &is_dst, &boundary,
											 &after, &is_dst, zone);

	*offset = before;
	*until = found == 0 ? JOBQ_CRON_NEVER : boundary;
	return found >= 0;
}

TimestampTz
jobq_cron_tick(const JobqCron *cron, pg_tz *zone, TimestampTz after)
{
	JobqCronZone where = {look, zone};
	int64_t		tick = jobq_cron_next(cron, &where,
									  timestamptz_to_time_t(after));

	if (tick >= timestamptz_to_time_t(END_TIMESTAMP))
		return DT_NOEND;
	return time_t_to_timestamptz(tick);
}

static bool
understand(const char *text, const char *timezone, JobqCron *cron,
		   pg_tz **zone)
{
	JobqCronFault fault;

	*zone = jobq_cron_zone(timezone);
	return *zone != NULL && jobq_cron_parse(text, cron, &fault);
}

TimestampTz
jobq_schedule_next(const char *cron, const char *timezone, TimestampTz after)
{
	JobqCron	parsed;
	pg_tz	   *zone;

	if (!understand(cron, timezone, &parsed, &zone))
		return DT_NOEND;
	return jobq_cron_tick(&parsed, zone, after);
}

/* ---- a tick's job ---- */

static Datum
add_header(const JobqSchedule *schedule, TimestampTz tick)
{
	StringInfoData text;
	char		when[MAXDATELEN + 1];
	Datum		added;

	initStringInfo(&text);
	appendStringInfoString(&text, "{\"" JOBQ_SCHEDULE_KEY "\": {\"name\": ");
	escape_json(&text, schedule->name);
	appendStringInfo(&text, ", \"tick\": \"%s\"}}",
					 JsonEncodeDateTime(when, TimestampTzGetDatum(tick),
										TIMESTAMPTZOID, NULL));
	added = DirectFunctionCall1(jsonb_in, CStringGetDatum(text.data));
	if (schedule->job.nulls[JOB_HEADERS])
		return added;
	return DirectFunctionCall2(jsonb_concat,
							   schedule->job.values[JOB_HEADERS], added);
}

static void
set(JobqRow *row, int attr, Datum value)
{
	row->values[attr] = value;
	row->nulls[attr] = false;
}

static void
fill_row(const JobqSchedule *schedule, const JobqQueue *queue,
		 TimestampTz tick, TimestampTz now, JobqRow *row)
{
	*row = schedule->job;
	set(row, JOB_RUN_AT, TimestampTzGetDatum(tick));
	set(row, JOB_ENQUEUED_AT, TimestampTzGetDatum(now));
	set(row, JOB_ATTEMPT, Int32GetDatum(0));
	if (row->nulls[JOB_MAX_ATTEMPTS])
		set(row, JOB_MAX_ATTEMPTS, Int32GetDatum(queue->max_attempts));
	set(row, JOB_ENQUEUED_BY, ObjectIdGetDatum(schedule->owner));
	set(row, JOB_HEADERS, add_header(schedule, tick));
	jobq_set_default_expiry(queue, row);
}

static int64
bytes_of(const JobqRow *row, int attr)
{
	return row->nulls[attr] ? 0 :
		(int64) toast_raw_datum_size(row->values[attr]) - VARHDRSZ;
}

/* The queue, if the present role, the schedule's owner, may enqueue there. */
static void
require_queue(const JobqSchedule *schedule, JobqQueue *queue)
{
	if (!jobq_queue_by_id(schedule->queue_id, queue))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_NO_QUEUE),
				 errmsg("the queue of schedule \"%s\" does not exist",
						schedule->name),
				 errdetail("It was dropped."),
				 errhint("Name another queue with jobq.schedule(), or call jobq.unschedule().")));
	jobq_check_queue(queue, JOBQ_PRIV_ENQUEUE);
	if (bytes_of(&schedule->job, JOB_PAYLOAD) +
		bytes_of(&schedule->job, JOB_HEADERS) > queue->max_payload_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_TOO_LARGE),
				 errmsg("the payload of schedule \"%s\" is too large for queue \"%s\"",
						schedule->name, queue->name),
				 errdetail("Payload and headers may have %d bytes together by now.",
						   queue->max_payload_bytes),
				 errhint("Raise the queue's max_payload_bytes, or make the schedule's payload smaller with jobq.schedule().")));
}

/* One that was made just when the queue's payloads came to be sealed. */
static void
refuse_payload(const JobqSchedule *schedule, const JobqQueue *queue)
{
	if (queue->seal[0] == '\0' || !jobq_has_payload(&schedule->job))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("schedule \"%s\" has a payload", schedule->name),
			 errdetail("The payloads of queue \"%s\" are sealed, and a schedule keeps one as it is.",
					   queue->name),
			 errhint("Make the schedule anew without a payload.")));
}

static void
require_owner(const JobqSchedule *schedule)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(schedule->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of schedule \"%s\" does not exist",
						schedule->name),
				 errdetail("The role was dropped, or is not known where a dump was restored."),
				 errhint("Make the schedule anew as another role and call jobq.unschedule() for this one.")));
}

/* An error leaves the owner's identity with the transaction, or its part. */
int64
jobq_schedule_enqueue(const JobqSession *session, const JobqSchedule *schedule,
					  TimestampTz tick, TimestampTz now)
{
	Oid			role;
	int			context;
	JobqQueue	queue;
	JobqRow		row;
	int64		id;

	require_owner(schedule);
	GetUserIdAndSecContext(&role, &context);
	SetUserIdAndSecContext(schedule->owner,
						   context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	require_queue(schedule, &queue);
	refuse_payload(schedule, &queue);
	jobq_refuse_draining(session, &queue);
	jobq_input_check_data(&queue, &schedule->job, 0);
	fill_row(schedule, &queue, tick, now, &row);
	jobq_admit(session, &queue, &row, 1);
	id = jobq_enqueue_row(session, &queue, &row, now);
	SetUserIdAndSecContext(role, context);
	return id;
}

void
jobq_schedule_make(const JobqSession *session, JobqSchedule *schedule,
				   const JobqQueue *queue)
{
	jobq_lock_queue(queue);
	schedule->queue_id = queue->queue_id;
	schedule->last_tick = jobq_now();
	jobq_schedule_put(schedule);
	jobq_xact_cron_news(session);
}

/* ---- which ticks are due ---- */

typedef struct Ticks
{
	TimestampTz *run;			/* these get a job, earliest first */
	int			nrun;
	int64		misses;			/* these do not, and are earlier */
	TimestampTz last_miss;
	TimestampTz next;			/* the first that has not come yet */
} Ticks;

/* How many of the ticks that were missed are made up for. */
static int
made_up(const JobqSchedule *schedule)
{
	if (strcmp(schedule->catch_up, "all") == 0)
		return schedule->catch_up_max;
	return strcmp(schedule->catch_up, "one") == 0 ? 1 : 0;
}

static void
miss(Ticks *ticks, TimestampTz tick)
{
	ticks->misses++;
	ticks->last_miss = tick;
}

/*
 * Ticks after `last` and before `late`: the last `keep` of them are run. A
 * ring holds what may be among these.
 */
static TimestampTz
find_late(const JobqCron *cron, pg_tz *zone, TimestampTz last,
		  TimestampTz late, int keep, Ticks *ticks)
{
	TimestampTz *ring = palloc(sizeof(TimestampTz) * Max(keep, 1));
	TimestampTz tick;
	int64		n = 0;

	for (tick = jobq_cron_tick(cron, zone, last); tick < late;
		 tick = jobq_cron_tick(cron, zone, last))
	{
		CHECK_FOR_INTERRUPTS();
		if (keep == 0)
			miss(ticks, tick);
		else
		{
			if (n >= keep)
				miss(ticks, ring[n % keep]);
			ring[n % keep] = tick;
		}
		last = tick;
		if (++n == LOOK_MAX)
			last = Max(last, late - LOOK_MAX * USECS_PER_SEC);
	}
	for (int64 i = Max(n - keep, 0); i < n; i++)
		ticks->run[ticks->nrun++] = ring[i % keep];
	return tick;
}

static void
find_ticks(const JobqSchedule *schedule, TimestampTz since, TimestampTz now,
		   Ticks *ticks)
{
	TimestampTz late = Max(since, now - LATE_SECONDS * USECS_PER_SEC);
	int			keep = made_up(schedule);
	JobqCron	cron;
	pg_tz	   *zone;
	TimestampTz tick;

	memset(ticks, 0, sizeof(*ticks));
	ticks->next = JOBQ_NEVER;
	if (!understand(schedule->cron, schedule->timezone, &cron, &zone))
		return;
	ticks->run = palloc(sizeof(TimestampTz) * (keep + LATE_SECONDS + 1));
	tick = find_late(&cron, zone, schedule->last_tick, late, keep, ticks);
	while (tick <= now)
	{
		ticks->run[ticks->nrun++] = tick;
		tick = jobq_cron_tick(&cron, zone, tick);
	}
	ticks->next = tick;
}

/* ---- dealing with them ---- */

typedef struct Attempt
{
	const JobqSession *session;
	const JobqSchedule *schedule;
	TimestampTz tick;
	TimestampTz now;
	int64		id;
	const char *refused;		/* why it will not be tried again */
} Attempt;

static void
enqueue(void *state)
{
	Attempt    *attempt = state;

	attempt->id = jobq_schedule_enqueue(attempt->session, attempt->schedule,
										attempt->tick, attempt->now);
}

/*
 * What our own rules say will be the same in a moment; anything else, such as
 * a full disk, may be over then.
 */
static bool
is_refusal(const ErrorData *error, void *state)
{
	Attempt    *attempt = state;

	if (error->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE &&
		(ERRCODE_TO_CATEGORY(error->sqlerrcode) !=
		 JOBQ_SQLSTATE('0', '0') ||
		 error->sqlerrcode == ERRCODE_JOBQ_NOT_READY))
		return false;
	attempt->refused = jobq_redact(error->message);
	return true;
}

/* Returns when the schedule is due again. */
static TimestampTz
run_ticks(const JobqSession *session, const JobqSchedule *schedule,
		  const Ticks *ticks, TimestampTz now, JobqTicked *ticked)
{
	Attempt		attempt = {.session = session,.schedule = schedule,.now = now};

	for (int i = 0; i < ticks->nrun; i++)
	{
		CHECK_FOR_INTERRUPTS();
		attempt.tick = ticks->run[i];
		attempt.refused = NULL;
		if (jobq_keeper_try_expecting(enqueue, is_refusal, &attempt))
		{
			ticked->last_run = attempt.tick;
			ticked->last_job = attempt.id;
		}
		else if (attempt.refused != NULL)
		{
			ticked->misses++;
			ticked->last_miss = attempt.tick;
			ticked->reason = attempt.refused;
		}
		else
			return now + POSTPONE;
		ticked->last_tick = attempt.tick;
	}
	return ticks->next;
}

/*
 * One schedule, in the present transaction. Who else has its row in hand will
 * tell at commit; whether it has rolled back we have to find out.
 */
static TimestampTz
deal_with(const JobqSession *session, int32 schedule_id, TimestampTz since,
		  TimestampTz now)
{
	JobqSchedule schedule;
	JobqTicked	ticked = {.reason = NOT_IN_TIME};
	Ticks		ticks;
	TimestampTz due;

	if (!jobq_schedule_try_lock(schedule_id, &schedule))
		return now + BUSY_RETRY;
	if (schedule.paused)
		return JOBQ_NEVER;
	find_ticks(&schedule, since, now, &ticks);
	ticked.misses = ticks.misses;
	ticked.last_miss = ticks.last_miss;
	ticked.last_tick = ticks.misses > 0 ? ticks.last_miss : schedule.last_tick;
	due = run_ticks(session, &schedule, &ticks, now, &ticked);
	if (ticked.last_tick > schedule.last_tick)
		jobq_schedule_ticked(schedule_id, &ticked);
	return due;
}

/* ---- the timers ---- */

static void
find_next_due(void)
{
	next_due = JOBQ_NEVER;
	for (int i = 0; i < ntimers; i++)
		next_due = Min(next_due, timers[i].due);
}

/* One transaction; false when nothing may be done. */
static bool
deal_with_batch(const JobqSession *session, TimestampTz now)
{
	TimestampTz since = jobq_cron_since(session->db, now);
	int			which[BATCH];
	TimestampTz due[BATCH];
	int			n = 0;

	if (!jobq_keeper_begin(session->db->install))
		return false;
	for (int i = 0; i < ntimers && n < BATCH; i++)
	{
		if (timers[i].due > now)
			continue;
		which[n] = i;
		due[n++] = deal_with(session, timers[i].schedule_id, since, now);
	}
	/* rows that a restore has just brought are not to run */
	if (jobq_is_copy(session->db))
	{
		jobq_keeper_abort();
		return false;
	}
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	for (int i = 0; i < n; i++)
		timers[which[i]].due = due[i];
	find_next_due();
	return true;
}

static bool
read_timers(const JobqSession *session)
{
	JobqSchedule *schedules;
	int			n;

	if (!jobq_keeper_begin(session->db->install))
		return false;
	n = jobq_schedule_timers(&schedules);
	if (timer_context == NULL)
		timer_context = AllocSetContextCreate(TopMemoryContext, "jobq schedules",
											  ALLOCSET_DEFAULT_SIZES);
	ntimers = 0;
	MemoryContextReset(timer_context);
	timers = MemoryContextAllocHuge(timer_context, sizeof(Timer) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		timers[i].schedule_id = schedules[i].schedule_id;
		timers[i].due = jobq_schedule_next(schedules[i].cron,
										   schedules[i].timezone,
										   schedules[i].last_tick);
	}
	ntimers = n;
	find_next_due();
	jobq_keeper_commit();
	return true;
}

TimestampTz
jobq_tend_cron(const JobqSession *session, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz begun = now;
	bool		done = true;

	(void) jobq_cron_since(session->db, now);
	if (jobq_take_cron_news(session->db))
		unread = true;
	if (unread && !read_timers(session))
		return now + BUSY_RETRY;
	unread = false;
	while (done && next_due <= now && now - begun < TURN)
	{
		done = deal_with_batch(session, now);
		MemoryContextSwitchTo(context);
		now = jobq_now();
	}
	MemoryContextSwitchTo(context);
	return done ? next_due : now + BUSY_RETRY;
}
