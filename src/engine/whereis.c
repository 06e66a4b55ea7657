/*
 * whereis.c: finding jobs in the tables, for steering: one job by id, all
 * live ones of a queue. Reads only.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "engine/belts.h"
#include "engine/own.h"
#include "engine/place.h"
#include "engine/whereis.h"
#include "security/security.h"

static void
take_newest_ticket(Relation job, Relation outcome, int32 epoch, int64 id,
				   JobqWhere *where)
{
	JobqRow    *rows;
	int			n = jobq_belt_read_id(job, id, &rows);
	ItemPointerData none;

	if (n == 0 ||
		DatumGetInt64(rows[n - 1].values[JOB_TICKET]) <= where->t.ticket)
		return;
	ItemPointerSetInvalid(&none);
	where->row = rows[n - 1];
	jobq_ticket_of_row(&where->row, epoch, &none, &where->t);
	where->has_outcome = outcome == NULL ||
		jobq_belt_read_outcome(outcome, where->t.ticket, &where->outcome);
}

static bool
look_for_newest(int64 id, JobqWhere *where)
{
	int32	   *epochs;
	int			nepochs;
	JobqBelts	belts = {0};

	memset(where, 0, sizeof(*where));
	if (jobq_shelf_read(id, &where->row))
	{
		where->on_shelf = true;
		return true;
	}
	nepochs = jobq_epoch_list(&epochs);
	for (int e = 0; e < nepochs; e++)
	{
		Relation	job = jobq_belts_read(&belts, epochs[e], BELT_JOB);

		if (job != NULL)
			take_newest_ticket(job,
							   jobq_belts_read(&belts, epochs[e], BELT_OUTCOME),
							   epochs[e], id, where);
	}
	jobq_belts_close(&belts);
	return where->t.ticket != 0;
}

static bool
was_moved(const JobqWhere *where)
{
	return !where->on_shelf && where->has_outcome &&
		DatumGetChar(where->outcome.values[OUT_ENDED]) == ENDED_MOVED;
}

/*
 * A job that has left its newest ticket may be on its way, between what we
 * have read and what was still to be read. If it is not found at another place
 * a second time, that place is gone, with its epoch, and the job with it.
 */
bool
jobq_newest(int64 id, JobqWhere *where)
{
	int64		moved = 0;

	for (;;)
	{
		if (!look_for_newest(id, where))
			return false;
		if (!was_moved(where))
			return true;
		if (where->t.ticket == moved)
			return false;
		moved = where->t.ticket;
		CHECK_FOR_INTERRUPTS();
	}
}

typedef struct ClaimSearch
{
	int64		ticket;
	bool		found;
} ClaimSearch;

static void
search_claim(TupleTableSlot *slot, void *state)
{
	ClaimSearch *search = state;
	int64	   *tickets;
	int			n;

	slot_getallattrs(slot);
	n = jobq_tickets_unpack(DatumGetByteaPP(slot->tts_values[CLAIM_TICKETS]),
							&tickets);
	for (int i = 0; i < n && !search->found; i++)
		search->found = tickets[i] == search->ticket;
	pfree(tickets);
}

bool
jobq_is_claimed_on_disk(const JobqTicket *t)
{
	JobqBelts	belts = {0};
	Relation	claim = jobq_belts_read(&belts, t->epoch, BELT_CLAIM);
	ClaimSearch search = {.ticket = t->ticket};
	BlockNumber next = 0;
	bool		more = claim != NULL;

	while (more && !search.found)
		more = jobq_belt_walk_block(claim, &next, search_claim, &search);
	jobq_belts_close(&belts);
	return search.found;
}

JobqWhereResult
jobq_where_is(const JobqSession *session, int64 id, JobqWhere *where)
{
	if (!jobq_newest(id, where))
		return WHERE_NOWHERE;
	if (where->on_shelf)
		return DatumGetChar(where->row.values[SHELF_STATE]) == SHELF_DEAD ?
			WHERE_FINAL : WHERE_ELSEWHERE;
	if (where->has_outcome)
		return DatumGetChar(where->outcome.values[OUT_ENDED]) == ENDED_MOVED ?
			WHERE_ELSEWHERE : WHERE_FINAL;
	return jobq_lacks_leases(session->db) ? WHERE_ELSEWHERE : WHERE_SPILLED;
}

bool
jobq_job_owner(const JobqSession *session, int64 id, int32 *queue_id,
			   Oid *enqueued_by)
{
	JobqWhere	where;

	if (!jobq_newest(id, &where))
		return false;
	*queue_id = DatumGetInt32(where.row.values[JOB_QUEUE_ID]);
	*enqueued_by = DatumGetObjectId(where.row.values[JOB_ENQUEUED_BY]);
	return true;
}

bool
jobq_is_uncommitted(int64 id)
{
	JobqWhere	where;
	JobqBelts	belts = {0};
	Relation	job;
	bool		own;

	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		!jobq_newest(id, &where))
		return false;
	if (where.on_shelf)
		return jobq_shelf_is_own(id);
	job = jobq_belts_read(&belts, where.t.epoch, BELT_JOB);
	own = job != NULL && jobq_belt_is_own(job, id, where.t.ticket);
	jobq_belts_close(&belts);
	return own;
}

/* ---- lists ---- */

static void
add_id(JobqIdList *list, int64 id)
{
	if (list->n == list->size)
	{
		list->size = Max(64, list->size * 2);
		list->ids = list->ids == NULL ?
			palloc(sizeof(int64) * list->size) :
			repalloc_huge(list->ids, sizeof(int64) * list->size);
	}
	list->ids[list->n++] = id;
}

/*
 * Run a query that gives ids, as the extension's owner, with a snapshot of
 * this moment whatever the caller's isolation level.
 */
static void
query_ids(const char *query, int32 queue_id, char state, JobqIdList *list)
{
	JobqOwnerContext owner;
	Oid			types[2] = {INT4OID, CHAROID};
	Datum		values[2] = {Int32GetDatum(queue_id), CharGetDatum(state)};
	MemoryContext caller = CurrentMemoryContext;
	SPIPlanPtr	plan;
	Portal		portal;

	PushActiveSnapshot(GetLatestSnapshot());
	jobq_connect_as_owner(&owner);
	plan = SPI_prepare(query, 2, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, values, NULL, true);
	for (;;)
	{
		MemoryContext spi;

		SPI_cursor_fetch(portal, true, 1000);
		if (SPI_processed == 0)
			break;
		spi = MemoryContextSwitchTo(caller);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool		null;

			add_id(list,
				   DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
											   SPI_tuptable->tupdesc, 1,
											   &null)));
		}
		MemoryContextSwitchTo(spi);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	jobq_disconnect(&owner);
	PopActiveSnapshot();
}

void
jobq_list_shelved(int32 queue_id, char state, JobqIdList *list)
{
	query_ids("SELECT s.id FROM jobq.shelf s"
			  " WHERE s.queue_id OPERATOR(pg_catalog.=) $1"
			  " AND s.state OPERATOR(pg_catalog.=) $2"
			  " ORDER BY s.run_at, s.died_at, s.id",
			  queue_id, state, list);
}

void
jobq_list_belt(const JobqSession *session, int32 queue_id, bool available,
			   bool running, bool rolled_back, JobqIdList *list)
{
	int32	   *epochs;
	int			nepochs = jobq_epoch_list(&epochs);
	JobqBelts	belts = {0};

	for (int e = 0; e < nepochs; e++)
	{
		JobqIdList	live = {0};
		char	   *query;

		if (jobq_belts_read(&belts, epochs[e], BELT_JOB) == NULL ||
			jobq_belts_read(&belts, epochs[e], BELT_OUTCOME) == NULL)
			continue;
		query = psprintf("SELECT j.id FROM jobq.job_%d j"
						 " WHERE j.queue_id OPERATOR(pg_catalog.=) $1"
						 " AND $2 OPERATOR(pg_catalog.=) $2"
						 " AND NOT EXISTS (SELECT 1 FROM jobq.outcome_%d o"
						 " WHERE o.ticket OPERATOR(pg_catalog.=) j.ticket)"
						 " ORDER BY j.priority, j.run_at, j.id",
						 epochs[e], epochs[e]);
		query_ids(query, queue_id, SHELF_SCHEDULED, &live);
		for (int i = 0; i < live.n; i++)
		{
			JobqSlot	slot;
			int			own = jobq_own_find(live.ids[i]);
			bool		wanted = available;

			if (own >= 0)
				wanted = jobq_own(own)->state == OWN_RUNNING ? running : available;
			else if (jobq_find(session->db, session->gen, live.ids[i], &slot))
			{
				if (slot.state == SLOT_RUNNING)
					wanted = running;
				else if (slot.state == SLOT_ROLLED_BACK)
					wanted = rolled_back;
				else if (slot.state == SLOT_GRACE)
					wanted = false;
			}
			if (wanted)
				add_id(list, live.ids[i]);
		}
		if (live.ids != NULL)
			pfree(live.ids);
	}
	jobq_belts_close(&belts);
}
