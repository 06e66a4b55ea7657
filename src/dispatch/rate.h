/*
 * rate.h: windows that have names, for everybody to count in; see docs/rates.md.
 * All of them are under one lock, which is held for a few steps only.
 */
#ifndef JOBQ_RATE_H
#define JOBQ_RATE_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"

#include "rules.h"

struct JobqDb;

#define JOBQ_RATE_NAME_MAX	63	/* bytes */
#define JOBQ_RATE_SAVED		64	/* times that are saved of a window */

/* One call, and what becomes of it. */
typedef struct JobqRateCall
{
	Oid			owner;
	const char *name;
	JobqRate	rate;
	int32		cost;			/* at most the limit; 0 = only look */
	TimestampTz now;			/* out: by the clock */
	int32		used;			/* out: of the limit, afterwards */
	TimestampTz reset_at;		/* out: nothing counts any more */
	TimestampTz retry_at;		/* out, when refused: there is room */
} JobqRateCall;

typedef enum JobqRated
{
	RATE_ALLOWED,
	RATE_REFUSED,
	RATE_NO_ROOM,				/* for another name */
	RATE_OWNER_FULL				/* for another name of this owner */
} JobqRated;

extern JobqRated jobq_rate_take(struct JobqDb *db, uint32 gen,
								JobqRateCall *call);

/* How many names one owner may have at once. */
extern int	jobq_rates_of_owner(void);

/* ---- the keeper: so that windows survive a restart ---- */

typedef struct JobqRateSaved
{
	Oid			owner;
	char		name[JOBQ_RATE_NAME_MAX + 1];
	JobqRate	rate;
	uint64		version;		/* of the window, when it was copied */
	int			n;
	TimestampTz at[JOBQ_RATE_SAVED];
	int32		count[JOBQ_RATE_SAVED];
} JobqRateSaved;

/*
 * Up to `max` windows that are to be saved, all that have changed if `all`; of
 * the others *next is when the first is due.
 */
extern int	jobq_rates_due(struct JobqDb *db, uint32 gen, TimestampTz now,
						   bool all, int max, JobqRateSaved *saved,
						   TimestampTz *next);

/* That one is on disk; if it has changed since, it is due again later. */
extern void jobq_rate_is_saved(struct JobqDb *db, uint32 gen,
							   const JobqRateSaved *saved);

/* Recovery: this is on disk. False when there is no room for it. */
extern bool jobq_rate_load(struct JobqDb *db, uint32 gen,
						   const JobqRateSaved *saved);

/* ---- for this room ---- */

extern Size jobq_rates_shmem_size(void);
extern void jobq_rates_shmem_startup(LWLock *lock);

/* Chunks of windows that these may have, of all. */
extern int32 jobq_rate_chunks(void);

/* Those of a database that are older than generation `keep`. */
extern void jobq_rates_forget_before(struct JobqDb *db, uint32 keep);

#endif							/* JOBQ_RATE_H */
