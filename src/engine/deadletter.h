/*
 * deadletter.h: copies of dead jobs in dead-letter queues. Private to
 * src/engine.
 */
#ifndef JOBQ_DEADLETTER_H
#define JOBQ_DEADLETTER_H

#include "engine/move.h"

/* Put a copy into the queue's dead-letter queue; its id, 0 without one. */
extern int64 jobq_dead_letter(const JobqSession *session,
							  const JobqQueue *queue, const JobqRow *row,
							  const JobqMove *move, TimestampTz now);

/* Where a copy came from; false when the headers do not say. */
extern bool jobq_dead_letter_origin(const JobqRow *copy, int64 *id,
									char **queue);

/* The headers without their dead_letter entry. */
extern void jobq_strip_dead_letter(JobqRow *row);

#endif							/* JOBQ_DEADLETTER_H */
