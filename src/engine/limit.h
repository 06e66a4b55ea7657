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

/*
 * Once the running tickets are in memory: what was taken, has failed and was
 * enqueued lately in queues with limits, and who is in grace there.
 */
extern void jobq_load_limits(const JobqSession *session);

#endif							/* JOBQ_ENGINE_LIMIT_H */
