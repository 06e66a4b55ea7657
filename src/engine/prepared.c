/*
 * prepared.c: PREPARE TRANSACTION: what of the log can be prepared, and the
 * entry by which the keeper watches the prepared transaction. Must refuse
 * whatever nobody would end.
 */
#include "postgres.h"

#include "access/xact.h"

#include "engine/prepared.h"
#include "engine/xactlog.h"

static JobqDb *prepare_noted;	/* its keeper watches us; else NULL */

int
jobq_prepared_queue(JobqPrepared *entry, int32 queue_id)
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
		entry->reserved[q] = 0;
	}
	return q;
}

/* Jobs that hold room in a queue with limits on enqueuing. */
static void
note_reserved(JobqPrepared *entry, int32 queue_id, int n)
{
	int			q = jobq_prepared_queue(entry, queue_id);

	if (q >= 0)
		entry->reserved[q] += n;
}

/* A queue's tickets, n more of them, from `first` on. */
static void
note_prepared(JobqPrepared *entry, int32 queue_id, const JobqKey *first,
			  int64 n)
{
	int			q = jobq_prepared_queue(entry, queue_id);

	if (q < 0)
		return;
	if (jobq_key_before(first, &entry->first[q]))
		entry->first[q] = *first;
	entry->n[q] += n;
}

/* Keys here are those of a queue without aging. */
static void
note_spilled(JobqPrepared *entry, const JobqOp *op)
{
	JobqKey		first = op->first;

	if (op->aging != 0)
		first.priority = JOBQ_KEY_START;
	note_prepared(entry, op->queue_id, &first, op->delta);
}

static void
note_prepared_count(JobqPrepared *entry, const JobqOp *op)
{
	int			q = jobq_prepared_queue(entry, op->queue_id);

	/* the keeper counts them as new when it takes them over */
	if (op->counter == COUNT_ENQUEUED)
		return;
	if (q >= 0 && op->counter == COUNT_SCHEDULED)
		entry->scheduled[q] += op->delta;
	else
		entry->unknown = true;
}

/* Only enqueuing can be prepared: nobody would end our claims and marks. */
static void
describe_prepared(const JobqOp *ops, int nops, JobqPrepared *entry)
{
	bool		limited = false;

	entry->xid = GetTopTransactionIdIfAny();
	entry->shelf_due = JOBQ_NEVER;
	for (int i = 0; i < nops; i++)
	{
		const JobqOp *op = &ops[i];

		if (op->kind == OP_PUBLISH)
		{
			const JobqTicket *t = &jobq_own(op->own)->t;
			JobqKey		key = jobq_key_of(t, 0);

			note_prepared(entry, t->queue_id, &key, 1);
		}
		else if (op->kind == OP_SPILL)
			note_spilled(entry, op);
		else if (op->kind == OP_COUNT)
			note_prepared_count(entry, op);
		else if (op->kind == OP_SHELVED)
			entry->shelf_due = Min(entry->shelf_due, op->when);
		else if (op->kind == OP_ADMITTED)
		{
			note_reserved(entry, op->queue_id, op->delta);
			limited = true;
		}
		else
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot prepare a transaction that has done more with pg_jobq than enqueue jobs"),
					 errdetail("Only jobq.enqueue(), jobq.enqueue_many() and jobq.enqueue_jobs() can be part of a prepared transaction."),
					 errhint("Use COMMIT, or do the rest in a transaction of its own.")));
	}
	if (limited && entry->unknown)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("cannot prepare a transaction that has enqueued jobs into so many queues"),
				 errdetail("Some of them have max_depth or enqueue_limit; what waits there is known for at most %d queues of a prepared transaction.",
						   JOBQ_PREPARED_QUEUES),
				 errhint("Use COMMIT, or enqueue into fewer queues in a transaction.")));
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
	if (found < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many prepared transactions with enqueued jobs"),
				 errdetail("At most %d can be open in one database.",
						   JOBQ_MAX_PREPARED),
				 errhint("Commit or roll back prepared transactions first.")));
	prepare_noted = db;
}

bool
jobq_prepare_noted(void)
{
	return prepare_noted != NULL;
}

void
jobq_prepare_ended(void)
{
	if (prepare_noted != NULL)
		jobq_wake_keeper(prepare_noted);
	prepare_noted = NULL;
}
