/*
 * engine.h: the rules of the queue: what a transaction publishes, claims and
 * ends, and what the keeper does.
 *
 * Sits between the tables (store) and shared memory (dispatch). Privileges
 * are checked by src/api, except where only the job tells its queue: settling
 * (hold.c), redrive (rerun.c) and looking (look.c); and those of a schedule's
 * owner by cron.c.
 */
#ifndef JOBQ_ENGINE_H
#define JOBQ_ENGINE_H

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "pgtime.h"

#include "compat.h"
#include "dispatch/audit.h"
#include "dispatch/dispatch.h"
#include "engine/cronexpr.h"
#include "store/store.h"

/* Header of a copy in a dead-letter queue: where it came from. */
#define JOBQ_DEAD_LETTER_KEY	"dead_letter"

/* ---- clock ---- */

/* The one clock of leases, delays and timers. */
extern TimestampTz jobq_now(void);

/* ---- session.c: what every entry point starts with ---- */

typedef struct JobqSession
{
	JobqDb	   *db;
	uint32		gen;
} JobqSession;

/*
 * Gate (jobq_enter) and this database's entry. For functions that write:
 * refuses read-only transactions, recovery and parallel mode, naming `what`,
 * such as "jobq.enqueue()".
 */
extern void jobq_begin_write(const char *what, JobqSession *session);
extern void jobq_begin_read(JobqSession *session);

/* Wait until the keeper has recovered; JQ009 after timeout_ms. */
extern void jobq_await_ready(const JobqSession *session, int timeout_ms);

/*
 * Sleep about 2 ms while somebody else works; false once deadline has passed.
 */
extern bool jobq_wait_a_moment(TimestampTz deadline);
JOBQ_NORETURN extern void jobq_raise_not_ready(void);	/* JQ009 */

/*
 * The same for whatever ends, moves or extends jobs; JQ009 also in a copy
 * that has not been adopted.
 */
extern void jobq_await_settle(const JobqSession *session);
JOBQ_NORETURN extern void jobq_raise_copy(void);	/* the latter */

/* The queue's part; JQ009 when there is no room for it. */
extern JobqPart *jobq_require_part(const JobqSession *session,
								   const JobqQueue *queue);

/* A new lease number; waits for the keeper when the durable mark is near. */
extern int64 jobq_take_lease(const JobqSession *session, TimestampTz now);

#define JOBQ_DEQUEUE_WAIT_MS	5000
#define JOBQ_SETTLE_WAIT_MS		10000

/* ---- xactend.c ---- */

extern void jobq_register_xact_callbacks(void);

/* ---- xact.c: what a transaction has done, published at its end ---- */

/* This transaction does what PREPARE TRANSACTION must refuse. */
extern void jobq_xact_steered(const JobqSession *session);

/* A job has died; its row on the shelf stays until then. */
extern void jobq_xact_died(const JobqSession *session, TimestampTz until);

/* The keeper is to look at the epochs and their classes after the commit. */
extern void jobq_xact_epoch_news(const JobqSession *session);

/* At commit the queue's jobs go by its option aging. */
extern void jobq_xact_aging(const JobqSession *session, int32 queue_id,
							int64 aging);
/* The keeper is to read the schedules again after the commit. */
extern void jobq_xact_cron_news(const JobqSession *session);
/* alter_group() has set these rules. */
extern void jobq_xact_group_altered(const JobqSession *session, int32 queue_id,
									text *key, const JobqGroupRules *rules);
/* After the commit those who wait for the queue's jobs look again. */
extern void jobq_xact_queue_changed(const JobqSession *session,
									int32 queue_id);

/*
 * An entry of the audit log was written. undone, if not NULL, is what is to be
 * written even if we abort; it lives as long as the transaction.
 */
extern void jobq_xact_audited(const JobqSession *session, int64 entry,
							  const JobqRefusal *undone);

/* At commit the queue's part in memory goes (its jobs are gone already). */
extern void jobq_xact_queue_dropped(const JobqSession *session,
									int32 queue_id);

/* ---- backoff.c ---- */

/* Delay in us before the run after `attempt` counted attempts. */
extern int64 jobq_backoff_delay(const JobqBackoff *backoff, int32 attempt);

/* ---- enqueue.c ---- */

/*
 * Put new jobs into a queue: values from JOB_RUN_AT on are set, ticket, id
 * and queue are not. run_at after `now` goes to the shelf, else to the belt.
 */
extern int64 jobq_enqueue_row(const JobqSession *session,
							  const JobqQueue *queue, JobqRow *row,
							  TimestampTz now);
extern void jobq_enqueue_rows(const JobqSession *session,
							  const JobqQueue *queue, JobqRow *rows, int nrows,
							  TimestampTz now, int64 *ids);

/*
 * JQ003 if the queue is draining, unless this session or transaction works for
 * it. For what is enqueued by a call, before all else.
 */
extern void jobq_refuse_draining(const JobqSession *session,
								 const JobqQueue *queue);
/* ---- unique.c: jobs with a unique key ---- */

/* In the order of their words. */
typedef enum JobqOnConflict
{
	JOBQ_ON_CONFLICT_IGNORE,
	JOBQ_ON_CONFLICT_ERROR,
	JOBQ_ON_CONFLICT_REPLACE,
	JOBQ_ON_CONFLICT_DEBOUNCE
} JobqOnConflict;

typedef enum JobqUniqueWhile
{
	JOBQ_UNIQUE_LIVE,
	JOBQ_UNIQUE_WAITING
} JobqUniqueWhile;

typedef struct JobqUnique
{
	JobqOnConflict on_conflict;
	JobqUniqueWhile unique_while;
	int64		unique_for;		/* us, 0 = no longer than that */
	int64		debounce_max;	/* us, JOBQ_NEVER = no bound */
	bool		set_run_at;		/* the caller has named a time */
	bool		default_expiry; /* but no expires_at */
} JobqUnique;

/* What has become of the call, in the order of its words. */
typedef enum JobqEnqueued
{
	JOBQ_INSERTED,
	JOBQ_EXISTING,
	JOBQ_REPLACED,
	JOBQ_DEBOUNCED
} JobqEnqueued;

/*
 * The same as jobq_enqueue_row for a row with a unique key; a new job gets this
 * id, or 0: the next one. The id that comes back is that of
 * the new job, or of the one that holds the key. Waits for whoever is taking
 * the key or ending its holder. Whoever takes many keys in one transaction
 * takes them in the order of queue and key. JQ008 as on_conflict says, 42501
 * where the caller may see the holder but not change it.
 */
extern int64 jobq_enqueue_unique(const JobqSession *session,
								 const JobqQueue *queue, JobqRow *row,
								 int64 id, TimestampTz now,
								 const JobqUnique *unique,
								 JobqEnqueued *outcome);

/* ---- enqueue.c again ---- */

/* Jobs of any queues; what became of each comes back in it. */
typedef struct JobqNewJob
{
	const JobqQueue *queue;		/* one pointer per queue */
	JobqRow		row;
	const JobqUnique *unique;	/* NULL = it has no unique key */
	int64		id;
	JobqEnqueued outcome;
} JobqNewJob;

extern void jobq_enqueue_mixed(const JobqSession *session, JobqNewJob *jobs,
							   int njobs, TimestampTz now);

/* expires_at as the queue's ttl makes it of run_at; NULL without one. */
extern void jobq_set_default_expiry(const JobqQueue *queue, JobqRow *row);

/* Wait for transactions that have enqueued there and keep new ones out. */
extern void jobq_lock_queue_for_drop(const JobqQueue *queue);

/* ---- limit.c ---- */

/*
 * Let rows that are to be enqueued in, or raise JQ005 or JQ006: all of them or
 * none. Where there is a limit, they are enqueued at the time it says. For
 * what is enqueued by a call, and is new.
 */
extern void jobq_admit(const JobqSession *session, const JobqQueue *queue,
					   JobqRow *rows, int nrows);

/* ---- limitload.c ---- */

/* For how long, in us, must be known what has happened in a queue? */
extern int64 jobq_limits_period(const JobqQueue *queue);

/* ---- claim.c ---- */


typedef struct JobqDelivery
{
	JobqRow		row;
	const JobqQueue *queue;
	int64		lease;
	TimestampTz claimed_at;
	TimestampTz expires_at;
} JobqDelivery;

/* A delivery that cannot be signed is none: JQ013, before anything is claimed. */
extern void jobq_require_signing_key(const JobqQueue *queue);

/*
 * Lease up to max available jobs of a queue under one lease number (0: take
 * a new one, which comes back). lease_for 0 = the queue's. Appends
 * JobqDelivery pointers. *retry_at is as in JobqTake.
 */
extern List *jobq_claim(const JobqSession *session, const JobqQueue *queue,
						int64 max, int64 lease_for, const char *worker,
						int64 *lease, List *deliveries, TimestampTz *retry_at);

/* Is there a job that could be claimed now? *retry_at is as in JobqTake. */
extern bool jobq_has_jobs(const JobqSession *session, const JobqQueue *queue,
						  TimestampTz *retry_at);

/* The next jobs in order, not leased. */
extern List *jobq_peek(const JobqSession *session, const JobqQueue *queue,
					   int64 max);

/* ---- settle.c ---- */

typedef enum JobqLost
{
	JOBQ_HELD,					/* not lost */
	JOBQ_LOST_LEASE,			/* JQ001 */
	JOBQ_LOST_CANCELLED,		/* JQ014 */
	JOBQ_LOST_SETTLED,			/* JQ015 */
	JOBQ_LOST_NO_JOB			/* JQ020 */
} JobqLost;

/* A job this transaction has in its hands, to end or to move. */
typedef struct JobqHeld
{
	int			own;			/* index among our own uncommitted, or -1 */
	JobqSlotRef ref;			/* of the slot, when own is -1 */
	TransactionId xid;			/* that marked it */
	uint8		state;			/* SLOT_READY, SLOT_RUNNING, SLOT_ROLLED_BACK */
	uint8		flags;
	bool		claim_is_ours;	/* its claim is of this transaction */
	bool		retaken;		/* it was extended in this transaction before */
	JobqTicket	t;
	JobqLease	l;				/* lease 0 unless running or rolled back */
} JobqHeld;

/*
 * Take the job into our hands if it runs under this lease; waits for another
 * transaction that is ending it. Demands the dequeue privilege on its queue,
 * whose settings come back; those that came back for another job of the call
 * are good for its queue, otherwise queue_id is to be 0. Raises no lost lease,
 * but says which.
 */
extern JobqLost jobq_hold_leased(const JobqSession *session, int64 id,
								 int64 lease, JobqHeld *held,
								 JobqQueue *queue);
JOBQ_NORETURN extern void jobq_raise_lost(JobqLost lost, int64 id,
										  int64 lease);

extern void jobq_complete(const JobqSession *session, JobqHeld *held,
						  int nheld, Datum result, bool result_null);

/* What becomes of a job that is given back, failed or not. */
typedef enum JobqGivenBack
{
	JOBQ_BACK_WAITING,			/* it will run again */
	JOBQ_BACK_DEAD,
	JOBQ_BACK_SUPERSEDED,		/* cancelled: its unique key is another's now */
	JOBQ_BACK_IN_DOUBT			/* nothing was done, as somebody is taking its
								 * key: let it go, try again (keeper only) */
} JobqGivenBack;

extern JobqGivenBack jobq_fail(const JobqSession *session, JobqHeld *held,
							   const JobqQueue *queue, char attempt_outcome,
							   const char *error, bool retry, int64 retry_in);
extern JobqGivenBack jobq_release(const JobqSession *session, JobqHeld *held,
								  const JobqQueue *queue, int64 delay);

/* lease_for 0 = as taken. held[].l.expires_at is the new end. */
extern void jobq_extend(const JobqSession *session, JobqHeld *held, int nheld,
						int64 lease_for, Datum progress, bool progress_null);

/* ---- wait.c ---- */

/* A queue to wait for, as the last attempt has found it. */
typedef struct JobqWaitPlace
{
	uint32		gen;
	int32		queue_id;
	JobqWaitKind kind;
	TimestampTz retry_at;		/* as in JobqTake */
} JobqWaitPlace;

typedef struct JobqWaiting JobqWaiting;

/*
 * Something to be tried until it succeeds. An attempt opens a session, checks
 * privileges and says with jobq_wait_at() or jobq_wait_at_job() what it would
 * wait for; there may be hours and changes of any kind between two of them.
 * Each has a memory context of its own; the last one's stays.
 */
struct JobqWaiting
{
	bool		(*attempt) (JobqWaiting *wait);
	void	   *state;
	TimestampTz deadline;		/* 0 = one attempt */
	bool		in_call;		/* let go of transaction and snapshot */
	bool		only_looks;		/* our client will use what we have seen */
	const char *wait_event;

	JobqDb	   *db;
	int64		job;			/* 0 = none */
	int			nplaces;
	JobqWaitPlace places[JOBQ_WAIT_QUEUES];
};

/* Did an attempt succeed before the deadline? */
extern bool jobq_wait(JobqWaiting *wait);
extern void jobq_wait_at(JobqWaiting *wait, const JobqSession *session,
						 const JobqQueue *queue, JobqWaitKind kind,
						 TimestampTz retry_at);
extern void jobq_wait_at_job(JobqWaiting *wait, const JobqSession *session,
							 int64 id);

/*
 * A procedure that waits: 25001 where it cannot commit, then commits. SPI is
 * connected until jobq_call_end(); the memory context is still the caller's.
 */
extern void jobq_call_begin(FunctionCallInfo fcinfo, const char *what);
extern void jobq_call_end(void);

/* Has this transaction written the job's present place? */
extern bool jobq_is_uncommitted(int64 id);

/* ---- notify.c ---- */

/*
 * Jobs of the queue can be taken once we have committed: tell those who LISTEN
 * if the queue wants it.
 */
extern void jobq_notify(const JobqQueue *queue);

/* ---- steer.c ---- */

typedef enum JobqSteered
{
	JOBQ_STEER_DONE,
	JOBQ_STEER_FINAL,			/* it has ended already */
	JOBQ_STEER_RUNNING,			/* not possible while it runs */
	JOBQ_STEER_NO_JOB
} JobqSteered;

/*
 * Cancel a job. grace in us: a running one keeps its place until its worker
 * has learnt it or that time is over; JOBQ_ONLY_WAITING: leave it if it runs.
 */
#define JOBQ_ONLY_WAITING	(-1)

extern JobqSteered jobq_cancel(const JobqSession *session, int64 id,
							   const char *reason, int64 grace);
extern JobqSteered jobq_reschedule(const JobqSession *session, int64 id,
								   TimestampTz run_at, bool set_priority,
								   int16 priority);

/*
 * Queue and enqueuer of a job in whatever state, for privilege checks; false
 * when there is no such job.
 */
extern bool jobq_job_owner(const JobqSession *session, int64 id,
						   int32 *queue_id, Oid *enqueued_by);

/* States, for jobq_purge. */
#define JOBQ_PURGE_SCHEDULED	1
#define JOBQ_PURGE_AVAILABLE	2
#define JOBQ_PURGE_BLOCKED		4
#define JOBQ_PURGE_RETRYABLE	8
#define JOBQ_PURGE_RUNNING		16

/* Cancel all jobs of a queue in these states; returns their number. */
extern int64 jobq_purge(const JobqSession *session, const JobqQueue *queue,
						int states);
extern int64 jobq_count_live(const JobqSession *session, int32 queue_id);

/* ---- reseal.c ---- */

/* Seal what waits in the queue with the newest version of its key; how many. */
extern int64 jobq_reseal(const JobqSession *session, const JobqQueue *queue);
/* ---- visible.c ---- */

/* Has the current role the privileges of this one, which may be nobody? */
extern bool jobq_acts_for(Oid role);

/*
 * May the current role see the job: all of its queue, or this one, which it
 * has enqueued, runs under a lease, or has ended under one?
 */
extern bool jobq_may_see_job(const JobqSession *session,
							 const JobqQueue *queue, int64 id,
							 Oid enqueued_by);

/*
 * In a queue that isolates roles: may this one settle the job under this
 * lease, for it has taken the lease, enqueued the job, or manages the queue?
 */
extern bool jobq_may_settle(const JobqSession *session,
							const JobqQueue *queue, int64 id, int64 lease);

/* ---- rerun.c ---- */

/* A new job that repeats a final one; its id. */
extern int64 jobq_retry(const JobqSession *session, int64 id);

typedef struct JobqRedrive
{
	const JobqQueue *from;
	const JobqQueue *to;		/* NULL = where each came from */
	int64		max;
	const char *kind;			/* NULL = all */
	TimestampTz died_after;		/* DT_NOBEGIN = all */
} JobqRedrive;

extern int64 jobq_redrive(const JobqSession *session, const JobqRedrive *what);

/* ---- cron.c: schedules ---- */

/* Header of a schedule's jobs: its name and the tick. */
#define JOBQ_SCHEDULE_KEY	"schedule"

/* A time zone by its IANA name, in any case; NULL: there is none. */
extern pg_tz *jobq_cron_zone(const char *name);

/* The first tick later than `after`; DT_NOEND: none. */
extern TimestampTz jobq_cron_tick(const JobqCron *cron, pg_tz *zone,
								  TimestampTz after);

/* The same for what a row says; DT_NOEND also if that is not understood. */
extern TimestampTz jobq_schedule_next(const char *cron, const char *timezone,
									  TimestampTz after);

/*
 * Make it, or replace the one of the same name and owner: its ticks are those
 * from now on, or go on where they were if they are the same. All but id and
 * last_tick are set.
 */
extern void jobq_schedule_make(const JobqSession *session,
							   JobqSchedule *schedule,
							   const JobqQueue *queue);

/*
 * Enqueue a job of the schedule for its owner, who must be allowed to, with
 * this run_at; its id.
 */
extern int64 jobq_schedule_enqueue(const JobqSession *session,
								   const JobqSchedule *schedule,
								   TimestampTz tick, TimestampTz now);

/* ---- copy.c ---- */

/*
 * Take over the jobs of a copy, at commit. Keeps everybody else out of the
 * queues until then. False: this is no copy.
 */
extern bool jobq_adopt(void);

/* ---- keeper's work; each opens and commits its own transactions ---- */

/*
 * Load shared memory from the tables; leaves the database READY. False:
 * somebody has the extension locked, try again from the beginning.
 */
extern bool jobq_recover(JobqDb *db, uint32 gen);

/*
 * Everything that is due: expired leases, rolled-back claims, start records,
 * due jobs on the shelf, ticks of schedules, reservations, refills, prepared
 * transactions. Bounded work per call. A part that has failed is put off,
 * unless asked_for, and the others go on. False when not all was done. *next:
 * when to call again (JOBQ_NEVER: when woken).
 */
extern bool jobq_tend(JobqDb *db, uint32 gen, bool asked_for,
					  TimestampTz *next);

/* The server is stopped: save what rate_limit_take has let through. */
extern void jobq_save_rates(JobqDb *db, uint32 gen);

/*
 * Told to go: write down what memory alone has counted, as far as that takes
 * no longer than a moment.
 */
extern void jobq_save_meters(JobqDb *db, uint32 gen);

/*
 * At the start of a worker's PG_CATCH: report the error to the log, if wanted,
 * and leave the transaction.
 */
extern void jobq_absorb_error(bool report);

/* Is this process a keeper? It never waits for anybody's lock. */
extern bool jobq_in_keeper;

/*
 * Begin a keeper transaction: snapshot pushed and the gate taken without
 * waiting. False (and no transaction) when the extension is gone, is being
 * dropped, or is another installation than `install`.
 */
extern bool jobq_keeper_begin(Oid install);
extern void jobq_keeper_commit(void);
extern void jobq_keeper_abort(void);

#endif							/* JOBQ_ENGINE_H */
