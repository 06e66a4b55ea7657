/*
 * xactend.c: what a transaction has done to the queue, applied to shared
 * memory in the commit callback and undone, last entry first, when the
 * transaction or a subtransaction aborts. Must not allocate, throw or sleep
 * there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/resowner.h"

#include "dispatch/meter.h"
#include "engine/xactlog.h"
#include "pause.h"

/* ---- admissions and verdicts ---- */

static void
settle_admission(const JobqOp *op)
{
	jobq_admit_settled(op->db, op->ref.gen, op->queue_id, (int) op->delta);
}

/* Once it was to be prepared its room is given back by the keeper. */
static void
undo_admission(const JobqOp *op)
{
	if (op->delta == 0)
		return;
	if (!jobq_prepare_noted())
		settle_admission(op);
	if (op->period > 0)
		jobq_admit_undone(op->db, op->ref.gen, op->queue_id, op->admit_key,
						  op->period, op->when, (int) op->delta);
}

/* Only when the jobs are counted as waiting do they count as such no more. */
static void
settle_admissions(void)
{
	for (int i = 0; i < jobq_nops; i++)
	{
		if (jobq_ops[i].kind == OP_ADMITTED)
			settle_admission(&jobq_ops[i]);
	}
}

/* Before its place is free: else another one would be let through. */
static void
apply_verdicts(void)
{
	for (int i = 0; i < jobq_nops; i++)
	{
		const JobqOp *op = &jobq_ops[i];

		if (op->kind != OP_VERDICT)
			continue;
		jobq_breaker_judge(op->db, op->ref.gen, op->queue_id, op->passed);
		jobq_queue_has_changed(op->db, op->ref.gen, op->queue_id);
	}
}

/* ---- undo and apply ---- */

static void
undo(JobqOp *op)
{
	switch (op->kind)
	{
		case OP_PUBLISH:
		case OP_OWN_CLAIM:
		case OP_OWN_END:
		case OP_OWN_EXTEND:
			jobq_own_undo(op);
			break;
		case OP_CLAIM:
			jobq_undo_claim(op->db, &op->ref);
			break;
		case OP_MARK:
			jobq_unmark(op->db, &op->ref, op->xid);
			break;
		case OP_AMEND:
			jobq_ops[op->own].at_commit = op->at_commit;
			jobq_ops[op->own].when = op->when;
			jobq_ops[op->own].claim_tid = op->claim_tid;
			break;
		case OP_HOLDS:
			jobq_wake_keeper(op->db);
			break;
		case OP_ADMITTED:
			undo_admission(op);
			break;
		case OP_CLAIM_AUDITED:
			jobq_refusal_put(op->db, op->refusal);
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
		case OP_AUDITED:
		case OP_QUEUE_CHANGED:
		case OP_QUEUE_DROPPED:
			break;
	}
}

/* Undo all entries that subtransaction `subid` and its children have made. */
static void
undo_down_to(SubTransactionId subid)
{
	while (jobq_nops > 0 && jobq_ops[jobq_nops - 1].subid >= subid)
	{
		JobqOp	   *op = &jobq_ops[--jobq_nops];

		jobq_ops_of_kind[op->kind]--;
		jobq_xact_unjoin(op);
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
	const JobqOp *first = &jobq_ops[from];
	JobqCount	counts[COUNTS_MAX];
	int			n = 0;

	while (n < COUNTS_MAX && from + n < jobq_nops)
	{
		const JobqOp *op = &jobq_ops[from + n];

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

/* Close a run of claims, from entry `from` on; returns the entry after it. */
static int
apply_claims(int from)
{
	JobqSlotRef refs[JOBQ_CHUNK];
	int			n = 0;

	while (n < JOBQ_CHUNK && from + n < jobq_nops &&
		   jobq_ops[from + n].kind == OP_CLAIM)
	{
		refs[n] = jobq_ops[from + n].ref;
		n++;
	}
	jobq_close_claims(refs, n);
	return from + n;
}

/* Do we take jobs away from where they were? */
static bool
takes_away(void)
{
	for (int i = 0; i < jobq_nops; i++)
	{
		if (jobq_ops[i].kind == OP_MARK ||
			(jobq_ops[i].kind == OP_COUNT && jobq_ops[i].delta < 0))
			return true;
	}
	return false;
}

/* Call it for each queue that jobs come to, perhaps more than once. */
static void
for_arrivals(void (*call) (JobqDb *db, uint32 gen, int32 queue_id))
{
	int32		last = 0;

	for (int i = 0; i < jobq_nops; i++)
	{
		const JobqOp *op = &jobq_ops[i];

		if (op->kind != OP_PUBLISH && op->kind != OP_SPILL &&
			!(op->kind == OP_COUNT && op->delta > 0 &&
			  op->counter == COUNT_RETRYABLE))
			continue;
		if (op->queue_id != last)
			call(op->db, op->ref.gen, op->queue_id);
		last = op->queue_id;
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

	while (i < jobq_nops)
	{
		JobqOp	   *op = &jobq_ops[i];

		if (op->kind == OP_PUBLISH)
		{
			i = jobq_own_publish(i);
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

/*
 * It was taken off the shelf; has it been put back there since? If it went to
 * the belt its slot did, too, and may be others' by now.
 */
static void
apply_off_shelf(const JobqOp *op, int shelved)
{
	const JobqOp *end = jobq_ops + jobq_nops;

	for (const JobqOp *later = op + 1; shelved > 0 && later < end; later++)
	{
		if (later->kind == OP_KEEPS_PLACE && later->ref.id == op->ref.id)
			return;
	}
	if (!jobq_own_is_published(op->own, op->ref.id))
		jobq_unshelve(op->db, op->ref.gen, op->ref.id);
}

static void
apply(JobqOp *op, int shelved)
{
	switch (op->kind)
	{
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
			jobq_own_claim_over(op);
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
		case OP_DIED:
			jobq_db_dead_due(op->db, op->when);
			break;
		case OP_QUEUE_DROPPED:
			jobq_part_free(op->db, op->ref.gen, op->queue_id, true);
			break;
		case OP_AUDITED:
		case OP_CLAIM_AUDITED:
			jobq_audit_news(op->db, op->ref.gen, op->ref.id);
			break;
		case OP_PUBLISH:
		case OP_CLAIM:
		case OP_COUNT:
		case OP_KEEPS_PLACE:
		case OP_AMEND:
		case OP_OWN_END:
		case OP_OWN_EXTEND:
		case OP_STEERED:
		case OP_ADMITTED:
		case OP_VERDICT:
		case OP_QUEUE_CHANGED:
		case OP_EPOCH_NEWS:
			break;
	}
}

/* Of a chunk of entries from `from` on. */
static void
expect_ends(int from)
{
	const JobqDb *db = NULL;
	int64		ids[JOBQ_CHUNK];
	int			n = 0;

	for (int i = from; i < jobq_nops && i < from + JOBQ_CHUNK; i++)
	{
		if (jobq_ops[i].kind != OP_MARK)
			continue;
		db = jobq_ops[i].db;
		ids[n++] = jobq_ops[i].ref.id;
	}
	if (n > 0)
		jobq_expect_jobs(db, ids, n, true);
}

static void
apply_all(void)
{
	bool		moves = takes_away();
	int			expected = 0;
	int			shelved;

	if (moves)
		for_arrivals(jobq_arrivals_begin);
	shelved = apply_new_places();
	JOBQ_PAUSE("new-places-known");
	for (int i = 0; i < jobq_nops;)
	{
		if (i >= expected)
		{
			expect_ends(i);
			expected = i + JOBQ_CHUNK;
		}
		if (jobq_ops[i].kind == OP_COUNT)
			i = apply_counts(i);
		else if (jobq_ops[i].kind == OP_CLAIM)
			i = apply_claims(i);
		else
			apply(&jobq_ops[i++], shelved);
	}
	if (moves)
		for_arrivals(jobq_arrivals_end);
}

/* ---- news of the catalog ---- */

static bool untold;				/* of what has been committed */

static bool
has_news(void)
{
	return jobq_ops_of_kind[OP_QUEUE_CHANGED] > 0 ||
		jobq_ops_of_kind[OP_QUEUE_DROPPED] > 0 ||
		jobq_ops_of_kind[OP_EPOCH_NEWS] > 0;
}

/*
 * Who is told looks at once and not again, so the word that makes it forget
 * what it knows of the catalog must be out: a commit sends that after its
 * callbacks, and before it releases what comes last.
 */
static void
tell_news(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
		  void *arg)
{
	if (!untold || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	for (int i = 0; i < jobq_nops; i++)
	{
		const JobqOp *op = &jobq_ops[i];

		if (op->kind == OP_QUEUE_CHANGED || op->kind == OP_QUEUE_DROPPED)
			jobq_queue_has_changed(op->db, op->ref.gen, op->queue_id);
		if (op->kind == OP_EPOCH_NEWS || op->kind == OP_QUEUE_DROPPED)
			jobq_epoch_news(op->db);
		/* once more: beside a changed queue it is of a changed retention */
		if (op->kind == OP_DIED)
			jobq_db_dead_due(op->db, op->when);
	}
	untold = false;
	jobq_xact_forget();
}

/* ---- callbacks ---- */

static bool announced;			/* to late.c */

/* Of which started jobs the shelf's news are told once we have committed. */
static void
announce_shelved(void)
{
	uint64		jobs = 0;

	for (int i = 0; i < jobq_nops; i++)
	{
		if (jobq_ops[i].kind == OP_KEEPS_PLACE ||
			jobq_ops[i].kind == OP_OFF_SHELF)
			jobs |= jobq_late_bit(jobq_ops[i].ref.id);
	}
	jobq_late_begin(jobs);
	announced = true;
}

static void
forget(void)
{
	if (announced)
		jobq_late_end();
	announced = false;
	if (!untold)
		jobq_xact_forget();
	jobq_own_forget();
	jobq_lazy_claim_forget();
	jobq_prepare_ended();
}

static void
xact_callback(XactEvent event, void *arg)
{
	/* also when all of the log was undone: its memory goes all the same */
	if (jobq_ops == NULL && !jobq_lazy_claim_noted())
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			jobq_lazy_claim_decide();
			if (jobq_ops_of_kind[OP_PUBLISH] > 0)
				jobq_own_announce();
			if (jobq_ops_of_kind[OP_KEEPS_PLACE] > 0 ||
				jobq_ops_of_kind[OP_OFF_SHELF] > 0)
				announce_shelved();
			return;
		case XACT_EVENT_PRE_PREPARE:
			jobq_prepare_check(jobq_ops, jobq_nops);
			return;
		case XACT_EVENT_COMMIT:
			JOBQ_PAUSE("before-publish");
			if (jobq_ops_of_kind[OP_VERDICT] > 0)
				apply_verdicts();
			apply_all();
			if (jobq_ops_of_kind[OP_ADMITTED] > 0)
				settle_admissions();
			untold = has_news();
			JOBQ_PAUSE("published");
			break;
		case XACT_EVENT_ABORT:
			undo_down_to(TopSubTransactionId);
			break;
		case XACT_EVENT_PREPARE:
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
		for (int i = jobq_nops - 1;
			 i >= 0 && jobq_ops[i].subid >= mySubid; i--)
			jobq_ops[i].subid = parentSubid;
		jobq_xact_join_up(parentSubid);
	}
}

void
jobq_register_xact_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	RegisterResourceReleaseCallback(tell_news, NULL);
}
