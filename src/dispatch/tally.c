/*
 * tally.c: attempts counted by kind of job and by worker, of each queue: a
 * fixed number of entries, for those names that were seen last.
 *
 * Names are looked up without a part's lock; what is counted is counted under
 * it, by number and serial, for the entry may long be another name's. Must not
 * allocate or raise an error.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#include "dispatch/internal.h"
#include "dispatch/meter.h"

#define CACHE_SIZE		1024	/* a power of two */
#define TALLIES_MIN		256		/* of kinds, and of workers */
#define VICTIMS			64		/* looked at for the one not seen longest */

/* All under lock. */
typedef struct Tallies
{
	LWLock	   *lock;
	uint32		serial;			/* the last one given out */
	int			used[TALLY_N];	/* entries that have a name */
	int			hand[TALLY_N];	/* where the next victim is looked for */
} Tallies;

/* Of an entry: the hash of its identity, and the next in its bucket, or -1. */
typedef struct Link
{
	uint32		hash;
	int			next;
} Link;

static Tallies *tallies;
static int *buckets;			/* first entries, or -1; under lock */
static Link *links;				/* of the entries; under lock */
static JobqTally *entries;		/* first those of kinds, then of workers */

/* Local to the backend: which names it used lately, and as whose. */
static struct
{
	uint32		hash;
	uint32		gen;
	int32		queue_id;
	JobqTallyWhat what;
	JobqTallyRef ref;
	char		name[JOBQ_WORKER_MAX + 1];
}			cache[CACHE_SIZE];

/* ---- shared memory ---- */

static int
entries_each(void)
{
	return Max(TALLIES_MIN, jobq_max_queues);
}

static int
entries_all(void)
{
	return entries_each() * TALLY_N;
}

static uint32
bucket_count(void)
{
	return pg_nextpower2_32((uint32) entries_all());
}

static Size
buckets_size(void)
{
	return MAXALIGN(mul_size(bucket_count(), sizeof(int)));
}

static Size
links_size(void)
{
	return MAXALIGN(mul_size(entries_all(), sizeof(Link)));
}

Size
jobq_tallies_size(void)
{
	Size		size = MAXALIGN(sizeof(Tallies));

	size = add_size(size, buckets_size());
	size = add_size(size, links_size());
	return add_size(size, mul_size(entries_all(), sizeof(JobqTally)));
}

void
jobq_tallies_init(LWLock *lock)
{
	bool		found;
	char	   *start = ShmemInitStruct("pg_jobq tallies",
										jobq_tallies_size(), &found);

	tallies = (Tallies *) start;
	buckets = (int *) (start + MAXALIGN(sizeof(Tallies)));
	links = (Link *) ((char *) buckets + buckets_size());
	entries = (JobqTally *) ((char *) links + links_size());
	if (found)
		return;
	memset(start, 0, jobq_tallies_size());
	for (uint32 i = 0; i < bucket_count(); i++)
		buckets[i] = -1;
	tallies->lock = lock;
}

/* ---- finding ---- */

static bool
is_tally(const JobqTally *tally, uint32 gen, int32 queue_id, const char *name)
{
	return tally->serial != 0 && tally->gen == gen &&
		tally->queue_id == queue_id && strcmp(tally->name, name) == 0;
}

static int *
bucket_of(uint32 hash, JobqTallyWhat what)
{
	return &buckets[(hash + what) & (bucket_count() - 1)];
}

/* Under the lock: the entry, of whatever part, or -1. */
static int
search(uint32 hash, uint32 gen, int32 queue_id, JobqTallyWhat what,
	   const char *name)
{
	for (int i = *bucket_of(hash, what); i >= 0; i = links[i].next)
	{
		if (links[i].hash == hash && i / entries_each() == (int) what &&
			is_tally(&entries[i], gen, queue_id, name))
			return i;
	}
	return -1;
}

/*
 * Under the lock, exclusive: one that was never used, else of the next few
 * the one not seen longest.
 */
static int
choose_victim(JobqTallyWhat what)
{
	int			from = what * entries_each();
	int			victim = -1;

	if (tallies->used[what] < entries_each())
		return from + tallies->used[what]++;
	for (int i = 0; i < VICTIMS; i++)
	{
		int			at = from + tallies->hand[what];

		if (victim < 0 || entries[at].last_seen < entries[victim].last_seen)
			victim = at;
		tallies->hand[what] = (tallies->hand[what] + 1) % entries_each();
	}
	return victim;
}

static void
unchain(int entry)
{
	int		   *link = bucket_of(links[entry].hash,
								 (JobqTallyWhat) (entry / entries_each()));

	while (*link != entry)
		link = &links[*link].next;
	*link = links[entry].next;
}

static void
chain(int entry, uint32 hash)
{
	int		   *bucket = bucket_of(hash,
								   (JobqTallyWhat) (entry / entries_each()));

	links[entry].hash = hash;
	links[entry].next = *bucket;
	*bucket = entry;
}

/* Under the lock, exclusive: from now on it is this name's. */
static void
rename_entry(int entry, const JobqPart *part, uint32 hash, uint32 gen,
			 int32 queue_id, const char *name, TimestampTz now)
{
	JobqTally  *tally = &entries[entry];
	JobqPart   *old = &jobq_parts[tally->part];

	if (tally->serial != 0)
		unchain(entry);
	LWLockAcquire(old->lock, LW_EXCLUSIVE);
	memset(tally, 0, sizeof(*tally));
	if (++tallies->serial == 0)
		tallies->serial = 1;
	tally->serial = tallies->serial;
	tally->part = jobq_part_index(part);
	tally->gen = gen;
	tally->queue_id = queue_id;
	strlcpy(tally->name, name, sizeof(tally->name));
	tally->first_seen = now;
	tally->last_seen = now;
	LWLockRelease(old->lock);
	chain(entry, hash);
}

static JobqTallyRef
find_or_make(const JobqPart *part, uint32 hash, uint32 gen, int32 queue_id,
			 JobqTallyWhat what, const char *name, TimestampTz now)
{
	JobqTallyRef ref;

	LWLockAcquire(tallies->lock, LW_SHARED);
	ref.entry = search(hash, gen, queue_id, what, name);
	if (ref.entry >= 0 && entries[ref.entry].part == jobq_part_index(part))
	{
		ref.serial = entries[ref.entry].serial;
		LWLockRelease(tallies->lock);
		return ref;
	}
	LWLockRelease(tallies->lock);

	LWLockAcquire(tallies->lock, LW_EXCLUSIVE);
	ref.entry = search(hash, gen, queue_id, what, name);
	if (ref.entry < 0)
		ref.entry = choose_victim(what);
	if (!is_tally(&entries[ref.entry], gen, queue_id, name) ||
		entries[ref.entry].part != jobq_part_index(part))
		rename_entry(ref.entry, part, hash, gen, queue_id, name, now);
	ref.serial = entries[ref.entry].serial;
	LWLockRelease(tallies->lock);
	return ref;
}

JobqTallyRef
jobq_tally_get(JobqPart *part, uint32 gen, int32 queue_id, JobqTallyWhat what,
			   const char *name, TimestampTz now)
{
	char		cut[JOBQ_WORKER_MAX + 1] = {0};
	int			length = (int) strlen(name);
	uint32		hash;
	int			c;

	if (length > JOBQ_WORKER_MAX)
		length = pg_mbcliplen(name, length, JOBQ_WORKER_MAX);
	memcpy(cut, name, length);
	hash = hash_combine(hash_combine(murmurhash32(gen),
									 murmurhash32((uint32) queue_id)),
						DatumGetUInt32(hash_any((unsigned char *) cut,
												length)));
	c = (hash + what) & (CACHE_SIZE - 1);
	if (cache[c].hash == hash && cache[c].gen == gen &&
		cache[c].queue_id == queue_id && cache[c].what == what &&
		strcmp(cache[c].name, cut) == 0 && cache[c].ref.serial != 0 &&
		entries[cache[c].ref.entry].serial == cache[c].ref.serial &&
		entries[cache[c].ref.entry].part == jobq_part_index(part))
		return cache[c].ref;
	cache[c].hash = hash;
	cache[c].gen = gen;
	cache[c].queue_id = queue_id;
	cache[c].what = what;
	memcpy(cache[c].name, cut, sizeof(cut));
	cache[c].ref = find_or_make(part, hash, gen, queue_id, what, cut, now);
	return cache[c].ref;
}

/* ---- counting; under the lock of the part that the entry is of ---- */

static JobqTally *
tally_of(const JobqPart *part, const JobqTallyRef *ref)
{
	JobqTally  *tally = &entries[ref->entry];

	return ref->serial != 0 && tally->serial == ref->serial &&
		tally->part == jobq_part_index(part) ? tally : NULL;
}

void
jobq_tally_seen(const JobqPart *part, const JobqTallyRef *by_worker,
				TimestampTz now)
{
	JobqTally  *tally = tally_of(part, by_worker);

	if (tally != NULL && tally->last_seen < now)
		tally->last_seen = now;
}

static void
count_attempts(JobqTally *tally, const JobqCount *count, TimestampTz now)
{
	if (tally == NULL)
		return;
	if (count->counter == COUNT_COMPLETED)
		tally->completed += count->n;
	else
		tally->failed += count->n;
	if (count->claimed_at != 0)
	{
		jobq_fading_add(&tally->run, Max(now - count->claimed_at, 0),
						(uint32) count->n);
		/* it was the worker, not the keeper for it */
		tally->last_seen = Max(tally->last_seen, now);
	}
}

void
jobq_tally_attempts(const JobqPart *part, const JobqCount *count,
					TimestampTz now)
{
	count_attempts(tally_of(part, &count->by_kind), count, now);
	count_attempts(tally_of(part, &count->by_worker), count, now);
}

/* ---- reading ---- */

int
jobq_tally_next(uint32 gen, JobqTallyWhat what, int from, JobqTally *copy)
{
	int			next = -1;

	LWLockAcquire(tallies->lock, LW_SHARED);
	for (int i = from; i < entries_each() && next < 0; i++)
	{
		const JobqTally *tally = &entries[what * entries_each() + i];
		const JobqPart *part = &jobq_parts[tally->part];

		if (tally->serial == 0 || tally->gen != gen)
			continue;
		LWLockAcquire(part->lock, LW_SHARED);
		*copy = *tally;
		LWLockRelease(part->lock);
		next = i + 1;
	}
	LWLockRelease(tallies->lock);
	return next;
}
