/*
 * job.h: a new job as a caller describes it, made into a row. Private to
 * src/api.
 */
#ifndef JOBQ_JOB_H
#define JOBQ_JOB_H

#include "utils/jsonb.h"

#include "engine/engine.h"

/* What was said of it; NULL, or 0 attempts, stands for the default. */
typedef struct JobqJobArgs
{
	text	   *kind;
	text	   *group_key;
	text	   *unique_key;
	int64		priority;
	int64		max_attempts;
	TimestampTz run_at;
	Jsonb	   *headers;
} JobqJobArgs;

/* At which positions a function has arguments of a job that others have, too. */
typedef struct JobqJobArgnos
{
	int			kind;
	int			group_key;
	int			priority;
	int			max_attempts;
	int			headers;
} JobqJobArgnos;

extern void jobq_job_read_args(FunctionCallInfo fcinfo,
							   const JobqJobArgnos *at, JobqJobArgs *args);

/* JQ004 if payload and headers have too many bytes for the queue. */
extern void jobq_job_check_size(const JobqQueue *queue, int64 bytes);

/* All columns but payload, expiry, ticket, id and queue. */
extern void jobq_job_fill(const JobqJobArgs *args, const JobqQueue *queue,
						  TimestampTz now, JobqRow *row);

/* To be called once run_at is set; NULL = as the queue's ttl says. */
extern void jobq_job_set_expiry(const TimestampTz *expires_at,
								const JobqQueue *queue, JobqRow *row);
extern void jobq_job_set_payload(Datum payload, JobqRow *row);

/* The payload of a job without one. */
extern Datum jobq_job_no_payload(void);

#endif							/* JOBQ_JOB_H */
