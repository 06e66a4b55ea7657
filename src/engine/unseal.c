/*
 * unseal.c: opens the sealed payloads of jobs that a call has taken, before
 * anything of the claim is written. Must not decide who may have them.
 */
#include "postgres.h"

#include "engine/unseal.h"
#include "engine/xact.h"
#include "security/seal.h"

static void
require_keys(const List *deliveries)
{
	ListCell   *cell;

	foreach(cell, deliveries)
	{
		const JobqDelivery *delivery = lfirst(cell);

		if (jobq_is_sealed(&delivery->row))
			jobq_seal_require_key(&delivery->row);
	}
}

/*
 * A key that is missing is nobody's attempt: the jobs of this call, also those
 * of other queues, are as they were before the error is raised. What was
 * damaged, however, must not stop a queue for ever; it counts.
 */
void
jobq_open_payloads(List *deliveries, int64 lease)
{
	ListCell   *cell;

	PG_TRY();
	{
		require_keys(deliveries);
	}
	PG_CATCH();
	{
		jobq_xact_unclaim(lease);
		PG_RE_THROW();
	}
	PG_END_TRY();
	foreach(cell, deliveries)
	{
		JobqDelivery *delivery = lfirst(cell);

		if (jobq_is_sealed(&delivery->row))
			jobq_unseal(&delivery->row);
	}
}
