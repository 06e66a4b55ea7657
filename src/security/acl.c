/*
 * acl.c: privileges on queues and acting as the extension's owner. Must not
 * change anything: grants are grant.c's business.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "compat.h"
#include "errors.h"
#include "security/audit.h"
#include "security/security.h"

#define JOBQ_ROLE_ADMIN		"jobq_admin"
#define JOBQ_ROLE_MONITOR	"jobq_monitor"

static const struct
{
	const char *name;
	int			bit;
}			privilege_names[] = {
	{"enqueue", JOBQ_PRIV_ENQUEUE},
	{"dequeue", JOBQ_PRIV_DEQUEUE},
	{"read", JOBQ_PRIV_READ},
	{"manage", JOBQ_PRIV_MANAGE},
};

static uint64 role_changes = 1;

static bool
is_member_of(Oid role, const char *group)
{
	Oid			group_oid = get_role_oid(group, true);

	return OidIsValid(group_oid) && has_privs_of_role(role, group_oid);
}

char *
jobq_role_shown(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	if (name != NULL)
		return name;
	return OidIsValid(role) ? psprintf("%u", role) : pstrdup("-");
}

bool
jobq_is_admin(Oid role)
{
	return superuser_arg(role) || is_member_of(role, JOBQ_ROLE_ADMIN);
}

bool
jobq_is_monitor(Oid role)
{
	return jobq_is_admin(role) || is_member_of(role, JOBQ_ROLE_MONITOR);
}

bool
jobq_is_key_user(Oid role)
{
	return is_member_of(role, JOBQ_ROLE_KEY_USER);
}

static void
note_role_change(Datum arg, int cacheid, uint32 hashvalue)
{
	role_changes++;
}

uint64
jobq_role_changes(void)
{
	static bool watching;

	if (!watching)
	{
		watching = true;
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, note_role_change,
									  (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, note_role_change, (Datum) 0);
		/* a database's owner is a member of pg_database_owner */
		CacheRegisterSyscacheCallback(DATABASEOID, note_role_change,
									  (Datum) 0);
	}
	return role_changes;
}

int
jobq_role_privileges(Oid role, Oid owner, const Oid *grantees,
					 const int *privileges, int n)
{
	int			found = 0;

	if (has_privs_of_role(role, owner) || jobq_is_admin(role))
		return JOBQ_PRIV_ALL;
	for (int i = 0; i < n; i++)
	{
		if (has_privs_of_role(role, grantees[i]))
			found |= privileges[i];
	}
	return found & JOBQ_PRIV_ALL;
}

int
jobq_privilege_bit(const char *name)
{
	for (int i = 0; i < (int) lengthof(privilege_names); i++)
	{
		if (strcmp(privilege_names[i].name, name) == 0)
			return privilege_names[i].bit;
	}
	return 0;
}

char *
jobq_privilege_list(int privileges)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < (int) lengthof(privilege_names); i++)
	{
		if ((privileges & privilege_names[i].bit) == 0)
			continue;
		if (list.len > 0)
			appendStringInfoString(&list, ", ");
		appendStringInfoString(&list, privilege_names[i].name);
	}
	return list.data;
}

void
jobq_check_queue(const JobqQueue *queue, int privileges)
{
	int			missing = privileges & ~queue->my_privileges;

	if (missing == 0)
		return;
	jobq_audit_refusal(NULL, queue->queue_id, 0,
					   ERRCODE_INSUFFICIENT_PRIVILEGE,
					   psprintf("lacks the privilege %s",
								jobq_privilege_list(missing)));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for queue \"%s\"", queue->name),
			 errdetail("Role \"%s\" lacks the privilege %s.",
					   GetUserNameFromId(GetUserId(), false),
					   jobq_privilege_list(missing)),
			 errhint("Its owner can give it with jobq.grant_queue().")));
}

/*
 * There is none of this name for the caller. With all queues in the cache, and
 * noted as a refusal in either case, somebody else's queue (its id) takes the
 * same way, and the same time, as one that is not there (0). To an admin, who
 * may use all there are, it is a wrong name and nothing else.
 */
JOBQ_NORETURN static void
raise_no_queue(const char *name, int32 queue_id)
{
	JobqQueue  *all;

	(void) jobq_queue_list(&all);
	if (!jobq_is_admin(GetUserId()))
		jobq_audit_refusal(NULL, queue_id, 0, ERRCODE_JOBQ_NO_QUEUE,
						   queue_id != 0 ? "has no privilege on the queue" :
						   "there is no queue of that name");
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_NO_QUEUE),
			 errmsg("queue \"%s\" does not exist", name),
			 errdetail("There is no queue of this name that role \"%s\" may use.",
					   GetUserNameFromId(GetUserId(), false)),
			 errhint("Make it with jobq.create_queue(), or have its owner call jobq.grant_queue().")));
	pg_unreachable();
}

void
jobq_check_role(const JobqQueue *queue, int privileges)
{
	JobqQueue	own;

	if (jobq_queue_by_id_for(queue->queue_id, GetUserId(), &own))
		jobq_check_queue(&own, privileges);
}

bool
jobq_is_enqueuer(const JobqQueue *queue, Oid enqueued_by)
{
	return OidIsValid(enqueued_by) &&
		has_privs_of_role(GetUserId(), enqueued_by) &&
		(queue->my_privileges != 0 || !jobq_is_key_user(GetUserId()));
}

void
jobq_require_queue(const char *name, int privileges, JobqQueue *queue)
{
	if (!jobq_queue_by_name(name, queue))
		raise_no_queue(name, 0);
	if (queue->my_privileges == 0)
		raise_no_queue(name, queue->queue_id);
	jobq_check_queue(queue, privileges);
}

bool
jobq_reads_queue(const JobqQueue *queue)
{
	int			any = queue->isolation == JOBQ_ISOLATION_OWNER ?
		JOBQ_PRIV_MANAGE : JOBQ_PRIV_READ | JOBQ_PRIV_MANAGE;

	return (queue->my_privileges & any) != 0;
}

bool
jobq_counts_queue(const JobqQueue *queue)
{
	if (jobq_is_monitor(GetUserId()))
		return true;
	return queue->isolation == JOBQ_ISOLATION_OWNER ?
		(queue->my_privileges & JOBQ_PRIV_MANAGE) != 0 :
		queue->my_privileges != 0;
}

/*
 * Who was there before the first switch to the owner, and whom that was to. An
 * error leaves them as they are, but takes the mark of a switch off the
 * security context.
 */
static Oid	before_switch;
static Oid	switched_to;

static bool
is_switched(int sec_context)
{
	return (sec_context & SECURITY_NOFORCE_RLS) != 0;
}

/*
 * Restricted, so that nothing that runs inside can leave the owner's identity
 * or leave something behind that runs with it later. Row level security, which
 * is forced on all tables, is not meant for us: the owner may be no superuser.
 */
void
jobq_become_owner(JobqOwnerContext *context)
{
	Oid			owner = jobq_extension_owner();

	GetUserIdAndSecContext(&context->role, &context->sec_context);
	context->caller = before_switch;
	if (!is_switched(context->sec_context))
		before_switch = context->role;
	switched_to = owner;
	SetUserIdAndSecContext(owner,
						   context->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION |
						   SECURITY_NOFORCE_RLS);
	context->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, jobq, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
jobq_leave_owner(JobqOwnerContext *context)
{
	AtEOXact_GUC(false, context->guc_level);
	SetUserIdAndSecContext(context->role, context->sec_context);
	before_switch = context->caller;
}

Oid
jobq_caller(void)
{
	Oid			role;
	int			sec_context;

	GetUserIdAndSecContext(&role, &sec_context);
	return is_switched(sec_context) && role == switched_to ? before_switch :
		role;
}

void
jobq_connect_as_owner(JobqOwnerContext *context)
{
	jobq_become_owner(context);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
jobq_disconnect(JobqOwnerContext *context)
{
	SPI_finish();
	jobq_leave_owner(context);
}

uint64
jobq_execute(const char *command, int nargs, Oid *types, Datum *values,
			 int expected)
{
	int			result = SPI_execute_with_args(command, nargs, types, values,
											   NULL, false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result of \"%s\": %s", command,
			 SPI_result_code_string(result));
	return SPI_processed;
}
