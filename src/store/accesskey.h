/*
 * accesskey.h: rows of jobq.access_key. Checks no privileges.
 */
#ifndef JOBQ_STORE_ACCESSKEY_H
#define JOBQ_STORE_ACCESSKEY_H

#include "security/secret.h"
#include "store/store.h"

#define JOBQ_KEY_PREFIX_LEN		12	/* shown of a key */

/* Times that have not come are DT_NOEND. */
typedef struct JobqAccessKey
{
	int32		key_id;
	int32		queue_id;
	char		name[JOBQ_NAME_MAX + 1];
	uint8		digest[JOBQ_HMAC_LEN];
	int32		secret_version;
	char		prefix[JOBQ_KEY_PREFIX_LEN + 1];
	int			privileges;		/* JOBQ_PRIV_* */
	Oid			created_by;
	TimestampTz created_at;
	TimestampTz expires_at;
	TimestampTz replaced_at;	/* since then there is a newer one */
	TimestampTz revoked_at;
} JobqAccessKey;

/*
 * Read with a snapshot of now. False when there is none. The list is palloc'd,
 * by number; how many comes back.
 */
extern bool jobq_access_key_by_id(int32 key_id, JobqAccessKey *key);
extern bool jobq_access_key_by_digest(const uint8 *digest,
									  JobqAccessKey *key);
extern int	jobq_access_key_list(JobqAccessKey **keys);

/*
 * Writing, as the extension's owner, under jobq_queue_lock(). The first makes
 * a row and has keys go that ended long ago; the second says that there is a
 * newer key, and that this one is good until then at most.
 */
extern void jobq_access_key_add(const JobqAccessKey *key);
extern void jobq_access_key_replaced(int32 key_id, TimestampTz expires_at);
extern void jobq_access_key_revoke(int32 key_id, TimestampTz now);

/* Inside SPI, as the owner: the queue goes. */
extern void jobq_access_key_delete_all(int32 queue_id);

#endif							/* JOBQ_STORE_ACCESSKEY_H */
