/*
 * explaincase.c: what a job that waits and its queue have in common as reasons:
 * pauses, limits of the queue, memory that is not loaded yet.
 *
 * Must not change anything.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "engine/explaincase.h"
#include "security/security.h"

char *
jobq_at_time(TimestampTz when)
{
	return pstrdup(timestamptz_to_str(when));
}

/* A statement that a hint names, with the queue in it. */
char *
jobq_call_for(const char *function, const JobqQueue *queue)
{
	return psprintf("SELECT jobq.%s(%s);", function,
					quote_literal_cstr(queue->name));
}

bool
jobq_because(JobqReason *reason, const char *word, TimestampTz until,
			 char *detail, char *hint)
{
	reason->reason = word;
	reason->until = until;
	reason->detail = detail;
	reason->hint = hint;
	return true;
}

bool
jobq_first_reason(const JobqWhy *probes, int n, const JobqCase *c)
{
	for (int i = 0; i < n; i++)
	{
		if (probes[i] (c))
			return true;
	}
	return false;
}

/* ---- what holds for the whole queue ---- */

bool
jobq_why_copy(const JobqCase *c)
{
	return c->session->db->copy &&
		jobq_because(c->reason, "copy", JOBQ_NEVER,
					 pstrdup("This database was restored, copied or upgraded, or jobq.start_paused is on: nothing runs in it."),
					 pstrdup("SELECT jobq.adopt();"));
}

/* Who has stopped it, and when, as the end of a sentence. */
char *
jobq_stopped_by(const JobqStop *stop)
{
	if (stop->at == 0)
		return "";
	return psprintf(" by role \"%s\" at %s", jobq_role_shown(stop->by),
					jobq_at_time(stop->at));
}

bool
jobq_why_paused(const JobqCase *c)
{
	return c->queue.paused &&
		jobq_because(c->reason, "paused", JOBQ_NEVER,
					 psprintf("Queue \"%s\" was paused%s.", c->queue.name,
							  jobq_stopped_by(&c->queue.pause)),
					 jobq_call_for("resume_queue", &c->queue));
}

JobqPart *
jobq_case_part(const JobqCase *c)
{
	return jobq_part_get(c->session->db, c->session->gen, c->queue.queue_id);
}

/* The limits of the queue as a whole. */
bool
jobq_why_limited(const JobqCase *c)
{
	JobqPart   *part = jobq_case_part(c);
	int64		period = c->queue.rules.rate_limit.period;
	JobqLimitState state;

	if (part == NULL)
		return false;
	jobq_limits_explain(part, c->session->gen, &c->queue.rules, &state);
	switch (state.reason)
	{
		case JOBQ_LIMIT_NONE:
			break;
		case JOBQ_LIMIT_ACTIVE:
			return jobq_because(c->reason, "max_active", state.until,
								psprintf("The limit is reached: " INT64_FORMAT " of " INT64_FORMAT " jobs run.",
										 state.used, state.limit),
								pstrdup("Raise max_active with jobq.alter_queue()."));
		case JOBQ_LIMIT_RATE:
			return jobq_because(c->reason, "rate_limit", state.until,
								psprintf("The limit is reached: " INT64_FORMAT " of " INT64_FORMAT " jobs were delivered in %g s; the next one may be at %s.",
										 state.used, state.limit,
										 (double) period / USECS_PER_SEC,
										 jobq_at_time(state.until)),
								pstrdup("Raise rate_limit with jobq.alter_queue()."));
		case JOBQ_LIMIT_OPEN:
			return jobq_because(c->reason, "circuit_breaker", state.until,
								psprintf("The circuit breaker is open: it lets one job through at %s.",
										 jobq_at_time(state.until)), NULL);
		case JOBQ_LIMIT_PROBE:
			return jobq_because(c->reason, "circuit_breaker", JOBQ_NEVER,
								pstrdup("The circuit breaker is half-open, and the one job that it has let through is running."),
								NULL);
		case JOBQ_LIMIT_LEASES:
			return jobq_because(c->reason, "lost_leases", JOBQ_NEVER,
								pstrdup("Running jobs have found no place in memory, so what runs is not known."),
								pstrdup("Raise jobq.max_live_jobs and restart the server."));
	}
	return false;
}

/* Nothing is delivered before memory knows what decides about groups. */
bool
jobq_why_loading(const JobqCase *c)
{
	JobqPart   *part = jobq_case_part(c);

	return part != NULL &&
		!jobq_follow_rules(part, c->session->gen, &c->queue.rules) &&
		jobq_because(c->reason, "loading", JOBQ_NEVER,
					 psprintf("The keeper is still loading what decides about the groups of queue \"%s\".",
							  c->queue.name),
					 NULL);
}
