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

/* The headers get the signature of what is delivered. */
static void
set_signature(const JobqDelivery *delivery, Datum *values, bool *nulls)
{
	Jsonb	   *headers = nulls[DELIVERY_HEADERS] ? NULL :
		DatumGetJsonbP(values[DELIVERY_HEADERS]);

	headers = jobq_sign_headers(delivery->queue->sign,
								DatumGetInt64(values[DELIVERY_ID]),
								delivery->claimed_at,
								DatumGetJsonbP(values[DELIVERY_PAYLOAD]),
								headers);
	values[DELIVERY_HEADERS] = JsonbPGetDatum(headers);
	nulls[DELIVERY_HEADERS] = false;
}

static void
fill(const JobqDelivery *delivery, Datum *values, bool *nulls)
{
	const JobqRow *row = &delivery->row;

	memset(nulls, 0, sizeof(bool) * DELIVERY_NATTS);
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
	if (delivery->queue->sign[0] != '\0' && delivery->lease != 0)
		set_signature(delivery, values, nulls);
}

/*
 * A tuplestore for the rows. Who calls knows what they look like: looking that
 * up once more costs as much as the rows.
 */
static TupleDesc
begin_rows(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		!(rsinfo->allowedModes & SFRM_Materialize) ||
		rsinfo->expectedDesc == NULL ||
		rsinfo->expectedDesc->tdtypeid != get_fn_expr_rettype(fcinfo->flinfo))
	{
		InitMaterializedSRF(fcinfo, 0);
		return rsinfo->setDesc;
	}
	old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);
	rsinfo->returnMode = SFRM_Materialize;
	rsinfo->setResult =
		tuplestore_begin_heap((rsinfo->allowedModes &
							   SFRM_Materialize_Random) != 0, false, work_mem);
	MemoryContextSwitchTo(old);
	return rsinfo->expectedDesc;
}

Datum
jobq_return_deliveries(FunctionCallInfo fcinfo, List *deliveries)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleDesc	desc = begin_rows(fcinfo);
	ListCell   *cell;

	foreach(cell, deliveries)
	{
		Datum		values[DELIVERY_NATTS];
		bool		nulls[DELIVERY_NATTS];

		fill(lfirst(cell), values, nulls);
		tuplestore_putvalues(rsinfo->setResult, desc, values, nulls);
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
