/*
 * accesskey.c: create_access_key() and its like, and view access_keys. Checks
 * who may and what is asked for; what a key is, is security's business. Must
 * not let a key get into a message.
 */
#include "postgres.h"

#include <netinet/in.h>

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "api/args.h"
#include "compat.h"
#include "dispatch/lockout.h"
#include "engine/engine.h"
#include "engine/keyuse.h"
#include "errors.h"
#include "security/audit.h"
#include "security/accesskey.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_sql_create_access_key);
PG_FUNCTION_INFO_V1(jobq_sql_rotate_access_key);
PG_FUNCTION_INFO_V1(jobq_sql_revoke_access_key);
PG_FUNCTION_INFO_V1(jobq_sql_use_access_key);
PG_FUNCTION_INFO_V1(jobq_view_access_keys);

#define KEY_PRIVILEGES \
	(JOBQ_PRIV_ENQUEUE | JOBQ_PRIV_DEQUEUE | JOBQ_PRIV_READ)
#define DEFAULT_OVERLAP		USECS_PER_DAY
#define IPV6_NETWORK_LEN	8	/* one subscriber has all of it */

/* Columns of the view. */
enum
{
	VIEW_NAME,
	VIEW_QUEUE,
	VIEW_PREFIX,
	VIEW_PRIVILEGES,
	VIEW_CREATED_BY,
	VIEW_CREATED_AT,
	VIEW_EXPIRES_AT,
	VIEW_REVOKED_AT,
	VIEW_LAST_USED_AT,
	VIEW_USES,
	VIEW_STATE,
	VIEW_REPLACED_AT,
	VIEW_SECRET_VERSION,
	VIEW_NATTS
};

/* ---- arguments ---- */

/* The name of a key is like that of a queue. */
static char *
read_name(FunctionCallInfo fcinfo)
{
	jobq_arg_required(fcinfo, 0, "name");
	return jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "name");
}

/* A queue that the caller manages. */
static char *
read_queue(FunctionCallInfo fcinfo, int argno, JobqQueue *queue)
{
	char	   *name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(argno), "queue");

	jobq_require_queue(name, JOBQ_PRIV_MANAGE, queue);
	return name;
}

static int
read_privileges(FunctionCallInfo fcinfo)
{
	int			privileges;

	jobq_arg_required(fcinfo, 2, "privileges");
	privileges = jobq_arg_privileges(PG_GETARG_ARRAYTYPE_P(2));
	if (privileges == 0)
		jobq_bad_argument("privileges",
						  "An access key has at least one of: enqueue, dequeue, read.");
	if (privileges & ~KEY_PRIVILEGES)
		jobq_bad_argument("privileges",
						  "An access key has some of: enqueue, dequeue, read; to manage a queue takes a role.");
	return privileges;
}

/* ---- keys by name ---- */

/* The keys of a name on one queue, oldest first. */
typedef struct Named
{
	const char *name;
	int32		queue_id;
	JobqAccessKey *keys;
	int			n;
} Named;

static void
raise_several(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("more than one queue has an access key \"%s\"", name),
			 errdetail("Names of access keys are unique within a queue only."),
			 errhint("Pass the name of the queue, too.")));
}

/* Of queues that the caller manages, or of this one, if it is not 0. */
static void
find_named(Named *named)
{
	JobqAccessKey *all;
	int			nall = jobq_access_key_list(&all);

	named->keys = all;
	named->n = 0;
	for (int i = 0; i < nall; i++)
	{
		JobqQueue	queue;

		CHECK_FOR_INTERRUPTS();
		if (strcmp(all[i].name, named->name) != 0 ||
			(named->queue_id != 0 && all[i].queue_id != named->queue_id) ||
			!jobq_queue_by_id(all[i].queue_id, &queue) ||
			(queue.my_privileges & JOBQ_PRIV_MANAGE) == 0)
			continue;
		if (named->n > 0 && named->keys[0].queue_id != all[i].queue_id)
			raise_several(named->name);
		named->keys[named->n++] = all[i];
	}
}

/* Only the good ones are kept; the last of them is the present one. */
static void
keep_good(Named *named, TimestampTz now)
{
	int			n = 0;

	for (int i = 0; i < named->n; i++)
	{
		if (jobq_key_is_good(&named->keys[i], now))
			named->keys[n++] = named->keys[i];
	}
	named->n = n;
}

static void
raise_none(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_NO_JOB),
			 errmsg("access key \"%s\" does not exist", name),
			 errdetail("No queue that role \"%s\" manages has a key of this name that could be changed.",
					   GetUserNameFromId(GetUserId(), false)),
			 errhint("SELECT name, queue, state FROM jobq.access_keys lists them.")));
}

/*
 * Find what rotate and revoke are to change, under the lock that all who
 * change keys take. queue_arg may be NULL.
 */
static void
begin_change(FunctionCallInfo fcinfo, const char *what, int queue_arg,
			 Named *named)
{
	JobqSession session;
	JobqQueue	queue;

	jobq_begin_write(what, &session);
	jobq_xact_steered(&session);
	*named = (Named) {.name = read_name(fcinfo)};
	if (!PG_ARGISNULL(queue_arg))
	{
		(void) read_queue(fcinfo, queue_arg, &queue);
		named->queue_id = queue.queue_id;
	}
	/* a stranger cannot make us take the lock */
	find_named(named);
	if (named->n == 0)
		raise_none(named->name);
	jobq_queue_lock();
	find_named(named);
}

/* Make the key, write its row, return the raw key. */
static Datum
issue(JobqAccessKey *key)
{
	char		raw[JOBQ_RAW_KEY_LEN + 1];
	Datum		result;

	key->created_by = GetUserId();
	jobq_key_make(raw, key);
	jobq_access_key_add(key);
	result = CStringGetTextDatum(raw);
	explicit_bzero(raw, sizeof(raw));
	return result;
}

/* ---- making and ending keys ---- */

static void
refuse_taken(const JobqQueue *queue, const char *name, TimestampTz now)
{
	Named		named = {.name = name,.queue_id = queue->queue_id};

	find_named(&named);
	keep_good(&named, now);
	if (named.n > 0)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_DUPLICATE),
				 errmsg("access key \"%s\" exists already", name),
				 errdetail("Queue \"%s\" has a key of this name that is still good.",
						   queue->name),
				 errhint("Replace it with jobq.rotate_access_key(), or end it with jobq.revoke_access_key().")));
}

static void
audit(FunctionCallInfo fcinfo, const char *call, const JobqAccessKey *key)
{
	jobq_audit_act_with(fcinfo, call, key->queue_id, 0,
						psprintf("access key \"%s\"", key->name));
}

/* create_access_key(name, queue, privileges, expires_in) → text */
Datum
jobq_sql_create_access_key(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	JobqAccessKey key = {.expires_at = DT_NOEND};
	char	   *queue_name;
	Datum		issued;

	jobq_begin_write("jobq.create_access_key()", &session);
	jobq_xact_steered(&session);
	jobq_arg_required(fcinfo, 1, "queue");
	queue_name = read_queue(fcinfo, 1, &queue);
	strlcpy(key.name, read_name(fcinfo), sizeof(key.name));
	key.privileges = read_privileges(fcinfo);
	key.created_at = jobq_now();
	if (!PG_ARGISNULL(3))
		key.expires_at = key.created_at +
			jobq_arg_interval(PG_GETARG_INTERVAL_P(3), "expires_in",
							  USECS_PER_SEC, JOBQ_DELAY_MAX);
	jobq_queue_lock();
	jobq_require_queue(queue_name, JOBQ_PRIV_MANAGE, &queue);
	refuse_taken(&queue, key.name, key.created_at);
	key.queue_id = queue.queue_id;
	issued = issue(&key);
	audit(fcinfo, "jobq.create_access_key()", &key);
	PG_RETURN_DATUM(issued);
}

/* The same time to live as before, from now on. */
static TimestampTz
expiry_like(const JobqAccessKey *key, TimestampTz now)
{
	return key->expires_at == DT_NOEND ? DT_NOEND :
		now + (key->expires_at - key->created_at);
}

/* rotate_access_key(name, overlap, queue) → text */
Datum
jobq_sql_rotate_access_key(PG_FUNCTION_ARGS)
{
	Named		named;
	JobqAccessKey key;
	int64		overlap = DEFAULT_OVERLAP;
	Datum		issued;

	begin_change(fcinfo, "jobq.rotate_access_key()", 2, &named);
	if (!PG_ARGISNULL(1))
		overlap = jobq_arg_interval(PG_GETARG_INTERVAL_P(1), "overlap", 0,
									JOBQ_DELAY_MAX);
	keep_good(&named, jobq_now());
	if (named.n == 0)
		raise_none(named.name);
	key = named.keys[named.n - 1];
	key.created_at = jobq_now();
	key.expires_at = expiry_like(&named.keys[named.n - 1], key.created_at);
	for (int i = 0; i < named.n; i++)
		jobq_access_key_replaced(named.keys[i].key_id,
								 key.created_at + overlap);
	issued = issue(&key);
	audit(fcinfo, "jobq.rotate_access_key()", &key);
	PG_RETURN_DATUM(issued);
}

/* revoke_access_key(name, queue) → void */
Datum
jobq_sql_revoke_access_key(PG_FUNCTION_ARGS)
{
	Named		named;

	begin_change(fcinfo, "jobq.revoke_access_key()", 1, &named);
	for (int i = 0; i < named.n; i++)
	{
		if (named.keys[i].revoked_at == DT_NOEND)
			jobq_access_key_revoke(named.keys[i].key_id, jobq_now());
	}
	if (named.n > 0)
		audit(fcinfo, "jobq.revoke_access_key()", &named.keys[0]);
	PG_RETURN_VOID();
}

/* ---- using one ---- */

/* Clients of this machine are told apart by their role. */
static void
get_address(JobqAddress *from)
{
	const struct sockaddr_storage *client = MyBEEntry == NULL ? NULL :
		&MyBEEntry->st_clientaddr.addr;

	memset(from, 0, sizeof(*from));
	if (client != NULL && client->ss_family == AF_INET)
	{
		from->family = AF_INET;
		memcpy(from->bytes, &((const struct sockaddr_in *) client)->sin_addr,
			   sizeof(struct in_addr));
	}
	else if (client != NULL && client->ss_family == AF_INET6)
	{
		from->family = AF_INET6;
		memcpy(from->bytes, &((const struct sockaddr_in6 *) client)->sin6_addr,
			   IPV6_NETWORK_LEN);
	}
	else
		from->role = GetSessionUserId();
}

static void
refuse_locked_out(const JobqAddress *from)
{
	int64		left = jobq_lockout_left(from, GetCurrentTimestamp());

	if (left <= 0)
		return;
	jobq_audit_refusal(NULL, 0, 0, ERRCODE_JOBQ_KEY_REFUSED,
					   "locked out after too many wrong access keys");
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_KEY_REFUSED),
			 errmsg("access keys from here are not looked at now"),
			 errdetail("Too many wrong ones have come from this address. Retry after " INT64_FORMAT " ms.",
					   left / 1000 + 1),
			 errhint("Present the right key, once, after that time.")));
}

/* use_access_key(key text, for_session boolean) → void */
Datum
jobq_sql_use_access_key(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqAccessKey key;
	JobqAddress from;

	jobq_begin_read(&session);
	jobq_audit_call = "jobq.use_access_key()";
	if (PG_ARGISNULL(0))
	{
		jobq_key_let_go();
		PG_RETURN_VOID();
	}
	get_address(&from);
	refuse_locked_out(&from);
	if (!jobq_key_find(text_to_cstring(PG_GETARG_TEXT_PP(0)), &key))
	{
		jobq_lockout_failed(&from, GetCurrentTimestamp());
		jobq_audit_refusal(NULL, 0, 0, ERRCODE_JOBQ_KEY_REFUSED,
						   "presented an access key that is not known");
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_KEY_REFUSED),
				 errmsg("the access key is not known"),
				 errdetail("No key of this database is like the one presented."),
				 errhint("Ask whoever manages the queue for a key; jobq.create_access_key() makes one.")));
	}
	jobq_key_check(&key, GetCurrentTimestamp());
	jobq_key_take(&key, !PG_ARGISNULL(1) && PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

/* ---- the view ---- */

static const JobqKeyUse *
use_of(int32 key_id, const JobqKeyUse *uses, int nuses)
{
	int			low = 0;
	int			high = nuses;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (uses[middle].key_id == key_id)
			return &uses[middle];
		if (uses[middle].key_id < key_id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static const char *
state_of(const JobqAccessKey *key, TimestampTz now)
{
	if (key->revoked_at != DT_NOEND)
		return "revoked";
	return jobq_key_is_good(key, now) ? "active" : "expired";
}

static void
set_time(Datum *values, bool *nulls, int column, TimestampTz when)
{
	values[column] = TimestampTzGetDatum(when);
	nulls[column] = when == DT_NOEND;
}

static void
show(ReturnSetInfo *rsinfo, const JobqAccessKey *key, const JobqQueue *queue,
	 const JobqKeyUse *use)
{
	Datum		values[VIEW_NATTS];
	bool		nulls[VIEW_NATTS] = {0};

	values[VIEW_NAME] = CStringGetTextDatum(key->name);
	values[VIEW_QUEUE] = CStringGetTextDatum(queue->name);
	values[VIEW_PREFIX] = CStringGetTextDatum(key->prefix);
	values[VIEW_PRIVILEGES] = jobq_privilege_array(key->privileges);
	values[VIEW_CREATED_BY] =
		CStringGetTextDatum(jobq_role_shown(key->created_by));
	values[VIEW_CREATED_AT] = TimestampTzGetDatum(key->created_at);
	set_time(values, nulls, VIEW_EXPIRES_AT, key->expires_at);
	set_time(values, nulls, VIEW_REVOKED_AT, key->revoked_at);
	set_time(values, nulls, VIEW_LAST_USED_AT,
			 use != NULL ? use->last_used_at : DT_NOEND);
	values[VIEW_USES] = Int64GetDatum(use != NULL ? use->uses : 0);
	values[VIEW_STATE] = CStringGetTextDatum(state_of(key, jobq_now()));
	set_time(values, nulls, VIEW_REPLACED_AT, key->replaced_at);
	values[VIEW_SECRET_VERSION] = Int32GetDatum(key->secret_version);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
jobq_view_access_keys(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;
	JobqAccessKey *keys;
	JobqKeyUse *uses;
	int			nkeys;
	int			nuses;

	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	nkeys = jobq_access_key_list(&keys);
	nuses = jobq_key_uses_known(&session, &uses);
	for (int i = 0; i < nkeys; i++)
	{
		JobqQueue	queue;

		CHECK_FOR_INTERRUPTS();
		if (jobq_queue_by_id(keys[i].queue_id, &queue) &&
			(queue.my_privileges & JOBQ_PRIV_MANAGE))
			show(rsinfo, &keys[i], &queue,
				 use_of(keys[i].key_id, uses, nuses));
	}
	return (Datum) 0;
}
