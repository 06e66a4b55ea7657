/*
 * settle.h: checks that the settling functions share. Private to src/api.
 */
#ifndef JOBQ_API_SETTLE_H
#define JOBQ_API_SETTLE_H

#include "engine/engine.h"

/* JQ004 when a result or progress is larger than the queue takes. */
extern void jobq_check_result_size(const JobqQueue *queue, Datum result);

/* The word for it; `waiting` where the job waits again. */
extern const char *jobq_given_back_word(JobqGivenBack back,
										const char *waiting);

/* Argument on_lost: true = skip, false = error. */
extern bool jobq_arg_on_lost(text *value);

/* By id, for qsort and bsearch. */
extern int	jobq_compare_held_ids(const void *a, const void *b);

#endif							/* JOBQ_API_SETTLE_H */
