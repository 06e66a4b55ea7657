/*
 * dequeue.h: one call that dequeues, as a function or as a procedure.
 */
#ifndef JOBQ_DEQUEUE_H
#define JOBQ_DEQUEUE_H

#include "engine/engine.h"
#include "fmgr.h"
#include "utils/jsonb.h"

/* A function cannot let go of its caller's snapshot, so it waits no longer. */
#define JOBQ_FUNCTION_WAIT		(20 * USECS_PER_SEC)

typedef struct JobqDequeue
{
	const char *what;			/* "jobq.dequeue()" */
	bool		in_call;		/* a procedure */
	int			nqueues;
	char	  **names;
	JobqQueue  *queues;			/* as the last attempt found them */
	int64		max_jobs;
	int64		wait;			/* us */
	int64		lease_for;		/* us, 0 = the queue's */
	char	   *worker;			/* NULL = none */
	const JobqSession *begun;	/* by the caller, for the first attempt, which
								 * looks the queues up again; or NULL */
	int64		lease;
	List	   *deliveries;
	Jsonb	   *json;			/* they, for a procedure */
} JobqDequeue;

/*
 * Argument 0, a queue or an array of them; and the others: max_jobs, wait (at
 * most max_wait counts), lease_for and worker, from `first` on.
 */
extern void jobq_dequeue_from_one(FunctionCallInfo fcinfo, JobqDequeue *call);
extern void jobq_dequeue_from_any(FunctionCallInfo fcinfo, JobqDequeue *call);
extern void jobq_dequeue_args(FunctionCallInfo fcinfo, int first,
							  int64 max_wait, JobqDequeue *call);

/* An argument that says how long to wait; NULL = the default. */
extern int64 jobq_arg_wait(FunctionCallInfo fcinfo, int argno,
						   int64 default_wait, int64 max_wait);
extern TimestampTz jobq_wait_deadline(int64 wait);

/*
 * Enter and look the queues up, demanding the privilege. Whoever goes on in the
 * same transaction sets `begun`.
 */
extern void jobq_dequeue_begin(JobqDequeue *call, JobqSession *session);

/* Deliveries, none if there was none in time. Demands the privilege. */
extern List *jobq_dequeue(JobqDequeue *call);

extern PGDLLEXPORT Datum jobq_sql_dequeue(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum jobq_sql_dequeue_any(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum jobq_sql_complete_and_dequeue(PG_FUNCTION_ARGS);

#endif							/* JOBQ_DEQUEUE_H */
