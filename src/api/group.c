/*
 * group.c: alter_group(): what is different about one group of a queue.
 * Changes a row of jobq.queue_group, and memory at commit.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "api/args.h"
#include "engine/engine.h"
#include "security/audit.h"
#include "security/security.h"

PG_FUNCTION_INFO_V1(jobq_sql_alter_group);

/* alter_group(queue text, group_key text, options jsonb) → void */
Datum
jobq_sql_alter_group(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;
	JobqGroupRules rules = {0};
	int64		period;
	char	   *name;
	JobqStop	pause;
	text	   *key;
	Jsonb	   *options;

	jobq_begin_write("jobq.alter_group()", &session);
	jobq_xact_steered(&session);
	jobq_arg_required(fcinfo, 0, "queue");
	name = jobq_arg_queue_name(PG_GETARG_TEXT_PP(0), "queue");
	jobq_require_queue(name, JOBQ_PRIV_MANAGE, &queue);
	jobq_arg_required(fcinfo, 1, "group_key");
	key = PG_GETARG_TEXT_PP(1);
	(void) jobq_arg_text(key, "group_key", JOBQ_KEY_MAX);
	jobq_arg_required(fcinfo, 2, "options");
	options = PG_GETARG_JSONB_P(2);
	jobq_group_options_apply(options, &rules);

	jobq_queue_lock_settings(queue.queue_id);
	jobq_require_queue(name, JOBQ_PRIV_MANAGE, &queue);
	jobq_group_read(queue.queue_id, key, &rules, &pause);
	period = rules.rate_limit.period;
	jobq_group_options_apply(options, &rules);
	jobq_group_write(queue.queue_id, key, &rules);
	jobq_xact_group_altered(&session, queue.queue_id, key, &rules);
	if (rules.rate_limit.period != period)
		jobq_xact_epoch_news(&session);
	jobq_audit_act_with(fcinfo, "jobq.alter_group()", queue.queue_id, 0,
						psprintf("group \"%s\", options %s",
								 text_to_cstring(key),
								 JsonbToCString(NULL, &options->root,
												VARSIZE(options))));
	PG_RETURN_VOID();
}
