/*
 * epochs.c: what memory knows of epochs: how many tickets went to the open
 * ones, which slots are of an epoch, and word for the keeper when it should
 * look. Decides nothing. Runs in commit callbacks, except where dispatch.h
 * says that an error may be raised.
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"

#include "dispatch/internal.h"

#define INTERRUPT_EVERY		65536	/* slots */

void
jobq_epoch_news(JobqDb *db)
{
	bool		known;

	SpinLockAcquire(&db->mutex);
	known = db->epoch_news;
	db->epoch_news = true;
	SpinLockRelease(&db->mutex);
	if (!known)
		jobq_wake_keeper(db);
}

bool
jobq_take_epoch_news(JobqDb *db)
{
	bool		news;

	SpinLockAcquire(&db->mutex);
	news = db->epoch_news;
	db->epoch_news = false;
	SpinLockRelease(&db->mutex);
	return news;
}

/* The first ticket starts the keeper's clock, the last ones end the epoch. */
void
jobq_count_tickets(JobqDb *db, int32 class_id, int n)
{
	uint64		before = pg_atomic_fetch_add_u64(&db->epoch_rows[class_id], n);
	uint64		limit = pg_atomic_read_u64(&db->epoch_limit[class_id]);

	if (before == 0 || (before < limit && before + n >= limit))
		jobq_epoch_news(db);
}

/* ---- slots that go ---- */

void
jobq_slot_gone(JobqDb *db, int32 epoch)
{
	bool		known;

	if ((uint32) epoch > pg_atomic_read_u32(&db->epoch_watched) ||
		db->epoch_ended)
		return;
	SpinLockAcquire(&db->mutex);
	known = db->epoch_ended;
	db->epoch_ended = true;
	SpinLockRelease(&db->mutex);
	if (!known)
		jobq_wake_keeper(db);
}

void
jobq_watch_epochs(JobqDb *db, int32 epoch)
{
	pg_atomic_write_u32(&db->epoch_watched, (uint32) epoch);
	SpinLockAcquire(&db->mutex);
	db->epoch_ended = false;
	SpinLockRelease(&db->mutex);
	/* before the caller counts: a slot that it still sees will tell */
	pg_memory_barrier();
}

bool
jobq_watched_gone(JobqDb *db)
{
	bool		gone;

	SpinLockAcquire(&db->mutex);
	gone = db->epoch_ended;
	SpinLockRelease(&db->mutex);
	return gone;
}

/* ---- passes over all slots ---- */

static bool
is_live(const JobqSlot *slot, int db, uint32 gen)
{
	return slot->db == db && slot->gen == gen && slot->state != SLOT_FREE &&
		slot->state != SLOT_GRACE && slot->state != SLOT_SHELVED;
}

static int
find_epoch(const int32 *epochs, int n, int32 epoch)
{
	int			low = 0;

	while (low < n)
	{
		int			middle = low + (n - low) / 2;

		if (epochs[middle] == epoch)
			return middle;
		if (epochs[middle] < epoch)
			low = middle + 1;
		else
			n = middle;
	}
	return -1;
}

void
jobq_slots_by_epoch(JobqDb *db, uint32 gen, const int32 *epochs, int n,
					int64 *counts)
{
	int			index = jobq_db_index(db);

	memset(counts, 0, sizeof(int64) * n);
	for (int32 i = 0; i < jobq_max_live_jobs; i++)
	{
		int			at = is_live(&jobq_slots[i], index, gen) ?
		find_epoch(epochs, n, jobq_slots[i].t.epoch) : -1;

		if (at >= 0)
			counts[at]++;
		if (i % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
	}
}

int
jobq_slots_of_epoch(JobqDb *db, uint32 gen, int32 epoch, int32 *from, int max,
					int64 *ids)
{
	int			index = jobq_db_index(db);
	int			n = 0;
	int32		i;

	for (i = *from; i < jobq_max_live_jobs && n < max; i++)
	{
		if (is_live(&jobq_slots[i], index, gen) &&
			jobq_slots[i].t.epoch == epoch)
			ids[n++] = jobq_slots[i].t.id;
		if (i % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
	}
	*from = i < jobq_max_live_jobs ? i : JOBQ_NIL;
	return n;
}

int
jobq_delivered_slots(JobqPart *part, uint32 gen, int max, JobqSlot *copies)
{
	int			n = 0;

	for (int32 i = 0; i < jobq_max_live_jobs && n < max; i++)
	{
		const JobqSlot *slot = &jobq_slots[i];

		if (i % INTERRUPT_EVERY == 0)
			CHECK_FOR_INTERRUPTS();
		if (jobq_slot_part(slot) != part || slot->gen != gen)
			continue;
		LWLockAcquire(part->lock, LW_SHARED);
		if (jobq_part_is_mine(part, gen) && jobq_slot_part(slot) == part &&
			slot->gen == gen &&
			(slot->state == SLOT_RUNNING || slot->state == SLOT_ROLLED_BACK))
			copies[n++] = *slot;
		LWLockRelease(part->lock);
	}
	return n;
}

/* ---- carry ---- */

void
jobq_carried(JobqDb *db, const JobqSlotRef *ref, TransactionId xid,
			 const JobqTicket *to, const ItemPointerData *claim_tid)
{
	JobqSlot   *slot = jobq_slot_lock_marked(db, ref, xid);
	TimestampTz due;

	if (slot == NULL)
		return;
	slot->t = *to;
	slot->l.claim_tid = *claim_tid;
	slot->mark = InvalidTransactionId;
	jobq_slot_link(slot);
	due = slot->l.expires_at;
	jobq_slot_unlock(slot);
	jobq_wake_keeper_by(db, due);
}
