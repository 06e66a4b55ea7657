/*
 * seal.h: payloads of jobs, encrypted at rest. Sealing and opening work on rows
 * in hand; where a row lies, and who may see it, is for callers to know.
 *
 * A sealed row has its payload in JOB_SEALED; JOB_PAYLOAD is JSON null. The
 * ciphertext is bound to the job's id and queue.
 */
#ifndef JOBQ_SEAL_H
#define JOBQ_SEAL_H

#include "store/store.h"

static inline bool
jobq_is_sealed(const JobqRow *row)
{
	return !row->nulls[JOB_SEALED];
}

/* Seal the payload of a row that has its id and queue. JQ013. */
extern void jobq_seal(const char *key_name, JobqRow *row);

/* The payload in clear again, as if it had never been sealed. JQ013. */
extern void jobq_unseal(JobqRow *row);

/* The same for values that are no row. */
extern Datum jobq_unseal_payload(Datum sealed, int32 queue_id, int64 id);

/*
 * The same for a row that may not be what it was: false, and it stays as it is,
 * when its key is of no use any more or what is stored was altered or damaged.
 * JQ013 only for the server's secret.
 */
extern bool jobq_try_unseal(JobqRow *row);

/* Can it be opened? And: is there the key for it, at least? */
extern bool jobq_can_unseal(const JobqRow *row);
extern bool jobq_has_seal_key(const JobqRow *row);

/*
 * A row that will be another job's, or in another queue: sealed with the
 * queue's key if that is not empty, else as before.
 */
extern void jobq_seal_for(JobqRow *row, const char *key_name, int32 queue_id,
						  int64 id);

/*
 * Will that go well? False as jobq_try_unseal(), or when the other key is of no
 * use. JQ013 only for the server's secret.
 */
extern bool jobq_can_seal_for(const JobqRow *row, const char *key_name);

/* Is a row sealed with the newest version of that key? JQ013. */
extern bool jobq_is_sealed_with(const JobqRow *row, const char *key_name);

#endif							/* JOBQ_SEAL_H */
