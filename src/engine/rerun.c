/*
 * rerun.c: running final jobs again: retry and redrive. Each makes a new job;
 * a dead one can be rerun only once, which its row on the shelf remembers.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "engine/deadletter.h"
#include "engine/place.h"
#include "engine/unique.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "errors.h"
#include "security/seal.h"

/*
 * A number for a new job like `old`, which has that one's unique key. False:
 * the key is taken. Redriving waits for nobody's key, so that it meets no
 * deadlock, whatever the order of its jobs.
 */
static bool
begin_rerun(const JobqSession *session, const JobqQueue *queue,
			const JobqRow *old, bool nowait, int64 *again, int64 *holder)
{
	jobq_lock_queue(queue);
	if (old->nulls[JOB_UNIQUE_KEY])
	{
		*again = jobq_take_number(session->db);
		return true;
	}
	return jobq_key_take_again(session, queue, old, nowait, again, holder);
}

/* The new job, for whoever enqueued the old one. */
static void
rerun(const JobqSession *session, const JobqQueue *queue, const JobqRow *old,
	  int64 again)
{
	TimestampTz now = jobq_now();
	JobqRow		row;

	jobq_new_job_like(old, queue, now, &row);
	row.values[JOB_ENQUEUED_BY] = old->values[JOB_ENQUEUED_BY];
	jobq_place_new(session, queue, &row, again, now);
}

/* For retry, which has one job to run again. */
static int64
rerun_one(const JobqSession *session, const JobqQueue *queue,
		  const JobqRow *old)
{
	int64		again;
	int64		holder;

	if (!begin_rerun(session, queue, old, false, &again, &holder))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_DUPLICATE),
				 errmsg("the unique key of job " INT64_FORMAT " is taken",
						DatumGetInt64(old->values[JOB_ID])),
				 errdetail("Job " INT64_FORMAT " holds it.", holder),
				 errhint("Wait until that job has ended, or cancel it.")));
	rerun(session, queue, old, again);
	return again;
}

static void
put_back(JobqRow *dead, int64 rerun_as)
{
	if (rerun_as != 0)
	{
		dead->values[SHELF_RERUN_AS] = Int64GetDatum(rerun_as);
		dead->nulls[SHELF_RERUN_AS] = false;
	}
	jobq_shelf_insert(dead);
}

static bool
is_original_of(const JobqRow *row, int64 copy_id)
{
	return DatumGetChar(row->values[SHELF_STATE]) == SHELF_DEAD &&
		!row->nulls[SHELF_MOVED_TO] &&
		DatumGetInt64(row->values[SHELF_MOVED_TO]) == copy_id;
}

static void
find_queue(const JobqRow *row, int64 id, JobqQueue *queue)
{
	if (!jobq_queue_by_id(DatumGetInt32(row->values[JOB_QUEUE_ID]), queue))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_NO_QUEUE),
				 errmsg("the queue of job " INT64_FORMAT " does not exist any more", id),
				 errdetail("It was dropped."),
				 errhint("Enqueue a new job into another queue.")));
}

static void
raise_rerun_before(int64 id, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_DUPLICATE),
			 errmsg("job " INT64_FORMAT " cannot be retried again", id),
			 errdetail("%s", detail),
			 errhint("A dead job is rerun at most once; retry the job that came of it.")));
}

/*
 * The original of a copy in a dead-letter queue, off the shelf and in our
 * hands, to be put back. Headers alone prove nothing: the original must say
 * itself that this is its copy.
 */
static bool
take_original(const JobqRow *copy, JobqRow *original)
{
	int64		copy_id = DatumGetInt64(copy->values[JOB_ID]);
	int64		id;
	char	   *queue;

	return jobq_dead_letter_origin(copy, &id, &queue) &&
		jobq_shelf_read(id, original) && is_original_of(original, copy_id) &&
		jobq_shelf_take(id, true, original);
}

/* A dead copy counts as run again as well: the work is to be done once. */
static void
end_dead_copy(int64 id, int64 copy, int64 again)
{
	JobqRow		row;

	if (!jobq_shelf_take(copy, true, &row))
		return;
	if (!row.nulls[SHELF_RERUN_AS])
		raise_rerun_before(id, psprintf("Its copy, job " INT64_FORMAT ", runs again as job " INT64_FORMAT ".",
										copy, DatumGetInt64(row.values[SHELF_RERUN_AS])));
	put_back(&row, again);
}

/* The copy in the dead-letter queue must not run as well. */
static void
end_copy(const JobqSession *session, int64 id, int64 copy, int64 again)
{
	JobqWhere	where;

	switch (jobq_cancel(session, copy, "redriven", JOBQ_ONLY_WAITING))
	{
		case JOBQ_STEER_DONE:
			return;
		case JOBQ_STEER_NO_JOB:
			raise_rerun_before(id, psprintf("Its copy, job " INT64_FORMAT ", has ended and is not kept any more.",
											copy));
			return;
		case JOBQ_STEER_RUNNING:
			raise_rerun_before(id, psprintf("Its copy, job " INT64_FORMAT ", is running.",
											copy));
			return;
		case JOBQ_STEER_FINAL:
			if (!jobq_newest(copy, &where))
				return;
			if (where.on_shelf)
				end_dead_copy(id, copy, again);
			else if (where.has_outcome &&
					 DatumGetChar(where.outcome.values[OUT_ENDED]) == ENDED_COMPLETED)
				raise_rerun_before(id, psprintf("Its copy, job " INT64_FORMAT ", has been completed.",
												copy));
	}
}

/*
 * An expired job has no row that remembers whether it was run again: its copy
 * in the dead-letter queue does, which ends when either of them is.
 */
static void
end_copy_of_expired(const JobqSession *session, int64 id, int64 copy)
{
	switch (jobq_cancel(session, copy, "redriven", JOBQ_ONLY_WAITING))
	{
		case JOBQ_STEER_DONE:
			return;
		case JOBQ_STEER_RUNNING:
			raise_rerun_before(id, psprintf("Its copy, job " INT64_FORMAT ", is running.",
											copy));
			return;
		case JOBQ_STEER_FINAL:
		case JOBQ_STEER_NO_JOB:
			raise_rerun_before(id, psprintf("Its copy, job " INT64_FORMAT ", has ended.",
											copy));
	}
}

static int64
retry_dead(const JobqSession *session, int64 id)
{
	JobqQueue	queue;
	JobqRow		dead;
	JobqRow		original;
	bool		has_original;
	int64		again;

	if (!jobq_shelf_take(id, true, &dead))
		jobq_raise_lost(JOBQ_LOST_NO_JOB, id, 0);
	find_queue(&dead, id, &queue);
	if (!dead.nulls[SHELF_RERUN_AS])
		raise_rerun_before(id, psprintf("It runs again as job " INT64_FORMAT ".",
										DatumGetInt64(dead.values[SHELF_RERUN_AS])));
	has_original = take_original(&dead, &original);
	if (has_original && !original.nulls[SHELF_RERUN_AS])
		raise_rerun_before(id, psprintf("Its original runs again as job " INT64_FORMAT ".",
										DatumGetInt64(original.values[SHELF_RERUN_AS])));
	again = rerun_one(session, &queue, &dead);
	if (!dead.nulls[SHELF_MOVED_TO])
		end_copy(session, id, DatumGetInt64(dead.values[SHELF_MOVED_TO]), again);
	put_back(&dead, again);
	if (has_original)
		put_back(&original, again);
	return again;
}

int64
jobq_retry(const JobqSession *session, int64 id)
{
	JobqQueue	queue;
	JobqWhere	where;
	bool		final;

	jobq_xact_steered(session);
	if (!jobq_newest(id, &where))
		jobq_raise_lost(JOBQ_LOST_NO_JOB, id, 0);
	if (where.on_shelf && DatumGetChar(where.row.values[SHELF_STATE]) == SHELF_DEAD)
		return retry_dead(session, id);
	/* its row was what makes sure that it is rerun only once */
	if (!where.on_shelf && where.has_outcome &&
		DatumGetChar(where.outcome.values[OUT_ENDED]) == ENDED_DEAD)
		jobq_raise_lost(JOBQ_LOST_NO_JOB, id, 0);
	final = !where.on_shelf && where.has_outcome &&
		DatumGetChar(where.outcome.values[OUT_ENDED]) != ENDED_MOVED;
	if (!final)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("job " INT64_FORMAT " has not ended yet", id),
				 errdetail("Only a completed, cancelled, dead or expired job can be retried."),
				 errhint("Use jobq.reschedule() to run a waiting job now.")));
	find_queue(&where.row, id, &queue);
	if (!where.outcome.nulls[OUT_MOVED_TO])
		end_copy_of_expired(session, id,
							DatumGetInt64(where.outcome.values[OUT_MOVED_TO]));
	return rerun_one(session, &queue, &where.row);
}

/* ---- redrive ---- */

static bool
wanted(const JobqRedrive *what, const JobqRow *row, TimestampTz died_at)
{
	if (what->kind != NULL &&
		(row->nulls[JOB_KIND] ||
		 strcmp(TextDatumGetCString(row->values[JOB_KIND]), what->kind) != 0))
		return false;
	return died_at > what->died_after;
}

/*
 * A dead job of a queue without a dead-letter queue. One that cannot be opened
 * stays where it is and does not stop the others.
 */
static bool
redrive_dead(const JobqSession *session, const JobqRedrive *what, int64 id)
{
	JobqRow		dead;
	JobqRow		original;
	const JobqQueue *to = what->to != NULL ? what->to : what->from;
	bool		has_original;
	bool		done;
	int64		again = 0;
	int64		holder;

	if (!jobq_shelf_read(id, &dead) ||
		!wanted(what, &dead, DatumGetTimestampTz(dead.values[SHELF_DIED_AT])) ||
		!dead.nulls[SHELF_MOVED_TO] || !dead.nulls[SHELF_RERUN_AS])
		return false;
	if (!jobq_shelf_take(id, true, &dead))
		return false;
	has_original = take_original(&dead, &original);
	done = dead.nulls[SHELF_RERUN_AS] &&
		(!has_original || original.nulls[SHELF_RERUN_AS]) &&
		jobq_can_unseal(&dead) &&
		begin_rerun(session, to, &dead, true, &again, &holder);
	if (done)
		rerun(session, to, &dead, again);
	else
		again = 0;
	put_back(&dead, again);
	if (has_original)
		put_back(&original, again);
	return done;
}

/* Where a waiting copy goes back to; false when the caller may not. */
static bool
find_target(const JobqRedrive *what, const JobqRow *copy, JobqQueue *target)
{
	int64		id;
	char	   *name;

	if (!jobq_dead_letter_origin(copy, &id, &name))
		return false;
	if (what->to != NULL)
	{
		*target = *what->to;
		return true;
	}
	return jobq_queue_by_name(name, target) &&
		(target->my_privileges & (JOBQ_PRIV_ENQUEUE | JOBQ_PRIV_MANAGE)) != 0;
}

/* The job to repeat for a copy whose original is not kept any more. */
static void
base_on_copy(const JobqRow *copy, const JobqQueue *target, JobqRow *base)
{
	int64		id;
	char	   *name;

	*base = *copy;
	if (jobq_dead_letter_origin(copy, &id, &name))
	{
		if (jobq_is_sealed(base))
			jobq_seal_for(base, "", DatumGetInt32(base->values[JOB_QUEUE_ID]),
						  id);
		base->values[JOB_ID] = Int64GetDatum(id);
	}
	base->values[JOB_MAX_ATTEMPTS] = Int32GetDatum(target->max_attempts);
	jobq_strip_dead_letter(base);
}

/* A waiting copy in a dead-letter queue: back to where it came from. */
static bool
redrive_copy(const JobqSession *session, const JobqRedrive *what, int64 id)
{
	JobqWhere	where;
	JobqRow		base;
	JobqRow		original;
	JobqQueue	target;
	bool		has_original;
	bool		done;
	int64		again = 0;
	int64		holder;

	if (!jobq_newest(id, &where) || !find_target(what, &where.row, &target) ||
		!wanted(what, &where.row,
				DatumGetTimestampTz(where.row.values[JOB_ENQUEUED_AT])))
		return false;
	has_original = take_original(&where.row, &original);
	base = has_original ? original : where.row;
	done = (!has_original || original.nulls[SHELF_RERUN_AS]) &&
		jobq_can_unseal(&base);
	if (done && !has_original)
		base_on_copy(&where.row, &target, &base);
	/* a key that is taken in vain is nobody's, as there is no such job */
	done = done &&
		begin_rerun(session, &target, &base, true, &again, &holder) &&
		jobq_cancel(session, id, "redriven",
					JOBQ_ONLY_WAITING) == JOBQ_STEER_DONE;
	if (done)
		rerun(session, &target, &base, again);
	else
		again = 0;
	if (has_original)
		put_back(&original, again);
	return done;
}

static int64
redrive_ids(const JobqSession *session, const JobqRedrive *what,
			const JobqIdList *list,
			bool (*one) (const JobqSession *, const JobqRedrive *, int64),
			int64 max)
{
	int64		count = 0;

	for (int i = 0; i < list->n && count < max; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (one(session, what, list->ids[i]))
			count++;
	}
	return count;
}

int64
jobq_redrive(const JobqSession *session, const JobqRedrive *what)
{
	JobqIdList	dead = {0};
	JobqIdList	copies = {0};
	int64		count;

	jobq_xact_steered(session);
	/* all lists first: what is made now is not redriven once more */
	jobq_list_shelved(what->from->queue_id, SHELF_DEAD, &dead);
	jobq_list_belt(session, what->from->queue_id, true, false, true, &copies);
	jobq_list_shelved(what->from->queue_id, SHELF_SCHEDULED, &copies);
	jobq_list_shelved(what->from->queue_id, SHELF_RETRYABLE, &copies);
	count = redrive_ids(session, what, &dead, redrive_dead, what->max);
	return count + redrive_ids(session, what, &copies, redrive_copy,
							   what->max - count);
}
