# Who waits for a queue with limits is woken when time or a free place makes a
# job takeable, one for each job.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Waiting;

my $node = start_wait_node(
	'limited', 60, q{
SELECT jobq.create_queue('rate', '{"rate_limit": {"limit": 2, "period": "1.5 s"}}');
SELECT jobq.create_queue('active', '{"max_active": 1}');
});

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# ---- time ----

my $JOBS = 6;
my @waiters = map { start_waiting($node,
		q{CALL jobq.receive('rate', 1, '1 min'); SELECT extract(epoch FROM clock_timestamp())})
} 1 .. 15;
await_waiting($node, 15);
my $woken = wakeups($node);
my $start = sql('SELECT extract(epoch FROM clock_timestamp())');
sql(qq{SELECT jobq.enqueue('rate') FROM generate_series(1, $JOBS)});
ok( $node->poll_query_until('postgres',
		qq{SELECT running = $JOBS FROM jobq.queue_stats WHERE queue = 'rate'}),
	'all jobs are delivered, though nothing happens but that time goes by');
cmp_ok(wakeups($node) - $woken, '<=', 3 * $JOBS, 'no herd is woken');
note('wake-ups: ' . (wakeups($node) - $woken));
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL jobq.receive%' AND state = 'active'});
my @times = sort map { finish_waiting($_) =~ /^\[\{.*\n([\d.]+)$/s ? $1 - $start : () } @waiters;
is(scalar @times, $JOBS, 'each to one');
my @early = grep { $times[ $_ + 2 ] - $times[$_] < 1.45 } 0 .. $#times - 2;
is(scalar @early, 0, 'never too early') or diag("@times");
cmp_ok($times[-1], '<', 8, 'and not late') or diag("@times");

# Somebody who only looks learns of it in time.
sql(q{SELECT jobq.create_queue('slow', '{"rate_limit": {"limit": 1, "period": "4 s"}}')});
is(sql(q{SELECT jobq.enqueue('slow') FROM generate_series(1, 2); SELECT count(*) FROM jobq.dequeue('slow', 2)})
	=~ s/.*\n//sr, '1', 'one may be taken');
is(sql(q{CALL jobq.wait_for_jobs('slow', '0.1 s')}), 'f', 'not another');
is(sql(q{CALL jobq.wait_for_jobs('slow', '10 s')}), 't', 'then another one may');
is(sql(q{SELECT count(*) FROM jobq.dequeue('slow')}), '1', 'and can be');

# ---- places ----

# Memory knows the limit once a job has been there.
foreach my $round (1 .. 2)
{
	@waiters = map { start_waiting($node, q{DO $$
DECLARE
	d jsonb;
BEGIN
	CALL jobq.receive('active', 1, '1 min', deliveries => d);
	COMMIT;
	PERFORM pg_sleep(0.1);
	PERFORM jobq.complete((d->0->>'id')::bigint, (d->0->>'lease')::bigint);
END $$}) } 1 .. 8;
	await_waiting($node, 8, 'DO%');
	$woken = wakeups($node);
	sql(q{SELECT jobq.enqueue('active') FROM generate_series(1, 8)});
	is(join('', map { finish_waiting($_) } @waiters), '', 'each has got a job');
	is(sql(q{SELECT completed_total FROM jobq.queue_stats WHERE queue = 'active'}), 8 * $round,
		'one after the other');
	cmp_ok(wakeups($node) - $woken, '<=', $round == 1 ? 18 : 10, 'no herd is woken');
	note('wake-ups: ' . (wakeups($node) - $woken));
}

$node->stop;
done_testing();
