/*
 * hooks.c: keeps keepers out of the way of commands that need a database
 * empty or the extension unlocked, tells launcher and keepers at commit what
 * has changed, and what roles no longer own. Refuses no command but PREPARE
 * TRANSACTION after the extension was created or dropped.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/user.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "compat.h"
#include "dispatch/dispatch.h"
#include "security/security.h"
#include "store/store.h"
#include "worker/worker.h"

/* A database that no keeper may be in until this transaction ends. */
typedef struct Hold
{
	JobqDb	   *db;
	Oid			dbid;			/* the entry's, as long as it is the same */
	bool		dropping;
} Hold;

/* What this transaction has to say at its end. */
static List *holds;				/* of Hold, in TopTransactionContext */

/*
 * SET TABLESPACE commits half way and goes on with the database locked, so
 * this one lasts to the end of the statement, or of a transaction that fails.
 */
static Hold moving;
static bool databases_changed;
static JobqDb *installed_in;	/* CREATE EXTENSION */
static JobqDb *dropped_from;	/* DROP EXTENSION */

static ProcessUtility_hook_type previous_utility_hook;
static object_access_hook_type previous_object_access_hook;

/* ---- the end of the transaction; nothing here allocates or throws ---- */

static void
release(const Hold *hold, bool committed)
{
	if (!OidIsValid(hold->dbid))
		return;
	SpinLockAcquire(&hold->db->mutex);
	if (hold->db->dbid == hold->dbid)
	{
		hold->db->holds--;
		if (committed && hold->dropping)
			hold->db->dropped = true;
	}
	SpinLockRelease(&hold->db->mutex);
}

static void
release_moving(void)
{
	if (!OidIsValid(moving.dbid))
		return;
	release(&moving, false);
	moving.dbid = InvalidOid;
	jobq_wake_launcher();
}

static void
release_all(bool committed)
{
	ListCell   *lc;

	foreach(lc, holds)
		release(lfirst(lc), committed);
	if (holds != NIL)
		jobq_wake_launcher();
	holds = NIL;
}

static void
announce_changes(void)
{
	if (installed_in != NULL)
	{
		SpinLockAcquire(&installed_in->mutex);
		installed_in->wanted = true;
		SpinLockRelease(&installed_in->mutex);
	}
	if (databases_changed)
		pg_atomic_write_u32(&jobq_control->rescan, 1);
	if (installed_in != NULL || databases_changed)
		jobq_wake_launcher();
	if (dropped_from != NULL)
		jobq_wake_keeper(dropped_from);
}

static void
end_transaction(bool committed)
{
	if (committed)
		announce_changes();
	release_all(committed);
	if (!committed)
		release_moving();
	databases_changed = false;
	installed_in = NULL;
	dropped_from = NULL;
}

/* Whoever commits a prepared transaction could not tell our workers. */
static void
refuse_prepare(void)
{
	if (installed_in != NULL || dropped_from != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot prepare a transaction that has created or dropped extension pg_jobq"),
				 errdetail("Whoever commits it could not tell the workers of pg_jobq."),
				 errhint("Use COMMIT instead of PREPARE TRANSACTION.")));
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			refuse_prepare();
			break;
		case XACT_EVENT_COMMIT:
			end_transaction(true);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			end_transaction(false);
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

void
jobq_database_changed(void)
{
	installed_in = jobq_db_attach(MyDatabaseId,
								  jobq_table_oid(JOBQ_TABLE_QUEUE));
}

/* ---- databases ---- */

/*
 * No keeper in this database from now on. One that is at work, perhaps for
 * long, is cancelled.
 */
static void
begin_hold(Hold *hold, JobqDb *db, Oid dbid)
{
	pid_t		keeper = 0;

	SpinLockAcquire(&db->mutex);
	if (db->dbid == dbid)
	{
		hold->db = db;
		hold->dbid = dbid;
		db->holds++;
		keeper = db->keeper_pid;
	}
	SpinLockRelease(&db->mutex);
	if (keeper != 0)
		(void) kill(keeper, SIGINT);
	jobq_wake_keeper(db);
}

/* ... to the end of the transaction. */
static void
hold_database(Oid dbid, bool dropping)
{
	JobqDb	   *db = jobq_db_find(dbid);
	MemoryContext old;
	Hold	   *hold;

	if (db == NULL)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	hold = palloc0(sizeof(*hold));
	hold->dropping = dropping;
	holds = lappend(holds, hold);
	MemoryContextSwitchTo(old);
	begin_hold(hold, db, dbid);
}

/* A database by name, where the server will let the caller have it. */
static Oid
own_database(const char *name)
{
	Oid			dbid = get_database_oid(name, true);

	return OidIsValid(dbid) && jobq_owns_database(dbid, GetUserId()) ?
		dbid : InvalidOid;
}

static void
hold_own_database(const char *name, bool dropping)
{
	hold_database(own_database(name), dropping);
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return may;
}

static bool
is_template(Oid dbid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

static void
before_create_database(const CreatedbStmt *stmt)
{
	DefElem    *template = find_option(stmt->options, "template");
	Oid			dbid;

	databases_changed = true;
	if (template == NULL || template->arg == NULL || !may_create_databases())
		return;
	dbid = get_database_oid(defGetString(template), true);
	if (OidIsValid(dbid) &&
		(is_template(dbid) || jobq_owns_database(dbid, GetUserId())))
		hold_database(dbid, false);
}

static void
before_alter_database(const AlterDatabaseStmt *stmt)
{
	JobqDb	   *db;
	Oid			dbid;

	databases_changed = true;
	if (find_option(stmt->options, "tablespace") == NULL)
		return;
	dbid = own_database(stmt->dbname);
	db = jobq_db_find(dbid);
	if (db != NULL && !OidIsValid(moving.dbid))
		begin_hold(&moving, db, dbid);
}

static void
before_drop_database(const DropdbStmt *stmt)
{
	databases_changed = true;
	hold_own_database(stmt->dbname, true);
}

static void
before_rename(const RenameStmt *stmt)
{
	if (stmt->renameType != OBJECT_DATABASE)
		return;
	databases_changed = true;
	hold_own_database(stmt->subname, false);
}

/* ---- the extension ---- */

/*
 * DROP EXTENSION locks the tables one after the other, in an order of its
 * own, while calls that are under way lock them in theirs. All calls start
 * with a lock on jobq.queue, so waiting for that one first lets them end and
 * makes a deadlock impossible.
 */
static void
before_drop(const DropStmt *stmt)
{
	ListCell   *lc;
	Oid			extension;
	Oid			gate;

	if (stmt->removeType != OBJECT_EXTENSION)
		return;
	foreach(lc, stmt->objects)
	{
		if (strcmp(strVal(lfirst(lc)), "pg_jobq") != 0)
			continue;
		extension = get_extension_oid("pg_jobq", true);
		if (!OidIsValid(extension) ||
			!jobq_owns_extension(extension, GetUserId()))
			return;
		gate = jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE);
		if (OidIsValid(gate))
			LockRelationOid(gate, AccessExclusiveLock);
	}
}

/* However the extension goes, its keeper must hear of it. */
static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId,
			  void *arg)
{
	char	   *name;

	if (previous_object_access_hook)
		previous_object_access_hook(access, classId, objectId, subId, arg);
	if (access != OAT_DROP || classId != ExtensionRelationId)
		return;
	name = get_extension_name(objectId);
	if (name != NULL && strcmp(name, "pg_jobq") == 0)
		dropped_from = jobq_db_find(MyDatabaseId);
}

/* ---- commands ---- */

static void
before_command(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreatedbStmt:
			before_create_database((CreatedbStmt *) stmt);
			break;
		case T_AlterDatabaseStmt:
			before_alter_database((AlterDatabaseStmt *) stmt);
			break;
		case T_DropdbStmt:
			before_drop_database((DropdbStmt *) stmt);
			break;
		case T_RenameStmt:
			before_rename((RenameStmt *) stmt);
			break;
		case T_DropStmt:
			before_drop((DropStmt *) stmt);
			break;
		default:
			break;
	}
}

/* Queues are no objects of the server, and follow their roles through us. */
static void
after_command(Node *stmt)
{
	if (IsA(stmt, DropOwnedStmt))
	{
		if (OidIsValid(jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE)))
			jobq_drop_owned(roleSpecsToIds(((DropOwnedStmt *) stmt)->roles));
	}
	else if (IsA(stmt, ReassignOwnedStmt))
	{
		ReassignOwnedStmt *reassign = (ReassignOwnedStmt *) stmt;

		if (OidIsValid(jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE)))
			jobq_reassign_owned(roleSpecsToIds(reassign->roles),
								get_rolespec_oid(reassign->newrole, false));
	}
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString,
				bool readOnlyTree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	ProcessUtility_hook_type next = previous_utility_hook ?
		previous_utility_hook : standard_ProcessUtility;

	if (IsTransactionState() && !RecoveryInProgress())
		before_command(pstmt->utilityStmt);
	next(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest,
		 qc);
	after_command(pstmt->utilityStmt);
	release_moving();
}

void
jobq_install_command_hooks(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	previous_object_access_hook = object_access_hook;
	object_access_hook = object_access;
	RegisterXactCallback(xact_callback, NULL);
}
