/*
 * record.h: writing an entry of the audit log from what is known of it; for
 * audit.c, and for the keeper, which does so for those who were refused.
 */
#ifndef JOBQ_RECORD_H
#define JOBQ_RECORD_H

#include "dispatch/audit.h"
#include "engine/engine.h"
#include "utils/jsonb.h"

/*
 * Write it, in the present transaction; its number comes back. detail is used
 * instead of that of `what`; arguments may be NULL.
 */
extern int64 jobq_audit_write(const JobqSession *session,
							  const JobqRefusal *what, const char *outcome,
							  const char *detail, Jsonb *arguments);

#endif							/* JOBQ_RECORD_H */
