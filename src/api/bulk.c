/*
 * bulk.c: enqueue_jobs(): an array of objects, each a job for any queue. Reads
 * and checks them all before the first is enqueued; what becomes of them is
 * decided in the engine.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

#include "api/args.h"
#include "api/job.h"
#include "api/unique.h"
#include "compat.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/input.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_sql_enqueue_jobs);

/* The keys of an object, which are arguments of enqueue. */
typedef enum BulkKey
{
	KEY_QUEUE,
	KEY_PAYLOAD,
	KEY_KIND,
	KEY_PRIORITY,
	KEY_RUN_AT,
	KEY_DELAY,
	KEY_MAX_ATTEMPTS,
	KEY_GROUP_KEY,
	KEY_UNIQUE_KEY,
	KEY_ON_CONFLICT,
	KEY_UNIQUE_WHILE,
	KEY_UNIQUE_FOR,
	KEY_DEBOUNCE_MAX,
	KEY_EXPIRES_AT,
	KEY_HEADERS,
	KEY_COUNT
} BulkKey;

static const char *const key_names[KEY_COUNT] = {
	"queue", "payload", "kind", "priority", "run_at", "delay", "max_attempts",
	"group_key", "unique_key", "on_conflict", "unique_while", "unique_for",
	"debounce_max", "expires_at", "headers"
};

/* A queue that some of the jobs go to. */
typedef struct BulkQueue
{
	char		name[JOBQ_NAME_MAX + 1];	/* hash key */
	JobqQueue	queue;
	int			njobs;
} BulkQueue;

typedef struct Bulk
{
	const JobqSession *session;
	TimestampTz now;
	HTAB	   *queues;
	JobqNewJob *jobs;
	int			njobs;

	/* the object being read: what it says, null or missing = not found */
	bool		found[KEY_COUNT];
	JsonbValue	said[KEY_COUNT];
} Bulk;

/* The name of a key in messages, with the place of its object. */
static const char *
key_name(const Bulk *bulk, BulkKey key)
{
	return psprintf("jobs[%d].%s", bulk->njobs + 1, key_names[key]);
}

JOBQ_NORETURN static void
raise_unknown_key(const Bulk *bulk, const char *name)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (int i = 0; i < KEY_COUNT; i++)
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "", key_names[i]);
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("unknown key \"jobs[%d].%s\"", bulk->njobs + 1,
					jobq_shown(name)),
			 errdetail("Valid are: %s.", valid.data),
			 errhint("Correct the key, or leave it out.")));
}

static BulkKey
find_key(const Bulk *bulk, const JsonbValue *name)
{
	for (int i = 0; i < KEY_COUNT; i++)
	{
		if (name->val.string.len == (int) strlen(key_names[i]) &&
			memcmp(name->val.string.val, key_names[i],
				   name->val.string.len) == 0)
			return (BulkKey) i;
	}
	raise_unknown_key(bulk, pnstrdup(name->val.string.val,
									 name->val.string.len));
}

static void
read_object(Bulk *bulk, JsonbContainer *object)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	name;

	memset(bulk->found, 0, sizeof(bulk->found));
	(void) JsonbIteratorNext(&it, &name, true);
	while (JsonbIteratorNext(&it, &name, true) == WJB_KEY)
	{
		BulkKey		key = find_key(bulk, &name);

		(void) JsonbIteratorNext(&it, &bulk->said[key], true);
		bulk->found[key] = bulk->said[key].type != jbvNull;
	}
}

/* ---- what an object says ---- */

static text *
get_text(const Bulk *bulk, BulkKey key)
{
	if (!bulk->found[key])
		return NULL;
	return cstring_to_text(jobq_jsonb_string(&bulk->said[key],
											 key_name(bulk, key)));
}

static int64
get_int(const Bulk *bulk, BulkKey key, int64 min, int64 max)
{
	if (!bulk->found[key])
		return 0;
	return jobq_jsonb_int(&bulk->said[key], key_name(bulk, key), min, max);
}

static Jsonb *
get_json(Bulk *bulk, BulkKey key)
{
	return bulk->found[key] ? JsonbValueToJsonb(&bulk->said[key]) : NULL;
}

static int64
get_interval(const Bulk *bulk, BulkKey key)
{
	return jobq_jsonb_interval(&bulk->said[key], key_name(bulk, key), 0,
							   JOBQ_DELAY_MAX);
}

static TimestampTz
get_run_at(const Bulk *bulk)
{
	if (bulk->found[KEY_RUN_AT] && bulk->found[KEY_DELAY])
		jobq_bad_argument(key_name(bulk, KEY_DELAY),
						  "Only one of run_at and delay can be given.");
	if (bulk->found[KEY_RUN_AT])
		return jobq_jsonb_time(&bulk->said[KEY_RUN_AT],
							   key_name(bulk, KEY_RUN_AT));
	if (bulk->found[KEY_DELAY])
		return bulk->now + get_interval(bulk, KEY_DELAY);
	return bulk->now;
}

/* The queue, which the caller may enqueue into. */
static const JobqQueue *
get_queue(Bulk *bulk)
{
	const char *key = key_name(bulk, KEY_QUEUE);
	char	   *name;
	BulkQueue  *entry;
	bool		known;

	if (!bulk->found[KEY_QUEUE])
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("\"%s\" must not be null", key),
				 errdetail("It has no default."),
				 errhint("Give each object the name of a queue.")));
	name = jobq_arg_queue_name(get_text(bulk, KEY_QUEUE), key);
	entry = hash_search(bulk->queues, name, HASH_ENTER, &known);
	if (!known)
	{
		entry->njobs = 0;
		jobq_require_queue(name, JOBQ_PRIV_ENQUEUE, &entry->queue);
		jobq_refuse_draining(bulk->session, &entry->queue);
	}
	if (++entry->njobs > entry->queue.max_batch)
		jobq_bad_argument("jobs",
						  psprintf("Queue \"%s\" takes at most %d in one call.",
								   entry->queue.name,
								   entry->queue.max_batch));
	return &entry->queue;
}

/* What the object says of its unique key; NULL without one. */
static const JobqUnique *
get_unique(const Bulk *bulk)
{
	JobqUnique *unique = palloc(sizeof(JobqUnique));

	jobq_unique_defaults(unique);
	if (bulk->found[KEY_ON_CONFLICT])
		unique->on_conflict =
			jobq_unique_on_conflict(text_to_cstring(get_text(bulk,
															 KEY_ON_CONFLICT)));
	if (bulk->found[KEY_UNIQUE_WHILE])
		unique->unique_while =
			jobq_unique_while(text_to_cstring(get_text(bulk,
													   KEY_UNIQUE_WHILE)));
	if (bulk->found[KEY_UNIQUE_FOR])
		unique->unique_for = get_interval(bulk, KEY_UNIQUE_FOR);
	if (bulk->found[KEY_DEBOUNCE_MAX])
		unique->debounce_max = get_interval(bulk, KEY_DEBOUNCE_MAX);
	unique->set_run_at = bulk->found[KEY_RUN_AT] || bulk->found[KEY_DELAY];
	unique->default_expiry = !bulk->found[KEY_EXPIRES_AT];
	jobq_unique_check(unique);
	return bulk->found[KEY_UNIQUE_KEY] ? unique : NULL;
}

static void
fill_job(Bulk *bulk, JobqNewJob *job)
{
	JobqJobArgs args = {
		.kind = get_text(bulk, KEY_KIND),
		.group_key = get_text(bulk, KEY_GROUP_KEY),
		.unique_key = get_text(bulk, KEY_UNIQUE_KEY),
		.priority = get_int(bulk, KEY_PRIORITY, JOBQ_PRIORITY_MIN,
							JOBQ_PRIORITY_MAX),
		.max_attempts = get_int(bulk, KEY_MAX_ATTEMPTS, 1, JOBQ_ATTEMPTS_MAX),
		.run_at = get_run_at(bulk),
		.headers = get_json(bulk, KEY_HEADERS)
	};
	Jsonb	   *said = get_json(bulk, KEY_PAYLOAD);
	Datum		payload = said != NULL ? JsonbPGetDatum(said) :
		jobq_job_no_payload();
	int64		bytes = VARSIZE(DatumGetPointer(payload)) - VARHDRSZ;
	TimestampTz expires_at;

	if (args.headers != NULL)
		bytes += VARSIZE(args.headers) - VARHDRSZ;
	jobq_job_check_size(job->queue, bytes);
	jobq_job_fill(&args, job->queue, bulk->now, &job->row);
	if (bulk->found[KEY_EXPIRES_AT])
		expires_at = jobq_jsonb_time(&bulk->said[KEY_EXPIRES_AT],
									 key_name(bulk, KEY_EXPIRES_AT));
	jobq_job_set_expiry(bulk->found[KEY_EXPIRES_AT] ? &expires_at : NULL,
						job->queue, &job->row);
	jobq_job_set_payload(payload, &job->row);
	job->unique = get_unique(bulk);
	jobq_input_check(job->queue, &job->row, bulk->njobs + 1);
}

static void
read_jobs(Bulk *bulk, Jsonb *jobs)
{
	JsonbIterator *it = JsonbIteratorInit(&jobs->root);
	JsonbValue	value;
	HASHCTL		ctl = {.keysize = JOBQ_NAME_MAX + 1,
	.entrysize = sizeof(BulkQueue)};

	if (!JB_ROOT_IS_ARRAY(jobs) || JB_ROOT_IS_SCALAR(jobs))
		jobq_bad_argument("jobs", "It must be an array of objects.");
	ctl.hcxt = CurrentMemoryContext;
	bulk->queues = hash_create("pg_jobq queues of a call", 16, &ctl,
							   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	bulk->jobs = palloc_extended(sizeof(JobqNewJob) *
								 Max(JB_ROOT_COUNT(jobs), 1),
								 MCXT_ALLOC_HUGE);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_ELEM)
	{
		JobqNewJob *job = &bulk->jobs[bulk->njobs];

		CHECK_FOR_INTERRUPTS();
		if (value.type != jbvBinary ||
			!JsonContainerIsObject(value.val.binary.data))
			jobq_bad_argument("jobs", "It must be an array of objects.");
		read_object(bulk, value.val.binary.data);
		job->queue = get_queue(bulk);
		fill_job(bulk, job);
		bulk->njobs++;
	}
}

/* enqueue_jobs(jobs jsonb) → TABLE(ord int, id bigint, outcome text) */
Datum
jobq_sql_enqueue_jobs(PG_FUNCTION_ARGS)
{
	JobqSession session;
	Bulk		bulk = {.session = &session};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	jobq_begin_write("jobq.enqueue_jobs()", &session);
	jobq_arg_required(fcinfo, 0, "jobs");
	bulk.now = jobq_now();
	read_jobs(&bulk, PG_GETARG_JSONB_P(0));
	if (bulk.njobs > 0)
		jobq_enqueue_mixed(&session, bulk.jobs, bulk.njobs, bulk.now);
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < bulk.njobs; i++)
	{
		Datum		values[3] = {Int32GetDatum(i + 1),
			Int64GetDatum(bulk.jobs[i].id),
			CStringGetTextDatum(jobq_enqueued_word(bulk.jobs[i].outcome))
		};
		bool		nulls[3] = {false, false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}
