# Far more jobs than memory holds (JOBQ_BACKLOG_JOBS beside max_live_jobs of
# JOBQ_LIVE_JOBS): enqueuing and dequeuing are as fast as without, the order
# is exact, another queue does not notice, and recovery is linear.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(time usleep);

my $JOBS = setting('BACKLOG_JOBS', 5_000_000, 12_000);
my $LIVE = setting('LIVE_JOBS', 100_000, 2_000);
my $MEMORY = int(0.8 * $LIVE);	# a backlog that fits
my $LAST = int($JOBS / 5);		# as many as the rate is measured over
my $ORDERED = setting('ORDERED_JOBS', 500_000, 6_000);
my $BATCH = short() ? 100 : 1000;
my $SECONDS = setting('ONE_BY_ONE_SECONDS', 10, 1);

my $node = soak_node('backlog', "jobq.max_live_jobs = $LIVE\n");
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 day');
sql( $node, q{
SELECT jobq.create_queue('deep');
SELECT jobq.create_queue('flat');
SELECT jobq.create_queue('whole');
CREATE UNLOGGED TABLE soak.taken (n bigserial, priority int, run_at timestamptz,
	id bigint) WITH (autovacuum_enabled = off);
});

sub stats
{
	my ($queue, $what) = @_;

	return sql($node, "SELECT $what FROM jobq.queue_stats WHERE queue = '$queue'");
}

my %enqueued = (deep => 0, flat => 0, whole => 0);

# Clients that enqueue in batches; returns jobs a second.
sub fill
{
	my ($queue, $jobs) = @_;
	my $bench = run_bench(
		$node,
		clients => 4,
		transactions => int($jobs / $BATCH / 4) || 1,
		scripts => {
			fill => [ 1, qq{\\set p random(-3, 3)
SELECT count(*) FROM unnest(jobq.enqueue_many('$queue',
	array_fill('$PAYLOAD'::jsonb, ARRAY[$BATCH]), priority => :p));
} ] });

	$enqueued{$queue} += $bench->{transactions} * $BATCH;
	return $bench->{transactions} * $BATCH / $bench->{seconds};
}

# And one by one.
sub fill_singly
{
	my ($queue) = @_;
	my $bench = run_bench(
		$node,
		clients => 4,
		seconds => $SECONDS,
		scripts => {
			single => [ 1, qq{\\set p random(-3, 3)
SELECT jobq.enqueue('$queue', '$PAYLOAD', priority => :p);
} ] });

	$enqueued{$queue} += $bench->{transactions};
	return $bench->{tps};
}

# Clients that take and complete until all is done; jobs a second.
sub empty
{
	my ($queue) = @_;
	my $until = $enqueued{$queue};
	my $before = stats($queue, 'completed_total');
	my $start = time();
	my $bench = start_bench(
		$node,
		clients => 4,
		seconds => 1_000_000,
		scripts => {
			empty => [ 1, qq{SELECT count(*) AS n, coalesce(max(lease), 0) AS lease,
	coalesce(array_agg(id), '{}')::text AS ids FROM jobq.dequeue('$queue', 100) \\gset
\\if :n > 0
SELECT count(*) FROM unnest(jobq.complete_many(:ids, :lease));
\\else
SELECT pg_sleep(0.001);
\\endif
} ] });
	my $done;
	ok( await(
			sub {
				usleep(100_000);
				$done = stats($queue, 'completed_total');
				return $done >= $until;
			},
			setting('DRAIN_SECONDS', 1800, 60)),
		"$queue: $until are done");
	my $rate = ($done - $before) / (time() - $start);
	stop_bench($bench);
	return $rate;
}

# kill -9, and how long until the first job is delivered and all is ready. The
# log is short, so it is our own work that is measured. The careful minute after
# a crash ends with a clean restart.
sub recovery
{
	sql($node, 'CHECKPOINT');
	kill_server($node);
	my $killed = time();
	$node->start;
	my $start = time();
	my ($id, $lease);
	ok( await(
			sub {
				($id, $lease) = split(/\|/,
					JobqTest::answer($node, 'postgres',
						q{SELECT id, lease FROM jobq.dequeue('deep')}) // '');
				return $lease;
			},
			600),
		'recovery: a job is delivered');
	my $first = time() - $start;
	ok(await_keeper($node), 'recovery: the keeper is ready');
	my $ready = time() - $start;
	sql($node, "SELECT jobq.release($id, $lease)");
	my $waiting = stats('deep', 'available');
	figure("recovery of $waiting", sprintf('first delivery %.2f s', $first),
		sprintf('keeper ready %.2f s', $ready),
		sprintf('server up %.2f s', $start - $killed));
	$node->restart;
	await_keeper($node);
	return $ready;
}

# ---- an empty queue, and one that fits ----

my (@batch, @single, @drain);
foreach my $round (1 .. (short() ? 1 : 3))
{
	push @batch, fill('flat', $MEMORY);
	push @drain, empty('flat');
	push @single, fill_singly('flat');
	empty('flat');
}

# ---- deep, and recovery on the way ----

my $have = 0;
my %ready;
foreach my $level (0.2, 0.5, 1)
{
	my $next = int($JOBS * $level);
	fill('deep', $level == 1 ? $next - $have - $LAST : $next - $have);
	$have = $next;
	last if $level == 1;
	$ready{$level} = recovery();
}
my $probe = probe($node);
my $from = time();
my $last = fill('deep', $LAST);
stop_bench($probe);
my @filling = probe_latencies($probe, $from, time());
my $single = fill_singly('deep');
$ready{1} = recovery();
is(stats('deep', 'available'), $enqueued{deep}, 'the statistics count them all');
cmp_ok($enqueued{deep}, '>=', 0.99 * $JOBS, 'the backlog is as long as it should be');

figure('backlog, enqueue in batches', sprintf('empty %.0f/s', median(@batch)),
	sprintf('deep %.0f/s (%.2f)', $last, ratio($last, median(@batch))));
figure('backlog, enqueue singly', sprintf('empty %.0f/s', median(@single)),
	sprintf('deep %.0f/s (%.2f)', $single, ratio($single, median(@single))));
if (!short())
{
	cmp_ok($last, '>=', 0.8 * median(@batch), 'batches: as fast as when empty');
	cmp_ok($single, '>=', 0.8 * median(@single), 'singly: as fast as when empty');
	# twice the jobs, twice the time, with some room for noise
	cmp_ok($ready{1}, '<=', 3 * $ready{0.5} + 1, 'recovery is linear');
	cmp_ok($ready{0.5}, '<=', 3.75 * $ready{0.2} + 1, 'recovery is linear');
}

# ---- in order, by a single consumer ----

run_bench(
	$node,
	clients => 1,
	transactions => int($ORDERED / 100),
	scripts => {
		ordered => [ 1, q{WITH d AS MATERIALIZED (SELECT * FROM jobq.dequeue('deep', 100)),
t AS (INSERT INTO soak.taken (priority, run_at, id) SELECT priority, run_at, id FROM d)
SELECT coalesce(max(lease), 0) AS lease, coalesce(array_agg(id), '{}')::text AS ids FROM d \gset
SELECT count(*) FROM unnest(jobq.complete_many(:ids, :lease));
} ] });
my $taken = sql($node, 'SELECT count(*) FROM soak.taken');
figure('backlog, in order', "$taken jobs",
	sprintf('%.0f jobs a call of 100', ratio($taken, int($ORDERED / 100))));
cmp_ok($taken, '>=', 0.8 * $ORDERED, 'order: nearly each call got a full batch');
is( sql($node, q{SELECT count(*) FROM (SELECT (priority, run_at, id) >
		lag((priority, run_at, id)) OVER (ORDER BY n) AS after FROM soak.taken) t
		WHERE NOT after}),
	'0', 'order: exact by priority, run_at and id');
# Against the tables: what is left comes after all that was taken.
is( sql($node, q{SELECT count(*) FROM jobq.peek('deep', 100) p
		WHERE (priority, run_at, id) <= (SELECT priority, run_at, id
			FROM soak.taken ORDER BY n DESC LIMIT 1)}),
	'0', 'order: what is next comes after what was taken');

# ---- and the rest, by four ----

$probe = probe($node);
$from = time();
my $drain = empty('deep');
stop_bench($probe);
my @draining = probe_latencies($probe, $from, time());
my $small = median(@drain);
figure('backlog, another queue',
	map { sprintf("%s p50 %.1f ms, p99 %.1f ms", $_->[0],
			percentile(50, @{ $_->[1] }), percentile(99, @{ $_->[1] })) }
	  ([ 'filling', \@filling ], [ 'draining', \@draining ]));
if (!short())
{
	cmp_ok(percentile(99, @draining), '<', 100,
		'another queue is served within 100 ms');
}
is(stats('deep', 'available + running + retryable'), '0', 'nothing is left');
is(stats('deep', 'completed_total'), $enqueued{deep}, 'nothing was lost');
is(conflicts($node), 0, 'no job was about to end twice');

# ---- the same backlog with all of it in memory ----

my $slots = int(1.1 * $JOBS) + 1000;
append_to_file($node->data_dir . '/postgresql.conf',
	"jobq.max_live_jobs = $slots\n");
$node->restart;
await_keeper($node);
fill('whole', $JOBS);
sql($node, 'CHECKPOINT');
$probe = probe($node);
my $whole = empty('whole');
stop_bench($probe);
figure('backlog, dequeue', sprintf('beyond memory %.0f/s', $drain),
	sprintf('the same in memory %.0f/s (%.2f)', $whole, ratio($drain, $whole)),
	sprintf('%d in memory %.0f/s (%.2f)', $MEMORY, $small, ratio($drain, $small)));
cmp_ok($drain, '>=', 0.8 * $whole, 'as fast as from memory') unless short();

$node->stop;
done_testing();
