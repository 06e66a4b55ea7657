# What dropping epochs does to who reads on a standby, and to replay, with and
# without hot_standby_feedback; and that the primary does not notice. Time:
# JOBQ_CONTROL_SECONDS, JOBQ_HELD_SECONDS.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(time usleep);

my $CONTROL = setting('CONTROL_SECONDS', 20, 2);
my $HELD = setting('HELD_SECONDS', 30, 8);
my $DELAY = setting('STANDBY_DELAY', 5, 2);	# max_standby_streaming_delay
my $ROWS = setting('EPOCH_ROWS', 10_000, 300);
my $READ = 0.9 * $HELD;		# how long readers read, if they may

my $node = soak_node('standby_primary', "jobq.epoch_rows = $ROWS
wal_level = replica
max_wal_senders = 5
");
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 s');
sql($node, 'CREATE TABLE soak.plain AS SELECT generate_series(1, '
	  . int(10 * $READ) . ') AS n');
my $rate = short() ? 100 : calibrate($node)->{tps} / 2;

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby_reader');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', qq{
wal_receiver_status_interval = 1s
max_standby_streaming_delay = ${DELAY}s
});
$standby->start;

# ---- who reads ----

my $dir = PostgreSQL::Test::Utils::tempdir;
my %reads = (
	# one query over a table that has nothing to do with queues
	unrelated => 'SELECT count(pg_sleep(0.1)::text) FROM soak.plain;',
	# a transaction that has looked at finished jobs, and thinks
	history => qq{BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM jobq.history;
\\! sleep $READ
SELECT 'still there';
COMMIT;},
	# one query over finished jobs
	report => "SELECT (SELECT count(*) FROM jobq.history), pg_sleep($READ);");

sub start_reader
{
	my ($name, $mode) = @_;
	my $output = "$dir/$name.$mode.out";

	return {
		name => $name,
		output => $output,
		started => time(),
		run => IPC::Run::start(
			[
				'psql', '-X', '-v', 'VERBOSITY=verbose', '-v',
				'ON_ERROR_STOP=1', '-f', sql_file("$name$mode", $reads{$name}),
				'-d', $standby->connstr('postgres') . " application_name=$name"
			],
			'<', \undef, '>', $output, '2>&1') };
}

# Sets state (SQLSTATE, 00000 = read to the end) and text.
sub finish_reader
{
	my ($reader) = @_;

	eval { $reader->{run}->finish };
	my $output = slurp_file($reader->{output});
	($reader->{state}, $reader->{text}) =
	  $output =~ /(?:ERROR|FATAL):\s+(\w{5}): ([^\n]*)/;
	$reader->{state} //= '00000';
	$reader->{text} //= 'read to the end';
	return;
}

# ---- looking ----

# What the standby shows: how late it is, which epoch is the oldest, who reads.
# Undefined when this short query had to give way itself.
sub look
{
	my ($rc, $out) = $standby->psql('postgres',
		q{SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()),
	(SELECT min(epoch) FROM jobq.epoch JOIN jobq.queue USING (class) WHERE queue = 'mix'),
	(SELECT string_agg(application_name, ' ') FROM pg_stat_activity
	WHERE application_name IN ('unrelated', 'history', 'report')
	AND state IN ('active', 'idle in transaction'))});

	return undef if $rc != 0;
	my ($lag, $oldest, $reading) = split(/\|/, $out);
	return {
		at => time(),
		lag => $lag,
		oldest => $oldest,
		reading => $reading // '' };
}

# Who was seen reading and does so no more.
sub note_ends
{
	my ($look, @readers) = @_;

	foreach my $reader (@readers)
	{
		if ($look->{reading} =~ /\b$reader->{name}\b/)
		{
			$reader->{seen} = 1;
		}
		elsif ($reader->{seen})
		{
			$reader->{ended} //= $look->{at};
		}
	}
	return;
}

# Lags around the moments at which a dropped epoch was gone on the standby, and
# all others.
sub lags_by_drops
{
	my @looks = @_;
	my @drops = map { $looks[$_]{at} }
	  grep { $looks[$_]{oldest} != $looks[ $_ - 1 ]{oldest} } 1 .. $#looks;
	my (@at_drops, @others);

	foreach my $drop (@drops)
	{
		my @near = sort { $b <=> $a } map { $_->{lag} }
		  grep { abs($_->{at} - $drop) < 0.5 } @looks;
		push @at_drops, $near[0];
	}
	foreach my $look (@looks)
	{
		push @others, $look->{lag}
		  unless grep { abs($look->{at} - $_) < 0.5 } @drops;
	}
	return (\@at_drops, \@others);
}

# Sessions ended by locks that were replayed, and by rows that were removed.
sub conflicts_on_standby
{
	my ($rc, $out);

	await(
		sub {
			($rc, $out) = $standby->psql('postgres',
				q{SELECT confl_lock, confl_snapshot
				FROM pg_stat_database_conflicts WHERE datname = 'postgres'});
			return $rc == 0;
		},
		30) or die 'the standby does not answer';
	return split(/\|/, $out);
}

sub greatest
{
	my @sorted = sort { $b <=> $a } @_;

	return $sorted[0] // 0;
}

# ---- one phase ----

sub watch
{
	my ($seconds, @readers) = @_;
	my $end = time() + $seconds;
	my @samples = (sample($node));
	my $refused = 0;
	my @looks;

	while (time() < $end)
	{
		my $look = look();
		if ($look)
		{
			note_ends($look, @readers);
			push @looks, $look;
		}
		else
		{
			$refused++;
		}
		push @samples, sample($node) if time() > $samples[-1]{at} + 1;
		usleep(50_000);
	}
	push @samples, sample($node);
	return (\@samples, \@looks, $refused);
}

sub run_phase
{
	my ($mode, $seconds, @names) = @_;
	my @before = conflicts_on_standby();
	my @readers = map { start_reader($_, $mode) } @names;
	my ($samples, $looks, $refused) = watch($seconds, @readers);

	finish_reader($_) foreach @readers;
	my @after = conflicts_on_standby();
	my ($at_drops, $others) = lags_by_drops(@$looks);
	my ($opened, $dropped) = epochs_between($samples->[0], $samples->[-1]);
	my @fates = map {
		sprintf('%s %s after %.1f s (%s)',
			$_->{name}, $_->{state}, ($_->{ended} // time()) - $_->{started},
			$_->{text})
	} @readers;

	figure("standby, feedback $mode, " . (join(' and ', @names) || 'nobody reads'),
		@fates,
		sprintf('conflicts of locks %d, of snapshots %d',
			map { $after[$_] - $before[$_] } 0, 1),
		sprintf('short queries that had to give way %d of %d',
			$refused, $refused + @$looks),
		sprintf('replay lag at drops median %.2f s, largest %.2f s',
			median(@$at_drops), greatest(@$at_drops)),
		sprintf('else median %.2f s, largest %.2f s',
			median(@$others), greatest(@$others)),
		"epochs dropped $dropped",
		sprintf('%.0f jobs/s', rate_of(@$samples)),
		sprintf('belt at most %.1f MB',
			greatest(map { $_->{belt} } @$samples) / 1048576));
	return {
		dropped => $dropped,
		completed => $samples->[-1]{completed} - $samples->[0]{completed},
		lag => greatest(map { $_->{lag} } @$looks),
		belt => greatest(map { $_->{belt} } @$samples),
		lock_conflicts => $after[0] - $before[0],
		map { $_->{name} => $_ } @readers };
}

# Whoever has touched a table that is dropped may hold up replay for a time,
# and has to go then.
sub gave_way
{
	my ($mode, $phase, $name) = @_;
	my $reader = $phase->{$name};

	is($reader->{state}, '40001', "$mode, $name: had to give way");
	cmp_ok(($reader->{ended} // time()) - $reader->{started},
		'>', 0.5 * $DELAY, "$mode, $name: not before the delay was over");
	cmp_ok($phase->{lag}, '>', 0.5 * $DELAY, "$mode, $name: held up replay");
	# without feedback old rows may be the first that are missed
	cmp_ok($phase->{lock_conflicts}, '>=', 1, "$mode, $name: by its locks")
	  if $mode eq 'on';
	return;
}

# Nothing of it is felt on the primary.
sub primary_goes_on
{
	my ($mode, $control, $phase, $what) = @_;

	cmp_ok($phase->{dropped}, '>=', 1, "$mode, $what: epochs are dropped");
	cmp_ok($phase->{completed}, '>', 0, "$mode, $what: jobs are completed");
	cmp_ok($phase->{belt}, '<=', 2 * $control->{belt} + 8 * 1048576,
		"$mode, $what: the primary's disk is bounded");
	return;
}

foreach my $mode (qw(on off))
{
	my $mix;

	$standby->append_conf('postgresql.conf', "hot_standby_feedback = $mode");
	$standby->reload;
	$mix = start_mix($node, rate => $rate);
	watch(short() ? 2 : 10);			# to get going
	my $control = run_phase($mode, $CONTROL);
	foreach my $names (
		short() ? [ 'unrelated', 'history' ] : (['unrelated'], ['history'], ['report']))
	{
		my $phase = run_phase($mode, $HELD, @$names);

		primary_goes_on($mode, $control, $phase, "@$names");
		foreach my $name (@$names)
		{
			gave_way($mode, $phase, $name) if $name ne 'unrelated';
		}
		# without feedback vacuuming the catalogs may end any query
		is($phase->{unrelated}{state}, '00000', "$mode: an unrelated query goes on")
		  if $phase->{unrelated} && $mode eq 'on';
	}
	stop_mix($mix);
	$node->wait_for_catchup($standby);
	pass("$mode: the standby catches up");
}

ok(drain($node), 'all jobs can be completed');
is(conflicts($node), 0, 'no job was about to end twice');
unlike(slurp_file($_->logfile), qr/PANIC:|TRAP:/, 'no panic')
  foreach ($node, $standby);

$standby->stop('immediate');
$node->stop;
done_testing();
