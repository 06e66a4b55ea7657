/*
 * admitload.c: what limits on enqueuing must know of the time before a keeper
 * started: enqueued jobs, from their rows, those of prepared transactions
 * included. Reads tables, writes shared memory only.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "engine/belts.h"
#include "engine/keeperxact.h"
#include "engine/limit.h"
#include "engine/prepared.h"

/* One job let in. */
typedef struct Enqueued
{
	TimestampTz at;
	uint64		key[2];
} Enqueued;

/* A queue with limits on enqueuing. */
typedef struct Limited
{
	JobqQueue	queue;
	JobqPart   *part;
	Enqueued   *enqueued;
	int			nenqueued;
	int			size;
} Limited;

typedef struct Load
{
	TimestampTz now;
	Limited    *limited;
	int			nlimited;
	HTAB	   *ids;			/* of all in enqueued */
	MemoryContext context;		/* of all this */
} Load;

/* ---- which queues ---- */

static bool
limits_rate(const JobqQueue *queue)
{
	return queue->enqueue_limit.rate.limit > 0;
}

static void
find_queues(const JobqSession *session, Load *load)
{
	JobqQueue  *queues;
	int			n = jobq_queue_list(&queues);

	load->limited = palloc0(sizeof(Limited) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		Limited    *limited = &load->limited[load->nlimited];

		if (queues[i].max_depth == 0 && !limits_rate(&queues[i]))
			continue;
		limited->queue = queues[i];
		limited->part = jobq_part_get(session->db, session->gen,
									  queues[i].queue_id);
		if (limited->part != NULL)
			load->nlimited++;
	}
	pfree(queues);
}

static Limited *
find_limited(const Load *load, int32 queue_id)
{
	for (int i = 0; i < load->nlimited; i++)
	{
		if (load->limited[i].queue.queue_id == queue_id)
			return &load->limited[i];
	}
	return NULL;
}

/* ---- enqueued jobs ---- */

static Enqueued *
new_enqueued(Load *load, Limited *limited)
{
	MemoryContext old = MemoryContextSwitchTo(load->context);

	if (limited->nenqueued == limited->size)
	{
		limited->size = Max(64, limited->size * 2);
		limited->enqueued = limited->enqueued == NULL ?
			palloc_extended(sizeof(Enqueued) * limited->size,
							MCXT_ALLOC_HUGE) :
			repalloc_huge(limited->enqueued,
						  sizeof(Enqueued) * limited->size);
	}
	MemoryContextSwitchTo(old);
	return &limited->enqueued[limited->nenqueued++];
}

/* group NULL: none. */
static void
note(Load *load, Limited *limited, int64 id, TimestampTz at, Oid role,
	 const text *group)
{
	const JobqEnqueueLimit *limit = &limited->queue.enqueue_limit;
	Enqueued   *enqueued;
	bool		known;

	if (at < load->now - limit->rate.period)
		return;
	(void) hash_search(load->ids, &id, HASH_ENTER, &known);
	if (known)
		return;
	enqueued = new_enqueued(load, limited);
	enqueued->at = at;
	jobq_admission_key((JobqPer) limit->per, role, group, enqueued->key);
}

static void
take_enqueued(HeapTuple tuple, TupleDesc desc, void *state)
{
	int32		queue_id = DatumGetInt32(jobq_row_value(tuple, desc, 1, NULL));
	Limited    *limited = find_limited(state, queue_id);
	bool		no_group;
	Datum		group = jobq_row_value(tuple, desc, 5, &no_group);

	if (limited == NULL)
		elog(ERROR, "queue %d was not asked for", queue_id);
	note(state, limited,
		 DatumGetInt64(jobq_row_value(tuple, desc, 2, NULL)),
		 DatumGetTimestampTz(jobq_row_value(tuple, desc, 3, NULL)),
		 DatumGetObjectId(jobq_row_value(tuple, desc, 4, NULL)),
		 no_group ? NULL : DatumGetTextPP(group));
}

static bool
take_prepared(const JobqRow *row, void *state)
{
	Load	   *load = state;
	Limited    *limited;

	limited = find_limited(load, DatumGetInt32(row->values[JOB_QUEUE_ID]));
	if (limited == NULL)
		return false;
	if (limits_rate(&limited->queue))
		note(load, limited, DatumGetInt64(row->values[JOB_ID]),
			 DatumGetTimestampTz(row->values[JOB_ENQUEUED_AT]),
			 DatumGetObjectId(row->values[JOB_ENQUEUED_BY]),
			 row->nulls[JOB_GROUP_KEY] ? NULL :
			 DatumGetTextPP(row->values[JOB_GROUP_KEY]));
	return true;
}

/* Jobs of others' making were not let in, so they do not count. */
#define ENQUEUED_IN \
	"SELECT j.queue_id, j.id, j.enqueued_at, j.enqueued_by, j.group_key" \
	" FROM jobq.%s j WHERE j.queue_id = ANY ($1) AND j.enqueued_at >= $2" \
	" AND j.retry_of IS NULL AND (j.headers ? 'dead_letter') IS NOT TRUE" \
	" AND %s"

static void
read_enqueued(Load *load, Datum queue_ids, TimestampTz since)
{
	Oid			types[2] = {INT4ARRAYOID, TIMESTAMPTZOID};
	Datum		values[2] = {queue_ids, TimestampTzGetDatum(since)};
	JobqBelts	belts = {0};
	JobqEpoch  *epochs;
	int			n = jobq_epoch_read(&epochs);

	for (int e = 0; e < n; e++)
	{
		if ((epochs[e].drained_at != 0 && epochs[e].drained_at < since) ||
			jobq_belts_read(&belts, epochs[e].epoch, BELT_JOB) == NULL)
			continue;
		jobq_keeper_query(psprintf(ENQUEUED_IN,
								   psprintf("job_%d", epochs[e].epoch),
								   "j.ticket = j.id"),
						  2, types, values, take_enqueued, load);
	}
	jobq_belts_close(&belts);
	jobq_keeper_query(psprintf(ENQUEUED_IN, "shelf", "j.state IN ('s', 'r')"),
					  2, types, values, take_enqueued, load);
}

/* Of the queues with such a limit, as far back as the longest period. */
static void
read_committed(Load *load)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(load->nlimited, 1));
	int64		period = 0;
	int			n = 0;

	for (int i = 0; i < load->nlimited; i++)
	{
		const JobqQueue *queue = &load->limited[i].queue;

		if (!limits_rate(queue))
			continue;
		ids[n++] = Int32GetDatum(queue->queue_id);
		period = Max(period, queue->enqueue_limit.rate.period);
	}
	if (n > 0)
		read_enqueued(load, PointerGetDatum(construct_array(ids, n, INT4OID,
															sizeof(int32),
															true,
															TYPALIGN_INT)),
					  load->now - period);
}

/* ---- all of it ---- */

static int
compare_enqueued(const void *a, const void *b)
{
	const Enqueued *x = a;
	const Enqueued *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

static void
count(const JobqSession *session, Limited *limited)
{
	const JobqRate *rate = &limited->queue.enqueue_limit.rate;

	if (limited->nenqueued == 0)
		return;
	qsort(limited->enqueued, limited->nenqueued, sizeof(Enqueued),
		  compare_enqueued);
	for (int i = 0; i < limited->nenqueued; i++)
		jobq_admit_load(limited->part, session->gen, rate,
						limited->enqueued[i].key, limited->enqueued[i].at);
}

void
jobq_load_admissions(const JobqSession *session)
{
	Load		load = {.now = jobq_now(),.context = CurrentMemoryContext};
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(int64)};

	ctl.hcxt = CurrentMemoryContext;
	load.ids = hash_create("pg_jobq enqueued jobs", 1024, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	find_queues(session, &load);
	read_committed(&load);
	jobq_load_prepared(session, take_prepared, &load);
	for (int i = 0; i < load.nlimited; i++)
		count(session, &load.limited[i]);
	hash_destroy(load.ids);
}
