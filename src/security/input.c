/*
 * input.c: new jobs held against what their queue demands. Keeps what it takes
 * for that, schemas compiled, for each queue as long as its options stay. Must
 * not show anything of a payload.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "errors.h"
#include "security/input.h"
#include "security/schema.h"

/*
 * The least that a level of nesting takes in jsonb, a header and an entry; the
 * innermost has no entry. A key and its value have an entry each.
 */
#define BYTES_A_LEVEL	8
#define BYTES_INNERMOST	4

#define KINDS_SHOWN		1000	/* bytes of their list in a message */

/* All that belongs to `context` stays to the end of the transaction at least. */
typedef struct Demands
{
	int32		queue_id;		/* hash key */
	uint64		changes;		/* jobq_catalog_changes() of the last look */
	MemoryContext context;		/* NULL: there is nothing yet */
	Jsonb	   *options;
	JobqSchemaNode *schema;
	JobqSchemaNames kinds;
	char	   *validator;
} Demands;

static HTAB *known_demands;

/* ---- what a queue demands ---- */

static JsonbValue *
option(Jsonb *options, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&options->root, name,
													 strlen(name), NULL);

	return value == NULL || value->type == jbvNull ? NULL : value;
}

static int
compare_names(const void *a, const void *b)
{
	return jobq_schema_compare_names(a, b);
}

static void
read_kinds(JsonbContainer *array, JobqSchemaNames *kinds)
{
	JsonbIterator *it = JsonbIteratorInit(array);
	JsonbValue	value;

	kinds->names = palloc(sizeof(JobqSchemaName) *
						  Max(JsonContainerSize(array), 1));
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_ELEM)
		kinds->names[kinds->n++] = (JobqSchemaName)
	{
		value.val.string.val, value.val.string.len
	};
	qsort(kinds->names, kinds->n, sizeof(JobqSchemaName), compare_names);
}

static Jsonb *
copy_options(Jsonb *options)
{
	Jsonb	   *copy = palloc(VARSIZE(options));

	memcpy(copy, options, VARSIZE(options));
	return copy;
}

/* In a context of their own, within the present one. */
static void
make(Jsonb *options, Demands *made)
{
	MemoryContext old = CurrentMemoryContext;
	JsonbValue *value;

	made->context = AllocSetContextCreate(old, "jobq demands",
										  ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(made->context);
	made->options = copy_options(options);
	value = option(made->options, "allowed_kinds");
	if (value != NULL)
		read_kinds(value->val.binary.data, &made->kinds);
	value = option(made->options, "validator");
	if (value != NULL)
		made->validator = pnstrdup(value->val.string.val,
								   value->val.string.len);
	value = option(made->options, "schema");
	if (value != NULL)
		made->schema = jobq_schema_compile(value);
	MemoryContextSwitchTo(old);
}

/* A check that we are called from, by a validator, may still need them. */
static void
let_go(Demands *demands)
{
	if (demands->context != NULL)
		MemoryContextSetParent(demands->context, TopTransactionContext);
	demands->context = NULL;
}

static Demands *
find_entry(int32 queue_id)
{
	HASHCTL		ctl = {.keysize = sizeof(int32),.entrysize = sizeof(Demands)};
	Demands    *entry;
	bool		found;

	ctl.hcxt = TopMemoryContext;
	if (known_demands == NULL)
		known_demands = hash_create("jobq demands by queue", 16, &ctl,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	entry = hash_search(known_demands, &queue_id, HASH_ENTER, &found);
	if (!found)
		*entry = (Demands) {.queue_id = queue_id};
	return entry;
}

static bool
is_same(const Jsonb *a, const Jsonb *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

/* Any change of the catalog makes us look, but few make us compile. */
static void
refresh(Demands *entry)
{
	Demands		fresh = {.queue_id = entry->queue_id,
	.changes = jobq_catalog_changes()};
	Jsonb	   *options = jobq_queue_options(entry->queue_id);

	if (options == NULL)
	{
		/* the queue goes, and nothing can come into it */
		let_go(entry);
		*entry = fresh;
		return;
	}
	if (entry->context != NULL && is_same(entry->options, options))
	{
		entry->changes = fresh.changes;
		pfree(options);
		return;
	}
	make(options, &fresh);
	MemoryContextSetParent(fresh.context, TopMemoryContext);
	let_go(entry);
	*entry = fresh;
	pfree(options);
}

static Demands
demands_of(const JobqQueue *queue)
{
	Demands    *entry = find_entry(queue->queue_id);

	if (entry->changes != jobq_catalog_changes())
		refresh(entry);
	return *entry;
}

void
jobq_input_check_options(Jsonb *options, Oid owner)
{
	Demands		made = {0};

	make(options, &made);
	if (made.validator != NULL)
		jobq_validator_check(made.validator, owner);
	MemoryContextDelete(made.context);
}

/* ---- how complex the JSON is ---- */

typedef struct Measure
{
	const JobqQueue *queue;
	int			number;
	int64		keys;
} Measure;

const char *
jobq_input_which(int number)
{
	return number == 0 ? "" : psprintf("Job %d of the call: ", number);
}

JOBQ_NORETURN static void
raise_complex(const Measure *measure, const char *what, int limit,
			  const char *option_name)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_TOO_LARGE),
			 errmsg("%s for queue \"%s\"", what, measure->queue->name),
			 errdetail("%sThe queue's %s is %d.", jobq_input_which(measure->number),
					   option_name, limit),
			 errhint("Enqueue a simpler payload, or raise %s with jobq.alter_queue().",
					 option_name)));
}

static void
measure_string(const Measure *measure, const char *s, int len)
{
	int			limit = measure->queue->max_json_string;

	if (limit > 0 && len > limit && pg_mbstrlen_with_len(s, len) > limit)
		raise_complex(measure, "a string in the payload is too long", limit,
					  "max_json_string");
}

/* Entries only; of the values none but too long strings are read. */
static void
measure_container(JsonbContainer *container, int depth, Measure *measure)
{
	const JobqQueue *queue = measure->queue;
	int			n = JsonContainerSize(container);
	uint32		offset = 0;
	char	   *data;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (!JsonContainerIsScalar(container) && ++depth > queue->max_json_depth)
		raise_complex(measure, "the payload is nested too deep",
					  queue->max_json_depth, "max_json_depth");
	if (JsonContainerIsObject(container))
	{
		measure->keys += n;
		n *= 2;
	}
	if (queue->max_json_keys > 0 && measure->keys > queue->max_json_keys)
		raise_complex(measure, "the payload has too many keys",
					  queue->max_json_keys, "max_json_keys");
	data = (char *) &container->children[n];
	for (int i = 0; i < n; i++)
	{
		JEntry		entry = container->children[i];
		uint32		end = offset;

		JBE_ADVANCE_OFFSET(end, entry);
		if (JBE_ISSTRING(entry))
			measure_string(measure, data + offset, end - offset);
		else if (JBE_ISCONTAINER(entry))
			measure_container((JsonbContainer *) (data + INTALIGN(offset)),
							  depth, measure);
		offset = end;
	}
}

/* Bytes once decompressed, without reading it. */
static int64
bytes_of(const JobqRow *row, int attr)
{
	return row->nulls[attr] ? 0 :
		(int64) toast_raw_datum_size(row->values[attr]) - VARHDRSZ;
}

/* What is short enough need not be looked at. */
static void
check_complexity(const JobqQueue *queue, const JobqRow *row, int attr,
				 Measure *measure)
{
	int64		bytes = bytes_of(row, attr);
	int64		levels = (bytes + BYTES_INNERMOST) / BYTES_A_LEVEL;

	if (levels <= queue->max_json_depth &&
		(queue->max_json_keys == 0 ||
		 measure->keys + levels <= queue->max_json_keys) &&
		(queue->max_json_string == 0 || bytes <= queue->max_json_string))
		return;
	measure_container(&DatumGetJsonbP(row->values[attr])->root, 0, measure);
}

/* ---- kinds and schemas ---- */

static char *
list_kinds(const JobqSchemaNames *kinds)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < kinds->n; i++)
	{
		const JobqSchemaName *kind = &kinds->names[i];

		appendStringInfoString(&list, i > 0 ? ", " : "");
		if (list.len + kind->len > KINDS_SHOWN)
		{
			appendStringInfoString(&list, "...");
			break;
		}
		appendBinaryStringInfo(&list, kind->s, kind->len);
	}
	return list.data;
}

static void
check_kind(const JobqQueue *queue, const JobqSchemaNames *kinds,
		   const JobqRow *row, int number)
{
	if (!row->nulls[JOB_KIND])
	{
		text	   *kind = DatumGetTextPP(row->values[JOB_KIND]);
		JobqSchemaName name = {VARDATA_ANY(kind), VARSIZE_ANY_EXHDR(kind)};

		if (bsearch(&name, kinds->names, kinds->n, sizeof(JobqSchemaName),
					compare_names) != NULL)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_KIND),
			 errmsg("queue \"%s\" does not take jobs of this kind",
					queue->name),
			 errdetail("%sIts allowed_kinds are: %s.", jobq_input_which(number),
					   list_kinds(kinds)),
			 errhint("Pass one of them as kind, or change allowed_kinds with jobq.alter_queue().")));
}

static void
raise_schema(const JobqQueue *queue, const JobqSchemaFault *fault, int number)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_SCHEMA),
			 errmsg("the payload breaks the schema of queue \"%s\"",
					queue->name),
			 errdetail("%sAt \"%s\" it breaks the keyword \"%s\".",
					   jobq_input_which(number), fault->pointer, fault->keyword),
			 errhint("SELECT options -> 'schema' FROM jobq.queues shows the schema; change the payload, or the schema with jobq.alter_queue().")));
}

static void
raise_given_up(const JobqQueue *queue, int number)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_SCHEMA),
			 errmsg("checking the payload against the schema of queue \"%s\" takes too long",
					queue->name),
			 errdetail("%sIt was given up after the number of steps that a payload of its size may take.",
					   jobq_input_which(number)),
			 errhint("Make the schema simpler with jobq.alter_queue(): fewer alternatives within each other, shorter patterns.")));
}

/* In a context of its own, as it leaves much behind. */
static void
check_schema(const JobqQueue *queue, const JobqSchemaNode *schema,
			 const JobqRow *row, int number)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext,
											   "jobq schema check",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	JobqSchemaFault fault;
	JobqSchemaVerdict verdict =
		jobq_schema_check(schema, DatumGetJsonbP(row->values[JOB_PAYLOAD]),
						  &fault);

	MemoryContextSwitchTo(old);
	if (verdict == SCHEMA_BROKEN)
		raise_schema(queue, &fault, number);
	if (verdict == SCHEMA_GIVEN_UP)
		raise_given_up(queue, number);
	MemoryContextDelete(work);
}

/* ---- all of it ---- */

void
jobq_input_check_data(const JobqQueue *queue, const JobqRow *row, int number)
{
	Measure		measure = {.queue = queue,.number = number};
	Demands		demands;

	check_complexity(queue, row, JOB_PAYLOAD, &measure);
	if (!row->nulls[JOB_HEADERS])
		check_complexity(queue, row, JOB_HEADERS, &measure);
	if (!queue->has_kinds && !queue->has_schema)
		return;
	demands = demands_of(queue);
	if (demands.kinds.names != NULL)
		check_kind(queue, &demands.kinds, row, number);
	if (demands.schema != NULL)
		check_schema(queue, demands.schema, row, number);
}

void
jobq_input_check(const JobqQueue *queue, const JobqRow *row, int number)
{
	Demands		demands;

	jobq_input_check_data(queue, row, number);
	if (!queue->has_validator)
		return;
	demands = demands_of(queue);
	if (demands.validator != NULL)
		jobq_validator_run(queue, demands.validator,
						   row->values[JOB_PAYLOAD], number);
}
