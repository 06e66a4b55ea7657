/*
 * wait.c: something is tried until it succeeds: between two attempts the
 * session sleeps until it is woken. Never polls. What is tried, and who may,
 * is the attempt's business.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "engine/engine.h"

#define NO_PART_RETRY		USECS_PER_SEC

/* ---- what an attempt says ---- */

void
jobq_wait_at(JobqWaiting *wait, const JobqSession *session,
			 const JobqQueue *queue, JobqWaitKind kind, TimestampTz retry_at)
{
	JobqWaitPlace *place = &wait->places[wait->nplaces++];

	Assert(wait->nplaces <= JOBQ_WAIT_QUEUES);
	wait->db = session->db;
	place->gen = session->gen;
	place->queue_id = queue->queue_id;
	place->kind = kind;
	place->retry_at = retry_at;
}

void
jobq_wait_at_job(JobqWaiting *wait, const JobqSession *session, int64 id)
{
	wait->db = session->db;
	wait->job = id;
}

/* ---- sleeping ---- */

/*
 * Be woken from now on; returns when to look all the same. Those who are in
 * line already stay where they are.
 */
static TimestampTz
stand_in_line(const JobqWaiting *wait)
{
	TimestampTz alarm = JOBQ_NEVER;

	for (int i = 0; i < wait->nplaces; i++)
	{
		const JobqWaitPlace *place = &wait->places[i];
		JobqPart   *part = jobq_part_get(wait->db, place->gen,
										 place->queue_id);
		TimestampTz at;

		if (part != NULL)
			at = jobq_wait_join(i, part, place->gen, place->queue_id,
								place->kind, place->retry_at);
		else
			at = GetCurrentTimestamp() + NO_PART_RETRY;
		alarm = Min(alarm, at);
	}
	if (wait->job != 0)
		jobq_wait_join_job(wait->db, wait->job);
	return alarm;
}

/* Whoever has gone gets no job. */
static void
refuse_lost_client(void)
{
	if (jobq_client_is_gone())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

static void
sleep_until(TimestampTz until, const char *wait_event)
{
	while (!jobq_wait_is_woken())
	{
		long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														 until);

		if (ms <= 0)
			break;
		jobq_sleep(Min(ms, INT_MAX), jobq_wait_event(wait_event));
		ResetLatch(MyLatch);
		refuse_lost_client();
	}
	refuse_lost_client();
}

/* What a CALL holds goes: locks, snapshot, transaction. */
static void
let_go(void)
{
	SPI_commit();
	SPI_start_transaction();
}

/* ---- attempts ---- */

static bool
attempt(JobqWaiting *wait, MemoryContext context)
{
	MemoryContext old;
	bool		done;

	MemoryContextReset(context);
	old = MemoryContextSwitchTo(context);
	wait->nplaces = 0;
	wait->job = 0;
	if (wait->in_call)
		PushActiveSnapshot(GetTransactionSnapshot());
	done = wait->attempt(wait);
	if (wait->in_call)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	return done;
}

/*
 * First without standing in line; then in line, so that nothing can come
 * between the last attempt and the sleep.
 */
static bool
attempt_and_sleep(JobqWaiting *wait, MemoryContext context)
{
	bool		in_line = false;

	for (;;)
	{
		TimestampTz alarm;

		if (attempt(wait, context))
			return true;
		if (GetCurrentTimestamp() >= wait->deadline)
			return false;
		jobq_wakeup_pass_on();
		alarm = stand_in_line(wait);
		if (!in_line)
		{
			in_line = true;
			continue;
		}
		if (wait->in_call)
			let_go();
		sleep_until(Min(alarm, wait->deadline), wait->wait_event);
		if (jobq_wait_awake())
			jobq_queue_forget();
		in_line = false;
	}
}

bool
jobq_wait(JobqWaiting *wait)
{
	MemoryContext context;
	volatile bool done = false;

	if (wait->deadline == 0 && !wait->in_call)
		return wait->attempt(wait);
	context = AllocSetContextCreate(CurrentMemoryContext, "jobq wait",
									ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		done = attempt_and_sleep(wait, context);
	}
	PG_CATCH();
	{
		jobq_wait_end(false);
		PG_RE_THROW();
	}
	PG_END_TRY();
	jobq_wait_end(done && wait->only_looks);
	return done;
}

/* ---- procedures ---- */

void
jobq_call_begin(FunctionCallInfo fcinfo, const char *what)
{
	const CallContext *call = (const CallContext *) fcinfo->context;
	MemoryContext caller = CurrentMemoryContext;

	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", what),
				 errdetail("It commits before it waits, so that it holds no snapshot and no lock meanwhile."),
				 errhint("Set autocommit on in the client; functions such as jobq.dequeue() can wait inside a transaction for up to 20 seconds.")));
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect_ext failed");
	MemoryContextSwitchTo(caller);
	let_go();
}

void
jobq_call_end(void)
{
	MemoryContext caller = CurrentMemoryContext;

	SPI_finish();
	MemoryContextSwitchTo(caller);
}
