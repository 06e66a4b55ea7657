/*
 * report.h: rows of health() and check_install(): an item, its status, what
 * is the case and what helps. Private to src/api.
 */
#ifndef JOBQ_REPORT_H
#define JOBQ_REPORT_H

#include "fmgr.h"
#include "nodes/execnodes.h"

#define JOBQ_OK			"ok"
#define JOBQ_WARNING	"warning"
#define JOBQ_ERROR		"error"

/* 42501 unless the caller is a member of jobq_admin. */
extern void jobq_require_admin(const char *what);

/* The same of jobq_admin or jobq_monitor. */
extern void jobq_require_monitor(const char *what);

extern void jobq_report(ReturnSetInfo *rsinfo, const char *item,
						const char *status, const char *detail,
						const char *hint);

/* Is this server a standby? Is pg_jobq preloaded, and first? */
extern void jobq_report_standby(ReturnSetInfo *rsinfo);
extern void jobq_report_preload(ReturnSetInfo *rsinfo);

/*
 * Something the catalogs tell: the query gives one row with one text, which
 * is null when all is well, else what is not.
 */
typedef struct JobqCheck
{
	const char *item;
	const char *query;
	const char *fine;			/* detail when all is well */
	const char *status;			/* and these three when not */
	const char *wrong;			/* the text, with one %s for what was found */
	const char *hint;
} JobqCheck;

/*
 * Run checks as the extension's owner, with nothing but pg_catalog in the
 * search_path, and report each.
 */
extern void jobq_report_checks(ReturnSetInfo *rsinfo, const JobqCheck *checks,
							   int n);

/* ---- horizon.c ---- */

/* Who keeps old rows from being removed, and the clock. */
extern void jobq_report_horizon(ReturnSetInfo *rsinfo);

#endif							/* JOBQ_REPORT_H */
