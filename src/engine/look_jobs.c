/*
 * look_jobs.c: the rows of the views jobs, history and dead_jobs and of
 * jobq.job(), from the tables under one fresh snapshot, with what runs taken
 * from shared memory. Must never show a job its caller may not see.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "engine/look.h"
#include "engine/place.h"
#include "security/seal.h"

#define LOOK_FETCH		1000	/* rows handled at a time */

/*
 * Columns of jobq.job_info. The queries below give the same columns in the
 * same order, with queue and role as numbers and the state as one letter, and
 * more: those of jobq.job_row, the ticket, whether the job was ever started,
 * and who took the lease under which it has ended.
 */
typedef enum InfoAttr
{
	INFO_ID,
	INFO_QUEUE,
	INFO_KIND,
	INFO_STATE,
	INFO_IS_FINAL,
	INFO_PRIORITY,
	INFO_GROUP_KEY,
	INFO_UNIQUE_KEY,
	INFO_RUN_AT,
	INFO_ATTEMPT,
	INFO_MAX_ATTEMPTS,
	INFO_ENQUEUED_AT,
	INFO_ENQUEUED_BY,
	INFO_EXPIRES_AT,
	INFO_WORKER,
	INFO_LEASE_EXPIRES_AT,
	INFO_FINISHED_AT,
	INFO_LAST_ERROR,
	INFO_PROGRESS,
	INFO_RETRY_OF,
	INFO_MOVED_TO,
	INFO_RESULT,
	INFO_PAYLOAD,
	INFO_HEADERS,
	INFO_NATTS,
	INFO_SEALED = INFO_NATTS,	/* from here on jobq.job_row */
	INFO_QUEUE_ID,
	INFO_TICKET,
	INFO_STARTED,
	INFO_LESSEE,
	INFO_NQUERY
} InfoAttr;

/* INFO_STATE as the queries give it; final ones are the letters of "ended" */
#define STATE_AVAILABLE		'a'

/*
 * Numbers of epochs are the only thing ever put into a text: %1$d, and inside
 * %2$s, where the tickets come from. Of one job only its newest ticket counts;
 * the LIMIT tells the planner, which has no statistics, that it is one row.
 */
#define SQL_ALL_TICKETS	"jobq.job_%1$d"
#define SQL_NEWEST_TICKET \
	"(SELECT t.* FROM jobq.job_%1$d t WHERE t.id = $1" \
	" ORDER BY t.ticket DESC LIMIT 1)"

#define COLUMNS_BEHIND \
	" j.payload, j.headers, j.sealed, j.queue_id, j.ticket," \
	" j.attempts IS NOT NULL"

#define SQL_BELT_LIVE \
	"SELECT j.id, j.queue_id, j.kind, 'a'::\"char\", false, j.priority::int4," \
	" j.group_key, j.unique_key, j.run_at, j.attempt, j.max_attempts," \
	" j.enqueued_at, j.enqueued_by, j.expires_at, NULL::text," \
	" NULL::timestamptz, NULL::timestamptz, j.last_error, j.progress," \
	" j.retry_of, NULL::int8, NULL::jsonb, " COLUMNS_BEHIND \
	", NULL::jobq.role" \
	" FROM %2$s j WHERE NOT EXISTS" \
	" (SELECT FROM jobq.outcome_%1$d o WHERE o.ticket = j.ticket)"

#define SQL_BELT_FINAL \
	"SELECT j.id, j.queue_id, j.kind, o.ended, true, j.priority::int4," \
	" j.group_key, j.unique_key, j.run_at, j.attempt +" \
	" CASE WHEN o.attempt_outcome = ANY ('{c,f,l,b}'::\"char\"[])" \
	" OR o.attempt_outcome = 'x'::\"char\" AND o.lease IS NOT NULL" \
	" THEN 1 ELSE 0 END, j.max_attempts," \
	" j.enqueued_at, j.enqueued_by, j.expires_at," \
	" coalesce(o.worker, c.worker), NULL::timestamptz, o.finished_at," \
	" CASE WHEN o.ended = 'x' THEN coalesce(o.reason, o.error, j.last_error)" \
	" ELSE coalesce(o.error, o.reason, j.last_error) END," \
	" coalesce(c.progress, j.progress), j.retry_of, o.moved_to, o.result," \
	" " COLUMNS_BEHIND \
	", c.claimed_by" \
	" FROM %2$s j JOIN jobq.outcome_%1$d o ON o.ticket = j.ticket" \
	" LEFT JOIN jobq.claim_%1$d c ON c.ctid = o.claim_tid" \
	" AND c.lease = o.lease" \
	" WHERE o.ended = ANY ('{c,x,e}'::\"char\"[])"

#define SQL_SHELF_LIVE \
	"SELECT j.id, j.queue_id, j.kind, j.state, false, j.priority::int4," \
	" j.group_key, j.unique_key, j.run_at, j.attempt, j.max_attempts," \
	" j.enqueued_at, j.enqueued_by, j.expires_at, NULL::text," \
	" NULL::timestamptz, NULL::timestamptz, j.last_error, j.progress," \
	" j.retry_of, NULL::int8, NULL::jsonb, " COLUMNS_BEHIND \
	", NULL::jobq.role" \
	" FROM jobq.shelf j WHERE j.state <> 'd'::\"char\""

#define SQL_SHELF_DEAD \
	"SELECT j.id, j.queue_id, j.kind, j.state, true, j.priority::int4," \
	" j.group_key, j.unique_key, NULL::timestamptz, j.attempt," \
	" j.max_attempts, j.enqueued_at, j.enqueued_by, j.expires_at," \
	" NULL::text, NULL::timestamptz, j.died_at, j.last_error, j.progress," \
	" j.retry_of, j.moved_to, NULL::jsonb, " COLUMNS_BEHIND \
	", NULL::jobq.role" \
	" FROM jobq.shelf j WHERE j.state = 'd'::\"char\""

#define SQL_NOT_RERUN	" AND j.rerun_as IS NULL"
#define SQL_ONE_JOB		" AND j.id = $1"
#define SQL_IN_GROUP	" AND j.group_key IS NOT NULL"

static const char *
state_word(char state)
{
	switch (state)
	{
		case STATE_AVAILABLE:
			return "available";
		case SHELF_SCHEDULED:
			return "scheduled";
		case SHELF_RETRYABLE:
			return "retryable";
		case ENDED_COMPLETED:
			return "completed";
		case ENDED_CANCELLED:
			return "cancelled";
		case ENDED_DEAD:
			return "dead";
		case ENDED_EXPIRED:
			return "expired";
	}
	elog(ERROR, "unknown state \"%c\" of a job", state);
	return NULL;
}

/* Add what only the slot of a running job and its claim know. */
static void
look_add_lease(JobqBelts *belts, JobqHolder *holder, Datum *values,
			   bool *nulls)
{
	Datum		claim[CLAIM_NATTS];
	bool		claim_nulls[CLAIM_NATTS];

	jobq_look_set(values, nulls, INFO_STATE, CStringGetTextDatum("running"));
	jobq_look_set(values, nulls, INFO_LEASE_EXPIRES_AT,
			  TimestampTzGetDatum(holder->l.expires_at));
	if (holder->l.worker[0] != '\0')
		jobq_look_set(values, nulls, INFO_WORKER,
				  CStringGetTextDatum(holder->l.worker));

	if (ItemPointerIsValid(&holder->l.claim_tid) &&
		jobq_belt_read_claim(belts->rel[BELT_CLAIM], &holder->l.claim_tid,
							 holder->l.lease, claim, claim_nulls) &&
		!claim_nulls[CLAIM_PROGRESS])
		jobq_look_set(values, nulls, INFO_PROGRESS, claim[CLAIM_PROGRESS]);
}

static bool
was_rolled_back(const JobqOutcomeRow *outcome)
{
	return !outcome->nulls[OUT_ATTEMPT_OUTCOME] &&
		DatumGetChar(outcome->values[OUT_ATTEMPT_OUTCOME]) ==
		ATTEMPT_ROLLED_BACK;
}

/* A job that is available, but for its group, is blocked. */
static void
look_at_group(JobqLook *look, Datum *values, bool *nulls)
{
	JobqGroupKey group;

	if (nulls[INFO_GROUP_KEY])
		return;
	group = jobq_group_of(values[INFO_GROUP_KEY]);
	if (jobq_group_blocks(look->session.db, look->session.gen,
						  DatumGetInt32(values[INFO_QUEUE_ID]), &group,
						  DatumGetBool(values[INFO_STARTED])))
		jobq_look_set(values, nulls, INFO_STATE,
					  CStringGetTextDatum("blocked"));
}

/*
 * A ticket without an outcome is available, unless shared memory knows it
 * as running, or as claimed and rolled back. When it is not in memory it may
 * have ended since the snapshot; then its outcome tells what it was.
 */
static void
look_at_holder(JobqLook *look, JobqBelts *belts, int64 id, int64 ticket,
			   Datum *values, bool *nulls)
{
	JobqHolder	holder;
	JobqOutcomeRow outcome;

	switch (jobq_look_holder(look, id, ticket, &holder))
	{
		case HOLDER_NONE:
			look_at_group(look, values, nulls);
			return;
		case HOLDER_WORKER:
			if (holder.rolled_back)
				jobq_look_set(values, nulls, INFO_STATE,
						  CStringGetTextDatum(state_word(SHELF_RETRYABLE)));
			else
				look_add_lease(belts, &holder, values, nulls);
			break;
		case HOLDER_UNKNOWN:
			if (!jobq_belt_read_outcome(belts->rel[BELT_OUTCOME], ticket,
										&outcome))
			{
				look_at_group(look, values, nulls);
				return;
			}
			if (outcome.nulls[OUT_LEASE])
				return;
			jobq_look_set(values, nulls, INFO_STATE,
					  CStringGetTextDatum(was_rolled_back(&outcome) ?
										  state_word(SHELF_RETRYABLE) :
										  "running"));
			break;
	}
	values[INFO_ATTEMPT] =
		Int32GetDatum(DatumGetInt32(values[INFO_ATTEMPT]) + 1);
}

/*
 * A sealed payload is NULL, unless it is to be shown at once: by jobq.job(), to
 * somebody who may open it. Who gets a job_row opens what is asked for.
 */
static void
look_at_payload(JobqLook *look, const JobqLookQueue *queue, Datum *values,
				bool *nulls)
{
	nulls[INFO_PAYLOAD] = true;
	if (look->groups == NULL && look->desc->natts == INFO_NATTS &&
		queue->opens)
		jobq_look_set(values, nulls, INFO_PAYLOAD,
					  jobq_unseal_payload(values[INFO_SEALED],
										  DatumGetInt32(values[INFO_QUEUE_ID]),
										  DatumGetInt64(values[INFO_ID])));
}

/* Who has leased the job of a row; for callers who may have. */
static Oid
look_for_lessee(JobqLook *look, const Datum *values, const bool *nulls)
{
	JobqHolder	holder;

	if (!nulls[INFO_LESSEE])
		return DatumGetObjectId(values[INFO_LESSEE]);
	if (DatumGetChar(values[INFO_STATE]) != STATE_AVAILABLE ||
		jobq_look_holder(look, DatumGetInt64(values[INFO_ID]),
						 DatumGetInt64(values[INFO_TICKET]),
						 &holder) != HOLDER_WORKER || holder.rolled_back)
		return InvalidOid;
	return holder.l.claimed_by;
}

static void
look_add_row(JobqLook *look, JobqBelts *belts, HeapTuple tuple, TupleDesc desc)
{
	Datum		values[INFO_NQUERY];
	bool		nulls[INFO_NQUERY];
	JobqLookQueue *queue;
	JobqLookRole *role;
	char		state;

	heap_deform_tuple(tuple, desc, values, nulls);
	if (!jobq_look_up(look, DatumGetInt32(values[INFO_QUEUE]),
					  DatumGetObjectId(values[INFO_ENQUEUED_BY]),
					  &queue, &role))
		return;
	if (!jobq_look_visible(look, queue, role) &&
		!(queue->leasable &&
		  jobq_look_leased(look, queue,
						   look_for_lessee(look, values, nulls))))
		return;

	state = DatumGetChar(values[INFO_STATE]);
	values[INFO_QUEUE] = queue->name;
	values[INFO_ENQUEUED_BY] = role->name;
	values[INFO_STATE] = CStringGetTextDatum(state_word(state));
	if (state == STATE_AVAILABLE)
		look_at_holder(look, belts, DatumGetInt64(values[INFO_ID]),
					   DatumGetInt64(values[INFO_TICKET]), values, nulls);
	if (!nulls[INFO_SEALED])
		look_at_payload(look, queue, values, nulls);
	if (look->groups != NULL)
		jobq_look_count(look, DatumGetInt32(values[INFO_QUEUE_ID]),
						values[INFO_GROUP_KEY],
						TextDatumGetCString(values[INFO_STATE]),
						DatumGetTimestampTz(values[INFO_RUN_AT]));
	else
		tuplestore_putvalues(look->store, look->desc, values, nulls);
}

/* Run a query; belts is NULL for those on the shelf. */
static void
look_run(JobqLook *look, JobqBelts *belts, const char *sql)
{
	Oid			types[1] = {INT8OID};
	Datum		args[1] = {Int64GetDatum(look->id)};
	Portal		portal = SPI_cursor_open_with_args(NULL, sql, 1, types, args,
												   NULL, true, 0);

	for (;;)
	{
		SPI_cursor_fetch(portal, true, LOOK_FETCH);
		if (SPI_processed == 0)
			break;

		SPITupleTable *rows = SPI_tuptable;
		uint64		nrows = SPI_processed;
		MemoryContext old = MemoryContextSwitchTo(look->scratch);

		for (uint64 i = 0; i < nrows; i++)
		{
			CHECK_FOR_INTERRUPTS();
			look_add_row(look, belts, rows->vals[i], rows->tupdesc);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(look->scratch);
		SPI_freetuptable(rows);
	}
	SPI_cursor_close(portal);
}

/*
 * Epochs are listed after the snapshot was taken, so that none is missed that
 * holds a row visible to it.
 */
static void
look_run_belt(JobqLook *look, bool live, bool final)
{
	int32	   *epochs;
	int			nepochs = jobq_epoch_list(&epochs);
	JobqBelts	belts = {0};

	for (int i = 0; i < nepochs; i++)
	{
		char	   *tickets;

		if (!jobq_look_open_epoch(&belts, epochs[i]))
			continue;
		tickets = look->id == 0 ? psprintf(SQL_ALL_TICKETS, epochs[i]) :
			psprintf(SQL_NEWEST_TICKET, epochs[i]);
		if (live)
			look_run(look, &belts,
					 psprintf(look->groups == NULL ? SQL_BELT_LIVE :
							  SQL_BELT_LIVE SQL_IN_GROUP, epochs[i], tickets));
		if (final)
			look_run(look, &belts,
					 psprintf(SQL_BELT_FINAL, epochs[i], tickets));
	}
	jobq_belts_close(&belts);
}

static void
look_run_shelf(JobqLook *look, const char *sql)
{
	if (look->id == 0)
		look_run(look, NULL, sql);
	else
		look_run(look, NULL, psprintf("%s" SQL_ONE_JOB, sql));
}

void
jobq_look_live(JobqLook *look)
{
	look_run_belt(look, true, false);
	look_run_shelf(look, look->groups == NULL ? SQL_SHELF_LIVE :
				   SQL_SHELF_LIVE SQL_IN_GROUP);
}

void
jobq_show_jobs(const JobqSession *session, JobqLookWhat what, int64 id,
			   Tuplestorestate *store, TupleDesc desc)
{
	JobqLook	look;

	if (what == LOOK_LIVE || what == LOOK_ANY)
		jobq_look_await_leases(session);
	jobq_look_begin(&look, session, id, store, desc);
	switch (what)
	{
		case LOOK_LIVE:
			jobq_look_live(&look);
			break;
		case LOOK_FINAL:
			look_run_belt(&look, false, true);
			look_run_shelf(&look, SQL_SHELF_DEAD);
			break;
		case LOOK_DEAD:
			look_run_shelf(&look, SQL_SHELF_DEAD SQL_NOT_RERUN);
			break;
		case LOOK_ANY:
			look_run_belt(&look, true, true);
			look_run_shelf(&look, SQL_SHELF_LIVE);
			look_run_shelf(&look, SQL_SHELF_DEAD);
			break;
	}
	jobq_look_end(&look);
}
