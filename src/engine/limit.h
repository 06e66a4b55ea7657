/*
 * limit.h: what limits count together, and what a keeper that starts must know
 * of the time before. Private to src/engine.
 */
#ifndef JOBQ_ENGINE_LIMIT_H
#define JOBQ_ENGINE_LIMIT_H

#include "engine/engine.h"

/* Key of an enqueue by a role into a group (NULL = none). */
extern void jobq_admission_key(JobqPer per, Oid role, const text *group,
							   uint64 *key);

/* ---- breaker.c: what has happened to a breaker before ---- */

typedef struct JobqFailure
{
	TimestampTz finished_at;
	TimestampTz claimed_at;
} JobqFailure;

/* The newest probe that has ended. */
typedef struct JobqProbeEnd
{
	TimestampTz claimed_at;		/* 0 = there was none */
	TimestampTz finished_at;
	char		attempt_outcome;
} JobqProbeEnd;

extern bool jobq_is_failure(char attempt_outcome);

/*
 * Until when is it open (0 = it is closed), and at which times, to which
 * `closed` is set, has it failed since it was closed? Sorts the failures.
 */
extern TimestampTz jobq_breaker_replay(const JobqBreaker *breaker,
									   const JobqProbeEnd *probe,
									   JobqFailure *failures, int nfailures,
									   TimestampTz *closed, int *nclosed);

/* ---- limitload.c ---- */

/*
 * Once the running tickets are in memory: what was taken, has failed and was
 * enqueued lately in queues with limits, and who is in grace there.
 */
extern void jobq_load_limits(const JobqSession *session);

#endif							/* JOBQ_ENGINE_LIMIT_H */
