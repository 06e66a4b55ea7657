/*
 * unseal.c: opens the sealed payloads of jobs that a call has taken, before
 * anything of the claim is written, and ends those that nobody will ever open.
 * Must not decide who may have a payload.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "engine/unseal.h"
#include "engine/xact.h"
#include "errors.h"
#include "security/audit.h"
#include "security/keyring.h"
#include "security/seal.h"

#define ERROR_TEXT	"the payload could not be opened"

/*
 * A job that has another key than its queue is that job's affair; without the
 * key that the queue names nothing is lost, until its owner names another one.
 */
static void
check_keys(const List *deliveries)
{
	ListCell   *cell;

	foreach(cell, deliveries)
	{
		const JobqDelivery *delivery = lfirst(cell);
		const char *own = delivery->queue->seal;

		if (!jobq_has_seal_key(&delivery->row) && own[0] != '\0')
			(void) jobq_keyring_get(JOBQ_KEY_SEAL, own, JOBQ_KEY_NEWEST);
	}
}

static List *
open_payloads(List *deliveries, List **lost)
{
	ListCell   *cell;

	check_keys(deliveries);
	foreach(cell, deliveries)
	{
		JobqDelivery *delivery = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		if (jobq_try_unseal(&delivery->row))
			continue;
		*lost = lappend(*lost, delivery);
		deliveries = foreach_delete_current(deliveries, cell);
	}
	return deliveries;
}

/*
 * What can be put right is nobody's attempt: the jobs of this call, also those
 * of other queues, are as they were before an error is raised.
 */
List *
jobq_open_payloads(List *deliveries, int64 lease, List **lost)
{
	List	   *volatile opened = NIL;

	PG_TRY();
	{
		opened = open_payloads(deliveries, lost);
	}
	PG_CATCH();
	{
		jobq_xact_unclaim(lease);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return opened;
}

/* As if its worker had failed it for good; unless somebody has cancelled it. */
static void
end_unopened(const JobqSession *session, const JobqDelivery *delivery)
{
	int64		id = DatumGetInt64(delivery->row.values[JOB_ID]);
	JobqQueue	queue = *delivery->queue;
	JobqHeld	held;

	if (jobq_hold_leased(session, id, delivery->lease, &held,
						 &queue) != JOBQ_HELD)
		return;
	(void) jobq_fail(session, &held, &queue, ATTEMPT_FAILED, ERROR_TEXT,
					 false, -1);
	jobq_audit_refusal(NULL, queue.queue_id, id, ERRCODE_JOBQ_KEY_REFUSED,
					   ERROR_TEXT);
}

void
jobq_end_unopened(const JobqSession *session, const List *lost)
{
	ListCell   *cell;

	foreach(cell, lost)
	{
		CHECK_FOR_INTERRUPTS();
		end_unopened(session, lfirst(cell));
	}
}
