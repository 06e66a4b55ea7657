# The circuit breaker: opens after so many failures in its window, lets exactly
# one probe through when it is half-open, whatever becomes of that one, and
# knows where it was after a kill -9.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_node('breaker');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_jobq;');
add_auditor($node);
await_keeper($node);

my $dir = PostgreSQL::Test::Utils::tempdir;
my $number = 0;

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# A queue of its own for each case; opens after two failures.
sub create
{
	my ($open, %more) = @_;
	my $queue = 'b' . ++$number;
	my $window = $more{window} // '1 h';

	my $lease_for = $more{lease_for} // '1 h';

	sql(qq{SELECT jobq.create_queue('$queue', '{"circuit_breaker":
		{"failures": 2, "window": "$window", "open": "$open"},
		"max_attempts": 1, "lease_for": "$lease_for"}');
		INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('$queue',
		array_fill('{}'::jsonb, ARRAY[50])))});
	return $queue;
}

sub take
{
	my ($queue, $max) = @_;

	return sql("SELECT count(*) FROM jobq.dequeue('$queue', " . ($max // 50) . ')');
}

sub end_jobs
{
	my ($queue, $how, $n) = @_;

	return sql("SELECT count($how) FROM jobq.dequeue('$queue', $n)");
}

my $COMPLETE = 'jobq.complete(id, lease)';
my $FAIL = q{jobq.fail(id, lease, 'no')};

# Two failures: open.
sub open_breaker
{
	my ($queue) = @_;

	end_jobs($queue, $FAIL, 2);
	return;
}

sub await_take
{
	my ($queue, $name) = @_;
	my $got = '';

	await(sub { ($got = take($queue)) ne '0' }, 20);
	return is($got, 1, $name);
}

# What ends the only job that runs.
sub running
{
	my ($queue) = @_;

	return split(/\|/, sql(qq{SELECT id, a.lease FROM jobq.jobs j,
		jobq.attempts(j.id) a WHERE queue = '$queue' AND state = 'running'
		AND a.finished_at IS NULL}));
}

# ---- opening ----

my $queue = create('1 h');
is(end_jobs($queue, $FAIL, 1), 1, 'one failure');
is(end_jobs($queue, $COMPLETE, 5), 5, 'is not enough');
my ($old, $old_lease) = split(/\|/, sql("SELECT id, lease FROM jobq.dequeue('$queue')"));
is(end_jobs($queue, $FAIL, 1), 1, 'a second one');
is(take($queue), 0, 'opens the breaker');
sql("SELECT jobq.complete($old, $old_lease)");
is(take($queue), 0, 'which the success of an older job does not close');
sql(qq{SELECT jobq.alter_queue('$queue', '{"circuit_breaker": null}')});
is(take($queue, 3), 3, 'no breaker, no limit');

$queue = create('1 h', window => '300 ms');
end_jobs($queue, $FAIL, 1);
usleep(400_000);
end_jobs($queue, $FAIL, 1);
is(take($queue, 3), 3, 'failures farther apart than the window do not open it');

# ---- half-open ----

$queue = create('1500 ms');
open_breaker($queue);
my $opened = sql("SELECT max(finished_at) FROM jobq.history WHERE queue = '$queue'");
$opened = sql("SELECT max(died_at) FROM jobq.shelf") if $opened eq '';
is(take($queue), 0, 'open');
await_take($queue, 'one probe, then');
is(take($queue), 0, 'and only one');
ok(sql("SELECT claimed_at - '$opened'::timestamptz >= '1490 ms' FROM
	(SELECT max(started_at) AS claimed_at FROM jobq.jobs j, jobq.attempts(j.id)
	 WHERE queue = '$queue') x") eq 't', 'not before its time');
sql('SELECT jobq.complete(' . join(',', running($queue)) . ')');
is(take($queue, 3), 3, 'when it has completed the breaker is closed');

$queue = create('1500 ms');
open_breaker($queue);
await_take($queue, 'a probe');
sql('SELECT jobq.fail(' . join(',', running($queue)) . ')');
is(take($queue), 0, 'that fails opens it again');
await_take($queue, 'until the next one');

$queue = create('300 ms');
open_breaker($queue);
await_take($queue, 'a probe');
sql('SELECT jobq.release(' . join(',', running($queue)) . ')');
is(take($queue), 1, 'that is released is followed by another');
my ($id) = running($queue);
sql("SELECT jobq.cancel($id)");
is(take($queue), 1, 'so is one that is cancelled');
($id) = running($queue);
sql("SELECT jobq.cancel($id, grace => '1 s')");
is(take($queue), 0, 'in grace it is still one');
await_take($queue, 'not after that');

$queue = create('300 ms', lease_for => '1 s');
open_breaker($queue);
await_take($queue, 'a probe');
usleep(500_000);
is(take($queue), 0, 'is alone');
await_take($queue, 'until its lease is lost, and then for a while');

# A transaction that has taken the probe.
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('SET client_min_messages = error');
$queue = create('1500 ms');
open_breaker($queue);
usleep(1_550_000);
is($session->query_safe("BEGIN; SELECT count(*) FROM jobq.dequeue('$queue', 5)"),
	1, 'a probe in a transaction');
is(take($queue), 0, 'is the only one');
$session->query_safe('ROLLBACK');
usleep(100_000);
is(take($queue), 0, 'rolled back it has failed');
await_take($queue, 'and the next one comes later');

# Its own job as the probe.
$queue = create('300 ms');
open_breaker($queue);
usleep(350_000);
sql("SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = '$queue'");
is( $session->query_safe(qq{BEGIN; SELECT count(unnest) FROM
		unnest(jobq.enqueue_many('$queue', array_fill('{}'::jsonb, ARRAY[4])));
		SELECT count(*) FROM jobq.dequeue('$queue', 5)}) =~ s/\s+/ /gr,
	'4 1', 'an own job as the probe');
sql("INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('$queue',
	array_fill('{}'::jsonb, ARRAY[4])))");
is(take($queue), 0, 'is the only one, too');
$session->query_safe('ROLLBACK');
is(take($queue), 1, 'it has never been');
sql('SELECT jobq.fail(' . join(',', running($queue)) . ')');
usleep(350_000);
$session->query_safe(qq{BEGIN; SELECT count(unnest) FROM
	unnest(jobq.enqueue_many('$queue', array_fill('{}'::jsonb, ARRAY[2]), priority => -1));});
is($session->query_safe("SELECT count(*) FROM jobq.dequeue('$queue', 5)"), 1, 'once more');
$session->query_safe('COMMIT');
sql("INSERT INTO audit.ledger SELECT id FROM jobq.jobs WHERE queue = '$queue'
	AND id NOT IN (SELECT id FROM audit.ledger)");
is(take($queue), 0, 'committed, it runs as the probe');
sql('SELECT jobq.complete(' . join(',', running($queue)) . ')');
is(take($queue, 3), 3, 'and closes the breaker');

# ---- sixteen sessions want the probe ----

my $rounds = $ENV{JOBQ_ROUNDS} || 5;
$queue = create('200 ms');
open_breaker($queue);
sql('CREATE UNLOGGED TABLE probes (round int, id bigint, lease bigint)');
PostgreSQL::Test::Utils::append_to_file("$dir/probe.sql",
	"INSERT INTO probes SELECT :round, id, lease FROM jobq.dequeue('$queue', 3);\n");
foreach my $round (1 .. $rounds)
{
	usleep(250_000);
	$node->command_ok([ 'pgbench', '-n', '-c', '16', '-j', '2', '-t', '20',
			'-D', "round=$round", '-f', "$dir/probe.sql", 'postgres' ],
		"round $round of 16 sessions");
	sql("SELECT jobq.fail(id, lease) FROM probes WHERE round = $round");
}
is(sql('SELECT count(*), count(DISTINCT round) FROM probes'), "$rounds|$rounds",
	'exactly one gets it, each time');

# ---- the server is killed ----

my $open = create('1 h');
open_breaker($open);
my $halved = create('200 ms');
open_breaker($halved);
my $probing = create('200 ms');
open_breaker($probing);
my $failed = create('200 ms');
open_breaker($failed);
my $passed = create('200 ms');
open_breaker($passed);
my $closed = create('1 h');
end_jobs($closed, $FAIL, 1);
usleep(250_000);
is(take($probing), 1, 'a probe runs');
is(end_jobs($passed, $COMPLETE, 1), 1, 'another one passes');
is(end_jobs($passed, $FAIL, 1), 1, 'and one job fails after it');
sql(qq{SELECT jobq.alter_queue('$passed', '{"circuit_breaker":
	{"failures": 2, "window": "1 h", "open": "1 h"}}')});
is(take($failed), 1, 'a third one');
sql(qq{SELECT jobq.alter_queue('$failed', '{"circuit_breaker":
	{"failures": 2, "window": "1 h", "open": "1 h"}}')});
is(take($failed), 0, 'is still running');
sql('SELECT jobq.fail(' . join(',', running($failed)) . ')');
kill_server($node);
eval { $session->quit };
$node->start;
await_keeper($node);
is(take($failed), 0, 'open after a probe has failed');
is(take($open), 0, 'open');
is(take($probing), 0, 'half-open with its probe');
is(take($halved), 1, 'half-open');
is(take($halved), 0, 'exactly one probe');
is(end_jobs($passed, $FAIL, 1), 1, 'closed, and one more failure');
is(take($passed), 0, 'opens it');
is(end_jobs($closed, $FAIL, 1), 1, 'closed, as one failure more');
is(take($closed), 0, 'opens it');
sql('SELECT jobq.complete(' . join(',', running($probing)) . ')');
is(take($probing, 3), 3, 'a probe from before the crash closes it');

audit_ok($node, 'at the end');
done_testing();
