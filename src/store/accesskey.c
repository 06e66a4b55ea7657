/*
 * accesskey.c: rows of jobq.access_key. Changes them as the extension's
 * owner. Must not know what a key looks like, nor who may have or make one.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "security/security.h"
#include "store/accesskey.h"
#include "store/rows.h"

enum
{
	KEY_ID = 1,
	KEY_QUEUE_ID,
	KEY_NAME,
	KEY_DIGEST,
	KEY_SECRET_VERSION,
	KEY_PREFIX,
	KEY_PRIVILEGES,
	KEY_CREATED_BY,
	KEY_CREATED_AT,
	KEY_EXPIRES_AT,
	KEY_REPLACED_AT,
	KEY_REVOKED_AT,
	KEY_NATTS = KEY_REVOKED_AT
};

#define ADD_KEY \
	"INSERT INTO jobq.access_key (queue_id, name, digest, secret_version," \
	" prefix, privileges, created_by, created_at, expires_at)" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"

#define FORGET_ENDED \
	"DELETE FROM jobq.access_key" \
	" WHERE least(expires_at, revoked_at) < $1 - pg_catalog.interval '90 days'"

#define REPLACE_KEY \
	"UPDATE jobq.access_key SET replaced_at = coalesce(replaced_at, pg_catalog.clock_timestamp())," \
	" expires_at = least(expires_at, $2) WHERE key_id = $1"

#define REVOKE_KEY \
	"UPDATE jobq.access_key SET revoked_at = $2 WHERE key_id = $1"

#define DELETE_KEYS \
	"DELETE FROM jobq.access_key WHERE queue_id = $1"

/* ---- reading ---- */

static TimestampTz
time_or_never(Datum value, bool null)
{
	return null ? DT_NOEND : DatumGetTimestampTz(value);
}

static void
read_key(HeapTuple tuple, TupleDesc desc, JobqAccessKey *key)
{
	Datum		values[KEY_NATTS];
	bool		nulls[KEY_NATTS];
	bytea	   *digest;

	heap_deform_tuple(tuple, desc, values, nulls);
	memset(key, 0, sizeof(*key));
	key->key_id = DatumGetInt32(values[KEY_ID - 1]);
	key->queue_id = DatumGetInt32(values[KEY_QUEUE_ID - 1]);
	text_to_cstring_buffer(DatumGetTextPP(values[KEY_NAME - 1]), key->name,
						   sizeof(key->name));
	digest = DatumGetByteaPP(values[KEY_DIGEST - 1]);
	if (VARSIZE_ANY_EXHDR(digest) != JOBQ_HMAC_LEN)
		elog(ERROR, "digest of access key %d is damaged", key->key_id);
	memcpy(key->digest, VARDATA_ANY(digest), JOBQ_HMAC_LEN);
	key->secret_version = DatumGetInt32(values[KEY_SECRET_VERSION - 1]);
	text_to_cstring_buffer(DatumGetTextPP(values[KEY_PREFIX - 1]),
						   key->prefix, sizeof(key->prefix));
	key->privileges = DatumGetInt32(values[KEY_PRIVILEGES - 1]);
	key->created_by = DatumGetObjectId(values[KEY_CREATED_BY - 1]);
	key->created_at = DatumGetTimestampTz(values[KEY_CREATED_AT - 1]);
	key->expires_at = time_or_never(values[KEY_EXPIRES_AT - 1],
									nulls[KEY_EXPIRES_AT - 1]);
	key->replaced_at = time_or_never(values[KEY_REPLACED_AT - 1],
									 nulls[KEY_REPLACED_AT - 1]);
	key->revoked_at = time_or_never(values[KEY_REVOKED_AT - 1],
									nulls[KEY_REVOKED_AT - 1]);
}

static bool
find_key(AttrNumber attno, RegProcedure equal, Datum value,
		 JobqAccessKey *key)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_ACCESS_KEY),
								 AccessShareLock);
	Snapshot	snapshot = jobq_fresh_snapshot();
	SysScanDesc scan = jobq_begin_lookup(rel, attno, equal, value, snapshot);
	HeapTuple	tuple = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tuple);

	if (found)
		read_key(tuple, RelationGetDescr(rel), key);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

bool
jobq_access_key_by_id(int32 key_id, JobqAccessKey *key)
{
	return find_key(KEY_ID, F_INT4EQ, Int32GetDatum(key_id), key);
}

bool
jobq_access_key_by_digest(const uint8 *digest, JobqAccessKey *key)
{
	bytea	   *value = palloc(VARHDRSZ + JOBQ_HMAC_LEN);
	bool		found;

	SET_VARSIZE(value, VARHDRSZ + JOBQ_HMAC_LEN);
	memcpy(VARDATA(value), digest, JOBQ_HMAC_LEN);
	found = find_key(KEY_DIGEST, F_BYTEAEQ, PointerGetDatum(value), key);
	pfree(value);
	return found;
}

static int
compare_keys(const void *a, const void *b)
{
	const JobqAccessKey *x = a;
	const JobqAccessKey *y = b;

	return x->key_id < y->key_id ? -1 : x->key_id > y->key_id;
}

int
jobq_access_key_list(JobqAccessKey **keys)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_ACCESS_KEY),
								 AccessShareLock);
	Snapshot	snapshot = jobq_fresh_snapshot();
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot,
										  0, NULL);
	HeapTuple	tuple;
	int			n = 0;
	int			room = 16;

	*keys = palloc(room * sizeof(JobqAccessKey));
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		CHECK_FOR_INTERRUPTS();
		if (n == room)
		{
			room *= 2;
			*keys = repalloc(*keys, room * sizeof(JobqAccessKey));
		}
		read_key(tuple, RelationGetDescr(rel), &(*keys)[n++]);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	qsort(*keys, n, sizeof(JobqAccessKey), compare_keys);
	return n;
}

/* ---- writing ---- */

void
jobq_access_key_add(const JobqAccessKey *key)
{
	Oid			types[] = {INT4OID, TEXTOID, BYTEAOID, INT4OID, TEXTOID,
	INT4OID, OIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	bytea	   *digest = palloc(VARHDRSZ + JOBQ_HMAC_LEN);
	Datum		values[] = {
		Int32GetDatum(key->queue_id),
		CStringGetTextDatum(key->name),
		PointerGetDatum(digest),
		Int32GetDatum(key->secret_version),
		CStringGetTextDatum(key->prefix),
		Int32GetDatum(key->privileges),
		ObjectIdGetDatum(key->created_by),
		TimestampTzGetDatum(key->created_at),
		TimestampTzGetDatum(key->expires_at)
	};
	char		nulls[] = "         ";
	JobqOwnerContext owner;

	SET_VARSIZE(digest, VARHDRSZ + JOBQ_HMAC_LEN);
	memcpy(VARDATA(digest), key->digest, JOBQ_HMAC_LEN);
	if (key->expires_at == DT_NOEND)
		nulls[lengthof(values) - 1] = 'n';
	jobq_connect_as_owner(&owner);
	(void) jobq_execute(FORGET_ENDED, 1, &types[7], &values[7],
						SPI_OK_DELETE);
	if (SPI_execute_with_args(ADD_KEY, lengthof(values), types, values, nulls,
							  false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write an access key");
	jobq_disconnect(&owner);
}

/*
 * Change one row; in REPEATABLE READ it may be too young for the transaction
 * to change, which must not pass in silence.
 */
static void
change_key(const char *command, int32 key_id, TimestampTz when)
{
	Oid			types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {Int32GetDatum(key_id), TimestampTzGetDatum(when)};
	JobqOwnerContext owner;

	jobq_connect_as_owner(&owner);
	jobq_queue_changed();
	if (jobq_execute(command, lengthof(types), types, values,
					 SPI_OK_UPDATE) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errdetail("The access key was made after this transaction began."),
				 errhint("Try again, in a transaction of its own.")));
	jobq_disconnect(&owner);
}

void
jobq_access_key_replaced(int32 key_id, TimestampTz expires_at)
{
	change_key(REPLACE_KEY, key_id, expires_at);
}

void
jobq_access_key_revoke(int32 key_id, TimestampTz now)
{
	change_key(REVOKE_KEY, key_id, now);
}

void
jobq_access_key_delete_all(int32 queue_id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(queue_id);

	(void) jobq_execute(DELETE_KEYS, 1, &type, &value, SPI_OK_DELETE);
}
