# A million scheduled jobs (JOBQ_DUE_JOBS) become due over a time
# (JOBQ_DUE_SECONDS): they can be had on time, and a second queue does not
# notice. Late is from run_at to the moment a worker has the job.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(time usleep);

my $JOBS = setting('DUE_JOBS', 1_000_000, 5000);
my $SECONDS = setting('DUE_SECONDS', 60, 3);
my $LOAD = setting('LOAD_SECONDS', 30 + $JOBS / 10_000, 5);
my $BATCH = 1000;

my $node = soak_node('due');
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 day');
sql( $node, q{
SELECT jobq.create_queue('due');
CREATE UNLOGGED TABLE soak.taken (at timestamptz, run_at timestamptz[])
	WITH (autovacuum_enabled = off);
});

# ---- the shelf is filled ----

my $start = time() + $LOAD;
my $fill = run_bench(
	$node,
	clients => 4,
	transactions => int($JOBS / $BATCH / 4) || 1,
	scripts => {
		schedule => [ 1, qq{SELECT count(jobq.enqueue('due', '$PAYLOAD',
	run_at => to_timestamp($start) + random() * interval '$SECONDS s'))
FROM generate_series(1, $BATCH);
} ] });
my $scheduled = sql($node,
	q{SELECT scheduled FROM jobq.queue_stats WHERE queue = 'due'});
is($scheduled, $fill->{transactions} * $BATCH, 'all are scheduled');
cmp_ok(time(), '<', $start - 2, 'all are there before the first is due')
  or die 'raise JOBQ_LOAD_SECONDS';
sql($node, 'VACUUM ANALYZE jobq.shelf');
sql($node, 'CHECKPOINT');

# ---- they become due ----

my $probe = probe($node);
usleep(1e6) while time() < $start - 1;
my $work = start_bench(
	$node,
	clients => 4,
	seconds => 1_000_000,
	scripts => {
		work => [ 1, q{WITH d AS MATERIALIZED (SELECT * FROM jobq.dequeue('due', 100)),
t AS (INSERT INTO soak.taken SELECT clock_timestamp(), array_agg(run_at) FROM d
	HAVING count(*) > 0)
SELECT count(*) AS n, coalesce(max(lease), 0) AS lease,
	coalesce(array_agg(id), '{}')::text AS ids FROM d \gset
\if :n > 0
SELECT count(*) FROM unnest(jobq.complete_many(:ids, :lease));
\else
SELECT pg_sleep(0.002);
\endif
} ] });
my $backlog = 0;
my $finished = await(
	sub {
		usleep(500_000);
		my ($available, $done) = split(/\|/, sql($node,
			q{SELECT available, completed_total FROM jobq.queue_stats
			WHERE queue = 'due'}));
		$backlog = $available if $available > $backlog;
		return $done == $scheduled;
	},
	setting('DRAIN_SECONDS', 5 * $SECONDS + 60));
my $end = time();
ok($finished, 'all have been completed');
stop_bench($work);
stop_bench($probe);

# ---- how late ----

my ($taken, $p50, $p99, $most, $early) = split(/\|/, sql($node, q{
SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY late),
	percentile_disc(0.99) WITHIN GROUP (ORDER BY late), max(late),
	count(*) FILTER (WHERE late < 0)
FROM (SELECT 1000 * extract(epoch FROM at - r)::float AS late
	FROM soak.taken, unnest(run_at) r) t}));
my @calm = probe_latencies($probe, $start - $LOAD, $start - 1);
my @busy = probe_latencies($probe, $start, $start + $SECONDS);

figure('scheduled',
	"$scheduled jobs over $SECONDS s",
	sprintf('late p50 %.1f ms, p99 %.1f ms, max %.1f ms', $p50, $p99, $most),
	"at most $backlog due and waiting",
	sprintf('all done %.1f s after the last was due', $end - $start - $SECONDS),
	sprintf('scheduled at %.0f jobs/s', $scheduled / $fill->{seconds}));
figure('scheduled, another queue',
	map { sprintf("%s p50 %.1f ms, p99 %.1f ms", $_->[0],
			percentile(50, @{ $_->[1] }), percentile(99, @{ $_->[1] })) }
	  ([ 'before', \@calm ], [ 'during', \@busy ]));
is($taken, $scheduled, 'each was handed out once');
is($early, 0, 'none was early');
if (!short())
{
	cmp_ok($p99, '<', 100, 'late: p99 is below 100 ms');
	cmp_ok(percentile(99, @busy), '<', 100, 'another queue: p99 is below 100 ms');
}
is(conflicts($node), 0, 'no job was about to end twice');

$node->stop;
done_testing();
