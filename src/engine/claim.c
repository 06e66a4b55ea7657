/*
 * claim.c: leasing available jobs to a caller, and peeking at them. Must not
 * end or move a job, except dropping a slot whose ticket turns out to have
 * ended.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "dispatch/meter.h"
#include "engine/belts.h"
#include "engine/claimrow.h"
#include "engine/own.h"
#include "engine/unseal.h"
#include "engine/xact.h"
#include "errors.h"
#include "pause.h"
#include "security/keyring.h"
#include "security/seal.h"
#include "security/security.h"

#define PART_WAIT_MS	2000	/* for keepers to free parts */
#define LOST_MAX		1000	/* jobs that one call ends */

/* One call of jobq_claim. */
typedef struct ClaimCall
{
	const JobqSession *session;
	const JobqQueue *queue;
	JobqPart   *part;
	JobqLease	lease;
	bool		taken;			/* something, under this lease */
	bool		limited;		/* a limit of the queue was reached */
	bool		careful;		/* the keeper commits the claims */
	bool		sealed;			/* some payload is */
	bool		loading;		/* nothing can be taken before the keeper has
								 * loaded something */
	JobqBelts	belts;
	List	   *deliveries;
	TimestampTz retry_at;
} ClaimCall;

/* A job taken in this call whose claim row is still to be written. */
typedef struct Taken
{
	int			own;			/* index, or -1 */
	JobqSlotRef ref;
	int64		ticket;
	int32		epoch;
	JobqTallyRef by_kind;
} Taken;

static void
deliver(ClaimCall *call, const JobqRow *row)
{
	JobqDelivery *delivery = palloc(sizeof(JobqDelivery));

	delivery->row = *row;
	call->sealed |= jobq_is_sealed(row);
	delivery->queue = call->queue;
	delivery->lease = call->lease.lease;
	delivery->claimed_at = call->lease.claimed_at;
	delivery->expires_at = call->lease.expires_at;
	call->deliveries = lappend(call->deliveries, delivery);
}

/*
 * Read the body of a ticket. False when it is missing, has ended, which verify
 * says is possible, or must have, as its epoch has been dropped.
 */
static bool
read_body(JobqBelts *belts, JobqTicket *t, bool verify, JobqRow *row,
		  bool *missing)
{
	Relation	job = jobq_belts_read(belts, t->epoch, BELT_JOB);

	*missing = false;
	if (job == NULL || (verify && jobq_has_ended(belts, t)))
		return false;
	if (jobq_belt_read_ticket(job, &belts->jobs, &t->tid, t->id, t->ticket,
							  row))
		return true;
	ereport(WARNING,
			(errmsg("job " INT64_FORMAT " is not where it should be", t->id),
			 errdetail("Ticket " INT64_FORMAT " of epoch %d was not found.",
					   t->ticket, t->epoch),
			 errhint("jobq.check_install() tells whether tables were altered.")));
	*missing = true;
	return false;
}

static JobqTake
begin_take(ClaimCall *call)
{
	JobqTake	take = {.lease = &call->lease,.fresh = !call->taken,
		.rules = &call->queue->rules,
	.flags = call->careful ? SLOT_START_WANTED : 0};

	if (take.rules->max_active > 0)
		take.ending = jobq_xact_ending(call->queue->queue_id);
	return take;
}

static JobqTallyRef
tally_kind(const ClaimCall *call, const JobqRow *row)
{
	char		kind[JOBQ_WORKER_MAX + 1] = "";

	if (!row->nulls[JOB_KIND])
		text_to_cstring_buffer(DatumGetTextPP(row->values[JOB_KIND]), kind,
							   sizeof(kind));
	return jobq_tally_get(call->part, call->session->gen,
						  call->queue->queue_id, TALLY_KIND, kind,
						  call->lease.claimed_at);
}

static void
end_take(ClaimCall *call, const JobqTake *take)
{
	call->taken = !take->fresh;
	call->limited = take->limited;
	call->retry_at = take->retry_at;
}

/*
 * Our own uncommitted job, the next one in order. False when there is no place
 * in its group, then it is passed over in this call, or a limit says no.
 */
static bool
take_own(ClaimCall *call, int own, Taken *taken)
{
	JobqTake	take = begin_take(call);
	JobqOwnJob *job = jobq_own(own);
	JobqTicket	t = job->t;
	JobqRow		row;
	bool		missing;
	JobqOwnPlace place;

	jobq_xact_reserve(1);
	JOBQ_PAUSE("before-own-claim");
	place = jobq_take_own(call->part, call->session->gen, &t, &take);
	if (place == OWN_PLACE_REFUSED && !take.limited)
	{
		job->refused_for = call->lease.lease;
		return false;
	}
	end_take(call, &take);
	if (place == OWN_PLACE_REFUSED)
		return false;
	jobq_own_claim(call->session, own, &call->lease,
				   place == OWN_PLACE_TAKEN);
	if (!read_body(&call->belts, &t, false, &row, &missing))
		elog(ERROR, "own job " INT64_FORMAT " is missing", t.id);
	deliver(call, &row);
	taken->by_kind = tally_kind(call, &row);
	taken->own = own;
	taken->ticket = t.ticket;
	taken->epoch = t.epoch;
	return true;
}

/*
 * Take up to max committed jobs that come before `before`; jobs that turn out
 * to be stale are dropped. Returns how many were looked at.
 */
static int
take_shared(ClaimCall *call, int max, const JobqTicket *before, Taken *taken,
			int *ntaken)
{
	JobqTake	take = begin_take(call);
	JobqTaken	slots[JOBQ_CHUNK];
	int			n;

	take.before = before;
	jobq_xact_reserve(Min(max, JOBQ_CHUNK));
	n = jobq_take(call->part, call->session->gen, Min(max, JOBQ_CHUNK), &take,
				  slots);
	end_take(call, &take);
	call->loading = take.loading;
	for (int i = 0; i < n; i++)
		jobq_xact_claimed(call->session, &slots[i].ref);
	for (int i = 0; i < n; i++)
	{
		JobqRow		row;
		bool		missing;

		if (!read_body(&call->belts, &slots[i].t, slots[i].verify, &row,
					   &missing))
		{
			int64		aging = call->queue->rules.aging;
			JobqKey		key = jobq_key_of(&slots[i].t, aging);

			jobq_drop_taken(call->session->db, &slots[i].ref);
			if (!missing)
				key.priority = JOBQ_KEY_END;
			/* taking it has counted it off once too often */
			jobq_leave_on_disk(call->session->db, call->session->gen,
							   slots[i].t.queue_id, &key, aging, 1);
			continue;
		}
		deliver(call, &row);
		taken[*ntaken].by_kind = tally_kind(call, &row);
		taken[*ntaken].own = -1;
		taken[*ntaken].ref = slots[i].ref;
		taken[*ntaken].ticket = slots[i].t.ticket;
		taken[*ntaken].epoch = slots[i].t.epoch;
		(*ntaken)++;
	}
	return n;
}

static int
compare_taken(const void *a, const void *b)
{
	const Taken *x = a;
	const Taken *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	return x->ticket < y->ticket ? -1 : x->ticket > y->ticket;
}

/* The slots learn their kinds and, unless it is NULL, their claim row. */
static void
note_claims(const Taken *taken, int n, ItemPointer tid)
{
	JobqClaimed claimed[JOBQ_CHUNK];
	int			count = 0;

	for (int i = 0; i < n; i++)
	{
		if (taken[i].own >= 0)
			continue;
		claimed[count].ref = taken[i].ref;
		claimed[count].by_kind = taken[i].by_kind;
		if (++count < JOBQ_CHUNK)
			continue;
		jobq_set_claims(claimed, count, tid);
		count = 0;
	}
	jobq_set_claims(claimed, count, tid);
}

/* One claim row per epoch for all that was taken. */
static void
write_claims(ClaimCall *call, Taken *taken, int n)
{
	int64	   *tickets = palloc(sizeof(int64) * n);
	int			to;

	qsort(taken, n, sizeof(Taken), compare_taken);
	for (int from = 0; from < n; from = to)
	{
		ItemPointerData tid;
		int			count = 0;

		for (to = from; to < n && taken[to].epoch == taken[from].epoch; to++)
			tickets[count++] = taken[to].ticket;
		if (!jobq_write_claim(&call->belts, taken[from].epoch,
							  jobq_claim_flag(&call->lease), &call->lease,
							  tickets, count, (Datum) 0, true, &tid))
			continue;
		note_claims(&taken[from], to - from, &tid);
		for (int i = from; i < to; i++)
		{
			if (taken[i].own >= 0)
			{
				JobqOwnJob *own = jobq_own(taken[i].own);

				own->l.claim_tid = tid;
				own->l.by_kind = taken[i].by_kind;
			}
		}
	}
	pfree(tickets);
}

/* ---- start records ---- */

/* Is the keeper still to commit this delivery's start? */
static bool
start_is_open(ClaimCall *call, const Taken *taken, JobqSlot *slot)
{
	return taken->own < 0 &&
		jobq_find(call->session->db, call->session->gen, taken->ref.id, slot) &&
		slot->t.ticket == taken->ticket &&
		slot->l.lease == call->lease.lease &&
		slot->state == SLOT_RUNNING && !(slot->flags & SLOT_START_DONE);
}

static void
await_starts(ClaimCall *call, const Taken *taken, int n)
{
	TimestampTz deadline;
	JobqSlot	slot;

	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										   JOBQ_DEQUEUE_WAIT_MS);
	jobq_wake_keeper(call->session->db);
	for (int i = 0; i < n; i++)
	{
		while (start_is_open(call, &taken[i], &slot))
		{
			if (GetCurrentTimestamp() >= deadline)
				ereport(ERROR,
						(errcode(ERRCODE_JOBQ_NOT_READY),
						 errmsg("the keeper did not record the start of a job in time"),
						 errdetail("For a minute after a crash each delivery is recorded before it is handed out."),
						 errhint("Try again in a moment; jobq.health() tells about the keeper.")));
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 100, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
}

/* Jobs that were cancelled while we waited are not handed out. */
static void
leave_out_lost(ClaimCall *call, const Taken *taken, int n)
{
	for (int i = 0; i < n; i++)
	{
		JobqSlot	slot;
		ListCell   *cell;

		if (taken[i].own >= 0 ||
			(jobq_find(call->session->db, call->session->gen, taken[i].ref.id,
					   &slot) &&
			 slot.l.lease == call->lease.lease && slot.state == SLOT_RUNNING))
			continue;
		foreach(cell, call->deliveries)
		{
			const JobqDelivery *delivery = lfirst(cell);

			if (DatumGetInt64(delivery->row.values[JOB_ID]) == taken[i].ref.id)
			{
				call->deliveries = foreach_delete_current(call->deliveries, cell);
				break;
			}
		}
	}
}

/*
 * After a crash: the keeper commits a start record for each delivery before
 * it is handed out, so that a job that kills the server is counted too. Jobs
 * that are not handed out after all must not lose an attempt by it.
 */
static void
await_start_records(ClaimCall *call, Taken *taken, int n)
{
	PG_TRY();
	{
		await_starts(call, taken, n);
	}
	PG_CATCH();
	{
		for (int i = 0; i < n; i++)
		{
			if (taken[i].own < 0)
				jobq_unclaim(call->session->db, &taken[i].ref);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	leave_out_lost(call, taken, n);
}

static void
write_own_claims(ClaimCall *call, Taken *taken, int n)
{
	int			nown = 0;

	for (int i = 0; i < n; i++)
	{
		if (taken[i].own >= 0)
			taken[nown++] = taken[i];
	}
	if (nown > 0)
		write_claims(call, taken, nown);
}

static void
fill_lease(ClaimCall *call, int64 lease_for, const char *worker)
{
	TimestampTz now = jobq_now();

	memset(&call->lease, 0, sizeof(call->lease));
	call->lease.claimed_at = now;
	call->lease.lease_for = lease_for > 0 ? lease_for : call->queue->lease_for;
	call->lease.expires_at = now + call->lease.lease_for;
	call->lease.claimed_by = GetUserId();
	if (worker != NULL)
		strlcpy(call->lease.worker, worker, sizeof(call->lease.worker));
	call->lease.by_worker = jobq_tally_get(call->part, call->session->gen,
										   call->queue->queue_id, TALLY_WORKER,
										   call->lease.worker, now);
}

JobqPart *
jobq_require_part(const JobqSession *session, const JobqQueue *queue)
{
	TimestampTz deadline = 0;
	JobqPart   *part;

	while ((part = jobq_part_get(session->db, session->gen,
								 queue->queue_id)) == NULL)
	{
		if (deadline == 0)
			deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   PART_WAIT_MS);
		if (jobq_wait_a_moment(deadline))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_NOT_READY),
				 errmsg("no room in memory for queue \"%s\"", queue->name),
				 errdetail("As many queues are in use as jobq.max_queues allows."),
				 errhint("Raise jobq.max_queues and restart the server.")));
	}
	return part;
}

static bool
is_careful(JobqDb *db, TimestampTz now)
{
	bool		careful;

	SpinLockAcquire(&db->mutex);
	careful = now < db->careful_until;
	SpinLockRelease(&db->mutex);
	return careful;
}

/* A look without locks, so that asking an empty queue costs nothing. */
static bool
may_have_jobs(const JobqPart *part, const JobqQueue *queue)
{
	return part->ready > 0 || part->frontier.priority != JOBQ_KEY_END ||
		part->groups.spilled > 0 || jobq_own_first(queue, 0) >= 0;
}

/*
 * All that could be taken now is on disk: wait for the keeper. False when
 * there is nothing to wait for, and no refill has ended since the part's
 * number of entries was that.
 */
static bool
await_refill(const ClaimCall *call, uint64 entries, TimestampTz *deadline)
{
	const JobqSession *session = call->session;
	JobqPart   *part = call->part;
	bool		wanted;
	uint64		now;

	JOBQ_PAUSE("before-await-refill");
	wanted = jobq_refill_wanted(part, session->gen);
	now = pg_atomic_read_u64(&part->entries);
	/* odd: one is going on, which may be about to bring what we want */
	if (!call->loading && !wanted && (now & 1) == 0)
		return now != entries;
	if (*deadline == 0)
		*deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												JOBQ_DEQUEUE_WAIT_MS);
	jobq_ask_refill(part, session->gen);
	if (!jobq_wait_a_moment(*deadline))
		jobq_raise_not_ready();
	return true;
}

void
jobq_require_signing_key(const JobqQueue *queue)
{
	if (queue->sign[0] != '\0')
		(void) jobq_keyring_get(JOBQ_KEY_SIGN, queue->sign, JOBQ_KEY_NEWEST);
}

/* *nlost of those taken could not be opened, and are dead. */
static List *
claim_jobs(const JobqSession *session, const JobqQueue *queue, int64 max,
		   int64 lease_for, const char *worker, int64 *lease,
		   List *deliveries, TimestampTz *retry_at, int *nlost)
{
	ClaimCall	call = {.session = session,.queue = queue,
	.deliveries = deliveries,.retry_at = JOBQ_NEVER};
	Taken	   *taken;
	int			ntaken = 0;
	int			size = (int) Min(max, JOBQ_CHUNK);
	TimestampTz deadline = 0;
	List	   *lost = NIL;

	*retry_at = JOBQ_NEVER;
	*nlost = 0;
	jobq_await_ready(session, JOBQ_DEQUEUE_WAIT_MS);
	if (session->db->copy)
		return deliveries;
	call.part = jobq_require_part(session, queue);
	if (!may_have_jobs(call.part, queue))
		return deliveries;
	jobq_require_signing_key(queue);
	fill_lease(&call, lease_for, worker);
	if (*lease == 0)
		*lease = jobq_take_lease(session, call.lease.claimed_at);
	call.lease.lease = *lease;
	call.careful = is_careful(session->db, call.lease.claimed_at);
	taken = palloc(sizeof(Taken) * size);
	jobq_lazy_claim_begin();

	while (ntaken < max)
	{
		int			own = jobq_own_first(queue, *lease);
		JobqTicket	before;
		int			want = (int) Min(max - ntaken, JOBQ_CHUNK);
		uint64		entries = pg_atomic_read_u64(&call.part->entries);
		int			seen;

		CHECK_FOR_INTERRUPTS();
		if (ntaken + want > size)
		{
			size = Max(size * 2, ntaken + want);
			taken = repalloc_huge(taken, sizeof(Taken) * size);
		}
		if (own >= 0)
			before = jobq_own(own)->t;
		seen = take_shared(&call, want, own >= 0 ? &before : NULL, taken,
						   &ntaken);
		if (call.limited)
			break;
		if (seen < want && own >= 0 && ntaken < max && !call.loading)
		{
			ntaken += take_own(&call, own, &taken[ntaken]);
			if (call.limited)
				break;
		}
		else if (seen == 0 &&
				 (ntaken > 0 || !await_refill(&call, entries, &deadline)))
			break;
	}
	if (ntaken > 0)
	{
		if (call.sealed)
			call.deliveries = jobq_open_payloads(call.deliveries,
												 call.lease.lease, &lost);
		if (call.careful)
		{
			note_claims(taken, ntaken, NULL);
			await_start_records(&call, taken, ntaken);
			write_own_claims(&call, taken, ntaken);
		}
		else
			write_claims(&call, taken, ntaken);
		jobq_lazy_claim_end(call.careful || jobq_rules_limit(&queue->rules));
	}
	jobq_belts_close(&call.belts);
	jobq_end_unopened(session, lost);
	*retry_at = call.retry_at;
	*nlost = list_length(lost);
	return call.deliveries;
}

/*
 * In the place of jobs that cannot be delivered come the next ones. Whatever
 * comes of it, no other waiter needs to look instead of us.
 */
List *
jobq_claim(const JobqSession *session, const JobqQueue *queue, int64 max,
		   int64 lease_for, const char *worker, int64 *lease,
		   List *deliveries, TimestampTz *retry_at)
{
	int			before = list_length(deliveries);
	int			nlost;
	int			all_lost = 0;

	do
	{
		deliveries = claim_jobs(session, queue,
								max - (list_length(deliveries) - before),
								lease_for, worker, lease, deliveries,
								retry_at, &nlost);
		all_lost += nlost;
	} while (nlost > 0 && all_lost < LOST_MAX &&
			 list_length(deliveries) - before < max);
	if (nlost > 0 && list_length(deliveries) == before)
		*retry_at = jobq_now();
	jobq_wakeup_used(session->gen, queue->queue_id);
	return deliveries;
}

/* The keeper is told to load what may be on disk, and wakes those who wait. */
bool
jobq_has_jobs(const JobqSession *session, const JobqQueue *queue,
			  TimestampTz *retry_at)
{
	JobqPart   *part;
	JobqLimitState limit;

	*retry_at = JOBQ_NEVER;
	jobq_await_ready(session, JOBQ_DEQUEUE_WAIT_MS);
	part = jobq_require_part(session, queue);
	if (!session->db->copy && !queue->paused &&
		jobq_follow_rules(part, session->gen, &queue->rules) &&
		jobq_may_take(part, session->gen, jobq_now(), retry_at))
	{
		jobq_limits_explain(part, session->gen, &queue->rules, &limit);
		if (limit.reason == JOBQ_LIMIT_NONE)
			return true;
		*retry_at = limit.until;
	}
	if (jobq_refill_wanted(part, session->gen))
		jobq_ask_refill(part, session->gen);
	jobq_wakeup_used(session->gen, queue->queue_id);
	return false;
}

/* ---- peek ---- */

/* Has the caller enqueued the job? Leaves no copy of those that it has not. */
static bool
may_peek(JobqBelts *belts, JobqTicket *t)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "jobq peek",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	JobqRow		row;
	bool		missing;
	bool		may;

	jobq_reader_close(&belts->jobs);
	may = read_body(belts, t, true, &row, &missing) &&
		jobq_acts_for(DatumGetObjectId(row.values[JOB_ENQUEUED_BY]));
	jobq_reader_close(&belts->jobs);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return may;
}

static void
peek_at(JobqBelts *belts, const JobqQueue *queue, JobqTicket *t, List **found)
{
	JobqDelivery *delivery = palloc0(sizeof(JobqDelivery));
	bool		missing;

	if (!read_body(belts, t, true, &delivery->row, &missing))
		return;
	if (jobq_is_sealed(&delivery->row))
		jobq_unseal(&delivery->row);
	delivery->queue = queue;
	*found = lappend(*found, delivery);
}

/* Committed jobs only: what other sessions would get next. */
List *
jobq_peek(const JobqSession *session, const JobqQueue *queue, int64 max)
{
	JobqPart   *part;
	JobqBelts	belts = {0};
	JobqTicket	tickets[JOBQ_CHUNK];
	JobqTicket	last;
	List	   *found = NIL;
	TimestampTz now = jobq_now();
	bool		all = jobq_reads_queue(queue);
	int			n = 1;

	jobq_await_ready(session, JOBQ_DEQUEUE_WAIT_MS);
	if (session->db->copy)
		return NIL;
	part = jobq_require_part(session, queue);
	for (bool first = true; n > 0 && list_length(found) < max; first = false)
	{
		CHECK_FOR_INTERRUPTS();
		n = jobq_look(part, session->gen, first ? NULL : &last,
					  all ? (int) Min(max - list_length(found), JOBQ_CHUNK) :
					  JOBQ_CHUNK, tickets);
		for (int i = 0; i < n && list_length(found) < max; i++)
		{
			if (tickets[i].expires_at > now &&
				(all || may_peek(&belts, &tickets[i])))
				peek_at(&belts, queue, &tickets[i], &found);
		}
		if (n > 0)
			last = tickets[n - 1];
	}
	jobq_belts_close(&belts);
	return found;
}
