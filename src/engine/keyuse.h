/*
 * keyuse.h: how often access keys were used: what memory counts and what the
 * keeper has written down. Changes nothing but the keeper's table.
 */
#ifndef JOBQ_ENGINE_KEYUSE_H
#define JOBQ_ENGINE_KEYUSE_H

#include "dispatch/keyuse.h"
#include "engine/engine.h"

/*
 * Keeper: write down what is due, or all when asked for; returns when to come
 * again.
 */
extern TimestampTz jobq_tend_key_uses(const JobqSession *session,
									  TimestampTz now, bool asked_for);

/* All that is known, by key_id; palloc'd. How many comes back. */
extern int	jobq_key_uses_known(const JobqSession *session,
								JobqKeyUse **uses);

#endif							/* JOBQ_ENGINE_KEYUSE_H */
