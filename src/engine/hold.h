/*
 * hold.h: taking a job into our hands, whatever its state. Private to
 * src/engine.
 */
#ifndef JOBQ_HOLD_H
#define JOBQ_HOLD_H

#include "engine/engine.h"

typedef enum JobqHoldResult
{
	HOLD_OK,
	HOLD_NO_SLOT,				/* shelf, final, spilled or unknown */
	HOLD_BUSY,					/* another transaction has it (nowait only) */
	HOLD_GRACE,					/* cancelled, waits for its worker */
	HOLD_MINE					/* this transaction ends it already */
} JobqHoldResult;

/*
 * Mark a job that is available, running or rolled back. With nowait the call
 * never waits for another transaction.
 */
extern JobqHoldResult jobq_hold_any(const JobqSession *session, int64 id,
									bool nowait, JobqHeld *held);

/*
 * The same for an available ticket that has no slot; with many, for one of
 * many. False: look again from the start.
 */
extern bool jobq_hold_spilled(const JobqSession *session, const JobqTicket *t,
							  bool many, JobqHeld *held);

/* Put a held job back as it was; nothing has been written for it. */
extern void jobq_let_go(const JobqSession *session, JobqHeld *held);

/* The worker of a job in grace has learnt it: its place is free. */
extern void jobq_give_up_grace(const JobqSession *session, int64 id,
							   int64 lease);

/*
 * Wait for who has marked a slot. Where that was a subtransaction, its lock is
 * gone while the end of the commit has still to take the mark off.
 */
extern void jobq_await_holder(TransactionId busy);

/* An outcome has been written: an own job ends now, a slot at commit. */
extern void jobq_end_held(const JobqSession *session, JobqHeld *held);

#endif							/* JOBQ_HOLD_H */
