/*
 * rate.c: windows that have names: who may take how much now. What it is that
 * is taken, and who may ask, is not decided here.
 *
 * Under one lock: must not allocate, raise an error or sleep while it is held.
 */
#include "postgres.h"

#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "dispatch/internal.h"
#include "dispatch/rate.h"

#define CHUNKS_A_NAME	2		/* on average; beyond, entries are joined */
#define OWNERS_SHARE	4		/* one owner may have a fourth of all names */
#define SAVE_PART		60		/* a change is saved within period / 60, */
#define SAVE_MIN		USECS_PER_SEC	/* but not sooner than this */
#define SAVE_MAX		(60 * USECS_PER_SEC)	/* and not later */

/* A name that is in use, in both trees; or in the list of free ones. */
typedef struct RateName
{
	JobqTreeNode by_key;		/* free list: left is the next one */
	JobqTreeNode by_end;
	int32		db;
	uint32		gen;
	Oid			owner;
	char		name[JOBQ_RATE_NAME_MAX + 1];
	JobqRate	rate;			/* of the last call that took something */
	JobqWindow	window;
	TimestampTz end;			/* after that nothing in it counts */
	uint64		version;		/* goes up with each change; 0 = it is free */
	TimestampTz save_at;		/* JOBQ_NEVER = what is on disk is true */
} RateName;

/* Everything is under the lock. */
typedef struct Rates
{
	JobqTree	keys_tree;
	JobqTree	ends_tree;
	int32		free;
	int32		chunks;			/* of all windows */
	uint64		version;		/* the last one given */
} Rates;

static LWLock *rates_lock;
static Rates *rates;
static RateName *names;
static TimestampTz *next_save;	/* of each database: the keeper knows of it */

/* ---- setting up ---- */

static Size
names_size(void)
{
	return mul_size(jobq_max_rate_limits, sizeof(RateName));
}

static Size
saves_size(void)
{
	return mul_size(jobq_max_databases, sizeof(TimestampTz));
}

int32
jobq_rate_chunks(void)
{
	return jobq_max_rate_limits * CHUNKS_A_NAME;
}

int
jobq_rates_of_owner(void)
{
	return Max(jobq_max_rate_limits / OWNERS_SHARE, 1);
}

Size
jobq_rates_shmem_size(void)
{
	Size		size = MAXALIGN(sizeof(Rates));

	size = add_size(size, MAXALIGN(names_size()));
	return add_size(size, MAXALIGN(saves_size()));
}

void
jobq_rates_shmem_startup(LWLock *lock)
{
	bool		found;

	rates_lock = lock;
	rates = ShmemInitStruct("pg_jobq rates", sizeof(Rates), &found);
	names = ShmemInitStruct("pg_jobq names of rates", names_size(), &found);
	next_save = ShmemInitStruct("pg_jobq saved rates", saves_size(), &found);
	if (found)
		return;
	memset(rates, 0, sizeof(Rates));
	jobq_tree_init(&rates->keys_tree);
	jobq_tree_init(&rates->ends_tree);
	memset(names, 0, names_size());
	for (int i = 0; i < jobq_max_rate_limits; i++)
		names[i].by_key.left = i + 1 < jobq_max_rate_limits ? i + 1 : JOBQ_NIL;
	for (int i = 0; i < jobq_max_databases; i++)
		next_save[i] = JOBQ_NEVER;
}

/* ---- the names ---- */

/* By owner first, so that an owner's are together. */
static int
compare_keys(const void *a, const void *b)
{
	const RateName *x = a;
	const RateName *y = b;

	if (x->db != y->db)
		return x->db < y->db ? -1 : 1;
	if (x->gen != y->gen)
		return x->gen < y->gen ? -1 : 1;
	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int
compare_ends(const void *a, const void *b)
{
	const RateName *x = a;
	const RateName *y = b;

	if (x->end != y->end)
		return x->end < y->end ? -1 : 1;
	return compare_keys(a, b);
}

static const JobqTreeType key_tree = {
	sizeof(RateName), offsetof(RateName, by_key), compare_keys
};
static const JobqTreeType end_tree = {
	sizeof(RateName), offsetof(RateName, by_end), compare_ends
};

static void
fill_key(RateName *key, const JobqDb *db, uint32 gen, Oid owner,
		 const char *name)
{
	memset(key, 0, sizeof(*key));
	key->db = (int32) (db - jobq_dbs);
	key->gen = gen;
	key->owner = owner;
	strlcpy(key->name, name, sizeof(key->name));
}

static int32
find(const RateName *key)
{
	int32		at = rates->keys_tree.root;

	while (at != JOBQ_NIL)
	{
		int			order = compare_keys(key, &names[at]);

		if (order == 0)
			break;
		at = order < 0 ? names[at].by_key.left : names[at].by_key.right;
	}
	return at;
}

static void
forget(int32 number)
{
	RateName   *name = &names[number];

	rates->chunks -= jobq_window_chunks_of(&name->window);
	jobq_window_clear(&name->window);
	jobq_tree_remove(&key_tree, names, &rates->keys_tree, number);
	jobq_tree_remove(&end_tree, names, &rates->ends_tree, number);
	name->version = 0;
	name->by_key.left = rates->free;
	rates->free = number;
}

/* Of its names, those in which something counts. */
static bool
owner_is_full(const RateName *key, TimestampTz now)
{
	RateName	first = *key;
	int			n = 0;
	int32		at;

	first.name[0] = '\0';
	at = jobq_tree_after(&key_tree, names, &rates->keys_tree, &first);
	while (at != JOBQ_NIL && names[at].db == key->db &&
		   names[at].gen == key->gen && names[at].owner == key->owner)
	{
		n += names[at].end >= now;
		if (n >= jobq_rates_of_owner())
			return true;
		at = jobq_tree_after(&key_tree, names, &rates->keys_tree, &names[at]);
	}
	return false;
}

/* A new name; one in which nothing counts any more makes room for it. */
static JobqRated
make(const RateName *key, TimestampTz now, int32 *number)
{
	int32		first;

	if (owner_is_full(key, now))
		return RATE_OWNER_FULL;
	first = rates->ends_tree.first;
	if (rates->free == JOBQ_NIL && first != JOBQ_NIL &&
		names[first].end < now)
		forget(first);
	if (rates->free == JOBQ_NIL)
		return RATE_NO_ROOM;
	*number = rates->free;
	rates->free = names[*number].by_key.left;
	names[*number] = *key;
	names[*number].end = now;
	names[*number].save_at = JOBQ_NEVER;
	jobq_tree_insert(&key_tree, names, &rates->keys_tree, *number);
	jobq_tree_insert(&end_tree, names, &rates->ends_tree, *number);
	return RATE_ALLOWED;
}

/* ---- counting ---- */

/* When there are chunks for no more entries they are joined: see window.c. */
static void
count(int32 number, const JobqRate *rate, TimestampTz now, int32 n)
{
	RateName   *name = &names[number];
	JobqWindow *window = &name->window;
	int32		before = jobq_window_chunks_of(window);

	if (rates->chunks >= jobq_rate_chunks() && jobq_window_is_full(window))
		(void) jobq_window_join(window, rate->limit, rate->period, now, n);
	else
		(void) jobq_window_add(window, rate->limit, rate->period, now, n);
	rates->chunks += jobq_window_chunks_of(window) - before;
	jobq_tree_remove(&end_tree, names, &rates->ends_tree, number);
	name->rate = *rate;
	name->end = window->newest + rate->period;
	name->version = ++rates->version;
	jobq_tree_insert(&end_tree, names, &rates->ends_tree, number);
}

static int32
room_of(RateName *name, const JobqRate *rate, TimestampTz now)
{
	int32		before = jobq_window_chunks_of(&name->window);
	int32		room = jobq_window_room(&name->window, rate->limit,
										rate->period, now);

	rates->chunks += jobq_window_chunks_of(&name->window) - before;
	return room;
}

static int64
save_after(const JobqRate *rate)
{
	return Min(Max(rate->period / SAVE_PART, SAVE_MIN), SAVE_MAX);
}

/* Returns whether the keeper has to hear of it. */
static bool
want_saved(RateName *name, TimestampTz now)
{
	if (name->save_at != JOBQ_NEVER)
		return false;
	name->save_at = now + save_after(&name->rate);
	if (name->save_at >= next_save[name->db])
		return false;
	next_save[name->db] = name->save_at;
	return true;
}

static JobqRated
take(const RateName *key, JobqRateCall *call, TimestampTz *wake_at)
{
	int32		number = find(key);
	JobqRated	rated = RATE_ALLOWED;
	RateName   *name;

	call->now = call->reset_at = GetCurrentTimestamp();
	call->used = 0;
	if (number == JOBQ_NIL && call->cost == 0)
		return RATE_ALLOWED;
	if (number == JOBQ_NIL)
		rated = make(key, call->now, &number);
	if (rated != RATE_ALLOWED)
		return rated;
	name = &names[number];
	if (call->cost > room_of(name, &call->rate, call->now))
	{
		rated = RATE_REFUSED;
		call->retry_at = jobq_window_when(&name->window, call->rate.limit,
										  call->rate.period, call->cost);
	}
	else if (call->cost > 0)
	{
		count(number, &call->rate, call->now, call->cost);
		if (want_saved(name, call->now))
			*wake_at = name->save_at;
	}
	call->used = name->window.total;
	if (call->used > 0)
		call->reset_at = name->window.newest + call->rate.period + 1;
	return rated;
}

JobqRated
jobq_rate_take(JobqDb *db, uint32 gen, JobqRateCall *call)
{
	TimestampTz wake_at = JOBQ_NEVER;
	RateName	key;
	JobqRated	rated;

	fill_key(&key, db, gen, call->owner, call->name);
	LWLockAcquire(rates_lock, LW_EXCLUSIVE);
	rated = take(&key, call, &wake_at);
	LWLockRelease(rates_lock);
	if (wake_at != JOBQ_NEVER)
		jobq_wake_keeper_by(db, wake_at);
	return rated;
}

/* ---- on disk ---- */

static void
copy_out(const RateName *name, JobqRateSaved *saved)
{
	saved->owner = name->owner;
	strlcpy(saved->name, name->name, sizeof(saved->name));
	saved->rate = name->rate;
	saved->version = name->version;
	saved->n = jobq_window_copy(&name->window, JOBQ_RATE_SAVED, saved->at,
								saved->count);
}

/* What is nearly due goes along. */
int
jobq_rates_due(JobqDb *db, uint32 gen, TimestampTz now, bool all, int max,
			   JobqRateSaved *saved, TimestampTz *next)
{
	int32		number = (int32) (db - jobq_dbs);
	int			n = 0;

	*next = JOBQ_NEVER;
	LWLockAcquire(rates_lock, LW_EXCLUSIVE);
	for (int i = 0; i < jobq_max_rate_limits && n < max; i++)
	{
		RateName   *name = &names[i];

		if (name->version == 0 || name->save_at == JOBQ_NEVER ||
			name->db != number || name->gen != gen)
			continue;
		if (all || name->save_at <= now + save_after(&name->rate) / 2 ||
			name->save_at > now + SAVE_MAX)	/* the clock was set back */
			copy_out(name, &saved[n++]);
		else
			*next = Min(*next, name->save_at);
	}
	next_save[number] = n < max ? *next : now;
	LWLockRelease(rates_lock);
	return n;
}

void
jobq_rate_is_saved(JobqDb *db, uint32 gen, const JobqRateSaved *saved)
{
	RateName	key;
	int32		number;

	fill_key(&key, db, gen, saved->owner, saved->name);
	LWLockAcquire(rates_lock, LW_EXCLUSIVE);
	number = find(&key);
	if (number != JOBQ_NIL)
	{
		RateName   *name = &names[number];

		name->save_at = JOBQ_NEVER;
		if (name->version != saved->version)
			(void) want_saved(name, GetCurrentTimestamp());
	}
	LWLockRelease(rates_lock);
}

bool
jobq_rate_load(JobqDb *db, uint32 gen, const JobqRateSaved *saved)
{
	TimestampTz now = GetCurrentTimestamp();
	RateName	key;
	int32		number;
	JobqRated	rated = RATE_ALLOWED;

	fill_key(&key, db, gen, saved->owner, saved->name);
	LWLockAcquire(rates_lock, LW_EXCLUSIVE);
	number = find(&key);
	if (number == JOBQ_NIL)
		rated = make(&key, now, &number);
	if (rated == RATE_ALLOWED)
	{
		for (int i = 0; i < saved->n; i++)
			count(number, &saved->rate, saved->at[i], saved->count[i]);
	}
	LWLockRelease(rates_lock);
	return rated == RATE_ALLOWED;
}

void
jobq_rates_forget_before(JobqDb *db, uint32 keep)
{
	int32		number = (int32) (db - jobq_dbs);

	LWLockAcquire(rates_lock, LW_EXCLUSIVE);
	for (int i = 0; i < jobq_max_rate_limits; i++)
	{
		if (names[i].version != 0 && names[i].db == number &&
			names[i].gen < keep)
			forget(i);
	}
	LWLockRelease(rates_lock);
}
