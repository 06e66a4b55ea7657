/*
 * lockout.c: counts wrong keys by where they come from: after a few of them
 * each further one shuts its client out for twice as long. A table of fixed
 * size; when it is full the entry that matters least gives way. Must not know
 * what a key is.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "dispatch/lockout.h"
#include "dispatch/meter.h"

#define TRANCHE_NAME	"pg_jobq lockout"
#define ENTRIES			256
#define FREE_FAILURES	4		/* so many wrong keys shut nobody out */
#define FIRST_LOCKOUT	USECS_PER_SEC
#define LONGEST_LOCKOUT	(15 * USECS_PER_MINUTE)
#define FORGOTTEN_AFTER	(15 * USECS_PER_MINUTE)

/* Free when failures is 0. */
typedef struct Entry
{
	JobqAddress from;
	int			failures;
	TimestampTz until;			/* shut out; or when the last failure was */
} Entry;

/* All of it under the lock, but `used` also says whether to look at all. */
typedef struct Lockout
{
	int			used;			/* entries that ever were in use */
	Entry		entries[ENTRIES];
} Lockout;

static Lockout *lockout;
static LWLock *lock;

Size
jobq_lockout_size(void)
{
	return MAXALIGN(sizeof(Lockout));
}

void
jobq_lockout_request(void)
{
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

void
jobq_lockout_init(void)
{
	bool		found;

	lock = &GetNamedLWLockTranche(TRANCHE_NAME)[0].lock;
	lockout = ShmemInitStruct(TRANCHE_NAME, sizeof(Lockout), &found);
	if (!found)
		memset(lockout, 0, sizeof(Lockout));
}

static bool
is_forgotten(const Entry *entry, TimestampTz now)
{
	return entry->failures == 0 || now - entry->until > FORGOTTEN_AFTER;
}

static Entry *
find(const JobqAddress *from, TimestampTz now)
{
	for (int i = 0; i < lockout->used; i++)
	{
		Entry	   *entry = &lockout->entries[i];

		if (memcmp(&entry->from, from, sizeof(*from)) == 0 &&
			!is_forgotten(entry, now))
			return entry;
	}
	return NULL;
}

int64
jobq_lockout_left(const JobqAddress *from, TimestampTz now)
{
	const Entry *entry;
	int64		left = 0;

	/* whoever is shut out has seen that it is not 0 */
	if (lockout->used == 0)
		return 0;
	now = jobq_meter_clock(now);
	LWLockAcquire(lock, LW_SHARED);
	entry = find(from, now);
	if (entry != NULL && entry->failures > FREE_FAILURES)
		left = Max(entry->until - now, 0);
	LWLockRelease(lock);
	return left;
}

/* One that is forgotten, or the one that would be first. */
static Entry *
make_room(TimestampTz now)
{
	Entry	   *oldest = &lockout->entries[0];

	for (int i = 0; i < lockout->used; i++)
	{
		Entry	   *entry = &lockout->entries[i];

		if (is_forgotten(entry, now))
			return entry;
		if (entry->until < oldest->until)
			oldest = entry;
	}
	return lockout->used < ENTRIES ? &lockout->entries[lockout->used++] :
		oldest;
}

static int64
length_after(int failures)
{
	int64		length = FIRST_LOCKOUT;

	if (failures <= FREE_FAILURES)
		return 0;
	while (--failures > FREE_FAILURES && length < LONGEST_LOCKOUT)
		length *= 2;
	return Min(length, LONGEST_LOCKOUT);
}

void
jobq_lockout_failed(const JobqAddress *from, TimestampTz now)
{
	Entry	   *entry;

	now = jobq_meter_clock(now);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = find(from, now);
	if (entry == NULL)
	{
		entry = make_room(now);
		entry->from = *from;
		entry->failures = 0;
	}
	if (entry->failures < PG_INT32_MAX)
		entry->failures++;
	entry->until = now + length_after(entry->failures);
	LWLockRelease(lock);
}
