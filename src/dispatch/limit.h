/*
 * limit.h: how many jobs of a queue may be taken now, and enqueued: what runs,
 * what was taken and failed lately, who has enqueued how much. Everything is
 * under the lock of the queue's part unless it says so.
 */
#ifndef JOBQ_LIMIT_H
#define JOBQ_LIMIT_H

#include "datatype/timestamp.h"

#include "dispatch/tree.h"
#include "dispatch/window.h"
#include "rules.h"

struct JobqDb;
struct JobqPart;
struct JobqTake;

/* What a part knows of its queue's limits. */
typedef struct JobqLimits
{
	bool		on;				/* there are limits on deliveries */
	TimestampTz clock;			/* of the last look for jobs, while on */
	int32		own_running;	/* jobs that the transactions which have
								 * enqueued them have taken */
	int32		probes;			/* running ones the breaker has let through */
	TimestampTz open_until;		/* breaker: 0 = closed; then half-open */
	JobqWindow	taken;
	JobqWindow	failures;

	/* enqueuing, see admit.c */
	int64		reserved;		/* jobs of transactions that are open */
	JobqWindow	admitted;
	JobqTree	keys_tree;		/* by key */
	int32		keys_oldest;	/* by the last time they were used */
	int32		keys_newest;
} JobqLimits;

/* A part gets another queue, or none. */
extern void jobq_limits_reset(struct JobqPart *part);

/* The rules of the part have changed. */
extern void jobq_limits_follow(struct JobqPart *part);

/* So many more jobs may run, as far as max_active is concerned. */
extern int64 jobq_limits_places(const struct JobqPart *part);

/*
 * How many of `want` jobs may be taken now. Sets the clock of a fresh lease,
 * and in *take what stopped it. To be called where limits.on only, as the
 * next one is, once they have been taken.
 */
extern int	jobq_limits_room(struct JobqPart *part, struct JobqTake *take,
							 int want);
extern void jobq_limits_taken(struct JobqPart *part, int n,
							  TimestampTz claimed_at);

/* One of them was not handed out after all. */
extern void jobq_limits_not_taken(struct JobqPart *part,
								  TimestampTz claimed_at);

/* An attempt has failed, now. */
extern void jobq_limits_failed(struct JobqPart *part, int n);

/* ---- not under the lock ---- */

/*
 * The transaction that has taken n of its own jobs has ended, or gone back;
 * the one of the breaker's probe tells whether it has passed.
 */
extern void jobq_own_released(struct JobqDb *db, uint32 gen, int32 queue_id,
							  bool probe);
extern void jobq_breaker_judge(struct JobqDb *db, uint32 gen, int32 queue_id,
							   bool passed);

/* Why nothing is taken from a queue, and the numbers that decide. */
typedef enum JobqLimitReason
{
	JOBQ_LIMIT_NONE,
	JOBQ_LIMIT_ACTIVE,			/* used of limit run */
	JOBQ_LIMIT_RATE,			/* used of limit were taken; until then */
	JOBQ_LIMIT_OPEN,			/* the breaker is open until then */
	JOBQ_LIMIT_PROBE,			/* half-open, and the probe is running */
	JOBQ_LIMIT_LEASES			/* running jobs without slots: not known */
} JobqLimitReason;

typedef struct JobqLimitState
{
	JobqLimitReason reason;
	int64		used;
	int64		limit;
	TimestampTz until;			/* JOBQ_NEVER = when something happens */
} JobqLimitState;

extern void jobq_limits_explain(struct JobqPart *part, uint32 gen,
								const JobqRules *rules, JobqLimitState *state);

/* ---- recovery; not under the lock ---- */

/* Jobs were taken at these times, which ascend; likewise, attempts failed. */
extern void jobq_limits_load_taken(struct JobqPart *part, uint32 gen,
								   const JobqRules *rules,
								   const TimestampTz *times, int n);
extern void jobq_limits_load_breaker(struct JobqPart *part, uint32 gen,
									 const JobqRules *rules,
									 const TimestampTz *failures, int n,
									 TimestampTz open_until);

/* ---- admit.c: enqueuing; not under the lock ---- */

/* What an enqueue asks for, and is told. */
typedef struct JobqAdmission
{
	int			n;				/* jobs */
	int32		max_depth;		/* 0 = no limit */
	JobqRate	rate;
	uint64		key[2];			/* counted together; 0, 0 = by queue */
	TimestampTz now;			/* out: by the clock */
	TimestampTz at;				/* out: when they count, see window.h */
	int64		used;			/* out: of the limit that refuses it */
	TimestampTz retry_at;		/* out: ADMIT_TOO_FAST */
} JobqAdmission;

typedef enum JobqAdmitted
{
	ADMIT_OK,
	ADMIT_FULL,					/* max_depth */
	ADMIT_TOO_FAST,				/* rate */
	ADMIT_GONE					/* the part is another queue's by now */
} JobqAdmitted;

extern JobqAdmitted jobq_admit_jobs(struct JobqPart *part, uint32 gen,
									JobqAdmission *admission);

/* Recovery: n jobs of a transaction that is prepared. */
extern void jobq_admit_hold(struct JobqDb *db, uint32 gen, int32 queue_id,
							int n);

/* The transaction has ended: its jobs count themselves, or are no more. */
extern void jobq_admit_settled(struct JobqDb *db, uint32 gen, int32 queue_id,
							   int n);

/* They were not enqueued after all. */
extern void jobq_admit_undone(struct JobqDb *db, uint32 gen, int32 queue_id,
							  const uint64 *key, int64 period, TimestampTz at,
							  int n);

/* Recovery: jobs were enqueued then; times ascend. */
extern void jobq_admit_load(struct JobqPart *part, uint32 gen,
							const JobqRate *rate, const uint64 *key,
							TimestampTz at);

extern void jobq_admit_reset(JobqLimits *limits);
extern Size jobq_admit_shmem_size(void);
extern void jobq_admit_shmem_startup(void);

#endif							/* JOBQ_LIMIT_H */
