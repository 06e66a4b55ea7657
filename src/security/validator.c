/*
 * validator.c: a user's function that says whether a queue takes a payload. It
 * runs as the queue's owner, restricted and reading only; nothing that it says
 * or raises is passed on. Must never be called by the keeper.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "api/args.h"
#include "compat.h"
#include "errors.h"
#include "security/audit.h"
#include "security/input.h"
#include "security/security.h"

#define NAME_WANTED \
	"It must be the name of a function with its schema, such as \"app.check_order\"."

/* Somebody else's identity, for as long as it is needed. */
typedef struct Identity
{
	Oid			role;
	int			context;
	int			guc_level;
	bool		read_only;
} Identity;

/* An error restores all of it with the transaction, or its part. */
static void
become(Oid role, Identity *mine)
{
	GetUserIdAndSecContext(&mine->role, &mine->context);
	mine->read_only = XactReadOnly;
	mine->guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(role, mine->context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	XactReadOnly = true;
}

static void
become_myself(const Identity *mine)
{
	XactReadOnly = mine->read_only;
	AtEOXact_GUC(false, mine->guc_level);
	SetUserIdAndSecContext(mine->role, mine->context);
}

/* ---- which function ---- */

/* "schema.function", also with "(jsonb)"; what needs it in double quotes. */
static List *
parse_name(const char *name)
{
	static const char arguments[] = "(jsonb)";
	size_t		length = strlen(name);
	char	   *plain = pstrdup(name);
	List	   *parts = NIL;
	List	   *names = NIL;
	ListCell   *lc;

	if (length > strlen(arguments) &&
		strcmp(name + length - strlen(arguments), arguments) == 0)
		plain[length - strlen(arguments)] = '\0';
	if (!SplitIdentifierString(plain, '.', &parts) || list_length(parts) != 2)
		jobq_bad_argument("validator", NAME_WANTED);
	foreach(lc, parts)
		names = lappend(names, makeString(lfirst(lc)));
	return names;
}

static void
check_execute(Oid function, const char *name, Oid role)
{
	if (jobq_may_execute(function, role))
		return;
	jobq_audit_refusal(NULL, 0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "a validator may not be executed");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for function %s", jobq_shown(name)),
			 errdetail("Role \"%s\" may not execute it.",
					   GetUserNameFromId(role, false)),
			 errhint("GRANT EXECUTE on the function, or name another validator with jobq.alter_queue().")));
}

/*
 * Whoever owns a function can change what it does, and would do so with the
 * rights of the queue's owner.
 */
static void
check_trust(Form_pg_proc function, const char *name, Oid owner)
{
	if (!superuser_arg(owner) || superuser_arg(function->proowner))
		return;
	jobq_audit_refusal(NULL, 0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "a validator would run with a superuser's rights");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for function %s", jobq_shown(name)),
			 errdetail("The queue's owner is a superuser, the function's owner is not."),
			 errhint("Have a superuser own the function, or an ordinary role the queue.")));
}

static void
check_shape(Form_pg_proc function)
{
	if (function->prokind != PROKIND_FUNCTION || function->proretset ||
		function->prorettype != BOOLOID)
		jobq_bad_argument("validator",
						  "The function must return one boolean.");
}

/* As the present role sees it, which must be allowed to call it. */
static Oid
find(const char *name, Oid owner)
{
	Oid			argument = JSONBOID;
	Oid			found = LookupFuncName(parse_name(name), 1, &argument, true);
	HeapTuple	tuple;

	if (!OidIsValid(found))
		jobq_bad_argument("validator",
						  psprintf("There is no function %s with one argument of type jsonb.",
								   jobq_shown(name)));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(found));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", found);
	check_shape((Form_pg_proc) GETSTRUCT(tuple));
	check_trust((Form_pg_proc) GETSTRUCT(tuple), name, owner);
	ReleaseSysCache(tuple);
	check_execute(found, name, GetUserId());
	return found;
}

/* Privileges on the queue are not enough to run code as its owner. */
void
jobq_validator_check(const char *name, Oid owner)
{
	Identity	mine;

	if (!has_privs_of_role(GetUserId(), owner))
	{
		jobq_audit_refusal(NULL, 0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
						   "a validator would run with another role's rights");
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set a validator"),
				 errdetail("It runs with the rights of the queue's owner, role \"%s\".",
						   jobq_role_shown(owner)),
				 errhint("Have the queue's owner set it.")));
	}
	(void) find(name, owner);
	become(owner, &mine);
	(void) find(name, owner);
	become_myself(&mine);
}

/* ---- running it ---- */

JOBQ_NORETURN static void
raise_refused(const JobqQueue *queue, const char *what, int number)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_VALIDATOR),
			 errmsg("the validator of queue \"%s\" refuses the payload",
					queue->name),
			 errdetail("%s%s.", jobq_input_which(number), what),
			 errhint("SELECT options ->> 'validator' FROM jobq.queues names the function, which knows why.")));
}

/* It says nothing of the payload, and another attempt may end otherwise. */
static bool
is_interruption(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return true;
	}
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
}

JOBQ_NORETURN static void
raise_failed(const JobqQueue *queue, int sqlstate, int number)
{
	if (is_interruption(sqlstate))
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("the validator of queue \"%s\" was interrupted",
						queue->name),
				 errdetail("%sIt was stopped by an error with SQLSTATE %s.",
						   jobq_input_which(number), unpack_sql_state(sqlstate)),
				 errhint("Try again.")));
	raise_refused(queue, psprintf("It raised an error with SQLSTATE %s",
								  unpack_sql_state(sqlstate)), number);
}

/* Its error becomes ours, of which no more than the SQLSTATE is left. */
static bool
call(const JobqQueue *queue, Oid function, Datum payload, bool *isnull,
	 int number)
{
	MemoryContext context = CurrentMemoryContext;
	FmgrInfo	flinfo;
	volatile bool accepted = false;

	LOCAL_FCINFO(fcinfo, 1);

	fmgr_info(function, &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = payload;
	fcinfo->args[0].isnull = false;
	PG_TRY();
	{
		accepted = DatumGetBool(FunctionCallInvoke(fcinfo));
	}
	PG_CATCH();
	{
		int			sqlstate = geterrcode();

		MemoryContextSwitchTo(context);
		FlushErrorState();
		raise_failed(queue, sqlstate, number);
	}
	PG_END_TRY();
	*isnull = fcinfo->isnull;
	return accepted;
}

static void
require_role(const JobqQueue *queue)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(queue->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of queue \"%s\" does not exist",
						queue->name),
				 errdetail("Its validator runs with the rights of the owner."),
				 errhint("Set validator to null with jobq.alter_queue().")));
}

void
jobq_validator_run(const JobqQueue *queue, const char *name, Datum payload,
				   int number)
{
	Identity	mine;
	MemoryContext work;
	MemoryContext old;
	bool		accepted;
	bool		isnull;

	require_role(queue);
	/* a function in SQL leaves its plan behind */
	work = AllocSetContextCreate(CurrentMemoryContext, "jobq validator",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(work);
	become(queue->owner, &mine);
	accepted = call(queue, find(name, queue->owner), payload, &isnull,
					number);
	become_myself(&mine);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	if (isnull)
		raise_refused(queue, "It returned null", number);
	if (!accepted)
		raise_refused(queue, "It returned false", number);
}
