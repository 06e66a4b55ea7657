# Fair queues: the groups take turns, whatever the backlog of one of them; what
# alter_group() says of single groups; and blocked jobs cost the others nothing.
# JOBQ_FAIR_BACKLOG and JOBQ_BLOCKED_JOBS scale it.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $BACKLOG = $ENV{JOBQ_FAIR_BACKLOG} // 5000;
my $BLOCKED = $ENV{JOBQ_BLOCKED_JOBS} // 10000;
my $KEYS = 10;
my $WORKERS = 4;

my $node = start_audited('fair', 'jobq.max_live_jobs = '
	  . (($BACKLOG > $BLOCKED ? $BACKLOG : $BLOCKED) * 3 + 10000));

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub enqueue
{
	my ($queue, $n, $key) = @_;
	my $group = defined $key ? "'$key'" : 'NULL';

	sql(qq{INSERT INTO audit.ledger SELECT jobq.enqueue('$queue', group_key => $group)
		FROM generate_series(1, $n)});
	return;
}

# The keys of the next n deliveries, one call each.
sub deliver
{
	my ($queue, $n) = @_;

	return sql(qq{SELECT string_agg(coalesce(d.group_key, '-'), '')
		FROM generate_series(1, $n) i, LATERAL
			(SELECT * FROM jobq.dequeue('$queue', 1, lease_for => interval '1 hour' + i * interval '1 s')) d});
}

# ---- turns ----

sql(q{SELECT jobq.create_queue('f', '{"ordering": "fair"}')});
enqueue('f', 6, 'a');
enqueue('f', 2, 'b');
enqueue('f', 2);
my $turns = deliver('f', 6);
is(join('', sort(split(//, substr($turns, 0, 3)))),
	'-ab', 'groups take turns, and so do jobs without a key');
is(substr($turns, 3), substr($turns, 0, 3), 'always the same ones');
is(deliver('f', 5), 'aaaa', 'and who is alone has all turns');
enqueue('f', 3, 'a');
is(sql(q{SELECT string_agg(group_key, '') FROM jobq.dequeue('f', 2)}), 'aa', 'a batch too');
enqueue('f', 2, 'c');
is(deliver('f', 3), 'acc', 'a new one has its turn within one round');
enqueue('f', 6, 'a');
enqueue('f', 6, 'b');
sql(q{SELECT jobq.alter_group('f', 'a', '{"weight": 2}')});
like(deliver('f', 9), qr/aabaab/, 'twice as many jobs a turn');
sql(q{SELECT jobq.alter_queue('f', '{"ordering": "priority"}')});
like(deliver('f', 3), qr/^(.)\1\1$/, 'no turns any more');
audit_ok($node, 'turns');

# ---- a large backlog of one tenant ----

sql(q{SELECT jobq.create_queue('t', '{"ordering": "fair"}')});
enqueue('t', $BACKLOG, 'A');
enqueue('t', 50, "k$_") foreach (3 .. $KEYS);
deliver('t', 7);
enqueue('t', 1, 'B');
my $until_b = index(deliver('t', $KEYS + $WORKERS) =~ s/k\d+/k/gr, 'B') + 1;
cmp_ok($until_b, '>', 0, "B has its turn within keys and workers");
cmp_ok($until_b, '<=', $KEYS + $WORKERS, 'as promised');
note("figure: B runs as delivery $until_b behind $BACKLOG jobs of A, $KEYS keys");

# ---- turns are exact for many at once ----

# So many workers take one job after the other, each in a transaction of its own;
# lease numbers say in which order.
sub take_at_once
{
	my ($queue, $n) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir . '/take.sql';

	append_to_file($file, qq{INSERT INTO took SELECT d.lease, d.group_key
		FROM jobq.dequeue('$queue', 1, lease_for => '1 hour') d;\n});
	my ($out, $err);
	IPC::Run::run([ 'pgbench', '-n', '-c', $WORKERS, '-j', 2, '-t', $n / $WORKERS, '-f', $file,
			$node->connstr('postgres') ], '>', \$out, '2>', \$err)
	  or die $err;
	return;
}

# How much more one group has had than another one at most, at any time; while
# several workers hold jobs, each of them may be one ahead of another.
sub uneven
{
	return sql(q{SELECT max(most - least) FROM (SELECT max(n) AS most, min(n) AS least
		FROM (SELECT t.at, k.key, count(*) FILTER (WHERE o.key = k.key) AS n
			FROM (SELECT row_number() OVER (ORDER BY lease) AS at FROM took) t
			JOIN (SELECT row_number() OVER (ORDER BY lease) AS at, key FROM took) o ON o.at <= t.at
			CROSS JOIN (SELECT DISTINCT key FROM took) k GROUP BY 1, 2) c GROUP BY at) x});
}

sql(q{SELECT jobq.create_queue('c', '{"ordering": "fair"}'); CREATE TABLE took (lease bigint, key text)});
enqueue('c', $_ * 100, "k$_") foreach (1 .. 5);
take_at_once('c', 200);
is(sql('SELECT count(DISTINCT lease) FROM took'), 200, "$WORKERS workers take jobs");
is(sql('SELECT string_agg(n::text, $$ $$) FROM (SELECT count(*) AS n FROM took GROUP BY key) x'),
	'40 40 40 40 40', 'every group has had as much');
cmp_ok(uneven(), '<=', 1 + $WORKERS, 'at any time');
audit_ok($node, 'turns at once');

# ---- blocked jobs ----

# Seconds for so many deliveries, each completed.
sub seconds
{
	my ($queue, $n) = @_;
	my $begun = time();

	sql(qq{SELECT count(jobq.complete(d.id, d.lease)) FROM generate_series(1, $n) i,
		LATERAL (SELECT * FROM jobq.dequeue('$queue', 1,
			lease_for => interval '1 hour' + i * interval '1 s')) d});
	return time() - $begun;
}

sql(q{SELECT jobq.create_queue('b', '{"group_limit": 1}'),
	jobq.create_queue('free', '{"group_limit": 1}')});
enqueue('b', $BLOCKED, 'busy');
foreach my $queue ('b', 'free')
{
	sql(qq{INSERT INTO audit.ledger SELECT jobq.enqueue('$queue', group_key => 'g' || i)
		FROM generate_series(1, 600) i});
}
is(deliver('b', 1), 'busy', 'one runs, and the rest of its group is blocked');
is(sql(q{SELECT available || ' ' || blocked || ' ' || running FROM jobq.groups
	WHERE queue = 'b' AND group_key = 'busy'}), '0 ' . ($BLOCKED - 1) . ' 1',
	'as view groups says');
seconds($_, 100) foreach ('b', 'free');
my ($best_b, $best_free) = (1000, 1000);
foreach my $round (1 .. 5)
{
	my ($b, $free) = (seconds('b', 100), seconds('free', 100));

	$best_b = $b if $b < $best_b;
	$best_free = $free if $free < $best_free;
}
note(sprintf('figure: 100 deliveries behind %d blocked jobs %.3f s, without %.3f s',
	$BLOCKED, $best_b, $best_free));
cmp_ok($best_b, '<', 3 * $best_free + 0.02, 'they do not slow the others');
audit_ok($node, 'blocked jobs');

# ---- what is different about one group ----

sql(q{SELECT jobq.create_queue('g', '{"group_limit": 1, "group_on_retry": "skip"}')});
enqueue('g', 5, 'x');
enqueue('g', 5, 'y');
sql(q{SELECT jobq.alter_group('g', 'x', '{"limit": 3}'), jobq.alter_group('g', 'x', '{"weight": 2}')});
is(deliver('g', 9), 'xxxy', 'a limit of its own, which a statement may set with others');
sql(q{SELECT jobq.alter_group('g', 'x', '{"limit": null, "weight": null}')});
is(sql('SELECT count(*) FROM jobq.queue_group'), 1, 'only the weight is left in the table');
sql(q{SELECT jobq.complete(j.id, a.lease) FROM jobq.jobs j, jobq.attempts(j.id) a
	WHERE j.queue = 'g' AND j.state = 'running'});
sql(q{SELECT jobq.alter_group('g', 'y', '{"paused_until": "2999-01-01T00:00:00Z"}')});
is(deliver('g', 9), 'x', 'and a pause');
is(sql(q{SELECT count(*) FROM jobq.jobs WHERE queue = 'g' AND group_key = 'y'
	AND state <> 'available'}), 0, 'its jobs stay available');
sql(q{BEGIN; SELECT jobq.alter_group('g', 'y', '{"paused_until": null}'); ROLLBACK});
is(deliver('g', 9) // '', '', 'what is rolled back did not happen');
$node->restart;
await_keeper($node);
is(deliver('g', 9) // '', '', 'a restart does not end it');
sql(q{SELECT jobq.alter_group('g', 'y', jsonb_build_object('paused_until',
	clock_timestamp() + interval '4 s'))});
is(deliver('g', 9) // '', '', 'not before its time');
ok(await(sub { (deliver('g', 9) // '') eq 'y' }, 10), 'but then');
is(sql(q{SELECT count(*) FROM jobq.queue_group}), 2, 'rows stay');
sql(q{SELECT jobq.drop_queue('g', true), jobq.drop_queue('f', true)});
is(sql(q{SELECT count(*) FROM jobq.queue_group}), 0, 'until their queue goes');
audit_ok($node, 'altered groups');

# ---- so many in any period ----

sql(q{SELECT jobq.create_queue('r', '{"group_rate_limit": {"limit": 2, "period": "1 s"}}')});
sql(q{CREATE TABLE taken (key text, at timestamptz)});
enqueue('r', 6, 'x');
enqueue('r', 3, 'y');
enqueue('r', 2);
is(sql(q{SELECT string_agg(coalesce(group_key, '-'), '') FROM jobq.dequeue('r', 20)}),
	'xxyy--', 'two of each key at once');
ok( await(
		sub {
			sql(q{INSERT INTO taken SELECT group_key, clock_timestamp()
				FROM jobq.dequeue('r', 20)});
			return sql('SELECT count(*) FROM taken') == 5;
		}),
	'the others later');
is( sql(q{SELECT count(*) FROM taken a WHERE (SELECT count(*) FROM taken b
	WHERE b.key = a.key AND b.at BETWEEN a.at AND a.at + interval '0.9 s') > 2}),
	0, 'never more than two');
audit_ok($node, 'rates');

sql(q{SELECT jobq.create_queue('rr', '{"group_rate_limit": {"limit": 2, "period": "1 h"}}')});
enqueue('rr', 6, 'x');
enqueue('rr', 6, 'y');
sql(q{SELECT jobq.complete(id, lease) FROM jobq.dequeue('rr', 1)});
is(sql(q{SELECT count(*) FROM jobq.dequeue('rr', 1)}), 1, 'one done, one runs');
kill_server($node);
$node->start;
await_keeper($node);
is(sql(q{SELECT string_agg(group_key, '') FROM jobq.dequeue('rr', 20)}), 'yy',
	'both count after a crash');

# ---- turns go on ----

sql('TRUNCATE took');
take_at_once('c', 100);
is(sql('SELECT string_agg(n::text, $$ $$) FROM (SELECT count(*) AS n FROM took GROUP BY key) x'),
	'20 20 20 20 20', 'groups take turns after a crash');
cmp_ok(uneven(), '<=', 1 + $WORKERS, 'at any time');
audit_ok($node, 'in the end');

$node->stop;
done_testing();
