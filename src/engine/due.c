/*
 * due.c: jobs on the shelf whose time has come go to the belt, in order, in
 * bounded transactions. For the keeper; never waits for a row. The mark that
 * keeps it from walking the same entries again is in dispatch.h.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "engine/copy.h"
#include "engine/keeperxact.h"
#include "engine/move.h"
#include "engine/place.h"
#include "engine/xact.h"
#include "pause.h"

#define BATCH			1000	/* rows in one transaction */
#define TURN			INT64CONST(50000)	/* us, then others have theirs */
#define GATHER			INT64CONST(10000)	/* us between two moves: a stream
											 * of jobs goes in batches */
#define BUSY_RETRY		INT64CONST(100000)	/* somebody has what we need */
#define BUSY_RETRY_CAP	(2 * USECS_PER_SEC)
#define BUSY_SHARE		20		/* pause for each unit of time it took */

static bool batch_failed = false;	/* the last batch did not end */
static bool started = false;	/* this process has walked the shelf */
static bool unread = true;		/* the timer does not say all */
static TimestampTz not_before;	/* next move */

/* Rows passed over because others were changing them. */
static JobqShelfKey busy_first = {DT_NOEND, 0}; /* the first, if any */
static TimestampTz busy_at;		/* when to look at them again */
static int64 busy_retry;		/* and how long after that */
static JobqShelfWalk again = {.first_busy = {DT_NOEND, 0}};	/* how far that
															 * look is */
static int64 again_took;		/* us */

static TimestampTz
shelf_timer(JobqDb *db)
{
	TimestampTz when;

	SpinLockAcquire(&db->mutex);
	when = db->shelf_next;
	SpinLockRelease(&db->mutex);
	return when;
}

static int
compare_keys(const JobqShelfKey *a, const JobqShelfKey *b)
{
	if (a->run_at != b->run_at)
		return a->run_at < b->run_at ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static int32
queue_of(const JobqRow *row)
{
	return DatumGetInt32(row->values[JOB_QUEUE_ID]);
}

/* Queue by queue, each in the order in which they were read. */
static int
compare_rows(const void *a, const void *b)
{
	const JobqRow *x = a;
	const JobqRow *y = b;
	TimestampTz x_run_at = DatumGetTimestampTz(x->values[JOB_RUN_AT]);
	TimestampTz y_run_at = DatumGetTimestampTz(y->values[JOB_RUN_AT]);
	int64		x_id = DatumGetInt64(x->values[JOB_ID]);
	int64		y_id = DatumGetInt64(y->values[JOB_ID]);

	if (queue_of(x) != queue_of(y))
		return queue_of(x) < queue_of(y) ? -1 : 1;
	if (x_run_at != y_run_at)
		return x_run_at < y_run_at ? -1 : 1;
	return x_id < y_id ? -1 : x_id > y_id;
}

/*
 * Take those that have expired out of the rows of one queue and end them;
 * returns how many are left.
 */
static int
end_expired(const JobqSession *session, const JobqQueue *queue,
			TimestampTz now, JobqRow *rows, int n)
{
	int			left = 0;

	for (int i = 0; i < n; i++)
	{
		if (!rows[i].nulls[JOB_EXPIRES_AT] &&
			DatumGetTimestampTz(rows[i].values[JOB_EXPIRES_AT]) <= now)
			jobq_expire_shelved(session, &rows[i], queue);
		else
			rows[left++] = rows[i];
	}
	return left;
}

/*
 * Those of a dropped queue go. True when none has expired: then all of this
 * can be done again.
 */
static bool
to_belt(const JobqSession *session, TimestampTz now, JobqRow *rows, int n)
{
	bool		only_moves = true;
	int			to;

	qsort(rows, n, sizeof(JobqRow), compare_rows);
	for (int from = 0; from < n; from = to)
	{
		int32		queue_id = queue_of(&rows[from]);
		JobqQueue	queue;
		int			left;

		for (to = from; to < n && queue_of(&rows[to]) == queue_id; to++)
			jobq_xact_count(session, queue_id, jobq_shelf_counter(&rows[to]),
							-1);
		if (!jobq_queue_by_id(queue_id, &queue))
			continue;
		left = end_expired(session, &queue, now, &rows[from], to - from);
		only_moves = only_moves && left == to - from;
		for (int i = from; i < from + left; i++)
			jobq_give_ticket(session, &rows[i]);
		if (left > 0)
			jobq_place_on_belt(session, &queue, &rows[from], left);
	}
	return only_moves;
}

/* One transaction's worth. */
typedef struct Batch
{
	const JobqSession *session;
	TimestampTz now;
	JobqShelfWalk walk;
	int			max;
	JobqRow    *rows;
	int			n;				/* rows taken; -1: none may be moved */
	bool		only_moves;
} Batch;

static void
move_rows(void *state)
{
	Batch	   *batch = state;

	batch->only_moves = true;
	batch->n = jobq_shelf_take_due(batch->now, batch->max, batch->rows,
								   &batch->walk);
	if (batch->n == 0)
		return;
	/* rows that a restore has just brought are not to run */
	if (jobq_is_copy(batch->session->db))
	{
		batch->n = -1;
		return;
	}
	JOBQ_PAUSE("between-move-writes");
	batch->only_moves = to_belt(batch->session, batch->now, batch->rows,
								batch->n);
}

/*
 * After a batch has failed: each row in a subtransaction, and those that fail
 * are left alone for a moment, as if others were changing them.
 */
static void
move_carefully(Batch *all)
{
	Batch		one = *all;
	JobqShelfKey first_busy = {DT_NOEND, 0};

	one.max = 1;
	for (int tries = 0; tries < all->max; tries++)
	{
		CHECK_FOR_INTERRUPTS();
		one.n = 0;
		if (!jobq_keeper_try(move_rows, &one))
		{
			JobqShelfKey key;

			if (one.n != 1)
				elog(ERROR, "could not walk the shelf");
			key.run_at = DatumGetTimestampTz(one.rows->values[JOB_RUN_AT]);
			key.id = DatumGetInt64(one.rows->values[JOB_ID]);
			jobq_leave_alone(key.id);
			if (compare_keys(&key, &first_busy) < 0)
				first_busy = key;
		}
		else if (one.n > 0)
		{
			all->n++;
			all->only_moves = all->only_moves && one.only_moves;
		}
		if (compare_keys(&one.walk.first_busy, &first_busy) < 0)
			first_busy = one.walk.first_busy;
		if (one.n <= 0 || one.walk.next > all->now)
			break;
	}
	all->walk = one.walk;
	all->walk.first_busy = first_busy;
	if (one.n < 0)
		all->n = -1;
}

static bool
must_skip(int64 id, bool started)
{
	return jobq_is_left_alone(id) || (started && jobq_is_late(id));
}

/*
 * One transaction. Moves commit lazily: losing them means only that they are
 * done again, and whatever comes of the jobs is written to the WAL after them.
 * Returns how many jobs were moved, -1 if none may be.
 */
static int
move_batch(const JobqSession *session, TimestampTz now, JobqShelfWalk *walk)
{
	bool		carefully = batch_failed ||
		jobq_left_alone_until() != JOBQ_NEVER;
	Batch		batch = {.session = session,.now = now,.walk = *walk,
	.max = BATCH,.rows = palloc(sizeof(JobqRow) * BATCH),.only_moves = true};

	batch.walk.skip = must_skip;
	JOBQ_PAUSE("before-shelf");
	batch_failed = true;
	if (carefully)
		move_carefully(&batch);
	else
		move_rows(&batch);
	if (batch.n < 0)
		jobq_keeper_abort();
	else
	{
		if (batch.only_moves)
			jobq_commit_lazily();
		JOBQ_PAUSE("before-keeper-commit");
		jobq_keeper_commit();
	}
	batch_failed = false;
	*walk = batch.walk;
	return batch.n;
}

/* ---- the walk from the mark on ---- */

static void
note_busy(const JobqShelfWalk *walk, TimestampTz now)
{
	if (compare_keys(&walk->first_busy, &again.first_busy) < 0)
		again.first_busy = walk->first_busy;
	if (compare_keys(&walk->first_busy, &busy_first) >= 0)
		return;
	if (busy_first.run_at == DT_NOEND)
		busy_retry = BUSY_RETRY;
	busy_first = walk->first_busy;
	again = (JobqShelfWalk) {.mark = busy_first,.first_busy = {DT_NOEND, 0}};
	busy_at = now + busy_retry;
}

/* Until the timer is set again it says nothing, in case that we die or fail. */
static bool
walk_once(const JobqSession *session, TimestampTz now, TimestampTz *next)
{
	JobqDb	   *db = session->db;
	JobqShelfWalk walk = {.end = {DT_NOEND, 0}};
	int			n;

	if (!jobq_keeper_begin(db->install))
		return false;
	unread = true;
	jobq_db_shelf_walk(db, &walk.mark.run_at, &walk.mark.id);
	n = move_batch(session, now, &walk);
	if (n < 0)
		return false;
	jobq_db_shelf_walked(db, session->gen, walk.mark.run_at, walk.mark.id,
						 walk.next);
	unread = false;
	note_busy(&walk, now);
	if (n > 0)
		not_before = now + GATHER;
	*next = walk.next;
	return true;
}

static TimestampTz
walk_due(const JobqSession *session, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz begun = jobq_now();
	TimestampTz next;

	if (!unread && shelf_timer(session->db) > now)
		return shelf_timer(session->db);
	if (now < not_before)
		return not_before;
	do
	{
		if (!walk_once(session, now, &next))
			return now + BUSY_RETRY;
		MemoryContextSwitchTo(context);
		CHECK_FOR_INTERRUPTS();
	} while (next <= now && jobq_now() - begun < TURN);
	return Max(shelf_timer(session->db), not_before);
}

/* ---- rows that were passed over ---- */

/*
 * The mark goes on past rows that others are changing; if they roll back,
 * nobody tells. So from the first of them on everything is looked at again,
 * a part at a time, and more seldom the longer it takes.
 */
static TimestampTz
walk_again(const JobqSession *session, TimestampTz now)
{
	JobqDb	   *db = session->db;
	TimestampTz begun = jobq_now();
	JobqShelfWalk walk = again;

	if (busy_first.run_at == DT_NOEND || now < busy_at)
		return busy_first.run_at == DT_NOEND ? JOBQ_NEVER : busy_at;
	if (!jobq_keeper_begin(db->install))
		return now + BUSY_RETRY;
	SpinLockAcquire(&db->mutex);
	walk.end.run_at = db->shelf_low;
	walk.end.id = db->shelf_low_id;
	SpinLockRelease(&db->mutex);
	if (move_batch(session, now, &walk) < 0)
		return JOBQ_NEVER;
	if (compare_keys(&again.first_busy, &walk.first_busy) < 0)
		walk.first_busy = again.first_busy;
	again = walk;
	again_took += jobq_now() - begun;
	if (compare_keys(&walk.mark, &walk.end) < 0 && walk.next <= now)
		return now;
	busy_first = walk.first_busy;
	again = (JobqShelfWalk) {.mark = busy_first,.first_busy = {DT_NOEND, 0}};
	busy_retry = Min(busy_retry * 2, BUSY_RETRY_CAP);
	busy_at = now + Max(busy_retry, again_took * BUSY_SHARE);
	again_took = 0;
	return busy_first.run_at == DT_NOEND ? JOBQ_NEVER : busy_at;
}

TimestampTz
jobq_tend_shelf(const JobqSession *session, TimestampTz now)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz next;

	/* what an earlier keeper has passed over is not known */
	if (!started)
		jobq_db_shelf_due(session->db, DT_NOBEGIN);
	started = true;
	next = walk_due(session, now);
	MemoryContextSwitchTo(context);
	return Min(next, walk_again(session, now));
}
