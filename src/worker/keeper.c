/*
 * keeper.c: the process that looks after the queues of one database: signs
 * on, loads memory from the tables if that has not been done, then works off
 * what is due and sleeps until the next thing is. Knows when to work and when
 * to leave, not what the work is: that is src/engine. Never waits for a lock
 * that a user can hold, holds no transaction while it sleeps.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "dispatch/dispatch.h"
#include "engine/engine.h"
#include "store/store.h"
#include "worker/worker.h"

#define ERROR_BACKOFF_CAP_SECONDS	30
#define BUSY_RETRY_MS				250

/* What stands in our entry is ours: signed on, and not left yet. */
static JobqDb *my_db;
static uint32 my_gen;
static Oid	my_install;

static MemoryContext work_context;	/* emptied after each round */

/* SIGTERM has come: go, but not in the middle of things. */
static volatile sig_atomic_t stop_asked = false;

typedef enum Presence
{
	ABSENT,						/* the extension is not there */
	BUSY,						/* somebody is dropping it, or about to */
	PRESENT
} Presence;

/*
 * What no ALTER DATABASE or ALTER ROLE may change for us. lock_timeout covers
 * what the server itself locks on our behalf.
 */
void
jobq_pin_settings(void)
{
	static const char *const pinned[][2] = {
		{"search_path", ""},
		{"statement_timeout", "0"},
		{"lock_timeout", "500ms"},
		{"idle_in_transaction_session_timeout", "0"},
		{"transaction_timeout", "0"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"default_transaction_isolation", "read committed"},
		{"synchronous_commit", "on"},
		{"session_replication_role", "origin"},
		{"row_security", "off"},
		{"max_parallel_workers_per_gather", "0"},
	};

	for (size_t i = 0; i < lengthof(pinned); i++)
	{
		/* transaction_timeout is not known before 17. */
		if (GetConfigOption(pinned[i][0], true, false) != NULL)
			SetConfigOption(pinned[i][0], pinned[i][1],
							PGC_SUSET, PGC_S_OVERRIDE);
	}
}

/* ---- signing on and off ---- */

/*
 * Runs after the transaction has been aborted and its locks are gone, because
 * it is registered before we connect.
 */
static void
sign_off(int code, Datum arg)
{
	if (my_db != NULL)
	{
		SpinLockAcquire(&my_db->mutex);
		if (my_db->keeper_pid == MyProcPid)
		{
			my_db->keeper_proc = -1;
			my_db->keeper_pid = 0;
			my_db->keeper_wake_at = JOBQ_NEVER;
		}
		SpinLockRelease(&my_db->mutex);
	}
	jobq_wake_launcher();
}

/* Answer the launcher that has started us. */
static void
answer(JobqVerdict verdict)
{
	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < JOBQ_MAX_STARTS; i++)
	{
		if (jobq_control->starts[i].dbid == MyDatabaseId)
			jobq_control->starts[i].verdict = verdict;
	}
	LWLockRelease(jobq_control->lock);
	jobq_wake_launcher();
}

/* Is there anything that sends us away? The entry's mutex is held. */
static bool
is_sent_away(const JobqDb *db)
{
	return db->holds > 0 || db->barred || db->dropped;
}

static bool
sign_on(JobqDb *db, Oid install)
{
	bool		ours;

	SpinLockAcquire(&db->mutex);
	ours = db->dbid == MyDatabaseId && db->install == install &&
		db->keeper_proc < 0 && !is_sent_away(db);
	if (ours)
	{
		db->keeper_proc = jobq_my_procno();
		db->keeper_pid = MyProcPid;
		db->keeper_wake_at = JOBQ_NEVER;
		my_gen = db->gen;
	}
	SpinLockRelease(&db->mutex);
	if (ours)
	{
		my_db = db;
		my_install = install;
	}
	return ours;
}

/* Leave in good order: the launcher is to see at once who comes next. */
static void
leave(void)
{
	SpinLockAcquire(&my_db->mutex);
	my_db->wanted = true;
	SpinLockRelease(&my_db->mutex);
	proc_exit(0);
}

/* ---- being told to stop ---- */

/* Like whoever sends us away it cancels what we are doing. */
static void
handle_stop(SIGNAL_ARGS)
{
	int			save_errno = errno;

	stop_asked = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * What memory alone has counted is written down; then it is as if nobody had
 * held off SIGTERM. Another one cuts it short. Commits wait for nobody: a server
 * that is stopped flushes them.
 */
static void
stop(void)
{
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	MemoryContextSwitchTo(work_context);
	PG_TRY();
	{
		RESUME_CANCEL_INTERRUPTS();
		if (jobq_db_ready(my_db, my_gen))
		{
			jobq_save_rates(my_db, my_gen);
			jobq_save_meters(my_db, my_gen);
		}
		HOLD_CANCEL_INTERRUPTS();
	}
	PG_CATCH();
	{
		HOLD_CANCEL_INTERRUPTS();	/* the error has let go of it */
		jobq_absorb_error(geterrcode() != ERRCODE_QUERY_CANCELED);
	}
	PG_END_TRY();
	die(SIGTERM);
	CHECK_FOR_INTERRUPTS();
}

/* ---- is the extension there? ---- */

/*
 * Which installation there is, locked to the end of the transaction. Getting
 * the lock also means that we have heard of every DROP EXTENSION before.
 */
static Presence
lock_extension(Oid *install)
{
	*install = jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE);
	if (!OidIsValid(*install))
		return ABSENT;
	if (!ConditionalLockRelationOid(*install, AccessShareLock))
		return BUSY;
	return jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE) == *install ?
		PRESENT : BUSY;
}

/*
 * Find the extension and become its keeper, or exit: with an answer when the
 * extension is not there, without one (so that the launcher tries again after
 * its back-off) when it is not the moment.
 */
static void
take_office(void)
{
	Oid			install;
	Presence	presence;
	JobqDb	   *db = NULL;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	presence = lock_extension(&install);
	if (presence == PRESENT)
		db = jobq_db_attach(MyDatabaseId, install);
	CommitTransactionCommand();

	if (presence == ABSENT)
	{
		answer(JOBQ_START_ABSENT);
		proc_exit(0);
	}
	if (presence == BUSY || !sign_on(db, install))
		proc_exit(0);
	answer(JOBQ_START_RUNNING);
	jobq_db_sweep(db, false);
}

/*
 * Leave if this installation is gone; false when somebody is about to drop
 * it, so that it is better to touch nothing for the moment.
 */
static bool
check_extension(void)
{
	Oid			install;
	Presence	presence;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	presence = lock_extension(&install);
	CommitTransactionCommand();

	if (presence == BUSY)
		return false;
	if (presence == ABSENT)
		jobq_db_reset(my_db, my_gen);
	if (presence == ABSENT || install != my_install)
		leave();
	return true;
}

/* ---- work ---- */

/* Is there a reason not to go on? */
static bool
must_leave(void)
{
	bool		go;

	SpinLockAcquire(&my_db->mutex);
	go = my_db->gen != my_gen || is_sent_away(my_db);
	SpinLockRelease(&my_db->mutex);
	return go;
}

/*
 * Do what is due; returns when to come again. A round that was asked for is
 * done only when it has got to its end. The end of a transaction leaves
 * us in TopMemoryContext, where nothing may be allocated.
 */
static TimestampTz
work(bool asked_for)
{
	int64		asked = jobq_maintenance_asked(my_db);
	TimestampTz next;

	if (!check_extension())
		return TimestampTzPlusMilliseconds(jobq_now(), BUSY_RETRY_MS);
	MemoryContextSwitchTo(work_context);
	if (!jobq_db_ready(my_db, my_gen) && !jobq_recover(my_db, my_gen))
		return TimestampTzPlusMilliseconds(jobq_now(), BUSY_RETRY_MS);
	MemoryContextSwitchTo(work_context);
	if (jobq_tend(my_db, my_gen, asked_for, &next))
		jobq_maintenance_finish(my_db, asked);
	return next;
}

/*
 * The same, surviving errors: then it is tried again after a back-off. Whoever
 * sends us away cancels what we are doing, which is no error. Only here is a
 * cancel heard.
 */
static TimestampTz
work_or_retry(bool asked_for, int *failures)
{
	volatile TimestampTz next = 0;
	volatile bool failed = false;

	pgstat_report_activity(STATE_RUNNING, "working off what is due");
	PG_TRY();
	{
		RESUME_CANCEL_INTERRUPTS();
		next = work(asked_for);
		HOLD_CANCEL_INTERRUPTS();
	}
	PG_CATCH();
	{
		HOLD_CANCEL_INTERRUPTS();	/* the error has let go of it */
		jobq_absorb_error(!stop_asked && !must_leave());
		failed = true;
	}
	PG_END_TRY();
	pgstat_report_activity(STATE_IDLE, NULL);

	if (!failed)
	{
		*failures = 0;
		return next;
	}
	(*failures)++;
	return jobq_now() + USECS_PER_SEC *
		jobq_worker_backoff(*failures, ERROR_BACKOFF_CAP_SECONDS);
}

/* Has somebody asked for a round since we looked last? */
static bool
is_asked(int64 *seen)
{
	int64		asked = jobq_maintenance_asked(my_db);
	bool		news = asked != *seen;

	*seen = asked;
	return news;
}

void
jobq_keeper_main(Datum main_arg)
{
	TimestampTz next = 0;
	int64		asked = 0;
	int			failures = 0;

	jobq_worker_begin();
	before_shmem_exit(sign_off, (Datum) 0);
	jobq_pin_settings();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(main_arg),
											  InvalidOid, 0);
	work_context = AllocSetContextCreate(TopMemoryContext, "pg_jobq keeper",
										 ALLOCSET_DEFAULT_SIZES);
	take_office();

	HOLD_CANCEL_INTERRUPTS();
	pqsignal(SIGTERM, handle_stop);
	for (;;)
	{
		bool		asked_for;

		ResetLatch(MyLatch);
		/* Who sent it wants us to look whether we must leave: we do. */
		QueryCancelPending = false;
		if (stop_asked)
			stop();
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (must_leave())
			leave();
		/* After a failure only run_maintenance() makes us try again early. */
		asked_for = is_asked(&asked);
		if (asked_for || failures == 0 || jobq_now() >= next)
		{
			jobq_set_alarm(my_db, JOBQ_NEVER);
			next = work_or_retry(asked_for, &failures);
			MemoryContextSwitchTo(TopMemoryContext);
			MemoryContextReset(work_context);
			jobq_set_alarm(my_db, next);
		}
		jobq_worker_sleep(next, "JobqKeeperMain");
	}
}
