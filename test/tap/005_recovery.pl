# Jobs in every state come through a clean restart, the crash of a backend, an
# immediate stop and kill -9; leases go on. Runs that die are counted, however
# they die, so that no job runs for ever.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_audited('recovery');

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub enqueue
{
	my ($arguments) = @_;

	return sql("INSERT INTO audit.ledger SELECT jobq.enqueue($arguments) RETURNING id");
}

# Durably; returns id and lease.
sub dequeue
{
	my ($queue) = @_;

	return split(/\|/,
		sql("SET jobq.claim_durability = on; SELECT id, lease FROM jobq.dequeue('$queue', worker => 'w')"));
}

sub state_of
{
	my ($id) = @_;

	return sql("SELECT state FROM jobq.job($id)");
}

sub reaches
{
	my ($id, $state, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(await(sub { state_of($id) eq $state }, 30), $name)
	  || diag('it is ' . state_of($id));
}

sub attempts_of
{
	my ($id) = @_;

	return sql("SELECT string_agg(coalesce(outcome, 'running'), ' ' ORDER BY started_at)
		FROM jobq.attempts($id)");
}

# ---- every state ----

sql(q{
SELECT jobq.create_queue('r', '{"lease_for": "1 hour", "backoff": {"base": "1 h"}}');
SELECT jobq.create_queue('rd', '{"lease_for": "1 hour", "dead_letter": "rd_dead"}');
});
my (%id, %lease);
foreach my $name (qw(retryable running extended progress completed dead grace
	rescheduled released))
{
	$id{$name} = enqueue("'r', '{\"is\": \"$name\"}'");
	my ($got, $lease) = dequeue('r');
	is($got, $id{$name}, "$name: dequeued");
	$lease{$name} = $lease;
	next if $name ne 'released';
	sql("SELECT jobq.release($got, $lease)");
}
sql("SELECT jobq.fail($id{retryable}, $lease{retryable}, 'not yet')");
sql("SELECT jobq.extend($id{extended}, $lease{extended}, '2 h')");
sql(qq{SELECT jobq.extend($id{progress}, $lease{progress}, progress => '{"n": 1}')});
sql("SELECT jobq.complete($id{completed}, $lease{completed}, '[1]')");
sql("SELECT jobq.fail($id{dead}, $lease{dead}, 'never', retry => false)");
sql("SELECT jobq.cancel($id{grace}, 'stop', '1 h')");
sql("SELECT jobq.release($id{rescheduled}, $lease{rescheduled})");
sql("SELECT jobq.reschedule($id{rescheduled}, now() + interval '1 day', 7)");
$id{lettered} = enqueue("'rd'");
(undef, $lease{lettered}) = dequeue('rd');
sql("SELECT jobq.fail($id{lettered}, $lease{lettered}, 'bad', retry => false)");
$id{available} = enqueue("'r', priority => -5");
$id{scheduled} = enqueue("'r', delay => '1 h'");
$id{cancelled} = enqueue("'r'");
sql("SELECT jobq.cancel($id{cancelled})");
# a batch of which one is settled
my @batch = map { enqueue("'rd', priority => $_") } 1 .. 3;
my $batch_lease =
  sql("SELECT max(lease) FROM jobq.dequeue('rd', 3)");
sql("SELECT jobq.complete($batch[1], $batch_lease)");

my $states = q{
SELECT id, queue, state, is_final, priority, run_at, attempt, max_attempts,
	enqueued_at, worker, lease_expires_at, finished_at, last_error, progress,
	moved_to, result, payload, headers
FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j ORDER BY id;
SELECT queue, available, scheduled, blocked, retryable, running,
	completed_total, failed_total, dead_total, cancelled_total, expired_total
FROM jobq.queue_stats ORDER BY queue;
SELECT id, a.* FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j,
	jobq.attempts(id) a ORDER BY id, started_at;
SELECT p.id FROM jobq.peek('r', 100) p};
my $before = sql($states);
my %expected = (
	retryable => 'retryable', running => 'running', extended => 'running',
	progress => 'running', completed => 'completed', dead => 'dead',
	grace => 'cancelled', rescheduled => 'scheduled', released => 'available',
	lettered => 'dead', available => 'available', scheduled => 'scheduled',
	cancelled => 'cancelled');
is(state_of($id{$_}), $expected{$_}, "$_ is $expected{$_}")
  for sort keys %expected;

my %ways = (
	'1 clean restart' => sub { $node->restart },
	'2 crash of a backend' => sub {
		my $victim = $node->background_psql('postgres', on_error_stop => 0);
		my $pid = $victim->query_safe('SELECT pg_backend_pid()');
		kill_backend($node, $pid);
		eval { $victim->quit };
	},
	'3 immediate stop' => sub { $node->stop('immediate'); $node->start },
	'4 kill -9' => sub { kill_server($node); $node->start },
	'5 death of the keeper' => sub {
		my $old = sql(q{SELECT pid FROM pg_stat_activity
			WHERE backend_type = 'pg_jobq keeper'});
		sql("SELECT pg_terminate_backend($old)");
		$node->poll_query_until('postgres', "SELECT count(*) = 1
			FROM pg_stat_activity
			WHERE backend_type = 'pg_jobq keeper' AND pid <> $old");
	},
	'6 clean restart after a crash' => sub { $node->restart });
foreach my $way (sort keys %ways)
{
	# What is not flushed is allowed to be lost, but that is not the question.
	sql('CHECKPOINT');
	$ways{$way}->();
	ok(await_keeper($node), "$way: the queue is back");
	is(sql($states), $before, "$way: all jobs are as they were");
	audit_ok($node, $way);
}

foreach my $name (qw(running extended progress))
{
	is( sqlstate($node, "SELECT jobq.complete($id{$name}, $lease{$name})"),
		'00000', "$name: the lease is good for completing");
	is( sqlstate($node, "SELECT jobq.complete($id{$name}, $lease{$name})"),
		'JQ015', "$name: once");
}
is(sqlstate($node, "SELECT jobq.complete($batch[0], $batch_lease)"),
	'00000', 'batch: the first can be completed');
is(sqlstate($node, "SELECT jobq.complete($batch[1], $batch_lease)"),
	'JQ015', 'batch: the second is completed');
is(sqlstate($node, "SELECT jobq.release($batch[2], $batch_lease)"),
	'00000', 'batch: the third can be released');
is(sqlstate($node, "SELECT jobq.extend($id{grace}, $lease{grace})"),
	'JQ014', 'grace: its worker learns that it is cancelled');
is(sqlstate($node, "SELECT jobq.complete($id{$_}, $lease{$_})"),
	'JQ015', "$_: the old lease has been used")
  for qw(retryable completed dead released);
audit_ok($node, 'after completing');

# ---- workers that die ----

sql(q{
SELECT jobq.create_queue('mortal', '{"lease_for": "1 s", "max_attempts": 3,
	"backoff": {"base": "0 s"}, "dead_letter": "graves"}');
SELECT jobq.create_queue('lonely', '{"lease_for": "1 s", "max_attempts": 2,
	"backoff": {"base": "0 s"}}');
SELECT jobq.create_queue('again', '{"lease_for": "1 hour", "max_attempts": 3,
	"backoff": {"base": "1 s", "jitter": 0}}');
});

my $job = enqueue("'mortal'");
foreach my $run (1 .. 3)
{
	ok(await(sub { (dequeue('mortal'))[0] ? 1 : 0 }, 30),
		"expiry: run $run is handed out");
}
reaches($job, 'dead', 'expiry: dead after max_attempts');
is(attempts_of($job), 'lease_expired lease_expired lease_expired',
	'expiry: each run counts');
my $copy = sql("SELECT moved_to FROM jobq.job($job)");
is( sql("SELECT queue, state, headers->'dead_letter'->>'id' FROM jobq.job($copy)"),
	"graves|available|$job", 'expiry: in the dead-letter queue');
is(sql("SELECT count(*) FROM jobq.dequeue('mortal')"), '0',
	'expiry: and not delivered any more');

my $lonely = enqueue("'lonely'");
foreach my $run (1 .. 2)
{
	await(sub { (dequeue('lonely'))[0] ? 1 : 0 }, 30);
}
reaches($lonely, 'dead', 'expiry without a dead-letter queue: dead');
is( sql("SELECT count(*) FROM jobq.dead_jobs WHERE id = $lonely"),
	'1', 'and seen among dead_jobs');

# Ways in which a dequeue is undone; each takes a session.
my %undo = (
	'ROLLBACK' => sub {
		my ($queue) = @_;

		return sql("BEGIN; SELECT id FROM jobq.dequeue('$queue'); ROLLBACK");
	},
	'ROLLBACK TO' => sub {
		my ($queue) = @_;

		return sql("BEGIN; SAVEPOINT s; SELECT id FROM jobq.dequeue('$queue');
			ROLLBACK TO s; COMMIT");
	},
	'a terminated backend' => sub {
		my ($queue) = @_;
		my $victim = $node->background_psql('postgres', on_error_stop => 0);
		my $pid = $victim->query_safe('SELECT pg_backend_pid()');
		my $id =
		  $victim->query_safe("BEGIN; SELECT id FROM jobq.dequeue('$queue')");

		sql("SELECT pg_terminate_backend($pid)");
		$node->poll_query_until('postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
		eval { $victim->quit };
		return $id;
	},);

foreach my $how (sort keys %undo)
{
	$job = enqueue("'again'");
	foreach my $run (1 .. 3)
	{
		my $got;

		ok( await(sub { ($got = $undo{$how}->('again')) ne '' }, 30),
			"$how: run $run");
		is($got, $job, "$how: run $run is of the same job");
		last if $run == 3;
		reaches($job, 'retryable', "$how: after run $run it waits");
		is( sql("SELECT run_at > clock_timestamp() - interval '1 s'
				AND run_at < clock_timestamp() + interval '3 s'
				AND attempt = $run FROM jobq.job($job)"),
			't', "$how: for its backoff, the attempt counted");
	}
	reaches($job, 'dead', "$how: dead after max_attempts");
	is(attempts_of($job), 'rolled_back rolled_back rolled_back',
		"$how: each run counts as rolled_back");
}
audit_ok($node, 'after deaths');

# ---- a job that kills the server from inside one transaction ----

sql('CHECKPOINT');
$node->restart;
await_keeper($node);
my $killer = enqueue("'mortal', '{\"kills\": true}'");
my $crashes = 0;
while ($crashes < 6)
{
	my $victim = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $victim->query_safe('SELECT pg_backend_pid()');
	my $id;

	# ROLLBACK warns when there is nothing to roll back.
	$victim->query_safe('SET client_min_messages = error');
	await(
		sub {
			$id = $victim->query_safe(
				"ROLLBACK; BEGIN; SELECT id FROM jobq.dequeue('mortal')");
			$id =~ s/\D//g;
			return $id ne '' || state_of($killer) eq 'dead';
		},
		30);
	if ($id eq '')
	{
		$victim->quit;
		last;
	}
	$crashes++;
	kill_backend($node, $pid);
	eval { $victim->quit };
	await_keeper($node);
}
# The first crash comes without warning; from then on each delivery is
# recorded before it is handed out.
cmp_ok($crashes, '<=', 4, 'a job that kills the server: stopped in time');
reaches($killer, 'dead', 'a job that kills the server: dead');
like(attempts_of($killer), qr/^lease_expired lease_expired lease_expired$/,
	'a job that kills the server: its runs are counted');
audit_ok($node, 'after the killer');

is(conflicts_logged($node), 0, 'the unique index has saved nobody');
$node->stop;
done_testing();
