/*
 * notify.c: NOTIFY for queues with the option notify, when a transaction has
 * brought jobs to the belt. A hint for those who LISTEN, nothing more: no part
 * of pg_jobq listens.
 */
#include "postgres.h"

#include "catalog/pg_database.h"
#include "commands/async.h"
#include "storage/lock.h"
#include "utils/memutils.h"

#include "engine/keeperxact.h"

#define BUSY_RETRY		INT64CONST(100000)	/* us; somebody is notifying */

/* Channels the keeper still has to notify; in TopMemoryContext. */
static List *pending;

/* A queue's name is short enough for it: jobq_options_check(). */
static char *
channel_of(const JobqQueue *queue)
{
	return psprintf("%s%s", JOBQ_NOTIFY_PREFIX, queue->name);
}

static void
keep(const char *channel)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ListCell   *cell;

	foreach(cell, pending)
	{
		if (strcmp(lfirst(cell), channel) == 0)
			break;
	}
	if (cell == NULL)
		pending = lappend(pending, pstrdup(channel));
	MemoryContextSwitchTo(old);
}

/* One transaction notifies a channel once, however often it is asked to. */
void
jobq_notify(const JobqQueue *queue)
{
	if (!queue->notify)
		return;
	if (jobq_in_keeper)
		keep(channel_of(queue));
	else
		Async_Notify(channel_of(queue), NULL);
}

/*
 * The lock that commits with notifications take one after the other, for as
 * long as a commit lasts: the keeper does not wait for it.
 */
static bool
lock_notifications(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, InvalidOid, 0);
	return LockAcquire(&tag, AccessExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

TimestampTz
jobq_tend_notify(const JobqSession *session, TimestampTz now)
{
	ListCell   *cell;

	if (pending == NIL)
		return JOBQ_NEVER;
	if (!jobq_keeper_begin(session->db->install))
		return now + BUSY_RETRY;
	if (!lock_notifications())
	{
		jobq_keeper_abort();
		return now + BUSY_RETRY;
	}
	foreach(cell, pending)
		Async_Notify(lfirst(cell), NULL);
	jobq_keeper_commit();
	list_free_deep(pending);
	pending = NIL;
	return JOBQ_NEVER;
}
