/*
 * keykeeper.c: rows of unique keys that mean nothing any more are deleted, and
 * after a start jobs that have lost their key give way. For the keeper; never
 * waits for a key or a job.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"

#include "engine/hold.h"
#include "engine/keeperxact.h"
#include "engine/move.h"
#include "engine/unique.h"
#include "engine/whereis.h"
#include "pause.h"
#include "store/ukey.h"

#define KEEP_FOR		USECS_PER_DAY	/* after the key was free */
#define WALK_PAUSE		USECS_PER_HOUR	/* between two walks, at least */
#define BUSY_RETRY		INT64CONST(100000)	/* us; somebody has what we need */
#define WALK_SHARE		20		/* pause for each unit of time it took */
#define BATCH			(2 * JOBQ_UKEY_BLOCK_ROWS)

static bool walked = false;		/* this process, to the end */
static BlockNumber next_block;	/* where the walk goes on */
static TimestampTz not_before;	/* next piece */
static int64 walk_took;			/* us, so far */

/*
 * It has ended and cannot be run again under its key, so that nobody asks for
 * its row.
 */
static bool
is_gone(const JobqSession *session, int64 id)
{
	JobqWhere	where;

	if (jobq_is_entered(session->db, session->gen, id))
		return false;
	return !jobq_newest(id, &where) || (!where.on_shelf && where.has_outcome);
}

/*
 * A claim that was lost in a crash: the job waits again, but its key may have
 * been taken while it ran.
 */
static void
look_after_waiting(const JobqSession *session, int64 id)
{
	JobqSlot	slot;
	JobqHeld	held;
	JobqRow		row;

	if (!jobq_find(session->db, session->gen, id, &slot) ||
		slot.state != SLOT_READY || TransactionIdIsValid(slot.mark) ||
		jobq_hold_any(session, id, true, &held) != HOLD_OK)
		return;
	if (held.state == SLOT_READY)
	{
		jobq_read_held(&held, &row);
		if (jobq_key_returns(session, &row) == KEY_LOST)
		{
			jobq_cancel_held(session, &held, "superseded");
			return;
		}
	}
	jobq_let_go(session, &held);
}

static void
look_at_rows(const JobqSession *session, JobqKeySeen *seen, int n,
			 TimestampTz before)
{
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (seen[i].free_at < before && is_gone(session, seen[i].id))
			jobq_ukey_delete(&seen[i].tid);
		else if (!walked && seen[i].while_waiting)
			look_after_waiting(session, seen[i].id);
	}
}

/* Are jobs still to come that the first walk must find in memory? */
static bool
is_loading(const JobqSession *session)
{
	JobqPart   *part;

	for (int i = jobq_parts_of(session->db, session->gen, 0, &part); i >= 0;
		 i = jobq_parts_of(session->db, session->gen, i, &part))
	{
		if (jobq_refill_wanted(part, session->gen))
			return true;
	}
	return false;
}

/* False: the database is not to be touched now. */
static bool
walk_piece(const JobqSession *session, TimestampTz before, bool *more)
{
	TimestampTz begun = jobq_now();
	JobqKeySeen *seen;
	int			n;

	if (!jobq_keeper_begin(session->db->install))
		return false;
	seen = palloc(sizeof(JobqKeySeen) * BATCH);
	*more = jobq_ukey_walk(&next_block, before, !walked, BATCH, seen, &n);
	look_at_rows(session, seen, n, before);
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	walk_took += jobq_now() - begun;
	return true;
}

TimestampTz
jobq_tend_keys(const JobqSession *session, TimestampTz now, bool asked_for)
{
	MemoryContext context = CurrentMemoryContext;
	bool		more = true;

	if (now < not_before && next_block == 0 && !asked_for)
		return not_before;
	if (!walked && next_block == 0 && is_loading(session))
		return now + BUSY_RETRY;
	do
	{
		if (!walk_piece(session, now - KEEP_FOR, &more))
			return now + BUSY_RETRY;
		MemoryContextSwitchTo(context);
	} while (more && asked_for);
	if (more)
		return now;
	not_before = now + Max(WALK_PAUSE, WALK_SHARE * walk_took);
	walked = true;
	next_block = 0;
	walk_took = 0;
	return not_before;
}
