/*
 * unique.h: unique keys, as the rest of the engine needs them. Private to
 * src/engine.
 */
#ifndef JOBQ_UNIQUE_H
#define JOBQ_UNIQUE_H

#include "engine/engine.h"

/*
 * Take the key of a new job that repeats another one, for whoever enqueued
 * that: nowait, if nobody holds it or is about to take it. False: it is taken;
 * *holder has it, 0 = nobody can tell yet (nowait only). *id is the new job's
 * number.
 */
extern bool jobq_key_take_again(const JobqSession *session,
								const JobqQueue *queue, const JobqRow *old,
								bool nowait, int64 *id, int64 *holder);

typedef enum JobqKeyFate
{
	KEY_KEPT,					/* or there was none */
	KEY_LOST,					/* somebody else holds it by now */
	KEY_IN_DOUBT				/* somebody is taking it (keeper only) */
} JobqKeyFate;

/* A running job, in our hands, would wait again. May it? */
extern JobqKeyFate jobq_key_returns(const JobqSession *session,
									const JobqRow *row);

/* ---- keykeeper.c ---- */

/* Delete rows that mean nothing any more, a piece; when to come again. */
extern TimestampTz jobq_tend_keys(const JobqSession *session, TimestampTz now,
								  bool asked_for);

#endif							/* JOBQ_UNIQUE_H */
