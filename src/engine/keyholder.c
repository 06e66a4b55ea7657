/*
 * keyholder.c: who holds a unique key: derived from the jobs that took it
 * last, wherever they are, so that neither a claim nor an ending writes anything.
 * Reads, and adds a row when told to; waits for nobody.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/acl.h"

#include "engine/belts.h"
#include "engine/own.h"
#include "engine/unique.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "security/security.h"

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
		case SLOT_SHELVED:
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
	bool		known = jobq_db_ready(session->db, session->gen) &&
		!jobq_lacks_leases(session->db) &&
		!jobq_claimer_is_coming(session->db, session->gen, t->queue_id) &&
		!jobq_is_entered(session->db, session->gen, t->id);

	return !known && jobq_is_claimed_on_disk(t);
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

static JobqKeyState
see_holder(const JobqUniqueKey *key, const JobqKeyRow *row,
		   JobqKeyHolder *holder)
{
	bool		only_waiting = row->unique_while == UKEY_WAITING;
	Seen		seen;

	*holder = (JobqKeyHolder) {.id = row->id,.enqueued_by = row->scope,
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
is_seen_by(const JobqUniqueKey *key, Oid role)
{
	JobqQueue	queue;

	return has_privs_of_role(role, key->role) ||
		(jobq_queue_by_id_for(key->queue_id, role, &queue) &&
		 jobq_reads_queue(&queue));
}

/*
 * Only jobs that the role may see are in its way. A job that comes back gives
 * way to newer ones only, and only to those of roles that could have seen it:
 * others have taken the key while it waited.
 */
static bool
counts(const JobqUniqueKey *key, const JobqKeyRow *row)
{
	return row->gen > key->after && row->id != key->except &&
		(key->sees_all || has_privs_of_role(key->role, row->scope)) &&
		(key->after == 0 || is_seen_by(key, row->scope));
}

/* One's own comes first, then the newest. */
static bool
comes_first(const JobqUniqueKey *key, const JobqKeyHolder *a,
			const JobqKeyHolder *b)
{
	bool		a_mine = a->enqueued_by == key->role;
	bool		b_mine = b->enqueued_by == key->role;

	return a_mine != b_mine ? a_mine : a->gen > b->gen;
}

JobqKeyState
jobq_key_find_holder(const JobqUniqueKey *key, const JobqKeyRow *rows, int n,
					 JobqKeyHolder *holder)
{
	JobqKeyState result = KEY_FREE;

	for (int i = 0; i < n && result != KEY_BUSY; i++)
	{
		JobqKeyHolder one;
		JobqKeyState hold;

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

void
jobq_key_add_row(const JobqUniqueKey *key, const JobqKeyRow *rows, int n,
				 const JobqKeyRow *row)
{
	JobqKeyRow	next = *row;

	next.scope = key->role;
	next.gen = 1;
	for (int i = 0; i < n; i++)
		next.gen = Max(next.gen, rows[i].gen + 1);
	jobq_ukey_insert(key->queue_id, key->key, &next);
}
