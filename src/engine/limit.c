/*
 * limit.c: letting jobs into a queue that has limits on enqueuing. Who has
 * used how much of them is known in shared memory; must not write anything.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "engine/limit.h"
#include "engine/xact.h"
#include "errors.h"
#include "security/audit.h"

#define USECS_PER_MS		INT64CONST(1000)

/* ---- what is counted together ---- */

static void
key_of_role(Oid role, uint64 *key)
{
	key[0] = 1;
	key[1] = role;
}

/* Jobs without a group are one. */
static void
key_of_group(const text *group, uint64 *key)
{
	const unsigned char *string = (const unsigned char *) VARDATA_ANY(group);
	int			len = (int) VARSIZE_ANY_EXHDR(group);

	for (int i = 0; i < 2; i++)
		key[i] = hash_bytes_extended(string, len, (uint64) i + 1);
}

void
jobq_admission_key(JobqPer per, Oid role, const text *group, uint64 *key)
{
	key[0] = key[1] = 0;
	switch (per)
	{
		case JOBQ_PER_QUEUE:
			break;
		case JOBQ_PER_ROLE:
			key_of_role(role, key);
			break;
		case JOBQ_PER_GROUP:
			if (group != NULL)
				key_of_group(group, key);
			else
				key[0] = 1;
			break;
	}
}

/* ---- refusals ---- */

static const char *
per_word(JobqPer per)
{
	switch (per)
	{
		case JOBQ_PER_ROLE:
			return " per role";
		case JOBQ_PER_GROUP:
			return " per group";
		case JOBQ_PER_QUEUE:
			break;
	}
	return "";
}

static const char *
describe(const JobqEnqueueLimit *limit)
{
	int64		ms = limit->rate.period / USECS_PER_MS;

	return ms % 1000 == 0 ?
		psprintf("%d jobs in " INT64_FORMAT " s%s", limit->rate.limit,
				 ms / 1000, per_word(limit->per)) :
		psprintf("%d jobs in " INT64_FORMAT " ms%s", limit->rate.limit, ms,
				 per_word(limit->per));
}

JOBQ_NORETURN static void
refuse_full(const JobqQueue *queue, const JobqAdmission *admission)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_QUEUE_FULL),
			 errmsg("queue \"%s\" is full", queue->name),
			 errdetail("The limit is %d waiting jobs; " INT64_FORMAT " remain, %d were asked for.",
					   queue->max_depth,
					   Max(queue->max_depth - admission->used, 0),
					   admission->n),
			 errhint("There is room again when waiting jobs are dequeued, cancelled or purged, or an open transaction that has enqueued some is rolled back; when that is nobody can tell. Or raise the queue's max_depth.")));
	pg_unreachable();
}

JOBQ_NORETURN static void
refuse_too_many(const JobqQueue *queue, const JobqAdmission *admission)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("%d jobs are more than queue \"%s\" ever takes at once",
					admission->n, queue->name),
			 errdetail("The queue's enqueue_limit is %s.",
					   describe(&queue->enqueue_limit)),
			 errhint("Enqueue fewer jobs in a call, or raise the queue's enqueue_limit.")));
	pg_unreachable();
}

JOBQ_NORETURN static void
refuse_too_fast(const JobqQueue *queue, const JobqAdmission *admission)
{
	int64		wait = Max(admission->retry_at - admission->now, 0);
	int64		limit = queue->enqueue_limit.rate.limit;

	jobq_audit_refusal(NULL, queue->queue_id, 0, ERRCODE_JOBQ_TOO_FAST,
					   psprintf("%d asked for, the limit is %s", admission->n,
								describe(&queue->enqueue_limit)));
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_TOO_FAST),
			 errmsg("jobs are enqueued too fast into queue \"%s\"",
					queue->name),
			 errdetail("The limit is %s; " INT64_FORMAT " remain, %d were asked for. Retry after " INT64_FORMAT " ms.",
					   describe(&queue->enqueue_limit),
					   Max(limit - admission->used, 0), admission->n,
					   (wait + USECS_PER_MS - 1) / USECS_PER_MS),
			 errhint("Wait as long as the detail says, or raise the queue's enqueue_limit.")));
	pg_unreachable();
}

/* ---- letting in ---- */

/* n jobs that count together; when. */
static TimestampTz
admit(const JobqSession *session, const JobqQueue *queue, JobqPart *part,
	  const uint64 *key, int n)
{
	JobqAdmission admission = {.n = n};

	admission.max_depth = queue->max_depth;
	admission.rate = queue->enqueue_limit.rate;
	admission.key[0] = key[0];
	admission.key[1] = key[1];
	if (admission.rate.limit > 0 && n > admission.rate.limit)
		refuse_too_many(queue, &admission);
	jobq_xact_admits(session, queue->queue_id, key,
					 admission.rate.limit > 0 ? admission.rate.period : 0);
	switch (jobq_admit_jobs(part, session->gen, &admission))
	{
		case ADMIT_OK:
			jobq_xact_admitted(n, admission.at);
			return admission.now;
		case ADMIT_FULL:
			refuse_full(queue, &admission);
		case ADMIT_TOO_FAST:
			refuse_too_fast(queue, &admission);
		case ADMIT_GONE:
			break;
	}
	jobq_raise_not_ready();
}

static void
set_enqueued_at(JobqRow *row, TimestampTz when)
{
	row->values[JOB_ENQUEUED_AT] = TimestampTzGetDatum(when);
}

/* A row and its group. */
typedef struct Member
{
	uint64		key[2];
	JobqRow    *row;
} Member;

static int
compare_members(const void *a, const void *b)
{
	return memcmp(((const Member *) a)->key, ((const Member *) b)->key,
				  sizeof(uint64) * 2);
}

/* By group: those of the same one together. */
static void
admit_groups(const JobqSession *session, const JobqQueue *queue,
			 JobqPart *part, JobqRow *rows, int nrows)
{
	Member	   *members = palloc_extended(sizeof(Member) * nrows,
										  MCXT_ALLOC_HUGE);
	int			to;

	for (int i = 0; i < nrows; i++)
	{
		members[i].row = &rows[i];
		jobq_admission_key(JOBQ_PER_GROUP, InvalidOid,
						   rows[i].nulls[JOB_GROUP_KEY] ? NULL :
						   DatumGetTextPP(rows[i].values[JOB_GROUP_KEY]),
						   members[i].key);
	}
	qsort(members, nrows, sizeof(Member), compare_members);
	for (int from = 0; from < nrows; from = to)
	{
		TimestampTz when;

		to = from + 1;
		while (to < nrows && compare_members(&members[from],
											 &members[to]) == 0)
			to++;
		when = admit(session, queue, part, members[from].key, to - from);
		for (int i = from; i < to; i++)
			set_enqueued_at(members[i].row, when);
	}
	pfree(members);
}

void
jobq_admit(const JobqSession *session, const JobqQueue *queue,
		   JobqRow *rows, int nrows)
{
	const JobqEnqueueLimit *limit = &queue->enqueue_limit;
	JobqPart   *part;
	TimestampTz when;
	uint64		key[2];

	if (queue->max_depth == 0 && limit->rate.limit == 0)
		return;
	jobq_await_ready(session, JOBQ_DEQUEUE_WAIT_MS);
	part = jobq_require_part(session, queue);
	if (limit->rate.limit > 0 && limit->per == JOBQ_PER_GROUP)
	{
		admit_groups(session, queue, part, rows, nrows);
		return;
	}
	jobq_admission_key((JobqPer) limit->per, GetUserId(), NULL, key);
	when = admit(session, queue, part, key, nrows);
	for (int i = 0; i < nrows; i++)
		set_enqueued_at(&rows[i], when);
}
