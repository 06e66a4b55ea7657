/*
 * meter.h: minutes and hours of queues: what memory counts and what the keeper
 * has written down of it. Changes nothing but the keeper's tables.
 */
#ifndef JOBQ_ENGINE_METER_H
#define JOBQ_ENGINE_METER_H

#include "utils/tuplestore.h"

#include "dispatch/meter.h"
#include "engine/engine.h"

/*
 * Keeper: write down the hours that are over, and delete what is too old, when
 * another hour has begun. Not to be come back for: the first thing that
 * happens in an hour wakes the keeper.
 */
extern void jobq_tend_meters(const JobqSession *session, TimestampTz now);

/*
 * Keeper that fills memory: bring in what the last one has written of the
 * present hour. Commits the transaction; `context` must outlive that.
 */
extern void jobq_load_meters(const JobqSession *session,
							 MemoryContext context);

/* Rows of queue_minutes and queue_hours for these queues. */
extern void jobq_show_minutes(const JobqSession *session,
							  const JobqQueue *queues, int nqueues,
							  Tuplestorestate *store, TupleDesc desc);
extern void jobq_show_hours(const JobqSession *session,
							const JobqQueue *queues, int nqueues,
							Tuplestorestate *store, TupleDesc desc);

#endif							/* JOBQ_ENGINE_METER_H */
