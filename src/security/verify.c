/*
 * verify.c: what keeps the audit log as it was written: the trigger that lets
 * nobody change it by SQL, who may read it, and verify_audit(), which tells
 * whether somebody has changed it all the same. Changes nothing itself.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "api/args.h"
#include "api/report.h"
#include "engine/engine.h"
#include "errors.h"
#include "security/audit.h"
#include "security/security.h"
#include "store/audit.h"

PG_FUNCTION_INFO_V1(jobq_guard_audit);
PG_FUNCTION_INFO_V1(jobq_audit_gate);
PG_FUNCTION_INFO_V1(jobq_sql_verify_audit);

#define FETCH_ROWS	1000

#define CHAINS \
	"SELECT m.chain FROM jobq.audit_mark m" \
	" UNION SELECT c.chain FROM jobq.audit_chain c" \
	" UNION SELECT i.id FROM jobq.installation i" \
	" ORDER BY 1"

#define MARK \
	"SELECT m.seq, m.hash FROM jobq.audit_mark m" \
	" WHERE m.chain = $1 AND m.cut = $2 ORDER BY m.seq DESC LIMIT 1"

#define LINKS \
	"SELECT " JOBQ_AUDIT_COLUMNS ", c.seq, c.hash" \
	" FROM jobq.audit_chain c LEFT JOIN jobq.audit_entry e" \
	" ON e.origin = c.origin AND e.id = c.id" \
	" WHERE c.chain = $1 ORDER BY c.seq"

#define UNCHAINED \
	"SELECT count(*) FROM jobq.audit_entry e WHERE e.origin = $1" \
	" AND NOT EXISTS (SELECT FROM jobq.audit_chain c" \
	"  WHERE c.origin = e.origin AND c.id = e.id)"

/* ---- the trigger ---- */

static const char *
event_name(TriggerEvent event)
{
	return TRIGGER_FIRED_BY_INSERT(event) ? "INSERT" :
		TRIGGER_FIRED_BY_UPDATE(event) ? "UPDATE" :
		TRIGGER_FIRED_BY_DELETE(event) ? "DELETE" : "TRUNCATE";
}

/* The first column says whose the row is; those of others are a dump's. */
static bool
is_restored(const TriggerData *trigger)
{
	bool		null;
	Datum		whose;

	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || !superuser())
		return false;
	whose = heap_getattr(trigger->tg_trigtuple, 1,
						 RelationGetDescr(trigger->tg_relation), &null);
	return !null && memcmp(DatumGetUUIDP(whose), jobq_audit_origin(),
						   UUID_LEN) != 0;
}

/*
 * Rows that we add go around triggers, and only the keeper deletes, what has
 * been kept for long enough.
 */
Datum
jobq_guard_audit(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *table;
	const char *event;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("jobq._guard_audit() is a trigger function"),
				 errhint("It is called by triggers of pg_jobq only.")));
	if (is_restored(trigger))
		return PointerGetDatum(trigger->tg_trigtuple);
	event = event_name(trigger->tg_event);
	if (strcmp(event, "DELETE") == 0 && jobq_audit_is_deleting())
		return PointerGetDatum(NULL);

	table = RelationGetRelationName(trigger->tg_relation);
	jobq_audit_refusal(psprintf("%s %s", event, table), 0, 0,
					   ERRCODE_INSUFFICIENT_PRIVILEGE,
					   "The audit log is only ever added to.");
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s of table \"jobq.%s\" is not permitted", event, table),
			 errdetail("The audit log is only ever added to, by pg_jobq itself."),
			 errhint("Old entries leave by themselves, as jobq.audit_retention says.")));
}

/* ---- who may read ---- */

/*
 * The view reads as the tables' owner. Where row level security holds that one
 * up it would look as if nothing had ever been done.
 */
static void
require_readable(void)
{
	Oid			owner = jobq_extension_owner();

	if (check_enable_rls(jobq_table_oid(JOBQ_TABLE_AUDIT_ENTRY), owner,
						 true) != RLS_ENABLED)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("view jobq.audit cannot be read"),
			 errdetail("Its owner \"%s\" is held up by row level security.",
					   GetUserNameFromId(owner, false)),
			 errhint("Give the extension to a superuser with REASSIGN OWNED.")));
}

/* True, or an error: in the view's WHERE, so it is asked before any row. */
Datum
jobq_audit_gate(PG_FUNCTION_ARGS)
{
	jobq_audit_call = NULL;
	jobq_require_admin("view jobq.audit");
	require_readable();
	PG_RETURN_BOOL(true);
}

/* ---- verifying ---- */

/* One chain, and what has been found out about it. */
typedef struct Chain
{
	pg_uuid_t	name;
	bool		is_own;
	JobqAuditLink last;			/* the last one that is right */
	int64		first_seq;		/* 0 = there is no link */
	int64		bad_seq;		/* 0 = none so far */
	const char *problem;
	const JobqAuditLink *known; /* what the caller has written down */
} Chain;

static void
find_bad(Chain *chain, int64 seq, const char *problem)
{
	if (chain->bad_seq != 0)
		return;
	chain->bad_seq = seq;
	chain->problem = problem;
}

static bool
is_same(const JobqAuditLink *a, const JobqAuditLink *b)
{
	return memcmp(a->hash, b->hash, JOBQ_AUDIT_HASH) == 0;
}

/* Two columns: number and hash; false when the hash cannot be one. */
static bool
read_link(HeapTuple row, TupleDesc desc, int column, JobqAuditLink *link)
{
	bool		null;
	bytea	   *hash;

	link->seq = DatumGetInt64(SPI_getbinval(row, desc, column, &null));
	hash = DatumGetByteaPP(SPI_getbinval(row, desc, column + 1, &null));
	if (VARSIZE_ANY_EXHDR(hash) != JOBQ_AUDIT_HASH)
		return false;
	memcpy(link->hash, VARDATA_ANY(hash), JOBQ_AUDIT_HASH);
	return true;
}

/* The newest mark of a kind; false when there is none. */
static bool
read_mark(const Chain *chain, bool cut, JobqAuditLink *mark)
{
	Oid			types[] = {UUIDOID, BOOLOID};
	Datum		values[] = {UUIDPGetDatum(&chain->name), BoolGetDatum(cut)};

	if (SPI_execute_with_args(MARK, 2, types, values, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the marks of the audit log");
	memset(mark, 0, sizeof(*mark));
	return SPI_processed > 0 &&
		read_link(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, mark);
}

static void
check_known(Chain *chain)
{
	if (chain->known != NULL && chain->known->seq == chain->last.seq &&
		!is_same(chain->known, &chain->last))
		find_bad(chain, chain->last.seq,
				 "the link is another one than the one that was written down");
}

static void
check_link(Chain *chain, HeapTuple row, TupleDesc desc)
{
	JobqAuditLink link;
	JobqAuditLink right;
	bool		entry_is_gone;
	bool		readable = read_link(row, desc, AUDIT_NATTS + 1, &link);

	if (link.seq != chain->last.seq + 1)
	{
		find_bad(chain, chain->last.seq + 1,
				 link.seq > chain->last.seq ? "the link is missing" :
				 "there is a link where the chain was cut");
		return;
	}
	(void) SPI_getbinval(row, desc, AUDIT_ID + 1, &entry_is_gone);
	if (entry_is_gone)
	{
		find_bad(chain, link.seq, "the entry is missing");
		return;
	}
	jobq_audit_next_link(&chain->last, &chain->name, row, desc, &right);
	if (!readable || !is_same(&link, &right))
	{
		find_bad(chain, link.seq, "the entry or its link was changed");
		return;
	}
	chain->last = right;
	if (chain->first_seq == 0)
		chain->first_seq = right.seq;
	check_known(chain);
}

/* Each link from the cut on, until one is not right. */
static void
check_links(Chain *chain)
{
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&chain->name)};
	SPIPlanPtr	plan = SPI_prepare(LINKS, 1, types);
	MemoryContext row_context;
	Portal		portal;

	if (plan == NULL)
		elog(ERROR, "could not read the audit log: %s",
			 SPI_result_code_string(SPI_result));
	row_context = AllocSetContextCreate(CurrentMemoryContext,
										"jobq audit link",
										ALLOCSET_DEFAULT_SIZES);
	portal = SPI_cursor_open(NULL, plan, values, NULL, true);
	do
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		for (uint64 i = 0; i < SPI_processed && chain->bad_seq == 0; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(row_context);

			CHECK_FOR_INTERRUPTS();
			check_link(chain, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			MemoryContextSwitchTo(old);
			MemoryContextReset(row_context);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0 && chain->bad_seq == 0);
	SPI_cursor_close(portal);
	MemoryContextDelete(row_context);
}

/* The keeper has noted where the chain ends. */
static void
check_end(Chain *chain)
{
	JobqAuditLink end;

	if (!read_mark(chain, false, &end))
	{
		if (chain->last.seq > 0)
			find_bad(chain, chain->last.seq, "the mark of the end is missing");
		return;
	}
	if (end.seq > chain->last.seq)
		find_bad(chain, chain->last.seq + 1, "links are missing at the end");
	else if (end.seq < chain->last.seq || !is_same(&end, &chain->last))
		find_bad(chain, Min(end.seq + 1, chain->last.seq),
				 "the chain does not end where the keeper has left it");
}

static void
check_known_end(Chain *chain, const JobqAuditLink *cut)
{
	if (chain->known == NULL)
		return;
	if (chain->known->seq < cut->seq ||
		(chain->known->seq == cut->seq && !is_same(chain->known, cut)))
		find_bad(chain, chain->known->seq,
				 "the link that was written down is no longer kept");
	else if (chain->known->seq > chain->last.seq)
		find_bad(chain, chain->last.seq + 1,
				 "the chain ends before the link that was written down");
}

static int64
count_unchained(const Chain *chain)
{
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(&chain->name)};
	bool		null;

	if (SPI_execute_with_args(UNCHAINED, 1, types, values, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &null));
}

static void
check_chain(Chain *chain)
{
	JobqAuditLink cut;

	(void) read_mark(chain, true, &cut);
	chain->last = cut;
	check_links(chain);
	check_end(chain);
	check_known_end(chain, &cut);
}

static Datum
hash_datum(const JobqAuditLink *link)
{
	return PointerGetDatum(cstring_to_text_with_len((const char *) link->hash,
													JOBQ_AUDIT_HASH));
}

/* Columns of verify_audit(). */
enum
{
	VERIFY_WHOLE,
	VERIFY_FIRST_BAD_SEQ,
	VERIFY_PROBLEM,
	VERIFY_FIRST_SEQ,
	VERIFY_LAST_SEQ,
	VERIFY_LAST_HASH,
	VERIFY_UNCHAINED,
	VERIFY_IS_OWN,
	VERIFY_CHAIN,
	VERIFY_NATTS
};

static void
report(ReturnSetInfo *rsinfo, const Chain *chain)
{
	Datum		values[VERIFY_NATTS];
	bool		nulls[VERIFY_NATTS] = {0};
	bool		whole = chain->bad_seq == 0;

	values[VERIFY_WHOLE] = BoolGetDatum(whole);
	values[VERIFY_FIRST_BAD_SEQ] = Int64GetDatum(chain->bad_seq);
	nulls[VERIFY_FIRST_BAD_SEQ] = whole;
	nulls[VERIFY_PROBLEM] = whole;
	values[VERIFY_PROBLEM] = whole ? (Datum) 0 :
		CStringGetTextDatum(chain->problem);
	values[VERIFY_FIRST_SEQ] = Int64GetDatum(chain->first_seq);
	values[VERIFY_LAST_SEQ] = Int64GetDatum(chain->last.seq);
	values[VERIFY_LAST_HASH] = hash_datum(&chain->last);
	nulls[VERIFY_FIRST_SEQ] = nulls[VERIFY_LAST_SEQ] =
		nulls[VERIFY_LAST_HASH] = chain->first_seq == 0;
	values[VERIFY_UNCHAINED] = Int64GetDatum(count_unchained(chain));
	values[VERIFY_IS_OWN] = BoolGetDatum(chain->is_own);
	values[VERIFY_CHAIN] = UUIDPGetDatum(&chain->name);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* False: the caller has written down nothing. */
static bool
read_known(FunctionCallInfo fcinfo, JobqAuditLink *known)
{
	bytea	   *hash;

	if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
		return false;
	jobq_arg_required(fcinfo, 0, "known_seq");
	jobq_arg_required(fcinfo, 1, "known_hash");
	known->seq = jobq_arg_int(PG_GETARG_INT64(0), "known_seq", 1,
							  PG_INT64_MAX);
	hash = PG_GETARG_BYTEA_PP(1);
	if (VARSIZE_ANY_EXHDR(hash) != JOBQ_AUDIT_HASH)
		jobq_bad_argument("known_hash", "It must have 32 bytes.");
	memcpy(known->hash, VARDATA_ANY(hash), JOBQ_AUDIT_HASH);
	return true;
}

/* The names of all chains, in the present memory context. */
static int
read_chains(pg_uuid_t **names)
{
	int			n;

	if (SPI_execute(CHAINS, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log");
	n = (int) SPI_processed;
	*names = palloc(sizeof(pg_uuid_t) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool		null;

		(*names)[i] =
			*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[i],
										 SPI_tuptable->tupdesc, 1, &null));
	}
	return n;
}

/* verify_audit(known_seq bigint, known_hash bytea) */
Datum
jobq_sql_verify_audit(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;
	JobqOwnerContext owner;
	JobqAuditLink known;
	bool		is_known;
	pg_uuid_t  *names;
	int			n;

	jobq_require_admin("jobq.verify_audit()");
	jobq_begin_read(&session);
	is_known = read_known(fcinfo, &known);
	InitMaterializedSRF(fcinfo, 0);

	jobq_connect_as_owner(&owner);
	PushActiveSnapshot(GetLatestSnapshot());
	n = read_chains(&names);
	for (int i = 0; i < n; i++)
	{
		Chain		chain = {.name = names[i]};

		chain.is_own = memcmp(&names[i], jobq_audit_origin(),
							  UUID_LEN) == 0;
		if (chain.is_own && is_known)
			chain.known = &known;
		check_chain(&chain);
		report(rsinfo, &chain);
	}
	PopActiveSnapshot();
	jobq_disconnect(&owner);
	return (Datum) 0;
}
