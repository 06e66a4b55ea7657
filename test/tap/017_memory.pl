# Keeper and launcher do not grow: their memory after some thousand rounds, and
# after ten thousand more, of which JOBQ_MEMORY_ROUNDS sets how many; and the
# keeper's after opening and dropping some epochs, and after as many again.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $ROUNDS = $ENV{JOBQ_MEMORY_ROUNDS} // 10_000;
my $WARM_UP = 1000;
my $GROWTH_KB = 256;			# what is allowed in all those rounds

my $node = start_node('memory', "fsync = off\nsynchronous_commit = off");

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub pid_of
{
	my ($type) = @_;

	return sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_jobq $type'");
}

# Memory of a process's own, in kB: shared memory grows as it is touched.
sub own_memory
{
	my ($pid) = @_;
	my ($anonymous) =
	  slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;

	return $anonymous;
}

# Bytes used in memory contexts, as the server's log says.
sub contexts
{
	my ($pid) = @_;
	my $position = -s $node->logfile;
	my $total;

	sql("SELECT pg_log_backend_memory_contexts($pid)");
	# The process says so when it comes by.
	sql('SELECT jobq.run_maintenance()');
	await(
		sub {
			my $log = substr(slurp_file($node->logfile), $position);
			$log =~ /Grand total: \d+ bytes in \d+ blocks; .*; (\d+) used/
			  or return 0;
			$total = $1;
			return 1;
		},
		20);
	return $total;
}

plan skip_all => 'no /proc/PID/status here' unless -r "/proc/$$/status";

sql('CREATE EXTENSION pg_jobq');
await_keeper($node);
sql(q{SELECT jobq.create_queue('q', '{"lease_for": "1 hour", "backoff": {"base": "0 s"}}');
SELECT jobq.create_queue('dl', '{"dead_letter": "dl_dead"}')});

# Rounds of every kind: jobs that become due, claims rolled back, jobs
# completed, a dead letter; each run_maintenance() is at least one round.
my $rounds = 'SELECT jobq.run_maintenance();' x 5;
my $turn = qq{
SELECT jobq.enqueue('q', delay => '0.001 s'); $rounds
BEGIN; SELECT count(*) FROM jobq.dequeue('q', 2); ROLLBACK; $rounds
SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 5); $rounds
SELECT jobq.enqueue('dl');
SELECT count(jobq.fail(id, lease, 'x', false)) FROM jobq.dequeue('dl'); $rounds
};

sub do_rounds
{
	my ($n) = @_;
	my $start = time();

	sql($turn x ($n / 20));
	note(sprintf('%d rounds in %.1f s', $n, time() - $start));
	return;
}

my ($keeper, $launcher) = (pid_of('keeper'), pid_of('launcher'));
do_rounds($WARM_UP);
my %before = (
	keeper => own_memory($keeper),
	launcher => own_memory($launcher),
	contexts => contexts($keeper));
do_rounds($ROUNDS);
# The launcher's rounds are wishes of databases.
sql('ALTER SYSTEM SET jobq.databases = "*"');
sql('SELECT pg_reload_conf()') for 1 .. 200;
my %after = (
	keeper => own_memory($keeper),
	launcher => own_memory($launcher),
	contexts => contexts($keeper));

is(pid_of('keeper'), $keeper, 'still the same keeper');
is(pid_of('launcher'), $launcher, 'still the same launcher');
foreach my $what (sort keys %before)
{
	note("$what: $before{$what}, then $after{$what}");
}
cmp_ok($after{keeper} - $before{keeper}, '<=', $GROWTH_KB,
	"the keeper does not grow in $ROUNDS rounds");
cmp_ok($after{launcher} - $before{launcher}, '<=', $GROWTH_KB,
	'nor does the launcher');
cmp_ok($after{contexts} - $before{contexts}, '<=', $GROWTH_KB * 1024,
	"nor do the keeper's memory contexts");

# ---- epochs come and go ----

sql('ALTER SYSTEM SET jobq.epoch_rows = 100');
sql('SELECT pg_reload_conf()');
sql(q{SELECT jobq.create_queue('short', '{"retention": "0 s"}')});

sub newest_epoch
{
	return sql('SELECT max(epoch) FROM jobq.epoch');
}

# Until so many epochs more have been opened, and all but a few are gone.
sub turn_epochs
{
	my ($n) = @_;
	my $until = newest_epoch() + $n;

	ok( await(
			sub {
				sql(q{SELECT count(*) FROM unnest(jobq.enqueue_many('short',
						array_fill('{}'::jsonb, ARRAY[150])));
SELECT jobq.complete_many(array_agg(id), min(lease)) FROM jobq.dequeue('short', 150);
SELECT jobq.run_maintenance()});
				return newest_epoch() >= $until
				  && sql('SELECT count(*) FROM jobq.epoch') < 10;
			},
			120),
		"$n epochs have come and gone");
	return;
}

my $EPOCHS = 96;
turn_epochs($EPOCHS);
my $before = contexts($keeper);
turn_epochs($EPOCHS);
my $after = contexts($keeper);
note("contexts: $before, then $after");
cmp_ok($after - $before, '<=', 1024 * $EPOCHS,
	"the keeper does not grow with $EPOCHS epochs");

$node->stop;
done_testing();
