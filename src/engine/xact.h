/*
 * xact.h: what the present transaction does to the queue and what becomes of
 * it at commit, for those who do it. Private to src/engine.
 */
#ifndef JOBQ_XACT_H
#define JOBQ_XACT_H

#include "engine/engine.h"

/* What becomes of a marked slot at commit. */
typedef enum JobqAtCommit
{
	AT_COMMIT_END,				/* it goes */
	AT_COMMIT_EXTEND,			/* its lease now ends at `when` */
	AT_COMMIT_CARRY,			/* it goes on with another ticket */
	AT_COMMIT_HOLD,				/* kept until `when` for a cancelled worker */
	AT_COMMIT_NOTHING			/* the mark was given back */
} JobqAtCommit;

/*
 * Make room for n more entries, so that the next n calls below cannot fail:
 * to be done before shared memory is changed.
 */
extern void jobq_xact_reserve(int n);

extern void jobq_xact_claimed(const JobqSession *session,
							  const JobqSlotRef *ref);

/* slot: as it was marked; NULL = available, that is enough. */
extern void jobq_xact_marked(const JobqSession *session,
							 const JobqSlotRef *ref, TransactionId xid,
							 const JobqSlot *slot);

/*
 * How many running jobs of the queue are we ending? At commit their places are
 * free; what we take now counts only from then on.
 */
extern int64 jobq_xact_ending(int32 queue_id);

/* What was claimed under this lease is available again, as if not taken. */
extern void jobq_xact_unclaim(int64 lease);

/*
 * Jobs are to be let in, counted under this key; period 0 = no rate is. Then,
 * with nothing in between: n were; what was taken for them, at this time, is
 * given back if we abort.
 */
extern void jobq_xact_admits(const JobqSession *session, int32 queue_id,
							 const uint64 *key, int64 period);
extern void jobq_xact_admitted(int n, TimestampTz at);

/* The attempt that was the breaker's probe has ended. */
extern void jobq_xact_verdict(const JobqSession *session, int32 queue_id,
							  bool passed);

/* The slot marked last is settled under its lease. */
extern void jobq_xact_settles(void);

/* Has this transaction leased a job of the queue that it enqueued, or settled one? */
extern bool jobq_xact_worked_for(int32 queue_id);

/* Change what happens at commit to a slot we have marked. */
extern void jobq_xact_at_commit(const JobqSlotRef *ref, JobqAtCommit what,
								TimestampTz when);

/*
 * The lease was extended until `when`; claim_tid, if not NULL, is the claim
 * row that now holds the job's progress.
 */
extern void jobq_xact_extended(const JobqSlotRef *ref, TimestampTz when,
							   ItemPointer claim_tid);

/* The running job was carried to another ticket, with this claim row. */
extern void jobq_xact_carried(const JobqSlotRef *ref, const JobqTicket *to,
							  const ItemPointerData *claim_tid);

/* Undo the last change of that kind. */
extern void jobq_xact_revert(const JobqSlotRef *ref);

/* Is a slot we have marked going to end at commit (else: only extended)? */
extern bool jobq_xact_ends(const JobqSlotRef *ref);

/* The lease of a slot we have marked, as we have extended it. */
extern void jobq_xact_see_extended(const JobqSlotRef *ref, JobqLease *lease);

/* Have we tickets of this queue on disk only (see own.h)? */
extern bool jobq_xact_spilled(int32 queue_id);

/* We hold a queue's refill: the keeper is to know when we end. */
extern void jobq_xact_holds(const JobqSession *session);

/* A job without a slot has come to its end. */
extern void jobq_xact_ended(const JobqSession *session, int64 id);

extern void jobq_xact_count(const JobqSession *session, int32 queue_id,
							JobqCounter counter, int64 delta);

/*
 * An attempt has ended: completed or failed, and timed when that was its
 * worker's doing.
 */
extern void jobq_xact_count_attempt(const JobqSession *session,
									const JobqHeld *held,
									JobqCounter counter, bool timed);
extern void jobq_xact_shelved(const JobqSession *session, TimestampTz run_at);

/*
 * A started job of a group was put on the shelf, where it may keep its place;
 * and: one was taken off it, and ends or goes on the belt.
 */
extern void jobq_xact_keeps_place(const JobqSession *session,
								  const JobqTicket *t);
extern void jobq_xact_off_shelf(const JobqSession *session, int64 id);

/* ---- lazyclaim.c ---- */

/* This transaction may be lost in a crash: its commit waits for no disk. */
extern void jobq_commit_lazily(void);

/*
 * Claims may commit lazily (design: "Lazy claims"). Called around the writes
 * of one dequeue.
 */
extern void jobq_lazy_claim_begin(void);
extern void jobq_lazy_claim_end(bool durable);

#endif							/* JOBQ_XACT_H */
