/*
 * look.c: who looks: which queues and jobs a role may see, and who holds a
 * ticket, from shared memory. Must never write, and never holds a lock of
 * shared memory while a row is built.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "engine/belts.h"
#include "engine/look.h"
#include "engine/own.h"
#include "engine/xact.h"
#include "security/security.h"

/*
 * Remember who asks and which queues that role may read, then become the
 * owner, with a snapshot that everything up to jobq_look_end() is read with.
 */
void
jobq_look_begin(JobqLook *look, const JobqSession *session, int64 id,
				Tuplestorestate *store, TupleDesc desc)
{
	HASHCTL		ctl = {0};
	JobqQueue  *queues;
	int			nqueues;
	bool		admin;
	bool		key_user;

	look->session = *session;
	look->caller = GetUserId();
	look->id = id;
	look->all = false;
	look->groups = NULL;
	look->store = store;
	look->desc = desc;
	look->context = AllocSetContextCreate(CurrentMemoryContext,
										  "jobq look",
										  ALLOCSET_DEFAULT_SIZES);
	look->scratch = AllocSetContextCreate(look->context,
										  "jobq look rows",
										  ALLOCSET_DEFAULT_SIZES);

	MemoryContext old = MemoryContextSwitchTo(look->context);

	ctl.hcxt = look->context;
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(JobqLookQueue);
	look->queues = hash_create("jobq look queues", 64, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(JobqLookRole);
	look->roles = hash_create("jobq look roles", 16, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	admin = jobq_is_admin(look->caller);
	key_user = jobq_is_key_user(look->caller);	/* see jobq_is_enqueuer() */
	nqueues = jobq_queue_list(&queues);
	for (int i = 0; i < nqueues; i++)
	{
		JobqLookQueue *queue = hash_search(look->queues,
										   &queues[i].queue_id, HASH_ENTER,
										   NULL);

		queue->readable = admin ||
			(queues[i].my_privileges &
			 (JOBQ_PRIV_READ | JOBQ_PRIV_MANAGE)) != 0;
		queue->opens = (queues[i].my_privileges & JOBQ_PRIV_OPEN) != 0;
		queue->own_jobs = queues[i].my_privileges != 0 || !key_user;
		queue->name = CStringGetTextDatum(queues[i].name);
	}

	MemoryContextSwitchTo(old);

	jobq_connect_as_owner(&look->owner);
	PushActiveSnapshot(GetLatestSnapshot());
}

void
jobq_look_end(JobqLook *look)
{
	PopActiveSnapshot();
	jobq_disconnect(&look->owner);
	MemoryContextDelete(look->context);
}

static JobqLookRole *
look_role(JobqLook *look, Oid role)
{
	bool		found;
	JobqLookRole *entry = hash_search(look->roles, &role, HASH_ENTER,
									  &found);

	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(look->context);

		entry->name = CStringGetTextDatum(jobq_role_shown(role));
		entry->mine = has_privs_of_role(look->caller, role);
		MemoryContextSwitchTo(old);
	}
	return entry;
}

/*
 * The queue and role of a job, when the caller may see it: it may read the
 * queue, acts for the role that enqueued the job, or only all are counted.
 */
bool
jobq_look_visible(JobqLook *look, int32 queue_id, Oid enqueued_by,
				  JobqLookQueue **queue, JobqLookRole **role)
{
	*queue = hash_search(look->queues, &queue_id, HASH_FIND, NULL);
	if (*queue == NULL)
		return false;
	*role = look_role(look, enqueued_by);
	return look->all || (*queue)->readable ||
		((*role)->mine && (*queue)->own_jobs);
}

/*
 * Lock an epoch's tables to the end of the transaction; false when it is
 * dropped, so that all it held has ended.
 */
bool
jobq_look_open_epoch(JobqBelts *belts, int32 epoch)
{
	return jobq_belts_read(belts, epoch, BELT_JOB) != NULL &&
		jobq_belts_read(belts, epoch, BELT_CLAIM) != NULL &&
		jobq_belts_read(belts, epoch, BELT_OUTCOME) != NULL;
}

/* Our own uncommitted jobs first: no slot knows them. */
JobqHeldBy
jobq_look_holder(JobqLook *look, int64 id, int64 ticket, JobqHolder *holder)
{
	JobqSlot	slot;
	int			own = jobq_own_find(id);

	if (own >= 0 && jobq_own(own)->t.ticket == ticket)
	{
		holder->rolled_back = false;
		holder->l = jobq_own(own)->l;
		return jobq_own(own)->state == OWN_RUNNING ?
			HOLDER_WORKER : HOLDER_NONE;
	}

	if (!jobq_find(look->session.db, look->session.gen, id, &slot) ||
		slot.t.ticket != ticket)
		return HOLDER_UNKNOWN;
	holder->rolled_back = slot.state == SLOT_ROLLED_BACK;
	holder->l = slot.l;
	if (TransactionIdIsCurrentTransactionId(slot.mark))
	{
		JobqSlotRef ref;

		jobq_ref_of(&slot, &ref);
		jobq_xact_see_extended(&ref, &holder->l);
	}
	return slot.state == SLOT_RUNNING || slot.state == SLOT_GRACE ||
		slot.state == SLOT_ROLLED_BACK ? HOLDER_WORKER : HOLDER_NONE;
}

/*
 * Leases are known to memory only. On a standby there are none, and a job
 * that runs on the primary shows as available.
 */
void
jobq_look_await_leases(const JobqSession *session)
{
	if (!RecoveryInProgress())
		jobq_await_ready(session, JOBQ_DEQUEUE_WAIT_MS);
}
