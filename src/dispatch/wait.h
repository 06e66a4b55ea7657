/*
 * wait.h: what shared memory keeps of sessions that wait: for a queue's jobs,
 * for a queue to be idle, for the end of a job.
 */
#ifndef JOBQ_WAIT_H
#define JOBQ_WAIT_H

#include "datatype/timestamp.h"
#include "port/atomics.h"

#define JOBQ_WAIT_QUEUES	64	/* queues one session can wait for at a time */

typedef enum JobqWaitKind
{
	WAIT_TO_TAKE,				/* takes a job when it is woken */
	WAIT_TO_LOOK,				/* only tells its client, who then may */
	WAIT_TO_RESUME,				/* for a queue that is paused */
	WAIT_TO_IDLE,				/* for a queue's last job */
	WAIT_KINDS
} JobqWaitKind;

/* Links of waiters, first come first; JOBQ_NIL = none. */
typedef struct JobqWaitList
{
	int32		first;
	int32		last;
} JobqWaitList;

/*
 * Those who wait for a queue. Under its part's lock; whether a list is empty
 * may be asked without it by whoever held it after the event.
 */
typedef struct JobqWaiters
{
	JobqWaitList lists[WAIT_KINDS];

	/*
	 * Only one of them wakes up by itself when time makes a job takeable; it
	 * wakes another one when it goes.
	 */
	int			timer_proc;		/* pgprocno, -1 = none */
	TimestampTz timer_at;

	/* Without lock: transactions that are moving jobs to the queue. */
	pg_atomic_uint32 arriving;
} JobqWaiters;

#endif							/* JOBQ_WAIT_H */
