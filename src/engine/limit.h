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

/* ---- running.c ---- */

/* Copies of their slots, palloc'd; NULL when there are none. */
extern JobqSlot *jobq_deliveries_under_way(const JobqSession *session,
										   JobqPart *part, int32 queue_id,
										   int *n);

/* ---- limitload.c ---- */

/*
 * Once the running tickets are in memory: what was taken and has failed lately
 * in queues with limits, and who is in grace there.
 */
extern void jobq_load_limits(const JobqSession *session);

/* ---- admitload.c ---- */

/*
 * Once it is counted what waits: what was enqueued lately in queues with
 * limits on that, and what prepared transactions have enqueued anywhere.
 */
extern void jobq_load_admissions(const JobqSession *session);

#endif							/* JOBQ_ENGINE_LIMIT_H */
