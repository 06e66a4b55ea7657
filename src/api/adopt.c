/*
 * adopt.c: jobq.adopt(): who may take a copy's jobs over. What that means is
 * the engine's business.
 */
#include "postgres.h"

#include "fmgr.h"
#include "tcop/utility.h"

#include "api/report.h"
#include "engine/engine.h"
#include "security/audit.h"

PG_FUNCTION_INFO_V1(jobq_sql_adopt);

/* adopt() → void */
Datum
jobq_sql_adopt(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("jobq.adopt()");
	PreventCommandIfParallelMode("jobq.adopt()");
	jobq_require_admin("jobq.adopt()");
	if (jobq_adopt())
		jobq_audit_act("jobq.adopt()", 0, 0, NULL);
	PG_RETURN_VOID();
}
