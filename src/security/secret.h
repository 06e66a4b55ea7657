/*
 * secret.h: the server's secret, from which keys are made and checked. What
 * is handed out is an HMAC, never the secret itself.
 */
#ifndef JOBQ_SECRET_H
#define JOBQ_SECRET_H

#define JOBQ_HMAC_LEN		32	/* SHA-256 */

/*
 * The present version: the largest one in the file that jobq.secret_file
 * names. JQ013 while there is no file that can be trusted.
 */
extern int	jobq_secret_version(void);

/* All versions there are; returns how many. JQ013 as above. */
#define JOBQ_SECRETS_MAX	100
extern int	jobq_secret_versions(int *versions);

/* In a time that does not depend on what differs. */
extern bool jobq_secret_same(const void *a, const void *b, size_t len);

/* HMAC-SHA256 into out, which has JOBQ_HMAC_LEN bytes. */
extern void jobq_hmac(const void *key, size_t key_len, const void *data,
					  size_t len, uint8 *out);

/*
 * HMAC-SHA256 of data with the secret of that version into out, which has
 * JOBQ_HMAC_LEN bytes. JQ013 when the file does not have it. Callers begin
 * the data with a label of their own, so that no two uses share a result.
 */
extern void jobq_secret_hmac(int version, const void *data, size_t len,
							 uint8 *out);

#endif							/* JOBQ_SECRET_H */
