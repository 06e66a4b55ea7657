/*
 * freeze.c: has sealed epochs frozen that have become half as old as they may,
 * so that no forced vacuum comes in the way of dropping them. One at a time,
 * by a process of its own, since it may take minutes: the keeper starts it,
 * and calls it off when the epoch may go. Freezes nothing itself.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/memutils.h"

#include "engine/epochlist.h"
#include "engine/process.h"

#define MINUTE				(60 * USECS_PER_SEC)

#define LOOK_PAUSE			(10 * MINUTE)	/* it was not old enough */
#define FREEZE_PAUSE		MINUTE	/* it may still be too old after it */
#define FREEZE_PAUSE_MAX	(60 * MINUTE)

static BackgroundWorkerHandle *freezer; /* NULL = none is at work */
static int32 freezing;			/* the epoch that it is at */

/* False when there is no place for another process. */
static bool
start_freezer(int32 epoch)
{
	BackgroundWorker worker = jobq_process("freezer");
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	StaticAssertStmt(sizeof(epoch) <= BGW_EXTRALEN, "no room for an epoch");
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);
	memcpy(worker.bgw_extra, &epoch, sizeof(epoch));
	worker.bgw_notify_pid = MyProcPid;
	started = RegisterDynamicBackgroundWorker(&worker, &freezer);
	MemoryContextSwitchTo(old);
	if (started)
		freezing = epoch;
	else
		freezer = NULL;
	return started;
}

bool
jobq_freeze_ended(void)
{
	pid_t		pid;

	if (freezer == NULL ||
		GetBackgroundWorkerPid(freezer, &pid) != BGWH_STOPPED)
		return false;
	pfree(freezer);
	freezer = NULL;
	return true;
}

void
jobq_freeze_call_off(int32 epoch)
{
	pid_t		pid;

	if (freezer != NULL && freezing == epoch &&
		GetBackgroundWorkerPid(freezer, &pid) == BGWH_STARTED)
		(void) kill(pid, SIGINT);
}

/*
 * Whatever comes of it, the epoch is left alone for a while then: as long as
 * somebody holds back the horizon, freezing makes nothing younger.
 */
static bool
freeze(JobqEpochLook *look, void *item)
{
	JobqKnown  *epoch = item;
	bool		old;

	if (!jobq_epochs_begin(look))
		return false;
	old = jobq_epoch_is_old(epoch->row.epoch);
	jobq_keeper_commit();
	if (old)
	{
		jobq_epochs_put_off(look, &epoch->freeze, FREEZE_PAUSE,
							FREEZE_PAUSE_MAX);
		return start_freezer(epoch->row.epoch);
	}
	jobq_epochs_no_more_wait(&epoch->freeze);
	epoch->freeze.until = look->now + LOOK_PAUSE;
	jobq_epochs_come_again(look, epoch->freeze.until);
	return false;
}

bool
jobq_freeze_epochs(JobqEpochLook *look)
{
	if (freezer != NULL)
		return false;
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		JobqKnown  *epoch = &jobq_epochs.known[i];

		if (epoch->row.sealed_at != 0 &&
			jobq_epochs_step(look, freeze, epoch, &epoch->freeze))
			return true;
	}
	return false;
}
