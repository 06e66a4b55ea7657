/*
 * reseal.c: brings the waiting jobs of a queue to the present version of its
 * sealing key: a move for those on the belt, in place on the shelf. Leaves jobs
 * alone that run or have ended.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "engine/hold.h"
#include "engine/move.h"
#include "engine/place.h"
#include "engine/whereis.h"
#include "engine/xact.h"
#include "security/seal.h"

/*
 * A look without a mark: most jobs need nothing, and for those that cannot be
 * opened nothing can be done.
 */
static bool
wants_it(const JobqQueue *queue, int64 id)
{
	JobqWhere	where;

	return jobq_newest(id, &where) &&
		!jobq_is_sealed_with(&where.row, queue->seal) &&
		jobq_can_unseal(&where.row);
}

static void
seal_anew(const JobqQueue *queue, int64 id, JobqRow *row)
{
	jobq_seal_for(row, queue->seal, queue->queue_id, id);
}

static bool
reseal_held(const JobqSession *session, const JobqQueue *queue,
			JobqHeld *held)
{
	JobqRow		row;

	jobq_read_held(held, &row);
	if (jobq_is_sealed_with(&row, queue->seal))
	{
		jobq_let_go(session, held);
		return false;
	}
	seal_anew(queue, held->t.id, &row);
	jobq_move_as(session, held, queue, &row, "resealed");
	return true;
}

static bool
reseal_shelved(const JobqSession *session, const JobqQueue *queue, int64 id,
			   JobqRow *row)
{
	bool		wanted = !jobq_is_sealed_with(row, queue->seal);

	if (wanted)
		seal_anew(queue, id, row);
	jobq_xact_count(session, queue->queue_id, jobq_shelf_counter(row), -1);
	jobq_place_on_shelf(session, row,
						DatumGetChar(row->values[SHELF_STATE]));
	return wanted;
}

static bool
reseal_one(const JobqSession *session, const JobqQueue *queue, int64 id)
{
	JobqHeld	held;
	JobqRow		row;

	if (!wants_it(queue, id))
		return false;
	switch (jobq_take_waiting(session, id, &held, &row))
	{
		case WAITING_HELD:
			return reseal_held(session, queue, &held);
		case WAITING_SHELVED:
			return reseal_shelved(session, queue, id, &row);
		case WAITING_NOT_RUNS:
		case WAITING_NOT_FINAL:
		case WAITING_NO_JOB:
			break;
	}
	return false;
}

int64
jobq_reseal(const JobqSession *session, const JobqQueue *queue)
{
	JobqIdList	list = {0};
	int64		count = 0;

	jobq_xact_steered(session);
	jobq_lock_queue(queue);
	jobq_list_shelved(queue->queue_id, SHELF_SCHEDULED, &list);
	jobq_list_shelved(queue->queue_id, SHELF_RETRYABLE, &list);
	jobq_list_belt(session, queue->queue_id, true, false, true, &list);
	for (int i = 0; i < list.n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (reseal_one(session, queue, list.ids[i]))
			count++;
	}
	return count;
}
