/*
 * process.h: background processes of pg_jobq before they are registered.
 */
#ifndef JOBQ_PROCESS_H
#define JOBQ_PROCESS_H

#include "postmaster/bgworker.h"

/*
 * "pg_jobq NAME", which runs jobq_NAME_main(), once. To have it start again,
 * or tell somebody, is left to the caller.
 */
extern BackgroundWorker jobq_process(const char *name);

#endif							/* JOBQ_PROCESS_H */
