/*
 * horizon.c: the part of jobq.health() that the catalogs tell: who keeps dead
 * rows from being removed, publications that do not carry jobs, autovacuum,
 * tables that get too old, the clock. Changes nothing.
 */
#include "postgres.h"

#include "api/report.h"
#include "guc.h"

/* Transactions since then; a slot does not say since when it holds back. */
#define OLD_XIDS		"200000"

/* Of autovacuum_freeze_max_age; the keeper freezes at half of it. */
#define FREEZE_WARN_PERCENT	"90"

/* How long a transaction may last: jobq.horizon_warn_after. */
#define OLD				"(clock_timestamp() - current_setting('jobq.horizon_warn_after')::interval)"

#define END_SESSION \
	"Let the session end its transaction, or end it with pg_terminate_backend(); idle_in_transaction_session_timeout does so by itself."

static const JobqCheck checks[] = {
	{
		.item = "long_transactions",
		.query = "SELECT string_agg(format('pid %s (%s) for %s s', a.pid, a.state,"
		"  extract(epoch FROM clock_timestamp() - a.xact_start)::bigint),"
		"  ', ' ORDER BY a.xact_start)"
		" FROM pg_catalog.pg_stat_activity a"
		" WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()"
		"  AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL"
		"   OR EXISTS (SELECT FROM pg_catalog.pg_locks l"
		"    JOIN pg_catalog.pg_class c ON c.oid = l.relation"
		"    WHERE l.pid = a.pid AND l.granted"
		"     AND c.relnamespace = 'jobq'::regnamespace"
		"     AND c.relname ~ '^(job|claim|outcome)_[0-9]+$'))"
		"  AND a.backend_type = 'client backend'"
		"  AND a.xact_start < " OLD,
		.fine = "No session holds a transaction for long.",
		.status = JOBQ_WARNING,
		.wrong = "Long transactions keep dead rows, as those of jobq.shelf, from being removed, and epochs from being dropped: %s.",
		.hint = END_SESSION,
	},
	{
		.item = "prepared_leftovers",
		.query = "SELECT string_agg(format('%L for %s s', p.gid,"
		"  extract(epoch FROM clock_timestamp() - p.prepared)::bigint),"
		"  ', ' ORDER BY p.prepared)"
		" FROM pg_catalog.pg_prepared_xacts p"
		" WHERE p.database = current_database() AND p.prepared < " OLD,
		.fine = "No transaction has been prepared for long.",
		.status = JOBQ_WARNING,
		.wrong = "Prepared transactions keep dead rows from being removed, and epochs from being dropped: %s.",
		.hint = "Finish them with COMMIT PREPARED or ROLLBACK PREPARED; where nobody uses them set max_prepared_transactions to 0.",
	},
	{
		.item = "replication_slots",
		.query = "SELECT string_agg(format('%I%s', s.slot_name,"
		"  CASE WHEN s.active THEN '' ELSE ' (not in use)' END),"
		"  ', ' ORDER BY s.slot_name)"
		" FROM pg_catalog.pg_replication_slots s"
		" WHERE (s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL)"
		"  AND (NOT s.active OR age(s.xmin) > " OLD_XIDS
		"   OR age(s.catalog_xmin) > " OLD_XIDS ")",
		.fine = "No replication slot holds rows back.",
		.status = JOBQ_WARNING,
		.wrong = "Replication slots keep dead rows, of tables or of the catalog, from being removed: %s.",
		.hint = "Drop slots that nobody uses with pg_drop_replication_slot(); end long queries on the standbys of the others.",
	},
	{
		.item = "standby_feedback",
		.query = "SELECT string_agg(format('%s, pid %s', r.application_name, r.pid),"
		"  ', ' ORDER BY r.pid)"
		" FROM pg_catalog.pg_stat_replication r"
		" WHERE age(r.backend_xmin) > " OLD_XIDS,
		.fine = "No standby holds rows back by hot_standby_feedback.",
		.status = JOBQ_WARNING,
		.wrong = "A long query on a standby with hot_standby_feedback keeps dead rows from being removed: %s.",
		.hint = "End the query on the standby, or set hot_standby_feedback to off there.",
	},
	{
		.item = "publications",
		.query = "SELECT string_agg(quote_ident(p.pubname), ', ' ORDER BY p.pubname)"
		" FROM pg_catalog.pg_publication p WHERE p.puballtables",
		.fine = "No publication is FOR ALL TABLES.",
		.status = JOBQ_WARNING,
		.wrong = "Publications FOR ALL TABLES do not carry jobs: %s.",
		.hint = "Replicate the queue physically, or publish tables by name.",
	},
	{
		.item = "autovacuum",
		.query = "SELECT CASE"
		" WHEN NOT current_setting('autovacuum')::bool"
		"  THEN 'the setting autovacuum is off'"
		" WHEN NOT current_setting('track_counts')::bool"
		"  THEN 'the setting track_counts is off'"
		" WHEN EXISTS (SELECT FROM pg_catalog.pg_class c,"
		"   pg_catalog.pg_options_to_table(c.reloptions) o"
		"  WHERE c.oid = 'jobq.shelf'::regclass"
		"   AND o.option_name = 'autovacuum_enabled' AND NOT o.option_value::bool)"
		"  THEN 'it is off for the table' END",
		.fine = "Autovacuum looks after jobq.shelf.",
		.status = JOBQ_WARNING,
		.wrong = "Autovacuum does not look after jobq.shelf: %s.",
		.hint = "Set autovacuum and track_counts to on, or run VACUUM jobq.shelf yourself, often.",
	},
	{
		.item = "freezing",
		.query = "SELECT string_agg(format('%s (%s %%)', t.name, t.percent),"
		"  ', ' ORDER BY t.percent DESC, t.name)"
		" FROM (SELECT o.relname AS name, greatest("
		"   age(o.relfrozenxid)::bigint * 100"
		"    / current_setting('autovacuum_freeze_max_age')::int,"
		"   mxid_age(o.relminmxid)::bigint * 100"
		"    / current_setting('autovacuum_multixact_freeze_max_age')::int) AS percent"
		"  FROM jobq.epoch e"
		"  JOIN pg_catalog.pg_class c ON c.relnamespace = 'jobq'::regnamespace"
		"   AND c.relname IN ('job_' || e.epoch, 'claim_' || e.epoch,"
		"    'outcome_' || e.epoch)"
		"  JOIN pg_catalog.pg_class o ON o.oid IN (c.oid, c.reltoastrelid)"
		"  WHERE e.closed_at IS NOT NULL"
		"  ORDER BY percent DESC LIMIT 3) t"
		" WHERE t.percent >= " FREEZE_WARN_PERCENT,
		.fine = "The tables of epochs are frozen in time.",
		.status = JOBQ_WARNING,
		.wrong = "Tables of epochs are near the age at which autovacuum is forced, and could not be frozen: %s.",
		.hint = "End what holds old rows back, see the other items; see to it that a background worker slot is free (max_worker_processes).",
	},
	{
		.item = "clock",
		.query = "SELECT (SELECT format('%s s behind %s',"
		"  ceil(extract(epoch FROM seen.at - clock_timestamp())), seen.what)"
		" FROM (VALUES (pg_postmaster_start_time(), 'the start of the server'),"
		"  ((SELECT c.checkpoint_time FROM pg_catalog.pg_control_checkpoint() c),"
		"   'the last checkpoint'),"
		"  ((SELECT max(greatest(e.opened_at, e.closed_at, e.sealed_at))"
		"    FROM jobq.epoch e), 'the newest epoch')) seen (at, what)"
		" WHERE seen.at > clock_timestamp() + '5 s'::interval"
		" ORDER BY seen.at DESC LIMIT 1)",
		.fine = "The clock has not been set back.",
		.status = JOBQ_WARNING,
		.wrong = "The clock has been set back: it is %s, so leases and delays from before take longer by that.",
		.hint = "Correct the clock; keep it with a time service that slews it.",
	},
};

void
jobq_report_horizon(ReturnSetInfo *rsinfo)
{
	jobq_report_checks(rsinfo, checks, lengthof(checks));
}
