/*
 * group.h: jobs of a queue that share a group key: how many of them run, which
 * of them is next, and which group's turn it is. Part of dispatch.h.
 *
 * Only kept for queues whose rules ask for it. Everything is under the lock of
 * the queue's part. A queue's jobs without a key are a group, too, without
 * limits.
 */
#ifndef JOBQ_GROUP_H
#define JOBQ_GROUP_H

#include "datatype/timestamp.h"
#include "dispatch/key.h"
#include "dispatch/tree.h"
#include "dispatch/window.h"
#include "rules.h"

/* 128 bits of hash stand for a key; both 0: no key. */
typedef struct JobqGroupKey
{
	uint64		hash[2];
} JobqGroupKey;

static inline bool
jobq_has_group(const JobqGroupKey *key)
{
	return key->hash[0] != 0 || key->hash[1] != 0;
}

/* A slot's group when it is no entry's number. */
#define JOBQ_NO_GROUP		(-1)	/* not looked up yet */
#define JOBQ_STRAY			(-2)	/* there was no free entry */

/* In which of its group's trees a slot is. */
typedef enum JobqGroupTree
{
	GROUP_TREE_NONE,			/* not available, or set aside */
	GROUP_TREE_FRESH,			/* available, never started */
	GROUP_TREE_AGAIN,			/* available, started before */
	GROUP_TREE_MARKED,			/* available, in a transaction's hands */
	GROUP_TREES
} JobqGroupTree;

/* Where a group is linked. */
typedef enum JobqTurn
{
	TURN_NONE,					/* none of its jobs may go */
	TURN_ORDER,					/* among those that may, in the jobs' order */
	TURN_RING,					/* the same in a fair queue: one by one */
	TURN_ASLEEP					/* not before a time */
} JobqTurn;

/*
 * A group in memory. It stays as long as a slot refers to it, or anything else
 * in it would be forgotten.
 */
typedef struct JobqGroup
{
	JobqGroupKey key;
	int32		part;			/* -1 = free */
	JobqTreeNode by_key;		/* free list: left */
	JobqTreeNode turn;			/* ring: left is before, right behind */
	uint8		turn_at;		/* JobqTurn */
	int32		turns_left;		/* in a ring, before others have theirs */
	JobqKey		place;			/* in the order: that of its first job, in
								 * memory or on disk */
	int32		next;			/* slot that goes when it is the group's turn */
	TimestampTz asleep_until;

	JobqTree	trees[GROUP_TREES]; /* of slots, through in_group */
	int32		waiting[GROUP_TREES];	/* how many are in each */
	int32		slots;			/* that refer to it */
	int32		active;			/* running or in grace */
	int32		kept;			/* not active, but started before */
	int32		own;			/* of the active ones: uncommitted jobs that
								 * the transaction that made them has taken */
	int32		blocked;		/* its part of COUNT_BLOCKED */
	JobqTreeNode by_age;
	TimestampTz oldest;			/* run_at of the one of those that wait and
								 * are not blocked that has waited longest;
								 * JOBQ_NEVER = none, and not in by_age */
	int16		priority;		/* of all that wait, unless they are ... */
	bool		mixed;			/* ... of several */

	/*
	 * Its tickets from here on, before the part's frontier, are on disk only;
	 * see groupspill.c. In a refill of groups: so many have come in, and it
	 * has had enough, at `stop`.
	 */
	JobqKey		frontier;
	JobqKey		stop;
	int32		entered;
	bool		stopped;
	bool		hungry;			/* little is left in memory of it */
	bool		fat;			/* it has more than its share there */

	JobqGroupRules rules;
	JobqWindow	window;			/* deliveries, for the rate limit */
	int64		taken_id;		/* the job delivered last ... */
	TimestampTz taken_at;		/* ... and when */
} JobqGroup;

/* Does memory know all started jobs and all altered groups of a queue? */
typedef enum JobqGroupsKnown
{
	GROUPS_UNKNOWN,				/* the keeper is to load them */
	GROUPS_LOADING,
	GROUPS_KNOWN
} JobqGroupsKnown;

/* After a change of rules: which groups are to be looked at again? */
typedef enum JobqRecheck
{
	RECHECK_NONE,
	RECHECK_ALL,
	RECHECK_REST				/* those after recheck_from */
} JobqRecheck;

/* What a part knows of its groups. */
typedef struct JobqPartGroups
{
	bool		on;				/* the rules have asked for groups */
	uint8		known;			/* JobqGroupsKnown */
	bool		counting;		/* what was delivered before is counted */
	uint8		recheck;		/* JobqRecheck */
	JobqGroupKey recheck_from;
	int32		unseen;			/* slots below may not be in groups yet */
	JobqTree	by_key;			/* trees of its groups: all, ... */
	JobqTree	order;			/* ... by turn, ... */
	JobqTree	asleep;			/* ... by when they wake up, ... */
	JobqTree	by_age;			/* ... by their oldest job; */
	int32		ring;			/* and the first of the ring */
	JobqTree	kept;			/* tree of slots that keep a place */
	int64		strays;			/* slots that found no entry */
	uint32		alters;			/* how often alter_group() has come by */
	int32		spilled;		/* groups that have a frontier */
	int32		hungry;			/* and of these, those that are hungry */
	int32		fat;			/* groups that are fat */
	bool		crowded;		/* the last refill could bring in nothing, as
								 * there was no slot or no entry */
	bool		passed;			/* since then one that is held was passed over:
								 * only kept places go now */
	bool		refilling;		/* the refill going on is one of groups, */
	JobqKey		from;			/* and has begun there */
	JobqKey		missed;			/* while it is: smallest key left out */
} JobqPartGroups;

#endif							/* JOBQ_GROUP_H */
