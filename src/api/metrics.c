/*
 * metrics.c: jobq.metrics(): what is counted, as text in the exposition format
 * of OpenMetrics and Prometheus. For jobq_monitor; shows no job.
 *
 * Counters are declared under the name of their samples, with _total: so does
 * Prometheus, and its promtool insists on it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/report.h"
#include "api/seeing.h"
#include "dispatch/meter.h"
#include "guc.h"

PG_FUNCTION_INFO_V1(jobq_sql_metrics);

typedef struct Metrics
{
	JobqSession session;
	TimestampTz now;
	JobqQueue  *queues;
	int			nqueues;
	JobqSeen   *seen;			/* of each queue */
	char	  **labels;			/* of each queue: queue="..." */
	StringInfoData out;
} Metrics;

static char *
label(const char *name, const char *value)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s=\"", name);
	for (const char *c = value; *c != '\0'; c++)
	{
		if (*c == '\n')
			appendStringInfoString(&text, "\\n");
		else if (*c == '"' || *c == '\\')
			appendStringInfo(&text, "\\%c", *c);
		else
			appendStringInfoChar(&text, *c);
	}
	appendStringInfoChar(&text, '"');
	return text.data;
}

static void
family(Metrics *m, const char *name, const char *type, const char *help)
{
	appendStringInfo(&m->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name,
					 type);
}

/* ---- of each queue ---- */

static int64
available(const JobqSeen *seen)
{
	return JOBQ_AVAILABLE(seen->counters);
}

static int64
scheduled(const JobqSeen *seen)
{
	return seen->counters[COUNT_SCHEDULED];
}

static int64
retryable(const JobqSeen *seen)
{
	return seen->counters[COUNT_RETRYABLE] + seen->rolled_back;
}

static int64
running(const JobqSeen *seen)
{
	return seen->running;
}

static int64
blocked(const JobqSeen *seen)
{
	return seen->counters[COUNT_BLOCKED];
}

static const struct
{
	const char *state;
	int64		(*value) (const JobqSeen *seen);
}			states[] = {
	{"available", available},
	{"scheduled", scheduled},
	{"blocked", blocked},
	{"retryable", retryable},
	{"running", running},
};

static const struct
{
	JobqCounter counter;
	const char *name;
	const char *help;
}			totals[] = {
	{COUNT_ENQUEUED, "jobq_enqueued_total", "New jobs since memory was loaded."},
	{COUNT_COMPLETED, "jobq_completed_total", "Jobs completed."},
	{COUNT_FAILED, "jobq_failed_attempts_total", "Attempts failed, lost or rolled back."},
	{COUNT_DEAD, "jobq_dead_total", "Jobs that died."},
	{COUNT_CANCELLED, "jobq_cancelled_total", "Jobs cancelled."},
	{COUNT_EXPIRED, "jobq_expired_total", "Jobs that did not start in time."},
};

static void
add_states(Metrics *m)
{
	family(m, "jobq_jobs", "gauge", "Live jobs by state.");
	for (int q = 0; q < m->nqueues; q++)
	{
		for (size_t i = 0; i < lengthof(states); i++)
			appendStringInfo(&m->out,
							 "jobq_jobs{%s,state=\"%s\"} " INT64_FORMAT "\n",
							 m->labels[q], states[i].state,
							 states[i].value(&m->seen[q]));
	}
}

static void
add_totals(Metrics *m)
{
	for (size_t i = 0; i < lengthof(totals); i++)
	{
		family(m, totals[i].name, "counter", totals[i].help);
		for (int q = 0; q < m->nqueues; q++)
			appendStringInfo(&m->out, "%s{%s} " INT64_FORMAT "\n",
							 totals[i].name, m->labels[q],
							 m->seen[q].counters[totals[i].counter]);
	}
}

static void
add_paused(Metrics *m)
{
	family(m, "jobq_queue_paused", "gauge", "1 while the queue is paused.");
	for (int q = 0; q < m->nqueues; q++)
		appendStringInfo(&m->out, "jobq_queue_paused{%s} %d\n", m->labels[q],
						 m->queues[q].paused);
}

/* 0 when nothing is available, as an alert would have it. */
static void
add_oldest(Metrics *m)
{
	family(m, "jobq_oldest_available_seconds", "gauge",
		   "How long the longest waiting available job has waited.");
	for (int q = 0; q < m->nqueues; q++)
	{
		TimestampTz oldest = Min(m->seen[q].oldest, m->now);

		appendStringInfo(&m->out, "jobq_oldest_available_seconds{%s} %.6f\n",
						 m->labels[q],
						 (double) (m->now - oldest) / USECS_PER_SEC);
	}
}

/* Quantiles are those of the last five minutes, sum and count grow. */
static void
add_summary(Metrics *m, int q, const char *name, const double *percentiles,
			double sum, int64 n)
{
	static const char *const quantiles[JOBQ_PERCENTILES] = {
		"0.5", "0.95", "0.99"
	};

	for (int i = 0; i < JOBQ_PERCENTILES; i++)
	{
		if (percentiles[i] >= 0)
			appendStringInfo(&m->out, "%s{%s,quantile=\"%s\"} %.6f\n", name,
							 m->labels[q], quantiles[i], percentiles[i]);
	}
	appendStringInfo(&m->out, "%s_sum{%s} %.6f\n", name, m->labels[q], sum);
	appendStringInfo(&m->out, "%s_count{%s} " INT64_FORMAT "\n", name,
					 m->labels[q], n);
}

static void
add_times(Metrics *m)
{
	family(m, "jobq_wait_seconds", "summary",
		   "Time from when a job may run to its delivery.");
	for (int q = 0; q < m->nqueues; q++)
		add_summary(m, q, "jobq_wait_seconds", m->seen[q].wait,
					m->seen[q].wait_sum, m->seen[q].waits);
	family(m, "jobq_run_seconds", "summary",
		   "Time from a delivery to its completion or failure.");
	for (int q = 0; q < m->nqueues; q++)
		add_summary(m, q, "jobq_run_seconds", m->seen[q].run,
					m->seen[q].run_sum, m->seen[q].runs);
}

/* ---- of the database and the server ---- */

static void
add_gauge(Metrics *m, const char *name, const char *help, int64 value)
{
	family(m, name, "gauge", help);
	appendStringInfo(&m->out, "%s " INT64_FORMAT "\n", name, value);
}

static void
add_counter(Metrics *m, const char *name, const char *help, int64 value)
{
	family(m, name, "counter", help);
	appendStringInfo(&m->out, "%s " INT64_FORMAT "\n", name, value);
}

static void
add_database(Metrics *m)
{
	JobqDb	   *db = m->session.db;
	int64		spills;
	int64		conflicts;
	bool		keeper;

	SpinLockAcquire(&db->mutex);
	spills = db->spills;
	conflicts = db->index_conflicts;
	keeper = db->keeper_proc >= 0;
	SpinLockRelease(&db->mutex);
	add_gauge(m, "jobq_keeper_running", "1 while this database has a keeper.",
			  keeper);
	add_gauge(m, "jobq_places", "Places for live jobs in memory.",
			  jobq_max_live_jobs);
	add_gauge(m, "jobq_places_free", "Those of them that are free.",
			  jobq_free_slots());
	add_counter(m, "jobq_spills_total",
				"Jobs left on disk for lack of a place in memory.", spills);
	add_counter(m, "jobq_index_conflicts_total",
				"Second ends of a job that were refused.", conflicts);
}

static void
look(Metrics *m)
{
	m->now = jobq_now();
	m->nqueues = jobq_visible_queues(&m->queues);
	m->seen = palloc_extended(sizeof(JobqSeen) * Max(m->nqueues, 1),
							  MCXT_ALLOC_HUGE);
	m->labels = palloc(sizeof(char *) * Max(m->nqueues, 1));
	for (int q = 0; q < m->nqueues; q++)
	{
		CHECK_FOR_INTERRUPTS();
		(void) jobq_part_see(m->session.db, m->session.gen,
							 m->queues[q].queue_id, m->now, &m->seen[q]);
		m->labels[q] = label("queue", m->queues[q].name);
	}
}

Datum
jobq_sql_metrics(PG_FUNCTION_ARGS)
{
	Metrics		m;

	jobq_require_monitor("jobq.metrics()");
	jobq_begin_read(&m.session);
	jobq_await_ready(&m.session, JOBQ_DEQUEUE_WAIT_MS);
	look(&m);
	initStringInfo(&m.out);
	add_states(&m);
	add_oldest(&m);
	add_totals(&m);
	add_times(&m);
	add_paused(&m);
	add_database(&m);
	appendStringInfoString(&m.out, "# EOF\n");
	PG_RETURN_TEXT_P(cstring_to_text_with_len(m.out.data, m.out.len));
}
