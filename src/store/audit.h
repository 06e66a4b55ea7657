/*
 * audit.h: the tables of the audit log. An entry says what was done; it is
 * written by whoever does it. A link of the chain puts an entry into its place
 * for good, and a mark says where the chain ends, or was cut: both are written
 * by the keeper.
 */
#ifndef JOBQ_STORE_AUDIT_H
#define JOBQ_STORE_AUDIT_H

#include "executor/spi.h"
#include "utils/uuid.h"

#include "store/store.h"

/* Columns of jobq.audit_entry. */
typedef enum JobqAuditAttr
{
	AUDIT_ORIGIN,
	AUDIT_ID,
	AUDIT_AT,
	AUDIT_ROLE,
	AUDIT_SESSION_ROLE,
	AUDIT_CLIENT_ADDR,
	AUDIT_APPLICATION_NAME,
	AUDIT_CALL,
	AUDIT_QUEUE,
	AUDIT_JOB_ID,
	AUDIT_OUTCOME,
	AUDIT_SQLSTATE,
	AUDIT_DETAIL,
	AUDIT_LATENCY,
	AUDIT_ARGUMENTS,
	AUDIT_NATTS
} JobqAuditAttr;

/* The same for a query about entries e. */
#define JOBQ_AUDIT_COLUMNS \
	"e.origin, e.id, e.at, e.role, e.session_role, e.client_addr," \
	" e.application_name, e.call, e.queue, e.job_id, e.outcome, e.sqlstate," \
	" e.detail, e.latency_us, e.arguments"

typedef struct JobqAuditEntry
{
	Datum		values[AUDIT_NATTS];
	bool		nulls[AUDIT_NATTS];
} JobqAuditEntry;

#define JOBQ_AUDIT_HASH		32	/* bytes of SHA-256 */

/* Where a chain is: the number of a link, and its hash. */
typedef struct JobqAuditLink
{
	int64		seq;			/* 0 = before the first one; its hash is zero */
	uint8		hash[JOBQ_AUDIT_HASH];
} JobqAuditLink;

/* Which CREATE EXTENSION this is. */
extern const pg_uuid_t *jobq_audit_origin(void);

/* The largest number of an entry of ours, 0 = there is none. As the owner. */
extern int64 jobq_audit_last_entry(void);

/* Write an entry; origin and all else are set. */
extern void jobq_audit_insert_entry(const JobqAuditEntry *entry);

/*
 * The link that follows: its hash is of the one before, the chain's name, its
 * number and all columns of the entry, which is a row of a query that begins
 * with JOBQ_AUDIT_COLUMNS.
 */
extern void jobq_audit_next_link(const JobqAuditLink *previous,
								 const pg_uuid_t *chain, HeapTuple row,
								 TupleDesc desc, JobqAuditLink *next);

/* ---- for the keeper ---- */

extern void jobq_audit_insert_link(const pg_uuid_t *chain,
								   const JobqAuditLink *link, Datum origin,
								   Datum id);
extern void jobq_audit_insert_mark(const pg_uuid_t *chain,
								   const JobqAuditLink *link, bool cut);

/*
 * Inside SPI: the command deletes rows of the log, which nobody else can do by
 * SQL. Returns how many.
 */
extern uint64 jobq_audit_delete(const char *command, int nargs, Oid *types,
								Datum *values);

/* Is such a command at work? */
extern bool jobq_audit_is_deleting(void);

#endif							/* JOBQ_STORE_AUDIT_H */
