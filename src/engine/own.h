/*
 * own.h: the uncommitted jobs of the present transaction, by their numbers in
 * a list of its own. Private to src/engine.
 */
#ifndef JOBQ_OWN_H
#define JOBQ_OWN_H

#include "engine/engine.h"

/* Beyond this many, tickets of a transaction are loaded from disk later. */
#define JOBQ_OWN_MAX		10000

typedef enum JobqOwnState
{
	OWN_READY,
	OWN_RUNNING,
	OWN_ENDED
} JobqOwnState;

/* A ticket that this transaction has written. */
typedef struct JobqOwnJob
{
	JobqOwnState state;
	JobqTicket	t;
	JobqLease	l;				/* when running */
	int64		refused_for;	/* lease for which its group had no place */
	bool		is_new;			/* the job, not only its ticket */
} JobqOwnJob;

/* A new ticket: dispatched once we commit, and to ourselves at once. */
extern void jobq_own_add(const JobqSession *session, const JobqQueue *queue,
						 const JobqTicket *t, bool is_new);

/*
 * The first in order that has not expired, nor was refused a place in its
 * group for this lease (0: whatever), or -1.
 */
extern int	jobq_own_first(const JobqQueue *queue, int64 lease);
extern int	jobq_own_find(int64 id);	/* not ended, or -1 */
extern JobqOwnJob *jobq_own(int own);

/* The number the next one will have. */
extern int	jobq_own_next(void);

/* At commit: is one of them, from this number on, of this id and not ended? */
extern bool jobq_own_is_published(int own, int64 id);

/* placed: it has taken a place in its group. */
extern void jobq_own_claim(const JobqSession *session, int own,
						   const JobqLease *lease, bool placed);
extern void jobq_own_end(int own);
extern void jobq_own_extend(int own, TimestampTz expires_at,
							const ItemPointerData *claim_tid);

#endif							/* JOBQ_OWN_H */
