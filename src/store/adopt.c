/*
 * adopt.c: makes a copy's tables this installation's own: every epoch is
 * complete, guarded and tied to the extension, numbers go on above what was
 * restored. All or nothing. Must not know shared memory.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "security/security.h"
#include "store/store.h"

/* The newest epoch of our own is what the others must look like. */
#define EPOCHS \
	"SELECT e.epoch, e.installation <> i.id," \
	" max(e.epoch) FILTER (WHERE e.installation = i.id) OVER ()" \
	" FROM jobq.epoch e, jobq.installation i ORDER BY e.epoch"

#define COLUMNS(epoch) \
	"(SELECT string_agg(format('%%I %%s %%s', a.attname," \
	"   format_type(a.atttypid, a.atttypmod), a.attnotnull), ', '" \
	"   ORDER BY a.attnum)" \
	"  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid" \
	"  WHERE a.attnum > 0 AND c.relkind = 'r' AND c.relpersistence = 'p'" \
	"  AND c.relnamespace = 'jobq'::regnamespace" \
	"  AND c.relname = k || '_' || " epoch ")"

#define LACKING \
	"SELECT 'table jobq.' || k || '_' || %1$d" \
	" FROM unnest(ARRAY['job', 'claim', 'outcome']) k" \
	" WHERE coalesce(" COLUMNS("%1$d") ", '') IS DISTINCT FROM " \
	COLUMNS("%2$d") \
	" UNION ALL" \
	" SELECT 'index jobq.' || replace(x, '#', '%1$d')" \
	" FROM unnest(ARRAY['job_#_order', 'job_#_id', 'outcome_#_ticket']) x" \
	" WHERE NOT EXISTS (SELECT FROM pg_index i, pg_index r" \
	"  WHERE i.indexrelid = to_regclass('jobq.' || replace(x, '#', '%1$d'))" \
	"  AND r.indexrelid = to_regclass('jobq.' || replace(x, '#', '%2$d'))" \
	"  AND i.indrelid = to_regclass('jobq.' || split_part(x, '_', 1) || '_%1$d')" \
	"  AND i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate" \
	"  AND i.indisunique = r.indisunique AND i.indkey = r.indkey" \
	"  AND i.indclass = r.indclass AND i.indoption = r.indoption" \
	"  AND i.indpred IS NULL AND i.indexprs IS NULL)"

#define GUARDS \
	"SELECT FROM pg_trigger t WHERE t.tgrelid = 'jobq.%1$s'::regclass" \
	" AND t.tgname = 'refuse_write'"

/* Rows on the shelf from before our first epoch have been restored. */
#define SHELF_MAX \
	"SELECT coalesce(max(greatest(s.id, s.ticket)), 0)," \
	" coalesce(max(greatest(s.id, s.ticket)) FILTER (WHERE s.enqueued_at <" \
	" (SELECT min(e.opened_at) FROM jobq.epoch e, jobq.installation i" \
	"  WHERE e.installation = i.id)), 0)" \
	" FROM jobq.shelf s"

#define RAISE_NUMBERS \
	"SELECT setval('jobq.number_block', greatest(n.last_value, $1), true)" \
	" FROM jobq.number_block n"

#define TAKE_EPOCH \
	"UPDATE jobq.epoch SET installation = i.id," \
	" closed_at = coalesce(closed_at, $2), sealed_at = coalesce(sealed_at, $2)," \
	" drained_at = NULL, last_finished_at = NULL" \
	" FROM jobq.installation i WHERE epoch = $1"

#define FORGET_TOTALS \
	"DELETE FROM jobq.epoch_total WHERE epoch = $1"

#define ONE_MARK \
	"WITH m AS (DELETE FROM jobq.lease_mark RETURNING lease)" \
	" INSERT INTO jobq.lease_mark (lease) SELECT coalesce(max(m.lease), 0) FROM m"

#define SETTLE_HERE \
	"UPDATE jobq.installation SET database = d.oid," \
	" system_identifier = c.system_identifier" \
	" FROM pg_database d, pg_control_system() c" \
	" WHERE d.datname = current_database()"

/* One command of a dump gives a function to several roles, or to none. */
#define GRANTS \
	"SELECT r.oid, bit_or(g.privileges) FROM pg_roles r JOIN" \
	" (SELECT grantee, privileges FROM jobq.queue_acl" \
	"  UNION ALL SELECT owner, $1 FROM jobq.queue) g (role, privileges)" \
	" ON g.role = r.oid GROUP BY r.oid"

#define FORGET_RESTORE \
	"DELETE FROM jobq.restored"

typedef struct Epoch
{
	int32		number;
	bool		foreign;
} Epoch;

typedef struct Adoption
{
	Epoch	   *epochs;
	int			nepochs;
	int32		model;			/* the newest of our own */
} Adoption;

/* ---- small helpers ---- */

static uint64
run(int expected, const char *format,...) pg_attribute_printf(2, 3);

/* A command made from a pattern. */
static uint64
run(int expected, const char *format,...)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	return jobq_execute(sql.data, 0, NULL, NULL, expected);
}

/* A number in the first row of what was just read; NULL counts as 0. */
static int64
number_in(int column)
{
	bool		null;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, column, &null);

	return null ? 0 : DatumGetInt64(value);
}

static void
read_epochs(Adoption *adoption)
{
	uint64		n = jobq_execute(EPOCHS, 0, NULL, NULL, SPI_OK_SELECT);

	adoption->epochs = palloc(sizeof(Epoch) * Max(n, 1));
	adoption->nepochs = (int) n;
	adoption->model = 0;
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		null;
		Datum		model = SPI_getbinval(row, desc, 3, &null);

		if (!null)
			adoption->model = DatumGetInt32(model);
		adoption->epochs[i].number = DatumGetInt32(SPI_getbinval(row, desc, 1, &null));
		adoption->epochs[i].foreign = DatumGetBool(SPI_getbinval(row, desc, 2, &null));
	}
}

/* ---- is all there? ---- */

static void
check_complete(const Adoption *adoption, int32 epoch)
{
	StringInfoData lacking;
	uint64		n = run(SPI_OK_SELECT, LACKING, epoch, adoption->model);

	if (n == 0)
		return;
	initStringInfo(&lacking);
	for (uint64 i = 0; i < n; i++)
		appendStringInfo(&lacking, "%s%s", i > 0 ? ", " : "",
						 SPI_getvalue(SPI_tuptable->vals[i],
									  SPI_tuptable->tupdesc, 1));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("epoch %d is not complete", epoch),
			 errdetail("Missing, not valid or not as pg_jobq makes it: %s.",
					   lacking.data),
			 errhint("Wait for the restore to end, or restore again, then call jobq.adopt() once more.")));
}

/*
 * Numbers of restored jobs end at *restored, all numbers at the result;
 * *own is the smallest that we have given to a job on the belt, or 0.
 */
static int64
read_numbers(const Adoption *adoption, int64 *restored, int64 *own)
{
	int64		all;

	*own = 0;
	(void) run(SPI_OK_SELECT, SHELF_MAX);
	all = number_in(1);
	*restored = number_in(2);
	for (int i = 0; i < adoption->nepochs; i++)
	{
		const Epoch *epoch = &adoption->epochs[i];
		int64		least;

		CHECK_FOR_INTERRUPTS();
		(void) run(SPI_OK_SELECT,
				   "SELECT min(ticket), max(ticket) FROM jobq.job_%d",
				   epoch->number);
		least = number_in(1);
		all = Max(all, number_in(2));
		if (epoch->foreign)
			*restored = Max(*restored, number_in(2));
		else if (least > 0 && (*own == 0 || least < *own))
			*own = least;
	}
	return all;
}

/* Two jobs of one number cannot be told apart. */
static void
check_numbers(const Adoption *adoption, int64 restored, int64 own,
			  int64 handed_out)
{
	bool		any_foreign = false;

	for (int i = 0; i < adoption->nepochs; i++)
		any_foreign |= adoption->epochs[i].foreign;
	if (own == 0 || (handed_out > 0 && handed_out < own))
		own = handed_out;
	if (!any_foreign || own == 0 || own > restored)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("jobs were enqueued in this database before the restore had ended"),
			 errdetail("Restored jobs have numbers up to " INT64_FORMAT
					   ", and this database has given out " INT64_FORMAT " itself.",
					   restored, own),
			 errhint("Restore into another database, where nothing is enqueued before jobq.adopt().")));
}

/* ---- taking over ---- */

static void
guard_table(const char *kind, int32 epoch)
{
	char	   *table = psprintf("%s_%d", kind, epoch);

	(void) run(SPI_OK_UTILITY, "ALTER TABLE jobq.%s OWNER TO %s", table,
			   quote_identifier(GetUserNameFromId(jobq_extension_owner(),
												  false)));
	(void) run(SPI_OK_UTILITY, "ALTER TABLE jobq.%s SET"
			   " (autovacuum_enabled = off, toast.autovacuum_enabled = off)",
			   table);
	if (run(SPI_OK_SELECT, GUARDS, table) > 0)
		(void) run(SPI_OK_UTILITY, "DROP TRIGGER refuse_write ON jobq.%s",
				   table);
	(void) run(SPI_OK_UTILITY, "%s", jobq_epoch_trigger(table));
}

static void
take_epoch(int32 epoch)
{
	Oid			types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {
		Int32GetDatum(epoch),
		TimestampTzGetDatum(GetCurrentTimestamp())
	};

	guard_table("job", epoch);
	guard_table("claim", epoch);
	guard_table("outcome", epoch);
	jobq_epoch_set_rights(epoch);
	(void) jobq_execute(TAKE_EPOCH, 2, types, values, SPI_OK_UPDATE);
	(void) jobq_execute(FORGET_TOTALS, 1, types, values, SPI_OK_DELETE);
}

static void
raise_numbers(int64 above)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum(above);

	(void) jobq_execute(RAISE_NUMBERS, 1, &type, &value, SPI_OK_SELECT);
}

/* EXECUTE and USAGE as grant_queue gives them. */
static void
give_calls(void)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(JOBQ_PRIV_ALL);
	uint64		n = jobq_execute(GRANTS, 1, &type, &value, SPI_OK_SELECT);
	SPITupleTable *grants = SPI_tuptable;

	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		Oid			role = DatumGetObjectId(SPI_getbinval(grants->vals[i],
														  grants->tupdesc, 1,
														  &null));
		Datum		privileges = SPI_getbinval(grants->vals[i],
											   grants->tupdesc, 2, &null);

		if (!jobq_is_admin(role))
			jobq_give_calls(role, DatumGetInt32(privileges));
	}
}

void
jobq_store_adopt(int64 number_handed_out)
{
	JobqOwnerContext context;
	Adoption	adoption;
	int64		all;
	int64		restored;
	int64		own;

	jobq_connect_as_owner(&context);
	read_epochs(&adoption);
	for (int i = 0; i < adoption.nepochs; i++)
		check_complete(&adoption, adoption.epochs[i].number);
	all = read_numbers(&adoption, &restored, &own);
	check_numbers(&adoption, restored, own, number_handed_out);

	for (int i = 0; i < adoption.nepochs; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (adoption.epochs[i].foreign)
			take_epoch(adoption.epochs[i].number);
		jobq_epoch_tie(adoption.epochs[i].number);
	}
	raise_numbers(all);
	give_calls();
	(void) run(SPI_OK_INSERT, ONE_MARK);
	(void) run(SPI_OK_UPDATE, SETTLE_HERE);
	(void) run(SPI_OK_DELETE, FORGET_RESTORE);
	jobq_disconnect(&context);
	jobq_queue_changed();
}
