/*
 * group.c: the keeper loads what memory must know of a queue's groups before
 * anything of it is delivered: what alter_group() says; jobs that keep their
 * places while they wait for another attempt, on the shelf or the belt;
 * deliveries that count for a rate limit. Writes shared memory only.
 *
 * Each such job is first entered and then looked up again: whoever takes it
 * elsewhere from then on finds it in memory.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "engine/belts.h"
#include "engine/keeperxact.h"
#include "engine/limit.h"
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

/* Only what has ended since then can have been delivered since then. */
#define DELIVERED \
	"SELECT j.group_key, o.claimed_at FROM jobq.outcome_%1$d o" \
	" JOIN jobq.job_%1$d j ON j.ticket = o.ticket WHERE o.queue_id = $1" \
	" AND o.finished_at >= $2 AND o.claimed_at >= $2" \
	" AND o.attempt_outcome IS NOT NULL AND j.group_key IS NOT NULL"

typedef struct Load
{
	const JobqSession *session;
	JobqPart   *part;
	int32		queue_id;
	int64		period;			/* the longest of a rate limit */
	JobqGroupTaken *taken;
	int			ntaken;
	int			taken_size;
	MemoryContext context;		/* of taken */
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
	load->period = Max(load->period, rules.rate_limit.period);
	while (!jobq_group_set_rules(load->session->db, load->session->gen,
								 load->queue_id, &key, &rules, false) &&
		   jobq_push_out(load->part, load->session->gen, NULL))
		CHECK_FOR_INTERRUPTS();
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
						&fresh, NULL) == 0)
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
	int64		id = DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL));
	int64		ticket = DatumGetInt64(jobq_row_value(tuple, desc, 2, NULL));
	JobqReader	reader = {0};
	ItemPointerData tid;
	JobqTicket	t;
	JobqRow		row;
	bool		found;

	CHECK_FOR_INTERRUPTS();
	ItemPointerSetInvalid(&tid);
	found = jobq_belt_read_ticket(load->belts.rel[BELT_JOB], &reader, &tid,
								  id, ticket, &row);
	jobq_reader_close(&reader);
	if (!found)
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

/* ---- deliveries, for the rate limits ---- */

static void
add_taken(Load *load, const JobqGroupKey *group, TimestampTz at)
{
	if (load->ntaken == load->taken_size)
	{
		load->taken_size = Max(64, load->taken_size * 2);
		load->taken = load->taken == NULL ?
			MemoryContextAllocHuge(load->context, sizeof(JobqGroupTaken) *
								   load->taken_size) :
			repalloc_huge(load->taken, sizeof(JobqGroupTaken) *
						  load->taken_size);
	}
	load->taken[load->ntaken].group = *group;
	load->taken[load->ntaken].at = at;
	load->ntaken++;
}

static void
take_delivered(HeapTuple tuple, TupleDesc desc, void *state)
{
	JobqGroupKey group = jobq_group_of(jobq_row_value(tuple, desc, 1, NULL));

	CHECK_FOR_INTERRUPTS();
	add_taken(state, &group,
			  DatumGetTimestampTz(jobq_row_value(tuple, desc, 2, NULL)));
}

/*
 * Before the snapshot that outcomes are read with: one that ends in between is
 * counted twice, which a rate can bear, and none is missed.
 */
static void
take_running(Load *load)
{
	int			n;
	JobqSlot   *slots = jobq_deliveries_under_way(load->session, load->part,
												  load->queue_id, &n);

	for (int i = 0; i < n; i++)
	{
		if (jobq_has_group(&slots[i].t.group))
			add_taken(load, &slots[i].t.group, slots[i].l.claimed_at);
	}
	if (slots != NULL)
		pfree(slots);
}

static int
compare_taken(const void *a, const void *b)
{
	TimestampTz x = ((const JobqGroupTaken *) a)->at;
	TimestampTz y = ((const JobqGroupTaken *) b)->at;

	return (x > y) - (x < y);
}

static bool
count_deliveries(Load *load)
{
	Oid			types[2] = {INT4OID, TIMESTAMPTZOID};
	TimestampTz since = jobq_now() - load->period;
	Datum		values[2] = {
		Int32GetDatum(load->queue_id),
		TimestampTzGetDatum(since)
	};
	JobqEpoch  *epochs;
	int			n = jobq_epoch_read(&epochs);
	int			old = 0;

	for (int e = 0; e < n; e++)
	{
		if ((epochs[e].drained_at != 0 &&
			 epochs[e].last_finished_at < since) ||
			jobq_belts_read(&load->belts, epochs[e].epoch, BELT_JOB) == NULL ||
			jobq_belts_read(&load->belts, epochs[e].epoch,
							BELT_OUTCOME) == NULL)
			continue;
		jobq_keeper_query(psprintf(DELIVERED, epochs[e].epoch), 2, types,
						  values, take_delivered, load);
	}
	jobq_belts_close(&load->belts);
	if (load->ntaken > 0)
		qsort(load->taken, load->ntaken, sizeof(JobqGroupTaken),
			  compare_taken);
	while (old < load->ntaken && load->taken[old].at < since)
		old++;
	return jobq_groups_count(load->part, load->session->gen,
							 load->taken + old, load->ntaken - old);
}

/* ---- all of it ---- */

/*
 * With a snapshot that is not older than the moment from which on publishers
 * bring in what keeps a place.
 */
static bool
read_all(Load *load, uint64 claimers, bool counting)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(load->queue_id)};
	Snapshot	snapshot;
	bool		clear;

	if (!counting)
		take_running(load);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
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
		if (!load->again && !counting && load->period > 0)
			clear = count_deliveries(load);
		PopActiveSnapshot();
	}
	UnregisterSnapshot(snapshot);
	return clear && !load->again && !jobq_lacks_leases(load->session->db);
}

bool
jobq_load_groups(const JobqSession *session, JobqPart *part)
{
	Load		load = {.session = session,.part = part,
	.queue_id = part->queue_id,.period = part->rules.group_rate_limit.period};
	uint32		alters;
	uint64		claimers;
	bool		counting;
	bool		done;

	if (!jobq_keeper_begin(session->db->install))
		return false;
	load.context = CurrentMemoryContext;
	done = jobq_groups_load_begin(part, session->gen, &alters, &claimers,
								  &counting) &&
		read_all(&load, claimers, counting) &&
		jobq_groups_load_end(part, session->gen, alters);
	jobq_keeper_commit();
	return done;
}
