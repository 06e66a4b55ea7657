/*
 * look.c: the SQL face of looking: jobs, attempts and queues.
 * Checks who may see a queue; jobs are checked row by row in the engine. Must
 * never write.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "api/args.h"
#include "api/seeing.h"
#include "compat.h"
#include "engine/look.h"
#include "security/seal.h"
#include "security/security.h"

/* Columns of view queues, in the order of SQL_QUEUES. */
typedef enum QueueAttr
{
	QUEUES_QUEUE,
	QUEUES_ID,
	QUEUES_OWNER,
	QUEUES_PAUSED,
	QUEUES_DRAINING,
	QUEUES_OPTIONS,
	QUEUES_CREATED_AT,
	QUEUES_PAUSED_BY,
	QUEUES_PAUSED_AT,
	QUEUES_DRAINING_BY,
	QUEUES_DRAINING_AT,
	QUEUES_NATTS
} QueueAttr;

#define SQL_QUEUES \
	"SELECT q.queue, q.queue_id, q.owner, q.paused, q.draining, q.options," \
	" q.created_at, q.paused_by, q.paused_at, q.draining_by, q.draining_at" \
	" FROM jobq.queue q WHERE q.queue_id = ANY ($1) ORDER BY q.queue_id"

PG_FUNCTION_INFO_V1(jobq_view_jobs);
PG_FUNCTION_INFO_V1(jobq_view_history);
PG_FUNCTION_INFO_V1(jobq_view_dead_jobs);
PG_FUNCTION_INFO_V1(jobq_view_groups);
PG_FUNCTION_INFO_V1(jobq_view_queues);
PG_FUNCTION_INFO_V1(jobq_sql_job);
PG_FUNCTION_INFO_V1(jobq_sql_attempts);
PG_FUNCTION_INFO_V1(jobq_sql_payload);

/* id 0 = all jobs. */
static Datum
show_jobs(FunctionCallInfo fcinfo, JobqLookWhat what, int64 id)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;

	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	jobq_show_jobs(&session, what, id, rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

Datum
jobq_view_jobs(PG_FUNCTION_ARGS)
{
	return show_jobs(fcinfo, LOOK_LIVE, 0);
}

Datum
jobq_view_history(PG_FUNCTION_ARGS)
{
	return show_jobs(fcinfo, LOOK_FINAL, 0);
}

Datum
jobq_view_dead_jobs(PG_FUNCTION_ARGS)
{
	return show_jobs(fcinfo, LOOK_DEAD, 0);
}

Datum
jobq_view_groups(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;

	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	jobq_show_groups(&session, rsinfo->setResult, rsinfo->setDesc);
	return (Datum) 0;
}

Datum
jobq_sql_job(PG_FUNCTION_ARGS)
{
	int64		id;

	jobq_arg_required(fcinfo, 0, "id");
	id = PG_GETARG_INT64(0);
	if (id <= 0)
	{
		InitMaterializedSRF(fcinfo, 0);
		return (Datum) 0;
	}
	return show_jobs(fcinfo, LOOK_ANY, id);
}

Datum
jobq_sql_attempts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;

	jobq_arg_required(fcinfo, 0, "id");
	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	jobq_show_attempts(&session, PG_GETARG_INT64(0), rsinfo->setResult,
					   rsinfo->setDesc);
	return (Datum) 0;
}

/* _payload(payload jsonb, sealed bytea, queue_id int, id bigint) → jsonb */
Datum
jobq_sql_payload(PG_FUNCTION_ARGS)
{
	JobqSession session;
	JobqQueue	queue;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
	{
		if (PG_ARGISNULL(0))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	}
	jobq_begin_read(&session);
	if (!jobq_queue_by_id(PG_GETARG_INT32(2), &queue) ||
		(queue.my_privileges & JOBQ_PRIV_OPEN) == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(jobq_unseal_payload(PG_GETARG_DATUM(1),
										PG_GETARG_INT32(2),
										PG_GETARG_INT64(3)));
}

static ArrayType *
queue_ids(const JobqQueue *queues, int nqueues)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(nqueues, 1));

	for (int i = 0; i < nqueues; i++)
		ids[i] = Int32GetDatum(queues[i].queue_id);
	return construct_array(ids, nqueues, INT4OID, sizeof(int32), true,
						   TYPALIGN_INT);
}

/* A role's name in the place of its number; one that is gone keeps that. */
static void
name_role(Datum *values, bool *nulls, QueueAttr attr)
{
	if (!nulls[attr])
		values[attr] =
			CStringGetTextDatum(jobq_role_shown(DatumGetObjectId(values[attr])));
}

Datum
jobq_view_queues(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;
	JobqOwnerContext owner;
	JobqQueue  *queues;
	int			nqueues;
	Oid			types[1] = {INT4ARRAYOID};
	Datum		args[1];

	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	nqueues = jobq_visible_queues(&queues);
	args[0] = PointerGetDatum(queue_ids(queues, nqueues));

	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(SQL_QUEUES, 1, types, args, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the queues");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[QUEUES_NATTS];
		bool		nulls[QUEUES_NATTS];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
						  values, nulls);
		name_role(values, nulls, QUEUES_OWNER);
		name_role(values, nulls, QUEUES_PAUSED_BY);
		name_role(values, nulls, QUEUES_DRAINING_BY);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	PopActiveSnapshot();
	jobq_disconnect(&owner);
	return (Datum) 0;
}
