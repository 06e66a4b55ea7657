/*
 * launcher.c: one keeper for each database that has the extension. Connects
 * to no database, so it never stands in the way of one being dropped or
 * copied; must not look into databases itself, that is what keepers are for.
 *
 * A database is either known to lack the extension, or has a keeper, or gets
 * one as soon as its back-off is over. Nothing is done on a schedule: the
 * launcher is woken by the commit of CREATE EXTENSION and of database
 * commands, by keepers, and by SIGHUP.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "compat.h"
#include "dispatch/dispatch.h"
#include "engine/engine.h"
#include "engine/process.h"
#include "guc.h"
#include "worker/worker.h"

#define RESTART_SECONDS			5
#define BACKOFF_CAP_SECONDS		60
#define LONG_LIFE_SECONDS		60	/* who lived longer starts afresh */

/* What the launcher knows of a database; private to its process. */
typedef struct Watched
{
	Oid			dbid;			/* hash key */
	bool		seen;			/* by the scan that is under way */
	bool		eligible;
	bool		absent;			/* known to lack the extension */
	bool		again;			/* look again once this keeper has left */
	int			failures;		/* in a row */
	TimestampTz started_at;
	TimestampTz retry_at;
	BackgroundWorkerHandle *handle; /* NULL = we have none running */
} Watched;

static HTAB *watched;
static MemoryContext scan_context;
static bool slots_warned;
static int	slots_failures;
static TimestampTz slots_retry_at;

void
jobq_register_launcher(void)
{
	BackgroundWorker worker = jobq_process("launcher");

	worker.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
}

static void
sign_off(int code, Datum arg)
{
	if (jobq_control->launcher_proc == jobq_my_procno())
		jobq_control->launcher_proc = -1;
}

/* A launcher that died has left its notes behind; they are not ours. */
static void
sign_on(void)
{
	before_shmem_exit(sign_off, (Datum) 0);
	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	memset(jobq_control->starts, 0, sizeof(jobq_control->starts));
	LWLockRelease(jobq_control->lock);
	jobq_control->launcher_proc = jobq_my_procno();
}

static Watched *
watch(Oid dbid)
{
	bool		found;
	Watched    *w = hash_search(watched, &dbid, HASH_ENTER, &found);

	if (!found)
	{
		memset(w, 0, sizeof(*w));
		w->dbid = dbid;
	}
	return w;
}

/* ---- which databases there are ---- */

static bool
is_listed(const char *name)
{
	char	   *raw = pstrdup(jobq_databases);
	List	   *names = NIL;
	ListCell   *lc;

	if (!SplitGUCList(raw, ',', &names))
		return false;
	foreach(lc, names)
	{
		if (strcmp(lfirst(lc), "*") == 0 || strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

static void
see_database(Form_pg_database database)
{
	Watched    *w = watch(database->oid);

	w->seen = true;
	w->eligible = !database->datistemplate && database->datallowconn &&
		database->datconnlimit != DATCONNLIMIT_INVALID_DB &&
		is_listed(NameStr(database->datname));
}

static void
forget_unseen(void)
{
	HASH_SEQ_STATUS seq;
	Watched    *w;

	hash_seq_init(&seq, watched);
	while ((w = hash_seq_search(&seq)) != NULL)
	{
		if (w->seen)
			w->seen = false;
		else if (w->handle == NULL)
			hash_search(watched, &w->dbid, HASH_REMOVE, NULL);
		else
			w->eligible = false;
	}
}

static void
scan_databases(void)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old;

	StartTransactionCommand();
	old = MemoryContextSwitchTo(scan_context);
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		see_database((Form_pg_database) GETSTRUCT(tuple));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	MemoryContextSwitchTo(old);
	CommitTransactionCommand();
	MemoryContextReset(scan_context);
	forget_unseen();
}

/*
 * Read pg_database again. Should that fail, the request stands and is tried
 * again after a while; the time comes back.
 */
static TimestampTz
scan_or_retry(int *failures)
{
	bool		done = false;

	PG_TRY();
	{
		scan_databases();
		done = true;
	}
	PG_CATCH();
	{
		jobq_absorb_error(true);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	if (done)
	{
		*failures = 0;
		return JOBQ_NEVER;
	}
	(*failures)++;
	return TimestampTzPlusMilliseconds(jobq_now(),
									   1000L * jobq_worker_backoff(*failures,
																   BACKOFF_CAP_SECONDS));
}

/* ---- what shared memory asks for ---- */

/* The extension has been created there, or its keeper has left in order. */
static void
look_again(Oid dbid)
{
	Watched    *w = watch(dbid);

	w->absent = false;
	w->again = w->handle != NULL;
	w->failures = 0;
	w->retry_at = 0;
}

static bool
take_wish(JobqDb *db, Oid *dbid, bool *dropped)
{
	bool		wanted;

	SpinLockAcquire(&db->mutex);
	*dbid = db->dbid;
	*dropped = db->dropped;
	wanted = db->wanted;
	db->wanted = false;
	SpinLockRelease(&db->mutex);
	return OidIsValid(*dbid) && wanted;
}

/* Returns whether pg_database must be read. */
static bool
take_wishes(void)
{
	bool		rescan;

	rescan = pg_atomic_exchange_u32(&jobq_control->rescan, 0) != 0;
	for (int i = 0; i < jobq_max_databases; i++)
	{
		Oid			dbid;
		bool		dropped;

		if (take_wish(&jobq_dbs[i], &dbid, &dropped))
		{
			look_again(dbid);
			rescan = true;
		}
		if (OidIsValid(dbid) && dropped)
		{
			jobq_db_sweep(&jobq_dbs[i], true);
			rescan = true;
		}
	}
	return rescan;
}

/*
 * Send away keepers of databases that are not ours (any more): no handle is
 * needed for that, it may have been started by a launcher before us.
 */
static void
bar(const Watched *w)
{
	JobqDb	   *db = jobq_db_find(w->dbid);
	bool		send_away;

	if (db == NULL)
		return;
	SpinLockAcquire(&db->mutex);
	send_away = !w->eligible && !db->barred;
	db->barred = !w->eligible;
	SpinLockRelease(&db->mutex);
	if (send_away)
		jobq_wake_keeper(db);
}

/* ---- keepers on their way ---- */

/* Find the entry of a database (InvalidOid: a free one); lock held. */
static JobqStart *
find_start(Oid dbid)
{
	for (int i = 0; i < JOBQ_MAX_STARTS; i++)
	{
		if (jobq_control->starts[i].dbid == dbid)
			return &jobq_control->starts[i];
	}
	return NULL;
}

static bool
open_start(Oid dbid)
{
	JobqStart  *start;

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	start = find_start(InvalidOid);
	if (start != NULL)
	{
		start->dbid = dbid;
		start->verdict = JOBQ_START_PENDING;
	}
	LWLockRelease(jobq_control->lock);
	return start != NULL;
}

static JobqVerdict
read_start(Oid dbid, bool close)
{
	JobqStart  *start;
	JobqVerdict verdict = JOBQ_START_RUNNING;

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	start = find_start(dbid);
	if (start != NULL)
	{
		verdict = start->verdict;
		if (close || verdict == JOBQ_START_RUNNING)
			start->dbid = InvalidOid;
	}
	LWLockRelease(jobq_control->lock);
	return verdict;
}

/* ---- keepers that have left ---- */

static void
note_failure(Watched *w, TimestampTz now)
{
	int			seconds;

	if (TimestampDifferenceExceeds(w->started_at, now,
								   LONG_LIFE_SECONDS * 1000))
		w->failures = 0;
	w->failures++;
	seconds = jobq_worker_backoff(w->failures, BACKOFF_CAP_SECONDS);
	w->retry_at = TimestampTzPlusMilliseconds(now, seconds * 1000L);
}

static void
reap(Watched *w, TimestampTz now)
{
	pid_t		pid;
	JobqVerdict verdict;
	bool		stopped;

	if (w->handle == NULL)
		return;
	stopped = GetBackgroundWorkerPid(w->handle, &pid) == BGWH_STOPPED;
	verdict = read_start(w->dbid, stopped);
	if (!stopped)
		return;
	pfree(w->handle);
	w->handle = NULL;
	if (w->again)
		return;
	if (verdict == JOBQ_START_ABSENT)
		w->absent = true;
	else
		note_failure(w, now);
}

/* ---- starting keepers ---- */

static void
note_no_slot(TimestampTz now)
{
	int			seconds;

	slots_failures++;
	seconds = jobq_worker_backoff(slots_failures, BACKOFF_CAP_SECONDS);
	slots_retry_at = TimestampTzPlusMilliseconds(now, seconds * 1000L);
	pg_atomic_write_u32(&jobq_control->worker_slots_exhausted, 1);
	if (slots_warned)
		return;
	slots_warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start a pg_jobq keeper: out of background worker slots"),
			 errdetail("Nothing is delivered in a database that has no keeper."),
			 errhint("You might need to increase max_worker_processes.")));
}

static void
note_slots_suffice(void)
{
	slots_warned = false;
	slots_failures = 0;
	slots_retry_at = 0;
	pg_atomic_write_u32(&jobq_control->worker_slots_exhausted, 0);
}

static void
start_keeper(Watched *w, TimestampTz now)
{
	BackgroundWorker worker = jobq_process("keeper");

	worker.bgw_main_arg = ObjectIdGetDatum(w->dbid);
	worker.bgw_notify_pid = MyProcPid;

	w->again = false;
	w->started_at = now;
	if (RegisterDynamicBackgroundWorker(&worker, &w->handle))
		note_slots_suffice();
	else
	{
		w->handle = NULL;
		(void) read_start(w->dbid, true);
		note_no_slot(now);
	}
}

/* Free of statements that need it empty, and of another launcher's keeper? */
static bool
is_vacant(Oid dbid)
{
	JobqDb	   *db = jobq_db_find(dbid);
	bool		vacant;

	if (db == NULL)
		return true;
	SpinLockAcquire(&db->mutex);
	vacant = db->holds == 0 && !db->dropped && db->keeper_proc < 0;
	SpinLockRelease(&db->mutex);
	return vacant;
}

/* Start its keeper if it is time to; returns when it will be. */
static TimestampTz
tend(Watched *w, TimestampTz now)
{
	TimestampTz due = Max(w->retry_at, slots_retry_at);

	if (!w->eligible || w->absent || w->handle != NULL || !is_vacant(w->dbid))
		return JOBQ_NEVER;
	if (due > now)
		return due;
	/* Whoever gives up its place among the starts wakes us. */
	if (!open_start(w->dbid))
		return JOBQ_NEVER;
	start_keeper(w, now);
	return w->handle != NULL ? JOBQ_NEVER : slots_retry_at;
}

/* One look at every database; returns when to look again by ourselves. */
static TimestampTz
tend_all(void)
{
	TimestampTz now = jobq_now();
	TimestampTz next = JOBQ_NEVER;
	HASH_SEQ_STATUS seq;
	Watched    *w;

	hash_seq_init(&seq, watched);
	while ((w = hash_seq_search(&seq)) != NULL)
	{
		bar(w);
		reap(w, now);
	}
	hash_seq_init(&seq, watched);
	while ((w = hash_seq_search(&seq)) != NULL)
		next = Min(next, tend(w, now));
	if (next == JOBQ_NEVER && slots_failures > 0)
		note_slots_suffice();
	return next;
}

void
jobq_launcher_main(Datum main_arg)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Watched)};
	bool		rescan = true;
	TimestampTz scan_at = 0;
	int			scan_failures = 0;

	jobq_worker_begin();
	sign_on();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	watched = hash_create("pg_jobq databases", 16, &ctl,
						  HASH_ELEM | HASH_BLOBS);
	scan_context = AllocSetContextCreate(TopMemoryContext,
										 "pg_jobq database scan",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(TopMemoryContext);

	for (;;)
	{
		TimestampTz next;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			rescan = true;
		}
		if (take_wishes())
			rescan = true;
		if (rescan && jobq_now() >= scan_at)
		{
			scan_at = scan_or_retry(&scan_failures);
			rescan = scan_failures > 0;
			if (!rescan)
				scan_at = 0;
		}
		next = tend_all();
		jobq_worker_sleep(rescan ? Min(next, scan_at) : next,
						  "JobqLauncherMain");
	}
}
