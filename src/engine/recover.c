/*
 * recover.c: filling shared memory from the tables when a database's keeper
 * starts. Until it is done dequeue and settle wait; enqueue goes on, and what
 * it publishes meanwhile is recognised.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/hsearch.h"

#include "engine/copy.h"
#include "engine/keeperxact.h"
#include "engine/limit.h"
#include "engine/meter.h"
#include "engine/prepared.h"
#include "engine/rates.h"
#include "engine/refill.h"
#include "guc.h"
#include "pause.h"

#define CAREFUL_FOR		(60 * USECS_PER_SEC)

static void
set_state(JobqDb *db, uint32 gen, JobqDbState state)
{
	SpinLockAcquire(&db->mutex);
	if (db->gen == gen)
		db->state = state;
	SpinLockRelease(&db->mutex);
}

static void
run_command(const char *command, int nargs, Oid *types, Datum *values)
{
	int			result;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	result = SPI_execute_with_args(command, nargs, types, values, NULL, false,
								   0);
	if (result < 0)
		elog(ERROR, "command failed: %s", SPI_result_code_string(result));
	SPI_finish();
}

static void
take_int64(HeapTuple tuple, TupleDesc desc, void *state)
{
	*(int64 *) state = DatumGetInt64(jobq_row_value(tuple, desc, 1, NULL));
}

/* Never hand out a lease that an earlier incarnation may have handed out. */
static void
start_above_mark(JobqDb *db)
{
	int64		mark = 0;

	jobq_keeper_query("SELECT coalesce(max(m.lease), 0) FROM jobq.lease_mark m", 0, NULL, NULL,
					  take_int64, &mark);
	SpinLockAcquire(&db->mutex);
	db->lease_last = Max(db->lease_last, mark);
	db->lease_limit = 0;
	SpinLockRelease(&db->mutex);
}

void
jobq_raise_lease_mark(JobqDb *db)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	int64		mark = jobq_lease_from_time(jobq_now());

	SpinLockAcquire(&db->mutex);
	mark = Max(mark, db->lease_last) + JOBQ_LEASE_RESERVE;
	SpinLockRelease(&db->mutex);
	values[0] = Int64GetDatum(mark);
	run_command("UPDATE jobq.lease_mark SET lease = $1 WHERE lease < $1",
				1, types, values);
	ForceSyncCommit();
	jobq_keeper_commit();
	SpinLockAcquire(&db->mutex);
	db->lease_limit = mark;
	db->lease_wanted = false;
	SpinLockRelease(&db->mutex);
}

/* An unlogged table that is empty: the server has crashed before. */
static void
notice_crash(JobqDb *db)
{
	int64		rows = 0;

	jobq_keeper_query("SELECT count(*) FROM jobq.clean_start", 0, NULL, NULL,
					  take_int64, &rows);
	if (rows > 0)
		return;
	run_command("INSERT INTO jobq.clean_start DEFAULT VALUES", 0, NULL, NULL);
	SpinLockAcquire(&db->mutex);
	db->careful_until = jobq_now() + CAREFUL_FOR;
	SpinLockRelease(&db->mutex);
}

/* In which order jobs go, of the queues where it is not the usual one. */
static void
load_orders(const JobqSession *session)
{
	JobqQueue  *queues;
	int			nqueues = jobq_queue_list(&queues);

	for (int i = 0; i < nqueues; i++)
	{
		if (queues[i].rules.aging != 0)
			jobq_part_set_aging(session->db, session->gen, queues[i].queue_id,
								queues[i].rules.aging);
	}
	pfree(queues);
}

/* So that the first who dequeues need not wait for it. */
static void
follow_rules(const JobqSession *session)
{
	JobqQueue  *queues;
	int			nqueues = jobq_queue_list(&queues);

	for (int i = 0; i < nqueues; i++)
	{
		JobqPart   *part;

		if (!jobq_rules_group(&queues[i].rules))
			continue;
		part = jobq_part_get(session->db, session->gen, queues[i].queue_id);
		if (part != NULL)
			(void) jobq_follow_rules(part, session->gen, &queues[i].rules);
	}
}

static void
load_groups(const JobqSession *session)
{
	JobqPart   *part;

	for (int i = jobq_parts_of(session->db, session->gen, 0, &part); i >= 0;
		 i = jobq_parts_of(session->db, session->gen, i, &part))
	{
		if (jobq_groups_to_load(part, session->gen))
			(void) jobq_load_groups(session, part);
		CHECK_FOR_INTERRUPTS();
	}
}

bool
jobq_recover(JobqDb *db, uint32 gen)
{
	JobqSession session = {.db = db,.gen = gen};
	MemoryContext context = CurrentMemoryContext;

	set_state(db, gen, JOBQ_DB_RECOVERING);
	if (!jobq_keeper_begin(db->install))
		return false;
	jobq_begin_copy(db);
	start_above_mark(db);
	notice_crash(db);
	jobq_raise_lease_mark(db);	/* commits */

	if (!jobq_keeper_begin(db->install))
		return false;
	jobq_find_prepared(&session);
	if (!jobq_load_running(&session))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("more jobs are running than memory has room for"),
				 errdetail("There are %d places for live jobs.",
						   jobq_max_live_jobs),
				 errhint("Raise jobq.max_live_jobs and restart the server.")));
	jobq_load_counts(&session);
	jobq_load_shelf(&session);
	load_orders(&session);
	jobq_load_limits(&session);
	jobq_load_admissions(&session);
	jobq_load_rates(&session);
	follow_rules(&session);
	jobq_keeper_commit();
	load_groups(&session);
	JOBQ_PAUSE("inside-recovery");
	/* the last: it adds, so it must not be done again */
	if (!jobq_keeper_begin(db->install))
		return false;
	jobq_load_meters(&session, context);
	set_state(db, gen, JOBQ_DB_READY);
	return true;
}
