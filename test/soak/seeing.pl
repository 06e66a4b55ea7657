# Seeing costs no more with a million live jobs in a hundred queues: latencies
# of queue_stats, explain_job() and metrics() by themselves and beside a load,
# and what metering costs the load.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;

my $JOBS = setting('SEEN_JOBS', 1_000_000, 10_000);
my $QUEUES = setting('SEEN_QUEUES', 100, 10);
my $LIVE = setting('LIVE_JOBS', int(1.1 * $JOBS), 12_000);
my $LOOKS = setting('LOOKS', 2000, 50);
my $BATCH = short() ? 100 : 1000;

# Milliseconds; half of them must be faster, all but one in a hundred be at
# twice that.
my %limit = (queue_stats => 1, explain_job => 1, metrics => 20);

my $node = soak_node('seeing', "jobq.max_live_jobs = $LIVE\n");
sql($node, 'CREATE EXTENSION pg_jobq');
await_keeper($node) or die 'there is no keeper';
sql($node, qq{SELECT jobq.create_queue('queue ' || i) FROM generate_series(1, $QUEUES) i});

# Every queue has a past, and running, scheduled and many available jobs of
# several kinds and priorities.
run_bench(
	$node,
	clients => 4,
	transactions => int($JOBS / $BATCH / 4) || 1,
	scripts => {
		fill => [ 1, qq{\\set q random(1, $QUEUES)
\\set k random(1, 5)
\\set p random(-3, 3)
SELECT count(*) FROM unnest(jobq.enqueue_many('queue ' || :q,
	array_fill('{}'::jsonb, ARRAY[$BATCH]), kind => 'kind ' || :k, priority => :p));
} ] });
sql($node, qq{
DO \$\$ DECLARE
	l bigint;
	ids bigint[];
BEGIN
	FOR q IN 1 .. $QUEUES LOOP
		SELECT max(lease), array_agg(id) INTO l, ids
			FROM jobq.dequeue('queue ' || q, 10, worker => 'worker ' || q);
		PERFORM jobq.complete_many(ids[1:5], l);
		PERFORM jobq.enqueue('queue ' || q, delay => '1 day');
		COMMIT;
	END LOOP;
END \$\$});
my $live = sql($node, 'SELECT sum(available + scheduled + retryable + running) FROM jobq.queue_stats');
cmp_ok($live, '>', 0.9 * $JOBS, 'the jobs are there');

# Jobs to ask about: first and last ones, running ones, scheduled ones.
my $ids = sql($node, q{SELECT string_agg(id::text, ',') FROM (
	(SELECT id FROM jobq.jobs WHERE state = 'running' LIMIT 100) UNION ALL
	(SELECT id FROM jobq.jobs WHERE state = 'scheduled' LIMIT 100) UNION ALL
	(SELECT id FROM jobq.jobs WHERE state = 'available' ORDER BY id LIMIT 200) UNION ALL
	(SELECT id FROM jobq.jobs WHERE state = 'available' ORDER BY id DESC LIMIT 200)) j});
my $njobs = () = $ids =~ /\d+/g;

my %looks = (
	queue_stats => "SELECT * FROM jobq.queue_stats;\n",
	explain_job => "\\set i random(1, $njobs)\nSELECT * FROM jobq.explain_job(('{$ids}'::bigint[])[:i]);\n",
	metrics => "SELECT jobq.metrics();\n",);

# What it takes a client to ask anything at all is part of it.
sub look
{
	my ($when) = @_;

	foreach my $what (sort keys %looks)
	{
		my @ms = map { $_->[1] } latencies(
			run_bench(
				$node,
				clients => 1,
				transactions => $LOOKS,
				log => 1,
				scripts => { $what => [ 1, $looks{$what} ] }));
		my ($p50, $p99) = (percentile(50, @ms), percentile(99, @ms));

		figure("seeing $live jobs in $QUEUES queues, $when, $what",
			sprintf('p50 %.2f ms', $p50), sprintf('p99 %.2f ms', $p99));
		next if short() || $when ne 'idle';
		cmp_ok($p50, '<', $limit{$what}, "$what: half of them");
		cmp_ok($p99, '<', 2 * $limit{$what}, "$what: nearly all");
	}
	return;
}

look('idle');
my $load = start_bench(
	$node,
	clients => 2,
	seconds => 1_000_000,
	scripts => {
		load => [ 1, qq{\\set q random(1, $QUEUES)
SELECT count(*) AS n, coalesce(max(lease), 0) AS lease,
	coalesce(array_agg(id), '{}')::text AS ids FROM jobq.dequeue('queue ' || :q, 10) \\gset
SELECT count(*) FROM unnest(jobq.complete_many(:ids, :lease));
SELECT count(*) FROM unnest(jobq.enqueue_many('queue ' || :q, array_fill('{}'::jsonb, ARRAY[10])));
} ] });
look('beside a load');
stop_bench($load);
is(conflicts($node), 0, 'no job was about to end twice');

$node->stop;
done_testing();
