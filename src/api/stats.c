/*
 * stats.c: the SQL face of what is counted: queue_stats, queue_minutes,
 * queue_hours, kinds and workers. Shows numbers only, of queues whose numbers
 * the caller may know; must not read jobs.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#include "api/seeing.h"
#include "dispatch/meter.h"
#include "engine/meter.h"
#include "security/security.h"

#define WORKERS_SHOWN	USECS_PER_DAY	/* after they were last seen */

/* Columns of view queue_stats. */
typedef enum StatsAttr
{
	STATS_QUEUE,
	STATS_AVAILABLE,
	STATS_SCHEDULED,
	STATS_BLOCKED,
	STATS_RETRYABLE,
	STATS_RUNNING,
	STATS_COMPLETED_TOTAL,
	STATS_FAILED_TOTAL,
	STATS_DEAD_TOTAL,
	STATS_CANCELLED_TOTAL,
	STATS_EXPIRED_TOTAL,
	STATS_OLDEST,
	STATS_ENQUEUED_RATE,
	STATS_COMPLETED_RATE,
	STATS_FAILED_RATE,
	STATS_WAIT,
	STATS_RUN = STATS_WAIT + JOBQ_PERCENTILES,
	STATS_NATTS = STATS_RUN + JOBQ_PERCENTILES
} StatsAttr;

/* Columns of view kinds. */
typedef enum KindAttr
{
	KINDS_QUEUE,
	KINDS_KIND,
	KINDS_COMPLETED,
	KINDS_FAILED,
	KINDS_RUN_P95,
	KINDS_NATTS
} KindAttr;

/* Columns of view workers. */
typedef enum WorkerAttr
{
	WORKERS_WORKER,
	WORKERS_QUEUE,
	WORKERS_RUNNING,
	WORKERS_COMPLETED,
	WORKERS_FAILED,
	WORKERS_FIRST_SEEN,
	WORKERS_LAST_SEEN,
	WORKERS_NATTS
} WorkerAttr;

PG_FUNCTION_INFO_V1(jobq_view_queue_stats);
PG_FUNCTION_INFO_V1(jobq_view_queue_minutes);
PG_FUNCTION_INFO_V1(jobq_view_queue_hours);
PG_FUNCTION_INFO_V1(jobq_view_kinds);
PG_FUNCTION_INFO_V1(jobq_view_workers);

int
jobq_visible_queues(JobqQueue **queues)
{
	bool		all = jobq_is_monitor(GetUserId());
	int			nqueues = jobq_queue_list(queues);
	int			n = 0;

	for (int i = 0; i < nqueues; i++)
	{
		if (all || (*queues)[i].my_privileges != 0)
			(*queues)[n++] = (*queues)[i];
	}
	return n;
}

/* Those of which it may know how much there is. */
static int
counted_queues(JobqQueue **queues)
{
	int			nqueues = jobq_visible_queues(queues);
	int			n = 0;

	for (int i = 0; i < nqueues; i++)
	{
		if (jobq_counts_queue(&(*queues)[i]))
			(*queues)[n++] = (*queues)[i];
	}
	return n;
}

/* What all these views begin with; JQ009 where memory does not know. */
static ReturnSetInfo *
begin(FunctionCallInfo fcinfo, JobqSession *session)
{
	jobq_begin_read(session);
	jobq_await_ready(session, JOBQ_DEQUEUE_WAIT_MS);
	InitMaterializedSRF(fcinfo, 0);
	return (ReturnSetInfo *) fcinfo->resultinfo;
}

/* ---- queue_stats ---- */

static void
set_percentiles(Datum *values, bool *nulls, const double *percentiles)
{
	for (int i = 0; i < JOBQ_PERCENTILES; i++)
	{
		values[i] = Float8GetDatum(percentiles[i]);
		nulls[i] = percentiles[i] < 0;
	}
}

static void
show_stats(ReturnSetInfo *rsinfo, const JobqQueue *queue,
		   const JobqSeen *seen, TimestampTz now)
{
	Datum		values[STATS_NATTS];
	bool		nulls[STATS_NATTS] = {0};

	values[STATS_QUEUE] = CStringGetTextDatum(queue->name);
	values[STATS_AVAILABLE] = Int64GetDatum(JOBQ_AVAILABLE(seen->counters));
	values[STATS_SCHEDULED] = Int64GetDatum(seen->counters[COUNT_SCHEDULED]);
	values[STATS_BLOCKED] = Int64GetDatum(seen->counters[COUNT_BLOCKED]);
	values[STATS_RETRYABLE] =
		Int64GetDatum(seen->counters[COUNT_RETRYABLE] + seen->rolled_back);
	values[STATS_RUNNING] = Int64GetDatum(seen->running);
	values[STATS_COMPLETED_TOTAL] =
		Int64GetDatum(seen->counters[COUNT_COMPLETED]);
	values[STATS_FAILED_TOTAL] = Int64GetDatum(seen->counters[COUNT_FAILED]);
	values[STATS_DEAD_TOTAL] = Int64GetDatum(seen->counters[COUNT_DEAD]);
	values[STATS_CANCELLED_TOTAL] =
		Int64GetDatum(seen->counters[COUNT_CANCELLED]);
	values[STATS_EXPIRED_TOTAL] =
		Int64GetDatum(seen->counters[COUNT_EXPIRED]);
	nulls[STATS_OLDEST] = seen->oldest == JOBQ_NEVER;
	values[STATS_OLDEST] =
		Float8GetDatum((double) Max(now - seen->oldest, 0) / USECS_PER_SEC);
	values[STATS_ENQUEUED_RATE] =
		Float8GetDatum(seen->per_second[METER_ENQUEUED]);
	values[STATS_COMPLETED_RATE] =
		Float8GetDatum(seen->per_second[METER_COMPLETED]);
	values[STATS_FAILED_RATE] =
		Float8GetDatum(seen->per_second[METER_FAILED]);
	set_percentiles(&values[STATS_WAIT], &nulls[STATS_WAIT], seen->wait);
	set_percentiles(&values[STATS_RUN], &nulls[STATS_RUN], seen->run);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
jobq_view_queue_stats(PG_FUNCTION_ARGS)
{
	JobqSession session;
	ReturnSetInfo *rsinfo = begin(fcinfo, &session);
	TimestampTz now = jobq_now();
	JobqQueue  *queues;
	int			nqueues = counted_queues(&queues);

	for (int i = 0; i < nqueues; i++)
	{
		JobqSeen	seen;

		CHECK_FOR_INTERRUPTS();
		/* one that has seen no job yet is not in memory */
		(void) jobq_part_see(session.db, session.gen, queues[i].queue_id, now,
							 &seen);
		show_stats(rsinfo, &queues[i], &seen, now);
	}
	return (Datum) 0;
}

/* ---- minutes and hours ---- */

static Datum
show_past(FunctionCallInfo fcinfo,
		  void (*show) (const JobqSession *session, const JobqQueue *queues,
						int nqueues, Tuplestorestate *store, TupleDesc desc))
{
	JobqSession session;
	ReturnSetInfo *rsinfo = begin(fcinfo, &session);
	JobqQueue  *queues;
	int			nqueues = counted_queues(&queues);

	show(&session, queues, nqueues, rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

Datum
jobq_view_queue_minutes(PG_FUNCTION_ARGS)
{
	return show_past(fcinfo, jobq_show_minutes);
}

Datum
jobq_view_queue_hours(PG_FUNCTION_ARGS)
{
	return show_past(fcinfo, jobq_show_hours);
}

/* ---- kinds ---- */

static const JobqQueue *
find_queue(const JobqQueue *queues, int nqueues, int32 queue_id)
{
	int			low = 0;
	int			high = nqueues;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (queues[middle].queue_id < queue_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < nqueues && queues[low].queue_id == queue_id ?
		&queues[low] : NULL;
}

static void
show_kind(ReturnSetInfo *rsinfo, const JobqQueue *queue,
		  const JobqTally *tally)
{
	static const double share = 0.95;
	double		sums[JOBQ_BUCKETS] = {0};
	double		p95;
	Datum		values[KINDS_NATTS];
	bool		nulls[KINDS_NATTS] = {0};

	jobq_fading_sum(&tally->run, sums);
	jobq_histogram_percentiles(sums, &share, 1, &p95);
	values[KINDS_QUEUE] = CStringGetTextDatum(queue->name);
	values[KINDS_KIND] = CStringGetTextDatum(tally->name);
	nulls[KINDS_KIND] = tally->name[0] == '\0';
	values[KINDS_COMPLETED] = Int64GetDatum(tally->completed);
	values[KINDS_FAILED] = Int64GetDatum(tally->failed);
	values[KINDS_RUN_P95] = Float8GetDatum(p95 / USECS_PER_SEC);
	nulls[KINDS_RUN_P95] = p95 < 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
jobq_view_kinds(PG_FUNCTION_ARGS)
{
	JobqSession session;
	ReturnSetInfo *rsinfo = begin(fcinfo, &session);
	JobqQueue  *queues;
	int			nqueues = counted_queues(&queues);
	JobqTally	tally;

	for (int i = jobq_tally_next(session.gen, TALLY_KIND, 0, &tally); i >= 0;
		 i = jobq_tally_next(session.gen, TALLY_KIND, i, &tally))
	{
		const JobqQueue *queue = find_queue(queues, nqueues, tally.queue_id);

		CHECK_FOR_INTERRUPTS();
		if (queue != NULL)
			show_kind(rsinfo, queue, &tally);
	}
	return (Datum) 0;
}

/* ---- workers ---- */

typedef struct WorkerKey
{
	int32		queue_id;
	char		name[JOBQ_WORKER_MAX + 1];
} WorkerKey;

typedef struct Worker
{
	WorkerKey	key;			/* hash key */
	int64		running;
	int64		completed;
	int64		failed;
	TimestampTz first_seen;
	TimestampTz last_seen;
} Worker;

static Worker *
enter_worker(HTAB *workers, int32 queue_id, const char *name,
			 TimestampTz first_seen)
{
	WorkerKey	key;
	Worker	   *worker;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.queue_id = queue_id;
	strlcpy(key.name, name, sizeof(key.name));
	worker = hash_search(workers, &key, HASH_ENTER, &found);
	if (!found)
	{
		worker->running = worker->completed = worker->failed = 0;
		worker->first_seen = worker->last_seen = first_seen;
	}
	return worker;
}

static void
add_tallies(HTAB *workers, uint32 gen)
{
	JobqTally	tally;

	for (int i = jobq_tally_next(gen, TALLY_WORKER, 0, &tally); i >= 0;
		 i = jobq_tally_next(gen, TALLY_WORKER, i, &tally))
	{
		Worker	   *worker = enter_worker(workers, tally.queue_id, tally.name,
										  tally.first_seen);

		CHECK_FOR_INTERRUPTS();
		worker->completed = tally.completed;
		worker->failed = tally.failed;
		worker->last_seen = tally.last_seen;
	}
}

/* What runs says who runs it, also when its entry is another one's by now. */
static void
add_running(HTAB *workers, const JobqSession *session, int32 queue_id)
{
	JobqSlot	slots[JOBQ_CHUNK];
	JobqSlot	last;
	int			n = JOBQ_CHUNK;

	for (bool first = true; n == JOBQ_CHUNK; first = false)
	{
		CHECK_FOR_INTERRUPTS();
		n = jobq_look_leases(session->db, session->gen, queue_id,
							 first ? NULL : &last, JOBQ_CHUNK, slots);
		for (int i = 0; i < n; i++)
		{
			if (slots[i].state == SLOT_RUNNING)
				enter_worker(workers, queue_id, slots[i].l.worker,
							 slots[i].l.claimed_at)->running++;
		}
		if (n > 0)
			last = slots[n - 1];
	}
}

static void
show_worker(ReturnSetInfo *rsinfo, const JobqQueue *queue,
			const Worker *worker)
{
	Datum		values[WORKERS_NATTS];
	bool		nulls[WORKERS_NATTS] = {0};

	values[WORKERS_WORKER] = CStringGetTextDatum(worker->key.name);
	nulls[WORKERS_WORKER] = worker->key.name[0] == '\0';
	values[WORKERS_QUEUE] = CStringGetTextDatum(queue->name);
	values[WORKERS_RUNNING] = Int64GetDatum(worker->running);
	values[WORKERS_COMPLETED] = Int64GetDatum(worker->completed);
	values[WORKERS_FAILED] = Int64GetDatum(worker->failed);
	values[WORKERS_FIRST_SEEN] = TimestampTzGetDatum(worker->first_seen);
	values[WORKERS_LAST_SEEN] = TimestampTzGetDatum(worker->last_seen);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
jobq_view_workers(PG_FUNCTION_ARGS)
{
	JobqSession session;
	ReturnSetInfo *rsinfo = begin(fcinfo, &session);
	TimestampTz from = jobq_now() - WORKERS_SHOWN;
	HASHCTL		ctl = {.keysize = sizeof(WorkerKey),.entrysize = sizeof(Worker)};
	HASH_SEQ_STATUS seq;
	HTAB	   *workers;
	Worker	   *worker;
	JobqQueue  *queues;
	int			nqueues = counted_queues(&queues);

	ctl.hcxt = CurrentMemoryContext;
	workers = hash_create("pg_jobq workers", 64, &ctl,
						  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	add_tallies(workers, session.gen);
	for (int i = 0; i < nqueues; i++)
		add_running(workers, &session, queues[i].queue_id);
	hash_seq_init(&seq, workers);
	while ((worker = hash_seq_search(&seq)) != NULL)
	{
		const JobqQueue *queue = find_queue(queues, nqueues,
											worker->key.queue_id);

		if (queue != NULL && (worker->running > 0 || worker->last_seen > from))
			show_worker(rsinfo, queue, worker);
	}
	hash_destroy(workers);
	return (Datum) 0;
}
