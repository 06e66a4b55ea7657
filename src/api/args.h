/*
 * args.h: checks of arguments and options that several functions share.
 *
 * Every function here raises JQ007 naming the argument or option it was given
 * and what would be valid. Never reads tables or shared memory.
 */
#ifndef JOBQ_ARGS_H
#define JOBQ_ARGS_H

#include "fmgr.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "compat.h"

#define JOBQ_PRIORITY_MIN	(-100)
#define JOBQ_PRIORITY_MAX	100
#define JOBQ_DELAY_MAX		(INT64CONST(36525) * USECS_PER_DAY) /* 100 years */

/* JQ007: invalid value for "name"; detail is a full sentence. */
JOBQ_NORETURN extern void jobq_bad_argument(const char *name,
											const char *detail);

/* A caller's text as messages show it: cut to what a name may have. */
extern const char *jobq_shown(const char *text);

/* A required argument: JQ007 "argument "name" must not be null". */
extern void jobq_arg_required(FunctionCallInfo fcinfo, int argno,
							  const char *name);

/* A queue's name: 1 to 63 bytes, no control characters. NUL-terminated. */
extern char *jobq_arg_queue_name(text *value, const char *name);

/* The same for the name of something else. */
extern char *jobq_arg_name(text *value, const char *name);

/*
 * Interval to microseconds (a month counts 30 days, a day 24 hours), between
 * min and max inclusive, no overflow, no infinity.
 */
extern int64 jobq_arg_interval(const Interval *value, const char *name,
							   int64 min_us, int64 max_us);

/* A number in [min, max]. */
extern int64 jobq_arg_int(int64 value, const char *name, int64 min, int64 max);

/* A finite point in time. */
extern TimestampTz jobq_arg_time(TimestampTz value, const char *name);

/* One-dimensional array of bigint without NULLs; NULL or empty gives 0. */
extern int	jobq_arg_ids(FunctionCallInfo fcinfo, int argno, const char *name,
						 int64 **ids);

/* A jsonb object (for headers and the like). */
extern void jobq_arg_object(Jsonb *value, const char *name);

/* Free text of at most max bytes, valid for storing; cut is not our business. */
extern char *jobq_arg_text(text *value, const char *name, int max_bytes);

/*
 * Interval given inside jsonb: a string that interval_in takes, or a number,
 * which is seconds.
 */
extern int64 jobq_jsonb_interval(const JsonbValue *value, const char *name,
								 int64 min_us, int64 max_us);

/* Numbers inside jsonb, in [min, max]; an integer must be whole, up to 2^53. */
extern int64 jobq_jsonb_int(const JsonbValue *value, const char *name,
							int64 min, int64 max);
extern double jobq_jsonb_number(const JsonbValue *value, const char *name,
								double min, double max);

/* A string inside jsonb, NUL-terminated. */
extern char *jobq_jsonb_string(const JsonbValue *value, const char *name);

/* A finite point in time inside jsonb: date, time and offset, or Z. */
extern TimestampTz jobq_jsonb_time(const JsonbValue *value, const char *name);

#endif							/* JOBQ_ARGS_H */
