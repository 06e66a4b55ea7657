/*
 * security.h: who may do what. Checks always concern the current effective
 * role (GetUserId()), taken before any switch of user.
 */
#ifndef JOBQ_SECURITY_H
#define JOBQ_SECURITY_H

#include "nodes/pg_list.h"
#include "utils/array.h"

#include "store/store.h"

/* May call what keys give, and has no privilege of its own by that. */
#define JOBQ_ROLE_KEY_USER	"jobq_key_user"

/* A role's name; its number when it is gone, a minus sign for nobody. */
extern char *jobq_role_shown(Oid role);

/* Superuser, or member of jobq_admin: may do everything with every queue. */
extern bool jobq_is_admin(Oid role);

/* Admin or member of jobq_monitor: may see names, options and counts. */
extern bool jobq_is_monitor(Oid role);

/* May use access keys. */
extern bool jobq_is_key_user(Oid role);

/*
 * Counts up whenever what a role may do may have changed: kept privileges are
 * right as long as it is the same as before they were looked up.
 */
extern uint64 jobq_role_changes(void);

/* JOBQ_PRIV_* of a role on a queue, for queue.c to fill in and keep. */
extern int	jobq_role_privileges(Oid role, Oid owner, const Oid *grantees,
								 const int *privileges, int n);

/*
 * Find a queue by name and demand all of the privileges. JQ002 when it does
 * not exist or the caller has no privilege on it at all; 42501 when it has
 * some, but not these.
 */
extern void jobq_require_queue(const char *name, int privileges,
							   JobqQueue *queue);

/* The last part of it, for a queue already looked up. */
extern void jobq_check_queue(const JobqQueue *queue, int privileges);

/*
 * The same, of the role itself and without what a key adds, for what goes on
 * when the key is not in use any more.
 */
extern void jobq_check_role(const JobqQueue *queue, int privileges);

/*
 * May the current role do what the one that enqueued a job of this queue may?
 * Those who use keys share their role, so they need some privilege on the
 * queue besides.
 */
extern bool jobq_is_enqueuer(const JobqQueue *queue, Oid enqueued_by);

/*
 * May the current role see all jobs of the queue, whoever enqueued them? And
 * what is counted of all of them? Monitors may see the latter.
 */
extern bool jobq_reads_queue(const JobqQueue *queue);
extern bool jobq_counts_queue(const JobqQueue *queue);

/* JOBQ_PRIV_* of a privilege's name, 0 = there is none; names of several. */
extern int	jobq_privilege_bit(const char *name);
extern char *jobq_privilege_list(int privileges);

/*
 * Run as the extension's owner with a pinned search_path, for SPI. Leave
 * restores both; an error restores them by itself. caller is for acl.c.
 */
typedef struct JobqOwnerContext
{
	Oid			role;
	Oid			caller;
	int			sec_context;
	int			guc_level;
} JobqOwnerContext;

extern void jobq_become_owner(JobqOwnerContext *context);
extern void jobq_leave_owner(JobqOwnerContext *context);

/* The role that has called: the current one, or that before we became the owner. */
extern Oid	jobq_caller(void);

/* The same together with SPI. */
extern void jobq_connect_as_owner(JobqOwnerContext *context);
extern void jobq_disconnect(JobqOwnerContext *context);

/*
 * Inside SPI: run a command and return the number of its rows; anything but
 * the expected SPI_OK_* is a bug.
 */
extern uint64 jobq_execute(const char *command, int nargs, Oid *types,
						   Datum *values, int expected);

/* ---- grant.c ---- */

/* JOBQ_PRIV_* of an argument "privileges", a text[]; JQ007. And back. */
extern int	jobq_arg_privileges(ArrayType *array);
extern Datum jobq_privilege_array(int privileges);

/*
 * Give a role EXECUTE and SELECT on what these privileges need; take all of
 * it back from a role that has no privilege on any queue any more. Run as the
 * extension's owner, under jobq_queue_lock().
 */
extern void jobq_give_calls(Oid role, int privileges);
extern void jobq_take_calls_back(Oid role);

/* ---- owned.c: DROP OWNED and REASSIGN OWNED have just been run ---- */

extern void jobq_drop_owned(const List *roles);
extern void jobq_reassign_owned(const List *roles, Oid owner);

#endif							/* JOBQ_SECURITY_H */
