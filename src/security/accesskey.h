/*
 * accesskey.h: access keys: what they look like, and which one is in use. The
 * key itself is never kept, only that it was presented.
 */
#ifndef JOBQ_ACCESSKEY_H
#define JOBQ_ACCESSKEY_H

#include "guc.h"
#include "store/accesskey.h"

#define JOBQ_RAW_KEY_LEN	67	/* jq_ and 64 hex digits */

/* A new key as text; its digest, version and prefix go to *key. */
extern void jobq_key_make(char raw[JOBQ_RAW_KEY_LEN + 1],
						  JobqAccessKey *key);

/* The row of a key that was presented; false when there is none. */
extern bool jobq_key_find(const char *raw, JobqAccessKey *key);

/* Neither expired nor revoked. */
extern bool jobq_key_is_good(const JobqAccessKey *key, TimestampTz now);

/* JQ013 saying which, to one who has presented it. */
extern void jobq_key_check(const JobqAccessKey *key, TimestampTz now);

/*
 * The current effective role uses the key from now on, to the end of the
 * transaction or of the session; it is undone like SET and SET LOCAL. And: it
 * uses none.
 */
extern void jobq_key_take(const JobqAccessKey *key, bool for_session);
extern void jobq_key_let_go(void);

/*
 * JOBQ_PRIV_* on a queue that the key in use adds for the current effective
 * role. JQ013 when it is this queue's, but good no more.
 */
extern int	jobq_key_privileges(int32 queue_id);

static inline int
jobq_key_adds(int32 queue_id)
{
	return jobq_access_key == 0 ? 0 : jobq_key_privileges(queue_id);
}

#endif							/* JOBQ_ACCESSKEY_H */
