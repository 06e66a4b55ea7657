/*
 * keyuse.c: the uses of access keys go from memory to disk, about once a
 * minute and only while there are any; and both together are read. Must not
 * count anything: dispatch/keyuse.c does.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/snapmgr.h"

#include "engine/keyuse.h"
#include "pause.h"
#include "security/security.h"

#define WRITE_AGAIN		USECS_PER_MINUTE

#define ADD_USES \
	"INSERT INTO jobq.access_key_use AS u (key_id, uses, last_used_at)" \
	" SELECT n.key_id, n.uses, n.last_used_at" \
	" FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)," \
	"  pg_catalog.unnest($3)) n (key_id, uses, last_used_at)" \
	" WHERE true ON CONFLICT (key_id)" \
	" DO UPDATE SET uses = u.uses + excluded.uses," \
	" last_used_at = greatest(u.last_used_at, excluded.last_used_at)"

#define FORGET_USES \
	"DELETE FROM jobq.access_key_use u WHERE NOT EXISTS" \
	" (SELECT FROM jobq.access_key k WHERE k.key_id = u.key_id)"

#define READ_USES \
	"SELECT u.key_id, u.uses, u.last_used_at FROM jobq.access_key_use u"

/* ---- writing ---- */

static void
add_uses(const JobqKeyUse *uses, int n)
{
	Oid			types[] = {INT4ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID};
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum	   *counts = palloc(sizeof(Datum) * n);
	Datum	   *times = palloc(sizeof(Datum) * n);
	Datum		values[3];

	for (int i = 0; i < n; i++)
	{
		ids[i] = Int32GetDatum(uses[i].key_id);
		counts[i] = Int64GetDatum(uses[i].uses);
		times[i] = TimestampTzGetDatum(uses[i].last_used_at);
	}
	values[0] = PointerGetDatum(construct_array(ids, n, INT4OID,
												sizeof(int32), true,
												TYPALIGN_INT));
	values[1] = PointerGetDatum(construct_array(counts, n, INT8OID,
												sizeof(int64),
												FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[2] = PointerGetDatum(construct_array(times, n, TIMESTAMPTZOID,
												sizeof(TimestampTz),
												FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	(void) jobq_execute(ADD_USES, lengthof(types), types, values,
						SPI_OK_INSERT);
}

/*
 * False when it was not the moment. Rows of keys that are gone go only when
 * others are in use: never in a restore, where keys may come after their uses.
 */
static bool
write_down(const JobqSession *session, const JobqKeyUse *uses, int n)
{
	if (!jobq_keeper_begin(session->db->install))
		return false;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	add_uses(uses, n);
	(void) jobq_execute(FORGET_USES, 0, NULL, NULL, SPI_OK_DELETE);
	SPI_finish();
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	return true;
}

TimestampTz
jobq_tend_key_uses(const JobqSession *session, TimestampTz now,
				   bool asked_for)
{
	static TimestampTz due = 0; /* a new keeper looks at once */
	TimestampTz wanted = jobq_db_take_key_uses_due(session->db);
	JobqKeyUse *uses;
	int			n;

	due = Min(due, wanted);
	if (due > now && !(asked_for && due != JOBQ_NEVER))
		return due;
	uses = palloc(sizeof(JobqKeyUse) * JOBQ_KEY_USES);
	n = jobq_key_uses(session->db, session->gen, uses);
	if (n > 0 && !write_down(session, uses, n))
		return now + WRITE_AGAIN;
	due = jobq_key_uses_written(session->db, session->gen, uses, n) ?
		JOBQ_NEVER : now + WRITE_AGAIN;
	return due;
}

/* ---- reading ---- */

static int
compare_uses(const void *a, const void *b)
{
	const JobqKeyUse *x = a;
	const JobqKeyUse *y = b;

	return x->key_id < y->key_id ? -1 : x->key_id > y->key_id;
}

static Datum
column(uint64 row, int attno)
{
	bool		null;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 attno, &null);
}

/* Add up neighbours of the same key; returns how many keys there are. */
static int
add_up(JobqKeyUse *uses, int n)
{
	int			keys = 0;

	qsort(uses, n, sizeof(JobqKeyUse), compare_uses);
	for (int i = 0; i < n; i++)
	{
		if (keys == 0 || uses[keys - 1].key_id != uses[i].key_id)
		{
			uses[keys++] = uses[i];
			continue;
		}
		uses[keys - 1].uses += uses[i].uses;
		uses[keys - 1].last_used_at = Max(uses[keys - 1].last_used_at,
										  uses[i].last_used_at);
	}
	return keys;
}

int
jobq_key_uses_known(const JobqSession *session, JobqKeyUse **uses)
{
	MemoryContext context = CurrentMemoryContext;
	JobqOwnerContext owner;
	JobqKeyUse *all;
	uint64		rows;
	int			n;

	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(READ_USES, 0, NULL, NULL, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the uses of access keys");
	rows = SPI_processed;
	all = MemoryContextAlloc(context,
							 sizeof(JobqKeyUse) * (rows + JOBQ_KEY_USES));
	n = jobq_key_uses(session->db, session->gen, all);
	for (uint64 i = 0; i < rows; i++)
		all[n++] = (JobqKeyUse) {.key_id = DatumGetInt32(column(i, 1)),
			.uses = DatumGetInt64(column(i, 2)),
			.last_used_at = DatumGetTimestampTz(column(i, 3))};
	PopActiveSnapshot();
	jobq_disconnect(&owner);
	*uses = all;
	return add_up(all, n);
}
