/*
 * explain.c: why a job does not run: the first of a list of probes that knows.
 * Looks at shared memory first, and at tables only for jobs that are not there
 * and for the names of groups.
 *
 * Must not change anything, nor tell of a job's payload.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"

#include "engine/belts.h"
#include "engine/explaincase.h"
#include "engine/own.h"
#include "engine/whereis.h"
#include "security/security.h"

#define AHEAD_MAX		128		/* jobs ahead of one that are counted */

/* ---- of an available job ---- */

static bool
has_expired(const JobqCase *c)
{
	return c->t.expires_at <= c->now &&
		jobq_because(c->reason, "expired", JOBQ_NEVER,
					 psprintf("The job expired at %s; the keeper is about to end it.",
							  jobq_at_time(c->t.expires_at)), NULL);
}

static bool
is_on_disk(const JobqCase *c)
{
	JobqKey		key = jobq_key_of(&c->t, c->seen.aging);

	return !jobq_key_before(&key, &c->seen.frontier) &&
		jobq_because(c->reason, "spilled", JOBQ_NEVER,
					 psprintf("The job waits on disk, behind " INT64_FORMAT " jobs of the queue that are in memory: its position is " INT64_FORMAT " or later.",
							  c->seen.ready, c->seen.ready + 1),
					 pstrdup("It comes into memory in time; have more workers dequeue."));
}

static bool may_see_slot(const JobqCase *c, int64 id);

/* The key of an available job's group; NULL if the job has gone. */
static text *
group_key_of(const JobqCase *c)
{
	JobqWhere	where;

	if (!jobq_newest(c->t.id, &where) || where.row.nulls[JOB_GROUP_KEY])
		return NULL;
	return DatumGetTextPP(where.row.values[JOB_GROUP_KEY]);
}

/* One that waits for another attempt may have kept its place. */
static bool
has_place(const JobqSlot *slot, const JobqGroupReason *group)
{
	if (slot->state == SLOT_READY || slot->state == SLOT_SHELVED)
		return group->kept > 0 && slot->t.started;
	return true;
}

/*
 * Which job has the last of a group's places: the one that was taken last, if
 * it still has it. Empty if that is not known, or not to be told.
 */
static char *
last_place(const JobqCase *c, const JobqGroupReason *group)
{
	JobqSlot	slot;
	char	   *since = "";

	if (group->taken_id == 0 || group->taken_id == c->t.id ||
		!jobq_find(c->session->db, c->session->gen, group->taken_id, &slot) ||
		memcmp(&slot.t.group, &c->t.group, sizeof(JobqGroupKey)) != 0 ||
		!has_place(&slot, group) || !may_see_slot(c, group->taken_id))
		return "";
	if (group->taken_at != 0)
		since = psprintf(" since %s", jobq_at_time(group->taken_at));
	return psprintf(", the last one by job " INT64_FORMAT "%s%s",
					group->taken_id, since,
					slot.state == SLOT_RUNNING || slot.state == SLOT_GRACE ?
					"" : ", which waits for another attempt");
}

static bool
is_group_full(const JobqCase *c, const char *key, const JobqGroupReason *group)
{
	return group->full &&
		jobq_because(c->reason, "group_limit", JOBQ_NEVER,
					 psprintf("Group \"%s\" is busy: %d of %d places are taken%s.",
							  key, group->active + group->kept, group->limit,
							  last_place(c, group)),
					 pstrdup("Raise the limit with jobq.alter_group() or jobq.alter_queue()."));
}

static bool
is_group_paused(const JobqCase *c, text *key, const JobqGroupReason *group)
{
	JobqGroupRules rules;
	JobqStop	pause;

	if (group->paused_until <= c->now)
		return false;
	jobq_group_read(c->queue.queue_id, key, &rules, &pause);
	return jobq_because(c->reason, "group_paused", group->paused_until,
						psprintf("Group \"%s\" was paused%s, until %s.",
								 text_to_cstring(key), jobq_stopped_by(&pause),
								 jobq_at_time(group->paused_until)),
						pstrdup("Set paused_until to null with jobq.alter_group()."));
}

static bool
is_group_too_fast(const JobqCase *c, const char *key,
				  const JobqGroupReason *group)
{
	return group->not_before > c->now &&
		jobq_because(c->reason, "group_rate_limit", group->not_before,
					 psprintf("Group \"%s\" has had " INT64_FORMAT " of %d deliveries in %g s; the next one may be at %s.",
							  key, group->delivered, group->rate.limit,
							  (double) group->rate.period / USECS_PER_SEC,
							  jobq_at_time(group->not_before)),
					 pstrdup("Raise the rate with jobq.alter_group() or jobq.alter_queue()."));
}

static bool
is_group_on_disk(const JobqCase *c, const char *key,
				 const JobqGroupReason *group)
{
	return group->spilled &&
		jobq_because(c->reason, "spilled", JOBQ_NEVER,
					 psprintf("The job waits on disk, behind %d jobs of group \"%s\" that are in memory: its position in the group is %d or later.",
							  group->waiting, key, group->waiting + 1),
					 pstrdup("It comes into memory in time; have more workers dequeue."));
}

static bool
is_kept_by_group(const JobqCase *c)
{
	JobqPart   *part = jobq_case_part(c);
	JobqGroupReason group;
	text	   *key;
	char	   *name;

	if (part == NULL || !jobq_has_group(&c->t.group) ||
		!jobq_group_explain(part, c->session->gen, &c->t, &group) ||
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
count_ahead(const JobqCase *c)
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
is_in_line(const JobqCase *c)
{
	int			ahead = count_ahead(c);
	char	   *last = c->seen.last_taken == 0 ?
		pstrdup("none has been taken since the server was started") :
		psprintf("the last one was taken at %s", jobq_at_time(c->seen.last_taken));

	if (ahead == 0)
		return jobq_because(c->reason, "next", JOBQ_NEVER,
							psprintf("The job is the next one of the queue, and nothing keeps it; %s.",
									 last),
							psprintf("Have a worker call jobq.dequeue(%s).",
									 quote_literal_cstr(c->queue.name)));
	return jobq_because(c->reason, "in_line", JOBQ_NEVER,
						psprintf("%s%d jobs of the queue come before it; %s.",
								 ahead == AHEAD_MAX ? "At least " : "", ahead, last),
						pstrdup("Have more workers dequeue, or give the job another priority with jobq.reschedule()."));
}

/* Why an available job is not taken; in the order in which they decide. */
static const JobqWhy job_probes[] = {
	jobq_why_copy,
	has_expired,
	jobq_why_paused,
	jobq_why_limited,
	jobq_why_loading,
	is_kept_by_group,
	is_on_disk,
	is_in_line
};

static bool
explain_available(JobqCase *c)
{
	(void) jobq_part_see(c->session->db, c->session->gen, c->queue.queue_id,
						 c->now, &c->seen);
	return jobq_first_reason(job_probes, lengthof(job_probes), c);
}

/* ---- of a job that is not available ---- */

static bool
explain_running(const JobqCase *c, const JobqSlot *slot)
{
	return jobq_because(c->reason, "running", slot->l.expires_at,
						psprintf("Attempt %d of %d has been running since %s, taken by worker \"%s\".",
								 slot->t.attempt + 1, slot->t.max_attempts,
								 jobq_at_time(slot->l.claimed_at), slot->l.worker), NULL);
}

static bool
explain_rolled_back(const JobqCase *c, const JobqSlot *slot)
{
	return jobq_because(c->reason, "retryable", JOBQ_NEVER,
						psprintf("Attempt %d of %d was rolled back; the keeper is about to say when the next one may begin.",
								 slot->t.attempt + 1, slot->t.max_attempts), NULL);
}

static bool
explain_grace(const JobqCase *c, const JobqSlot *slot)
{
	return jobq_because(c->reason, "cancelled", slot->l.expires_at,
						psprintf("The job was cancelled; worker \"%s\" has until then to learn it.",
								 slot->l.worker), NULL);
}

/* A transaction that is ending or moving it, ours included. */
static bool
explain_marked(const JobqCase *c, const JobqSlot *slot)
{
	int			pid = BackendXidGetPid(slot->mark);

	return jobq_because(c->reason, "busy", JOBQ_NEVER,
						psprintf("Transaction %u is ending or moving the job, and has not committed yet.",
								 slot->mark),
						pid == 0 ? NULL :
						psprintf("Look at process %d in pg_stat_activity.", pid));
}

static bool
explain_slot(JobqCase *c, const JobqSlot *slot)
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
explain_own(const JobqCase *c, const JobqOwnJob *own)
{
	if (own->state == OWN_RUNNING)
		return jobq_because(c->reason, "running", own->l.expires_at,
							psprintf("Attempt %d of %d has been running since %s, taken by this transaction.",
									 own->t.attempt + 1, own->t.max_attempts,
									 jobq_at_time(own->l.claimed_at)), NULL);
	return jobq_because(c->reason, "uncommitted", JOBQ_NEVER,
						pstrdup("This transaction has enqueued or moved the job and has not committed yet: nobody else can see it."),
						pstrdup("COMMIT;"));
}

static bool
explain_shelved(const JobqCase *c, const JobqRow *row)
{
	TimestampTz run_at = DatumGetTimestampTz(row->values[JOB_RUN_AT]);
	TimestampTz died_at;
	char	   *since = run_at > c->now ? "" :
		" It is due, and the keeper is about to make it available.";

	switch (DatumGetChar(row->values[SHELF_STATE]))
	{
		case SHELF_SCHEDULED:
			return jobq_because(c->reason, "scheduled", run_at,
								psprintf("The job is scheduled for %s.%s",
										 jobq_at_time(run_at), since),
								pstrdup("jobq.reschedule() has it run now."));
		case SHELF_RETRYABLE:
			return jobq_because(c->reason, "retryable", run_at,
								psprintf("%d of %d attempts have ended without success; the next one may begin at %s.%s",
										 DatumGetInt32(row->values[JOB_ATTEMPT]),
										 DatumGetInt32(row->values[JOB_MAX_ATTEMPTS]),
										 jobq_at_time(run_at), since),
								pstrdup("jobq.reschedule() has it run now."));
	}
	died_at = DatumGetTimestampTz(row->values[SHELF_DIED_AT]);
	return jobq_because(c->reason, "dead", JOBQ_NEVER,
						psprintf("The job died at %s, after %d of %d attempts.",
								 jobq_at_time(died_at),
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
explain_ended(const JobqCase *c, const JobqOutcomeRow *outcome)
{
	const char *word = ended_word(DatumGetChar(outcome->values[OUT_ENDED]));
	TimestampTz at = DatumGetTimestampTz(outcome->values[OUT_FINISHED_AT]);

	return jobq_because(c->reason, word, JOBQ_NEVER,
						psprintf("The job ended as %s at %s.", word, jobq_at_time(at)),
						pstrdup("jobq.retry() has it run again, as a new job."));
}

/* ---- jobs ---- */

/* May the caller see this queue's jobs, or this one at least? */
static bool
may_see(const JobqQueue *queue, Oid enqueued_by)
{
	return (queue->my_privileges & (JOBQ_PRIV_READ | JOBQ_PRIV_MANAGE)) != 0 ||
		jobq_is_enqueuer(queue, enqueued_by);
}

/* Who enqueued it is asked only when it matters. */
static bool
may_see_slot(const JobqCase *c, int64 id)
{
	int32		queue_id;
	Oid			enqueued_by;

	return may_see(&c->queue, InvalidOid) ||
		(jobq_job_owner(c->session, id, &queue_id, &enqueued_by) &&
		 may_see(&c->queue, enqueued_by));
}

/* True with *found: explained. True without: not to be seen. False: look on. */
static bool
look_in_memory(JobqCase *c, int64 id, bool *found)
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
look_in_tables(JobqCase *c, int64 id)
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
	JobqCase		c = {.session = session,.now = jobq_now(),.reason = reason};
	bool		found;

	if (look_in_memory(&c, id, &found))
		return found;
	return look_in_tables(&c, id);
}
