/*
 * schemajson.c: the parts of a schema's JSON, how they compare, and how it is
 * told what is wrong with one. Knows no keyword.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "api/args.h"
#include "security/schema.h"

typedef JobqSchemaStep Step;

/* ---- faults ---- */

char *
jobq_schema_place(const Step *at)
{
	return psprintf("schema#%s", jobq_schema_pointer(at));
}

void
jobq_schema_refuse(const Step *at, const char *detail)
{
	jobq_bad_argument(jobq_schema_place(at), detail);
}

/* ---- values ---- */

bool
jobq_schema_is_object(const JsonbValue *value)
{
	return value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data);
}

bool
jobq_schema_is_array(const JsonbValue *value)
{
	return value->type == jbvBinary &&
		JsonContainerIsArray(value->val.binary.data);
}

void
jobq_schema_need_object(const JsonbValue *value, const Step *at)
{
	if (!jobq_schema_is_object(value))
		jobq_schema_refuse(at, "It must be an object.");
}

void
jobq_schema_need_array(const JsonbValue *value, const Step *at)
{
	if (!jobq_schema_is_array(value))
		jobq_schema_refuse(at, "It must be an array.");
}

void
jobq_schema_need_string(const JsonbValue *value, const Step *at)
{
	if (value->type != jbvString)
		jobq_schema_refuse(at, "It must be a string.");
}

bool
jobq_schema_is_text(const JsonbValue *value, const char *text)
{
	return value->val.string.len == (int) strlen(text) &&
		memcmp(value->val.string.val, text, strlen(text)) == 0;
}

int
jobq_schema_elements(const JsonbValue *array, JsonbValue **elements)
{
	JsonbContainer *container = array->val.binary.data;
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbValue	value;
	int			n = 0;

	*elements = palloc(sizeof(JsonbValue) *
					   Max(JsonContainerSize(container), 1));
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_ELEM)
		(*elements)[n++] = value;
	return n;
}

int
jobq_schema_pairs(const JsonbValue *object, JsonbValue **keys,
				  JsonbValue **values)
{
	JsonbContainer *container = object->val.binary.data;
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbValue	key;
	int			n = 0;

	*keys = palloc(sizeof(JsonbValue) * Max(JsonContainerSize(container), 1));
	*values = palloc(sizeof(JsonbValue) *
					 Max(JsonContainerSize(container), 1));
	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(*keys)[n] = key;
		(void) JsonbIteratorNext(&it, &(*values)[n++], true);
	}
	return n;
}

Step
jobq_schema_key_step(const Step *parent, const JsonbValue *key)
{
	return (Step) {.parent = parent,.name = key->val.string.val,
		.len = key->val.string.len};
}

Step
jobq_schema_index_step(const Step *parent, int index)
{
	return (Step) {.parent = parent,.index = index};
}

static int
compare_names(const void *a, const void *b)
{
	return jobq_schema_compare_names(a, b);
}

void
jobq_schema_names(const JsonbValue *array, const Step *at,
				  JobqSchemaNames *names)
{
	JsonbValue *elements;

	jobq_schema_need_array(array, at);
	names->n = jobq_schema_elements(array, &elements);
	names->names = palloc(sizeof(JobqSchemaName) * Max(names->n, 1));
	for (int i = 0; i < names->n; i++)
	{
		Step		step = jobq_schema_index_step(at, i);

		jobq_schema_need_string(&elements[i], &step);
		names->names[i].s = elements[i].val.string.val;
		names->names[i].len = elements[i].val.string.len;
	}
	qsort(names->names, names->n, sizeof(JobqSchemaName), compare_names);
	for (int i = 1; i < names->n; i++)
	{
		if (compare_names(&names->names[i - 1], &names->names[i]) == 0)
			jobq_schema_refuse(at, "It must not name the same twice.");
	}
}

/* ---- comparing ---- */

int
jobq_schema_numcmp(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a),
											 NumericGetDatum(b)));
}

static int
compare_strings(const JsonbValue *a, const JsonbValue *b)
{
	JobqSchemaName x = {a->val.string.val, a->val.string.len};
	JobqSchemaName y = {b->val.string.val, b->val.string.len};

	return jobq_schema_compare_names(&x, &y);
}

int
jobq_schema_cmp(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return a->type < b->type ? -1 : 1;
	switch (a->type)
	{
		case jbvNull:
			return 0;
		case jbvBool:
			return (int) a->val.boolean - (int) b->val.boolean;
		case jbvNumeric:
			return jobq_schema_numcmp(a->val.numeric, b->val.numeric);
		case jbvString:
			return compare_strings(a, b);
		default:
			return compareJsonbContainers(a->val.binary.data,
										  b->val.binary.data);
	}
}
