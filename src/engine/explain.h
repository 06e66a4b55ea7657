/*
 * explain.h: why a job does not run, why a queue gives none. Changes nothing.
 */
#ifndef JOBQ_EXPLAIN_H
#define JOBQ_EXPLAIN_H

#include "engine/engine.h"

/* The one reason, and the number that decides. */
typedef struct JobqReason
{
	const char *reason;			/* a word */
	TimestampTz until;			/* JOBQ_NEVER = not known */
	char	   *detail;
	char	   *hint;			/* NULL = there is nothing to do */
} JobqReason;

/* False: there is no such job, or the current role may not see it. */
extern bool jobq_explain_job(const JobqSession *session, int64 id,
							 JobqReason *reason);

/* The queue is one that the current role may know of. */
extern void jobq_explain_queue(const JobqSession *session,
							   const JobqQueue *queue, JobqReason *reason);

#endif							/* JOBQ_EXPLAIN_H */
