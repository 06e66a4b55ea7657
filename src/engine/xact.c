/*
 * xact.c: what the present transaction has done to the queue, written down as
 * a log, which xactend.c applies or undoes. Must not change shared memory.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "dispatch/meter.h"
#include "engine/xactlog.h"

#define OPS_FEW			16

JobqOp	   *jobq_ops;
int			jobq_nops;
int			jobq_ops_of_kind[JOBQ_OP_KINDS];
static JobqOp few_ops[OPS_FEW]; /* enough for most: in the cache, not freed */
static int	ops_size;

void
jobq_xact_reserve(int n)
{
	int			size = ops_size;

	if (jobq_ops == NULL)
	{
		jobq_ops = few_ops;
		size = ops_size = OPS_FEW;
	}
	if (jobq_nops + n <= size)
		return;
	while (size < jobq_nops + n)
		size *= 2;
	if (jobq_ops == few_ops)
	{
		jobq_ops = MemoryContextAllocHuge(TopTransactionContext,
										  sizeof(JobqOp) * size);
		memcpy(jobq_ops, few_ops, sizeof(JobqOp) * jobq_nops);
	}
	else
		jobq_ops = repalloc_huge(jobq_ops, sizeof(JobqOp) * size);
	ops_size = size;
}

JobqOp *
jobq_xact_push(JobqOpKind kind, JobqDb *db)
{
	JobqOp	   *op;

	jobq_xact_reserve(1);
	op = &jobq_ops[jobq_nops++];
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	jobq_ops_of_kind[kind]++;
	op->subid = GetCurrentSubTransactionId();
	op->db = db;
	return op;
}

void
jobq_xact_forget(void)
{
	jobq_ops = NULL;
	jobq_nops = 0;
	ops_size = 0;
	memset(jobq_ops_of_kind, 0, sizeof(jobq_ops_of_kind));
	jobq_join_forget();
}

void
jobq_xact_spill(const JobqSession *session, const JobqQueue *queue,
				const JobqTicket *t)
{
	JobqOp	   *op = jobq_xact_push(OP_SPILL, session->db);

	op->ref.gen = session->gen;
	op->queue_id = t->queue_id;
	op->aging = queue->rules.aging;
	op->first = jobq_key_of(t, op->aging);
	op->delta = 1;
	jobq_xact_join();
}

void
jobq_xact_claimed(const JobqSession *session, const JobqSlotRef *ref)
{
	jobq_xact_push(OP_CLAIM, session->db)->ref = *ref;
}

void
jobq_xact_unclaim(int64 lease)
{
	for (int i = 0; i < jobq_nops; i++)
	{
		if (jobq_ops[i].kind == OP_CLAIM && jobq_ops[i].ref.lease == lease)
			jobq_unclaim(jobq_ops[i].db, &jobq_ops[i].ref);
	}
}

void
jobq_xact_marked(const JobqSession *session, const JobqSlotRef *ref,
				 TransactionId xid, const JobqSlot *slot)
{
	JobqOp	   *op = jobq_xact_push(OP_MARK, session->db);

	op->ref = *ref;
	op->xid = xid;
	op->at_commit = AT_COMMIT_END;
	if (slot == NULL)
		return;
	op->queue_id = slot->t.queue_id;
	op->delta = slot->state == SLOT_RUNNING &&
		(!(slot->flags & SLOT_CLAIM_OPEN) ||
		 slot->claim_proc == jobq_my_procno());
}

int64
jobq_xact_ending(int32 queue_id)
{
	int64		ending = 0;

	for (int i = 0; i < jobq_nops; i++)
	{
		if (jobq_ops[i].kind == OP_MARK && jobq_ops[i].queue_id == queue_id &&
			jobq_ops[i].at_commit == AT_COMMIT_END)
			ending += jobq_ops[i].delta;
	}
	return ending + jobq_own_ending(queue_id);
}

void
jobq_xact_admits(const JobqSession *session, int32 queue_id,
				 const uint64 *key, int64 period)
{
	JobqOp	   *op = jobq_xact_push(OP_ADMITTED, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->admit_key[0] = key[0];
	op->admit_key[1] = key[1];
	op->period = period;
}

void
jobq_xact_admitted(int n, TimestampTz at)
{
	JobqOp	   *op = &jobq_ops[jobq_nops - 1];

	Assert(op->kind == OP_ADMITTED && op->delta == 0);
	op->delta = n;
	op->when = at;
	jobq_xact_join();
}

void
jobq_xact_verdict(const JobqSession *session, int32 queue_id, bool passed)
{
	JobqOp	   *op = jobq_xact_push(OP_VERDICT, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->passed = passed;
}

void
jobq_xact_settles(void)
{
	jobq_ops[jobq_nops - 1].settles = true;
}

bool
jobq_xact_worked_for(int32 queue_id)
{
	if (jobq_own_leased(queue_id))
		return true;
	for (int i = 0; i < jobq_nops; i++)
	{
		if (jobq_ops[i].kind == OP_MARK && jobq_ops[i].settles &&
			jobq_ops[i].queue_id == queue_id &&
			jobq_ops[i].at_commit != AT_COMMIT_NOTHING)
			return true;
	}
	return false;
}

/* A mark that was given back is none: the slot may have been marked again. */
static bool
is_mark_of(int op, const JobqSlotRef *ref)
{
	return op >= 0 && op < jobq_nops && jobq_ops[op].kind == OP_MARK &&
		jobq_ops[op].at_commit != AT_COMMIT_NOTHING &&
		jobq_ops[op].ref.gen == ref->gen &&
		jobq_ops[op].ref.ticket == ref->ticket;
}

/* Batches come in the order in which they were marked: look there first. */
static int
find_mark(const JobqSlotRef *ref)
{
	static int	last = -1;

	for (int i = last; i <= last + 1; i++)
	{
		if (is_mark_of(i, ref))
			return last = i;
	}
	for (int i = jobq_nops - 1; i >= 0; i--)
	{
		if (is_mark_of(i, ref))
			return i;
	}
	return -1;
}

/* The entry of a slot we have marked, its present plan saved for undo. */
static JobqOp *
amend(const JobqSlotRef *ref)
{
	int			mark = find_mark(ref);
	JobqOp	   *op;

	if (mark < 0)
		elog(ERROR, "slot of job " INT64_FORMAT " is not marked", ref->id);
	op = jobq_xact_push(OP_AMEND, jobq_ops[mark].db);
	op->own = mark;
	op->at_commit = jobq_ops[mark].at_commit;
	op->when = jobq_ops[mark].when;
	op->claim_tid = jobq_ops[mark].claim_tid;
	return &jobq_ops[mark];
}

void
jobq_xact_at_commit(const JobqSlotRef *ref, JobqAtCommit what,
					TimestampTz when)
{
	JobqOp	   *mark = amend(ref);

	mark->at_commit = what;
	mark->when = when;
}

void
jobq_xact_extended(const JobqSlotRef *ref, TimestampTz when,
				   ItemPointer claim_tid)
{
	JobqOp	   *mark = amend(ref);

	mark->at_commit = AT_COMMIT_EXTEND;
	mark->when = when;
	if (claim_tid != NULL)
		mark->claim_tid = *claim_tid;
}

void
jobq_xact_carried(const JobqSlotRef *ref, const JobqTicket *to,
				  const ItemPointerData *claim_tid)
{
	JobqTicket *carried = MemoryContextAlloc(TopTransactionContext,
											 sizeof(JobqTicket));
	JobqOp	   *mark = amend(ref);

	*carried = *to;
	mark->at_commit = AT_COMMIT_CARRY;
	mark->carried = carried;
	mark->claim_tid = *claim_tid;
}

void
jobq_xact_keeps_place(const JobqSession *session, const JobqTicket *t)
{
	JobqTicket *shelved = MemoryContextAlloc(TopTransactionContext,
											 sizeof(JobqTicket));
	JobqOp	   *op = jobq_xact_push(OP_KEEPS_PLACE, session->db);

	*shelved = *t;
	op->ref.gen = session->gen;
	op->ref.id = t->id;
	op->carried = shelved;
}

void
jobq_xact_off_shelf(const JobqSession *session, int64 id)
{
	JobqOp	   *op = jobq_xact_push(OP_OFF_SHELF, session->db);

	op->ref.gen = session->gen;
	op->ref.id = id;
	op->own = jobq_own_next();
}

void
jobq_xact_group_altered(const JobqSession *session, int32 queue_id, text *key,
						const JobqGroupRules *rules)
{
	JobqGroupRules *copy = MemoryContextAlloc(TopTransactionContext,
											  sizeof(JobqGroupRules));
	JobqOp	   *op = jobq_xact_push(OP_GROUP_ALTERED, session->db);

	*copy = *rules;
	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->group = jobq_group_key(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	op->group_rules = copy;
}

void
jobq_xact_epoch_news(const JobqSession *session)
{
	jobq_xact_push(OP_EPOCH_NEWS, session->db);
}

void
jobq_xact_cron_news(const JobqSession *session)
{
	jobq_xact_push(OP_CRON_NEWS, session->db);
}

void
jobq_xact_revert(const JobqSlotRef *ref)
{
	int			mark = find_mark(ref);

	for (int i = jobq_nops - 1; i > mark && mark >= 0; i--)
	{
		if (jobq_ops[i].kind == OP_AMEND && jobq_ops[i].own == mark)
		{
			jobq_ops[mark].at_commit = jobq_ops[i].at_commit;
			jobq_ops[mark].when = jobq_ops[i].when;
			jobq_ops[mark].claim_tid = jobq_ops[i].claim_tid;
			return;
		}
	}
}

bool
jobq_xact_ends(const JobqSlotRef *ref)
{
	int			mark = find_mark(ref);

	return mark < 0 || jobq_ops[mark].at_commit != AT_COMMIT_EXTEND;
}

void
jobq_xact_see_extended(const JobqSlotRef *ref, JobqLease *lease)
{
	int			mark = find_mark(ref);

	if (mark < 0 || jobq_ops[mark].at_commit != AT_COMMIT_EXTEND)
		return;
	lease->expires_at = jobq_ops[mark].when;
	if (ItemPointerIsValid(&jobq_ops[mark].claim_tid))
		lease->claim_tid = jobq_ops[mark].claim_tid;
}

/* Asked for each of very many jobs, by those who have enqueued none. */
bool
jobq_xact_spilled(int32 queue_id)
{
	for (int i = 0; i < jobq_nops && jobq_ops_of_kind[OP_SPILL] > 0; i++)
	{
		if (jobq_ops[i].kind == OP_SPILL && jobq_ops[i].queue_id == queue_id)
			return true;
	}
	return false;
}

void
jobq_xact_holds(const JobqSession *session)
{
	if (jobq_ops_of_kind[OP_HOLDS] == 0)
		jobq_xact_push(OP_HOLDS, session->db);
}

static void
count(const JobqSession *session, int32 queue_id, const JobqCount *what)
{
	JobqOp	   *op = jobq_xact_push(OP_COUNT, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->counter = what->counter;
	op->delta = what->n;
	op->when = what->claimed_at;
	op->by_kind = what->by_kind;
	op->by_worker = what->by_worker;
	jobq_xact_join();
}

void
jobq_xact_count(const JobqSession *session, int32 queue_id,
				JobqCounter counter, int64 delta)
{
	JobqCount	what = {.counter = counter,.n = delta};

	count(session, queue_id, &what);
}

void
jobq_xact_count_attempt(const JobqSession *session, const JobqHeld *held,
						JobqCounter counter, bool timed)
{
	JobqCount	what = {.counter = counter,.n = 1,
		.claimed_at = timed ? held->l.claimed_at : 0,
	.by_kind = held->l.by_kind,.by_worker = held->l.by_worker};

	count(session, held->t.queue_id, &what);
}

static void
note_time(const JobqSession *session, JobqOpKind kind, TimestampTz when)
{
	jobq_xact_push(kind, session->db)->when = when;
	jobq_xact_join();
}

void
jobq_xact_shelved(const JobqSession *session, TimestampTz run_at)
{
	note_time(session, OP_SHELVED, run_at);
}

void
jobq_xact_died(const JobqSession *session, TimestampTz until)
{
	note_time(session, OP_DIED, until);
}

void
jobq_xact_steered(const JobqSession *session)
{
	if (jobq_nops == 0 || jobq_ops[jobq_nops - 1].kind != OP_STEERED)
		jobq_xact_push(OP_STEERED, session->db);
}

/* Of many that follow each other only that they are many. */
void
jobq_xact_ended(const JobqSession *session, int64 id)
{
	JobqOp	   *last = jobq_nops > 0 ? &jobq_ops[jobq_nops - 1] : NULL;

	if (last != NULL && last->kind == OP_ENDED &&
		last->subid == GetCurrentSubTransactionId())
		last->ref.id = 0;
	else
		jobq_xact_push(OP_ENDED, session->db)->ref.id = id;
}

void
jobq_xact_queue_changed(const JobqSession *session, int32 queue_id)
{
	JobqOp	   *op = jobq_xact_push(OP_QUEUE_CHANGED, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
}

void
jobq_xact_aging(const JobqSession *session, int32 queue_id, int64 aging)
{
	JobqOp	   *op = jobq_xact_push(OP_AGING, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->aging = aging;
}

void
jobq_xact_audited(const JobqSession *session, int64 entry,
				  const JobqRefusal *undone)
{
	JobqOp	   *op = jobq_xact_push(undone != NULL ? OP_CLAIM_AUDITED :
									OP_AUDITED, session->db);

	op->ref.gen = session->gen;
	op->ref.id = entry;
	op->refusal = undone;
	if (undone == NULL)
		jobq_xact_join();
}

void
jobq_xact_queue_dropped(const JobqSession *session, int32 queue_id)
{
	JobqOp	   *op = jobq_xact_push(OP_QUEUE_DROPPED, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
}
