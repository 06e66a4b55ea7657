/*
 * keyuse.h: how often access keys were used, counted in shared memory until
 * the keeper has written it down.
 */
#ifndef JOBQ_KEYUSE_H
#define JOBQ_KEYUSE_H

#include "dispatch/dispatch.h"

/* What is not on disk yet of a key's use. */
typedef struct JobqKeyUse
{
	int32		key_id;
	int64		uses;
	TimestampTz last_used_at;	/* a full minute */
} JobqKeyUse;

#define JOBQ_KEY_USES		1024	/* keys used between two writes */

/*
 * A key was presented n times, or has at least been of use. Has the keeper
 * write it down within a minute. When too many keys are used at the same time
 * this one's use is not counted.
 */
extern void jobq_key_used(JobqDb *db, uint32 gen, int32 key_id, int n,
						  TimestampTz now);

/* Copy what there is; returns how many, at most JOBQ_KEY_USES. */
extern int	jobq_key_uses(const JobqDb *db, uint32 gen, JobqKeyUse *uses);

/* That is on disk now. False when some of them were used meanwhile. */
extern bool jobq_key_uses_written(const JobqDb *db, uint32 gen,
								  const JobqKeyUse *uses, int n);

/* Forget those of other generations. */
extern void jobq_key_uses_free_others(const JobqDb *db, uint32 gen);

extern Size jobq_key_uses_size(void);
extern void jobq_key_uses_request(void);
extern void jobq_key_uses_init(void);

#endif							/* JOBQ_KEYUSE_H */
