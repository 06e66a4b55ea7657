/*
 * store.h: what is on disk: queue catalog, belt, shelf.
 *
 * Knows no shared memory. Checks no privileges except where it says so.
 */
#ifndef JOBQ_STORE_H
#define JOBQ_STORE_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "storage/lock.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "rules.h"

/* ---- catalog.c: relation OIDs of this installation ---- */

typedef enum JobqTable
{
	JOBQ_TABLE_QUEUE,
	JOBQ_TABLE_QUEUE_ACL,
	JOBQ_TABLE_EPOCH,
	JOBQ_TABLE_SHELF,
	JOBQ_TABLE_NUMBER_BLOCK,
	JOBQ_TABLE_INSTALLATION,
	JOBQ_TABLE_CLASS,
	JOBQ_TABLE_RESTORED,
	JOBQ_TABLE_UKEY,
	JOBQ_TABLE_QUEUE_GROUP,
	JOBQ_TABLE_AUDIT_ENTRY,
	JOBQ_TABLE_AUDIT_CHAIN,
	JOBQ_TABLE_AUDIT_MARK,
	JOBQ_TABLE_CRYPTO_KEY,
	JOBQ_TABLE_ACCESS_KEY,
	JOBQ_TABLE_COUNT
} JobqTable;

/* OID of a fixed table; ERROR when the extension is not installed. */
extern Oid	jobq_table_oid(JobqTable table);

/* The same, InvalidOid when the extension is not installed. */
extern Oid	jobq_table_oid_missing_ok(JobqTable table);

/* Owner of the extension's tables. */
extern Oid	jobq_extension_owner(void);

/*
 * First step of every entry point: AccessShareLock on jobq.queue to the end
 * of the transaction, so that DROP EXTENSION waits for all of us at one gate,
 * and a fresh queue cache. Returns the OID of jobq.queue, which names this
 * installation.
 */
extern Oid	jobq_enter(void);

/*
 * The same for what may be called through a view, which is locked already:
 * DROP EXTENSION may have passed the gate and wait for the view, so this gives
 * up after half a second rather than wait for it in turn. ERROR 55P03 then.
 */
extern Oid	jobq_enter_by_view(void);

/*
 * The same for what must neither wait nor fail: InvalidOid when the extension
 * is not installed, or is locked.
 */
extern Oid	jobq_try_enter(void);

/*
 * Grows whenever the catalog of queues may have changed. What was read from
 * it is good as long as this number, taken before reading, stays.
 */
extern uint64 jobq_catalog_changes(void);

/* The same of all relations: their columns, their indexes. */
extern uint64 jobq_relation_changes(void);

/* It has changed, though no message about it may have come yet. */
extern void jobq_queue_forget(void);

/* ---- queue.c: queues and their options ---- */

#define JOBQ_NAME_MAX			63	/* bytes of a queue's name */
#define JOBQ_KEY_MAX			255 /* bytes of a kind or key */
#define JOBQ_NOTIFY_PREFIX		"jobq." /* and the name: a channel */
#define JOBQ_NOTIFY_NAME_MAX	(JOBQ_NAME_MAX - 5)
#define JOBQ_CLASS_MAX			8	/* = JOBQ_MAX_CLASSES */
#define JOBQ_CLASS_DEFAULT		1	/* the retention class that never goes */

/* Bounds of options and of the arguments that replace them. */
#define JOBQ_LEASE_FOR_MIN		USECS_PER_SEC
#define JOBQ_LEASE_FOR_MAX		(7 * USECS_PER_DAY)
#define JOBQ_ATTEMPTS_MAX		1000000

typedef struct JobqBackoff
{
	int64		base;			/* us */
	double		factor;
	int64		cap;			/* us */
	double		jitter;			/* share of the delay, 0..1 */
} JobqBackoff;

/* In the order of the option's words. */
typedef enum JobqExpiredTo
{
	JOBQ_EXPIRED_DROP,
	JOBQ_EXPIRED_DEAD_LETTER
} JobqExpiredTo;

typedef enum JobqIsolation
{
	JOBQ_ISOLATION_NONE,
	JOBQ_ISOLATION_OWNER		/* jobs concern who enqueued or leased them */
} JobqIsolation;

/* Privileges on a queue, as stored in jobq.queue_acl. */
#define JOBQ_PRIV_ENQUEUE		1
#define JOBQ_PRIV_DEQUEUE		2
#define JOBQ_PRIV_READ			4
#define JOBQ_PRIV_MANAGE		8
#define JOBQ_PRIV_ALL			15
#define JOBQ_PRIV_OPEN			(JOBQ_PRIV_DEQUEUE | JOBQ_PRIV_READ)	/* any */

/* Who has stopped something, and when; at 0: nobody has. */
typedef struct JobqStop
{
	Oid			by;				/* InvalidOid = not known */
	TimestampTz at;
} JobqStop;

/* A private copy of a queue's settings; valid as long as its caller keeps it. */
typedef struct JobqQueue
{
	int32		queue_id;
	char		name[JOBQ_NAME_MAX + 1];
	Oid			owner;
	int32		class_id;
	bool		paused;
	bool		draining;		/* takes no new jobs */
	JobqStop	pause;			/* who paused it, and */
	JobqStop	drain;			/* who drains it */
	int			my_privileges;	/* of the current effective role, with those of
								 * the access key in use, JOBQ_PRIV_* */
	int64		lease_for;		/* us */
	int32		max_attempts;
	JobqBackoff backoff;
	char		dead_letter[JOBQ_NAME_MAX + 1]; /* empty = none */
	int64		retention;		/* us */
	int64		dead_retention; /* us */
	int64		ttl;			/* us, 0 = none */
	int8		expired_to;		/* JobqExpiredTo */
	int32		max_payload_bytes;
	int32		max_batch;
	int32		max_depth;		/* 0 = no limit */
	int32		max_json_depth;
	int32		max_json_keys;	/* 0 = no limit */
	int32		max_json_string;	/* characters, 0 = no limit */
	bool		has_kinds;		/* these three: see security/input.h */
	bool		has_schema;
	bool		has_validator;
	JobqEnqueueLimit enqueue_limit;
	bool		notify;
	bool		audit;			/* claims and settles, too */
	char		sign[JOBQ_NAME_MAX + 1];	/* key of deliveries; empty = none */
	char		seal[JOBQ_NAME_MAX + 1];	/* key of payloads; empty = none */
	int8		isolation;		/* JobqIsolation */
	JobqRules	rules;
} JobqQueue;

/* Look a queue up; false when there is none. No privilege is demanded. */
extern bool jobq_queue_by_name(const char *name, JobqQueue *queue);
extern bool jobq_queue_by_id(int32 queue_id, JobqQueue *queue);

/* The same; my_privileges are those of this role, without any key. */
extern bool jobq_queue_by_id_for(int32 queue_id, Oid role, JobqQueue *queue);

/* What its row has as options now, palloc'd; NULL when there is no row. */
extern Jsonb *jobq_queue_options(int32 queue_id);

/* All queues of this database by number, palloc'd; how many comes back. */
extern int	jobq_queue_list(JobqQueue **queues);

/*
 * Tell every backend, at commit, that the queue catalog has changed. Call it
 * before the change: then our own abort, too, forgets what we have seen.
 */
extern void jobq_queue_changed(void);

/*
 * Let the transaction change the queue catalog: one at a time, readers go on.
 * Look queues up again afterwards.
 */
extern void jobq_queue_lock(void);

/*
 * The same for one queue's settings, for changes that concern no other queue.
 * Take jobq_queue_lock() first where both are needed.
 */
extern void jobq_queue_lock_settings(int32 queue_id);

/* ---- options.c: the jsonb of a queue's options ---- */

/* What a queue without any options has. */
extern void jobq_options_defaults(JobqQueue *queue);

/*
 * Set what the object names (null: back to the default), leave the rest.
 * JQ007 for anything that is not a valid option.
 */
extern void jobq_options_apply(Jsonb *options, JobqQueue *queue);

/* JQ007 for options that contradict each other. */
extern void jobq_options_check(const JobqQueue *queue);

/* The same for what alter_group() takes. */
extern void jobq_group_options_apply(Jsonb *options, JobqGroupRules *rules);

/* ---- group.c: rows of jobq.queue_group ---- */

/*
 * A group's row, and who has set its paused_until and when; all zeroes if it
 * has none. With nothing to say it goes.
 */
extern void jobq_group_read(int32 queue_id, text *key, JobqGroupRules *rules,
							JobqStop *pause);
extern void jobq_group_write(int32 queue_id, text *key,
							 const JobqGroupRules *rules);

/* Columns from running_limit on. */
extern void jobq_group_of_tuple(HeapTuple tuple, TupleDesc desc, int column,
								JobqGroupRules *rules);

/* Inside SPI, as the owner: the queue goes. */
extern void jobq_group_delete_all(int32 queue_id);

/* ---- row layout shared by job_N and the shelf ---- */

typedef enum JobqJobAttr
{
	JOB_TICKET,
	JOB_ID,
	JOB_RUN_AT,
	JOB_QUEUE_ID,
	JOB_MAX_ATTEMPTS,
	JOB_ENQUEUED_BY,
	JOB_PRIORITY,
	JOB_PAYLOAD,				/* the last one that a plain job has */
	JOB_KIND,
	JOB_HEADERS,
	JOB_GROUP_KEY,
	JOB_UNIQUE_KEY,
	JOB_EXPIRES_AT,
	JOB_ENQUEUED_AT,			/* in job_N, NULL = run_at */
	JOB_ATTEMPT,				/* counted attempts so far; in job_N, NULL = 0 */
	JOB_RETRY_OF,
	JOB_LAST_ERROR,
	JOB_PROGRESS,
	JOB_ATTEMPTS,				/* earlier attempts, see attempts.c */
	JOB_SEALED,					/* the payload, encrypted; see seal.h */
	JOB_NATTS,
	SHELF_STATE = JOB_NATTS,
	SHELF_DIED_AT,
	SHELF_MOVED_TO,
	SHELF_RERUN_AS,
	SHELF_NATTS
} JobqJobAttr;

#define SHELF_SCHEDULED			's'
#define SHELF_RETRYABLE			'r'
#define SHELF_DEAD				'd'

/* A job as it is written to or read from the belt or the shelf. */
typedef struct JobqRow
{
	Datum		values[SHELF_NATTS];
	bool		nulls[SHELF_NATTS];
} JobqRow;

typedef enum JobqOutcomeAttr
{
	OUT_TICKET,
	OUT_LEASE,					/* NULL: ended without a lease */
	OUT_CLAIMED_AT,
	OUT_FINISHED_AT,
	OUT_QUEUE_ID,
	OUT_CLAIM_TID,				/* hint: where the claim row is */
	OUT_ENDED,
	OUT_ATTEMPT_OUTCOME,		/* NULL: no attempt ended here */
	OUT_RESULT,
	OUT_FINISHED_BY,			/* NULL: who holds the lease */
	OUT_NEXT,					/* ticket a moved one went on with; NULL: the
								 * shelf */
	OUT_MOVED_TO,				/* id of the copy in the dead-letter queue */
	OUT_HELD_UNTIL,				/* grace of a cancelled running job */
	OUT_WORKER,
	OUT_REASON,
	OUT_ERROR,
	OUT_NATTS
} JobqOutcomeAttr;

/* OUT_ENDED */
#define ENDED_COMPLETED			'c'
#define ENDED_CANCELLED			'x'
#define ENDED_DEAD				'd'
#define ENDED_EXPIRED			'e'
#define ENDED_MOVED				'm'

/* OUT_ATTEMPT_OUTCOME */
#define ATTEMPT_COMPLETED		'c'
#define ATTEMPT_FAILED			'f'
#define ATTEMPT_RELEASED		'r'
#define ATTEMPT_CANCELLED		'x'
#define ATTEMPT_LEASE_EXPIRED	'l'
#define ATTEMPT_ROLLED_BACK		'b'

typedef struct JobqOutcomeRow
{
	Datum		values[OUT_NATTS];
	bool		nulls[OUT_NATTS];
} JobqOutcomeRow;

typedef enum JobqClaimAttr
{
	CLAIM_LEASE,
	CLAIM_CLAIMED_AT,
	CLAIM_EXPIRES_AT,
	CLAIM_CLAIMED_BY,
	CLAIM_FLAG,
	CLAIM_TICKETS,				/* bytea, see tickets.c */
	CLAIM_WORKER,
	CLAIM_PROGRESS,
	CLAIM_NATTS
} JobqClaimAttr;

/* CLAIM_FLAG */
#define CLAIM_DEQUEUE			'd'
#define CLAIM_EXTEND			'e'
#define CLAIM_CARRY				'c'		/* as a dequeue, from an older epoch */
#define CLAIM_PROBE				'p'		/* as a dequeue, let through by a
										 * circuit breaker; also if carried */

/* ---- belt.c: epochs' tables ---- */

typedef enum JobqBeltKind
{
	BELT_JOB,
	BELT_CLAIM,
	BELT_OUTCOME
} JobqBeltKind;

/* Open a belt table; NULL when the epoch is dropped (all it held has ended). */
extern Relation jobq_belt_open(int32 epoch, JobqBeltKind kind, LOCKMODE lockmode);
extern Oid	jobq_belt_oid(int32 epoch, JobqBeltKind kind);	/* or InvalidOid */

/* ---- rows.c: rows without the executor ---- */

/*
 * Append rows to a table of ours (belt, shelf, keys) and its indexes, without the
 * executor. The caller holds RowExclusiveLock; locks stay to commit. tid may
 * be NULL. ERROR 23505 when a unique index objects.
 */
extern void jobq_insert(Relation rel, const Datum *values, const bool *nulls,
						ItemPointer tid);
extern void jobq_insert_many(Relation rel, const JobqRow *rows, int nrows,
							 ItemPointerData *tids);

/* ---- belt.c again ---- */

/*
 * Append rows to job_N; afterwards they are as they were. tids: where they
 * are, may be NULL.
 */
extern void jobq_belt_insert_jobs(Relation job, JobqRow *rows, int nrows,
								  ItemPointerData *tids);

/*
 * Put in what job_N leaves out of the columns up to JOB_ATTEMPT. The other
 * readers here have done so.
 */
extern void jobq_belt_fill_in(JobqRow *row);

/*
 * What reading many rows of one table keeps between them; all zero at first.
 * It must be closed before the table, and the memory context of the first
 * reading live until then.
 */
typedef struct JobqReader
{
	TupleTableSlot *slot;
	BlockNumber blocks;			/* the table has at least so many */
} JobqReader;

extern void jobq_reader_close(JobqReader *reader);

/*
 * Read the row of a ticket: first at the hint, then by the id index. True when
 * found (committed, or our own). Values live in the current memory context.
 */
extern bool jobq_belt_read_ticket(Relation job_rel, JobqReader *reader,
								  ItemPointer hint, int64 id, int64 ticket,
								  JobqRow *row);

/* All tickets of a job in one epoch, ascending; returns their number. */
extern int	jobq_belt_read_id(Relation job_rel, int64 id, JobqRow **rows);

/* Was the row of a ticket written by the present transaction? */
extern bool jobq_belt_is_own(Relation job_rel, int64 id, int64 ticket);

/* The outcome of a ticket, if a committed one (or our own) exists. */
extern bool jobq_belt_read_outcome(Relation outcome_rel, int64 ticket,
								   JobqOutcomeRow *row);

/* Read a claim row at a hint; false unless it is there and has this lease. */
extern bool jobq_belt_read_claim(Relation claim_rel, ItemPointer hint,
								 int64 lease, Datum *values, bool *nulls);

/* ---- numbers.c ---- */

/*
 * First number of a fresh block of ids and tickets; that it is taken is on
 * disk when this returns. May raise an error.
 */
extern int64 jobq_store_next_block(void);

/* ---- epoch.c ---- */

/* Newest open epoch of a class; 0 when there is none. */
extern int32 jobq_epoch_find_open(int32 class_id);

/* A row of jobq.epoch; a time that has not come is 0. */
typedef struct JobqEpoch
{
	int32		epoch;
	int32		class_id;
	TimestampTz opened_at;
	TimestampTz closed_at;		/* new tickets go elsewhere since then */
	TimestampTz sealed_at;		/* no writer of tickets was left then */
	TimestampTz drained_at;		/* all its tickets had ended then */
	TimestampTz last_finished_at;	/* the last of them; with drained_at */
} JobqEpoch;

/*
 * The epochs of this installation, ascending, palloc'd. One whose tables are
 * gone has just been dropped. The second form gives their numbers only, the
 * third those that may have tickets that have not ended.
 */
extern int	jobq_epoch_read(JobqEpoch **epochs);
extern int	jobq_epoch_list(int32 **epochs);
extern int	jobq_epoch_list_undrained(int32 **epochs);

/*
 * Make the tables of a new epoch and enter it. Users' transactions do so only
 * for the first epoch of a class. Whoever does has locked the numbers first,
 * to the end of the transaction; false: somebody else has them (nowait only).
 */
extern int32 jobq_epoch_create(int32 class_id);
extern bool jobq_epoch_lock_numbers(bool nowait);

/* ---- epochlife.c: the keeper's notes on an epoch ---- */

/* How many jobs, and failed attempts, of a queue ended in an epoch. */
typedef struct JobqTotal
{
	int32		queue_id;
	int64		completed;
	int64		failed;
	int64		dead;
	int64		cancelled;
	int64		expired;
} JobqTotal;

extern void jobq_epoch_set_closed(int32 epoch, TimestampTz when);
extern void jobq_epoch_set_sealed(int32 epoch, TimestampTz when);
extern void jobq_epoch_set_drained(int32 epoch, TimestampTz when,
								   TimestampTz last_finished,
								   const JobqTotal *totals, int ntotals);

/* Its tables go: take it off the list; its totals stay, as epoch 0. */
extern void jobq_epoch_forget(int32 epoch);

/* ---- epochdrop.c: the tables of an epoch as a whole ---- */

/* Is no transaction left, prepared or not, that writes tickets to it? */
extern bool jobq_epoch_no_writer(int32 epoch);

/*
 * Lock all its tables, with indexes and TOAST, against everybody, without
 * waiting; false: one is in use, or a pg_dump is at work. Then drop them.
 */
extern bool jobq_epoch_lock_all(int32 epoch);
extern void jobq_epoch_drop_tables(int32 epoch);

extern int64 jobq_epoch_size(int32 epoch);	/* bytes on disk */

/* ---- epochfreeze.c ---- */

/*
 * Is a table of it older, in transactions or multixacts, than half of what
 * makes autovacuum come by force?
 */
extern bool jobq_epoch_is_old(int32 epoch);

/*
 * Freeze those that are, as far as the xmin horizon lets it, skipping what is
 * locked. Takes transactions of its own, and its time.
 */
extern void jobq_epoch_freeze(int32 epoch);

/* ---- walk.c: reading a belt table in pieces ---- */

typedef void (*JobqRowVisitor) (TupleTableSlot *slot, void *state);

/*
 * Show the rows visible now, from block *next on, for about `us`; *next says
 * where to go on. False: that was the last of it. Nothing is missed that had
 * been committed when the walk came to its block.
 */
extern bool jobq_belt_walk(Relation rel, BlockNumber *next, int64 us,
						   JobqRowVisitor visit, void *state);

/* The same for one block. */
extern bool jobq_belt_walk_block(Relation rel, BlockNumber *next,
								 JobqRowVisitor visit, void *state);

/* About how many rows a table has, dead ones included; exact when small. */
extern int64 jobq_belt_estimate(Relation rel);

/* ---- class.c: retention classes ---- */

typedef struct JobqClass
{
	int32		class_id;
	int64		retention;		/* us */
} JobqClass;

/* All classes, palloc'd; the number comes back. */
extern int	jobq_class_read(JobqClass **classes);

/*
 * The class of a retention, made together with its first epoch when there is
 * none. JQ007 when there are too many. Under jobq_queue_lock().
 */
extern int32 jobq_class_get(int64 retention);
extern void jobq_class_forget(int32 class_id);

/*
 * Inside SPI, as the owner: who may do what with an epoch's tables, and that
 * they go with the extension. Both may be called again.
 */
extern void jobq_epoch_set_rights(int32 epoch);
extern void jobq_epoch_tie(int32 epoch);

/* The command that makes the trigger of a belt table; palloc'd. */
extern char *jobq_epoch_trigger(const char *table);

/* ---- copy.c, adopt.c: copies of a database ---- */

/*
 * Do the tables say that this database is a copy that has not been adopted?
 * A dump was restored into it, or it was made elsewhere.
 */
extern bool jobq_store_is_copy(void);

/*
 * Take over every epoch that is here, or raise an error when something of one
 * is missing; then this database is no copy any more. number_handed_out: a
 * number of this installation's own, 0 = none is known. As the owner.
 */
extern void jobq_store_adopt(int64 number_handed_out);

/* Do our own commands fire this trigger, rather than somebody's COPY? */
extern bool jobq_is_own_command(void);

/* ---- shelf.c ---- */

extern void jobq_shelf_insert(const JobqRow *row);

/*
 * Take a row off the shelf: read and delete it in this transaction. Waits for
 * another transaction that is changing it. False when it is not (any more)
 * there. With dead_too false, dead rows count as not there.
 */
extern bool jobq_shelf_take(int64 id, bool dead_too, JobqRow *row);

/* Read only; committed or our own. */
extern bool jobq_shelf_read(int64 id, JobqRow *row);

/*
 * The same, and which other transaction is about to take the row off the
 * shelf, or has put it there and is about to commit; Invalid: none.
 */
extern bool jobq_shelf_look(int64 id, JobqRow *row, TransactionId *busy);

/* The rows that open transactions have put there, see uncommitted.c. */
typedef void (*JobqUncommittedVisitor) (const JobqRow *row,
										TransactionId xmin, void *state);

extern void jobq_shelf_read_uncommitted(JobqUncommittedVisitor visit,
										void *state);

/* Has this transaction written the job's row? */
extern bool jobq_shelf_is_own(int64 id);

/* ---- uncommitted.c ---- */

/*
 * Show the rows that open transactions, subtransactions and prepared ones
 * among them, have added to a table of jobs. What a row points to goes with the
 * next one.
 */
extern void jobq_belt_read_uncommitted(Relation rel,
									   JobqUncommittedVisitor visit,
									   void *state);

/* ---- shelfdue.c ---- */

/* Waiting rows are taken in this order. */
typedef struct JobqShelfKey
{
	TimestampTz run_at;
	int64		id;
} JobqShelfKey;

typedef struct JobqShelfWalk
{
	JobqShelfKey mark;			/* where to begin; where to go on later */
	JobqShelfKey end;			/* where to stop; DT_NOEND = nowhere */
	JobqShelfKey first_busy;	/* first row passed over because another
								 * transaction is changing it; DT_NOEND = none */
	TimestampTz next;			/* nothing from the mark on is due before; not
								 * after now: there may be more; PG_INT64_MAX:
								 * nothing is there */
	bool		(*skip) (int64 id, bool started);	/* pass it over as if it
													 * were busy? */
} JobqShelfWalk;

/*
 * Keeper: take up to max scheduled and retrying rows with run_at <= now,
 * earliest first. Reads a bounded number of entries. Dead rows are stored with
 * run_at infinity, so that none is walked here.
 */
extern int	jobq_shelf_take_due(TimestampTz now, int max, JobqRow *rows,
								JobqShelfWalk *walk);

/* ---- schedule.c: rows of jobq.schedule; as the owner, by SPI ---- */

typedef struct JobqSchedule
{
	int32		schedule_id;
	char	   *name;
	Oid			owner;
	int32		queue_id;
	char	   *cron;
	char	   *timezone;
	const char *catch_up;		/* skip, one or all */
	int32		catch_up_max;
	bool		paused;
	TimestampTz last_tick;		/* all up to it have been dealt with */
	JobqRow		job;			/* kind, priority, max_attempts, group_key,
								 * headers and payload of its jobs */
} JobqSchedule;

/* What a round of ticks has come to. */
typedef struct JobqTicked
{
	TimestampTz last_tick;
	TimestampTz last_run;
	int64		last_job;		/* 0: none */
	int64		misses;
	TimestampTz last_miss;
	const char *reason;			/* of the last miss */
} JobqTicked;

/* All of that name, oldest first, palloc'd; the number comes back. */
extern int	jobq_schedule_named(const char *name, JobqSchedule **schedules);

/* Keeper: lock it; false when it is gone, or in somebody's hands. */
extern bool jobq_schedule_try_lock(int32 schedule_id, JobqSchedule *schedule);

/* Those that are not paused: id, cron, timezone and last_tick only. */
extern int	jobq_schedule_timers(JobqSchedule **schedules);

/* Such as: 2 schedules: "a", "b". As of now; NULL when there is none. */
extern char *jobq_schedules_of_queue(int32 queue_id);

/*
 * The same for those whose jobs have a payload, other than {}: the schedule
 * keeps it in clear.
 */
extern char *jobq_schedules_with_payload(int32 queue_id);
extern bool jobq_has_payload(const JobqRow *job);

/* Insert it, or replace the one of the same owner and name. */
extern void jobq_schedule_put(const JobqSchedule *schedule);

/* False: it is gone. */
extern bool jobq_schedule_pause(int32 schedule_id, Oid role);
extern bool jobq_schedule_resume(int32 schedule_id, TimestampTz now);
extern bool jobq_schedule_delete(int32 schedule_id);

extern bool jobq_schedule_delete_of_queue(int32 queue_id);
extern void jobq_schedule_ticked(int32 schedule_id, const JobqTicked *ticked);

/* ---- tickets.c: ascending ticket lists as compact bytea ---- */

extern bytea *jobq_tickets_pack(const int64 *tickets, int ntickets);	/* ascending */
extern int	jobq_tickets_unpack(bytea *packed, int64 **tickets);

/* ---- attempts.c: the list of earlier attempts kept in a job's row ---- */

typedef struct JobqAttempt
{
	int32		attempt;
	int64		lease;			/* 0 = none */
	char	   *worker;			/* NULL = none */
	TimestampTz started_at;
	TimestampTz finished_at;
	char		outcome;		/* ATTEMPT_* */
	char	   *error;			/* NULL = none */
} JobqAttempt;

/* The list with one more attempt: the last 100 stay, old errors are cut. */
extern Jsonb *jobq_attempts_add(Jsonb *list, const JobqAttempt *attempt);
extern int	jobq_attempts_unpack(Jsonb *list, JobqAttempt **attempts);

#endif							/* JOBQ_STORE_H */
