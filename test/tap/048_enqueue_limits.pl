# max_depth and enqueue_limit by role: exact for sixteen sessions that commit,
# roll back, go back to savepoints, cancel, purge, are killed; all that they allow
# can be used in the end. Jobs of prepared transactions count all the time, also
# over a crash.
#
# JOBQ_SECONDS: how long each case takes.
use strict;
use warnings;

use JobqTest;
use LimitLoad;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $SECONDS = $ENV{JOBQ_SECONDS} || 2;
my $node = start_limits('enqueue');

sub enqueue_state
{
	my ($queue, $n) = @_;

	return sqlstate($node, qq{INSERT INTO audit.ledger SELECT unnest(
		jobq.enqueue_many('$queue', array_fill('{}'::jsonb, ARRAY[$n])))});
}

# How many more jobs may be enqueued, by asking.
sub fits_exactly
{
	my ($queue, $n, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(enqueue_state($queue, $n), '00000', "$name: there is room for $n");
	is(enqueue_state($queue, 1), 'JQ006', "$name: and for no more");
	return;
}

# ---- enqueue_limit by role ----

sql(q{CREATE ROLE maker_1; CREATE ROLE maker_2;
	GRANT USAGE ON SCHEMA audit TO maker_1, maker_2;
	GRANT INSERT ON audit.ledger TO maker_1, maker_2});
create('roles', '"enqueue_limit": {"limit": 20, "period": "300 ms", "per": "role"}');
sql("SELECT jobq.grant_queue('roles', 'maker_$_', '{enqueue}')") foreach (1, 2);
my $produce = "\\set r random(1, 2)\nSET ROLE maker_:r;\nCALL produce('roles');\nRESET ROLE;";

sub roles_too_fast
{
	my ($period) = @_;

	return sql(qq{SELECT count(*) FILTER (WHERE later - at <= '$period'), count(DISTINCT role), count(*) > 60
		FROM (SELECT enqueued_by AS role, enqueued_at AS at, lead(enqueued_at, 20) OVER
			(PARTITION BY enqueued_by ORDER BY enqueued_at) AS later
		 FROM jobq.jobs WHERE queue = 'roles') x});
}

load($SECONDS, $produce);
is(roles_too_fast('300 ms'), '0|2|t', 'no role enqueues faster than it may');
load_and_crash($SECONDS, $produce);
load(1, $produce);
is(roles_too_fast('300 ms'), '0|2|t', 'nor over a crash');
usleep(400_000);
foreach my $role ('maker_1', 'maker_2')
{
	my $waiting = q{SELECT available + scheduled FROM jobq.queue_stats WHERE queue = 'roles'};
	my $before = sql($waiting);

	is(sqlstate($node, qq{SET ROLE $role; INSERT INTO audit.ledger SELECT unnest(
			jobq.enqueue_many('roles', array_fill('{}'::jsonb, ARRAY[20])));
		SELECT jobq.enqueue('roles')}), 'JQ005', "then $role may no more than ever");
	is(sql($waiting) - $before, 20, 'but as much');
}

# ---- max_depth ----

# Nothing comes back here: that would go beyond it.
my @all = map { "CALL $_('depth');" } ('produce', 'produce', 'cancel_some', 'purge', 'finish');

create('depth', '"max_depth": 30', 20);
load($SECONDS, @all);
ok(await_idle('depth'), 'all is quiet');
my $most = most_waiting('depth');
cmp_ok($most, '<=', 30, 'never more than max_depth wait');
cmp_ok($most, '>=', 28, 'but nearly as many');
load($SECONDS, @all[ 0 .. 3 ]);
ok(await_idle('depth'), 'all is quiet again');
is(most_waiting('depth') <= 30, 1, 'nor when jobs are only cancelled');
load_and_crash($SECONDS, @all[ 0 .. 3 ]);
load(1, @all);
ok(await_idle('depth'), 'all is quiet after a crash');
sql(q{SELECT jobq.purge_queue('depth')});
fits_exactly('depth', 30, 'after all that');

create('full', '"max_depth": 50', 10);
load(1, "CALL produce('full');");
is(sql(q{SELECT available + scheduled FROM jobq.queue_stats WHERE queue = 'full'}), 50,
	'without anybody who takes them exactly as many as may');

# ---- prepared transactions ----

my $FIVE = q{SELECT jobq.enqueue('%1$s', delay => '1 h'); SAVEPOINT a;
	SELECT jobq.enqueue('%1$s'); SAVEPOINT b; SELECT jobq.enqueue('%1$s', delay => '1 h');
	RELEASE b; RELEASE a; SELECT jobq.enqueue_many('%1$s', '{"{}","{}"}'::jsonb[]);};

sub prepare
{
	my ($queue, $name) = @_;
	my $five = sprintf($FIVE, $queue);

	return sqlstate($node, "BEGIN; $five PREPARE TRANSACTION '$name'");
}

create('prepared', '"max_depth": 12', 1);
is(prepare('prepared', 'one'), '00000', 'five jobs are prepared');
is(enqueue_state('prepared', 7), 'JQ006', 'they count');
sql(q{ROLLBACK PREPARED 'one'});
ok(await(sub { enqueue_state('prepared', 7) eq '00000' }, 10), 'until they are rolled back');
sql(q{SELECT jobq.purge_queue('prepared')});
is(prepare('prepared', 'two'), '00000', 'five once more');
is(prepare('prepared', 'two'), '42710', 'a name that is taken');
ok(await(sub { enqueue_state('prepared', 7) eq '00000' }, 10), 'what could not be prepared is given back');
is(enqueue_state('prepared', 1), 'JQ006', 'what could be is not');

create('rate', '"enqueue_limit": {"limit": 8, "period": "1 h"}', 1);
is(prepare('rate', 'three'), '00000', 'five with a rate');
is(enqueue_state('rate', 3), 'JQ005', 'they count');
create('other', '"max_depth": 8', 1);
is(prepare('other', 'four'), '00000', 'and five in another queue');

kill_server($node);
$node->start;
await_keeper($node);
is(enqueue_state('prepared', 1), 'JQ006', 'after a crash they count');
is(enqueue_state('rate', 3), 'JQ005', 'in the rate, too');
is(enqueue_state('rate', 2), '00000', 'and no more than they are');
is(enqueue_state('other', 3), 'JQ006', 'and in the other queue');
fits_exactly('other', 2, 'no more than they are');
sql(q{COMMIT PREPARED 'two'});
sql(q{ROLLBACK PREPARED 'four'});
ok(await(sub { sql(q{SELECT available || ' ' || scheduled FROM jobq.queue_stats WHERE queue = 'prepared'})
			eq '10 2' }), 'they are there when they are committed');
sql(q{COMMIT PREPARED 'three'});
is(enqueue_state('prepared', 1), 'JQ006', 'and count as before');
ok(await(sub { enqueue_state('other', 5) eq '00000' }, 10), 'those that are rolled back do not');
is(enqueue_state('other', 1), 'JQ006', 'and no others');
ok(await(sub { sql(q{SELECT available || ' ' || scheduled FROM jobq.queue_stats WHERE queue = 'rate'})
			eq '6 2' }), 'those with the rate are there');
sql(q{INSERT INTO audit.ledger SELECT id FROM jobq.jobs WHERE id NOT IN (SELECT id FROM audit.ledger)});
is(take('prepared'), 10, 'they can be taken');
is(enqueue_state('prepared', 10), '00000', 'which makes room');
is(enqueue_state('prepared', 1), 'JQ006', 'for as many');

sql("SELECT jobq.create_queue('many_$_', '{\"max_depth\": 10}')") foreach (1 .. 9);
is( sqlstate($node, q{BEGIN; SELECT jobq.enqueue('many_' || n) FROM generate_series(1, 9) n;
	PREPARE TRANSACTION 'many'}),
	'53400', 'what cannot be remembered is not prepared');
ok(await(sub { enqueue_state('many_1', 10) eq '00000' }, 10), 'nor is its room lost');

audit_ok($node, 'at the end');
done_testing();
