/*
 * lazyclaim.c: commits that wait for no disk, because losing them in a crash
 * only means that jobs are delivered again. Must leave a transaction alone
 * that has written anything besides claims.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"

#include "engine/xactlog.h"
#include "guc.h"

static bool claims_only;		/* nothing but claims was written so far */
static XLogRecPtr claim_end;	/* own WAL position after the last claim */
static bool lazy;				/* synchronous_commit is ours to put back */
static int	own_setting;

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

/*
 * The variable itself, put back when the transaction is over: after SET LOCAL
 * all of the server's parameters are gone through at the end of the
 * transaction, which up to PostgreSQL 15 costs more than the claim's row.
 */
void
jobq_commit_lazily(void)
{
	if (!lazy)
		own_setting = synchronous_commit;
	lazy = true;
	synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
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
	return claim_end != InvalidXLogRecPtr || lazy;
}

void
jobq_lazy_claim_forget(void)
{
	if (lazy)
		synchronous_commit = own_setting;
	lazy = false;
	claims_only = false;
	claim_end = InvalidXLogRecPtr;
}
