/*
 * keyuse.c: counts the uses of access keys in a hash of fixed size. Must not
 * know what a key is, nor write anything to disk.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"

#include "dispatch/internal.h"
#include "dispatch/keyuse.h"
#include "dispatch/meter.h"

#define TRANCHE_NAME	"pg_jobq key uses"
#define WRITE_AFTER		USECS_PER_MINUTE

typedef struct Tag
{
	int32		db;				/* index of the database's entry */
	uint32		gen;
	int32		key_id;
} Tag;

typedef struct Entry
{
	Tag			tag;
	int64		uses;
	TimestampTz last_used_at;
} Entry;

static HTAB *uses_by_key;		/* in shared memory, under the lock */
static LWLock *lock;

Size
jobq_key_uses_size(void)
{
	return hash_estimate_size(JOBQ_KEY_USES, sizeof(Entry));
}

void
jobq_key_uses_request(void)
{
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

void
jobq_key_uses_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Tag),.entrysize = sizeof(Entry)};

	lock = &GetNamedLWLockTranche(TRANCHE_NAME)[0].lock;
	uses_by_key = ShmemInitHash(TRANCHE_NAME, JOBQ_KEY_USES, JOBQ_KEY_USES,
								&ctl, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

static Tag
tag_of(const JobqDb *db, uint32 gen, int32 key_id)
{
	return (Tag) {.db = jobq_db_index(db),.gen = gen,.key_id = key_id};
}

void
jobq_key_used(JobqDb *db, uint32 gen, int32 key_id, int n, TimestampTz now)
{
	Tag			tag = tag_of(db, gen, key_id);
	TimestampTz clock = jobq_meter_clock(now);
	Entry	   *entry;
	bool		found;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	entry = hash_search(uses_by_key, &tag, HASH_ENTER_NULL, &found);
	if (entry != NULL)
	{
		entry->uses = n + (found ? entry->uses : 0);
		entry->last_used_at = clock - clock % USECS_PER_MINUTE;
	}
	LWLockRelease(lock);
	if (entry != NULL && !found)
		jobq_db_key_uses_due(db, now + WRITE_AFTER);
}

int
jobq_key_uses(const JobqDb *db, uint32 gen, JobqKeyUse *uses)
{
	HASH_SEQ_STATUS seq;
	const Entry *entry;
	int			n = 0;

	LWLockAcquire(lock, LW_SHARED);
	hash_seq_init(&seq, uses_by_key);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (entry->tag.db == jobq_db_index(db) && entry->tag.gen == gen &&
			n < JOBQ_KEY_USES)
			uses[n++] = (JobqKeyUse) {.key_id = entry->tag.key_id,
				.uses = entry->uses,.last_used_at = entry->last_used_at};
	}
	LWLockRelease(lock);
	return n;
}

bool
jobq_key_uses_written(const JobqDb *db, uint32 gen, const JobqKeyUse *uses,
					  int n)
{
	int			gone = 0;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		Tag			tag = tag_of(db, gen, uses[i].key_id);
		Entry	   *entry = hash_search(uses_by_key, &tag, HASH_FIND, NULL);

		if (entry == NULL)
			continue;
		entry->uses -= uses[i].uses;
		if (entry->uses > 0 || entry->last_used_at > uses[i].last_used_at)
			continue;
		(void) hash_search(uses_by_key, &tag, HASH_REMOVE, NULL);
		gone++;
	}
	LWLockRelease(lock);
	return gone == n;
}

void
jobq_key_uses_free_others(const JobqDb *db, uint32 gen)
{
	HASH_SEQ_STATUS seq;
	Entry	   *entry;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, uses_by_key);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (entry->tag.db == jobq_db_index(db) && entry->tag.gen != gen)
			(void) hash_search(uses_by_key, &entry->tag, HASH_REMOVE, NULL);
	}
	LWLockRelease(lock);
}
