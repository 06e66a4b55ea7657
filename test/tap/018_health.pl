# Every warning of health() and check_install() comes when its cause is there
# and goes with it; run_maintenance() has the keeper do a round at once.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_node(
	'health', q{
autovacuum = on
wal_level = logical
jobq.max_live_jobs = 200
jobq.max_queues = 20
jobq.max_databases = 2
}, allows_streaming => 1);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# What health() or check_install() is not content with: item, detail, hint.
sub complaints
{
	my ($function) = @_;

	return sql("SET jobq.horizon_warn_after = 0;
		SELECT item, detail, hint FROM jobq.$function() WHERE status <> 'ok'");
}

# Exactly this item complains, with such a detail and hint; once the cause is
# gone, none does.
sub warns
{
	my ($function, $item, $like, $undo) = @_;
	my $found;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	await(sub { ($found = complaints($function)) ne '' }, 15);
	like($found, qr/^\Q$item\E\|$like[^\n]*$/, "$function(), $item: warns");
	$undo->();
	ok(await(sub { ($found = complaints($function)) eq '' }, 15),
		"$function(), $item: content again")
	  || diag($found);
	return;
}

sub health_warns { return warns('health', @_); }
sub install_warns { return warns('check_install', @_); }

sql('CREATE EXTENSION pg_jobq');
ok(await_keeper($node), 'there is a keeper');
sql(q{SELECT jobq.create_queue('q', '{"lease_for": "1 hour"}');
SELECT jobq.enqueue('q') FROM generate_series(1, 10);
SELECT jobq.enqueue('q', delay => '1 day');
SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 5)});
is(complaints('health'), '', 'health() is content at first');
is(complaints('check_install'), '', 'check_install() is content at first');

# ---- health: the horizon ----

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
is( sql(q{SELECT status FROM jobq.health() WHERE item = 'long_transactions'}),
	'ok', 'a young transaction is no fault');
health_warns('long_transactions', qr/.*pid $pid .*idle_in_transaction_session_timeout/,
	sub { $session->query_safe('ROLLBACK') });

$session->query_safe('BEGIN; SELECT pg_current_xact_id()');
health_warns('long_transactions', qr/.*pid $pid /,
	sub { $session->query_safe('ROLLBACK') });

# No snapshot and no transaction id, but a lock that stops a drop.
my $epoch = sql('SELECT max(epoch) FROM jobq.epoch');
$session->query_safe("BEGIN; LOCK TABLE jobq.outcome_$epoch IN ACCESS SHARE MODE");
health_warns('long_transactions', qr/.*epochs from being dropped: pid $pid /,
	sub { $session->query_safe('ROLLBACK') });
$session->query_safe('BEGIN; LOCK TABLE pg_class IN ACCESS SHARE MODE');
is(complaints('health'), '', 'other locks are no fault');
$session->query_safe('ROLLBACK');

sql(q{BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'});
health_warns('prepared_leftovers', qr/.*'forgotten'.*max_prepared_transactions/,
	sub { sql(q{ROLLBACK PREPARED 'forgotten'}) });

# A standby with feedback, first through a slot, then without.
my $burn = q{CREATE TEMP TABLE burn (); DO $$ BEGIN
	FOR i IN 1 .. 200100 LOOP
		BEGIN INSERT INTO burn DEFAULT VALUES; EXCEPTION WHEN division_by_zero THEN END;
	END LOOP;
END $$};
sql(q{SELECT pg_create_physical_replication_slot('held', true)});
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('feedback');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->append_conf('postgresql.conf', q{
hot_standby_feedback = on
wal_receiver_status_interval = 1
primary_slot_name = 'held'});
$standby->start;
my $reader = $standby->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
ok( $node->poll_query_until('postgres',
		'SELECT xmin IS NOT NULL FROM pg_replication_slots'),
	'the standby holds the horizon through its slot');
is(complaints('health'), '', 'a young query on a standby is no fault');
sql($burn);
health_warns(
	'replication_slots',
	qr/.*: held\..*pg_drop_replication_slot/,
	sub { $reader->query_safe('COMMIT') });
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$node->poll_query_until('postgres',
	'SELECT age(xmin) < 1000 FROM pg_replication_slots');
$standby->stop('immediate');
eval { $reader->quit };
health_warns(
	'replication_slots',
	qr/.*: held \(not in use\)/,
	sub { sql(q{SELECT pg_drop_replication_slot('held')}) });

sql(q{SELECT pg_create_logical_replication_slot('decoder', 'test_decoding')});
is( sql(q{SELECT xmin IS NULL AND catalog_xmin IS NOT NULL FROM pg_replication_slots}),
	't', 'a logical slot holds the catalog only');
health_warns(
	'replication_slots',
	qr/.*: decoder \(not in use\)/,
	sub { sql(q{SELECT pg_drop_replication_slot('decoder')}) });

$standby->append_conf('postgresql.conf', "primary_slot_name = ''");
$standby->start;
$reader = $standby->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
ok( $node->poll_query_until('postgres',
		'SELECT count(*) = 1 FROM pg_stat_replication WHERE backend_xmin IS NOT NULL'),
	'the standby holds the horizon by feedback');
sql($burn);
health_warns('standby_feedback', qr/.*: feedback, pid \d+\..*hot_standby_feedback/,
	sub { $reader->query_safe('COMMIT') });
$reader->quit;
$standby->stop;

$session->quit;

# ---- health: settings and places ----

sql('CREATE PUBLICATION everything FOR ALL TABLES');
health_warns('publications', qr/.*: everything\./,
	sub { sql('DROP PUBLICATION everything') });

sql('ALTER TABLE jobq.shelf SET (autovacuum_enabled = off)');
health_warns('autovacuum', qr/.*off for the table/,
	sub { sql('ALTER TABLE jobq.shelf RESET (autovacuum_enabled)') });
sql('ALTER SYSTEM SET autovacuum = off');
$node->reload;
health_warns('autovacuum', qr/.*setting autovacuum is off/,
	sub { sql('ALTER SYSTEM RESET autovacuum'); $node->reload; });

sql(q{UPDATE jobq.epoch SET opened_at = clock_timestamp() + interval '1 hour'});
health_warns('clock', qr/.*it is 3[56]\d\d s behind the newest epoch/,
	sub { sql(q{UPDATE jobq.epoch SET opened_at = clock_timestamp()}) });

sql(q{SELECT jobq.create_queue('full', '{"lease_for": "1 hour"}'); SELECT jobq.enqueue('full') FROM generate_series(1, 300)});
is( sql(q{SELECT status, detail ~ 'wait on disk' FROM jobq.health() WHERE item = 'live_jobs'}),
	'ok|t', 'jobs that wait on disk are no fault, but told');
sql(q{SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('full', 130)});
sql(q{SELECT count(jobq.enqueue('full')) FROM generate_series(1, 20)});
sql(q{SELECT count(*) FROM jobq.dequeue('full', 150)});
ok( await(sub { sql(q{SELECT count(*) FROM jobq.dequeue('full', 1)});
		complaints('health') =~ /^live_jobs/ }, 20), 'running jobs take the places');
health_warns('live_jobs', qr/1[89]\d of 200 .*by running jobs.*jobq\.max_live_jobs/,
	sub { sql(q{SELECT jobq.drop_queue('full', true)}) });
sql(q{SELECT jobq.create_queue('q' || n) FROM generate_series(1, 18) n;
SELECT count(jobq.enqueue('q' || n)) FROM generate_series(1, 18) n});
health_warns('queues', qr/19 of 20.*jobq\.max_queues/,
	sub { sql(q{SELECT jobq.drop_queue('q' || n, true) FROM generate_series(1, 18) n}) });
sql('CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION pg_jobq');
health_warns('databases', qr/2 of 2.*jobq\.max_databases/,
	sub { sql('DROP DATABASE second') });

# ---- health: the keeper ----

sql(q{ALTER SYSTEM SET jobq.databases = 'other'});
$node->reload;
health_warns('keeper', qr/jobq\.databases does not name/,
	sub { sql('ALTER SYSTEM RESET jobq.databases'); $node->reload; });

$node->stop('immediate');
$node->start;
await_keeper($node);
like(complaints('health'), qr/^careful\|The server has crashed, or was promoted; until /,
	'health(), careful: says that it is slower after a crash');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries',
	"'auto_explain,pg_jobq'");
$node->restart;
await_keeper($node);
like(complaints('health'), qr/^preload\|.*Put pg_jobq first/m,
	'health(), preload: warns when another library comes first');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'pg_jobq'");
$node->restart;
await_keeper($node);
is(complaints('health'), '', 'health(), preload and careful: content again');

# ---- run_maintenance ----

my $start = time();
sql('SELECT jobq.run_maintenance()') for 1 .. 5;
cmp_ok(time() - $start, '<', 3, 'run_maintenance() comes back soon');
test_functions($node);
$session = $node->background_psql('postgres');
$pid = $session->query_safe('SELECT pg_backend_pid()');
sql(q{SELECT pause_at('between-move-writes')});
$session->query_safe(q{SELECT jobq.enqueue('q', delay => '0.01 s')});
$node->poll_query_until('postgres', 'SELECT paused() = 1');
$session->query_until(qr/asked/, "\\echo asked\nSELECT jobq.run_maintenance();\n");
ok( $node->poll_query_until('postgres',
		"SELECT wait_event = 'Extension' AND query ~ 'run_maintenance' FROM pg_stat_activity WHERE pid = $pid"),
	'run_maintenance() waits for a keeper that is at work');
is( sql(qq{SELECT pg_sleep(0.3), state FROM pg_stat_activity WHERE pid = $pid}),
	'|active', 'until it has done a round');
sql(q{SELECT pause_at('')});
ok( $node->poll_query_until('postgres',
		"SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid"),
	'and then comes back');
$session->quit;

# A keeper that waits after a failure is asked to try again at once.
sql('ALTER TABLE jobq.shelf RENAME TO hidden');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper'});
ok( await(
		sub {
			my @failures = slurp_file($node->logfile) =~ /keeper ERROR/g;
			return @failures >= 3;
		},
		30),
	'a keeper fails again and again');
sql('ALTER TABLE jobq.hidden RENAME TO shelf');
$start = time();
sql('SELECT jobq.run_maintenance()');
cmp_ok(time() - $start, '<', 3, 'run_maintenance() ends its back-off');

is(sqlstate($node, 'CREATE ROLE watcher IN ROLE jobq_monitor; SET ROLE watcher; SELECT jobq.run_maintenance()'),
	'42501', 'run_maintenance() is not for everybody');
is(sqlstate($node, 'SET ROLE watcher; SELECT jobq.check_install()'),
	'42501', 'check_install() is not for everybody');
sql(q{ALTER SYSTEM SET jobq.databases = 'other'});
$node->reload;
$node->poll_query_until('postgres',
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper'});
$node->restart;
is(sqlstate($node, 'SELECT jobq.run_maintenance()'),
	'JQ009', 'run_maintenance() says when there is no keeper');
sql('ALTER SYSTEM RESET jobq.databases');
$node->reload;
await_keeper($node);

# ---- check_install ----

my $epoch = sql('SELECT max(epoch) FROM jobq.epoch');
my @damage = (
	[ 'version', qr/.*version 0\.9.*ALTER EXTENSION/,
		q{UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'pg_jobq'},
		q{UPDATE pg_extension SET extversion = '0.1.0' WHERE extname = 'pg_jobq'} ],
	[ 'tables', qr/.*: lease_mark\./,
		'ALTER EXTENSION pg_jobq DROP TABLE jobq.lease_mark',
		'ALTER EXTENSION pg_jobq ADD TABLE jobq.lease_mark' ],
	[ 'epochs', qr/.*: claim_$epoch is missing/,
		"ALTER TABLE jobq.claim_$epoch RENAME TO moved",
		"ALTER TABLE jobq.moved RENAME TO claim_$epoch" ],
	[ 'epochs', qr/.*: job_$epoch lacks its trigger/,
		"ALTER TABLE jobq.job_$epoch DISABLE TRIGGER refuse_write",
		"ALTER TABLE jobq.job_$epoch ENABLE TRIGGER refuse_write" ],
	[ 'epochs', qr/.*: outcome_$epoch does not depend/,
		"DELETE FROM pg_depend WHERE objid = 'jobq.outcome_$epoch'::regclass AND deptype = 'x'",
		"INSERT INTO pg_depend SELECT classid, 'jobq.outcome_$epoch'::regclass, objsubid, refclassid, refobjid, refobjsubid, deptype
			FROM pg_depend WHERE objid = 'jobq.job_$epoch'::regclass AND deptype = 'x'" ],
	[ 'indexes', qr/.*: job_$epoch lacks a valid index on \(id\)/,
		"DROP INDEX jobq.job_${epoch}_id",
		"CREATE INDEX job_${epoch}_id ON jobq.job_$epoch (id)" ],
	[ 'indexes', qr/.*outcome_${epoch}_ticket is not valid/,
		"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jobq.outcome_${epoch}_ticket'::regclass",
		"UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'jobq.outcome_${epoch}_ticket'::regclass" ],
	[ 'indexes', qr/.*: odd is not a plain btree/,
		"CREATE INDEX odd ON jobq.job_$epoch USING hash (id)",
		'DROP INDEX jobq.odd' ],
	[ 'columns', qr/.*: outcome_$epoch\./,
		"ALTER TABLE jobq.outcome_$epoch ADD surplus int",
		"DELETE FROM pg_attribute WHERE attrelid = 'jobq.outcome_$epoch'::regclass AND attname = 'surplus';
			UPDATE pg_class SET relnatts = relnatts - 1 WHERE oid = 'jobq.outcome_$epoch'::regclass" ],
	[ 'columns', qr/.*: job_$epoch\./,
		"ALTER TABLE jobq.job_$epoch RENAME kind TO sort",
		"ALTER TABLE jobq.job_$epoch RENAME sort TO kind" ],
	[ 'owners', qr/.*: shelf,/,
		'ALTER TABLE jobq.shelf OWNER TO pg_database_owner',
		'ALTER TABLE jobq.shelf OWNER TO postgres' ],
	[ 'public', qr/.*: jobq\.health\(\), lease_mark, schema jobq/,
		'GRANT USAGE ON SCHEMA jobq TO PUBLIC; GRANT SELECT ON jobq.lease_mark TO PUBLIC; GRANT EXECUTE ON FUNCTION jobq.health() TO PUBLIC',
		'REVOKE ALL ON SCHEMA jobq FROM PUBLIC; REVOKE ALL ON jobq.lease_mark FROM PUBLIC; REVOKE ALL ON FUNCTION jobq.health() FROM PUBLIC' ],
	[ 'row_security', qr/.*: queue, shelf\./,
		'ALTER TABLE jobq.queue DISABLE ROW LEVEL SECURITY; ALTER TABLE jobq.shelf NO FORCE ROW LEVEL SECURITY',
		'ALTER TABLE jobq.queue ENABLE ROW LEVEL SECURITY; ALTER TABLE jobq.shelf FORCE ROW LEVEL SECURITY' ],
	[ 'functions', qr/.*: jobq\.health\(\)\./,
		'ALTER FUNCTION jobq.health() SECURITY DEFINER',
		'ALTER FUNCTION jobq.health() SECURITY INVOKER' ],
	[ 'calls', qr/.*: jobs, peek\(text, bigint\)\./,
		'REVOKE ALL ON jobq.jobs, jobq.queue FROM jobq_admin; REVOKE ALL ON FUNCTION jobq.peek(text, bigint) FROM jobq_admin',
		'GRANT SELECT ON jobq.jobs TO jobq_admin; GRANT EXECUTE ON FUNCTION jobq.peek(text, bigint) TO jobq_admin' ],
	[ 'numbers', qr/.*only numbers up to 0 are reserved/,
		q{SELECT setval('jobq.number_block', 1, false)},
		q{SELECT setval('jobq.number_block', 81921)} ],
	[ 'numbers', qr/.*there is lease \d+, but the mark is 1\./,
		'CREATE TABLE mark AS SELECT lease FROM jobq.lease_mark; UPDATE jobq.lease_mark SET lease = 1',
		'UPDATE jobq.lease_mark l SET lease = m.lease FROM mark m; DROP TABLE mark' ],
	[ 'roles', qr/.*: jobq_monitor\./,
		'ALTER ROLE jobq_monitor RENAME TO elsewhere',
		'ALTER ROLE elsewhere RENAME TO jobq_monitor' ],);
foreach my $case (@damage)
{
	my ($item, $like, $do, $undo) = @$case;

	sql("SET allow_system_table_mods = on; $do");
	install_warns($item, $like,
		sub { sql("SET allow_system_table_mods = on; $undo") });
}

$node->stop;
done_testing();
