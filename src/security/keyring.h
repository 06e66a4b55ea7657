/*
 * keyring.h: named keys for signing and sealing, as bytes. They come from the
 * server's secret and never leave the process's memory from here.
 */
#ifndef JOBQ_KEYRING_H
#define JOBQ_KEYRING_H

#include "store/cryptokey.h"

#define JOBQ_KEY_LEN		32

typedef struct JobqSecretKey
{
	char		name[JOBQ_NAME_MAX + 1];
	int32		version;
	uint8		bytes[JOBQ_KEY_LEN];
} JobqSecretKey;

#define JOBQ_KEY_NEWEST		0	/* as a version */

/*
 * A key to be used now, and not to be kept beyond the next call: JQ013 unless
 * it is there, of this purpose, neither revoked nor retired, and made from the
 * secret that the server has.
 */
extern const JobqSecretKey *jobq_keyring_get(JobqKeyPurpose purpose,
											 const char *name, int32 version);

/*
 * The same; NULL where the table says that the key is of no use, which it will
 * not be again. JQ013 only for the server's secret, which can be put back.
 */
extern const JobqSecretKey *jobq_keyring_find(JobqKeyPurpose purpose,
											  const char *name, int32 version);

/* The bytes of a version; its check value. */
extern void jobq_keyring_derive(const JobqCryptoRow *row, uint8 *bytes);
extern void jobq_keyring_check_value(const uint8 *bytes, uint8 *check);

/*
 * For an option of a queue: as jobq_keyring_get, and the current role must have
 * the privileges of the key's owner.
 */
extern void jobq_keyring_require_mine(JobqKeyPurpose purpose,
									  const char *name);

#endif							/* JOBQ_KEYRING_H */
