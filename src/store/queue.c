/*
 * queue.c: a backend's cache of queues, with options read and privileges
 * sorted out. Hands out copies only; never writes, never demands a privilege.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "security/accesskey.h"
#include "security/security.h"
#include "store/rows.h"

/* Columns of jobq.queue and jobq.queue_acl. */
enum
{
	QUEUE_ID = 1,
	QUEUE_NAME,
	QUEUE_OWNER,
	QUEUE_CLASS,
	QUEUE_PAUSED,
	QUEUE_DRAINING,
	QUEUE_OPTIONS,
	QUEUE_CREATED_AT,
	QUEUE_PAUSED_BY,
	QUEUE_PAUSED_AT,
	QUEUE_DRAINING_BY,
	QUEUE_DRAINING_AT
};

enum
{
	GROUP_QUEUE_ID = 1
};

enum
{
	ACL_QUEUE_ID = 1,
	ACL_GRANTEE,
	ACL_PRIVILEGES
};

typedef struct CachedQueue
{
	JobqQueue	queue;			/* my_privileges: of this role, without key */
	Oid			role;			/* who asked last */
	uint64		role_changes;	/* of what roles were then */
	int			ngrants;
	Oid		   *grantees;
	int		   *privileges;
} CachedQueue;

typedef struct NameEntry
{
	char		name[JOBQ_NAME_MAX + 1];
	CachedQueue *cached;
} NameEntry;

typedef struct IdEntry
{
	int32		queue_id;
	CachedQueue *cached;
} IdEntry;

static MemoryContext cache_context;
static HTAB *by_name;
static HTAB *by_id;
static uint64 cache_changes;	/* jobq_catalog_changes() it is good for */
static bool all_cached;			/* every queue there is is in it */

/*
 * Start afresh when the catalog has changed. Nobody keeps a pointer into the
 * cache across this.
 */
static void
freshen(void)
{
	HASHCTL		ctl;

	if (by_id != NULL && cache_changes == jobq_catalog_changes())
		return;
	by_name = by_id = NULL;
	all_cached = false;
	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "jobq queues",
											  ALLOCSET_DEFAULT_SIZES);
	else
		MemoryContextReset(cache_context);

	memset(&ctl, 0, sizeof(ctl));
	ctl.hcxt = cache_context;
	ctl.keysize = JOBQ_NAME_MAX + 1;
	ctl.entrysize = sizeof(NameEntry);
	by_name = hash_create("jobq queues by name", 64, &ctl,
						  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(IdEntry);
	by_id = hash_create("jobq queues by id", 64, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	cache_changes = jobq_catalog_changes();
}

/*
 * A usable index of rel whose first column is attno; asked for each time,
 * for REINDEX CONCURRENTLY replaces indexes. InvalidOid: scan the heap.
 */
static Oid
index_on(Relation rel, AttrNumber attno)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	Oid			found = InvalidOid;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisvalid &&
			index->rd_index->indkey.values[0] == attno)
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

SysScanDesc
jobq_begin_lookup(Relation rel, AttrNumber attno, RegProcedure equal,
				  Datum value, Snapshot snapshot)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
	Oid			index = index_on(rel, attno);
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, attno, BTEqualStrategyNumber, InvalidOid,
						   att->attcollation, equal, value);
	return systable_beginscan(rel, index, OidIsValid(index), snapshot, 1,
							  &key);
}

/* A column that is NOT NULL. */
static Datum
column(HeapTuple tuple, TupleDesc desc, int attno)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attno, desc, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d of the queue catalog",
			 attno);
	return value;
}

/* Who and when, in two columns that follow each other. */
static void
read_stop(HeapTuple tuple, TupleDesc desc, int attno, JobqStop *stop)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attno, desc, &isnull);

	stop->by = isnull ? InvalidOid : DatumGetObjectId(value);
	value = heap_getattr(tuple, attno + 1, desc, &isnull);
	stop->at = isnull ? 0 : DatumGetTimestampTz(value);
}

static void
read_queue(HeapTuple tuple, TupleDesc desc, JobqQueue *queue)
{
	text	   *name = DatumGetTextPP(column(tuple, desc, QUEUE_NAME));

	jobq_options_defaults(queue);
	queue->queue_id = DatumGetInt32(column(tuple, desc, QUEUE_ID));
	text_to_cstring_buffer(name, queue->name, sizeof(queue->name));
	queue->owner = DatumGetObjectId(column(tuple, desc, QUEUE_OWNER));
	queue->class_id = DatumGetInt32(column(tuple, desc, QUEUE_CLASS));
	queue->paused = DatumGetBool(column(tuple, desc, QUEUE_PAUSED));
	queue->draining = DatumGetBool(column(tuple, desc, QUEUE_DRAINING));
	read_stop(tuple, desc, QUEUE_PAUSED_BY, &queue->pause);
	read_stop(tuple, desc, QUEUE_DRAINING_BY, &queue->drain);
	jobq_options_apply(DatumGetJsonbP(column(tuple, desc, QUEUE_OPTIONS)),
					   queue);
}

/* The grants on one queue, palloc'd in the current context. */
static void
read_grants(CachedQueue *cached, Snapshot snapshot)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_QUEUE_ACL),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	SysScanDesc scan;
	HeapTuple	tuple;
	int			room = 4;

	cached->ngrants = 0;
	cached->grantees = palloc(room * sizeof(Oid));
	cached->privileges = palloc(room * sizeof(int));
	scan = jobq_begin_lookup(rel, ACL_QUEUE_ID, F_INT4EQ,
							 Int32GetDatum(cached->queue.queue_id), snapshot);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (cached->ngrants == room)
		{
			room *= 2;
			cached->grantees = repalloc(cached->grantees,
										room * sizeof(Oid));
			cached->privileges = repalloc(cached->privileges,
										  room * sizeof(int));
		}
		cached->grantees[cached->ngrants] =
			DatumGetObjectId(column(tuple, desc, ACL_GRANTEE));
		cached->privileges[cached->ngrants] =
			DatumGetInt32(column(tuple, desc, ACL_PRIVILEGES));
		cached->ngrants++;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Has alter_group() anything to say of its groups? */
static void
read_groups(JobqQueue *queue, Snapshot snapshot)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_QUEUE_GROUP),
								 AccessShareLock);
	SysScanDesc scan = jobq_begin_lookup(rel, GROUP_QUEUE_ID, F_INT4EQ,
										 Int32GetDatum(queue->queue_id),
										 snapshot);

	queue->rules.altered_groups = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Read one queue with a snapshot of now, which also shows our own changes up
 * to the last command. NULL when there is none: that is not remembered.
 */
static CachedQueue *
read_one(AttrNumber attno, RegProcedure equal, Datum value)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_QUEUE),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = jobq_begin_lookup(rel, attno, equal, value, snapshot);
	HeapTuple	tuple = systable_getnext(scan);
	CachedQueue *cached = NULL;

	if (HeapTupleIsValid(tuple))
	{
		cached = palloc0(sizeof(CachedQueue));
		read_queue(tuple, RelationGetDescr(rel), &cached->queue);
		read_grants(cached, snapshot);
		read_groups(&cached->queue, snapshot);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return cached;
}

/* Enter a queue into both tables; memory running out leaves them usable. */
static CachedQueue *
remember(const CachedQueue *read)
{
	MemoryContext old = MemoryContextSwitchTo(cache_context);
	CachedQueue *cached = palloc(sizeof(CachedQueue));
	NameEntry  *name_entry;
	IdEntry    *id_entry;

	*cached = *read;
	cached->grantees = palloc(Max(read->ngrants, 1) * sizeof(Oid));
	cached->privileges = palloc(Max(read->ngrants, 1) * sizeof(int));
	memcpy(cached->grantees, read->grantees, read->ngrants * sizeof(Oid));
	memcpy(cached->privileges, read->privileges,
		   read->ngrants * sizeof(int));
	name_entry = hash_search(by_name, cached->queue.name, HASH_ENTER, NULL);
	name_entry->cached = cached;
	id_entry = hash_search(by_id, &cached->queue.queue_id, HASH_ENTER, NULL);
	id_entry->cached = cached;
	MemoryContextSwitchTo(old);
	return cached;
}

/* Copy out, with what a role may do. */
static void
hand_out(CachedQueue *cached, Oid role, JobqQueue *queue)
{
	uint64		changes = jobq_role_changes();

	if (cached->role != role || cached->role_changes != changes)
	{
		cached->queue.my_privileges =
			jobq_role_privileges(role, cached->queue.owner, cached->grantees,
								 cached->privileges, cached->ngrants);
		cached->role = role;
		cached->role_changes = changes;
	}
	*queue = cached->queue;
}

/* What the access key in use adds. */
static void
add_key(JobqQueue *queue)
{
	queue->my_privileges |= jobq_key_adds(queue->queue_id);
}

/*
 * Read a queue and remember it, unless the catalog has changed meanwhile: what
 * we saw is right for this call then, but may be stale for the next.
 */
static bool
load(AttrNumber attno, RegProcedure equal, Datum value, Oid role,
	 JobqQueue *queue)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext,
											   "jobq queue load",
											   ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	CachedQueue *cached = read_one(attno, equal, value);

	MemoryContextSwitchTo(old);
	if (cached != NULL)
	{
		if (cache_changes == jobq_catalog_changes())
			(void) remember(cached);
		hand_out(cached, role, queue);
	}
	MemoryContextDelete(work);
	return cached != NULL;
}

bool
jobq_queue_by_name(const char *name, JobqQueue *queue)
{
	NameEntry  *entry;

	if (strlen(name) > JOBQ_NAME_MAX)
		return false;
	freshen();
	entry = hash_search(by_name, name, HASH_FIND, NULL);
	if (entry == NULL && all_cached)
		return false;
	if (entry != NULL)
		hand_out(entry->cached, GetUserId(), queue);
	else if (!load(QUEUE_NAME, F_TEXTEQ,
				   PointerGetDatum(cstring_to_text(name)), GetUserId(), queue))
		return false;
	add_key(queue);
	return true;
}

bool
jobq_queue_by_id_for(int32 queue_id, Oid role, JobqQueue *queue)
{
	IdEntry    *entry;

	freshen();
	entry = hash_search(by_id, &queue_id, HASH_FIND, NULL);
	if (entry == NULL)
		return load(QUEUE_ID, F_INT4EQ, Int32GetDatum(queue_id), role, queue);
	hand_out(entry->cached, role, queue);
	return true;
}

bool
jobq_queue_by_id(int32 queue_id, JobqQueue *queue)
{
	if (!jobq_queue_by_id_for(queue_id, GetUserId(), queue))
		return false;
	add_key(queue);
	return true;
}

Jsonb *
jobq_queue_options(int32 queue_id)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_QUEUE),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = jobq_begin_lookup(rel, QUEUE_ID, F_INT4EQ,
										 Int32GetDatum(queue_id), snapshot);
	HeapTuple	tuple = systable_getnext(scan);
	Jsonb	   *options = NULL;

	if (HeapTupleIsValid(tuple))
		options = DatumGetJsonbPCopy(column(tuple, RelationGetDescr(rel),
											QUEUE_OPTIONS));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return options;
}

/* All queues as the catalog has them now; palloc'd. */
static int
read_all(CachedQueue **queues)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_QUEUE),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot,
										  0, NULL);
	HeapTuple	tuple;
	int			n = 0;
	int			room = 16;

	*queues = palloc(room * sizeof(CachedQueue));
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		if (n == room)
		{
			room *= 2;
			*queues = repalloc(*queues, room * sizeof(CachedQueue));
		}
		memset(&(*queues)[n], 0, sizeof(CachedQueue));
		read_queue(tuple, desc, &(*queues)[n].queue);
		read_grants(&(*queues)[n], snapshot);
		read_groups(&(*queues)[n].queue, snapshot);
		n++;
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return n;
}

/* Read them all and remember them, as load() does with one. */
static int
load_all(JobqQueue **queues)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext,
											   "jobq queues load",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	CachedQueue *read;
	int			n = read_all(&read);
	bool		keep = cache_changes == jobq_catalog_changes();

	MemoryContextSwitchTo(old);
	*queues = palloc(Max(n, 1) * sizeof(JobqQueue));
	for (int i = 0; i < n; i++)
	{
		if (keep && hash_search(by_id, &read[i].queue.queue_id, HASH_FIND,
								NULL) == NULL)
			(void) remember(&read[i]);
		hand_out(&read[i], GetUserId(), &(*queues)[i]);
	}
	all_cached = keep;
	MemoryContextDelete(work);
	return n;
}

static int
hand_out_all(JobqQueue **queues)
{
	HASH_SEQ_STATUS seq;
	IdEntry    *entry;
	int			n = 0;

	*queues = palloc(Max(hash_get_num_entries(by_id), 1) * sizeof(JobqQueue));
	hash_seq_init(&seq, by_id);
	while ((entry = hash_seq_search(&seq)) != NULL)
		hand_out(entry->cached, GetUserId(), &(*queues)[n++]);
	return n;
}

static int
compare_queues(const void *a, const void *b)
{
	const JobqQueue *x = a;
	const JobqQueue *y = b;

	return x->queue_id < y->queue_id ? -1 : x->queue_id > y->queue_id;
}

int
jobq_queue_list(JobqQueue **queues)
{
	int			n;

	freshen();
	n = all_cached ? hand_out_all(queues) : load_all(queues);
	for (int i = 0; i < n; i++)
		add_key(&(*queues)[i]);
	qsort(*queues, n, sizeof(JobqQueue), compare_queues);
	return n;
}

void
jobq_queue_changed(void)
{
	CacheInvalidateRelcacheByRelid(jobq_table_oid(JOBQ_TABLE_QUEUE));
}

/* Sub-object of a queue that stands for its settings in locks. */
#define SETTINGS_LOCK		2

void
jobq_queue_lock_settings(int32 queue_id)
{
	LockDatabaseObject(jobq_table_oid(JOBQ_TABLE_QUEUE), queue_id,
					   SETTINGS_LOCK, ShareRowExclusiveLock);
}

void
jobq_queue_lock(void)
{
	LockRelationOid(jobq_table_oid(JOBQ_TABLE_QUEUE), ShareRowExclusiveLock);
}
