# The last live jobs of an old epoch are carried to a newer one: whoever works
# on them does not notice. And what bounds the disk: retention classes, the size
# of history, the number of epochs.
use strict;
use warnings;

use JobqTest;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = start_audited(
	'carry',
	"$SMALL_EPOCHS\njobq.claim_durability = on",
	q{SELECT jobq.create_queue('q', '{"retention": 0, "lease_for": "1 hour", "backoff": {"base": "0 s"}}')});
await_keeper($node);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub open_epoch
{
	return sql("SELECT e.epoch FROM jobq.epoch e JOIN jobq.queue q USING (class)
		WHERE q.queue = 'q' AND closed_at IS NULL");
}

# An epoch that only the given number of jobs of this priority keep from
# draining; returns it and them.
sub old_epoch
{
	my ($live) = @_;
	my $epoch;

	# One with tickets would be closed by its age at any moment.
	await(
		sub {
			$epoch = open_epoch();
			my ($failed, $row) =
			  $node->psql('postgres', "SELECT 1 FROM jobq.job_$epoch LIMIT 1");
			return !$failed && $row eq '';
		});
	# At once, before its age closes it: those that live must be few in it.
	my $ids = sql("BEGIN; INSERT INTO audit.ledger
		SELECT jobq.enqueue('q', payload => jsonb_build_object('n', n), priority => 50 + n)
		FROM generate_series(1, $live) n RETURNING id;
		INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('q',
			array_fill('{}'::jsonb, '{100}')));
		COMMIT");
	sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 100)");
	return ($epoch, split(/\n/, $ids));
}

sub gone
{
	my ($epoch, $name) = @_;

	return becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch",
		'0', "$name: the old epoch goes");
}

sub lease_of
{
	my ($id) = @_;

	return sql("SELECT lease FROM jobq.attempts($id) WHERE finished_at IS NULL");
}

# ---- what carried jobs are like ----

sql('INSERT INTO audit.forgetful VALUES (true)');
my ($epoch, @ids) = old_epoch(4);
my $lease = sql("SELECT lease FROM jobq.dequeue('q', 2, worker => 'w') LIMIT 1");
sql(qq{SELECT jobq.extend($ids[0], $lease, '2 hours', '{"half": true}')});
my $running = "SELECT attempt, worker, lease_expires_at, progress, payload
	FROM jobq.job($ids[0])";
my $as_it_was = sql($running);
my $attempts = "SELECT attempt, lease, worker, started_at, outcome FROM jobq.attempts($ids[0])";
my $attempts_were = sql($attempts);
gone($epoch, 'four live jobs');
is(sql($running), $as_it_was, 'a running job is as it was');
is(sql($attempts), $attempts_were, 'and has one attempt');
is(sql('SELECT count(*) FROM jobq.jobs'), '4', 'all are there');
audit_ok($node, 'after a carry');

kill_server($node);
$node->start;
await_keeper($node);
is(sql($running), $as_it_was, 'also after a crash');
sql(qq{SELECT jobq.extend($ids[0], $lease, NULL, '{"half": false}')});
is( sql("SELECT date_trunc('minute', lease_expires_at - now() + '30 s'::interval)
		FROM jobq.job($ids[0])"),
	'01:00:00', 'extend: as long as it was taken for');
sql("SELECT jobq.complete($ids[0], $lease)");
is(sqlstate($node, "SELECT jobq.complete($ids[0], $lease)"),
	'JQ015', 'completed under the old lease');
is(sql("SELECT jobq.fail($ids[1], $lease, 'no')"), 'retryable', 'failed under it');
is(sql("SELECT string_agg(attempt || ' ' || coalesce(outcome, '-'), ',')
		FROM jobq.attempts($ids[1])"), '1 failed', 'one attempt, failed');
is( sql("SELECT string_agg(id || ' ' || attempt, ',' ORDER BY ord)
		FROM jobq.dequeue('q', 3) WITH ORDINALITY
		AS d(id, lease, attempt, a, b, c, d, e, f, g, h, i, j, k, l, ord)"),
	"$ids[1] 2,$ids[2] 1,$ids[3] 1", 'order is kept');
is(sql("SELECT count(jobq.complete(id, lease)) FROM jobq.jobs j,
		LATERAL jobq.attempts(j.id) a WHERE a.finished_at IS NULL"),
	'3', 'all are done');
audit_ok($node, 'carried jobs are done');

# For a minute after a crash dequeue needs the keeper; a clean start ends that.
$node->restart;
await_keeper($node);

# ---- the lease runs out, the job is cancelled ----

($epoch, @ids) = old_epoch(2);
$lease = sql("SELECT lease FROM jobq.dequeue('q', 2, lease_for => '3 s') LIMIT 1");
gone($epoch, 'short leases');
is(sql("SELECT jobq.cancel($ids[1])"), 't', 'a carried job is cancelled');
is(sqlstate($node, "SELECT jobq.complete($ids[1], $lease)"),
	'JQ014', 'its worker learns it');
becomes_ok($node, "SELECT outcome FROM jobq.attempts($ids[0]) WHERE lease = $lease",
	'lease_expired', 'a carried lease runs out');
is(sqlstate($node, "SELECT jobq.complete($ids[0], $lease)"), 'JQ001', 'is lost');
is(sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q')"),
	'1', 'the job is delivered again');

# ---- in somebody's hands ----

sql("SELECT pause_at('before-seal')");
($epoch, @ids) = old_epoch(2);
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$lease = $session->query_safe(
	"BEGIN; SELECT lease FROM jobq.dequeue('q')");
sql("SELECT pause_at('')");
becomes_ok($node, "SELECT count(*) FROM jobq.job_$epoch j JOIN jobq.outcome_$epoch o USING (ticket)
	WHERE j.id = $ids[1] AND o.ended = 'm'", '1', 'the other one is carried');
is(sql("SELECT sealed_at IS NOT NULL AND drained_at IS NULL FROM jobq.epoch
		WHERE epoch = $epoch"), 't', 'an open claim keeps its epoch');
$session->query_safe("SELECT jobq.complete($ids[0], $lease); COMMIT");
gone($epoch, 'open claim');
sql("SELECT jobq.cancel($ids[1])");

# A settle that meets the carry waits and goes on.
foreach my $how ('complete', 'crash')
{
	# so that it is not carried before it is delivered
	sql("SELECT pause_at('before-seal')");
	($epoch, @ids) = old_epoch(1);
	$lease = sql("SELECT lease FROM jobq.dequeue('q')");
	sql("SELECT pause_at('inside-carry')");
	$node->poll_query_until('postgres', 'SELECT paused() > 0');
	if ($how eq 'crash')
	{
		$session->quit;
		kill_server($node, children => 1);
		$node->start;
		await_keeper($node);
		gone($epoch, 'killed inside carry');
		# its epoch may go at once
		is(sqlstate($node, "SELECT jobq.complete($ids[0], $lease)"),
			'00000', 'killed inside carry: the lease is good');
	}
	else
	{
		$session->{stdin} .=
		  "SELECT jobq.complete($ids[0], $lease);\n\\echo answered :SQLSTATE\n";
		$session->{run}->pump_nb;
		ok(wait_lock($node, $pid), 'settle waits for the carry');
		sql("SELECT pause_at('')");
		$session->{run}->pump until $session->{stdout} =~ /answered (\w+)/
		  || $session->{timeout}->is_expired;
		like($session->{stdout}, qr/answered 00000/, 'and then works');
		gone($epoch, 'settle met carry');
	}
	audit_ok($node, "settle and carry: $how");
}

# ---- a job whose last ticket is gone, but not its first ----

$node->restart;
await_keeper($node);
my $old = open_epoch();
my ($job) = split(/\n/, sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q',
	priority => n) FROM generate_series(1, 100) n RETURNING id"));
becomes_ok($node, "SELECT sealed_at IS NOT NULL FROM jobq.epoch WHERE epoch = $old", 't',
	'an epoch that is full of live jobs');
$epoch = open_epoch();
sql("SELECT jobq.fail(id, lease) FROM jobq.dequeue('q')");
is(sql("SELECT jobq.complete(id, lease), id FROM jobq.dequeue('q')"), "|$job",
	'its first job goes on in the next');
sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q', priority => -1)
	FROM generate_series(1, 100)");
sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 100)");
gone($epoch, 'the last ticket');
is(sql("SELECT count(*) FROM jobq.job_$old WHERE id = $job"), '1',
	'the first ticket is there');
is(sql("SELECT count(*) FROM jobq.job($job)"), '0', 'the job is not');
is(sqlstate($node, "SELECT jobq.cancel($job)"), 'JQ020', 'cancel knows that');
is(sqlstate($node, "SELECT jobq.retry($job)"), 'JQ020', 'retry knows that');
sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 100)");
audit_ok($node, 'a last ticket is gone');

# ---- retention classes ----

my $max = 8;
my $have = sql('SELECT count(*) FROM jobq.class');
sql("CREATE ROLE someone; GRANT jobq_admin TO someone; SET ROLE someone;
	SELECT jobq.create_queue('r' || n, jsonb_build_object('retention', n * 60))
	FROM generate_series($have + 1, $max) n");
is(sql('SELECT count(*) FROM jobq.class'), $max, 'as many retentions as there can be');
my $one_more = q{SELECT jobq.create_queue('more', '{"retention": "77 s"}')};
is(sqlstate($node, $one_more), 'JQ007', 'one more is refused');
is(sqlstate($node, q{SELECT jobq.alter_queue('q', '{"retention": "77 s"}')}),
	'JQ007', 'also when altering');
is(sqlstate($node, q{SELECT jobq.create_queue('same', '{"retention": "480 s"}')}),
	'00000', 'one that there is can be shared');
# However long it takes until the word that the catalog has changed is out.
my $altering = commit_with_late_word($node,
	q{SELECT jobq.alter_queue('r7', '{"retention": "480 s"}')}, 'a retention changes');
usleep(200_000);	# so that the keeper could look too early
sql("SELECT pause_at('')");
$altering->quit;
becomes_ok($node, 'SELECT count(*) FROM jobq.class', $max - 1, 'an unused one goes');
is(sqlstate($node, $one_more), '00000', 'and makes room');
sql("INSERT INTO audit.ledger SELECT jobq.enqueue('more')");
is(sql("SELECT count(*) FROM jobq.queue q JOIN jobq.epoch e USING (class)
		WHERE q.queue = 'more' AND pg_relation_size('jobq.job_' || e.epoch) > 0"),
	'1', 'its jobs have an epoch of their own');
sql("SELECT jobq.alter_queue('more', '{\"retention\": null}')");
sql("INSERT INTO audit.ledger SELECT jobq.enqueue('more')");
is(sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('more', 10)"),
	'2', 'jobs of before and after the change are delivered');
audit_ok($node, 'retention classes');

# ---- size of history ----

foreach my $n (1 .. 4)
{
	sql("INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('more',
		array_fill(jsonb_build_object('fill', repeat('x', 1000)), '{100}')))");
	becomes_ok($node, 'SELECT count(*) FROM jobq.epoch WHERE class = 1 AND sealed_at IS NOT NULL',
		$n, "epoch $n of the history");
}
sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('more', 300)");
becomes_ok($node, 'SELECT count(*) FROM jobq.epoch WHERE class = 1 AND drained_at IS NOT NULL',
	'3', 'drained epochs with their retention ahead');
is(sql("SELECT status FROM jobq.health() WHERE item = 'history'"), 'ok',
	'history is whole');
$node->append_conf('postgresql.conf', 'jobq.max_history_size = 0');
$node->reload;
becomes_ok($node, 'SELECT count(*) FROM jobq.epoch WHERE drained_at IS NOT NULL',
	'0', 'go for the sake of the disk');
is(sql("SELECT status FROM jobq.health() WHERE item = 'history'"), 'warning',
	'which health() tells');
is(sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('more', 1000)"),
	'100', 'jobs that have not run stay');
audit_ok($node, 'after cutting history');

# More than half a megabyte of finished jobs; their epoch.
sub large_history
{
	my $epoch =
	  sql('SELECT epoch FROM jobq.epoch WHERE class = 1 AND closed_at IS NULL');

	sql("INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('more',
		array_fill(jsonb_build_object('fill', repeat('x', 1000)), '{500}')))");
	sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('more', 500)");
	becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch AND drained_at IS NULL",
		'0', "epoch $epoch is done");
	return $epoch;
}

sub limit_history
{
	my ($megabytes) = @_;

	$node->append_conf('postgresql.conf', "jobq.max_history_size = $megabytes");
	$node->reload;
	return;
}

becomes_ok($node, 'SELECT count(*) FROM jobq.epoch WHERE class = 1', '1', 'no history is left');
limit_history(-1);
is($node->poll_query_until('postgres', 'SHOW jobq.max_history_size', '-1'),
	'1', 'no limit any more');
my @large = map { large_history() } (1 .. 3);
is( sql(q{SELECT count(*) FILTER (WHERE size BETWEEN 550000 AND 1000000)
	FROM (SELECT sum(pg_total_relation_size('jobq.' || kind || '_' || epoch)) AS size
		FROM jobq.epoch, unnest('{job, claim, outcome}'::text[]) kind
		WHERE class = 1 AND drained_at IS NOT NULL GROUP BY epoch) e}),
	'3', 'three epochs, each with room in a megabyte, but no two');
limit_history(1);
my $history = 'SELECT string_agg(epoch::text, \',\' ORDER BY epoch)
	FROM jobq.epoch WHERE class = 1 AND drained_at IS NOT NULL';
becomes_ok($node, $history, $large[2], 'the youngest is kept');
my $reader = $node->background_psql('postgres');
$reader->query_safe("BEGIN; SELECT count(*) FROM jobq.outcome_$large[2]");
my $younger = large_history();
becomes_ok($node, $history, $large[2], 'a younger one goes when the oldest is being read');
is(sql("SELECT closed_at IS NULL FROM jobq.epoch WHERE epoch > $younger AND class = 1"),
	't', 'and is gone');
$reader->query_safe('COMMIT');
$reader->quit;
audit_ok($node, 'after a limit with room for one');
limit_history(0);

# ---- many small epochs under load ----

my $seconds = $ENV{JOBQ_EPOCH_SECONDS} // 5;
my %script = (
	produce => q{INSERT INTO audit.ledger SELECT jobq.enqueue('q', delay =>
		CASE WHEN random() < 0.1 THEN interval '0.2 s' END) FROM generate_series(1, 20);},
	consume => q{BEGIN;
SELECT count(CASE WHEN random() < 0.1 THEN jobq.fail(id, lease, 'x')
	WHEN random() < 0.1 THEN jobq.release(id, lease)::text
	ELSE jobq.complete(id, lease)::text END) FROM jobq.dequeue('q', 25);
COMMIT;},
	lose => q{BEGIN; SELECT count(*) FROM jobq.dequeue('q', 2); ROLLBACK;
SELECT count(*) FROM jobq.dequeue('q', 2, lease_for => '1 s');
BEGIN; SELECT jobq.enqueue('q') AS id \gset
INSERT INTO audit.ledger VALUES (:id);
SELECT jobq.cancel(:id); COMMIT;
\sleep 100 ms},);
my $directory = PostgreSQL::Test::Utils::tempdir;
my @load = ('pgbench', '-n', '-c', '4', '-j', '2', '-T', $seconds, '-h',
	$node->host, '-p', $node->port);
foreach my $name (sort keys %script)
{
	append_to_file("$directory/$name", $script{$name});
}
my $born = sql('SELECT max(epoch) FROM jobq.epoch');
my $before = sql('SELECT count(*) FROM pg_class');
IPC::Run::run(
	[
		@load,
		'-f', "$directory/produce\@4", '-f', "$directory/consume\@5",
		'-f', "$directory/lose\@1", 'postgres'
	],
	'>', \my $out, '2>&1');
unlike($out, qr/ERROR|FATAL|aborted/, 'nobody has met an error');
note($out);
my $ledger = sql('SELECT count(*) FROM audit.ledger');
cmp_ok($ledger, '>', 1000, 'there was load');
cmp_ok(sql('SELECT max(epoch) FROM jobq.epoch'), '>', $born + 5, 'many epochs were made');
becomes_ok($node, "SELECT count(*) < 76 FROM jobq.epoch", 't', 'and are not kept');
audit_ok($node, 'after the load');
becomes_ok($node, "SELECT count(jobq.complete(id, lease)) * 0 + (SELECT count(*) FROM jobq.jobs)
	FROM jobq.dequeue('q', 10000)", '0', 'the rest can be done', 30);
becomes_ok($node, 'SELECT count(*) FROM jobq.epoch WHERE drained_at IS NULL AND closed_at IS NOT NULL',
	'0', 'all drains');
becomes_ok($node, "SELECT count(*) <= $before + 60 FROM pg_class", 't', 'the catalog has not grown');
is( sql("SELECT sum(completed_total + cancelled_total + dead_total) FROM jobq.queue_stats"),
	sql('SELECT count(*) FROM audit.ledger'),
	'every job enqueued has ended once');
audit_ok($node, 'in the end');

is(conflicts_logged($node), 0, 'the unique index has saved nobody');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|epoch \d+ is gone/,
	'no surprise in the log');
$node->stop;
done_testing();
