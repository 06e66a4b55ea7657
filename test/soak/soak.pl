# Half of what the machine can do, for half an hour (JOBQ_SOAK_SECONDS), with
# small epochs: disk, catalog, memory and latency stay what they were, no job
# is lost and none is done twice.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(time);

my $SECONDS = setting('SOAK_SECONDS', 1800, 20);
my $EVERY = setting('SAMPLE_SECONDS', $SECONDS >= 600 ? 30 : $SECONDS / 20);
my $ROWS = setting('EPOCH_ROWS', 10_000, 1000);

my $node = soak_node('soak', "jobq.epoch_rows = $ROWS\n");
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 s');

# Anonymous memory of a process, in kB: shared memory, which it touches by and
# by, is not its own.
sub memory_of
{
	my ($pid) = @_;
	my $status = eval { slurp_file("/proc/$pid/status") } // '';

	return $status =~ /^RssAnon:\s+(\d+)/m ? $1 : 0;
}

sub pid_of
{
	my ($what) = @_;
	my $pid = '';

	await(
		sub {
			$pid = sql($node, "SELECT pid FROM pg_stat_activity WHERE $what
				ORDER BY backend_start LIMIT 1");
			return $pid ne '';
		},
		10);
	return $pid;
}

my $capacity = calibrate($node, ledger => 1);
my $before = sample($node);
my $mix = start_mix($node, rate => $capacity->{tps} / 2, ledger => 1);
my $probe = probe($node);
my %pid = (
	keeper => pid_of(q{backend_type = 'pg_jobq keeper'}),
	launcher => pid_of(q{backend_type = 'pg_jobq launcher'}),
	# clients of the load, by what they do
	producer => pid_of(q{pid <> pg_backend_pid() AND query LIKE '%enqueue(''mix''%'}),
	consumer => pid_of(q{pid <> pg_backend_pid() AND query LIKE '%dequeue(''mix''%'}));
ok($pid{$_}, "there is a $_") foreach sort keys %pid;

# ---- samples ----

my @samples;
my $end = time() + $SECONDS;
while (time() < $end)
{
	my ($last) = reverse samples($node, $EVERY, $EVERY);
	$last->{"memory of $_"} = memory_of($pid{$_}) foreach keys %pid;
	push @samples, $last;
	note(join(', ', map { "$_ $last->{$_}" } sort keys %$last));
}
my $after = sample($node);
foreach my $name (qw(keeper launcher))
{
	is(pid_of("backend_type = 'pg_jobq $name'"), $pid{$name},
		"the $name is still the same");
}
stop_mix($mix);
stop_bench($probe);

# ---- flat ----

# Values of one quarter, from 1 to 4.
sub quarter
{
	my ($what, $number) = @_;
	my $from = int(@samples * ($number - 1) / 4);
	my $to = int(@samples * $number / 4) - 1;

	return map { $_->{$what} } @samples[ $from .. $to ];
}

my ($from, $to) = ($samples[0]{at}, $samples[-1]{at});
my $part = ($to - $from) / 4;
sub latency
{
	my ($percent, $number) = @_;
	my $start = $from + ($number - 1) * $part;

	return percentile($percent, probe_latencies($probe, $start, $start + $part));
}

# The last quarter is at most a fifth, and some slack, above the second.
sub flat
{
	my ($name, $second, $last, $slack, $unit) = @_;

	figure("soak $name",
		sprintf('second quarter %.1f %s', $second, $unit),
		sprintf('last %.1f %s', $last, $unit));
	return if short();
	cmp_ok($last, '<=', 1.2 * $second + $slack, "$name is flat");
	return;
}

flat($_,
	median(quarter($_, 2)) / 1048576,
	median(quarter($_, 4)) / 1048576,
	2, 'MB')
  foreach qw(belt shelf catalog);
flat('epochs on disk', median(quarter('epochs', 2)),
	median(quarter('epochs', 4)), 2, 'epochs');
flat($_, median(quarter($_, 2)) / 1024, median(quarter($_, 4)) / 1024, 1, 'MB')
  foreach map { "memory of $_" } sort keys %pid;
flat('latency p50', latency(50, 2), latency(50, 4), 2, 'ms');
flat('latency p99', latency(99, 2), latency(99, 4), 10, 'ms');

my ($opened, $dropped) = epochs_between($before, $after);
figure('soak',
	"$SECONDS s",
	sprintf('%.0f jobs/s', rate_of(@samples)),
	"epochs opened $opened, dropped $dropped",
	'backlog at most ' . percentile(100, map { $_->{available} } @samples));
my $epochs = ($after->{completed} - $before->{completed}) / $ROWS;
cmp_ok($opened, '>=', int($epochs / 2), 'epochs have been opened as rows came');
cmp_ok($dropped, '>=', int($epochs / 4), 'and dropped');

# ---- nothing lost, nothing twice ----

ok(drain($node), 'all jobs can be completed');
is( sql($node, 'SELECT count(*) FROM (SELECT id FROM soak.ledger
		EXCEPT SELECT id FROM soak.effect) l'),
	'0', 'no job is lost');
is( sql($node, 'SELECT count(*) FROM (SELECT id FROM soak.effect
		EXCEPT SELECT id FROM soak.ledger) l'),
	'0', 'none was made up');
is( sql($node, 'SELECT count(*) - count(DISTINCT id) FROM soak.effect'),
	'0', 'none was done twice');
is( sql($node, q{SELECT completed_total - (SELECT count(*) FROM soak.ledger)
		FROM jobq.queue_stats WHERE queue = 'mix'}),
	'0', 'the total counts each job once');
is(conflicts($node), 0, 'no job was about to end twice');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:/, 'no panic');
note(sql($node, 'SELECT count(*) FROM soak.ledger') . ' jobs');

$node->stop;
done_testing();
