/*
 * settle.c: settle_jobs, and checks that the settling functions share. What
 * settling does is the engine's business.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "api/args.h"
#include "api/settle.h"
#include "compat.h"
#include "errors.h"
#include "security/audit.h"

#define NUMBER_MAX			(INT64CONST(1) << 53)	/* of ids and leases */

PG_FUNCTION_INFO_V1(jobq_sql_settle_jobs);

void
jobq_check_result_size(const JobqQueue *queue, Datum result)
{
	int64		bytes = (int64) toast_raw_datum_size(result) - VARHDRSZ;

	if (bytes > queue->max_payload_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_TOO_LARGE),
				 errmsg("result of " INT64_FORMAT " bytes is too large for queue \"%s\"",
						bytes, queue->name),
				 errdetail("Results and progress may have %d bytes.",
						   queue->max_payload_bytes),
				 errhint("Store large data elsewhere and keep a reference, or raise the queue's max_payload_bytes.")));
}

bool
jobq_arg_on_lost(text *value)
{
	char	   *word = text_to_cstring(value);

	if (strcmp(word, "skip") == 0)
		return true;
	if (strcmp(word, "error") != 0)
		jobq_bad_argument("on_lost", "It must be \"error\" or \"skip\".");
	return false;
}

const char *
jobq_given_back_word(JobqGivenBack back, const char *waiting)
{
	switch (back)
	{
		case JOBQ_BACK_WAITING:
			break;
		case JOBQ_BACK_DEAD:
			return "dead";
		case JOBQ_BACK_SUPERSEDED:
			return "cancelled";
		case JOBQ_BACK_IN_DOUBT:
			elog(ERROR, "a session does not leave a job in doubt");
	}
	return waiting;
}

int
jobq_compare_held_ids(const void *a, const void *b)
{
	const JobqHeld *x = a;
	const JobqHeld *y = b;

	return x->t.id < y->t.id ? -1 : x->t.id > y->t.id;
}

/* ---- settle_jobs ---- */

typedef enum SettleDo
{
	DO_COMPLETE,
	DO_FAIL,
	DO_RELEASE,
	DO_EXTEND
} SettleDo;

static const char *const do_words[] = {"complete", "fail", "release", "extend"};

/* One element of the array. */
typedef struct Settlement
{
	int			ord;			/* its place in the array */
	int64		id;
	int64		lease;
	SettleDo	what;
	Jsonb	   *result;			/* NULL = none */
	char	   *error;			/* NULL = none */
	bool		retry;
	int64		retry_in;		/* us, -1 = the queue's backoff */
	int64		delay;			/* us */
	const char *outcome;
} Settlement;

static const JsonbValue *
get(Jsonb *object, const char *key, JsonbValue *value)
{
	if (getKeyJsonValueFromContainer(&object->root, key, (int) strlen(key),
									 value) == NULL ||
		value->type == jbvNull)
		return NULL;
	return value;
}

static SettleDo
get_do(Jsonb *object)
{
	JsonbValue	value;
	const JsonbValue *found = get(object, "do", &value);

	if (found != NULL && found->type == jbvString)
	{
		for (size_t i = 0; i < lengthof(do_words); i++)
		{
			if (found->val.string.len == (int) strlen(do_words[i]) &&
				memcmp(found->val.string.val, do_words[i],
					   strlen(do_words[i])) == 0)
				return (SettleDo) i;
		}
	}
	jobq_bad_argument("do", "It must be complete, fail, release or extend.");
	return DO_COMPLETE;
}

static int64
get_number(Jsonb *object, const char *key)
{
	JsonbValue	value;

	if (get(object, key, &value) == NULL)
		jobq_bad_argument(key, "Each element must have it.");
	return jobq_jsonb_int(&value, key, 1, NUMBER_MAX);
}

/* The keys of an element, and what they go with. */
static const struct
{
	const char *name;
	int			goes_with;		/* bits 1 << SettleDo */
}			settle_keys[] = {
	{"id", ~0},
	{"lease", ~0},
	{"do", ~0},
	{"result", 1 << DO_COMPLETE},
	{"error", 1 << DO_FAIL},
	{"retry", 1 << DO_FAIL},
	{"retry_in", 1 << DO_FAIL},
	{"delay", 1 << DO_RELEASE},
};

/* A key whose value is null stands for its default, so it goes with all. */
static void
check_key(const char *key, bool is_null, SettleDo what)
{
	for (size_t i = 0; i < lengthof(settle_keys); i++)
	{
		if (strcmp(key, settle_keys[i].name) != 0)
			continue;
		if (is_null || (settle_keys[i].goes_with & (1 << what)))
			return;
		jobq_bad_argument(key, psprintf("It does not go with \"do\": \"%s\".",
										do_words[what]));
	}
	jobq_bad_argument(jobq_shown(key),
					  "It is not a key of an element; id, lease, do, result, error, retry, retry_in and delay are.");
}

static void
check_keys(Jsonb *object, SettleDo what)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	key;
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		check_key(pnstrdup(key.val.string.val, key.val.string.len),
				  value.type == jbvNull, what);
	}
}

static void
parse_settlement(Jsonb *object, int ord, Settlement *s)
{
	JsonbValue	value;

	memset(s, 0, sizeof(*s));
	s->ord = ord;
	s->id = get_number(object, "id");
	s->lease = get_number(object, "lease");
	s->what = get_do(object);
	check_keys(object, s->what);
	s->retry = true;
	s->retry_in = -1;
	if (get(object, "result", &value) != NULL)
		s->result = JsonbValueToJsonb(&value);
	if (get(object, "error", &value) != NULL)
		s->error = jobq_jsonb_string(&value, "error");
	if (get(object, "retry", &value) != NULL)
	{
		if (value.type != jbvBool)
			jobq_bad_argument("retry", "It must be true or false.");
		s->retry = value.val.boolean;
	}
	if (get(object, "retry_in", &value) != NULL)
		s->retry_in = jobq_jsonb_interval(&value, "retry_in", 0, JOBQ_DELAY_MAX);
	if (get(object, "delay", &value) != NULL)
		s->delay = jobq_jsonb_interval(&value, "delay", 0, JOBQ_DELAY_MAX);
}

static int
parse_settlements(Jsonb *jobs, Settlement **settlements)
{
	JsonbIterator *it = JsonbIteratorInit(&jobs->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			n = 0;

	if (!JB_ROOT_IS_ARRAY(jobs) || JB_ROOT_IS_SCALAR(jobs))
		jobq_bad_argument("jobs", "It must be an array of objects.");
	*settlements = palloc_extended(sizeof(Settlement) * Max(JB_ROOT_COUNT(jobs), 1),
								   MCXT_ALLOC_HUGE);
	(void) JsonbIteratorNext(&it, &value, true);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_END_ARRAY)
	{
		CHECK_FOR_INTERRUPTS();
		if (value.type != jbvBinary ||
			!JsonContainerIsObject(value.val.binary.data))
			jobq_bad_argument("jobs", "It must be an array of objects.");
		parse_settlement(JsonbValueToJsonb(&value), n, &(*settlements)[n]);
		n++;
	}
	return n;
}

static int
compare_settlements(const void *a, const void *b)
{
	const Settlement *x = a;
	const Settlement *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->ord - y->ord;
}

static int
compare_ords(const void *a, const void *b)
{
	return ((const Settlement *) a)->ord - ((const Settlement *) b)->ord;
}

static void
settle(const JobqSession *session, Settlement *s, JobqAuditJobs *audit)
{
	JobqHeld	held;
	JobqQueue	queue;
	JobqLost	lost;

	queue.queue_id = 0;
	lost = jobq_hold_leased(session, s->id, s->lease, &held, &queue);
	if (lost != JOBQ_HELD)
		jobq_raise_lost(lost, s->id, s->lease);
	if (s->result != NULL)
		jobq_check_result_size(&queue, JsonbPGetDatum(s->result));
	switch (s->what)
	{
		case DO_COMPLETE:
			jobq_complete(session, &held, 1, s->result == NULL ? (Datum) 0 :
						  JsonbPGetDatum(s->result), s->result == NULL);
			s->outcome = "completed";
			break;
		case DO_FAIL:
			s->outcome = jobq_given_back_word(jobq_fail(session, &held, &queue,
														ATTEMPT_FAILED,
														s->error, s->retry,
														s->retry_in),
											  "retryable");
			break;
		case DO_RELEASE:
			s->outcome = jobq_given_back_word(jobq_release(session, &held,
														   &queue, s->delay),
											  "released");
			break;
		case DO_EXTEND:
			jobq_extend(session, &held, 1, 0, (Datum) 0, true);
			s->outcome = "extended";
			return;
	}
	if (queue.audit)
		jobq_audit_note(&audit[s->what], queue.queue_id, s->id);
}

Datum
jobq_sql_settle_jobs(PG_FUNCTION_ARGS)
{
	JobqSession session;
	Settlement *settlements;
	JobqAuditJobs audit[lengthof(do_words)] = {0};
	ReturnSetInfo *rsinfo;
	int			n;

	jobq_begin_write("jobq.settle_jobs()", &session);
	jobq_arg_required(fcinfo, 0, "jobs");
	n = parse_settlements(PG_GETARG_JSONB_P(0), &settlements);
	jobq_await_settle(&session);
	/* ascending, so that two sessions with the same jobs do not deadlock */
	qsort(settlements, n, sizeof(Settlement), compare_settlements);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		settle(&session, &settlements[i], audit);
	}
	for (size_t i = 0; i < lengthof(do_words); i++)
		jobq_audit_settled("jobq.settle_jobs()", do_words[i], &audit[i]);
	qsort(settlements, n, sizeof(Settlement), compare_ords);

	InitMaterializedSRF(fcinfo, 0);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	for (int i = 0; i < n; i++)
	{
		Datum		values[2] = {Int64GetDatum(settlements[i].id),
		CStringGetTextDatum(settlements[i].outcome)};
		bool		nulls[2] = {false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
