# What is counted is what happened: queue_stats, queue_minutes, queue_hours,
# kinds and workers against the tables, over time and over a restart; and
# explain_job() and explain_queue() name the reason.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $NAMES = 300;				# more workers than memory keeps names of
my $KEPT = 256;

my $node = start_audited('seeing', "jobq.max_queues = 16\njobq.max_live_jobs = 2000\n", q{
SELECT jobq.create_queue('q', '{"max_attempts": 2, "backoff": {"base": "1 h", "jitter": 0}}');
SELECT jobq.create_queue('t');
SELECT jobq.create_queue('w');
CREATE ROLE watcher IN ROLE jobq_monitor;
CREATE FUNCTION public.meters_ahead(bigint) RETURNS void LANGUAGE c STRICT
	AS 'pg_jobq', 'jobq_test_meters_ahead';
});

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub stats
{
	my ($what, $queue) = @_;

	$queue //= 'q';
	return sql("SELECT $what FROM jobq.queue_stats WHERE queue = '$queue'");
}

# Seconds by which the meters' clock is ahead.
sub ahead
{
	my ($seconds) = @_;

	return sql("SELECT public.meters_ahead(${seconds}::bigint * 1000000)");
}

# The reason and what else, of a job.
sub reason
{
	my ($id, $what) = @_;

	$what //= 'reason';
	return sql("SELECT $what FROM jobq.explain_job($id)");
}

sub queue_reason
{
	my ($queue, $what) = @_;

	$what //= 'reason';
	return sql("SELECT $what FROM jobq.explain_queue('$queue')");
}

# Enqueue and dequeue at once; the id and the lease.
sub taken
{
	my ($queue, $arguments) = @_;

	return split(
		/\|/,
		sql("SELECT jobq.enqueue('$queue') AS id \\gset
SELECT id, lease FROM jobq.dequeue('$queue'" . ($arguments // '') . ')'));
}

# ---- what came, waited, ran and went ----

# Not over the end of an hour: then there would be no minutes to compare.
is(stats('wait_p50_seconds_5m IS NULL AND run_p50_seconds_5m IS NULL
	AND oldest_available_seconds IS NULL AND enqueued_per_second_1m = 0'),
	't', 'nothing yet');
sql(q{
SELECT jobq.enqueue('q', kind => 'slow', priority => 5) FROM generate_series(1, 20);
SELECT pg_sleep(0.3);
SELECT jobq.enqueue('q', kind => 'fast') FROM generate_series(1, 20);
SELECT jobq.enqueue('q', delay => '1 day');
});
cmp_ok(stats('oldest_available_seconds'), '>=', 0.3, 'the oldest is 0.3 s old');
is( sql(q{SELECT abs(s.oldest_available_seconds - extract(epoch FROM clock_timestamp() - j.run_at)) < 0.2
	FROM jobq.queue_stats s, (SELECT min(run_at) AS run_at FROM jobq.jobs
		WHERE queue = 'q' AND state = 'available') j
	WHERE s.queue = 'q'}),
	't', 'it is the oldest of all priorities');
sql(q{
DO $$ DECLARE d record; BEGIN
	FOR i IN 1 .. 20 LOOP
		SELECT * INTO d FROM jobq.dequeue('q', worker => 'f');
		PERFORM jobq.complete(d.id, d.lease);
		COMMIT;
	END LOOP;
	FOR i IN 1 .. 20 LOOP
		SELECT * INTO d FROM jobq.dequeue('q', worker => 's');
		COMMIT;
		PERFORM pg_sleep(0.05);
		IF i <= 15 THEN
			PERFORM jobq.complete(d.id, d.lease);
		ELSE
			PERFORM jobq.fail(d.id, d.lease, 'no', retry => i <= 18);
		END IF;
		COMMIT;
	END LOOP;
END $$});
is(stats('completed_total, failed_total, dead_total, scheduled, retryable, running'),
	'35|5|2|1|3|0', 'totals');
is(stats('round((enqueued_per_second_1m * 60)::numeric, 3),
	round((completed_per_second_1m * 60)::numeric, 3),
	round((failed_per_second_1m * 60)::numeric, 3)'),
	'41.000|35.000|5.000', 'rates');
my $times = q{SELECT bool_and(got BETWEEN 0.7 * want AND 1.3 * want + 0.02) FROM (
	SELECT unnest(ARRAY[wait_p50_seconds_5m, wait_p95_seconds_5m,
			run_p50_seconds_5m, run_p95_seconds_5m]) AS got,
		unnest(ARRAY[percentile_disc(0.5) WITHIN GROUP (ORDER BY wait),
			percentile_disc(0.95) WITHIN GROUP (ORDER BY wait),
			percentile_disc(0.5) WITHIN GROUP (ORDER BY run),
			percentile_disc(0.95) WITHIN GROUP (ORDER BY run)]) AS want
	FROM (SELECT extract(epoch FROM a.started_at - j.enqueued_at)::float8 AS wait,
			extract(epoch FROM a.finished_at - a.started_at)::float8 AS run
		FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j, jobq.attempts(j.id) a
		WHERE j.queue = 'q') times,
		jobq.queue_stats s WHERE s.queue = 'q'
	GROUP BY wait_p50_seconds_5m, wait_p95_seconds_5m, run_p50_seconds_5m, run_p95_seconds_5m) p};
is(sql($times), 't', 'times are those of the attempts');
is(sql(q{SELECT kind, completed, failed, round((run_p95_seconds * 10)::numeric) FROM jobq.kinds
	WHERE queue = 'q' ORDER BY kind}), "fast|20|0|0\nslow|15|5|1", 'kinds');
is(sql(q{SELECT worker, running, completed, failed, last_seen > first_seen,
	last_seen > now() - interval '1 min' FROM jobq.workers WHERE queue = 'q' ORDER BY worker}),
	"f|0|20|0|t|t\ns|0|15|5|t|t", 'workers');
my $minutes = q{SELECT sum(enqueued), sum(completed), sum(failed), sum(dead),
	count(*) FILTER (WHERE minute = date_trunc('minute', minute)
		AND minute BETWEEN now() - interval '5 min' AND now()) = count(*)
	FROM jobq.queue_minutes WHERE queue = 'q'};
is(sql($minutes), '41|35|5|2|t', 'minutes');

# ---- each way to come and go is counted once ----

# Differences of what is counted over some statements.
sub difference
{
	my ($name, $expected, @sql) = @_;
	my $what = q{SELECT coalesce(sum(enqueued), 0), coalesce(sum(completed), 0),
		coalesce(sum(failed), 0), coalesce(sum(dead), 0)
		FROM jobq.queue_minutes WHERE queue = 't'};
	my @before = split(/\|/, sql($what));

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sql($_) foreach @sql;
	my @after = split(/\|/, sql($what));
	return is(join(' ', map { $after[$_] - $before[$_] } 0 .. 3), $expected, $name);
}

difference('one transaction', '1 1 0 0', q{BEGIN;
SELECT jobq.enqueue('t');
SELECT jobq.complete(id, lease) FROM jobq.dequeue('t');
COMMIT});
difference('rolled back', '0 0 0 0', q{BEGIN;
SELECT jobq.enqueue('t');
SELECT jobq.complete(id, lease) FROM jobq.dequeue('t');
ROLLBACK});
difference('released and retried at once', '1 1 1 0', q{
SELECT jobq.enqueue('t');
SELECT jobq.release(id, lease) FROM jobq.dequeue('t');
SELECT jobq.fail(id, lease, retry_in => '0 s') FROM jobq.dequeue('t');
SELECT jobq.complete(id, lease) FROM jobq.dequeue('t')});
difference('scheduled', '1 1 0 0', q{SELECT jobq.enqueue('t', delay => '0.2 s')},
	q{DO $$ DECLARE d record; BEGIN
	FOR i IN 1 .. 1000 LOOP
		SELECT * INTO d FROM jobq.dequeue('t');
		EXIT WHEN d.id IS NOT NULL;
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
	PERFORM jobq.complete(d.id, d.lease);
END $$});
difference('prepared', '2 0 0 0', q{BEGIN;
SELECT jobq.enqueue('t'), jobq.enqueue('t', delay => '1 day');
PREPARE TRANSACTION 'p'},
	q{COMMIT PREPARED 'p'},
	q{SELECT jobq.run_maintenance()});
sql(q{SELECT jobq.purge_queue('t')});
difference('many in one transaction', '12000 12000 0 0',
	q{BEGIN;
SELECT cardinality(jobq.enqueue_many('t', array_fill('1'::jsonb, ARRAY[6000])));
SELECT cardinality(jobq.enqueue_many('t', array_fill('1'::jsonb, ARRAY[6000])));
COMMIT},
	q{DO $$ DECLARE n int := 1; BEGIN
	WHILE n > 0 LOOP
		SELECT cardinality(jobq.complete_many(array_agg(id), max(lease))) INTO n
			FROM jobq.dequeue('t', 1000);
		COMMIT;
	END LOOP;
END $$});

# ---- several kinds and workers in one transaction ----

sql(q{
SELECT jobq.enqueue('w', kind => k) FROM unnest('{a,b,a,c,a}'::text[]) k;
SELECT array_agg(id)::text AS ids, max(lease) AS lease FROM jobq.dequeue('w', 5, worker => 'm') \gset
SELECT count(*) FROM unnest(jobq.complete_many(:'ids', :lease))});
is(sql(q{SELECT string_agg(kind || completed, ' ' ORDER BY kind) FROM jobq.kinds WHERE queue = 'w'}),
	'a3 b1 c1', 'kinds of a batch');
is(sql(q{SELECT worker, completed FROM jobq.workers WHERE queue = 'w'}), 'm|5', 'and its worker');
my ($id, $lease) = taken('w', q{, worker => 'm', lease_for => '1 hour'});
is(sql(q{SELECT running FROM jobq.workers WHERE queue = 'w'}), 1, 'one runs');
my $seen = sql(q{SELECT last_seen FROM jobq.workers WHERE queue = 'w'});
sql("SELECT jobq.extend($id, $lease)");
is(sql(qq{SELECT last_seen > '$seen' FROM jobq.workers WHERE queue = 'w'}), 't',
	'extend shows that the worker lives');
sql("SELECT jobq.release($id, $lease)");
is(sql(q{SELECT running || ' ' || completed || ' ' || failed FROM jobq.workers WHERE queue = 'w'}), '0 5 0',
	'a release is neither');
($id, $lease) = split(/\|/, sql(q{SELECT id, lease FROM jobq.dequeue('w', worker => 'one that keeps')}));
sql(qq{DO \$\$ BEGIN
	FOR i IN 1 .. $NAMES LOOP
		PERFORM jobq.enqueue('w'), jobq.enqueue('w', kind => 'kind ' || i);
		PERFORM jobq.complete(id, lease) FROM jobq.dequeue('w', 2, worker => 'worker ' || i);
		COMMIT;
	END LOOP;
END \$\$});
is(sql(q{SELECT count(*) FROM jobq.workers}), $KEPT + 1, 'as many workers as there is room, and one that runs');
is(sql(qq{SELECT completed FROM jobq.workers WHERE worker = 'worker $NAMES'}), 2, 'the last one is among them');
is(sql(q{SELECT count(*) FROM jobq.workers WHERE worker = 'worker 1'}), 0, 'the first one is not');
is(sql(q{SELECT running FROM jobq.workers WHERE worker = 'one that keeps'}), 1, 'but who runs a job is');
is(sql(q{SELECT count(*) FROM jobq.kinds}), $KEPT, 'and so with kinds');
cmp_ok(sql(q{SELECT completed FROM jobq.kinds WHERE queue = 'w' AND kind IS NULL}), '>=', $NAMES,
	'a kind that is seen all the time stays');
sql("SELECT jobq.complete($id, $lease)");
is(sql(q{SELECT count(*) FROM jobq.workers WHERE worker = 'one that keeps'}), 0,
	'who has lost its place is not counted as another one');
is(sql(q{SELECT bool_and(completed = 2) FROM jobq.workers WHERE worker LIKE 'worker %'}), 't',
	'nor is anybody else');

# ---- a claim that is lost is no time that a job ran ----

sql(q{SELECT jobq.create_queue('lost', '{"backoff": {"base": "0 s"}}');
SELECT jobq.enqueue('lost');
BEGIN;
SELECT jobq.dequeue('lost', worker => 'l');
ROLLBACK});
ok(await(sub { sql(q{SELECT failed FROM jobq.workers WHERE queue = 'lost'}) eq '1' }),
	'a rolled back claim counts as failed');
is(stats('run_p50_seconds_5m IS NULL', 'lost'), 't', 'but not as a run');

# ---- time passes ----

sub everything
{
	return sql(q{SELECT queue, sum(enqueued), sum(completed), sum(failed), sum(dead)
		FROM jobq.queue_minutes GROUP BY 1 ORDER BY 1}) . "\n"
	  . sql(q{SELECT queue, sum(enqueued), sum(completed), sum(failed), sum(dead),
		max(wait_p50_seconds), max(run_p99_seconds)
		FROM jobq.queue_hours GROUP BY 1 ORDER BY 1});
}

ahead(75);
is(stats('enqueued_per_second_1m + completed_per_second_1m + failed_per_second_1m'), 0,
	'after a minute the rates are 0');
is(stats('run_p50_seconds_5m > 0 AND wait_p50_seconds_5m > 0'), 't', 'the times are known');
ahead(370);
is(stats('run_p50_seconds_5m IS NULL AND wait_p50_seconds_5m IS NULL'), 't',
	'after six minutes they are not');
is(stats('completed_total'), 35, 'totals stay');

my $before = everything();
ahead(7300);
sql('SELECT jobq.run_maintenance()');
my $written = sql(q{SELECT count(*) > 0 FROM jobq.queue_minute});
is($written, 't', 'the keeper has written the minutes down');
is(sql(q{SELECT sum(enqueued), sum(completed), sum(failed), sum(dead)
	FROM jobq.queue_hour h JOIN jobq.queue USING (queue_id) WHERE queue = 'q'}), '41|35|5|2', 'and the hour');
is(everything(), $before, 'nobody can tell the difference');
my ($more, $more_lease) = taken('q');
sql("SELECT jobq.complete($more, $more_lease)");
is(sql(q{SELECT count(*) > 1, sum(completed) FROM jobq.queue_hours WHERE queue = 'q'}), 't|36',
	'another hour, with its own counts');
ahead(7300 + 3600);
taken('t');
ok(await(sub { sql(q{SELECT sum(completed) FROM jobq.queue_hour h JOIN jobq.queue USING (queue_id)
		WHERE queue = 'q'}) eq '36' }),
	'the first thing that happens in an hour has the last one written');
ahead(90_000);
is(sql(q{SELECT count(*) FROM jobq.queue_minutes WHERE minute < now() + interval '1 h'}), 0,
	'minutes are kept a day');
is(sql(q{SELECT sum(completed) FROM jobq.queue_hours WHERE queue = 'q'}), 36, 'hours longer');
sql('SELECT jobq.run_maintenance()');
is(sql(q{SELECT count(*) FROM jobq.queue_minute WHERE minute < now() + interval '1 h'}), 0,
	'the keeper deletes them');
ahead(31 * 86_400);
is(sql(q{SELECT count(*) FROM jobq.queue_hours}), 0, 'but for 30 days');
sql('SELECT jobq.run_maintenance()');
is(sql(q{SELECT count(*) FROM jobq.queue_hour WHERE hour < now() + interval '1 h'}), 0,
	'and deletes these, too');
ahead(0);

# ---- why a job does not run ----

sql(q{SELECT jobq.create_queue('e', '{"max_attempts": 2, "backoff": {"base": "1 h", "jitter": 0}}')});
is(queue_reason('e'), 'empty', 'an empty queue');
$id = sql(q{SELECT jobq.enqueue('e', delay => '1 hour')});
is(reason($id, 'reason, until = (SELECT run_at FROM jobq.job(' . $id . '))'), 'scheduled|t', 'scheduled');
is(queue_reason('e', q{reason, detail, until > now() + interval '59 min'}),
	'empty|No job is available: 0 run, 1 are scheduled, 0 wait for another attempt.|t',
	'a queue that waits');
sql("SELECT jobq.reschedule($id)");
is(reason($id), 'next', 'next');
is(queue_reason('e'), 'available', 'a queue that gives');
my $second = sql(q{SELECT jobq.enqueue('e')});
like(reason($second, 'reason || detail'), qr/^in_line1 jobs/, 'in line');
is(sql(q{WITH x AS MATERIALIZED (SELECT max(jobq.enqueue('e')) AS id FROM generate_series(1, 200)) TABLE x}) > 0, 1, 'many more');
my $last = sql(q{SELECT max(id) FROM jobq.jobs WHERE queue = 'e'});
like(reason($last, 'reason || detail'), qr/^in_lineAt least 128 jobs/, 'far behind');
sql(q{SELECT jobq.pause_queue('e')});
like(reason($second, 'reason || hint'), qr/^pausedSELECT jobq\.resume_queue\('e'\);/, 'paused');
is(queue_reason('e'), 'paused', 'a paused queue');
sql(q{SELECT jobq.resume_queue('e')});
$lease = sql(q{SELECT lease FROM jobq.dequeue('e', worker => 'bee')});
like(reason($id, 'reason || detail'), qr/^runningAttempt 1 of 2 .* "bee"\./, 'running');
is(reason($id, "until = (SELECT lease_expires_at FROM jobq.job($id))"), 't', 'until its lease ends');
my $session = $node->background_psql('postgres', on_error_stop => 1);
$session->query_safe("BEGIN; SELECT jobq.complete($id, $lease)");
my $pid = $session->query_safe('SELECT pg_backend_pid()');
like(reason($id, 'reason || hint'), qr/^busyLook at process $pid /, 'in the hands of a transaction');
$session->query_safe('ROLLBACK');
sql("SELECT jobq.fail($id, $lease, 'x')");
is(reason($id, q{reason, until > now() + interval '59 min', left(detail, 8)}), 'retryable|t|1 of 2 a', 'retryable');
sql("SELECT jobq.reschedule($id)");
$lease = sql(q{SELECT lease FROM jobq.dequeue('e')});
$id = sql("SELECT id FROM jobq.jobs WHERE queue = 'e' AND state = 'running'");
sql("SELECT jobq.fail($id, $lease, 'x', retry => false)");
is(reason($id), 'dead', 'dead');
($id, $lease) = split(/\|/, sql(q{SELECT id, lease FROM jobq.dequeue('e')}));
sql("SELECT jobq.cancel($id, grace => '1 min')");
is(reason($id, q{reason, until > now() + interval '50 s'}), 'cancelled|t', 'cancelled, its worker does not know yet');
is(sqlstate($node, "SELECT jobq.complete($id, $lease)"), 'JQ014', 'now it does');
is(reason($id), 'cancelled', 'cancelled');
($id, $lease) = split(/\|/, sql(q{SELECT id, lease FROM jobq.dequeue('e')}));
sql("SELECT jobq.complete($id, $lease)");
is(reason($id), 'completed', 'completed');
is(reason(12345678901), '', 'no such job');
$session->query_safe('BEGIN');
$id = $session->query_safe(q{SELECT jobq.enqueue('e')});
is($session->query_safe("SELECT reason FROM jobq.explain_job($id)"), 'uncommitted', 'one of our own');
is(reason($id), '', 'which nobody else sees');
$session->query_safe('ROLLBACK');
sql(q{SELECT jobq.create_queue('single')});
$id = sql(q{SELECT jobq.enqueue('single')});
$session->query_safe("BEGIN; SELECT jobq.cancel($id)");
is(queue_reason('single', q{reason, left(detail, 5)}), 'busy|All 1', 'all are in the hands of a transaction');
$session->query_safe('ROLLBACK');
is(queue_reason('single'), 'available', 'and free again');

# ---- more jobs than memory holds, and a keeper that does not come ----

sql(q{SELECT jobq.create_queue('deep', '{"max_batch": 10000}')});
sql(q{SELECT cardinality(jobq.enqueue_many('deep', array_fill('1'::jsonb, ARRAY[5000])))});
$last = sql(q{SELECT max(id) FROM jobq.jobs WHERE queue = 'deep'});
like(reason($last, 'reason || detail'), qr/^spilled.*position is \d+ or later/, 'on disk');
is(sql("SELECT jobq.cancel($last)"), 't', 'it can be cancelled');
is(reason($last), 'cancelled', 'and says so');
$session->query_safe(q{BEGIN; SELECT jobq.purge_queue('deep')});
is(queue_reason('deep'), 'busy', 'all are being cancelled');
$session->query_safe('ROLLBACK');
sql(q{SELECT public.pause_at('before-shelf')});
sql(q{SELECT jobq.enqueue('single', delay => '0.1 s')});
ok(await(sub { sql('SELECT public.paused()') eq '1' }), 'the keeper stops');
$id = sql(q{SELECT jobq.enqueue('single', priority => -100, expires_at => clock_timestamp() + interval '0.2 s')});
usleep(300_000);
is(reason($id), 'expired', 'expired, and the keeper has not ended it yet');
my $behind = sql(q{SELECT max(id) FROM jobq.jobs WHERE queue = 'deep'});
my ($ready) = reason($behind, 'detail') =~ /behind (\d+) jobs/;
cmp_ok($ready, '>', 100, 'a job behind those in memory');
is(sql("SELECT count(*) FROM jobq.dequeue('deep', $ready)"), $ready, 'these are taken');
is(queue_reason('deep'), 'spilled', 'the others are on disk');
sql(q{SELECT public.pause_at('')});
ok(await(sub { queue_reason('deep') eq 'available' }), 'and are loaded');
ok(await(sub { reason($id, 'detail') =~ /^The job ended as expired/ }), 'what has expired is ended');

# ---- what is promised ----

my %columns = (
	queue_stats => 'queue available scheduled blocked retryable running completed_total failed_total '
	  . 'dead_total cancelled_total expired_total oldest_available_seconds enqueued_per_second_1m '
	  . 'completed_per_second_1m failed_per_second_1m '
	  . join(' ', map { my $what = $_; map { "${what}_${_}_seconds_5m" } qw(p50 p95 p99) } qw(wait run)),
	queue_minutes => 'queue minute enqueued completed failed dead',
	kinds => 'queue kind completed failed run_p95_seconds',
	workers => 'worker queue running completed failed first_seen last_seen',);
is(sql("SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'jobq.$_'::regclass AND attnum > 0"), $columns{$_}, "columns of $_")
  foreach sort keys %columns;

# ---- who may see what ----

is(sql(q{SET ROLE watcher; SELECT sum(completed_total) > 0 FROM jobq.queue_stats}), 't', 'a monitor sees counts');
is(sql(q{SET ROLE watcher; SELECT count(*) > 0 FROM jobq.queue_minutes}), 't', 'minutes');
is(sql(q{SET ROLE watcher; SELECT count(*) > 0 FROM jobq.queue_hours}), 't', 'hours');
is(sql(q{SET ROLE watcher; SELECT count(*) > 0 FROM jobq.kinds}), 't', 'kinds');
is(sql(q{SET ROLE watcher; SELECT count(*) > 0 FROM jobq.workers}), 't', 'workers');
is(sql(q{SET ROLE watcher; SELECT reason FROM jobq.explain_queue('e')}), 'available', 'reasons of queues');
is(sqlstate($node, 'SET ROLE watcher; SELECT * FROM jobq.explain_job(1)'), '42501', 'but no job');

# ---- traceparent ----

my $trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
sql(qq{SELECT jobq.create_queue('trace', '{"backoff": {"base": "0 s"}}');
SELECT jobq.enqueue('trace', headers => '{"traceparent": "$trace"}')});
sql(q{SELECT jobq.fail(id, lease) FROM jobq.dequeue('trace')});
$id = sql(q{SELECT id FROM jobq.dequeue('trace')});
is(sql("SELECT attempt, outcome, traceparent FROM jobq.attempts($id)"),
	"1|failed|$trace\n2||$trace", 'attempts show the traceparent');

# ---- wait events ----

# On 15 and 16 they have no name of their own.
ok( $node->poll_query_until('postgres',
		q{SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Extension'
	AND (backend_type, wait_event) IN (('pg_jobq keeper', 'Extension'), ('pg_jobq launcher', 'Extension'),
		('pg_jobq keeper', 'JobqKeeperMain'), ('pg_jobq launcher', 'JobqLauncherMain'))}),
	'keeper and launcher say what they wait for');

# ---- a restart ----

sql(q{SELECT jobq.create_queue('again');
SELECT jobq.enqueue('again', kind => 'long')});
($id, $lease) = split(/\|/, sql(q{SELECT id, lease FROM jobq.dequeue('again', worker => 'patient')}));
my $totals = q{SELECT queue, completed_total, failed_total, dead_total, cancelled_total, expired_total
	FROM jobq.queue_stats ORDER BY queue};
$before = sql($totals);
$node->restart;
await_keeper($node);
is(sql($totals), $before, 'totals survive');
is(sql(q{SELECT worker, running FROM jobq.workers WHERE queue = 'again'}), 'patient|1', 'and who runs what');
sql("SELECT jobq.complete($id, $lease)");
is(sql(q{SELECT completed FROM jobq.workers WHERE queue = 'again'}), 1, 'its worker is known');
is(sql(q{SELECT kind, completed FROM jobq.kinds WHERE queue = 'again'}), 'long|1', 'and its kind');
is(sql('SELECT audit.check_dispatch()'), '', 'memory is sound');

# ---- minutes and hours over restarts ----

my $counted = q{SELECT sum(enqueued), sum(completed), sum(failed), sum(dead) FROM jobq.%s WHERE queue = 'over'};

sub counted_is
{
	my ($expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql(sprintf($counted, 'queue_minutes')), $expected, "minutes: $name");
	is(sql(sprintf($counted, 'queue_hours')), $expected, "hours: $name");
	return;
}

sub restart
{
	$node->restart;
	await_keeper($node);
	return;
}

my $keeper = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper' AND datname = 'postgres'};
sql(q{SELECT jobq.create_queue('over');
SELECT jobq.enqueue('over') FROM generate_series(1, 9);
SELECT jobq.fail(id, lease, retry => false) FROM jobq.dequeue('over');
SELECT jobq.complete_many(array_agg(id), max(lease)) FROM jobq.dequeue('over', 3)});
restart();
counted_is('9|3|1|1', 'known after a restart');
is(sql(q{SELECT wait_p50_seconds >= 0 AND run_p50_seconds >= 0 FROM jobq.queue_hours WHERE queue = 'over'}), 't',
	'with how long it took');
my $rows = q{SELECT xmin, queue_id, minute FROM jobq.queue_minute ORDER BY 2, 3};
$before = sql($rows);
restart();
is(sql($rows), $before, 'what is on disk is not written again');
counted_is('9|3|1|1', 'after another restart');
sql(q{SELECT jobq.complete(id, lease) FROM jobq.dequeue('over');
SELECT jobq.enqueue('over') FROM generate_series(1, 2)});
counted_is('11|4|1|1', 'it goes on');

# A keeper that goes alone leaves memory to the next one.
$pid = sql($keeper);
sql("SELECT pg_terminate_backend($pid)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($keeper) k WHERE pid <> $pid"), 'another keeper');
counted_is('11|4|1|1', 'known to another keeper');
sql(q{SELECT jobq.complete(id, lease) FROM jobq.dequeue('over')});
restart();
counted_is('11|5|1|1', 'after one more restart');
sql(q{SELECT jobq.complete(id, lease) FROM jobq.dequeue('over')});
ahead(7200);
sql('SELECT jobq.run_maintenance()');
counted_is('11|6|1|1', 'when the hour is over');
is(sql(q{SELECT sum(enqueued), sum(completed), count(*) = count(wait) FROM jobq.queue_hour h
	JOIN jobq.queue USING (queue_id) WHERE queue = 'over'}), '11|6|t', 'it is on disk');
ahead(0);

# It is told to stop in the middle of its work: of what is due.
sql(q{SELECT jobq.enqueue('over');
SELECT public.pause_at('before-shelf');
SELECT jobq.enqueue('over', delay => '10 ms')});
ok($node->poll_query_until('postgres', 'SELECT public.paused() > 0'), 'the keeper is at work');
$pid = sql($keeper);
kill('TERM', $pid);
sql(q{SELECT public.pause_at('')});
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($keeper) k WHERE pid <> $pid"), 'it goes');
is(sql(q{SELECT sum(enqueued) FROM jobq.queue_minute JOIN jobq.queue USING (queue_id) WHERE queue = 'over'}), 13,
	'having written first');

# ---- a copy ----

$node->append_conf('postgresql.conf', 'jobq.start_paused = on');
$node->restart;
await_keeper($node);
is(queue_reason('single', 'reason, hint'), 'copy|SELECT jobq.adopt();', 'a queue of a copy');
$id = sql(q{SELECT jobq.enqueue('single')});
is(reason($id), 'copy', 'and a job');

$node->stop;
done_testing();
