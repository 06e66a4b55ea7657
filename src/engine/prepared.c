/*
 * prepared.c: PREPARE TRANSACTION: what of the log can be prepared, and the
 * entry by which the keeper watches the prepared transaction. Must refuse
 * whatever nobody would end.
 */
#include "postgres.h"

#include "access/xact.h"

#include "engine/xactlog.h"

static JobqDb *prepare_noted;	/* its keeper is to watch us; else NULL */

/* The entry's place for a queue, or -1: there is none left. */
static int
prepared_queue(JobqPrepared *entry, int32 queue_id)
{
	int			q = 0;

	while (q < entry->nqueues && entry->queue_id[q] != queue_id)
		q++;
	if (q == JOBQ_PREPARED_QUEUES)
	{
		entry->unknown = true;
		return -1;
	}
	if (q == entry->nqueues)
	{
		entry->nqueues++;
		entry->queue_id[q] = queue_id;
		entry->first[q].priority = JOBQ_KEY_END;
		entry->n[q] = 0;
		entry->scheduled[q] = 0;
	}
	return q;
}

/* A queue's tickets, n more of them, from `first` on. */
static void
note_prepared(JobqPrepared *entry, int32 queue_id, const JobqKey *first,
			  int64 n)
{
	int			q = prepared_queue(entry, queue_id);

	if (q < 0)
		return;
	if (jobq_key_before(first, &entry->first[q]))
		entry->first[q] = *first;
	entry->n[q] += n;
}

static void
note_prepared_count(JobqPrepared *entry, const JobqOp *op)
{
	int			q = prepared_queue(entry, op->queue_id);

	if (q >= 0 && op->counter == COUNT_SCHEDULED)
		entry->scheduled[q] += op->delta;
	else
		entry->unknown = true;
}

/* Only enqueuing can be prepared: nobody would end our claims and marks. */
static void
describe_prepared(const JobqOp *ops, int nops, JobqPrepared *entry)
{
	entry->xid = GetTopTransactionIdIfAny();
	entry->shelf_due = JOBQ_NEVER;
	for (int i = 0; i < nops; i++)
	{
		const JobqOp *op = &ops[i];

		if (op->kind == OP_PUBLISH)
		{
			const JobqTicket *t = &jobq_own(op->own)->t;
			JobqKey		key = jobq_key_of(t);

			note_prepared(entry, t->queue_id, &key, 1);
		}
		else if (op->kind == OP_SPILL)
			note_prepared(entry, op->queue_id, &op->first, op->delta);
		else if (op->kind == OP_COUNT)
			note_prepared_count(entry, op);
		else if (op->kind == OP_SHELVED)
			entry->shelf_due = Min(entry->shelf_due, op->when);
		else
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot prepare a transaction that has done more with pg_jobq than enqueue jobs"),
					 errdetail("Only jobq.enqueue() and jobq.enqueue_many() can be part of a prepared transaction."),
					 errhint("Use COMMIT, or do the rest in a transaction of its own.")));
	}
}

/*
 * The keeper watches the prepared transaction: once it has committed, its jobs
 * are on disk only.
 */
void
jobq_prepare_check(const JobqOp *ops, int nops)
{
	JobqDb	   *db = NULL;
	JobqPrepared entry = {0};
	int			found = -1;

	describe_prepared(ops, nops, &entry);
	for (int i = 0; i < nops && db == NULL; i++)
		db = ops[i].db;
	if (db == NULL)
		return;
	SpinLockAcquire(&db->mutex);
	for (int i = 0; i < JOBQ_MAX_PREPARED && found < 0; i++)
	{
		if (!TransactionIdIsValid(db->prepared[i].xid))
		{
			db->prepared[i] = entry;
			found = i;
		}
	}
	SpinLockRelease(&db->mutex);
	prepare_noted = db;
	if (found < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many prepared transactions with enqueued jobs"),
				 errdetail("At most %d can be open in one database.",
						   JOBQ_MAX_PREPARED),
				 errhint("Commit or roll back prepared transactions first.")));
}

void
jobq_prepare_ended(void)
{
	if (prepare_noted != NULL)
		jobq_wake_keeper(prepare_noted);
	prepare_noted = NULL;
}
