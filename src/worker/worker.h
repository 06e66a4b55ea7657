/*
 * worker.h: the background workers and the hooks that keep them out of the
 * way of database and extension commands. Knows no rule of the queue.
 */
#ifndef JOBQ_WORKER_H
#define JOBQ_WORKER_H

#include "datatype/timestamp.h"

/* ---- worker.c: what both workers share ---- */

/* First thing in a worker's main function: signals. */
extern void jobq_worker_begin(void);

/* Seconds to wait after so many failures in a row: 1, 2, 4 ... cap. */
extern int	jobq_worker_backoff(int failures, int cap);

/*
 * Sleep until the latch is set or `until` has come (JOBQ_NEVER: only the
 * latch). Does not reset the latch.
 */
extern void jobq_worker_sleep(TimestampTz until, const char *wait_event);

/* ---- launcher.c ---- */

extern void jobq_register_launcher(void);
extern PGDLLEXPORT void jobq_launcher_main(Datum main_arg);

/* ---- keeper.c ---- */

extern PGDLLEXPORT void jobq_keeper_main(Datum main_arg);

/* Settings that a worker with a database does not leave to anybody. */
extern void jobq_pin_settings(void);

/* ---- freezer.c ---- */

/* Freezes the epoch whose number is in bgw_extra. */
extern PGDLLEXPORT void jobq_freezer_main(Datum main_arg);

/* ---- hooks.c ---- */

extern void jobq_install_command_hooks(void);

/*
 * The install script's last step: once this transaction has committed, the
 * launcher starts a keeper for this database.
 */
extern void jobq_database_changed(void);

#endif							/* JOBQ_WORKER_H */
