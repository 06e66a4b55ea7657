/*
 * whereis.h: finding jobs in the tables, for steering. Private to src/engine.
 */
#ifndef JOBQ_WHEREIS_H
#define JOBQ_WHEREIS_H

#include "engine/engine.h"

typedef enum JobqWhereResult
{
	WHERE_NOWHERE,				/* no such job */
	WHERE_FINAL,				/* it has ended */
	WHERE_SPILLED,				/* available, not in memory */
	WHERE_ELSEWHERE				/* on its way: look again */
} JobqWhereResult;

/* The newest that the tables know of a job. */
typedef struct JobqWhere
{
	bool		on_shelf;
	JobqRow		row;
	JobqTicket	t;				/* unless on_shelf */
	bool		has_outcome;
	JobqOutcomeRow outcome;
} JobqWhere;

/* Asked when neither memory nor the shelf had the job. */
extern JobqWhereResult jobq_where_is(const JobqSession *session, int64 id,
									 JobqWhere *where);

/* Has a claim of a ticket been committed? Reads all claims of its epoch. */
extern bool jobq_is_claimed_on_disk(const JobqTicket *t);

/*
 * Shelf row, else newest ticket with its outcome; false when there is neither.
 */
extern bool jobq_newest(int64 id, JobqWhere *where);

typedef struct JobqIdList
{
	int64	   *ids;
	int			n;
	int			size;
} JobqIdList;

/* Ids of a queue's jobs on the shelf in a state. */
extern void jobq_list_shelved(int32 queue_id, char state, JobqIdList *list);

/* Ids of its live tickets, by what memory says of them. */
extern void jobq_list_belt(const JobqSession *session, int32 queue_id,
						   bool available, bool running, bool rolled_back,
						   JobqIdList *list);

#endif							/* JOBQ_WHEREIS_H */
