/*
 * deadletter.c: copies of dead jobs in dead-letter queues and the header
 * dead_letter that tells where they came from. Ends no job.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "engine/deadletter.h"
#include "security/seal.h"

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = unconstify(char *, key);
	value.val.string.len = (int) strlen(key);
	(void) pushJsonbValue(state, WJB_KEY, &value);
}

static void
push_text(JsonbParseState **state, const char *key, const char *text)
{
	JsonbValue	value = {.type = jbvNull};

	push_key(state, key);
	if (text != NULL)
	{
		value.type = jbvString;
		value.val.string.val = unconstify(char *, text);
		value.val.string.len = (int) strlen(text);
	}
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_int64(JsonbParseState **state, const char *key, int64 number)
{
	JsonbValue	value = {.type = jbvNumeric};

	push_key(state, key);
	value.val.numeric = int64_to_numeric(number);
	(void) pushJsonbValue(state, WJB_VALUE, &value);
}

/* Start an object with all headers but dead_letter. */
static void
push_other_headers(JsonbParseState **state, const JobqRow *row)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	Jsonb	   *headers;
	bool		skip = false;

	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (row->nulls[JOB_HEADERS])
		return;
	headers = DatumGetJsonbP(row->values[JOB_HEADERS]);
	it = JsonbIteratorInit(&headers->root);
	(void) JsonbIteratorNext(&it, &value, true);	/* the object itself */
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_OBJECT)
	{
		if (token == WJB_KEY)
			skip = value.val.string.len == (int) strlen(JOBQ_DEAD_LETTER_KEY) &&
				memcmp(value.val.string.val, JOBQ_DEAD_LETTER_KEY,
					   strlen(JOBQ_DEAD_LETTER_KEY)) == 0;
		if (!skip)
			(void) pushJsonbValue(state, token, &value);
	}
}

static Datum
headers_of_copy(const JobqQueue *queue, const JobqRow *row,
				const JobqMove *move, TimestampTz now)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;
	char		died_at[MAXDATELEN + 1];

	push_other_headers(&state, row);
	push_key(&state, JOBQ_DEAD_LETTER_KEY);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "queue", queue->name);
	push_int64(&state, "id", DatumGetInt64(row->values[JOB_ID]));
	push_text(&state, "kind", row->nulls[JOB_KIND] ? NULL :
			  TextDatumGetCString(row->values[JOB_KIND]));
	push_int64(&state, "attempts", DatumGetInt32(row->values[JOB_ATTEMPT]));
	push_text(&state, "reason", move->reason);
	push_text(&state, "error", row->nulls[JOB_LAST_ERROR] ? NULL :
			  TextDatumGetCString(row->values[JOB_LAST_ERROR]));
	push_text(&state, "died_at",
			  JsonEncodeDateTime(died_at, TimestampTzGetDatum(now),
											   TIMESTAMPTZOID, NULL));
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(object));
}

/*
 * A payload that cannot be sealed anew stays where it is: the job is dead in
 * its own queue then.
 */
static bool
can_be_copied(const JobqRow *row, const JobqQueue *target)
{
	if ((target->seal[0] == '\0' && !jobq_is_sealed(row)) ||
		jobq_can_seal_for(row, target->seal))
		return true;
	ereport(WARNING,
			(errmsg("no copy of dead job " INT64_FORMAT " is made in queue \"%s\"",
					DatumGetInt64(row->values[JOB_ID]), target->name),
			 errdetail("Its payload cannot be opened, or not be sealed for that queue."),
			 errhint("Look at the keys of both queues; jobq.dead_jobs shows the job.")));
	return false;
}

int64
jobq_dead_letter(const JobqSession *session, const JobqQueue *queue,
				 const JobqRow *row, const JobqMove *move, TimestampTz now)
{
	JobqQueue	target;
	JobqRow		copy;

	if (queue->dead_letter[0] == '\0' ||
		!jobq_queue_by_name(queue->dead_letter, &target) ||
		!can_be_copied(row, &target))
		return 0;
	jobq_new_job_like(row, &target, now, &copy);
	copy.values[JOB_ENQUEUED_BY] = row->values[JOB_ENQUEUED_BY];
	copy.nulls[JOB_RETRY_OF] = true;
	copy.values[JOB_MAX_ATTEMPTS] = Int32GetDatum(target.max_attempts);
	copy.values[JOB_HEADERS] = headers_of_copy(queue, row, move, now);
	copy.nulls[JOB_HEADERS] = false;
	return jobq_enqueue_row(session, &target, &copy, now);
}

/* Headers may be anything: false for a number that is no bigint. */
static bool
to_int64(Numeric number, int64 *result)
{
	char	   *text = numeric_normalize(number);
	char	   *end;

	errno = 0;
	*result = strtoi64(text, &end, 10);
	return errno == 0 && *end == '\0' && end != text;
}

bool
jobq_dead_letter_origin(const JobqRow *copy, int64 *id, char **queue)
{
	JsonbValue	found;
	JsonbValue *value;
	JsonbContainer *entry;

	if (copy->nulls[JOB_HEADERS])
		return false;
	value = getKeyJsonValueFromContainer(&DatumGetJsonbP(copy->values[JOB_HEADERS])->root,
										 JOBQ_DEAD_LETTER_KEY,
										 strlen(JOBQ_DEAD_LETTER_KEY), &found);
	if (value == NULL || value->type != jbvBinary ||
		!JsonContainerIsObject(value->val.binary.data))
		return false;
	entry = value->val.binary.data;
	value = getKeyJsonValueFromContainer(entry, "id", 2, &found);
	if (value == NULL || value->type != jbvNumeric)
		return false;
	if (!to_int64(value->val.numeric, id))
		return false;
	value = getKeyJsonValueFromContainer(entry, "queue", 5, &found);
	if (value == NULL || value->type != jbvString)
		return false;
	*queue = pnstrdup(value->val.string.val, value->val.string.len);
	return true;
}

void
jobq_strip_dead_letter(JobqRow *row)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;
	Jsonb	   *headers;

	if (row->nulls[JOB_HEADERS])
		return;
	push_other_headers(&state, row);
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	headers = JsonbValueToJsonb(object);
	row->values[JOB_HEADERS] = JsonbPGetDatum(headers);
	row->nulls[JOB_HEADERS] = JB_ROOT_COUNT(headers) == 0;
}
