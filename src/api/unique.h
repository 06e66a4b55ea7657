/*
 * unique.h: the words of unique keys, shared by the functions that enqueue.
 * Private to src/api.
 */
#ifndef JOBQ_API_UNIQUE_H
#define JOBQ_API_UNIQUE_H

#include "engine/engine.h"

/* What enqueue does without any of the arguments. */
extern void jobq_unique_defaults(JobqUnique *unique);

/* JQ007 for a word that is none. */
extern JobqOnConflict jobq_unique_on_conflict(const char *word);
extern JobqUniqueWhile jobq_unique_while(const char *word);

/* JQ007 for what contradicts itself. */
extern void jobq_unique_check(const JobqUnique *unique);

extern const char *jobq_enqueued_word(JobqEnqueued outcome);

#endif							/* JOBQ_API_UNIQUE_H */
