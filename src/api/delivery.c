/*
 * delivery.c: deliveries as rows of type jobq.delivery. Only forms tuples.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "api/delivery.h"
#include "compat.h"
#include "engine/engine.h"

enum
{
	DELIVERY_ID,
	DELIVERY_LEASE,
	DELIVERY_ATTEMPT,
	DELIVERY_MAX_ATTEMPTS,
	DELIVERY_QUEUE,
	DELIVERY_KIND,
	DELIVERY_PRIORITY,
	DELIVERY_GROUP_KEY,
	DELIVERY_PAYLOAD,
	DELIVERY_HEADERS,
	DELIVERY_ENQUEUED_AT,
	DELIVERY_RUN_AT,
	DELIVERY_LEASE_EXPIRES_AT,
	DELIVERY_LAST_ERROR,
	DELIVERY_PROGRESS,
	DELIVERY_NATTS
};

/* Columns that are copied from the job's row as they are. */
static const struct
{
	int			to;
	JobqJobAttr from;
}			copied[] = {
	{DELIVERY_ID, JOB_ID},
	{DELIVERY_MAX_ATTEMPTS, JOB_MAX_ATTEMPTS},
	{DELIVERY_KIND, JOB_KIND},
	{DELIVERY_GROUP_KEY, JOB_GROUP_KEY},
	{DELIVERY_PAYLOAD, JOB_PAYLOAD},
	{DELIVERY_HEADERS, JOB_HEADERS},
	{DELIVERY_ENQUEUED_AT, JOB_ENQUEUED_AT},
	{DELIVERY_RUN_AT, JOB_RUN_AT},
	{DELIVERY_LAST_ERROR, JOB_LAST_ERROR},
	{DELIVERY_PROGRESS, JOB_PROGRESS},
};

static void
put(ReturnSetInfo *rsinfo, const JobqDelivery *delivery)
{
	const JobqRow *row = &delivery->row;
	Datum		values[DELIVERY_NATTS];
	bool		nulls[DELIVERY_NATTS] = {0};

	for (size_t i = 0; i < lengthof(copied); i++)
	{
		values[copied[i].to] = row->values[copied[i].from];
		nulls[copied[i].to] = row->nulls[copied[i].from];
	}
	values[DELIVERY_LEASE] = Int64GetDatum(delivery->lease);
	nulls[DELIVERY_LEASE] = delivery->lease == 0;
	values[DELIVERY_ATTEMPT] =
		Int32GetDatum(DatumGetInt32(row->values[JOB_ATTEMPT]) + 1);
	values[DELIVERY_QUEUE] = CStringGetTextDatum(delivery->queue->name);
	values[DELIVERY_PRIORITY] =
		Int32GetDatum(DatumGetInt16(row->values[JOB_PRIORITY]));
	values[DELIVERY_LEASE_EXPIRES_AT] =
		TimestampTzGetDatum(delivery->expires_at);
	nulls[DELIVERY_LEASE_EXPIRES_AT] = delivery->lease == 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
jobq_return_deliveries(FunctionCallInfo fcinfo, List *deliveries)
{
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, deliveries)
		put((ReturnSetInfo *) fcinfo->resultinfo, lfirst(cell));
	return (Datum) 0;
}
