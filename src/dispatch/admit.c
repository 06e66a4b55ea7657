/*
 * admit.c: may jobs be enqueued now: max_depth and enqueue_limit. What is
 * counted together, a role's or a group's, is a key of two numbers to us.
 *
 * Runs under the lock of the queue's part and in commit and abort callbacks:
 * must not allocate, raise an error or sleep.
 */
#include "postgres.h"

#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "dispatch/internal.h"

#define MIN_KEYS		256
#define JOBS_A_KEY		16

/*
 * What was enqueued under one key; in its part's tree and list, under the
 * part's lock, or in the list of free ones.
 */
typedef struct AdmitKey
{
	JobqTreeNode node;
	int32		older;			/* list by use; free list: the next one */
	int32		newer;
	uint64		key[2];
	JobqWindow	window;
} AdmitKey;

typedef struct KeyPool
{
	slock_t		mutex;
	int32		free;
} KeyPool;

static KeyPool *pool;
static AdmitKey *keys;

/* ---- the pool ---- */

static int32
key_count(void)
{
	return Max(MIN_KEYS, jobq_max_live_jobs / JOBS_A_KEY);
}

static Size
keys_size(void)
{
	return mul_size((Size) key_count(), sizeof(AdmitKey));
}

Size
jobq_admit_shmem_size(void)
{
	return add_size(MAXALIGN(sizeof(KeyPool)), MAXALIGN(keys_size()));
}

void
jobq_admit_shmem_startup(void)
{
	bool		found;

	pool = ShmemInitStruct("pg_jobq enqueue key pool", sizeof(KeyPool),
						   &found);
	keys = ShmemInitStruct("pg_jobq enqueue keys", keys_size(), &found);
	if (found)
		return;
	SpinLockInit(&pool->mutex);
	pool->free = 0;
	memset(keys, 0, keys_size());
	for (int32 i = 0; i < key_count(); i++)
		keys[i].older = i + 1 < key_count() ? i + 1 : JOBQ_NIL;
}

static int32
get_free(void)
{
	int32		number;

	SpinLockAcquire(&pool->mutex);
	number = pool->free;
	if (number != JOBQ_NIL)
		pool->free = keys[number].older;
	SpinLockRelease(&pool->mutex);
	return number;
}

static void
put_free(int32 number)
{
	SpinLockAcquire(&pool->mutex);
	keys[number].older = pool->free;
	pool->free = number;
	SpinLockRelease(&pool->mutex);
}

/* ---- the keys of a part ---- */

static int
compare_keys(const void *a, const void *b)
{
	const AdmitKey *x = a;
	const AdmitKey *y = b;

	for (int i = 0; i < 2; i++)
	{
		if (x->key[i] != y->key[i])
			return x->key[i] < y->key[i] ? -1 : 1;
	}
	return 0;
}

static const JobqTreeType key_tree = {
	sizeof(AdmitKey), offsetof(AdmitKey, node), compare_keys
};

static void
list_add(JobqLimits *limits, int32 number)
{
	keys[number].older = limits->keys_newest;
	keys[number].newer = JOBQ_NIL;
	if (limits->keys_newest != JOBQ_NIL)
		keys[limits->keys_newest].newer = number;
	else
		limits->keys_oldest = number;
	limits->keys_newest = number;
}

static void
list_remove(JobqLimits *limits, int32 number)
{
	AdmitKey   *key = &keys[number];

	if (key->older != JOBQ_NIL)
		keys[key->older].newer = key->newer;
	else
		limits->keys_oldest = key->newer;
	if (key->newer != JOBQ_NIL)
		keys[key->newer].older = key->older;
	else
		limits->keys_newest = key->older;
}

static void
forget_key(JobqLimits *limits, int32 number)
{
	jobq_window_clear(&keys[number].window);
	list_remove(limits, number);
	jobq_tree_remove(&key_tree, keys, &limits->keys_tree, number);
	put_free(number);
}

void
jobq_admit_reset(JobqLimits *limits)
{
	while (limits->keys_oldest != JOBQ_NIL)
		forget_key(limits, limits->keys_oldest);
	jobq_window_clear(&limits->admitted);
	limits->reserved = 0;
}

/* Those that have not been used for a whole period count nothing. */
static void
forget_idle(JobqLimits *limits, int64 period, TimestampTz now)
{
	while (limits->keys_oldest != JOBQ_NIL &&
		   keys[limits->keys_oldest].window.newest + period < now)
		forget_key(limits, limits->keys_oldest);
}

static int32
find_key(const JobqLimits *limits, const uint64 *key)
{
	AdmitKey	wanted;
	int32		at;

	wanted.key[0] = key[0];
	wanted.key[1] = key[1];
	at = limits->keys_tree.root;
	while (at != JOBQ_NIL)
	{
		int			order = compare_keys(&wanted, &keys[at]);

		if (order == 0)
			return at;
		at = order < 0 ? keys[at].node.left : keys[at].node.right;
	}
	return JOBQ_NIL;
}

static int32
make_key(JobqLimits *limits, const uint64 *key)
{
	int32		number = get_free();

	if (number == JOBQ_NIL)
		return JOBQ_NIL;
	memset(&keys[number], 0, sizeof(AdmitKey));
	keys[number].key[0] = key[0];
	keys[number].key[1] = key[1];
	jobq_tree_insert(&key_tree, keys, &limits->keys_tree, number);
	list_add(limits, number);
	return number;
}

static bool
is_by_queue(const uint64 *key)
{
	return key[0] == 0 && key[1] == 0;
}

/*
 * Where a key counts, JOBQ_NIL = with the queue's own: as those do for which
 * there was no room, and while they count there, all new ones. So a key never
 * gets more than the limit, and less only when there are very many keys.
 */
static int32
place_of(JobqLimits *limits, const uint64 *key, int64 period, TimestampTz now)
{
	int32		number;

	if (is_by_queue(key))
		return JOBQ_NIL;
	forget_idle(limits, period, now);
	number = find_key(limits, key);
	if (number != JOBQ_NIL || limits->admitted.total > 0)
		return number;
	return make_key(limits, key);
}

static JobqWindow *
window_of(JobqLimits *limits, int32 number)
{
	return number != JOBQ_NIL ? &keys[number].window : &limits->admitted;
}

static TimestampTz
add_to(JobqLimits *limits, int32 number, const JobqRate *rate,
	   TimestampTz now, int n)
{
	if (number != JOBQ_NIL)
	{
		list_remove(limits, number);
		list_add(limits, number);
	}
	return jobq_window_add(window_of(limits, number), rate->limit,
						   rate->period, now, n);
}

/* ---- one enqueue ---- */

static int64
waiting(const JobqPart *part)
{
	return part->counters[COUNT_AVAILABLE] + part->counters[COUNT_SCHEDULED] +
		part->counters[COUNT_RETRYABLE] + part->rolled_back +
		part->limits.reserved;
}

static JobqAdmitted
decide(JobqPart *part, JobqAdmission *admission)
{
	JobqLimits *limits = &part->limits;
	const JobqRate *rate = &admission->rate;
	TimestampTz now = GetCurrentTimestamp();
	JobqWindow *window;
	int32		number;

	admission->now = now;
	admission->used = waiting(part);
	if (admission->max_depth > 0 &&
		admission->used + admission->n > admission->max_depth)
		return ADMIT_FULL;
	if (rate->limit == 0)
		return ADMIT_OK;
	(void) jobq_window_room(&limits->admitted, rate->limit, rate->period, now);
	number = place_of(limits, admission->key, rate->period, now);
	window = window_of(limits, number);
	if (jobq_window_room(window, rate->limit, rate->period, now) >=
		admission->n)
	{
		admission->at = add_to(limits, number, rate, now, admission->n);
		return ADMIT_OK;
	}
	admission->used = window->total;
	admission->retry_at = jobq_window_when(window, rate->limit, rate->period,
										   admission->n);
	return ADMIT_TOO_FAST;
}

JobqAdmitted
jobq_admit_jobs(JobqPart *part, uint32 gen, JobqAdmission *admission)
{
	JobqAdmitted admitted = ADMIT_GONE;

	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen))
		admitted = decide(part, admission);
	if (admitted == ADMIT_OK)
		part->limits.reserved += admission->n;
	LWLockRelease(part->lock);
	return admitted;
}

void
jobq_admit_hold(JobqDb *db, uint32 gen, int32 queue_id, int n)
{
	JobqPart   *part = jobq_part_lock(db, gen, queue_id);

	if (part == NULL)
		return;
	part->limits.reserved += n;
	LWLockRelease(part->lock);
}

/* The part may have come and gone meanwhile, with its queue. */
void
jobq_admit_settled(JobqDb *db, uint32 gen, int32 queue_id, int n)
{
	JobqPart   *part = jobq_part_lock(db, gen, queue_id);

	if (part == NULL)
		return;
	part->limits.reserved = Max(part->limits.reserved - n, 0);
	LWLockRelease(part->lock);
}

void
jobq_admit_undone(JobqDb *db, uint32 gen, int32 queue_id, const uint64 *key,
				  int64 period, TimestampTz at, int n)
{
	JobqPart   *part = jobq_part_lock(db, gen, queue_id);
	JobqLimits *limits;
	int32		number;

	if (part == NULL)
		return;
	limits = &part->limits;
	number = is_by_queue(key) ? JOBQ_NIL : find_key(limits, key);
	jobq_window_take_back(window_of(limits, number), period,
						  GetCurrentTimestamp(), at, n);
	LWLockRelease(part->lock);
}

void
jobq_admit_load(JobqPart *part, uint32 gen, const JobqRate *rate,
				const uint64 *key, TimestampTz at)
{
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen))
		(void) add_to(&part->limits,
					  place_of(&part->limits, key, rate->period, at), rate, at,
					  1);
	LWLockRelease(part->lock);
}
