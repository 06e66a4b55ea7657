/*
 * process.c: what the background processes of pg_jobq have in common when
 * they are registered. Must not start any.
 */
#include "postgres.h"

#include "engine/process.h"

BackgroundWorker
jobq_process(const char *name)
{
	BackgroundWorker worker = {0};

	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_jobq %s", name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_jobq %s", name);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_jobq",
			sizeof(worker.bgw_library_name));
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "jobq_%s_main", name);
	return worker;
}
