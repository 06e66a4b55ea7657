/*
 * epochlife.c: what the keeper notes about an epoch as it gets older: closed,
 * sealed, drained, gone, and the totals of its queues. Decides nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "security/security.h"

#define SET_CLOSED \
	"UPDATE jobq.epoch SET closed_at = $2 WHERE epoch = $1"
#define SET_SEALED \
	"UPDATE jobq.epoch SET sealed_at = $2 WHERE epoch = $1"
#define SET_DRAINED \
	"UPDATE jobq.epoch SET drained_at = $2, last_finished_at = $3" \
	" WHERE epoch = $1"
#define ADD_TOTAL \
	"INSERT INTO jobq.epoch_total (epoch, queue_id, completed, failed, dead," \
	" cancelled, expired) VALUES ($1, $2, $3, $4, $5, $6, $7)"
#define FOLD_TOTALS \
	"INSERT INTO jobq.epoch_total AS t (epoch, queue_id, completed, failed," \
	" dead, cancelled, expired)" \
	" SELECT 0, o.queue_id, o.completed, o.failed, o.dead, o.cancelled," \
	" o.expired FROM jobq.epoch_total o" \
	" JOIN jobq.queue q ON q.queue_id = o.queue_id WHERE o.epoch = $1" \
	" ON CONFLICT (epoch, queue_id) DO UPDATE SET" \
	" completed = t.completed + excluded.completed," \
	" failed = t.failed + excluded.failed," \
	" dead = t.dead + excluded.dead," \
	" cancelled = t.cancelled + excluded.cancelled," \
	" expired = t.expired + excluded.expired"
#define DELETE_TOTALS \
	"DELETE FROM jobq.epoch_total WHERE epoch = $1"
#define DELETE_EPOCH \
	"DELETE FROM jobq.epoch WHERE epoch = $1"

#define MAX_ARGUMENTS	7

/* A command about one epoch, with further arguments of one type. */
static void
execute(const char *command, int32 epoch, Oid type, const Datum *more,
		int nmore, int expected)
{
	Oid			types[MAX_ARGUMENTS] = {INT4OID};
	Datum		values[MAX_ARGUMENTS] = {Int32GetDatum(epoch)};

	for (int i = 0; i < nmore; i++)
	{
		types[i + 1] = type;
		values[i + 1] = more[i];
	}
	(void) jobq_execute(command, nmore + 1, types, values, expected);
}

static void
set_time(const char *command, int32 epoch, TimestampTz when)
{
	JobqOwnerContext context;
	Datum		value = TimestampTzGetDatum(when);

	jobq_connect_as_owner(&context);
	execute(command, epoch, TIMESTAMPTZOID, &value, 1, SPI_OK_UPDATE);
	jobq_disconnect(&context);
}

void
jobq_epoch_set_closed(int32 epoch, TimestampTz when)
{
	set_time(SET_CLOSED, epoch, when);
}

void
jobq_epoch_set_sealed(int32 epoch, TimestampTz when)
{
	set_time(SET_SEALED, epoch, when);
}

void
jobq_epoch_set_drained(int32 epoch, TimestampTz when,
					   TimestampTz last_finished, const JobqTotal *totals,
					   int ntotals)
{
	JobqOwnerContext context;
	Datum		times[] = {
		TimestampTzGetDatum(when),
		TimestampTzGetDatum(last_finished)
	};

	jobq_connect_as_owner(&context);
	execute(SET_DRAINED, epoch, TIMESTAMPTZOID, times, lengthof(times),
			SPI_OK_UPDATE);
	for (int i = 0; i < ntotals; i++)
	{
		Datum		counts[] = {
			Int64GetDatum(totals[i].queue_id),
			Int64GetDatum(totals[i].completed),
			Int64GetDatum(totals[i].failed),
			Int64GetDatum(totals[i].dead),
			Int64GetDatum(totals[i].cancelled),
			Int64GetDatum(totals[i].expired)
		};

		execute(ADD_TOTAL, epoch, INT8OID, counts, lengthof(counts),
				SPI_OK_INSERT);
	}
	jobq_disconnect(&context);
}

void
jobq_epoch_forget(int32 epoch)
{
	JobqOwnerContext context;

	jobq_connect_as_owner(&context);
	execute(FOLD_TOTALS, epoch, InvalidOid, NULL, 0, SPI_OK_INSERT);
	execute(DELETE_TOTALS, epoch, InvalidOid, NULL, 0, SPI_OK_DELETE);
	execute(DELETE_EPOCH, epoch, InvalidOid, NULL, 0, SPI_OK_DELETE);
	jobq_disconnect(&context);
}
