/*
 * audit.c: the tables of the audit log: writes entries, links and marks, and
 * says what the hash of a link is. Must not know who may read them, nor what an
 * entry says.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "security/security.h"
#include "store/audit.h"
#include "store/rows.h"

#define LAST_ENTRY \
	"SELECT e.id FROM jobq.audit_entry e WHERE e.origin = $1" \
	" ORDER BY e.origin DESC, e.id DESC LIMIT 1"

/* Columns of jobq.audit_chain and jobq.audit_mark. */
enum
{
	LINK_CHAIN,
	LINK_SEQ,
	LINK_ORIGIN,
	LINK_ID,
	LINK_HASH,
	LINK_NATTS
};

enum
{
	MARK_CHAIN,
	MARK_CUT,
	MARK_SEQ,
	MARK_HASH,
	MARK_NATTS
};

static bool deleting;

/* ---- who we are ---- */

/* Read once: what an installation is called never changes. */
const pg_uuid_t *
jobq_audit_origin(void)
{
	static Oid	known;			/* installation that it was read of */
	static pg_uuid_t origin;
	Oid			table = jobq_table_oid(JOBQ_TABLE_INSTALLATION);
	Relation	rel;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (known == table)
		return &origin;
	rel = table_open(table, AccessShareLock);
	snapshot = jobq_fresh_snapshot();
	scan = table_beginscan(rel, snapshot, 0, NULL);
	slot = table_slot_create(rel, NULL);
	if (!table_scan_getnextslot(scan, ForwardScanDirection, slot))
		elog(ERROR, "jobq.installation is empty");
	slot_getallattrs(slot);
	memcpy(&origin, DatumGetUUIDP(slot->tts_values[1]), sizeof(origin));
	known = table;
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return &origin;
}

int64
jobq_audit_last_entry(void)
{
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(jobq_audit_origin())};
	JobqOwnerContext context;
	int64		last = 0;

	jobq_connect_as_owner(&context);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(LAST_ENTRY, 1, types, values, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log");
	if (SPI_processed > 0)
	{
		bool		null;

		last = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										   SPI_tuptable->tupdesc, 1, &null));
	}
	PopActiveSnapshot();
	jobq_disconnect(&context);
	return last;
}

/* ---- writing ---- */

static void
insert_row(JobqTable table, int natts, const Datum *values,
		   const bool *nulls)
{
	Relation	rel = table_open(jobq_table_oid(table), RowExclusiveLock);

	jobq_check_columns(rel, natts);
	jobq_insert(rel, values, nulls, NULL);
	table_close(rel, NoLock);
}

void
jobq_audit_insert_entry(const JobqAuditEntry *entry)
{
	insert_row(JOBQ_TABLE_AUDIT_ENTRY, AUDIT_NATTS, entry->values,
			   entry->nulls);
}

static Datum
hash_datum(const JobqAuditLink *link)
{
	bytea	   *hash = palloc(VARHDRSZ + JOBQ_AUDIT_HASH);

	SET_VARSIZE(hash, VARHDRSZ + JOBQ_AUDIT_HASH);
	memcpy(VARDATA(hash), link->hash, JOBQ_AUDIT_HASH);
	return PointerGetDatum(hash);
}

void
jobq_audit_insert_link(const pg_uuid_t *chain, const JobqAuditLink *link,
					   Datum origin, Datum id)
{
	Datum		values[LINK_NATTS];
	bool		nulls[LINK_NATTS] = {0};

	values[LINK_CHAIN] = UUIDPGetDatum(chain);
	values[LINK_SEQ] = Int64GetDatum(link->seq);
	values[LINK_ORIGIN] = origin;
	values[LINK_ID] = id;
	values[LINK_HASH] = hash_datum(link);
	insert_row(JOBQ_TABLE_AUDIT_CHAIN, LINK_NATTS, values, nulls);
}

void
jobq_audit_insert_mark(const pg_uuid_t *chain, const JobqAuditLink *link,
					   bool cut)
{
	Datum		values[MARK_NATTS];
	bool		nulls[MARK_NATTS] = {0};

	values[MARK_CHAIN] = UUIDPGetDatum(chain);
	values[MARK_CUT] = BoolGetDatum(cut);
	values[MARK_SEQ] = Int64GetDatum(link->seq);
	values[MARK_HASH] = hash_datum(link);
	insert_row(JOBQ_TABLE_AUDIT_MARK, MARK_NATTS, values, nulls);
}

bool
jobq_audit_is_deleting(void)
{
	return deleting;
}

uint64
jobq_audit_delete(const char *command, int nargs, Oid *types, Datum *values)
{
	uint64		n;

	deleting = true;
	PG_TRY();
	{
		n = jobq_execute(command, nargs, types, values, SPI_OK_DELETE);
	}
	PG_FINALLY();
	{
		deleting = false;
	}
	PG_END_TRY();
	return n;
}

/* ---- the hash of a link ---- */

/* So that neither can pass for the other: a text, or nothing. */
static void
add_text(StringInfo bytes, const char *text)
{
	char	   *utf8;

	if (text == NULL)
	{
		pq_sendint32(bytes, PG_UINT32_MAX);
		return;
	}
	utf8 = pg_server_to_any(text, (int) strlen(text), PG_UTF8);
	pq_sendint32(bytes, (uint32) strlen(utf8));
	appendBinaryStringInfo(bytes, utf8, (int) strlen(utf8));
}

/*
 * A column as it is wherever and however it is restored: times and numbers as
 * such, whatever the settings, other things as their text.
 */
static void
add_column(StringInfo bytes, HeapTuple row, TupleDesc desc, int column)
{
	Oid			type = SPI_gettypeid(desc, column);
	bool		null;
	Datum		value = SPI_getbinval(row, desc, column, &null);

	if (!null && (type == INT8OID || type == TIMESTAMPTZOID))
	{
		pq_sendint32(bytes, sizeof(int64));
		pq_sendint64(bytes, (uint64) DatumGetInt64(value));
	}
	else
		add_text(bytes, null ? NULL : SPI_getvalue(row, desc, column));
}

void
jobq_audit_next_link(const JobqAuditLink *previous, const pg_uuid_t *chain,
					 HeapTuple row, TupleDesc desc, JobqAuditLink *next)
{
	StringInfoData bytes;
	bytea	   *input;
	bytea	   *hash;

	initStringInfo(&bytes);
	appendBinaryStringInfo(&bytes, (const char *) previous->hash,
						   JOBQ_AUDIT_HASH);
	appendBinaryStringInfo(&bytes, (const char *) chain->data, UUID_LEN);
	pq_sendint64(&bytes, (uint64) previous->seq + 1);
	for (int column = 1; column <= AUDIT_NATTS; column++)
		add_column(&bytes, row, desc, column);

	input = cstring_to_text_with_len(bytes.data, bytes.len);
	hash = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea,
											   PointerGetDatum(input)));
	next->seq = previous->seq + 1;
	memcpy(next->hash, VARDATA_ANY(hash), JOBQ_AUDIT_HASH);
	pfree(hash);
	pfree(input);
	pfree(bytes.data);
}
