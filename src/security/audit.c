/*
 * audit.c: writes down acts, refusals, and the jobs that are taken and settled
 * in queues that ask for it: who did what, when, from where. Must not decide
 * whether something is allowed, and never sees a payload.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inet.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "dispatch/audit.h"
#include "engine/engine.h"
#include "security/audit.h"
#include "security/record.h"
#include "security/security.h"
#include "store/audit.h"

#define JOBS_SHOWN		50		/* ids, or ranges of them, that a row names */
#define DETAIL_MAX		2000	/* bytes */

typedef struct JobqAuditJob
{
	int32		queue_id;
	int64		id;
} JobqAuditJob;

const char *jobq_audit_call;

/* ---- who, from where, how long ---- */

/* "jobq.enqueue()" is enqueue. */
static void
copy_call(const char *call, char *target)
{
	const char *prefix = "jobq.";
	size_t		length;

	if (call == NULL)
		call = jobq_audit_call != NULL ? jobq_audit_call :
			MyProcPort == NULL ? "keeper" : "look";
	if (strncmp(call, prefix, strlen(prefix)) == 0)
		call += strlen(prefix);
	length = strcspn(call, "(");
	strlcpy(target, call, Min(length + 1, JOBQ_REFUSAL_CALL));
}

/*
 * Where the client is: found out once, as it does not change. Empty for a
 * client on this machine's socket, and without any.
 */
static const char *
client_addr(void)
{
	static char address[JOBQ_CLIENT_ADDR];
	static bool known;

	if (!known && MyProcPort != NULL)
	{
		LOCAL_FCINFO(fcinfo, 0);
		Datum		value;

		InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
		value = inet_client_addr(fcinfo);
		if (!fcinfo->isnull)
			strlcpy(address,
					DatumGetCString(DirectFunctionCall1(inet_out, value)),
					sizeof(address));
		known = true;
	}
	return address;
}

/* Cut to fit, between two characters. */
static void
copy_text(const char *text, char *target, int size)
{
	int			length = text == NULL ? 0 : (int) strlen(text);

	if (length >= size)
		length = pg_mbcliplen(text, length, size - 1);
	memcpy(target, text == NULL ? "" : text, length);
	target[length] = '\0';
}

static void
describe(const char *call, int32 queue_id, int64 job_id, int sqlstate,
		 const char *detail, JobqRefusal *refusal)
{
	memset(refusal, 0, sizeof(*refusal));
	refusal->at = GetCurrentTimestamp();
	refusal->latency =
		Max(refusal->at - GetCurrentStatementStartTimestamp(), 0);
	refusal->role = jobq_caller();
	refusal->session_role = GetSessionUserId();
	refusal->queue_id = queue_id;
	refusal->job_id = job_id;
	refusal->sqlstate = sqlstate;
	copy_call(call, refusal->call);
	copy_text(client_addr(), refusal->client_addr,
			  sizeof(refusal->client_addr));
	copy_text(application_name, refusal->application_name,
			  sizeof(refusal->application_name));
	copy_text(detail, refusal->detail, sizeof(refusal->detail));
}

/* ---- entries ---- */

static void
set_text(JobqAuditEntry *entry, JobqAuditAttr attr, const char *text)
{
	entry->nulls[attr] = text == NULL || text[0] == '\0';
	if (!entry->nulls[attr])
		entry->values[attr] = CStringGetTextDatum(text);
}

static void
set_int64(JobqAuditEntry *entry, JobqAuditAttr attr, int64 value)
{
	entry->values[attr] = Int64GetDatum(value);
	entry->nulls[attr] = false;
}

static const char *
queue_shown(int32 queue_id)
{
	JobqQueue	queue;

	if (queue_id == 0)
		return NULL;
	if (jobq_queue_by_id(queue_id, &queue))
		return pstrdup(queue.name);
	return psprintf("(dropped: %d)", queue_id);
}

static int64
take_number(const JobqSession *session)
{
	int64		number;

	while ((number = jobq_audit_take_number(session->db,
											session->gen)) == 0)
		jobq_audit_set_number(session->db, session->gen,
							  jobq_audit_last_entry());
	if (number < 0)
		jobq_raise_not_ready();
	return number;
}

int64
jobq_audit_write(const JobqSession *session, const JobqRefusal *what,
				 const char *outcome, const char *detail, Jsonb *arguments)
{
	JobqAuditEntry entry;
	int64		number = take_number(session);

	memset(entry.nulls, true, sizeof(entry.nulls));
	entry.values[AUDIT_ORIGIN] = UUIDPGetDatum(jobq_audit_origin());
	entry.nulls[AUDIT_ORIGIN] = false;
	set_int64(&entry, AUDIT_ID, number);
	entry.values[AUDIT_AT] = TimestampTzGetDatum(what->at);
	entry.nulls[AUDIT_AT] = false;
	set_text(&entry, AUDIT_ROLE, jobq_role_shown(what->role));
	set_text(&entry, AUDIT_SESSION_ROLE, jobq_role_shown(what->session_role));
	if (what->client_addr[0] != '\0')
	{
		entry.values[AUDIT_CLIENT_ADDR] =
			DirectFunctionCall1(inet_in, CStringGetDatum(what->client_addr));
		entry.nulls[AUDIT_CLIENT_ADDR] = false;
	}
	set_text(&entry, AUDIT_APPLICATION_NAME, what->application_name);
	set_text(&entry, AUDIT_CALL, what->call);
	set_text(&entry, AUDIT_QUEUE, queue_shown(what->queue_id));
	if (what->job_id != 0)
		set_int64(&entry, AUDIT_JOB_ID, what->job_id);
	set_text(&entry, AUDIT_OUTCOME, outcome);
	if (what->sqlstate != 0)
		set_text(&entry, AUDIT_SQLSTATE, unpack_sql_state(what->sqlstate));
	set_text(&entry, AUDIT_DETAIL, detail);
	set_int64(&entry, AUDIT_LATENCY, what->latency);
	if (arguments != NULL)
	{
		entry.values[AUDIT_ARGUMENTS] = JsonbPGetDatum(arguments);
		entry.nulls[AUDIT_ARGUMENTS] = false;
	}
	jobq_audit_insert_entry(&entry);
	return number;
}

/* ---- refusals ---- */

/*
 * This database's entry; after a restart we may be the first to need it. NULL
 * when there can be none.
 */
static JobqDb *
get_db(void)
{
	JobqDb	   *db = jobq_db_find(MyDatabaseId);
	Oid			install;

	if (db != NULL)
		return db;
	install = jobq_try_enter();
	return OidIsValid(install) ? jobq_db_try_attach(MyDatabaseId, install) :
		NULL;
}

void
jobq_audit_refusal(const char *call, int32 queue_id, int64 job_id,
				   int sqlstate, const char *detail)
{
	JobqDb	   *db;
	JobqRefusal refusal;

	if (RecoveryInProgress())
		return;
	db = get_db();
	if (db == NULL)
		return;
	describe(call, queue_id, job_id, sqlstate, detail, &refusal);
	refusal.kind = JOBQ_REFUSED;
	jobq_refusal_put(db, &refusal);
}

/* ---- acts ---- */

static void
begin(JobqSession *session)
{
	session->db = jobq_db_attach(MyDatabaseId,
								 jobq_table_oid(JOBQ_TABLE_QUEUE));
	session->gen = session->db->gen;
}

/* Bytes of an argument, as it was passed. */
static int64
bytes_of(Oid type, Datum value)
{
	int16		length;
	bool		by_value;

	get_typlenbyval(type, &length, &by_value);
	if (length > 0)
		return length;
	return (int64) toast_raw_datum_size(value) - VARHDRSZ;
}

/* {"name": bytes} of the arguments that are not null. */
static Jsonb *
arguments_of(FunctionCallInfo fcinfo)
{
	HeapTuple	proc = SearchSysCache1(PROCOID,
									   ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	StringInfoData json;
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			n;

	if (!HeapTupleIsValid(proc))
		elog(ERROR, "cache lookup failed for function %u",
			 fcinfo->flinfo->fn_oid);
	n = get_func_arg_info(proc, &types, &names, &modes);
	ReleaseSysCache(proc);
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	/* those that only come out follow those that go in */
	for (int i = 0; i < Min(n, fcinfo->nargs) && names != NULL; i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		if (json.len > 1)
			appendStringInfoString(&json, ", ");
		escape_json(&json, names[i]);
		appendStringInfo(&json, ": " INT64_FORMAT,
						 bytes_of(types[i], PG_GETARG_DATUM(i)));
	}
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(json.data)));
}

static void
write_act(const char *call, int32 queue_id, int64 job_id, const char *detail,
		  Jsonb *arguments)
{
	JobqSession session;
	JobqRefusal what;
	char		cut[DETAIL_MAX];

	begin(&session);
	describe(call, queue_id, job_id, 0, NULL, &what);
	copy_text(detail, cut, sizeof(cut));
	jobq_xact_audited(&session,
					  jobq_audit_write(&session, &what, "done", cut,
									   arguments),
					  NULL);
}

void
jobq_audit_act(const char *call, int32 queue_id, int64 job_id,
			   const char *detail)
{
	write_act(call, queue_id, job_id, detail, NULL);
}

void
jobq_audit_act_with(FunctionCallInfo fcinfo, const char *call, int32 queue_id,
					int64 job_id, const char *detail)
{
	write_act(call, queue_id, job_id, detail, arguments_of(fcinfo));
}

/* ---- jobs ---- */

void
jobq_audit_note(JobqAuditJobs *jobs, int32 queue_id, int64 id)
{
	if (jobs->n == jobs->room)
	{
		jobs->room = Max(16, jobs->room * 2);
		jobs->jobs = jobs->jobs == NULL ?
			palloc_extended(sizeof(JobqAuditJob) * jobs->room,
							MCXT_ALLOC_HUGE) :
			repalloc_huge(jobs->jobs, sizeof(JobqAuditJob) * jobs->room);
	}
	jobs->jobs[jobs->n].queue_id = queue_id;
	jobs->jobs[jobs->n].id = id;
	jobs->n++;
}

static int
compare_jobs(const void *a, const void *b)
{
	const JobqAuditJob *x = a;
	const JobqAuditJob *y = b;

	if (x->queue_id != y->queue_id)
		return x->queue_id < y->queue_id ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* Such as: 4 jobs: 5, 6, 7-8 */
static char *
list_jobs(const JobqAuditJob *jobs, int n)
{
	StringInfoData list;
	int			to;
	int			shown = 0;

	initStringInfo(&list);
	appendStringInfo(&list, "%d %s: ", n, n == 1 ? "job" : "jobs");
	for (int from = 0; from < n; from = to)
	{
		to = from + 1;
		while (to < n && jobs[to].id == jobs[to - 1].id + 1)
			to++;
		if (shown++ == JOBS_SHOWN)
		{
			appendStringInfo(&list, ", and %d more", n - from);
			break;
		}
		appendStringInfo(&list, "%s" INT64_FORMAT, from > 0 ? ", " : "",
						 jobs[from].id);
		if (to - from > 1)
			appendStringInfo(&list, "-" INT64_FORMAT, jobs[to - 1].id);
	}
	return list.data;
}

/* What is to be told of jobs that were handed out, should that be undone. */
static JobqRefusal *
undone_claim(const JobqRefusal *what, const char *list)
{
	JobqRefusal *undone = MemoryContextAlloc(TopTransactionContext,
											 sizeof(*undone));

	*undone = *what;
	undone->kind = JOBQ_CLAIM_ROLLED_BACK;
	copy_text(list, undone->detail, sizeof(undone->detail));
	return undone;
}

static void
write_jobs(const char *call, const char *what, bool claimed,
		   const JobqAuditJob *jobs, int n)
{
	JobqSession session;
	JobqRefusal row;
	char	   *list = list_jobs(jobs, n);
	char		detail[DETAIL_MAX];
	int64		number;

	begin(&session);
	describe(call, jobs[0].queue_id, n == 1 ? jobs[0].id : 0, 0, NULL, &row);
	copy_text(what == NULL ? list : psprintf("%s: %s", what, list),
			  detail, sizeof(detail));
	number = jobq_audit_write(&session, &row, "done", detail, NULL);
	jobq_xact_audited(&session, number,
					  claimed ? undone_claim(&row, list) : NULL);
}

/* A row for each queue. */
static void
write_by_queue(const char *call, const char *what, bool claimed,
			   const JobqAuditJobs *jobs)
{
	int			to;

	if (jobs->n == 0)
		return;
	qsort(jobs->jobs, jobs->n, sizeof(JobqAuditJob), compare_jobs);
	for (int from = 0; from < jobs->n; from = to)
	{
		to = from + 1;
		while (to < jobs->n &&
			   jobs->jobs[to].queue_id == jobs->jobs[from].queue_id)
			to++;
		write_jobs(call, what, claimed, &jobs->jobs[from], to - from);
	}
}

void
jobq_audit_claimed(const char *call, const JobqAuditJobs *jobs)
{
	write_by_queue(call, NULL, true, jobs);
}

void
jobq_audit_settled(const char *call, const char *what,
				   const JobqAuditJobs *jobs)
{
	write_by_queue(call, what, false, jobs);
}
