/*
 * rate.c: rate_limit_take(). Arguments and errors; counting is the business of
 * dispatch/rate.c. EXECUTE says who may call it: names are the caller's own.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "api/args.h"
#include "compat.h"
#include "dispatch/rate.h"
#include "engine/engine.h"
#include "errors.h"
#include "guc.h"

#define PERIOD_MIN		1000	/* us */

PG_FUNCTION_INFO_V1(jobq_sql_rate_limit_take);

static void
read_call(FunctionCallInfo fcinfo, JobqRateCall *call)
{
	memset(call, 0, sizeof(*call));
	call->owner = GetUserId();
	jobq_arg_required(fcinfo, 0, "name");
	call->name = jobq_arg_name(PG_GETARG_TEXT_PP(0), "name");
	jobq_arg_required(fcinfo, 1, "limit");
	call->rate.limit = (int32) jobq_arg_int(PG_GETARG_INT64(1), "limit", 1,
											JOBQ_RATE_MAX);
	jobq_arg_required(fcinfo, 2, "period");
	call->rate.period = jobq_arg_interval(PG_GETARG_INTERVAL_P(2), "period",
										  PERIOD_MIN, JOBQ_PERIOD_MAX);
	call->cost = 1;
	if (!PG_ARGISNULL(3))
		call->cost = (int32) jobq_arg_int(PG_GETARG_INT64(3), "cost", 0,
										  JOBQ_RATE_MAX);
	if (call->cost > call->rate.limit)
		jobq_bad_argument("cost",
						  psprintf("It is larger than the limit, %d, so that there will never be room for it.",
								   call->rate.limit));
}

static void
raise_no_room(JobqRated rated, const JobqRateCall *call)
{
	if (rated == RATE_OWNER_FULL)
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_QUEUE_FULL),
				 errmsg("role \"%s\" has too many names of rate limits in use",
						GetUserNameFromId(call->owner, false)),
				 errdetail("One role may have %d at once; each is in use until its period has passed.",
						   jobq_rates_of_owner()),
				 errhint("Use fewer names or shorter periods, or raise jobq.max_rate_limits, four times as many, and restart the server.")));
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_QUEUE_FULL),
			 errmsg("too many names of rate limits are in use"),
			 errdetail("There is room for %d; each is in use until its period has passed.",
					   jobq_max_rate_limits),
			 errhint("Try again later, use fewer names or shorter periods, or raise jobq.max_rate_limits and restart the server.")));
}

/*
 * rate_limit_take(name text, limit bigint, period interval, cost bigint)
 *	→ TABLE(allowed, remaining, reset_at, retry_after)
 */
Datum
jobq_sql_rate_limit_take(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;
	JobqRateCall call;
	JobqRated	rated;
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};
	double		wait = 0;

	jobq_begin_write("jobq.rate_limit_take()", &session);
	read_call(fcinfo, &call);
	jobq_await_ready(&session, JOBQ_DEQUEUE_WAIT_MS);
	rated = jobq_rate_take(session.db, session.gen, &call);
	if (rated == RATE_REFUSED)
		wait = (double) Max(call.retry_at - call.now, 1) / USECS_PER_SEC;
	else if (rated != RATE_ALLOWED)
		raise_no_room(rated, &call);

	InitMaterializedSRF(fcinfo, 0);
	values[0] = BoolGetDatum(rated == RATE_ALLOWED);
	values[1] = Int64GetDatum(Max(call.rate.limit - call.used, 0));
	values[2] = TimestampTzGetDatum(call.reset_at);
	values[3] = Float8GetDatum(wait);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
