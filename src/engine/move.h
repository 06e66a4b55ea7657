/*
 * move.h: a job leaves its ticket and goes on elsewhere. Private to
 * src/engine.
 */
#ifndef JOBQ_MOVE_H
#define JOBQ_MOVE_H

#include "engine/engine.h"

typedef struct JobqMove
{
	char		attempt_outcome;	/* ATTEMPT_*, 0 = no attempt ended */
	bool		counted;		/* does that attempt count? */
	const char *error;
	const char *reason;
	int64		delay;			/* us until it may run again */
	TimestampTz run_at;			/* 0 = now + delay, shelved when later */
	bool		set_priority;
	int16		priority;
} JobqMove;

/*
 * Outcome `moved`, and a new ticket or a place on the shelf; or the end of a
 * job whose attempt has ended and whose unique key is another's by now.
 */
extern JobqGivenBack jobq_move(const JobqSession *session, JobqHeld *held,
							   const JobqQueue *queue, const JobqMove *move);

/* A waiting job goes on as this row, which has its id. */
extern void jobq_move_as(const JobqSession *session, JobqHeld *held,
						 const JobqQueue *queue, JobqRow *row,
						 const char *reason);

/* Outcome `dead`, a row on the shelf, a copy in the dead-letter queue. */
extern void jobq_move_to_dead(const JobqSession *session, JobqHeld *held,
							  const JobqQueue *queue, const JobqMove *move);

/* ---- expire.c: outcome `expired`, perhaps a copy for the dead letters ---- */

extern void jobq_expire_held(const JobqSession *session, JobqHeld *held,
							 const JobqQueue *queue);

/* The same for one that has been taken off the shelf. */
extern void jobq_expire_shelved(const JobqSession *session, JobqRow *row,
								const JobqQueue *queue);

/* ---- steer.c: a waiting job, to be changed or ended ---- */

typedef enum JobqWaitingJob
{
	WAITING_HELD,				/* in our hands */
	WAITING_SHELVED,			/* its row is off the shelf */
	WAITING_NOT_RUNS,
	WAITING_NOT_FINAL,
	WAITING_NO_JOB
} JobqWaitingJob;

extern JobqWaitingJob jobq_take_waiting(const JobqSession *session, int64 id,
									 JobqHeld *held, JobqRow *row);

extern void jobq_cancel_held(const JobqSession *session, JobqHeld *held,
							 const char *reason);

/* ---- move.c again ---- */

/* The row of the job in our hands, with the attempt that ends added to it. */
extern void jobq_read_held(const JobqHeld *held, JobqRow *row);

/* Put the progress reported under the present lease into the row. */
extern void jobq_keep_progress(const JobqHeld *held, JobqRow *row);

/* A row for a new job in this queue that repeats the work of another one. */
extern void jobq_new_job_like(const JobqRow *old, const JobqQueue *queue,
							  TimestampTz now, JobqRow *row);

#endif							/* JOBQ_MOVE_H */
