/*
 * guc.c: the settings of pg_jobq. The only file that defines any; rules that
 * join two settings are checked where they are used, not here.
 */
#include "postgres.h"

#include <limits.h>

#include "nodes/pg_list.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"
#include "security/redact.h"

#define MIN_LIVE_JOBS			100
#define MAX_LIVE_JOBS			50000000
#define MAX_QUEUES				1000000
#define MAX_DATABASES			10000
#define MIN_RATE_LIMITS			4
#define MAX_RATE_LIMITS			10000
#define MIN_EPOCH_ROWS			100
#define MIN_EPOCH_AGE			100 /* ms */

int			jobq_claim_durability = JOBQ_CLAIM_ASYNC;
int			jobq_max_live_jobs = 140000;
int			jobq_max_queues = 1024;
int			jobq_max_databases = 64;
int			jobq_max_rate_limits = 1000;
char	   *jobq_databases = NULL;
int			jobq_epoch_rows = 1000000;
int			jobq_epoch_age = 3600000;
int			jobq_max_history_size = -1;
int			jobq_audit_retention = 90 * 86400;
static char *redact_patterns = NULL;	/* taken apart when it is assigned */
static int	horizon_warn_after = 300;	/* read by name, in SQL */
bool		jobq_start_paused = false;
int			jobq_access_key = 0;
char	   *jobq_secret_file = NULL;

static const struct config_enum_entry claim_durability_options[] = {
	{"async", JOBQ_CLAIM_ASYNC, false},
	{"on", JOBQ_CLAIM_ON, false},
	{NULL, 0, false}
};

/* Only the syntax: a database named here may be created later. */
static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *raw = pstrdup(*newval);
	List	   *names = NIL;
	bool		valid = SplitGUCList(raw, ',', &names);

	list_free(names);
	pfree(raw);
	if (!valid)
		GUC_check_errdetail("List syntax is invalid.");
	return valid;
}

static bool
check_redact_patterns(char **newval, void **extra, GucSource source)
{
	JobqRedactPatterns patterns;
	const char *wrong = jobq_redact_parse(*newval, &patterns);

	if (wrong != NULL)
		GUC_check_errdetail("%s", wrong);
	return wrong == NULL;
}

static void
assign_redact_patterns(const char *newval, void *extra)
{
	(void) jobq_redact_parse(newval, &jobq_redact_patterns);
}

void
jobq_define_settings(void)
{
	DefineCustomIntVariable("jobq.audit_retention",
							"How long entries of the audit log are kept.",
							"0 means for ever.",
							&jobq_audit_retention,
							90 * 86400,
							0,
							INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL,
							NULL,
							NULL);
	/* a setting so that it ends with its transaction, or by DISCARD ALL */
	DefineCustomIntVariable("jobq.access_key",
							"Set by jobq.use_access_key(), not by hand.",
							NULL,
							&jobq_access_key,
							0,
							0,
							INT_MAX,
							PGC_SUSET,
							GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE |
							GUC_DISALLOW_IN_FILE | GUC_SUPERUSER_ONLY,
							NULL,
							NULL,
							NULL);
	DefineCustomEnumVariable("jobq.claim_durability",
							 "Whether a transaction that only takes jobs waits for the disk.",
							 "A claim lost in a crash means that the job is delivered again.",
							 &jobq_claim_durability,
							 JOBQ_CLAIM_ASYNC,
							 claim_durability_options,
							 PGC_USERSET,
							 0,
							 NULL,
							 NULL,
							 NULL);
	DefineCustomStringVariable("jobq.databases",
							   "Databases whose queues are looked after.",
							   "A list of names, in double quotes where needed; * stands for every database.",
							   &jobq_databases,
							   "*",
							   PGC_SIGHUP,
							   GUC_LIST_INPUT | GUC_SUPERUSER_ONLY,
							   check_databases,
							   NULL,
							   NULL);
	DefineCustomIntVariable("jobq.epoch_rows",
							"Tickets after which jobs go to new tables.",
							"Finished jobs leave the disk with the tables they are in.",
							&jobq_epoch_rows,
							1000000,
							MIN_EPOCH_ROWS,
							INT_MAX,
							PGC_SIGHUP,
							0,
							NULL,
							NULL,
							NULL);
	DefineCustomIntVariable("jobq.epoch_age",
							"Time after which jobs go to new tables.",
							"Counted from the first job; never less than a twenty-fourth of the retention.",
							&jobq_epoch_age,
							3600000,
							MIN_EPOCH_AGE,
							INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL,
							NULL,
							NULL);
	DefineCustomIntVariable("jobq.max_history_size",
							"Disk space that finished jobs may take, in each database.",
							"The oldest go first, whatever their retention; -1 means no limit.",
							&jobq_max_history_size,
							-1,
							-1,
							INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MB,
							NULL,
							NULL,
							NULL);
	DefineCustomStringVariable("jobq.redact_patterns",
							   "What error texts must not show, besides what pg_jobq knows itself.",
							   "A list of shapes, with # for a digit, ? for a letter or digit, * at the end for the rest of the word, and of names, with = at the end, whose values are secret.",
							   &redact_patterns,
							   "",
							   PGC_SUSET,
							   GUC_LIST_INPUT | GUC_SUPERUSER_ONLY,
							   check_redact_patterns,
							   assign_redact_patterns,
							   NULL);
	DefineCustomIntVariable("jobq.horizon_warn_after",
							"How old a transaction may become before jobq.health() warns of it.",
							NULL,
							&horizon_warn_after,
							300,
							0,
							INT_MAX,
							PGC_USERSET,
							GUC_UNIT_S,
							NULL,
							NULL,
							NULL);
	DefineCustomStringVariable("jobq.secret_file",
							   "File with the secrets that keys are made and checked with.",
							   "One secret a line, version:secret; the largest version is the present one.",
							   &jobq_secret_file,
							   "",
							   PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY,
							   NULL,
							   NULL,
							   NULL);
}

void
jobq_define_preload_settings(void)
{
	DefineCustomIntVariable("jobq.max_live_jobs",
							"Jobs held in memory, available or running, in all databases together.",
							"Jobs beyond stay on disk until there is room; 140,000 and 1,024 queues take about 67 MB.",
							&jobq_max_live_jobs,
							140000,
							MIN_LIVE_JOBS,
							MAX_LIVE_JOBS,
							PGC_POSTMASTER,
							0,
							NULL,
							NULL,
							NULL);
	DefineCustomIntVariable("jobq.max_queues",
							"Queues held in memory, in all databases together.",
							NULL,
							&jobq_max_queues,
							1024,
							1,
							MAX_QUEUES,
							PGC_POSTMASTER,
							0,
							NULL,
							NULL,
							NULL);
	DefineCustomIntVariable("jobq.max_databases",
							"Databases that can have the extension.",
							NULL,
							&jobq_max_databases,
							64,
							1,
							MAX_DATABASES,
							PGC_POSTMASTER,
							0,
							NULL,
							NULL,
							NULL);
	DefineCustomIntVariable("jobq.max_rate_limits",
							"Names of rate_limit_take() held in memory, in all databases together.",
							"One role may have a fourth of them in use.",
							&jobq_max_rate_limits,
							1000,
							MIN_RATE_LIMITS,
							MAX_RATE_LIMITS,
							PGC_POSTMASTER,
							0,
							NULL,
							NULL,
							NULL);
	DefineCustomBoolVariable("jobq.start_paused",
							 "Whether all queues start as those of a copy: paused until jobq.adopt() is called.",
							 "For physical copies, which cannot be told from the original.",
							 &jobq_start_paused,
							 false,
							 PGC_POSTMASTER,
							 0,
							 NULL,
							 NULL,
							 NULL);
	MarkGUCPrefixReserved("jobq");
}
