/*
 * copy.c: notices that this database is a copy, pauses it, and has it loaded
 * afresh once it has been adopted. What must be in the tables for that is the
 * store's business. Must not look at jobs.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"

#include "engine/copy.h"
#include "errors.h"
#include "guc.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_note_restore);

#define NOTE_RESTORE \
	"INSERT INTO jobq.restored SELECT" \
	" WHERE NOT EXISTS (SELECT FROM jobq.restored)"

/* What this transaction's commit has to tell. */
static JobqDb *restored_into;
static JobqDb *adopted;
static uint32 adopted_gen;

/* ---- is it one? ---- */

static void
set_copy(JobqDb *db, bool copy)
{
	SpinLockAcquire(&db->mutex);
	db->copy = copy;
	SpinLockRelease(&db->mutex);
}

bool
jobq_is_copy(JobqDb *db)
{
	bool		copy = jobq_store_is_copy() || db->start_paused;

	if (copy != db->copy)
		set_copy(db, copy);
	return copy;
}

void
jobq_begin_copy(JobqDb *db)
{
	SpinLockAcquire(&db->mutex);
	db->start_paused = jobq_start_paused && !db->adopted;
	SpinLockRelease(&db->mutex);
	(void) jobq_is_copy(db);
}

void
jobq_raise_copy(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_NOT_READY),
			 errmsg("the queues of this database are paused because it is a copy"),
			 errdetail("It was restored, copied or upgraded, and its jobs may still run in the original."),
			 errhint("If they are to run here, an administrator calls jobq.adopt().")));
}

void
jobq_await_settle(const JobqSession *session)
{
	jobq_await_ready(session, JOBQ_SETTLE_WAIT_MS);
	if (session->db->copy)
		jobq_raise_copy();
}

/* ---- the end of the transaction; nothing here allocates or throws ---- */

static void
end_transaction(bool committed)
{
	if (committed && restored_into != NULL)
	{
		set_copy(restored_into, true);
		jobq_wake_keeper(restored_into);
	}
	if (committed && adopted != NULL)
		jobq_db_restart(adopted, adopted_gen);
	restored_into = NULL;
	adopted = NULL;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		end_transaction(true);
	else if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		end_transaction(false);
}

static void
watch_transaction(void)
{
	static bool watching = false;

	if (!watching)
		RegisterXactCallback(xact_callback, NULL);
	watching = true;
}

/* ---- restoring ---- */

/*
 * Statement trigger of what a dump fills. Our own rows go around triggers or
 * are our own commands' rows; others are a dump's.
 */
Datum
jobq_note_restore(PG_FUNCTION_ARGS)
{
	JobqSession session;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("jobq._note_restore() is a trigger function"),
				 errhint("It is called by triggers of pg_jobq only.")));
	if (jobq_is_own_command())
		return PointerGetDatum(NULL);

	/* the gate keeps adopt() out until we have committed */
	jobq_begin_write("a restore", &session);
	watch_transaction();
	restored_into = session.db;
	SPI_connect();
	(void) jobq_execute(NOTE_RESTORE, 0, NULL, NULL, SPI_OK_INSERT);
	SPI_finish();
	return PointerGetDatum(NULL);
}

/* ---- adopting ---- */

/* The first number of the block that we give out of, 0 = none was taken. */
static int64
number_handed_out(JobqDb *db)
{
	int64		limit;

	SpinLockAcquire(&db->mutex);
	limit = db->number_limit;
	SpinLockRelease(&db->mutex);
	return limit > 0 ? limit - JOBQ_NUMBER_BLOCK : 0;
}

/*
 * Nobody else is at work meanwhile: every entry point passes the gate, and
 * leaves it after our commit has made a new generation.
 */
bool
jobq_adopt(void)
{
	JobqSession session;

	LockRelationOid(jobq_table_oid(JOBQ_TABLE_QUEUE), AccessExclusiveLock);
	jobq_begin_write("jobq.adopt()", &session);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("jobq.adopt() needs a READ COMMITTED transaction"),
				 errdetail("It must see all that has been committed before it began."),
				 errhint("Call it again outside REPEATABLE READ and SERIALIZABLE.")));
	if (!jobq_is_copy(session.db))
	{
		ereport(NOTICE,
				(errmsg("this database is no copy, so there is nothing to adopt")));
		return false;
	}
	jobq_xact_steered(&session);
	jobq_store_adopt(number_handed_out(session.db));
	watch_transaction();
	adopted = session.db;
	adopted_gen = session.gen;
	return true;
}
