/*
 * claimrow.h: writing rows of claim_N and outcome_N. Private to src/engine.
 */
#ifndef JOBQ_CLAIMROW_H
#define JOBQ_CLAIMROW_H

#include "engine/belts.h"

/*
 * Append a claim row for ascending tickets of one epoch. False when the epoch
 * is gone. tid may be NULL.
 */
/* A delivery's flag in its claim row. */
extern char jobq_claim_flag(const JobqLease *lease);

extern bool jobq_write_claim(JobqBelts *belts, int32 epoch, char flag,
							 const JobqLease *lease, const int64 *tickets,
							 int ntickets, Datum progress, bool progress_null,
							 ItemPointer tid);

/* How a ticket ends; what is not set is NULL in its outcome row. */
typedef struct JobqEnding
{
	char		ended;			/* ENDED_* */
	char		attempt_outcome;	/* ATTEMPT_*, 0 = none */
	int64		next;			/* ticket it goes on with, 0 = none */
	int64		moved_to;		/* dead-letter copy, 0 = none */
	TimestampTz held_until;		/* 0 = not held */
	const char *reason;
	const char *error;
	Datum		result;
	bool		has_result;
} JobqEnding;

/*
 * Append an outcome row for each job held. A conflict in the unique index is
 * counted and raised as JQ015: shared memory should have refused it.
 */
extern void jobq_write_outcomes(const JobqSession *session, JobqBelts *belts,
								const JobqHeld *held, int nheld,
								const JobqEnding *ending, TimestampTz now);

#endif							/* JOBQ_CLAIMROW_H */
