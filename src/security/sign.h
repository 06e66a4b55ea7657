/*
 * sign.h: signatures of deliveries.
 */
#ifndef JOBQ_SIGN_H
#define JOBQ_SIGN_H

#include "utils/jsonb.h"

/*
 * The headers of a delivery, which may be NULL, with the signature of its id,
 * the time it was claimed at and its payload. JQ013 when the key is refused.
 */
extern Jsonb *jobq_sign_headers(const char *key_name, int64 id,
								TimestampTz claimed_at, Jsonb *payload,
								Jsonb *headers);

#endif							/* JOBQ_SIGN_H */
