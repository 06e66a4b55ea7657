/*
 * epochs.h: the life of epochs, as the keeper leads it. Private to src/engine.
 */
#ifndef JOBQ_EPOCHS_H
#define JOBQ_EPOCHS_H

#include "engine/engine.h"

/* How long one step may keep the keeper from other work. */
#define JOBQ_EPOCH_STEP		(20 * INT64CONST(1000))	/* us */

/* ---- epochs.c ---- */

/*
 * Keeper: open, close, seal, carry, drain and drop epochs as far as one short
 * step goes. Returns when to come again, `now` when there is more to do.
 */
extern TimestampTz jobq_tend_epochs(const JobqSession *session,
									TimestampTz now);

/* ---- survey.c ---- */

/* What counting a sealed epoch's rows has shown. */
typedef struct JobqSurvey
{
	int64		jobs;			/* -1 = not counted yet; does not change */
	int64		ended;
	TimestampTz last_finished;	/* 0 = none; moves aside */
	BlockNumber outcome_blocks; /* there were */
} JobqSurvey;

/*
 * Go on counting an epoch. True when that is done: the survey is filled in,
 * and jobq_survey_totals() tells about the same. Only one is under way.
 */
extern bool jobq_survey_step(const JobqSession *session, int32 epoch,
							 JobqSurvey *survey);
extern int	jobq_survey_totals(JobqTotal **totals);

/*
 * Without counting: may so many more have ended since that survey that none
 * is left?
 */
extern bool jobq_survey_pays(const JobqSession *session, int32 epoch,
							 const JobqSurvey *survey);

/* ---- carry.c ---- */

/*
 * Carry some of an epoch's live tickets to where their queues' new tickets go.
 * *from is 0 at first, and JOBQ_NIL when all were tried. False when the
 * keeper could not begin.
 */
extern bool jobq_carry_some(const JobqSession *session, int32 epoch,
							int32 *from);

/*
 * The same for live tickets that are on disk only, from block *next on. More
 * tells whether there are blocks left.
 */
extern bool jobq_carry_from_disk(const JobqSession *session, int32 epoch,
								 BlockNumber *next, bool *more);

#endif							/* JOBQ_EPOCHS_H */
