/*
 * health.c: jobq.health(): what an administrator should know about this
 * installation, one line an item: what settings and shared memory tell; what
 * the catalogs tell is in horizon.c. Shows no job, and changes nothing.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/report.h"
#include "compat.h"
#include "engine/engine.h"
#include "guc.h"

#define SLOTS_WARN_PERCENT		90	/* of slots or queues in use */

/* What shared memory says, copied under its locks. */
typedef struct Facts
{
	bool		standby;
	bool		launcher_runs;
	bool		workers_exhausted;
	int			queues;			/* parts in use */
	int			databases;		/* entries in use */
	int			free_slots;

	JobqDbState state;
	bool		keeper_runs;
	bool		barred;			/* not in jobq.databases */
	int			holds;
	TimestampTz careful_until;
	bool		spilled;
	int			running;		/* slots of jobs in a worker's hands */
	bool		lost_leases;
	int64		spills;
	int64		index_conflicts;
	int			prepared;
} Facts;

PG_FUNCTION_INFO_V1(jobq_sql_health);

static void
read_facts(JobqDb *db, Facts *facts)
{
	facts->standby = RecoveryInProgress();
	facts->workers_exhausted =
		pg_atomic_read_u32(&jobq_control->worker_slots_exhausted) != 0;
	facts->free_slots = jobq_free_slots();
	facts->queues = 0;
	facts->spilled = false;
	facts->running = 0;
	facts->prepared = 0;

	LWLockAcquire(jobq_control->lock, LW_SHARED);
	facts->launcher_runs = jobq_control->launcher_proc >= 0;
	for (int i = 0; i < jobq_max_queues; i++)
	{
		if (jobq_parts[i].db >= 0)
		{
			facts->queues++;
			facts->running += jobq_parts[i].running;
		}
		if (jobq_parts[i].db == jobq_db_index(db) &&
			jobq_parts[i].frontier.priority != JOBQ_KEY_END)
			facts->spilled = true;
	}
	facts->databases = 0;
	for (int i = 0; i < jobq_max_databases; i++)
	{
		if (OidIsValid(jobq_dbs[i].dbid))
			facts->databases++;
	}
	LWLockRelease(jobq_control->lock);

	SpinLockAcquire(&db->mutex);
	facts->state = db->state;
	facts->keeper_runs = db->keeper_proc >= 0;
	facts->barred = db->barred;
	facts->holds = db->holds;
	facts->careful_until = db->careful_until;
	facts->lost_leases = db->lost_leases;
	facts->spills = db->spills;
	facts->index_conflicts = db->index_conflicts;
	for (int i = 0; i < JOBQ_MAX_PREPARED; i++)
	{
		if (TransactionIdIsValid(db->prepared[i].xid))
			facts->prepared++;
	}
	SpinLockRelease(&db->mutex);
}

static void
report_launcher(ReturnSetInfo *rsinfo, const Facts *facts)
{
	if (facts->launcher_runs)
		jobq_report(rsinfo, "launcher", JOBQ_OK, "The launcher runs.", NULL);
	else if (facts->standby)
		jobq_report(rsinfo, "launcher", JOBQ_OK,
					"This server is a standby; the launcher starts when it is promoted.",
					NULL);
	else
		jobq_report(rsinfo, "launcher", JOBQ_ERROR,
					"The launcher does not run, so no keeper is started.",
					"Look into the server log; raise max_worker_processes if it is used up, and restart the server.");
}

static void
report_keeper(ReturnSetInfo *rsinfo, const Facts *facts)
{
	if (facts->keeper_runs && facts->state == JOBQ_DB_READY)
		jobq_report(rsinfo, "keeper", JOBQ_OK,
					"The keeper of this database runs.", NULL);
	else if (facts->keeper_runs)
		jobq_report(rsinfo, "keeper", JOBQ_WARNING,
					"The keeper is loading the jobs of this database; until it is done nothing is delivered.",
					"Wait a moment.");
	else if (facts->standby)
		jobq_report(rsinfo, "keeper", JOBQ_OK,
					"This server is a standby; the keeper starts when it is promoted.",
					NULL);
	else if (facts->barred)
		jobq_report(rsinfo, "keeper", JOBQ_ERROR,
					"jobq.databases does not name this database, so it has no keeper.",
					"Add the database to jobq.databases and reload the configuration.");
	else if (facts->holds > 0)
		jobq_report(rsinfo, "keeper", JOBQ_WARNING,
					"The keeper stays away while a statement needs the database for itself.",
					"Wait until DROP, ALTER or CREATE DATABASE is done.");
	else if (facts->workers_exhausted)
		jobq_report(rsinfo, "keeper", JOBQ_ERROR,
					"The keeper could not be started: all background worker slots are taken.",
					"Raise max_worker_processes and restart the server.");
	else
		jobq_report(rsinfo, "keeper", JOBQ_WARNING,
					"The keeper of this database does not run, or is just starting.",
					"Try again in a moment; if that does not help, look into the server log.");
}

static bool
nearly_full(int used, int total)
{
	return (int64) used * 100 >= (int64) total * SLOTS_WARN_PERCENT;
}

/*
 * Jobs that wait on disk are no fault; running ones that take all places, or
 * find none, are.
 */
static void
report_live_jobs(ReturnSetInfo *rsinfo, const Facts *facts)
{
	int			used = jobq_max_live_jobs - facts->free_slots;
	bool		warn = facts->lost_leases ||
		nearly_full(facts->running, jobq_max_live_jobs);
	char	   *detail;

	if (facts->lost_leases)
		detail = psprintf("%d of %d places for live jobs are taken, and running jobs of this database found none: their leases do not run out until places get free.",
						  used, jobq_max_live_jobs);
	else if (warn)
		detail = psprintf("%d of %d places for live jobs are taken by running jobs.",
						  facts->running, jobq_max_live_jobs);
	else if (facts->spilled)
		detail = psprintf("%d of %d places for live jobs are taken; jobs of this database wait on disk until places get free.",
						  used, jobq_max_live_jobs);
	else
		detail = psprintf("%d of %d places for live jobs are taken; " INT64_FORMAT " times there was none.",
						  used, jobq_max_live_jobs, facts->spills);
	jobq_report(rsinfo, "live_jobs", warn ? JOBQ_WARNING : JOBQ_OK, detail,
				warn ? "Raise jobq.max_live_jobs and restart the server, or have workers take fewer jobs at a time." : NULL);
}

/* Places of a kind, so many of them taken; the hint is for when they run out. */
static void
report_places(ReturnSetInfo *rsinfo, const char *item, const char *what,
			  int taken, int all, bool full, const char *hint)
{
	jobq_report(rsinfo, item, full ? JOBQ_WARNING : JOBQ_OK,
				psprintf("%d of %d places for %s are taken.", taken, all,
						 what),
				full ? hint : NULL);
}

static void
report_queues(ReturnSetInfo *rsinfo, const Facts *facts)
{
	report_places(rsinfo, "queues", "queues", facts->queues, jobq_max_queues,
				  nearly_full(facts->queues, jobq_max_queues),
				  "Raise jobq.max_queues and restart the server.");
}

static void
report_databases(ReturnSetInfo *rsinfo, const Facts *facts)
{
	report_places(rsinfo, "databases", "databases", facts->databases,
				  jobq_max_databases,
				  facts->databases == jobq_max_databases,
				  "Raise jobq.max_databases and restart the server before another database is to have the extension.");
}

/* Where there is no room capacity comes back later than it could. */
static void
report_windows(ReturnSetInfo *rsinfo)
{
	int32		all;
	int32		used = jobq_window_free_chunks(&all);

	used = all - used;
	report_places(rsinfo, "rate_limits", "what rates and breakers count",
				  used, all, nearly_full(used, all),
				  "Raise jobq.max_live_jobs and restart the server, or have fewer large rates: without room they deliver less than they could.");
}

static void
report_conflicts(ReturnSetInfo *rsinfo, const Facts *facts)
{
	if (facts->index_conflicts == 0)
		jobq_report(rsinfo, "index_conflicts", JOBQ_OK,
					"No job was about to end twice.", NULL);
	else
		jobq_report(rsinfo, "index_conflicts", JOBQ_WARNING,
					psprintf("The unique index refused a second end of a job " INT64_FORMAT " times; no job has ended twice, but the memory of the queue was wrong.",
							 facts->index_conflicts),
					"Please report this as a bug of pg_jobq.");
}

static void
report_careful(ReturnSetInfo *rsinfo, const Facts *facts)
{
	if (facts->careful_until > jobq_now())
		jobq_report(rsinfo, "careful", JOBQ_WARNING,
					psprintf("The server has crashed, or was promoted; until %s each delivery is recorded on disk before it is handed out.",
							 timestamptz_to_str(facts->careful_until)),
					"Wait a minute; dequeue is slower until then.");
	else
		jobq_report(rsinfo, "careful", JOBQ_OK,
					"Deliveries are handed out without delay.", NULL);
}

static void
report_prepared(ReturnSetInfo *rsinfo, const Facts *facts)
{
	report_places(rsinfo, "prepared_transactions",
				  "prepared transactions with enqueued jobs",
				  facts->prepared, JOBQ_MAX_PREPARED,
				  facts->prepared == JOBQ_MAX_PREPARED,
				  "Commit or roll back prepared transactions.");
}

/* What everybody goes by; the keeper keeps it up to date. */
static void
report_copy(ReturnSetInfo *rsinfo, const JobqDb *db)
{
	if (db->copy)
		jobq_report(rsinfo, "copy", JOBQ_WARNING,
					"This database was restored, copied or upgraded, or jobq.start_paused is on: its queues are paused.",
					"SELECT jobq.adopt();");
	else
		jobq_report(rsinfo, "copy", JOBQ_OK, "This database is no copy.", NULL);
}

/* Did finished jobs go before their retention had passed? */
static void
report_history(ReturnSetInfo *rsinfo, JobqDb *db)
{
	TimestampTz cut_at;

	SpinLockAcquire(&db->mutex);
	cut_at = db->history_cut_at;
	SpinLockRelease(&db->mutex);
	if (cut_at != 0 && cut_at > jobq_now() - USECS_PER_DAY)
		jobq_report(rsinfo, "history", JOBQ_WARNING,
					psprintf("Finished jobs were deleted before their retention had passed, last at %s: they took more than jobq.max_history_size.",
							 timestamptz_to_str(cut_at)),
					"Raise jobq.max_history_size and reload, or give queues a shorter retention.");
	else
		jobq_report(rsinfo, "history", JOBQ_OK,
					"Finished jobs stay as long as their queue's retention says.",
					NULL);
}

static void
report_audit(ReturnSetInfo *rsinfo, JobqDb *db)
{
	int64		lost;
	int			waiting = jobq_refusal_count(db, &lost);

	if (lost > 0)
		jobq_report(rsinfo, "audit", JOBQ_WARNING,
					psprintf(INT64_FORMAT " refused calls could not be recorded since the server was started: there were too many at a time.",
							 lost),
					"Find out who is refused so often: SELECT role, client_addr, call, queue, count(*) FROM jobq.audit WHERE outcome = 'refused' GROUP BY 1, 2, 3, 4.");
	else
		jobq_report(rsinfo, "audit", JOBQ_OK,
					psprintf("Every refused call is recorded; %d wait for the keeper.",
							 waiting), NULL);
}

Datum
jobq_sql_health(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;
	Facts		facts;

	jobq_require_monitor("jobq.health()");
	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	read_facts(session.db, &facts);
	jobq_report_preload(rsinfo);
	jobq_report_standby(rsinfo);
	report_launcher(rsinfo, &facts);
	report_keeper(rsinfo, &facts);
	report_live_jobs(rsinfo, &facts);
	report_queues(rsinfo, &facts);
	report_databases(rsinfo, &facts);
	report_windows(rsinfo);
	report_conflicts(rsinfo, &facts);
	report_careful(rsinfo, &facts);
	report_prepared(rsinfo, &facts);
	report_history(rsinfo, session.db);
	report_audit(rsinfo, session.db);
	jobq_report_horizon(rsinfo);
	report_copy(rsinfo, session.db);
	return (Datum) 0;
}
