/*
 * keeperxact.c: the keeper's transactions and queries. What it does in them
 * is not decided here.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "engine/keeperxact.h"

bool		jobq_in_keeper = false;

bool
jobq_keeper_begin(Oid install)
{
	jobq_in_keeper = true;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (!ConditionalLockRelationOid(install, AccessShareLock) ||
		jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE) != install)
	{
		AbortCurrentTransaction();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

void
jobq_keeper_commit(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

/* Undo it all. */
void
jobq_keeper_abort(void)
{
	PopActiveSnapshot();
	AbortCurrentTransaction();
}

void
jobq_absorb_error(bool report)
{
	HOLD_INTERRUPTS();
	if (report)
		EmitErrorReport();
	LWLockReleaseAll();
	AbortOutOfAnyTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
}

bool
jobq_keeper_try_expecting(void (*work) (void *state),
						  bool (*expected) (const ErrorData *error,
											void *state),
						  void *state)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = true;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		work(state);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		HOLD_INTERRUPTS();
		if (expected == NULL || !expected(CopyErrorData(), state))
			EmitErrorReport();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		RESUME_INTERRUPTS();
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

bool
jobq_keeper_try(void (*work) (void *state), void *state)
{
	return jobq_keeper_try_expecting(work, NULL, state);
}

void
jobq_keeper_query(const char *query, int nargs, Oid *types, Datum *values,
				  JobqRowHandler handler, void *state)
{
	SPIPlanPtr	plan;
	Portal		portal;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = SPI_prepare(query, nargs, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare: %s", SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, values, NULL, true);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, 1000);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
			handler(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, state);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	SPI_finish();
}

Datum
jobq_row_value(HeapTuple tuple, TupleDesc desc, int column, bool *null)
{
	bool		is_null;
	Datum		value = SPI_getbinval(tuple, desc, column, &is_null);

	if (null != NULL)
		*null = is_null;
	else if (is_null)
		elog(ERROR, "unexpected null in column %d", column);
	return value;
}
