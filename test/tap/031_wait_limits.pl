# The rules of waiting: how long, where it is allowed, what ends it, other
# things to wait for than a delivery, and NOTIFY.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use Waiting;

my $node = start_node('limits', 'max_connections = 60');
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_jobq;
CREATE FUNCTION public.wakeups() RETURNS bigint LANGUAGE c
	AS 'pg_jobq', 'jobq_test_wakeups';
SELECT jobq.create_queue('q', '{"backoff": {"base": 0}}');
});
ok(await_keeper($node), 'the keeper is there');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# Cancel whatever is there.
sub clear
{
	return sql("SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = '$_[0]'");
}

sub put
{
	my ($queue, $more) = @_;

	return sql("SELECT jobq.enqueue('$queue'" . ($more // '') . ')');
}

# In the background: it takes 20 s.
my $longest = start_waiting($node,
	q{SELECT count(*), clock_timestamp() - statement_timestamp() BETWEEN '19 s' AND '25 s'
		FROM jobq.dequeue('default', 1, '1 hour')});

# ---- where it is allowed ----

foreach my $call (
	q{receive('q')}, q{receive_any('{q}')}, q{wait_for_jobs('q')},
	q{wait_until_idle('q')}, q{wait_for_result(1)})
{
	my ($rc, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nBEGIN; CALL jobq.$call; COMMIT");

	like($err, qr/ERROR:  25001: .*HINT:  Set autocommit on/s,
		"$call in a transaction block");
}
is( sqlstate($node, q{DO $$ DECLARE d jsonb; BEGIN
	CALL jobq.receive('q', wait => '0.1 s', deliveries => d);
EXCEPTION WHEN SQLSTATE 'JQ001' THEN NULL;
END $$}), '25001', 'nor in a subtransaction');
sql('CREATE TABLE t (x int)');
sqlstate($node, q{DO $$ DECLARE d jsonb; BEGIN
	INSERT INTO t VALUES (1);
	CALL jobq.receive('q', wait => '0.1 s', deliveries => d);
	INSERT INTO t VALUES (2);
	RAISE EXCEPTION 'undone';
END $$});
is(sql('SELECT string_agg(x::text, $$ $$) FROM t'), '1',
	'in a DO block it commits what was done before, and nothing else');
is( sqlstate($node, q{SET default_transaction_read_only = on; CALL jobq.receive('q', wait => '0')}),
	'25006', 'not where nothing may be written');
is( sql(q{SET default_transaction_isolation = 'serializable';
	CALL jobq.receive('q', wait => '0.1 s')}), '[]', 'serializable');

# ---- what ends it ----

my $later = put('q', q{, run_at => '2100-01-01'});
my $start = time();
foreach my $call (q{CALL jobq.receive('q', 1, '1 hour')},
	q{CALL jobq.receive_any('{q,default}', 1, '1 hour')},
	q{SELECT FROM jobq.dequeue('q', wait => '10 s')},
	q{SELECT FROM jobq.dequeue_any('{q,default}', wait => '10 s')},
	q{SELECT FROM jobq.complete_and_dequeue('q', '{}', NULL, wait => '10 s')},
	"SELECT FROM jobq.wait_for($later, '10 s')",
	"CALL jobq.wait_for_result($later, '1 hour')",
	q{CALL jobq.wait_for_jobs('q', '1 hour')},
	q{CALL jobq.wait_until_idle('q', '1 hour')})
{
	sql(q{SELECT jobq.enqueue('q'); SELECT jobq.pause_queue('q')}) if $call =~ /idle/;
	is(sqlstate($node, "SET statement_timeout = '0.3 s'; $call"), '57014',
		"statement_timeout ends $call");
}
cmp_ok(time() - $start, '<', 10, 'in time');
is(sql(q{SELECT sum(attempt) FROM jobq.jobs}), '0', 'nothing was claimed');
my $session = start_waiting($node, q{CALL jobq.wait_until_idle('q', '1 hour')});
await_waiting($node, 1, '%idle%');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL jobq.wait_until%'});
is(finish_waiting($session), '57014', 'so does a cancel');
sql(q{SELECT jobq.purge_queue('q'); SELECT jobq.resume_queue('q')});

# Somebody waits for a queue that is dropped; nobody has to wait for him.
sql(q{SELECT jobq.create_queue('short')});
foreach my $call (q{receive('short', 1, '1 hour')}, q{wait_for_jobs('short', '1 hour')},
	q{wait_until_idle('short', '1 hour')})
{
	sql(q{SELECT jobq.create_queue('short', if_exists => 'keep'); SELECT jobq.enqueue('short');
		SELECT jobq.pause_queue('short')});
	$session = start_waiting($node, "CALL jobq.$call");
	await_waiting($node, 1, '%short%');
	is(sqlstate($node, q{SET lock_timeout = '2 s'; SELECT jobq.drop_queue('short', true)}),
		'00000', "drop_queue does not wait for $call");
	is(finish_waiting($session), 'JQ002', 'and ends it');
}
# Or one that its role may not use any more.
sql(q{CREATE ROLE worker; SELECT jobq.grant_queue('q', 'worker', '{dequeue}')});
$session = start_waiting($node, q{CALL jobq.receive('q', 1, '1 hour')}, "SET ROLE worker;\n");
await_waiting($node, 1, 'CALL%');
sql(q{SELECT jobq.revoke_queue('q', 'worker', '{dequeue}'); SELECT jobq.create_queue('other');
	SELECT jobq.grant_queue('other', 'worker', '{dequeue}')});
my $job = put('q', q{, priority => 100});
isnt(finish_waiting($session), '[]', 'privileges are asked for again');
sql(q{SELECT jobq.purge_queue('q')});

# ---- wait_for_jobs ----

my @lookers = map { start_waiting($node, q{CALL jobq.wait_for_jobs('q', '1 hour')}) } 1 .. 3;
await_waiting($node, 3, 'CALL%');
my $woken = wakeups($node);
$job = put('q', q{, delay => '0.3 s'});
is(join(' ', map { finish_waiting($_) } @lookers), 't t t',
	'one is told; as it goes without taking the job another one is, and so on');
is(wakeups($node) - $woken, 3, 'one after the other');
is(sql(q{CALL jobq.wait_for_jobs('q', '0')}), 't', 'there is one');
# One that dequeues what it was told of does not pass it on.
sql(q{SELECT jobq.purge_queue('q')});
my $looker = start_waiting($node,
	q{CALL jobq.wait_for_jobs('q', '1 hour'); SELECT id FROM jobq.dequeue('q')});
await_waiting($node, 1, 'CALL%');
@lookers = (start_waiting($node, q{CALL jobq.wait_for_jobs('q', '1 s') /* 2 */}));
await_waiting($node, 2, 'CALL%');
$job = put('q');
is(finish_waiting($looker), "t\n$job", 'the one that is told dequeues it');
is(finish_waiting($lookers[0]), 'f', 'and nobody else is told');
clear('q');

# ---- wait_until_idle ----

is(sql(q{CALL jobq.wait_until_idle('q', '0')}), 't', 'an empty queue is idle');
put('q', q{, delay => '1 hour'});
is(sql(q{CALL jobq.wait_until_idle('q', '0')}), 't', 'scheduled jobs do not count');
$job = put('q');
is(sql(q{CALL jobq.wait_until_idle('q', '0.1 s')}), 'f', 'available ones do');
my $lease = sql(q{SELECT lease FROM jobq.dequeue('q')});
$session = start_waiting($node, q{CALL jobq.wait_until_idle('q', '1 hour')});
await_waiting($node, 1, 'CALL%');
sql("SELECT jobq.fail($job, $lease, retry_in => '0.3 s')");
sleep(0.1);
await_waiting($node, 1, 'CALL%');
$lease = sql(q{SELECT lease FROM jobq.dequeue('q', wait => '5 s')});
await_waiting($node, 1, 'CALL%');
for (1 .. 30)
{
	sql("SELECT jobq.release($job, $lease)");
	$lease = sql(q{SELECT lease FROM jobq.dequeue('q')});
}
await_waiting($node, 1, 'CALL%');
sql("SELECT jobq.complete($job, $lease)");
is(finish_waiting($session), 't', 'a job that fails and is released goes on until it is completed');
$job = put('q');
$session = start_waiting($node, q{CALL jobq.wait_until_idle('q', '1 hour')});
await_waiting($node, 1, 'CALL%');
sql("SELECT jobq.cancel($job)");
is(finish_waiting($session), 't', 'cancelled');
sql(q{SELECT jobq.purge_queue('q')});

# Between two places a job is not gone: jobs go round by the way of the keeper.
my $round = start_waiting($node, q{DO $$
DECLARE
	d record;
BEGIN
	PERFORM jobq.enqueue('q', run_at => '2000-01-01');
	COMMIT;
	FOR i IN 1 .. 150 LOOP
		FOR d IN SELECT * FROM jobq.dequeue('q', 1, '5 s') LOOP
			IF i % 3 = 0 THEN
				PERFORM jobq.release(d.id, d.lease);
			ELSIF i % 3 = 1 THEN
				PERFORM jobq.fail(d.id, d.lease, retry_in => '1 ms');
			ELSE
				PERFORM jobq.fail(d.id, d.lease, retry_in => '0');
			END IF;
		END LOOP;
		COMMIT;
	END LOOP;
END $$}, "SELECT jobq.alter_queue('q', '{\"max_attempts\": 1000}');\n");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM jobq.jobs WHERE queue = 'q'}),
	'a job goes round');
my $never = sql(q{SET statement_timeout = 0; CALL jobq.wait_until_idle('q', '2 s')});
my $there = sql(q{SELECT count(*) FROM jobq.jobs WHERE queue = 'q'});
is("$never $there", 'f 1', 'a job on its way is never taken for gone');
finish_waiting($round);
sql(q{SELECT jobq.purge_queue('q')});

# ---- wait_for, wait_for_result ----

sub ends
{
	my ($what, $expected, $code, $more) = @_;
	my $job = put('q', $more);
	my @sessions = map { start_waiting($node, $_) }
	  ("SELECT * FROM jobq.wait_for($job)",
		"CALL jobq.wait_for_result($job, '1 hour')");

	await_waiting($node, 2, '%wait_for%');
	$code->($job);
	my @answers = map { finish_waiting($_) } @sessions;
	is($answers[0], $expected->[0], "$what: wait_for");
	is($answers[1], $expected->[1], 'wait_for_result');
	return;
}

sub lease_of
{
	return sql(q{SELECT lease FROM jobq.dequeue('q')});
}

ends('completed', [ 'completed|{"n": 1}|',
		'{"error": null, "state": "completed", "result": {"n": 1}}' ],
	sub { sql("SELECT jobq.complete($_[0], " . lease_of() . q{, '{"n": 1}')}) });
ends('dead', [ 'dead||boom', '{"error": "boom", "state": "dead", "result": null}' ],
	sub { sql("SELECT jobq.fail($_[0], " . lease_of() . q{, 'boom', false)}) });
ends('cancelled', [ 'cancelled||why',
		'{"error": "why", "state": "cancelled", "result": null}' ],
	sub { sql("SELECT jobq.cancel($_[0], 'why')") });
ends('cancelled before its time', [ 'cancelled||why',
		'{"error": "why", "state": "cancelled", "result": null}' ],
	sub { sql("SELECT jobq.cancel($_[0], 'why')") }, q{, delay => '1 hour'});
ends('purged with others', [ 'cancelled||purged',
		'{"error": "purged", "state": "cancelled", "result": null}' ],
	sub { put('q', q{, delay => '1 hour'}) for 1 .. 3; sql(q{SELECT jobq.purge_queue('q')}) },
	q{, delay => '1 hour'});
ends('cancelled with grace', [ 'cancelled||',
		'{"error": null, "state": "cancelled", "result": null}' ],
	sub { lease_of(); sql("SELECT jobq.cancel($_[0], grace => '1 min')") });
ends('expired', [ 'expired||expired',
		'{"error": "expired", "state": "expired", "result": null}' ],
	sub { }, q{, expires_at => clock_timestamp() + interval '1.5 s'});
ends('retried and completed', [ 'completed||',
		'{"error": null, "state": "completed", "result": null}' ],
	sub {
		sql("SELECT jobq.fail($_[0], " . lease_of() . q{, 'oops', retry_in => '0')});
		sql("SELECT jobq.complete($_[0], " . lease_of() . ')');
	});

$job = put('q');
is(sql("SELECT * FROM jobq.wait_for($job, '0.1 s')"), 'available||', 'in time: its state');
is(sql("CALL jobq.wait_for_result($job, '0.1 s')"),
	'{"error": null, "state": "available", "result": null}', 'so in a CALL');
is(sql('SELECT * FROM jobq.wait_for(987654321)'), '', 'no such job: no row, at once');
is(sql('CALL jobq.wait_for_result(987654321)'), '', 'null');
sql("SELECT jobq.cancel($job)");
is(sql("SELECT state FROM jobq.wait_for($job)"), 'cancelled', 'one that has ended: at once');
foreach my $how ('', q{, delay => '1 hour'}, q{, '1', 'k'})
{
	is(sqlstate($node, "BEGIN; SELECT jobq.enqueue('q'$how) AS id \\gset
		SELECT * FROM jobq.wait_for(:id)"), 'JQ007', 'not one of this transaction');
}
sql(q{CREATE ROLE producer LOGIN; SELECT jobq.grant_queue('q', 'producer', '{enqueue}')});
is( sql(q{SET ROLE producer; SELECT jobq.enqueue('q') AS id \gset
	SELECT state FROM jobq.wait_for(:id, '0')}), 'available', 'its enqueuer may wait for it');
is(sql(q{SELECT count(*) FROM jobq.jobs j, jobq.wait_for(j.id, '0') w WHERE j.queue = 'q'}), '1',
	'and so may who may see it');
sql(q{SELECT jobq.purge_queue('q')});

# ---- NOTIFY ----

is(sqlstate($node, q{SELECT jobq.create_queue(repeat('n', 59), '{"notify": true}')}), 'JQ007',
	'a name that is too long for a channel');
sql(q{SELECT jobq.create_queue(repeat('n', 59)); SELECT jobq.create_queue(repeat('n', 58), '{"notify": true}')});
is(sqlstate($node, q{SELECT jobq.alter_queue(repeat('n', 59), '{"notify": true}')}), 'JQ007',
	'nor can it be altered to');
sql(q{SELECT jobq.create_queue('loud', '{"notify": true, "backoff": {"base": "1 s"}}')});
my $listener = $node->background_psql('postgres', on_error_stop => 1);
$listener->query_safe('LISTEN "jobq.loud"');

# How many notifications have come.
sub heard
{
	my ($at_least) = @_;
	my $heard = 0;

	await(sub {
			my $said = $listener->query_safe('SELECT 1');

			$heard += () = $said =~ /notification "jobq\.loud" received/g;
			return $heard >= $at_least;
		}, 10);
	return $heard;
}
sql(q{SELECT jobq.enqueue('loud') FROM generate_series(1, 5); SELECT jobq.enqueue('q')});
is(heard(1), 1, 'one notification for a statement');
sql(q{BEGIN; SELECT jobq.enqueue('loud'); SELECT jobq.enqueue_many('loud', '{1,2}'); COMMIT;
	BEGIN; SELECT jobq.enqueue('loud'); ROLLBACK;
	SELECT jobq.enqueue('loud', delay => '1 hour')});
is(heard(1), 1, 'one for a transaction, none for one that is rolled back or for a later job');
is(heard(0), 0, 'no more');
sql(q{SELECT jobq.enqueue('loud', delay => '0.3 s') FROM generate_series(1, 3)});
cmp_ok(heard(1), '>=', 1, 'jobs that become due are notified, too');
sql(q{SELECT jobq.alter_queue('loud', '{"notify": null}'); SELECT jobq.enqueue('loud')});
is(heard(0), 0, 'not any more');
$listener->quit;

# ---- the extended protocol, types as drivers send them ----

my $dir = PostgreSQL::Test::Utils::tempdir;

foreach my $mode (qw(extended prepared))
{
	my $n = 0;

	sql(q{SELECT jobq.purge_queue('q'); SELECT jobq.enqueue('q') FROM generate_series(1, 6)});
	$job = put('loud');
	foreach my $call (
		q{receive(:queue, :n, :wait)},
		q{receive(:queue, :n::smallint, :wait)}, q{receive(:queue, :n::int, :wait)},
		q{receive(:queue, :n, :wait, :lease, :worker, NULL)},
		q{receive_any(:queues, :n, :wait)}, q{wait_for_jobs(:queue, :wait)},
		q{wait_until_idle(:queue, :wait)}, q{wait_for_result(:job, :wait)},
		q{wait_for_result(:job::int, :wait)},
		q{receive(queue => :queue, wait => :wait)})
	{
		my $file = "$dir/call" . $n++ . $mode;

		append_to_file($file, "CALL jobq.$call;\n");
		my ($out, $err);
		IPC::Run::run(
			[
				'pgbench', '-n', '-M', $mode, '-t', '2', '-f', $file,
				'-D', 'queue=q', '-D', 'queues={q}', '-D', 'n=1', '-D', "job=$job",
				'-D', 'wait=0.05 s', '-D', 'lease=1 min', '-D', 'worker=w',
				$node->connstr('postgres')
			],
			'>', \$out, '2>', \$err);
		like($out, qr{actually processed: 2/2}, "CALL $call, $mode") or diag($err);
	}
}

# ---- nobody waits for him who waits ----

is(finish_waiting($longest), '0|t', 'a function waits for 20 s at most')
  or diag($longest->{err});
$session = start_waiting($node, q{CALL jobq.receive('q', 1, '1 hour')});
await_waiting($node, 1, 'CALL%');
is(sqlstate($node, q{SET lock_timeout = '3 s'; DROP EXTENSION pg_jobq}), '00000',
	'DROP EXTENSION does not wait for a CALL');
isnt(finish_waiting($session), '[]', 'and ends it');

$node->stop;
done_testing();
