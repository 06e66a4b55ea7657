/*
 * compat.h: what differs between PostgreSQL 14 and 18. Nothing else in the
 * tree asks for PG_VERSION_NUM.
 */
#ifndef JOBQ_COMPAT_H
#define JOBQ_COMPAT_H

#include "access/genam.h"
#include "access/transam.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#include "commands/vacuum.h"
#include "nodes/extensible.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 150000
#include "common/pg_prng.h"
#else
#include "postmaster/autovacuum.h"
#include "postmaster/bgworker_internals.h"
#include "replication/walsender.h"
#endif
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#endif

/* Before 15 each custom node is expected to compute its target list. */
#ifndef CUSTOMPATH_SUPPORT_PROJECTION
#define CUSTOMPATH_SUPPORT_PROJECTION	0
#endif

/* Uniform in [0, 1). */
static inline double
jobq_random(void)
{
#if PG_VERSION_NUM >= 150000
	return pg_prng_double(&pg_global_prng_state);
#else
	return (double) random() / ((double) MAX_RANDOM_VALUE + 1);
#endif
}

/* Before the declaration of a function that does not return. */
#if PG_VERSION_NUM >= 180000
#define JOBQ_NORETURN pg_noreturn
#else
#define JOBQ_NORETURN pg_attribute_noreturn()
#endif

/* pgprocno: a backend's place among all PGPROCs, stable while it lives. */
static inline int
jobq_my_procno(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

static inline void
jobq_set_latch(int procno)
{
	SetLatch(&GetPGProcByNumber(procno)->procLatch);
}

/*
 * How many processes may run SQL: their pgprocno is below it. 14 does not know
 * yet when shared memory is asked for.
 */
static inline int
jobq_max_backends(void)
{
#if PG_VERSION_NUM >= 150000
	return MaxBackends;
#else
	return MaxConnections + autovacuum_max_workers + 1 +
		max_worker_processes + max_wal_senders;
#endif
}

/*
 * libpq/libpq.h wants the headers of GSSAPI and OpenSSL; this is all that we
 * want of it. The set, NULL without a client, has socket, latch, postmaster.
 */
extern PGDLLIMPORT WaitEventSet *FeBeWaitSet;
extern bool pq_check_connection(void);

#define JOBQ_CLIENT_SOCKET_POS	0

static inline bool
jobq_client_is_gone(void)
{
	return FeBeWaitSet != NULL && !pq_check_connection();
}

/*
 * Sleep until our latch is set or the time is over, in ms; from 15 on also
 * until the client closes its connection.
 */
static inline void
jobq_sleep(long timeout, uint32 wait_event)
{
#if PG_VERSION_NUM >= 150000
	if (FeBeWaitSet != NULL && WaitEventSetCanReportClosed())
	{
		WaitEvent	event = {0};

		ModifyWaitEvent(FeBeWaitSet, JOBQ_CLIENT_SOCKET_POS, WL_SOCKET_CLOSED,
						NULL);
		(void) WaitEventSetWait(FeBeWaitSet, timeout, &event, 1, wait_event);
		if (event.events & WL_POSTMASTER_DEATH)
			proc_exit(1);
		return;
	}
#endif
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout, wait_event);
}

/*
 * Have the postmaster call request() when it collects what shared memory and
 * locks are asked for. *previous is what request() must call first, or NULL.
 */
static inline void
jobq_on_shmem_request(void (*request) (void), void (**previous) (void))
{
#if PG_VERSION_NUM >= 150000
	*previous = shmem_request_hook;
	shmem_request_hook = request;
#else
	*previous = NULL;
	request();
#endif
}

static inline IndexScanDesc
jobq_index_beginscan(Relation heap, Relation index, Snapshot snapshot,
					 int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

static inline bool
jobq_may_execute(Oid function, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, role,
						   ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

static inline bool
jobq_owns_database(Oid dbid, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, dbid, role);
#else
	return pg_database_ownercheck(dbid, role);
#endif
}

static inline bool
jobq_owns_extension(Oid extension, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(ExtensionRelationId, extension, role);
#else
	return pg_extension_ownercheck(extension, role);
#endif
}

/* What pg_stat_activity shows while waiting; 17 has names for it. */
static inline uint32
jobq_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	return PG_WAIT_EXTENSION;
#endif
}

/* Send statistics; returns ms after which to try again, 0 = all is sent. */
static inline long
jobq_report_stat(bool force)
{
#if PG_VERSION_NUM >= 150000
	return pgstat_report_stat(force);
#else
	pgstat_report_stat(force);
	return 0;
#endif
}

/* VACUUM of a table with its TOAST table. */
#if PG_VERSION_NUM >= 160000
#define JOBQ_VACUUM_ALL \
	(VACOPT_VACUUM | VACOPT_PROCESS_MAIN | VACOPT_PROCESS_TOAST)
#else
#define JOBQ_VACUUM_ALL	(VACOPT_VACUUM | VACOPT_PROCESS_TOAST)
#endif

/*
 * VACUUM tables (a List of VacuumRelation in `context`, which lives on over
 * transactions), each in a transaction of its own. Ends the present one, which
 * has done nothing but find them, and begins another.
 */
static inline void
jobq_vacuum(List *tables, VacuumParams *params, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	BufferAccessStrategy ring = GetAccessStrategy(BAS_VACUUM);

	MemoryContextSwitchTo(old);
#if PG_VERSION_NUM >= 160000
	vacuum(tables, params, ring, context, true);
#else
	/* it takes what it needs as a child of this one */
	PortalContext = context;
	vacuum(tables, params, ring, true);
	PortalContext = NULL;
#endif
}

/* An interrupted DROP DATABASE leaves one that nobody can connect to. */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB	(-2)
#endif

#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)

/* A tuplestore in rsinfo for the rows of a set-returning function. */
static inline void
InitMaterializedSRF(FunctionCallInfo fcinfo, bits32 flags)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;
	TupleDesc	desc;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		!(rsinfo->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setDesc = desc;
	rsinfo->setResult =
		tuplestore_begin_heap((rsinfo->allowedModes &
							   SFRM_Materialize_Random) != 0, false,
							  work_mem);
	MemoryContextSwitchTo(old);
}
#elif !defined(MAT_SRF_BLESS)
#define InitMaterializedSRF(fcinfo, flags) SetSingleFuncCall(fcinfo, flags)
#endif

/* Does nobody hold the lock of a transaction? Never waits. */
#if PG_VERSION_NUM >= 180000
#define jobq_xact_lock_is_free(xid)	ConditionalXactLockTableWait(xid, false)
#else
#define jobq_xact_lock_is_free(xid)	ConditionalXactLockTableWait(xid)
#endif

#endif							/* JOBQ_COMPAT_H */
