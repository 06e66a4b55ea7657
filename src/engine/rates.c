/*
 * rates.c: saves the windows of rate_limit_take, so that they survive a restart
 * of the server. Who may take how much is decided in memory: dispatch/rate.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "dispatch/rate.h"
#include "engine/keeperxact.h"
#include "engine/rates.h"
#include "guc.h"
#include "pause.h"
#include "security/security.h"

#define BATCH		16			/* windows in a transaction */
#define CLEAN_PAUSE	(60 * USECS_PER_SEC)

#define SQL_SAVE \
	"INSERT INTO jobq.rate_window" \
	" (owner, name, max, period, ends, at, taken)" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (owner, name)" \
	" DO UPDATE SET max = excluded.max, period = excluded.period," \
	" ends = excluded.ends, at = excluded.at, taken = excluded.taken"
#define SQL_DELETE \
	"DELETE FROM jobq.rate_window WHERE ends < $1"
#define SQL_LOAD \
	"SELECT w.owner, w.name, w.max, w.period, w.at, w.taken" \
	" FROM jobq.rate_window w WHERE w.ends >= $1 ORDER BY w.ends DESC"

/* Parameters of SQL_SAVE. */
enum
{
	SAVE_OWNER,
	SAVE_NAME,
	SAVE_MAX,
	SAVE_PERIOD,
	SAVE_ENDS,
	SAVE_AT,
	SAVE_TAKEN,
	SAVE_NARGS
};

/* ---- saving ---- */

static void
save(const JobqRateSaved *window)
{
	Oid			types[SAVE_NARGS] = {OIDOID, TEXTOID, INT4OID, INT8OID,
	TIMESTAMPTZOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID};
	Datum		values[SAVE_NARGS];
	Datum		at[JOBQ_RATE_SAVED];
	Datum		taken[JOBQ_RATE_SAVED];
	TimestampTz ends = 0;

	for (int i = 0; i < window->n; i++)
	{
		at[i] = TimestampTzGetDatum(window->at[i]);
		taken[i] = Int32GetDatum(window->count[i]);
		ends = window->at[i] + window->rate.period;
	}
	values[SAVE_OWNER] = ObjectIdGetDatum(window->owner);
	values[SAVE_NAME] = CStringGetTextDatum(window->name);
	values[SAVE_MAX] = Int32GetDatum(window->rate.limit);
	values[SAVE_PERIOD] = Int64GetDatum(window->rate.period);
	values[SAVE_ENDS] = TimestampTzGetDatum(ends);
	values[SAVE_AT] = PointerGetDatum(construct_array(at, window->n,
													  TIMESTAMPTZOID, 8,
													  FLOAT8PASSBYVAL,
													  TYPALIGN_DOUBLE));
	values[SAVE_TAKEN] = PointerGetDatum(construct_array(taken, window->n,
														 INT4OID, 4, true,
														 TYPALIGN_INT));
	(void) jobq_execute(SQL_SAVE, SAVE_NARGS, types, values, SPI_OK_INSERT);
}

/* Rows of windows that are over go, when others are being saved. */
static void
clean(TimestampTz now)
{
	static TimestampTz cleaned = 0;
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(now)};

	if (cleaned <= now && now - cleaned < CLEAN_PAUSE)
		return;
	(void) jobq_execute(SQL_DELETE, 1, types, values, SPI_OK_DELETE);
	cleaned = now;
}

static bool
save_all(const JobqSession *session, const JobqRateSaved *windows, int n,
		 TimestampTz now)
{
	if (!jobq_keeper_begin(session->db->install))
		return false;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	for (int i = 0; i < n; i++)
		save(&windows[i]);
	clean(now);
	SPI_finish();
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	for (int i = 0; i < n; i++)
		jobq_rate_is_saved(session->db, session->gen, &windows[i]);
	return true;
}

TimestampTz
jobq_tend_rates(const JobqSession *session, TimestampTz now, bool all)
{
	MemoryContext context = CurrentMemoryContext;
	JobqRateSaved *windows = palloc(sizeof(JobqRateSaved) * BATCH);
	TimestampTz next;
	int			n;

	while ((n = jobq_rates_due(session->db, session->gen, now, all, BATCH,
							   windows, &next)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (!save_all(session, windows, n, now))
		{
			next = now + USECS_PER_SEC;
			break;
		}
		MemoryContextSwitchTo(context);
	}
	pfree(windows);
	return next;
}

void
jobq_save_rates(JobqDb *db, uint32 gen)
{
	JobqSession session = {.db = db,.gen = gen};

	(void) jobq_tend_rates(&session, jobq_now(), true);
}

/* ---- recovery ---- */

static int
get_array(HeapTuple tuple, TupleDesc desc, int column, Oid type, int width,
		  char align, Datum **elements)
{
	ArrayType  *array =
		DatumGetArrayTypeP(jobq_row_value(tuple, desc, column, NULL));
	int			n;

	deconstruct_array(array, type, width, true, align, elements, NULL, &n);
	return Min(n, JOBQ_RATE_SAVED);
}

typedef struct Loading
{
	const JobqSession *session;
	int			lost;
} Loading;

static void
load(HeapTuple tuple, TupleDesc desc, void *state)
{
	Loading    *loading = state;
	JobqRateSaved window = {0};
	Datum	   *at;
	Datum	   *taken;

	window.owner = DatumGetObjectId(jobq_row_value(tuple, desc, 1, NULL));
	strlcpy(window.name,
			TextDatumGetCString(jobq_row_value(tuple, desc, 2, NULL)),
			sizeof(window.name));
	window.rate.limit = DatumGetInt32(jobq_row_value(tuple, desc, 3, NULL));
	window.rate.period = DatumGetInt64(jobq_row_value(tuple, desc, 4, NULL));
	window.n = Min(get_array(tuple, desc, 5, TIMESTAMPTZOID, 8,
							 TYPALIGN_DOUBLE, &at),
				   get_array(tuple, desc, 6, INT4OID, 4, TYPALIGN_INT,
							 &taken));
	for (int i = 0; i < window.n; i++)
	{
		window.at[i] = DatumGetTimestampTz(at[i]);
		window.count[i] = DatumGetInt32(taken[i]);
	}
	if (!jobq_rate_load(loading->session->db, loading->session->gen, &window))
		loading->lost++;
}

void
jobq_load_rates(const JobqSession *session)
{
	Loading		loading = {.session = session};
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(jobq_now())};

	jobq_keeper_query(SQL_LOAD, 1, types, values, load, &loading);
	if (loading.lost > 0)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d names of rate limits begin anew", loading.lost),
				 errdetail("There is room for %d names in memory.",
						   jobq_max_rate_limits),
				 errhint("Raise jobq.max_rate_limits and restart the server.")));
}
