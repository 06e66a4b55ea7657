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

typedef enum OptionType
{
	OPTION_INTERVAL,			/* int64, us */
	OPTION_INT,					/* int32 */
	OPTION_NUMBER,				/* double */
	OPTION_QUEUE,				/* name of a queue, or nothing */
	OPTION_EXPIRED_TO,			/* bool: word "dead_letter", else "drop" */
	OPTION_BACKOFF				/* object, see backoff_options */
} OptionType;

/* min, max and initial mean nothing for the last three types. */
typedef struct Option
{
	const char *name;
	OptionType	type;
	size_t		offset;			/* in JobqQueue or JobqBackoff */
	double		min;
	double		max;
	double		initial;
} Option;

static const Option queue_options[] = {
	{"lease_for", OPTION_INTERVAL, offsetof(JobqQueue, lease_for),
	JOBQ_LEASE_FOR_MIN, JOBQ_LEASE_FOR_MAX, 5 * USECS_PER_MINUTE},
	{"max_attempts", OPTION_INT, offsetof(JobqQueue, max_attempts),
	1, JOBQ_ATTEMPTS_MAX, 10},
	{"backoff", OPTION_BACKOFF, offsetof(JobqQueue, backoff), 0, 0, 0},
	{"dead_letter", OPTION_QUEUE, offsetof(JobqQueue, dead_letter), 0, 0, 0},
	{"retention", OPTION_INTERVAL, offsetof(JobqQueue, retention),
	0, MAX_RETENTION, USECS_PER_DAY},
	{"dead_retention", OPTION_INTERVAL, offsetof(JobqQueue, dead_retention),
	0, MAX_RETENTION, 30 * USECS_PER_DAY},
	{"ttl", OPTION_INTERVAL, offsetof(JobqQueue, ttl),
	MIN_TTL, MAX_RETENTION, 0},
	{"expired_to", OPTION_EXPIRED_TO,
	offsetof(JobqQueue, expired_to_dead_letter), 0, 0, 0},
	{"max_payload_bytes", OPTION_INT, offsetof(JobqQueue, max_payload_bytes),
	MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES, 1048576},
	{"max_batch", OPTION_INT, offsetof(JobqQueue, max_batch),
	1, MAX_BATCH, 10000},
};

static const Option backoff_options[] = {
	{"base", OPTION_INTERVAL, offsetof(JobqBackoff, base),
	0, MAX_DELAY, 5 * USECS_PER_SEC},
	{"factor", OPTION_NUMBER, offsetof(JobqBackoff, factor),
	1, MAX_FACTOR, 2},
	{"cap", OPTION_INTERVAL, offsetof(JobqBackoff, cap),
	0, MAX_DELAY, USECS_PER_HOUR},
	{"jitter", OPTION_NUMBER, offsetof(JobqBackoff, jitter), 0, 1, 0.1},
};

/* A set of options, and how a message calls them. */
typedef struct OptionSet
{
	const Option *options;
	int			n;
	const char *what;			/* "queue option" */
	const char *prefix;			/* of the option's name in messages */
} OptionSet;

static const OptionSet queue_set = {
	queue_options, lengthof(queue_options), "queue option", ""
};
static const OptionSet backoff_set = {
	backoff_options, lengthof(backoff_options), "backoff option", "backoff."
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
			*target = '\0';
			break;
		case OPTION_EXPIRED_TO:
			*(bool *) target = false;
			break;
		case OPTION_BACKOFF:
			set_defaults(&backoff_set, target);
			break;
	}
}

static void
set_queue_name(const JsonbValue *value, const char *name, char *target)
{
	text	   *string;

	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", name),
				 errdetail("It must be the name of a queue, or null."),
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

static void
set_expired_to(const JsonbValue *value, const char *name, bool *dead_letter)
{
	*dead_letter = is_word(value, "dead_letter");
	if (!*dead_letter && !is_word(value, "drop"))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", name),
				 errdetail("Valid are: drop, dead_letter."),
				 errhint("Correct \"%s\" and call again.", name)));
}

/* The whole object is new: what it does not name gets its default. */
static void
set_backoff(const JsonbValue *value, const char *name, JobqBackoff *backoff)
{
	if (value->type != jbvBinary ||
		!JsonContainerIsObject(value->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", name),
				 errdetail("It must be a JSON object such as {\"base\": \"5 s\", \"factor\": 2, \"cap\": \"1 h\", \"jitter\": 0.1}."),
				 errhint("Correct \"%s\" and call again.", name)));
	set_defaults(&backoff_set, (char *) backoff);
	apply(&backoff_set, value->val.binary.data, (char *) backoff);
	if (backoff->base > 0 &&
		backoff->cap < Max(backoff->base, USECS_PER_SEC))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", "backoff.cap"),
				 errdetail("The longest delay must be at least \"base\" and at least 1 second; without \"cap\" it is 1 hour."),
				 errhint("Give a longer \"cap\", or a shorter \"base\".")));
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
			set_queue_name(value, name, target);
			break;
		case OPTION_EXPIRED_TO:
			set_expired_to(value, name, (bool *) target);
			break;
		case OPTION_BACKOFF:
			set_backoff(value, name, (JobqBackoff *) target);
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
			 errmsg("unknown %s \"%s\"", set->what, name),
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
jobq_options_check(const JobqQueue *queue)
{
	if (queue->expired_to_dead_letter && queue->dead_letter[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"%s\"", "expired_to"),
				 errdetail("Expired jobs cannot go to a dead-letter queue without the option \"dead_letter\"."),
				 errhint("Set \"dead_letter\" as well, or \"expired_to\" to \"drop\".")));
}
