/*
 * keychange.c: changing the job that holds a unique key, wherever it waits,
 * and ending one that has not started in time. Must not ask whether the caller
 * may.
 */
#include "postgres.h"

#include "engine/hold.h"
#include "engine/move.h"
#include "engine/place.h"
#include "engine/unique.h"
#include "engine/xact.h"
#include "security/seal.h"

/*
 * The new job's payload and options for the old one, which stays whose it was.
 * Attempts are never forgotten, but those to come are all the new job's.
 */
static void
swap(const JobqQueue *queue, const JobqRow *new, const JobqUnique *unique,
	 JobqRow *row)
{
	static const JobqJobAttr swapped[] = {
		JOB_PRIORITY, JOB_KIND, JOB_GROUP_KEY, JOB_EXPIRES_AT, JOB_HEADERS,
		JOB_PAYLOAD, JOB_SEALED
	};
	int32		attempts = DatumGetInt32(row->values[JOB_ATTEMPT]);

	for (size_t i = 0; i < lengthof(swapped); i++)
	{
		row->values[swapped[i]] = new->values[swapped[i]];
		row->nulls[swapped[i]] = new->nulls[swapped[i]];
	}
	if (queue->seal[0] != '\0')
		jobq_seal(queue->seal, row);
	row->nulls[JOB_PROGRESS] = true;
	row->values[JOB_MAX_ATTEMPTS] =
		Int32GetDatum(attempts + DatumGetInt32(new->values[JOB_MAX_ATTEMPTS]));
	if (unique->default_expiry)
		jobq_set_default_expiry(queue, row);
}

/*
 * When the changed job is to run. One that is due keeps its place, unless it
 * is pushed into the future.
 */
static TimestampTz
changed_run_at(const JobqRow *old, const JobqRow *new,
			   const JobqUnique *unique)
{
	TimestampTz old_run_at = DatumGetTimestampTz(old->values[JOB_RUN_AT]);
	TimestampTz run_at = DatumGetTimestampTz(new->values[JOB_RUN_AT]);
	TimestampTz now = jobq_now();

	if (unique->on_conflict != JOBQ_ON_CONFLICT_DEBOUNCE &&
		!unique->set_run_at)
		return old_run_at;
	if (unique->on_conflict == JOBQ_ON_CONFLICT_DEBOUNCE &&
		unique->debounce_max != JOBQ_NEVER)
		run_at = Min(run_at,
					 DatumGetTimestampTz(old->values[JOB_ENQUEUED_AT]) +
					 unique->debounce_max);
	return run_at > now ? run_at : Min(old_run_at, now);
}

static void
change_row(const JobqQueue *queue, const JobqRow *new,
		   const JobqUnique *unique, JobqRow *row)
{
	row->values[JOB_RUN_AT] =
		TimestampTzGetDatum(changed_run_at(row, new, unique));
	swap(queue, new, unique, row);
}

static bool
row_has_expired(const JobqRow *row)
{
	return !row->nulls[JOB_EXPIRES_AT] &&
		DatumGetTimestampTz(row->values[JOB_EXPIRES_AT]) <= jobq_now();
}

static void
change_held(const JobqSession *session, const JobqQueue *queue,
			JobqHeld *held, const JobqRow *new, const JobqUnique *unique)
{
	JobqRow		row;

	jobq_read_held(held, &row);
	change_row(queue, new, unique, &row);
	jobq_move_as(session, held, queue, &row,
				 unique->on_conflict == JOBQ_ON_CONFLICT_REPLACE ?
				 "replaced" : "debounced");
}

static void
change_shelved(const JobqSession *session, const JobqQueue *queue,
			   JobqRow *row, const JobqRow *new, const JobqUnique *unique)
{
	jobq_left_shelf(session, row);
	change_row(queue, new, unique, row);
	if (DatumGetTimestampTz(row->values[JOB_RUN_AT]) > jobq_now())
	{
		jobq_place_on_shelf(session, row,
							DatumGetChar(row->values[SHELF_STATE]));
		return;
	}
	jobq_give_ticket(session, row);
	jobq_place_on_belt(session, queue, row, 1);
}

typedef enum Take
{
	TAKE_HELD,
	TAKE_SHELVED,
	TAKE_NOT					/* it does not wait any more: look again */
} Take;

/* Take a waiting job in hand; one that has not started in time ends. */
static Take
take_or_expire(const JobqSession *session, const JobqQueue *queue, int64 id,
			   JobqHeld *held, JobqRow *row)
{
	switch (jobq_take_waiting(session, id, held, row))
	{
		case WAITING_HELD:
			if (held->t.expires_at > jobq_now())
				return TAKE_HELD;
			jobq_expire_held(session, held, queue);
			break;
		case WAITING_SHELVED:
			jobq_xact_count(session, queue->queue_id, jobq_shelf_counter(row),
							-1);
			if (!row_has_expired(row))
				return TAKE_SHELVED;
			jobq_expire_shelved(session, row, queue);
			break;
		case WAITING_NOT_RUNS:
		case WAITING_NOT_FINAL:
		case WAITING_NO_JOB:
			break;
	}
	return TAKE_NOT;
}

/* False: look again. */
bool
jobq_key_change_holder(const JobqSession *session, const JobqQueue *queue,
					   int64 id, const JobqRow *new, const JobqUnique *unique)
{
	JobqHeld	held;
	JobqRow		row;

	switch (take_or_expire(session, queue, id, &held, &row))
	{
		case TAKE_HELD:
			change_held(session, queue, &held, new, unique);
			return true;
		case TAKE_SHELVED:
			change_shelved(session, queue, &row, new, unique);
			return true;
		case TAKE_NOT:
			break;
	}
	return false;
}

/* Where it has not expired after all, it goes on as it was. */
void
jobq_key_expire_holder(const JobqSession *session, const JobqQueue *queue,
					   int64 id)
{
	JobqHeld	held;
	JobqRow		row;

	switch (take_or_expire(session, queue, id, &held, &row))
	{
		case TAKE_HELD:
			jobq_read_held(&held, &row);
			jobq_move_as(session, &held, queue, &row, NULL);
			break;
		case TAKE_SHELVED:
			jobq_place_on_shelf(session, &row,
								DatumGetChar(row.values[SHELF_STATE]));
			break;
		case TAKE_NOT:
			break;
	}
}
