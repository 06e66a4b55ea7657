/*
 * epochs.c: the keeper's list of epochs; opening, closing and sealing them;
 * and one short step at a time of their life. What becomes of sealed ones is
 * drain.c's, what goes history.c's, what gets old freeze.c's. Waits for
 * nobody, wakes up for nothing.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "engine/belts.h"
#include "engine/epochlist.h"
#include "engine/keeperxact.h"
#include "guc.h"
#include "pause.h"

#define USECS_PER_MS		INT64CONST(1000)

/* A class with more epochs than this makes them larger. */
#define MANY_EPOCHS			32
#define EPOCHS_PER_DOUBLING	4
#define MAX_DOUBLINGS		20

/* Epochs in the time that finished jobs stay: not as many as are too many. */
#define AGES_PER_RETENTION	24

#define ERROR_PAUSE			(5 * USECS_PER_SEC)
#define ERROR_PAUSE_MAX		(5 * 60 * USECS_PER_SEC)

JobqEpochList jobq_epochs;
static MemoryContext context;	/* of its epochs */
static bool looked;				/* at least once */
static TimestampTz next_look;	/* by itself */
static uint64 queues_seen;		/* jobq_catalog_changes() `used` is of; 0 = it
								 * is not known */
static JobqWait trouble;		/* with reading the list */

void
jobq_epochs_come_again(JobqEpochLook *look, TimestampTz when)
{
	look->next = Min(look->next, when);
}

bool
jobq_epochs_begin(JobqEpochLook *look)
{
	if (jobq_keeper_begin(look->session->db->install))
		return true;
	jobq_epochs_come_again(look, look->now + LOCK_PAUSE);
	return false;
}

void
jobq_epochs_put_off(JobqEpochLook *look, JobqWait *wait, int64 first,
					int64 longest)
{
	wait->pause = Min(Max(wait->pause * 2, first), longest);
	wait->until = look->now + wait->pause;
	jobq_epochs_come_again(look, wait->until);
}

bool
jobq_epochs_must_wait(JobqEpochLook *look, const JobqWait *wait)
{
	if (wait->until <= look->now)
		return false;
	jobq_epochs_come_again(look, wait->until);
	return true;
}

void
jobq_epochs_no_more_wait(JobqWait *wait)
{
	wait->until = 0;
	wait->pause = 0;
}

/* Log the error, and be outside of transactions again. */
static void
note_trouble(JobqEpochLook *look, JobqWait *wait)
{
	jobq_absorb_error(true);
	/* trouble that is long over does not count */
	if (wait->until + ERROR_PAUSE_MAX < look->now)
		wait->pause = 0;
	jobq_epochs_put_off(look, wait, ERROR_PAUSE, ERROR_PAUSE_MAX);
}

bool
jobq_epochs_step(JobqEpochLook *look, JobqEpochStep step, void *item,
				 JobqWait *wait)
{
	volatile bool more = false;

	if (jobq_epochs_must_wait(look, wait))
		return false;
	PG_TRY();
	{
		more = step(look, item);
	}
	PG_CATCH();
	{
		note_trouble(look, wait);
	}
	PG_END_TRY();
	return more;
}

/* ---- what there is ---- */

JobqKnown *
jobq_epochs_find(int32 epoch)
{
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		if (jobq_epochs.known[i].row.epoch == epoch)
			return &jobq_epochs.known[i];
	}
	return NULL;
}

/* The rows as they are now, with what was known of them before. */
static void
merge(const JobqEpoch *rows, int n)
{
	MemoryContext fresh = AllocSetContextCreate(TopMemoryContext,
												"pg_jobq epochs",
												ALLOCSET_DEFAULT_SIZES);
	JobqKnown  *list = MemoryContextAllocZero(fresh,
											  sizeof(JobqKnown) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		const JobqKnown *old = jobq_epochs_find(rows[i].epoch);

		if (old != NULL)
			list[i] = *old;
		else
		{
			list[i].slots = -1;
			list[i].surveyed_slots = -1;
			list[i].survey.jobs = -1;
			list[i].size = -1;
		}
		list[i].row = rows[i];
	}
	if (context != NULL)
		MemoryContextDelete(context);
	context = fresh;
	jobq_epochs.known = list;
	jobq_epochs.nknown = n;
}

static void
set_hint(JobqEpochLook *look, int class_id, int32 epoch)
{
	JobqDb	   *db = look->session->db;

	SpinLockAcquire(&db->mutex);
	if (db->gen == look->session->gen)
		db->open_epoch[class_id] = epoch;
	SpinLockRelease(&db->mutex);
}

static bool
is_class(int32 class_id)
{
	return class_id >= 1 && class_id <= JOBQ_MAX_CLASSES;
}

static void
read_classes(void)
{
	JobqClass  *rows;
	int			n = jobq_class_read(&rows);

	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		JobqEpochClass *class = &jobq_epochs.classes[i];

		class->id = i;
		class->exists = false;
		class->nepochs = 0;
		class->open = 0;
	}
	for (int i = 0; i < n; i++)
	{
		JobqEpochClass *class = &jobq_epochs.classes[rows[i].class_id];

		class->exists = true;
		class->retention = rows[i].retention;
	}
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		const JobqEpoch *row = &jobq_epochs.known[i].row;
		JobqEpochClass *class;

		if (!is_class(row->class_id))
			continue;
		class = &jobq_epochs.classes[row->class_id];
		class->nepochs++;
		if (row->closed_at == 0)
		{
			class->open = row->epoch;
			class->opened_at = row->opened_at;
		}
	}
}

static void
take_period(HeapTuple tuple, TupleDesc desc, void *state)
{
	*(int64 *) state = DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL));
}

/* The longest period of a rate that alter_group() has set. */
static int64
longest_of_groups(void)
{
	int64		period = 0;

	PushActiveSnapshot(GetLatestSnapshot());
	jobq_keeper_query("SELECT coalesce(max(g.rate_period), 0)"
					  " FROM jobq.queue_group g",
					  0, NULL, NULL, take_period, &period);
	PopActiveSnapshot();
	return period;
}

static void
read_used(void)
{
	JobqQueue  *queues;
	uint64		changes = jobq_catalog_changes();
	int			n;

	if (changes == queues_seen)
		return;
	n = jobq_queue_list(&queues);
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
		jobq_epochs.classes[i].used = i == JOBQ_CLASS_DEFAULT;
	jobq_epochs.limits = 0;
	for (int i = 0; i < n; i++)
	{
		if (is_class(queues[i].class_id))
			jobq_epochs.classes[queues[i].class_id].used = true;
		jobq_epochs.limits = Max(jobq_epochs.limits,
								 jobq_limits_period(&queues[i]));
	}
	jobq_epochs.limits = Max(jobq_epochs.limits, longest_of_groups());
	queues_seen = changes;
}

/*
 * After a start of the server memory does not know how full the open epochs
 * are, and we do not know since when.
 */
static void
estimate_rows(JobqEpochLook *look, int class_id)
{
	pg_atomic_uint64 *rows = &look->session->db->epoch_rows[class_id];
	JobqEpochClass *class = &jobq_epochs.classes[class_id];
	Relation	job = jobq_belt_open(class->open, BELT_JOB, AccessShareLock);
	uint64		there;

	if (job == NULL)
		return;
	there = (uint64) jobq_belt_estimate(job);
	if (there > pg_atomic_read_u64(rows))
		pg_atomic_write_u64(rows, there);
	if (there > 0)
		class->first_ticket = class->opened_at;
	relation_close(job, NoLock);
}

static bool
read_all(JobqEpochLook *look)
{
	JobqEpoch  *rows;
	int			n;

	if (!jobq_epochs_begin(look))
		return false;
	n = jobq_epoch_read(&rows);
	merge(rows, n);
	read_classes();
	read_used();
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		set_hint(look, i, jobq_epochs.classes[i].open);
		if (!looked && jobq_epochs.classes[i].open != 0)
			estimate_rows(look, i);
	}
	jobq_keeper_commit();
	looked = true;
	return true;
}

int64
jobq_epochs_retention(const JobqKnown *epoch)
{
	const JobqEpochClass *class;

	if (!is_class(epoch->row.class_id))
		return USECS_PER_DAY;
	class = &jobq_epochs.classes[epoch->row.class_id];
	return class->exists ? class->retention : USECS_PER_DAY;
}

bool
jobq_epochs_press(const JobqKnown *epoch)
{
	return is_class(epoch->row.class_id) &&
		jobq_epochs.classes[epoch->row.class_id].nepochs > MANY_EPOCHS;
}

/* ---- close and open ---- */

/* The new one first: there is always one to write to. */
static bool
rotate(JobqEpochLook *look, JobqEpochClass *class)
{
	int32		next;

	if (!jobq_epochs_begin(look))
		return false;
	if (!jobq_epoch_lock_numbers(true))
	{
		jobq_keeper_commit();
		jobq_epochs_come_again(look, look->now + LOCK_PAUSE);
		return false;
	}
	next = jobq_epoch_create(class->id);
	jobq_epoch_set_closed(class->open, jobq_now());
	jobq_keeper_commit();
	pg_atomic_write_u64(&look->session->db->epoch_rows[class->id], 0);
	set_hint(look, class->id, next);
	class->first_ticket = 0;
	return true;
}

static bool
tend_open(JobqEpochLook *look, void *item)
{
	JobqEpochClass *class = item;
	JobqDb	   *db = look->session->db;
	int			excess = Max(class->nepochs - MANY_EPOCHS, 0);
	int			doublings = Min(excess / EPOCHS_PER_DOUBLING, MAX_DOUBLINGS);
	uint64		limit = (uint64) jobq_epochs.rows << doublings;
	int64		age = Max(jobq_epochs.age * USECS_PER_MS,
						  class->retention / AGES_PER_RETENTION);
	uint64		rows;

	if (class->open == 0)
		pg_atomic_write_u64(&db->epoch_rows[class->id], 0);
	pg_atomic_write_u64(&db->epoch_limit[class->id], limit);
	rows = pg_atomic_read_u64(&db->epoch_rows[class->id]);
	if (rows == 0)
	{
		class->first_ticket = 0;
		return false;
	}
	if (class->first_ticket == 0)
		class->first_ticket = look->now;
	age = Min(age << doublings, 3650 * USECS_PER_DAY);
	if (rows >= limit || class->first_ticket + age <= look->now)
		return rotate(look, class);
	jobq_epochs_come_again(look, class->first_ticket + age);
	return false;
}

/* ---- seal ---- */

static bool
seal(JobqEpochLook *look, void *item)
{
	JobqKnown  *epoch = item;
	bool		sealed;

	if (jobq_epochs_must_wait(look, &epoch->wait) || !jobq_epochs_begin(look))
		return false;
	JOBQ_PAUSE("before-seal");
	sealed = jobq_epoch_no_writer(epoch->row.epoch);
	if (sealed)
		jobq_epoch_set_sealed(epoch->row.epoch, jobq_now());
	jobq_keeper_commit();
	if (!sealed)
	{
		jobq_epochs_put_off(look, &epoch->wait, LOCK_PAUSE, LOCK_PAUSE_MAX);
		return false;
	}
	jobq_epochs_no_more_wait(&epoch->wait);
	jobq_drain_count(false);
	return true;
}

/* ---- one call ---- */

static bool
is_closed_only(const JobqKnown *epoch)
{
	return epoch->row.closed_at != 0 && epoch->row.sealed_at == 0;
}

/*
 * What gives space back comes first: without it there may be none for a new
 * epoch.
 */
static bool
take_step(JobqEpochLook *look, void *item)
{
	if (!read_all(look))
		return false;
	if (jobq_history_drop(look))
		return true;
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		JobqEpochClass *class = &jobq_epochs.classes[i];

		if (jobq_epochs_step(look, tend_open, class, &class->trouble))
			return true;
	}
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		JobqKnown  *epoch = &jobq_epochs.known[i];

		if (is_closed_only(epoch) &&
			jobq_epochs_step(look, seal, epoch, &epoch->trouble))
			return true;
	}
	return jobq_history_tend_classes(look) || jobq_drain_epochs(look) ||
		jobq_freeze_epochs(look);
}

static bool
settings_changed(void)
{
	if (jobq_epochs.rows == jobq_epoch_rows &&
		jobq_epochs.age == jobq_epoch_age &&
		jobq_epochs.size == jobq_max_history_size)
		return false;
	jobq_epochs.rows = jobq_epoch_rows;
	jobq_epochs.age = jobq_epoch_age;
	jobq_epochs.size = jobq_max_history_size;
	return true;
}

/* Somebody has asked for it. */
static void
no_more_waits(void)
{
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		jobq_epochs_no_more_wait(&jobq_epochs.known[i].wait);
		jobq_epochs_no_more_wait(&jobq_epochs.known[i].trouble);
		jobq_epochs_no_more_wait(&jobq_epochs.known[i].freeze);
	}
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		jobq_epochs_no_more_wait(&jobq_epochs.classes[i].wait);
		jobq_epochs_no_more_wait(&jobq_epochs.classes[i].trouble);
	}
	jobq_epochs_no_more_wait(&trouble);
	jobq_drain_count(true);
}

TimestampTz
jobq_tend_epochs(const JobqSession *session, TimestampTz now)
{
	JobqEpochLook look = {.session = session,.now = now,.next = JOBQ_NEVER};
	bool		wanted = settings_changed();
	bool		ended = jobq_watched_gone(session->db);

	if (jobq_freeze_ended())
		wanted = true;
	if (jobq_take_epoch_news(session->db))
		wanted = true;
	if (jobq_maintenance_wanted(session->db))
	{
		no_more_waits();
		wanted = true;
	}
	if (!wanted && now < next_look)
	{
		if (!ended)
			return next_look;
		if (now < jobq_drain_next_count())
			return Min(next_look, jobq_drain_next_count());
	}
	if (jobq_epochs_step(&look, take_step, NULL, &trouble))
		look.next = now;
	next_look = look.next;
	return next_look;
}
