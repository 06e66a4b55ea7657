# Administration of many jobs (JOBQ_BULK_JOBS, beside max_live_jobs of
# JOBQ_LIVE_JOBS) by SQL over the views, each step in one statement: how fast
# it is, and that other traffic goes on as before, in other queues and, with
# jobs that are left alone, in the same one.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(time usleep);

my $JOBS = setting('BULK_JOBS', 1_000_000, 12_000);
my $LIVE = setting('LIVE_JOBS', 100_000, 2_000);
my $SECONDS = setting('BULK_SECONDS', 20, 2);

my $node = soak_node('bulk', "jobq.max_live_jobs = $LIVE\n");
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 day');
sql( $node, q{
SELECT jobq.create_queue('bulk');
-- A third each to be cancelled, to be put off, and to be purged.
CREATE PROCEDURE soak.fill(jobs int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 0 .. jobs / 1000 - 1 LOOP
		PERFORM jobq.enqueue_many('bulk', array_fill('{}'::jsonb, ARRAY[1000]),
			kind => (ARRAY['cancel', 'later', 'purge'])[i % 3 + 1], priority => i % 2);
		COMMIT;
	END LOOP;
END $$;
});

sub value
{
	return sql($node, shift);
}

# [time, completed of the other queue, completed of the same one]
sub look
{
	return [
		time(),
		split(/\|/, value(q{SELECT
	sum(completed_total) FILTER (WHERE queue = 'mix'),
	sum(completed_total) FILTER (WHERE queue = 'bulk') FROM jobq.queue_stats}))
	];
}

# Completed a second between two looks, of the other and the same queue.
sub rates
{
	my ($from, $to) = @_;
	my $seconds = $to->[0] - $from->[0];

	return map { ($to->[$_] - $from->[$_]) / $seconds } (1, 2);
}

# ---- the load ----

my $capacity = calibrate($node);
my $mix = start_mix($node, rate => 0.5 * ($capacity->{balanced} // $capacity->{tps}));
value("CALL soak.fill($JOBS)");
# A worker of the queue itself; the jobs it has may be cancelled under it.
my $worker = start_bench(
	$node,
	clients => 1,
	rate => 20,
	seconds => 1_000_000,
	scripts => {
		worker => [ 1, q{SELECT coalesce(max(lease), 0) AS lease,
	coalesce(array_agg(id), '{}')::text AS ids FROM jobq.dequeue('bulk', 2) \gset
SELECT count(*) FROM unnest(jobq.complete_many(:ids, :lease, 'skip'));
} ] });
my $probe = probe($node);

# One statement that steers many jobs; returns their number.
my @steps;

sub administer
{
	my ($what, $statement) = @_;
	my $start = look();

	usleep(1e6 * $SECONDS);
	my $before = look();
	my $n = value($statement);
	my $after = look();

	push @steps, {
		what => $what,
		jobs => $n,
		from => $before->[0],
		to => $after->[0],
		before => [ rates($start, $before) ],
		during => [ rates($before, $after) ]
	};
	return $n;
}

# What it was like for the others, once the probe has written its log.
sub judge
{
	my ($step) = @_;
	my ($other, $same) = @{ $step->{before} };
	my ($other_during, $same_during) = @{ $step->{during} };
	my $seconds = $step->{to} - $step->{from};
	my @latency = probe_latencies($probe, $step->{from}, $step->{to});

	figure(
		"bulk, $step->{what}",
		sprintf('%d jobs in %.1f s', $step->{jobs}, $seconds),
		sprintf('%.0f/s', $step->{jobs} / $seconds),
		sprintf('another queue %.0f/s before, %.0f/s during (%.2f)',
			$other, $other_during, ratio($other_during, $other)),
		sprintf('the same queue %.0f/s before, %.0f/s during',
			$same, $same_during),
		sprintf('probe p50 %.1f ms, p99 %.1f ms',
			percentile(50, @latency), percentile(99, @latency)));
	return if short();
	cmp_ok($other_during, '>=', 0.9 * $other,
		"$step->{what}: another queue goes on as before");
	cmp_ok($same_during, '>=', 0.8 * $same,
		"$step->{what}: what is left alone in the same queue goes on")
	  unless $step->{what} eq 'purge';
	cmp_ok(percentile(99, @latency), '<', 100,
		"$step->{what}: a probe takes less than 100 ms");
	return;
}

sub jobs_of
{
	my ($kind, $condition) = @_;

	return value("SELECT count(*) FROM jobq.jobs WHERE queue = 'bulk'
		AND kind = '$kind' AND $condition");
}

my $cancelled = administer('cancel', q{SELECT count(*) FILTER (WHERE jobq.cancel(id, 'bulk'))
	FROM jobq.jobs WHERE queue = 'bulk' AND kind = 'cancel'});
is(jobs_of('cancel', 'true'), 0, 'all are cancelled');
is( value(q{SELECT count(*) FROM jobq.history WHERE queue = 'bulk' AND state = 'cancelled'}),
	$cancelled, 'as often as it was said');

my $later = administer('put off', q{SELECT count(*) FILTER (WHERE jobq.reschedule(id, clock_timestamp() + '1 day', 7))
	FROM jobq.jobs WHERE queue = 'bulk' AND kind = 'later'});
is(jobs_of('later', "state = 'scheduled' AND priority = 7"),
	$later, 'all that were waiting are put off');
is(jobs_of('later', "state <> 'running'"), $later, 'and none is left out');

my $now = administer('bring forward', q{SELECT count(*) FILTER (WHERE jobq.reschedule(id, priority => 7))
	FROM jobq.jobs WHERE queue = 'bulk' AND kind = 'later'});
is($now, $later, 'all are brought forward');

my $purged = administer('purge', q{SELECT jobq.purge_queue('bulk')});
ok(await(sub { value(q{SELECT available + scheduled + retryable + running FROM jobq.queue_stats
		WHERE queue = 'bulk'}) == 0 }), 'nothing is left');
is(value(q{SELECT count(*) FROM jobq.jobs WHERE queue = 'bulk'}), 0, 'nor shown');
is( value(q{SELECT cancelled_total FROM jobq.queue_stats WHERE queue = 'bulk'}),
	$cancelled + $purged, 'all that was cancelled is counted');
is( value(q{SELECT cancelled_total + completed_total FROM jobq.queue_stats WHERE queue = 'bulk'}),
	int($JOBS / 1000) * 1000, 'nothing was lost');

stop_bench($probe);
judge($_) foreach @steps;
stop_bench($worker);
stop_mix($mix);
ok(drain($node), 'the other queue was served to its end');
is(conflicts($node), 0, 'no job was about to end twice');
$node->stop;
done_testing();
