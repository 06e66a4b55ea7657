/*
 * refill.c: the keeper brings tickets that are on disk only into memory, in
 * each queue's order, from its frontier on and a bounded piece at a time.
 * Reads tables, writes shared memory only.
 *
 * A ticket is first put into the hash, where whoever ends it must find it, and
 * only then looked up among the outcomes: so what is found live stays known.
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/binaryheap.h"
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

#define PIECE			4096	/* tickets looked at in one go */
#define TURN			INT64CONST(30000)	/* us, then other work has its turn */
#define STUCK_RETRY		INT64CONST(50000)	/* no slot was to be had */

/*
 * One epoch's tickets, of an aging queue those of one priority; the next of
 * them in hand. It stays where it is: its scan points into it.
 */
typedef struct Source
{
	JobqBelts	belts;
	JobqOrderScan scan;
	JobqProbe	probe;
	JobqTicket	next;
	bool		one_priority;
	int16		priority;
} Source;

typedef struct Refill
{
	const JobqSession *session;
	JobqPart   *part;
	int64		aging;			/* of the order that the part goes by */
	Source	  **sources;
	int			nsources;
	int			sources_size;
	binaryheap *heap;			/* of sources, smallest next first */

	JobqTicket	tickets[JOBQ_CHUNK];
	int			from[JOBQ_CHUNK];	/* their sources */
	int			n;
	bool		entered;		/* some of them were not in memory before */
	JobqLack	lack;			/* of what it takes to bring in the next */
	bool		crowded;		/* nothing has come in, for lack of room */
} Refill;

static JobqKey
next_key(const Refill *refill, int source)
{
	return jobq_key_of(&refill->sources[source]->next, refill->aging);
}

static int
compare_sources(Datum a, Datum b, void *arg)
{
	JobqKey		x = next_key(arg, DatumGetInt32(a));
	JobqKey		y = next_key(arg, DatumGetInt32(b));

	/* the heap gives its largest first */
	return jobq_key_compare(&y, &x);
}

/* ---- reading ---- */

static bool
read_next(Source *source)
{
	if (!jobq_order_next(&source->scan))
		return false;
	jobq_ticket_of_slot(source->scan.slot, source->belts.epoch, &source->next);
	return !source->one_priority || source->next.priority == source->priority;
}

static void
close_source(Source *source)
{
	jobq_order_end(&source->scan);
	jobq_probe_end(&source->probe);
	jobq_belts_close(&source->belts);
}

/* False when there is nothing, or the epoch has just been dropped. */
static bool
open_source(Refill *refill, Source *source, int32 epoch, Snapshot snapshot,
			const JobqKey *from)
{
	Relation	job = jobq_belts_read(&source->belts, epoch, BELT_JOB);
	Relation	outcome = jobq_belts_read(&source->belts, epoch, BELT_OUTCOME);

	if (job == NULL || outcome == NULL)
	{
		jobq_belts_close(&source->belts);
		return false;
	}
	jobq_order_begin(&source->scan, job, snapshot, refill->part->queue_id,
					 from->priority == JOBQ_KEY_START, from->priority,
					 from->run_at, from->id);
	jobq_probe_begin(&source->probe, outcome);
	if (read_next(source))
		return true;
	close_source(source);
	return false;
}

/* To be kept if there is something, else to be forgotten. */
static void
take_source(Refill *refill, Source *source, bool found)
{
	if (!found)
	{
		pfree(source);
		return;
	}
	if (refill->nsources == refill->sources_size)
	{
		refill->sources_size *= 2;
		refill->sources = repalloc(refill->sources,
								   sizeof(Source *) * refill->sources_size);
	}
	refill->sources[refill->nsources++] = source;
}

/* In the index each priority is in order for itself: a source for each. */
static void
open_priorities(Refill *refill, int32 epoch, Snapshot snapshot,
				const JobqKey *from)
{
	JobqKey		at = {.priority = JOBQ_KEY_START};
	Source		look = {0};

	while (open_source(refill, &look, epoch, snapshot, &at))
	{
		Source	   *source = palloc0(sizeof(Source));
		int16		priority = look.next.priority;

		close_source(&look);
		source->one_priority = true;
		source->priority = priority;
		at.priority = priority;
		at.run_at = from->priority == JOBQ_KEY_START ? DT_NOBEGIN :
			from->run_at - priority * refill->aging;
		at.id = from->id;
		take_source(refill, source,
					open_source(refill, source, epoch, snapshot, &at));

		/* and on to the next priority that there is */
		at.priority = priority + 1;
		at.run_at = DT_NOBEGIN;
		CHECK_FOR_INTERRUPTS();
	}
}

static void
open_sources(Refill *refill, Snapshot snapshot, const JobqKey *from)
{
	int32	   *epochs;
	int			nepochs = jobq_epoch_list_undrained(&epochs);

	refill->aging = refill->part->aging;
	refill->sources_size = Max(nepochs, 1);
	refill->sources = palloc(sizeof(Source *) * refill->sources_size);
	for (int i = 0; i < nepochs; i++)
	{
		Source	   *source;

		if (refill->aging != 0)
		{
			open_priorities(refill, epochs[i], snapshot, from);
			continue;
		}
		source = palloc0(sizeof(Source));
		take_source(refill, source,
					open_source(refill, source, epochs[i], snapshot, from));
	}
	pfree(epochs);
	refill->heap = binaryheap_allocate(Max(refill->nsources, 1),
									   compare_sources, refill);
	for (int i = 0; i < refill->nsources; i++)
		binaryheap_add(refill->heap, Int32GetDatum(i));
}

static bool
has_job(const Refill *refill, int64 id)
{
	for (int i = refill->n - 1; i >= 0; i--)
	{
		if (refill->tickets[i].id == id)
			return true;
	}
	return false;
}

/* The next tickets in order, up to a chunk, and only one of each job. */
static void
read_chunk(Refill *refill)
{
	refill->n = 0;
	while (refill->n < JOBQ_CHUNK && !binaryheap_empty(refill->heap))
	{
		int			which = DatumGetInt32(binaryheap_first(refill->heap));
		Source	   *source = refill->sources[which];

		if (has_job(refill, source->next.id))
			break;
		refill->tickets[refill->n] = source->next;
		refill->from[refill->n] = which;
		refill->n++;
		if (read_next(source))
			binaryheap_replace_first(refill->heap, Int32GetDatum(which));
		else
			(void) binaryheap_remove_first(refill->heap);
	}
}

/* ---- placing ---- */

static bool
comes_before(const Refill *refill, int a, int b)
{
	if (refill->from[a] != refill->from[b])
		return refill->from[a] < refill->from[b];
	return refill->tickets[a].ticket < refill->tickets[b].ticket;
}

/* Those that have just come in, by source and ticket; mostly they are. */
static int
sort_fresh(const Refill *refill, const JobqSlotRef *fresh, int done,
		   int *sorted)
{
	int			n = 0;

	for (int i = 0; i < done; i++)
	{
		int			at = n;

		if (fresh[i].slot == JOBQ_NIL)
			continue;
		for (; at > 0 && comes_before(refill, i, sorted[at - 1]); at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = i;
		n++;
	}
	return n;
}

/* Look which of them have ended. */
static void
look_at_fresh(Refill *refill, const JobqSlotRef *fresh, int done, bool *ended)
{
	int			sorted[JOBQ_CHUNK];
	int			n = sort_fresh(refill, fresh, done, sorted);
	int			to;

	for (int from = 0; from < n; from = to)
	{
		int			source = refill->from[sorted[from]];
		int64		tickets[JOBQ_CHUNK];
		bool		found[JOBQ_CHUNK];

		for (to = from; to < n && refill->from[sorted[to]] == source; to++)
			tickets[to - from] = refill->tickets[sorted[to]].ticket;
		jobq_probe_many(&refill->sources[source]->probe, tickets, to - from,
						found);
		for (int i = from; i < to; i++)
		{
			ended[sorted[i]] = found[i - from];
			refill->entered |= !found[i - from];
		}
	}
}

/*
 * Put them in, look which have ended, link the others. Returns how many were
 * dealt with.
 */
static int
place_chunk(Refill *refill)
{
	JobqSlotRef fresh[JOBQ_CHUNK];
	bool		ended[JOBQ_CHUNK];
	int			done = jobq_refill_put(refill->part, refill->session->gen,
									   refill->tickets, NULL, refill->n,
									   fresh, &refill->lack);

	/* should looking fail, none of them stays half in */
	memset(ended, true, sizeof(ended));
	refill->entered = false;
	JOBQ_PAUSE("refill-before-look");
	/* nor, should we be terminated now */
	HOLD_INTERRUPTS();
	PG_TRY();
	{
		look_at_fresh(refill, fresh, done, ended);
		RESUME_INTERRUPTS();
	}
	PG_FINALLY();
	{
		jobq_refill_link(refill->part, refill->session->gen, fresh, ended,
						 done);
	}
	PG_END_TRY();
	return done;
}

/*
 * Make room for the next ticket where it lacks an entry: what comes after it
 * is of no use before it. (Who lacks a slot has got one like that already.)
 */
static bool
make_room(Refill *refill, const JobqTicket *t)
{
	JobqPart   *part = refill->part;
	uint32		gen = refill->session->gen;

	if (refill->lack != LACKS_ENTRY)
		return false;
	while (!jobq_refill_has_entry(part, gen, t))
	{
		CHECK_FOR_INTERRUPTS();
		if (!jobq_push_out(part, gen, t))
			return false;
	}
	return true;
}

/*
 * Read on until the queue has enough, or a piece is done; where we are then.
 * False when there was no room for more.
 */
static bool
walk(Refill *refill, JobqKey *reached)
{
	for (int seen = 0; seen < PIECE; seen += JOBQ_CHUNK)
	{
		int			done;

		read_chunk(refill);
		if (refill->n == 0)
		{
			reached->priority = JOBQ_KEY_END;
			return true;
		}
		CHECK_FOR_INTERRUPTS();
		*reached = jobq_key_of(&refill->tickets[0], refill->aging);
		done = place_chunk(refill);
		if (done < refill->n)
		{
			bool		room = make_room(refill, &refill->tickets[done]);

			*reached = jobq_key_of(&refill->tickets[done], refill->aging);
			refill->crowded = seen == 0 && done == 0 && !room &&
				refill->lack != LACKS_NOTHING;
			return room;
		}
		*reached = jobq_key_of(&refill->tickets[done - 1], refill->aging);
		if (jobq_refill_missed(refill->part, refill->session->gen, reached))
			break;
		/* what is in memory already costs little to pass */
		if (refill->entered &&
			jobq_refill_enough(refill->part, refill->session->gen))
			break;
	}
	if (binaryheap_empty(refill->heap))
		reached->priority = JOBQ_KEY_END;
	else
		*reached = next_key(refill,
							DatumGetInt32(binaryheap_first(refill->heap)));
	return true;
}

static bool
read_piece(Refill *refill, const JobqKey *from, uint64 claimers,
		   JobqKey *reached)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		room;

	JOBQ_PAUSE("after-refill-snapshot");
	if (!jobq_refill_is_clear(refill->part, claimers))
	{
		UnregisterSnapshot(snapshot);
		return false;
	}
	open_sources(refill, snapshot, from);
	room = walk(refill, reached);
	for (int i = 0; i < refill->nsources; i++)
	{
		close_source(refill->sources[i]);
		pfree(refill->sources[i]);
	}
	binaryheap_free(refill->heap);
	pfree(refill->sources);
	UnregisterSnapshot(snapshot);
	return room;
}

/*
 * What the queue's order is, and that nothing stands in another one.
 */
static void
prepare_part(const JobqSession *session, JobqPart *part)
{
	JobqQueue	queue;

	if (!jobq_part_knows_aging(part) &&
		jobq_queue_by_id(part->queue_id, &queue))
		jobq_part_learn_aging(part, session->gen, queue.rules.aging);
	while (jobq_refill_clear(part, session->gen))
		CHECK_FOR_INTERRUPTS();
}

/*
 * One piece for one queue; false when there was no room for more. Whatever
 * happens, the refill does not stay open: sessions may wait for its end.
 */
static bool
refill_part(const JobqSession *session, JobqPart *part)
{
	Refill		refill = {.session = session,.part = part};
	JobqKey		from;
	JobqKey		reached;
	uint64		claimers;
	bool		room = true;

	prepare_part(session, part);
	if (!jobq_refill_begin(part, session->gen, &from, &claimers))
		return true;
	reached = from;
	PG_TRY();
	{
		room = read_piece(&refill, &from, claimers, &reached);
	}
	PG_CATCH();
	{
		jobq_refill_end(part, session->gen, &from, false);
		PG_RE_THROW();
	}
	PG_END_TRY();
	jobq_refill_end(part, session->gen, &reached, refill.crowded);
	return room;
}

/* ---- running tickets that found no slot ---- */

static void
load_lost_leases(const JobqSession *session)
{
	JobqDb	   *db = session->db;
	JobqPart   *part;
	bool		lost;

	SpinLockAcquire(&db->mutex);
	lost = db->lost_leases || db->loading_leases;
	db->lost_leases = false;
	db->loading_leases = lost;
	SpinLockRelease(&db->mutex);
	if (!lost)
		return;
	/* jobs that keep their places may be among them */
	jobq_groups_forget(db, session->gen);
	if (jobq_keeper_begin(db->install) && jobq_load_running(session))
	{
		SpinLockAcquire(&db->mutex);
		db->loading_leases = false;
		SpinLockRelease(&db->mutex);
		for (int i = jobq_parts_of(db, session->gen, 0, &part); i >= 0;
			 i = jobq_parts_of(db, session->gen, i, &part))
			jobq_queue_has_changed(db, session->gen, part->queue_id);
	}
	if (IsTransactionState())
		jobq_keeper_commit();
}

/* A piece for each queue that wants one; false when none did. */
static bool
refill_parts(const JobqSession *session, TimestampTz now, TimestampTz *next)
{
	bool		wanted = false;
	JobqPart   *part;

	*next = JOBQ_NEVER;
	for (int i = jobq_parts_of(session->db, session->gen, 0, &part); i >= 0;
		 i = jobq_parts_of(session->db, session->gen, i, &part))
	{
		if (jobq_groups_to_load(part, session->gen) &&
			!jobq_load_groups(session, part))
			*next = Min(*next, now + STUCK_RETRY);
		if (!jobq_refill_wanted(part, session->gen))
			continue;
		if (!wanted)
			jobq_share_slots();
		wanted = true;
		jobq_group_trim(part, session->gen);
		if (!jobq_keeper_begin(session->db->install))
		{
			*next = now + STUCK_RETRY;
			return false;
		}
		*next = Min(*next, refill_part(session, part) ? now : now + STUCK_RETRY);
		jobq_keeper_commit();
		CHECK_FOR_INTERRUPTS();
	}
	return wanted;
}

TimestampTz
jobq_tend_refill(const JobqSession *session, TimestampTz now)
{
	static bool started = false;
	TimestampTz until = jobq_now() + TURN;
	TimestampTz next;

	if (!started)
		jobq_refill_reset(session->db, session->gen);
	started = true;
	load_lost_leases(session);
	/* what runs without a slot must not be taken for available */
	if (jobq_lacks_leases(session->db))
		return now + STUCK_RETRY;
	while (refill_parts(session, now, &next) && next <= now &&
		   jobq_now() < until)
		;
	return next;
}
