# Waiting: sessions that wait cost nothing, each job wakes one of them, whatever
# made it available, and no wake-up is lost whoever goes.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use Waiting;

my $WAITERS = $ENV{JOBQ_WAITERS} // 50;
my $IDLE = $ENV{JOBQ_IDLE_SECONDS} // 3;
my $KILLS = $ENV{JOBQ_KILLS} // 60;

my $node = start_wait_node(
	'wait', 120, q{
SELECT jobq.create_queue('q', '{"backoff": {"base": 0}}');
SELECT jobq.create_queue('r', '{"backoff": {"base": 0}}');
});

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# Cancel whatever is there.
sub clear
{
	return sql("SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = '$_[0]'");
}

# Enqueue one; its id.
sub put
{
	my ($queue, $more) = @_;

	return sql("SELECT jobq.enqueue('$queue'" . ($more // '') . ')');
}

# Ids in what receive() gave.
sub ids
{
	return join(' ', $_[0] =~ /"id": (\d+)/g);
}

# Clock ticks that the server's processes have used.
sub ticks
{
	my @pids = split(/\n/, sql('SELECT pid FROM pg_stat_activity'));
	my $ticks = 0;

	foreach my $pid (@pids)
	{
		open(my $file, '<', "/proc/$pid/stat") or next;
		my @fields = split(/ /, (<$file> =~ s/^.*\) //r));
		close($file);
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks;
}

# ---- many who wait for nothing ----

my @all = map { start_waiting($node, "CALL jobq.receive('q', 1, '1 hour')") }
  1 .. $WAITERS;
await_waiting($node, $WAITERS);
my $waiting = q{FROM pg_stat_activity WHERE query LIKE 'CALL jobq.receive%'};
is(sql("SELECT count(*) $waiting AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)"),
	'0', 'who waits in a CALL has no snapshot and no transaction id');
is(sql("SELECT count(*) FROM pg_locks WHERE locktype <> 'virtualxid' AND pid IN (SELECT pid $waiting)"),
	'0', 'and no lock');

my $position = q{SELECT pg_current_wal_insert_lsn() || ' ' ||
	pg_snapshot_xmax(pg_current_snapshot())};
# when each began its present transaction
my $begun = qq{SELECT md5(string_agg(pid || ' ' || xact_start, ',' ORDER BY pid)) $waiting};
sql('CHECKPOINT');
my $before = sql($position);
my ($used, $wakeups) = (ticks(), wakeups($node));
my $since = sql($begun);
sleep($IDLE);
my $cpu = (ticks() - $used) / 100 / $IDLE;
is(sql($position), $before, "$IDLE s: no transaction id, no WAL");
is(wakeups($node), $wakeups, 'nobody is woken');
is(sql($begun), $since, 'nobody begins a transaction');
cmp_ok($cpu, '<', 0.02, 'nearly no processor time is used');
note(sprintf('%.4f of a core', $cpu));

# ---- one for each job ----

my %got;
foreach my $n (1 .. 10)
{
	my $id = put('q');

	await_waiting($node, $WAITERS - $n);
	$got{$id} = 1;
}
is(wakeups($node) - $wakeups, 10, 'ten jobs: ten wake-ups');
my $rest = sql(q{SELECT array_to_string(jobq.enqueue_many('q',
	array_fill('1'::jsonb, ARRAY[} . ($WAITERS - 10) . q{])), ' ')});
$got{$_} = 1 for split(/ /, $rest);
my @ids = map { ids(finish_waiting($_)) } @all;
is(join(' ', sort @ids), join(' ', sort keys %got), 'each has got one job');
cmp_ok(wakeups($node) - $wakeups, '<=', $WAITERS + 2,
	'never more are woken than there are jobs');
is(sql(q{SELECT count(*) FILTER (WHERE attempt = 1), sum(running)::text FROM jobq.jobs j,
	jobq.queue_stats s WHERE j.queue = 'q' AND s.queue = 'q' GROUP BY s.running})
	=~ s/\|.*//r, $WAITERS, 'all run, in their first attempt');
clear('q');

# ---- the shape of an answer ----

my $id = put('q', q{, '{"a": [1, "x"]}', kind => 'k', priority => -3, headers => '{"h": 1}'});
my $answer = finish_waiting(start_waiting($node,
		q{CALL jobq.receive('q', 5, lease_for => '1 min', worker => 'w')}));
is( sql(qq{SELECT d->>'id', d->'payload', d->>'kind', d->'priority', d->'headers',
	d->'attempt', d->>'queue', d->'progress', (d->>'lease')::bigint > 0,
	(d->>'lease_expires_at')::timestamptz - clock_timestamp() BETWEEN '50 s' AND '1 min'
	FROM jsonb_array_elements('$answer') d}),
	qq{$id|{"a": [1, "x"]}|k|-3|{"h": 1}|1|q|null|t|t}, 'a delivery as JSON');
is( sql(qq{SELECT string_agg(k, ' ' ORDER BY k) FROM jsonb_object_keys('$answer'::jsonb->0) k}),
	sql(q{SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute
		WHERE attrelid = 'jobq.delivery'::regclass AND attnum > 0}),
	'with the names of jobq.delivery');
is(sql("SELECT worker FROM jobq.job($id)"), 'w', 'its worker');
is(finish_waiting(start_waiting($node, q{CALL jobq.receive('q', 5, '0.2 s')})),
	'[]', 'nothing in time');
clear('q');

# Large values are fetched while there is a snapshot.
my $large = q{to_jsonb((SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i))};
$id = put('q', ", $large");
$answer = finish_waiting(start_waiting($node, q{CALL jobq.receive('q')}));
like($answer, qr/"payload": "[0-9a-f]{64000}"/, 'a large payload');
sql("SELECT jobq.complete($id, " . ($answer =~ /"lease": (\d+)/)[0] . ", $large)");
like(sql("CALL jobq.wait_for_result($id)"), qr/"result": "[0-9a-f]{64000}"/, 'a large result');
is(sql("SELECT length(result #>> '{}') FROM jobq.wait_for($id)"), '64000', 'in a function');

# ---- whatever makes a job available ----

# A session that waits for the queue gets the job that the code makes
# available, and not before. Returns how long that took, in s.
sub gets
{
	my ($what, $code, $queue) = @_;
	my $session = start_waiting($node, sprintf("CALL jobq.receive('%s', 1, '20 s')",
			$queue // 'q'));
	await_waiting($node, 1);
	my $start = time();
	my $expected = $code->();
	my $answer = finish_waiting($session);

	is(ids($answer), $expected, $what);
	sql("SELECT jobq.complete((d->>'id')::bigint, (d->>'lease')::bigint)
		FROM jsonb_array_elements('$answer') d") if $answer ne '[]';
	return time() - $start;
}

cmp_ok(gets('a delayed job', sub { put('q', q{, delay => '0.5 s'}) }), '<', 5,
	'in time');
my ($job, $lease);

sub take
{
	my ($queue, $lease_for) = @_;

	$job = put($queue);
	$lease = sql("SELECT lease FROM jobq.dequeue('$queue', lease_for => '$lease_for')");
	return;
}

take('q', '1 s');
cmp_ok(gets('one whose lease expires', sub { $job }), '<', 6, 'in time');
take('q', '1 hour');
gets('a failed one', sub { sql("SELECT jobq.fail($job, $lease, retry_in => '0.2 s')"); $job });
take('q', '1 hour');
gets('a released one', sub { sql("SELECT jobq.release($job, $lease)"); $job });
gets('one whose dequeue is rolled back', sub {
		sql(q{BEGIN; SELECT jobq.enqueue('r'); COMMIT;
			BEGIN; SELECT count(*) FROM jobq.dequeue('r'); ROLLBACK});
		return sql(q{SELECT id FROM jobq.jobs WHERE queue = 'r'});
	}, 'r');
$job = put('q', q{, delay => '1 hour'});
gets('one that is rescheduled', sub { sql("SELECT jobq.reschedule($job)"); $job });
sql(q{SELECT jobq.pause_queue('q')});
$job = put('q');
my $paused = wakeups($node);
gets('one of a queue that is resumed', sub {
		put('q') for 1 .. 3;
		is(wakeups($node), $paused, 'nobody is woken while it is paused');
		sql(q{SELECT jobq.resume_queue('q')});
		return $job;
	});

# Nor before the word that the queue has changed is out.
test_functions($node);
sql(q{SELECT jobq.purge_queue('q'); SELECT jobq.pause_queue('q')});
$job = put('q');
$paused = wakeups($node);
gets('the same when the word is late', sub {
		my $resumer = commit_with_late_word($node,
			q{SELECT jobq.resume_queue('q')}, 'the queue is resumed');

		is(wakeups($node), $paused, 'nobody is woken too early');
		sql(q{SELECT pause_at('')});
		$resumer->quit;
		return $job;
	});
sql(q{SELECT jobq.purge_queue('q')});
$job = put('q');
my $holder = $node->background_psql('postgres', on_error_stop => 1);
$holder->query_safe("BEGIN; SELECT jobq.cancel($job)");
gets('one that is not cancelled after all', sub { $holder->query_safe('ROLLBACK'); $job });
$holder->quit;
my $any = start_waiting($node, q{CALL jobq.receive_any('{q,r,q}', 1, '20 s')});
await_waiting($node, 1);
$job = put('r');
is(ids(finish_waiting($any)), $job, 'whichever of them it is');
clear('r');

# ---- functions wait, too ----

my $function = start_waiting($node, q{SELECT id FROM jobq.dequeue('q', wait => '20 s')});
await_waiting($node, 1);
$job = put('q');
is(finish_waiting($function), $job, 'dequeue');
$function = start_waiting($node, q{SELECT id FROM jobq.dequeue_any('{r,q}', wait => '20 s')});
await_waiting($node, 1);
$job = put('q');
is(finish_waiting($function), $job, 'dequeue_any');
$function = start_waiting($node,
	q{SELECT id FROM jobq.complete_and_dequeue('q', '{}', NULL, wait => '20 s')});
await_waiting($node, 1);
$job = put('q');
is(finish_waiting($function), $job, 'complete_and_dequeue with nothing to complete');
take('r', '1 hour');
my $start = time();
is(sql("SELECT count(*) FROM jobq.complete_and_dequeue('r', ARRAY[$job], $lease, wait => '20 s')"),
	'0', 'with jobs to complete it gives what there is');
cmp_ok(time() - $start, '<', 5, 'at once');
is(sql("SELECT state FROM jobq.job($job)"), 'completed', 'and they are completed');
clear('q');

# ---- who goes passes on ----

# The first of two is stopped just after it was woken: it is terminated, its
# statement cancelled, its client gone.
foreach my $how (
	[ 'terminated', sub { sql("SELECT pg_terminate_backend($_[0])") } ],
	[ 'cancelled', sub { sql("SELECT pg_cancel_backend($_[0])") } ],
	[ 'without client', sub { $_[1]->{run}->kill_kill } ])
{
	my ($what, $code) = @$how;
	my $first = start_waiting($node, q{CALL jobq.receive('q', 1, '1 hour') /* first */});
	await_waiting($node, 1);
	my $second = start_waiting($node, q{CALL jobq.receive('q', 1, '1 hour') /* second */});
	await_waiting($node, 2);
	my $pid = wait_pid_of($node, '%first%');

	# stopped, it does not notice that it is woken
	kill('STOP', $pid);
	$job = put('q');
	$code->($pid, $first);
	sleep(0.05);
	kill('CONT', $pid);
	is(ids(finish_waiting($second)), $job, "$what: the next one gets the job");
	isnt(finish_waiting($first), '[]', 'and not the first') if $what ne 'without client';
	is(sql("SELECT attempt FROM jobq.job($job)"), '1', 'it was delivered once');
	clear('q');
}

# Woken for one queue it takes from another: somebody else takes the first.
my $both = start_waiting($node, q{CALL jobq.receive_any('{r,q}', 1, '1 hour') /* both */});
await_waiting($node, 1);
my $one = start_waiting($node, q{CALL jobq.receive('q', 1, '1 hour') /* one */});
await_waiting($node, 2);
my $pid = wait_pid_of($node, '%both%');
kill('STOP', $pid);
my $first = put('q');
my $second = put('r');
kill('CONT', $pid);
is(ids(finish_waiting($both)), $second, 'woken for one queue, served from another');
is(ids(finish_waiting($one)), $first, 'somebody else gets the job of the first');
clear($_) for qw(q r);

# A session whose client goes while it waits goes, too.
my $gone = start_waiting($node, q{CALL jobq.receive('q', 1, '1 hour')});
await_waiting($node, 1);
$gone->{run}->kill_kill;
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 $waiting"),
	'a session without client does not go on waiting');

# ---- random ends ----

my $worker = q{DO $$
DECLARE
	d jsonb;
BEGIN
	LOOP
		CALL jobq.receive('q', 1, '1 hour', deliveries => d);
		PERFORM jobq.complete((d->0->>'id')::bigint, (d->0->>'lease')::bigint);
		COMMIT;
	END LOOP;
END $$};
my @workers = map { start_waiting($node, $worker) } 1 .. 8;
my $enqueued = 0;
foreach my $n (1 .. $KILLS)
{
	my $call = $n % 3 == 0 ? 'pg_cancel_backend' : 'pg_terminate_backend';
	my $i = int(rand(@workers));

	$enqueued += sql(qq{SELECT count(jobq.enqueue('q')) FROM generate_series(1, 3);
		SELECT $call(pid) FROM pg_stat_activity WHERE query LIKE 'DO %'
			ORDER BY random() LIMIT 1}) =~ /^3/ ? 3 : die 'not enqueued';
	next if $workers[$i]->{run}->pumpable;
	$workers[$i]->{run}->finish;
	$workers[$i] = start_waiting($node, $worker);
}
# Somebody waits, nothing more comes, and nothing may be left.
push @workers, start_waiting($node, $worker);
ok( $node->poll_query_until('postgres',
		q{SELECT available + running + retryable = 0 FROM jobq.queue_stats WHERE queue = 'q'}),
	"$KILLS sessions ended at random: no job is left lying");
is(sql(q{SELECT count(*) FROM jobq.history WHERE queue = 'q' AND state = 'dead'}), '0',
	'none is dead');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %'});
$_->{run}->finish for @workers;
is(sql(q{SELECT completed_total FROM jobq.queue_stats WHERE queue = 'q'}) >= $enqueued,
	1, 'all were done');

$node->stop;

# ---- jobs that are on disk only ----

$node->append_conf('postgresql.conf', "jobq.max_live_jobs = 100");
$node->start;
ok(await_keeper($node), 'with little memory');
@workers = map { start_waiting($node, $worker) } 1 .. 4;
await_waiting($node, 4, 'DO%');
sql(q{SELECT cardinality(jobq.enqueue_many('q', array_fill('1'::jsonb, ARRAY[600])))});
ok( $node->poll_query_until('postgres',
		q{SELECT available + running + retryable = 0 FROM jobq.queue_stats WHERE queue = 'q'}),
	'those who wait get all that is refilled from disk');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DO %'});
$_->{run}->finish for @workers;

$node->stop;
done_testing();
