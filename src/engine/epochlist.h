/*
 * epochlist.h: the keeper's list of epochs and classes, and how the steps of
 * their life wait and fail each for itself. Private to epochs.c, drain.c,
 * history.c and freeze.c.
 */
#ifndef JOBQ_EPOCHLIST_H
#define JOBQ_EPOCHLIST_H

#include "engine/epochs.h"

/* Pauses: the first, doubled until the longest. */
#define LOCK_PAUSE			(100 * INT64CONST(1000))	/* somebody has a lock */
#define LOCK_PAUSE_MAX		(2 * USECS_PER_SEC)

typedef struct JobqWait
{
	TimestampTz until;
	int64		pause;			/* the last one; 0 = none */
} JobqWait;

/* What the keeper knows of an epoch beyond its row. */
typedef struct JobqKnown
{
	JobqEpoch	row;
	JobqWait	wait;			/* for locks, or for jobs to end */
	JobqWait	trouble;		/* after an error */
	JobqWait	freeze;			/* before looking again how old it is */
	int64		slots;			/* live in memory at the last pass; -1 = no
								 * pass yet */
	int64		surveyed_slots; /* and at the last survey */
	JobqSurvey	survey;
	TimestampTz few_since;		/* 0 = many are left */
	bool		carrying;
	int32		carry_from;
	BlockNumber disk_from;		/* carrying from disk, its next block */
	int64		size;			/* bytes, once sealed; -1 = to be measured */
} JobqKnown;

typedef struct JobqEpochClass
{
	int			id;
	bool		exists;
	bool		used;			/* by a queue */
	int64		retention;
	int			nepochs;
	int32		open;			/* epoch, 0 = none */
	TimestampTz opened_at;
	TimestampTz first_ticket;	/* when we heard of it; 0 = none yet */
	JobqWait	wait;			/* before trying again to forget it */
	JobqWait	trouble;		/* after an error */
} JobqEpochClass;

/* All of it can be read again; it goes with the process. */
typedef struct JobqEpochList
{
	JobqKnown  *known;
	int			nknown;
	JobqEpochClass classes[JOBQ_MAX_CLASSES + 1];
	int			rows;			/* settings, as they are now */
	int			age;
	int			size;
	int64		limits;			/* so long, in us, limits may need to know what
								 * has happened */
} JobqEpochList;

/* One call. */
typedef struct JobqEpochLook
{
	const JobqSession *session;
	TimestampTz now;
	TimestampTz next;
} JobqEpochLook;

/* ---- epochs.c ---- */

extern JobqEpochList jobq_epochs;

extern JobqKnown *jobq_epochs_find(int32 epoch);
extern int64 jobq_epochs_retention(const JobqKnown *epoch);

/* Are there so many epochs of its class that old ones should go soon? */
extern bool jobq_epochs_press(const JobqKnown *epoch);

extern void jobq_epochs_come_again(JobqEpochLook *look, TimestampTz when);
extern bool jobq_epochs_begin(JobqEpochLook *look);

/* Leave something alone for a while, each time longer. */
extern void jobq_epochs_put_off(JobqEpochLook *look, JobqWait *wait,
								int64 first, int64 longest);
extern bool jobq_epochs_must_wait(JobqEpochLook *look, const JobqWait *wait);
extern void jobq_epochs_no_more_wait(JobqWait *wait);

/* True after a step that took its time: the others come first now. */
typedef bool (*JobqEpochStep) (JobqEpochLook *look, void *item);

/*
 * Take a step for an epoch or a class. An error is logged and puts off only
 * this one: the others go on.
 */
extern bool jobq_epochs_step(JobqEpochLook *look, JobqEpochStep step,
							 void *item, JobqWait *trouble);

/* ---- drain.c ---- */

/* Count, survey and carry. */
extern bool jobq_drain_epochs(JobqEpochLook *look);

/* Count at the next chance; with at_once whatever the last count took. */
extern void jobq_drain_count(bool at_once);

extern TimestampTz jobq_drain_next_count(void);

/* ---- history.c ---- */

extern bool jobq_history_drop(JobqEpochLook *look);
extern bool jobq_history_tend_classes(JobqEpochLook *look);

/* Do epochs with finished jobs, drained or not, take more than they may? */
extern bool jobq_history_presses(void);

/* ---- freeze.c ---- */

/* Look how old sealed epochs are; have one frozen that is too old. */
extern bool jobq_freeze_epochs(JobqEpochLook *look);

/* True once after a freezer has ended. */
extern bool jobq_freeze_ended(void);

/* The epoch is to go: whoever freezes it shall stop, soon. */
extern void jobq_freeze_call_off(int32 epoch);

#endif							/* JOBQ_EPOCHLIST_H */
