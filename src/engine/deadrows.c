/*
 * deadrows.c: rows of dead jobs leave the shelf when their queue's
 * dead_retention is over, or with their queue. For the keeper; never waits for
 * a row. Must not touch a job that still waits.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "engine/keeperxact.h"
#include "pause.h"

#define BATCH			1000	/* rows in one transaction */
#define PAUSE			USECS_PER_SEC	/* between two looks, at least */
#define PAUSE_SHARE		20		/* pause for each unit of time it took */

static bool unread = true;		/* the timer does not say all */
static TimestampTz not_before;	/* next look */
static bool batch_failed = false;	/* the last batch did not end */

/* The queues that have rows on the shelf, one index probe each. */
#define SQL_QUEUES \
	"WITH RECURSIVE q (id) AS (" \
	" SELECT min(s.queue_id) FROM jobq.shelf s" \
	" UNION ALL SELECT (SELECT min(s.queue_id) FROM jobq.shelf s" \
	" WHERE s.queue_id > q.id) FROM q WHERE q.id IS NOT NULL)" \
	" SELECT q.id FROM q WHERE q.id IS NOT NULL"

#define SQL_DELETE \
	"DELETE FROM jobq.shelf s WHERE s.ctid = ANY (ARRAY(" \
	" SELECT d.ctid FROM jobq.shelf d WHERE d.queue_id = $1" \
	" AND d.died_at <= $2 AND d.state = 'd'" \
	" ORDER BY d.died_at LIMIT $3 FOR UPDATE SKIP LOCKED))"

#define SQL_OLDEST \
	"SELECT min(s.died_at) FROM jobq.shelf s" \
	" WHERE s.queue_id = $1 AND s.died_at IS NOT NULL"

static TimestampTz
dead_timer(JobqDb *db)
{
	TimestampTz when;

	SpinLockAcquire(&db->mutex);
	when = db->dead_next;
	SpinLockRelease(&db->mutex);
	return when;
}

typedef struct Queues
{
	MemoryContext context;		/* outlives the query */
	List	   *ids;
} Queues;

static void
take_queue(HeapTuple tuple, TupleDesc desc, void *state)
{
	Queues	   *queues = state;
	MemoryContext old = MemoryContextSwitchTo(queues->context);

	queues->ids = lappend_int(queues->ids,
							  DatumGetInt32(jobq_row_value(tuple, desc, 1, NULL)));
	MemoryContextSwitchTo(old);
}

static void
take_oldest(HeapTuple tuple, TupleDesc desc, void *state)
{
	bool		none;
	Datum		oldest = jobq_row_value(tuple, desc, 1, &none);

	if (!none)
		*(TimestampTz *) state = DatumGetTimestampTz(oldest);
}

static int
delete_some(int32 queue_id, TimestampTz died_until, int max)
{
	Oid			types[] = {INT4OID, TIMESTAMPTZOID, INT4OID};
	Datum		values[] = {
		Int32GetDatum(queue_id),
		TimestampTzGetDatum(died_until),
		Int32GetDatum(max)
	};
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(SQL_DELETE, lengthof(types), types, values, NULL,
							  false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete dead rows");
	n = (int) SPI_processed;
	SPI_finish();
	return n;
}

/* Rows of a dropped queue go at once. */
static int64
retention_of(int32 queue_id)
{
	JobqQueue	queue;

	return jobq_queue_by_id(queue_id, &queue) ? queue.dead_retention : 0;
}

/* When the oldest dead row of a queue may go; JOBQ_NEVER when there is none. */
static TimestampTz
next_of(int32 queue_id)
{
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(queue_id)};
	TimestampTz oldest = JOBQ_NEVER;

	jobq_keeper_query(SQL_OLDEST, lengthof(types), types, values, take_oldest,
					  &oldest);
	return oldest == JOBQ_NEVER ? JOBQ_NEVER :
		oldest + retention_of(queue_id);
}

/* What is to be deleted, and what has been. */
typedef struct Deletion
{
	int32		queue_id;
	TimestampTz now;
	int			left;			/* rows of this batch */
} Deletion;

static void
delete_of_queue(void *state)
{
	Deletion   *deletion = state;

	deletion->left -= delete_some(deletion->queue_id,
								  deletion->now -
								  retention_of(deletion->queue_id),
								  deletion->left);
}

/*
 * Up to BATCH rows of all these queues; returns how many. Carefully: a queue
 * whose rows cannot be deleted stops no others.
 */
static int
delete_due(const List *queues, TimestampTz now, bool carefully)
{
	Deletion	deletion = {.now = now,.left = BATCH};
	ListCell   *cell;

	foreach(cell, queues)
	{
		CHECK_FOR_INTERRUPTS();
		deletion.queue_id = lfirst_int(cell);
		if (deletion.left == 0)
			break;
		if (carefully)
			(void) jobq_keeper_try(delete_of_queue, &deletion);
		else
			delete_of_queue(&deletion);
	}
	return BATCH - deletion.left;
}

/* When the first of what is left may go. */
static TimestampTz
next_of_all(const List *queues)
{
	ListCell   *cell;
	TimestampTz next = JOBQ_NEVER;

	PushActiveSnapshot(GetLatestSnapshot());
	foreach(cell, queues)
	{
		CHECK_FOR_INTERRUPTS();
		next = Min(next, next_of(lfirst_int(cell)));
	}
	PopActiveSnapshot();
	return next;
}

/*
 * First the timer is set to never, then the shelf is read with a newer
 * snapshot: whoever commits a dead row after it sets the timer again.
 */
TimestampTz
jobq_tend_dead(const JobqSession *session, TimestampTz now)
{
	JobqDb	   *db = session->db;
	TimestampTz begun = jobq_now();
	TimestampTz next;
	Queues		queues = {0};
	bool		carefully = batch_failed;
	int			n;

	if (!unread && dead_timer(db) > now)
		return dead_timer(db);
	if (now < not_before)
		return not_before;
	unread = true;
	SpinLockAcquire(&db->mutex);
	db->dead_next = JOBQ_NEVER;
	SpinLockRelease(&db->mutex);
	if (!jobq_keeper_begin(db->install))
		return now + PAUSE;
	queues.context = CurrentMemoryContext;
	jobq_keeper_query(SQL_QUEUES, 0, NULL, NULL, take_queue, &queues);
	batch_failed = true;
	n = delete_due(queues.ids, now, carefully);
	next = next_of_all(queues.ids);
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	batch_failed = false;
	unread = false;
	jobq_db_dead_due(db, next);
	not_before = jobq_now() + Max(n < BATCH ? PAUSE : 0,
								  PAUSE_SHARE * (jobq_now() - begun));
	return Max(dead_timer(db), not_before);
}
