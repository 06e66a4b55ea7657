/*
 * dispatch.h: who goes next, in shared memory.
 *
 * A cache of what the tables say: slots (one per job that is available or
 * running), per queue a tree of the available ones and one of the leases,
 * counters, and one entry per database. Knows no table. Functions that can
 * raise an error say so; all the others may be called in commit and abort
 * callbacks.
 *
 * Lock order: a hash lock or that of the tallies, then a queue's lock; at most
 * one of each. Nothing sleeps, allocates or throws while holding one.
 */
#ifndef JOBQ_DISPATCH_H
#define JOBQ_DISPATCH_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/itemptr.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "dispatch/group.h"
#include "dispatch/key.h"
#include "dispatch/limit.h"
#include "dispatch/tree.h"
#include "dispatch/wait.h"
#include "rules.h"

#define JOBQ_CHUNK				64	/* slots handled per lock hold */
#define JOBQ_MAX_CLASSES		8
#define JOBQ_WORKER_MAX			63	/* bytes of a worker's name kept */
#define JOBQ_NUMBER_BLOCK		8192	/* = INCREMENT BY of jobq.number_block */
#define JOBQ_MAX_PREPARED		64	/* prepared enqueues watched per database */
#define JOBQ_NEVER				PG_INT64_MAX	/* a timer that is not set */

/* ---- databases ---- */

typedef enum JobqDbState
{
	JOBQ_DB_NEW,				/* nothing loaded */
	JOBQ_DB_RECOVERING,
	JOBQ_DB_READY				/* dequeue and settle are open */
} JobqDbState;

/*
 * A prepared transaction that has enqueued: what is on disk only once it has
 * committed. unknown: it may be more than that, or all. Until it has ended, so
 * many of its jobs are among those that limits.reserved counts.
 */
#define JOBQ_PREPARED_QUEUES	8

typedef struct JobqPrepared
{
	TransactionId xid;			/* Invalid = free entry */
	bool		unknown;
	int			nqueues;
	int32		queue_id[JOBQ_PREPARED_QUEUES];
	JobqKey		first[JOBQ_PREPARED_QUEUES];	/* as if without aging */
	int64		n[JOBQ_PREPARED_QUEUES];
	int64		scheduled[JOBQ_PREPARED_QUEUES];	/* on the shelf */
	int64		reserved[JOBQ_PREPARED_QUEUES];
	TimestampTz shelf_due;		/* the first of those; JOBQ_NEVER = none */
} JobqPrepared;

/*
 * One database that has the extension. Fields are read and written under
 * mutex, except where noted.
 */
typedef struct JobqDb
{
	slock_t		mutex;

	/* identity; changes only under control->lock exclusive and mutex */
	Oid			dbid;			/* InvalidOid = free entry */
	Oid			install;		/* OID of jobq.queue: which CREATE EXTENSION */
	uint32		gen;			/* of this reset, never used again in the
								 * cluster; slots of others are dead */
	JobqDbState state;

	/* numbers: ids and tickets in [number_next, number_limit) are ours */
	int64		number_next;
	int64		number_limit;
	int64		spare_start;	/* a block reserved ahead; 0 = none */
	int64		lease_last;		/* last lease handed out */
	int64		lease_limit;	/* leases must stay below */
	bool		lease_wanted;	/* keeper: raise lease_limit */

	/* epochs new tickets go to, by class; 0 = not known, a hint */
	int32		open_epoch[JOBQ_MAX_CLASSES + 1];

	/* keeper */
	int			keeper_proc;	/* pgprocno, -1 = none runs */
	pid_t		keeper_pid;
	TimestampTz keeper_wake_at; /* when it wakes up by itself; JOBQ_NEVER
								 * while it looks at what is due, so that
								 * whoever adds something then wakes it */
	TimestampTz shelf_next;		/* earliest run_at on the shelf */
	TimestampTz careful_until;	/* until then claims go through the keeper */
	bool		lost_leases;	/* a running ticket found no slot: keeper, load
								 * the running ones again */
	bool		loading_leases; /* it is at it, or has failed */
	bool		lost_parts;		/* a queue found no part: what a new part knows
								 * of its queue begins on disk */
	JobqPrepared prepared[JOBQ_MAX_PREPARED];

	/* launcher */
	bool		wanted;			/* look whether a keeper is needed */
	int			holds;			/* statements that need the database free of
								 * workers; no keeper while > 0 */
	bool		barred;			/* not one the launcher looks after: keeper,
								 * go */
	bool		dropped;		/* the database is gone: free everything */

	/* counted for health() and tests */
	int64		index_conflicts;	/* outcomes refused by the unique index */
	int64		spills;			/* tickets left on disk for lack of a slot */

	/*
	 * The shelf: all committed waiting rows before (shelf_low, shelf_low_id)
	 * are off it, or noted by the keeper because others are changing them, or
	 * their transaction is about to retreat the mark; shelf_missed is the
	 * smallest run_at retreated to since the present walk began.
	 */
	TimestampTz shelf_low;
	int64		shelf_low_id;
	TimestampTz shelf_missed;
	TimestampTz dead_next;		/* when the first dead row may go */
	TimestampTz key_uses_due;	/* when uses of access keys are written */

	/* epochs; the first three without mutex, see epochs.c */
	pg_atomic_uint64 epoch_rows[JOBQ_MAX_CLASSES + 1];	/* written to the open
														 * epoch of a class */
	pg_atomic_uint64 epoch_limit[JOBQ_MAX_CLASSES + 1]; /* keeper: so many are
														 * enough */
	pg_atomic_uint32 epoch_watched; /* keeper: say when a slot of this epoch,
									 * or an older one, goes; 0 = do not */
	bool		epoch_news;		/* keeper: look at the epochs */
	bool		epoch_ended;	/* keeper: a slot that is watched has gone */
	TimestampTz history_cut_at; /* last time history went before its time, for
								 * jobq.max_history_size; 0 = never */
	/* run_maintenance(): rounds asked for, and the last such round done */
	int64		maintenance_asked;
	int64		maintenance_done;
	/* schedules */
	bool		cron_news;		/* keeper: read them again */
	TimestampTz cron_since;		/* ticks from then on were not missed because
								 * the server was down; 0 = not known */
	/* copies */
	bool		copy;			/* nothing runs or expires until adopt(); read
								 * without mutex */
	bool		start_paused;	/* what jobq.start_paused said at recovery */
	bool		adopted;		/* adopt() since the server was started */
	/* the audit log: numbers of entries */
	int64		audit_last;		/* handed out; -1 = look into the table first */
	int64		audit_news;		/* keeper: look from this one on; JOBQ_NEVER =
								 * nothing is new */
} JobqDb;

/* ---- slots ---- */

typedef enum JobqSlotState
{
	SLOT_FREE,
	SLOT_LINKING,				/* in the hash, not yet in a tree */
	SLOT_READY,
	SLOT_RUNNING,
	SLOT_ROLLED_BACK,			/* its claim was undone; the keeper moves it */
	SLOT_GRACE,					/* cancelled, its worker may still learn it */
	SLOT_SHELVED				/* on the shelf until its next attempt, and its
								 * place in its group is kept */
} JobqSlotState;

#define SLOT_VERIFY				0x01	/* it may have ended before it got here:
										 * look when it is taken */
#define SLOT_START_WANTED		0x02	/* keeper: commit a claim row for it */
#define SLOT_START_DONE			0x04
#define SLOT_CLAIM_OPEN			0x08	/* the claiming transaction is open */
#define SLOT_LINKED				0x10	/* in the ready or the lease tree */
#define SLOT_ASIDE				0x20	/* linked, but as it has expired not in
										 * the ready tree any more */
#define SLOT_KEPT				0x40	/* linked, not in the ready tree but in
										 * the one of those that keep a place
										 * in their group */
#define SLOT_PROBE				0x80	/* counted in limits.probes */

/*
 * What makes a ticket dispatchable. One of a job that is on the shelf has
 * ticket 0.
 */
typedef struct JobqTicket
{
	int64		id;
	int64		ticket;
	TimestampTz run_at;
	int32		queue_id;
	int32		epoch;
	int32		attempt;		/* counted attempts so far */
	int32		max_attempts;
	int16		priority;
	ItemPointerData tid;		/* hint, in job_<epoch> */
	TimestampTz expires_at;		/* not delivered from then on; DT_NOEND =
								 * always */
	JobqGroupKey group;
	bool		started;		/* there was an attempt, counted or not */
} JobqTicket;

/*
 * An entry of tally.c, by which attempts are counted: of a worker, or of a
 * kind of job. serial 0 = none; another serial: it is somebody else's now.
 */
typedef struct JobqTallyRef
{
	int32		entry;
	uint32		serial;
} JobqTallyRef;

/* What a delivery adds. */
typedef struct JobqLease
{
	int64		lease;			/* 0 = none */
	TimestampTz claimed_at;
	TimestampTz expires_at;
	int64		lease_for;		/* us, as taken */
	Oid			claimed_by;
	ItemPointerData claim_tid;	/* hint: its row in claim_<epoch> */
	bool		probe;			/* the circuit breaker's */
	JobqTallyRef by_kind;
	JobqTallyRef by_worker;
	char		worker[JOBQ_WORKER_MAX + 1];
} JobqLease;

/*
 * A slot. db, gen, t.id and hash_next change under the hash lock of the id;
 * everything else under the lock of its queue's part. part changes only while
 * the slot is not in the hash.
 */
typedef struct JobqSlot
{
	JobqTreeNode node;			/* ready tree or lease tree; free list: left */
	int32		hash_next;
	int32		part;
	int32		db;				/* index of the database's entry */
	uint32		gen;
	uint8		state;			/* JobqSlotState */
	uint8		flags;			/* SLOT_* */
	TransactionId mark;			/* transaction that is ending the ticket */
	int			claim_proc;		/* pgprocno of the claimer, for START_DONE */
	JobqTicket	t;
	JobqLease	l;
	JobqTreeNode expiry;		/* expiry tree: available ones that expire */
	JobqTreeNode in_group;		/* one of its group's trees */
	int32		group;			/* its group's entry, or JOBQ_NO_GROUP ... */
	uint8		group_tree;		/* JobqGroupTree */
} JobqSlot;

/* ---- queues in memory ---- */

typedef enum JobqCounter
{
	COUNT_NONE = -1,
	COUNT_AVAILABLE,			/* on the belt, in memory or not */
	COUNT_SCHEDULED,
	COUNT_RETRYABLE,			/* on the shelf; rolled-back slots come on top */
	COUNT_BLOCKED,				/* of the available ones: their group is full */
	COUNT_ENQUEUED,				/* new jobs, since memory was loaded */
	COUNT_COMPLETED,
	COUNT_FAILED,				/* attempts: failed, lease expired, rolled back */
	COUNT_DEAD,
	COUNT_CANCELLED,
	COUNT_EXPIRED,
	COUNT_N
} JobqCounter;

#define JOBQ_OLDEST_UNKNOWN		PG_INT64_MIN

/*
 * A queue's part: everything under lock, except db, gen, queue_id and
 * closing, which change under control->lock and lock together.
 *
 * ready, running, rolled_back and grace count slots by state, marked ones
 * included;
 * start_wanted counts only those in the lease tree.
 */
typedef struct JobqPart
{
	LWLock	   *lock;
	int32		db;				/* -1 = free */
	uint32		gen;			/* 0 = never used */
	int32		queue_id;
	bool		closing;		/* being freed: nothing is linked any more */
	JobqTree	ready_tree;
	JobqTree	lease_tree;
	int64		ready;
	int64		running;
	int64		rolled_back;
	int64		grace;
	int64		start_wanted;	/* slots the keeper must commit a claim for */
	int64		counters[COUNT_N];
	JobqTree	expiry_tree;

	/*
	 * The smallest run_at of those in the ready trees, JOBQ_NEVER = there are
	 * none; unknown once it has left, until somebody wants to see it.
	 */
	TimestampTz oldest;

	/*
	 * Tickets before the frontier are in memory, unless their transaction is
	 * about to publish them; the others may be on disk only, and what is in
	 * memory of them is not handed out. See frontier.c.
	 */
	JobqKey		frontier;
	JobqKey		missed;			/* while refilling: smallest key left out */
	bool		refilling;
	bool		asked;			/* the keeper has been told to refill */
	TransactionId holder;		/* until it ends nothing is refilled */

	JobqRules	rules;			/* as the last one who took jobs saw them */
	JobqLimits	limits;

	/*
	 * What a step of priority is worth in the order that the ready tree and the
	 * frontier go by, 0 = priority comes first. The keeper makes it what is
	 * wanted when no available slot stands in the old order any more and no
	 * refill is going on. aging_wanted < 0: what the queue says is not known.
	 */
	int64		aging;
	int64		aging_wanted;

	JobqPartGroups groups;
	JobqWaiters waiters;

	/*
	 * Without lock. entries: grows whenever others than publishers may have
	 * entered tickets that are not published yet; odd while a refill is going
	 * on. claimers: low half, transactions about to publish running tickets;
	 * high half, how many there have been.
	 */
	pg_atomic_uint64 entries;
	pg_atomic_uint64 claimers;
} JobqPart;

/* ---- starting keepers ---- */

#define JOBQ_MAX_STARTS			4	/* keepers on their way at the same time */

typedef enum JobqVerdict
{
	JOBQ_START_PENDING,
	JOBQ_START_RUNNING,			/* it is this database's keeper now */
	JOBQ_START_ABSENT			/* the database does not have the extension */
} JobqVerdict;

/* A keeper on its way; the launcher fills it in, the keeper answers. */
typedef struct JobqStart
{
	Oid			dbid;			/* InvalidOid = free */
	JobqVerdict verdict;
} JobqStart;

typedef struct JobqControl
{
	LWLock	   *lock;			/* databases and parts: who has which entry */
	uint32		gen_last;		/* last JobqDb.gen given out; under lock */
	int			launcher_proc;	/* pgprocno, -1 = none runs */
	pg_atomic_uint32 rescan;	/* 1: launcher, read pg_database again */
	pg_atomic_uint32 worker_slots_exhausted;	/* 1: a keeper is missing
												 * because of
												 * max_worker_processes */
	JobqStart	starts[JOBQ_MAX_STARTS];	/* under lock */
	pg_atomic_uint32 parts_lacking; /* how often a queue found no part */
	pg_atomic_uint32 preload_first; /* 1: no library was loaded before us */
	slock_t		free_mutex;		/* the next two */
	int32		free_head;
	int32		free_count;
	pg_atomic_uint32 share;		/* slots a queue may fill when there are few */
	uint64		group_seed[2];	/* of this start of the server */
	char		test_pause[64]; /* test builds: point to stop at */
	int64		test_ahead;		/* test builds: us that meters are ahead */
	pg_atomic_uint32 test_paused;	/* test builds: how many are stopped */
} JobqControl;

extern JobqControl *jobq_control;
extern JobqDb *jobq_dbs;
extern JobqPart *jobq_parts;
extern JobqSlot *jobq_slots;

/* ---- shmem.c ---- */
extern void jobq_shmem_install_hooks(void);

/*
 * This database's entry, made when missing; ERROR (JQ009) when
 * jobq.max_databases is reached, ERROR (55000) when not preloaded. install
 * tells CREATE EXTENSIONs apart: when it has changed, all that was known is
 * dropped and gen goes up.
 */
extern JobqDb *jobq_db_attach(Oid dbid, Oid install);

/* The same, NULL instead of an error. */
extern JobqDb *jobq_db_try_attach(Oid dbid, Oid install);
extern JobqDb *jobq_db_find(Oid dbid);	/* NULL when there is none */

/* Free all slots and parts of an entry that are not of its current gen, or
 * all of them and the entry itself. */
extern void jobq_db_sweep(JobqDb *db, bool everything);

/*
 * The extension is gone from the database: if gen is still current, forget
 * the installation (gen goes up) and free what it held. The entry stays.
 */
extern void jobq_db_reset(JobqDb *db, uint32 gen);

/*
 * The database has been adopted: if gen is still current, forget what is in
 * memory, so that a new keeper loads everything. The installation stays.
 */
extern void jobq_db_restart(JobqDb *db, uint32 gen);

static inline int
jobq_db_index(const JobqDb *db)
{
	return (int) (db - jobq_dbs);
}

extern void jobq_wake_keeper(JobqDb *db);
extern void jobq_wake_keeper_by(JobqDb *db, TimestampTz when);
extern void jobq_wake_launcher(void);

/*
 * The keeper's alarm clock: JOBQ_NEVER before it looks at what is due, the
 * time it will wake up by itself after that, before it waits for its latch.
 */
extern void jobq_set_alarm(JobqDb *db, TimestampTz when);

/*
 * Something on the shelf is due at `when`; wakes the keeper if it must. For
 * the keeper's walk over the shelf to see it, the mark goes back to it
 * (DT_NOBEGIN: the whole shelf is to be walked).
 */
extern void jobq_db_shelf_due(JobqDb *db, TimestampTz when);

/*
 * Keeper: a walk over the shelf begins at the mark that comes back, before its
 * first row is read; when what it has taken is committed, it was right up to a
 * new mark, and nothing is due before next.
 */
extern void jobq_db_shelf_walk(JobqDb *db, TimestampTz *run_at, int64 *id);
extern void jobq_db_shelf_walked(JobqDb *db, uint32 gen, TimestampTz run_at,
								 int64 id, TimestampTz next);

/* A dead row's retention is over at `when`; wakes the keeper if it must. */
extern void jobq_db_dead_due(JobqDb *db, TimestampTz when);

/*
 * Uses of access keys are to be written down at `when`; and: the keeper takes
 * that over, JOBQ_NEVER = there are none.
 */
extern void jobq_db_key_uses_due(JobqDb *db, TimestampTz when);
extern TimestampTz jobq_db_take_key_uses_due(JobqDb *db);

/*
 * Running tickets may be without a slot: then nobody knows how many run. Read
 * without mutex.
 */
static inline bool
jobq_db_lacks_leases(const JobqDb *db)
{
	return db->lost_leases || db->loading_leases;
}

/* Do running jobs wait for slots? */
extern bool jobq_lacks_leases(JobqDb *db);

/* Is the database's keeper done with recovery? */
extern bool jobq_db_ready(JobqDb *db, uint32 gen);

/*
 * run_maintenance(): ask for a full round of the keeper, begun after this, and
 * see whether it is done. The keeper notes at the beginning of a round what
 * it is for, and at its end that it is done.
 */
extern int64 jobq_maintenance_ask(JobqDb *db);
extern bool jobq_maintenance_is_done(JobqDb *db, int64 asked);
extern int64 jobq_maintenance_asked(JobqDb *db);
extern void jobq_maintenance_finish(JobqDb *db, int64 asked);

/*
 * Keeper: has somebody asked for a round that does at once whatever it would
 * do later by itself?
 */
extern bool jobq_maintenance_wanted(JobqDb *db);

/* ---- numbers.c ---- */

/* How far ahead of the clock the keeper raises lease_limit, in leases. */
#define JOBQ_LEASE_RESERVE		(INT64CONST(600000) * 4096)

/*
 * n ascending numbers for ids and tickets; they never come again. May raise
 * an error (reserves a block itself when the keeper has not).
 */
extern void jobq_take_numbers(JobqDb *db, int n, int64 *numbers);
extern int64 jobq_take_number(JobqDb *db);

/* Keeper: reserve a block ahead if there is none. May raise an error. */
extern void jobq_reserve_numbers(JobqDb *db);

/*
 * A new lease, 0 when the durable mark must be raised first. Wakes the keeper
 * when less than half of the reserve is left.
 */
extern int64 jobq_try_take_lease(JobqDb *db, TimestampTz now);
extern int64 jobq_lease_from_time(TimestampTz when);

/* ---- windowpool.c ---- */

/* Chunks of windows that are not in use, and how many there are. */
extern int32 jobq_window_free_chunks(int32 *all);

/* ---- part.c ---- */

/*
 * The part of a queue, made when missing; NULL when jobq.max_queues is
 * reached or db has been reset since gen. All keepers are then asked to free
 * parts of queues that do not exist (any more).
 */
extern JobqPart *jobq_part_get(JobqDb *db, uint32 gen, int32 queue_id);

/*
 * A queue's slots and its part go: for good, as it is dropped, or because it
 * does not seem to exist.
 */
extern void jobq_part_free(JobqDb *db, uint32 gen, int32 queue_id,
						   bool for_good);

/*
 * All parts of a database, one a call: start with from = 0, go on with what
 * comes back; -1 (and *part NULL) when there are no more.
 */
extern int	jobq_parts_of(JobqDb *db, uint32 gen, int from, JobqPart **part);
extern void jobq_part_count(JobqDb *db, uint32 gen, int32 queue_id,
							JobqCounter counter, int64 delta);
extern bool jobq_part_stats(JobqDb *db, uint32 gen, int32 queue_id,
							JobqPart *copy);

/*
 * The queue's option aging has been set. What is in memory is read again, in
 * the new order, before anything more is handed out.
 */
extern void jobq_part_set_aging(JobqDb *db, uint32 gen, int32 queue_id,
								int64 aging);

/* Keeper: for a part that does not know; what has been set meanwhile stays. */
extern bool jobq_part_knows_aging(const JobqPart *part);
extern void jobq_part_learn_aging(JobqPart *part, uint32 gen, int64 aging);

/* ---- slot.c, publish.c, deliver.c, mark.c ---- */

/* What a transaction remembers of a slot, enough to notice it is another's. */
typedef struct JobqSlotRef
{
	int32		slot;			/* JOBQ_NIL = whichever holds the ticket */
	uint32		gen;
	int64		id;
	int64		ticket;
	int64		lease;
} JobqSlotRef;

/* The slot that a copy was made of. */
extern void jobq_ref_of(const JobqSlot *copy, JobqSlotRef *ref);

/*
 * Make committed tickets of one queue available (or running, where
 * leases[i].lease is not 0; leases may be NULL). A ticket whose job is already
 * in memory replaces an older, unclaimed, unmarked one, else is skipped. What
 * lies behind the frontier, or finds no slot, stays on disk. `since` is what
 * jobq_before_publish() said before the transaction could be seen: whoever has
 * entered, and perhaps ended, one of the tickets since then is noticed. nnew
 * jobs are new in the queue, for the statistics.
 */
extern void jobq_publish(JobqDb *db, uint32 gen, const JobqTicket *tickets,
						 const JobqLease *leases, int n, uint64 since,
						 int nnew);
extern uint64 jobq_before_publish(JobqDb *db, uint32 gen, int32 queue_id);

/*
 * Before commit, and after it has been published or undone: the transaction
 * publishes a running ticket of the queue, which no refill may take for an
 * available one.
 */
extern void jobq_claimer_comes(JobqDb *db, uint32 gen, int32 queue_id);
extern void jobq_claimer_goes(JobqDb *db, uint32 gen, int32 queue_id);

/* Is somebody between the two? Also when the queue has no part. */
extern bool jobq_claimer_is_coming(JobqDb *db, uint32 gen, int32 queue_id);

/*
 * Take up to max available jobs of the queue in its order, only those before
 * `before` when that is not NULL, and give them the lease.
 * Those that have expired when it was claimed are left to the keeper.
 */
typedef struct JobqTake
{
	const JobqTicket *before;
	JobqLease  *lease;			/* its times and probe are set anew where
								 * there are limits, if it is fresh */
	bool		fresh;			/* nothing was taken under it yet */
	const JobqRules *rules;		/* the queue's, as the caller sees them */
	int64		ending;			/* running jobs of the queue that the caller's
								 * transaction is ending: their places are
								 * its own */
	uint8		flags;			/* SLOT_*, for the slots taken */
	/* out */
	bool		limited;		/* a limit was reached */
	bool		loading;		/* nothing is delivered until the keeper has
								 * loaded what groups are to know */
	TimestampTz retry_at;		/* when it may be over by itself; JOBQ_NEVER =
								 * when something happens */
} JobqTake;

typedef struct JobqTaken
{
	JobqSlotRef ref;
	JobqTicket	t;
	bool		verify;			/* it may have ended */
} JobqTaken;

extern int	jobq_take(JobqPart *part, uint32 gen, int max, JobqTake *take,
					  JobqTaken *taken);

/*
 * May the transaction take a job that it has enqueued itself? Then it counts
 * from now on, until jobq_own_released(), and if it has taken a place in its
 * group, there until jobq_group_leave_own().
 */
typedef enum JobqOwnPlace
{
	OWN_PLACE_NONE,				/* none is needed */
	OWN_PLACE_TAKEN,
	OWN_PLACE_REFUSED			/* it may not, because of its group, or of a
								 * limit if take->limited */
} JobqOwnPlace;

extern JobqOwnPlace jobq_take_own(JobqPart *part, uint32 gen,
								  const JobqTicket *t, JobqTake *take);
extern void jobq_group_leave_own(JobqDb *db, uint32 gen, int32 queue_id,
								 const JobqGroupKey *key);

/* A ticket that was taken has ended before: its slot goes. */
extern void jobq_drop_taken(JobqDb *db, const JobqSlotRef *ref);

/* Could a committed job be taken now? *retry_at is as in JobqTake. */
extern bool jobq_may_take(JobqPart *part, uint32 gen, TimestampTz now,
						  TimestampTz *retry_at);

/*
 * The same order without taking: tickets after *after (NULL: the first), also
 * expired ones that nobody has met.
 */
extern int	jobq_look(JobqPart *part, uint32 gen, const JobqTicket *after,
					  int max, JobqTicket *tickets);

/*
 * Claims of a transaction that ends: commit closes, abort rolls back. No-ops
 * unless the slot is still under this lease.
 */
extern void jobq_close_claims(const JobqSlotRef *refs, int n);
extern void jobq_undo_claim(JobqDb *db, const JobqSlotRef *ref);

/* A claim that was never handed out: available again, as if not taken. */
extern void jobq_unclaim(JobqDb *db, const JobqSlotRef *ref);

/* Keeper: look at this due lease again at `until`. */
extern void jobq_postpone(JobqDb *db, const JobqSlotRef *ref,
						  TimestampTz until);
extern void jobq_set_claim_tid(JobqDb *db, const JobqSlotRef *ref,
							   ItemPointer tid);

/* Slots just claimed, and the kinds of their jobs. */
typedef struct JobqClaimed
{
	JobqSlotRef ref;
	JobqTallyRef by_kind;
} JobqClaimed;

/* They are told their kinds and, unless it is NULL, their claim row. */
extern void jobq_set_claims(const JobqClaimed *claimed, int n,
							ItemPointer tid);

typedef enum JobqMarkResult
{
	MARK_OK,					/* marked for us */
	MARK_NO_SLOT,				/* no such job in memory */
	MARK_OTHER_QUEUE,			/* it is a job of another queue */
	MARK_NOT_YOURS,				/* another lease, or not running */
	MARK_BUSY,					/* marked by *busy: wait for it */
	MARK_GRACE					/* cancelled under this lease */
} JobqMarkResult;

/*
 * Mark a job's slot for this transaction: nobody else ends or claims it until
 * the mark goes. lease 0 = whatever its state and queue (steering), else it
 * must be a job of this queue that is running under this lease. A copy of the
 * slot comes back unless NO_SLOT.
 */
extern JobqMarkResult jobq_mark(JobqDb *db, uint32 gen, int64 id,
								int32 queue_id, int64 lease,
								TransactionId xid, JobqSlot *copy,
								JobqSlotRef *ref, TransactionId *busy);
extern void jobq_unmark(JobqDb *db, const JobqSlotRef *ref, TransactionId xid);

/*
 * A slot, marked for xid, for a ticket that has none; the caller looks then
 * whether the ticket has ended. False: it has one by now, there is no room, or
 * *busy, not the transaction top, holds the queue's tickets that have none.
 */
extern bool jobq_enter_marked(JobqDb *db, uint32 gen, const JobqTicket *t,
							  TransactionId xid, TransactionId top,
							  JobqSlotRef *ref, TransactionId *busy);

/* It has: the slot goes, and nothing is counted. */
extern void jobq_drop_marked(JobqDb *db, const JobqSlotRef *ref);

/*
 * These jobs' slots will be wanted: have memory come while others are dealt
 * with. are_there: they are known to be in memory. At most JOBQ_CHUNK.
 */
extern void jobq_expect_jobs(const JobqDb *db, const int64 *ids, int n,
							 bool are_there);

/*
 * The transaction that marked it has committed: the slot goes, whoever has
 * marked it; its lease is extended; it stays, cancelled, until grace is over.
 */
extern void jobq_end(JobqDb *db, const JobqSlotRef *ref);

/* Recovery: a job whose slot runs was cancelled, with grace until then. */
extern void jobq_set_grace(JobqDb *db, const JobqSlotRef *ref,
						   TimestampTz until);
extern void jobq_extended(JobqDb *db, const JobqSlotRef *ref,
						  TransactionId xid, TimestampTz expires_at);
extern void jobq_hold(JobqDb *db, const JobqSlotRef *ref, TransactionId xid,
					  TimestampTz until);

/*
 * Keeper: after a restart, a cancelled job keeps its place until the lease's
 * end. False when there is no slot.
 */
extern bool jobq_load_grace(JobqDb *db, uint32 gen, const JobqTicket *t,
							const JobqLease *l);

/* Has the job a slot, perhaps one that is only about to be linked? */
extern bool jobq_is_entered(JobqDb *db, uint32 gen, int64 id);

/* Read a slot by id; false when there is none. */
extern bool jobq_find(JobqDb *db, uint32 gen, int64 id, JobqSlot *copy);

/* Drop an unmarked slot that turned out to be stale. */
extern void jobq_drop_stale(JobqDb *db, const JobqSlotRef *ref);

/*
 * Keeper: up to max slots of the queue whose lease has run out at `now`
 * (expired, rolled back, grace over), and when the next one does: not after
 * `now` when there were more than max. Marked slots are not among them.
 */
extern int	jobq_due_leases(JobqPart *part, uint32 gen, TimestampTz now,
							int max, JobqSlot *copies, TimestampTz *next);

/* Holds this process a lease of the queue that was taken since then? */
extern bool jobq_holds_lease(JobqDb *db, uint32 gen, int32 queue_id, int proc,
							 TimestampTz since);
/*
 * Up to max, JOBQ_CHUNK at most, of the queue's leases after that one (NULL:
 * the first) by when they end. Marked slots are not among them.
 */
extern int	jobq_look_leases(JobqDb *db, uint32 gen, int32 queue_id,
							 const JobqSlot *after, int max,
							 JobqSlot *copies);

/* Keeper: slots that wait for a start record; and: it is committed. */
extern int	jobq_start_wanted(JobqPart *part, uint32 gen, int max,
							  JobqSlot *copies);
extern void jobq_start_done(JobqDb *db, const JobqSlotRef *ref);

/* ---- wait.c ---- */

/*
 * n more jobs of the queue can be taken: wake as many of those who wait for
 * one, each for one. Never under a lock.
 */
extern void jobq_wake_waiters(JobqPart *part, uint32 gen, int64 n);

/* The queue's settings have changed: all who wait for it look again. */
extern void jobq_queue_has_changed(JobqDb *db, uint32 gen, int32 queue_id);

/* The job (0: some) has come to its end: those who wait for that look. */
extern void jobq_wake_for_job(const JobqDb *db, int64 job);

/* Is no job of the queue available, running or to be retried? */
extern bool jobq_part_is_idle(JobqPart *part, uint32 gen);

/*
 * Around changes that take a job away from one place of the queue and bring
 * it to another: the queue is not idle in between.
 */
extern void jobq_arrivals_begin(JobqDb *db, uint32 gen, int32 queue_id);
extern void jobq_arrivals_end(JobqDb *db, uint32 gen, int32 queue_id);

/*
 * Wait for a queue, the i-th (below JOBQ_WAIT_QUEUES) of those this session
 * waits for: look whether there is something only after that. retry_at is what
 * the look before said. Returns when to look without being woken: JOBQ_NEVER
 * also if somebody else will do so, 0 if the part is not the queue's any more.
 */
extern TimestampTz jobq_wait_join(int i, JobqPart *part, uint32 gen,
								  int32 queue_id, JobqWaitKind kind,
								  TimestampTz retry_at);
extern void jobq_wait_join_job(const JobqDb *db, int64 job);

/*
 * Has somebody woken us? Then say that we are up before looking again. True
 * if it was for something else than a job, such as the queue's settings: that
 * they have changed may not have got about yet.
 */
extern bool jobq_wait_is_woken(void);
extern bool jobq_wait_awake(void);

/*
 * We look no more. With keep a wake-up that has not been used stays ours, for
 * our client is going to use it; else somebody else is woken instead.
 */
extern void jobq_wait_end(bool keep);

/* A wake-up was used: its queue was looked at. Another one is passed on. */
extern void jobq_wakeup_used(uint32 gen, int32 queue_id);
extern void jobq_wakeup_pass_on(void);

/* ---- late.c ---- */

/*
 * From before the commit to the end of its callbacks, or of the abort: memory
 * is still to be told that these jobs (bits, or'ed) were put on the shelf or
 * taken off it.
 */
extern uint64 jobq_late_bit(int64 job);
extern void jobq_late_begin(uint64 jobs);
extern void jobq_late_end(void);

/*
 * A started job that was seen on the shelf: is somebody else still to tell of
 * it? That must not come after what we tell.
 */
extern bool jobq_is_late(int64 job);

/* ---- expire.c ---- */

/*
 * Keeper: up to max available slots of the queue that have expired at `now`,
 * and when the next one does: not after `now` when there were more than max.
 * Those behind `after`, unless it is NULL. Marked slots are not among them.
 * max is JOBQ_CHUNK at most.
 */
extern int	jobq_due_expiry(JobqPart *part, uint32 gen, TimestampTz now,
							const JobqSlot *after, int max, JobqSlot *copies,
							TimestampTz *next);

/* Slots not in use, of the whole cluster. */
extern int	jobq_free_slots(void);

/* ---- frontier.c: what is on disk only ---- */

/*
 * A ticket's place in the order of a queue with this aging. On the belt run_at
 * is not in the future, so that nothing overflows.
 */
static inline JobqKey
jobq_key_of(const JobqTicket *t, int64 aging)
{
	JobqKey		key = {.priority = t->priority,.run_at = t->run_at,.id = t->id};

	if (aging != 0)
	{
		key.priority = 0;
		key.run_at += t->priority * aging;
	}
	return key;
}

static inline int
jobq_key_compare(const JobqKey *a, const JobqKey *b)
{
	if (a->priority != b->priority)
		return a->priority < b->priority ? -1 : 1;
	if (a->run_at != b->run_at)
		return a->run_at < b->run_at ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return 0;
}

static inline bool
jobq_key_before(const JobqKey *a, const JobqKey *b)
{
	return jobq_key_compare(a, b) < 0;
}

/*
 * n committed tickets of the queue, the first of them at `first` in the order
 * of this aging, were not published one by one: they are on disk only.
 */
extern void jobq_leave_on_disk(JobqDb *db, uint32 gen, int32 queue_id,
							   const JobqKey *first, int64 aging, int64 n);

/* May this ticket be on disk only? Then it stays there while we are holder. */
extern bool jobq_is_behind(JobqDb *db, uint32 gen, const JobqTicket *t);

/*
 * Let no refill of the queue begin until xid has ended. True once none is
 * going on; else look again, after the end of *busy if that is not 0.
 */
extern bool jobq_hold_refill(JobqDb *db, uint32 gen, int32 queue_id,
							 TransactionId xid, TransactionId *busy);

/* Wake the keeper if tickets of the queue that could be taken are on disk. */
extern void jobq_ask_refill(JobqPart *part, uint32 gen);

/*
 * The keeper's refill. Wanted? Begin (false: not now) and learn where; put
 * tickets in, in order; end where everything before is in memory. `put` says
 * how many of the n tickets it has dealt with: fewer than n for lack of room.
 * fresh[i] is the ref of a slot that is in the hash but not yet linked, or has
 * slot JOBQ_NIL; the caller looks whether its ticket has ended, then links.
 */
typedef enum JobqLack
{
	LACKS_NOTHING,				/* or somebody has the job in hand */
	LACKS_SLOT,
	LACKS_ENTRY					/* for its group */
} JobqLack;

extern bool jobq_refill_wanted(JobqPart *part, uint32 gen);

/*
 * Before it begins: push out some of what stands in an order that is not
 * wanted any more. False when there is nothing left to push out.
 */
extern bool jobq_refill_clear(JobqPart *part, uint32 gen);
extern bool jobq_refill_begin(JobqPart *part, uint32 gen, JobqKey *from,
							  uint64 *claimers);

/* After the snapshot: is no running ticket in it that is not published? */
extern bool jobq_refill_is_clear(JobqPart *part, uint64 claimers);
extern int	jobq_refill_put(JobqPart *part, uint32 gen,
							const JobqTicket *tickets,
							const JobqLease *leases, int n,
							JobqSlotRef *fresh, JobqLack *lack);
extern void jobq_refill_link(JobqPart *part, uint32 gen, JobqSlotRef *fresh,
							 const bool *ended, int n);

/* crowded: there was no room even for the first of the tickets. */
extern void jobq_refill_end(JobqPart *part, uint32 gen, const JobqKey *reached,
							bool crowded);

/* Has the queue got what it may have? */
extern bool jobq_refill_enough(JobqPart *part, uint32 gen);

/*
 * Has something before this key been left out meanwhile? The frontier will
 * not get beyond that, and what comes in from there on only takes room.
 */
extern bool jobq_refill_missed(JobqPart *part, uint32 gen, const JobqKey *key);

/*
 * Is there an entry for the ticket's group? If not, what comes after the ticket
 * is in its way: push the last available slot of the queue out to disk, if it
 * comes after ticket t (NULL: whatever it is).
 */
extern bool jobq_refill_has_entry(JobqPart *part, uint32 gen,
								  const JobqTicket *t);
extern bool jobq_push_out(JobqPart *part, uint32 gen, const JobqTicket *t);

/*
 * When slots are short: push out, from up to so many groups of the queue that
 * have more than their share of its slots, what is beyond that.
 */
extern void jobq_group_trim(JobqPart *part, uint32 gen);

/* A keeper that starts: refills that an earlier one began are over. */
extern void jobq_refill_reset(JobqDb *db, uint32 gen);

/*
 * Share the slots out among the queues of all databases, and take some from
 * those that have more than their share.
 */
extern void jobq_share_slots(void);

/* ---- cron.c ---- */

/* The keeper is to read the schedules again; it takes the news by asking. */
extern void jobq_cron_news(JobqDb *db);
extern bool jobq_take_cron_news(JobqDb *db);

/*
 * Since when ticks have not been missed because the server was down: the
 * keeper's first call since it was started, or now, when that is earlier.
 */
extern TimestampTz jobq_cron_since(JobqDb *db, TimestampTz now);

/* ---- epochs.c ---- */

/* So many tickets were written into the open epoch of a class. */
extern void jobq_count_tickets(JobqDb *db, int32 class_id, int n);

/* The keeper is to look at the epochs; it takes the news by asking. */
extern void jobq_epoch_news(JobqDb *db);
extern bool jobq_take_epoch_news(JobqDb *db);

/* A slot of this epoch has gone; the keeper hears of it if it wants to. */
extern void jobq_slot_gone(JobqDb *db, int32 epoch);

/*
 * Keeper: from now on, hear when the first slot of epochs up to this one goes,
 * 0 = of none; and has one gone since? It hears once until it watches anew,
 * else it would be woken by every job that ends.
 */
extern void jobq_watch_epochs(JobqDb *db, int32 epoch);
extern bool jobq_watched_gone(JobqDb *db);

/*
 * Keeper: how many slots hold live tickets of each of these epochs, which
 * ascend; and up to max job ids of one epoch, from slot *from on, which is
 * JOBQ_NIL when there are no more. Both look at all slots without locks, so
 * that what changes meanwhile may be missed. May raise an error.
 */
extern void jobq_slots_by_epoch(JobqDb *db, uint32 gen, const int32 *epochs,
								int n, int64 *counts);
extern int	jobq_slots_of_epoch(JobqDb *db, uint32 gen, int32 epoch,
								int32 *from, int max, int64 *ids);

/*
 * Keeper: copies of up to max slots of a queue that run or were rolled back,
 * also of those that somebody has marked. May raise an error.
 */
extern int	jobq_delivered_slots(JobqPart *part, uint32 gen, int max,
								 JobqSlot *copies);

/*
 * The transaction that marked a running job has carried it to another ticket:
 * slot and lease stay.
 */
extern void jobq_carried(JobqDb *db, const JobqSlotRef *ref,
						 TransactionId xid, const JobqTicket *to,
						 const ItemPointerData *claim_tid);

/* ---- group.c ---- */

/*
 * Have the part follow a queue's rules. False when nothing may be delivered
 * yet, as the keeper has something to load for it.
 */
extern bool jobq_follow_rules(JobqPart *part, uint32 gen,
							  const JobqRules *rules);

/* What stands for a group key in memory. */
extern JobqGroupKey jobq_group_key(const char *key, int length);

/* May the queue's waiting jobs keep places? */
extern bool jobq_keeps_places(const JobqPart *part);

/*
 * The job has gone to the shelf, where it keeps its place if the queue's rules
 * say so. And: it has left the shelf for good.
 */
extern void jobq_shelve(JobqDb *db, uint32 gen, const JobqTicket *t);
extern void jobq_unshelve(JobqDb *db, uint32 gen, int64 id);

/*
 * The keeper loads what a queue's groups are to know before anything is
 * delivered: is that wanted? It begins; what is found is entered like running
 * tickets; it ends, and was right unless somebody has altered a group
 * meanwhile. And: it is to be done again, for all queues.
 */
extern bool jobq_groups_to_load(JobqPart *part, uint32 gen);
extern bool jobq_groups_load_begin(JobqPart *part, uint32 gen,
								   uint32 *alters, uint64 *claimers,
								   bool *counting);
extern bool jobq_groups_load_end(JobqPart *part, uint32 gen, uint32 alters);
extern void jobq_groups_forget(JobqDb *db, uint32 gen);

/* Deliveries of the time before, in the order of time. */
typedef struct JobqGroupTaken
{
	JobqGroupKey group;
	TimestampTz at;
} JobqGroupTaken;

extern bool jobq_groups_count(JobqPart *part, uint32 gen,
							  const JobqGroupTaken *taken, int n);

/*
 * alter_group() has set these rules; altered: just now. False when there is no
 * entry for the group: then the keeper is to load them all.
 */
extern bool jobq_group_set_rules(JobqDb *db, uint32 gen, int32 queue_id,
								 const JobqGroupKey *key,
								 const JobqGroupRules *rules, bool altered);

/* Why a job of this group may not run; false: it is not the group. */
typedef struct JobqGroupReason
{
	bool		full;			/* `limit` jobs run or keep their places */
	int32		limit;			/* 0 = none */
	int32		active;
	int32		kept;
	int64		taken_id;		/* the job delivered last, 0 = none */
	TimestampTz taken_at;
	TimestampTz paused_until;	/* 0 = not paused */
	TimestampTz not_before;		/* paused, or too fast: */
	int64		delivered;		/* so many ... */
	JobqRate	rate;			/* ... of these */
	bool		spilled;		/* the job is on disk, behind ... */
	int32		waiting;		/* ... those of its group in memory */
} JobqGroupReason;

/* Of the groups of a queue that have jobs that wait, how many stand still. */
typedef struct JobqGroupsReason
{
	int32		looked_at;		/* JOBQ_GROUPS_LOOK: there may be more */
	int32		waiting;		/* have jobs that wait */
	int32		full;			/* of these: all their jobs are blocked, */
	int32		paused;
	int32		too_fast;
	int32		spilled;		/* what may go is on disk */
	TimestampTz go_on;			/* the first of those paused or too fast;
								 * JOBQ_NEVER = there is none */
} JobqGroupsReason;

#define JOBQ_GROUPS_LOOK	10000

extern void jobq_groups_explain(JobqPart *part, uint32 gen,
								JobqGroupsReason *reason);

/* Is a waiting job of this group blocked, because the group is full? */
extern bool jobq_group_blocks(JobqDb *db, uint32 gen, int32 queue_id,
							  const JobqGroupKey *key, bool started);

extern bool jobq_group_explain(JobqPart *part, uint32 gen,
							   const JobqTicket *t, JobqGroupReason *reason);

#ifdef JOBQ_TEST_BUILD
/* ---- check.c ---- */

/* Is everything of the database consistent? If not, why says what is not. */
extern bool jobq_dispatch_check(JobqDb *db, char *why, size_t len);
#endif

#endif							/* JOBQ_DISPATCH_H */
