/*
 * belts.c: the tables of one epoch at a time, and which epoch is the current
 * one. The pointer in shared memory is a hint that only the keeper writes.
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "engine/belts.h"
#include "errors.h"

static Relation
get(JobqBelts *belts, int32 epoch, JobqBeltKind kind, LOCKMODE lockmode)
{
	if (belts->epoch != epoch)
	{
		jobq_belts_close(belts);
		belts->epoch = epoch;
	}
	if (belts->rel[kind] == NULL)
		belts->rel[kind] = jobq_belt_open(epoch, kind, lockmode);
	return belts->rel[kind];
}

Relation
jobq_belts_read(JobqBelts *belts, int32 epoch, JobqBeltKind kind)
{
	return get(belts, epoch, kind, AccessShareLock);
}

Relation
jobq_belts_write(JobqBelts *belts, int32 epoch, JobqBeltKind kind)
{
	return get(belts, epoch, kind, RowExclusiveLock);
}

bool
jobq_has_ended(JobqBelts *belts, const JobqTicket *t)
{
	Relation	outcome = jobq_belts_read(belts, t->epoch, BELT_OUTCOME);
	JobqOutcomeRow row;

	return outcome == NULL ||
		jobq_belt_read_outcome(outcome, t->ticket, &row);
}

void
jobq_belts_close(JobqBelts *belts)
{
	jobq_reader_close(&belts->jobs);
	for (int i = BELT_JOB; i <= BELT_OUTCOME; i++)
	{
		if (belts->rel[i] != NULL)
			table_close(belts->rel[i], NoLock);
		belts->rel[i] = NULL;
	}
	belts->epoch = 0;
}

static int32
read_hint(JobqDb *db, int32 class_id)
{
	int32		epoch;

	SpinLockAcquire(&db->mutex);
	epoch = db->open_epoch[class_id];
	SpinLockRelease(&db->mutex);
	return epoch;
}

JOBQ_NORETURN static void
raise_no_epoch(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pg_jobq has no open epoch"),
			 errdetail("Tables of schema jobq are missing."),
			 errhint("Restore them from a backup, or DROP and CREATE EXTENSION pg_jobq.")));
	pg_unreachable();
}

/*
 * The open epoch by the table of epochs. A class can be gone, if the queue was
 * looked up before its retention changed: then the job goes where the default
 * retention is, which never goes.
 */
static int32
find_open(int32 class_id)
{
	int32		epoch = jobq_epoch_find_open(class_id);

	if (epoch == 0)
		epoch = jobq_epoch_find_open(JOBQ_CLASS_DEFAULT);
	if (epoch == 0)
		raise_no_epoch();
	return epoch;
}

/*
 * Lock first, then see that it is still the open one. Whoever closes an epoch
 * corrects the hint, which is not ours to write, before it is sealed.
 */
int32
jobq_belts_current(const JobqSession *session, JobqBelts *belts,
				   int32 class_id)
{
	int32		epoch = read_hint(session->db, class_id);
	int32		lost = 0;

	if (epoch != 0 && jobq_belts_write(belts, epoch, BELT_JOB) != NULL &&
		read_hint(session->db, class_id) == epoch)
		return epoch;
	for (;;)
	{
		epoch = find_open(class_id);
		if (jobq_belts_write(belts, epoch, BELT_JOB) != NULL)
		{
			if (find_open(class_id) == epoch)
				return epoch;
		}
		else if (epoch == lost)
			raise_no_epoch();
		else
			lost = epoch;
		CHECK_FOR_INTERRUPTS();
	}
}
