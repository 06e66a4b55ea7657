# Commands that need a database for themselves, beside a keeper that is at
# work: in its rounds, and in a recovery that takes longer than the commands
# are willing to wait. And databases that are not for keepers at all.
# What 002 and 008 show is not repeated: idle keepers, DROP under load.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = start_node('ddl');
my $complaint = qr/pg_jobq (?:keeper|launcher) (?:WARNING|ERROR|FATAL|PANIC):/;

sub keepers
{
	my ($database) = @_;

	return $node->safe_psql('postgres',
		qq{SELECT count(*) FROM pg_stat_activity
		   WHERE backend_type = 'pg_jobq keeper' AND datname = '$database'});
}

sub log_lines
{
	my ($from) = @_;

	return grep { /$complaint/ }
	  split(/\n/, substr(slurp_file($node->logfile), $from));
}

# A statement works at once, nobody complains.
sub quick
{
	my ($sql, $name) = @_;
	my $log = -s $node->logfile;
	my $start = time();
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	my $took = time() - $start;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($rc, 0, $name) or diag($err);
	cmp_ok($took, '<', 4, "$name: in time");
	# WITH (FORCE) terminates whoever is there.
	my @noise = grep { !/terminating background worker/ } log_lines($log);
	is(join("\n", @noise), '', "$name: nobody complains");
	note(sprintf('%s took %.2f s', $name, $took));
	return;
}

my $elsewhere = PostgreSQL::Test::Utils::tempdir;
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$elsewhere'");

# Two ways to keep a keeper busy; the second one is to be ended.
sub busy_in_rounds
{
	my ($database) = @_;

	$node->safe_psql(
		$database, q{
SELECT jobq.create_queue('due', if_exists => 'keep');
SELECT count(jobq.enqueue('due', delay => (n * 0.0005) * '1 s'::interval))
	FROM generate_series(1, 10000) n});
	return;
}

# Its first query after a start takes a minute.
sub busy_in_recovery
{
	my ($database) = @_;

	$node->safe_psql(
		$database, q{
ALTER TABLE jobq.lease_mark RENAME TO quick_mark;
CREATE VIEW jobq.lease_mark AS SELECT lease FROM jobq.quick_mark
	WHERE pg_sleep(60) IS NOT NULL});
	$node->restart;
	$node->poll_query_until('postgres',
		qq{SELECT count(*) = 1 FROM pg_stat_activity
		   WHERE backend_type = 'pg_jobq keeper' AND datname = '$database'
			AND wait_event = 'PgSleep'}) or die 'the keeper is not slow';
	return;
}

sub end_recovery
{
	my ($database) = @_;
	my $is_slow = $node->safe_psql($database,
		q{SELECT to_regclass('jobq.quick_mark') IS NOT NULL});

	return if $is_slow ne 't';
	# The keeper reads it just now, once more.
	$node->safe_psql(
		$database, q{
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'pg_jobq keeper' AND datname = current_database();
DROP VIEW jobq.lease_mark;
ALTER TABLE jobq.quick_mark RENAME TO lease_mark});
	return;
}

foreach my $how (qw(rounds recovery))
{
	my $busy = $how eq 'rounds' ? \&busy_in_rounds : \&busy_in_recovery;

	$node->safe_psql('postgres', 'CREATE DATABASE db');
	$node->safe_psql('db', 'CREATE EXTENSION pg_jobq');
	ok(await_keeper($node, 'db'), "$how: there is a keeper");

	foreach my $strategy ($how eq 'rounds' ? qw(wal_log file_copy) : 'file_copy')
	{
		$busy->('db');
		quick("CREATE DATABASE copy_$strategy TEMPLATE db STRATEGY $strategy",
			"$how: CREATE DATABASE TEMPLATE, $strategy");
		end_recovery('db');
		end_recovery("copy_$strategy");
		ok(await_keeper($node, 'db'), "$how: $strategy: the keeper is back");
		ok(await_keeper($node, "copy_$strategy"),
			"$how: $strategy: the copy has one");
	}

	$busy->('db');
	quick('ALTER DATABASE db RENAME TO renamed', "$how: RENAME");
	end_recovery('renamed');
	ok(await_keeper($node, 'renamed'), "$how: RENAME: the keeper is back");

	$busy->('renamed');
	quick('ALTER DATABASE renamed SET TABLESPACE elsewhere',
		"$how: SET TABLESPACE");
	end_recovery('renamed');
	ok(await_keeper($node, 'renamed'),
		"$how: SET TABLESPACE: the keeper is back");
	ok( $node->poll_query_until('renamed',
			$how eq 'rounds'
			? q{SELECT count(*) = 0 FROM jobq.jobs WHERE state = 'scheduled'}
			: q{SELECT jobq.enqueue('default') > 0}),
		"$how: and works on");

	# Somebody else in the database: the only one that is in the way.
	$busy->('renamed');
	my $session = $node->background_psql('renamed');
	my ($rc, $out, $err) =
	  $node->psql('postgres', 'CREATE DATABASE never TEMPLATE renamed');
	like(
		$err,
		qr/There is 1 other session using the database/,
		"$how: a session in the way, not the keeper");
	$session->quit;
	end_recovery('renamed');
	ok(await_keeper($node, 'renamed'), "$how: then the keeper is back");

	$busy->('renamed');
	quick('DROP DATABASE renamed', "$how: DROP DATABASE");
	$busy->('copy_file_copy');
	quick('DROP DATABASE copy_file_copy WITH (FORCE)',
		"$how: DROP DATABASE WITH (FORCE)");
	quick('DROP DATABASE IF EXISTS copy_wal_log',
		"$how: DROP DATABASE of a copy");
}

# A cancelled keeper that nobody needs to leave goes on.
$node->safe_psql('postgres', 'CREATE DATABASE db');
$node->safe_psql('db', 'CREATE EXTENSION pg_jobq');
await_keeper($node, 'db');
my $keeper = $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper' AND datname = 'db'});
$node->safe_psql('postgres', "SELECT pg_cancel_backend($keeper)") for 1 .. 3;
$node->safe_psql('db', q{SELECT jobq.enqueue('default', delay => '0.1 s')});
ok( $node->poll_query_until('db',
		q{SELECT count(*) = 1 FROM jobq.dequeue('default')}),
	'a cancelled keeper goes on');
is( $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper' AND datname = 'db'}),
	$keeper, 'the same one');

# ---- databases that are not for keepers ----

$node->safe_psql('postgres', 'CREATE EXTENSION pg_jobq');
$node->safe_psql('template1', 'CREATE EXTENSION pg_jobq');
is(keepers('template1'), '0', 'no keeper in template1');
quick('CREATE DATABASE child', 'a database made of template1');
ok(await_keeper($node, 'child'), 'has a keeper');
quick('CREATE DATABASE closed TEMPLATE child', 'and can be a template itself');
ok(await_keeper($node, 'closed'), 'and this has one, too');
is( $node->safe_psql('closed', q{SELECT count(*) FROM jobq.queues}),
	'1', 'with its queues');
quick('CREATE DATABASE invalid', 'one that is to break');
ok(await_keeper($node, 'invalid'), 'has one at first');

# A restart, some time to make mistakes, and who has a keeper.
$node->safe_psql('postgres', q{
ALTER DATABASE db CONNECTION LIMIT 0;
ALTER DATABASE closed ALLOW_CONNECTIONS false;
UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'invalid'});
my $log = -s $node->logfile;
$node->restart;
ok(await_keeper($node), 'restart: there are keepers');
my $served = q{SELECT string_agg(datname, ' ' ORDER BY datname)
	FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper'};
ok( await(
		sub { $node->safe_psql('postgres', $served) eq 'child db postgres' }),
	'connection limit 0 is no obstacle; closed, invalid and template databases have none');
sleep(2);
is($node->safe_psql('postgres', $served),
	'child db postgres', 'that stays so');
my @noise = grep { !/terminating background worker/ } log_lines($log);
is(join("\n", @noise), '', 'and nobody complains');
quick("DROP DATABASE $_", "$_ can be dropped") for qw(closed invalid db);
$node->safe_psql('template1', 'DROP EXTENSION pg_jobq');

unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal/,
	'nobody has crashed');
$node->stop;
done_testing();
