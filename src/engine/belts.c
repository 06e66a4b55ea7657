/*
 * belts.c: the tables of one epoch at a time, and which epoch is the current
 * one. The pointer in shared memory is a hint that the epoch table corrects.
 */
#include "postgres.h"

#include "access/table.h"
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

void
jobq_belts_close(JobqBelts *belts)
{
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

static void
write_hint(JobqDb *db, uint32 gen, int32 class_id, int32 epoch)
{
	SpinLockAcquire(&db->mutex);
	if (db->gen == gen)
		db->open_epoch[class_id] = epoch;
	SpinLockRelease(&db->mutex);
}

int32
jobq_belts_current(const JobqSession *session, JobqBelts *belts,
				   int32 class_id)
{
	int32		epoch = read_hint(session->db, class_id);

	/* lock first, then check that it is still the open one */
	while (epoch == 0 ||
		   jobq_belts_write(belts, epoch, BELT_JOB) == NULL ||
		   read_hint(session->db, class_id) != epoch)
	{
		int32		found = jobq_epoch_find_open(class_id);

		if (found == 0 || found == epoch)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pg_jobq has no open epoch"),
					 errdetail("Tables of schema jobq are missing."),
					 errhint("Restore them from a backup, or DROP and CREATE EXTENSION pg_jobq.")));
		epoch = found;
		write_hint(session->db, session->gen, class_id, epoch);
	}
	return epoch;
}
