/*
 * enqueue.c: new jobs: numbers, belt or shelf, and what the transaction will
 * publish. Must not check arguments or privileges.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "engine/belts.h"
#include "engine/hold.h"
#include "engine/own.h"
#include "engine/place.h"
#include "engine/xact.h"
#include "errors.h"
#include "security/seal.h"

#define ENQUEUE_CHUNK	1000

JobqGroupKey
jobq_group_of(Datum group_key)
{
	text	   *key = DatumGetTextPP(group_key);

	return jobq_group_key(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

/*
 * The dispatcher's view of a row that was written at tid, or is on the shelf,
 * without a ticket.
 */
void
jobq_ticket_of_row(const JobqRow *row, int32 epoch, const ItemPointerData *tid,
				   JobqTicket *t)
{
	memset(t, 0, sizeof(*t));
	t->id = DatumGetInt64(row->values[JOB_ID]);
	t->ticket = row->nulls[JOB_TICKET] ? 0 :
		DatumGetInt64(row->values[JOB_TICKET]);
	t->run_at = DatumGetTimestampTz(row->values[JOB_RUN_AT]);
	t->queue_id = DatumGetInt32(row->values[JOB_QUEUE_ID]);
	t->epoch = epoch;
	t->attempt = DatumGetInt32(row->values[JOB_ATTEMPT]);
	t->max_attempts = DatumGetInt32(row->values[JOB_MAX_ATTEMPTS]);
	t->priority = DatumGetInt16(row->values[JOB_PRIORITY]);
	t->tid = *tid;
	t->expires_at = row->nulls[JOB_EXPIRES_AT] ? DT_NOEND :
		DatumGetTimestampTz(row->values[JOB_EXPIRES_AT]);
	t->started = !row->nulls[JOB_ATTEMPTS];
	if (!row->nulls[JOB_GROUP_KEY])
		t->group = jobq_group_of(row->values[JOB_GROUP_KEY]);
}

void
jobq_ticket_of_slot(TupleTableSlot *slot, int32 epoch, JobqTicket *t)
{
	JobqRow		row;

	slot_getsomeattrs(slot, JOB_ATTEMPTS + 1);
	memcpy(row.values, slot->tts_values, sizeof(Datum) * (JOB_ATTEMPTS + 1));
	memcpy(row.nulls, slot->tts_isnull, sizeof(bool) * (JOB_ATTEMPTS + 1));
	jobq_belt_fill_in(&row);
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

static void
place_on_belt(const JobqSession *session, const JobqQueue *queue,
			  JobqRow *rows, int nrows, bool are_new)
{
	JobqBelts	belts = {0};
	int32		epoch = jobq_belts_current(session, &belts, queue->class_id);
	ItemPointerData *tids = palloc(sizeof(ItemPointerData) * nrows);

	jobq_belt_insert_jobs(belts.rel[BELT_JOB], rows, nrows, tids);
	for (int i = 0; i < nrows; i++)
	{
		JobqTicket	t;

		jobq_ticket_of_row(&rows[i], epoch, &tids[i], &t);
		jobq_own_add(session, queue, &t, are_new);
	}
	jobq_count_tickets(session->db, queue->class_id, nrows);
	jobq_belts_close(&belts);
	pfree(tids);
	jobq_notify(queue);
}

void
jobq_place_on_belt(const JobqSession *session, const JobqQueue *queue,
				   JobqRow *rows, int nrows)
{
	place_on_belt(session, queue, rows, nrows, false);
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

static bool
may_keep_place(const JobqRow *row)
{
	return !row->nulls[JOB_ATTEMPTS] && !row->nulls[JOB_GROUP_KEY];
}

void
jobq_left_shelf(const JobqSession *session, const JobqRow *row)
{
	int64		id = DatumGetInt64(row->values[JOB_ID]);
	bool		started = !row->nulls[JOB_ATTEMPTS];

	/* the keeper has taken none of those */
	while (started && !jobq_in_keeper && jobq_is_late(id))
		(void) jobq_wait_a_moment(DT_NOEND);
	if (may_keep_place(row))
		jobq_xact_off_shelf(session, id);
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
	if (may_keep_place(row))
	{
		ItemPointerData none;
		JobqTicket	t;

		ItemPointerSetInvalid(&none);
		jobq_ticket_of_row(row, 0, &none, &t);
		t.ticket = 0;
		jobq_xact_keeps_place(session, &t);
	}
	jobq_xact_count(session, queue_id, jobq_shelf_counter(row), 1);
	jobq_xact_shelved(session, DatumGetTimestampTz(row->values[JOB_RUN_AT]));
}

/* Be sure that drop_queue has not been there since it was looked up. */
void
jobq_lock_queue(const JobqQueue *queue)
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

/* Whoever works on its jobs may add to them. */
void
jobq_refuse_draining(const JobqSession *session, const JobqQueue *queue)
{
	if (!queue->draining || jobq_xact_worked_for(queue->queue_id) ||
		jobq_holds_lease(session->db, session->gen, queue->queue_id,
						 jobq_my_procno(), MyStartTimestamp))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_DRAINING),
			 errmsg("queue \"%s\" is draining", queue->name),
			 errdetail("It takes new jobs only from sessions that hold a lease of one of its jobs, and in transactions that settle one."),
			 errhint("Enqueue into another queue, or let its owner call jobq.resume_queue().")));
}

/* A row that repeats a sealed job still has that one's id and queue. */
static void
set_identity(JobqRow *row, const JobqQueue *queue, int64 id)
{
	if (queue->seal[0] != '\0' || jobq_is_sealed(row))
		jobq_seal_for(row, queue->seal, queue->queue_id, id);
	row->values[JOB_TICKET] = Int64GetDatum(id);
	row->nulls[JOB_TICKET] = false;
	row->values[JOB_ID] = Int64GetDatum(id);
	row->nulls[JOB_ID] = false;
	row->values[JOB_QUEUE_ID] = Int32GetDatum(queue->queue_id);
	row->nulls[JOB_QUEUE_ID] = false;
}

/* New jobs of one queue that have their ids; rows is used up. */
static void
place_rows(const JobqSession *session, const JobqQueue *queue, JobqRow *rows,
		   int nrows, TimestampTz now)
{
	int			nbelt = 0;

	for (int i = 0; i < nrows; i++)
	{
		if (DatumGetTimestampTz(rows[i].values[JOB_RUN_AT]) > now)
			jobq_place_on_shelf(session, &rows[i], SHELF_SCHEDULED);
		else
			rows[nbelt++] = rows[i];
	}
	for (int i = 0; i < nbelt; i += ENQUEUE_CHUNK)
		place_on_belt(session, queue, &rows[i], Min(ENQUEUE_CHUNK, nbelt - i),
					  true);
	if (nbelt < nrows)
		jobq_xact_count(session, queue->queue_id, COUNT_ENQUEUED,
						nrows - nbelt);
}

void
jobq_place_new(const JobqSession *session, const JobqQueue *queue,
			   JobqRow *row, int64 id, TimestampTz now)
{
	set_identity(row, queue, id);
	place_rows(session, queue, row, 1, now);
}

int64
jobq_enqueue_row(const JobqSession *session, const JobqQueue *queue,
				 JobqRow *row, TimestampTz now)
{
	int64		id;

	jobq_lock_queue(queue);
	id = jobq_take_number(session->db);
	jobq_place_new(session, queue, row, id, now);
	return id;
}

void
jobq_enqueue_rows(const JobqSession *session, const JobqQueue *queue,
				  JobqRow *rows, int nrows, TimestampTz now, int64 *ids)
{
	if (nrows == 0)
		return;
	jobq_lock_queue(queue);
	jobq_take_numbers(session->db, nrows, ids);
	for (int i = 0; i < nrows; i++)
		set_identity(&rows[i], queue, ids[i]);
	place_rows(session, queue, rows, nrows, now);
}

static int
compare_new(const void *a, const void *b)
{
	const JobqNewJob *x = *(const JobqNewJob *const *) a;
	const JobqNewJob *y = *(const JobqNewJob *const *) b;

	if (x->queue->queue_id != y->queue->queue_id)
		return x->queue->queue_id < y->queue->queue_id ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* Queue by queue, in the order in which everybody locks them. */
static void
enqueue_plain(const JobqSession *session, JobqNewJob **jobs, int njobs,
			  TimestampTz now)
{
	JobqRow    *rows = palloc_extended(sizeof(JobqRow) * njobs,
									   MCXT_ALLOC_HUGE);
	int			to;

	for (int i = 0; i < njobs; i++)
	{
		jobs[i]->outcome = JOBQ_INSERTED;
		set_identity(&jobs[i]->row, jobs[i]->queue, jobs[i]->id);
	}
	qsort(jobs, njobs, sizeof(JobqNewJob *), compare_new);
	for (int from = 0; from < njobs; from = to)
	{
		const JobqQueue *queue = jobs[from]->queue;

		for (to = from; to < njobs && jobs[to]->queue == queue; to++)
			rows[to - from] = jobs[to]->row;
		jobq_lock_queue(queue);
		jobq_admit(session, queue, rows, to - from);
		place_rows(session, queue, rows, to - from, now);
	}
	pfree(rows);
}

/* Keys are taken in the order of queue and key, as by everybody. */
static int
compare_keyed(const void *a, const void *b)
{
	const JobqNewJob *x = *(JobqNewJob *const *) a;
	const JobqNewJob *y = *(JobqNewJob *const *) b;
	text	   *x_key = DatumGetTextPP(x->row.values[JOB_UNIQUE_KEY]);
	text	   *y_key = DatumGetTextPP(y->row.values[JOB_UNIQUE_KEY]);
	size_t		x_len = VARSIZE_ANY_EXHDR(x_key);
	size_t		y_len = VARSIZE_ANY_EXHDR(y_key);
	int			order;

	if (x->queue->queue_id != y->queue->queue_id)
		return x->queue->queue_id < y->queue->queue_id ? -1 : 1;
	order = memcmp(VARDATA_ANY(x_key), VARDATA_ANY(y_key), Min(x_len, y_len));
	if (order != 0)
		return order;
	if (x_len != y_len)
		return x_len < y_len ? -1 : 1;
	return x < y ? -1 : x > y;
}

static void
enqueue_keyed(const JobqSession *session, JobqNewJob **jobs, int njobs,
			  TimestampTz now)
{
	qsort(jobs, njobs, sizeof(JobqNewJob *), compare_keyed);
	for (int i = 0; i < njobs; i++)
		jobs[i]->id = jobq_enqueue_unique(session, jobs[i]->queue,
										  &jobs[i]->row, jobs[i]->id, now,
										  jobs[i]->unique, &jobs[i]->outcome);
}

void
jobq_enqueue_mixed(const JobqSession *session, JobqNewJob *jobs, int njobs,
				   TimestampTz now)
{
	JobqNewJob **plain = palloc_extended(sizeof(JobqNewJob *) * njobs,
										 MCXT_ALLOC_HUGE);
	JobqNewJob **keyed = palloc_extended(sizeof(JobqNewJob *) * njobs,
										 MCXT_ALLOC_HUGE);
	int64	   *ids = palloc_extended(sizeof(int64) * njobs, MCXT_ALLOC_HUGE);
	int			nplain = 0;
	int			nkeyed = 0;

	jobq_take_numbers(session->db, njobs, ids);
	for (int i = 0; i < njobs; i++)
	{
		jobs[i].id = ids[i];
		if (jobs[i].unique == NULL)
			plain[nplain++] = &jobs[i];
		else
			keyed[nkeyed++] = &jobs[i];
	}
	if (nplain > 0)
		enqueue_plain(session, plain, nplain, now);
	enqueue_keyed(session, keyed, nkeyed, now);
	pfree(ids);
	pfree(plain);
	pfree(keyed);
}
