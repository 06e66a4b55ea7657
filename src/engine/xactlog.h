/*
 * xactlog.h: the entries of a transaction's log, and what its callbacks call.
 * Only for the files that make up the end of a transaction: xact.c,
 * lazyclaim.c and prepared.c.
 */
#ifndef JOBQ_XACTLOG_H
#define JOBQ_XACTLOG_H

#include "engine/xact.h"

typedef enum JobqOpKind
{
	OP_PUBLISH,					/* own job `own` was written */
	OP_SPILL,					/* `delta` tickets from `first` on are on disk
								 * only */
	OP_CLAIM,
	OP_MARK,
	OP_AMEND,					/* undo: entry `own` had at_commit, when */
	OP_OWN_CLAIM,
	OP_OWN_END,					/* undo: own job had state `own_state` */
	OP_OWN_EXTEND,				/* undo: own job's lease had when, claim_tid */
	OP_COUNT,
	OP_SHELVED,
	OP_KEEPS_PLACE,				/* `carried` was put on the shelf */
	OP_OFF_SHELF,				/* the job of `ref` was taken off it */
	OP_DIED,					/* a dead row may go at `when` */
	OP_GROUP_ALTERED,			/* `group` has got `group_rules` */
	OP_EPOCH_NEWS,				/* the keeper is to look at the epochs */
	OP_CRON_NEWS,				/* the keeper is to read the schedules */
	OP_HOLDS,					/* the keeper may refill again */
	OP_STEERED,					/* nothing to do; forbids PREPARE */
	OP_AGING,					/* the queue's option is `aging` */
	OP_ADMITTED,				/* jobs were let into a queue with limits */
	OP_VERDICT,					/* a circuit breaker's probe has passed, or
								 * not */
	OP_ENDED,					/* job ref.id, or several, without a slot */
	OP_QUEUE_CHANGED,
	OP_QUEUE_DROPPED
} JobqOpKind;

#define JOBQ_OP_KINDS	(OP_QUEUE_DROPPED + 1)

typedef struct JobqOp
{
	JobqOpKind	kind;
	SubTransactionId subid;
	JobqDb	   *db;
	JobqSlotRef ref;
	TransactionId xid;			/* OP_MARK */
	JobqAtCommit at_commit;		/* OP_MARK, OP_AMEND */
	TimestampTz when;			/* OP_COUNT: attempts began, to be timed */
	ItemPointerData claim_tid;	/* of a mark: invalid = unchanged */
	JobqTicket *carried;		/* of a mark: what it goes on with */
	JobqGroupKey group;			/* OP_OWN_CLAIM: it has taken a place there, if
								 * `placed` */
	bool		placed;
	JobqGroupRules *group_rules;
	int			own;
	JobqOwnState own_state;
	int32		queue_id;
	bool		settles;		/* OP_MARK: under its lease */
	JobqCounter counter;
	int64		delta;			/* OP_MARK: 1 = it runs, and commits or aborts
								 * with us only */
	const JobqAdmission *admission; /* OP_ADMITTED */
	bool		probe;			/* OP_OWN_CLAIM */
	bool		passed;			/* OP_VERDICT */
	JobqTallyRef by_kind;		/* OP_COUNT, of attempts */
	JobqTallyRef by_worker;
	JobqKey		first;			/* OP_SPILL */
	int64		aging;			/* OP_SPILL: that of first; OP_AGING */
	uint64		since;			/* OP_PUBLISH, from before commit on */
	bool		claimer;		/* OP_PUBLISH: announced as running */
} JobqOp;

/* ---- lazyclaim.c ---- */

/* Before the commit: may it wait for no disk? */
extern void jobq_lazy_claim_decide(void);

/* Has this transaction written claims? And: it is over. */
extern bool jobq_lazy_claim_noted(void);
extern void jobq_lazy_claim_forget(void);

/* ---- prepared.c ---- */

/*
 * Before PREPARE TRANSACTION: have the keeper watch it; an error when it has
 * done what cannot be prepared. And: it is prepared, or has failed.
 */
extern void jobq_prepare_check(const JobqOp *ops, int nops);
extern void jobq_prepare_ended(void);

/* Between the two: is its end the keeper's to notice? */
extern bool jobq_prepare_noted(void);

#endif							/* JOBQ_XACTLOG_H */
