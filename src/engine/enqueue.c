/*
 * enqueue.c: new jobs: numbers, belt or shelf, and what the transaction will
 * publish. Must not check arguments or privileges.
 */
#include "postgres.h"

#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "engine/belts.h"
#include "engine/place.h"
#include "engine/xact.h"
#include "errors.h"

#define ENQUEUE_CHUNK	1000

/* The dispatcher's view of a row that was written at tid. */
void
jobq_ticket_of_row(const JobqRow *row, int32 epoch, const ItemPointerData *tid,
				   JobqTicket *t)
{
	memset(t, 0, sizeof(*t));
	t->id = DatumGetInt64(row->values[JOB_ID]);
	t->ticket = DatumGetInt64(row->values[JOB_TICKET]);
	t->run_at = DatumGetTimestampTz(row->values[JOB_RUN_AT]);
	t->queue_id = DatumGetInt32(row->values[JOB_QUEUE_ID]);
	t->epoch = epoch;
	t->attempt = DatumGetInt32(row->values[JOB_ATTEMPT]);
	t->max_attempts = DatumGetInt32(row->values[JOB_MAX_ATTEMPTS]);
	t->priority = DatumGetInt16(row->values[JOB_PRIORITY]);
	t->tid = *tid;
	t->expires_at = row->nulls[JOB_EXPIRES_AT] ? DT_NOEND :
		DatumGetTimestampTz(row->values[JOB_EXPIRES_AT]);
}

/* All its columns up to the priority are fixed in length and never null. */
void
jobq_ticket_of_slot(TupleTableSlot *slot, int32 epoch, JobqTicket *t)
{
	JobqRow		row;

	slot_getsomeattrs(slot, JOB_EXPIRES_AT + 1);
	memcpy(row.values, slot->tts_values, sizeof(Datum) * (JOB_EXPIRES_AT + 1));
	memcpy(row.nulls, slot->tts_isnull, sizeof(bool) * (JOB_EXPIRES_AT + 1));
	jobq_ticket_of_row(&row, epoch, &slot->tts_tid, t);
}

void
jobq_give_ticket(const JobqSession *session, JobqRow *row)
{
	if (!row->nulls[JOB_TICKET])
		return;
	row->values[JOB_TICKET] = Int64GetDatum(jobq_take_number(session->db));
	row->nulls[JOB_TICKET] = false;
}

void
jobq_place_on_belt(const JobqSession *session, const JobqQueue *queue,
				   JobqRow *rows, int nrows)
{
	JobqBelts	belts = {0};
	int32		epoch = jobq_belts_current(session, &belts, queue->class_id);
	ItemPointerData *tids = palloc(sizeof(ItemPointerData) * nrows);

	if (nrows == 1)
		jobq_insert(belts.rel[BELT_JOB], rows->values, rows->nulls, tids);
	else
		jobq_insert_many(belts.rel[BELT_JOB], rows, nrows, tids);
	for (int i = 0; i < nrows; i++)
	{
		JobqTicket	t;

		jobq_ticket_of_row(&rows[i], epoch, &tids[i], &t);
		jobq_xact_publish(session, &t);
	}
	jobq_count_tickets(session->db, queue->class_id, nrows);
	jobq_belts_close(&belts);
	pfree(tids);
	jobq_notify(queue);
}

JobqCounter
jobq_shelf_counter(const JobqRow *row)
{
	return DatumGetChar(row->values[SHELF_STATE]) == SHELF_SCHEDULED ?
		COUNT_SCHEDULED : COUNT_RETRYABLE;
}

/*
 * A time beyond the end of time is none. (run_at may be anything a timestamp
 * can be.)
 */
void
jobq_set_default_expiry(const JobqQueue *queue, JobqRow *row)
{
	TimestampTz expires_at = DatumGetTimestampTz(row->values[JOB_RUN_AT]) +
		queue->ttl;

	row->nulls[JOB_EXPIRES_AT] = queue->ttl == 0 ||
		!IS_VALID_TIMESTAMP(expires_at);
	row->values[JOB_EXPIRES_AT] = TimestampTzGetDatum(expires_at);
}

/* One that expires before its time comes is due then, to be ended. */
void
jobq_place_on_shelf(const JobqSession *session, JobqRow *row, char state)
{
	int32		queue_id = DatumGetInt32(row->values[JOB_QUEUE_ID]);

	if (state != SHELF_DEAD && !row->nulls[JOB_EXPIRES_AT] &&
		DatumGetTimestampTz(row->values[JOB_EXPIRES_AT]) <
		DatumGetTimestampTz(row->values[JOB_RUN_AT]))
		row->values[JOB_RUN_AT] = row->values[JOB_EXPIRES_AT];

	row->values[SHELF_STATE] = CharGetDatum(state);
	row->nulls[SHELF_STATE] = false;
	if (state != SHELF_DEAD)
	{
		row->nulls[SHELF_DIED_AT] = true;
		row->nulls[SHELF_MOVED_TO] = true;
		row->nulls[SHELF_RERUN_AS] = true;
	}
	jobq_shelf_insert(row);
	if (state == SHELF_DEAD)
		return;
	jobq_xact_count(session, queue_id, jobq_shelf_counter(row), 1);
	jobq_xact_shelved(session, DatumGetTimestampTz(row->values[JOB_RUN_AT]));
}

/*
 * Keep drop_queue away until we have ended, and be sure that it has not been
 * there since the queue was looked up.
 */
static void
lock_queue(const JobqQueue *queue)
{
	JobqQueue	again;

	Oid			relid = jobq_table_oid(JOBQ_TABLE_QUEUE);

	if (!jobq_in_keeper)
		LockDatabaseObject(relid, queue->queue_id, 0, RowExclusiveLock);
	else if (!ConditionalLockDatabaseObject(relid, queue->queue_id, 0,
											RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("queue \"%s\" is being dropped", queue->name),
				 errhint("The keeper tries again by itself.")));
	if (!jobq_queue_by_id(queue->queue_id, &again))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_NO_QUEUE),
				 errmsg("queue \"%s\" does not exist", queue->name),
				 errdetail("It has just been dropped."),
				 errhint("Create it with jobq.create_queue().")));
}

void
jobq_lock_queue_for_drop(const JobqQueue *queue)
{
	LockDatabaseObject(jobq_table_oid(JOBQ_TABLE_QUEUE), queue->queue_id, 0,
					   AccessExclusiveLock);
}

static void
set_identity(JobqRow *row, const JobqQueue *queue, int64 id)
{
	row->values[JOB_TICKET] = Int64GetDatum(id);
	row->nulls[JOB_TICKET] = false;
	row->values[JOB_ID] = Int64GetDatum(id);
	row->nulls[JOB_ID] = false;
	row->values[JOB_QUEUE_ID] = Int32GetDatum(queue->queue_id);
	row->nulls[JOB_QUEUE_ID] = false;
}

int64
jobq_enqueue_row(const JobqSession *session, const JobqQueue *queue,
				 JobqRow *row, TimestampTz now)
{
	int64		id;

	lock_queue(queue);
	id = jobq_take_number(session->db);
	set_identity(row, queue, id);
	if (DatumGetTimestampTz(row->values[JOB_RUN_AT]) > now)
		jobq_place_on_shelf(session, row, SHELF_SCHEDULED);
	else
		jobq_place_on_belt(session, queue, row, 1);
	return id;
}

/* All rows have the same run_at. */
void
jobq_enqueue_rows(const JobqSession *session, const JobqQueue *queue,
				  JobqRow *rows, int nrows, TimestampTz now, int64 *ids)
{
	if (nrows == 0)
		return;
	lock_queue(queue);
	jobq_take_numbers(session->db, nrows, ids);
	for (int i = 0; i < nrows; i++)
		set_identity(&rows[i], queue, ids[i]);
	if (DatumGetTimestampTz(rows[0].values[JOB_RUN_AT]) > now)
	{
		for (int i = 0; i < nrows; i++)
			jobq_place_on_shelf(session, &rows[i], SHELF_SCHEDULED);
		return;
	}
	for (int i = 0; i < nrows; i += ENQUEUE_CHUNK)
		jobq_place_on_belt(session, queue, &rows[i],
						   Min(ENQUEUE_CHUNK, nrows - i));
}
