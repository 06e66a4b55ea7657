/*
 * audit.c: the keeper's part of the audit log: writes refusals, puts entries
 * into the chain in the order in which it sees them, and cuts off what has been
 * kept for long enough. Nobody waits for it; must not decide what is recorded.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "dispatch/audit.h"
#include "engine/copy.h"
#include "engine/keeperxact.h"
#include "guc.h"
#include "pause.h"
#include "security/record.h"
#include "security/security.h"
#include "store/audit.h"

#define PAUSE			(USECS_PER_SEC / 2) /* between two batches */
#define REFUSALS_MAX	64		/* in one transaction */
#define ENTRIES_MAX		1000	/* looked at in one transaction */
#define BATCHES			4		/* transactions in a round */
#define CUT_MAX			1000	/* links cut off in one transaction */

/* Where a link is already, the entry is not news. */
#define WITH_LINK(entries) \
	"SELECT " JOBQ_AUDIT_COLUMNS "," \
	" (SELECT c.seq FROM jobq.audit_chain c" \
	"  WHERE c.origin = e.origin AND c.id = e.id)" \
	" FROM (" entries " LIMIT $3) e ORDER BY e.origin, e.id"

#define OWN_ENTRIES \
	WITH_LINK("SELECT x.* FROM jobq.audit_entry x" \
	" WHERE x.origin = $1 AND x.id >= $2 ORDER BY x.origin, x.id")

#define ALL_ENTRIES \
	WITH_LINK("SELECT x.* FROM jobq.audit_entry x" \
	" WHERE (x.origin, x.id) >= ($1, $2) ORDER BY x.origin, x.id")

#define END_MARK \
	"SELECT m.seq, m.hash FROM jobq.audit_mark m" \
	" WHERE m.chain = $1 AND m.cut = false ORDER BY m.seq DESC LIMIT 1"

#define LAST_SEQ \
	"SELECT c.seq FROM jobq.audit_chain c" \
	" WHERE c.chain = $1 ORDER BY c.seq DESC LIMIT 1"

#define DELETE_MARK \
	"DELETE FROM jobq.audit_mark WHERE chain = $1 AND cut = $2 AND seq = $3"

#define CHAINS \
	"SELECT m.chain FROM jobq.audit_mark m WHERE NOT m.cut"

/* One more than is cut, so that the last link of a chain stays. */
#define OLDEST_LINKS \
	"SELECT c.seq, c.hash, e.at, e.call = 'audit' FROM (SELECT x.* FROM jobq.audit_chain x" \
	"  WHERE x.chain = $1 ORDER BY x.chain, x.seq LIMIT $2) c" \
	" LEFT JOIN jobq.audit_entry e ON e.origin = c.origin AND e.id = c.id" \
	" ORDER BY c.seq"

#define DELETE_LINKS \
	"WITH gone AS (DELETE FROM jobq.audit_chain" \
	"  WHERE chain = $1 AND seq <= $2 RETURNING origin, id)" \
	" DELETE FROM jobq.audit_entry e USING gone g" \
	" WHERE e.origin = g.origin AND e.id = g.id"

#define DELETE_CUTS \
	"DELETE FROM jobq.audit_mark WHERE chain = $1 AND cut = true AND seq < $2"

/*
 * What there is to do. A keeper that is new, and one of a database that has
 * just been adopted, goes through the whole table once, a piece at a time.
 */
static struct
{
	uint32		gen;			/* that it is about */
	bool		walking;
	pg_uuid_t	walk_origin;	/* the walk goes on here */
	int64		walk_id;
	int64		own_id;			/* news of ours begin here; JOBQ_NEVER = none */
	TimestampTz not_before;		/* the next batch */
	TimestampTz oldest;			/* may be cut off when it is that old; 0 = not
								 * known, JOBQ_NEVER = there is nothing */
}			todo;

/* ---- refusals ---- */

static const char *
outcome_of(const JobqRefusal *refusal)
{
	switch (refusal->kind)
	{
		case JOBQ_REFUSED:
			return "refused";
		case JOBQ_CLAIM_ROLLED_BACK:
			return "rolled_back";
	}
	return NULL;
}

/* As ourselves: who was not recorded is not known. */
static int64
write_lost(const JobqSession *session, int64 lost)
{
	JobqRefusal row = {.at = jobq_now(),.role = GetUserId(),
		.session_role = GetSessionUserId(),.call = "audit"};

	return jobq_audit_write(session, &row, "lost",
							psprintf(INT64_FORMAT " refused calls could not be recorded: there were too many at a time.",
									 lost),
							NULL);
}

/* The first number comes back; where some were lost there is one. */
static int64
write_refusals(const JobqSession *session, const JobqRefusal *refusals, int n,
			   int64 lost)
{
	int64		first = JOBQ_NEVER;

	for (int i = 0; i < n; i++)
	{
		int64		number = jobq_audit_write(session, &refusals[i],
											  outcome_of(&refusals[i]),
											  refusals[i].detail, NULL);

		if (i == 0)
			first = number;
	}
	if (lost > 0)
		(void) write_lost(session, lost);
	return first;
}

/* ---- the chain; inside SPI ---- */

/* Where a number and perhaps a hash stand; false when there is none. */
static bool
read_link(const char *query, const pg_uuid_t *chain, JobqAuditLink *link)
{
	Oid			types[] = {UUIDOID};
	Datum		values[] = {UUIDPGetDatum(chain)};
	bool		null;

	memset(link, 0, sizeof(*link));
	if (SPI_execute_with_args(query, 1, types, values, NULL, false,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log");
	if (SPI_processed == 0)
		return false;
	link->seq = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 1, &null));
	if (SPI_tuptable->tupdesc->natts > 1)
	{
		bytea	   *hash =
		DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0],
									  SPI_tuptable->tupdesc, 2, &null));

		memcpy(link->hash, VARDATA_ANY(hash),
			   Min(VARSIZE_ANY_EXHDR(hash), JOBQ_AUDIT_HASH));
	}
	return true;
}

/*
 * The mark says where the chain ends. Links that somebody has added or taken
 * away there stay visible as what they are: no number is used again.
 */
static void
find_end(const pg_uuid_t *chain, JobqAuditLink *end)
{
	JobqAuditLink last;

	(void) read_link(END_MARK, chain, end);
	(void) read_link(LAST_SEQ, chain, &last);
	end->seq = Max(end->seq, last.seq);
}

static void
delete_mark(const pg_uuid_t *chain, bool cut, int64 seq)
{
	Oid			types[] = {UUIDOID, BOOLOID, INT8OID};
	Datum		values[] = {UUIDPGetDatum(chain), BoolGetDatum(cut),
	Int64GetDatum(seq)};

	(void) jobq_audit_delete(DELETE_MARK, 3, types, values);
}

static bool
has_link(HeapTuple row, TupleDesc desc)
{
	bool		null;

	(void) SPI_getbinval(row, desc, AUDIT_NATTS + 1, &null);
	return !null;
}

/* Put entries that have no link yet into our chain, in their order. */
static void
chain_entries(SPITupleTable *entries, uint64 n)
{
	const pg_uuid_t *chain = jobq_audit_origin();
	JobqAuditLink begin;
	JobqAuditLink end;
	bool		found = false;
	bool		null;

	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	row = entries->vals[i];
		JobqAuditLink next;

		CHECK_FOR_INTERRUPTS();
		if (has_link(row, entries->tupdesc))
			continue;
		if (!found)
		{
			find_end(chain, &begin);
			end = begin;
			found = true;
		}
		jobq_audit_next_link(&end, chain, row, entries->tupdesc, &next);
		jobq_audit_insert_link(chain, &next,
							   SPI_getbinval(row, entries->tupdesc,
											 AUDIT_ORIGIN + 1, &null),
							   SPI_getbinval(row, entries->tupdesc,
											 AUDIT_ID + 1, &null));
		end = next;
	}
	if (!found)
		return;
	jobq_audit_insert_mark(chain, &end, false);
	if (begin.seq > 0)
		delete_mark(chain, false, begin.seq);
}

/* Entries in the order of their numbers; how many there were comes back. */
static int
chain_from(const char *query, pg_uuid_t *origin, int64 *id)
{
	Oid			types[] = {UUIDOID, INT8OID, INT8OID};
	Datum		values[] = {UUIDPGetDatum(origin), Int64GetDatum(*id),
	Int64GetDatum(ENTRIES_MAX)};
	SPITupleTable *entries;
	uint64		n;
	bool		null;

	if (SPI_execute_with_args(query, 3, types, values, NULL, false,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log");
	entries = SPI_tuptable;
	n = SPI_processed;
	chain_entries(entries, n);
	if (n > 0)
	{
		HeapTuple	last = entries->vals[n - 1];

		*origin = *DatumGetUUIDP(SPI_getbinval(last, entries->tupdesc,
											   AUDIT_ORIGIN + 1, &null));
		*id = DatumGetInt64(SPI_getbinval(last, entries->tupdesc,
										  AUDIT_ID + 1, &null)) + 1;
	}
	return (int) n;
}

/* One batch in the present transaction; what is left to do afterwards. */
static void
chain_some(int64 *own_id, bool *walking, pg_uuid_t *walk_origin,
		   int64 *walk_id)
{
	pg_uuid_t	own = *jobq_audit_origin();

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (*own_id != JOBQ_NEVER)
	{
		if (chain_from(OWN_ENTRIES, &own, own_id) < ENTRIES_MAX)
			*own_id = JOBQ_NEVER;
	}
	else if (*walking)
		*walking = chain_from(ALL_ENTRIES, walk_origin, walk_id) == ENTRIES_MAX;
	SPI_finish();
}

/* ---- cutting off ---- */

/* The beginning of a chain that may go. */
typedef struct Cut
{
	JobqAuditLink last;			/* its last link */
	bool		is_news;		/* it is about more than earlier cuts */
} Cut;

/*
 * The links at the beginning of a chain that are older than `until`, but for
 * the last one; false: there are none. *oldest is when what stays began.
 */
static bool
find_cut(const pg_uuid_t *chain, TimestampTz until, Cut *cut,
		 TimestampTz *oldest)
{
	Oid			types[] = {UUIDOID, INT8OID};
	Datum		values[] = {UUIDPGetDatum(chain), Int64GetDatum(CUT_MAX + 1)};
	uint64		n;

	if (SPI_execute_with_args(OLDEST_LINKS, 2, types, values, NULL, false,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log");
	n = SPI_processed;
	memset(cut, 0, sizeof(*cut));
	/* without its entry a link has no time: it goes with what is after it */
	for (uint64 i = 0; i + 1 < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		null;
		TimestampTz at = DatumGetTimestampTz(SPI_getbinval(row, desc, 3, &null));
		bytea	   *hash;

		if (null)
			continue;
		if (at >= until)
		{
			*oldest = Min(*oldest, at);
			return cut->last.seq > 0;
		}
		cut->last.seq = DatumGetInt64(SPI_getbinval(row, desc, 1, &null));
		hash = DatumGetByteaPP(SPI_getbinval(row, desc, 2, &null));
		memcpy(cut->last.hash, VARDATA_ANY(hash),
			   Min(VARSIZE_ANY_EXHDR(hash), JOBQ_AUDIT_HASH));
		if (!DatumGetBool(SPI_getbinval(row, desc, 4, &null)))
			cut->is_news = true;
	}
	if (n > CUT_MAX)
		*oldest = DT_NOBEGIN;
	return cut->last.seq > 0;
}

static void
cut_off(const JobqSession *session, const pg_uuid_t *chain, const Cut *cut)
{
	Oid			types[] = {UUIDOID, INT8OID};
	Datum		values[] = {UUIDPGetDatum(chain),
	Int64GetDatum(cut->last.seq)};
	JobqRefusal row = {.at = jobq_now(),.role = GetUserId(),
		.session_role = GetSessionUserId(),.call = "audit"};

	(void) jobq_audit_delete(DELETE_LINKS, 2, types, values);
	(void) jobq_audit_delete(DELETE_CUTS, 2, types, values);
	jobq_audit_insert_mark(chain, &cut->last, true);
	if (!cut->is_news)
		return;
	jobq_xact_audited(session,
					  jobq_audit_write(session, &row, "done",
									   psprintf("entries up to " INT64_FORMAT " of the chain were removed, as jobq.audit_retention says",
												cut->last.seq),
									   NULL),
					  NULL);
}

/* Cut what is due off all chains; when the next may be comes back. */
static TimestampTz
cut_some(const JobqSession *session, TimestampTz until)
{
	TimestampTz oldest = JOBQ_NEVER;
	SPITupleTable *chains;
	uint64		n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute(CHAINS, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log");
	chains = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		bool		null;
		pg_uuid_t  *chain = DatumGetUUIDP(SPI_getbinval(chains->vals[i],
														chains->tupdesc, 1,
														&null));
		Cut			cut;

		CHECK_FOR_INTERRUPTS();
		if (find_cut(chain, until, &cut, &oldest))
			cut_off(session, chain, &cut);
	}
	SPI_finish();
	return oldest;
}

static TimestampTz
tend_retention(const JobqSession *session, TimestampTz now)
{
	int64		kept = (int64) jobq_audit_retention * USECS_PER_SEC;

	if (jobq_audit_retention == 0 || todo.oldest == JOBQ_NEVER ||
		session->db->copy)
		return JOBQ_NEVER;
	if (todo.oldest == 0 || todo.oldest == DT_NOBEGIN ||
		todo.oldest + kept <= now)
	{
		TimestampTz oldest;

		if (!jobq_keeper_begin(session->db->install))
			return now + PAUSE;
		oldest = cut_some(session, now - kept);
		JOBQ_PAUSE("before-keeper-commit");
		jobq_keeper_commit();
		todo.oldest = oldest;
	}
	if (todo.oldest == JOBQ_NEVER)
		return JOBQ_NEVER;
	return todo.oldest == DT_NOBEGIN ? now + PAUSE :
		Max(todo.oldest + kept, now + PAUSE);
}

/* ---- rounds ---- */

static bool
has_backlog(const JobqSession *session)
{
	return todo.own_id != JOBQ_NEVER ||
		(todo.walking && !session->db->copy);
}

/*
 * Refusals and entries, in one transaction; false: try again later.
 *
 * What a restore brings has links of its own, which may be on their way, so
 * only what is no copy is walked through. That it is a copy is on disk with
 * its first row: so look after reading.
 */
static bool
tend_batch(const JobqSession *session, const JobqRefusal *refusals, int n,
		   int64 lost)
{
	pg_uuid_t	walk_origin = todo.walk_origin;
	int64		walk_id = todo.walk_id;
	int64		own_id = todo.own_id;
	bool		walking = todo.walking && !session->db->copy;
	bool		more = walking;
	int64		first;

	if (!jobq_keeper_begin(session->db->install))
		return false;
	first = write_refusals(session, refusals, n, lost);
	own_id = Min(own_id, first);
	chain_some(&own_id, &more, &walk_origin, &walk_id);
	if (walking && jobq_is_copy(session->db))
	{
		jobq_keeper_abort();
		return false;
	}
	JOBQ_PAUSE("before-keeper-commit");
	jobq_keeper_commit();
	todo.own_id = own_id;
	todo.walk_origin = walk_origin;
	todo.walk_id = walk_id;
	if (walking)
		todo.walking = more;
	if (todo.oldest == JOBQ_NEVER)
		todo.oldest = 0;
	return true;
}

/* What is there now; a flood of them does not keep us for longer. */
static bool
tend_refusals(const JobqSession *session)
{
	JobqRefusal *refusals = palloc(sizeof(JobqRefusal) * REFUSALS_MAX);
	int64		lost;
	int			n;

	for (int batch = 0; batch < BATCHES; batch++)
	{
		n = jobq_refusal_look(session->db, REFUSALS_MAX, refusals, &lost);
		if (n == 0)
			break;
		if (!tend_batch(session, refusals, n, lost))
			return false;
		jobq_refusal_written(session->db, n, lost);
	}
	pfree(refusals);
	return true;
}

static bool
has_news(const JobqSession *session)
{
	int64		lost_ever;

	return jobq_audit_has_news(session->db) ||
		jobq_refusal_count(session->db, &lost_ever) > 0;
}

/* Who adds to what is there already does not wake us. */
static TimestampTz
tend_entries(const JobqSession *session, TimestampTz now)
{
	int64		first;
	/* a clock that was set back does not keep us waiting */
	bool		due = now >= todo.not_before || todo.not_before > now + PAUSE;

	if (due && has_news(session))
	{
		todo.not_before = now + PAUSE;
		first = jobq_audit_take_news(session->db);
		todo.own_id = Min(todo.own_id, first);
		if (!tend_refusals(session))
			return todo.not_before;
	}
	for (int batch = 0; batch < BATCHES && has_backlog(session); batch++)
	{
		if (!tend_batch(session, NULL, 0, 0))
			return now + PAUSE;
	}
	if (has_backlog(session))
		return now;
	return has_news(session) ? todo.not_before : JOBQ_NEVER;
}

static void
begin_anew(uint32 gen)
{
	memset(&todo, 0, sizeof(todo));
	todo.gen = gen;
	todo.walking = true;
	todo.own_id = JOBQ_NEVER;
}

TimestampTz
jobq_tend_audit(const JobqSession *session, TimestampTz now)
{
	TimestampTz next;
	TimestampTz cut;

	if (todo.gen != session->gen)
		begin_anew(session->gen);
	next = tend_entries(session, now);
	cut = tend_retention(session, now);
	return Min(next, cut);
}
