/*
 * key.h: a place in a queue's order. Part of dispatch.h.
 */
#ifndef JOBQ_KEY_H
#define JOBQ_KEY_H

#include "datatype/timestamp.h"

/*
 * The priority may be JOBQ_KEY_START or _END. In an aging queue the priority
 * of all others is 0, its worth part of run_at.
 */
typedef struct JobqKey
{
	int32		priority;
	TimestampTz run_at;
	int64		id;
} JobqKey;

#define JOBQ_KEY_START	PG_INT32_MIN	/* before all jobs */
#define JOBQ_KEY_END	PG_INT32_MAX	/* after all jobs */

#endif							/* JOBQ_KEY_H */
