/*
 * unit.h: what the stand-alone tests share: saying what passed, as TAP, and
 * random numbers that are the same on every machine.
 */
#ifndef JOBQ_UNIT_H
#define JOBQ_UNIT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

static int	tests;
static int	failures;

static inline void
ok(bool passed, const char *name)
{
	tests++;
	if (!passed)
		failures++;
	printf("%sok %d - %s\n", passed ? "" : "not ", tests, name);
}

/* The exit status of main(). */
static inline int
done_testing(void)
{
	printf("1..%d\n", tests);
	return failures == 0 ? 0 : 1;
}

/* xorshift64*; a test may set it, but not to 0. */
static uint64_t random_state = 20271;

static inline uint32_t
random_below(uint32_t limit)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t) ((random_state * UINT64_C(2685821657736338717)) >> 33) %
		limit;
}

#endif							/* JOBQ_UNIT_H */
