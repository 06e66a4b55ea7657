/*
 * compat.h: what differs between PostgreSQL 14 and 18. Nothing else in the
 * tree asks for PG_VERSION_NUM.
 */
#ifndef JOBQ_COMPAT_H
#define JOBQ_COMPAT_H

#include "access/genam.h"
#include "storage/proc.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
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

#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

#endif							/* JOBQ_COMPAT_H */
