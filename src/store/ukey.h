/*
 * ukey.h: rows of jobq.ukey: which job took a unique key last. Whether it
 * still holds the key is the engine's business. Keys are text Datums, never
 * longer than an index can take.
 */
#ifndef JOBQ_UKEY_H
#define JOBQ_UKEY_H

#include "store/store.h"

/* unique_while */
#define UKEY_LIVE			'l'
#define UKEY_WAITING		'w'

typedef struct JobqKeyRow
{
	Oid			scope;			/* who enqueued the job */
	int64		gen;			/* larger = newer, over all scopes of a key */
	int64		id;
	TimestampTz free_at;		/* held until then in any case */
	char		unique_while;
	TransactionId writer;		/* transaction that is about to commit it;
								 * Invalid = committed, or our own */
} JobqKeyRow;

/*
 * One session at a time reads and takes a key: for that moment only, nobody
 * waits for anything meanwhile. False: somebody has it (nowait only).
 */
extern bool jobq_ukey_lock(int32 queue_id, Datum key, bool nowait);
extern void jobq_ukey_unlock(int32 queue_id, Datum key);

/* The newest row of each scope, palloc'd; their number comes back. */
extern int	jobq_ukey_newest(int32 queue_id, Datum key, JobqKeyRow **rows);

/* The newest row of a job in a scope; false when there is none. */
extern bool jobq_ukey_of_job(int32 queue_id, Datum key, Oid scope, int64 id,
							 JobqKeyRow *row);

extern void jobq_ukey_insert(int32 queue_id, Datum key, const JobqKeyRow *row);

/* ---- for the keeper ---- */

/* A row that a walk has come by. */
typedef struct JobqKeySeen
{
	ItemPointerData tid;
	int64		id;
	TimestampTz free_at;
	bool		while_waiting;
} JobqKeySeen;

/*
 * Walk the table from block *next on: up to max rows, which is more than one
 * block has, that were free at `before`, or, if asked for, whose jobs hold
 * their key only while they wait. False: that was the last of it.
 */
#define JOBQ_UKEY_BLOCK_ROWS	MaxHeapTuplesPerPage

extern bool jobq_ukey_walk(BlockNumber *next, TimestampTz before,
						   bool while_waiting, int max, JobqKeySeen *seen,
						   int *nseen);

/* Delete a row that was seen, unless somebody else is at it. */
extern void jobq_ukey_delete(ItemPointer tid);

#endif							/* JOBQ_UKEY_H */
