/*
 * unique.c: taking unique keys: for new jobs, for jobs that repeat others, and
 * for those that come back and may have lost theirs; all under the key's lock,
 * which is given up before waiting for anybody. Must not check arguments;
 * checks whether the caller may change a holder.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "engine/hold.h"
#include "engine/place.h"
#include "engine/unique.h"
#include "errors.h"
#include "pause.h"
#include "security/audit.h"
#include "security/security.h"

/* ---- taking a key ---- */

static void
lock_key(const JobqUniqueKey *key)
{
	(void) jobq_ukey_lock(key->queue_id, key->key, false);
}

static void
unlock_key(const JobqUniqueKey *key)
{
	jobq_ukey_unlock(key->queue_id, key->key);
}

/*
 * Take it for a job, which gets its number now if it has none, or say who has
 * it, or, nowait, who is at it: KEY_BUSY.
 */
static JobqKeyState
take_key(const JobqUniqueKey *key, JobqKeyRow *row, bool nowait,
		 JobqKeyHolder *holder)
{
	for (;;)
	{
		JobqKeyRow *rows;
		int			n;
		JobqKeyState hold;

		lock_key(key);
		n = jobq_ukey_newest(key->queue_id, key->key, &rows);
		hold = jobq_key_find_holder(key, rows, n, holder);
		if (hold == KEY_FREE)
		{
			if (row->id == 0)
				row->id = jobq_take_number(key->session->db);
			jobq_key_add_row(key, rows, n, row);
		}
		unlock_key(key);
		pfree(rows);
		if (hold != KEY_BUSY || nowait)
			return hold;
		jobq_await_holder(holder->busy);
	}
}

/* Whoever may cancel it may also change it. */
static void
check_may_change(const JobqQueue *queue, const JobqKeyHolder *holder)
{
	if ((queue->my_privileges & JOBQ_PRIV_MANAGE) ||
		has_privs_of_role(GetUserId(), holder->enqueued_by))
		return;
	jobq_audit_refusal(NULL, queue->queue_id, holder->id,
					   ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "another role has enqueued the job that holds the key");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for job " INT64_FORMAT, holder->id),
			 errdetail("It holds the unique key, and another role has enqueued it."),
			 errhint("Use on_conflict => 'ignore', or ask the owner of queue \"%s\" for the privilege \"manage\".",
					 queue->name)));
}

static void
raise_taken(const JobqQueue *queue, int64 holder)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_DUPLICATE),
			 errmsg("the unique key is taken in queue \"%s\"", queue->name),
			 errdetail("Job " INT64_FORMAT " holds it.", holder),
			 errhint("Wait for that job, or pass another on_conflict: ignore, replace or debounce.")));
}

/* ---- enqueuing ---- */

/* Can the holder, which has not started in time, be ended by us? */
static bool
is_to_expire(const JobqSession *session, const JobqKeyHolder *holder)
{
	return holder->waits && holder->expires_at <= jobq_now() &&
		jobq_db_ready(session->db, session->gen) && !session->db->copy;
}

/* The key is held. True: *outcome says what was done about it. */
static bool
deal_with(const JobqSession *session, const JobqQueue *queue,
		  const JobqKeyHolder *holder, const JobqRow *row,
		  const JobqUnique *unique, JobqEnqueued *outcome)
{
	*outcome = JOBQ_EXISTING;
	if (is_to_expire(session, holder))
	{
		jobq_key_expire_holder(session, queue, holder->id);
		return false;
	}
	if (unique->on_conflict == JOBQ_ON_CONFLICT_ERROR)
		raise_taken(queue, holder->id);
	if (unique->on_conflict == JOBQ_ON_CONFLICT_IGNORE || !holder->waits)
		return true;
	check_may_change(queue, holder);
	jobq_await_settle(session);
	*outcome = unique->on_conflict == JOBQ_ON_CONFLICT_REPLACE ?
		JOBQ_REPLACED : JOBQ_DEBOUNCED;
	return jobq_key_change_holder(session, queue, holder->id, row, unique);
}

int64
jobq_enqueue_unique(const JobqSession *session, const JobqQueue *queue,
					JobqRow *row, int64 id, TimestampTz now,
					const JobqUnique *unique, JobqEnqueued *outcome)
{
	JobqUniqueKey key = {.session = session,.queue_id = queue->queue_id,
		.key = row->values[JOB_UNIQUE_KEY],.role = GetUserId(),
	.sees_all = jobq_reads_queue(queue)};
	JobqKeyRow	taken = {.id = id,.free_at = now + unique->unique_for,
		.unique_while = unique->unique_while == JOBQ_UNIQUE_WAITING ?
	UKEY_WAITING : UKEY_LIVE};
	JobqKeyHolder holder;

	jobq_lock_queue(queue);
	while (take_key(&key, &taken, false, &holder) == KEY_HELD)
	{
		CHECK_FOR_INTERRUPTS();
		JOBQ_PAUSE("before-key-conflict");
		if (deal_with(session, queue, &holder, row, unique, outcome))
			return holder.id;
	}
	jobq_admit(session, queue, row, 1);
	jobq_place_new(session, queue, row, taken.id, now);
	*outcome = JOBQ_INSERTED;
	return taken.id;
}

/* ---- running a job again ---- */

bool
jobq_key_take_again(const JobqSession *session, const JobqQueue *queue,
					const JobqRow *old, bool nowait, int64 *id,
					int64 *holder_id)
{
	JobqUniqueKey key = {.session = session,.queue_id = queue->queue_id,
		.key = old->values[JOB_UNIQUE_KEY],
		.role = DatumGetObjectId(old->values[JOB_ENQUEUED_BY]),
	.sees_all = true,.except = DatumGetInt64(old->values[JOB_ID])};
	JobqKeyRow	taken = {.free_at = jobq_now(),.unique_while = UKEY_LIVE};
	JobqKeyRow	before;
	JobqKeyHolder holder = {0};
	JobqKeyState hold;

	if (jobq_ukey_of_job(queue->queue_id, key.key, key.role,
						 DatumGetInt64(old->values[JOB_ID]), &before))
		taken.unique_while = before.unique_while;
	hold = take_key(&key, &taken, nowait, &holder);
	*id = taken.id;
	*holder_id = hold == KEY_HELD ? holder.id : 0;
	return hold == KEY_FREE;
}

/* ---- coming back ---- */

/* Has its role had the key since? */
static bool
is_newest_of_scope(const JobqUniqueKey *key, const JobqKeyRow *rows, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (rows[i].scope == key->role && rows[i].gen > key->after)
			return false;
	}
	return true;
}

/*
 * One that holds its key only while it waits has lost it when it was claimed.
 * If somebody has taken it, and holds it, the job must not wait again; if
 * somebody has had it meanwhile, the key is to be taken anew.
 */
static JobqKeyState
come_back(const JobqUniqueKey *key, const JobqKeyRow *own,
		  JobqKeyHolder *holder)
{
	JobqKeyRow *rows;
	int			n = jobq_ukey_newest(key->queue_id, key->key, &rows);
	JobqKeyState hold = jobq_key_find_holder(key, rows, n, holder);

	if (hold == KEY_FREE && !is_newest_of_scope(key, rows, n))
		jobq_key_add_row(key, rows, n, own);
	pfree(rows);
	return hold;
}

JobqKeyFate
jobq_key_returns(const JobqSession *session, const JobqRow *row)
{
	JobqUniqueKey key = {.session = session,
		.queue_id = DatumGetInt32(row->values[JOB_QUEUE_ID]),
		.key = row->values[JOB_UNIQUE_KEY],
	.role = DatumGetObjectId(row->values[JOB_ENQUEUED_BY])};
	JobqQueue	queue;
	JobqKeyRow	own;
	JobqKeyHolder holder;
	JobqKeyState hold;

	if (!jobq_ukey_of_job(key.queue_id, key.key, key.role,
						  DatumGetInt64(row->values[JOB_ID]), &own) ||
		own.unique_while != UKEY_WAITING ||
		!jobq_queue_by_id_for(key.queue_id, key.role, &queue))
		return KEY_KEPT;
	key.sees_all = jobq_reads_queue(&queue);
	key.after = own.gen;
	for (;;)
	{
		if (!jobq_ukey_lock(key.queue_id, key.key, jobq_in_keeper))
			return KEY_IN_DOUBT;
		hold = come_back(&key, &own, &holder);
		unlock_key(&key);
		if (hold != KEY_BUSY)
			return hold == KEY_HELD ? KEY_LOST : KEY_KEPT;
		if (jobq_in_keeper)
			return KEY_IN_DOUBT;
		jobq_await_holder(holder.busy);
	}
}
