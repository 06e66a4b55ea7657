/*
 * tend.c: the keeper's rounds: whatever is due, in bounded transactions, and
 * when to come again. Never waits for a row, a mark or a user's lock.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/procarray.h"

#include "engine/belts.h"
#include "engine/claimrow.h"
#include "engine/copy.h"
#include "engine/epochs.h"
#include "engine/hold.h"
#include "engine/keeperxact.h"
#include "engine/keyuse.h"
#include "engine/meter.h"
#include "engine/rates.h"
#include "engine/refill.h"
#include "engine/unique.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "pause.h"

#define BUSY_RETRY		INT64CONST(100000)	/* somebody has what we need */
#define PREPARED_CHECK	USECS_PER_SEC
#define POSTPONE		(5 * USECS_PER_SEC)	/* a job that cannot be moved */
#define FAILED_PAUSE	USECS_PER_SEC	/* a part of a round; doubled each time */
#define FAILED_PAUSE_CAP	(30 * USECS_PER_SEC)
#define SWEEP_PAUSE		USECS_PER_SEC	/* between two looks for dead parts */

static TimestampTz next_sweep;	/* not before */
static uint32 parts_seen_lacking;	/* control->parts_lacking at the last sweep */
static bool batch_failed = false;	/* the last batch of leases did not end */

typedef struct Round
{
	JobqSession session;
	TimestampTz now;
	TimestampTz next;			/* when to come again */
} Round;

static void
come_again(Round *round, TimestampTz when)
{
	round->next = Min(round->next, when);
}

static bool
begin(Round *round)
{
	if (jobq_keeper_begin(round->session.db->install))
		return true;
	come_again(round, round->now + BUSY_RETRY);
	return false;
}

/* ---- reservations ---- */

static void
tend_reservations(Round *round)
{
	JobqDb	   *db = round->session.db;
	bool		numbers;
	bool		leases;

	SpinLockAcquire(&db->mutex);
	numbers = db->number_limit != 0 && db->spare_start == 0 &&
		db->number_limit - db->number_next < JOBQ_NUMBER_BLOCK / 2;
	leases = db->lease_wanted;
	SpinLockRelease(&db->mutex);

	if (numbers && begin(round))
	{
		jobq_reserve_numbers(db);
		jobq_keeper_commit();
	}
	if (leases && begin(round))
		jobq_raise_lease_mark(db);
}

/* ---- start records ---- */

static int
compare_starts(const void *a, const void *b)
{
	const JobqSlot *x = a;
	const JobqSlot *y = b;

	if (x->l.lease != y->l.lease)
		return x->l.lease < y->l.lease ? -1 : 1;
	if (x->t.epoch != y->t.epoch)
		return x->t.epoch < y->t.epoch ? -1 : 1;
	return x->t.ticket < y->t.ticket ? -1 : x->t.ticket > y->t.ticket;
}

static void
write_starts(JobqSlot *slots, int n)
{
	JobqBelts	belts = {0};
	int64		tickets[JOBQ_CHUNK];
	int			to;

	qsort(slots, n, sizeof(JobqSlot), compare_starts);
	for (int from = 0; from < n; from = to)
	{
		ItemPointerData tid;
		int			count = 0;

		for (to = from; to < n && slots[to].l.lease == slots[from].l.lease &&
			 slots[to].t.epoch == slots[from].t.epoch; to++)
			tickets[count++] = slots[to].t.ticket;
		if (jobq_write_claim(&belts, slots[from].t.epoch,
							 jobq_claim_flag(&slots[from].l),
							 &slots[from].l, tickets, count, (Datum) 0, true,
							 &tid))
		{
			for (int i = from; i < to; i++)
				slots[i].l.claim_tid = tid;
		}
	}
	jobq_belts_close(&belts);
}

static void
tend_starts(Round *round, JobqPart *part)
{
	JobqSlot	slots[JOBQ_CHUNK];
	int			n;

	while ((n = jobq_start_wanted(part, round->session.gen, JOBQ_CHUNK,
								  slots)) > 0)
	{
		if (!begin(round))
			return;
		write_starts(slots, n);
		ForceSyncCommit();
		JOBQ_PAUSE("before-keeper-commit");
		jobq_keeper_commit();
		for (int i = 0; i < n; i++)
		{
			JobqSlotRef ref;

			jobq_ref_of(&slots[i], &ref);
			jobq_set_claim_tid(round->session.db, &ref, &slots[i].l.claim_tid);
			jobq_start_done(round->session.db, &ref);
		}
		CHECK_FOR_INTERRUPTS();
	}
}

/* ---- leases that ran out ---- */

/* The queue is gone, its jobs with it. */
static void
end_orphan(const JobqSession *session, JobqHeld *held)
{
	JobqBelts	belts = {0};
	JobqEnding	ending = {.ended = ENDED_CANCELLED,.reason = "queue dropped"};

	jobq_write_outcomes(session, &belts, held, 1, &ending, jobq_now());
	jobq_belts_close(&belts);
	jobq_end_held(session, held);
}

/* One whose lease has run out. */
typedef struct Expired
{
	Round	   *round;
	const JobqSlot *slot;
} Expired;

static JobqGivenBack
fail_expired(const JobqSession *session, JobqHeld *held,
			 const JobqQueue *queue)
{
	if (held->state == SLOT_ROLLED_BACK)
		return jobq_fail(session, held, queue, ATTEMPT_ROLLED_BACK,
						 "the transaction that dequeued the job was rolled back",
						 true, -1);
	return jobq_fail(session, held, queue, ATTEMPT_LEASE_EXPIRED,
					 "lease expired", true, -1);
}

static void
move_on(void *state)
{
	const Expired *expired = state;
	Round	   *round = expired->round;
	const JobqSlot *slot = expired->slot;
	JobqHeld	held;
	JobqQueue	queue;

	if (jobq_hold_any(&round->session, slot->t.id, true, &held) != HOLD_OK)
		return;
	if (held.l.lease != slot->l.lease || held.l.expires_at > round->now)
	{
		jobq_let_go(&round->session, &held);
		return;
	}
	if (!jobq_queue_by_id(held.t.queue_id, &queue))
		end_orphan(&round->session, &held);
	else if (fail_expired(&round->session, &held,
						  &queue) == JOBQ_BACK_IN_DOUBT)
	{
		jobq_let_go(&round->session, &held);
		jobq_postpone(round->session.db, &held.ref, round->now + BUSY_RETRY);
	}
}

/*
 * After a batch has failed each job has a subtransaction, and one that cannot
 * be moved now waits a little, so that it does not stop all the others.
 */
static void
move_on_carefully(Expired *expired)
{
	JobqSlotRef ref;

	if (jobq_keeper_try(move_on, expired))
		return;
	jobq_ref_of(expired->slot, &ref);
	jobq_postpone(expired->round->session.db, &ref,
				  expired->round->now + POSTPONE);
}

static void
end_grace(Round *round, const JobqSlot *slots, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (slots[i].state == SLOT_GRACE)
			jobq_give_up_grace(&round->session, slots[i].t.id,
							   slots[i].l.lease);
	}
}

static void
tend_leases(Round *round, JobqPart *part)
{
	JobqSlot	slots[JOBQ_CHUNK];
	TimestampTz next;
	int			n;

	for (;;)
	{
		int			moves = 0;
		bool		was_failed;

		n = jobq_due_leases(part, round->session.gen, round->now, JOBQ_CHUNK,
							slots, &next);
		if (n == 0)
			break;
		end_grace(round, slots, n);
		for (int i = 0; i < n; i++)
			moves += slots[i].state != SLOT_GRACE;
		if (moves == 0)
			continue;
		if (!begin(round))
			return;
		was_failed = batch_failed;
		batch_failed = true;
		for (int i = 0; i < n; i++)
		{
			Expired		expired = {round, &slots[i]};

			if (slots[i].state == SLOT_GRACE)
				continue;
			if (was_failed)
				move_on_carefully(&expired);
			else
				move_on(&expired);
		}
		JOBQ_PAUSE("before-keeper-commit");
		jobq_keeper_commit();
		batch_failed = false;
		CHECK_FOR_INTERRUPTS();
	}
	come_again(round, next);
}

/* ---- queues that are gone ---- */

/*
 * Somebody found no part for a queue. Those without jobs whose queue does not
 * exist are of dropped queues, or of ones whose creation was rolled back.
 */
static void
tend_parts(Round *round)
{
	uint32		lacking = pg_atomic_read_u32(&jobq_control->parts_lacking);
	JobqPart   *part;
	JobqQueue	queue;

	if (lacking == parts_seen_lacking)
		return;
	if (round->now < next_sweep)
	{
		come_again(round, next_sweep);
		return;
	}
	if (!begin(round))
		return;
	for (int i = jobq_parts_of(round->session.db, round->session.gen, 0, &part);
		 i >= 0;
		 i = jobq_parts_of(round->session.db, round->session.gen, i, &part))
	{
		int32		queue_id = part->queue_id;

		if (part->ready + part->running + part->rolled_back == 0 &&
			!jobq_queue_by_id(queue_id, &queue))
			jobq_part_free(round->session.db, round->session.gen, queue_id,
						   false);
		CHECK_FOR_INTERRUPTS();
	}
	jobq_keeper_commit();
	parts_seen_lacking = lacking;
	next_sweep = jobq_now() + SWEEP_PAUSE;
}

/* ---- prepared transactions ---- */

/*
 * Of a transaction that was prepared before a restart the rows tell what it
 * enqueued, but for those of its subtransactions: so look everywhere.
 */
static void
take_row(HeapTuple tuple, TupleDesc desc, void *state)
{
	const JobqSession *session = state;
	JobqKey		start = {.priority = JOBQ_KEY_START};

	jobq_leave_on_disk(session->db, session->gen,
					   DatumGetInt32(jobq_row_value(tuple, desc, 1, NULL)),
					   &start, 0,
					   DatumGetInt64(jobq_row_value(tuple, desc, 2, NULL)));
}

static void
take_over_unknown(Round *round, TransactionId xid)
{
	JobqKey		start = {.priority = JOBQ_KEY_START};
	Oid			types[1] = {XIDOID};
	Datum		values[1] = {TransactionIdGetDatum(xid)};
	JobqBelts	belts = {0};
	JobqQueue  *queues;
	int			nqueues = jobq_queue_list(&queues);
	int32	   *epochs;
	int			nepochs = jobq_epoch_list_undrained(&epochs);

	for (int i = 0; i < nqueues; i++)
		jobq_leave_on_disk(round->session.db, round->session.gen,
						   queues[i].queue_id, &start, 0, 0);
	for (int e = 0; e < nepochs; e++)
	{
		if (jobq_belts_read(&belts, epochs[e], BELT_JOB) != NULL)
			jobq_keeper_query(psprintf("SELECT j.queue_id, count(*)"
									   " FROM jobq.job_%d j WHERE j.xmin = $1"
									   " GROUP BY 1", epochs[e]),
							  1, types, values, take_row, &round->session);
	}
	jobq_belts_close(&belts);
}

/* It has committed: what it enqueued is on disk, on the belt or the shelf. */
static void
take_over(Round *round, const JobqPrepared *entry)
{
	const JobqSession *session = &round->session;

	if (entry->unknown)
	{
		take_over_unknown(round, entry->xid);
		jobq_load_shelf(session);
		return;
	}
	for (int q = 0; q < entry->nqueues; q++)
	{
		JobqCount	counts[] = {
			{.counter = COUNT_SCHEDULED,.n = entry->scheduled[q]},
			{.counter = COUNT_ENQUEUED,.n = entry->n[q] + entry->scheduled[q]}
		};

		jobq_leave_on_disk(session->db, session->gen, entry->queue_id[q],
						   &entry->first[q], 0, entry->n[q]);
		jobq_part_counts(session->db, session->gen, entry->queue_id[q],
						 counts, lengthof(counts), jobq_now());
	}
	if (entry->shelf_due != JOBQ_NEVER)
		jobq_db_shelf_due(session->db, entry->shelf_due);
}

/* Its jobs count themselves by now, or are no more. */
static void
give_room_back(const JobqSession *session, const JobqPrepared *entry)
{
	for (int q = 0; q < entry->nqueues; q++)
		jobq_admit_settled(session->db, session->gen, entry->queue_id[q],
						   (int) entry->reserved[q]);
}

static void
tend_prepared(Round *round)
{
	JobqDb	   *db = round->session.db;

	for (int i = 0; i < JOBQ_MAX_PREPARED; i++)
	{
		JobqPrepared entry;

		SpinLockAcquire(&db->mutex);
		entry = db->prepared[i];
		SpinLockRelease(&db->mutex);
		if (!TransactionIdIsValid(entry.xid))
			continue;
		if (TransactionIdIsInProgress(entry.xid))
		{
			come_again(round, round->now + PREPARED_CHECK);
			continue;
		}
		if (TransactionIdDidCommit(entry.xid))
		{
			if (!begin(round))
				return;
			take_over(round, &entry);
			jobq_keeper_commit();
		}
		give_room_back(&round->session, &entry);
		SpinLockAcquire(&db->mutex);
		db->prepared[i].xid = InvalidTransactionId;
		SpinLockRelease(&db->mutex);
	}
}

/* ---- copies ---- */

/* Nothing moves in a copy. When we cannot look, we do not touch it either. */
static bool
is_paused(Round *round)
{
	bool		copy;

	if (!begin(round))
		return true;
	copy = jobq_is_copy(round->session.db);
	jobq_keeper_commit();
	return copy;
}

/* ---- the parts of a round ---- */

static void
tend_queues(Round *round)
{
	JobqPart   *part;

	for (int i = jobq_parts_of(round->session.db, round->session.gen, 0, &part);
		 i >= 0;
		 i = jobq_parts_of(round->session.db, round->session.gen, i, &part))
	{
		tend_starts(round, part);
		tend_leases(round, part);
	}
}

static void
tend_expiry(Round *round)
{
	JobqPart   *part;

	for (int i = jobq_parts_of(round->session.db, round->session.gen, 0, &part);
		 i >= 0;
		 i = jobq_parts_of(round->session.db, round->session.gen, i, &part))
		come_again(round, jobq_tend_expiry(&round->session, part, round->now));
}

static void
tend_cron(Round *round)
{
	come_again(round, jobq_tend_cron(&round->session, jobq_now()));
}

static void
tend_shelf(Round *round)
{
	come_again(round, jobq_tend_shelf(&round->session, round->now));
}

static void
tend_dead(Round *round)
{
	come_again(round, jobq_tend_dead(&round->session, round->now));
}

static void
tend_notify(Round *round)
{
	come_again(round, jobq_tend_notify(&round->session, round->now));
}

static void
tend_refill(Round *round)
{
	come_again(round, jobq_tend_refill(&round->session, round->now));
}

static void
tend_epochs(Round *round)
{
	come_again(round, jobq_tend_epochs(&round->session, round->now));
}

static void
tend_keys(Round *round)
{
	come_again(round, jobq_tend_keys(&round->session, round->now,
									 jobq_maintenance_wanted(round->session.db)));
}

static void
tend_key_uses(Round *round)
{
	come_again(round, jobq_tend_key_uses(&round->session, round->now,
										 jobq_maintenance_wanted(round->session.db)));
}

static void
tend_meters(Round *round)
{
	jobq_tend_meters(&round->session, round->now);
}

static void
tend_audit(Round *round)
{
	come_again(round, jobq_tend_audit(&round->session, jobq_now()));
}

static void
tend_rates(Round *round)
{
	come_again(round, jobq_tend_rates(&round->session, round->now,
									  jobq_maintenance_wanted(round->session.db)));
}

typedef struct Task
{
	void		(*tend) (Round *round);
	int64		pause;			/* us, after a failure; 0 = all is well */
	TimestampTz not_before;		/* then */
} Task;

static Task reservations = {.tend = tend_reservations};
static Task audit = {.tend = tend_audit};

static Task tasks[] = {
	{.tend = tend_queues},
	{.tend = tend_expiry},
	{.tend = tend_parts},
	{.tend = tend_prepared},
	{.tend = tend_cron},
	{.tend = tend_shelf},
	{.tend = tend_dead},
	{.tend = tend_notify},
	{.tend = tend_refill},
	{.tend = tend_epochs},
	{.tend = tend_keys},
	{.tend = tend_meters},
	{.tend = tend_rates},
	{.tend = tend_key_uses}
};

/* A cancel sends us away, and is for our caller. */
static bool
try_task(const Task *task, Round *round)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = true;

	PG_TRY();
	{
		task->tend(round);
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		jobq_absorb_error(true);
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return done;
}

/*
 * Once more at once, because many are careful then; if it fails again it is
 * put off, and the others go on.
 */
static bool
run_task(Task *task, Round *round, bool asked_for)
{
	if (task->pause > 0 && round->now < task->not_before && !asked_for)
	{
		come_again(round, task->not_before);
		return false;
	}
	if (try_task(task, round) || try_task(task, round))
	{
		task->pause = 0;
		return true;
	}
	task->pause = Min(Max(task->pause * 2, FAILED_PAUSE), FAILED_PAUSE_CAP);
	task->not_before = jobq_now() + task->pause;
	come_again(round, task->not_before);
	return false;
}

bool
jobq_tend(JobqDb *db, uint32 gen, bool asked_for, TimestampTz *next)
{
	Round		round = {.session = {.db = db,.gen = gen},.now = jobq_now(),
	.next = JOBQ_NEVER};
	bool		done = run_task(&reservations, &round, asked_for);

	done &= run_task(&audit, &round, asked_for);
	if (!is_paused(&round))
	{
		for (size_t i = 0; i < lengthof(tasks); i++)
			done &= run_task(&tasks[i], &round, asked_for);
	}
	*next = round.next;
	return done;
}
