# LimitLoad.pm: sixteen sessions that work on queues with limits, and what the
# tables tell of it afterwards: deliveries, how many ran, how many waited. What
# sessions do is random: complete, fail, release, roll back, cancel, abandon.
package LimitLoad;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_limits sql create fill load load_and_crash most_running
  most_waiting too_fast false_probes await_idle take);
our @EXPORT_OK = qw(start_sessions sessions_ok);

my $SESSIONS = 16;
my $dir = PostgreSQL::Test::Utils::tempdir;
my $node;

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# A server with the procedures that sessions call. What they see goes into ran:
# a job runs at least from when the worker has it until just before it gives it
# back; a delivery is at its claimed_at.
sub start_limits
{
	my ($name, $conf) = @_;

	$node = start_node($name,
		"jobq.epoch_rows = 1000\njobq.epoch_age = 1s\n" . ($conf // ''));
	sql('CREATE EXTENSION pg_jobq');
	add_auditor($node);
	await_keeper($node);
	sql(<<'SQL');
CREATE TABLE ran (queue text, id bigint, group_key text, since timestamptz,
	until timestamptz);

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
		INSERT INTO ran SELECT name, (j).id, (j).group_key, began, ended
			FROM unnest(jobs) j;
		RETURN;
	END IF;
	COMMIT;
	FOREACH job IN ARRAY coalesce(jobs, '{}') LOOP
		PERFORM pg_sleep(random() * 0.01);
		ended := clock_timestamp();
		IF random() < 0.02 THEN
			-- abandoned; until its lease expires at the earliest
			INSERT INTO ran VALUES (name, job.id, job.group_key, began,
				job.lease_expires_at);
		ELSIF random() < 0.05 THEN
			PERFORM jobq.cancel(job.id, grace =>
				CASE WHEN random() < 0.5 THEN interval '0.02 s' END);
			INSERT INTO ran VALUES (name, job.id, job.group_key, began, ended);
		ELSIF settle(job.id, job.lease, random()) THEN
			INSERT INTO ran VALUES (name, job.id, job.group_key, began, ended);
		END IF;
		COMMIT;
	END LOOP;
END $$;

-- Nothing comes back: taken and completed at once, if not cancelled.
CREATE PROCEDURE finish(name text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM jobq.complete_many(ids, lease, 'skip')
		FROM (SELECT array_agg(id) AS ids, max(lease) AS lease
			FROM jobq.dequeue(name, 1 + floor(random() * 3)::int)) d;
END $$;

-- Now and then all that waits goes.
CREATE PROCEDURE purge(name text) LANGUAGE plpgsql AS $$
BEGIN
	IF random() < 0.05 THEN
		PERFORM jobq.purge_queue(name);
		IF random() < 0.5 THEN
			ROLLBACK;
		END IF;
	END IF;
END $$;

-- Somebody may have taken them meanwhile: then a worker thinks that they run.
CREATE PROCEDURE cancel_some(name text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM jobq.cancel(id) FROM (SELECT id FROM jobq.jobs
		WHERE queue = name AND state <> 'running' LIMIT 2) j;
	IF random() < 0.3 THEN
		ROLLBACK;
	END IF;
END $$;

-- In a subtransaction, which is undone sometimes, or when it is refused.
CREATE FUNCTION produce_some(name text, undo float) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
BEGIN
	ids := jobq.enqueue_many(name,
		array_fill('{}'::jsonb, ARRAY[1 + floor(random() * 3)::int]),
		group_key => 'g' || floor(random() * 3)::int,
		delay => CASE WHEN random() < 0.1 THEN interval '5 ms' END);
	IF random() < undo THEN
		RAISE 'not after all' USING ERRCODE = 'JQ999';
	END IF;
	RETURN ids;
EXCEPTION WHEN SQLSTATE 'JQ005' OR SQLSTATE 'JQ006' OR SQLSTATE 'JQ999' THEN
	RETURN '{}';
END $$;

CREATE PROCEDURE produce(name text) LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[] := produce_some(name, 0.2) || produce_some(name, 0);
BEGIN
	IF random() < 0.2 THEN
		ROLLBACK;
		RETURN;
	END IF;
	INSERT INTO audit.ledger SELECT unnest(ids);
END $$;

-- Since when jobs waited that nobody had taken yet, and how long. To be called
-- when none runs.
CREATE FUNCTION waited(name text) RETURNS TABLE (id bigint, since timestamptz,
	until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	n int;
BEGIN
	CREATE TEMP TABLE place (id bigint, since timestamptz, until timestamptz);
	FOR n IN SELECT epoch FROM jobq.epoch LOOP
		EXECUTE format('INSERT INTO place SELECT j.id,
			coalesce(j.enqueued_at, j.run_at),
			coalesce(o.claimed_at, CASE WHEN o.ended <> ''m'' THEN o.finished_at END)
			FROM jobq.job_%1$s j LEFT JOIN jobq.outcome_%1$s o USING (ticket)
			WHERE j.queue_id = (SELECT queue_id FROM jobq.queue WHERE queue = $1)',
			n) USING name;
	END LOOP;
	RETURN QUERY SELECT p.id, min(p.since), min(p.until) FROM place p GROUP BY 1;
	DROP TABLE place;
END $$;
SQL
	return $node;
}

# A queue whose jobs come back at once, with some of them, in so many groups (0:
# without).
sub create
{
	my ($queue, $options, $jobs, $groups) = @_;

	sql(qq{SELECT jobq.create_queue('$queue', '{"lease_for": "1 s", "max_attempts": 1000,
		"backoff": {"base": 0}, "max_batch": 1000000, $options}')});
	fill($queue, $jobs, $groups) if $jobs;
	return;
}

sub fill
{
	my ($queue, $jobs, $groups) = @_;
	my $each = $groups ? $jobs / $groups : $jobs;
	my $keys = $groups ? "SELECT 'g' || n FROM generate_series(0, $groups - 1) n" : 'SELECT NULL';

	sql(qq{INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('$queue',
		array_fill('{}'::jsonb, ARRAY[$each]), group_key => key)) FROM ($keys) k(key)});
	return;
}

# Statements that so many sessions choose from for some seconds.
sub start_sessions
{
	my ($on, $sessions, $seconds, @statements) = @_;
	my @scripts;
	my $load = { err => '' };

	foreach my $statement (@statements)
	{
		my $file = "$dir/" . scalar(@scripts) . '.sql';
		open(my $out, '>', $file) or die "$file: $!";
		print $out "$statement\n";
		close($out);
		push @scripts, '-f', $file;
	}
	$load->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', $sessions, '-j', '2',
			'-T', $seconds, '-h', $on->host, '-p', $on->port, @scripts,
			'postgres' ], '>', '/dev/null', '2>', \$load->{err});
	return $load;
}

# None of them fails.
sub sessions_ok
{
	my ($load, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($load->{run}->finish, $name) || diag(substr($load->{err}, -1000));
}

sub load
{
	my ($seconds, @statements) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sessions_ok(start_sessions($node, $SESSIONS, $seconds, @statements),
		"$SESSIONS sessions: @statements");
	return;
}

# The same, and the server is killed in the middle of it.
sub load_and_crash
{
	my ($seconds, @statements) = @_;
	my $load = start_sessions($node, $SESSIONS, $seconds * 10, @statements);

	sql("SELECT pg_sleep($seconds)");
	kill_server($node);
	$load->{run}->finish;
	$node->start;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(await_keeper($node), 'killed while they are at it, and started again');
	return;
}

# The largest sum at any time, of what is there from `since` to `until`.
sub most
{
	my ($from, $by) = @_;

	return sql(qq{WITH f AS MATERIALIZED (SELECT since, until, $by AS one FROM $from)
		SELECT coalesce(max(n), 0) FROM
		(SELECT sum(step) OVER (PARTITION BY one ORDER BY at, step) AS n
		FROM (SELECT since AS at, 1 AS step, one FROM f
			UNION ALL SELECT until, -1, one FROM f WHERE until IS NOT NULL) s) x});
}

# The most jobs of a queue, or of a group of it, that were seen running.
sub most_running
{
	my ($queue, $by) = @_;

	return most("(SELECT * FROM ran WHERE queue = '$queue') r", $by // '0');
}

# The most jobs that waited and had never been taken.
sub most_waiting
{
	my ($queue) = @_;

	return most("waited('$queue') w", '0');
}

# How many deliveries of a queue, or of a group of it, were there within a period
# that should not have been; and were there more at all?
sub too_fast
{
	my ($queue, $limit, $period, $where) = @_;
	my $by = defined $where ? 'group_key' : '0';

	$where //= 'true';
	return sql(qq{SELECT count(*) FILTER (WHERE later - at <= '$period'), count(*) > $limit
		FROM (SELECT claimed_at AS at, lead(claimed_at, $limit) OVER
				(PARTITION BY $by ORDER BY claimed_at) AS later
			FROM audit.deliveries('$queue') WHERE $where) x});
}

# Probes that were not alone, or came too early after one that had failed; and
# were there any?
sub false_probes
{
	my ($queue, $open) = @_;

	return sql(qq{WITH d AS MATERIALIZED (SELECT * FROM audit.deliveries('$queue'))
		SELECT (SELECT count(*) FROM d p JOIN d o
				ON o.claimed_at > p.claimed_at AND o.claimed_at < p.finished_at
			WHERE p.probe),
			(SELECT count(*) FROM d p JOIN d o
				ON o.claimed_at > p.claimed_at AND o.claimed_at < p.finished_at + '$open'
			WHERE p.probe AND p.how IN ('f', 'l')),
			(SELECT count(*) > 2 FROM d WHERE probe)});
}

sub await_idle
{
	my ($queue) = @_;

	return await(sub {
		return sql(qq{SELECT running + retryable + scheduled FROM jobq.queue_stats
			WHERE queue = '$queue'}) eq '0' }, 20);
}

# How many jobs are to be had.
sub take
{
	my ($queue) = @_;

	return sql("SELECT count(*) FROM jobq.dequeue('$queue', 100000)");
}

1;
