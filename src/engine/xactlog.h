/*
 * xactlog.h: a transaction's log, and what its callbacks call. Only for the
 * files that write the log and make up the end of a transaction: xact.c,
 * own.c, join.c, xactend.c, lazyclaim.c and prepared.c.
 */
#ifndef JOBQ_XACTLOG_H
#define JOBQ_XACTLOG_H

#include "dispatch/audit.h"
#include "engine/own.h"
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
	OP_OFF_SHELF,				/* the job of `ref` was taken off it; it may
								 * be among own jobs from `own` on */
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
	OP_AUDITED,					/* entries of the audit log from ref.id on */
	OP_CLAIM_AUDITED,			/* entry ref.id of it; undo: what `refusal`
								 * says is to be told */
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
	const JobqRefusal *refusal; /* OP_CLAIM_AUDITED */
	uint64		admit_key[2];	/* OP_ADMITTED: `delta` jobs, at `when` */
	int64		period;			/* of its rate, 0 = it has none */
	int			before;			/* the last entry before that is alike, see
								 * join.c */
	bool		probe;			/* OP_OWN_CLAIM */
	bool		passed;			/* OP_VERDICT */
	JobqTallyRef by_kind;		/* OP_COUNT, of attempts */
	JobqTallyRef by_worker;
	JobqKey		first;			/* OP_SPILL */
	int64		aging;			/* OP_SPILL: that of first; OP_AGING */
	uint64		since;			/* OP_PUBLISH, from before commit on */
	bool		claimer;		/* OP_PUBLISH: announced as running */
} JobqOp;

/* ---- xact.c ---- */

/* Of the present transaction; NULL and empty between transactions. */
extern JobqOp *jobq_ops;
extern int	jobq_nops;
extern int	jobq_ops_of_kind[JOBQ_OP_KINDS];

/* A new last entry, otherwise zero. */
extern JobqOp *jobq_xact_push(JobqOpKind kind, JobqDb *db);

/* A new ticket that is to be on disk only. */
extern void jobq_xact_spill(const JobqSession *session,
							const JobqQueue *queue, const JobqTicket *t);

/* The transaction is over. */
extern void jobq_xact_forget(void);

/* ---- join.c ---- */

/*
 * The last entry, which is complete, is joined with one that says the same of
 * the same thing, if there is one: its place in the log is gone then.
 */
extern void jobq_xact_join(void);

/* Subtransactions have become part of this one: join what they left last. */
extern void jobq_xact_join_up(SubTransactionId subid);

/* This entry, so far the last one, is undone. */
extern void jobq_xact_unjoin(const JobqOp *op);

/* The transaction is over. */
extern void jobq_join_forget(void);

/* ---- own.c ---- */

/* How many running ones of the queue have we ended? Was one ever leased? */
extern int64 jobq_own_ending(int32 queue_id);
extern bool jobq_own_leased(int32 queue_id);

/*
 * Before anybody can see our tickets: what is entered in our place from now on
 * is to be noticed, and no refill is to take what we run for available.
 */
extern void jobq_own_announce(void);

/*
 * Publish a run of tickets of one queue, starting at entry `from`; returns
 * the entry after it.
 */
extern int	jobq_own_publish(int from);

/* What a claim has taken in memory is given back: it ends with us. */
extern void jobq_own_claim_over(JobqOp *op);

/* Undo the last entry, which is one of OP_PUBLISH and OP_OWN_*. */
extern void jobq_own_undo(JobqOp *op);

/* The transaction is over. */
extern void jobq_own_forget(void);

/* ---- lazyclaim.c ---- */

/* Before the commit: may it wait for no disk? */
extern void jobq_lazy_claim_decide(void);

/* Has this transaction written claims, or is lazy? And: it is over. */
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
