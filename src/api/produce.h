/*
 * produce.h: checks of what a job is made of, for whoever enqueues one or will.
 * Private to src/api. Each raises JQ007 naming its argument.
 */
#ifndef JOBQ_PRODUCE_H
#define JOBQ_PRODUCE_H

#include "fmgr.h"
#include "store/store.h"

/* An object, without what pg_jobq itself says of a job's origin. */
extern void jobq_check_headers(Jsonb *headers);

/* A text argument that goes into a column as it is; NULL leaves it alone. */
extern void jobq_set_key(FunctionCallInfo fcinfo, int argno, const char *name,
						 JobqRow *row, int attr);

#endif							/* JOBQ_PRODUCE_H */
