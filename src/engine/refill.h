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

#endif							/* JOBQ_REFILL_H */
