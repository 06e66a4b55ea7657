/*
 * unique.h: unique keys, as the rest of the engine needs them. Private to
 * src/engine.
 */
#ifndef JOBQ_UNIQUE_H
#define JOBQ_UNIQUE_H

#include "engine/engine.h"
#include "store/ukey.h"

/* ---- keyholder.c ---- */

/* A key, and on whose behalf it is asked for. */
typedef struct JobqUniqueKey
{
	const JobqSession *session;
	int32		queue_id;
	Datum		key;
	Oid			role;
	bool		sees_all;		/* it may see all jobs of the queue */
	int64		except;			/* a job that does not count, 0 = none */
	int64		after;			/* for a job that comes back: its row; 0 =
								 * for a new one */
} JobqUniqueKey;

typedef enum JobqKeyState
{
	KEY_FREE,
	KEY_HELD,
	KEY_BUSY					/* wait for `busy`, then look again */
} JobqKeyState;

typedef struct JobqKeyHolder
{
	int64		id;
	Oid			enqueued_by;
	int64		gen;
	bool		waits;			/* or perhaps it runs, if that is the same */
	TimestampTz expires_at;		/* then */
	TransactionId busy;
} JobqKeyHolder;

/* Among the newest rows of a key, read under its lock. */
extern JobqKeyState jobq_key_find_holder(const JobqUniqueKey *key,
										 const JobqKeyRow *rows, int n,
										 JobqKeyHolder *holder);

/* One more row, newer than all of these. */
extern void jobq_key_add_row(const JobqUniqueKey *key, const JobqKeyRow *rows,
							 int n, const JobqKeyRow *row);

/* ---- keychange.c ---- */

/* New payload and options for a waiting job; false: look again. */
extern bool jobq_key_change_holder(const JobqSession *session,
								   const JobqQueue *queue, int64 id,
								   const JobqRow *new,
								   const JobqUnique *unique);

/* End a holder that has expired, or had a moment ago. */
extern void jobq_key_expire_holder(const JobqSession *session,
								   const JobqQueue *queue, int64 id);

/* ---- unique.c ---- */

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
