/*
 * refill.h: the keeper's part in keeping queues that are larger than memory
 * in order. Private to src/engine.
 */
#ifndef JOBQ_REFILL_H
#define JOBQ_REFILL_H

#include "engine/engine.h"

/*
 * A piece of work for each queue that wants it. Returns when to come again:
 * `now` while there is more to do at once.
 */
extern TimestampTz jobq_tend_refill(const JobqSession *session,
									TimestampTz now);

/*
 * group.c: load what a queue's groups must know before anything is delivered:
 * the altered ones, and the jobs that keep their places. In a transaction of
 * its own; false when it is to be tried again.
 */
extern bool jobq_load_groups(const JobqSession *session, JobqPart *part);

#endif							/* JOBQ_REFILL_H */
