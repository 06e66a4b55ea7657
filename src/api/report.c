/*
 * report.c: rows of health() and check_install(), and running the checks that
 * are queries. Must not know what is checked, nor change anything.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "api/report.h"
#include "dispatch/dispatch.h"
#include "security/audit.h"
#include "security/security.h"

#define REPORT_NATTS	4

void
jobq_require_admin(const char *what)
{
	if (jobq_is_admin(GetUserId()))
		return;
	jobq_audit_refusal(what, 0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "is no member of jobq_admin");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s", what),
			 errdetail("Only members of jobq_admin may call it."),
			 errhint("GRANT jobq_admin TO the role.")));
}

void
jobq_require_monitor(const char *what)
{
	if (jobq_is_monitor(GetUserId()))
		return;
	jobq_audit_refusal(what, 0, 0, ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "is no member of jobq_admin or jobq_monitor");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s", what),
			 errdetail("Only members of jobq_admin or jobq_monitor may call it."),
			 errhint("GRANT jobq_monitor TO the role.")));
}

void
jobq_report(ReturnSetInfo *rsinfo, const char *item, const char *status,
			const char *detail, const char *hint)
{
	Datum		values[REPORT_NATTS];
	bool		nulls[REPORT_NATTS] = {0};

	values[0] = CStringGetTextDatum(item);
	values[1] = CStringGetTextDatum(status);
	values[2] = CStringGetTextDatum(detail);
	nulls[3] = hint == NULL;
	values[3] = hint != NULL ? CStringGetTextDatum(hint) : (Datum) 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

void
jobq_report_standby(ReturnSetInfo *rsinfo)
{
	if (RecoveryInProgress())
		jobq_report(rsinfo, "standby", JOBQ_OK,
					"This server is a standby: it shows jobs, and delivers them once it is promoted.",
					NULL);
	else
		jobq_report(rsinfo, "standby", JOBQ_OK,
					"This server is a primary.", NULL);
}

void
jobq_report_preload(ReturnSetInfo *rsinfo)
{
	if (pg_atomic_read_u32(&jobq_control->preload_first) != 0)
		jobq_report(rsinfo, "preload", JOBQ_OK,
					"pg_jobq is the first of shared_preload_libraries.", NULL);
	else
		jobq_report(rsinfo, "preload", JOBQ_WARNING,
					"Another library was loaded before pg_jobq; what it writes at the end of a transaction that dequeues may be committed asynchronously.",
					"Put pg_jobq first in shared_preload_libraries and restart the server, or set jobq.claim_durability to on.");
}

static void
run_check(ReturnSetInfo *rsinfo, const JobqCheck *check)
{
	char	   *found;

	if (SPI_execute(check->query, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not check %s", check->item);
	found = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (found == NULL)
		jobq_report(rsinfo, check->item, JOBQ_OK, check->fine, NULL);
	else
		jobq_report(rsinfo, check->item, check->status,
					psprintf(check->wrong, found), check->hint);
}

void
jobq_report_checks(ReturnSetInfo *rsinfo, const JobqCheck *checks, int n)
{
	JobqOwnerContext owner;

	jobq_become_owner(&owner);
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	for (int i = 0; i < n; i++)
		run_check(rsinfo, &checks[i]);
	PopActiveSnapshot();
	SPI_finish();
	jobq_leave_owner(&owner);
}
