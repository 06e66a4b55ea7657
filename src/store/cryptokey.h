/*
 * cryptokey.h: rows of jobq.crypto_key: which keys there are, not the keys
 * themselves, which are nowhere on disk.
 */
#ifndef JOBQ_CRYPTOKEY_H
#define JOBQ_CRYPTOKEY_H

#include "store/store.h"

#define JOBQ_SALT_LEN		16
#define JOBQ_CHECK_LEN		8

/* In the order of their words. */
typedef enum JobqKeyPurpose
{
	JOBQ_KEY_SIGN,
	JOBQ_KEY_SEAL
} JobqKeyPurpose;

extern const char *jobq_key_purpose_word(JobqKeyPurpose purpose);

/* One version of a key. */
typedef struct JobqCryptoRow
{
	char		name[JOBQ_NAME_MAX + 1];
	int32		version;		/* from 1 on */
	Oid			owner;
	JobqKeyPurpose purpose;
	int32		secret_version; /* of the server's secret it is made from */
	uint8		salt[JOBQ_SALT_LEN];
	uint8		check[JOBQ_CHECK_LEN];	/* tells it from other keys */
	TimestampTz retires_at;		/* 0 = not known yet */
	bool		revoked;
} JobqCryptoRow;

/*
 * All versions of a key as they are now, palloc'd, oldest first; their number,
 * 0 = there is no such key.
 */
extern int	jobq_crypto_read(const char *name, JobqCryptoRow **rows);

/*
 * Changes; the caller holds jobq_queue_lock(). Every backend forgets at commit
 * what it knows of keys.
 */
extern void jobq_crypto_insert(const JobqCryptoRow *row);

/* Versions below this one retire then, unless they do so before. */
extern void jobq_crypto_retire(const char *name, int32 below,
							   TimestampTz when);

/* All n versions of the key; 40001 when the snapshot does not show them. */
extern void jobq_crypto_revoke(const char *name, int n);

#endif							/* JOBQ_CRYPTOKEY_H */
