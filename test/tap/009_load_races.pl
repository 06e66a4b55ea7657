# What happens while the keeper loads jobs from disk into memory, at recovery
# and when slots become free: the keeper is stopped between its snapshot and
# what it does with it, the others go on, and nothing is lost or done twice.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $POINT = 'after-load-snapshot';

my $node = start_audited('load', 'jobq.max_live_jobs = 100',
	q{SELECT jobq.create_queue('q', '{"lease_for": "1 hour", "backoff": {"base": "0 s"}}')});

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub enqueue
{
	my ($n, $arguments) = @_;

	return split(/\n/,
		sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q'$arguments)
			FROM generate_series(1, $n) RETURNING id"));
}

# Dequeue and complete until nothing is left; returns how many there were.
sub drain
{
	my $n = 0;

	ok( await(
			sub {
				$n += sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 1000)");
				return sql('SELECT count(*) FROM jobq.jobs') eq '0';
			},
			60),
		'everything can be dequeued and completed');
	return $n;
}

sub stop_keeper_at
{
	my ($point) = @_;

	sql("SELECT pause_at('$point')");
	return;
}

sub keeper_is_stopped
{
	return $node->poll_query_until('postgres', 'SELECT paused() > 0');
}

# A server whose keeper stops in the middle of recovery.
sub restart_into_recovery
{
	my ($how, $point) = @_;

	sql("ALTER SYSTEM SET jobq.databases = 'none'");
	$how->();
	stop_keeper_at($point // $POINT);
	sql('ALTER SYSTEM RESET jobq.databases');
	$node->reload;
	ok(keeper_is_stopped(), 'the keeper is in the middle of recovery');
	return;
}

# ---- recovery ----

foreach my $crash (0, 1)
{
	my $name = $crash ? 'after kill -9' : 'after a clean restart';

	enqueue(10, '');
	my ($held) = enqueue(1, ', priority => -1');
	my $lease =
	  sql("SET jobq.claim_durability = on; SELECT lease FROM jobq.dequeue('q')");
	restart_into_recovery(
		$crash
		? sub { kill_server($node); $node->start }
		: sub { $node->restart });

	enqueue(5, '');
	enqueue(3, ", delay => '0.1 s'");
	is(sqlstate($node, "SELECT jobq.dequeue('q')"),
		'JQ009', "recovery $name: dequeue waits, and says so at last");
	my $settler = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $settler->query_safe('SELECT pg_backend_pid()');
	$settler->{stdin} .=
	  "SELECT jobq.complete($held, $lease);\n\\echo answered :SQLSTATE\n";
	$settler->{run}->pump_nb;
	$node->poll_query_until('postgres',
		"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid");
	stop_keeper_at('');
	$settler->{run}->pump until $settler->{stdout} =~ /answered (\w+)/
	  || $settler->{timeout}->is_expired;
	like($settler->{stdout}, qr/answered 00000/,
		"recovery $name: complete waits and then works");
	$settler->quit;
	audit_ok($node, "recovery $name");
	is(drain(), 18, "recovery $name: each job is delivered once");
	audit_ok($node, "recovery $name, all done");

	# Killed in the middle, and once more: nothing of it matters.
	enqueue(20, '');
	restart_into_recovery(sub { $node->restart });
	kill_server($node, children => 1);
	$node->start;
	ok(await_keeper($node), "recovery $name: killed in it");
	audit_ok($node, "recovery $name, killed in it");
	is(drain(), 20, "recovery $name: each job is delivered once");
}

# Somebody locks the tables in the middle of it, as DROP EXTENSION does.
restart_into_recovery(sub { $node->restart }, 'inside-recovery');
my $log_size = -s $node->logfile;
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE jobq.queue');
stop_keeper_at('');
ok( $node->poll_query_until('postgres',
		q{SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper'}),
	'recovery locked out: the keeper gives way');
$locker->query_safe('ROLLBACK');
$locker->quit;
ok(await_keeper($node), 'recovery locked out: it tries again');
unlike(substr(slurp_file($node->logfile), $log_size),
	qr/ERROR/, 'recovery locked out: nobody need hear of it');

# ---- more jobs than memory holds ----

# For a minute after a crash dequeue needs the keeper; a clean start ends that.
$node->restart;
await_keeper($node);

sub spilled
{
	return sql(q{SELECT detail ~ 'wait on disk' FROM jobq.health() WHERE item = 'live_jobs'}) eq
	  't';
}

# The keeper has read, and before it looks what has ended meanwhile.
my @POINTS = ('after-refill-snapshot', 'refill-before-look');

foreach my $round (1 .. 4)
{
	my @ids = enqueue(300, '');
	ok(spilled(), "round $round: more than memory holds");
	is(sql("SELECT available FROM jobq.queue_stats WHERE queue = 'q'"),
		300, "round $round: all are counted");

	stop_keeper_at($POINTS[$round % 2]);
	sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 60)");
	ok(keeper_is_stopped(), "round $round: the keeper loads");

	# What it has seen is changed behind its back.
	my $done = sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 10)");
	sql("SELECT count(jobq.release(id, lease)) FROM jobq.dequeue('q', 10)");
	sql("SELECT count(jobq.fail(id, lease, 'x')) FROM jobq.dequeue('q', 5)");
	sql("SELECT count(jobq.cancel(id)) FROM jobq.peek('q', 5)");
	my @more = enqueue(20, ', priority => -1');
	sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 5)");
	# Cancelling what is on disk only waits for nobody.
	is(sql("SELECT jobq.cancel($ids[290])"), 't',
		"round $round: cancelled on disk");
	is(sql("SELECT count(jobq.cancel(id)) FROM unnest(ARRAY[$ids[200], $ids[201]]) id"),
		2, "round $round: two more");
	stop_keeper_at('');
	my $canceller = $node->background_psql('postgres', on_error_stop => 0);
	if ($round > 2)
	{
		# As many as make it keep the keeper off the queue.
		$canceller->query_safe("BEGIN; SELECT count(jobq.cancel(id)) FROM unnest('{"
			  . join(',', @ids[ 205 .. 279 ])
			  . "}'::bigint[]) id");
	}

	# One that is cancelled in an open transaction is not delivered.
	$canceller->query_safe('BEGIN') unless $round > 2;
	$canceller->query_safe("SELECT jobq.cancel($ids[289])");
	my $n = 0;
	await(
		sub {
			$n += sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 20)");
			return sql("SELECT count(*) <= 2 FROM jobq.jobs") eq 't';
		},
		$round > 2 ? 0 : 2);
	is(sql("SELECT state FROM jobq.job($ids[289])"), 'available',
		"round $round: a job being cancelled is in nobody's hands");
	$canceller->query_safe($round % 2 ? 'COMMIT' : 'ROLLBACK');
	$canceller->quit;
	drain();
	is( sql("SELECT state FROM jobq.job($ids[289])"),
		$round % 2 ? 'cancelled' : 'completed',
		"round $round: ends as it should");
	audit_ok($node, "round $round");
	is(sql('SELECT count(*) FROM audit.ledger l WHERE NOT EXISTS
			(SELECT FROM jobq.history h WHERE h.id = l.id)'),
		'0', "round $round: every job is final");
}

is(conflicts_logged($node), 0, 'the unique index has saved nobody');
unlike(slurp_file($node->logfile), qr/is not where it should be|PANIC:|TRAP:/,
	'no surprise in the log');
$node->stop;
done_testing();
