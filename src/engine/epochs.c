/*
 * epochs.c: the life of epochs: opened and closed by rows and age, sealed when
 * no writer is left, drained when all tickets have ended, dropped when their
 * retention has passed. The keeper's work, one short step at a time; waits for
 * nobody and wakes up for nothing.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "engine/belts.h"
#include "engine/epochs.h"
#include "guc.h"
#include "pause.h"

#define USECS_PER_MS		INT64CONST(1000)
#define BYTES_PER_MB		(INT64CONST(1024) * 1024)

/* A class with more epochs than this makes them larger. */
#define MANY_EPOCHS			16
#define EPOCHS_PER_DOUBLING	4
#define MAX_DOUBLINGS		20
#define AGES_PER_RETENTION	24	/* epochs in the time that finished jobs stay */

/* Few tickets are left when not more than one of so many lives. */
#define CARRY_SHARE			20
#define CARRY_WAIT			(10 * USECS_PER_SEC)	/* few for so long */

/* Pauses: the first, doubled until the longest. */
#define LOCK_PAUSE			(100 * USECS_PER_MS)	/* somebody has a lock */
#define LOCK_PAUSE_MAX		(2 * USECS_PER_SEC)
#define SURVEY_PAUSE		USECS_PER_SEC	/* live, but not in memory */
#define SURVEY_PAUSE_MAX	(60 * USECS_PER_SEC)
#define ERROR_PAUSE			(5 * USECS_PER_SEC)
#define ERROR_PAUSE_MAX		(5 * 60 * USECS_PER_SEC)
#define COUNT_PAUSE			(500 * USECS_PER_MS)	/* between two passes */
#define COUNT_SHARE			20	/* or so many times what a pass took */

/* What the keeper knows of an epoch beyond its row. */
typedef struct Known
{
	JobqEpoch	row;
	TimestampTz not_before;		/* the next step waits until then */
	int64		pause;			/* the last one; 0 = none */
	int64		slots;			/* live in memory at the last pass; -1 = no
								 * pass yet */
	int64		surveyed_slots; /* and at the last survey */
	JobqSurvey	survey;
	TimestampTz few_since;		/* 0 = many are left */
	bool		carrying;
	int32		carry_from;
	BlockNumber disk_from;		/* carrying from disk, its next block */
	int64		size;			/* bytes, once drained; -1 = not measured */
} Known;

typedef struct Class
{
	bool		exists;
	bool		used;			/* by a queue */
	int64		retention;
	int			nepochs;
	int32		open;			/* epoch, 0 = none */
	TimestampTz opened_at;
	TimestampTz first_ticket;	/* when we heard of it; 0 = none yet */
	TimestampTz forget_after;	/* trying again to forget it */
} Class;

/* All of it can be read again; it goes with the process. */
static MemoryContext context;	/* of `known` */
static Known *known;
static int	nknown;
static Class classes[JOBQ_MAX_CLASSES + 1];
static bool looked;				/* at least once */
static TimestampTz next_look;	/* by itself */
static TimestampTz next_count;	/* pass over slots, not before */
static bool count_wanted = true;
static bool ended_seen;			/* a watched slot has gone since the pass */
static uint64 queues_seen;		/* jobq_catalog_changes() `used` is of; 0 = it
								 * is not known */
static int64 error_pause;
static struct
{
	int			rows;
	int			age;
	int			size;
}			settings;

/* One call. */
typedef struct Look
{
	const JobqSession *session;
	TimestampTz now;
	TimestampTz next;
} Look;

static void
come_again(Look *look, TimestampTz when)
{
	look->next = Min(look->next, when);
}

static bool
begin(Look *look)
{
	if (jobq_keeper_begin(look->session->db->install))
		return true;
	come_again(look, look->now + LOCK_PAUSE);
	return false;
}

/* Leave an epoch alone for a while, each time longer. */
static void
put_off(Look *look, Known *epoch, int64 first, int64 longest)
{
	epoch->pause = Min(Max(epoch->pause * 2, first), longest);
	epoch->not_before = look->now + epoch->pause;
	come_again(look, epoch->not_before);
}

static bool
must_wait(Look *look, const Known *epoch)
{
	if (epoch->not_before <= look->now)
		return false;
	come_again(look, epoch->not_before);
	return true;
}

static void
no_more_pause(Known *epoch)
{
	epoch->pause = 0;
	epoch->not_before = 0;
}

/* ---- what there is ---- */

static Known *
find_known(Known *list, int n, int32 epoch)
{
	for (int i = 0; i < n; i++)
	{
		if (list[i].row.epoch == epoch)
			return &list[i];
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
	Known	   *list = MemoryContextAllocZero(fresh,
											  sizeof(Known) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		const Known *old = find_known(known, nknown, rows[i].epoch);

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
	known = list;
	nknown = n;
}

static void
set_hint(Look *look, int class_id, int32 epoch)
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
		classes[i].exists = false;
		classes[i].nepochs = 0;
		classes[i].open = 0;
	}
	for (int i = 0; i < n; i++)
	{
		classes[rows[i].class_id].exists = true;
		classes[rows[i].class_id].retention = rows[i].retention;
	}
	for (int i = 0; i < nknown; i++)
	{
		Class	   *class;

		if (!is_class(known[i].row.class_id))
			continue;
		class = &classes[known[i].row.class_id];
		class->nepochs++;
		if (known[i].row.closed_at == 0)
		{
			class->open = known[i].row.epoch;
			class->opened_at = known[i].row.opened_at;
		}
	}
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
		classes[i].used = i == JOBQ_CLASS_DEFAULT;
	for (int i = 0; i < n; i++)
	{
		if (is_class(queues[i].class_id))
			classes[queues[i].class_id].used = true;
	}
	queues_seen = changes;
}

/*
 * After a start of the server memory does not know how full the open epochs
 * are, and we do not know since when.
 */
static void
estimate_rows(Look *look, int class_id)
{
	pg_atomic_uint64 *rows = &look->session->db->epoch_rows[class_id];
	Class	   *class = &classes[class_id];
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
read_all(Look *look)
{
	JobqEpoch  *rows;
	int			n;

	if (!begin(look))
		return false;
	n = jobq_epoch_read(&rows);
	merge(rows, n);
	read_classes();
	read_used();
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		set_hint(look, i, classes[i].open);
		if (!looked && classes[i].open != 0)
			estimate_rows(look, i);
	}
	jobq_keeper_commit();
	looked = true;
	return true;
}

static int64
retention_of(const Known *epoch)
{
	return is_class(epoch->row.class_id) &&
		classes[epoch->row.class_id].exists ?
		classes[epoch->row.class_id].retention : USECS_PER_DAY;
}

/* Are there so many epochs of its class that old ones should go soon? */
static bool
is_pressed(const Known *epoch)
{
	return is_class(epoch->row.class_id) &&
		classes[epoch->row.class_id].nepochs > MANY_EPOCHS;
}

/* ---- close and open ---- */

/* The new one first: there is always one to write to. */
static bool
rotate(Look *look, int class_id)
{
	Class	   *class = &classes[class_id];
	int32		next;

	if (!begin(look))
		return false;
	if (!jobq_epoch_lock_numbers(true))
	{
		jobq_keeper_commit();
		come_again(look, look->now + LOCK_PAUSE);
		return false;
	}
	next = jobq_epoch_create(class_id);
	jobq_epoch_set_closed(class->open, jobq_now());
	jobq_keeper_commit();
	pg_atomic_write_u64(&look->session->db->epoch_rows[class_id], 0);
	set_hint(look, class_id, next);
	class->first_ticket = 0;
	return true;
}

static bool
tend_open(Look *look, int class_id)
{
	JobqDb	   *db = look->session->db;
	Class	   *class = &classes[class_id];
	int			excess = Max(class->nepochs - MANY_EPOCHS, 0);
	int			doublings = Min(excess / EPOCHS_PER_DOUBLING, MAX_DOUBLINGS);
	uint64		limit = (uint64) settings.rows << doublings;
	int64		age = Max(settings.age * USECS_PER_MS,
						  class->retention / AGES_PER_RETENTION);
	uint64		rows;

	if (class->open == 0)
		pg_atomic_write_u64(&db->epoch_rows[class_id], 0);
	pg_atomic_write_u64(&db->epoch_limit[class_id], limit);
	rows = pg_atomic_read_u64(&db->epoch_rows[class_id]);
	if (rows == 0)
	{
		class->first_ticket = 0;
		return false;
	}
	if (class->first_ticket == 0)
		class->first_ticket = look->now;
	age = Min(age << doublings, 3650 * USECS_PER_DAY);
	if (rows >= limit || class->first_ticket + age <= look->now)
		return rotate(look, class_id);
	come_again(look, class->first_ticket + age);
	return false;
}

/* ---- seal ---- */

static bool
seal(Look *look, Known *epoch)
{
	bool		sealed;

	if (must_wait(look, epoch) || !begin(look))
		return false;
	JOBQ_PAUSE("before-seal");
	sealed = jobq_epoch_no_writer(epoch->row.epoch);
	if (sealed)
		jobq_epoch_set_sealed(epoch->row.epoch, jobq_now());
	jobq_keeper_commit();
	if (sealed)
		no_more_pause(epoch);
	else
		put_off(look, epoch, LOCK_PAUSE, LOCK_PAUSE_MAX);
	count_wanted = count_wanted || sealed;
	return sealed;
}

/* ---- drain ---- */

static bool
is_draining(const Known *epoch)
{
	return epoch->row.sealed_at != 0 && epoch->row.drained_at == 0;
}

/*
 * How many of their tickets are in memory. Watching starts before counting, so
 * that no end is missed.
 */
static void
count_slots(Look *look)
{
	int32	   *epochs = palloc(sizeof(int32) * Max(nknown, 1));
	int64	   *counts = palloc(sizeof(int64) * Max(nknown, 1));
	TimestampTz start = jobq_now();
	int			n = 0;

	for (int i = 0; i < nknown; i++)
	{
		if (is_draining(&known[i]))
			epochs[n++] = known[i].row.epoch;
	}
	jobq_watch_epochs(look->session->db, n > 0 ? epochs[n - 1] : 0);
	ended_seen = false;
	(void) jobq_watched_gone(look->session->db);
	if (n > 0)
		jobq_slots_by_epoch(look->session->db, look->session->gen, epochs, n,
							counts);
	for (int i = 0; i < n; i++)
	{
		Known	   *epoch = find_known(known, nknown, epochs[i]);

		/* the last of them have just gone: no need to wait any more */
		if (counts[i] == 0 && epoch->slots > 0)
			no_more_pause(epoch);
		epoch->slots = counts[i];
	}
	count_wanted = false;
	next_count = jobq_now() +
		Max(COUNT_PAUSE, COUNT_SHARE * (jobq_now() - start));
	pfree(epochs);
	pfree(counts);
}

static void
note_drained(Look *look, Known *epoch)
{
	const JobqSurvey *survey = &epoch->survey;
	JobqTotal  *totals;
	int			n;

	if (!begin(look))
		return;
	n = jobq_survey_totals(&totals);
	jobq_epoch_set_drained(epoch->row.epoch, jobq_now(),
						   survey->last_finished != 0 ?
						   survey->last_finished : epoch->row.sealed_at,
						   totals, n);
	jobq_keeper_commit();
}

/* True when there was something to do. */
static bool
survey(Look *look, Known *epoch)
{
	int64		live;

	if (!jobq_survey_step(look->session, epoch->row.epoch, &epoch->survey))
		return true;
	epoch->surveyed_slots = epoch->slots;
	live = epoch->survey.jobs - epoch->survey.ended;
	if (live == 0)
	{
		no_more_pause(epoch);
		note_drained(look, epoch);
		return true;
	}
	if (live * CARRY_SHARE > epoch->survey.jobs)
		epoch->few_since = 0;
	else if (epoch->few_since == 0)
		epoch->few_since = look->now;
	if (epoch->slots == 0)
		put_off(look, epoch, SURVEY_PAUSE, SURVEY_PAUSE_MAX);
	return true;
}

static bool
history_is_too_large(void)
{
	int64		size = 0;

	for (int i = 0; i < nknown; i++)
		size += Max(known[i].size, 0);
	return settings.size >= 0 && size > settings.size * BYTES_PER_MB;
}

/* May its last tickets go elsewhere, so that it can go? */
static bool
may_carry(Look *look, const Known *epoch)
{
	TimestampTz due = epoch->row.sealed_at;

	if (!is_pressed(epoch) && !history_is_too_large())
		due += retention_of(epoch);
	if (due > look->now)
		come_again(look, due);
	return due <= look->now;
}

/* Few are left, behind their queues' frontiers. */
static bool
carry_from_disk(Look *look, Known *epoch)
{
	bool		more;

	if (!jobq_carry_from_disk(look->session, epoch->row.epoch,
							  &epoch->disk_from, &more))
	{
		come_again(look, look->now + LOCK_PAUSE);
		return false;
	}
	if (more)
		return true;
	epoch->disk_from = 0;
	epoch->few_since = 0;
	put_off(look, epoch, SURVEY_PAUSE, SURVEY_PAUSE_MAX);
	return false;
}

/* None is in memory: have all ended, or are some on disk only? */
static bool
drain(Look *look, Known *epoch)
{
	if (epoch->disk_from > 0)
		return carry_from_disk(look, epoch);
	if (must_wait(look, epoch))
		return false;
	if (epoch->few_since != 0 && epoch->survey.jobs > epoch->survey.ended &&
		may_carry(look, epoch))
		return carry_from_disk(look, epoch);
	if (jobq_survey_pays(look->session, epoch->row.epoch, &epoch->survey))
		return survey(look, epoch);
	put_off(look, epoch, SURVEY_PAUSE, SURVEY_PAUSE_MAX);
	return false;
}

/* Few of its tickets are left; shall they go elsewhere, so that it can go? */
static bool
carry(Look *look, Known *epoch)
{
	int64		wait = Min(CARRY_WAIT, settings.age * USECS_PER_MS);

	if (!may_carry(look, epoch))
		return false;
	if (epoch->carrying)
	{
		if (!jobq_carry_some(look->session, epoch->row.epoch,
							 &epoch->carry_from))
			come_again(look, look->now + LOCK_PAUSE);
		else if (epoch->carry_from != JOBQ_NIL)
			return true;
		epoch->carrying = epoch->carry_from != JOBQ_NIL;
		count_wanted = true;
		come_again(look, next_count);
		return false;
	}
	if (must_wait(look, epoch))
		return false;
	if (epoch->survey.jobs >= 0 &&
		(epoch->slots * CARRY_SHARE > epoch->survey.jobs ||
		 epoch->slots == epoch->surveyed_slots) && epoch->few_since == 0)
		return false;
	if (epoch->few_since == 0)
		return survey(look, epoch);
	if (epoch->few_since + wait > look->now)
	{
		come_again(look, epoch->few_since + wait);
		return false;
	}
	/* what cannot be carried now gets another chance later */
	put_off(look, epoch, SURVEY_PAUSE, SURVEY_PAUSE_MAX);
	epoch->carrying = true;
	epoch->carry_from = 0;
	return true;
}

static bool
tend_draining(Look *look)
{
	bool		any = false;

	for (int i = 0; i < nknown; i++)
		any = any || is_draining(&known[i]);
	if (!any)
	{
		jobq_watch_epochs(look->session->db, 0);
		return false;
	}
	if (count_wanted || ended_seen)
	{
		if (next_count > look->now)
			come_again(look, next_count);
		else
			count_slots(look);
	}
	for (int i = 0; i < nknown; i++)
	{
		if (!is_draining(&known[i]) || known[i].slots < 0)
			continue;
		if (known[i].slots == 0 ? drain(look, &known[i]) :
			carry(look, &known[i]))
			return true;
	}
	return false;
}

/* ---- drop ---- */

static bool
drop(Look *look, Known *epoch)
{
	bool		locked;

	if (!begin(look))
		return false;
	locked = jobq_epoch_lock_all(epoch->row.epoch);
	if (locked)
	{
		JOBQ_PAUSE("before-drop");
		jobq_epoch_drop_tables(epoch->row.epoch);
		JOBQ_PAUSE("inside-drop");
		jobq_epoch_forget(epoch->row.epoch);
		jobq_keeper_commit();
		return true;
	}
	AbortCurrentTransaction();
	put_off(look, epoch, LOCK_PAUSE, LOCK_PAUSE_MAX);
	return false;
}

static void
measure(Look *look)
{
	for (int i = 0; i < nknown; i++)
	{
		if (known[i].row.drained_at == 0 || known[i].size >= 0 || !begin(look))
			continue;
		known[i].size = jobq_epoch_size(known[i].row.epoch);
		jobq_keeper_commit();
	}
}

static Known *
oldest_drained(void)
{
	Known	   *oldest = NULL;

	for (int i = 0; i < nknown; i++)
	{
		if (known[i].row.drained_at != 0 &&
			(oldest == NULL ||
			 known[i].row.last_finished_at < oldest->row.last_finished_at))
			oldest = &known[i];
	}
	return oldest;
}

/* History goes before its time when it takes more room than it may. */
static bool
cut_history(Look *look)
{
	JobqDb	   *db = look->session->db;
	Known	   *oldest;

	if (settings.size < 0)
		return false;
	measure(look);
	oldest = oldest_drained();
	if (oldest == NULL || !history_is_too_large() ||
		must_wait(look, oldest) || !drop(look, oldest))
		return false;
	if (oldest->row.last_finished_at + retention_of(oldest) > look->now)
	{
		SpinLockAcquire(&db->mutex);
		db->history_cut_at = look->now;
		SpinLockRelease(&db->mutex);
	}
	return true;
}

static bool
tend_drained(Look *look)
{
	for (int i = 0; i < nknown; i++)
	{
		Known	   *epoch = &known[i];
		TimestampTz due = epoch->row.last_finished_at + retention_of(epoch);

		if (epoch->row.drained_at == 0)
			continue;
		if (due > look->now)
			come_again(look, due);
		else if (!must_wait(look, epoch) && drop(look, epoch))
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
forget_class(Look *look, int class_id)
{
	Class	   *class = &classes[class_id];

	if (!begin(look))
		return false;
	if (!ConditionalLockRelationOid(look->session->db->install,
									ShareRowExclusiveLock) ||
		has_queue(class_id) ||
		(class->open != 0 && (!jobq_epoch_lock_all(class->open) ||
							  !is_empty(class->open))))
	{
		AbortCurrentTransaction();
		class->forget_after = look->now + LOCK_PAUSE_MAX;
		come_again(look, class->forget_after);
		return false;
	}
	if (class->open != 0)
	{
		jobq_epoch_drop_tables(class->open);
		jobq_epoch_forget(class->open);
	}
	jobq_class_forget(class_id);
	jobq_keeper_commit();
	return true;
}

static bool
tend_class(Look *look, int class_id)
{
	Class	   *class = &classes[class_id];

	if (!class->exists || class->used ||
		class->nepochs > (class->open != 0 ? 1 : 0) ||
		pg_atomic_read_u64(&look->session->db->epoch_rows[class_id]) > 0)
		return false;
	if (class->forget_after > look->now)
	{
		come_again(look, class->forget_after);
		return false;
	}
	return forget_class(look, class_id);
}

/* ---- one call ---- */

/* True after a step that took its time: the others come first now. */
static bool
take_step(Look *look)
{
	if (!read_all(look))
		return false;
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		if (tend_open(look, i))
			return true;
	}
	for (int i = 0; i < nknown; i++)
	{
		if (known[i].row.closed_at != 0 && known[i].row.sealed_at == 0 &&
			seal(look, &known[i]))
			return true;
	}
	if (tend_drained(look))
		return true;
	for (int i = 1; i <= JOBQ_MAX_CLASSES; i++)
	{
		if (tend_class(look, i))
			return true;
	}
	return tend_draining(look);
}

/* An epoch that makes trouble must not keep leases from expiring. */
static void
take_step_safely(Look *look)
{
	PG_TRY();
	{
		if (take_step(look))
			look->next = look->now;
		error_pause = 0;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		LWLockReleaseAll();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		error_pause = Min(Max(error_pause * 2, ERROR_PAUSE), ERROR_PAUSE_MAX);
		look->next = look->now + error_pause;
		looked = false;
	}
	PG_END_TRY();
}

static bool
settings_changed(void)
{
	if (settings.rows == jobq_epoch_rows && settings.age == jobq_epoch_age &&
		settings.size == jobq_max_history_size)
		return false;
	settings.rows = jobq_epoch_rows;
	settings.age = jobq_epoch_age;
	settings.size = jobq_max_history_size;
	return true;
}

TimestampTz
jobq_tend_epochs(const JobqSession *session, TimestampTz now)
{
	Look		look = {.session = session,.now = now,.next = JOBQ_NEVER};
	bool		wanted = settings_changed();

	if (jobq_take_epoch_news(session->db))
	{
		/* it may come before the word that the catalog has changed */
		queues_seen = 0;
		wanted = true;
	}
	if (jobq_maintenance_wanted(session->db))
	{
		for (int i = 0; i < nknown; i++)
			no_more_pause(&known[i]);
		next_count = 0;
		count_wanted = true;
		wanted = true;
	}
	ended_seen = jobq_watched_gone(session->db) || ended_seen;
	if (!wanted && now < next_look)
	{
		if (!ended_seen)
			return next_look;
		if (now < next_count)
			return Min(next_look, next_count);
	}
	take_step_safely(&look);
	next_look = look.next;
	return next_look;
}
