/*
 * keeperxact.h: the keeper's queries, and loading tickets into memory.
 * Private to src/engine.
 */
#ifndef JOBQ_KEEPERXACT_H
#define JOBQ_KEEPERXACT_H

#include "access/htup.h"
#include "engine/engine.h"

typedef void (*JobqRowHandler) (HeapTuple tuple, TupleDesc desc, void *state);

/* Run a read-only query and hand each row to the handler. */
extern void jobq_keeper_query(const char *query, int nargs, Oid *types,
							  Datum *values, JobqRowHandler handler,
							  void *state);

/* A column's value, from 1; with null NULL it must not be null. */
extern Datum jobq_row_value(HeapTuple tuple, TupleDesc desc, int column,
							bool *null);

/*
 * Do it in a subtransaction; false when it failed, which is then logged and
 * undone. A cancel is passed on.
 */
extern bool jobq_keeper_try(void (*work) (void *state), void *state);

/*
 * The same, but an error that `expected` knows is not logged. It is called
 * with the error, in the caller's memory, while that is being undone.
 */
extern bool jobq_keeper_try_expecting(void (*work) (void *state),
									  bool (*expected) (const ErrorData *error,
														void *state),
									  void *state);

/* ---- leftalone.c: jobs that could not be dealt with a moment ago ---- */

extern void jobq_leave_alone(int64 id);
extern bool jobq_is_left_alone(int64 id);

/* When the first of them may be touched again; JOBQ_NEVER when none is. */
extern TimestampTz jobq_left_alone_until(void);

/* ---- load.c ---- */

/*
 * Bring the running tickets into memory with their leases. False when there
 * was no room for all. Runs in the present transaction.
 */
extern bool jobq_load_running(const JobqSession *session);

/*
 * Count all that is on disk for the counters: what is available, from a
 * moment when no producer is between its commit and what it publishes; and
 * what has ended. Nobody may end or take a job meanwhile.
 */
extern void jobq_load_counts(const JobqSession *session);

/* Set the counters of what is on the shelf, and when the next is due. */
extern void jobq_load_shelf(const JobqSession *session);

/* Make a queue's counter say `value`; nobody else may be changing it. */
extern void jobq_set_counter(const JobqSession *session, int32 queue_id,
							 JobqCounter counter, int64 value);

/*
 * Parts of a round; each returns when it wants to come again, JOBQ_NEVER when
 * it is woken.
 */

/* ---- due.c: jobs on the shelf whose time has come ---- */
extern TimestampTz jobq_tend_shelf(const JobqSession *session,
								   TimestampTz now);

/* ---- expire.c: available jobs of a queue that have expired ---- */
extern TimestampTz jobq_tend_expiry(const JobqSession *session, JobqPart *part,
									TimestampTz now);

/* ---- deadrows.c: dead jobs whose retention is over ---- */
extern TimestampTz jobq_tend_dead(const JobqSession *session, TimestampTz now);

/* ---- cron.c: ticks of schedules ---- */
extern TimestampTz jobq_tend_cron(const JobqSession *session, TimestampTz now);

/* ---- notify.c ---- */

/* Send the notifications of what the keeper has brought to the belt. */
extern TimestampTz jobq_tend_notify(const JobqSession *session,
									TimestampTz now);

/* ---- audit.c: refusals and entries of the audit log; also in a copy ---- */
extern TimestampTz jobq_tend_audit(const JobqSession *session,
								   TimestampTz now);

/* ---- recover.c ---- */

/* Write a higher mark, commit the keeper's transaction, open up to it. */
extern void jobq_raise_lease_mark(JobqDb *db);

#endif							/* JOBQ_KEEPERXACT_H */
