/*
 * cryptokey.c: reads and writes jobq.crypto_key. Must not know secrets, compute
 * with keys, nor ask who may do what.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "security/security.h"
#include "store/cryptokey.h"

/* Columns of jobq.crypto_key. */
enum
{
	COL_NAME = 1,
	COL_VERSION,
	COL_OWNER,
	COL_PURPOSE,
	COL_SECRET_VERSION,
	COL_SALT,
	COL_CHECK_VALUE,
	COL_CREATED_AT,
	COL_RETIRES_AT,
	COL_REVOKED_AT
};

#define INSERT_KEY \
	"INSERT INTO jobq.crypto_key (name, version, owner, purpose," \
	" secret_version, salt, check_value) VALUES ($1, $2, $3, $4, $5, $6, $7)"

#define RETIRE_KEYS \
	"UPDATE jobq.crypto_key SET retires_at = $3" \
	" WHERE name = $1 AND version < $2" \
	" AND (retires_at IS NULL OR retires_at > $3)"

#define REVOKE_KEY \
	"UPDATE jobq.crypto_key" \
	" SET revoked_at = coalesce(revoked_at, pg_catalog.clock_timestamp())" \
	" WHERE name = $1"

static const char *const purpose_words[] = {
	[JOBQ_KEY_SIGN] = "sign",
	[JOBQ_KEY_SEAL] = "seal",
};

const char *
jobq_key_purpose_word(JobqKeyPurpose purpose)
{
	return purpose_words[purpose];
}

/* A column that is NOT NULL. */
static Datum
column(HeapTuple tuple, TupleDesc desc, int attno)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attno, desc, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d of jobq.crypto_key", attno);
	return value;
}

static void
copy_bytes(Datum value, uint8 *to, size_t length)
{
	bytea	   *bytes = DatumGetByteaPP(value);

	if (VARSIZE_ANY_EXHDR(bytes) != length)
		elog(ERROR, "unexpected length of a value in jobq.crypto_key");
	memcpy(to, VARDATA_ANY(bytes), length);
}

static void
read_row(HeapTuple tuple, TupleDesc desc, JobqCryptoRow *row)
{
	bool		isnull;
	Datum		value;

	memset(row, 0, sizeof(*row));
	text_to_cstring_buffer(DatumGetTextPP(column(tuple, desc, COL_NAME)),
						   row->name, sizeof(row->name));
	row->version = DatumGetInt32(column(tuple, desc, COL_VERSION));
	row->owner = DatumGetObjectId(column(tuple, desc, COL_OWNER));
	row->purpose = strcmp(TextDatumGetCString(column(tuple, desc, COL_PURPOSE)),
						  purpose_words[JOBQ_KEY_SIGN]) == 0 ?
		JOBQ_KEY_SIGN : JOBQ_KEY_SEAL;
	row->secret_version =
		DatumGetInt32(column(tuple, desc, COL_SECRET_VERSION));
	copy_bytes(column(tuple, desc, COL_SALT), row->salt, JOBQ_SALT_LEN);
	copy_bytes(column(tuple, desc, COL_CHECK_VALUE), row->check,
			   JOBQ_CHECK_LEN);
	value = heap_getattr(tuple, COL_RETIRES_AT, desc, &isnull);
	row->retires_at = isnull ? 0 : DatumGetTimestampTz(value);
	(void) heap_getattr(tuple, COL_REVOKED_AT, desc, &isnull);
	row->revoked = !isnull;
}

static int
compare_versions(const void *a, const void *b)
{
	const JobqCryptoRow *x = a;
	const JobqCryptoRow *y = b;

	return x->version < y->version ? -1 : x->version > y->version;
}

/* There are few keys, so the whole table is read. */
int
jobq_crypto_read(const char *name, JobqCryptoRow **rows)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_CRYPTO_KEY),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	int			n = 0;
	int			room = 8;

	*rows = palloc(room * sizeof(JobqCryptoRow));
	ScanKeyEntryInitialize(&key, 0, COL_NAME, BTEqualStrategyNumber,
						   InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(name));
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		if (n == room)
		{
			room *= 2;
			*rows = repalloc(*rows, room * sizeof(JobqCryptoRow));
		}
		read_row(tuple, RelationGetDescr(rel), &(*rows)[n++]);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	qsort(*rows, n, sizeof(JobqCryptoRow), compare_versions);
	return n;
}

static uint64
change(const char *command, int nargs, Oid *types, Datum *values,
	   int expected)
{
	JobqOwnerContext owner;
	uint64		n;

	jobq_connect_as_owner(&owner);
	jobq_queue_changed();
	n = jobq_execute(command, nargs, types, values, expected);
	jobq_disconnect(&owner);
	return n;
}

static Datum
bytes_datum(const uint8 *bytes, size_t length)
{
	bytea	   *value = palloc(VARHDRSZ + length);

	SET_VARSIZE(value, VARHDRSZ + length);
	memcpy(VARDATA(value), bytes, length);
	return PointerGetDatum(value);
}

void
jobq_crypto_insert(const JobqCryptoRow *row)
{
	Oid			types[] = {TEXTOID, INT4OID, OIDOID, TEXTOID, INT4OID,
	BYTEAOID, BYTEAOID};
	Datum		values[] = {
		CStringGetTextDatum(row->name),
		Int32GetDatum(row->version),
		ObjectIdGetDatum(row->owner),
		CStringGetTextDatum(purpose_words[row->purpose]),
		Int32GetDatum(row->secret_version),
		bytes_datum(row->salt, JOBQ_SALT_LEN),
		bytes_datum(row->check, JOBQ_CHECK_LEN)
	};

	(void) change(INSERT_KEY, lengthof(types), types, values, SPI_OK_INSERT);
}

void
jobq_crypto_retire(const char *name, int32 below, TimestampTz when)
{
	Oid			types[] = {TEXTOID, INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {CStringGetTextDatum(name), Int32GetDatum(below),
	TimestampTzGetDatum(when)};

	(void) change(RETIRE_KEYS, lengthof(types), types, values, SPI_OK_UPDATE);
}

void
jobq_crypto_revoke(const char *name, int n)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name)};

	if (change(REVOKE_KEY, lengthof(types), types, values,
			   SPI_OK_UPDATE) != (uint64) n)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent change of a key"),
				 errdetail("The transaction's snapshot is older than the key's present state."),
				 errhint("Run the transaction again.")));
}
