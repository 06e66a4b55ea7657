/*
 * audit.h: what shared memory keeps for the audit log: refusals that the keeper
 * has not written yet, numbers of entries, and which of them are news.
 */
#ifndef JOBQ_DISPATCH_AUDIT_H
#define JOBQ_DISPATCH_AUDIT_H

#include "dispatch/dispatch.h"

#define JOBQ_REFUSAL_CALL		48
#define JOBQ_REFUSAL_DETAIL		208
#define JOBQ_CLIENT_ADDR		64

/* The outcomes of what goes this way. */
typedef enum JobqRefusalKind
{
	JOBQ_REFUSED,
	JOBQ_CLAIM_ROLLED_BACK
} JobqRefusalKind;

typedef struct JobqRefusal
{
	TimestampTz at;
	int64		job_id;			/* 0 = none */
	int64		latency;		/* us */
	Oid			role;
	Oid			session_role;
	int32		queue_id;		/* 0 = none */
	int			sqlstate;		/* 0 = none */
	JobqRefusalKind kind;
	char		call[JOBQ_REFUSAL_CALL];
	char		client_addr[JOBQ_CLIENT_ADDR];	/* empty = none */
	char		application_name[NAMEDATALEN];
	char		detail[JOBQ_REFUSAL_DETAIL];
} JobqRefusal;

/*
 * Keep one for this process's database until its keeper has written it; when
 * there is no room it is counted instead.
 */
extern void jobq_refusal_put(JobqDb *db, const JobqRefusal *refusal);

/*
 * Keeper: copy the first ones; their number comes back, and how many more
 * there was no room for since the last time. And: these are written.
 */
extern int	jobq_refusal_look(JobqDb *db, int max, JobqRefusal *refusals,
							  int64 *lost);
extern void jobq_refusal_written(JobqDb *db, int n, int64 lost);

/* The database is gone. */
extern void jobq_refusals_forget(JobqDb *db);

/* For health(): how many wait, how many were lost since the server started. */
extern int	jobq_refusal_count(JobqDb *db, int64 *lost_ever);

/*
 * The next number of an entry; 0: say first up to which the table has any;
 * -1: what was known of the database has been forgotten since.
 */
extern int64 jobq_audit_take_number(JobqDb *db, uint32 gen);
extern void jobq_audit_set_number(JobqDb *db, uint32 gen, int64 last);

/* Entries from this number on have been committed: for the keeper. */
extern void jobq_audit_news(JobqDb *db, uint32 gen, int64 first);

/* Keeper: are there any? And: take the first of them, JOBQ_NEVER = none. */
extern bool jobq_audit_has_news(JobqDb *db);
extern int64 jobq_audit_take_news(JobqDb *db);

#endif							/* JOBQ_DISPATCH_AUDIT_H */
