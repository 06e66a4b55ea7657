/*
 * engine.h: the rules of the queue: what a transaction publishes, claims and
 * ends, and what the keeper does.
 *
 * Sits between the tables (store) and shared memory (dispatch). Checks no
 * privileges, except in look.c; that is the business of src/api.
 */
#ifndef JOBQ_ENGINE_H
#define JOBQ_ENGINE_H

#include "dispatch/dispatch.h"
#include "store/store.h"

/* ---- clock ---- */

/* The one clock of leases, delays and timers. */
extern TimestampTz jobq_now(void);

/* ---- session.c: what every entry point starts with ---- */

typedef struct JobqSession
{
	JobqDb	   *db;
	uint32		gen;
} JobqSession;

/*
 * Gate (jobq_enter) and this database's entry. For functions that write:
 * refuses read-only transactions, recovery and parallel mode, naming `what`,
 * such as "jobq.enqueue()".
 */
extern void jobq_begin_write(const char *what, JobqSession *session);
extern void jobq_begin_read(JobqSession *session);

/* Wait until the keeper has recovered; JQ009 after timeout_ms. */
extern void jobq_await_ready(const JobqSession *session, int timeout_ms);

/* ---- xact.c: what a transaction has done, published at its end ---- */

extern void jobq_register_xact_callbacks(void);

/* ---- enqueue.c ---- */

extern int64 jobq_enqueue_row(const JobqSession *session,
							  const JobqQueue *queue, JobqRow *row,
							  TimestampTz now);
extern void jobq_enqueue_rows(const JobqSession *session,
							  const JobqQueue *queue, JobqRow *rows, int nrows,
							  TimestampTz now, int64 *ids);

/* ---- keeper's work; each opens and commits its own transactions ---- */

/* Load shared memory from the tables; leaves the database READY. */
extern void jobq_recover(JobqDb *db, uint32 gen);

/*
 * Everything that is due: expired leases, rolled-back claims, start records,
 * due jobs on the shelf, reservations, reloads, prepared transactions. Bounded
 * work per call. Returns when to call again (JOBQ_NEVER: when woken).
 */
extern TimestampTz jobq_tend(JobqDb *db, uint32 gen);

/*
 * Begin a keeper transaction: snapshot pushed and the gate taken without
 * waiting. False (and no transaction) when the extension is gone, is being
 * dropped, or is another installation than `install`.
 */
extern bool jobq_keeper_begin(Oid install);
extern void jobq_keeper_commit(void);

/* ---- look.c: a job's present state, put together from table and memory ---- */

/* Fill a tuplestore (the shape of view jobs) with live / final / dead jobs the
 * current role may see; id 0 = all. */
typedef enum JobqLookWhat
{
	LOOK_LIVE,
	LOOK_FINAL,
	LOOK_DEAD
} JobqLookWhat;

#endif							/* JOBQ_ENGINE_H */
