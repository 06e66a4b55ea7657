/*
 * input.h: what a queue demands of new jobs: how complex their JSON may be,
 * which kinds there are, the schema, the validator. Their sizes, priorities
 * and so on are checked where they are read.
 */
#ifndef JOBQ_INPUT_H
#define JOBQ_INPUT_H

#include "store/store.h"

/*
 * Those options that options.c has only looked at: is the schema one, and may
 * caller and owner call the validator? JQ007 or 42501.
 */
extern void jobq_input_check_options(Jsonb *options, Oid owner);

/*
 * JQ004, JQ016, JQ017 or JQ018 if a queue does not take this job. Number: its
 * place in the call, for messages; 0 = it is the only one. Pointers to queues
 * do not become stale, but the validator is the user's code.
 */
extern void jobq_input_check(const JobqQueue *queue, const JobqRow *row,
							 int number);

/* The same without the validator: runs no code of users, in bounded time. */
extern void jobq_input_check_data(const JobqQueue *queue, const JobqRow *row,
								  int number);

/* For messages: which of several jobs is meant. */
extern const char *jobq_input_which(int number);

/* ---- validator.c ---- */

/* JQ007 or 42501 if it cannot be the validator of that role's queue. */
extern void jobq_validator_check(const char *name, Oid owner);

/*
 * Run it on a payload as the queue's owner, who may do so: JQ018 unless it
 * returns true. Nothing that it says of the payload is told.
 */
extern void jobq_validator_run(const JobqQueue *queue, const char *name,
							   Datum payload, int number);

#endif							/* JOBQ_INPUT_H */
