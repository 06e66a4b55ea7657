/*
 * copy.c: what a restore does to the tables, and whether they are a copy's:
 * the triggers that let a dump's rows win over those of CREATE EXTENSION.
 * Must not know what a copy may do.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "security/security.h"
#include "store/rows.h"

PG_FUNCTION_INFO_V1(jobq_restore_queue);
PG_FUNCTION_INFO_V1(jobq_restore_grant);
PG_FUNCTION_INFO_V1(jobq_restore_class);

#define DELETE_QUEUE \
	"DELETE FROM jobq.queue WHERE queue_id OPERATOR(pg_catalog.=) $1" \
	" OR queue OPERATOR(pg_catalog.=) $2"

#define DELETE_CLASS \
	"DELETE FROM jobq.class WHERE class OPERATOR(pg_catalog.=) $1" \
	" OR retention OPERATOR(pg_catalog.=) $2 RETURNING class"

#define MOVE_CLASS(table) \
	"UPDATE jobq." table " SET class = $1" \
	" WHERE class OPERATOR(pg_catalog.=) $2"

/* ---- is it a copy? ---- */

typedef bool (*RowTest) (TupleTableSlot *slot, void *state);

/* Is there a row, as of now, that passes? Small tables only. */
static bool
any_row(JobqTable table, RowTest test, void *state)
{
	Relation	rel = table_open(jobq_table_oid(table), AccessShareLock);
	Snapshot	snapshot = jobq_fresh_snapshot();
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		slot_getallattrs(slot);
		found = test(slot, state);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

static bool
is_any(TupleTableSlot *slot, void *state)
{
	return true;
}

/* Columns of jobq.installation; its id comes back. */
static bool
is_made_elsewhere(TupleTableSlot *slot, void *state)
{
	Datum	   *values = slot->tts_values;

	memcpy(state, DatumGetUUIDP(values[1]), sizeof(pg_uuid_t));
	return DatumGetInt64(values[2]) != (int64) GetSystemIdentifier() ||
		DatumGetObjectId(values[3]) != MyDatabaseId;
}

/* The third column of jobq.epoch: whose it is. */
static bool
is_foreign(TupleTableSlot *slot, void *state)
{
	return memcmp(DatumGetUUIDP(slot->tts_values[2]), state,
				  sizeof(pg_uuid_t)) != 0;
}

bool
jobq_store_is_copy(void)
{
	pg_uuid_t	ours;

	return any_row(JOBQ_TABLE_INSTALLATION, is_made_elsewhere, &ours) ||
		any_row(JOBQ_TABLE_RESTORED, is_any, NULL) ||
		any_row(JOBQ_TABLE_EPOCH, is_foreign, &ours);
}

/* ---- triggers ---- */

/* Our own commands run as the owner, for whoever has called us. */
bool
jobq_is_own_command(void)
{
	Oid			role;
	int			context;

	GetUserIdAndSecContext(&role, &context);
	return (context & SECURITY_LOCAL_USERID_CHANGE) != 0;
}

static HeapTuple
new_row(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be called by a trigger before an insert of a row",
						function)));
	return trigger->tg_trigtuple;
}

static Datum
column(FunctionCallInfo fcinfo, HeapTuple row, const char *name, bool *null)
{
	TupleDesc	desc = ((TriggerData *) fcinfo->context)->tg_relation->rd_att;

	return SPI_getbinval(row, desc, SPI_fnumber(desc, name), null);
}

Datum
jobq_restore_queue(PG_FUNCTION_ARGS)
{
	HeapTuple	row = new_row(fcinfo, "jobq._restore_queue()");
	Oid			types[] = {INT4OID, TEXTOID};
	Datum		values[2];
	bool		nulls[2];

	if (jobq_is_own_command())
		return PointerGetDatum(row);
	jobq_queue_changed();
	values[0] = column(fcinfo, row, "queue_id", &nulls[0]);
	values[1] = column(fcinfo, row, "queue", &nulls[1]);
	if (nulls[0] || nulls[1])
		return PointerGetDatum(row);
	SPI_connect();
	(void) jobq_execute(DELETE_QUEUE, lengthof(types), types, values,
						SPI_OK_DELETE);
	SPI_finish();
	return PointerGetDatum(row);
}

Datum
jobq_restore_grant(PG_FUNCTION_ARGS)
{
	HeapTuple	row = new_row(fcinfo, "jobq._restore_grant()");
	bool		null;
	Oid			grantee = DatumGetObjectId(column(fcinfo, row, "grantee",
												  &null));

	jobq_queue_changed();
	return PointerGetDatum(!null && !OidIsValid(grantee) ? NULL : row);
}

/* What is of the class that goes belongs to its successor. */
static void
replace_class(int32 old, Datum new)
{
	Oid			types[] = {INT4OID, INT4OID};
	Datum		values[] = {new, Int32GetDatum(old)};

	if (old == DatumGetInt32(new))
		return;
	(void) jobq_execute(MOVE_CLASS("queue"), lengthof(types), types, values,
						SPI_OK_UPDATE);
	(void) jobq_execute(MOVE_CLASS("epoch"), lengthof(types), types, values,
						SPI_OK_UPDATE);
}

Datum
jobq_restore_class(PG_FUNCTION_ARGS)
{
	HeapTuple	row = new_row(fcinfo, "jobq._restore_class()");
	Oid			types[] = {INT4OID, INT8OID};
	Datum		values[2];
	bool		nulls[2];
	SPITupleTable *gone;
	uint64		n;

	values[0] = column(fcinfo, row, "class", &nulls[0]);
	values[1] = column(fcinfo, row, "retention", &nulls[1]);
	if (jobq_is_own_command() || nulls[0] || nulls[1])
		return PointerGetDatum(row);
	SPI_connect();
	n = jobq_execute(DELETE_CLASS, lengthof(types), types, values,
					 SPI_OK_DELETE_RETURNING);
	gone = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		Datum		old = SPI_getbinval(gone->vals[i], gone->tupdesc, 1, &null);

		replace_class(DatumGetInt32(old), values[0]);
	}
	SPI_finish();
	return PointerGetDatum(row);
}
