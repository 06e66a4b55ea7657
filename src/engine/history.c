/*
 * history.c: what goes: drained epochs whose retention has passed, the oldest
 * of them sooner when they take more disk than they may, and retention classes
 * that no queue uses. Drops nothing in which a job lives.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "storage/lmgr.h"
#include "utils/inval.h"

#include "engine/belts.h"
#include "engine/epochlist.h"
#include "pause.h"

#define DROPS_REMEMBERED	32
#define BYTES_PER_MB		(INT64CONST(1024) * 1024)

/* ---- epochs ---- */

/*
 * PostgreSQL's caches keep what it looked for in vain on every table it has
 * planned for, such as statistics, also when the table has gone: some kB an
 * epoch, for ever.
 */
static void
forget_dropped(void)
{
	static int	drops = 0;

	if (++drops % DROPS_REMEMBERED == 0)
		InvalidateSystemCaches();
}

/* All of it is locked. Inside a transaction. */
static void
drop_tables(int32 epoch)
{
	jobq_epoch_drop_tables(epoch);
	JOBQ_PAUSE("inside-drop");
	jobq_epoch_forget(epoch);
	forget_dropped();
}

static bool
drop(JobqEpochLook *look, void *item)
{
	JobqKnown  *epoch = item;

	if (jobq_epochs_must_wait(look, &epoch->wait) || !jobq_epochs_begin(look))
		return false;
	if (!jobq_epoch_lock_all(epoch->row.epoch))
	{
		AbortCurrentTransaction();
		jobq_freeze_call_off(epoch->row.epoch);
		jobq_epochs_put_off(look, &epoch->wait, LOCK_PAUSE, LOCK_PAUSE_MAX);
		return false;
	}
	JOBQ_PAUSE("before-drop");
	drop_tables(epoch->row.epoch);
	jobq_keeper_commit();
	return true;
}

static bool
measure(JobqEpochLook *look, void *item)
{
	JobqKnown  *epoch = item;

	if (!jobq_epochs_begin(look))
		return false;
	epoch->size = jobq_epoch_size(epoch->row.epoch);
	jobq_keeper_commit();
	return true;
}

static void
measure_all(JobqEpochLook *look)
{
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		JobqKnown  *epoch = &jobq_epochs.known[i];

		if (epoch->row.sealed_at != 0 && epoch->size < 0)
			(void) jobq_epochs_step(look, measure, epoch, &epoch->trouble);
	}
}

static bool
is_too_large(bool drained_only)
{
	int64		size = 0;

	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		const JobqKnown *epoch = &jobq_epochs.known[i];

		if (epoch->row.drained_at != 0 || !drained_only)
			size += Max(epoch->size, 0);
	}
	return jobq_epochs.size >= 0 && size > jobq_epochs.size * BYTES_PER_MB;
}

bool
jobq_history_presses(void)
{
	return is_too_large(false);
}

static bool
is_older(const JobqKnown *a, const JobqKnown *b)
{
	if (a->row.last_finished_at != b->row.last_finished_at)
		return a->row.last_finished_at < b->row.last_finished_at;
	return a->row.epoch < b->row.epoch;
}

/* The oldest drained one of those younger than `after`, NULL = of all. */
static JobqKnown *
next_drained(const JobqKnown *after)
{
	JobqKnown  *oldest = NULL;

	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		JobqKnown  *epoch = &jobq_epochs.known[i];

		if (epoch->row.drained_at != 0 &&
			(after == NULL || is_older(after, epoch)) &&
			(oldest == NULL || is_older(epoch, oldest)))
			oldest = epoch;
	}
	return oldest;
}

/*
 * All its jobs had ended by then; for so long a keeper that starts must find
 * who was taken lately, has failed or was enqueued.
 */
static TimestampTz
limits_need_until(const JobqKnown *epoch)
{
	return epoch->row.drained_at + jobq_epochs.limits;
}

static void
note_cut(JobqEpochLook *look, const JobqKnown *epoch)
{
	JobqDb	   *db = look->session->db;
	TimestampTz due = epoch->row.last_finished_at +
		jobq_epochs_retention(epoch);

	if (due <= look->now)
		return;
	SpinLockAcquire(&db->mutex);
	db->history_cut_at = look->now;
	SpinLockRelease(&db->mutex);
}

/*
 * History goes before its time when it takes more room than it may; a younger
 * epoch where an older one cannot go now.
 */
static bool
cut_history(JobqEpochLook *look)
{
	if (jobq_epochs.size < 0)
		return false;
	measure_all(look);
	if (!is_too_large(true))
		return false;
	for (JobqKnown *epoch = next_drained(NULL); epoch != NULL;
		 epoch = next_drained(epoch))
	{
		if (limits_need_until(epoch) > look->now)
			jobq_epochs_come_again(look, limits_need_until(epoch));
		else if (jobq_epochs_step(look, drop, epoch, &epoch->trouble))
		{
			note_cut(look, epoch);
			return true;
		}
	}
	return false;
}

bool
jobq_history_drop(JobqEpochLook *look)
{
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		JobqKnown  *epoch = &jobq_epochs.known[i];
		TimestampTz due = epoch->row.last_finished_at +
			jobq_epochs_retention(epoch);

		if (epoch->row.drained_at == 0)
			continue;
		due = Max(due, limits_need_until(epoch));
		if (due > look->now)
			jobq_epochs_come_again(look, due);
		else if (jobq_epochs_step(look, drop, epoch, &epoch->trouble))
			return true;
	}
	return cut_history(look);
}

/* ---- classes that nobody uses ---- */

static bool
has_queue(int class_id)
{
	JobqQueue  *queues;
	int			n = jobq_queue_list(&queues);
	bool		found = false;

	for (int i = 0; i < n; i++)
		found = found || queues[i].class_id == class_id;
	return found;
}

static void
note_row(TupleTableSlot *slot, void *state)
{
	*(bool *) state = true;
}

/* With all of it locked: was no ticket written to it? */
static bool
is_empty(int32 epoch)
{
	Relation	job = jobq_belt_open(epoch, BELT_JOB, AccessShareLock);
	BlockNumber next = 0;
	bool		found = false;

	if (job == NULL)
		return true;
	while (!found && jobq_belt_walk(job, &next, JOBQ_EPOCH_STEP, note_row,
									&found))
		;
	relation_close(job, NoLock);
	return !found;
}

static bool
forget_class(JobqEpochLook *look, JobqEpochClass *class)
{
	if (!jobq_epochs_begin(look))
		return false;
	if (!ConditionalLockRelationOid(look->session->db->install,
									ShareRowExclusiveLock) ||
		has_queue(class->id) ||
		(class->open != 0 && (!jobq_epoch_lock_all(class->open) ||
							  !is_empty(class->open))))
	{
		AbortCurrentTransaction();
		jobq_epochs_put_off(look, &class->wait, LOCK_PAUSE_MAX,
							LOCK_PAUSE_MAX);
		return false;
	}
	if (class->open != 0)
		drop_tables(class->open);
	jobq_class_forget(class->id);
	jobq_keeper_commit();
	return true;
}

static bool
tend_class(JobqEpochLook *look, void *item)
{
	JobqEpochClass *class = item;

	if (!class->exists || class->used ||
		class->nepochs > (class->open != 0 ? 1 : 0) ||
		pg_atomic_read_u64(&look->session->db->epoch_rows[class->id]) > 0 ||
		jobq_epochs_must_wait(look, &class->wait))
		return false;
	return forget_class(look, class);
}

bool
jobq_history_tend_classes(JobqEpochLook *look)
{
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		JobqEpochClass *class = &jobq_epochs.classes[i];

		if (jobq_epochs_step(look, tend_class, class, &class->trouble))
			return true;
	}
	return false;
}
