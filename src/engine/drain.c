/*
 * drain.c: sealed epochs until all their tickets have ended: counting what of
 * them is in memory, surveying what is on disk, and deciding when the last few
 * are carried elsewhere. Drops nothing and carries nothing itself.
 */
#include "postgres.h"

#include "engine/epochlist.h"

#define USECS_PER_MS		INT64CONST(1000)

/* Few tickets are left when not more than one of so many lives. */
#define CARRY_SHARE			20
#define CARRY_WAIT			(10 * USECS_PER_SEC)	/* few for so long */

#define SURVEY_PAUSE		USECS_PER_SEC	/* live, but not in memory */
#define SURVEY_PAUSE_MAX	(60 * USECS_PER_SEC)
#define COUNT_PAUSE			(500 * USECS_PER_MS)	/* between two passes */
#define COUNT_SHARE			20	/* or so many times what a pass took */

static TimestampTz next_count;	/* pass over slots, not before */
static bool count_wanted = true;

void
jobq_drain_count(bool at_once)
{
	count_wanted = true;
	if (at_once)
		next_count = 0;
}

TimestampTz
jobq_drain_next_count(void)
{
	return next_count;
}

static bool
is_draining(const JobqKnown *epoch)
{
	return epoch->row.sealed_at != 0 && epoch->row.drained_at == 0;
}

/*
 * How many of their tickets are in memory. Watching starts before counting, so
 * that no end is missed.
 */
static void
count_slots(JobqEpochLook *look)
{
	int32	   *epochs = palloc(sizeof(int32) * Max(jobq_epochs.nknown, 1));
	int64	   *counts = palloc(sizeof(int64) * Max(jobq_epochs.nknown, 1));
	TimestampTz start = jobq_now();
	int			n = 0;

	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		if (is_draining(&jobq_epochs.known[i]))
			epochs[n++] = jobq_epochs.known[i].row.epoch;
	}
	jobq_watch_epochs(look->session->db, n > 0 ? epochs[n - 1] : 0);
	if (n > 0)
		jobq_slots_by_epoch(look->session->db, look->session->gen, epochs, n,
							counts);
	for (int i = 0; i < n; i++)
	{
		JobqKnown  *epoch = jobq_epochs_find(epochs[i]);

		/* the last of them have just gone: no need to wait any more */
		if (counts[i] == 0 && epoch->slots > 0)
			jobq_epochs_no_more_wait(&epoch->wait);
		epoch->slots = counts[i];
	}
	count_wanted = false;
	next_count = jobq_now() +
		Max(COUNT_PAUSE, COUNT_SHARE * (jobq_now() - start));
	pfree(epochs);
	pfree(counts);
}

static void
note_drained(JobqEpochLook *look, JobqKnown *epoch)
{
	const JobqSurvey *survey = &epoch->survey;
	JobqTotal  *totals;
	int			n;

	if (!jobq_epochs_begin(look))
		return;
	n = jobq_survey_totals(&totals);
	jobq_epoch_set_drained(epoch->row.epoch, jobq_now(),
						   survey->last_finished != 0 ?
						   survey->last_finished : epoch->row.sealed_at,
						   totals, n);
	jobq_keeper_commit();
}

/* True when there was something to do. */
static bool
survey(JobqEpochLook *look, JobqKnown *epoch)
{
	int64		live;

	if (!jobq_survey_step(look->session, epoch->row.epoch, &epoch->survey))
		return true;
	epoch->size = -1;			/* it has grown since */
	epoch->surveyed_slots = epoch->slots;
	live = epoch->survey.jobs - epoch->survey.ended;
	if (live == 0)
	{
		jobq_epochs_no_more_wait(&epoch->wait);
		note_drained(look, epoch);
		return true;
	}
	if (live * CARRY_SHARE > epoch->survey.jobs)
		epoch->few_since = 0;
	else if (epoch->few_since == 0)
		epoch->few_since = look->now;
	if (epoch->slots == 0)
		jobq_epochs_put_off(look, &epoch->wait, SURVEY_PAUSE,
							SURVEY_PAUSE_MAX);
	return true;
}

/* May its last tickets go elsewhere, so that it can go? */
static bool
may_carry(JobqEpochLook *look, const JobqKnown *epoch)
{
	TimestampTz due = epoch->row.sealed_at;

	if (!jobq_epochs_press(epoch) && !jobq_history_presses())
		due += jobq_epochs_retention(epoch);
	if (due > look->now)
		jobq_epochs_come_again(look, due);
	return due <= look->now;
}

/* Few are left, behind their queues' frontiers. */
static bool
carry_from_disk(JobqEpochLook *look, JobqKnown *epoch)
{
	bool		more;

	if (!jobq_carry_from_disk(look->session, epoch->row.epoch,
							  &epoch->disk_from, &more))
	{
		jobq_epochs_come_again(look, look->now + LOCK_PAUSE);
		return false;
	}
	if (more)
		return true;
	epoch->disk_from = 0;
	epoch->few_since = 0;
	jobq_epochs_put_off(look, &epoch->wait, SURVEY_PAUSE, SURVEY_PAUSE_MAX);
	return false;
}

/* None is in memory: have all ended, or are some on disk only? */
static bool
drain(JobqEpochLook *look, JobqKnown *epoch)
{
	if (epoch->disk_from > 0)
		return carry_from_disk(look, epoch);
	if (jobq_epochs_must_wait(look, &epoch->wait))
		return false;
	if (epoch->few_since != 0 && epoch->survey.jobs > epoch->survey.ended &&
		may_carry(look, epoch))
		return carry_from_disk(look, epoch);
	if (jobq_survey_pays(look->session, epoch->row.epoch, &epoch->survey))
		return survey(look, epoch);
	jobq_epochs_put_off(look, &epoch->wait, SURVEY_PAUSE, SURVEY_PAUSE_MAX);
	return false;
}

/* Few of its tickets are left; shall they go elsewhere, so that it can go? */
static bool
carry(JobqEpochLook *look, JobqKnown *epoch)
{
	int64		wait = Min(CARRY_WAIT, jobq_epochs.age * USECS_PER_MS);

	if (!may_carry(look, epoch))
		return false;
	if (epoch->carrying)
	{
		if (!jobq_carry_some(look->session, epoch->row.epoch,
							 &epoch->carry_from))
			jobq_epochs_come_again(look, look->now + LOCK_PAUSE);
		else if (epoch->carry_from != JOBQ_NIL)
			return true;
		epoch->carrying = epoch->carry_from != JOBQ_NIL;
		count_wanted = true;
		jobq_epochs_come_again(look, next_count);
		return false;
	}
	if (jobq_epochs_must_wait(look, &epoch->wait))
		return false;
	if (epoch->survey.jobs >= 0 &&
		(epoch->slots * CARRY_SHARE > epoch->survey.jobs ||
		 epoch->slots == epoch->surveyed_slots) && epoch->few_since == 0)
		return false;
	if (epoch->few_since == 0)
		return survey(look, epoch);
	if (epoch->few_since + wait > look->now)
	{
		jobq_epochs_come_again(look, epoch->few_since + wait);
		return false;
	}
	/* what cannot be carried now gets another chance later */
	jobq_epochs_put_off(look, &epoch->wait, SURVEY_PAUSE, SURVEY_PAUSE_MAX);
	epoch->carrying = true;
	epoch->carry_from = 0;
	return true;
}

static bool
tend_draining(JobqEpochLook *look, void *item)
{
	JobqKnown  *epoch = item;

	return epoch->slots == 0 ? drain(look, epoch) : carry(look, epoch);
}

/* Passes are made while there is something to drain only. */
static bool
keep_counts(JobqEpochLook *look)
{
	bool		any = false;

	for (int i = 0; i < jobq_epochs.nknown; i++)
		any = any || is_draining(&jobq_epochs.known[i]);
	if (!any)
		jobq_watch_epochs(look->session->db, 0);
	else if (count_wanted || jobq_watched_gone(look->session->db))
	{
		if (next_count > look->now)
			jobq_epochs_come_again(look, next_count);
		else
			count_slots(look);
	}
	return any;
}

bool
jobq_drain_epochs(JobqEpochLook *look)
{
	if (!keep_counts(look))
		return false;
	for (int i = 0; i < jobq_epochs.nknown; i++)
	{
		JobqKnown  *epoch = &jobq_epochs.known[i];

		if (is_draining(epoch) && epoch->slots >= 0 &&
			jobq_epochs_step(look, tend_draining, epoch, &epoch->trouble))
			return true;
	}
	return false;
}
