/*
 * lazyclaim.c: commits that wait for no disk, because losing them in a crash
 * only means that jobs are delivered again. Must leave a transaction alone
 * that has written anything besides claims.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"

#include "engine/xactlog.h"
#include "guc.h"

static bool claims_only;		/* nothing but claims was written so far */
static XLogRecPtr claim_end;	/* own WAL position after the last claim */

void
jobq_lazy_claim_begin(void)
{
	if (claim_end == InvalidXLogRecPtr)
		claims_only = XactLastRecEnd == InvalidXLogRecPtr;
	else if (claim_end != XactLastRecEnd)
		claims_only = false;
}

void
jobq_lazy_claim_end(bool durable)
{
	claim_end = XactLastRecEnd;
	if (durable)
		claims_only = false;
}

void
jobq_commit_lazily(void)
{
	(void) set_config_option("synchronous_commit", "off",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Losing a claim in a crash only means that the job is delivered again, so a
 * transaction that wrote nothing else need not wait for the disk.
 */
void
jobq_lazy_claim_decide(void)
{
	if (claims_only && claim_end != InvalidXLogRecPtr &&
		claim_end == XactLastRecEnd &&
		jobq_claim_durability == JOBQ_CLAIM_ASYNC)
		jobq_commit_lazily();
}

bool
jobq_lazy_claim_noted(void)
{
	return claim_end != InvalidXLogRecPtr;
}

void
jobq_lazy_claim_forget(void)
{
	claims_only = false;
	claim_end = InvalidXLogRecPtr;
}
