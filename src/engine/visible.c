/*
 * visible.c: whose a job is: who enqueued it, and who has leased it, now or
 * when it ended. By that a role may see a job, and in a queue with isolation
 * settle it. Reads only; what a queue's privileges say is asked elsewhere.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "engine/belts.h"
#include "engine/own.h"
#include "engine/whereis.h"
#include "security/security.h"

bool
jobq_acts_for(Oid role)
{
	return OidIsValid(role) && has_privs_of_role(GetUserId(), role);
}

/* Who took the lease that an outcome names; it does not say so itself. */
static Oid
lessee_of_outcome(JobqBelts *belts, int32 epoch, const JobqOutcomeRow *outcome)
{
	Relation	claim = jobq_belts_read(belts, epoch, BELT_CLAIM);
	Datum		values[CLAIM_NATTS];
	bool		nulls[CLAIM_NATTS];
	ItemPointer tid;

	if (claim == NULL || outcome->nulls[OUT_LEASE] ||
		outcome->nulls[OUT_CLAIM_TID])
		return InvalidOid;
	tid = (ItemPointer) DatumGetPointer(outcome->values[OUT_CLAIM_TID]);
	if (!jobq_belt_read_claim(claim, tid,
							  DatumGetInt64(outcome->values[OUT_LEASE]),
							  values, nulls))
		return InvalidOid;
	return DatumGetObjectId(values[CLAIM_CLAIMED_BY]);
}

/* The lease that memory knows the job to run under; false: it does not run. */
static bool
find_lease(const JobqSession *session, int64 id, JobqLease *lease)
{
	int			own = jobq_own_find(id);
	JobqSlot	slot;

	if (own >= 0)
	{
		*lease = jobq_own(own)->l;
		return jobq_own(own)->state == OWN_RUNNING;
	}
	if (!jobq_find(session->db, session->gen, id, &slot))
		return false;
	*lease = slot.l;
	return slot.state == SLOT_RUNNING || slot.state == SLOT_GRACE;
}

/* Of the job's last ticket, if that has ended. */
static Oid
lessee_at_end(int64 id)
{
	JobqWhere	where;
	JobqBelts	belts = {0};
	Oid			lessee;

	if (!jobq_newest(id, &where) || where.on_shelf || !where.has_outcome)
		return InvalidOid;
	lessee = lessee_of_outcome(&belts, where.t.epoch, &where.outcome);
	jobq_belts_close(&belts);
	return lessee;
}

bool
jobq_may_see_job(const JobqSession *session, const JobqQueue *queue, int64 id,
				 Oid enqueued_by)
{
	JobqLease	lease;

	if (jobq_reads_queue(queue) || jobq_is_enqueuer(queue, enqueued_by))
		return true;
	if ((queue->my_privileges & JOBQ_PRIV_DEQUEUE) == 0)
		return false;
	if (find_lease(session, id, &lease))
		return jobq_acts_for(lease.claimed_by);
	return jobq_acts_for(lessee_at_end(id));
}

/* Has the caller taken this lease of the job, at any time that is still kept? */
static bool
took_lease(const JobqSession *session, int64 id, int64 lease)
{
	int32	   *epochs;
	int			nepochs;
	JobqLease	present;
	JobqBelts	belts = {0};
	bool		took = false;

	if (find_lease(session, id, &present) && present.lease == lease)
		return jobq_acts_for(present.claimed_by);
	nepochs = jobq_epoch_list(&epochs);
	for (int e = 0; e < nepochs && !took; e++)
	{
		Relation	job = jobq_belts_read(&belts, epochs[e], BELT_JOB);
		Relation	outcome = jobq_belts_read(&belts, epochs[e], BELT_OUTCOME);
		JobqRow    *rows;
		int			n = job == NULL || outcome == NULL ? 0 :
			jobq_belt_read_id(job, id, &rows);

		for (int i = 0; i < n && !took; i++)
		{
			JobqOutcomeRow ended;

			took = jobq_belt_read_outcome(outcome,
										  DatumGetInt64(rows[i].values[JOB_TICKET]),
										  &ended) &&
				!ended.nulls[OUT_LEASE] &&
				DatumGetInt64(ended.values[OUT_LEASE]) == lease &&
				jobq_acts_for(lessee_of_outcome(&belts, epochs[e], &ended));
		}
	}
	jobq_belts_close(&belts);
	return took;
}

bool
jobq_may_settle(const JobqSession *session, const JobqQueue *queue, int64 id,
				int64 lease)
{
	int32		queue_id;
	Oid			enqueued_by;

	return (queue->my_privileges & JOBQ_PRIV_MANAGE) != 0 ||
		took_lease(session, id, lease) ||
		(jobq_job_owner(session, id, &queue_id, &enqueued_by) &&
		 jobq_is_enqueuer(queue, enqueued_by));
}
