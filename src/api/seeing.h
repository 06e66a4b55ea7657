/*
 * seeing.h: what the functions that show queues share. Changes nothing.
 */
#ifndef JOBQ_SEEING_H
#define JOBQ_SEEING_H

#include "engine/engine.h"

/*
 * The queues the current role may know of, by number: any privilege on it, or
 * monitor. Palloc'd; how many comes back.
 */
extern int	jobq_visible_queues(JobqQueue **queues);

/* Jobs of the queue that are available, less those counted too late. */
#define JOBQ_AVAILABLE(counters) \
	Max((counters)[COUNT_AVAILABLE] - (counters)[COUNT_BLOCKED], 0)

#endif							/* JOBQ_SEEING_H */
