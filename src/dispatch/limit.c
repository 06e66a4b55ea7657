/*
 * limit.c: how many jobs of a queue may be taken now: max_active, rate_limit
 * and circuit_breaker. Which job it is, is not decided here.
 *
 * Runs under the lock of the queue's part and in commit and abort callbacks:
 * must not allocate, raise an error or sleep.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "dispatch/internal.h"

/* ---- under the part's lock ---- */

void
jobq_limits_reset(JobqPart *part)
{
	JobqLimits *limits = &part->limits;

	jobq_window_clear(&limits->taken);
	jobq_window_clear(&limits->failures);
	jobq_admit_reset(limits);
	limits->on = false;
	limits->clock = 0;
	limits->own_running = 0;
	limits->probes = 0;
	limits->open_until = 0;
}

/* What a limit that is gone has counted does not count for the next one. */
void
jobq_limits_follow(JobqPart *part)
{
	const JobqRules *rules = &part->rules;
	JobqLimits *limits = &part->limits;

	limits->on = jobq_rules_limit(rules);
	if (rules->rate_limit.limit == 0)
		jobq_window_clear(&limits->taken);
	if (rules->breaker.failures == 0)
	{
		jobq_window_clear(&limits->failures);
		limits->open_until = 0;
	}
}

/*
 * Deliveries are logged in the order of their times: a fresh lease gets the
 * time of now, which is not before that of anybody who was here earlier. One
 * under which something has been taken already may come too late.
 */
static bool
set_clock(JobqLimits *limits, JobqTake *take)
{
	JobqLease  *lease = take->lease;

	if (take->fresh)
	{
		lease->claimed_at = GetCurrentTimestamp();
		lease->expires_at = lease->claimed_at + lease->lease_for;
		limits->clock = lease->claimed_at;
	}
	return lease->claimed_at >= limits->clock;
}

static int64
active(const JobqPart *part)
{
	return part->running + part->grace + part->limits.own_running;
}

static bool
is_half_open(const JobqLimits *limits)
{
	return limits->open_until != 0;
}

/* What stops it, or JOBQ_LIMIT_NONE and how many more may be taken. */
static void
look(JobqPart *part, TimestampTz now, int64 ending, JobqLimitState *state,
	 int64 *room)
{
	const JobqRules *rules = &part->rules;
	const JobqRate *rate = &rules->rate_limit;
	JobqLimits *limits = &part->limits;

	memset(state, 0, sizeof(*state));
	state->until = JOBQ_NEVER;
	*room = PG_INT32_MAX;
	if (jobq_db_lacks_leases(&jobq_dbs[part->db]))
	{
		state->reason = JOBQ_LIMIT_LEASES;
		return;
	}
	if (rules->max_active > 0)
	{
		state->used = active(part);
		state->limit = rules->max_active;
		*room = state->limit - state->used + ending;
		if (*room <= 0)
		{
			state->reason = JOBQ_LIMIT_ACTIVE;
			return;
		}
	}
	if (limits->open_until > now)
	{
		state->reason = JOBQ_LIMIT_OPEN;
		state->until = limits->open_until;
		return;
	}
	if (is_half_open(limits))
	{
		state->used = limits->probes;
		state->limit = *room = 1;
		if (limits->probes > 0)
		{
			state->reason = JOBQ_LIMIT_PROBE;
			return;
		}
	}
	if (rate->limit > 0)
	{
		*room = Min(*room, jobq_window_room(&limits->taken, rate->limit,
											rate->period, now));
		if (*room > 0)
			return;
		state->used = limits->taken.total;
		state->limit = rate->limit;
		state->reason = JOBQ_LIMIT_RATE;
		state->until = jobq_window_when(&limits->taken, rate->limit,
										rate->period, 1);
	}
}

int64
jobq_limits_places(const JobqPart *part)
{
	if (part->rules.max_active == 0)
		return PG_INT64_MAX;
	return Max(part->rules.max_active - active(part), 0);
}

int
jobq_limits_room(JobqPart *part, JobqTake *take, int want)
{
	JobqLimitState state;
	int64		room;

	take->limited = true;
	if (!set_clock(&part->limits, take))
	{
		take->retry_at = part->limits.clock;
		return 0;
	}
	look(part, take->lease->claimed_at, take->ending, &state, &room);
	take->retry_at = state.until;
	if (state.reason != JOBQ_LIMIT_NONE)
		return 0;
	take->limited = room < want;
	take->lease->probe = is_half_open(&part->limits);
	return (int) Min(room, want);
}

void
jobq_limits_taken(JobqPart *part, int n, TimestampTz claimed_at)
{
	const JobqRate *rate = &part->rules.rate_limit;

	if (rate->limit > 0)
		(void) jobq_window_add(&part->limits.taken, rate->limit, rate->period,
							   claimed_at, n);
}

void
jobq_limits_not_taken(JobqPart *part, TimestampTz claimed_at)
{
	const JobqRate *rate = &part->rules.rate_limit;

	if (rate->limit > 0)
		jobq_window_take_back(&part->limits.taken, rate->period,
							  GetCurrentTimestamp(), claimed_at, 1);
}

/* ---- the breaker ---- */

static void
open_breaker(JobqPart *part, TimestampTz now)
{
	part->limits.open_until = now + part->rules.breaker.open;
	jobq_window_clear(&part->limits.failures);
}

/* While it is not closed only its probe matters. */
void
jobq_limits_failed(JobqPart *part, int n)
{
	const JobqBreaker *breaker = &part->rules.breaker;
	JobqWindow *failures = &part->limits.failures;
	TimestampTz now;

	if (breaker->failures == 0 || is_half_open(&part->limits))
		return;
	now = GetCurrentTimestamp();
	(void) jobq_window_room(failures, breaker->failures, breaker->window, now);
	(void) jobq_window_add(failures, breaker->failures, breaker->window, now,
						   n);
	if (failures->total >= breaker->failures)
		open_breaker(part, now);
}

/* The part may have come and gone meanwhile, with its queue. */
void
jobq_own_released(JobqDb *db, uint32 gen, int32 queue_id, bool probe)
{
	JobqPart   *part = jobq_part_lock(db, gen, queue_id);

	if (part == NULL)
		return;
	if (part->limits.own_running > 0)
		part->limits.own_running--;
	if (probe && part->limits.probes > 0)
		part->limits.probes--;
	LWLockRelease(part->lock);
	jobq_wake_waiters(part, gen, 1);
}

void
jobq_breaker_judge(JobqDb *db, uint32 gen, int32 queue_id, bool passed)
{
	JobqPart   *part = jobq_part_lock(db, gen, queue_id);

	if (part == NULL)
		return;
	if (is_half_open(&part->limits))
	{
		if (passed)
			part->limits.open_until = 0;
		else
			open_breaker(part, GetCurrentTimestamp());
	}
	LWLockRelease(part->lock);
}

/* ---- looking ---- */

void
jobq_limits_explain(JobqPart *part, uint32 gen, const JobqRules *rules,
					JobqLimitState *state)
{
	int64		room;

	memset(state, 0, sizeof(*state));
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen))
	{
		jobq_part_follow(part, rules);
		part->limits.clock = GetCurrentTimestamp();
		if (part->limits.on)
			look(part, part->limits.clock, 0, state, &room);
	}
	LWLockRelease(part->lock);
}

/* ---- recovery ---- */

static bool
lock_for_load(JobqPart *part, uint32 gen, const JobqRules *rules)
{
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (jobq_part_is_mine(part, gen))
	{
		jobq_part_follow(part, rules);
		return true;
	}
	LWLockRelease(part->lock);
	return false;
}

void
jobq_limits_load_taken(JobqPart *part, uint32 gen, const JobqRules *rules,
					   const TimestampTz *times, int n)
{
	if (!lock_for_load(part, gen, rules))
		return;
	for (int i = 0; i < n; i++)
		jobq_limits_taken(part, 1, times[i]);
	LWLockRelease(part->lock);
}

void
jobq_limits_load_breaker(JobqPart *part, uint32 gen, const JobqRules *rules,
						 const TimestampTz *failures, int n,
						 TimestampTz open_until)
{
	const JobqBreaker *breaker = &rules->breaker;

	if (!lock_for_load(part, gen, rules))
		return;
	for (int i = 0; i < n; i++)
		(void) jobq_window_add(&part->limits.failures, breaker->failures,
							   breaker->window, failures[i], 1);
	part->limits.open_until = open_until;
	LWLockRelease(part->lock);
}
