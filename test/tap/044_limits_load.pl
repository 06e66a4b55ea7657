# Sixteen sessions against each limit, and against all of them at once: they
# complete, fail, release, roll back, let leases expire, cancel, and the server
# crashes. Nobody may ever see more than a limit allows, and in the end all that
# it allows must be there.
#
# JOBQ_SECONDS: how long each case takes.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $SECONDS = $ENV{JOBQ_SECONDS} || 2;
my $HALF = int(($SECONDS + 1) / 2);
my $JOBS = 1000 * $SECONDS;
my $node = start_node('load', "jobq.epoch_rows = 1000\njobq.epoch_age = 1s\n");
my $dir = PostgreSQL::Test::Utils::tempdir;

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sql('CREATE EXTENSION pg_jobq;');
add_auditor($node);
await_keeper($node);

# What the sessions see. A job runs at least from when the worker has it until
# just before it gives it back; a delivery is at its claimed_at.
sql(q{
CREATE TABLE ran (queue text, id bigint, since timestamptz, until timestamptz);

-- The end of a job; what it returns tells whether it was still ours.
CREATE FUNCTION settle(id bigint, lease bigint, how float) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	IF how < 0.6 THEN
		PERFORM jobq.complete(id, lease);
	ELSIF how < 0.8 THEN
		PERFORM jobq.fail(id, lease, 'no', retry_in => '0');
	ELSE
		PERFORM jobq.release(id, lease);
	END IF;
	RETURN true;
EXCEPTION WHEN SQLSTATE 'JQ001' OR SQLSTATE 'JQ014' THEN
	RETURN false;
END $$;

CREATE PROCEDURE work(name text) LANGUAGE plpgsql AS $$
DECLARE
	how float := random();
	began timestamptz;
	ended timestamptz;
	job jobq.delivery;
	jobs jobq.delivery[];
BEGIN
	SELECT array_agg(d) INTO jobs
		FROM jobq.dequeue(name, 1 + floor(random() * 3)::int) d;
	began := clock_timestamp();
	IF how < 0.1 THEN
		PERFORM pg_sleep(random() * 0.01);
		ended := clock_timestamp();
		ROLLBACK;
		INSERT INTO ran SELECT name, (j).id, began, ended FROM unnest(jobs) j;
		RETURN;
	END IF;
	COMMIT;
	FOREACH job IN ARRAY coalesce(jobs, '{}') LOOP
		PERFORM pg_sleep(random() * 0.01);
		ended := clock_timestamp();
		IF random() < 0.02 THEN
			-- abandoned; until its lease expires at the earliest
			INSERT INTO ran VALUES (name, job.id, began, job.lease_expires_at);
		ELSIF random() < 0.03 THEN
			PERFORM jobq.cancel(job.id, grace => '0.02 s');
			INSERT INTO ran VALUES (name, job.id, began, ended);
		ELSIF settle(job.id, job.lease, random()) THEN
			INSERT INTO ran VALUES (name, job.id, began, ended);
		END IF;
		COMMIT;
	END LOOP;
END $$;

CREATE PROCEDURE produce(name text) LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
BEGIN
	BEGIN
		ids := jobq.enqueue_many(name,
			array_fill('{}'::jsonb, ARRAY[1 + floor(random() * 3)::int]),
			group_key => 'g' || floor(random() * 3)::int);
	EXCEPTION WHEN SQLSTATE 'JQ005' OR SQLSTATE 'JQ006' THEN
		RETURN;
	END;
	IF random() < 0.2 THEN
		ROLLBACK;
		RETURN;
	END IF;
	INSERT INTO audit.ledger SELECT unnest(ids);
END $$;
});

sub create
{
	my ($queue, $options, $jobs) = @_;

	sql(qq{SELECT jobq.create_queue('$queue', '{"lease_for": "1 s", "max_attempts": 1000,
		"backoff": {"base": 0}, "max_batch": 1000000, $options}');
		INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('$queue',
		array_fill('{}'::jsonb, ARRAY[$jobs])))});
	return;
}

# Scripts that 16 sessions run for some seconds; a crash in between, if wanted.
sub load
{
	my ($seconds, @calls) = @_;
	my @scripts;

	foreach my $call (@calls)
	{
		my $file = "$dir/" . scalar(@scripts) . '.sql';
		open(my $out, '>', $file) or die "$file: $!";
		print $out "CALL $call;\n";
		close($out);
		push @scripts, '-f', $file;
	}
	my $err;
	my $done = IPC::Run::run([ 'pgbench', '-n', '-c', '16', '-j', '2', '-T',
			$seconds, '-h', $node->host, '-p', $node->port, @scripts,
			'postgres' ], '>', '/dev/null', '2>', \$err);

	ok($done, "16 sessions: @calls") or diag(substr($err, -1000));
	return;
}

# The most jobs that were seen running at a time.
sub most_running
{
	my ($queue) = @_;

	return sql(qq{SELECT max(n) FROM (SELECT sum(step) OVER (ORDER BY at, step) AS n
		FROM (SELECT since AS at, 1 AS step FROM ran WHERE queue = '$queue'
			UNION ALL SELECT until, -1 FROM ran WHERE queue = '$queue') s) x});
}

# A query for all deliveries of a queue that have ended, of all epochs.
sub delivered
{
	my ($queue) = @_;
	my $epochs = sql('SELECT string_agg(epoch::text, \' \') FROM jobq.epoch');

	return join(' UNION ALL ', map { qq{SELECT o.claimed_at, o.finished_at,
		o.attempt_outcome AS how, EXISTS (SELECT FROM jobq.claim_$_ c
			WHERE c.flag = 'p' AND c.lease = o.lease) AS probe
		FROM jobq.outcome_$_ o JOIN jobq.queue q USING (queue_id)
		WHERE q.queue = '$queue' AND o.attempt_outcome IS NOT NULL
		AND o.claimed_at IS NOT NULL} } split(/ /, $epochs));
}

# Probes that were not alone, or came too early after one that had failed; and
# were there any?
sub false_probes
{
	my ($queue, $open) = @_;
	my $delivered = delivered($queue);

	return sql(qq{WITH d AS MATERIALIZED ($delivered)
		SELECT (SELECT count(*) FROM d p JOIN d o
				ON o.claimed_at > p.claimed_at AND o.claimed_at < p.finished_at
			WHERE p.probe),
			(SELECT count(*) FROM d p JOIN d o
				ON o.claimed_at > p.claimed_at AND o.claimed_at < p.finished_at + '$open'
			WHERE p.probe AND p.how IN ('f', 'l')),
			(SELECT count(*) > 2 FROM d WHERE probe)});
}

# How many deliveries were there within a period that should not have been?
# Each has an outcome or is running.
sub too_fast
{
	my ($queue, $limit, $period) = @_;
	my $outcomes = delivered($queue);

	return sql(qq{SELECT count(*) FILTER (WHERE later - at <= '$period'), count(*) > $limit
		FROM (SELECT claimed_at AS at, lead(claimed_at, $limit) OVER (ORDER BY claimed_at) AS later
			FROM ($outcomes) o) x});
}

sub await_idle
{
	my ($queue) = @_;

	return await(sub {
		return sql(qq{SELECT running + retryable FROM jobq.queue_stats
			WHERE queue = '$queue'}) eq '0' }, 20);
}

sub take
{
	my ($queue) = @_;

	return sql("SELECT count(*) FROM jobq.dequeue('$queue', 100000)");
}

# ---- max_active ----

create('active', '"max_active": 5', $JOBS * 4);
load($SECONDS, "work('active')");
my $most = most_running('active');
cmp_ok($most, '<=', 5, 'never more than max_active run');
cmp_ok($most, '>', 1, 'and more than one');
ok(await_idle('active'), 'all places are given back');
is(take('active'), 5, 'and can be had');

# ---- rate_limit ----

create('rate', '"rate_limit": {"limit": 20, "period": "500 ms"}', $JOBS);
load($SECONDS, "work('rate')");
is(too_fast('rate', 20, '500 ms'), '0|t', 'never more in a period than the rate');
cmp_ok(sql(q{SELECT count(*) FROM ran WHERE queue = 'rate'}), '>=',
	20 * ($SECONDS * 2 - 2) * 0.8, 'and about as many as it allows');
ok(await_idle('rate'), 'all is quiet');
usleep(500_000);
is(take('rate'), 20, 'then a whole rate is to be had');

# ---- circuit_breaker ----

create('breaker',
	'"circuit_breaker": {"failures": 5, "window": "200 ms", "open": "200 ms"}',
	$JOBS * 2);
load($SECONDS, "work('breaker')");
is(false_probes('breaker', '200 ms'), '0|0|t',
	'each probe is alone, and nothing comes while the breaker is open');
ok(await_idle('breaker'), 'all is quiet');
ok(await(sub { take('breaker') > 0 }, 10), 'it does not stay open');

# ---- enqueuing ----

create('depth', '"max_depth": 30', 20);
load($SECONDS, "produce('depth')", "work('depth')");
ok(await_idle('depth'), 'all is quiet');
sql(q{SELECT jobq.purge_queue('depth')});
is(sqlstate($node, q{INSERT INTO audit.ledger SELECT unnest(
	jobq.enqueue_many('depth', array_fill('{}'::jsonb, ARRAY[30])))}),
	'00000', 'all of it is there again');
is(sqlstate($node, q{SELECT jobq.enqueue('depth')}), 'JQ006', 'and not more');
create('full', '"max_depth": 50', 10);
load($HALF, "produce('full')");
is(sql(q{SELECT available FROM jobq.queue_stats WHERE queue = 'full'}), 50,
	'exactly as many as may');

create('slowly', '"enqueue_limit": {"limit": 30, "period": "300 ms", "per": "group"}', 1);
load($SECONDS, "produce('slowly')");
is(sql(q{SELECT count(*) FILTER (WHERE later - at <= '300 ms'), count(*) > 100 FROM
	(SELECT enqueued_at AS at, lead(enqueued_at, 30) OVER
		(PARTITION BY group_key ORDER BY enqueued_at) AS later
	 FROM jobq.jobs WHERE queue = 'slowly') x}), '0|t',
	'no group enqueues faster than it may');

# ---- all at once, with crashes ----

create('all', '"max_active": 4, "rate_limit": {"limit": 100, "period": "500 ms"},
	"circuit_breaker": {"failures": 5, "window": "200 ms", "open": "100 ms"},
	"max_depth": 200, "enqueue_limit": {"limit": 50, "period": "100 ms"}', 50);
load($SECONDS, "produce('all')", "work('all')");
foreach my $crash (1 .. 2)
{
	my $victim = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $victim->query_safe(
		"SELECT pg_backend_pid() FROM jobq.dequeue('all', 2) LIMIT 1") =~ s/\D//gr
	  || $victim->query_safe('SELECT pg_backend_pid()');
	kill_backend($node, $pid);
	eval { $victim->quit };
	await_keeper($node);
	load($HALF, "produce('all')", "work('all')");
}
cmp_ok(most_running('all'), '<=', 4, 'all limits at once: max_active');
is(too_fast('all', 100, '500 ms'), '0|t', 'the rate');
like(false_probes('all', '100 ms'), qr/^0\|0\|/, 'the breaker');
ok(await_idle('all'), 'all is quiet');
sql(q{SELECT jobq.alter_queue('all', '{"circuit_breaker": null}')});
usleep(500_000);
is(take('all'), 4, 'no place is lost');

audit_ok($node, 'at the end');
done_testing();
