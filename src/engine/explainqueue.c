/*
 * explainqueue.c: why dequeue gives nothing of a queue: the first of a list of
 * probes that knows. Looks at shared memory, and at the shelf for when the next
 * job is due.
 *
 * Must not change anything, nor tell of a job.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "engine/explaincase.h"
#include "security/security.h"

static bool
has_available(const JobqCase *c)
{
	return c->seen.counters[COUNT_AVAILABLE] > 0;
}

/* When the first job on the shelf is due; JOBQ_NEVER when none is there. */
static TimestampTz
first_on_shelf(int32 queue_id)
{
	Oid			types[] = {INT4OID};
	Datum		args[] = {Int32GetDatum(queue_id)};
	JobqOwnerContext owner;
	TimestampTz first = JOBQ_NEVER;
	bool		null;

	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT s.run_at FROM jobq.shelf s"
							  " WHERE s.queue_id = $1"
							  " AND s.state = ANY ('{s,r}'::\"char\"[])"
							  " ORDER BY s.run_at LIMIT 1",
							  1, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the shelf");
	if (SPI_processed > 0)
		first = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
												  SPI_tuptable->tupdesc, 1,
												  &null));
	PopActiveSnapshot();
	jobq_disconnect(&owner);
	return first;
}

static bool
is_empty(const JobqCase *c)
{
	int64		scheduled = c->seen.counters[COUNT_SCHEDULED];
	int64		retryable = c->seen.counters[COUNT_RETRYABLE];
	TimestampTz first = JOBQ_NEVER;
	char	   *what;

	if (has_available(c))
		return false;
	if (scheduled + retryable > 0)
		first = first_on_shelf(c->queue.queue_id);
	what = psprintf(INT64_FORMAT " run, " INT64_FORMAT " are scheduled, " INT64_FORMAT " wait for another attempt",
					c->seen.running, scheduled,
					retryable + c->seen.rolled_back);
	if (c->queue.draining)
		return jobq_because(c->reason, "draining", first,
							psprintf("No job is available, and new ones are refused: the queue was drained%s; %s.",
									 jobq_stopped_by(&c->queue.drain), what),
							jobq_call_for("resume_queue", &c->queue));
	return jobq_because(c->reason, "empty", first,
						psprintf("No job is available: %s.", what),
						first == JOBQ_NEVER ? NULL :
						psprintf("The first of those that wait is due at %s.",
								 jobq_at_time(first)));
}

/* The probes behind this one are for queues of which none can be taken. */
static bool
gives_jobs(const JobqCase *c)
{
	JobqPart   *part = jobq_case_part(c);
	TimestampTz retry_at;

	return part != NULL &&
		jobq_may_take(part, c->session->gen, c->now, &retry_at) &&
		jobq_because(c->reason, "available", JOBQ_NEVER,
					 psprintf(INT64_FORMAT " jobs are available, and nothing keeps them.",
							  c->seen.counters[COUNT_AVAILABLE] -
							  c->seen.counters[COUNT_BLOCKED]),
					 jobq_call_for("dequeue", &c->queue));
}

/* A transaction that cancels very many of them keeps the rest on disk. */
static bool
is_held(const JobqCase *c)
{
	return TransactionIdIsValid(c->seen.holder) &&
		TransactionIdIsInProgress(c->seen.holder) &&
		jobq_because(c->reason, "busy", JOBQ_NEVER,
					 psprintf("Transaction %u is ending jobs of the queue that are on disk; " INT64_FORMAT " wait for its end.",
							  c->seen.holder, c->seen.counters[COUNT_AVAILABLE]),
					 NULL);
}

/* What most of them stand still for. */
static const char *
main_reason(const JobqGroupsReason *groups)
{
	if (groups->full >= groups->paused && groups->full >= groups->too_fast)
		return "group_limit";
	return groups->paused >= groups->too_fast ? "group_paused" :
		"group_rate_limit";
}

static bool
is_kept_by_groups(const JobqCase *c)
{
	JobqPart   *part = jobq_case_part(c);
	JobqGroupsReason groups;

	if (part == NULL)
		return false;
	jobq_groups_explain(part, c->session->gen, &groups);
	if (groups.full + groups.paused + groups.too_fast == 0 ||
		groups.spilled > 0)
		return false;
	return jobq_because(c->reason, main_reason(&groups), groups.go_on,
						psprintf("Of %s%d groups with jobs that wait %d are full, %d are paused and %d are at their rate.",
								 groups.looked_at >= JOBQ_GROUPS_LOOK ?
								 "at least " : "",
								 groups.waiting, groups.full, groups.paused,
								 groups.too_fast),
						pstrdup("View jobq.groups shows the groups; jobq.alter_group() and jobq.alter_queue() change what they may."));
}

static bool
is_all_on_disk(const JobqCase *c)
{
	return (c->seen.frontier.priority != JOBQ_KEY_END ||
			c->seen.spilled > 0) &&
		jobq_because(c->reason, "spilled", JOBQ_NEVER,
					 psprintf("All " INT64_FORMAT " jobs that could be taken are on disk.",
							  c->seen.counters[COUNT_AVAILABLE] -
							  c->seen.counters[COUNT_BLOCKED]),
					 pstrdup("The keeper is about to load them; raise jobq.max_live_jobs if this happens often."));
}

/* The last one. */
static bool
is_all_marked(const JobqCase *c)
{
	return jobq_because(c->reason, "busy", JOBQ_NEVER,
						psprintf("All " INT64_FORMAT " available jobs are being ended or moved by transactions that have not committed, or have expired.",
								 c->seen.counters[COUNT_AVAILABLE]),
						NULL);
}

/* Why dequeue gives nothing; in the order in which they decide. */
static const JobqWhy queue_probes[] = {
	jobq_why_copy,
	jobq_why_paused,
	is_empty,
	jobq_why_limited,
	jobq_why_loading,
	gives_jobs,
	is_held,
	is_kept_by_groups,
	is_all_on_disk,
	is_all_marked
};

void
jobq_explain_queue(const JobqSession *session, const JobqQueue *queue,
				   JobqReason *reason)
{
	JobqCase		c = {.session = session,.now = jobq_now(),.queue = *queue,
	.reason = reason};

	(void) jobq_part_see(session->db, session->gen, queue->queue_id, c.now,
						 &c.seen);
	(void) jobq_first_reason(queue_probes, lengthof(queue_probes), &c);
}
