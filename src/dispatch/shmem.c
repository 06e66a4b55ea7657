/*
 * shmem.c: the shared memory itself, the entries of databases, and waking the
 * workers that look after them. Must not know what slots and queues mean.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "compat.h"
#include "dispatch/audit.h"
#include "dispatch/internal.h"
#include "dispatch/keyuse.h"
#include "dispatch/lockout.h"
#include "dispatch/meter.h"
#include "dispatch/rate.h"
#include "errors.h"

#define TRANCHE_NAME			"pg_jobq"

/*
 * Locks of the tranche: control, tallies, rates, refusals, hash, then one for
 * each part.
 */
#define CONTROL_LOCKS			4
#define FIRST_PART_LOCK			(CONTROL_LOCKS + JOBQ_HASH_LOCKS)

JobqControl *jobq_control;
JobqDb	   *jobq_dbs;
JobqPart   *jobq_parts;
JobqSlot   *jobq_slots;
int32	   *jobq_buckets;
uint32		jobq_bucket_mask;
LWLockPadded *jobq_hash_locks;

static void (*previous_request) (void);
static shmem_startup_hook_type previous_startup;

/* ---- setting up ---- */

static uint32
bucket_count(void)
{
	return pg_nextpower2_32((uint32) jobq_max_live_jobs);
}

static Size
dbs_size(void)
{
	return mul_size(jobq_max_databases, sizeof(JobqDb));
}

static Size
parts_size(void)
{
	return mul_size(jobq_max_queues, sizeof(JobqPart));
}

static Size
slots_size(void)
{
	return mul_size(jobq_max_live_jobs, sizeof(JobqSlot));
}

static Size
buckets_size(void)
{
	return mul_size(bucket_count(), sizeof(int32));
}

static void
shmem_request(void)
{
	Size		size = MAXALIGN(sizeof(JobqControl));

	if (previous_request)
		previous_request();
	size = add_size(size, MAXALIGN(dbs_size()));
	size = add_size(size, MAXALIGN(parts_size()));
	size = add_size(size, MAXALIGN(slots_size()));
	size = add_size(size, MAXALIGN(buckets_size()));
	size = add_size(size, jobq_window_pool_size());
	size = add_size(size, jobq_admit_shmem_size());
	size = add_size(size, jobq_rates_shmem_size());
	size = add_size(size, jobq_group_pool_size());
	size = add_size(size, MAXALIGN(jobq_meters_size()));
	size = add_size(size, MAXALIGN(jobq_tallies_size()));
	size = add_size(size, MAXALIGN(jobq_refusals_size()));
	size = add_size(size, jobq_wait_shmem_size());
	size = add_size(size, MAXALIGN(jobq_late_size()));
	size = add_size(size, jobq_lockout_size());
	size = add_size(size, jobq_key_uses_size());
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche(TRANCHE_NAME,
							  FIRST_PART_LOCK + jobq_max_queues);
	jobq_lockout_request();
	jobq_key_uses_request();
}

static void
init_control(LWLockPadded *locks)
{
	memset(jobq_control, 0, sizeof(JobqControl));
	jobq_control->lock = &locks[0].lock;
	jobq_control->launcher_proc = -1;
	pg_atomic_init_u32(&jobq_control->rescan, 0);
	pg_atomic_init_u32(&jobq_control->worker_slots_exhausted, 0);
	pg_atomic_init_u32(&jobq_control->parts_lacking, 0);
	pg_atomic_init_u32(&jobq_control->preload_first, 0);
	pg_atomic_init_u32(&jobq_control->test_paused, 0);
	SpinLockInit(&jobq_control->free_mutex);
	if (!pg_strong_random(jobq_control->group_seed,
						  sizeof(jobq_control->group_seed)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random numbers"),
				 errdetail("Group keys of jobs need them."),
				 errhint("Start the server again.")));
	jobq_control->free_head = 0;
	jobq_control->free_count = jobq_max_live_jobs;
	pg_atomic_init_u32(&jobq_control->share, (uint32) jobq_max_live_jobs);
}

static void
init_dbs(void)
{
	memset(jobq_dbs, 0, dbs_size());
	for (int i = 0; i < jobq_max_databases; i++)
	{
		SpinLockInit(&jobq_dbs[i].mutex);
		jobq_dbs[i].keeper_proc = -1;
		for (int c = 0; c <= JOBQ_MAX_CLASSES; c++)
		{
			pg_atomic_init_u64(&jobq_dbs[i].epoch_rows[c], 0);
			pg_atomic_init_u64(&jobq_dbs[i].epoch_limit[c], 0);
		}
		pg_atomic_init_u32(&jobq_dbs[i].epoch_watched, 0);
	}
}

static void
init_parts(LWLockPadded *locks)
{
	memset(jobq_parts, 0, parts_size());
	for (int i = 0; i < jobq_max_queues; i++)
	{
		jobq_parts[i].lock = &locks[FIRST_PART_LOCK + i].lock;
		jobq_parts[i].db = -1;
		pg_atomic_init_u64(&jobq_parts[i].entries, 0);
		pg_atomic_init_u64(&jobq_parts[i].claimers, 0);
		jobq_tree_init(&jobq_parts[i].ready_tree);
		jobq_tree_init(&jobq_parts[i].lease_tree);
		jobq_tree_init(&jobq_parts[i].expiry_tree);
		jobq_parts[i].oldest = JOBQ_NEVER;
		jobq_tree_init(&jobq_parts[i].limits.keys_tree);
		jobq_parts[i].limits.keys_oldest = JOBQ_NIL;
		jobq_parts[i].limits.keys_newest = JOBQ_NIL;
		jobq_tree_init(&jobq_parts[i].groups.by_key);
		jobq_part_groups_reset(&jobq_parts[i]);
		jobq_part_waiters_init(&jobq_parts[i]);
	}
}

static void
init_slots(void)
{
	memset(jobq_slots, 0, slots_size());
	for (int i = 0; i < jobq_max_live_jobs; i++)
	{
		bool		last = i + 1 == jobq_max_live_jobs;

		jobq_slots[i].node.left = last ? JOBQ_NIL : i + 1;
		jobq_slots[i].node.right = JOBQ_NIL;
		jobq_slots[i].hash_next = JOBQ_NIL;
		jobq_slots[i].db = -1;
		jobq_slots[i].group = JOBQ_NO_GROUP;
	}
	for (uint32 i = 0; i <= jobq_bucket_mask; i++)
		jobq_buckets[i] = JOBQ_NIL;
}

/* Also runs when the server starts over after a crash. */
static void
shmem_startup(void)
{
	LWLockPadded *locks;
	bool		found;

	if (previous_startup)
		previous_startup();

	jobq_control = NULL;
	jobq_dbs = NULL;
	jobq_parts = NULL;
	jobq_slots = NULL;
	jobq_buckets = NULL;
	jobq_bucket_mask = bucket_count() - 1;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche(TRANCHE_NAME);
	jobq_hash_locks = &locks[CONTROL_LOCKS];
	jobq_control = ShmemInitStruct("pg_jobq control", sizeof(JobqControl),
								   &found);
	if (!found)
		init_control(locks);
	jobq_dbs = ShmemInitStruct("pg_jobq databases", dbs_size(), &found);
	if (!found)
		init_dbs();
	jobq_parts = ShmemInitStruct("pg_jobq queues", parts_size(), &found);
	if (!found)
		init_parts(locks);
	jobq_buckets = ShmemInitStruct("pg_jobq hash", buckets_size(), &found);
	jobq_slots = ShmemInitStruct("pg_jobq slots", slots_size(), &found);
	if (!found)
		init_slots();
	jobq_window_pool_startup();
	jobq_admit_shmem_startup();
	jobq_rates_shmem_startup(&locks[2].lock);
	jobq_group_pool_startup();
	jobq_meters_init();
	jobq_tallies_init(&locks[1].lock);
	jobq_refusals_init(&locks[3].lock);
	jobq_wait_shmem_init();
	jobq_late_init();
	jobq_lockout_init();
	jobq_key_uses_init();
	LWLockRelease(AddinShmemInitLock);

	jobq_part_prepare();
}

void
jobq_shmem_install_hooks(void)
{
	jobq_on_shmem_request(shmem_request, &previous_request);
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* ---- entries of databases; callers hold control->lock ---- */

static JobqDb *
find_entry(Oid dbid)
{
	for (int i = 0; i < jobq_max_databases; i++)
		if (jobq_dbs[i].dbid == dbid)
			return &jobq_dbs[i];
	return NULL;
}

/*
 * Forget everything about an installation. What belongs to the database as
 * such stays: who its keeper is, and what commands want of it.
 */
static void
reset_entry(JobqDb *db, Oid dbid, Oid install)
{
	uint32		gen = ++jobq_control->gen_last;

	SpinLockAcquire(&db->mutex);
	db->dbid = dbid;
	db->install = install;
	db->gen = gen;
	db->state = JOBQ_DB_NEW;
	db->number_next = 0;
	db->number_limit = 0;
	db->spare_start = 0;
	db->lease_last = 0;
	db->lease_limit = 0;
	for (int i = 0; i <= JOBQ_MAX_CLASSES; i++)
	{
		db->open_epoch[i] = 0;
		pg_atomic_write_u64(&db->epoch_rows[i], 0);
		pg_atomic_write_u64(&db->epoch_limit[i], 0);
	}
	pg_atomic_write_u32(&db->epoch_watched, 0);
	db->epoch_news = false;
	db->epoch_ended = false;
	db->history_cut_at = 0;
	db->keeper_wake_at = JOBQ_NEVER;
	db->shelf_next = JOBQ_NEVER;
	db->shelf_low = DT_NOBEGIN;
	db->shelf_low_id = 0;
	db->shelf_missed = JOBQ_NEVER;
	db->dead_next = JOBQ_NEVER;
	db->key_uses_due = JOBQ_NEVER;
	db->careful_until = 0;
	db->lost_leases = false;
	db->loading_leases = false;
	db->lost_parts = false;
	for (int i = 0; i < JOBQ_MAX_PREPARED; i++)
	{
		db->prepared[i].xid = InvalidTransactionId;
	}
	db->index_conflicts = 0;
	db->spills = 0;
	db->cron_news = false;
	db->cron_since = 0;
	db->copy = false;
	db->start_paused = false;
	db->adopted = false;
	db->audit_last = -1;
	db->audit_news = JOBQ_NEVER;
	SpinLockRelease(&db->mutex);
}

/* A free entry becomes a database's; NULL when there is none. */
static JobqDb *
new_entry(Oid dbid, Oid install)
{
	JobqDb	   *db = find_entry(InvalidOid);

	if (db == NULL)
		return NULL;
	reset_entry(db, dbid, install);
	SpinLockAcquire(&db->mutex);
	db->keeper_proc = -1;
	db->keeper_pid = 0;
	db->wanted = false;
	db->holds = 0;
	db->barred = false;
	db->dropped = false;
	SpinLockRelease(&db->mutex);
	return db;
}

/* ---- entries of databases, for all ---- */

JobqDb *
jobq_db_find(Oid dbid)
{
	JobqDb	   *db;

	if (jobq_control == NULL || !OidIsValid(dbid))
		return NULL;
	LWLockAcquire(jobq_control->lock, LW_SHARED);
	db = find_entry(dbid);
	LWLockRelease(jobq_control->lock);
	return db;
}

/* The entry, made or reset as needed; NULL when there is no room. */
static JobqDb *
make_entry(Oid dbid, Oid install)
{
	JobqDb	   *db;
	bool		changed = false;

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	db = find_entry(dbid);
	if (db == NULL)
	{
		db = new_entry(dbid, install);
		changed = true;
	}
	else if (db->install != install)
	{
		reset_entry(db, dbid, install);
		changed = true;
	}
	LWLockRelease(jobq_control->lock);

	if (db == NULL || !changed)
		return db;
	SpinLockAcquire(&db->mutex);
	db->wanted = true;
	SpinLockRelease(&db->mutex);
	jobq_wake_keeper(db);
	jobq_wake_launcher();
	return db;
}

static bool
is_entry_of(JobqDb *db, Oid dbid, Oid install)
{
	bool		is;

	SpinLockAcquire(&db->mutex);
	is = db->dbid == dbid && db->install == install;
	SpinLockRelease(&db->mutex);
	return is;
}

JobqDb *
jobq_db_try_attach(Oid dbid, Oid install)
{
	static JobqDb *attached = NULL; /* what this process got last */
	JobqDb	   *db;
	bool		current;

	if (jobq_control == NULL)
		return NULL;
	if (attached != NULL && is_entry_of(attached, dbid, install))
		return attached;

	LWLockAcquire(jobq_control->lock, LW_SHARED);
	db = find_entry(dbid);
	current = db != NULL && db->install == install;
	LWLockRelease(jobq_control->lock);
	if (!current)
		db = make_entry(dbid, install);
	attached = db;
	return db;
}

JobqDb *
jobq_db_attach(Oid dbid, Oid install)
{
	JobqDb	   *db = jobq_db_try_attach(dbid, install);

	if (jobq_control == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_jobq must be loaded through shared_preload_libraries"),
				 errdetail("It has no shared memory in this server."),
				 errhint("Put pg_jobq first in shared_preload_libraries and restart the server.")));
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases use pg_jobq"),
				 errdetail("There is room for %d databases.",
						   jobq_max_databases),
				 errhint("Raise jobq.max_databases and restart the server.")));
	return db;
}

/*
 * Slots and parts of earlier generations. To free the entry as well, its
 * generation ends first, so that nothing new comes in; whoever attaches
 * meanwhile begins another one and keeps the entry.
 */
void
jobq_db_sweep(JobqDb *db, bool everything)
{
	uint32		gen;

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	if (everything)
		reset_entry(db, db->dbid, InvalidOid);
	gen = db->gen;
	LWLockRelease(jobq_control->lock);

	jobq_part_free_before(db, gen);
	jobq_rates_forget_before(db, gen);
	jobq_key_uses_free_others(db, gen);
	jobq_wake_for_job(db, 0);
	if (!everything)
		return;
	jobq_refusals_forget(db);

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	if (db->gen == gen)
	{
		SpinLockAcquire(&db->mutex);
		db->dbid = InvalidOid;
		db->dropped = false;
		db->wanted = false;
		SpinLockRelease(&db->mutex);
	}
	LWLockRelease(jobq_control->lock);
}

void
jobq_db_reset(JobqDb *db, uint32 gen)
{
	bool		current;

	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	current = db->gen == gen && OidIsValid(db->dbid);
	if (current)
		reset_entry(db, db->dbid, InvalidOid);
	LWLockRelease(jobq_control->lock);
	if (current)
		jobq_db_sweep(db, false);
}

void
jobq_db_restart(JobqDb *db, uint32 gen)
{
	LWLockAcquire(jobq_control->lock, LW_EXCLUSIVE);
	if (db->gen == gen && OidIsValid(db->dbid))
	{
		reset_entry(db, db->dbid, db->install);
		SpinLockAcquire(&db->mutex);
		db->adopted = true;
		db->wanted = true;
		SpinLockRelease(&db->mutex);
	}
	LWLockRelease(jobq_control->lock);
	jobq_wake_keeper(db);
	jobq_wake_launcher();
}

bool
jobq_db_ready(JobqDb *db, uint32 gen)
{
	bool		ready;

	SpinLockAcquire(&db->mutex);
	ready = db->gen == gen && db->state == JOBQ_DB_READY;
	SpinLockRelease(&db->mutex);
	return ready;
}

/* ---- timers and waking ---- */

void
jobq_wake_keeper(JobqDb *db)
{
	int			proc;

	SpinLockAcquire(&db->mutex);
	proc = db->keeper_proc;
	SpinLockRelease(&db->mutex);
	if (proc >= 0)
		jobq_set_latch(proc);
}

void
jobq_wake_keeper_by(JobqDb *db, TimestampTz when)
{
	int			proc;

	SpinLockAcquire(&db->mutex);
	proc = when < db->keeper_wake_at ? db->keeper_proc : -1;
	SpinLockRelease(&db->mutex);
	if (proc >= 0)
		jobq_set_latch(proc);
}

void
jobq_wake_launcher(void)
{
	int			proc = jobq_control->launcher_proc;

	if (proc >= 0)
		jobq_set_latch(proc);
}

void
jobq_set_alarm(JobqDb *db, TimestampTz when)
{
	SpinLockAcquire(&db->mutex);
	db->keeper_wake_at = when;
	SpinLockRelease(&db->mutex);
}

void
jobq_db_shelf_due(JobqDb *db, TimestampTz when)
{
	SpinLockAcquire(&db->mutex);
	db->shelf_next = Min(db->shelf_next, when);
	db->shelf_missed = Min(db->shelf_missed, when);
	if (when <= db->shelf_low)
	{
		db->shelf_low = when;
		db->shelf_low_id = 0;
	}
	SpinLockRelease(&db->mutex);
	jobq_wake_keeper_by(db, when);
}

void
jobq_db_shelf_walk(JobqDb *db, TimestampTz *run_at, int64 *id)
{
	SpinLockAcquire(&db->mutex);
	*run_at = db->shelf_low;
	*id = db->shelf_low_id;
	db->shelf_missed = JOBQ_NEVER;
	db->shelf_next = JOBQ_NEVER;
	SpinLockRelease(&db->mutex);
}

void
jobq_db_shelf_walked(JobqDb *db, uint32 gen, TimestampTz run_at, int64 id,
					 TimestampTz next)
{
	SpinLockAcquire(&db->mutex);
	if (db->gen == gen)
	{
		bool		missed = db->shelf_missed <= run_at;

		db->shelf_low = missed ? db->shelf_missed : run_at;
		db->shelf_low_id = missed ? 0 : id;
		db->shelf_next = Min(db->shelf_next, next);
	}
	SpinLockRelease(&db->mutex);
}

void
jobq_db_dead_due(JobqDb *db, TimestampTz when)
{
	SpinLockAcquire(&db->mutex);
	db->dead_next = Min(db->dead_next, when);
	SpinLockRelease(&db->mutex);
	jobq_wake_keeper_by(db, when);
}

void
jobq_db_key_uses_due(JobqDb *db, TimestampTz when)
{
	SpinLockAcquire(&db->mutex);
	db->key_uses_due = Min(db->key_uses_due, when);
	SpinLockRelease(&db->mutex);
	jobq_wake_keeper_by(db, when);
}

TimestampTz
jobq_db_take_key_uses_due(JobqDb *db)
{
	TimestampTz due;

	SpinLockAcquire(&db->mutex);
	due = db->key_uses_due;
	db->key_uses_due = JOBQ_NEVER;
	SpinLockRelease(&db->mutex);
	return due;
}

void
jobq_wake_refillers(void)
{
	for (int i = 0; i < jobq_max_queues; i++)
	{
		const JobqPart *part = &jobq_parts[i];
		int			db = part->db;

		/* looked at without a lock: a wake-up too many or, just as a queue
		 * spills, one too few, which its own publisher makes good */
		if (db >= 0 && (part->frontier.priority != JOBQ_KEY_END ||
						part->groups.spilled > 0))
			jobq_wake_keeper(&jobq_dbs[db]);
	}
}

/* ---- rounds on request ---- */

int64
jobq_maintenance_ask(JobqDb *db)
{
	int64		asked;

	SpinLockAcquire(&db->mutex);
	asked = ++db->maintenance_asked;
	SpinLockRelease(&db->mutex);
	jobq_wake_keeper(db);
	return asked;
}

bool
jobq_maintenance_is_done(JobqDb *db, int64 asked)
{
	bool		done;

	SpinLockAcquire(&db->mutex);
	done = db->maintenance_done >= asked;
	SpinLockRelease(&db->mutex);
	return done;
}

int64
jobq_maintenance_asked(JobqDb *db)
{
	int64		asked;

	SpinLockAcquire(&db->mutex);
	asked = db->maintenance_asked;
	SpinLockRelease(&db->mutex);
	return asked;
}

void
jobq_maintenance_finish(JobqDb *db, int64 asked)
{
	SpinLockAcquire(&db->mutex);
	db->maintenance_done = asked;
	SpinLockRelease(&db->mutex);
}

bool
jobq_maintenance_wanted(JobqDb *db)
{
	return !jobq_maintenance_is_done(db, jobq_maintenance_asked(db));
}
