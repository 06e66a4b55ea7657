/*
 * prepared.h: entries of prepared transactions that have enqueued, as they are
 * made and, after a restart, found again. Private to src/engine.
 */
#ifndef JOBQ_ENGINE_PREPARED_H
#define JOBQ_ENGINE_PREPARED_H

#include "engine/engine.h"

/* ---- prepared.c ---- */

/*
 * The entry's place for a queue; -1: there is none left, and the entry says
 * that it does not know all.
 */
extern int	jobq_prepared_queue(JobqPrepared *entry, int32 queue_id);

/* ---- preparedload.c: recovery ---- */

/* Have those watched that are prepared now; what they have done is unknown. */
extern void jobq_find_prepared(const JobqSession *session);

/* A job of one of them; true if it holds room in a queue with limits. */
typedef bool (*JobqPreparedVisitor) (const JobqRow *row, void *state);

/*
 * Find out about them. To be called when what is committed has been counted:
 * of one that has ended meanwhile nothing more is known than before.
 */
extern void jobq_load_prepared(const JobqSession *session,
							   JobqPreparedVisitor visit, void *state);

#endif							/* JOBQ_ENGINE_PREPARED_H */
