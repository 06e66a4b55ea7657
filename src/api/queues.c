/*
 * queues.c: create_queue(), alter_queue(), drop_queue(), pause_queue(),
 * drain_queue() and resume_queue(). Changes rows of jobq.queue; what happens
 * to jobs when a queue goes is the engine's business.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/keyring.h"
#include "security/input.h"
#include "security/security.h"
#include "store/accesskey.h"

PG_FUNCTION_INFO_V1(jobq_sql_create_queue);
PG_FUNCTION_INFO_V1(jobq_sql_alter_queue);
PG_FUNCTION_INFO_V1(jobq_sql_drop_queue);
PG_FUNCTION_INFO_V1(jobq_sql_pause_queue);
PG_FUNCTION_INFO_V1(jobq_sql_drain_queue);
PG_FUNCTION_INFO_V1(jobq_sql_resume_queue);

/* What create_queue does with a queue that exists. */
typedef enum IfExists
{
	IF_EXISTS_ERROR,
	IF_EXISTS_KEEP,
	IF_EXISTS_ALTER
} IfExists;

/* options || argument, less what is null at the top: that is the default. */
#define MERGED(options, argument) \
	"(SELECT coalesce(pg_catalog.jsonb_object_agg(o.key, o.value), '{}')" \
	"   FROM pg_catalog.jsonb_each(" options " || " argument ") o" \
	"  WHERE pg_catalog.jsonb_typeof(o.value) <> 'null')"

#define INSERT_QUEUE \
	"INSERT INTO jobq.queue (queue, owner, options, class)" \
	" VALUES ($1, $2, " MERGED("'{}'", "$3") ", $4)"

#define UPDATE_OPTIONS \
	"UPDATE jobq.queue SET options = " MERGED("options", "$2") \
	" WHERE queue_id = $1"

#define UPDATE_CLASS \
	"UPDATE jobq.queue SET class = $2 WHERE queue_id = $1"

#define PAUSE_QUEUE \
	"UPDATE jobq.queue SET paused = true, paused_by = $2," \
	" paused_at = pg_catalog.clock_timestamp() WHERE queue_id = $1"

#define DRAIN_QUEUE \
	"UPDATE jobq.queue SET draining = true, draining_by = $2," \
	" draining_at = pg_catalog.clock_timestamp() WHERE queue_id = $1"

#define RESUME_QUEUE \
	"UPDATE jobq.queue SET paused = false, paused_by = NULL," \
	" paused_at = NULL, draining = false, draining_by = NULL," \
	" draining_at = NULL WHERE queue_id = $1"

#define GRANTEES \
	"SELECT grantee FROM jobq.queue_acl WHERE queue_id = $1" \
	" UNION SELECT owner FROM jobq.queue WHERE queue_id = $1"

#define DELETE_DEAD \
	"DELETE FROM jobq.shelf WHERE queue_id = $1 AND state = 'd'"

#define DELETE_KEYS \
	"DELETE FROM jobq.ukey WHERE queue_id = $1"

#define DELETE_GRANTS \
	"DELETE FROM jobq.queue_acl WHERE queue_id = $1"

#define DELETE_QUEUE \
	"DELETE FROM jobq.queue WHERE queue_id = $1"

/*
 * Change the one row of a queue. We hold the lock and have just read the row,
 * so that it is only missed by a snapshot older than it.
 */
static void
change_row(const char *command, int32 queue_id, Oid type, Datum value,
		   int expected)
{
	Oid			types[] = {INT4OID, type};
	Datum		values[] = {Int32GetDatum(queue_id), value};
	int			nargs = OidIsValid(type) ? 2 : 1;

	if (jobq_execute(command, nargs, types, values, expected) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent change of a queue"),
				 errdetail("The transaction's snapshot is older than the queue's present state."),
				 errhint("Run the transaction again.")));
}

static IfExists
read_if_exists(FunctionCallInfo fcinfo, int argno)
{
	char	   *value;

	if (PG_ARGISNULL(argno))
		return IF_EXISTS_ERROR;
	value = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	if (strcmp(value, "error") == 0)
		return IF_EXISTS_ERROR;
	if (strcmp(value, "keep") == 0)
		return IF_EXISTS_KEEP;
	if (strcmp(value, "alter") == 0)
		return IF_EXISTS_ALTER;
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("invalid value for \"if_exists\""),
			 errdetail("Valid are: error, keep, alter."),
			 errhint("Correct \"if_exists\" and call again.")));
}

/* The queue's name in argument 0, and what the caller must be allowed. */
static char *
read_queue(FunctionCallInfo fcinfo, int privileges, JobqQueue *queue)
{
	char	   *name;

	jobq_arg_required(fcinfo, 0, "queue");
	name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue");
	jobq_require_queue(name, privileges, queue);
	return name;
}

/* ---- dead letters ---- */

/*
 * Dead jobs must not be able to come around: follow the pointers from the
 * target on. Queues on the way that the caller may not know are not named.
 */
static void
refuse_cycle(const char *name, const char *target)
{
	JobqQueue	next;
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfo(&path, "\"%s\"", name);
	while (strcmp(target, name) != 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (!jobq_queue_by_name(target, &next) || next.dead_letter[0] == '\0')
			return;
		if (next.my_privileges != 0)
			appendStringInfo(&path, " to \"%s\"", target);
		else
			appendStringInfoString(&path, " to another queue");
		target = pstrdup(next.dead_letter);
	}
	appendStringInfo(&path, " to \"%s\"", name);
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("invalid value for \"dead_letter\""),
			 errdetail("Dead jobs would go in a circle: %s.", path.data),
			 errhint("Name another queue, or end the circle with jobq.alter_queue().")));
}

static void
insert_queue(const char *name, Oid owner, Jsonb *options, int32 class_id)
{
	Oid			types[] = {TEXTOID, OIDOID, JSONBOID, INT4OID};
	Datum		values[] = {
		CStringGetTextDatum(name),
		ObjectIdGetDatum(owner),
		JsonbPGetDatum(options),
		Int32GetDatum(class_id)
	};
	JobqOwnerContext context;

	jobq_connect_as_owner(&context);
	jobq_queue_changed();
	(void) jobq_execute(INSERT_QUEUE, lengthof(types), types, values,
				   SPI_OK_INSERT);
	if (!jobq_is_admin(owner))
		jobq_give_calls(owner, JOBQ_PRIV_ALL);
	jobq_disconnect(&context);
}

static Jsonb *
no_options(void)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum("{}")));
}

/*
 * Make sure that the dead-letter queue of `name` is there. One that exists
 * gets jobs from the caller, so to speak, who must be allowed to enqueue.
 */
static void
prepare_dead_letter(const char *name, const char *target, Oid owner)
{
	JobqQueue	existing;

	if (target[0] == '\0')
		return;
	refuse_cycle(name, target);
	if (jobq_queue_by_name(target, &existing))
		jobq_check_queue(&existing, JOBQ_PRIV_ENQUEUE);
	else
		insert_queue(target, owner, no_options(), JOBQ_CLASS_DEFAULT);
}

/* ---- create and alter ---- */

/* Keys that a queue is to have from now on must be the caller's. */
static void
check_keys(const JobqQueue *queue, const JobqQueue *wanted)
{
	if (wanted->sign[0] != '\0' && strcmp(queue->sign, wanted->sign) != 0)
		jobq_keyring_require_mine(JOBQ_KEY_SIGN, wanted->sign);
	if (wanted->seal[0] != '\0' && strcmp(queue->seal, wanted->seal) != 0)
		jobq_keyring_require_mine(JOBQ_KEY_SEAL, wanted->seal);
}

/* They would keep in clear what is to be sealed. */
static void
refuse_schedules(const JobqQueue *queue, const JobqQueue *wanted)
{
	char	   *schedules;

	if (wanted->seal[0] == '\0' || queue->seal[0] != '\0')
		return;
	schedules = jobq_schedules_with_payload(queue->queue_id);
	if (schedules == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("invalid value for \"seal\""),
			 errdetail("Schedules keep payloads as they are; there is a payload in %s.",
					   schedules),
			 errhint("Give these schedules no payload, or end them with jobq.unschedule().")));
}

/* Do the options change something that concerns other queues, too? */
static bool
concerns_others(const JobqQueue *queue, const JobqQueue *wanted)
{
	return strcmp(queue->dead_letter, wanted->dead_letter) != 0 ||
		queue->retention != wanted->retention;
}

/*
 * Under the lock. `wanted` is the queue as it is with the options applied.
 */
static void
alter(const JobqSession *session, const JobqQueue *queue,
	  const JobqQueue *wanted, Jsonb *options)
{
	JobqOwnerContext context;
	int32		class_id = queue->class_id;

	jobq_options_check(wanted);
	check_keys(queue, wanted);
	refuse_schedules(queue, wanted);
	jobq_input_check_options(options, queue->owner);
	if (queue->retention != wanted->retention)
	{
		class_id = jobq_class_get(wanted->retention);
		jobq_xact_epoch_news(session);
	}
	if (jobq_limits_period(queue) != jobq_limits_period(wanted))
		jobq_xact_epoch_news(session);
	if (strcmp(queue->dead_letter, wanted->dead_letter) != 0)
		prepare_dead_letter(queue->name, wanted->dead_letter, queue->owner);
	jobq_connect_as_owner(&context);
	jobq_queue_changed();
	change_row(UPDATE_OPTIONS, queue->queue_id, JSONBOID,
			   JsonbPGetDatum(options), SPI_OK_UPDATE);
	if (class_id != queue->class_id)
		change_row(UPDATE_CLASS, queue->queue_id, INT4OID,
				   Int32GetDatum(class_id), SPI_OK_UPDATE);
	jobq_disconnect(&context);
	jobq_xact_queue_changed(session, queue->queue_id);
	if (queue->dead_retention != wanted->dead_retention)
		jobq_xact_died(session, jobq_now());
	if (queue->rules.aging != wanted->rules.aging)
		jobq_xact_aging(session, queue->queue_id, wanted->rules.aging);
}

/* Options are settings; none holds a secret. */
static char *
describe_options(Jsonb *options)
{
	return psprintf("options %s",
					JsonbToCString(NULL, &options->root, VARSIZE(options)));
}

static void
audit_created(FunctionCallInfo fcinfo, const char *name, Jsonb *options)
{
	JobqQueue	queue;

	if (jobq_queue_by_name(name, &queue))
		jobq_audit_act_with(fcinfo, "jobq.create_queue()", queue.queue_id, 0,
							describe_options(options));
}

static void
raise_exists(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_DUPLICATE),
			 errmsg("queue \"%s\" already exists", name),
			 errdetail("A name stands for one queue in a database, whoever owns it."),
			 errhint("Pass if_exists => 'keep' or 'alter', or use jobq.alter_queue().")));
}

/* create_queue(queue text, options jsonb, if_exists text) → boolean */
Datum
jobq_sql_create_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	wanted;
	JobqQueue	queue;
	char	   *name;
	Jsonb	   *options;
	IfExists	if_exists;

	jobq_begin_write("jobq.create_queue()", &session);
	jobq_xact_steered(&session);
	jobq_arg_required(fcinfo, 0, "queue");
	name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue");
	options = PG_ARGISNULL(1) ? no_options() : PG_GETARG_JSONB_P(1);
	if_exists = read_if_exists(fcinfo, 2);
	jobq_options_defaults(&wanted);
	strlcpy(wanted.name, name, sizeof(wanted.name));
	jobq_options_apply(options, &wanted);
	if (if_exists != IF_EXISTS_ALTER)
	{
		jobq_options_check(&wanted);
		jobq_input_check_options(options, GetUserId());
	}

	/* what many processes do at their start must not wait */
	if (if_exists == IF_EXISTS_KEEP && jobq_queue_by_name(name, &queue))
		PG_RETURN_BOOL(false);

	jobq_queue_lock();
	if (!jobq_queue_by_name(name, &queue))
	{
		jobq_options_defaults(&queue);
		jobq_options_check(&wanted);
		check_keys(&queue, &wanted);
		jobq_input_check_options(options, GetUserId());
		prepare_dead_letter(name, wanted.dead_letter, GetUserId());
		insert_queue(name, GetUserId(), options,
					 jobq_class_get(wanted.retention));
		jobq_xact_epoch_news(&session);
		if (wanted.rules.aging != 0 && jobq_queue_by_name(name, &queue))
			jobq_xact_aging(&session, queue.queue_id, wanted.rules.aging);
		audit_created(fcinfo, name, options);
		PG_RETURN_BOOL(true);
	}
	if (if_exists == IF_EXISTS_ERROR)
		raise_exists(name);
	if (if_exists == IF_EXISTS_ALTER)
	{
		jobq_check_queue(&queue, JOBQ_PRIV_MANAGE);
		wanted = queue;
		jobq_options_apply(options, &wanted);
		alter(&session, &queue, &wanted, options);
		jobq_audit_act_with(fcinfo, "jobq.create_queue()", queue.queue_id, 0,
							psprintf("altered, %s",
									 describe_options(options)));
	}
	PG_RETURN_BOOL(false);
}

/* alter_queue(queue text, options jsonb) → void */
Datum
jobq_sql_alter_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	JobqQueue	wanted;
	char	   *name;
	Jsonb	   *options;

	jobq_begin_write("jobq.alter_queue()", &session);
	jobq_xact_steered(&session);
	name = read_queue(fcinfo, JOBQ_PRIV_MANAGE, &queue);
	jobq_arg_required(fcinfo, 1, "options");
	options = PG_GETARG_JSONB_P(1);
	wanted = queue;
	jobq_options_apply(options, &wanted);

	/*
	 * A dead-letter queue must not be dropped or lead back meanwhile, nor a
	 * retention's epochs go.
	 */
	if (concerns_others(&queue, &wanted))
		jobq_queue_lock();
	jobq_queue_lock_settings(queue.queue_id);
	jobq_require_queue(name, JOBQ_PRIV_MANAGE, &queue);
	wanted = queue;
	jobq_options_apply(options, &wanted);
	alter(&session, &queue, &wanted, options);
	jobq_audit_act_with(fcinfo, "jobq.alter_queue()", queue.queue_id, 0,
						describe_options(options));
	PG_RETURN_VOID();
}

/* ---- pause, drain and resume ---- */

/* The queue that is to be changed, its settings locked. */
static void
begin_change(FunctionCallInfo fcinfo, const char *what, JobqSession *session,
			 JobqQueue *queue)
{
	char	   *name;

	jobq_begin_write(what, session);
	jobq_xact_steered(session);
	name = read_queue(fcinfo, JOBQ_PRIV_MANAGE, queue);
	jobq_queue_lock_settings(queue->queue_id);
	jobq_require_queue(name, JOBQ_PRIV_MANAGE, queue);
}

/* With role a second parameter, unless it is InvalidOid. */
static void
change_queue(const JobqSession *session, const JobqQueue *queue,
			 const char *command, Oid role)
{
	JobqOwnerContext context;

	jobq_connect_as_owner(&context);
	jobq_queue_changed();
	change_row(command, queue->queue_id,
			   OidIsValid(role) ? OIDOID : InvalidOid, ObjectIdGetDatum(role),
			   SPI_OK_UPDATE);
	jobq_disconnect(&context);
	jobq_xact_queue_changed(session, queue->queue_id);
}

/* pause_queue(queue text) → void */
Datum
jobq_sql_pause_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;

	begin_change(fcinfo, "jobq.pause_queue()", &session, &queue);
	if (!queue.paused)
		change_queue(&session, &queue, PAUSE_QUEUE, GetUserId());
	jobq_audit_act_with(fcinfo, "jobq.pause_queue()", queue.queue_id, 0, NULL);
	PG_RETURN_VOID();
}

/* drain_queue(queue text) → void */
Datum
jobq_sql_drain_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;

	begin_change(fcinfo, "jobq.drain_queue()", &session, &queue);
	if (!queue.draining)
		change_queue(&session, &queue, DRAIN_QUEUE, GetUserId());
	jobq_audit_act_with(fcinfo, "jobq.drain_queue()", queue.queue_id, 0, NULL);
	PG_RETURN_VOID();
}

/* resume_queue(queue text) → void */
Datum
jobq_sql_resume_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;

	begin_change(fcinfo, "jobq.resume_queue()", &session, &queue);
	if (queue.paused || queue.draining)
		change_queue(&session, &queue, RESUME_QUEUE, InvalidOid);
	jobq_audit_act_with(fcinfo, "jobq.resume_queue()", queue.queue_id, 0,
						NULL);
	PG_RETURN_VOID();
}

/* ---- drop ---- */

/* Queues whose dead jobs go to this one. */
static List *
pointing_to(const char *name)
{
	JobqQueue  *all;
	int			n = jobq_queue_list(&all);
	List	   *found = NIL;

	for (int i = 0; i < n; i++)
	{
		if (strcmp(all[i].dead_letter, name) == 0)
			found = lappend(found, &all[i]);
	}
	return found;
}

/*
 * Says which schedules and queues point here, these as far as the caller may
 * know them.
 */
static char *
describe(int64 live, const char *schedules, const List *pointing)
{
	StringInfoData detail;
	ListCell   *lc;
	int			hidden = 0;

	initStringInfo(&detail);
	if (live > 0)
		appendStringInfo(&detail, "It has " INT64_FORMAT " live %s.",
						 live, live == 1 ? "job" : "jobs");
	if (schedules != NULL)
		appendStringInfo(&detail, "%sIt is the queue of %s.",
						 detail.len > 0 ? " " : "", schedules);
	foreach(lc, pointing)
	{
		const JobqQueue *queue = lfirst(lc);

		if (queue->my_privileges == 0)
			hidden++;
		else
			appendStringInfo(&detail,
							 "%sIt is the dead-letter queue of \"%s\".",
							 detail.len > 0 ? " " : "", queue->name);
	}
	if (hidden > 0)
		appendStringInfo(&detail,
						 "%sIt is the dead-letter queue of %d more.",
						 detail.len > 0 ? " " : "", hidden);
	return detail.data;
}

static void
refuse_used(const JobqSession *session, const JobqQueue *queue,
			const List *pointing)
{
	int64		live = jobq_count_live(session, queue->queue_id);
	char	   *schedules = jobq_schedules_of_queue(queue->queue_id);

	if (live == 0 && schedules == NULL && pointing == NIL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop queue \"%s\" because it is in use",
					queue->name),
			 errdetail_internal("%s", describe(live, schedules, pointing)),
			 errhint("Pass force => true to cancel its jobs, remove its schedules and drop it nevertheless.")));
}

/* Take the pointers to a queue away. */
static void
forget_dead_letter(const List *pointing)
{
	Datum		none = DirectFunctionCall1(jsonb_in,
										   CStringGetDatum("{\"dead_letter\": null, \"expired_to\": null}"));
	ListCell   *lc;

	foreach(lc, pointing)
	{
		const JobqQueue *queue = lfirst(lc);

		change_row(UPDATE_OPTIONS, queue->queue_id, JSONBOID, none,
				   SPI_OK_UPDATE);
	}
}

/* The roles that had something to do with a queue; inside SPI. */
static List *
grantees(int32 queue_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(queue_id);
	uint64		n = jobq_execute(GRANTEES, 1, &type, &value, SPI_OK_SELECT);
	List	   *roles = NIL;

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		role = SPI_getbinval(SPI_tuptable->vals[i],
										 SPI_tuptable->tupdesc, 1, &isnull);

		roles = lappend_oid(roles, DatumGetObjectId(role));
	}
	return roles;
}

/*
 * The rows of a queue without live jobs. Its dead jobs go too: nobody could
 * see them or run them again.
 */
static void
delete_queue(const JobqQueue *queue, const List *pointing)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(queue->queue_id);
	JobqOwnerContext context;
	List	   *roles;
	ListCell   *lc;

	jobq_connect_as_owner(&context);
	jobq_queue_changed();
	roles = grantees(queue->queue_id);
	forget_dead_letter(pointing);
	(void) jobq_execute(DELETE_DEAD, 1, &type, &value, SPI_OK_DELETE);
	(void) jobq_execute(DELETE_KEYS, 1, &type, &value, SPI_OK_DELETE);
	(void) jobq_execute(DELETE_GRANTS, 1, &type, &value, SPI_OK_DELETE);
	jobq_group_delete_all(queue->queue_id);
	jobq_access_key_delete_all(queue->queue_id);
	change_row(DELETE_QUEUE, queue->queue_id, InvalidOid, (Datum) 0,
			   SPI_OK_DELETE);
	foreach(lc, roles)
		jobq_take_calls_back(lfirst_oid(lc));
	jobq_disconnect(&context);
}

/* drop_queue(queue text, force boolean) → void */
Datum
jobq_sql_drop_queue(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	char	   *name;
	bool		force = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	List	   *pointing;

	jobq_begin_write("jobq.drop_queue()", &session);
	name = read_queue(fcinfo, JOBQ_PRIV_MANAGE, &queue);
	/* whoever has enqueued there is waited for with no other lock in hand */
	jobq_lock_queue_for_drop(&queue);
	jobq_queue_lock();
	jobq_queue_lock_settings(queue.queue_id);
	jobq_require_queue(name, JOBQ_PRIV_MANAGE, &queue);
	jobq_await_settle(&session);
	pointing = pointing_to(name);
	if (force)
		(void) jobq_purge(&session, &queue,
						  JOBQ_PURGE_SCHEDULED | JOBQ_PURGE_AVAILABLE |
						  JOBQ_PURGE_BLOCKED | JOBQ_PURGE_RETRYABLE | JOBQ_PURGE_RUNNING);
	else
		refuse_used(&session, &queue, pointing);
	if (jobq_schedule_delete_of_queue(queue.queue_id))
		jobq_xact_cron_news(&session);
	jobq_audit_act_with(fcinfo, "jobq.drop_queue()", queue.queue_id, 0,
						force ? "with all that was in it" : NULL);
	delete_queue(&queue, pointing);
	jobq_xact_queue_dropped(&session, queue.queue_id);
	PG_RETURN_VOID();
}
