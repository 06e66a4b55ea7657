/*
 * attempts.c: the list of a job's earlier attempts, kept in its row as a jsonb
 * array of [attempt, lease, worker, started, finished, outcome, error], times
 * in microseconds since 2000. Knows no table, and never grows without bound.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "store/store.h"

#define ATTEMPTS_KEPT		100
#define ERRORS_KEPT_WHOLE	10	/* of the last attempts */
#define OLD_ERROR_CHARS		200

typedef enum AttemptItem
{
	ITEM_ATTEMPT,
	ITEM_LEASE,
	ITEM_WORKER,
	ITEM_STARTED,
	ITEM_FINISHED,
	ITEM_OUTCOME,
	ITEM_ERROR,
	ITEM_COUNT
} AttemptItem;

static void
push_null(JsonbParseState **state)
{
	JsonbValue	value = {.type = jbvNull};

	pushJsonbValue(state, WJB_ELEM, &value);
}

static void
push_number(JsonbParseState **state, int64 number)
{
	JsonbValue	value = {.type = jbvNumeric};

	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_ELEM, &value);
}

static void
push_text(JsonbParseState **state, const char *text, int len)
{
	JsonbValue	value = {.type = jbvString};

	if (text == NULL)
	{
		push_null(state);
		return;
	}
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = len;
	pushJsonbValue(state, WJB_ELEM, &value);
}

static void
push_attempt(JsonbParseState **state, const JobqAttempt *a, bool whole_error)
{
	int			error_len = a->error != NULL ? strlen(a->error) : 0;

	if (!whole_error && a->error != NULL)
		error_len = pg_mbcharcliplen(a->error, error_len, OLD_ERROR_CHARS);

	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	push_number(state, a->attempt);
	if (a->lease != 0)
		push_number(state, a->lease);
	else
		push_null(state);
	push_text(state, a->worker, a->worker != NULL ? strlen(a->worker) : 0);
	push_number(state, a->started_at);
	push_number(state, a->finished_at);
	push_text(state, &a->outcome, 1);
	push_text(state, a->error, error_len);
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

Jsonb *
jobq_attempts_add(Jsonb *list, const JobqAttempt *attempt)
{
	JsonbParseState *state = NULL;
	JobqAttempt *old;
	int			nold = jobq_attempts_unpack(list, &old);
	int			first = Max(nold + 1 - ATTEMPTS_KEPT, 0);
	int			first_whole = nold + 1 - ERRORS_KEPT_WHOLE;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = first; i < nold; i++)
		push_attempt(&state, &old[i], i >= first_whole);
	push_attempt(&state, attempt, true);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

static void
report_damage(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("list of earlier attempts is damaged")));
}

/* An item of an attempt; NULL for a JSON null, else of the type demanded. */
static JsonbValue *
get_item(JsonbContainer *attempt, AttemptItem item, enum jbvType type)
{
	JsonbValue *value = getIthJsonbValueFromContainer(attempt, item);

	if (value == NULL || (value->type != jbvNull && value->type != type))
		report_damage();
	return value->type == jbvNull ? NULL : value;
}

static int64
get_number(JsonbContainer *attempt, AttemptItem item)
{
	JsonbValue *value = get_item(attempt, item, jbvNumeric);
	Datum		number;

	if (value == NULL)
		return 0;
	number = NumericGetDatum(value->val.numeric);
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
}

static char *
get_text(JsonbContainer *attempt, AttemptItem item)
{
	JsonbValue *value = get_item(attempt, item, jbvString);

	if (value == NULL)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
read_attempt(JsonbContainer *from, JobqAttempt *to)
{
	char	   *outcome;

	if (!JsonContainerIsArray(from) || JsonContainerSize(from) != ITEM_COUNT)
		report_damage();
	outcome = get_text(from, ITEM_OUTCOME);
	if (outcome == NULL)
		report_damage();

	to->attempt = (int32) get_number(from, ITEM_ATTEMPT);
	to->lease = get_number(from, ITEM_LEASE);
	to->worker = get_text(from, ITEM_WORKER);
	to->started_at = get_number(from, ITEM_STARTED);
	to->finished_at = get_number(from, ITEM_FINISHED);
	to->outcome = outcome[0];
	to->error = get_text(from, ITEM_ERROR);
}

int
jobq_attempts_unpack(Jsonb *list, JobqAttempt **attempts)
{
	int			n = 0;

	*attempts = NULL;
	if (list == NULL)
		return 0;
	if (!JB_ROOT_IS_ARRAY(list) || JB_ROOT_IS_SCALAR(list))
		report_damage();

	n = JB_ROOT_COUNT(list);
	*attempts = palloc(Max(n, 1) * sizeof(JobqAttempt));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(&list->root, i);

		if (value->type != jbvBinary)
			report_damage();
		read_attempt(value->val.binary.data, &(*attempts)[i]);
	}
	return n;
}
