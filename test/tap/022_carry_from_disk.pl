# The last live jobs of an old epoch are behind their queue's frontier, on disk
# only: they are carried all the same, so that the epoch can go, and nothing
# of their order is lost.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node(
	'disk', q{
jobq.max_live_jobs = 100
jobq.epoch_rows = 8000
});

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub drain
{
	my ($left) = @_;

	ok( await(
			sub {
				sql(q{SELECT count(jobq.complete(id, lease))
					FROM jobq.dequeue('q', 2000) WHERE priority = 0});
				return sql(q{SELECT count(*) FROM jobq.jobs}) <= $left;
			}),
		'the others can be done');
	return;
}

sql(q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('q', '{"retention": "1 s", "lease_for": "1 hour"}');
});
my $first = sql(q{SELECT epoch FROM jobq.epoch e JOIN jobq.queue q USING (class)
	WHERE queue = 'q' AND closed_at IS NULL});
sql(q{SELECT count(*) FROM jobq.enqueue_many('q', array_fill('{}'::jsonb, '{300}'), priority => 50)});
sql(q{SELECT count(*) FROM jobq.enqueue_many('q', array_fill('{}'::jsonb, '{7800}'), priority => 0)});
my $want = sql(q{SELECT string_agg(id::text, ',' ORDER BY run_at, id) FROM jobq.jobs
	WHERE priority = 50});
drain(300);
is(sql(q{SELECT available FROM jobq.queue_stats WHERE queue = 'q'}), 300, 'those with low priority are left');
ok( await(sub { sql("SELECT count(*) FROM jobq.epoch WHERE epoch = $first") eq '0' }),
	'their epoch goes');
is(sql(q{SELECT available FROM jobq.queue_stats WHERE queue = 'q'}), 300, 'they do not');
my $got = '';
foreach (1 .. 6)
{
	$got .= ($got eq '' ? '' : ',') . sql(q{SELECT string_agg(id::text, ',')
		FROM (SELECT id, jobq.complete(id, lease) FROM jobq.dequeue('q', 50)) j});
}
is($got, $want, 'they come in their order');
is(sql(q{SELECT count(*) FROM jobq.jobs}), 0, 'each of them once');
is(conflicts_logged($node), 0, 'the unique index has saved nobody');
unlike(slurp_file($node->logfile), qr/is not where it should be|PANIC:|TRAP:|ERROR:/,
	'no surprise in the log');
$node->stop;
done_testing();
