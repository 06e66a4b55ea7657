/*
 * running.c: deliveries of which no outcome tells yet, for limits that are to
 * know them: those that run, and those that were rolled back and have not been
 * moved on. Reads shared memory only.
 */
#include "postgres.h"

#include "engine/limit.h"

/* Slots of cancelled jobs, in grace, have outcomes. */
JobqSlot *
jobq_deliveries_under_way(const JobqSession *session, JobqPart *part,
						  int32 queue_id, int *n)
{
	JobqPart	now;
	JobqSlot   *slots;
	int			max;

	*n = 0;
	if (!jobq_part_stats(session->db, session->gen, queue_id, &now) ||
		now.running + now.rolled_back == 0)
		return NULL;
	max = (int) (now.running + now.rolled_back);
	slots = palloc_extended(sizeof(JobqSlot) * max, MCXT_ALLOC_HUGE);
	*n = jobq_delivered_slots(part, session->gen, max, slots);
	return slots;
}
