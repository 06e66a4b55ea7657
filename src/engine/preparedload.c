/*
 * preparedload.c: after a restart of the server: which prepared transactions
 * there are, and what they have enqueued, from rows that no snapshot shows
 * yet. Writes shared memory only.
 */
#include "postgres.h"

#include "access/subtrans.h"
#include "access/transam.h"
#include "storage/procarray.h"

#include "engine/belts.h"
#include "engine/keeperxact.h"
#include "engine/prepared.h"

typedef struct Load
{
	JobqPrepared entries[JOBQ_MAX_PREPARED];
	int			n;
	bool		shelf;			/* it is being read, not the belt */
	JobqPreparedVisitor visit;
	void	   *state;
} Load;

/* ---- which there are ---- */

static JobqPrepared *
find_entry(JobqPrepared *entries, int n, TransactionId xid)
{
	for (int i = 0; i < n; i++)
	{
		if (entries[i].xid == xid)
			return &entries[i];
	}
	return NULL;
}

static void
forget_all(JobqPrepared *entry)
{
	TransactionId xid = entry->xid;

	memset(entry, 0, sizeof(*entry));
	entry->xid = xid;
	entry->shelf_due = JOBQ_NEVER;
}

static void
take_xid(HeapTuple tuple, TupleDesc desc, void *state)
{
	JobqDb	   *db = state;
	TransactionId xid = DatumGetTransactionId(jobq_row_value(tuple, desc, 1, NULL));
	JobqPrepared *entry;

	SpinLockAcquire(&db->mutex);
	if (find_entry(db->prepared, JOBQ_MAX_PREPARED, xid) == NULL)
	{
		entry = find_entry(db->prepared, JOBQ_MAX_PREPARED,
						   InvalidTransactionId);
		if (entry != NULL)
		{
			entry->xid = xid;
			forget_all(entry);
			entry->unknown = true;
		}
	}
	SpinLockRelease(&db->mutex);
}

void
jobq_find_prepared(const JobqSession *session)
{
	jobq_keeper_query("SELECT p.transaction FROM pg_catalog.pg_prepared_xacts p"
					  " WHERE p.database = pg_catalog.current_database()",
					  0, NULL, NULL, take_xid, session->db);
}

/* ---- what they have enqueued ---- */

/*
 * Where its first ticket is in the queue's order does not matter: the refill
 * begins at the start after a restart anyway.
 */
static void
take_row(const JobqRow *row, TransactionId xmin, void *state)
{
	Load	   *load = state;
	JobqPrepared *entry = find_entry(load->entries, load->n,
									 SubTransGetTopmostTransaction(xmin));
	bool		reserved;
	int			q;

	if (entry == NULL)
		return;
	reserved = load->visit(row, load->state);
	q = jobq_prepared_queue(entry,
							DatumGetInt32(row->values[JOB_QUEUE_ID]));
	if (load->shelf)
		entry->shelf_due = Min(entry->shelf_due,
							   DatumGetTimestampTz(row->values[JOB_RUN_AT]));
	if (q < 0)
		return;
	entry->reserved[q] += reserved;
	entry->first[q].priority = JOBQ_KEY_START;
	if (load->shelf)
		entry->scheduled[q]++;
	else
		entry->n[q]++;
}

/* No prepared transaction has written into a sealed epoch. */
static void
read_rows(Load *load)
{
	JobqBelts	belts = {0};
	JobqEpoch  *epochs;
	int			n = jobq_epoch_read(&epochs);

	load->shelf = false;
	for (int e = 0; e < n; e++)
	{
		if (epochs[e].sealed_at == 0 &&
			jobq_belts_read(&belts, epochs[e].epoch, BELT_JOB) != NULL)
			jobq_belt_read_uncommitted(belts.rel[BELT_JOB], take_row, load);
	}
	jobq_belts_close(&belts);
	load->shelf = true;
	jobq_shelf_read_uncommitted(take_row, load);
}

static void
copy_entries(JobqDb *db, Load *load)
{
	SpinLockAcquire(&db->mutex);
	for (int i = 0; i < JOBQ_MAX_PREPARED; i++)
	{
		if (TransactionIdIsValid(db->prepared[i].xid) &&
			db->prepared[i].unknown)
			load->entries[load->n++] = db->prepared[i];
	}
	SpinLockRelease(&db->mutex);
}

static void
know(const JobqSession *session, const JobqPrepared *found)
{
	JobqDb	   *db = session->db;
	JobqPrepared *entry;

	SpinLockAcquire(&db->mutex);
	entry = find_entry(db->prepared, JOBQ_MAX_PREPARED, found->xid);
	if (entry != NULL)
		*entry = *found;
	SpinLockRelease(&db->mutex);
	for (int q = 0; entry != NULL && q < found->nqueues; q++)
		jobq_admit_hold(db, session->gen, found->queue_id[q],
						(int) found->reserved[q]);
}

void
jobq_load_prepared(const JobqSession *session, JobqPreparedVisitor visit,
				   void *state)
{
	Load	   *load = palloc0(sizeof(Load));

	load->visit = visit;
	load->state = state;
	copy_entries(session->db, load);
	for (int i = 0; i < load->n; i++)
		forget_all(&load->entries[i]);
	if (load->n > 0)
		read_rows(load);
	for (int i = 0; i < load->n; i++)
	{
		if (TransactionIdIsInProgress(load->entries[i].xid))
			know(session, &load->entries[i]);
	}
	pfree(load);
}
