/*
 * delivery.c: what calls give back: deliveries as rows of type jobq.delivery
 * or as JSON, and the argument of a procedure. Only forms values.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/tuplestore.h"

#include "api/delivery.h"
#include "compat.h"
#include "engine/engine.h"
#include "security/sign.h"

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

typedef struct Attribute
{
	const char *name;
	Oid			type;
} Attribute;

static const Attribute delivery_attributes[DELIVERY_NATTS] = {
	[DELIVERY_ID] = {"id", INT8OID},
	[DELIVERY_LEASE] = {"lease", INT8OID},
	[DELIVERY_ATTEMPT] = {"attempt", INT4OID},
	[DELIVERY_MAX_ATTEMPTS] = {"max_attempts", INT4OID},
	[DELIVERY_QUEUE] = {"queue", TEXTOID},
	[DELIVERY_KIND] = {"kind", TEXTOID},
	[DELIVERY_PRIORITY] = {"priority", INT4OID},
	[DELIVERY_GROUP_KEY] = {"group_key", TEXTOID},
	[DELIVERY_PAYLOAD] = {"payload", JSONBOID},
	[DELIVERY_HEADERS] = {"headers", JSONBOID},
	[DELIVERY_ENQUEUED_AT] = {"enqueued_at", TIMESTAMPTZOID},
	[DELIVERY_RUN_AT] = {"run_at", TIMESTAMPTZOID},
	[DELIVERY_LEASE_EXPIRES_AT] = {"lease_expires_at", TIMESTAMPTZOID},
	[DELIVERY_LAST_ERROR] = {"last_error", TEXTOID},
	[DELIVERY_PROGRESS] = {"progress", JSONBOID},
};

static const Attribute outcome_attributes[] = {
	{"state", TEXTOID},
	{"result", JSONBOID},
	{"error", TEXTOID},
};

#define COMPUTED	(-1)		/* see value_of() */

/* Which columns are copied from the job's row as they are. */
static const int copied_from[DELIVERY_NATTS] = {
	[DELIVERY_ID] = JOB_ID,
	[DELIVERY_LEASE] = COMPUTED,
	[DELIVERY_ATTEMPT] = COMPUTED,
	[DELIVERY_MAX_ATTEMPTS] = JOB_MAX_ATTEMPTS,
	[DELIVERY_QUEUE] = COMPUTED,
	[DELIVERY_KIND] = JOB_KIND,
	[DELIVERY_PRIORITY] = COMPUTED,
	[DELIVERY_GROUP_KEY] = JOB_GROUP_KEY,
	[DELIVERY_PAYLOAD] = JOB_PAYLOAD,
	[DELIVERY_HEADERS] = JOB_HEADERS,
	[DELIVERY_ENQUEUED_AT] = JOB_ENQUEUED_AT,
	[DELIVERY_RUN_AT] = JOB_RUN_AT,
	[DELIVERY_LEASE_EXPIRES_AT] = COMPUTED,
	[DELIVERY_LAST_ERROR] = JOB_LAST_ERROR,
	[DELIVERY_PROGRESS] = JOB_PROGRESS,
};

const char *const jobq_rows_name = "JobqRows";

/* The headers with the signature of what is delivered. */
static Datum
sign(const JobqDelivery *delivery)
{
	const JobqRow *row = &delivery->row;
	Jsonb	   *headers = row->nulls[JOB_HEADERS] ? NULL :
		DatumGetJsonbP(row->values[JOB_HEADERS]);

	headers = jobq_sign_headers(delivery->queue->sign,
								DatumGetInt64(row->values[JOB_ID]),
								delivery->claimed_at,
								DatumGetJsonbP(row->values[JOB_PAYLOAD]),
								headers);
	return JsonbPGetDatum(headers);
}

static Datum
value_of(const JobqDelivery *delivery, int column, bool *isnull)
{
	const JobqRow *row = &delivery->row;

	*isnull = false;
	switch (column)
	{
		case DELIVERY_LEASE:
			*isnull = delivery->lease == 0;
			return Int64GetDatum(delivery->lease);
		case DELIVERY_ATTEMPT:
			return Int32GetDatum(DatumGetInt32(row->values[JOB_ATTEMPT]) + 1);
		case DELIVERY_QUEUE:
			return CStringGetTextDatum(delivery->queue->name);
		case DELIVERY_PRIORITY:
			return Int32GetDatum(DatumGetInt16(row->values[JOB_PRIORITY]));
		case DELIVERY_LEASE_EXPIRES_AT:
			*isnull = delivery->lease == 0;
			return TimestampTzGetDatum(delivery->expires_at);
		case DELIVERY_HEADERS:
			if (delivery->queue->sign[0] != '\0' && delivery->lease != 0)
				return sign(delivery);
			break;
		default:
			break;
	}
	Assert(copied_from[column] != COMPUTED);
	*isnull = row->nulls[copied_from[column]];
	return row->values[copied_from[column]];
}

static void
fill(const JobqDelivery *delivery, Datum *values, bool *nulls)
{
	for (int i = 0; i < DELIVERY_NATTS; i++)
		values[i] = value_of(delivery, i, &nulls[i]);
}

Oid
jobq_delivery_type(int column)
{
	return column >= 0 && column < DELIVERY_NATTS ?
		delivery_attributes[column].type : InvalidOid;
}

static bool
is_varlena(int column)
{
	return delivery_attributes[column].type == TEXTOID ||
		delivery_attributes[column].type == JSONBOID;
}

/* The columns that a scan of our own wants, row by row. */
static void
fill_rows(JobqRows *rows, List *deliveries)
{
	Size		n = (Size) list_length(deliveries) * rows->ncolumns;
	ListCell   *cell;
	Size		at = 0;

	rows->nrows = list_length(deliveries);
	rows->values = MemoryContextAllocHuge(rows->context,
										  sizeof(Datum) * Max(n, 1));
	rows->nulls = MemoryContextAllocHuge(rows->context,
										 sizeof(bool) * Max(n, 1));
	foreach(cell, deliveries)
	{
		for (int i = 0; i < rows->ncolumns; i++, at++)
		{
			int			column = rows->columns[i];

			rows->values[at] = value_of(lfirst(cell), column,
										&rows->nulls[at]);
			if (!rows->nulls[at] && is_varlena(column))
			{
				MemoryContext old = MemoryContextSwitchTo(rows->context);

				rows->values[at] = datumCopy(rows->values[at], false, -1);
				MemoryContextSwitchTo(old);
			}
		}
	}
}

Datum
jobq_return_deliveries(FunctionCallInfo fcinfo, List *deliveries)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *cell;

	if (rsinfo != NULL && IsA(rsinfo, ExtensibleNode) &&
		((ExtensibleNode *) rsinfo)->extnodename == jobq_rows_name)
	{
		fill_rows((JobqRows *) fcinfo->resultinfo, deliveries);
		return (Datum) 0;
	}
	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, deliveries)
	{
		Datum		values[DELIVERY_NATTS];
		bool		nulls[DELIVERY_NATTS];

		fill(lfirst(cell), values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- JSON ---- */

static void
set_string(JsonbValue *json, char *string)
{
	json->type = jbvString;
	json->val.string.val = string;
	json->val.string.len = (int) strlen(string);
}

static void
set_json(JsonbValue *json, Oid type, Datum value)
{
	Jsonb	   *binary;

	switch (type)
	{
		case INT4OID:
		case INT8OID:
			json->type = jbvNumeric;
			json->val.numeric = int64_to_numeric(type == INT8OID ?
												 DatumGetInt64(value) :
												 DatumGetInt32(value));
			break;
		case TIMESTAMPTZOID:
			set_string(json, JsonEncodeDateTime(palloc(MAXDATELEN + 1), value,
												TIMESTAMPTZOID, NULL));
			break;
		case JSONBOID:
			binary = DatumGetJsonbP(value);
			json->type = jbvBinary;
			json->val.binary.data = &binary->root;
			json->val.binary.len = (int) VARSIZE(binary) - VARHDRSZ;
			break;
		default:
			set_string(json, TextDatumGetCString(value));
			break;
	}
}

static JsonbValue *
push_object(JsonbParseState **state, const Attribute *attributes, int n,
			const Datum *values, const bool *nulls)
{
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue	json;

		set_string(&json, unconstify(char *, attributes[i].name));
		(void) pushJsonbValue(state, WJB_KEY, &json);
		json.type = jbvNull;
		if (!nulls[i])
			set_json(&json, attributes[i].type, values[i]);
		(void) pushJsonbValue(state, WJB_VALUE, &json);
	}
	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

Jsonb *
jobq_deliveries_to_jsonb(List *deliveries)
{
	JsonbParseState *state = NULL;
	ListCell   *cell;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(cell, deliveries)
	{
		Datum		values[DELIVERY_NATTS];
		bool		nulls[DELIVERY_NATTS];

		fill(lfirst(cell), values, nulls);
		(void) push_object(&state, delivery_attributes, DELIVERY_NATTS, values,
						   nulls);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

Jsonb *
jobq_outcome_to_jsonb(const Datum *values, const bool *nulls)
{
	JsonbParseState *state = NULL;

	return JsonbValueToJsonb(push_object(&state, outcome_attributes,
										 lengthof(outcome_attributes), values,
										 nulls));
}

Datum
jobq_return_inout(FunctionCallInfo fcinfo, Datum value, bool isnull)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "a procedure's result must be a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value,
											 &isnull));
}
