/*
 * load.c: bringing live tickets from the belt into memory, at recovery and
 * when slots have become free. Reads tables, writes shared memory only.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "engine/belts.h"
#include "engine/keeperxact.h"
#include "pause.h"

#define SHELF_LOCK_TRIES	50
#define SHELF_LOCK_WAIT_US	10000L

/* A live ticket on its way into memory. */
typedef struct Live
{
	int64		ticket;			/* hash key */
	JobqTicket	t;
	JobqLease	l;				/* lease 0 = available */
	TimestampTz extended_at;	/* claimed_at of the row expires_at is from */
} Live;

typedef struct Load
{
	const JobqSession *session;
	int32		epoch;
	HTAB	   *live;
} Load;

/* Both queries give the row's ctid as their eighth column. */
static ItemPointerData
row_tid(HeapTuple tuple, TupleDesc desc)
{
	return *(ItemPointer) DatumGetPointer(jobq_row_value(tuple, desc, 8, NULL));
}

static void
take_ticket(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	int64		ticket = DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL));
	Live	   *live = hash_search(load->live, &ticket, HASH_ENTER, NULL);

	memset(&live->t, 0, sizeof(Live) - offsetof(Live, t));
	live->t.ticket = ticket;
	live->t.id = DatumGetInt64(jobq_row_value(tuple, desc, 2, NULL));
	live->t.queue_id = DatumGetInt32(jobq_row_value(tuple, desc, 3, NULL));
	live->t.priority = DatumGetInt16(jobq_row_value(tuple, desc, 4, NULL));
	live->t.run_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 5, NULL));
	live->t.attempt = DatumGetInt32(jobq_row_value(tuple, desc, 6, NULL));
	live->t.max_attempts = DatumGetInt32(jobq_row_value(tuple, desc, 7, NULL));
	live->t.tid = row_tid(tuple, desc);
	live->t.expires_at =
		DatumGetTimestampTz(jobq_row_value(tuple, desc, 9, NULL));
	live->t.epoch = load->epoch;
}

/* A claim of a live ticket: a dequeue or carry row makes it running. */
static void
apply_claim(Live *live, HeapTuple tuple, TupleDesc desc)
{
	bool		no_worker;
	Datum		worker = jobq_row_value(tuple, desc, 7, &no_worker);

	live->l.lease = DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL));
	live->l.claimed_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 2, NULL));
	live->l.expires_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 3, NULL));
	live->l.lease_for = live->l.expires_at - live->l.claimed_at;
	live->l.claimed_by = DatumGetObjectId(jobq_row_value(tuple, desc, 4, NULL));
	if (!no_worker)
		text_to_cstring_buffer(DatumGetTextPP(worker), live->l.worker,
							   sizeof(live->l.worker));
	live->l.claim_tid = row_tid(tuple, desc);
	live->extended_at = live->l.claimed_at;
}

/* An extension counts beside a claim of the same lease; the latest wins. */
static void
apply_extension(Live *live, HeapTuple tuple, TupleDesc desc)
{
	TimestampTz at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 2, NULL));

	if (live->l.lease != DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL)))
		return;
	if (at >= live->extended_at)
	{
		live->extended_at = at;
		live->l.expires_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 3, NULL));
	}
	if (DatumGetBool(jobq_row_value(tuple, desc, 9, NULL)))
		live->l.claim_tid = row_tid(tuple, desc);
}

/* Rows come dequeues and carries first, then extensions by claimed_at. */
static void
take_claim(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	char		flag = DatumGetChar(jobq_row_value(tuple, desc, 5, NULL));
	bytea	   *packed = DatumGetByteaPP(jobq_row_value(tuple, desc, 6, NULL));
	int64	   *tickets;
	int			n = jobq_tickets_unpack(packed, &tickets);

	for (int i = 0; i < n; i++)
	{
		Live	   *live = hash_search(load->live, &tickets[i], HASH_FIND, NULL);

		if (live == NULL)
			continue;
		if (flag == CLAIM_EXTEND)
			apply_extension(live, tuple, desc);
		else
			apply_claim(live, tuple, desc);
	}
	pfree(tickets);
}

/* Running ones first: they must have a slot; then by queue, in order. */
static int
compare_live(const void *a, const void *b)
{
	const Live *x = *(const Live *const *) a;
	const Live *y = *(const Live *const *) b;

	if ((x->l.lease != 0) != (y->l.lease != 0))
		return x->l.lease != 0 ? -1 : 1;
	if (x->t.queue_id != y->t.queue_id)
		return x->t.queue_id < y->t.queue_id ? -1 : 1;
	if (x->t.priority != y->t.priority)
		return x->t.priority < y->t.priority ? -1 : 1;
	if (x->t.run_at != y->t.run_at)
		return x->t.run_at < y->t.run_at ? -1 : 1;
	return x->t.id < y->t.id ? -1 : x->t.id > y->t.id;
}

/* A long load must not keep DROP DATABASE and its like waiting. */
static void
check_let_go(JobqDb *db)
{
	bool		go;

	CHECK_FOR_INTERRUPTS();
	SpinLockAcquire(&db->mutex);
	go = db->holds > 0 || db->barred;
	SpinLockRelease(&db->mutex);
	if (go)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("pg_jobq keeper stops loading: the database is needed without it")));
}

/*
 * The snapshot may be old: a ticket that has ended since then, and whose slot
 * had gone before we made one again, is not to stay as running. (Available
 * ones are verified when they are claimed.)
 */
static void
drop_ended(const JobqSession *session, Relation outcome,
		   const JobqTicket *tickets, const JobqLease *leases, int n)
{
	for (int i = 0; i < n; i++)
	{
		JobqSlotRef ref = {.slot = JOBQ_NIL,.gen = session->gen,
			.id = tickets[i].id,.ticket = tickets[i].ticket,
		.lease = leases[i].lease};
		JobqOutcomeRow row;

		if (leases[i].lease != 0 &&
			jobq_belt_read_outcome(outcome, tickets[i].ticket, &row))
			jobq_drop_stale(session->db, &ref);
	}
}

static void
publish(const JobqSession *session, Relation outcome, Live **live, long n)
{
	JobqTicket	tickets[JOBQ_CHUNK];
	JobqLease	leases[JOBQ_CHUNK];
	int			count = 0;

	qsort(live, n, sizeof(Live *), compare_live);
	for (long i = 0; i < n; i++)
	{
		tickets[count] = live[i]->t;
		leases[count] = live[i]->l;
		count++;
		if (count == JOBQ_CHUNK || i == n - 1 ||
			live[i + 1]->t.queue_id != live[i]->t.queue_id)
		{
			(void) jobq_publish(session->db, session->gen, tickets, leases,
								count, SLOT_FROM_SCAN);
			drop_ended(session, outcome, tickets, leases, count);
			count = 0;
			check_let_go(session->db);
		}
	}
}

static void
load_epoch(const JobqSession *session, JobqBelts *belts, int32 epoch,
		   int64 from)
{
	Load		load = {.session = session,.epoch = epoch};
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(Live)};
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(from)};
	HASH_SEQ_STATUS seq;
	Live	  **all;
	Live	   *one;
	long		n = 0;

	ctl.hcxt = CurrentMemoryContext;
	load.live = hash_create("pg_jobq live tickets", 1024, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	jobq_keeper_query(psprintf("SELECT j.ticket, j.id, j.queue_id, j.priority, j.run_at,"
							   " j.attempt, j.max_attempts, j.ctid,"
							   " coalesce(j.expires_at, 'infinity')"
							   " FROM jobq.job_%d j WHERE j.id >= $1"
							   " AND NOT EXISTS (SELECT 1 FROM jobq.outcome_%d o"
							   " WHERE o.ticket = j.ticket)", epoch, epoch),
					  1, types, values, take_ticket, &load);
	JOBQ_PAUSE("after-load-snapshot");
	check_let_go(session->db);
	jobq_keeper_query(psprintf("SELECT c.lease, c.claimed_at, c.expires_at, c.claimed_by,"
							   " c.flag, c.tickets, c.worker, c.ctid,"
							   " c.progress IS NOT NULL"
							   " FROM jobq.claim_%d c"
							   " ORDER BY c.flag = 'e', c.claimed_at", epoch),
					  0, NULL, NULL, take_claim, &load);
	n = hash_get_num_entries(load.live);
	all = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Live *) * (n + 1));
	n = 0;
	hash_seq_init(&seq, load.live);
	while ((one = hash_seq_search(&seq)) != NULL)
		all[n++] = one;
	publish(session, jobq_belts_read(belts, epoch, BELT_OUTCOME), all, n);
	pfree(all);
	hash_destroy(load.live);
}

void
jobq_load(const JobqSession *session, int64 from)
{
	int32	   *epochs;
	int			nepochs;
	JobqBelts	belts = {0};

	PushActiveSnapshot(GetLatestSnapshot());
	nepochs = jobq_epoch_list(&epochs);
	for (int e = 0; e < nepochs; e++)
	{
		if (jobq_belts_read(&belts, epochs[e], BELT_JOB) != NULL &&
			jobq_belts_read(&belts, epochs[e], BELT_OUTCOME) != NULL &&
			jobq_belts_read(&belts, epochs[e], BELT_CLAIM) != NULL)
			load_epoch(session, &belts, epochs[e], from);
	}
	jobq_belts_close(&belts);
	PopActiveSnapshot();
}

/* ---- shelf ---- */

typedef struct ShelfCount
{
	int32		queue_id;		/* hash key */
	int64		count[2];		/* scheduled, retryable */
} ShelfCount;

static void
take_shelf_count(HeapTuple tuple, TupleDesc desc, void *state)
{
	HTAB	   *counts = state;
	int32		queue_id = DatumGetInt32(jobq_row_value(tuple, desc, 1, NULL));
	char		what = DatumGetChar(jobq_row_value(tuple, desc, 2, NULL));
	bool		found;
	ShelfCount *count = hash_search(counts, &queue_id, HASH_ENTER, &found);

	if (!found)
		memset(count->count, 0, sizeof(count->count));
	count->count[what == SHELF_SCHEDULED ? 0 : 1] =
		DatumGetInt64(jobq_row_value(tuple, desc, 3, NULL));
}

void
jobq_set_counter(const JobqSession *session, int32 queue_id,
				 JobqCounter counter, int64 value)
{
	JobqPart	now;

	if (!jobq_part_stats(session->db, session->gen, queue_id, &now))
		memset(&now, 0, sizeof(now));
	if (value != now.counters[counter])
		jobq_part_count(session->db, session->gen, queue_id, counter,
						value - now.counters[counter]);
}

/*
 * With ShareLock on the shelf no writer is between its change and the count
 * it adds at commit, so the counters can be set exactly. If writers never
 * leave a gap, the counters may stay off by what is in flight.
 */
static void
lock_out_writers(void)
{
	for (int i = 0; i < SHELF_LOCK_TRIES; i++)
	{
		if (ConditionalLockRelationOid(jobq_table_oid(JOBQ_TABLE_SHELF),
									   ShareLock))
			return;
		pg_usleep(SHELF_LOCK_WAIT_US);
		CHECK_FOR_INTERRUPTS();
	}
}

void
jobq_load_shelf(const JobqSession *session)
{
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(ShelfCount)};
	HTAB	   *counts;
	JobqQueue  *queues;
	int			nqueues;

	lock_out_writers();
	PushActiveSnapshot(GetLatestSnapshot());
	ctl.hcxt = CurrentMemoryContext;
	counts = hash_create("pg_jobq shelf", 64, &ctl,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	jobq_keeper_query("SELECT s.queue_id, s.state, count(*) FROM jobq.shelf s"
					  " WHERE s.state IN ('s', 'r') GROUP BY 1, 2",
					  0, NULL, NULL, take_shelf_count, counts);
	nqueues = jobq_queue_list(&queues);
	for (int i = 0; i < nqueues; i++)
	{
		ShelfCount *count = hash_search(counts, &queues[i].queue_id, HASH_FIND,
										NULL);

		jobq_set_counter(session, queues[i].queue_id, COUNT_SCHEDULED,
						 count != NULL ? count->count[0] : 0);
		jobq_set_counter(session, queues[i].queue_id, COUNT_RETRYABLE,
						 count != NULL ? count->count[1] : 0);
	}
	jobq_db_shelf_due(session->db, DT_NOBEGIN);
	PopActiveSnapshot();
	hash_destroy(counts);
}
