/*
 * explain.c: why a job does not run, why dequeue gives nothing: the first of
 * a list of probes that knows. Looks at shared memory first, and at tables only
 * for jobs that are not there.
 *
 * Must not change anything, nor tell of a job's payload.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "dispatch/meter.h"
#include "engine/belts.h"
#include "engine/explain.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "security/security.h"

#define AHEAD_MAX		128		/* jobs ahead of one that are counted */

/* What the probes look at. */
typedef struct Case
{
	const JobqSession *session;
	TimestampTz now;
	JobqQueue	queue;
	JobqSeen	seen;
	JobqTicket	t;				/* of a job: it is available */
	JobqReason *reason;
} Case;

/* A probe says true when it has given the reason. */
typedef bool (*Probe) (const Case *c);

static char *
at_time(TimestampTz when)
{
	return pstrdup(timestamptz_to_str(when));
}

/* A statement that a hint names, with the queue in it. */
static char *
call_for(const char *function, const JobqQueue *queue)
{
	return psprintf("SELECT jobq.%s(%s);", function,
					quote_literal_cstr(queue->name));
}

static bool
because(JobqReason *reason, const char *word, TimestampTz until, char *detail,
		char *hint)
{
	reason->reason = word;
	reason->until = until;
	reason->detail = detail;
	reason->hint = hint;
	return true;
}

static bool
run_probes(const Probe *probes, int n, const Case *c)
{
	for (int i = 0; i < n; i++)
	{
		if (probes[i] (c))
			return true;
	}
	return false;
}

/* ---- what holds for the whole queue ---- */

static bool
is_copy(const Case *c)
{
	return c->session->db->copy &&
		because(c->reason, "copy", JOBQ_NEVER,
				pstrdup("This database was restored, copied or upgraded, or jobq.start_paused is on: nothing runs in it."),
				pstrdup("SELECT jobq.adopt();"));
}

/* Who has stopped it, and when, as the end of a sentence. */
static char *
stopped(const JobqStop *stop)
{
	if (stop->at == 0)
		return "";
	return psprintf(" by role \"%s\" at %s", jobq_role_shown(stop->by),
					at_time(stop->at));
}

static bool
is_paused(const Case *c)
{
	return c->queue.paused &&
		because(c->reason, "paused", JOBQ_NEVER,
				psprintf("Queue \"%s\" was paused%s.", c->queue.name,
						 stopped(&c->queue.pause)),
				call_for("resume_queue", &c->queue));
}

static JobqPart *
part_of(const Case *c)
{
	return jobq_part_get(c->session->db, c->session->gen, c->queue.queue_id);
}

/* ---- of an available job ---- */

static bool
has_expired(const Case *c)
{
	return c->t.expires_at <= c->now &&
		because(c->reason, "expired", JOBQ_NEVER,
				psprintf("The job expired at %s; the keeper is about to end it.",
						 at_time(c->t.expires_at)), NULL);
}

static bool
is_on_disk(const Case *c)
{
	JobqKey		key = jobq_key_of(&c->t, c->seen.aging);

	return !jobq_key_before(&key, &c->seen.frontier) &&
		because(c->reason, "spilled", JOBQ_NEVER,
				psprintf("The job waits on disk, behind " INT64_FORMAT " jobs of the queue that are in memory: its position is " INT64_FORMAT " or later.",
						 c->seen.ready, c->seen.ready + 1),
				pstrdup("It comes into memory in time; have more workers dequeue."));
}

static bool may_see_slot(const Case *c, int64 id);

/* The limits of the queue as a whole. */
static bool
is_limited(const Case *c)
{
	JobqPart   *part = part_of(c);
	JobqLimitState state;

	if (part == NULL)
		return false;
	jobq_limits_explain(part, c->session->gen, &c->queue.rules, &state);
	switch (state.reason)
	{
		case JOBQ_LIMIT_NONE:
			break;
		case JOBQ_LIMIT_ACTIVE:
			return because(c->reason, "max_active", state.until,
						   psprintf("The limit is reached: " INT64_FORMAT " of " INT64_FORMAT " jobs run.",
									state.used, state.limit),
						   pstrdup("Raise max_active with jobq.alter_queue()."));
		case JOBQ_LIMIT_RATE:
			return because(c->reason, "rate_limit", state.until,
						   psprintf("The limit is reached: " INT64_FORMAT " of " INT64_FORMAT " jobs were delivered in %g s; the next one may be at %s.",
									state.used, state.limit,
									(double) c->queue.rules.rate_limit.period / USECS_PER_SEC,
									at_time(state.until)),
						   pstrdup("Raise rate_limit with jobq.alter_queue()."));
		case JOBQ_LIMIT_OPEN:
			return because(c->reason, "circuit_breaker", state.until,
						   psprintf("The circuit breaker is open: it lets one job through at %s.",
									at_time(state.until)), NULL);
		case JOBQ_LIMIT_PROBE:
			return because(c->reason, "circuit_breaker", JOBQ_NEVER,
						   pstrdup("The circuit breaker is half-open, and the one job that it has let through is running."),
						   NULL);
		case JOBQ_LIMIT_LEASES:
			return because(c->reason, "lost_leases", JOBQ_NEVER,
						   pstrdup("Running jobs have found no place in memory, so what runs is not known."),
						   pstrdup("Raise jobq.max_live_jobs and restart the server."));
	}
	return false;
}

/* Nothing is delivered before memory knows what decides about groups. */
static bool
is_loading(const Case *c)
{
	JobqPart   *part = part_of(c);

	return part != NULL &&
		!jobq_follow_rules(part, c->session->gen, &c->queue.rules) &&
		because(c->reason, "loading", JOBQ_NEVER,
				psprintf("The keeper is still loading what decides about the groups of queue \"%s\".",
						 c->queue.name),
				NULL);
}

/* The key of an available job's group; NULL if the job has gone. */
static text *
group_key_of(const Case *c)
{
	JobqWhere	where;

	if (!jobq_newest(c->t.id, &where) || where.row.nulls[JOB_GROUP_KEY])
		return NULL;
	return DatumGetTextPP(where.row.values[JOB_GROUP_KEY]);
}

/*
 * Which job has the last of a group's places: the one that was taken last, if
 * it still has it. Empty if that is not known, or not to be told.
 */
static char *
last_place(const Case *c, const JobqGroupReason *group)
{
	JobqSlot	slot;
	char	   *since = "";

	if (group->taken_id == 0 || group->taken_id == c->t.id ||
		!jobq_find(c->session->db, c->session->gen, group->taken_id, &slot) ||
		memcmp(&slot.t.group, &c->t.group, sizeof(JobqGroupKey)) != 0 ||
		!may_see_slot(c, group->taken_id))
		return "";
	if (group->taken_at != 0)
		since = psprintf(" since %s", at_time(group->taken_at));
	return psprintf(", the last one by job " INT64_FORMAT "%s%s",
					group->taken_id, since,
					slot.state == SLOT_RUNNING || slot.state == SLOT_GRACE ?
					"" : ", which waits for another attempt");
}

static bool
is_group_full(const Case *c, const char *key, const JobqGroupReason *group)
{
	return group->full &&
		because(c->reason, "group_limit", JOBQ_NEVER,
				psprintf("Group \"%s\" is busy: %d of %d places are taken%s.",
						 key, group->active + group->kept, group->limit,
						 last_place(c, group)),
				pstrdup("Raise the limit with jobq.alter_group() or jobq.alter_queue()."));
}

static bool
is_group_paused(const Case *c, text *key, const JobqGroupReason *group)
{
	JobqStop	pause;

	if (group->paused_until <= c->now)
		return false;
	jobq_group_read_pause(c->queue.queue_id, key, &pause);
	return because(c->reason, "group_paused", group->paused_until,
				   psprintf("Group \"%s\" was paused%s, until %s.",
							text_to_cstring(key), stopped(&pause),
							at_time(group->paused_until)),
				   pstrdup("Set paused_until to null with jobq.alter_group()."));
}

static bool
is_group_too_fast(const Case *c, const char *key,
				  const JobqGroupReason *group)
{
	return group->not_before > c->now &&
		because(c->reason, "group_rate_limit", group->not_before,
				psprintf("Group \"%s\" has had " INT64_FORMAT " of %d deliveries in %g s; the next one may be at %s.",
						 key, group->delivered, group->rate.limit,
						 (double) group->rate.period / USECS_PER_SEC,
						 at_time(group->not_before)),
				pstrdup("Raise the rate with jobq.alter_group() or jobq.alter_queue()."));
}

static bool
is_group_on_disk(const Case *c, const char *key,
				 const JobqGroupReason *group)
{
	return group->spilled &&
		because(c->reason, "spilled", JOBQ_NEVER,
				psprintf("The job waits on disk, behind %d jobs of group \"%s\" that are in memory: its position in the group is %d or later.",
						 group->waiting, key, group->waiting + 1),
				pstrdup("It comes into memory in time; have more workers dequeue."));
}

static bool
is_kept_by_group(const Case *c)
{
	JobqPart   *part = part_of(c);
	JobqGroupReason group;
	text	   *key;
	char	   *name;

	if (part == NULL || !jobq_has_group(&c->t.group) ||
		!jobq_group_explain(part, c->session->gen, &c->t, c->now, &group) ||
		(!group.full && group.not_before <= c->now && !group.spilled) ||
		(key = group_key_of(c)) == NULL)
		return false;
	name = text_to_cstring(key);
	return is_group_full(c, name, &group) ||
		is_group_paused(c, key, &group) ||
		is_group_too_fast(c, name, &group) ||
		is_group_on_disk(c, name, &group);
}

/* How many jobs are handed out before this one, AHEAD_MAX at most. */
static int
count_ahead(const Case *c)
{
	JobqTicket	tickets[AHEAD_MAX];
	JobqPart   *part = jobq_part_get(c->session->db, c->session->gen,
									 c->t.queue_id);
	int			n = part == NULL ? 0 :
		jobq_look(part, c->session->gen, NULL, AHEAD_MAX, tickets);

	for (int i = 0; i < n; i++)
	{
		if (tickets[i].id == c->t.id)
			return i;
	}
	return n;
}

/* The last one: there is always a line. */
static bool
is_in_line(const Case *c)
{
	int			ahead = count_ahead(c);
	char	   *last = c->seen.last_taken == 0 ?
		pstrdup("none has been taken since the server was started") :
		psprintf("the last one was taken at %s", at_time(c->seen.last_taken));

	if (ahead == 0)
		return because(c->reason, "next", JOBQ_NEVER,
					   psprintf("The job is the next one of the queue, and nothing keeps it; %s.",
								last),
					   psprintf("Have a worker call jobq.dequeue(%s).",
								quote_literal_cstr(c->queue.name)));
	return because(c->reason, "in_line", JOBQ_NEVER,
				   psprintf("%s%d jobs of the queue come before it; %s.",
							ahead == AHEAD_MAX ? "At least " : "", ahead, last),
				   pstrdup("Have more workers dequeue, or give the job another priority with jobq.reschedule()."));
}

/* Why an available job is not taken; in the order in which they decide. */
static const Probe job_probes[] = {
	is_copy,
	has_expired,
	is_paused,
	is_limited,
	is_loading,
	is_kept_by_group,
	is_on_disk,
	is_in_line
};

static bool
explain_available(Case *c)
{
	(void) jobq_part_see(c->session->db, c->session->gen, c->queue.queue_id,
						 c->now, &c->seen);
	return run_probes(job_probes, lengthof(job_probes), c);
}

/* ---- of a job that is not available ---- */

static bool
explain_running(const Case *c, const JobqSlot *slot)
{
	return because(c->reason, "running", slot->l.expires_at,
				   psprintf("Attempt %d of %d has been running since %s, taken by worker \"%s\".",
							slot->t.attempt + 1, slot->t.max_attempts,
							at_time(slot->l.claimed_at), slot->l.worker), NULL);
}

static bool
explain_rolled_back(const Case *c, const JobqSlot *slot)
{
	return because(c->reason, "retryable", JOBQ_NEVER,
				   psprintf("Attempt %d of %d was rolled back; the keeper is about to say when the next one may begin.",
							slot->t.attempt + 1, slot->t.max_attempts), NULL);
}

static bool
explain_grace(const Case *c, const JobqSlot *slot)
{
	return because(c->reason, "cancelled", slot->l.expires_at,
				   psprintf("The job was cancelled; worker \"%s\" has until then to learn it.",
							slot->l.worker), NULL);
}

/* A transaction that is ending or moving it, ours included. */
static bool
explain_marked(const Case *c, const JobqSlot *slot)
{
	int			pid = BackendXidGetPid(slot->mark);

	return because(c->reason, "busy", JOBQ_NEVER,
				   psprintf("Transaction %u is ending or moving the job, and has not committed yet.",
							slot->mark),
				   pid == 0 ? NULL :
				   psprintf("Look at process %d in pg_stat_activity.", pid));
}

static bool
explain_slot(Case *c, const JobqSlot *slot)
{
	if (TransactionIdIsValid(slot->mark))
		return explain_marked(c, slot);
	switch ((JobqSlotState) slot->state)
	{
		case SLOT_RUNNING:
			return explain_running(c, slot);
		case SLOT_ROLLED_BACK:
			return explain_rolled_back(c, slot);
		case SLOT_GRACE:
			return explain_grace(c, slot);
		case SLOT_READY:
			c->t = slot->t;
			return explain_available(c);
		case SLOT_FREE:
		case SLOT_LINKING:
		case SLOT_SHELVED:
			break;
	}
	return false;
}

static bool
explain_own(const Case *c, const JobqOwnJob *own)
{
	if (own->state == OWN_RUNNING)
		return because(c->reason, "running", own->l.expires_at,
					   psprintf("Attempt %d of %d has been running since %s, taken by this transaction.",
								own->t.attempt + 1, own->t.max_attempts,
								at_time(own->l.claimed_at)), NULL);
	return because(c->reason, "uncommitted", JOBQ_NEVER,
				   pstrdup("This transaction has enqueued or moved the job and has not committed yet: nobody else can see it."),
				   pstrdup("COMMIT;"));
}

static bool
explain_shelved(const Case *c, const JobqRow *row)
{
	TimestampTz run_at = DatumGetTimestampTz(row->values[JOB_RUN_AT]);
	char	   *since = run_at > c->now ? "" :
		" It is due, and the keeper is about to make it available.";

	switch (DatumGetChar(row->values[SHELF_STATE]))
	{
		case SHELF_SCHEDULED:
			return because(c->reason, "scheduled", run_at,
						   psprintf("The job is scheduled for %s.%s",
									at_time(run_at), since),
						   pstrdup("jobq.reschedule() has it run now."));
		case SHELF_RETRYABLE:
			return because(c->reason, "retryable", run_at,
						   psprintf("%d of %d attempts have ended without success; the next one may begin at %s.%s",
									DatumGetInt32(row->values[JOB_ATTEMPT]),
									DatumGetInt32(row->values[JOB_MAX_ATTEMPTS]),
									at_time(run_at), since),
						   pstrdup("jobq.reschedule() has it run now."));
	}
	return because(c->reason, "dead", JOBQ_NEVER,
				   psprintf("The job died at %s, after %d of %d attempts.",
							at_time(DatumGetTimestampTz(row->values[SHELF_DIED_AT])),
							DatumGetInt32(row->values[JOB_ATTEMPT]),
							DatumGetInt32(row->values[JOB_MAX_ATTEMPTS])),
				   pstrdup("jobq.retry() or jobq.redrive() has it run again, as a new job."));
}

static const char *
ended_word(char ended)
{
	switch (ended)
	{
		case ENDED_COMPLETED:
			return "completed";
		case ENDED_CANCELLED:
			return "cancelled";
		case ENDED_EXPIRED:
			return "expired";
	}
	return "dead";
}

static bool
explain_ended(const Case *c, const JobqOutcomeRow *outcome)
{
	const char *word = ended_word(DatumGetChar(outcome->values[OUT_ENDED]));
	TimestampTz at = DatumGetTimestampTz(outcome->values[OUT_FINISHED_AT]);

	return because(c->reason, word, JOBQ_NEVER,
				   psprintf("The job ended as %s at %s.", word, at_time(at)),
				   pstrdup("jobq.retry() has it run again, as a new job."));
}

/* ---- jobs ---- */

/* May the caller see this queue's jobs, or this one at least? */
static bool
may_see(const JobqQueue *queue, Oid enqueued_by)
{
	return (queue->my_privileges & (JOBQ_PRIV_READ | JOBQ_PRIV_MANAGE)) != 0 ||
		(OidIsValid(enqueued_by) && has_privs_of_role(GetUserId(), enqueued_by));
}

/* Who enqueued it is asked only when it matters. */
static bool
may_see_slot(const Case *c, int64 id)
{
	int32		queue_id;
	Oid			enqueued_by;

	return may_see(&c->queue, InvalidOid) ||
		(jobq_job_owner(c->session, id, &queue_id, &enqueued_by) &&
		 may_see(&c->queue, enqueued_by));
}

/* True with *found: explained. True without: not to be seen. False: look on. */
static bool
look_in_memory(Case *c, int64 id, bool *found)
{
	int			own = jobq_own_find(id);
	JobqSlot	slot;

	*found = false;
	if (own >= 0)
	{
		if (jobq_queue_by_id(jobq_own(own)->t.queue_id, &c->queue) &&
			may_see_slot(c, id))
			*found = explain_own(c, jobq_own(own));
		return true;
	}
	if (!jobq_find(c->session->db, c->session->gen, id, &slot) ||
		(slot.flags & SLOT_VERIFY) != 0 || slot.state == SLOT_SHELVED)
		return false;
	if (jobq_queue_by_id(slot.t.queue_id, &c->queue) && may_see_slot(c, id))
		*found = explain_slot(c, &slot);
	return true;
}

static bool
look_in_tables(Case *c, int64 id)
{
	JobqWhere	where;
	JobqSlot	slot;

	if (!jobq_newest(id, &where) ||
		!jobq_queue_by_id(DatumGetInt32(where.row.values[JOB_QUEUE_ID]),
						  &c->queue) ||
		!may_see(&c->queue,
				 DatumGetObjectId(where.row.values[JOB_ENQUEUED_BY])))
		return false;
	if (where.on_shelf)
		return explain_shelved(c, &where.row);
	if (where.has_outcome)
		return explain_ended(c, &where.outcome);
	/* it may have come into memory meanwhile */
	if (jobq_find(c->session->db, c->session->gen, id, &slot) &&
		slot.t.ticket == where.t.ticket)
		return explain_slot(c, &slot);
	c->t = where.t;
	return explain_available(c);
}

bool
jobq_explain_job(const JobqSession *session, int64 id, JobqReason *reason)
{
	Case		c = {.session = session,.now = jobq_now(),.reason = reason};
	bool		found;

	if (look_in_memory(&c, id, &found))
		return found;
	return look_in_tables(&c, id);
}

/* ---- queues ---- */

static bool
has_available(const Case *c)
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
is_empty(const Case *c)
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
		return because(c->reason, "draining", first,
					   psprintf("No job is available, and new ones are refused: the queue was drained%s; %s.",
								stopped(&c->queue.drain), what),
					   call_for("resume_queue", &c->queue));
	return because(c->reason, "empty", first,
				   psprintf("No job is available: %s.", what),
				   first == JOBQ_NEVER ? NULL :
				   psprintf("The first of those that wait is due at %s.",
							at_time(first)));
}

/* The probes behind this one are for queues of which none can be taken. */
static bool
gives_jobs(const Case *c)
{
	JobqPart   *part = part_of(c);
	TimestampTz retry_at;

	return part != NULL &&
		jobq_may_take(part, c->session->gen, c->now, &retry_at) &&
		because(c->reason, "available", JOBQ_NEVER,
				psprintf(INT64_FORMAT " jobs are available, and nothing keeps them.",
						 c->seen.counters[COUNT_AVAILABLE] -
						 c->seen.counters[COUNT_BLOCKED]),
				call_for("dequeue", &c->queue));
}

/* A transaction that cancels very many of them keeps the rest on disk. */
static bool
is_held(const Case *c)
{
	return TransactionIdIsValid(c->seen.holder) &&
		TransactionIdIsInProgress(c->seen.holder) &&
		because(c->reason, "busy", JOBQ_NEVER,
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
is_kept_by_groups(const Case *c)
{
	JobqPart   *part = part_of(c);
	JobqGroupsReason groups;

	if (part == NULL)
		return false;
	jobq_groups_explain(part, c->session->gen, c->now, &groups);
	if (groups.full + groups.paused + groups.too_fast == 0 ||
		groups.spilled > 0)
		return false;
	return because(c->reason, main_reason(&groups), groups.go_on,
				   psprintf("Of %s%d groups with jobs that wait %d are full, %d are paused and %d are at their rate.",
							groups.looked_at >= JOBQ_GROUPS_LOOK ?
							"at least " : "",
							groups.waiting, groups.full, groups.paused,
							groups.too_fast),
				   pstrdup("View jobq.groups shows the groups; jobq.alter_group() and jobq.alter_queue() change what they may."));
}

static bool
is_all_on_disk(const Case *c)
{
	return (c->seen.frontier.priority != JOBQ_KEY_END ||
			c->seen.spilled > 0) &&
		because(c->reason, "spilled", JOBQ_NEVER,
				psprintf("All " INT64_FORMAT " jobs that could be taken are on disk.",
						 c->seen.counters[COUNT_AVAILABLE] -
						 c->seen.counters[COUNT_BLOCKED]),
				pstrdup("The keeper is about to load them; raise jobq.max_live_jobs if this happens often."));
}

/* The last one. */
static bool
is_all_marked(const Case *c)
{
	return because(c->reason, "busy", JOBQ_NEVER,
				   psprintf("All " INT64_FORMAT " available jobs are being ended or moved by transactions that have not committed, or have expired.",
							c->seen.counters[COUNT_AVAILABLE]),
				   NULL);
}

/* Why dequeue gives nothing; in the order in which they decide. */
static const Probe queue_probes[] = {
	is_copy,
	is_paused,
	is_empty,
	is_limited,
	is_loading,
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
	Case		c = {.session = session,.now = jobq_now(),.queue = *queue,
	.reason = reason};

	(void) jobq_part_see(session->db, session->gen, queue->queue_id, c.now,
						 &c.seen);
	(void) run_probes(queue_probes, lengthof(queue_probes), &c);
}
