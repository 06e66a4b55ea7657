/*
 * audit.h: what everybody writes down who has done something that must be
 * accounted for. Nothing here takes a payload, a result, an error text or a
 * secret: details are what a function of ours says itself.
 *
 * An act is a row of jobq.audit_entry in the transaction that does it: one that
 * is rolled back has not happened. A refusal goes through shared memory to the
 * keeper, since the statement that is refused leaves nothing behind.
 */
#ifndef JOBQ_AUDIT_H
#define JOBQ_AUDIT_H

#include "fmgr.h"
#include "nodes/pg_list.h"

#include "store/store.h"

/*
 * The call that this session is in, such as "jobq.enqueue()"; NULL = none that
 * says so. jobq_begin_write() sets it, jobq_begin_read() clears it; it lives
 * as long as a string constant.
 */
extern const char *jobq_audit_call;

/*
 * The call is about to be refused: to be called right before the ereport.
 * call NULL: jobq_audit_call. queue_id, job_id 0: none, or not known. Never
 * raises an error, and does nothing on a standby.
 */
extern void jobq_audit_refusal(const char *call, int32 queue_id, int64 job_id,
							   int sqlstate, const char *detail);

/*
 * An administrative act has succeeded; as the role that did it, not as the
 * extension's owner. detail may be NULL. The second form adds the names of the
 * call's arguments and how many bytes each has.
 */
extern void jobq_audit_act(const char *call, int32 queue_id, int64 job_id,
						   const char *detail);
extern void jobq_audit_act_with(FunctionCallInfo fcinfo, const char *call,
								int32 queue_id, int64 job_id,
								const char *detail);

/*
 * Jobs that a call takes or settles in queues with the option "audit": first
 * noted one by one, then written, a row for each queue. Ask queue->audit
 * before noting, so that other queues pay for nothing.
 */
typedef struct JobqAuditJobs
{
	int			n;
	int			room;
	struct JobqAuditJob *jobs;
} JobqAuditJobs;

extern void jobq_audit_note(JobqAuditJobs *jobs, int32 queue_id, int64 id);
extern void jobq_audit_claimed(const char *call, const JobqAuditJobs *jobs);
extern void jobq_audit_settled(const char *call, const char *what,
							   const JobqAuditJobs *jobs);

#endif							/* JOBQ_AUDIT_H */
