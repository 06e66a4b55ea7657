/*
 * xact.c: what the present transaction has done to the queue, as a log that
 * is applied to shared memory in the commit callback and undone, last entry
 * first, when the transaction or a subtransaction aborts. Callbacks here must
 * not allocate, throw or sleep.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "compat.h"
#include "dispatch/meter.h"
#include "engine/xactlog.h"
#include "pause.h"

/*
 * What can be joined is joined with one of so many last entries, so that a
 * transaction with very many jobs needs little memory.
 */
#define LOOK_BACK		64

/* The log; lives in TopTransactionContext. */
static JobqOp *ops;
static int	nops;
static int	ops_size;
static int	ops_of_kind[JOBQ_OP_KINDS];
static JobqOwnJob *own_jobs;
static int	nown;
static int	own_size;
static int	own_ready;			/* how many are OWN_READY */
static bool admissions;			/* there are, or were, OP_ADMITTED */
static bool verdicts;			/* likewise */

void
jobq_xact_reserve(int n)
{
	int			size = ops_size;

	if (ops != NULL && nops + n <= ops_size)
		return;
	if (ops == NULL)
	{
		size = Max(16, n);
		ops = MemoryContextAllocHuge(TopTransactionContext,
									 sizeof(JobqOp) * size);
	}
	else
	{
		while (size < nops + n)
			size *= 2;
		ops = repalloc_huge(ops, sizeof(JobqOp) * size);
	}
	ops_size = size;
}

static JobqOp *
push(JobqOpKind kind, JobqDb *db)
{
	JobqOp	   *op;

	jobq_xact_reserve(1);
	op = &ops[nops++];
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	ops_of_kind[kind]++;
	op->subid = GetCurrentSubTransactionId();
	op->db = db;
	return op;
}

static void
own_reserve(void)
{
	if (own_jobs == NULL)
	{
		own_size = 16;
		own_jobs = MemoryContextAlloc(TopTransactionContext,
									  sizeof(JobqOwnJob) * own_size);
	}
	else if (nown == own_size)
	{
		own_jobs = repalloc(own_jobs, sizeof(JobqOwnJob) * own_size * 2);
		own_size *= 2;
	}
}

/*
 * The entry of a queue's tickets that have no entries of their own. What was
 * written before the queue's order changed may come anywhere in the new one.
 */
static JobqOp *
spill_entry(const JobqSession *session, const JobqQueue *queue,
			const JobqTicket *t)
{
	JobqOp	   *op;

	for (int i = nops - 1; i >= Max(0, nops - LOOK_BACK); i--)
	{
		op = &ops[i];
		if (op->kind == OP_SPILL && op->queue_id == t->queue_id &&
			op->subid == GetCurrentSubTransactionId())
		{
			if (op->aging != queue->rules.aging)
				op->first.priority = JOBQ_KEY_START;
			return op;
		}
	}
	op = push(OP_SPILL, session->db);
	op->ref.gen = session->gen;
	op->queue_id = t->queue_id;
	op->aging = queue->rules.aging;
	op->first = jobq_key_of(t, op->aging);
	return op;
}

/* A new ticket: dispatched once we commit, and to ourselves at once. */
void
jobq_xact_publish(const JobqSession *session, const JobqQueue *queue,
				  const JobqTicket *t, bool is_new)
{
	JobqOp	   *op;

	/* one that keeps its place in a group is always in memory */
	if (nown >= JOBQ_OWN_MAX &&
		!(t->started && jobq_has_group(&t->group)))
	{
		JobqKey		key = jobq_key_of(t, queue->rules.aging);

		op = spill_entry(session, queue, t);
		op->delta++;
		if (jobq_key_before(&key, &op->first))
			op->first = key;
		if (is_new)
			jobq_xact_count(session, t->queue_id, COUNT_ENQUEUED, 1);
		return;
	}
	own_reserve();
	op = push(OP_PUBLISH, session->db);
	op->ref.gen = session->gen;
	op->own = nown;
	memset(&own_jobs[nown], 0, sizeof(JobqOwnJob));
	own_jobs[nown].state = OWN_READY;
	own_jobs[nown].t = *t;
	own_jobs[nown].is_new = is_new;
	nown++;
	own_ready++;
}

void
jobq_xact_claimed(const JobqSession *session, const JobqSlotRef *ref)
{
	push(OP_CLAIM, session->db)->ref = *ref;
}

void
jobq_xact_marked(const JobqSession *session, const JobqSlotRef *ref,
				 TransactionId xid, const JobqSlot *slot)
{
	JobqOp	   *op = push(OP_MARK, session->db);

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

	for (int i = 0; i < nops; i++)
	{
		if (ops[i].kind == OP_MARK && ops[i].queue_id == queue_id &&
			ops[i].at_commit == AT_COMMIT_END)
			ending += ops[i].delta;
	}
	for (int i = 0; i < nown; i++)
	{
		if (own_jobs[i].state == OWN_ENDED && own_jobs[i].l.lease != 0 &&
			own_jobs[i].t.queue_id == queue_id)
			ending++;
	}
	return ending;
}

void
jobq_xact_admitted(const JobqSession *session, int32 queue_id,
				   const JobqAdmission *admission)
{
	JobqOp	   *op = push(OP_ADMITTED, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->admission = admission;
	admissions = true;
}

void
jobq_xact_verdict(const JobqSession *session, int32 queue_id, bool passed)
{
	JobqOp	   *op = push(OP_VERDICT, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->passed = passed;
	verdicts = true;
}

void
jobq_xact_settles(void)
{
	ops[nops - 1].settles = true;
}

bool
jobq_xact_worked_for(int32 queue_id)
{
	for (int i = 0; i < nown; i++)
	{
		if (own_jobs[i].t.queue_id == queue_id && own_jobs[i].l.lease != 0)
			return true;
	}
	for (int i = 0; i < nops; i++)
	{
		if (ops[i].kind == OP_MARK && ops[i].settles &&
			ops[i].queue_id == queue_id &&
			ops[i].at_commit != AT_COMMIT_NOTHING)
			return true;
	}
	return false;
}

/* A mark that was given back is none: the slot may have been marked again. */
static bool
is_mark_of(int op, const JobqSlotRef *ref)
{
	return op >= 0 && op < nops && ops[op].kind == OP_MARK &&
		ops[op].at_commit != AT_COMMIT_NOTHING &&
		ops[op].ref.gen == ref->gen && ops[op].ref.ticket == ref->ticket;
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
	for (int i = nops - 1; i >= 0; i--)
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
	op = push(OP_AMEND, ops[mark].db);
	op->own = mark;
	op->at_commit = ops[mark].at_commit;
	op->when = ops[mark].when;
	op->claim_tid = ops[mark].claim_tid;
	return &ops[mark];
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
	JobqOp	   *op = push(OP_KEEPS_PLACE, session->db);

	*shelved = *t;
	op->ref.gen = session->gen;
	op->ref.id = t->id;
	op->carried = shelved;
}

void
jobq_xact_off_shelf(const JobqSession *session, int64 id)
{
	JobqOp	   *op = push(OP_OFF_SHELF, session->db);

	op->ref.gen = session->gen;
	op->ref.id = id;
}

void
jobq_xact_group_altered(const JobqSession *session, int32 queue_id, text *key,
						const JobqGroupRules *rules)
{
	JobqGroupRules *copy = MemoryContextAlloc(TopTransactionContext,
											  sizeof(JobqGroupRules));
	JobqOp	   *op = push(OP_GROUP_ALTERED, session->db);

	*copy = *rules;
	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->group = jobq_group_key(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	op->group_rules = copy;
}

void
jobq_xact_epoch_news(const JobqSession *session)
{
	push(OP_EPOCH_NEWS, session->db);
}

void
jobq_xact_cron_news(const JobqSession *session)
{
	push(OP_CRON_NEWS, session->db);
}

void
jobq_xact_revert(const JobqSlotRef *ref)
{
	int			mark = find_mark(ref);

	for (int i = nops - 1; i > mark && mark >= 0; i--)
	{
		if (ops[i].kind == OP_AMEND && ops[i].own == mark)
		{
			ops[mark].at_commit = ops[i].at_commit;
			ops[mark].when = ops[i].when;
			ops[mark].claim_tid = ops[i].claim_tid;
			return;
		}
	}
}

bool
jobq_xact_ends(const JobqSlotRef *ref)
{
	int			mark = find_mark(ref);

	return mark < 0 || ops[mark].at_commit != AT_COMMIT_EXTEND;
}

void
jobq_xact_see_extended(const JobqSlotRef *ref, JobqLease *lease)
{
	int			mark = find_mark(ref);

	if (mark < 0 || ops[mark].at_commit != AT_COMMIT_EXTEND)
		return;
	lease->expires_at = ops[mark].when;
	if (ItemPointerIsValid(&ops[mark].claim_tid))
		lease->claim_tid = ops[mark].claim_tid;
}

/* Asked for each of very many jobs, by those who have enqueued none. */
bool
jobq_xact_spilled(int32 queue_id)
{
	for (int i = 0; i < nops && ops_of_kind[OP_SPILL] > 0; i++)
	{
		if (ops[i].kind == OP_SPILL && ops[i].queue_id == queue_id)
			return true;
	}
	return false;
}

void
jobq_xact_holds(const JobqSession *session)
{
	if (ops_of_kind[OP_HOLDS] == 0)
		push(OP_HOLDS, session->db);
}

/* What is alike is counted together. */
static void
count(const JobqSession *session, int32 queue_id, const JobqCount *what)
{
	JobqOp	   *op;

	for (int i = nops - 1; i >= Max(0, nops - LOOK_BACK); i--)
	{
		op = &ops[i];
		if (op->kind == OP_COUNT && op->queue_id == queue_id &&
			op->counter == what->counter && op->when == what->claimed_at &&
			op->by_kind.serial == what->by_kind.serial &&
			op->by_worker.serial == what->by_worker.serial &&
			op->ref.gen == session->gen &&
			op->subid == GetCurrentSubTransactionId())
		{
			op->delta += what->n;
			return;
		}
	}
	op = push(OP_COUNT, session->db);
	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->counter = what->counter;
	op->delta = what->n;
	op->when = what->claimed_at;
	op->by_kind = what->by_kind;
	op->by_worker = what->by_worker;
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

/* The earliest of a kind of times is enough. */
static void
note_time(const JobqSession *session, JobqOpKind kind, TimestampTz when)
{
	for (int i = nops - 1; i >= Max(0, nops - LOOK_BACK); i--)
	{
		if (ops[i].kind == kind &&
			ops[i].subid == GetCurrentSubTransactionId())
		{
			ops[i].when = Min(ops[i].when, when);
			return;
		}
	}
	push(kind, session->db)->when = when;
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
	if (nops == 0 || ops[nops - 1].kind != OP_STEERED)
		push(OP_STEERED, session->db);
}

/* Of many that follow each other only that they are many. */
void
jobq_xact_ended(const JobqSession *session, int64 id)
{
	JobqOp	   *last = nops > 0 ? &ops[nops - 1] : NULL;

	if (last != NULL && last->kind == OP_ENDED &&
		last->subid == GetCurrentSubTransactionId())
		last->ref.id = 0;
	else
		push(OP_ENDED, session->db)->ref.id = id;
}

void
jobq_xact_queue_changed(const JobqSession *session, int32 queue_id)
{
	JobqOp	   *op = push(OP_QUEUE_CHANGED, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
}

void
jobq_xact_aging(const JobqSession *session, int32 queue_id, int64 aging)
{
	JobqOp	   *op = push(OP_AGING, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
	op->aging = aging;
}

void
jobq_xact_queue_dropped(const JobqSession *session, int32 queue_id)
{
	JobqOp	   *op = push(OP_QUEUE_DROPPED, session->db);

	op->ref.gen = session->gen;
	op->queue_id = queue_id;
}

/* ---- our own uncommitted jobs ---- */

int
jobq_own_first(const JobqQueue *queue, int64 lease)
{
	TimestampTz now;
	JobqKey		first_key = {.priority = JOBQ_KEY_END};
	int			first = -1;

	if (own_ready == 0)
		return -1;
	now = jobq_now();
	for (int i = 0; i < nown; i++)
	{
		JobqKey		key = jobq_key_of(&own_jobs[i].t, queue->rules.aging);

		if (own_jobs[i].state == OWN_READY &&
			own_jobs[i].t.queue_id == queue->queue_id &&
			own_jobs[i].t.expires_at > now &&
			(lease == 0 || own_jobs[i].refused_for != lease) &&
			jobq_key_before(&key, &first_key))
		{
			first = i;
			first_key = key;
		}
	}
	return first;
}

int
jobq_own_find(int64 id)
{
	for (int i = nown - 1; i >= 0; i--)
	{
		if (own_jobs[i].t.id == id && own_jobs[i].state != OWN_ENDED)
			return i;
	}
	return -1;
}

JobqOwnJob *
jobq_own(int own)
{
	Assert(own >= 0 && own < nown);
	return &own_jobs[own];
}

void
jobq_own_claim(const JobqSession *session, int own, const JobqLease *lease,
			   bool placed)
{
	JobqOp	   *op = push(OP_OWN_CLAIM, session->db);

	op->ref.gen = session->gen;
	op->queue_id = own_jobs[own].t.queue_id;
	op->own = own;
	op->probe = lease->probe;
	op->group = own_jobs[own].t.group;
	op->placed = placed;
	own_jobs[own].state = OWN_RUNNING;
	own_jobs[own].l = *lease;
	own_ready--;
}

void
jobq_own_end(int own)
{
	JobqOp	   *op = push(OP_OWN_END, NULL);

	op->own = own;
	op->own_state = own_jobs[own].state;
	if (own_jobs[own].state == OWN_READY)
		own_ready--;
	own_jobs[own].state = OWN_ENDED;
}

void
jobq_own_extend(int own, TimestampTz expires_at, const ItemPointerData *claim_tid)
{
	JobqOp	   *op = push(OP_OWN_EXTEND, NULL);

	op->own = own;
	op->when = own_jobs[own].l.expires_at;
	op->claim_tid = own_jobs[own].l.claim_tid;
	own_jobs[own].l.expires_at = expires_at;
	own_jobs[own].l.claim_tid = *claim_tid;
}

/* ---- about to publish ---- */

/*
 * Before anybody can see our tickets: what is entered in our place from now on
 * is to be noticed, and no refill is to take what we run for available.
 */
static void
announce(void)
{
	const JobqOp *last = NULL;

	for (int i = 0; i < nops; i++)
	{
		JobqOp	   *op = &ops[i];
		JobqOwnJob *own;

		if (op->kind != OP_PUBLISH)
			continue;
		own = &own_jobs[op->own];
		if (last != NULL && last->ref.gen == op->ref.gen &&
			own_jobs[last->own].t.queue_id == own->t.queue_id)
			op->since = last->since;
		else
			op->since = jobq_before_publish(op->db, op->ref.gen,
											own->t.queue_id);
		last = op;
		if (own->state == OWN_RUNNING)
		{
			jobq_claimer_comes(op->db, op->ref.gen, own->t.queue_id);
			op->claimer = true;
		}
	}
}

static void
unannounce(JobqOp *op)
{
	if (op->claimer)
		jobq_claimer_goes(op->db, op->ref.gen,
						  own_jobs[op->own].t.queue_id);
	op->claimer = false;
}

/* ---- admissions and verdicts ---- */

static void
settle_admission(const JobqOp *op)
{
	jobq_admit_settled(op->db, op->ref.gen, op->queue_id, op->admission->n);
}

static void
undo_admission(const JobqOp *op)
{
	const JobqAdmission *admission = op->admission;

	settle_admission(op);
	if (admission->rate.limit > 0)
		jobq_admit_undone(op->db, op->ref.gen, op->queue_id, admission->key,
						  admission->rate.period, admission->at,
						  admission->n);
}

/* Only when the jobs are counted as waiting do they count as such no more. */
static void
settle_admissions(void)
{
	for (int i = 0; i < nops; i++)
	{
		if (ops[i].kind == OP_ADMITTED)
			settle_admission(&ops[i]);
	}
}

/* Before its place is free: else another one would be let through. */
static void
apply_verdicts(void)
{
	for (int i = 0; i < nops; i++)
	{
		if (ops[i].kind == OP_VERDICT)
		{
			jobq_breaker_judge(ops[i].db, ops[i].ref.gen, ops[i].queue_id,
							   ops[i].passed);
			jobq_queue_has_changed(ops[i].db, ops[i].ref.gen,
								   ops[i].queue_id);
		}
	}
}

/* ---- undo and apply ---- */

static void
give_place_back(JobqOp *op)
{
	if (op->placed)
		jobq_group_leave_own(op->db, op->ref.gen, op->queue_id, &op->group);
	op->placed = false;
}

static void
undo(JobqOp *op)
{
	JobqOwnJob *own = own_jobs + op->own;

	switch (op->kind)
	{
		case OP_PUBLISH:
			unannounce(op);
			if (own->state == OWN_READY)
				own_ready--;
			nown--;
			break;
		case OP_CLAIM:
			jobq_undo_claim(op->db, &op->ref);
			break;
		case OP_MARK:
			jobq_unmark(op->db, &op->ref, op->xid);
			break;
		case OP_AMEND:
			ops[op->own].at_commit = op->at_commit;
			ops[op->own].when = op->when;
			ops[op->own].claim_tid = op->claim_tid;
			break;
		case OP_OWN_CLAIM:
			jobq_own_released(op->db, op->ref.gen, op->queue_id, op->probe);
			own->state = OWN_READY;
			memset(&own->l, 0, sizeof(own->l));
			own_ready++;
			give_place_back(op);
			break;
		case OP_OWN_END:
			own->state = op->own_state;
			if (own->state == OWN_READY)
				own_ready++;
			break;
		case OP_OWN_EXTEND:
			own->l.expires_at = op->when;
			own->l.claim_tid = op->claim_tid;
			break;
		case OP_HOLDS:
			jobq_wake_keeper(op->db);
			break;
		case OP_ADMITTED:
			undo_admission(op);
			break;
		case OP_VERDICT:
		case OP_SPILL:
		case OP_COUNT:
		case OP_SHELVED:
		case OP_KEEPS_PLACE:
		case OP_OFF_SHELF:
		case OP_GROUP_ALTERED:
		case OP_DIED:
		case OP_EPOCH_NEWS:
		case OP_CRON_NEWS:
		case OP_STEERED:
		case OP_AGING:
		case OP_ENDED:
		case OP_QUEUE_CHANGED:
		case OP_QUEUE_DROPPED:
			break;
	}
}

/* Undo all entries that subtransaction `subid` and its children have made. */
static void
undo_down_to(SubTransactionId subid)
{
	while (nops > 0 && ops[nops - 1].subid >= subid)
	{
		JobqOp	   *op = &ops[--nops];

		ops_of_kind[op->kind]--;
		undo(op);
	}
}

static void
apply_mark(JobqOp *op)
{
	switch (op->at_commit)
	{
		case AT_COMMIT_END:
			jobq_end(op->db, &op->ref);
			break;
		case AT_COMMIT_EXTEND:
			jobq_extended(op->db, &op->ref, op->xid, op->when);
			if (ItemPointerIsValid(&op->claim_tid))
				jobq_set_claim_tid(op->db, &op->ref, &op->claim_tid);
			break;
		case AT_COMMIT_CARRY:
			jobq_carried(op->db, &op->ref, op->xid, op->carried,
						 &op->claim_tid);
			break;
		case AT_COMMIT_HOLD:
			jobq_hold(op->db, &op->ref, op->xid, op->when);
			break;
		case AT_COMMIT_NOTHING:
			break;
	}
}

#define COUNTS_MAX		16		/* under one lock */

/*
 * Count a run of entries of one queue, starting at entry `from`; returns the
 * entry after it.
 */
static int
apply_counts(int from)
{
	const JobqOp *first = &ops[from];
	JobqCount	counts[COUNTS_MAX];
	int			n = 0;

	while (n < COUNTS_MAX && from + n < nops)
	{
		const JobqOp *op = &ops[from + n];

		if (op->kind != OP_COUNT || op->queue_id != first->queue_id ||
			op->ref.gen != first->ref.gen)
			break;
		counts[n].counter = op->counter;
		counts[n].n = op->delta;
		counts[n].claimed_at = op->when;
		counts[n].by_kind = op->by_kind;
		counts[n].by_worker = op->by_worker;
		n++;
	}
	jobq_part_counts(first->db, first->ref.gen, first->queue_id, counts, n,
					 GetCurrentTransactionStopTimestamp());
	return from + n;
}

/* New jobs, all of which have ended in the transaction that made them. */
static void
count_ended(const JobqOp *op, int32 queue_id, int nnew)
{
	JobqCount	what = {.counter = COUNT_ENQUEUED,.n = nnew};

	if (nnew > 0)
		jobq_part_counts(op->db, op->ref.gen, queue_id, &what, 1,
						 GetCurrentTransactionStopTimestamp());
}

/*
 * Publish a run of tickets of one queue, starting at entry `from`; returns
 * the entry after it.
 */
static int
apply_publish(int from)
{
	JobqTicket	tickets[JOBQ_CHUNK];
	JobqLease	leases[JOBQ_CHUNK];
	int			n = 0;
	int			nnew = 0;
	int			i;
	JobqOwnJob *first = &own_jobs[ops[from].own];

	for (i = from; i < nops && n < JOBQ_CHUNK; i++)
	{
		JobqOwnJob *own;

		if (ops[i].kind != OP_PUBLISH || ops[i].ref.gen != ops[from].ref.gen)
			break;
		own = &own_jobs[ops[i].own];
		if (own->t.queue_id != first->t.queue_id)
			break;
		nnew += own->is_new;
		if (own->state == OWN_ENDED)
			continue;
		tickets[n] = own->t;
		leases[n] = own->l;
		n++;
	}
	if (n > 0)
		jobq_publish(ops[from].db, ops[from].ref.gen, tickets, leases, n,
					 ops[from].since, nnew);
	else
		count_ended(&ops[from], first->t.queue_id, nnew);
	for (int o = from; o < i; o++)
		unannounce(&ops[o]);
	return i;
}

/* Do we take jobs away from where they were? */
static bool
takes_away(void)
{
	for (int i = 0; i < nops; i++)
	{
		if (ops[i].kind == OP_MARK ||
			(ops[i].kind == OP_COUNT && ops[i].delta < 0))
			return true;
	}
	return false;
}

/* Call it for each queue that jobs come to, perhaps more than once. */
static void
for_arrivals(void (*call) (JobqDb *db, uint32 gen, int32 queue_id))
{
	int32		last = 0;

	for (int i = 0; i < nops; i++)
	{
		const JobqOp *op = &ops[i];
		int32		queue_id = op->queue_id;

		if (op->kind == OP_PUBLISH)
			queue_id = own_jobs[op->own].t.queue_id;
		else if (op->kind != OP_SPILL &&
				 !(op->kind == OP_COUNT && op->delta > 0 &&
				   op->counter == COUNT_RETRYABLE))
			continue;
		if (queue_id != last)
			call(op->db, op->ref.gen, queue_id);
		last = queue_id;
	}
}

/*
 * First to where the jobs have gone on: their slots go there in one step,
 * before the end of their former tickets would free them, and with them a place
 * in a group. Returns how many have gone to the shelf.
 */
static int
apply_new_places(void)
{
	int			shelved = 0;
	int			i = 0;

	while (i < nops)
	{
		JobqOp	   *op = &ops[i];

		if (op->kind == OP_PUBLISH)
		{
			i = apply_publish(i);
			continue;
		}
		if (op->kind == OP_KEEPS_PLACE)
		{
			jobq_shelve(op->db, op->ref.gen, op->carried);
			shelved++;
		}
		i++;
	}
	return shelved;
}

/* It was taken off the shelf; has it been put back there since? */
static void
apply_off_shelf(const JobqOp *op, int shelved)
{
	for (const JobqOp *later = op + 1; shelved > 0 && later < ops + nops;
		 later++)
	{
		if (later->kind == OP_KEEPS_PLACE && later->ref.id == op->ref.id)
			return;
	}
	jobq_unshelve(op->db, op->ref.gen, op->ref.id);
}

static void
apply(JobqOp *op, int shelved)
{
	switch (op->kind)
	{
		case OP_CLAIM:
			jobq_close_claim(op->db, &op->ref);
			break;
		case OP_MARK:
			apply_mark(op);
			break;
		case OP_SPILL:
			jobq_leave_on_disk(op->db, op->ref.gen, op->queue_id, &op->first,
							   op->aging, op->delta);
			break;
		case OP_HOLDS:
			jobq_wake_keeper(op->db);
			break;
		case OP_SHELVED:
			jobq_db_shelf_due(op->db, op->when);
			break;
		case OP_OFF_SHELF:
			apply_off_shelf(op, shelved);
			break;
		case OP_OWN_CLAIM:
			jobq_own_released(op->db, op->ref.gen, op->queue_id, op->probe);
			give_place_back(op);
			break;
		case OP_AGING:
			jobq_part_set_aging(op->db, op->ref.gen, op->queue_id, op->aging);
			break;
		case OP_CRON_NEWS:
			jobq_cron_news(op->db);
			break;
		case OP_GROUP_ALTERED:
			(void) jobq_group_set_rules(op->db, op->ref.gen, op->queue_id,
										&op->group, op->group_rules, true);
			jobq_queue_has_changed(op->db, op->ref.gen, op->queue_id);
			break;
		case OP_ENDED:
			jobq_wake_for_job(op->db, op->ref.id);
			break;
		case OP_QUEUE_CHANGED:
			jobq_queue_has_changed(op->db, op->ref.gen, op->queue_id);
			break;
		case OP_DIED:
			jobq_db_dead_due(op->db, op->when);
			break;
		case OP_QUEUE_DROPPED:
			jobq_part_free(op->db, op->ref.gen, op->queue_id, true);
			jobq_epoch_news(op->db);
			break;
		case OP_EPOCH_NEWS:
			jobq_epoch_news(op->db);
			break;
		case OP_PUBLISH:
		case OP_COUNT:
		case OP_KEEPS_PLACE:
		case OP_AMEND:
		case OP_OWN_END:
		case OP_OWN_EXTEND:
		case OP_STEERED:
		case OP_ADMITTED:
		case OP_VERDICT:
			break;
	}
}

static void
apply_all(void)
{
	bool		moves = takes_away();
	int			shelved;

	if (moves)
		for_arrivals(jobq_arrivals_begin);
	shelved = apply_new_places();
	for (int i = 0; i < nops;)
	{
		if (ops[i].kind == OP_COUNT)
			i = apply_counts(i);
		else
			apply(&ops[i++], shelved);
	}
	if (moves)
		for_arrivals(jobq_arrivals_end);
}

static void
forget(void)
{
	ops = NULL;
	nops = 0;
	ops_size = 0;
	memset(ops_of_kind, 0, sizeof(ops_of_kind));
	own_jobs = NULL;
	nown = 0;
	own_size = 0;
	own_ready = 0;
	admissions = false;
	verdicts = false;
	jobq_lazy_claim_forget();
	jobq_prepare_ended();
}

static void
xact_callback(XactEvent event, void *arg)
{
	/* also when all of the log was undone: its memory goes all the same */
	if (ops == NULL && own_jobs == NULL && !jobq_lazy_claim_noted())
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			jobq_lazy_claim_decide();
			announce();
			return;
		case XACT_EVENT_PRE_PREPARE:
			jobq_prepare_check(ops, nops);
			return;
		case XACT_EVENT_COMMIT:
			JOBQ_PAUSE("before-publish");
			if (verdicts)
				apply_verdicts();
			apply_all();
			if (admissions)
				settle_admissions();
			break;
		case XACT_EVENT_ABORT:
			undo_down_to(TopSubTransactionId);
			break;
		case XACT_EVENT_PREPARE:
			settle_admissions();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			return;
	}
	forget();
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		undo_down_to(mySubid);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = nops - 1; i >= 0 && ops[i].subid >= mySubid; i--)
			ops[i].subid = parentSubid;
	}
}

void
jobq_register_xact_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
