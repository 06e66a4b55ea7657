/*
 * load.c: what memory must know before anything is handed out: which tickets
 * run, under which leases, and how many there are of everything. Reads tables,
 * writes shared memory only.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "dispatch/meter.h"
#include "engine/belts.h"
#include "engine/keeperxact.h"
#include "engine/place.h"
#include "pause.h"
#include "store/order.h"

#define LOCK_TRIES		50
#define LOCK_WAIT_US	10000L

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

/* ---- running tickets ---- */

/* A ticket that was claimed and has not ended. */
typedef struct Running
{
	int64		ticket;			/* hash key */
	JobqTicket	t;				/* id 0: its row has not been found yet */
	JobqLease	l;
	TimestampTz extended_at;	/* claimed_at of the row expires_at is from */
	TimestampTz held_until;		/* cancelled, its worker may learn it until
								 * then; 0 = it runs */
	char		kind[JOBQ_WORKER_MAX + 1];
} Running;

typedef struct Load
{
	const JobqSession *session;
	int32		epoch;
	Relation	job;
	Relation	claim;
	Relation	outcome;
	Snapshot	snapshot;
	JobqProbe	probe;
	HTAB	   *running;
	int			nmissing;		/* of running: row not found yet */
	bool		extended;		/* there are extensions */
} Load;

static void
read_lease(TupleTableSlot *slot, JobqLease *lease)
{
	Datum	   *values = slot->tts_values;

	memset(lease, 0, sizeof(*lease));
	lease->lease = DatumGetInt64(values[CLAIM_LEASE]);
	lease->claimed_at = DatumGetTimestampTz(values[CLAIM_CLAIMED_AT]);
	lease->expires_at = DatumGetTimestampTz(values[CLAIM_EXPIRES_AT]);
	lease->lease_for = lease->expires_at - lease->claimed_at;
	lease->claimed_by = DatumGetObjectId(values[CLAIM_CLAIMED_BY]);
	lease->probe = DatumGetChar(values[CLAIM_FLAG]) == CLAIM_PROBE;
	if (!slot->tts_isnull[CLAIM_WORKER])
		text_to_cstring_buffer(DatumGetTextPP(values[CLAIM_WORKER]),
							   lease->worker, sizeof(lease->worker));
	lease->claim_tid = slot->tts_tid;
}

/* Of the outcome that has just been found: when grace is over, 0 = none. */
static TimestampTz
grace_of(TupleTableSlot *outcome)
{
	bool		null;
	Datum		until = slot_getattr(outcome, OUT_HELD_UNTIL + 1, &null);

	return null || DatumGetTimestampTz(until) <= jobq_now() ? 0 :
		DatumGetTimestampTz(until);
}

static void
take_claim(Load *load, TupleTableSlot *slot, int64 ticket)
{
	Running    *running;
	TimestampTz held_until = 0;

	if (jobq_probe_ended(&load->probe, ticket) &&
		(held_until = grace_of(load->probe.slot)) == 0)
		return;
	running = hash_search(load->running, &ticket, HASH_ENTER, NULL);
	running->held_until = held_until;
	memset(&running->t, 0, sizeof(running->t));
	read_lease(slot, &running->l);
	running->extended_at = running->l.claimed_at;
}

/* An extension counts beside a claim of the same lease; the latest wins. */
static void
take_extension(Load *load, TupleTableSlot *slot, int64 ticket)
{
	Running    *running = hash_search(load->running, &ticket, HASH_FIND, NULL);
	TimestampTz at = DatumGetTimestampTz(slot->tts_values[CLAIM_CLAIMED_AT]);

	if (running == NULL ||
		running->l.lease != DatumGetInt64(slot->tts_values[CLAIM_LEASE]))
		return;
	if (at >= running->extended_at)
	{
		running->extended_at = at;
		running->l.expires_at =
			DatumGetTimestampTz(slot->tts_values[CLAIM_EXPIRES_AT]);
	}
	if (!slot->tts_isnull[CLAIM_PROGRESS])
		running->l.claim_tid = slot->tts_tid;
}

/* One pass over the claims: dequeues and carries, or the extensions. */
static void
read_claims(Load *load, bool extensions)
{
	TableScanDesc scan = table_beginscan(load->claim, load->snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(load->claim, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		int64	   *tickets;
		int			n;
		bool		is_extension;

		slot_getallattrs(slot);
		is_extension = DatumGetChar(slot->tts_values[CLAIM_FLAG]) == CLAIM_EXTEND;
		load->extended |= is_extension;
		if (is_extension != extensions)
			continue;
		n = jobq_tickets_unpack(DatumGetByteaPP(slot->tts_values[CLAIM_TICKETS]),
								&tickets);
		for (int i = 0; i < n; i++)
		{
			if (extensions)
				take_extension(load, slot, tickets[i]);
			else
				take_claim(load, slot, tickets[i]);
		}
		pfree(tickets);
		check_let_go(load->session->db);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
}

static void
keep_kind(Running *running, Datum kind, bool null)
{
	running->kind[0] = '\0';
	if (!null)
		text_to_cstring_buffer(DatumGetTextPP(kind), running->kind,
							   sizeof(running->kind));
}

/* A job's first ticket is its id, by which there is an index. */
static void
find_first_tickets(Load *load)
{
	HASH_SEQ_STATUS seq;
	Running    *running;
	JobqReader	reader = {0};

	hash_seq_init(&seq, load->running);
	while ((running = hash_seq_search(&seq)) != NULL)
	{
		ItemPointerData none;
		JobqRow		row;

		ItemPointerSetInvalid(&none);
		if (jobq_belt_read_ticket(load->job, &reader, &none, running->ticket,
								  running->ticket, &row))
		{
			jobq_ticket_of_row(&row, load->epoch, &none, &running->t);
			keep_kind(running, row.values[JOB_KIND], row.nulls[JOB_KIND]);
		}
		else
			load->nmissing++;
	}
	jobq_reader_close(&reader);
}

/* The others are looked for among all. */
static void
find_later_tickets(Load *load)
{
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (load->nmissing == 0)
		return;
	scan = table_beginscan(load->job, load->snapshot, 0, NULL);
	slot = table_slot_create(load->job, NULL);
	while (load->nmissing > 0 &&
		   table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		null;
		int64		ticket = DatumGetInt64(slot_getattr(slot, JOB_TICKET + 1,
														&null));
		Running    *running = hash_search(load->running, &ticket, HASH_FIND,
										  NULL);

		CHECK_FOR_INTERRUPTS();
		if (running == NULL || running->t.id != 0)
			continue;
		jobq_ticket_of_slot(slot, load->epoch, &running->t);
		keep_kind(running, slot->tts_values[JOB_KIND],
				  slot->tts_isnull[JOB_KIND]);
		load->nmissing--;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
}

/* As whose its end is to be counted. */
static void
find_tallies(const Load *load, JobqPart *part, Running *running)
{
	uint32		gen = load->session->gen;
	int32		queue_id = running->t.queue_id;

	running->l.by_kind = jobq_tally_get(part, gen, queue_id, TALLY_KIND,
										running->kind, running->l.claimed_at);
	running->l.by_worker = jobq_tally_get(part, gen, queue_id, TALLY_WORKER,
										  running->l.worker,
										  running->l.claimed_at);
}

/* Into the hash, then a last look whether it has ended meanwhile. */
static bool
place(Load *load, Running *running)
{
	JobqPart   *part = jobq_part_get(load->session->db, load->session->gen,
									 running->t.queue_id);
	JobqSlotRef fresh;
	bool		ended;

	if (running->held_until != 0)
	{
		running->l.expires_at = running->held_until;
		return jobq_load_grace(load->session->db, load->session->gen,
							   &running->t, &running->l);
	}
	if (part == NULL)
		return false;
	find_tallies(load, part, running);
	if (jobq_refill_put(part, load->session->gen, &running->t, &running->l, 1,
						&fresh, NULL) == 0)
		return false;
	if (fresh.slot == JOBQ_NIL)
		return true;
	ended = true;
	HOLD_INTERRUPTS();
	PG_TRY();
	{
		ended = jobq_probe_ended(&load->probe, running->ticket);
		RESUME_INTERRUPTS();
	}
	PG_FINALLY();
	{
		jobq_refill_link(part, load->session->gen, &fresh, &ended, 1);
	}
	PG_END_TRY();
	return true;
}

static bool
load_epoch(Load *load)
{
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(Running)};
	HASH_SEQ_STATUS seq;
	Running    *running;
	bool		room = true;

	ctl.hcxt = CurrentMemoryContext;
	load->running = hash_create("pg_jobq running tickets", 1024, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	load->nmissing = 0;
	load->extended = false;
	jobq_probe_begin(&load->probe, load->outcome);
	read_claims(load, false);
	if (load->extended && hash_get_num_entries(load->running) > 0)
		read_claims(load, true);
	find_first_tickets(load);
	find_later_tickets(load);
	hash_seq_init(&seq, load->running);
	while ((running = hash_seq_search(&seq)) != NULL)
	{
		if (running->t.id != 0 && !place(load, running))
			room = false;
	}
	jobq_probe_end(&load->probe);
	hash_destroy(load->running);
	return room;
}

bool
jobq_load_running(const JobqSession *session)
{
	Load		load = {.session = session};
	JobqBelts	belts = {0};
	int32	   *epochs;
	int			nepochs;
	bool		room = true;

	load.snapshot = RegisterSnapshot(GetLatestSnapshot());
	JOBQ_PAUSE("after-load-snapshot");
	nepochs = jobq_epoch_list_undrained(&epochs);
	for (int e = 0; e < nepochs; e++)
	{
		load.epoch = epochs[e];
		load.job = jobq_belts_read(&belts, epochs[e], BELT_JOB);
		load.outcome = jobq_belts_read(&belts, epochs[e], BELT_OUTCOME);
		load.claim = jobq_belts_read(&belts, epochs[e], BELT_CLAIM);
		if (load.job != NULL && load.outcome != NULL && load.claim != NULL &&
			!load_epoch(&load))
			room = false;
	}
	jobq_belts_close(&belts);
	UnregisterSnapshot(load.snapshot);
	return room;
}

/* ---- counts ---- */

typedef struct Count
{
	int32		queue_id;		/* hash key */
	int64		rows;			/* tickets in undrained epochs */
	int64		outcomes;		/* of these */
	int64		counters[COUNT_N];
} Count;

static Count *
count_of(HTAB *counts, HeapTuple tuple, TupleDesc desc)
{
	int32		queue_id = DatumGetInt32(jobq_row_value(tuple, desc, 1, NULL));
	bool		found;
	Count	   *count = hash_search(counts, &queue_id, HASH_ENTER, &found);

	if (!found)
		memset(&count->rows, 0, sizeof(*count) - offsetof(Count, rows));
	return count;
}

static void
take_rows(HeapTuple tuple, TupleDesc desc, void *state)
{
	Count	   *count = count_of(state, tuple, desc);

	count->rows += DatumGetInt64(jobq_row_value(tuple, desc, 2, NULL));
}

static void
take_outcomes(HeapTuple tuple, TupleDesc desc, void *state)
{
	Count	   *count = count_of(state, tuple, desc);
	bool		no_attempt;
	char		ended = DatumGetChar(jobq_row_value(tuple, desc, 2, NULL));
	char		attempt = DatumGetChar(jobq_row_value(tuple, desc, 3, &no_attempt));
	int64		n = DatumGetInt64(jobq_row_value(tuple, desc, 4, NULL));

	count->outcomes += n;
	if (ended == ENDED_COMPLETED)
		count->counters[COUNT_COMPLETED] += n;
	else if (ended == ENDED_DEAD)
		count->counters[COUNT_DEAD] += n;
	else if (ended == ENDED_CANCELLED)
		count->counters[COUNT_CANCELLED] += n;
	else if (ended == ENDED_EXPIRED)
		count->counters[COUNT_EXPIRED] += n;
	if (!no_attempt && (attempt == ATTEMPT_FAILED ||
						attempt == ATTEMPT_LEASE_EXPIRED ||
						attempt == ATTEMPT_ROLLED_BACK))
		count->counters[COUNT_FAILED] += n;
}

/* Drained and dropped epochs, and those that are gone. */
static void
take_totals(HeapTuple tuple, TupleDesc desc, void *state)
{
	static const JobqCounter columns[] = {
		COUNT_COMPLETED, COUNT_FAILED, COUNT_DEAD, COUNT_CANCELLED,
		COUNT_EXPIRED
	};
	Count	   *count = count_of(state, tuple, desc);

	for (int i = 0; i < (int) lengthof(columns); i++)
		count->counters[columns[i]] +=
			DatumGetInt64(jobq_row_value(tuple, desc, i + 2, NULL));
}

static void
count_epochs(HTAB *counts, const int32 *epochs, int nepochs)
{
	JobqBelts	belts = {0};

	for (int e = 0; e < nepochs; e++)
	{
		if (jobq_belts_read(&belts, epochs[e], BELT_JOB) == NULL ||
			jobq_belts_read(&belts, epochs[e], BELT_OUTCOME) == NULL)
			continue;
		jobq_keeper_query(psprintf("SELECT j.queue_id, count(*)"
								   " FROM jobq.job_%d j GROUP BY 1",
								   epochs[e]),
						  0, NULL, NULL, take_rows, counts);
		jobq_keeper_query(psprintf("SELECT o.queue_id, o.ended, o.attempt_outcome, count(*)"
								   " FROM jobq.outcome_%d o GROUP BY 1, 2, 3",
								   epochs[e]),
						  0, NULL, NULL, take_outcomes, counts);
	}
	jobq_belts_close(&belts);
}

/*
 * With ShareLock on a table no writer is between its commit and what it does
 * to memory in its callback. If writers never leave a gap, the counters may
 * stay off by what is in flight.
 */
static bool
lock_out_writers(Oid relid)
{
	for (int i = 0; i < LOCK_TRIES; i++)
	{
		if (ConditionalLockRelationOid(relid, ShareLock))
			return true;
		pg_usleep(LOCK_WAIT_US);
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/*
 * A snapshot, and what is published from then on begins to count at 0.
 */
static Snapshot
begin_counting(const JobqSession *session, const int32 *epochs, int nepochs)
{
	Oid		   *locked = palloc(sizeof(Oid) * Max(nepochs, 1));
	int			nlocked = 0;
	Snapshot	snapshot;
	JobqPart   *part;

	for (int e = 0; e < nepochs; e++)
	{
		Relation	job = jobq_belt_open(epochs[e], BELT_JOB, AccessShareLock);

		if (job != NULL && lock_out_writers(RelationGetRelid(job)))
			locked[nlocked++] = RelationGetRelid(job);
		if (job != NULL)
			relation_close(job, NoLock);
	}
	for (int i = jobq_parts_of(session->db, session->gen, 0, &part); i >= 0;
		 i = jobq_parts_of(session->db, session->gen, i, &part))
		jobq_set_counter(session, part->queue_id, COUNT_AVAILABLE, 0);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < nlocked; i++)
		UnlockRelationOid(locked[i], ShareLock);
	pfree(locked);
	return snapshot;
}

static void
set_counts(const JobqSession *session, HTAB *counts)
{
	JobqQueue  *queues;
	int			nqueues = jobq_queue_list(&queues);

	for (int i = 0; i < nqueues; i++)
	{
		int32		queue_id = queues[i].queue_id;
		Count	   *count = hash_search(counts, &queue_id, HASH_FIND, NULL);
		JobqPart	now;
		int64		running = 0;

		if (count == NULL)
			continue;
		for (int c = COUNT_COMPLETED; c < COUNT_N; c++)
			jobq_set_counter(session, queue_id, (JobqCounter) c,
							 count->counters[c]);
		if (jobq_part_stats(session->db, session->gen, queue_id, &now))
			running = now.running;
		jobq_part_count(session->db, session->gen, queue_id, COUNT_AVAILABLE,
						count->rows - count->outcomes - running);
	}
}

void
jobq_load_counts(const JobqSession *session)
{
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(Count)};
	HTAB	   *counts;
	int32	   *epochs;
	int			nepochs = jobq_epoch_list_undrained(&epochs);
	Snapshot	snapshot = begin_counting(session, epochs, nepochs);

	ctl.hcxt = CurrentMemoryContext;
	counts = hash_create("pg_jobq counts", 64, &ctl,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	PushActiveSnapshot(snapshot);
	count_epochs(counts, epochs, nepochs);
	jobq_keeper_query("SELECT t.queue_id, sum(t.completed)::int8,"
					  " sum(t.failed)::int8, sum(t.dead)::int8,"
					  " sum(t.cancelled)::int8, sum(t.expired)::int8"
					  " FROM jobq.epoch_total t GROUP BY 1",
					  0, NULL, NULL, take_totals, counts);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	set_counts(session, counts);
	hash_destroy(counts);
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
 * As with the belt: from the snapshot on, what is committed counts from 0.
 * Producers are not kept waiting while we count.
 */
static Snapshot
begin_counting_shelf(const JobqSession *session, const JobqQueue *queues,
					 int nqueues)
{
	Oid			shelf = jobq_table_oid(JOBQ_TABLE_SHELF);
	bool		locked = lock_out_writers(shelf);
	Snapshot	snapshot;

	for (int i = 0; i < nqueues; i++)
	{
		jobq_set_counter(session, queues[i].queue_id, COUNT_SCHEDULED, 0);
		jobq_set_counter(session, queues[i].queue_id, COUNT_RETRYABLE, 0);
	}
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (locked)
		UnlockRelationOid(shelf, ShareLock);
	return snapshot;
}

void
jobq_load_shelf(const JobqSession *session)
{
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(ShelfCount)};
	HASH_SEQ_STATUS seq;
	HTAB	   *counts;
	ShelfCount *count;
	JobqQueue  *queues;
	int			nqueues = jobq_queue_list(&queues);
	Snapshot	snapshot = begin_counting_shelf(session, queues, nqueues);

	ctl.hcxt = CurrentMemoryContext;
	counts = hash_create("pg_jobq shelf", 64, &ctl,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	PushActiveSnapshot(snapshot);
	jobq_keeper_query("SELECT s.queue_id, s.state, count(*) FROM jobq.shelf s"
					  " WHERE s.state IN ('s', 'r') GROUP BY 1, 2",
					  0, NULL, NULL, take_shelf_count, counts);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	hash_seq_init(&seq, counts);
	while ((count = hash_seq_search(&seq)) != NULL)
	{
		jobq_part_count(session->db, session->gen, count->queue_id,
						COUNT_SCHEDULED, count->count[0]);
		jobq_part_count(session->db, session->gen, count->queue_id,
						COUNT_RETRYABLE, count->count[1]);
	}
	jobq_db_shelf_due(session->db, DT_NOBEGIN);
	hash_destroy(counts);
}
