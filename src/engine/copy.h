/*
 * copy.h: copies of a database: noticed, paused, adopted.
 *
 * Private to src/engine; what others need is in engine.h.
 */
#ifndef JOBQ_COPY_H
#define JOBQ_COPY_H

#include "engine/engine.h"

/* Keeper, when recovery begins: note whether the queues start paused. */
extern void jobq_begin_copy(JobqDb *db);

/*
 * Look into the tables whether this database is a copy, and have everybody
 * know. In a transaction; takes a snapshot of its own.
 */
extern bool jobq_is_copy(JobqDb *db);

#endif							/* JOBQ_COPY_H */
