/*
 * look.h: jobs and attempts as rows, as far as the current role may see them.
 * Not for parallel mode. Changes nothing.
 */
#ifndef JOBQ_LOOK_H
#define JOBQ_LOOK_H

#include "utils/hsearch.h"
#include "utils/tuplestore.h"

#include "engine/belts.h"
#include "security/security.h"

typedef enum JobqLookWhat
{
	LOOK_LIVE,
	LOOK_FINAL,					/* dead ones included */
	LOOK_DEAD,					/* those that were not run again */
	LOOK_ANY					/* live and final */
} JobqLookWhat;

/* Rows of type jobq.job_info or job_row, as desc is; id 0 = all jobs. */
extern void jobq_show_jobs(const JobqSession *session, JobqLookWhat what,
						   int64 id, Tuplestorestate *store, TupleDesc desc);

/* Rows as jobq.attempts() gives them, oldest first. */
extern void jobq_show_attempts(const JobqSession *session, int64 id,
							   Tuplestorestate *store, TupleDesc desc);

/* Rows of view groups. */
extern void jobq_show_groups(const JobqSession *session,
							 Tuplestorestate *store, TupleDesc desc);

/* ---- look_jobs.c and look_groups.c, for each other ---- */

struct JobqLook;

/* Go through all live jobs; where groups are counted, those that have one. */
extern void jobq_look_live(struct JobqLook *look);
extern void jobq_look_count(struct JobqLook *look, int32 queue_id,
							Datum group_key, const char *state,
							TimestampTz run_at);

/* ---- look.c: for those above ---- */

typedef struct JobqLookQueue
{
	int32		queue_id;		/* hash key */
	bool		readable;		/* all its jobs */
	bool		leasable;		/* the caller may have leased some */
	bool		opens;			/* what is sealed in it, too */
	bool		own_jobs;		/* those the caller has enqueued */
	Datum		name;
} JobqLookQueue;

typedef struct JobqLookRole
{
	Oid			role;			/* hash key */
	bool		mine;			/* the caller has its privileges */
	Datum		name;
} JobqLookRole;

typedef struct JobqLook
{
	JobqSession session;
	Oid			caller;			/* before the switch to the owner */
	HTAB	   *queues;
	HTAB	   *roles;
	MemoryContext context;		/* lives as long as the look */
	MemoryContext scratch;		/* reset after each fetch */
	JobqOwnerContext owner;
	int64		id;				/* 0 = all jobs */
	Tuplestorestate *store;
	TupleDesc	desc;
	bool		all;			/* of all queues, for groups */
	HTAB	   *groups;			/* what is counted instead of shown; NULL */
	Datum		traceparent;	/* of the job, for attempts */
	bool		no_traceparent;
} JobqLook;

/* Who holds a ticket that has not ended. */
typedef struct JobqHolder
{
	bool		rolled_back;	/* the claim was; the keeper will move it */
	JobqLease	l;
} JobqHolder;

typedef enum JobqHeldBy
{
	HOLDER_WORKER,
	HOLDER_NONE,
	HOLDER_UNKNOWN				/* not in memory */
} JobqHeldBy;

/*
 * What is visible to the current role, now. Between begin and end SPI is
 * connected, the owner is the current role and a fresh snapshot is active.
 */
extern void jobq_look_begin(JobqLook *look, const JobqSession *session,
							int64 id, Tuplestorestate *store, TupleDesc desc);
extern void jobq_look_end(JobqLook *look);

/* Queue and enqueuer of a job; false when the queue is gone. */
extern bool jobq_look_up(JobqLook *look, int32 queue_id, Oid enqueued_by,
						 JobqLookQueue **queue, JobqLookRole **role);

/* May the caller see the job, even if it had nothing to do with its lease? */
extern bool jobq_look_visible(const JobqLook *look,
							  const JobqLookQueue *queue,
							  const JobqLookRole *role);

/* Is it the caller's, who took its lease? */
extern bool jobq_look_leased(JobqLook *look, const JobqLookQueue *queue,
							 Oid lessee);
extern bool jobq_look_open_epoch(JobqBelts *belts, int32 epoch);
extern JobqHeldBy jobq_look_holder(JobqLook *look, int64 id, int64 ticket,
								   JobqHolder *holder);
extern void jobq_look_await_leases(const JobqSession *session);

static inline void
jobq_look_set(Datum *values, bool *nulls, int attr, Datum value)
{
	values[attr] = value;
	nulls[attr] = false;
}

#endif							/* JOBQ_LOOK_H */
