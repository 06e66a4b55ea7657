/*
 * expire.c: which available jobs have not been started in time. Ending them is
 * the engine's business.
 *
 * Must not allocate, raise an error, or look at more than JOBQ_CHUNK slots.
 */
#include "postgres.h"

#include "dispatch/internal.h"

int
jobq_due_expiry(JobqPart *part, uint32 gen, TimestampTz now,
				const JobqSlot *after, int max, JobqSlot *copies,
				TimestampTz *next)
{
	int32		at = JOBQ_NIL;
	int			n = 0;

	LWLockAcquire(part->lock, LW_SHARED);
	if (jobq_part_is_mine(part, gen))
		at = after == NULL ?
			part->expiry_tree.first :
			jobq_tree_after(&jobq_expiry_tree, jobq_slots, &part->expiry_tree,
							after);
	while (at != JOBQ_NIL && n < max && jobq_slots[at].t.expires_at <= now)
	{
		copies[n++] = jobq_slots[at];
		at = jobq_tree_after(&jobq_expiry_tree, jobq_slots, &part->expiry_tree,
							 &jobq_slots[at]);
	}
	*next = at != JOBQ_NIL ? jobq_slots[at].t.expires_at : JOBQ_NEVER;
	LWLockRelease(part->lock);
	return n;
}
