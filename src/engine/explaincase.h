/*
 * explaincase.h: what explain.c and explainqueue.c share. Private to them.
 */
#ifndef JOBQ_EXPLAINCASE_H
#define JOBQ_EXPLAINCASE_H

#include "dispatch/meter.h"
#include "engine/explain.h"

/* What the probes look at. */
typedef struct JobqCase
{
	const JobqSession *session;
	TimestampTz now;
	JobqQueue	queue;
	JobqSeen	seen;
	JobqTicket	t;				/* of a job: it is available */
	JobqReason *reason;
} JobqCase;

/* A probe says true when it has given the reason; the first one decides. */
typedef bool (*JobqWhy) (const JobqCase *c);

extern bool jobq_first_reason(const JobqWhy *probes, int n,
							  const JobqCase *c);

/* Give the reason; true, for a probe to say so, too. */
extern bool jobq_because(JobqReason *reason, const char *word,
						 TimestampTz until, char *detail, char *hint);

/* Texts for it: a time; a call with the queue; who has stopped it, and when. */
extern char *jobq_at_time(TimestampTz when);
extern char *jobq_call_for(const char *function, const JobqQueue *queue);
extern char *jobq_stopped_by(const JobqStop *stop);

/* The queue's part; NULL when it has none. */
extern JobqPart *jobq_case_part(const JobqCase *c);

/* Probes for jobs that are available, and for queues. */
extern bool jobq_why_copy(const JobqCase *c);
extern bool jobq_why_paused(const JobqCase *c);
extern bool jobq_why_limited(const JobqCase *c);
extern bool jobq_why_loading(const JobqCase *c);

#endif							/* JOBQ_EXPLAINCASE_H */
