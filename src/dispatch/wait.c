/*
 * wait.c: sessions that wait, and waking them: for each job that can be taken
 * one of those who wait for its queue. A wake-up that was not used is passed
 * on. Knows nothing of transactions: sleeping is src/engine/wait.c.
 *
 * Waking runs in commit and abort callbacks: must not allocate, raise an error
 * or look at more than JOBQ_CHUNK waiters under a lock.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "compat.h"
#include "dispatch/internal.h"

/* In the list of a part; all under the part's lock. */
typedef struct WaitLink
{
	int32		part;			/* JOBQ_NIL = in no list */
	int32		previous;
	int32		next;
	int32		kind;			/* JobqWaitKind */
} WaitLink;

/* JobqWaiter.woken: 0 = not yet; up to JOBQ_WAIT_QUEUES: 1 + the link by which
 * it was; or not for a job. */
#define WOKEN_TO_LOOK_AGAIN		(JOBQ_WAIT_QUEUES + 1)

/*
 * A session, by its pgprocno. It alone puts itself into lists; whoever wakes
 * it takes it out of one.
 */
typedef struct JobqWaiter
{
	pg_atomic_uint32 woken;
	WaitLink	links[JOBQ_WAIT_QUEUES];

	/* waits for the end of a job; under the hash lock of its id */
	int32		db;				/* -1 = for none */
	int64		job;
	int32		previous;
	int32		next;
} JobqWaiter;

typedef struct JobqWaitRoom
{
	pg_atomic_uint64 wakeups;	/* so many times somebody was woken */
	pg_atomic_uint32 job_waiters;	/* how many wait for the end of a job */
	JobqWaitList jobs[JOBQ_HASH_LOCKS]; /* they, each under the hash lock of
										 * the number */
	JobqWaiter	waiters[FLEXIBLE_ARRAY_MEMBER];
} JobqWaitRoom;

static JobqWaitRoom *room;

/* What this session knows of itself. */
typedef struct Place
{
	JobqPart   *part;			/* NULL = never used */
	uint32		gen;
	int32		queue_id;
} Place;

static Place places[JOBQ_WAIT_QUEUES];
static int	nplaces;			/* of the present wait */
static Place owed;				/* woken for it, not used yet; or part NULL */

/* ---- setting up ---- */

static Size
room_size(void)
{
	return add_size(offsetof(JobqWaitRoom, waiters),
					mul_size(jobq_max_backends(), sizeof(JobqWaiter)));
}

Size
jobq_wait_shmem_size(void)
{
	return MAXALIGN(room_size());
}

static void
init_waiter(JobqWaiter *waiter)
{
	pg_atomic_init_u32(&waiter->woken, 0);
	for (int i = 0; i < JOBQ_WAIT_QUEUES; i++)
		waiter->links[i].part = JOBQ_NIL;
	waiter->db = -1;
}

void
jobq_wait_shmem_init(void)
{
	bool		found;

	room = ShmemInitStruct("pg_jobq waiters", room_size(), &found);
	if (found)
		return;
	pg_atomic_init_u64(&room->wakeups, 0);
	pg_atomic_init_u32(&room->job_waiters, 0);
	for (int i = 0; i < JOBQ_HASH_LOCKS; i++)
		room->jobs[i] = (JobqWaitList) {JOBQ_NIL, JOBQ_NIL};
	for (int i = 0; i < jobq_max_backends(); i++)
		init_waiter(&room->waiters[i]);
}

void
jobq_part_waiters_init(JobqPart *part)
{
	pg_atomic_init_u32(&part->waiters.arriving, 0);
	jobq_part_waiters_reset(part);
}

/* Whoever waits there has been woken when the part was closed. */
void
jobq_part_waiters_reset(JobqPart *part)
{
	for (int kind = 0; kind < WAIT_KINDS; kind++)
		part->waiters.lists[kind] = (JobqWaitList) {JOBQ_NIL, JOBQ_NIL};
	part->waiters.timer_proc = -1;
	pg_atomic_write_u32(&part->waiters.arriving, 0);
}

/* ---- lists of a part; under its lock ---- */

/* Links are numbered through: those of one waiter follow each other. */
static WaitLink *
link_at(int32 number)
{
	JobqWaiter *waiter = &room->waiters[number / JOBQ_WAIT_QUEUES];

	return &waiter->links[number % JOBQ_WAIT_QUEUES];
}

static void
append(JobqPart *part, int32 number, JobqWaitKind kind)
{
	JobqWaitList *list = &part->waiters.lists[kind];
	WaitLink   *link = link_at(number);

	link->part = jobq_part_index(part);
	link->kind = kind;
	link->next = JOBQ_NIL;
	link->previous = list->last;
	if (list->last != JOBQ_NIL)
		link_at(list->last)->next = number;
	else
		list->first = number;
	list->last = number;
}

static void
take_out(JobqPart *part, int32 number)
{
	WaitLink   *link = link_at(number);
	JobqWaitList *list = &part->waiters.lists[link->kind];

	if (link->previous != JOBQ_NIL)
		link_at(link->previous)->next = link->next;
	else
		list->first = link->next;
	if (link->next != JOBQ_NIL)
		link_at(link->next)->previous = link->previous;
	else
		list->last = link->previous;
	link->part = JOBQ_NIL;
}

/* ---- waking ---- */

/* Those to be woken once the lock is released. */
typedef struct Batch
{
	int			procs[JOBQ_CHUNK];
	int			n;
	int			seen;			/* links or waiters looked at */
} Batch;

/* One that is awake already, for another queue, does not count. */
static void
add_to_batch(Batch *batch, int proc, uint32 why)
{
	pg_atomic_uint32 *woken = &room->waiters[proc].woken;
	uint32		asleep = 0;

	batch->seen++;
	if (pg_atomic_compare_exchange_u32(woken, &asleep, why))
		batch->procs[batch->n++] = proc;
}

static void
wake_batch(const Batch *batch)
{
	for (int i = 0; i < batch->n; i++)
		jobq_set_latch(batch->procs[i]);
	(void) pg_atomic_fetch_add_u64(&room->wakeups, batch->n);
}

/* Take up to n out of a list; under the part's lock. */
static void
pop(JobqPart *part, JobqWaitKind kind, int64 n, bool for_job, Batch *batch)
{
	JobqWaitList *list = &part->waiters.lists[kind];

	while (list->first != JOBQ_NIL && batch->n < n && batch->seen < JOBQ_CHUNK)
	{
		int32		number = list->first;

		take_out(part, number);
		add_to_batch(batch, number / JOBQ_WAIT_QUEUES, for_job ?
					 (uint32) (number % JOBQ_WAIT_QUEUES) + 1 :
					 WOKEN_TO_LOOK_AGAIN);
	}
}

static bool
nobody_waits(const JobqPart *part, JobqWaitKind kind)
{
	return part->waiters.lists[kind].first == JOBQ_NIL;
}

/*
 * Those who take a job themselves come first. Where max_active leaves no place,
 * whoever gives one back wakes somebody.
 */
void
jobq_wake_waiters(JobqPart *part, uint32 gen, int64 n)
{
	bool		more = n > 0 && !(nobody_waits(part, WAIT_TO_TAKE) &&
								  nobody_waits(part, WAIT_TO_LOOK));

	while (more)
	{
		Batch		batch = {.n = 0};

		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		if (part->db >= 0 && part->gen == gen)
		{
			n = Min(n, jobq_limits_places(part));
			pop(part, WAIT_TO_TAKE, n, true, &batch);
			pop(part, WAIT_TO_LOOK, n, true, &batch);
		}
		LWLockRelease(part->lock);
		wake_batch(&batch);
		n -= batch.n;
		more = n > 0 && batch.seen == JOBQ_CHUNK;
	}
}

/* All of the kinds first to last. */
static void
wake_kinds(JobqPart *part, uint32 gen, JobqWaitKind first, JobqWaitKind last)
{
	bool		more = false;

	for (int kind = first; kind <= (int) last; kind++)
		more |= !nobody_waits(part, kind);
	while (more)
	{
		Batch		batch = {.n = 0};

		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		for (int kind = first; kind <= (int) last && part->gen == gen; kind++)
			pop(part, kind, JOBQ_CHUNK, false, &batch);
		LWLockRelease(part->lock);
		wake_batch(&batch);
		more = batch.seen == JOBQ_CHUNK;
	}
}

void
jobq_wake_all_waiters(JobqPart *part, uint32 gen)
{
	wake_kinds(part, gen, 0, WAIT_KINDS - 1);
}

void
jobq_queue_has_changed(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);

	if (part != NULL)
		jobq_wake_all_waiters(part, gen);
}

/* ---- idle queues ---- */

/* Under the part's lock. Jobs that are scheduled for later do not count. */
static bool
is_idle(JobqPart *part)
{
	return part->ready == 0 && part->running == 0 && part->rolled_back == 0 &&
		part->counters[COUNT_AVAILABLE] <= 0 &&
		part->counters[COUNT_RETRYABLE] <= 0 &&
		pg_atomic_read_u32(&part->waiters.arriving) == 0;
}

bool
jobq_part_is_idle(JobqPart *part, uint32 gen)
{
	bool		idle;

	LWLockAcquire(part->lock, LW_SHARED);
	idle = jobq_part_is_mine(part, gen) && is_idle(part);
	LWLockRelease(part->lock);
	return idle;
}

void
jobq_wake_if_idle(JobqPart *part)
{
	uint32		gen = part->gen;
	bool		idle;

	if (nobody_waits(part, WAIT_TO_IDLE))
		return;
	LWLockAcquire(part->lock, LW_SHARED);
	idle = part->gen == gen && is_idle(part);
	LWLockRelease(part->lock);
	if (idle)
		wake_kinds(part, gen, WAIT_TO_IDLE, WAIT_TO_IDLE);
}

void
jobq_arrivals_begin(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_get(db, gen, queue_id);

	if (part != NULL)
		(void) pg_atomic_fetch_add_u32(&part->waiters.arriving, 1);
}

void
jobq_arrivals_end(JobqDb *db, uint32 gen, int32 queue_id)
{
	JobqPart   *part = jobq_part_find(db, gen, queue_id);
	uint32		n;

	if (part == NULL)
		return;
	/* none, if the part is another one by now */
	n = pg_atomic_read_u32(&part->waiters.arriving);
	while (n > 0 &&
		   !pg_atomic_compare_exchange_u32(&part->waiters.arriving, &n, n - 1))
		;
	jobq_wake_if_idle(part);
}

/* ---- waking those who wait for the end of a job ---- */

static void
wake_for_job(int bucket, int db, int64 job)
{
	LWLock	   *lock = &jobq_hash_locks[bucket].lock;
	Batch		batch;

	do
	{
		batch.n = batch.seen = 0;
		LWLockAcquire(lock, LW_SHARED);
		for (int32 at = room->jobs[bucket].first;
			 at != JOBQ_NIL && batch.n < JOBQ_CHUNK;
			 at = room->waiters[at].next)
		{
			if (room->waiters[at].db == db &&
				(job == 0 || room->waiters[at].job == job))
				add_to_batch(&batch, at, WOKEN_TO_LOOK_AGAIN);
		}
		LWLockRelease(lock);
		wake_batch(&batch);
	} while (batch.n == JOBQ_CHUNK);
}

void
jobq_wake_for_job(const JobqDb *db, int64 job)
{
	int			index = jobq_db_index(db);

	if (pg_atomic_read_u32(&room->job_waiters) == 0)
		return;
	if (job != 0)
	{
		wake_for_job(jobq_bucket(index, job) % JOBQ_HASH_LOCKS, index, job);
		return;
	}
	for (int i = 0; i < JOBQ_HASH_LOCKS; i++)
		wake_for_job(i, index, 0);
}

/* ---- the session that waits ---- */

static JobqWaiter *
me(void)
{
	return &room->waiters[jobq_my_procno()];
}

static int32
my_link(int i)
{
	return jobq_my_procno() * JOBQ_WAIT_QUEUES + i;
}

static void
leave_at_exit(int code, Datum arg)
{
	jobq_wait_end(false);
}

/* Once in each process that waits. */
static void
prepare(void)
{
	static bool prepared = false;

	if (prepared)
		return;
	before_shmem_exit(leave_at_exit, (Datum) 0);
	prepared = true;
}

static void
pass_on(const Place *place)
{
	if (place->part != NULL)
		jobq_wake_waiters(place->part, place->gen, 1);
}

/*
 * If we are the part's timer, which now goes: somebody else looks what there
 * is, and is the timer until it has found out for how long, or goes, too.
 */
static void
hand_timer_on(JobqPart *part, uint32 gen)
{
	while (part->gen == gen && part->waiters.timer_proc == jobq_my_procno())
	{
		Batch		batch = {.n = 0};

		LWLockAcquire(part->lock, LW_EXCLUSIVE);
		if (part->gen == gen)
		{
			pop(part, WAIT_TO_TAKE, 1, true, &batch);
			pop(part, WAIT_TO_LOOK, 1, true, &batch);
			if (batch.n > 0 || batch.seen < JOBQ_CHUNK)
				part->waiters.timer_proc = batch.n > 0 ? batch.procs[0] : -1;
			part->waiters.timer_at = 0;
		}
		LWLockRelease(part->lock);
		wake_batch(&batch);
	}
}

/* Out of the list, if we are still in it, and no timer any more. */
static void
leave_place(int i)
{
	const Place *place = &places[i];

	if (place->part == NULL)
		return;
	LWLockAcquire(place->part->lock, LW_EXCLUSIVE);
	if (link_at(my_link(i))->part == jobq_part_index(place->part))
		take_out(place->part, my_link(i));
	LWLockRelease(place->part->lock);
	hand_timer_on(place->part, place->gen);
}

/*
 * Under the part's lock: become its timer if there is none, or a later one.
 * True if we are.
 */
static bool
set_timer(JobqWaiters *waiters, TimestampTz at)
{
	bool		mine = waiters->timer_proc == jobq_my_procno();

	if (at == JOBQ_NEVER)
	{
		if (mine)
			waiters->timer_proc = -1;
		return false;
	}
	if (waiters->timer_proc >= 0 && !mine && at >= waiters->timer_at)
		return false;
	waiters->timer_proc = jobq_my_procno();
	waiters->timer_at = at;
	return true;
}

TimestampTz
jobq_wait_join(int i, JobqPart *part, uint32 gen, int32 queue_id,
			   JobqWaitKind kind, TimestampTz retry_at)
{
	Place	   *place = &places[i];
	bool		timed;

	prepare();
	if (place->part != NULL &&
		(place->part != part || place->gen != gen ||
		 place->queue_id != queue_id))
	{
		leave_place(i);
		place->part = NULL;
	}
	nplaces = Max(nplaces, i + 1);

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (!jobq_part_is(part, gen, queue_id))
	{
		LWLockRelease(part->lock);
		return 0;
	}
	if (place->part == NULL)
		*place = (Place) {part, gen, queue_id};
	if (link_at(my_link(i))->part != JOBQ_NIL &&
		link_at(my_link(i))->kind != (int32) kind)
		take_out(part, my_link(i));
	if (link_at(my_link(i))->part == JOBQ_NIL)
		append(part, my_link(i), kind);
	timed = set_timer(&part->waiters, retry_at);
	LWLockRelease(part->lock);
	return timed ? retry_at : JOBQ_NEVER;
}

bool
jobq_wait_is_woken(void)
{
	return pg_atomic_read_u32(&me()->woken) != 0;
}

/* What we owe from before goes to somebody else. */
bool
jobq_wait_awake(void)
{
	uint32		woken = pg_atomic_exchange_u32(&me()->woken, 0);

	if (woken == 0 || woken == WOKEN_TO_LOOK_AGAIN)
		return woken != 0;
	pass_on(&owed);
	owed = places[woken - 1];
	return false;
}

void
jobq_wakeup_used(uint32 gen, int32 queue_id)
{
	if (owed.part != NULL && owed.gen == gen && owed.queue_id == queue_id)
		owed.part = NULL;
}

void
jobq_wakeup_pass_on(void)
{
	pass_on(&owed);
	owed.part = NULL;
}

/* ---- waiting for the end of a job ---- */

void
jobq_wait_join_job(const JobqDb *db, int64 job)
{
	JobqWaiter *waiter = me();
	int			bucket = jobq_bucket(jobq_db_index(db), job) % JOBQ_HASH_LOCKS;
	JobqWaitList *list = &room->jobs[bucket];

	prepare();
	if (waiter->db >= 0)
		return;
	(void) pg_atomic_fetch_add_u32(&room->job_waiters, 1);
	LWLockAcquire(&jobq_hash_locks[bucket].lock, LW_EXCLUSIVE);
	waiter->db = jobq_db_index(db);
	waiter->job = job;
	waiter->next = JOBQ_NIL;
	waiter->previous = list->last;
	if (list->last != JOBQ_NIL)
		room->waiters[list->last].next = jobq_my_procno();
	else
		list->first = jobq_my_procno();
	list->last = jobq_my_procno();
	LWLockRelease(&jobq_hash_locks[bucket].lock);
}

static void
leave_job(void)
{
	JobqWaiter *waiter = me();
	int			bucket;
	JobqWaitList *list;

	if (waiter->db < 0)
		return;
	bucket = jobq_bucket(waiter->db, waiter->job) % JOBQ_HASH_LOCKS;
	list = &room->jobs[bucket];
	LWLockAcquire(&jobq_hash_locks[bucket].lock, LW_EXCLUSIVE);
	if (waiter->previous != JOBQ_NIL)
		room->waiters[waiter->previous].next = waiter->next;
	else
		list->first = waiter->next;
	if (waiter->next != JOBQ_NIL)
		room->waiters[waiter->next].previous = waiter->previous;
	else
		list->last = waiter->previous;
	waiter->db = -1;
	LWLockRelease(&jobq_hash_locks[bucket].lock);
	(void) pg_atomic_fetch_sub_u32(&room->job_waiters, 1);
}

/*
 * Nobody wakes us once we are in no list, so what has come until then is all
 * that we have to pass on.
 */
void
jobq_wait_end(bool keep)
{
	for (int i = 0; i < nplaces; i++)
		leave_place(i);
	leave_job();
	(void) jobq_wait_awake();
	for (int i = 0; i < nplaces; i++)
		places[i].part = NULL;
	nplaces = 0;
	if (!keep)
		jobq_wakeup_pass_on();
}

#ifdef JOBQ_TEST_BUILD

#include "fmgr.h"

PG_FUNCTION_INFO_V1(jobq_test_wakeups);

/* Under the part's lock: are its lists in order? */
bool
jobq_part_waiters_sound(const JobqPart *part)
{
	for (int kind = 0; kind < WAIT_KINDS; kind++)
	{
		const JobqWaitList *list = &part->waiters.lists[kind];
		int32		previous = JOBQ_NIL;

		for (int32 at = list->first; at != JOBQ_NIL; at = link_at(at)->next)
		{
			if (link_at(at)->part != jobq_part_index(part) ||
				link_at(at)->kind != kind ||
				link_at(at)->previous != previous)
				return false;
			previous = at;
		}
		if (list->last != previous)
			return false;
	}
	return true;
}


Datum
jobq_test_wakeups(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) pg_atomic_read_u64(&room->wakeups));
}

#endif							/* JOBQ_TEST_BUILD */
