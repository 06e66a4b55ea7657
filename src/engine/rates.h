/*
 * rates.h: rates that have names, on disk. Private to src/engine.
 */
#ifndef JOBQ_ENGINE_RATES_H
#define JOBQ_ENGINE_RATES_H

#include "engine/engine.h"

/* Keeper: save the windows that are due, or all that have changed. */
extern TimestampTz jobq_tend_rates(const JobqSession *session,
								   TimestampTz now, bool all);

/* Recovery: bring them back into memory, in the present transaction. */
extern void jobq_load_rates(const JobqSession *session);

#endif							/* JOBQ_ENGINE_RATES_H */
