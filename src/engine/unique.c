/*
 * unique.c: unique keys. Who holds one is derived from the job that took it
 * last, wherever that is: so neither a claim nor an ending writes anything.
 * Must not check arguments; checks whether the caller may change a holder.
 *
 * All that takes a key, or brings a job back that may have lost its key, is
 * done under the key's lock, which is given up before waiting for anybody.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"

#include "engine/belts.h"
#include "engine/hold.h"
#include "engine/move.h"
#include "engine/place.h"
#include "engine/unique.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "errors.h"
#include "pause.h"
#include "store/ukey.h"

/* A key, and on whose behalf it is asked for. */
typedef struct Key
{
	const JobqSession *session;
	int32		queue_id;
	Datum		key;
	Oid			role;
	bool		sees_all;		/* it may see all jobs of the queue */
	int64		except;			/* a job that does not count, 0 = none */
	int64		after;			/* for a job that comes back: its row; 0 =
								 * for a new one */
} Key;

static bool
sees_all(const JobqQueue *queue)
{
	return (queue->my_privileges &
			(JOBQ_PRIV_READ | JOBQ_PRIV_MANAGE)) != 0;
}

/* ---- what has become of a job ---- */

typedef enum JobLook
{
	LOOK_ENDED,					/* or there is no such job */
	LOOK_WAITING,
	LOOK_RUNNING,
	LOOK_LIVE,					/* one of these two */
	LOOK_BUSY,					/* another transaction is changing it */
	LOOK_ELSEWHERE				/* not in memory */
} JobLook;

typedef struct Seen
{
	JobLook		look;
	TransactionId busy;			/* LOOK_BUSY: who */
	TimestampTz expires_at;		/* LOOK_WAITING, LOOK_LIVE */
} Seen;

static bool
slot_is_stale(const JobqSlot *slot)
{
	JobqBelts	belts = {0};
	bool		ended = (slot->flags & SLOT_VERIFY) &&
		jobq_has_ended(&belts, &slot->t);

	jobq_belts_close(&belts);
	return ended;
}

static JobLook
look_at_slot(const JobqSlot *slot, Seen *seen)
{
	JobqSlotRef ref;

	if (TransactionIdIsCurrentTransactionId(slot->mark))
	{
		jobq_ref_of(slot, &ref);
		return jobq_xact_ends(&ref) ? LOOK_ELSEWHERE : LOOK_RUNNING;
	}
	if (TransactionIdIsValid(slot->mark))
	{
		seen->busy = slot->mark;
		return LOOK_BUSY;
	}
	seen->expires_at = slot->t.expires_at;
	switch ((JobqSlotState) slot->state)
	{
		case SLOT_READY:
			return slot_is_stale(slot) ? LOOK_ELSEWHERE : LOOK_WAITING;
		case SLOT_RUNNING:
			return slot_is_stale(slot) ? LOOK_ELSEWHERE : LOOK_RUNNING;
		case SLOT_ROLLED_BACK:
			seen->expires_at = DT_NOEND;
			return LOOK_WAITING;
		case SLOT_GRACE:
			return LOOK_ENDED;
		case SLOT_FREE:
		case SLOT_LINKING:
			break;
	}
	return LOOK_ELSEWHERE;
}

static JobLook
look_in_memory(const JobqSession *session, int64 id, Seen *seen)
{
	int			own = jobq_own_find(id);
	JobqSlot	slot;

	if (own >= 0)
	{
		seen->expires_at = jobq_own(own)->t.expires_at;
		return jobq_own(own)->state == OWN_RUNNING ? LOOK_RUNNING :
			LOOK_WAITING;
	}
	if (!jobq_find(session->db, session->gen, id, &slot))
		return LOOK_ELSEWHERE;
	return look_at_slot(&slot, seen);
}

static JobLook
look_at_shelved(const JobqRow *row, Seen *seen)
{
	seen->expires_at = row->nulls[JOB_EXPIRES_AT] ? DT_NOEND :
		DatumGetTimestampTz(row->values[JOB_EXPIRES_AT]);
	return DatumGetChar(row->values[SHELF_STATE]) == SHELF_DEAD ?
		LOOK_ENDED : LOOK_WAITING;
}

/*
 * Does a live ticket that has no slot run? Memory lacks such ones in special
 * moments only; then the tables have the answer.
 */
static bool
runs_without_slot(const JobqSession *session, const JobqTicket *t)
{
	bool		memory_is_complete = jobq_db_ready(session->db, session->gen) &&
		!jobq_lacks_leases(session->db) &&
		!jobq_claimer_is_coming(session->db, session->gen, t->queue_id) &&
		!jobq_is_entered(session->db, session->gen, t->id);

	return !memory_is_complete && jobq_is_claimed_on_disk(t);
}

/* Where epochs have not been adopted, jobs cannot be found. */
static JobLook
look_in_vain(void)
{
	if (jobq_store_is_copy())
		jobq_raise_copy();
	return LOOK_ENDED;
}

/* Where tell_running is false, LOOK_LIVE is enough. */
static JobLook
look_in_tables(const JobqSession *session, int64 id, bool tell_running,
			   Seen *seen)
{
	JobqWhere	where;
	JobqRow		row;

	if (jobq_shelf_look(id, &row, &seen->busy))
		return TransactionIdIsValid(seen->busy) ? LOOK_BUSY :
			look_at_shelved(&row, seen);
	if (!jobq_newest(id, &where))
		return look_in_vain();
	if (where.on_shelf)
		return look_at_shelved(&where.row, seen);
	if (where.has_outcome)
		return LOOK_ENDED;
	seen->expires_at = where.t.expires_at;
	if (!tell_running)
		return LOOK_LIVE;
	return runs_without_slot(session, &where.t) ? LOOK_RUNNING : LOOK_WAITING;
}

static void
look_at(const JobqSession *session, int64 id, bool tell_running, Seen *seen)
{
	*seen = (Seen) {.expires_at = DT_NOEND};
	seen->look = look_in_memory(session, id, seen);
	if (seen->look == LOOK_ELSEWHERE)
		seen->look = look_in_tables(session, id, tell_running, seen);
}

/* ---- who holds a key ---- */

typedef enum Hold
{
	KEY_FREE,
	KEY_HELD,
	KEY_BUSY					/* wait for `busy`, then look again */
} Hold;

typedef struct KeyHolder
{
	int64		id;
	Oid			enqueued_by;
	int64		gen;
	bool		waits;			/* or perhaps it runs, if that is the same */
	TimestampTz expires_at;		/* then */
	TransactionId busy;
} KeyHolder;

static Hold
see_holder(const Key *key, const JobqKeyRow *row, KeyHolder *holder)
{
	bool		only_waiting = row->unique_while == UKEY_WAITING;
	Seen		seen;

	*holder = (KeyHolder) {.id = row->id,.enqueued_by = row->scope,
		.gen = row->gen,.busy = row->writer};
	if (TransactionIdIsValid(row->writer))
		return KEY_BUSY;
	look_at(key->session, row->id, only_waiting, &seen);
	holder->busy = seen.busy;
	holder->expires_at = seen.expires_at;
	holder->waits = seen.look == LOOK_WAITING || seen.look == LOOK_LIVE;
	if (seen.look == LOOK_BUSY)
		return KEY_BUSY;
	if (seen.look == LOOK_ENDED || (seen.look == LOOK_RUNNING && only_waiting))
		return row->free_at > jobq_now() ? KEY_HELD : KEY_FREE;
	return KEY_HELD;
}

/* May that role see the jobs of this one? */
static bool
is_seen_by(const Key *key, Oid role)
{
	JobqQueue	queue;

	return has_privs_of_role(role, key->role) ||
		(jobq_queue_by_id_for(key->queue_id, role, &queue) &&
		 sees_all(&queue));
}

/*
 * Only jobs that the role may see are in its way. A job that comes back gives
 * way to newer ones only, and only to those of roles that could have seen it:
 * others have taken the key while it waited.
 */
static bool
counts(const Key *key, const JobqKeyRow *row)
{
	return row->gen > key->after && row->id != key->except &&
		(key->sees_all || has_privs_of_role(key->role, row->scope)) &&
		(key->after == 0 || is_seen_by(key, row->scope));
}

/* One's own comes first, then the newest. */
static bool
comes_first(const Key *key, const KeyHolder *a, const KeyHolder *b)
{
	bool		a_mine = a->enqueued_by == key->role;
	bool		b_mine = b->enqueued_by == key->role;

	return a_mine != b_mine ? a_mine : a->gen > b->gen;
}

/* Of the newest rows of a key. */
static Hold
find_holder(const Key *key, const JobqKeyRow *rows, int n, KeyHolder *holder)
{
	Hold		result = KEY_FREE;

	for (int i = 0; i < n && result != KEY_BUSY; i++)
	{
		KeyHolder	one;
		Hold		hold;

		if (!counts(key, &rows[i]))
			continue;
		hold = see_holder(key, &rows[i], &one);
		if (hold == KEY_BUSY || (hold == KEY_HELD &&
								 (result == KEY_FREE ||
								  comes_first(key, &one, holder))))
		{
			result = hold;
			*holder = one;
		}
	}
	return result;
}

/* One more row, newer than all of the key. */
static void
add_row(const Key *key, const JobqKeyRow *rows, int n, const JobqKeyRow *row)
{
	JobqKeyRow	next = *row;

	next.scope = key->role;
	next.gen = 1;
	for (int i = 0; i < n; i++)
		next.gen = Max(next.gen, rows[i].gen + 1);
	jobq_ukey_insert(key->queue_id, key->key, &next);
}

static void
wait_for(TransactionId busy)
{
	XactLockTableWait(busy, NULL, NULL, XLTW_None);
	CHECK_FOR_INTERRUPTS();
}

/* ---- taking a key ---- */

static void
lock_key(const Key *key)
{
	(void) jobq_ukey_lock(key->queue_id, key->key, false);
}

static void
unlock_key(const Key *key)
{
	jobq_ukey_unlock(key->queue_id, key->key);
}

/*
 * Take it for a job that gets its number now, or say who has it, or, nowait,
 * who is at it: KEY_BUSY.
 */
static Hold
take_key(const Key *key, JobqKeyRow *row, bool nowait, KeyHolder *holder)
{
	for (;;)
	{
		JobqKeyRow *rows;
		int			n;
		Hold		hold;

		lock_key(key);
		n = jobq_ukey_newest(key->queue_id, key->key, &rows);
		hold = find_holder(key, rows, n, holder);
		if (hold == KEY_FREE)
		{
			row->id = jobq_take_number(key->session->db);
			add_row(key, rows, n, row);
		}
		unlock_key(key);
		pfree(rows);
		if (hold != KEY_BUSY || nowait)
			return hold;
		wait_for(holder->busy);
	}
}

/* ---- changing the holder ---- */

/*
 * The new job's payload and options for the old one, which stays whose it was.
 * Attempts are never forgotten, but those to come are all the new job's.
 */
static void
swap(const JobqQueue *queue, const JobqRow *new, const JobqUnique *unique,
	 JobqRow *row)
{
	static const JobqJobAttr swapped[] = {
		JOB_PRIORITY, JOB_KIND, JOB_GROUP_KEY, JOB_EXPIRES_AT, JOB_HEADERS,
		JOB_PAYLOAD
	};
	int32		attempts = DatumGetInt32(row->values[JOB_ATTEMPT]);

	for (size_t i = 0; i < lengthof(swapped); i++)
	{
		row->values[swapped[i]] = new->values[swapped[i]];
		row->nulls[swapped[i]] = new->nulls[swapped[i]];
	}
	row->nulls[JOB_PROGRESS] = true;
	row->values[JOB_MAX_ATTEMPTS] =
		Int32GetDatum(attempts + DatumGetInt32(new->values[JOB_MAX_ATTEMPTS]));
	if (unique->default_expiry)
		jobq_set_default_expiry(queue, row);
}

/*
 * When the changed job is to run. One that is due keeps its place, unless it
 * is pushed into the future.
 */
static TimestampTz
changed_run_at(const JobqRow *old, const JobqRow *new,
			   const JobqUnique *unique)
{
	TimestampTz old_run_at = DatumGetTimestampTz(old->values[JOB_RUN_AT]);
	TimestampTz run_at = DatumGetTimestampTz(new->values[JOB_RUN_AT]);
	TimestampTz now = jobq_now();

	if (unique->on_conflict != JOBQ_ON_CONFLICT_DEBOUNCE &&
		!unique->set_run_at)
		return old_run_at;
	if (unique->on_conflict == JOBQ_ON_CONFLICT_DEBOUNCE &&
		unique->debounce_max != JOBQ_NEVER)
		run_at = Min(run_at,
					 DatumGetTimestampTz(old->values[JOB_ENQUEUED_AT]) +
					 unique->debounce_max);
	return run_at > now ? run_at : Min(old_run_at, now);
}

static void
change_row(const JobqQueue *queue, const JobqRow *new,
		   const JobqUnique *unique, JobqRow *row)
{
	row->values[JOB_RUN_AT] =
		TimestampTzGetDatum(changed_run_at(row, new, unique));
	swap(queue, new, unique, row);
}

static bool
row_has_expired(const JobqRow *row)
{
	return !row->nulls[JOB_EXPIRES_AT] &&
		DatumGetTimestampTz(row->values[JOB_EXPIRES_AT]) <= jobq_now();
}

static void
change_held(const JobqSession *session, const JobqQueue *queue,
			JobqHeld *held, const JobqRow *new, const JobqUnique *unique)
{
	JobqRow		row;

	jobq_read_held(held, &row);
	change_row(queue, new, unique, &row);
	jobq_move_as(session, held, queue, &row,
				 unique->on_conflict == JOBQ_ON_CONFLICT_REPLACE ?
				 "replaced" : "debounced");
}

static void
change_shelved(const JobqSession *session, const JobqQueue *queue,
			   JobqRow *row, const JobqRow *new, const JobqUnique *unique)
{
	change_row(queue, new, unique, row);
	if (DatumGetTimestampTz(row->values[JOB_RUN_AT]) > jobq_now())
	{
		jobq_place_on_shelf(session, row,
							DatumGetChar(row->values[SHELF_STATE]));
		return;
	}
	jobq_give_ticket(session, row);
	jobq_place_on_belt(session, queue, row, 1);
}

typedef enum Take
{
	TAKE_HELD,
	TAKE_SHELVED,
	TAKE_NOT					/* it does not wait any more: look again */
} Take;

/* Take a waiting job in hand; one that has not started in time ends. */
static Take
take_or_expire(const JobqSession *session, const JobqQueue *queue, int64 id,
			   JobqHeld *held, JobqRow *row)
{
	switch (jobq_take_waiting(session, id, held, row))
	{
		case WAITING_HELD:
			if (held->t.expires_at > jobq_now())
				return TAKE_HELD;
			jobq_expire_held(session, held, queue);
			break;
		case WAITING_SHELVED:
			jobq_xact_count(session, queue->queue_id, jobq_shelf_counter(row),
							-1);
			if (!row_has_expired(row))
				return TAKE_SHELVED;
			jobq_expire_shelved(session, row, queue);
			break;
		case WAITING_NOT_RUNS:
		case WAITING_NOT_FINAL:
		case WAITING_NO_JOB:
			break;
	}
	return TAKE_NOT;
}

/* False: look again. */
static bool
change_holder(const JobqSession *session, const JobqQueue *queue, int64 id,
			  const JobqRow *new, const JobqUnique *unique)
{
	JobqHeld	held;
	JobqRow		row;

	switch (take_or_expire(session, queue, id, &held, &row))
	{
		case TAKE_HELD:
			change_held(session, queue, &held, new, unique);
			return true;
		case TAKE_SHELVED:
			change_shelved(session, queue, &row, new, unique);
			return true;
		case TAKE_NOT:
			break;
	}
	return false;
}

/* A holder that has expired, or had a moment ago. */
static void
expire_holder(const JobqSession *session, const JobqQueue *queue, int64 id)
{
	JobqHeld	held;
	JobqRow		row;

	switch (take_or_expire(session, queue, id, &held, &row))
	{
		case TAKE_HELD:
			jobq_read_held(&held, &row);
			jobq_move_as(session, &held, queue, &row, NULL);
			break;
		case TAKE_SHELVED:
			jobq_place_on_shelf(session, &row,
								DatumGetChar(row.values[SHELF_STATE]));
			break;
		case TAKE_NOT:
			break;
	}
}

/* Whoever may cancel it may also change it. */
static void
check_may_change(const JobqQueue *queue, const KeyHolder *holder)
{
	if ((queue->my_privileges & JOBQ_PRIV_MANAGE) ||
		has_privs_of_role(GetUserId(), holder->enqueued_by))
		return;
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
is_to_expire(const JobqSession *session, const KeyHolder *holder)
{
	return holder->waits && holder->expires_at <= jobq_now() &&
		jobq_db_ready(session->db, session->gen) && !session->db->copy;
}

/* The key is held. True: *outcome says what was done about it. */
static bool
deal_with(const JobqSession *session, const JobqQueue *queue,
		  const KeyHolder *holder, const JobqRow *row,
		  const JobqUnique *unique, JobqEnqueued *outcome)
{
	*outcome = JOBQ_EXISTING;
	if (is_to_expire(session, holder))
	{
		expire_holder(session, queue, holder->id);
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
	return change_holder(session, queue, holder->id, row, unique);
}

int64
jobq_enqueue_unique(const JobqSession *session, const JobqQueue *queue,
					JobqRow *row, TimestampTz now, const JobqUnique *unique,
					JobqEnqueued *outcome)
{
	Key			key = {.session = session,.queue_id = queue->queue_id,
		.key = row->values[JOB_UNIQUE_KEY],.role = GetUserId(),
	.sees_all = sees_all(queue)};
	JobqKeyRow	taken = {.free_at = now + unique->unique_for,
		.unique_while = unique->unique_while == JOBQ_UNIQUE_WAITING ?
	UKEY_WAITING : UKEY_LIVE};
	KeyHolder	holder;

	jobq_lock_queue(queue);
	while (take_key(&key, &taken, false, &holder) == KEY_HELD)
	{
		CHECK_FOR_INTERRUPTS();
		JOBQ_PAUSE("before-key-conflict");
		if (deal_with(session, queue, &holder, row, unique, outcome))
			return holder.id;
	}
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
	Key			key = {.session = session,.queue_id = queue->queue_id,
		.key = old->values[JOB_UNIQUE_KEY],
		.role = DatumGetObjectId(old->values[JOB_ENQUEUED_BY]),
	.sees_all = true,.except = DatumGetInt64(old->values[JOB_ID])};
	JobqKeyRow	taken = {.free_at = jobq_now(),.unique_while = UKEY_LIVE};
	JobqKeyRow	before;
	KeyHolder	holder = {0};
	Hold		hold;

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
is_newest_of_scope(const Key *key, const JobqKeyRow *rows, int n)
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
static Hold
come_back(const Key *key, const JobqKeyRow *own, KeyHolder *holder)
{
	JobqKeyRow *rows;
	int			n = jobq_ukey_newest(key->queue_id, key->key, &rows);
	Hold		hold = find_holder(key, rows, n, holder);

	if (hold == KEY_FREE && !is_newest_of_scope(key, rows, n))
		add_row(key, rows, n, own);
	pfree(rows);
	return hold;
}

JobqKeyFate
jobq_key_returns(const JobqSession *session, const JobqRow *row)
{
	Key			key = {.session = session,
		.queue_id = DatumGetInt32(row->values[JOB_QUEUE_ID]),
		.key = row->values[JOB_UNIQUE_KEY],
	.role = DatumGetObjectId(row->values[JOB_ENQUEUED_BY])};
	JobqQueue	queue;
	JobqKeyRow	own;
	KeyHolder	holder;
	Hold		hold;

	if (!jobq_ukey_of_job(key.queue_id, key.key, key.role,
						  DatumGetInt64(row->values[JOB_ID]), &own) ||
		own.unique_while != UKEY_WAITING ||
		!jobq_queue_by_id_for(key.queue_id, key.role, &queue))
		return KEY_KEPT;
	key.sees_all = sees_all(&queue);
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
		wait_for(holder.busy);
	}
}
