/*
 * grant.c: grant_queue() and revoke_queue(): rows of jobq.queue_acl, and the
 * EXECUTE and SELECT that go with them, as jobq.call lists them. Must not
 * decide who may do what: that is acl.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_sql_grant_queue);
PG_FUNCTION_INFO_V1(jobq_sql_revoke_queue);

/* What a call to either function asks for. */
typedef struct Grant
{
	JobqQueue	queue;
	Oid			role;
	int			privileges;
} Grant;

/*
 * Calls that need one of the privileges $2 and that role $1 itself has, or has
 * not, been given. (to_regprocedure() objects to the name of a view.)
 */
#define CALLS_WHERE_GIVEN_IS(truth) \
	"SELECT c.is_view, c.call" \
	"  FROM jobq.call c" \
	" WHERE c.privilege = ANY ($2)" \
	"   AND " truth " = EXISTS (" \
	"       SELECT FROM pg_catalog.aclexplode(" \
	"           CASE WHEN c.is_view" \
	"           THEN (SELECT r.relacl FROM pg_catalog.pg_class r" \
	"                  WHERE r.oid = pg_catalog.to_regclass('jobq.' || c.call))" \
	"           ELSE (SELECT p.proacl FROM pg_catalog.pg_proc p" \
	"                  WHERE p.oid = pg_catalog.to_regprocedure('jobq.' || c.call))" \
	"           END) a" \
	"        WHERE a.grantee = $1)" \
	" GROUP BY c.is_view, c.call"

#define MISSING_CALLS	CALLS_WHERE_GIVEN_IS("false")
#define GIVEN_CALLS		CALLS_WHERE_GIVEN_IS("true")

#define LACKS_USAGE \
	"SELECT" \
	"  FROM pg_catalog.pg_namespace n" \
	" WHERE n.nspname = 'jobq'" \
	"   AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a" \
	"                    WHERE a.grantee = $1 AND a.privilege_type = 'USAGE')"

/* Anything in the schema that the role was given, by whomever. */
#define ANY_CALL_LEFT \
	"SELECT FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a" \
	" WHERE p.pronamespace = 'jobq'::pg_catalog.regnamespace" \
	"   AND a.grantee = $1" \
	" UNION ALL " \
	"SELECT FROM pg_catalog.pg_class r, pg_catalog.aclexplode(r.relacl) a" \
	" WHERE r.relnamespace = 'jobq'::pg_catalog.regnamespace" \
	"   AND a.grantee = $1"

#define HAS_A_QUEUE \
	"SELECT FROM jobq.queue WHERE owner = $1" \
	" UNION ALL " \
	"SELECT FROM jobq.queue_acl a, jobq.queue q" \
	" WHERE a.grantee = $1 AND a.queue_id = q.queue_id"

#define ADD_PRIVILEGES \
	"INSERT INTO jobq.queue_acl AS a (queue_id, grantee, privileges)" \
	" VALUES ($1, $2, $3)" \
	" ON CONFLICT (queue_id, grantee)" \
	" DO UPDATE SET privileges = a.privileges | excluded.privileges"

#define REMOVE_ROW \
	"DELETE FROM jobq.queue_acl" \
	" WHERE queue_id = $1 AND grantee = $2 AND privileges & ~$3 = 0"

#define REMOVE_PRIVILEGES \
	"UPDATE jobq.queue_acl SET privileges = privileges & ~$3" \
	" WHERE queue_id = $1 AND grantee = $2"

#define FORGET_DROPPED_ROLES \
	"DELETE FROM jobq.queue_acl a WHERE NOT EXISTS" \
	" (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.grantee)"

/* Does the query about one role give a row? */
static bool
any_row(const char *query, Oid role)
{
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(role);

	jobq_execute(query, 1, &type, &value, SPI_OK_SELECT);
	return SPI_processed > 0;
}

Datum
jobq_privilege_array(int privileges)
{
	Datum		names[4];
	int			n = 0;

	for (int bit = 1; bit <= JOBQ_PRIV_ALL; bit <<= 1)
	{
		if (privileges & bit)
			names[n++] = CStringGetTextDatum(jobq_privilege_list(bit));
	}
	return PointerGetDatum(construct_array(names, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/*
 * Run "<verb> on the calls that the query finds": GRANT … TO or REVOKE … FROM.
 * The calls come from jobq.call, which nobody but the install script writes.
 */
static void
change_calls(const char *query, const char *verb, const char *preposition,
			 Oid role, int privileges)
{
	Oid			types[] = {OIDOID, TEXTARRAYOID};
	Datum		values[] = {ObjectIdGetDatum(role), jobq_privilege_array(privileges)};
	const char *name = quote_identifier(GetUserNameFromId(role, false));
	SPITupleTable *found;
	uint64		nfound;

	jobq_execute(query, lengthof(types), types, values, SPI_OK_SELECT);
	found = SPI_tuptable;
	nfound = SPI_processed;
	for (uint64 i = 0; i < nfound; i++)
	{
		char	   *is_view = SPI_getvalue(found->vals[i], found->tupdesc, 1);
		char	   *call = SPI_getvalue(found->vals[i], found->tupdesc, 2);

		jobq_execute(psprintf("%s %s jobq.%s %s %s", verb,
						 is_view[0] == 't' ? "SELECT ON TABLE" :
						 "EXECUTE ON ROUTINE",
						 call, preposition, name),
				0, NULL, NULL, SPI_OK_UTILITY);
	}
}

/*
 * The roles of ours have what the install script gave them, and superusers
 * need nothing.
 */
static bool
needs_no_calls(Oid role)
{
	return superuser_arg(role) ||
		role == get_role_oid("jobq_admin", true) ||
		role == get_role_oid("jobq_monitor", true) ||
		role == get_role_oid(JOBQ_ROLE_KEY_USER, true);
}

void
jobq_give_calls(Oid role, int privileges)
{
	const char *name = GetUserNameFromId(role, true);

	if (name == NULL || needs_no_calls(role))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (any_row(LACKS_USAGE, role))
		jobq_execute(psprintf("GRANT USAGE ON SCHEMA jobq TO %s",
						 quote_identifier(name)),
				0, NULL, NULL, SPI_OK_UTILITY);
	change_calls(MISSING_CALLS, "GRANT", "TO", role, privileges);
	SPI_finish();
}

void
jobq_take_calls_back(Oid role)
{
	const char *name = GetUserNameFromId(role, true);

	if (name == NULL || needs_no_calls(role))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (!any_row(HAS_A_QUEUE, role))
	{
		change_calls(GIVEN_CALLS, "REVOKE", "FROM", role, JOBQ_PRIV_ALL);
		if (!any_row(ANY_CALL_LEFT, role))
			jobq_execute(psprintf("REVOKE USAGE ON SCHEMA jobq FROM %s",
							 quote_identifier(name)),
					0, NULL, NULL, SPI_OK_UTILITY);
	}
	SPI_finish();
}

int
jobq_arg_privileges(ArrayType *array)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;
	int			privileges = 0;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("invalid value for \"privileges\""),
				 errdetail("It must be a one-dimensional array."),
				 errhint("Pass an array such as '{enqueue,dequeue}'.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls,
					  &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = nulls[i] ? NULL : TextDatumGetCString(names[i]);
		int			bit = name == NULL ? 0 : jobq_privilege_bit(name);

		CHECK_FOR_INTERRUPTS();
		if (bit == 0)
			ereport(ERROR,
					(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
					 name == NULL ?
					 errmsg("a privilege must not be null") :
					 errmsg("unknown privilege \"%s\"", jobq_shown(name)),
					 errdetail("Valid are: %s.",
							   jobq_privilege_list(JOBQ_PRIV_ALL)),
					 errhint("Pass an array such as '{enqueue,dequeue}'.")));
		privileges |= bit;
	}
	return privileges;
}

static Oid
read_role(text *value)
{
	char	   *name = text_to_cstring(value);
	Oid			role = get_role_oid(name, true);

	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("role \"%s\" does not exist", jobq_shown(name)),
				 errdetail("Privileges on queues go to roles, named exactly as in pg_roles; there is no PUBLIC."),
				 errhint("Correct the name, or make the role with CREATE ROLE.")));
	return role;
}

/*
 * Who calls is checked before what they ask for, and again under the lock,
 * which a stranger cannot make us take.
 */
static void
begin(FunctionCallInfo fcinfo, const char *what, Grant *grant)
{
	JobqSession session;
	char	   *name;

	jobq_begin_write(what, &session);
	jobq_xact_steered(&session);
	jobq_arg_required(fcinfo, 0, "queue");
	name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue");
	jobq_require_queue(name, JOBQ_PRIV_MANAGE, &grant->queue);
	jobq_arg_required(fcinfo, 1, "role");
	jobq_arg_required(fcinfo, 2, "privileges");
	grant->role = read_role(PG_GETARG_TEXT_PP(1));
	grant->privileges = jobq_arg_privileges(PG_GETARG_ARRAYTYPE_P(2));
	jobq_queue_lock();
	jobq_require_queue(name, JOBQ_PRIV_MANAGE, &grant->queue);
}

static void
begin_change(JobqOwnerContext *context)
{
	jobq_connect_as_owner(context);
	jobq_queue_changed();
	jobq_execute(FORGET_DROPPED_ROLES, 0, NULL, NULL, SPI_OK_DELETE);
}

static void
execute_for(const char *command, const Grant *grant, int expected)
{
	Oid			types[] = {INT4OID, OIDOID, INT4OID};
	Datum		values[] = {
		Int32GetDatum(grant->queue.queue_id),
		ObjectIdGetDatum(grant->role),
		Int32GetDatum(grant->privileges)
	};

	jobq_execute(command, lengthof(types), types, values, expected);
}

static void
audit(FunctionCallInfo fcinfo, const char *call, const char *preposition,
	  const Grant *grant)
{
	jobq_audit_act_with(fcinfo, call, grant->queue.queue_id, 0,
						psprintf("%s %s %s",
								 jobq_privilege_list(grant->privileges),
								 preposition,
								 GetUserNameFromId(grant->role, false)));
}

/* grant_queue(queue text, role text, privileges text[]) → void */
Datum
jobq_sql_grant_queue(PG_FUNCTION_ARGS)
{
	JobqOwnerContext context;
	Grant		grant;

	begin(fcinfo, "jobq.grant_queue()", &grant);
	if (grant.privileges == 0)
		PG_RETURN_VOID();

	begin_change(&context);
	execute_for(ADD_PRIVILEGES, &grant, SPI_OK_INSERT);
	jobq_give_calls(grant.role, grant.privileges);
	jobq_disconnect(&context);
	audit(fcinfo, "jobq.grant_queue()", "to", &grant);
	PG_RETURN_VOID();
}

/* revoke_queue(queue text, role text, privileges text[]) → void */
Datum
jobq_sql_revoke_queue(PG_FUNCTION_ARGS)
{
	JobqOwnerContext context;
	Grant		grant;

	begin(fcinfo, "jobq.revoke_queue()", &grant);
	if (grant.privileges == 0)
		PG_RETURN_VOID();

	begin_change(&context);
	execute_for(REMOVE_ROW, &grant, SPI_OK_DELETE);
	execute_for(REMOVE_PRIVILEGES, &grant, SPI_OK_UPDATE);
	jobq_take_calls_back(grant.role);
	jobq_disconnect(&context);
	audit(fcinfo, "jobq.revoke_queue()", "from", &grant);
	PG_RETURN_VOID();
}
