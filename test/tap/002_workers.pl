# The life of launcher and keepers: they come with the extension, go with it,
# stay out of the way of commands that need a database empty, and burn nothing
# when there is nothing to do. What they do with jobs is tested elsewhere.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = PostgreSQL::Test::Cluster->new('workers');
$node->init;
$node->append_conf(
	'postgresql.conf', qq{
log_line_prefix = '%m [%p] %b '
autovacuum = off
max_prepared_transactions = 2
});
$node->start;

# Pids of a database's keepers, as one string; '' when there is none.
sub keeper
{
	my ($database) = @_;

	return $node->safe_psql('postgres',
		qq{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity
		   WHERE backend_type = 'pg_jobq keeper' AND datname = '$database'});
}

sub keeper_comes
{
	my ($database, $name) = @_;

	ok( $node->poll_query_until('postgres',
			qq{SELECT count(*) = 1 FROM pg_stat_activity
			   WHERE backend_type = 'pg_jobq keeper'
			     AND datname = '$database'}),
		$name);
	return;
}

sub keeper_goes
{
	my ($database, $name) = @_;

	ok( $node->poll_query_until('postgres',
			qq{SELECT count(*) = 0 FROM pg_stat_activity
			   WHERE backend_type = 'pg_jobq keeper'
			     AND datname = '$database'}),
		$name);
	return;
}

# Run a statement that needs a database empty; it must not take its 5 seconds.
sub quick
{
	my ($sql, $name) = @_;
	my $start = time();
	my ($rc, $out, $err) = $node->psql('postgres', $sql);

	is($rc, 0, $name) or diag($err);
	cmp_ok(time() - $start, '<', 5, "$name: in time");
	return;
}

# How many lines the keepers and the launcher have logged from there on.
sub complaints
{
	my ($from, $pattern) = @_;
	my $log = substr(slurp_file($node->logfile), $from);
	my @lines =
	  grep { /pg_jobq (?:keeper|launcher) (?:WARNING|ERROR|FATAL):.*$pattern/ }
	  split(/\n/, $log);

	return scalar @lines;
}

# ---- not preloaded ----

my ($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION pg_jobq');
isnt($rc, 0, 'not preloaded: CREATE EXTENSION refuses');
like(
	$err,
	qr/pg_jobq must be loaded through shared_preload_libraries/,
	'not preloaded: says why');
like(
	$err,
	qr/^shared_preload_libraries = 'pg_jobq'$/m,
	'not preloaded: gives the exact line');
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'}),
	'0', 'not preloaded: leaves nothing');

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_jobq'");
$node->restart;

# ---- coming and going with the extension ----

$node->safe_psql('postgres', 'CREATE DATABASE shop');
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE backend_type = 'pg_jobq launcher'}),
	'the launcher runs');
is(keeper('shop'), '', 'no keeper without the extension');

$node->safe_psql('shop', 'CREATE EXTENSION pg_jobq');
keeper_comes('shop', 'CREATE EXTENSION brings a keeper');
$node->safe_psql('shop', q{SELECT jobq.create_queue('mail')});
ok( $node->poll_query_until('shop',
		q{SELECT count(*) = 0 FROM jobq.health()
		  WHERE item = 'keeper' AND status <> 'ok'}),
	'health() is content with the keeper');

$node->safe_psql('postgres', 'CREATE DATABASE undecided');
$node->safe_psql('undecided', 'BEGIN; CREATE EXTENSION pg_jobq; ROLLBACK');
is(keeper('undecided'), '', 'a rolled-back CREATE EXTENSION brings none');
($rc, $out, $err) = $node->psql('undecided',
	q{BEGIN; CREATE EXTENSION pg_jobq; PREPARE TRANSACTION 'x'});
like($err, qr/cannot prepare a transaction/i,
	'CREATE EXTENSION cannot be prepared');

# ---- a keeper that dies ----

$node->safe_psql('shop', q{SELECT jobq.enqueue('mail') FROM generate_series(1, 5)});
my $taken = $node->safe_psql('shop',
	q{SELECT id, lease FROM jobq.dequeue('mail', 2, lease_for => '1 hour')});
my $old = keeper('shop');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
ok( $node->poll_query_until('postgres',
		qq{SELECT count(*) = 1 FROM pg_stat_activity
		   WHERE backend_type = 'pg_jobq keeper' AND datname = 'shop'
		     AND pid <> $old}),
	'a terminated keeper is replaced');
foreach my $job (split(/\n/, $taken))
{
	my ($id, $lease) = split(/\|/, $job);

	$node->safe_psql('shop', "SELECT jobq.complete($id, $lease)");
}
is( $node->safe_psql('shop', q{SELECT count(*) FROM jobq.dequeue('mail', 10)}),
	'3', 'no job is lost with it, none delivered twice');

$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	  WHERE backend_type = 'pg_jobq launcher'});
$old = keeper('shop');
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE backend_type = 'pg_jobq launcher'}),
	'a terminated launcher is replaced');
is(keeper('shop'), $old, 'the new launcher leaves the keeper alone');

# ---- settings of the database do not reach the keeper ----

$node->safe_psql(
	'postgres', q{
ALTER DATABASE shop SET default_transaction_read_only = on;
ALTER DATABASE shop SET default_transaction_isolation = 'serializable';
ALTER DATABASE shop SET session_replication_role = 'replica';
ALTER DATABASE shop SET search_path = 'nowhere';
ALTER DATABASE shop SET statement_timeout = '1ms';
});
$old = keeper('shop');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
ok( $node->poll_query_until('postgres',
		qq{SELECT count(*) = 1 FROM pg_stat_activity
		   WHERE backend_type = 'pg_jobq keeper' AND datname = 'shop'
		     AND pid <> $old}),
	'a keeper under hostile settings');
{
	local $ENV{PGOPTIONS} =
	  '-c default_transaction_read_only=off -c statement_timeout=0';

	$node->safe_psql('shop',
		q{SELECT jobq.enqueue('mail', delay => '0.1 s')});
	ok( $node->poll_query_until('shop',
			q{SELECT count(*) = 1 FROM jobq.dequeue('mail')}),
		'it works all the same');
	$node->safe_psql('postgres', 'ALTER DATABASE shop RESET ALL');
}
$old = keeper('shop');

# ---- idleness ----

$node->safe_psql('postgres', 'CHECKPOINT');
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE backend_type = 'pg_jobq keeper' AND state = 'idle'
		    AND xact_start IS NULL AND backend_xid IS NULL
		    AND backend_xmin IS NULL}),
	'an idle keeper has no transaction and no snapshot');
my $idle_query =
  'SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())';
my $cpu_query = sub {
	my $stat = slurp_file("/proc/$old/stat");
	my @fields = split(' ', substr($stat, rindex($stat, ')') + 2));

	return $fields[11] + $fields[12];
};
my $before = $node->safe_psql('postgres', $idle_query);
my $cpu_before = -r "/proc/$old/stat" ? $cpu_query->() : undef;
my $log_size = -s $node->logfile;
sleep(5);
is(-s $node->logfile, $log_size, 'idleness logs nothing');
cmp_ok($cpu_query->() - $cpu_before, '<=', 1, 'idleness takes no time')
  if defined $cpu_before;
is($node->safe_psql('postgres', $idle_query),
	$before, 'idleness writes no WAL and takes no XID');

# ---- commands that need a database empty ----

quick('ALTER DATABASE shop RENAME TO store', 'RENAME beside a keeper');
keeper_comes('store', 'RENAME: it comes back');

quick('CREATE DATABASE copy TEMPLATE store', 'TEMPLATE beside a keeper');
keeper_comes('store', 'TEMPLATE: it comes back');
keeper_comes('copy', 'TEMPLATE: the copy gets one');

my $tablespace = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$tablespace'");
quick('ALTER DATABASE copy SET TABLESPACE elsewhere',
	'SET TABLESPACE beside a keeper');
keeper_comes('copy', 'SET TABLESPACE: it comes back');

$log_size = -s $node->logfile;
quick('DROP DATABASE copy', 'DROP DATABASE beside a keeper');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
keeper_goes('copy', 'DROP DATABASE: no keeper');
is(complaints($log_size, ''), 0, 'DROP DATABASE: nobody complains');
$node->safe_psql('postgres', 'DROP DATABASE copy; DROP TABLESPACE elsewhere');

$node->safe_psql('postgres',
	'BEGIN; ALTER DATABASE store RENAME TO shop; ROLLBACK');
keeper_comes('store', 'rolled-back RENAME: it comes back');
($rc, $out, $err) =
  $node->psql('postgres', 'ALTER DATABASE store RENAME TO postgres');
isnt($rc, 0, 'RENAME to a name that is taken fails');
keeper_comes('store', 'failed RENAME: it comes back');

$old = keeper('store');
$node->safe_psql('postgres', 'CREATE ROLE regress_nobody');
($rc, $out, $err) =
  $node->psql('postgres', 'SET ROLE regress_nobody; DROP DATABASE store');
isnt($rc, 0, 'DROP DATABASE by somebody else fails');
($rc, $out, $err) = $node->psql('postgres',
	'SET ROLE regress_nobody; CREATE DATABASE x TEMPLATE store');
isnt($rc, 0, 'TEMPLATE by somebody else fails');
is(keeper('store'), $old, 'who may not do it does not disturb the keeper');

# ---- databases that are not looked after ----

$node->safe_psql('postgres', 'ALTER DATABASE store IS_TEMPLATE true');
keeper_goes('store', 'a template database has no keeper');
$node->safe_psql('postgres', 'CREATE DATABASE "the Copy" TEMPLATE store');
keeper_comes('the Copy', 'a database made of it has one');
$node->safe_psql('postgres', 'ALTER DATABASE store IS_TEMPLATE false');
keeper_comes('store', 'no longer a template: it comes back');
$node->safe_psql('postgres', 'ALTER DATABASE store ALLOW_CONNECTIONS false');
keeper_goes('store', 'a closed database has no keeper');
$node->safe_psql('postgres', 'ALTER DATABASE store ALLOW_CONNECTIONS true');
keeper_comes('store', 'opened again: it comes back');

$node->safe_psql('postgres',
	q{ALTER SYSTEM SET jobq.databases = 'other, "the Copy"'});
$node->reload;
keeper_goes('store', 'jobq.databases without it: the keeper goes');
keeper_comes('the Copy', 'jobq.databases: quoted names');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET jobq.databases');
$node->reload;
keeper_comes('store', 'jobq.databases with it: it comes back');
($rc, $out, $err) =
  $node->psql('postgres', q{ALTER SYSTEM SET jobq.databases = 'a, "b'});
like($err, qr/List syntax is invalid/, 'jobq.databases: syntax is checked');

# ---- DROP EXTENSION ----

$log_size = -s $node->logfile;
$node->safe_psql('the Copy', 'DROP EXTENSION pg_jobq');
keeper_goes('the Copy', 'DROP EXTENSION: the keeper goes');
$node->safe_psql('the Copy', 'CREATE EXTENSION pg_jobq');
keeper_comes('the Copy', 'CREATE EXTENSION again: a new one');
is( $node->safe_psql(
		'the Copy', q{
SELECT jobq.create_queue('again');
SELECT jobq.enqueue('again') > 0;
SELECT count(*) FROM jobq.dequeue('again');}),
	"t\nt\n1",
	'and it works');
$node->safe_psql('the Copy',
	'BEGIN; DROP EXTENSION pg_jobq; CREATE EXTENSION pg_jobq; COMMIT');
keeper_comes('the Copy', 'dropped and created in one transaction');
$node->safe_psql('the Copy', 'BEGIN; DROP EXTENSION pg_jobq; ROLLBACK');
keeper_comes('the Copy', 'a rolled-back DROP EXTENSION');
is(complaints($log_size, ''), 0, 'DROP EXTENSION: nobody complains');

my $producer = $node->background_psql('the Copy');
$producer->query_safe(q{SELECT jobq.create_queue('gate')});
$producer->query_safe(q{BEGIN; SELECT jobq.enqueue('gate')});
my $dropper = $node->background_psql('the Copy');
$dropper->query_until(qr/dropping/, "\\echo dropping\nDROP EXTENSION pg_jobq;\n");
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE query LIKE 'DROP EXTENSION%' AND wait_event_type = 'Lock'}),
	'DROP EXTENSION waits for a producer');
$producer->query_safe(q{SELECT jobq.enqueue('gate'); COMMIT});
$producer->quit;
$dropper->quit;
is( $node->safe_psql('the Copy',
		q{SELECT count(*) FROM pg_extension WHERE extname = 'pg_jobq'}),
	'0', 'and goes on when it has committed, without a deadlock');
keeper_goes('the Copy', 'no keeper is left');

# ---- DROP DATABASE of one that has been used, WITH (FORCE) ----

$log_size = -s $node->logfile;
$node->safe_psql('the Copy', 'CREATE EXTENSION pg_jobq');
keeper_comes('the Copy', 'a keeper to be forced out');
quick('DROP DATABASE "the Copy" WITH (FORCE)', 'DROP DATABASE WITH (FORCE)');
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server is alive');

# ---- no worker slots ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 1
max_logical_replication_workers = 0');
$log_size = -s $node->logfile;
$node->restart;
ok( $node->poll_query_until('store',
		q{SELECT count(*) = 1 FROM jobq.health()
		  WHERE item = 'keeper' AND hint LIKE '%max_worker_processes%'}),
	'worker slots exhausted: health() names the setting');
is(keeper('store'), '', 'worker slots exhausted: no keeper');
ok($node->safe_psql('store', q{SELECT jobq.enqueue('mail') > 0}),
	'worker slots exhausted: enqueue works');
($rc, $out, $err) = $node->psql('store',
	"\\set VERBOSITY sqlstate\nSELECT jobq.dequeue('mail')");
like($err, qr/JQ009/, 'worker slots exhausted: dequeue says that it is not ready');
is(complaints($log_size, 'worker slots'), 1, 'worker slots exhausted: one warning');

# ---- more databases than there is room for: failures are not hammered ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 8
jobq.max_databases = 1');
$node->restart;
keeper_comes('store', 'room for one database');
($rc, $out, $err) = $node->psql('undecided',
	"\\set VERBOSITY sqlstate\nCREATE EXTENSION pg_jobq");
like($err, qr/53400/, 'no room for a second one');
$node->append_conf('postgresql.conf', 'jobq.max_databases = 2');
$node->restart;
$node->safe_psql('undecided', 'CREATE EXTENSION pg_jobq');
keeper_comes('undecided', 'room for two databases');
$node->append_conf('postgresql.conf', 'jobq.max_databases = 1');
$log_size = -s $node->logfile;
$node->restart;
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE backend_type = 'pg_jobq keeper'}),
	'one of two has found room');
sleep(5);
my $failures = complaints($log_size, 'too many databases');
ok($failures >= 1 && $failures <= 4,
	'a keeper that fails is started ever less often')
  or diag("$failures failures");
$node->safe_psql('postgres',
	'SELECT datname FROM pg_stat_activity WHERE backend_type = $$pg_jobq keeper$$') =~
  /(\w+)/;
my ($lucky, $other) = ($1, $1 eq 'store' ? 'undecided' : 'store');
quick("DROP DATABASE $lucky", 'DROP DATABASE makes room');
keeper_comes($other, 'for the other');

$node->stop;
done_testing();
