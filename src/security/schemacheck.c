/*
 * schemacheck.c: a document checked against the nodes of a schema. Takes a
 * bounded number of steps; says place and keyword of what is wrong, never a
 * value, nor a name that the schema does not know.
 */
#include "postgres.h"

#include <math.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "security/schema.h"

#define COMPARED_A_STEP		32	/* bytes */
#define HUGE_NUMBER_STEPS	50000
#define UNKNOWN_NAME		"*"

typedef JobqSchemaNode Rule;
typedef JobqSchemaStep Step;

typedef struct Checker
{
	int64		steps;			/* left */
	int			quiet;			/* > 0: what fails now may be all right */
	JobqSchemaFault *fault;		/* keyword NULL: not known yet */
} Checker;

static bool check(Checker *checker, const Rule *node, const JsonbValue *value,
				  const Step *at, const char *keyword);

/* The first fault that counts is the one to be told. */
static bool
fail(Checker *checker, const Step *at, const char *keyword)
{
	if (checker->quiet == 0 && checker->fault->keyword == NULL)
	{
		checker->fault->pointer = jobq_schema_pointer(at);
		checker->fault->keyword = keyword;
	}
	return false;
}

/* False once there are no steps left; then nothing counts any more. */
static bool
spend(Checker *checker, int64 steps)
{
	checker->steps -= steps;
	return checker->steps >= 0;
}

static bool
is_met(Checker *checker, const Rule *node, const JsonbValue *value,
	   const Step *at)
{
	bool		met;

	checker->quiet++;
	met = check(checker, node, value, at, "");
	checker->quiet--;
	return met;
}

/* ---- any value ---- */

static bool
is_whole(Numeric number)
{
	return DatumGetInt32(DirectFunctionCall1(numeric_min_scale,
											 NumericGetDatum(number))) == 0;
}

static bool
has_type(const JsonbValue *value, int types)
{
	switch (value->type)
	{
		case jbvNull:
			return (types & SCHEMA_NULL) != 0;
		case jbvBool:
			return (types & SCHEMA_BOOLEAN) != 0;
		case jbvString:
			return (types & SCHEMA_STRING) != 0;
		case jbvNumeric:
			return (types & SCHEMA_NUMBER) != 0 ||
				((types & SCHEMA_INTEGER) != 0 &&
				 is_whole(value->val.numeric));
		default:
			if (JsonContainerIsArray(value->val.binary.data))
				return (types & SCHEMA_ARRAY) != 0;
			return (types & SCHEMA_OBJECT) != 0;
	}
}

static int
compare_elements(const void *a, const void *b)
{
	return jobq_schema_cmp(a, b);
}

static int
compare_names(const void *a, const void *b)
{
	return jobq_schema_compare_names(a, b);
}

static int64
comparing(const JsonbValue *value)
{
	return value->type != jbvBinary ? 1 :
		1 + value->val.binary.len / COMPARED_A_STEP;
}

static bool
is_among(Checker *checker, const JobqSchemaValues *values,
		 const JsonbValue *value)
{
	if (value->type == jbvString)
	{
		JobqSchemaName word = {value->val.string.val, value->val.string.len};

		return bsearch(&word, values->words.names, values->words.n,
					   sizeof(JobqSchemaName), compare_names) != NULL;
	}
	for (int i = 0; i < values->nothers; i++)
	{
		if (!spend(checker, comparing(&values->others[i])))
			return false;
		if (jobq_schema_cmp(value, &values->others[i]) == 0)
			return true;
	}
	return false;
}

/* ---- numbers ---- */

/* The time it takes grows with the digits, which 1e9999 has without a byte. */
static int64
dividing(Numeric number)
{
	Datum		about = DirectFunctionCall1(numeric_float8_no_overflow,
											NumericGetDatum(number));

	return 1 + VARSIZE_ANY(number) / COMPARED_A_STEP +
		(isinf(DatumGetFloat8(about)) ? HUGE_NUMBER_STEPS : 0);
}

static bool
is_multiple(Checker *checker, Numeric number, Numeric of)
{
	Datum		rest;

	if (!spend(checker, dividing(number)))
		return false;
	rest = DirectFunctionCall2(numeric_mod, NumericGetDatum(number),
							   NumericGetDatum(of));
	return jobq_schema_numcmp(DatumGetNumeric(rest),
							  int64_to_numeric(0)) == 0;
}

static bool
check_number(Checker *checker, const Rule *node, Numeric number,
			 const Step *at)
{
	if (node->minimum != NULL && jobq_schema_numcmp(number, node->minimum) < 0)
		return fail(checker, at, "minimum");
	if (node->maximum != NULL && jobq_schema_numcmp(number, node->maximum) > 0)
		return fail(checker, at, "maximum");
	if (node->exclusive_minimum != NULL &&
		jobq_schema_numcmp(number, node->exclusive_minimum) <= 0)
		return fail(checker, at, "exclusiveMinimum");
	if (node->exclusive_maximum != NULL &&
		jobq_schema_numcmp(number, node->exclusive_maximum) >= 0)
		return fail(checker, at, "exclusiveMaximum");
	if (node->multiple_of != NULL &&
		!is_multiple(checker, number, node->multiple_of))
		return fail(checker, at, "multipleOf");
	return true;
}

/* ---- strings ---- */

static bool
matches(Checker *checker, JobqSchemaPattern *pattern, const char *s, int len)
{
	int64		steps = (int64) (1 + len) * pattern->cost;

	return len <= SCHEMA_MATCH_MAX && spend(checker, steps) &&
		jobq_schema_matches(pattern, s, len);
}

static bool
check_string(Checker *checker, const Rule *node, const JsonbValue *value,
			 const Step *at)
{
	const char *s = value->val.string.val;
	int			len = value->val.string.len;

	if (node->min_length >= 0 || node->max_length >= 0)
	{
		int			characters = pg_mbstrlen_with_len(s, len);

		if (!spend(checker, len / COMPARED_A_STEP))
			return false;
		if (characters < node->min_length)
			return fail(checker, at, "minLength");
		if (node->max_length >= 0 && characters > node->max_length)
			return fail(checker, at, "maxLength");
	}
	if (node->pattern != NULL && !matches(checker, node->pattern, s, len))
		return fail(checker, at, "pattern");
	return true;
}

/* ---- arrays ---- */

static bool
is_unique(Checker *checker, JsonbContainer *array)
{
	int			n = JsonContainerSize(array);
	JsonbIterator *it = JsonbIteratorInit(array);
	JsonbValue *elements;
	JsonbValue	value;
	bool		unique = true;

	if (!spend(checker, 2 * (int64) n))
		return false;
	elements = palloc_extended(sizeof(JsonbValue) * (Size) Max(n, 1),
							   MCXT_ALLOC_HUGE);
	(void) JsonbIteratorNext(&it, &value, true);
	for (int i = 0; JsonbIteratorNext(&it, &value, true) == WJB_ELEM; i++)
		elements[i] = value;
	qsort(elements, n, sizeof(JsonbValue), compare_elements);
	for (int i = 1; i < n && unique; i++)
		unique = jobq_schema_cmp(&elements[i - 1], &elements[i]) != 0;
	pfree(elements);
	return unique;
}

static bool
check_elements(Checker *checker, const Rule *node, JsonbContainer *array,
			   const Step *at)
{
	JsonbIterator *it = JsonbIteratorInit(array);
	JsonbValue	value;
	Step		step = {.parent = at};
	int64		least = node->min_contains >= 0 ? node->min_contains : 1;
	int64		contained = 0;

	(void) JsonbIteratorNext(&it, &value, true);
	for (; JsonbIteratorNext(&it, &value, true) == WJB_ELEM; step.index++)
	{
		const Rule *items = node->items;
		const char *keyword = "items";

		if (step.index < node->prefix_items.n)
		{
			items = node->prefix_items.nodes[step.index];
			keyword = "prefixItems";
		}
		else if (items == NULL && node->contains == NULL)
			break;
		if (items != NULL && !check(checker, items, &value, &step, keyword))
			return false;
		if (node->contains != NULL &&
			is_met(checker, node->contains, &value, &step))
			contained++;
		if (checker->steps < 0)
			return false;
	}
	if (node->contains == NULL)
		return true;
	if (contained < least)
		return fail(checker, at,
					node->min_contains >= 0 ? "minContains" : "contains");
	if (node->max_contains >= 0 && contained > node->max_contains)
		return fail(checker, at, "maxContains");
	return true;
}

static bool
check_array(Checker *checker, const Rule *node, JsonbContainer *array,
			const Step *at)
{
	int64		n = JsonContainerSize(array);

	if (n < node->min_items)
		return fail(checker, at, "minItems");
	if (node->max_items >= 0 && n > node->max_items)
		return fail(checker, at, "maxItems");
	if (node->unique_items && !is_unique(checker, array))
		return fail(checker, at, "uniqueItems");
	if (node->items == NULL && node->contains == NULL &&
		node->prefix_items.n == 0)
		return true;
	return check_elements(checker, node, array, at);
}

/* ---- objects ---- */

static const JobqSchemaProperty *
find_property(const JobqSchemaProperties *list, const JsonbValue *key)
{
	JobqSchemaProperty wanted = {
		.name = {key->val.string.val, key->val.string.len}
	};

	if (list->n == 0)
		return NULL;
	/* the name comes first in it */
	return bsearch(&wanted, list->all, list->n, sizeof(JobqSchemaProperty),
				   compare_names);
}

static bool
has_all(JsonbContainer *object, const JobqSchemaNames *names)
{
	JsonbValue	value;

	for (int i = 0; i < names->n; i++)
	{
		if (getKeyJsonValueFromContainer(object, names->names[i].s,
										 names->names[i].len,
										 &value) == NULL)
			return false;
	}
	return true;
}

static bool
has_one(JsonbContainer *object, const JobqSchemaName *name)
{
	JobqSchemaNames names = {(JobqSchemaName *) name, 1};

	return has_all(object, &names);
}

/* What the names of properties say of their values. */
static bool
check_property(Checker *checker, const Rule *node, const JsonbValue *key,
			   const JsonbValue *value, const Step *at)
{
	const JobqSchemaProperty *property = find_property(&node->properties, key);
	bool		evaluated = property != NULL;
	Step		step = {.parent = at,.name = UNKNOWN_NAME,
	.len = strlen(UNKNOWN_NAME)};

	if (property != NULL)
	{
		step.name = property->name.s;
		step.len = property->name.len;
	}
	if (node->property_names != NULL &&
		!check(checker, node->property_names, key, &step, "propertyNames"))
		return false;
	if (property != NULL &&
		!check(checker, property->node, value, &step, "properties"))
		return false;
	for (int i = 0; i < node->pattern_properties.n; i++)
	{
		JobqSchemaPattern *pattern = node->pattern_properties.all[i];

		if (!matches(checker, pattern, key->val.string.val,
					 key->val.string.len))
			continue;
		evaluated = true;
		if (!check(checker, pattern->node, value, &step, "patternProperties"))
			return false;
	}
	return evaluated || node->additional_properties == NULL ||
		check(checker, node->additional_properties, value, &step,
			  "additionalProperties");
}

static bool
check_properties(Checker *checker, const Rule *node, JsonbContainer *object,
				 const Step *at)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	key;
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		if (!spend(checker, 1) ||
			!check_property(checker, node, &key, &value, at))
			return false;
	}
	return true;
}

static bool
check_dependents(Checker *checker, const Rule *node, const JsonbValue *value,
				 const Step *at)
{
	JsonbContainer *object = value->val.binary.data;

	for (int i = 0; i < node->dependent_required.n; i++)
	{
		const JobqSchemaProperty *one = &node->dependent_required.all[i];

		if (!spend(checker, 1 + one->names.n))
			return false;
		if (has_one(object, &one->name) && !has_all(object, &one->names))
			return fail(checker, at, "dependentRequired");
	}
	for (int i = 0; i < node->dependent_schemas.n; i++)
	{
		const JobqSchemaProperty *one = &node->dependent_schemas.all[i];

		if (!spend(checker, 1))
			return false;
		if (has_one(object, &one->name) &&
			!check(checker, one->node, value, at, "dependentSchemas"))
			return false;
	}
	return true;
}

/* The property that is missing is named: it is in the schema. */
static bool
check_required(Checker *checker, const JobqSchemaNames *required,
			   JsonbContainer *object, const Step *at)
{
	if (!spend(checker, required->n))
		return false;
	for (int i = 0; i < required->n; i++)
	{
		Step		step = {.parent = at,.name = required->names[i].s,
		.len = required->names[i].len};

		if (!has_one(object, &required->names[i]))
			return fail(checker, &step, "required");
	}
	return true;
}

static bool
check_object(Checker *checker, const Rule *node, const JsonbValue *value,
			 const Step *at)
{
	JsonbContainer *object = value->val.binary.data;
	int64		n = JsonContainerSize(object);

	if (n < node->min_properties)
		return fail(checker, at, "minProperties");
	if (node->max_properties >= 0 && n > node->max_properties)
		return fail(checker, at, "maxProperties");
	if (!check_required(checker, &node->required, object, at) ||
		!check_dependents(checker, node, value, at))
		return false;
	if (node->properties.n == 0 && node->pattern_properties.n == 0 &&
		node->additional_properties == NULL && node->property_names == NULL)
		return true;
	return check_properties(checker, node, object, at);
}

/* ---- schemas for the same value ---- */

/* How many are met, at most `enough`. */
static int
count_met(Checker *checker, const JobqSchemaNodes *list,
		  const JsonbValue *value, const Step *at, int enough)
{
	int			n = 0;

	for (int i = 0; i < list->n && n < enough; i++)
	{
		if (is_met(checker, list->nodes[i], value, at))
			n++;
	}
	return n;
}

static bool
check_condition(Checker *checker, const Rule *node, const JsonbValue *value,
				const Step *at)
{
	const Rule *next;

	if (node->consequent == NULL && node->alternative == NULL)
		return true;
	if (is_met(checker, node->condition, value, at))
	{
		next = node->consequent;
		return next == NULL || check(checker, next, value, at, "then");
	}
	next = node->alternative;
	return next == NULL || check(checker, next, value, at, "else");
}

static bool
check_combined(Checker *checker, const Rule *node, const JsonbValue *value,
			   const Step *at)
{
	if (node->ref != NULL && !check(checker, node->ref, value, at, "$ref"))
		return false;
	for (int i = 0; i < node->all_of.n; i++)
	{
		if (!check(checker, node->all_of.nodes[i], value, at, "allOf"))
			return false;
	}
	if (node->any_of.n > 0 &&
		count_met(checker, &node->any_of, value, at, 1) == 0)
		return fail(checker, at, "anyOf");
	if (node->one_of.n > 0 &&
		count_met(checker, &node->one_of, value, at, 2) != 1)
		return fail(checker, at, "oneOf");
	if (node->negated != NULL && is_met(checker, node->negated, value, at))
		return fail(checker, at, "not");
	return node->condition == NULL ||
		check_condition(checker, node, value, at);
}

static bool
check_value(Checker *checker, const Rule *node, const JsonbValue *value,
			const Step *at)
{
	switch (value->type)
	{
		case jbvNumeric:
			return check_number(checker, node, value->val.numeric, at);
		case jbvString:
			return check_string(checker, node, value, at);
		case jbvBinary:
			if (JsonContainerIsArray(value->val.binary.data))
				return check_array(checker, node, value->val.binary.data, at);
			return check_object(checker, node, value, at);
		default:
			return true;
	}
}

/* `keyword` has led here: it is what a schema that is just false breaks. */
static bool
check(Checker *checker, const Rule *node, const JsonbValue *value,
	  const Step *at, const char *keyword)
{
	if (!spend(checker, 1))
		return false;
	if (node->always == SCHEMA_NEVER)
		return fail(checker, at, keyword);
	if (node->always == SCHEMA_ALWAYS)
		return true;
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (node->types != 0 && !has_type(value, node->types))
		return fail(checker, at, "type");
	if (node->allowed != NULL && !is_among(checker, node->allowed, value))
		return fail(checker, at, "enum");
	if (node->constant != NULL && !is_among(checker, node->constant, value))
		return fail(checker, at, "const");
	return check_value(checker, node, value, at) &&
		check_combined(checker, node, value, at);
}

JobqSchemaVerdict
jobq_schema_check(const JobqSchemaNode *schema, Jsonb *document,
				  JobqSchemaFault *fault)
{
	Checker		checker = {.fault = fault};
	JsonbValue	value;
	bool		met;

	memset(fault, 0, sizeof(*fault));
	checker.steps = SCHEMA_MIN_STEPS +
		SCHEMA_STEPS_A_BYTE * (int64) VARSIZE(document);
	if (!JsonbExtractScalar(&document->root, &value))
	{
		value.type = jbvBinary;
		value.val.binary.data = &document->root;
		value.val.binary.len = VARSIZE(document) - VARHDRSZ;
	}
	met = check(&checker, schema, &value, NULL, "false");
	if (checker.steps < 0)
		return SCHEMA_GIVEN_UP;
	return met ? SCHEMA_MET : SCHEMA_BROKEN;
}
