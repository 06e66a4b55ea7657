/*
 * limitload.c: what limits on deliveries must know of the time before a keeper
 * started: deliveries and failures from outcomes, places that cancelled jobs
 * hold. Reads tables, writes shared memory only.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "engine/belts.h"
#include "engine/keeperxact.h"
#include "engine/limit.h"
#include "engine/place.h"

/* Grace is looked for in epochs that have drained since. */
#define LOOK_BACK		USECS_PER_HOUR

typedef struct Times
{
	TimestampTz *at;
	int			n;
	int			size;
} Times;

/* A claim of a probe, in the epoch that is being looked at. */
typedef struct ProbeClaim
{
	int64		ticket;
	TimestampTz claimed_at;
} ProbeClaim;

/* A queue with limits. */
typedef struct Limited
{
	JobqQueue	queue;
	JobqPart   *part;
	Times		taken;
	JobqFailure *failures;
	int			nfailures;
	int			failures_size;
	JobqProbeEnd	probe;
} Limited;

typedef struct Load
{
	const JobqSession *session;
	TimestampTz now;
	Limited    *limited;
	int			nlimited;
	int32		epoch;			/* that is being looked at */
	List	   *probes;			/* ProbeClaim, of this epoch */
	MemoryContext context;		/* of all this */
	JobqRowHandler handler;		/* of the present query */
} Load;

typedef bool (*HasLimit) (const JobqQueue *queue);

/* ---- which queues, and how far back ---- */

static bool
limits_delivery(const JobqQueue *queue)
{
	return queue->rules.rate_limit.limit > 0 ||
		queue->rules.breaker.failures > 0;
}

static bool
limits_places(const JobqQueue *queue)
{
	return queue->rules.max_active > 0 || queue->rules.group_limit > 0 ||
		queue->rules.altered_groups;
}

static bool
has_breaker(const JobqQueue *queue)
{
	return queue->rules.breaker.failures > 0;
}

int64
jobq_limits_period(const JobqQueue *queue)
{
	const JobqRules *rules = &queue->rules;
	int64		period = rules->rate_limit.period;

	period = Max(period, rules->group_rate_limit.period);
	period = Max(period, rules->breaker.window + rules->breaker.open);
	return Max(period, queue->enqueue_limit.rate.period);
}

static Limited *
find_limited(Load *load, int32 queue_id)
{
	for (int i = 0; i < load->nlimited; i++)
	{
		if (load->limited[i].queue.queue_id == queue_id)
			return &load->limited[i];
	}
	return NULL;
}

static void
find_queues(Load *load)
{
	JobqQueue  *queues;
	int			n = jobq_queue_list(&queues);

	load->limited = palloc0(sizeof(Limited) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		Limited    *limited = &load->limited[load->nlimited];

		limited->queue = queues[i];
		if (!limits_delivery(&queues[i]) && !limits_places(&queues[i]))
			continue;
		limited->part = jobq_part_get(load->session->db, load->session->gen,
									  queues[i].queue_id);
		if (limited->part != NULL)
			load->nlimited++;
	}
	pfree(queues);
}

/* The numbers of the queues, as an array; NULL Datum when there are none. */
static Datum
queue_ids(const Load *load, HasLimit has)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(load->nlimited, 1));
	int			n = 0;

	for (int i = 0; i < load->nlimited; i++)
	{
		if (has(&load->limited[i].queue))
			ids[n++] = Int32GetDatum(load->limited[i].queue.queue_id);
	}
	if (n == 0)
		return (Datum) 0;
	return PointerGetDatum(construct_array(ids, n, INT4OID, sizeof(int32),
										   true, TYPALIGN_INT));
}

static int64
longest_period(const Load *load)
{
	int64		longest = 0;

	for (int i = 0; i < load->nlimited; i++)
		longest = Max(longest, jobq_limits_period(&load->limited[i].queue));
	return longest;
}

/* What a row leaves behind outlives the query. */
static void
take_row(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	MemoryContext old = MemoryContextSwitchTo(load->context);

	load->handler(tuple, desc, load);
	MemoryContextSwitchTo(old);
}

static void
run_query(Load *load, const char *text, int nargs, Oid *types, Datum *values,
		  JobqRowHandler handler)
{
	load->handler = handler;
	jobq_keeper_query(text, nargs, types, values, take_row, load);
}

/* Run a query about the queues that have such a limit, since a time. */
static void
query(Load *load, const char *text, HasLimit has, TimestampTz since,
	  JobqRowHandler handler)
{
	Oid			types[2] = {INT4ARRAYOID, TIMESTAMPTZOID};
	Datum		values[2] = {queue_ids(load, has), TimestampTzGetDatum(since)};

	if (values[0] != (Datum) 0)
		run_query(load, text, 2, types, values, handler);
}

/* Room for one more in an array of elements of this size. */
static void *
grow(void *array, int n, int *size, Size element)
{
	if (n < *size)
		return array;
	*size = Max(64, *size * 2);
	if (array == NULL)
		return palloc_extended(element * *size, MCXT_ALLOC_HUGE);
	return repalloc_huge(array, element * *size);
}

/* ---- deliveries and failures ---- */

static void
add_taken(Limited *limited, TimestampTz now, TimestampTz at)
{
	const JobqRate *rate = &limited->queue.rules.rate_limit;
	Times	   *taken = &limited->taken;

	if (rate->limit == 0 || at < now - rate->period)
		return;
	taken->at = grow(taken->at, taken->n, &taken->size, sizeof(*taken->at));
	taken->at[taken->n++] = at;
}

static void
add_failure(Limited *limited, TimestampTz claimed_at, TimestampTz finished_at)
{
	JobqFailure *failure;

	limited->failures = grow(limited->failures, limited->nfailures,
							 &limited->failures_size, sizeof(JobqFailure));
	failure = &limited->failures[limited->nfailures++];
	failure->claimed_at = claimed_at;
	failure->finished_at = finished_at;
}

static void
take_outcome(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	Limited    *limited;
	TimestampTz claimed_at;
	TimestampTz finished_at;

	limited = find_limited(load, DatumGetInt32(jobq_row_value(tuple, desc, 1,
															  NULL)));
	claimed_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 2, NULL));
	finished_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 3, NULL));
	add_taken(limited, load->now, claimed_at);
	if (has_breaker(&limited->queue) &&
		jobq_is_failure(DatumGetChar(jobq_row_value(tuple, desc, 4, NULL))))
		add_failure(limited, claimed_at, finished_at);
}

static void
take_running(Load *load, Limited *limited)
{
	JobqSlot   *slots;
	int			n;

	if (limited->queue.rules.rate_limit.limit == 0)
		return;
	slots = jobq_deliveries_under_way(load->session, limited->part,
									  limited->queue.queue_id, &n);
	for (int i = 0; i < n; i++)
		add_taken(limited, load->now, slots[i].l.claimed_at);
	if (slots != NULL)
		pfree(slots);
}

static int
compare_times(const void *a, const void *b)
{
	TimestampTz x = *(const TimestampTz *) a;
	TimestampTz y = *(const TimestampTz *) b;

	return (x > y) - (x < y);
}

/* ---- the breaker ---- */

static void
take_probe_claim(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	ProbeClaim *claim = palloc(sizeof(ProbeClaim));
	int64	   *tickets;
	Datum		packed = jobq_row_value(tuple, desc, 2, NULL);

	claim->claimed_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 1,
														   NULL));
	(void) jobq_tickets_unpack(DatumGetByteaPP(packed), &tickets);
	claim->ticket = tickets[0];
	load->probes = lappend(load->probes, claim);
}

static const ProbeClaim *
find_probe(const Load *load, int64 ticket)
{
	ListCell   *cell;

	foreach(cell, load->probes)
	{
		const ProbeClaim *claim = lfirst(cell);

		if (claim->ticket == ticket)
			return claim;
	}
	return NULL;
}

/* A probe that was only carried has a claim in a later epoch. */
static void
take_probe(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	const ProbeClaim *claim;
	Limited    *limited;

	limited = find_limited(load, DatumGetInt32(jobq_row_value(tuple, desc, 1,
															  NULL)));
	claim = find_probe(load, DatumGetInt64(jobq_row_value(tuple, desc, 2,
														  NULL)));
	if (limited == NULL || claim == NULL ||
		claim->claimed_at <= limited->probe.claimed_at)
		return;
	limited->probe.claimed_at = claim->claimed_at;
	limited->probe.finished_at =
		DatumGetTimestampTz(jobq_row_value(tuple, desc, 3, NULL));
	limited->probe.attempt_outcome =
		DatumGetChar(jobq_row_value(tuple, desc, 4, NULL));
}

static void
read_probes(Load *load)
{
	Oid			types[1] = {INT8ARRAYOID};
	Datum		values[1];
	Datum	   *tickets;
	ListCell   *cell;
	int			n = 0;

	load->probes = NIL;
	if (queue_ids(load, has_breaker) == (Datum) 0)
		return;
	run_query(load, psprintf("SELECT c.claimed_at, c.tickets"
							 " FROM jobq.claim_%d c WHERE c.flag = 'p'",
							 load->epoch),
			  0, NULL, NULL, take_probe_claim);
	if (load->probes == NIL)
		return;
	tickets = palloc(sizeof(Datum) * list_length(load->probes));
	foreach(cell, load->probes)
		tickets[n++] = Int64GetDatum(((ProbeClaim *) lfirst(cell))->ticket);
	values[0] = PointerGetDatum(construct_array(tickets, n, INT8OID,
												sizeof(int64),
												FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	run_query(load, psprintf("SELECT o.queue_id, o.ticket, o.finished_at,"
							 " o.attempt_outcome FROM jobq.outcome_%d o"
							 " WHERE o.ticket = ANY ($1)"
							 " AND o.attempt_outcome IS NOT NULL",
							 load->epoch),
			  1, types, values, take_probe);
}

static void
load_breaker(Load *load, Limited *limited)
{
	TimestampTz *closed = palloc_extended(sizeof(TimestampTz) *
										  Max(limited->nfailures, 1),
										  MCXT_ALLOC_HUGE);
	int			nclosed;
	TimestampTz open_until;
	JobqPart	now;

	open_until = jobq_breaker_replay(&limited->queue.rules.breaker,
									 &limited->probe, limited->failures,
									 limited->nfailures, closed, &nclosed);
	/* its probe is running: then it is half-open */
	if (jobq_part_stats(load->session->db, load->session->gen,
						limited->queue.queue_id, &now) &&
		now.limits.probes > 0)
	{
		open_until = load->now;
		nclosed = 0;
	}
	jobq_limits_load_breaker(limited->part, load->session->gen,
							 &limited->queue.rules, closed, nclosed,
							 open_until);
	pfree(closed);
}

/* ---- grace ---- */

static void
take_grace(HeapTuple tuple, TupleDesc desc, void *state)
{
	Load	   *load = state;
	uint32		gen = load->session->gen;
	JobqTicket	t = {.epoch = load->epoch,.expires_at = DT_NOEND};
	JobqLease	l = {0};
	TimestampTz until;
	Limited    *limited;
	JobqSlotRef ref;
	bool		ended = false;
	Datum		group;
	bool		null;

	t.queue_id = DatumGetInt32(jobq_row_value(tuple, desc, 1, NULL));
	t.id = DatumGetInt64(jobq_row_value(tuple, desc, 2, NULL));
	t.ticket = DatumGetInt64(jobq_row_value(tuple, desc, 3, NULL));
	t.run_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 4, NULL));
	t.priority = DatumGetInt16(jobq_row_value(tuple, desc, 5, NULL));
	t.attempt = DatumGetInt32(jobq_row_value(tuple, desc, 6, NULL));
	t.max_attempts = DatumGetInt32(jobq_row_value(tuple, desc, 7, NULL));
	ItemPointerSetInvalid(&t.tid);
	l.lease = DatumGetInt64(jobq_row_value(tuple, desc, 8, NULL));
	l.claimed_at = DatumGetTimestampTz(jobq_row_value(tuple, desc, 9, NULL));
	until = DatumGetTimestampTz(jobq_row_value(tuple, desc, 10, NULL));
	group = jobq_row_value(tuple, desc, 11, &null);
	if (!null)
		t.group = jobq_group_of(group);
	l.expires_at = until;
	l.lease_for = until - l.claimed_at;
	ItemPointerSetInvalid(&l.claim_tid);
	limited = find_limited(load, t.queue_id);
	if (jobq_refill_put(limited->part, gen, &t, &l, 1, &ref, NULL) == 0 ||
		ref.slot == JOBQ_NIL)
		return;
	jobq_refill_link(limited->part, gen, &ref, &ended, 1);
	jobq_set_grace(load->session->db, &ref, until);
}

/* ---- all of it ---- */

static void
read_epoch(Load *load, TimestampTz since)
{
	query(load, psprintf("SELECT o.queue_id, o.claimed_at, o.finished_at,"
						 " o.attempt_outcome FROM jobq.outcome_%d o"
						 " WHERE o.queue_id = ANY ($1) AND o.finished_at >= $2"
						 " AND o.claimed_at IS NOT NULL"
						 " AND o.attempt_outcome IS NOT NULL", load->epoch),
		  limits_delivery, since, take_outcome);
	read_probes(load);
	query(load, psprintf("SELECT o.queue_id, j.id, j.ticket, j.run_at,"
						 " j.priority, coalesce(j.attempt, 0), j.max_attempts, o.lease,"
						 " o.claimed_at, o.held_until, j.group_key"
						 " FROM jobq.outcome_%1$d o"
						 " JOIN jobq.job_%1$d j ON j.ticket = o.ticket"
						 " WHERE o.queue_id = ANY ($1) AND o.held_until > $2",
						 load->epoch),
		  limits_places, load->now, take_grace);
}

static void
read_epochs(Load *load)
{
	int64		period = longest_period(load);
	TimestampTz drained = load->now - Max(period, LOOK_BACK);
	JobqBelts	belts = {0};
	JobqEpoch  *epochs;
	int			n = jobq_epoch_read(&epochs);

	for (int e = 0; e < n; e++)
	{
		if ((epochs[e].drained_at != 0 && epochs[e].drained_at < drained) ||
			jobq_belts_read(&belts, epochs[e].epoch, BELT_JOB) == NULL ||
			jobq_belts_read(&belts, epochs[e].epoch, BELT_CLAIM) == NULL ||
			jobq_belts_read(&belts, epochs[e].epoch, BELT_OUTCOME) == NULL)
			continue;
		load->epoch = epochs[e].epoch;
		read_epoch(load, load->now - period);
	}
	jobq_belts_close(&belts);
}

void
jobq_load_limits(const JobqSession *session)
{
	Load		load = {.session = session,.now = jobq_now(),
	.context = CurrentMemoryContext};

	find_queues(&load);
	if (load.nlimited == 0)
		return;
	read_epochs(&load);
	for (int i = 0; i < load.nlimited; i++)
	{
		Limited    *limited = &load.limited[i];

		take_running(&load, limited);
		qsort(limited->taken.at, limited->taken.n, sizeof(TimestampTz),
			  compare_times);
		jobq_limits_load_taken(limited->part, session->gen,
							   &limited->queue.rules, limited->taken.at,
							   limited->taken.n);
		if (has_breaker(&limited->queue))
			load_breaker(&load, limited);
	}
}
