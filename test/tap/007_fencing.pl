# Several sessions at once: what is not committed is seen by nobody, producers
# do not wait for each other, an old holder of a lease changes nothing, and the
# second of two that settle a job waits for the first. Prepared transactions.
# The server killed at each pause point.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_audited('fencing', undef, q{
SELECT jobq.create_queue('q', '{"lease_for": "1 hour", "backoff": {"base": "0 s"}}');
SELECT jobq.create_queue('short', '{"lease_for": "1 s", "backoff": {"base": "0 s"}}');
});

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

sub session
{
	my $psql = $node->background_psql('postgres', on_error_stop => 0);

	$psql->query_safe("\\set VERBOSITY sqlstate");
	return $psql;
}

# SQLSTATE that a statement in a session ends with.
sub told
{
	my ($session, $sql) = @_;

	$session->{stderr} = '';
	my ($out, $failed) = $session->query($sql);
	my $err = $session->{stderr};

	$session->{stderr} = '';
	return '00000' unless $failed;
	return $err =~ /(?:ERROR|FATAL):\s+(\w{5})/ ? $1 : "unknown: $err";
}

# Start a statement without waiting for its end; answer_of gives its SQLSTATE.
sub begin_statement
{
	my ($session, $sql) = @_;

	$session->{stderr} = '';
	$session->{stdin} .= "$sql\n;\n\\echo answered :SQLSTATE\n";
	$session->{run}->pump_nb;
	return;
}

sub answer_of
{
	my ($session) = @_;

	$session->{run}->pump
	  until $session->{stdout} =~ /answered (\w{5})\r?\n/
	  || $session->{timeout}->is_expired;
	my $answer = $session->{stdout} =~ /answered (\w{5})/ ? $1 : 'nothing';
	$session->{stdout} = '';
	$session->{stderr} = '';
	return $answer;
}

# Everything there is about a job, to see that nothing has changed.
sub job
{
	my ($id) = @_;

	return sql("SELECT * FROM jobq.job($id)");
}

sub state_of
{
	my ($id) = @_;

	return sql("SELECT state FROM jobq.job($id)");
}

my $a = session();
my $b = session();
my $pid_b = $b->query_safe('SELECT pg_backend_pid()');

# ---- what is not committed ----

my $start = time();
my $id = $a->query_safe("BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('q') RETURNING id");
is(sql("SELECT count(*) FROM jobq.dequeue('q')"), '0',
	'uncommitted: not delivered to others');
is(sql("SELECT count(*) FROM jobq.jobs"), '0', 'uncommitted: not listed');
is(sql("SELECT count(*) FROM jobq.peek('q')"), '0', 'uncommitted: not peeked at');
is(job($id), '', 'uncommitted: not found by its id');
is(sqlstate($node, "SELECT jobq.cancel($id)"), 'JQ020',
	'uncommitted: cannot be cancelled by others');
my $second = $b->query_safe(
	"SET lock_timeout = '5 s'; BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('q') RETURNING id");
cmp_ok($second, '>', $id, 'a second producer does not wait for the first');
$b->query_safe("INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('q', array_fill('{}'::jsonb, ARRAY[60]))); COMMIT");
is(sql("SELECT available FROM jobq.queue_stats WHERE queue = 'q'"), '61',
	'and commits before it');
$a->query_safe("ROLLBACK");
is(sql("SELECT count(*) FROM jobq.jobs WHERE id = $id"), '0',
	'rolled back: nothing is left');
sql("SELECT jobq.purge_queue('q')");

told($a, "BEGIN");
$id = $a->query_safe("SELECT jobq.enqueue('q')");
is(told($a, "SELECT 1/0"), '22012', 'an error after enqueue ...');
told($a, "COMMIT");
is(job($id), '', '... leaves nothing');

# ---- an old holder ----

foreach my $call ("complete(%s, %s)", "complete(%s, %s, '{}')",
	"fail(%s, %s, 'x')", "fail(%s, %s, retry => false)", "release(%s, %s)",
	"extend(%s, %s)", "complete_many(ARRAY[%s], %s)")
{
	$id = enqueue("'short'");
	my $old = sql("SELECT lease FROM jobq.dequeue('short', worker => 'first')");
	my $new;
	await(
		sub {
			$new = sql(
				"SELECT lease FROM jobq.dequeue('short', lease_for => '1 hour', worker => 'second')");
			return $new ne '';
		},
		30);
	my $before = job($id);
	my ($name) = $call =~ /(\w+)/;
	is(sqlstate($node, 'SELECT jobq.' . sprintf($call, $id, $old)),
		'JQ001', "$name by the first holder, delivered again: refused");
	is(job($id), $before, "$name: and changes nothing");
	if ($name eq 'extend')
	{
		is(sql("SELECT coalesce(lease_expires_at::text, 'lost')
				FROM jobq.extend_many(ARRAY[$id], $old)"),
			'lost', 'extend_many says that it is lost');
		is( sqlstate($node, qq{SELECT jobq.settle_jobs(
				'[{"id": $id, "lease": $old, "do": "complete"}]')}),
			'JQ001', 'settle_jobs is refused');
		is(job($id), $before, 'and they change nothing');
	}
	is( sqlstate($node, "SELECT jobq.complete($id, $new)"),
		'00000', "$name: the second holder completes");
	is(sqlstate($node, 'SELECT jobq.' . sprintf($call, $id, $new)),
		'JQ015', "$name: once only");
	like(sqlstate($node, 'SELECT jobq.' . sprintf($call, $id, $old)),
		qr/^JQ001$/, "$name: the first holder stays refused");
	is(state_of($id), 'completed', "$name: it stays completed");
}

$id = enqueue("'q'");
my $lease = sql("SELECT lease FROM jobq.dequeue('q')");
sql("SELECT jobq.cancel($id)");
is(sqlstate($node, "SELECT jobq.$_($id, $lease)"), 'JQ014',
	"$_ of a cancelled job")
  for qw(complete fail release extend);
is(state_of($id), 'cancelled', 'it stays cancelled');

# ---- two that settle ----

foreach my $second (qw(complete fail release extend))
{
	foreach my $end (qw(COMMIT ROLLBACK))
	{
		$id = enqueue("'q'");
		$lease = sql("SELECT lease FROM jobq.dequeue('q')");
		$a->query_safe("BEGIN; SELECT jobq.complete($id, $lease)");
		begin_statement($b, "SELECT jobq.$second($id, $lease)");
		ok(wait_lock($node, $pid_b), "$second waits for an uncommitted complete");
		$a->query_safe($end);
		is( answer_of($b), $end eq 'COMMIT' ? 'JQ015' : '00000',
			"$second after $end");
		is( state_of($id),
			$end eq 'COMMIT' || $second eq 'complete' ? 'completed'
			: $second eq 'extend' ? 'running' : 'available',
			"$second after $end: the job is right");
		sql("SELECT jobq.cancel($id)");
	}
}
# a savepoint's mark is given back at once
$id = enqueue("'q'");
$lease = sql("SELECT lease FROM jobq.dequeue('q')");
$a->query_safe(
	"BEGIN; SAVEPOINT s; SELECT jobq.complete($id, $lease); ROLLBACK TO s");
is(told($b, "SET lock_timeout = '2 s'; SELECT jobq.complete($id, $lease)"),
	'00000', 'a complete undone by ROLLBACK TO holds nobody up');
is(told($a, "SELECT jobq.complete($id, $lease)"), 'JQ015',
	'and whoever had it learns that it is settled');
told($a, 'ROLLBACK');
# expiry leaves a job in somebody's hands alone
$id = enqueue("'short'");
$lease = sql("SELECT lease FROM jobq.dequeue('short', worker => 'slow')");
$a->query_safe("BEGIN; SELECT jobq.complete($id, $lease)");
my $probe = enqueue("'short'");
sql("SELECT lease FROM jobq.dequeue('short')");
ok(await(sub { state_of($probe) eq 'available' }, 20),
	'a lease expires beside a job being completed');
is(told($a, 'COMMIT'), '00000', 'which completes late');
is(state_of($id), 'completed', 'and is completed');
sql("SELECT jobq.cancel($probe)");
# lock_timeout while waiting for a mark
$id = enqueue("'q'");
$lease = sql("SELECT lease FROM jobq.dequeue('q')");
$a->query_safe("BEGIN; SELECT jobq.complete($id, $lease)");
is(told($b, "SET lock_timeout = '100 ms'; SELECT jobq.complete($id, $lease)"),
	'55P03', 'lock_timeout ends the waiting');
$a->query_safe('COMMIT');
is(sql("SELECT count(*) FROM jobq.dequeue('q')"), '0', 'nothing is left over');
audit_ok($node, 'after fencing');

# ---- prepared transactions ----

sub available
{
	return sql("SELECT count(*) FROM jobq.peek('q', 1000)");
}

sql("BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('q') FROM generate_series(1, 3);
INSERT INTO audit.ledger SELECT jobq.enqueue('q', delay => '4 s');
PREPARE TRANSACTION 'one'");
is(available(), '0', 'prepared: not there');
sql("COMMIT PREPARED 'one'");
ok(await(sub { available() eq '3' }, 10), 'COMMIT PREPARED: the jobs are there');
ok(await(sub { available() eq '4' }, 10), 'and so is the delayed one, in time');
sql("BEGIN; SELECT jobq.enqueue('q') FROM generate_series(1, 3); PREPARE TRANSACTION 'two'");
sql("ROLLBACK PREPARED 'two'");
sql("BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('q', '{\"of\": 3}'); PREPARE TRANSACTION 'three'");
sql("BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('q', '{\"of\": 4}', delay => '2 s'); PREPARE TRANSACTION 'four'");
$a->quit;
$b->quit;
$node->restart;
await_keeper($node);
is(available(), '4', 'ROLLBACK PREPARED: never');
sql("COMMIT PREPARED 'three'");
ok(await(sub { available() eq '5' }, 10),
	'prepared before a restart, committed after it');
kill_server($node);
$node->start;
await_keeper($node);
is(available(), '5', 'kill -9 changes nothing');
sql("COMMIT PREPARED 'four'");
ok(await(sub { available() eq '6' }, 10),
	'prepared before a crash, committed after it: scheduled, then available');

is(sqlstate($node, "BEGIN; SELECT jobq.dequeue('q', 2); PREPARE TRANSACTION 'five'"),
	'0A000', 'PREPARE after dequeue is refused');
ok(await(sub { available() eq '6' }, 10), 'and the jobs come back');
($id, $lease) = split(/\|/, sql("SELECT id, lease FROM jobq.dequeue('q')"));
is(sqlstate($node, "BEGIN; SELECT jobq.complete($id, $lease); PREPARE TRANSACTION 'six'"),
	'0A000', 'PREPARE after complete is refused');
is(state_of($id), 'running', 'and the job runs on');
is(sqlstate($node, "SELECT jobq.complete($id, $lease)"), '00000',
	'and can be completed');
is(sqlstate($node, "BEGIN; SELECT jobq.enqueue('q'); SELECT jobq.dequeue('q', 100); PREPARE TRANSACTION 'seven'"),
	'0A000', 'PREPARE with an own job dequeued is refused');
foreach my $call (
	"create_queue('never')", "alter_queue('q', '{}')", "pause_queue('q')",
	"grant_queue('q', 'jobq_monitor', '{read}')", "purge_queue('q', '{scheduled}')")
{
	is(sqlstate($node, "BEGIN; SELECT jobq.$call; PREPARE TRANSACTION 'no'"),
		'0A000', "PREPARE after $call is refused");
}
is(sql('SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing stays prepared');
audit_ok($node, 'after prepared transactions');

# ---- kill -9 at each pause point ----

# Somebody is at the point, then everything dies.
sub die_at
{
	my ($point, $statement) = @_;
	my $runner = session();

	sql("SELECT pause_at('$point')");
	begin_statement($runner, $statement) if defined $statement;
	ok($node->poll_query_until('postgres', 'SELECT paused() > 0'),
		"$point: somebody is there");
	kill_server($node, children => 1);
	eval { $runner->quit };
	$node->start;
	ok(await_keeper($node), "$point: the queue is back");
	audit_ok($node, "killed $point");
	return;
}

# The writer has committed, but nobody has heard of it.
die_at('before-publish',
	"INSERT INTO audit.ledger SELECT jobq.enqueue('q', '{\"lost\": false}')");
is(sql(q{SELECT count(*) FROM jobq.peek('q', 1000) WHERE payload = '{"lost": false}'}),
	'1', 'before-publish: committed, so it is there');
($id, $lease) = split(/\|/,
	sql("SET jobq.claim_durability = on; SELECT id, lease FROM jobq.dequeue('q')"));
die_at('before-publish', "SELECT jobq.complete($id, $lease)");
is(state_of($id), 'completed', 'before-publish: a completion, too');

($id, $lease) = split(/\|/,
	sql("SET jobq.claim_durability = on; SELECT id, lease FROM jobq.dequeue('q')"));
die_at('between-move-writes', "SELECT jobq.release($id, $lease)");
is(state_of($id), 'running', 'between-move-writes: not released');
die_at('between-move-writes', "SELECT jobq.fail($id, $lease, 'no', retry => false)");
is(state_of($id), 'running', 'between-move-writes: not dead');
is(sqlstate($node, "SELECT jobq.complete($id, $lease)"), '00000',
	'between-move-writes: its lease is good');

# The keeper: due jobs of the shelf, leases that ran out.
$id = enqueue("'q', delay => '1 s'");
die_at('between-move-writes');
ok(await(sub { state_of($id) eq 'available' }, 20),
	'between-move-writes: the keeper does it again');
$id = enqueue("'short'");
$node->restart;
await_keeper($node);
sql("SET jobq.claim_durability = on; SELECT lease FROM jobq.dequeue('short')");
die_at('before-keeper-commit');
ok(await(sub { state_of($id) eq 'available' && sql("SELECT attempt FROM jobq.job($id)") eq '1' }, 20),
	'before-keeper-commit: expired once');
sql("SELECT jobq.cancel($id)");

sql("SELECT pause_at('')");
is(sql('SELECT paused()'), '0', 'nobody is stopped');

# Publishing while somebody is stopped in it: others are not held up.
my $stopped = session();
sql("SELECT pause_at('before-publish')");
begin_statement($stopped, "INSERT INTO audit.ledger SELECT jobq.enqueue('q')");
$node->poll_query_until('postgres', 'SELECT paused() > 0');
is(sqlstate($node, "SELECT count(*) FROM jobq.jobs"), '00000',
	'a commit that stops before it publishes: others can look');
sql("SELECT pause_at('')");
is(answer_of($stopped), '00000', 'and it goes on');
$stopped->quit;
audit_ok($node, 'at the end');

is(conflicts_logged($node), 0, 'the unique index has saved nobody');
$node->stop;
done_testing();
