# Limits of a queue, step by step: max_active, rate_limit, max_depth and
# enqueue_limit, over rollback, savepoints, own uncommitted jobs, expired
# leases, cancelling with grace, and a kill -9 of the server.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_audited('limits', $SMALL_EPOCHS, 'CREATE ROLE other');
await_keeper($node);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub fill
{
	my ($queue, $n) = @_;

	sql("INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('$queue',
		array_fill('{}'::jsonb, ARRAY[$n])))");
	return;
}

sub create
{
	my ($queue, $options, $jobs) = @_;

	sql("SELECT jobq.create_queue('$queue', '$options')");
	fill($queue, $jobs) if $jobs;
	return;
}

# How many jobs are to be had.
sub take
{
	my ($queue, $max) = @_;

	return sql("SELECT count(*) FROM jobq.dequeue('$queue', " . ($max // 100) . ')');
}

# One job: its id and lease.
sub one
{
	my ($queue) = @_;

	return split(/\|/, sql("SELECT id, lease FROM jobq.dequeue('$queue')"));
}

sub becomes
{
	my ($sql, $expected, $name) = @_;
	my $last = '';
	my $ok = await(sub { ($last = sql($sql)) eq $expected }, 20);

	diag("$sql: $last, not $expected") unless $ok;
	return ok($ok, $name);
}

# What a statement is refused with: state, detail.
sub refused
{
	my ($statement) = @_;
	my (undef, undef, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n$statement");
	my ($state) = $err =~ /ERROR:\s+(\w{5}):/;
	my ($detail) = $err =~ /DETAIL:\s+(.*)/;

	return ($state // '00000', $detail // '');
}

# ---- max_active ----

create('three', '{"max_active": 3}', 10);
is(take('three'), 3, 'no more than max_active run');
is(take('three'), 0, 'not one more');
my ($id, $lease) =
  split(/\|/, sql(q{SELECT id, l.lease FROM jobq.jobs j, LATERAL
	(SELECT lease FROM jobq.attempts(j.id)) l
	WHERE queue = 'three' AND state = 'running' ORDER BY id LIMIT 1}));
sql("SELECT jobq.complete($id, $lease)");
is(take('three'), 1, 'one has ended, one is taken');

create('one', '{"max_active": 1, "backoff": {"base": 0}, "max_attempts": 100}', 20);
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('SET client_min_messages = error');
is($session->query_safe(q{BEGIN; SELECT count(*) FROM jobq.dequeue('one', 5)}),
	1, 'one in a transaction');
is(take('one'), 0, 'no other while it is open');
$session->query_safe('ROLLBACK');
is(take('one'), 1, 'one again as soon as it is rolled back');
($id, $lease) = (0, 0);
sql(q{SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'one' AND state = 'running'});

is( $session->query_safe(q{BEGIN; SAVEPOINT a;
		SELECT count(*) FROM jobq.dequeue('one');}), 1, 'one in a savepoint');
is( $session->query_safe(q{ROLLBACK TO a;
		SELECT count(*) FROM jobq.dequeue('one');}),
	1, 'its place is free when that is rolled back');
is(take('one'), 0, 'and taken again');
$session->query_safe('COMMIT');
is(take('one'), 0, 'also after the commit');
sql(q{SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'one' AND state = 'running'});

# ---- a place that the transaction itself makes free ----

($id, $lease) = one('one');
my ($next, $next_lease) = split(/\|/,
	sql("SELECT id, lease FROM jobq.complete_and_dequeue('one', '{$id}', $lease)"));
ok($next, 'complete_and_dequeue gets the next job into the same place');
is(take('one'), 0, 'and nobody another one');
is( $session->query_safe("BEGIN; SELECT jobq.complete($next, $next_lease);
		SELECT count(*) FROM jobq.dequeue('one', 5)") =~ s/\s+//gr,
	1, 'one only for the one that ends');
is(take('one'), 0, 'none for others before that commits');
$session->query_safe('ROLLBACK');
is(take('one'), 0, 'nor after it has been rolled back: the first one runs on');
sql("SELECT jobq.complete($next, $next_lease)");
is(take('one'), 1, 'until it ends');
sql(q{SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'one' AND state = 'running'});

# ---- own uncommitted jobs ----

create('own', '{"max_active": 2, "rate_limit": {"limit": 5, "period": "1 day"}}');
is( $session->query_safe(q{BEGIN;
		SELECT count(unnest) FROM unnest(jobq.enqueue_many('own', array_fill('{}'::jsonb, ARRAY[4])));
		SELECT count(*) FROM jobq.dequeue('own', 10);}) =~ s/\s+/ /gr,
	'4 2', 'of its own jobs a transaction gets as many as the limit says');
fill('own', 1);
is(take('own'), 0, 'they count for others');
$session->query_safe('ROLLBACK');
is(take('own'), 1, 'until they are rolled back');
is( $session->query_safe(q{BEGIN;
		SELECT count(unnest) FROM unnest(jobq.enqueue_many('own', array_fill('{}'::jsonb, ARRAY[4])));
		SELECT count(*) FROM jobq.dequeue('own', 10);}) =~ s/\s+/ /gr,
	'4 1', 'one place is taken');
$session->query_safe('COMMIT');
sql("INSERT INTO audit.ledger SELECT id FROM jobq.jobs WHERE queue = 'own'
	AND id NOT IN (SELECT id FROM audit.ledger)");
is(take('own'), 0, 'once committed they run like others');
sql(q{SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'own' AND state = 'running'});
is(take('own'), 1,
	'of the rate, two were rolled back, one was taken, one was own: one is left');

# ---- expired leases, grace ----

create('brief', '{"max_active": 1, "lease_for": "1 s", "backoff": {"base": 0}}', 3);
is(take('brief'), 1, 'one with a short lease');
becomes(q{SELECT count(*) FROM jobq.dequeue('brief', lease_for => '1 h')}, '1',
	'its place is free when the lease has expired');

create('grace', '{"max_active": 1}', 5);
($id, $lease) = one('grace');
sql("SELECT jobq.cancel($id, grace => '1 h')");
is(take('grace'), 0, 'in grace a place is not free');
is(sqlstate($node, "SELECT jobq.extend($id, $lease)"),
	'JQ014', 'until the worker learns it');
is(take('grace'), 1, 'then it is');
sql(q{SELECT jobq.cancel(id, grace => '1 s') FROM jobq.jobs WHERE queue = 'grace' AND state = 'running'});
is(take('grace'), 0, 'taken once more');
becomes(q{SELECT count(*) FROM jobq.dequeue('grace')}, '1',
	'free when grace is over');

# ---- changing it ----

sql(q{SELECT jobq.alter_queue('three', '{"max_active": 1}')});
sql(q{SELECT jobq.cancel(id) FROM (SELECT id FROM jobq.jobs WHERE queue = 'three'
	AND state = 'running' LIMIT 2) x});
is(take('three'), 0, 'as many run as the new limit says');
sql(q{SELECT jobq.alter_queue('three', '{"max_active": null}')});
is(take('three'), 6, 'without a limit there is none');

# ---- rate_limit ----

create('rate', '{"rate_limit": {"limit": 5, "period": "2 s"}, "backoff": {"base": 0}, "max_attempts": 100}', 30);
is(take('rate'), 5, 'the rate of a period');
is(take('rate'), 0, 'no more');
becomes(q{SELECT count(*) FROM jobq.dequeue('rate', 100)}, '5',
	'all of it again, later');
ok( sql(q{SELECT max(started_at) - min(started_at) > '2 s' FROM jobq.jobs j,
		jobq.attempts(j.id) WHERE queue = 'rate'}) eq 't',
	'and not within the period');
becomes(q{BEGIN; SELECT count(*) FROM jobq.dequeue('rate', 3); ROLLBACK}, '3',
	'three in a transaction');
is(take('rate'), 2, 'what was rolled back has been delivered');
create('large', '{"rate_limit": {"limit": 3000, "period": "1 day"}}', 3500);
is(take('large', 10000), 3000, 'a large rate');

# The memory of what was taken comes from one pool, and goes back.
sub places
{
	my ($used) = sql(q{SELECT detail FROM jobq.health() WHERE item = 'rate_limits'})
	  =~ /^(\d+) of \d+ places/;

	return $used;
}

my $places = places();
create('long', '{"rate_limit": {"limit": 1000, "period": "1 day"}}', 100);
sql(q{DO 'BEGIN FOR i IN 1..80 LOOP PERFORM jobq.dequeue(''long''); COMMIT; END LOOP; END'});
is(places(), $places + 3, 'eighty times need three places');
sql(q{SELECT jobq.alter_queue('long', '{"rate_limit": null}')});
is(take('long'), 20, 'no rate any more');
is(places(), $places, 'and no places');

# ---- max_depth ----

create('depth', '{"max_depth": 5, "enqueue_limit": {"limit": 1000, "period": "1 day"}}', 3);
my ($state, $detail) = refused(q{SELECT jobq.enqueue_many('depth', array_fill('{}'::jsonb, ARRAY[3]))});
is($state, 'JQ006', 'a full queue refuses jobs');
is($detail, 'The limit is 5 waiting jobs; 2 remain, 3 were asked for.',
	'and says how many it would take');
$session->query_safe(q{BEGIN; SELECT jobq.enqueue('depth', delay => '1 h')});
is(sqlstate($node, q{SELECT jobq.enqueue_many('depth', array_fill('{}'::jsonb, ARRAY[2]))}),
	'JQ006', 'uncommitted ones count');
$session->query_safe(q{SAVEPOINT a; SELECT jobq.enqueue('depth'); ROLLBACK TO a});
sql(q{INSERT INTO audit.ledger SELECT jobq.enqueue('depth')});
is(sqlstate($node, q{SELECT jobq.enqueue('depth')}), 'JQ006', 'five wait');
$session->query_safe('ROLLBACK');
sql(q{INSERT INTO audit.ledger SELECT jobq.enqueue('depth', delay => '1 h')});
is(sqlstate($node, q{SELECT jobq.enqueue('depth')}), 'JQ006', 'five wait again, one scheduled');
is(take('depth', 1), 1, 'one is taken');
is(sqlstate($node, q{INSERT INTO audit.ledger SELECT jobq.enqueue('depth')}),
	'00000', 'then there is room for one');
is(sqlstate($node, q{SELECT jobq.enqueue('depth')}), 'JQ006', 'and no more');
is(take('depth', 1), 1, 'another one is taken');
sql(q{BEGIN; SELECT jobq.enqueue('depth'); PREPARE TRANSACTION 'p'});
sql(q{COMMIT PREPARED 'p'});
sql(q{INSERT INTO audit.ledger SELECT id FROM jobq.jobs WHERE queue = 'depth'
	AND id NOT IN (SELECT id FROM audit.ledger)});
becomes(q{SELECT available + scheduled FROM jobq.queue_stats WHERE queue = 'depth'},
	'5', 'jobs of a prepared transaction count');
is(sqlstate($node, q{SELECT jobq.enqueue('depth')}), 'JQ006', 'when it has committed');

# ---- enqueue_limit ----

create('slowly', '{"enqueue_limit": {"limit": 3, "period": "60 s"}}', 2);
($state, $detail) = refused(q{SELECT jobq.enqueue_many('slowly', array_fill('{}'::jsonb, ARRAY[2]))});
is($state, 'JQ005', 'too fast');
like($detail, qr/^The limit is 3 jobs in 60 s; 1 remain, 2 were asked for\. Retry after [1-5]\d{4} ms\.$/,
	'limit, what remains and when to try again');
$session->query_safe(q{BEGIN; SAVEPOINT a; SELECT jobq.enqueue('slowly'); ROLLBACK TO a;});
is($session->query_safe(q{SELECT jobq.enqueue('slowly') > 0}), 't', 'a savepoint gives it back');
is(sqlstate($node, q{SELECT jobq.enqueue('slowly')}), 'JQ005', 'uncommitted ones count');
$session->query_safe('ROLLBACK');
sql(q{INSERT INTO audit.ledger SELECT jobq.enqueue('slowly')});
is(sqlstate($node, q{SELECT jobq.enqueue('slowly')}), 'JQ005', 'three in all');
($state, $detail) = refused(q{SELECT jobq.enqueue_many('slowly', array_fill('{}'::jsonb, ARRAY[4]))});
is($state, 'JQ007', 'more than the limit are never taken at once');

create('moment', '{"enqueue_limit": {"limit": 2, "period": "1.5 s"}}', 2);
($state, $detail) = refused(q{SELECT jobq.enqueue('moment')});
my ($ms) = $detail =~ /in 1500 ms; 0 remain, 1 were asked for\. Retry after (\d+) ms/;
ok($ms && $ms <= 1500, 'a short period');
usleep(($ms // 1500) * 1000);
is(sqlstate($node, q{INSERT INTO audit.ledger SELECT jobq.enqueue('moment')}),
	'00000', 'after the time that it named there is room');

create('roles', '{"enqueue_limit": {"limit": 2, "period": "1 h", "per": "role"}}', 2);
sql(q{SELECT jobq.grant_queue('roles', 'other', '{enqueue}')});
is(sqlstate($node, q{SELECT jobq.enqueue('roles')}), 'JQ005', 'a role has had its share');
is(sqlstate($node, q{SET ROLE other; SELECT jobq.enqueue_many('roles', array_fill('{}'::jsonb, ARRAY[2]))}),
	'00000', 'another one has its own');
($state, $detail) = refused(q{SET ROLE other; SELECT jobq.enqueue('roles')});
like($detail, qr/^The limit is 2 jobs in 3600 s per role; 0 remain/, 'and no more');
sql(q{INSERT INTO audit.ledger SELECT id FROM jobq.jobs WHERE queue = 'roles' AND enqueued_by = 'other'});

create('groups', '{"enqueue_limit": {"limit": 1, "period": "1 h", "per": "group"}}');
is(sqlstate($node, "INSERT INTO audit.ledger SELECT jobq.enqueue('groups', group_key => '$_')"),
	'00000', "group $_") foreach (qw(a b c));
is(sqlstate($node, "SELECT jobq.enqueue('groups', group_key => 'b')"), 'JQ005', 'each has one');
is(sqlstate($node, "INSERT INTO audit.ledger SELECT jobq.enqueue('groups')"), '00000', 'none is one, too');
is(sqlstate($node, "SELECT jobq.enqueue('groups')"), 'JQ005', 'and has one');

# More keys than there is memory for: none gets more than its limit.
create('keys', '{"enqueue_limit": {"limit": 2, "period": "1 h", "per": "group"}}');
is(sql(q{DO $$
	DECLARE refused int := 0;
	BEGIN
		FOR i IN 1..3000 LOOP
			BEGIN
				PERFORM jobq.enqueue('keys', group_key => 'k' || i % 1500);
				PERFORM jobq.enqueue('keys', group_key => 'k' || i % 1500);
			EXCEPTION WHEN SQLSTATE 'JQ005' THEN
				refused := refused + 1;
			END;
		END LOOP;
		IF refused < 1500 THEN RAISE EXCEPTION '%', refused; END IF;
	END $$; INSERT INTO audit.ledger SELECT id FROM jobq.jobs WHERE queue = 'keys';
	SELECT max(n) FROM (SELECT count(*) AS n FROM jobq.jobs WHERE queue = 'keys' GROUP BY group_key) x}),
	2, 'very many groups');

# ---- the server is killed ----

create('crash_active', '{"max_active": 3}', 10);
create('crash_grace', '{"max_active": 2}', 10);
create('crash_rate', '{"rate_limit": {"limit": 5, "period": "1 h"}}', 10);
create('crash_enqueue', '{"enqueue_limit": {"limit": 5, "period": "1 h", "per": "role"}}', 3);
sql(q{INSERT INTO audit.ledger SELECT jobq.enqueue('crash_enqueue', delay => '1 h')});
create('crash_depth', '{"max_depth": 5}', 4);
is(take('crash_active', 2), 2, 'two run');
($id, $lease) = one('crash_grace');
sql("SELECT jobq.cancel($id, grace => '1 h')");
is(take('crash_grace', 2), 1, 'one in grace, one runs');
($id, $lease) = one('crash_rate');
sql("SELECT jobq.complete($id, $lease)");
($id, $lease) = one('crash_rate');
sql("SELECT jobq.fail($id, $lease, 'no')");
is(take('crash_rate', 2), 2, 'two ended, two run');
$session->query_safe(q{BEGIN; SELECT jobq.enqueue('crash_depth'); SELECT jobq.enqueue('crash_enqueue');
	SELECT count(*) FROM jobq.dequeue('crash_active')});
kill_server($node);
eval { $session->quit };
$node->start;
await_keeper($node);
is(take('crash_active'), 1, 'after a crash those that run count');
is(take('crash_grace'), 0, 'and those in grace');
is(take('crash_rate'), 1, 'and what was taken');
is(sqlstate($node, q{SELECT jobq.enqueue_many('crash_enqueue', array_fill('{}'::jsonb, ARRAY[2]))}),
	'JQ005', 'and what was enqueued');
is(sqlstate($node, q{INSERT INTO audit.ledger SELECT jobq.enqueue('crash_enqueue')}),
	'00000', 'but not what was not committed');
is(sqlstate($node, q{INSERT INTO audit.ledger SELECT jobq.enqueue('crash_depth')}),
	'00000', 'there is room for one');
is(sqlstate($node, q{SELECT jobq.enqueue('crash_depth')}), 'JQ006', 'and for no more');

# ---- what a limit needs to know is not dropped ----

sql(q{SELECT jobq.create_queue('gone', '{"retention": 0, "rate_limit": {"limit": 1000, "period": "1 h"}}')});
my $epoch = sql(q{SELECT max(epoch) FROM jobq.epoch JOIN jobq.queue USING (class) WHERE queue = 'gone'});
sql(q{SELECT jobq.enqueue_many('gone', array_fill('{}'::jsonb, ARRAY[150]))});
sql(q{SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('gone', 1000)});
becomes("SELECT drained_at IS NOT NULL FROM jobq.epoch WHERE epoch = $epoch", 't',
	'all jobs of an epoch have ended');
sql('SELECT jobq.run_maintenance()') for 1 .. 2;
is(sql("SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch"), 1,
	'it stays as long as a rate needs it, though there is no retention');
$node->restart;
await_keeper($node);
fill('gone', 1000);
is(take('gone', 2000), 850, 'so that it counts after a restart');
sql(q{SELECT jobq.alter_queue(queue, '{"rate_limit": null, "enqueue_limit": null}') FROM jobq.queues});
becomes("SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch", '0', 'without it, it goes');

audit_ok($node, 'at the end');
done_testing();
