/*
 * install.c: jobq.check_install(): is what CREATE EXTENSION has made, and what
 * the keeper has added to it, still all there and as it was made? Repairs
 * nothing, shows no job.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

#include "api/report.h"
#include "compat.h"
#include "engine/engine.h"
#include "version.h"

PG_FUNCTION_INFO_V1(jobq_sql_check_install);

#define REINSTALL \
	"Undo what was changed by hand; if that is not possible, save the jobs with pg_dump and create the extension anew."

/* The belt tables of this installation: name, what it is. */
#define BELT_TABLES \
	"(SELECT format('%s_%s', k.kind, e.epoch), k.kind" \
	" FROM jobq.epoch e JOIN jobq.installation i ON i.id = e.installation," \
	" unnest('{job,claim,outcome}'::text[]) k (kind)) b (name, kind)"

static const JobqCheck checks[] = {
	{
		.item = "version",
		.query = "SELECT nullif(e.extversion, '" JOBQ_VERSION "')"
		" FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_jobq'",
		.fine = "Library and SQL objects are of version " JOBQ_VERSION ".",
		.status = JOBQ_ERROR,
		.wrong = "The SQL objects are of version %s, the library is of version " JOBQ_VERSION ".",
		.hint = "Run ALTER EXTENSION pg_jobq UPDATE, or install the older library and restart the server.",
	},
	{
		.item = "roles",
		.query = "SELECT string_agg(r.name, ', ') FROM"
		" unnest('{jobq_admin,jobq_monitor,jobq_key_user}'::text[]) r (name)"
		" WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles p"
		"  WHERE p.rolname = r.name)",
		.fine = "Roles jobq_admin, jobq_monitor and jobq_key_user exist.",
		.status = JOBQ_ERROR,
		.wrong = "Roles are missing: %s.",
		.hint = "CREATE ROLE with NOLOGIN; in this database GRANT to it what the documentation lists.",
	},
	{
		.item = "tables",
		.query = "SELECT string_agg(t.name, ', ' ORDER BY t.name)"
		" FROM unnest('{access_key,access_key_use,audit_chain,audit_entry,audit_mark,call,class,"
		"clean_start,crypto_key,epoch,epoch_total,rate_window,"
		"installation,lease_mark,number_block,queue,queue_acl,queue_group,queue_hour,"
		"queue_minute,restored,schedule,shelf,ukey}'::text[]) t (name)"
		" WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c"
		"  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass"
		"   AND d.objid = c.oid AND d.deptype = 'e'"
		"   AND d.refclassid = 'pg_catalog.pg_extension'::regclass"
		"  JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid"
		"  WHERE c.relnamespace = 'jobq'::regnamespace AND c.relname = t.name"
		"   AND e.extname = 'pg_jobq')",
		.fine = "All tables of the extension are there.",
		.status = JOBQ_ERROR,
		.wrong = "Tables are missing, or no members of the extension: %s.",
		.hint = REINSTALL,
	},
	{
		.item = "epochs",
		.query = "SELECT string_agg(format('%s %s', b.name, w.what), ', ' ORDER BY b.name)"
		" FROM " BELT_TABLES
		" LEFT JOIN pg_catalog.pg_class c ON c.relname = b.name"
		"  AND c.relnamespace = 'jobq'::regnamespace"
		" CROSS JOIN LATERAL (SELECT CASE"
		"  WHEN c.oid IS NULL THEN 'is missing'"
		"  WHEN c.relkind <> 'r' OR c.relpersistence <> 'p'"
		"   THEN 'is not an ordinary table'"
		"  WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_depend d"
		"   JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid"
		"   WHERE d.classid = 'pg_catalog.pg_class'::regclass"
		"    AND d.objid = c.oid AND d.deptype = 'x'"
		"    AND d.refclassid = 'pg_catalog.pg_extension'::regclass"
		"    AND x.extname = 'pg_jobq') THEN 'does not depend on the extension'"
		"  WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t"
		"   JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid"
		"   WHERE t.tgrelid = c.oid AND t.tgenabled IN ('O', 'A')"
		"    AND p.pronamespace = 'jobq'::regnamespace"
		"    AND p.proname = '_refuse_write')"
		"   THEN 'lacks its trigger, or it is disabled' END) w (what)"
		" WHERE w.what IS NOT NULL",
		.fine = "The tables of all epochs are there, with their triggers.",
		.status = JOBQ_ERROR,
		.wrong = "Tables of epochs are not as they were made: %s.",
		.hint = REINSTALL,
	},
	{
		.item = "indexes",
		.query = "WITH written (name, oid, kind) AS ("
		"  SELECT b.name, c.oid, b.kind FROM " BELT_TABLES
		"   JOIN pg_catalog.pg_class c ON c.relname = b.name"
		"    AND c.relnamespace = 'jobq'::regnamespace"
		"  UNION ALL SELECT 'shelf', 'jobq.shelf'::regclass, 'shelf'"
		"  UNION ALL SELECT 'ukey', 'jobq.ukey'::regclass, 'ukey'"
		"  UNION ALL SELECT a.name, ('jobq.' || a.name)::regclass, a.name"
		"   FROM unnest('{access_key,crypto_key,rate_window,audit_entry,audit_chain,"
		"     audit_mark}'::text[]) a (name)),"
		" found (name, kind, idx, is_unique, works, is_plain, keys) AS ("
		"  SELECT w.name, w.kind, x.relname, i.indisunique,"
		"   i.indisvalid AND i.indisready AND i.indislive,"
		"   a.amname = 'btree' AND i.indexprs IS NULL AND i.indpred IS NULL,"
		"   (SELECT string_agg(t.attname, ',' ORDER BY k.nth)"
		"    FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (att, nth)"
		"    JOIN pg_catalog.pg_attribute t ON t.attrelid = w.oid AND t.attnum = k.att)"
		"  FROM written w JOIN pg_catalog.pg_index i ON i.indrelid = w.oid"
		"   JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid"
		"   JOIN pg_catalog.pg_am a ON a.oid = x.relam)"
		" SELECT string_agg(p.problem, ', ' ORDER BY p.problem) FROM ("
		"  SELECT format('%s lacks a valid index on (%s)', w.name, n.keys)"
		"  FROM written w JOIN (VALUES ('job', 'id', false),"
		"   ('job', 'queue_id,priority,run_at,id', false),"
		"   ('outcome', 'ticket', true), ('shelf', 'id', true),"
		"   ('shelf', 'run_at,id', false),"
		"   ('ukey', 'queue_id,key,scope,gen', true),"
		"   ('access_key', 'digest', true), ('crypto_key', 'name,version', true),"
		"   ('rate_window', 'owner,name', true),"
		"   ('audit_entry', 'origin,id', true), ('audit_entry', 'at', false),"
		"   ('audit_chain', 'chain,seq', true), ('audit_chain', 'origin,id', true),"
		"   ('audit_mark', 'chain,cut,seq', true)) n (kind, keys, is_unique)"
		"   ON n.kind = w.kind"
		"  WHERE NOT EXISTS (SELECT FROM found f WHERE f.name = w.name"
		"   AND f.keys = n.keys AND f.works AND f.is_plain"
		"   AND f.is_unique >= n.is_unique)"
		"  UNION ALL SELECT format('%s is not a plain btree', f.idx)"
		"  FROM found f WHERE NOT f.is_plain"
		"  UNION ALL SELECT format('%s is not valid', f.idx)"
		"  FROM found f WHERE NOT f.works) p (problem)",
		.fine = "All indexes are there and valid.",
		.status = JOBQ_ERROR,
		.wrong = "Indexes are not as they were made: %s.",
		.hint = "Make missing ones anew with CREATE INDEX, drop others, use REINDEX for invalid ones.",
	},
	{
		.item = "audit",
		.query = "SELECT string_agg(format('trigger %s of %s', t.name, a.name), ', '"
		"  ORDER BY a.name, t.name)"
		" FROM unnest('{audit_entry,audit_chain,audit_mark}'::text[]) a (name),"
		"  unnest('{guard,guard_row}'::text[]) t (name)"
		" WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g"
		"  JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid"
		"  WHERE g.tgrelid = ('jobq.' || a.name)::regclass AND g.tgname = t.name"
		"   AND g.tgenabled = 'A' AND p.pronamespace = 'jobq'::regnamespace"
		"   AND p.proname = '_guard_audit')",
		.fine = "The audit log is guarded; jobq.verify_audit() tells whether it is whole.",
		.status = JOBQ_ERROR,
		.wrong = "The audit log can be changed: missing or disabled is %s.",
		.hint = "ALTER TABLE ... ENABLE ALWAYS TRIGGER, find out who did this, and call jobq.verify_audit().",
	},
	{
		.item = "owners",
		.query = "SELECT string_agg(o.name, ', ' ORDER BY o.name) FROM ("
		"  SELECT 'schema jobq', n.nspowner FROM pg_catalog.pg_namespace n"
		"   WHERE n.nspname = 'jobq'"
		"  UNION ALL SELECT c.relname, c.relowner FROM pg_catalog.pg_class c"
		"   WHERE c.relnamespace = 'jobq'::regnamespace"
		"  UNION ALL SELECT p.oid::regprocedure::text, p.proowner"
		"   FROM pg_catalog.pg_proc p"
		"   WHERE p.pronamespace = 'jobq'::regnamespace) o (name, owner)"
		" WHERE o.owner <> (SELECT e.extowner FROM pg_catalog.pg_extension e"
		"  WHERE e.extname = 'pg_jobq')",
		.fine = "Everything belongs to the owner of the extension.",
		.status = JOBQ_ERROR,
		.wrong = "Not owned by the owner of the extension: %s.",
		.hint = "Give it back with ALTER ... OWNER TO.",
	},
	{
		.item = "public",
		.query = "SELECT string_agg(DISTINCT o.name, ', ') FROM ("
		"  SELECT 'schema jobq', coalesce(n.nspacl, acldefault('n', n.nspowner))"
		"   FROM pg_catalog.pg_namespace n WHERE n.nspname = 'jobq'"
		"  UNION ALL SELECT c.relname, coalesce(c.relacl,"
		"    acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))"
		"   FROM pg_catalog.pg_class c"
		"   WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind IN ('r', 'v', 'S')"
		"  UNION ALL SELECT p.oid::regprocedure::text,"
		"    coalesce(p.proacl, acldefault('f', p.proowner))"
		"   FROM pg_catalog.pg_proc p"
		"   WHERE p.pronamespace = 'jobq'::regnamespace) o (name, acl),"
		" aclexplode(o.acl) a WHERE a.grantee = 0",
		.fine = "Nothing is granted to PUBLIC.",
		.status = JOBQ_ERROR,
		.wrong = "Granted to PUBLIC: %s.",
		.hint = "REVOKE ALL FROM PUBLIC; give roles what they need with jobq.grant_queue().",
	},
	{
		.item = "row_security",
		.query = "SELECT string_agg(c.relname, ', ' ORDER BY c.relname)"
		" FROM pg_catalog.pg_class c"
		" WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind = 'r'"
		"  AND NOT (c.relrowsecurity AND c.relforcerowsecurity)",
		.fine = "Row level security is forced on all tables.",
		.status = JOBQ_ERROR,
		.wrong = "Without forced row level security: %s.",
		.hint = "ALTER TABLE ... ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY.",
	},
	{
		.item = "functions",
		.query = "SELECT string_agg(p.oid::regprocedure::text, ', ')"
		" FROM pg_catalog.pg_proc p"
		" WHERE p.pronamespace = 'jobq'::regnamespace"
		"  AND ((p.prosecdef AND NOT EXISTS"
		"    (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%'))"
		"   OR (p.probin IS NOT NULL AND p.probin <> '$libdir/pg_jobq'))",
		.fine = "Functions are those of this library, their search_path is pinned where it must be.",
		.status = JOBQ_ERROR,
		.wrong = "Functions are not as they were made: %s.",
		.hint = REINSTALL,
	},
	{
		.item = "calls",
		.query = "SELECT string_agg(DISTINCT c.call, ', ')"
		" FROM jobq.call c LEFT JOIN pg_catalog.pg_roles r ON r.rolname = 'jobq_admin'"
		" WHERE CASE WHEN c.is_view THEN to_regclass('jobq.' || c.call) IS NULL"
		"   OR NOT has_table_privilege(r.oid, to_regclass('jobq.' || c.call), 'SELECT')"
		"  ELSE to_regprocedure('jobq.' || c.call) IS NULL"
		"   OR NOT has_function_privilege(r.oid,"
		"    to_regprocedure('jobq.' || c.call), 'EXECUTE') END",
		.fine = "All functions and views are there, and jobq_admin may use them.",
		.status = JOBQ_ERROR,
		.wrong = "Missing, or not granted to jobq_admin: %s.",
		.hint = "GRANT them to jobq_admin; what is missing comes back with the extension only.",
	},
};

/*
 * Columns: as many as this library expects, and of the same names and types
 * in all epochs; those of a job are those of the shelf.
 */
static void
report_columns(ReturnSetInfo *rsinfo)
{
	JobqCheck	check = {
		.item = "columns",
		.fine = "All tables of jobs have their columns.",
		.status = JOBQ_ERROR,
		.wrong = "Columns are not as they were made: %s.",
		.hint = REINSTALL,
	};

	check.query =
		psprintf("WITH t (name, kind, n, columns) AS ("
				 " SELECT c.relname, b.kind, count(*),"
				 "  string_agg(format('%%s %%s', a.attname,"
				 "   format_type(a.atttypid, a.atttypmod)), ', '"
				 "   ORDER BY a.attnum) FILTER (WHERE a.attnum <= %d)"
				 " FROM (SELECT 'shelf', 'shelf' UNION ALL"
				 "  SELECT format('%%s_%%s', k.kind, e.epoch), k.kind"
				 "  FROM jobq.epoch e"
				 "  JOIN jobq.installation i ON i.id = e.installation,"
				 "  unnest('{job,claim,outcome}'::text[]) k (kind)) b (name, kind)"
				 " JOIN pg_catalog.pg_class c ON c.relname = b.name"
				 "  AND c.relnamespace = 'jobq'::regnamespace"
				 " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid"
				 "  AND a.attnum > 0"
				 " GROUP BY c.relname, b.kind)"
				 " SELECT string_agg(t.name, ', ' ORDER BY t.name) FROM t"
				 " WHERE t.n <> CASE t.kind WHEN 'shelf' THEN %d"
				 "   WHEN 'job' THEN %d WHEN 'claim' THEN %d ELSE %d END"
				 "  OR t.columns <> (SELECT o.columns FROM t o"
				 "   WHERE o.kind = CASE t.kind WHEN 'job' THEN 'shelf'"
				 "    ELSE t.kind END"
				 "   ORDER BY length(o.name) DESC, o.name DESC LIMIT 1)",
				 (int) JOB_NATTS, (int) SHELF_NATTS, (int) JOB_NATTS,
				 (int) CLAIM_NATTS, (int) OUT_NATTS);
	jobq_report_checks(rsinfo, &check, 1);
}

/* Asks for no more than the name: whatever is wrong with it, is for others. */
static bool
is_there(const char *kind, int32 epoch)
{
	Oid			schema = get_namespace_oid("jobq", false);

	return OidIsValid(get_relname_relid(psprintf("%s_%d", kind, epoch),
										schema));
}

/* Nothing in the tables may be beyond what has been reserved. */
static void
report_numbers(ReturnSetInfo *rsinfo)
{
	JobqCheck	check = {
		.item = "numbers",
		.fine = "Ids, tickets and leases are within what has been reserved.",
		.status = JOBQ_ERROR,
		.wrong = "Numbers could be handed out twice: %s.",
		.hint = "Advance sequence jobq.number_block by setval() and lease in jobq.lease_mark beyond what there is, then restart the server.",
	};
	StringInfoData numbers;
	StringInfoData leases;
	int32	   *epochs;
	int			n = jobq_epoch_list(&epochs);

	initStringInfo(&numbers);
	initStringInfo(&leases);
	for (int i = 0; i < n; i++)
	{
		if (is_there("job", epochs[i]))
			appendStringInfo(&numbers, " UNION ALL SELECT max(j.id)"
							 " FROM jobq.job_%d j", epochs[i]);
		if (is_there("outcome", epochs[i]))
			appendStringInfo(&numbers, " UNION ALL SELECT max(o.ticket)"
							 " FROM jobq.outcome_%d o", epochs[i]);
		if (is_there("claim", epochs[i]))
			appendStringInfo(&leases, " UNION ALL SELECT max(c.lease)"
							 " FROM jobq.claim_%d c", epochs[i]);
	}
	check.query =
		psprintf("SELECT string_agg(p.problem, '; ') FROM ("
				 " SELECT format('there is %%s, but only numbers up to %%s are reserved',"
				 "  max(u.n), r.top)"
				 " FROM (SELECT max(s.id) FROM jobq.shelf s%s) u (n),"
				 "  (SELECT CASE WHEN b.is_called THEN b.last_value + %d"
				 "   ELSE b.last_value END - 1 FROM jobq.number_block b) r (top)"
				 " GROUP BY r.top HAVING max(u.n) > r.top"
				 " UNION ALL"
				 " SELECT format('there is lease %%s, but the mark is %%s',"
				 "  max(l.n), m.lease)"
				 " FROM (SELECT NULL::bigint%s) l (n), jobq.lease_mark m"
				 " GROUP BY m.lease HAVING max(l.n) > m.lease) p (problem)",
				 numbers.data, JOBQ_NUMBER_BLOCK, leases.data);
	jobq_report_checks(rsinfo, &check, 1);
}

Datum
jobq_sql_check_install(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	JobqSession session;

	jobq_require_admin("jobq.check_install()");
	jobq_begin_read(&session);
	InitMaterializedSRF(fcinfo, 0);
	jobq_report_preload(rsinfo);
	jobq_report_standby(rsinfo);
	jobq_report_checks(rsinfo, checks, lengthof(checks));
	report_columns(rsinfo);
	report_numbers(rsinfo);
	return (Datum) 0;
}
