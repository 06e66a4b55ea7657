/*
 * schema.c: a JSON Schema made into nodes, every keyword checked. What it does
 * not know is refused, never left out. Must not look at documents.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"

#include "api/args.h"
#include "security/schema.h"

#define DIALECT			"https://json-schema.org/draft/2020-12/schema"
#define COUNT_MAX		(INT64CONST(1) << 53)

typedef JobqSchemaNode Rule;
typedef JobqSchemaStep Step;

/* A $ref that waits for the rest of the schema. */
typedef struct Pending
{
	Rule	   *node;
	JsonbValue	target;
	const Step *at;				/* of the target */
} Pending;

typedef struct Compiler
{
	Jsonb	   *root;
	HTAB	   *made;			/* nodes by the place of their object */
	List	   *nodes;			/* the same */
	List	   *pending;
} Compiler;

typedef struct MadeNode
{
	JsonbContainer *object;
	Rule	   *node;
} MadeNode;

typedef struct Keyword Keyword;
typedef void (*Reader) (Compiler *compiler, Rule *node,
						const Keyword *keyword, JsonbValue *value,
						const Step *at);

/* offset: where in the node the reader puts what it has read, if anywhere. */
struct Keyword
{
	const char *name;
	Reader		read;
	size_t		offset;
};

static Rule always_node = {.always = SCHEMA_ALWAYS};
static Rule never_node = {.always = SCHEMA_NEVER};

static Rule *compile(Compiler *compiler, JsonbValue *value, const Step *at);

static int
compare_names(const void *a, const void *b)
{
	return jobq_schema_compare_names(a, b);
}

/* ---- readers: plain values ---- */

static void *
field(Rule *node, const Keyword *keyword)
{
	return (char *) node + keyword->offset;
}

static void
read_anything(Compiler *compiler, Rule *node, const Keyword *keyword,
			  JsonbValue *value, const Step *at)
{
}

static void
read_comment(Compiler *compiler, Rule *node, const Keyword *keyword,
			 JsonbValue *value, const Step *at)
{
	jobq_schema_need_string(value, at);
}

static void
read_list(Compiler *compiler, Rule *node, const Keyword *keyword,
		  JsonbValue *value, const Step *at)
{
	jobq_schema_need_array(value, at);
}

static bool
read_boolean(const JsonbValue *value, const Step *at)
{
	if (value->type != jbvBool)
		jobq_schema_refuse(at, "It must be true or false.");
	return value->val.boolean;
}

static void
read_flag(Compiler *compiler, Rule *node, const Keyword *keyword,
		  JsonbValue *value, const Step *at)
{
	(void) read_boolean(value, at);
}

static void
read_unique(Compiler *compiler, Rule *node, const Keyword *keyword,
			JsonbValue *value, const Step *at)
{
	node->unique_items = read_boolean(value, at);
}

static void
read_count(Compiler *compiler, Rule *node, const Keyword *keyword,
		   JsonbValue *value, const Step *at)
{
	*(int64 *) field(node, keyword) =
		jobq_jsonb_int(value, jobq_schema_place(at), 0, COUNT_MAX);
}

static void
read_number(Compiler *compiler, Rule *node, const Keyword *keyword,
			JsonbValue *value, const Step *at)
{
	if (value->type != jbvNumeric)
		jobq_schema_refuse(at, "It must be a number.");
	*(Numeric *) field(node, keyword) = value->val.numeric;
}

static void
read_multiple(Compiler *compiler, Rule *node, const Keyword *keyword,
			  JsonbValue *value, const Step *at)
{
	Datum		number;
	char	   *digits;

	read_number(compiler, node, keyword, value, at);
	number = NumericGetDatum(value->val.numeric);
	digits = DatumGetCString(DirectFunctionCall1(numeric_out, number));
	if (digits[0] == '-' || strpbrk(digits, "123456789") == NULL)
		jobq_schema_refuse(at, "It must be a number greater than 0.");
	if (strlen(digits) > SCHEMA_MAX_DIGITS)
		jobq_schema_refuse(at, psprintf("It may have %d digits at most.",
							SCHEMA_MAX_DIGITS));
}

static void
read_dialect(Compiler *compiler, Rule *node, const Keyword *keyword,
			 JsonbValue *value, const Step *at)
{
	jobq_schema_need_string(value, at);
	if (!jobq_schema_is_text(value, DIALECT) &&
		!jobq_schema_is_text(value, DIALECT "#"))
		jobq_schema_refuse(at, "The dialect is " DIALECT "; others are not supported.");
}

/* Within the schema it would change what references mean. */
static void
read_id(Compiler *compiler, Rule *node, const Keyword *keyword,
		JsonbValue *value, const Step *at)
{
	jobq_schema_need_string(value, at);
	if (at->parent != NULL)
		jobq_schema_refuse(at, "$id is supported at the top of the schema only.");
}

/* ---- readers: what a value must be ---- */

static int
type_bit(const JsonbValue *name, const Step *at)
{
	static const struct
	{
		const char *name;
		int			bit;
	}			types[] = {
		{"null", SCHEMA_NULL}, {"boolean", SCHEMA_BOOLEAN},
		{"string", SCHEMA_STRING}, {"number", SCHEMA_NUMBER},
		{"integer", SCHEMA_INTEGER}, {"array", SCHEMA_ARRAY},
		{"object", SCHEMA_OBJECT},
	};

	for (size_t i = 0; name->type == jbvString && i < lengthof(types); i++)
	{
		if (jobq_schema_is_text(name, types[i].name))
			return types[i].bit;
	}
	jobq_schema_refuse(at, "Valid are: null, boolean, string, number, integer, array, object, or an array of these.");
}

static void
read_type(Compiler *compiler, Rule *node, const Keyword *keyword,
		  JsonbValue *value, const Step *at)
{
	JsonbValue *elements;
	int			n;

	if (!jobq_schema_is_array(value))
	{
		node->types = type_bit(value, at);
		return;
	}
	n = jobq_schema_elements(value, &elements);
	if (n == 0)
		jobq_schema_refuse(at, "It must name at least one type.");
	for (int i = 0; i < n; i++)
		node->types |= type_bit(&elements[i], at);
}

static JobqSchemaValues *
make_values(JsonbValue *elements, int n)
{
	JobqSchemaValues *values = palloc0(sizeof(JobqSchemaValues));

	values->words.names = palloc(sizeof(JobqSchemaName) * Max(n, 1));
	values->others = palloc(sizeof(JsonbValue) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (elements[i].type == jbvString)
			values->words.names[values->words.n++] = (JobqSchemaName)
			{
				elements[i].val.string.val, elements[i].val.string.len
			};
		else
			values->others[values->nothers++] = elements[i];
	}
	qsort(values->words.names, values->words.n, sizeof(JobqSchemaName),
		  compare_names);
	return values;
}

static void
read_enum(Compiler *compiler, Rule *node, const Keyword *keyword,
		  JsonbValue *value, const Step *at)
{
	JsonbValue *elements;
	int			n;

	jobq_schema_need_array(value, at);
	n = jobq_schema_elements(value, &elements);
	node->allowed = make_values(elements, n);
}

static void
read_const(Compiler *compiler, Rule *node, const Keyword *keyword,
		   JsonbValue *value, const Step *at)
{
	node->constant = make_values(value, 1);
}

static JobqSchemaPattern *
make_pattern(const JsonbValue *value, const Step *at)
{
	const char *why;
	JobqSchemaPattern *pattern = jobq_schema_pattern(value->val.string.val,
													 value->val.string.len,
													 &why);

	if (pattern == NULL)
		jobq_schema_refuse(at, why);
	return pattern;
}

static void
read_pattern(Compiler *compiler, Rule *node, const Keyword *keyword,
			 JsonbValue *value, const Step *at)
{
	jobq_schema_need_string(value, at);
	node->pattern = make_pattern(value, at);
}

static void
read_required(Compiler *compiler, Rule *node, const Keyword *keyword,
			  JsonbValue *value, const Step *at)
{
	jobq_schema_names(value, at, &node->required);
}

/* ---- readers: schemas within ---- */

static void
read_schema(Compiler *compiler, Rule *node, const Keyword *keyword,
			JsonbValue *value, const Step *at)
{
	*(Rule **) field(node, keyword) = compile(compiler, value, at);
}

static void
read_schemas(Compiler *compiler, Rule *node, const Keyword *keyword,
			 JsonbValue *value, const Step *at)
{
	JobqSchemaNodes *list = field(node, keyword);
	JsonbValue *elements;
	int			n;

	jobq_schema_need_array(value, at);
	n = jobq_schema_elements(value, &elements);
	if (n == 0)
		jobq_schema_refuse(at, "It must have at least one element.");
	list->nodes = palloc(sizeof(Rule *) * n);
	for (list->n = 0; list->n < n; list->n++)
	{
		Step		step = jobq_schema_index_step(at, list->n);

		list->nodes[list->n] = compile(compiler, &elements[list->n], &step);
	}
}

/* The place for what belongs to one of n names, in the order of jsonb. */
static JobqSchemaProperty *
add_property(JobqSchemaProperties *list, int n, const JsonbValue *key)
{
	JobqSchemaProperty *property;

	if (list->all == NULL)
		list->all = palloc0(sizeof(JobqSchemaProperty) * n);
	property = &list->all[list->n++];
	property->name = (JobqSchemaName)
	{
		key->val.string.val, key->val.string.len
	};
	return property;
}

static void
read_properties(Compiler *compiler, Rule *node, const Keyword *keyword,
				JsonbValue *value, const Step *at)
{
	JsonbValue *keys;
	JsonbValue *values;
	int			n;

	jobq_schema_need_object(value, at);
	n = jobq_schema_pairs(value, &keys, &values);
	for (int i = 0; i < n; i++)
	{
		Step		step = jobq_schema_key_step(at, &keys[i]);

		add_property(field(node, keyword), n, &keys[i])->node =
			compile(compiler, &values[i], &step);
	}
}

/* Schemas that references may lead to; to be understood in any case. */
static void
read_definitions(Compiler *compiler, Rule *node, const Keyword *keyword,
				 JsonbValue *value, const Step *at)
{
	JsonbValue *keys;
	JsonbValue *values;
	int			n;

	jobq_schema_need_object(value, at);
	n = jobq_schema_pairs(value, &keys, &values);
	for (int i = 0; i < n; i++)
	{
		Step		step = jobq_schema_key_step(at, &keys[i]);

		(void) compile(compiler, &values[i], &step);
	}
}

static void
read_dependent_required(Compiler *compiler, Rule *node,
						const Keyword *keyword, JsonbValue *value,
						const Step *at)
{
	JsonbValue *keys;
	JsonbValue *values;
	int			n;

	jobq_schema_need_object(value, at);
	n = jobq_schema_pairs(value, &keys, &values);
	for (int i = 0; i < n; i++)
	{
		Step		step = jobq_schema_key_step(at, &keys[i]);

		jobq_schema_names(&values[i], &step,
				   &add_property(field(node, keyword), n, &keys[i])->names);
	}
}

static void
read_pattern_properties(Compiler *compiler, Rule *node,
						const Keyword *keyword, JsonbValue *value,
						const Step *at)
{
	JobqSchemaPatterns *list = &node->pattern_properties;
	JsonbValue *keys;
	JsonbValue *values;
	int			n;

	jobq_schema_need_object(value, at);
	n = jobq_schema_pairs(value, &keys, &values);
	list->all = palloc(sizeof(JobqSchemaPattern *) * Max(n, 1));
	for (; list->n < n; list->n++)
	{
		Step		step = jobq_schema_key_step(at, &keys[list->n]);

		list->all[list->n] = make_pattern(&keys[list->n], &step);
		list->all[list->n]->node = compile(compiler, &values[list->n], &step);
	}
}

/* Where it leads to is seen once all is compiled that is in its place. */
static void
read_ref(Compiler *compiler, Rule *node, const Keyword *keyword,
		 JsonbValue *value, const Step *at)
{
	Pending    *pending = palloc(sizeof(Pending));
	JsonbValue *target;

	jobq_schema_need_string(value, at);
	if (value->val.string.len < 1 || value->val.string.val[0] != '#')
		jobq_schema_refuse(at, "References lead to parts of the same schema, such as \"#/$defs/name\".");
	target = jobq_schema_follow(compiler->root, value->val.string.val + 1,
								value->val.string.len - 1);
	if (target == NULL ||
		(target->type != jbvBool && !jobq_schema_is_object(target)))
		jobq_schema_refuse(at, "It leads to nothing that is a schema.");
	node->ref_place = jobq_schema_place(at);
	pending->node = node;
	pending->target = *target;
	pending->at = jobq_schema_steps(value->val.string.val + 1,
									value->val.string.len - 1);
	compiler->pending = lappend(compiler->pending, pending);
}

/* ---- keywords ---- */

#define AT(member) offsetof(JobqSchemaNode, member)

static const Keyword keywords[] = {
	{"$comment", read_comment, 0},
	{"$defs", read_definitions, 0},
	{"$id", read_id, 0},
	{"$ref", read_ref, 0},
	{"$schema", read_dialect, 0},
	{"additionalProperties", read_schema, AT(additional_properties)},
	{"allOf", read_schemas, AT(all_of)},
	{"anyOf", read_schemas, AT(any_of)},
	{"const", read_const, 0},
	{"contains", read_schema, AT(contains)},
	{"contentEncoding", read_comment, 0},
	{"contentMediaType", read_comment, 0},
	{"default", read_anything, 0},
	{"dependentRequired", read_dependent_required, AT(dependent_required)},
	{"dependentSchemas", read_properties, AT(dependent_schemas)},
	{"deprecated", read_flag, 0},
	{"description", read_comment, 0},
	{"else", read_schema, AT(alternative)},
	{"enum", read_enum, 0},
	{"examples", read_list, 0},
	{"exclusiveMaximum", read_number, AT(exclusive_maximum)},
	{"exclusiveMinimum", read_number, AT(exclusive_minimum)},
	{"format", read_comment, 0},
	{"if", read_schema, AT(condition)},
	{"items", read_schema, AT(items)},
	{"maxContains", read_count, AT(max_contains)},
	{"maxItems", read_count, AT(max_items)},
	{"maxLength", read_count, AT(max_length)},
	{"maxProperties", read_count, AT(max_properties)},
	{"maximum", read_number, AT(maximum)},
	{"minContains", read_count, AT(min_contains)},
	{"minItems", read_count, AT(min_items)},
	{"minLength", read_count, AT(min_length)},
	{"minProperties", read_count, AT(min_properties)},
	{"minimum", read_number, AT(minimum)},
	{"multipleOf", read_multiple, AT(multiple_of)},
	{"not", read_schema, AT(negated)},
	{"oneOf", read_schemas, AT(one_of)},
	{"pattern", read_pattern, 0},
	{"patternProperties", read_pattern_properties, 0},
	{"prefixItems", read_schemas, AT(prefix_items)},
	{"properties", read_properties, AT(properties)},
	{"propertyNames", read_schema, AT(property_names)},
	{"readOnly", read_flag, 0},
	{"required", read_required, 0},
	{"then", read_schema, AT(consequent)},
	{"title", read_comment, 0},
	{"type", read_type, 0},
	{"uniqueItems", read_unique, 0},
	{"writeOnly", read_flag, 0},
};

static const Keyword *
find_keyword(const JsonbValue *name, const Step *at)
{
	StringInfoData valid;

	for (size_t i = 0; i < lengthof(keywords); i++)
	{
		if (jobq_schema_is_text(name, keywords[i].name))
			return &keywords[i];
	}
	initStringInfo(&valid);
	for (size_t i = 0; i < lengthof(keywords); i++)
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "", keywords[i].name);
	jobq_schema_refuse(at,
					   psprintf("It is not a keyword that is supported. Valid are: %s.",
								valid.data));
}

/* ---- nodes ---- */

static Rule *
make_node(void)
{
	Rule	   *node = palloc0(sizeof(Rule));

	for (size_t i = 0; i < lengthof(keywords); i++)
	{
		if (keywords[i].read == read_count)
			*(int64 *) field(node, &keywords[i]) = -1;
	}
	return node;
}

static void
refuse_nesting(const Step *at)
{
	int			depth = 0;

	for (const Step *step = at; step != NULL; step = step->parent)
		depth++;
	if (depth > SCHEMA_MAX_NESTING)
		jobq_schema_refuse(at,
						   psprintf("The schema is nested deeper than %d levels.",
									SCHEMA_MAX_NESTING));
}

static void
read_keywords(Compiler *compiler, Rule *node, JsonbValue *object,
			  const Step *at)
{
	JsonbValue *keys;
	JsonbValue *values;
	int			n = jobq_schema_pairs(object, &keys, &values);

	for (int i = 0; i < n; i++)
	{
		Step		step = jobq_schema_key_step(at, &keys[i]);
		const Keyword *keyword = find_keyword(&keys[i], &step);

		keyword->read(compiler, node, keyword, &values[i], &step);
	}
}

/* A schema's node; that of an object is entered before it is complete. */
static Rule *
compile(Compiler *compiler, JsonbValue *value, const Step *at)
{
	MadeNode   *entry;
	Rule	   *node;
	bool		known;

	if (value->type == jbvBool)
		return value->val.boolean ? &always_node : &never_node;
	if (!jobq_schema_is_object(value))
		jobq_schema_refuse(at, "A schema is an object, true or false.");
	refuse_nesting(at);
	entry = hash_search(compiler->made, &value->val.binary.data, HASH_ENTER,
						&known);
	if (known)
		return entry->node;
	node = entry->node = make_node();
	compiler->nodes = lappend(compiler->nodes, node);
	read_keywords(compiler, node, value, at);
	return node;
}

/* Targets may bring more references. */
static void
resolve_refs(Compiler *compiler)
{
	for (int i = 0; i < list_length(compiler->pending); i++)
	{
		Pending    *pending = list_nth(compiler->pending, i);

		pending->node->ref = compile(compiler, &pending->target, pending->at);
	}
}

JobqSchemaNode *
jobq_schema_compile(JsonbValue *schema)
{
	Compiler	compiler = {0};
	HASHCTL		ctl = {.keysize = sizeof(JsonbContainer *),
	.entrysize = sizeof(MadeNode)};
	JsonbValue	root;
	Rule	   *node;

	if (schema->type == jbvBool)
		return compile(&compiler, schema, NULL);
	if (!jobq_schema_is_object(schema))
		jobq_schema_refuse(NULL, "A schema is an object, true or false.");
	if (schema->val.binary.len > SCHEMA_MAX_BYTES)
		jobq_schema_refuse(NULL, psprintf("It may have %d bytes at most.",
							  SCHEMA_MAX_BYTES));
	compiler.root = JsonbValueToJsonb(schema);
	root.type = jbvBinary;
	root.val.binary.data = &compiler.root->root;
	root.val.binary.len = VARSIZE(compiler.root) - VARHDRSZ;
	ctl.hcxt = CurrentMemoryContext;
	compiler.made = hash_create("jobq schema nodes", 64, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	node = compile(&compiler, &root, NULL);
	resolve_refs(&compiler);
	hash_destroy(compiler.made);
	jobq_schema_refuse_loops(compiler.nodes);
	return node;
}
