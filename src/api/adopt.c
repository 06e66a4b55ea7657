/*
 * adopt.c: jobq.adopt(): who may take a copy's jobs over. What that means is
 * the engine's business.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"

#include "engine/engine.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_sql_adopt);

/* adopt() → void */
Datum
jobq_sql_adopt(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("jobq.adopt()");
	PreventCommandIfParallelMode("jobq.adopt()");
	if (!jobq_is_admin(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for jobq.adopt()"),
				 errdetail("Only superusers and members of jobq_admin may call it."),
				 errhint("GRANT jobq_admin TO the role.")));
	jobq_adopt();
	PG_RETURN_VOID();
}
