/*
 * belts.h: the tables of one epoch at a time, opened when first needed.
 * Private to src/engine; locks stay to the end of the transaction.
 */
#ifndef JOBQ_BELTS_H
#define JOBQ_BELTS_H

#include "engine/engine.h"

typedef struct JobqBelts
{
	int32		epoch;			/* 0 = none open */
	Relation	rel[BELT_OUTCOME + 1];
	JobqReader	jobs;			/* of the job table */
} JobqBelts;

/* The table of an epoch for reading or appending; NULL when dropped. */
extern Relation jobq_belts_read(JobqBelts *belts, int32 epoch,
								JobqBeltKind kind);
extern Relation jobq_belts_write(JobqBelts *belts, int32 epoch,
								 JobqBeltKind kind);
extern void jobq_belts_close(JobqBelts *belts);

/* Has a ticket an outcome? Also when its epoch has been dropped. */
extern bool jobq_has_ended(JobqBelts *belts, const JobqTicket *t);

/*
 * Open the job table that new tickets of a class go to and keep it from
 * being sealed under us. Returns its epoch; ERROR when there is none.
 */
extern int32 jobq_belts_current(const JobqSession *session,
								JobqBelts *belts, int32 class_id);

#endif							/* JOBQ_BELTS_H */
