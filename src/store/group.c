/*
 * group.c: rows of jobq.queue_group: what alter_group() says of single groups.
 * Changes them as the extension's owner; checks no privileges.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "security/security.h"
#include "store/store.h"

#define READ_GROUP \
	"SELECT running_limit, weight, rate_limit, rate_period, paused_until," \
	" paused_by, paused_at" \
	" FROM jobq.queue_group WHERE queue_id = $1 AND group_key = $2"

#define WRITE_GROUP \
	"INSERT INTO jobq.queue_group AS g VALUES ($1, $2, $3, $4, $5, $6, $7," \
	" CASE WHEN $7 IS NOT NULL THEN $8 END," \
	" CASE WHEN $7 IS NOT NULL THEN pg_catalog.clock_timestamp() END)" \
	" ON CONFLICT (queue_id, group_key) DO UPDATE SET" \
	" running_limit = excluded.running_limit, weight = excluded.weight," \
	" rate_limit = excluded.rate_limit, rate_period = excluded.rate_period," \
	" paused_until = excluded.paused_until," \
	" paused_by = CASE WHEN g.paused_until = excluded.paused_until" \
	"  THEN g.paused_by ELSE excluded.paused_by END," \
	" paused_at = CASE WHEN g.paused_until = excluded.paused_until" \
	"  THEN g.paused_at ELSE excluded.paused_at END"

#define DELETE_GROUP \
	"DELETE FROM jobq.queue_group WHERE queue_id = $1 AND group_key = $2"

#define DELETE_GROUPS \
	"DELETE FROM jobq.queue_group WHERE queue_id = $1"

void
jobq_group_of_tuple(HeapTuple tuple, TupleDesc desc, int column,
					JobqGroupRules *rules)
{
	Datum		values[5];
	bool		nulls[5];

	for (int i = 0; i < 5; i++)
		values[i] = SPI_getbinval(tuple, desc, column + i, &nulls[i]);
	memset(rules, 0, sizeof(*rules));
	rules->limit = DatumGetInt32(values[0]);
	rules->weight = DatumGetInt32(values[1]);
	rules->rate_limit.limit = DatumGetInt32(values[2]);
	rules->rate_limit.period = DatumGetInt64(values[3]);
	rules->paused_until = nulls[4] ? 0 : DatumGetTimestampTz(values[4]);
}

void
jobq_group_read(int32 queue_id, text *key, JobqGroupRules *rules,
				JobqStop *pause)
{
	Oid			types[] = {INT4OID, TEXTOID};
	Datum		values[] = {Int32GetDatum(queue_id), PointerGetDatum(key)};
	JobqOwnerContext owner;

	memset(rules, 0, sizeof(*rules));
	memset(pause, 0, sizeof(*pause));
	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(READ_GROUP, lengthof(types), types, values,
							  NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read a group");
	if (SPI_processed > 0)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Datum		value;

		jobq_group_of_tuple(tuple, desc, 1, rules);
		value = SPI_getbinval(tuple, desc, 6, &isnull);
		pause->by = isnull ? InvalidOid : DatumGetObjectId(value);
		value = SPI_getbinval(tuple, desc, 7, &isnull);
		pause->at = isnull ? 0 : DatumGetTimestampTz(value);
	}
	PopActiveSnapshot();
	jobq_disconnect(&owner);
}

static void
write_row(int32 queue_id, text *key, const JobqGroupRules *rules, Oid role)
{
	Oid			types[] = {INT4OID, TEXTOID, INT4OID, INT4OID, INT4OID,
	INT8OID, TIMESTAMPTZOID, OIDOID};
	Datum		values[] = {
		Int32GetDatum(queue_id),
		PointerGetDatum(key),
		Int32GetDatum(rules->limit),
		Int32GetDatum(rules->weight),
		Int32GetDatum(rules->rate_limit.limit),
		Int64GetDatum(rules->rate_limit.period),
		TimestampTzGetDatum(rules->paused_until),
		ObjectIdGetDatum(role)
	};
	char		nulls[] = "        ";

	if (rules->paused_until == 0)
		nulls[6] = 'n';
	if (SPI_execute_with_args(WRITE_GROUP, lengthof(types), types, values,
							  nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write a group");
}

void
jobq_group_write(int32 queue_id, text *key, const JobqGroupRules *rules)
{
	Oid			role = GetUserId();
	Oid			types[] = {INT4OID, TEXTOID};
	Datum		values[] = {Int32GetDatum(queue_id), PointerGetDatum(key)};
	JobqOwnerContext owner;

	jobq_connect_as_owner(&owner);
	jobq_queue_changed();
	if (jobq_rules_alter_group(rules))
		write_row(queue_id, key, rules, role);
	else
		(void) jobq_execute(DELETE_GROUP, lengthof(types), types, values,
							SPI_OK_DELETE);
	jobq_disconnect(&owner);
}

void
jobq_group_delete_all(int32 queue_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(queue_id);

	(void) jobq_execute(DELETE_GROUPS, 1, &type, &value, SPI_OK_DELETE);
}
