# The queue keeps its speed and its disk while somebody holds back the xmin
# horizon: a snapshot, a transaction, locks as of pg_dump, prepared
# transactions, a standby. Time: JOBQ_CONTROL_SECONDS, JOBQ_HELD_SECONDS;
# JOBQ_CASES names some of the cases.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(time);

my $CONTROL = setting('CONTROL_SECONDS', 20, 2);
my $HELD = setting('HELD_SECONDS', 120, 3);
my $WINDOW = $CONTROL;			# of the first and the last rate
my $ROWS = setting('EPOCH_ROWS', 20_000, 1000);

my $node = soak_node('horizon', "jobq.epoch_rows = $ROWS
wal_level = replica
max_wal_senders = 5
jobq.max_live_jobs = 200000
");
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 s');
my $standby;

# ---- who holds ----

sub session_that
{
	my ($where, @statements) = @_;
	my $session = $where->background_psql('postgres');

	$session->query_safe($_) foreach @statements;
	return $session;
}

my %hold = (
	snapshot => sub {
		return session_that($node,
			'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	},
	transaction => sub {
		return session_that($node, 'BEGIN; INSERT INTO soak.held VALUES (1)');
	},
	locks => sub {
		# A table may be dropped while this runs; then once more.
		my $session = $node->background_psql('postgres', on_error_stop => 0);
		await(
			sub {
				$session->query('ROLLBACK');
				$session->{stderr} = '';
				$session->query(q{BEGIN ISOLATION LEVEL REPEATABLE READ;
DO $$ DECLARE name text; BEGIN
FOR name IN SELECT oid::regclass FROM pg_class
	WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r' LOOP
	EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', name);
END LOOP; END $$;});
				return $session->{stderr} !~ /ERROR/;
			},
			30) or die 'cannot lock the tables';
		return $session;
	},
	prepared => sub {
		sql($node, q{BEGIN; INSERT INTO soak.held VALUES (1); PREPARE TRANSACTION 'held_1';
BEGIN; SELECT jobq.enqueue('mix'); PREPARE TRANSACTION 'held_2'});
		return undef;
	},
	standby => sub {
		return session_that($standby,
			'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
	});

# True when it held to the end.
sub release
{
	my ($case, $session) = @_;

	if ($case eq 'prepared')
	{
		sql($node, "COMMIT PREPARED 'held_1'");
		sql($node, "COMMIT PREPARED 'held_2'");
		return 1;
	}
	my $there = eval { $session->query_safe('SELECT 7') } // '';
	eval { $session->query('COMMIT') };
	eval { $session->quit };
	return $there =~ /7/;
}

sub start_standby
{
	$node->backup('base');
	$standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', q{
hot_standby_feedback = on
wal_receiver_status_interval = 1s
max_standby_streaming_delay = -1
});
	$standby->start;
	return;
}

# The horizon is held: something older than what is now.
sub held_back
{
	return await(
		sub {
			sql($node, 'SELECT pg_current_xact_id()');
			return sql($node, q{SELECT coalesce(max(age), 0) > 1 FROM (
SELECT age(backend_xmin) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
UNION ALL SELECT age(backend_xid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
UNION ALL SELECT age(backend_xmin) FROM pg_stat_replication
UNION ALL SELECT age(transaction) FROM pg_prepared_xacts) a(age)}) eq 't';
		},
		15);
}

# ---- one case ----

sub greatest
{
	my ($what, @samples) = @_;

	return (sort { $b <=> $a } map { $_->{$what} } @samples)[0];
}

sub mb
{
	return sprintf('%.1f MB', $_[0] / 1048576);
}

# What may not be given back while the horizon is held may grow only by what is
# done: the shelf by rows that come and go there, unique keys by a row each, the
# catalog by epochs. Of 20 jobs one or two go over the shelf, one has a key.
my %GROWTH = (shelf => 400, ukey => 40);	# bytes a job at most
my $OF_EPOCH = 128 * 1024;

sub others_are_bounded
{
	my ($case, $from, $to, $opened) = @_;
	my $done = $to->{ended} - $from->{ended};

	foreach my $table (sort keys %GROWTH)
	{
		cmp_ok($to->{$table} - $from->{$table}, '<=', 1048576 + $GROWTH{$table} * $done,
			"$case: disk of $table");
	}
	cmp_ok($to->{catalog} - $from->{catalog}, '<=', 4 * 1048576 + $OF_EPOCH * $opened,
		"$case: disk of the catalog");
	return;
}

# After the holder has gone: two epochs later, and a moment for the keeper.
sub level_after
{
	my ($limit) = @_;
	my $start = sample($node);
	my $now = $start;

	my $passed = await(
		sub {
			$now = sample($node);
			return $now->{last_epoch} >= $start->{last_epoch} + 2;
		},
		setting('AFTER_SECONDS', 60, 20));
	ok($passed, 'two more epochs have been opened');
	await(sub { $now = sample($node); return $now->{belt} <= $limit }, 10);
	return $now;
}

sub run_case
{
	my ($case, $rate) = @_;
	my $mix = start_mix($node, rate => $rate, keys => 1);

	samples($node, short() ? 1 : 10);	# to get going
	my @control = samples($node, $CONTROL);
	my $session = $hold{$case}->();
	ok(held_back(), "$case: somebody holds the horizon");
	my @held = samples($node, $HELD);
	my $dead = belt_dead($node);
	ok(release($case, $session), "$case: held to the end");

	my $first = rate_of(grep { $_->{at} <= $held[0]{at} + $WINDOW } @held);
	my $last = rate_of(grep { $_->{at} >= $held[-1]{at} - $WINDOW } @held);
	# Epochs come and go, so a level is what there is at most; one more may
	# be waiting to be dropped at any moment.
	my $level = greatest('belt', @control);
	my $limit = 1.25 * $level + 4 * 1048576;
	my $after = level_after($limit);
	stop_mix($mix);

	my ($opened, $dropped) = epochs_between($held[0], $held[-1]);
	cmp_ok($opened, '>=', 1, "$case: epochs were opened while held");
	is($dead, 0, "$case: no dead row on the belt");
	cmp_ok($after->{belt}, '<=', $limit, "$case: the disk is free again");
	others_are_bounded($case, $control[0], $held[-1], $opened + (epochs_between($control[0], $held[0]))[0]);
	if ($case eq 'snapshot' || $case eq 'transaction')
	{
		cmp_ok($dropped, '>=', 1, "$case: epochs were dropped while held");
		cmp_ok(greatest('belt', @held), '<=', $limit,
			"$case: the disk is bounded while held");
	}
	cmp_ok($last, '>=', 0.9 * $first, "$case: as fast in the end as at first")
	  unless short();

	figure("horizon $case",
		sprintf('control %.0f/s', rate_of(@control)),
		sprintf('first %d s %.0f/s', $WINDOW, $first),
		sprintf('last %d s %.0f/s (%.2f)', $WINDOW, $last, ratio($last, $first)),
		'belt control ' . mb($level),
		'held ' . mb(greatest('belt', @held)),
		'after ' . mb($after->{belt}),
		'shelf ' . mb($held[0]{shelf}) . ' to ' . mb($held[-1]{shelf}),
		'keys ' . mb($held[0]{ukey}) . ' to ' . mb($held[-1]{ukey}),
		'catalog ' . mb($held[0]{catalog}) . ' to ' . mb($held[-1]{catalog}),
		'each 10 s ' . course_of(@held),
		"dead rows $dead",
		"epochs opened $opened, dropped $dropped",
		"on disk at most " . greatest('epochs', @held),
		'backlog ' . greatest('available', @held));
	return;
}

my $capacity = calibrate($node);
foreach my $case (
	split(/ /, $ENV{JOBQ_CASES} // 'snapshot transaction locks prepared standby'))
{
	start_standby() if $case eq 'standby';
	run_case($case, $capacity->{balanced});
}
ok(drain($node), 'all jobs can be completed');
is(conflicts($node), 0, 'no job was about to end twice');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:/, 'no panic');

$standby->stop('immediate') if $standby;
$node->stop;
done_testing();
