/*
 * late_writer.c: another library that writes while a transaction commits, for
 * 078_lazy_claims.pl.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "replication/message.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(late_write);

static bool wanted;

static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_PRE_COMMIT || !wanted)
		return;
	wanted = false;
#if PG_VERSION_NUM >= 170000
	LogLogicalMessage("late_writer", "x", 1, true, false);
#else
	LogLogicalMessage("late_writer", "x", 1, true);
#endif
}

/* In this transaction, please. */
Datum
late_write(PG_FUNCTION_ARGS)
{
	static bool registered;

	if (!registered)
		RegisterXactCallback(xact_callback, NULL);
	registered = true;
	wanted = true;
	PG_RETURN_VOID();
}
