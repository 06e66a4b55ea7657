/*
 * pg_jobq.c: what happens when the library is loaded: settings, hooks, the
 * launcher's registration. Must not do any work of its own.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/varlena.h"

#include "api/scan.h"
#include "dispatch/dispatch.h"
#include "engine/engine.h"
#include "guc.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

static shmem_startup_hook_type previous_shmem_startup_hook;

/* pg_jobq, $libdir/pg_jobq, /some/where/pg_jobq.so: all the same. */
static bool
is_this_library(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash != NULL ? slash + 1 : path;

	return strcmp(base, "pg_jobq") == 0 ||
		strcmp(base, "pg_jobq" DLSUFFIX) == 0;
}

/*
 * Does pg_jobq come first in shared_preload_libraries? Only then do its
 * callbacks run after those of all others at commit.
 */
static bool
is_preloaded_first(void)
{
	char	   *raw = pstrdup(shared_preload_libraries_string);
	List	   *paths = NIL;
	bool		first;

	first = SplitDirectoriesString(raw, ',', &paths) && paths != NIL &&
		is_this_library(linitial(paths));
	list_free_deep(paths);
	pfree(raw);
	return first;
}

static void
shmem_startup(void)
{
	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	pg_atomic_write_u32(&jobq_control->preload_first, is_preloaded_first());
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
	{
		/* pg_upgrade loads every library into a server of its own. */
		if (IsBinaryUpgrade)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_jobq must be loaded through shared_preload_libraries"),
				 errdetail("Its queues live in shared memory, which is set up when the server starts."),
				 errhint("Put this line into postgresql.conf and restart the server:\n"
						 "shared_preload_libraries = 'pg_jobq'\n"
						 "Where it names other libraries already, put pg_jobq first and keep them after it, as in:\n"
						 "shared_preload_libraries = 'pg_jobq,pg_stat_statements'")));
	}

	jobq_define_settings();
	jobq_define_preload_settings();
	jobq_shmem_install_hooks();
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	jobq_register_xact_callbacks();
	if (IsBinaryUpgrade)
		return;
	jobq_install_scan();
	jobq_install_command_hooks();
	jobq_register_launcher();
}
