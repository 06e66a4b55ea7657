/*
 * rules.h: the limits and the order of a queue, as its options say them and as
 * shared memory keeps them.
 */
#ifndef JOBQ_RULES_H
#define JOBQ_RULES_H

#include "datatype/timestamp.h"

/* At most limit in any time as long as period; limit 0 = no limit. */
typedef struct JobqRate
{
	int32		limit;
	int64		period;			/* us */
} JobqRate;

#define JOBQ_PERIOD_MAX		USECS_PER_DAY
#define JOBQ_RATE_MAX		1000000

/* The enums are in the order of their options' words. */
typedef enum JobqPer
{
	JOBQ_PER_QUEUE,
	JOBQ_PER_ROLE,
	JOBQ_PER_GROUP
} JobqPer;

/* How fast jobs may be enqueued, counted together by `per`. */
typedef struct JobqEnqueueLimit
{
	JobqRate	rate;
	int8		per;			/* JobqPer */
} JobqEnqueueLimit;

typedef struct JobqBreaker
{
	int32		failures;		/* 0 = no breaker */
	int64		window;			/* us */
	int64		open;			/* us */
} JobqBreaker;

typedef enum JobqOnRetry
{
	JOBQ_ON_RETRY_DEFAULT,		/* block if group_limit is 1, else skip */
	JOBQ_ON_RETRY_BLOCK,
	JOBQ_ON_RETRY_SKIP
} JobqOnRetry;

typedef enum JobqOrdering
{
	JOBQ_ORDER_PRIORITY,
	JOBQ_ORDER_FAIR
} JobqOrdering;

/* What decides which job goes next, and when none may. */
typedef struct JobqRules
{
	int32		max_active;		/* 0 = no limit */
	int32		group_limit;	/* 0 = no limit */
	int8		group_on_retry; /* JobqOnRetry */
	int8		ordering;		/* JobqOrdering */
	int64		aging;			/* us a step of priority, 0 = none */
	JobqRate	rate_limit;
	JobqRate	group_rate_limit;
	JobqBreaker breaker;
	bool		altered_groups; /* alter_group() has changed some */
} JobqRules;

static inline bool
jobq_rate_is(const JobqRate *a, const JobqRate *b)
{
	return a->limit == b->limit && a->period == b->period;
}

static inline bool
jobq_breaker_is(const JobqBreaker *a, const JobqBreaker *b)
{
	return a->failures == b->failures && a->window == b->window &&
		a->open == b->open;
}

/* Are all members the same? Bytes between them need not be. */
static inline bool
jobq_rules_are(const JobqRules *a, const JobqRules *b)
{
	return a->max_active == b->max_active &&
		a->group_limit == b->group_limit &&
		a->group_on_retry == b->group_on_retry &&
		a->ordering == b->ordering && a->aging == b->aging &&
		jobq_rate_is(&a->rate_limit, &b->rate_limit) &&
		jobq_rate_is(&a->group_rate_limit, &b->group_rate_limit) &&
		jobq_breaker_is(&a->breaker, &b->breaker) &&
		a->altered_groups == b->altered_groups;
}

/*
 * Do they ever keep back a job that comes next? Then deliveries are logged,
 * and must not be lost in a crash.
 */
static inline bool
jobq_rules_limit(const JobqRules *rules)
{
	return rules->max_active > 0 || rules->group_limit > 0 ||
		rules->altered_groups ||
		rules->rate_limit.limit > 0 || rules->group_rate_limit.limit > 0 ||
		rules->breaker.failures > 0;
}

/*
 * What alter_group() says of one group; 0 = as the queue says. All zeroes: the
 * group is like the others.
 */
typedef struct JobqGroupRules
{
	int32		limit;			/* running at once */
	int32		weight;			/* jobs a turn; 0 = 1 */
	JobqRate	rate_limit;
	TimestampTz paused_until;
} JobqGroupRules;

static inline bool
jobq_rules_alter_group(const JobqGroupRules *rules)
{
	return rules->limit != 0 || rules->weight != 0 ||
		rules->rate_limit.limit != 0 || rules->paused_until != 0;
}

/* Do these rules look at the groups of jobs at all? */
static inline bool
jobq_rules_group(const JobqRules *rules)
{
	return rules->group_limit > 0 || rules->group_rate_limit.limit > 0 ||
		rules->ordering == JOBQ_ORDER_FAIR || rules->altered_groups;
}

/* Can a job that waits for its next attempt hold its place in its group? */
static inline bool
jobq_rules_keep_places(const JobqRules *rules)
{
	if (rules->group_limit == 0 && !rules->altered_groups)
		return false;
	return rules->group_on_retry == JOBQ_ON_RETRY_BLOCK ||
		(rules->group_on_retry == JOBQ_ON_RETRY_DEFAULT &&
		 (rules->group_limit == 1 || rules->altered_groups));
}

#endif							/* JOBQ_RULES_H */
