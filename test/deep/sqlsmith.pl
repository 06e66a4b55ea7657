# Random SQL by sqlsmith beside writers and workers, in rounds of five minutes,
# by turns as a role with all privileges on the queues and as superuser, for
# JOBQ_SQLSMITH_SECONDS. The server must not crash. JOBQ_SEED repeats a run, as
# far as time allows.
#
# sqlsmith commits what it does, and a superuser may write any table, so tables
# are audited after the rounds of the role only, and each round has a database
# of its own.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $SECONDS = $ENV{JOBQ_SQLSMITH_SECONDS} // 1800;
my $SEED = $ENV{JOBQ_SEED} // time() % 1_000_000;
my $ROUND = $SECONDS < 600 ? $SECONDS / 2 : 300;

# Replication slots would keep all WAL; files are the server's own.
my $node = start_node('sqlsmith', q{
restart_after_crash = off
log_min_error_statement = panic
log_min_messages = error
fsync = off
wal_level = minimal
max_wal_senders = 0
max_replication_slots = 0
autovacuum = on
});
$node->safe_psql('postgres', 'CREATE ROLE smith LOGIN');

# Jobs come, are worked on, fail, are given back, all the time.
my $writers = $node->basedir . '/writers.sql';
append_to_file($writers, q{
SELECT jobq.enqueue('mail', '{"a": [1, 2]}', kind => 'k', group_key => 'g', unique_key => 'u');
SELECT count(*) FROM unnest(jobq.enqueue_many('fair', '{1,2,3,4}'));
SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('mail', 2);
SELECT count(jobq.fail(id, lease, 'away', retry_in => '0')) FROM jobq.dequeue('fair', 2);
SELECT count(jobq.complete(id, lease, '{"done": true}')) FROM jobq.dequeue('fair', 2);
SELECT count(*) FROM jobq.dequeue('mail', 1, lease_for => '1 s');
});

sub crashed
{
	return grep { /PANIC:|TRAP:|was terminated by signal|server process .* exited/ }
	  split /\n/, slurp_file($node->logfile);
}

# One round; returns how many statements sqlsmith has tried.
sub round
{
	my ($role, $n, $seconds) = @_;
	my $database = "smith$n";

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, q{CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('mail', '{"dead_letter": "mail dead", "max_attempts": 3}');
SELECT jobq.create_queue('fair', '{"ordering": "fair", "backoff": {"base": "0 s"}}');
SELECT jobq.grant_queue('mail', 'smith', '{enqueue,dequeue,read,manage}');
SELECT jobq.grant_queue('fair', 'smith', '{enqueue,dequeue,read,manage}');
-- writes files wherever it is told to
DELETE FROM pg_proc WHERE proname = 'lo_export'});
	add_auditor($node, $database);
	await_keeper($node, $database) or die 'no keeper';

	my $log = $node->basedir . "/smith$n.log";
	my ($out, $err) = ('', '');
	my $writer = IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-U', 'postgres',
			'-c', 2, '-T', int($seconds) + 1, '-R', 40, '-f', $writers, $database ],
		'<', \undef, '>', \$out, '2>', \$err);
	my $conninfo = sprintf('host=%s port=%d dbname=%s user=%s', $node->host, $node->port,
		$database, $role);
	IPC::Run::run(
		[ 'timeout', '-s', 'INT', $seconds, 'sqlsmith', "--target=$conninfo",
			'--exclude-catalog', '--verbose', '--seed=' . ($SEED + $n) ],
		'<', \undef, '>', $log, '2>&1');
	my $said = slurp_file($log);
	my ($tried) = reverse $said =~ /^queries: (\d+)/mg;
	eval { $writer->finish };
	is(join("\n", crashed()), '', "round $n, as $role: no crash")
	  or BAIL_OUT('the server has crashed');
	if ($role eq 'smith')
	{
		# nobody keeps a ledger here
		$node->safe_psql($database, q{INSERT INTO audit.forgetful VALUES (true);
BEGIN; SELECT audit.read_tables();
INSERT INTO audit.ledger SELECT id FROM job UNION SELECT id FROM shelf; COMMIT});
		audit_ok($node, "round $n", $database);
	}
	else
	{
		is($node->safe_psql($database, 'SELECT audit.check_dispatch()'), '',
			"round $n: shared memory is sound");
	}
	$node->safe_psql('postgres', "DROP DATABASE $database WITH (FORCE)");
	return $tried // 0;
}

plan skip_all => 'no sqlsmith here' if system('command -v sqlsmith >/dev/null') != 0;

note("seed $SEED");
my $end = time() + $SECONDS;
my $tried = 0;
for (my $n = 0; time() < $end; $n++)
{
	$tried += round($n % 2 ? 'postgres' : 'smith', $n, $ROUND);
}
note("$tried statements");
cmp_ok($tried, '>', $SECONDS, 'sqlsmith was at work');
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server answers');

$node->stop;
done_testing();
