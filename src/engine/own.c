/*
 * own.c: the jobs that the present transaction has written: to itself they
 * are there at once, to others when it has committed. Must not touch the jobs
 * of others; what is called at the end of the transaction must not allocate,
 * throw or sleep.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "dispatch/meter.h"
#include "engine/xactlog.h"

/* Live in TopTransactionContext. */
static JobqOwnJob *own_jobs;
static int	nown;
static int	own_size;
static int	own_ready;			/* how many are OWN_READY */

static void
own_reserve(void)
{
	if (own_jobs == NULL)
	{
		jobq_xact_reserve(1);	/* where there are own jobs is a log */
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

void
jobq_own_add(const JobqSession *session, const JobqQueue *queue,
			 const JobqTicket *t, bool is_new)
{
	JobqOp	   *op;

	/* one that keeps its place in a group is always in memory */
	if (nown >= JOBQ_OWN_MAX &&
		!(t->started && jobq_has_group(&t->group)))
	{
		jobq_xact_spill(session, queue, t);
		if (is_new)
			jobq_xact_count(session, t->queue_id, COUNT_ENQUEUED, 1);
		return;
	}
	own_reserve();
	op = jobq_xact_push(OP_PUBLISH, session->db);
	op->ref.gen = session->gen;
	op->queue_id = t->queue_id;
	op->own = nown;
	memset(&own_jobs[nown], 0, sizeof(JobqOwnJob));
	own_jobs[nown].state = OWN_READY;
	own_jobs[nown].t = *t;
	own_jobs[nown].is_new = is_new;
	nown++;
	own_ready++;
}

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

int
jobq_own_next(void)
{
	return nown;
}

bool
jobq_own_is_published(int own, int64 id)
{
	for (; own < nown; own++)
	{
		if (own_jobs[own].t.id == id && own_jobs[own].state != OWN_ENDED)
			return true;
	}
	return false;
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
	JobqOp	   *op = jobq_xact_push(OP_OWN_CLAIM, session->db);

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
	JobqOp	   *op = jobq_xact_push(OP_OWN_END, NULL);

	op->own = own;
	op->own_state = own_jobs[own].state;
	if (own_jobs[own].state == OWN_READY)
		own_ready--;
	own_jobs[own].state = OWN_ENDED;
}

void
jobq_own_extend(int own, TimestampTz expires_at,
				const ItemPointerData *claim_tid)
{
	JobqOp	   *op = jobq_xact_push(OP_OWN_EXTEND, NULL);

	op->own = own;
	op->when = own_jobs[own].l.expires_at;
	op->claim_tid = own_jobs[own].l.claim_tid;
	own_jobs[own].l.expires_at = expires_at;
	own_jobs[own].l.claim_tid = *claim_tid;
}

int64
jobq_own_ending(int32 queue_id)
{
	int64		ending = 0;

	for (int i = 0; i < nown; i++)
	{
		if (own_jobs[i].state == OWN_ENDED && own_jobs[i].l.lease != 0 &&
			own_jobs[i].t.queue_id == queue_id)
			ending++;
	}
	return ending;
}

bool
jobq_own_leased(int32 queue_id)
{
	for (int i = 0; i < nown; i++)
	{
		if (own_jobs[i].t.queue_id == queue_id && own_jobs[i].l.lease != 0)
			return true;
	}
	return false;
}

/* ---- published ---- */

void
jobq_own_announce(void)
{
	const JobqOp *last = NULL;

	for (int i = 0; i < jobq_nops; i++)
	{
		JobqOp	   *op = &jobq_ops[i];

		if (op->kind != OP_PUBLISH)
			continue;
		if (last != NULL && last->ref.gen == op->ref.gen &&
			last->queue_id == op->queue_id)
			op->since = last->since;
		else
			op->since = jobq_before_publish(op->db, op->ref.gen,
											op->queue_id);
		last = op;
		if (own_jobs[op->own].state == OWN_RUNNING)
		{
			jobq_claimer_comes(op->db, op->ref.gen, op->queue_id);
			op->claimer = true;
		}
	}
}

static void
unannounce(JobqOp *op)
{
	if (op->claimer)
		jobq_claimer_goes(op->db, op->ref.gen, op->queue_id);
	op->claimer = false;
}

/* New jobs, all of which have ended in the transaction that made them. */
static void
count_ended(const JobqOp *op, int nnew)
{
	JobqCount	what = {.counter = COUNT_ENQUEUED,.n = nnew};

	if (nnew > 0)
		jobq_part_counts(op->db, op->ref.gen, op->queue_id, &what, 1,
						 GetCurrentTransactionStopTimestamp());
}

int
jobq_own_publish(int from)
{
	JobqTicket	tickets[JOBQ_CHUNK];
	JobqLease	leases[JOBQ_CHUNK];
	const JobqOp *first = &jobq_ops[from];
	int			n = 0;
	int			nnew = 0;
	int			i;

	for (i = from; i < jobq_nops && n < JOBQ_CHUNK; i++)
	{
		const JobqOp *op = &jobq_ops[i];
		const JobqOwnJob *own;

		if (op->kind != OP_PUBLISH || op->ref.gen != first->ref.gen ||
			op->queue_id != first->queue_id)
			break;
		own = &own_jobs[op->own];
		nnew += own->is_new;
		if (own->state == OWN_ENDED)
			continue;
		tickets[n] = own->t;
		leases[n] = own->l;
		n++;
	}
	if (n > 0)
		jobq_publish(first->db, first->ref.gen, tickets, leases, n,
					 first->since, nnew);
	else
		count_ended(first, nnew);
	for (int o = from; o < i; o++)
		unannounce(&jobq_ops[o]);
	return i;
}

/* ---- undone ---- */

void
jobq_own_claim_over(JobqOp *op)
{
	jobq_own_released(op->db, op->ref.gen, op->queue_id, op->probe);
	if (op->placed)
		jobq_group_leave_own(op->db, op->ref.gen, op->queue_id, &op->group);
	op->placed = false;
}

/* The last one written goes, and its place in the list. */
static void
take_back(JobqOp *op)
{
	unannounce(op);
	if (own_jobs[op->own].state == OWN_READY)
		own_ready--;
	nown--;
}

void
jobq_own_undo(JobqOp *op)
{
	JobqOwnJob *own = &own_jobs[op->own];

	switch (op->kind)
	{
		case OP_PUBLISH:
			take_back(op);
			break;
		case OP_OWN_CLAIM:
			jobq_own_claim_over(op);
			own->state = OWN_READY;
			memset(&own->l, 0, sizeof(own->l));
			own_ready++;
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
		default:
			Assert(false);
	}
}

void
jobq_own_forget(void)
{
	own_jobs = NULL;
	nown = 0;
	own_size = 0;
	own_ready = 0;
}
