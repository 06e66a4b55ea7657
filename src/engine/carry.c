/*
 * carry.c: moving the last live tickets of an old epoch to the open one, so
 * that the old one can be dropped. A job that runs takes its lease along, one
 * that came too late to start ends. Waits for nobody: what is in somebody's
 * hands stays.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "engine/claimrow.h"
#include "engine/epochs.h"
#include "engine/hold.h"
#include "engine/move.h"
#include "engine/place.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "pause.h"
#include "store/order.h"

#define CARRY_REASON	"carried"

/*
 * The claim as it was taken, and beside it, where the lease was extended, how
 * long it is good for now.
 */
static void
write_claim(JobqBelts *belts, int32 epoch, const JobqLease *old, int64 ticket,
			TimestampTz now, ItemPointer tid)
{
	JobqLease	lease = *old;

	lease.expires_at = lease.claimed_at + lease.lease_for;
	(void) jobq_write_claim(belts, epoch,
							lease.probe ? CLAIM_PROBE : CLAIM_CARRY, &lease,
							&ticket, 1, (Datum) 0, true, tid);
	if (lease.expires_at == old->expires_at)
		return;
	lease.claimed_at = now;
	lease.expires_at = old->expires_at;
	(void) jobq_write_claim(belts, epoch, CLAIM_EXTEND, &lease, &ticket, 1,
							(Datum) 0, true, NULL);
}

static void
carry_running(const JobqSession *session, const JobqHeld *held,
			  const JobqQueue *queue)
{
	TimestampTz now = jobq_now();
	JobqEnding	ending = {.ended = ENDED_MOVED,.reason = CARRY_REASON};
	JobqBelts	belts = {0};
	JobqRow		row;
	JobqTicket	to;
	ItemPointerData tid;
	ItemPointerData claim_tid;
	int32		epoch;

	jobq_read_held(held, &row);
	jobq_keep_progress(held, &row);
	ending.next = jobq_take_number(session->db);
	row.values[JOB_TICKET] = Int64GetDatum(ending.next);
	jobq_write_outcomes(session, &belts, held, 1, &ending, now);
	jobq_belts_close(&belts);
	JOBQ_PAUSE("inside-carry");
	epoch = jobq_belts_current(session, &belts, queue->class_id);
	jobq_belt_insert_jobs(belts.rel[BELT_JOB], &row, 1, &tid);
	jobq_count_tickets(session->db, queue->class_id, 1);
	jobq_ticket_of_row(&row, epoch, &tid, &to);
	write_claim(&belts, epoch, &held->l, ending.next, now, &claim_tid);
	jobq_belts_close(&belts);
	jobq_xact_carried(&held->ref, &to, &claim_tid);
}

/* In nobody's hands, and what it is doing is on disk. */
static bool
may_carry(const JobqHeld *held, int32 epoch)
{
	return held->own < 0 && held->t.epoch == epoch &&
		!(held->flags & SLOT_CLAIM_OPEN) &&
		(held->state == SLOT_READY || held->state == SLOT_RUNNING);
}

/* An available job; one that has expired has no use for a new ticket. */
static void
carry_available(const JobqSession *session, JobqHeld *held,
				const JobqQueue *queue)
{
	JobqMove	move = {.reason = CARRY_REASON};

	if (held->t.expires_at <= jobq_now())
		jobq_expire_held(session, held, queue);
	else
		(void) jobq_move(session, held, queue, &move);
}

static void
carry(const JobqSession *session, int32 epoch, int64 id)
{
	JobqHeld	held;
	JobqQueue	queue;

	if (jobq_hold_any(session, id, true, &held) != HOLD_OK)
		return;
	if (!may_carry(&held, epoch) ||
		!jobq_queue_by_id(held.t.queue_id, &queue))
		jobq_let_go(session, &held);
	else if (held.state == SLOT_RUNNING)
		carry_running(session, &held, &queue);
	else
		carry_available(session, &held, &queue);
}

bool
jobq_carry_some(const JobqSession *session, int32 epoch, int32 *from)
{
	int64		ids[JOBQ_CHUNK];
	int			n = jobq_slots_of_epoch(session->db, session->gen, epoch, from,
										JOBQ_CHUNK, ids);

	if (n == 0)
		return true;
	if (!jobq_keeper_begin(session->db->install))
		return false;
	for (int i = 0; i < n; i++)
		carry(session, epoch, ids[i]);
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	return true;
}

/* ---- tickets that are on disk only ---- */

#define DISK_BATCH		48		/* less than what a transaction may hold */

typedef struct DiskCarry
{
	JobqProbe	probe;
	int32		epoch;
	JobqTicket	live[DISK_BATCH];
	int			n;
	bool		full;			/* there were more */
} DiskCarry;

static void
note_live(TupleTableSlot *slot, void *state)
{
	DiskCarry  *disk = state;
	bool		null;
	int64		ticket = DatumGetInt64(slot_getattr(slot, JOB_TICKET + 1,
													&null));

	if (jobq_probe_ended(&disk->probe, ticket))
		return;
	if (disk->n == DISK_BATCH)
		disk->full = true;
	else
		jobq_ticket_of_slot(slot, disk->epoch, &disk->live[disk->n++]);
}

/* Blocks from *next on until there is a batch, or the time is over. */
static void
find_live(DiskCarry *disk, Relation job, BlockNumber *next, bool *more)
{
	TimestampTz deadline = GetCurrentTimestamp() + JOBQ_EPOCH_STEP;

	do
	{
		BlockNumber block = *next;

		*more = jobq_belt_walk_block(job, next, note_live, disk);
		if (disk->full)
		{
			/* the rest of this block another time */
			*next = block;
			*more = true;
		}
	} while (*more && !disk->full && disk->n < DISK_BATCH / 2 &&
			 GetCurrentTimestamp() < deadline);
}

static void
carry_on_disk(const JobqSession *session, const JobqTicket *t)
{
	JobqHeld	held;
	JobqQueue	queue;

	if (!jobq_lacks_leases(session->db) &&
		jobq_queue_by_id(t->queue_id, &queue) &&
		jobq_hold_spilled(session, t, false, &held))
		carry_available(session, &held, &queue);
}

bool
jobq_carry_from_disk(const JobqSession *session, int32 epoch,
					 BlockNumber *next, bool *more)
{
	JobqBelts	belts = {0};
	DiskCarry	disk = {.epoch = epoch};
	Relation	job;
	Relation	outcome;

	if (!jobq_keeper_begin(session->db->install))
		return false;
	*more = false;
	job = jobq_belts_read(&belts, epoch, BELT_JOB);
	outcome = jobq_belts_read(&belts, epoch, BELT_OUTCOME);
	if (job != NULL && outcome != NULL)
	{
		jobq_probe_begin(&disk.probe, outcome);
		find_live(&disk, job, next, more);
		jobq_probe_end(&disk.probe);
	}
	jobq_belts_close(&belts);
	for (int i = 0; i < disk.n; i++)
	{
		carry_on_disk(session, &disk.live[i]);
		JOBQ_PAUSE("inside-disk-carry");
	}
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	return true;
}
