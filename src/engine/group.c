/*
 * group.c: the keeper loads what memory must know of a queue's groups before
 * anything of it is delivered: what alter_group() says, and jobs that have been
 * started and keep their places while they wait for another attempt, on the
 * shelf or the belt. Reads tables, writes shared memory only.
 *
 * Each such job is first entered and then looked up again: whoever takes it elsewhere
 * from then on finds it in memory.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "engine/belts.h"
#include "engine/keeperxact.h"
#include "engine/place.h"
#include "engine/refill.h"
#include "engine/whereis.h"
#include "pause.h"
#include "store/order.h"

#define STARTED_ON_SHELF \
	"SELECT s.id FROM jobq.shelf s WHERE s.queue_id = $1" \
	" AND s.state IN ('s', 'r') AND s.attempts IS NOT NULL" \
	" AND s.group_key IS NOT NULL"

#define ALTERED \
	"SELECT g.group_key, g.running_limit, g.weight, g.rate_limit," \
	" g.rate_period, g.paused_until FROM jobq.queue_group g" \
	" WHERE g.queue_id = $1"

#define STARTED_ON_BELT \
	"SELECT j.id, j.ticket FROM jobq.job_%1$d j WHERE j.queue_id = $1" \
	" AND j.attempts IS NOT NULL AND j.group_key IS NOT NULL" \
	" AND NOT EXISTS (SELECT FROM jobq.outcome_%1$d o" \
	" WHERE o.ticket = j.ticket)"

typedef struct Load
{
	const JobqSession *session;
	JobqPart   *part;
	int32		queue_id;
	JobqBelts	belts;			/* of the epoch that is read */
	bool		again;			/* something has changed under our hands */
} Load;

static void
take_altered(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	JobqGroupKey key = jobq_group_of(jobq_row_value(tuple, desc, 1, NULL));
	JobqGroupRules rules;

	jobq_group_of_tuple(tuple, desc, 2, &rules);
	jobq_group_set_rules(load->session->db, load->session->gen, load->queue_id,
						 &key, &rules, false);
}

/* ---- on the shelf ---- */

/* One that has left it meanwhile may be where we have not seen it. */
static void
take_shelved(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	int64		id = DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL));
	JobqTicket	t;
	JobqRow		row;
	ItemPointerData none;

	CHECK_FOR_INTERRUPTS();
	ItemPointerSetInvalid(&none);
	if (!jobq_shelf_read(id, &row))
	{
		load->again = true;
		return;
	}
	jobq_ticket_of_row(&row, 0, &none, &t);
	t.ticket = 0;
	jobq_shelve(load->session->db, load->session->gen, &t);
	JOBQ_PAUSE("groups-before-look");
	if (jobq_shelf_read(id, &row))
		return;
	jobq_unshelve(load->session->db, load->session->gen, id);
	load->again = true;
}

/* ---- on the belt ---- */

static void
enter(Load *load, const JobqTicket *t)
{
	JobqSlotRef fresh;
	JobqProbe	probe;
	bool		ended = true;

	if (jobq_refill_put(load->part, load->session->gen, t, NULL, 1,
						&fresh) == 0)
	{
		load->again = true;
		return;
	}
	if (fresh.slot == JOBQ_NIL)
		return;
	HOLD_INTERRUPTS();
	PG_TRY();
	{
		jobq_probe_begin(&probe, load->belts.rel[BELT_OUTCOME]);
		ended = jobq_probe_ended(&probe, t->ticket);
		jobq_probe_end(&probe);
		RESUME_INTERRUPTS();
	}
	PG_FINALLY();
	{
		jobq_refill_link(load->part, load->session->gen, &fresh, &ended, 1);
	}
	PG_END_TRY();
	load->again |= ended;
}

static void
take_ticket(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	ItemPointerData tid;
	JobqTicket	t;
	JobqRow		row;

	CHECK_FOR_INTERRUPTS();
	ItemPointerSetInvalid(&tid);
	if (!jobq_belt_read_ticket(load->belts.rel[BELT_JOB], &tid,
							   DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL)),
							   DatumGetInt64(jobq_row_value(tuple, desc, 2, NULL)),
							   &row))
		return;
	jobq_ticket_of_row(&row, load->belts.epoch, &tid, &t);
	enter(load, &t);
}

static void
read_belts(Load *load, Oid *types, Datum *values)
{
	int32	   *epochs;
	int			nepochs = jobq_epoch_list_undrained(&epochs);

	for (int e = 0; e < nepochs; e++)
	{
		if (jobq_belts_read(&load->belts, epochs[e], BELT_JOB) == NULL ||
			jobq_belts_read(&load->belts, epochs[e], BELT_OUTCOME) == NULL)
			continue;
		jobq_keeper_query(psprintf(STARTED_ON_BELT, epochs[e]), 1, types,
						  values, take_ticket, load);
	}
	jobq_belts_close(&load->belts);
}

/* ---- both ---- */

/*
 * With a snapshot that is not older than the moment from which on publishers
 * bring in what keeps a place.
 */
static bool
read_all(Load *load, uint64 claimers)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(load->queue_id)};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		clear;

	JOBQ_PAUSE("groups-after-snapshot");
	clear = jobq_refill_is_clear(load->part, claimers);
	if (clear)
	{
		PushActiveSnapshot(snapshot);
		jobq_keeper_query(ALTERED, 1, types, values, take_altered, load);
		if (jobq_keeps_places(load->part))
		{
			jobq_keeper_query(STARTED_ON_SHELF, 1, types, values,
							  take_shelved, load);
			read_belts(load, types, values);
		}
		PopActiveSnapshot();
	}
	UnregisterSnapshot(snapshot);
	return clear && !load->again && !jobq_lacks_leases(load->session->db);
}

bool
jobq_load_groups(const JobqSession *session, JobqPart *part)
{
	Load		load = {.session = session,.part = part,
	.queue_id = part->queue_id};
	uint32		alters;
	uint64		claimers;
	bool		done;

	if (!jobq_keeper_begin(session->db->install))
		return false;
	done = jobq_groups_load_begin(part, session->gen, &alters, &claimers) &&
		read_all(&load, claimers) &&
		jobq_groups_load_end(part, session->gen, alters);
	jobq_keeper_commit();
	return done;
}
