/*
 * freezer.c: the process that freezes the tables of one epoch, at the pace of
 * autovacuum, and ends. Everybody is more important: who waits for one of the
 * tables, or wants the database for himself, ends it as he would autovacuum.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/guc.h"

#include "engine/engine.h"
#include "store/store.h"
#include "worker/worker.h"

/*
 * DROP DATABASE and its like then send us away, and a session that waits for
 * a lock of ours cancels us after deadlock_timeout.
 */
static void
pass_for_autovacuum(void)
{
	LWLockAcquire(ProcArrayLock, LW_EXCLUSIVE);
	MyProc->statusFlags |= PROC_IS_AUTOVACUUM;
	ProcGlobal->statusFlags[MyProc->pgxactoff] = MyProc->statusFlags;
	LWLockRelease(ProcArrayLock);
}

/* What autovacuum has no value for is that of VACUUM. */
static void
take_pace(const char *setting, const char *of_autovacuum)
{
	const char *value = GetConfigOption(of_autovacuum, false, false);

	if (strcmp(value, "-1") != 0)
		SetConfigOption(setting, value, PGC_SUSET, PGC_S_OVERRIDE);
}

void
jobq_freezer_main(Datum main_arg)
{
	int32		epoch;

	memcpy(&epoch, MyBgworkerEntry->bgw_extra, sizeof(epoch));
	jobq_worker_begin();
	jobq_pin_settings();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(main_arg),
											  InvalidOid, 0);
	pass_for_autovacuum();
	take_pace("vacuum_cost_delay", "autovacuum_vacuum_cost_delay");
	take_pace("vacuum_cost_limit", "autovacuum_vacuum_cost_limit");
	pgstat_report_activity(STATE_RUNNING, "freezing an epoch");
	PG_TRY();
	{
		jobq_epoch_freeze(epoch);
	}
	PG_CATCH();
	{
		jobq_absorb_error(geterrcode() != ERRCODE_QUERY_CANCELED);
	}
	PG_END_TRY();
	proc_exit(0);
}
