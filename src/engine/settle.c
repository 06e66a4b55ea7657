/*
 * settle.c: the outcomes of a leased job: completed, failed, released, and
 * longer leases. The job is in our hands already; privileges are checked.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "engine/claimrow.h"
#include "engine/hold.h"
#include "engine/move.h"
#include "engine/own.h"
#include "engine/xact.h"
#include "security/redact.h"

static int
compare_held(const void *a, const void *b)
{
	const JobqHeld *x = a;
	const JobqHeld *y = b;

	if (x->t.epoch != y->t.epoch)
		return x->t.epoch < y->t.epoch ? -1 : 1;
	return x->t.ticket < y->t.ticket ? -1 : x->t.ticket > y->t.ticket;
}

void
jobq_complete(const JobqSession *session, JobqHeld *held, int nheld,
			  Datum result, bool result_null)
{
	JobqBelts	belts = {0};
	JobqEnding	ending = {.ended = ENDED_COMPLETED,.attempt_outcome = ATTEMPT_COMPLETED};

	if (nheld == 0)
		return;
	ending.result = result;
	ending.has_result = !result_null;
	qsort(held, nheld, sizeof(JobqHeld), compare_held);
	jobq_write_outcomes(session, &belts, held, nheld, &ending, jobq_now());
	for (int i = 0; i < nheld; i++)
	{
		jobq_end_held(session, &held[i]);
		jobq_xact_count_attempt(session, &held[i], COUNT_COMPLETED, true);
		if (held[i].l.probe)
			jobq_xact_verdict(session, held[i].t.queue_id, true);
	}
	jobq_belts_close(&belts);
}

JobqGivenBack
jobq_fail(const JobqSession *session, JobqHeld *held, const JobqQueue *queue,
		  char attempt_outcome, const char *error, bool retry, int64 retry_in)
{
	int32		attempts = held->t.attempt + 1;
	JobqMove	move = {.attempt_outcome = attempt_outcome,.counted = true};

	if (error != NULL)
		move.error = jobq_redact(error);
	if (!retry || attempts >= held->t.max_attempts)
	{
		move.reason = retry ? "max_attempts" : "not_retryable";
		jobq_move_to_dead(session, held, queue, &move);
		return JOBQ_BACK_DEAD;
	}
	if (retry_in < 0)
		retry_in = jobq_backoff_delay(&queue->backoff, attempts);
	move.delay = retry_in;
	return jobq_move(session, held, queue, &move);
}

JobqGivenBack
jobq_release(const JobqSession *session, JobqHeld *held,
			 const JobqQueue *queue, int64 delay)
{
	JobqMove	move = {.attempt_outcome = ATTEMPT_RELEASED,.delay = delay};

	return jobq_move(session, held, queue, &move);
}

/*
 * One flagged claim row per epoch; nothing for jobs whose claim is in another
 * session's open transaction: it would be there without its claim.
 */
static void
write_extension(JobqBelts *belts, JobqHeld *held, int nheld,
				const JobqLease *lease, Datum progress, bool progress_null)
{
	int64	   *tickets = palloc(sizeof(int64) * nheld);
	int			to;

	for (int from = 0; from < nheld; from = to)
	{
		ItemPointerData tid;
		int			n = 0;

		for (to = from; to < nheld && held[to].t.epoch == held[from].t.epoch; to++)
		{
			if (!(held[to].flags & SLOT_CLAIM_OPEN) || held[to].claim_is_ours)
				tickets[n++] = held[to].t.ticket;
		}
		if (n == 0 ||
			!jobq_write_claim(belts, held[from].t.epoch, CLAIM_EXTEND, lease,
							  tickets, n, progress, progress_null, &tid))
			continue;
		for (int i = from; i < to && !progress_null; i++)
			held[i].l.claim_tid = tid;
	}
	pfree(tickets);
}

static void
extended(JobqHeld *held, TimestampTz expires_at, bool has_progress)
{
	if (held->own < 0)
		jobq_xact_extended(&held->ref, expires_at,
						   has_progress ? &held->l.claim_tid : NULL);
	else
		jobq_own_extend(held->own, expires_at, &held->l.claim_tid);
}

/* All are held under one lease. */
void
jobq_extend(const JobqSession *session, JobqHeld *held, int nheld,
			int64 lease_for, Datum progress, bool progress_null)
{
	JobqBelts	belts = {0};
	TimestampTz now = jobq_now();
	int			to;

	qsort(held, nheld, sizeof(JobqHeld), compare_held);
	for (int from = 0; from < nheld; from = to)
	{
		int64		length = lease_for > 0 ? lease_for : held[from].l.lease_for;
		JobqLease	lease = held[from].l;

		/* leases "as taken" differ between the queues of dequeue_any */
		for (to = from + 1; to < nheld; to++)
		{
			if (lease_for == 0 && held[to].l.lease_for != length)
				break;
		}
		lease.claimed_at = now;
		lease.expires_at = now + length;
		lease.claimed_by = GetUserId();
		write_extension(&belts, &held[from], to - from, &lease, progress,
						progress_null);
		for (int i = from; i < to; i++)
		{
			held[i].l.expires_at = lease.expires_at;
			extended(&held[i], lease.expires_at, !progress_null);
		}
	}
	jobq_belts_close(&belts);
}
