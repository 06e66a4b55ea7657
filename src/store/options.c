/*
 * options.c: the jsonb of a queue's options: which there are, their bounds and
 * defaults. Pure: does not know whether a queue exists or what it points to.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "errors.h"
#include "store/store.h"

#define MAX_DELAY			(365 * USECS_PER_DAY)
#define MAX_RETENTION		(3650 * USECS_PER_DAY)
#define MIN_TTL				1000
#define MAX_FACTOR			1000.0
#define MAX_BATCH			1000000
#define MIN_PAYLOAD_BYTES	2
#define MAX_PAYLOAD_BYTES	JENTRY_OFFLENMASK
#define MIN_PERIOD			1000
#define MAX_FAILURES		10000
#define MIN_AGING			1000
#define MAX_WEIGHT			10000
#define MAX_KINDS			1000

#define RATE_EXAMPLE	"{\"limit\": 100, \"period\": \"60 s\"}"

typedef enum OptionType
{
	OPTION_INTERVAL,			/* int64, us */
	OPTION_INT,					/* int32 */
	OPTION_NUMBER,				/* double */
	OPTION_QUEUE,				/* name of a queue, or nothing */
	OPTION_KEY,					/* name of a key, or nothing */
	OPTION_BOOL,				/* bool */
	OPTION_TIME,				/* TimestampTz, 0 = none */
	OPTION_WORD,				/* int8, place in words, from 0 on */
	OPTION_KINDS,				/* these three, bool: is there one? */
	OPTION_SCHEMA,
	OPTION_FUNCTION,
	OPTION_OBJECT				/* struct of its own, see set */
} OptionType;

typedef struct OptionSet OptionSet;

/*
 * min and max are for numbers and intervals, words and set for those types.
 * initial is also what stands for null; of an object, the defaults of set.
 */
typedef struct Option
{
	const char *name;
	OptionType	type;
	size_t		offset;			/* in JobqQueue or the object's struct */
	double		min;
	double		max;
	double		initial;
	const char *const *words;	/* ends with NULL */
	const OptionSet *set;
} Option;

/* A set of options, and how a message calls them. */
struct OptionSet
{
	const Option *options;
	int			n;
	const char *what;			/* "queue option" */
	const char *prefix;			/* of the option's name in messages */
	const char *example;		/* of an object's value */
};

/* ---- objects ---- */

static const Option backoff_options[] = {
	{"base", OPTION_INTERVAL, offsetof(JobqBackoff, base),
	.max = MAX_DELAY,.initial = 5 * USECS_PER_SEC},
	{"factor", OPTION_NUMBER, offsetof(JobqBackoff, factor),
	.min = 1,.max = MAX_FACTOR,.initial = 2},
	{"cap", OPTION_INTERVAL, offsetof(JobqBackoff, cap),
	.max = MAX_DELAY,.initial = USECS_PER_HOUR},
	{"jitter", OPTION_NUMBER, offsetof(JobqBackoff, jitter),
	.min = 0,.max = 1,.initial = 0.1},
};
static const OptionSet backoff_set = {
	backoff_options, lengthof(backoff_options), "backoff option", "backoff.",
	"{\"base\": \"5 s\", \"factor\": 2, \"cap\": \"1 h\", \"jitter\": 0.1}"
};

static const Option rate_options[] = {
	{"limit", OPTION_INT, offsetof(JobqRate, limit),
	.min = 1,.max = JOBQ_RATE_MAX},
	{"period", OPTION_INTERVAL, offsetof(JobqRate, period),
	.min = MIN_PERIOD,.max = JOBQ_PERIOD_MAX},
};
static const OptionSet rate_set = {
	rate_options, lengthof(rate_options), "rate_limit option", "rate_limit.",
	RATE_EXAMPLE
};
static const OptionSet group_rate_set = {
	rate_options, lengthof(rate_options), "group_rate_limit option",
	"group_rate_limit.", RATE_EXAMPLE
};

static const char *const per_words[] = {"queue", "role", "group", NULL};
static const Option enqueue_limit_options[] = {
	{"limit", OPTION_INT, offsetof(JobqEnqueueLimit, rate.limit),
	.min = 1,.max = JOBQ_RATE_MAX},
	{"period", OPTION_INTERVAL, offsetof(JobqEnqueueLimit, rate.period),
	.min = MIN_PERIOD,.max = JOBQ_PERIOD_MAX},
	{"per", OPTION_WORD, offsetof(JobqEnqueueLimit, per),
	.initial = JOBQ_PER_QUEUE,.words = per_words},
};
static const OptionSet enqueue_limit_set = {
	enqueue_limit_options, lengthof(enqueue_limit_options),
	"enqueue_limit option", "enqueue_limit.",
	"{\"limit\": 100, \"period\": \"60 s\", \"per\": \"role\"}"
};

static const Option breaker_options[] = {
	{"failures", OPTION_INT, offsetof(JobqBreaker, failures),
	.min = 1,.max = MAX_FAILURES},
	{"window", OPTION_INTERVAL, offsetof(JobqBreaker, window),
	.min = MIN_PERIOD,.max = JOBQ_PERIOD_MAX},
	{"open", OPTION_INTERVAL, offsetof(JobqBreaker, open),
	.min = MIN_PERIOD,.max = JOBQ_PERIOD_MAX},
};
static const OptionSet breaker_set = {
	breaker_options, lengthof(breaker_options), "circuit_breaker option",
	"circuit_breaker.",
	"{\"failures\": 5, \"window\": \"60 s\", \"open\": \"60 s\"}"
};

/* ---- queues ---- */

static const char *const expired_to_words[] = {"drop", "dead_letter", NULL};
static const char *const on_retry_words[] = {"", "block", "skip", NULL};
static const char *const ordering_words[] = {"priority", "fair", NULL};
static const char *const isolation_words[] = {"", "owner", NULL};

static const Option queue_options[] = {
	{"lease_for", OPTION_INTERVAL, offsetof(JobqQueue, lease_for),
	.min = JOBQ_LEASE_FOR_MIN,.max = JOBQ_LEASE_FOR_MAX,
	.initial = 5 * USECS_PER_MINUTE},
	{"max_attempts", OPTION_INT, offsetof(JobqQueue, max_attempts),
	.min = 1,.max = JOBQ_ATTEMPTS_MAX,.initial = 10},
	{"backoff", OPTION_OBJECT, offsetof(JobqQueue, backoff),
	.set = &backoff_set},
	{"dead_letter", OPTION_QUEUE, offsetof(JobqQueue, dead_letter),.min = 0},
	{"retention", OPTION_INTERVAL, offsetof(JobqQueue, retention),
	.max = MAX_RETENTION,.initial = USECS_PER_DAY},
	{"dead_retention", OPTION_INTERVAL, offsetof(JobqQueue, dead_retention),
	.max = MAX_RETENTION,.initial = 30 * USECS_PER_DAY},
	{"ttl", OPTION_INTERVAL, offsetof(JobqQueue, ttl),
	.min = MIN_TTL,.max = MAX_RETENTION},
	{"expired_to", OPTION_WORD, offsetof(JobqQueue, expired_to),
	.initial = JOBQ_EXPIRED_DROP,.words = expired_to_words},
	{"max_payload_bytes", OPTION_INT, offsetof(JobqQueue, max_payload_bytes),
	.min = MIN_PAYLOAD_BYTES,.max = MAX_PAYLOAD_BYTES,.initial = 1048576},
	{"max_batch", OPTION_INT, offsetof(JobqQueue, max_batch),
	.min = 1,.max = MAX_BATCH,.initial = 10000},
	{"max_depth", OPTION_INT, offsetof(JobqQueue, max_depth),
	.min = 1,.max = PG_INT32_MAX},
	{"max_json_depth", OPTION_INT, offsetof(JobqQueue, max_json_depth),
	.min = 1,.max = PG_INT32_MAX,.initial = 500},
	{"max_json_keys", OPTION_INT, offsetof(JobqQueue, max_json_keys),
	.min = 1,.max = PG_INT32_MAX},
	{"max_json_string", OPTION_INT, offsetof(JobqQueue, max_json_string),
	.min = 1,.max = PG_INT32_MAX},
	{"allowed_kinds", OPTION_KINDS, offsetof(JobqQueue, has_kinds),
	.initial = false},
	{"schema", OPTION_SCHEMA, offsetof(JobqQueue, has_schema),
	.initial = false},
	{"validator", OPTION_FUNCTION, offsetof(JobqQueue, has_validator),
	.initial = false},
	{"max_active", OPTION_INT, offsetof(JobqQueue, rules.max_active),
	.min = 1,.max = PG_INT32_MAX},
	{"group_limit", OPTION_INT, offsetof(JobqQueue, rules.group_limit),
	.min = 1,.max = PG_INT32_MAX},
	{"group_on_retry", OPTION_WORD, offsetof(JobqQueue, rules.group_on_retry),
	.initial = JOBQ_ON_RETRY_DEFAULT,.words = on_retry_words},
	{"ordering", OPTION_WORD, offsetof(JobqQueue, rules.ordering),
	.initial = JOBQ_ORDER_PRIORITY,.words = ordering_words},
	{"aging", OPTION_INTERVAL, offsetof(JobqQueue, rules.aging),
	.min = MIN_AGING,.max = MAX_DELAY},
	{"rate_limit", OPTION_OBJECT, offsetof(JobqQueue, rules.rate_limit),
	.set = &rate_set},
	{"group_rate_limit", OPTION_OBJECT,
	offsetof(JobqQueue, rules.group_rate_limit),.set = &group_rate_set},
	{"enqueue_limit", OPTION_OBJECT, offsetof(JobqQueue, enqueue_limit),
	.set = &enqueue_limit_set},
	{"circuit_breaker", OPTION_OBJECT, offsetof(JobqQueue, rules.breaker),
	.set = &breaker_set},
	{"notify", OPTION_BOOL, offsetof(JobqQueue, notify),.initial = false},
	{"isolation", OPTION_WORD, offsetof(JobqQueue, isolation),
	.initial = JOBQ_ISOLATION_NONE,.words = isolation_words},
	{"sign", OPTION_KEY, offsetof(JobqQueue, sign),.min = 0},
	{"seal", OPTION_KEY, offsetof(JobqQueue, seal),.min = 0},
	{"audit", OPTION_BOOL, offsetof(JobqQueue, audit),.initial = false},
};
static const OptionSet queue_set = {
	queue_options, lengthof(queue_options), "queue option", "", NULL
};

/* ---- groups ---- */

static const Option group_options[] = {
	{"limit", OPTION_INT, offsetof(JobqGroupRules, limit),
	.min = 1,.max = PG_INT32_MAX},
	{"weight", OPTION_INT, offsetof(JobqGroupRules, weight),
	.min = 1,.max = MAX_WEIGHT},
	{"rate_limit", OPTION_OBJECT, offsetof(JobqGroupRules, rate_limit),
	.set = &rate_set},
	{"paused_until", OPTION_TIME, offsetof(JobqGroupRules, paused_until),
	.min = 0},
};
static const OptionSet group_set = {
	group_options, lengthof(group_options), "group option", "", NULL
};

static void set_default(const Option *option, char *target);
static void apply(const OptionSet *set, JsonbContainer *object, char *target);

static void
set_defaults(const OptionSet *set, char *target)
{
	for (int i = 0; i < set->n; i++)
		set_default(&set->options[i], target + set->options[i].offset);
}

static void
set_default(const Option *option, char *target)
{
	switch (option->type)
	{
		case OPTION_INTERVAL:
			*(int64 *) target = (int64) option->initial;
			break;
		case OPTION_INT:
			*(int32 *) target = (int32) option->initial;
			break;
		case OPTION_NUMBER:
			*(double *) target = option->initial;
			break;
		case OPTION_QUEUE:
		case OPTION_KEY:
			*target = '\0';
			break;
		case OPTION_TIME:
			*(TimestampTz *) target = 0;
			break;
		case OPTION_BOOL:
		case OPTION_KINDS:
		case OPTION_SCHEMA:
		case OPTION_FUNCTION:
			*(bool *) target = option->initial != 0;
			break;
		case OPTION_WORD:
			*(int8 *) target = (int8) option->initial;
			break;
		case OPTION_OBJECT:
			set_defaults(option->set, target);
			break;
	}
}

JOBQ_NORETURN static void
raise_invalid(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("invalid value for \"%s\"", name),
			 errdetail("%s", detail),
			 errhint("Correct \"%s\" and call again.", name)));
}

/* The name of a queue or of a key. */
static void
set_name(const JsonbValue *value, const char *of, const char *name,
		 char *target)
{
	text	   *string;

	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", name),
				 errdetail("It must be the name of a %s, or null.", of),
				 errhint("Correct \"%s\" and call again.", name)));
	string = cstring_to_text_with_len(value->val.string.val,
									  value->val.string.len);
	strlcpy(target, jobq_arg_queue_name(string, name), JOBQ_NAME_MAX + 1);
}

static bool
is_word(const JsonbValue *value, const char *word)
{
	return value->type == jbvString &&
		value->val.string.len == (int) strlen(word) &&
		memcmp(value->val.string.val, word, strlen(word)) == 0;
}

/* An empty word stands for a default that cannot be named. */
static int8
get_word(const JsonbValue *value, const char *name, const char *const *words)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (int8 i = 0; words[i] != NULL; i++)
	{
		if (words[i][0] == '\0')
			continue;
		if (is_word(value, words[i]))
			return i;
		appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "", words[i]);
	}
	raise_invalid(name, psprintf("Valid are: %s.", valid.data));
}

static void
check_backoff(const JobqBackoff *backoff)
{
	if (backoff->base > 0 &&
		backoff->cap < Max(backoff->base, USECS_PER_SEC))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", "backoff.cap"),
				 errdetail("The longest delay must be at least \"base\" and at least 1 second; without \"cap\" it is 1 hour."),
				 errhint("Give a longer \"cap\", or a shorter \"base\".")));
}

/* Of limits, all that is a number must be given. */
static void
check_limit(const OptionSet *set, const char *name, const char *target)
{
	for (int i = 0; i < set->n; i++)
	{
		const Option *option = &set->options[i];
		const char *value = target + option->offset;

		if ((option->type == OPTION_INT && *(const int32 *) value == 0) ||
			(option->type == OPTION_INTERVAL && *(const int64 *) value == 0))
			raise_invalid(name, psprintf("It lacks \"%s\".", option->name));
	}
}

/* The whole object is new: what it does not name gets its default. */
static void
set_object(const OptionSet *set, const JsonbValue *value, const char *name,
		   char *target)
{
	if (value->type != jbvBinary ||
		!JsonContainerIsObject(value->val.binary.data))
		raise_invalid(name, psprintf("It must be a JSON object such as %s.",
									 set->example));
	set_defaults(set, target);
	apply(set, value->val.binary.data, target);
	if (set == &backoff_set)
		check_backoff((const JobqBackoff *) target);
	else
		check_limit(set, name, target);
}

/* What is in them matters to those who check jobs. */
static void
check_kinds(const JsonbValue *value, const char *name)
{
	JsonbIterator *it;
	JsonbValue	kind;
	int			n = 0;

	if (value->type != jbvBinary ||
		!JsonContainerIsArray(value->val.binary.data))
		raise_invalid(name, "It must be an array of strings.");
	it = JsonbIteratorInit(value->val.binary.data);
	(void) JsonbIteratorNext(&it, &kind, true);
	while (JsonbIteratorNext(&it, &kind, true) == WJB_ELEM)
	{
		if (kind.type != jbvString)
			raise_invalid(name, "It must be an array of strings.");
		if (kind.val.string.len > JOBQ_KEY_MAX)
			raise_invalid(name, psprintf("A kind has at most %d bytes.",
										 JOBQ_KEY_MAX));
		if (++n > MAX_KINDS)
			raise_invalid(name, psprintf("It may have %d elements at most.",
										 MAX_KINDS));
	}
	if (n == 0)
		raise_invalid(name, "It must have at least one element.");
}

static void
check_schema(const JsonbValue *value, const char *name)
{
	if (value->type != jbvBool &&
		(value->type != jbvBinary ||
		 !JsonContainerIsObject(value->val.binary.data)))
		raise_invalid(name, "A JSON Schema is an object, true or false.");
}

static void
set_value(const Option *option, const JsonbValue *value, const char *name,
		  char *target)
{
	switch (option->type)
	{
		case OPTION_INTERVAL:
			*(int64 *) target = jobq_jsonb_interval(value, name,
													(int64) option->min,
													(int64) option->max);
			break;
		case OPTION_INT:
			*(int32 *) target = (int32) jobq_jsonb_int(value, name,
													   (int64) option->min,
													   (int64) option->max);
			break;
		case OPTION_NUMBER:
			*(double *) target = jobq_jsonb_number(value, name,
												   option->min, option->max);
			break;
		case OPTION_QUEUE:
			set_name(value, "queue", name, target);
			break;
		case OPTION_KEY:
			set_name(value, "key", name, target);
			break;
		case OPTION_TIME:
			*(TimestampTz *) target = jobq_jsonb_time(value, name);
			break;
		case OPTION_BOOL:
			if (value->type != jbvBool)
				raise_invalid(name, "It must be true or false.");
			*(bool *) target = value->val.boolean;
			break;
		case OPTION_KINDS:
			check_kinds(value, name);
			*(bool *) target = true;
			break;
		case OPTION_SCHEMA:
			check_schema(value, name);
			*(bool *) target = true;
			break;
		case OPTION_FUNCTION:
			(void) jobq_jsonb_string(value, name);
			*(bool *) target = true;
			break;
		case OPTION_WORD:
			*(int8 *) target = get_word(value, name, option->words);
			break;
		case OPTION_OBJECT:
			set_object(option->set, value, name, target);
			break;
	}
}

static void
raise_unknown(const OptionSet *set, const char *name)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (int i = 0; i < set->n; i++)
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "",
						 set->options[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("unknown %s \"%s\"", set->what, jobq_shown(name)),
			 errdetail("Valid are: %s.", valid.data),
			 errhint("Correct the name, or leave it out.")));
}

static const Option *
find_option(const OptionSet *set, const char *name)
{
	for (int i = 0; i < set->n; i++)
	{
		if (strcmp(set->options[i].name, name) == 0)
			return &set->options[i];
	}
	raise_unknown(set, name);
	return NULL;
}

/* Set all that the object names; null means the default. */
static void
apply(const OptionSet *set, JsonbContainer *object, char *target)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	key;
	JsonbIteratorToken token = JsonbIteratorNext(&it, &key, true);

	Assert(token == WJB_BEGIN_OBJECT);
	while ((token = JsonbIteratorNext(&it, &key, true)) == WJB_KEY)
	{
		char	   *name = pnstrdup(key.val.string.val, key.val.string.len);
		const Option *option = find_option(set, name);
		JsonbValue	value;

		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type == jbvNull)
			set_default(option, target + option->offset);
		else
			set_value(option, &value, psprintf("%s%s", set->prefix, name),
					  target + option->offset);
	}
}

void
jobq_options_defaults(JobqQueue *queue)
{
	memset(queue, 0, sizeof(*queue));
	queue->class_id = JOBQ_CLASS_DEFAULT;
	set_defaults(&queue_set, (char *) queue);
}

void
jobq_options_apply(Jsonb *options, JobqQueue *queue)
{
	jobq_arg_object(options, "options");
	apply(&queue_set, &options->root, (char *) queue);
}

void
jobq_group_options_apply(Jsonb *options, JobqGroupRules *rules)
{
	jobq_arg_object(options, "options");
	apply(&group_set, &options->root, (char *) rules);
}

void
jobq_options_check(const JobqQueue *queue)
{
	if (queue->expired_to == JOBQ_EXPIRED_DEAD_LETTER &&
		queue->dead_letter[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", "expired_to"),
				 errdetail("Expired jobs cannot go to a dead-letter queue without the option \"dead_letter\"."),
				 errhint("Set \"dead_letter\" as well, or \"expired_to\" to \"drop\".")));
	if (queue->notify && strlen(queue->name) > JOBQ_NOTIFY_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", "notify"),
				 errdetail("The channel would be \"%s%s\", which is too long: the queue's name may have %d bytes, not %d.",
						   JOBQ_NOTIFY_PREFIX, queue->name,
						   JOBQ_NOTIFY_NAME_MAX, (int) strlen(queue->name)),
				 errhint("Leave out \"notify\", or make a queue with a shorter name.")));
}
