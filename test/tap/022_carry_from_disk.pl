# The last live jobs of an old epoch are behind their queue's frontier, on disk
# only: they are carried all the same, so that the epoch can go, and nothing
# of their order is lost, also in a crash. Those that have expired end.
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

# Do just so many jobs.
sub drain
{
	my ($queue, $left) = @_;

	ok( await(
			sub {
				$left -= sql("SELECT count(jobq.complete(id, lease))
					FROM jobq.dequeue('$queue', $left)");
				return $left == 0;
			}),
		'the others can be done');
	return;
}

sub open_epoch
{
	my ($queue) = @_;

	return sql("SELECT epoch FROM jobq.epoch JOIN jobq.queue q USING (class)
		WHERE queue = '$queue' AND closed_at IS NULL");
}

sub gone
{
	my ($epoch) = @_;

	return ok(
		await(sub { sql("SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch") eq '0' }),
		'their epoch goes');
}

sql(q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('q', '{"retention": "1 s", "lease_for": "1 hour"}');
});
test_functions($node);
my $first = open_epoch('q');
sql(q{SELECT count(*) FROM jobq.enqueue_many('q', array_fill('{}'::jsonb, '{300}'), priority => 50)});
sql(q{SELECT count(*) FROM jobq.enqueue_many('q', array_fill('{}'::jsonb, '{7800}'), priority => 0)});
my $want = sql(q{SELECT string_agg(id::text, ',' ORDER BY run_at, id) FROM jobq.jobs
	WHERE priority = 50});
sql("SELECT pause_at('inside-disk-carry')");
drain('q', 7800);
is(sql(q{SELECT available FROM jobq.queue_stats WHERE queue = 'q'}), 300, 'those with low priority are left');
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'they are being carried');
kill_server($node, children => 1);
$node->start;
ok(await_keeper($node), 'up again after a crash');
gone($first);
is(sql(q{SELECT available FROM jobq.queue_stats WHERE queue = 'q'}), 300, 'they do not');
my @got;
ok( await(
		sub {
			push @got, split(/\n/, sql(q{SELECT id
				FROM (SELECT id, jobq.complete(id, lease) FROM jobq.dequeue('q', 50)) j}));
			return @got >= 300;
		}),
	'all can be done');
is(join(',', @got), $want, 'they come in their order');
is(sql(q{SELECT count(*) FROM jobq.jobs}), 0, 'each of them once');

# ---- expired ----

# Carried not before they have expired; other jobs keep them out of memory.
sql(q{SELECT jobq.create_queue('e', '{"retention": "5 s"}')});
my $second = open_epoch('e');
sql(q{SELECT count(*) FROM jobq.enqueue_many('e', array_fill('{}'::jsonb, '{200}'),
	priority => 50, expires_at => clock_timestamp() + interval '4 s')});
sql(q{SELECT count(*) FROM jobq.enqueue_many('e', array_fill('{}'::jsonb, '{7800}'))});
ok(await(sub { open_epoch('e') ne $second }), 'another epoch is open');
sql(q{SELECT count(*) FROM jobq.enqueue_many('e', array_fill('{}'::jsonb, '{500}'), priority => 10)});
drain('e', 7800);
gone($second);
is(sql(q{SELECT available || ' ' || expired_total FROM jobq.queue_stats WHERE queue = 'e'}),
	'500 200', 'those that have expired end there');
is(conflicts_logged($node), 0, 'the unique index has saved nobody');
unlike(slurp_file($node->logfile), qr/is not where it should be|PANIC:|TRAP:|ERROR:/,
	'no surprise in the log');
$node->stop;
done_testing();
