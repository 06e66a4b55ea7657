/*
 * survey.c: counting the tickets of a sealed epoch and those that have ended,
 * a piece at a time. No ticket is added any more and none ends twice, so when
 * both numbers are equal all have ended. Reads only.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "storage/bufmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "engine/belts.h"
#include "engine/epochs.h"

/* Outcomes may also fill up pages that were there already, so many at most. */
#define OPEN_PAGES		64

/* The one survey under way. */
static struct
{
	int32		epoch;			/* 0 = none */
	bool		counting;		/* unless an error has ended that halfway */
	bool		jobs_done;
	BlockNumber next;
	JobqSurvey	found;
	HTAB	   *totals;			/* by queue */
	MemoryContext context;
}			now;

static void
start(int32 epoch, const JobqSurvey *known)
{
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(JobqTotal)};

	if (now.context == NULL)
		now.context = AllocSetContextCreate(TopMemoryContext,
											"pg_jobq survey",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(now.context);
	ctl.hcxt = now.context;
	now.totals = hash_create("pg_jobq totals of an epoch", 64, &ctl,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	now.epoch = epoch;
	now.counting = false;
	now.jobs_done = known->jobs >= 0;
	now.next = 0;
	memset(&now.found, 0, sizeof(now.found));
	now.found.jobs = Max(known->jobs, 0);
}

static void
count_job(TupleTableSlot *slot, void *state)
{
	now.found.jobs++;
}

static char
get_char(TupleTableSlot *slot, JobqOutcomeAttr attr)
{
	return slot->tts_isnull[attr] ? 0 : DatumGetChar(slot->tts_values[attr]);
}

static void
count_outcome(TupleTableSlot *slot, void *state)
{
	int32		queue_id;
	char		ended;
	char		attempt;
	bool		known;
	JobqTotal  *total;

	slot_getsomeattrs(slot, OUT_ATTEMPT_OUTCOME + 1);
	queue_id = DatumGetInt32(slot->tts_values[OUT_QUEUE_ID]);
	ended = get_char(slot, OUT_ENDED);
	attempt = get_char(slot, OUT_ATTEMPT_OUTCOME);
	total = hash_search(now.totals, &queue_id, HASH_ENTER, &known);
	if (!known)
	{
		memset(total, 0, sizeof(*total));
		total->queue_id = queue_id;
	}
	total->completed += ended == ENDED_COMPLETED;
	total->dead += ended == ENDED_DEAD;
	total->cancelled += ended == ENDED_CANCELLED;
	total->expired += ended == ENDED_EXPIRED;
	total->failed += attempt == ATTEMPT_FAILED ||
		attempt == ATTEMPT_LEASE_EXPIRED || attempt == ATTEMPT_ROLLED_BACK;
	now.found.ended++;
	/* a ticket that was only moved aside is no history */
	if (ended != ENDED_MOVED || attempt != 0)
		now.found.last_finished =
			Max(now.found.last_finished,
				DatumGetTimestampTz(slot->tts_values[OUT_FINISHED_AT]));
}

/* True when the table is done; one that is missing has no rows. */
static bool
walk(JobqBeltKind kind, JobqRowVisitor visit)
{
	JobqBelts	belts = {0};
	Relation	rel = jobq_belts_read(&belts, now.epoch, kind);
	bool		more = rel != NULL &&
	jobq_belt_walk(rel, &now.next, JOBQ_EPOCH_STEP, visit, NULL);

	if (rel != NULL && kind == BELT_OUTCOME)
		now.found.outcome_blocks = RelationGetNumberOfBlocks(rel);
	jobq_belts_close(&belts);
	if (!more)
		now.next = 0;
	return !more;
}

bool
jobq_survey_step(const JobqSession *session, int32 epoch, JobqSurvey *survey)
{
	bool		done = false;

	if (now.epoch != epoch || now.counting)
		start(epoch, survey);
	if (!jobq_keeper_begin(session->db->install))
		return false;
	now.counting = true;
	if (!now.jobs_done)
		now.jobs_done = walk(BELT_JOB, count_job);
	else
		done = walk(BELT_OUTCOME, count_outcome);
	jobq_keeper_commit();
	now.counting = false;
	if (done)
	{
		*survey = now.found;
		now.epoch = 0;
	}
	return done;
}

int
jobq_survey_totals(JobqTotal **totals)
{
	HASH_SEQ_STATUS seq;
	JobqTotal  *total;
	int			n = 0;

	*totals = palloc(sizeof(JobqTotal) *
					 Max(hash_get_num_entries(now.totals), 1));
	hash_seq_init(&seq, now.totals);
	while ((total = hash_seq_search(&seq)) != NULL)
		(*totals)[n++] = *total;
	return n;
}

bool
jobq_survey_pays(const JobqSession *session, int32 epoch,
				 const JobqSurvey *survey)
{
	JobqBelts	belts = {0};
	Relation	rel;
	bool		pays;

	if (survey->jobs < 0)
		return true;
	if (!jobq_keeper_begin(session->db->install))
		return false;
	rel = jobq_belts_read(&belts, epoch, BELT_OUTCOME);
	pays = rel == NULL || survey->jobs - survey->ended <=
		(int64) (RelationGetNumberOfBlocks(rel) - survey->outcome_blocks +
				 OPEN_PAGES) * MaxHeapTuplesPerPage;
	jobq_belts_close(&belts);
	jobq_keeper_commit();
	return pays;
}
