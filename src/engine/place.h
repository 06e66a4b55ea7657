/*
 * place.h: writing a job to its next place: a new ticket on the belt or a row
 * on the shelf. Private to src/engine.
 */
#ifndef JOBQ_PLACE_H
#define JOBQ_PLACE_H

#include "engine/engine.h"

/* The dispatcher's view of a row of job_N, in a slot or in hand. */
extern void jobq_ticket_of_slot(TupleTableSlot *slot, int32 epoch,
								JobqTicket *t);
extern void jobq_ticket_of_row(const JobqRow *row, int32 epoch,
							   const ItemPointerData *tid, JobqTicket *t);

/* What stands for the group key in memory. */
extern JobqGroupKey jobq_group_of(Datum group_key);

/* A job that leaves the shelf: its first ticket is its id, others are new. */
extern void jobq_give_ticket(const JobqSession *session, JobqRow *row);

/* Rows of one queue, complete with ticket, id and queue. */
extern void jobq_place_on_belt(const JobqSession *session,
							   const JobqQueue *queue, JobqRow *rows,
							   int nrows);

/* Which counter a waiting row on the shelf is in. */
extern JobqCounter jobq_shelf_counter(const JobqRow *row);

/*
 * Keep drop_queue away until we have ended; ERROR if the queue has just gone.
 * Then a new job of it, which has this id.
 */
extern void jobq_lock_queue(const JobqQueue *queue);
extern void jobq_place_new(const JobqSession *session, const JobqQueue *queue,
						   JobqRow *row, int64 id, TimestampTz now);
/* One that was taken off the shelf does not go back there. */
extern void jobq_left_shelf(const JobqSession *session, const JobqRow *row);

extern void jobq_place_on_shelf(const JobqSession *session, JobqRow *row,
								char state);

/* A text Datum, NULL pointer = SQL NULL. */
extern void jobq_set_text(Datum *value, bool *null, const char *text);

#endif							/* JOBQ_PLACE_H */
