# Groups: no more jobs of a key run at once than group_limit says, and with 1
# they run in order, whatever happens to them: failures, releases, rollbacks,
# lost leases, a crash of the server. JOBQ_GROUP_KEYS, JOBQ_GROUP_JOBS and
# JOBQ_GROUP_WORKERS scale the property tests.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $KEYS = $ENV{JOBQ_GROUP_KEYS} // 25;
my $JOBS = $ENV{JOBQ_GROUP_JOBS} // 8;
my $WORKERS = $ENV{JOBQ_GROUP_WORKERS} // 16;

my $node = start_audited('groups', 'max_connections = 60');

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub state_of
{
	my ($id) = @_;

	return sql("SELECT state FROM jobq.job($id)");
}

# As many jobs of each key as asked for, in the order of their numbers.
sub enqueue
{
	my ($queue, $keys, $jobs) = @_;

	sql(qq{INSERT INTO audit.ledger
		SELECT jobq.enqueue('$queue', jsonb_build_object('key', k, 'n', n),
			group_key => 'key ' || k)
		FROM generate_series(1, $jobs) n, generate_series(1, $keys) k});
	return;
}

# ---- one at a time, step by step ----

sql(q{SELECT jobq.create_queue('f',
	'{"group_limit": 1, "backoff": {"base": "1 s", "factor": 1, "jitter": 0}}')});
enqueue('f', 2, 3);
is(sql(q{SELECT string_agg(payload->>'key' || '.' || (payload->>'n'), ' ' ORDER BY id)
	FROM jobq.dequeue('f', 10)}),
	'1.1 2.1', 'a batch has one job of each key');
my ($first, $second) = split(/\n/,
	sql(q{SELECT id FROM jobq.jobs WHERE payload->>'key' = '1' ORDER BY id LIMIT 2}));
is(state_of($second), 'blocked', 'the next one is blocked');
is(sql(q{SELECT count(*) FROM jobq.dequeue('f', 10)}), 0, 'nothing more is delivered');

# It fails: while it waits its place is kept, then it is the next.
sql(qq{SELECT jobq.fail($first, (SELECT lease FROM jobq.attempts($first)))});
is(state_of($first), 'retryable', 'a failed job waits');
is(sql(q{SELECT count(*) FROM jobq.dequeue('f', 10)}), 0, 'and keeps its place');
is(state_of($second), 'blocked', 'the next one is still blocked');
ok( await(sub { state_of($first) eq 'available' }),
	'it comes back');
is(sql(q{SELECT id FROM jobq.dequeue('f', 10)}), $first, 'and goes first');
sql(qq{SELECT jobq.release($first, (SELECT max(lease) FROM jobq.attempts($first)))});
is(sql(q{SELECT id FROM jobq.dequeue('f', 10)}), $first, 'so it does when released');

# A claim that is rolled back keeps the place, too.
sql(qq{SELECT jobq.release($first, (SELECT max(lease) FROM jobq.attempts($first)))});
is(sql(qq{BEGIN; SELECT id FROM jobq.dequeue('f', 10); ROLLBACK;
	SELECT count(*) FROM jobq.dequeue('f', 10)}), "$first\n0",
	'a rolled-back claim keeps the place');
ok(await(sub { sql(q{SELECT id FROM jobq.dequeue('f', 10)}) eq $first }),
	'and its job goes first');
sql(qq{SELECT jobq.complete($first, (SELECT max(lease) FROM jobq.attempts($first)))});
is(sql(q{SELECT id FROM jobq.dequeue('f', 10)}), $second,
	'once it has ended the next one goes');

# Cancelled where it waits, or running with grace, it gives the place free.
sql(qq{SELECT jobq.fail($second, (SELECT lease FROM jobq.attempts($second)))});
sql("SELECT jobq.cancel($second)");
my $third = sql(q{SELECT id FROM jobq.dequeue('f', 10)});
isnt($third, '', 'a cancelled job on the shelf keeps no place');
enqueue('f', 1, 1);
sql("SELECT jobq.cancel($third, grace => '1 hour')");
is(sql(q{SELECT count(*) FROM jobq.dequeue('f', 10)}), 0, 'one in grace does');
is( sqlstate($node,
		"SELECT jobq.complete($third, (SELECT max(lease) FROM jobq.attempts($third)))"),
	'JQ014', 'its worker learns it');
is(sql(q{SELECT count(*) FROM jobq.dequeue('f', 10)}), 1, 'and then the next one goes');

# A job that somebody else has in his hands is not overtaken.
sql(q{SELECT jobq.create_queue('h', '{"group_limit": 1}')});
enqueue('h', 1, 3);
my $head = sql(q{SELECT min(id) FROM jobq.jobs WHERE queue = 'h'});
my $other = $node->background_psql('postgres');
$other->query_safe("BEGIN; SELECT jobq.cancel($head)");
is(sql(q{SELECT count(*) FROM jobq.dequeue('h', 10)}), 0,
	'while somebody may put the first one back, the next one waits');
$other->query_safe('ROLLBACK');
is(sql(q{SELECT id FROM jobq.dequeue('h', 10)}), $head, 'it was put back');

# Its own uncommitted jobs.
sql(q{SELECT jobq.create_queue('o', '{"group_limit": 1}')});
is( sql(q{BEGIN;
	INSERT INTO audit.ledger SELECT jobq.enqueue('o', group_key => 'a') FROM generate_series(1, 3);
	INSERT INTO audit.ledger SELECT jobq.enqueue('o', group_key => 'b');
	SELECT count(*) FROM jobq.dequeue('o', 10);
	COMMIT; SELECT count(*) FROM jobq.dequeue('o', 10)}),
	"2\n0", 'the limit holds for jobs that are not committed');
is( sql(q{BEGIN; SAVEPOINT s;
	INSERT INTO audit.ledger SELECT jobq.enqueue('o', group_key => 'c');
	SELECT count(*) FROM jobq.dequeue('o', 10); ROLLBACK TO s;
	INSERT INTO audit.ledger SELECT jobq.enqueue('o', group_key => 'c');
	SELECT count(*) FROM jobq.dequeue('o', 10); COMMIT}),
	"1\n1", 'and gives the place back that was undone');
audit_ok($node, 'step by step');

# Purged by their states: two keys, of each one runs and two are blocked.
sql(q{SELECT jobq.create_queue('s', '{"group_limit": 1}')});
enqueue('s', 2, 3);
sql(q{SELECT FROM jobq.dequeue('s', 10)});
enqueue('s', 3, 1);
is(sql(q{SELECT jobq.purge_queue('s', '{available}')}), 1, 'available ones are purged');
is(sql(q{SELECT jobq.purge_queue('s', '{blocked}')}), 6, 'and blocked ones');
is(sql(q{SELECT string_agg(state, ' ') FROM jobq.jobs WHERE queue = 's'}),
	'running running', 'running ones stay');

# ---- the limit changes, and what happens on retry ----

sql(q{SELECT jobq.create_queue('l', '{"group_limit": 2, "backoff": {"base": "1 h"}}')});
enqueue('l', 1, 10);
is(sql(q{SELECT count(*) FROM jobq.dequeue('l', 10)}), 2, 'two of two');
sql(q{SELECT jobq.alter_queue('l', '{"group_limit": 4}')});
is(sql(q{SELECT count(*) FROM jobq.dequeue('l', 10)}), 2, 'two more of four');
sql(q{SELECT jobq.fail(j.id, a.lease) FROM jobq.jobs j, jobq.attempts(j.id) a
	WHERE j.queue = 'l' AND j.state = 'running'});
sql(q{SELECT jobq.alter_queue('l', '{"group_on_retry": "block"}')});
is(sql(q{SELECT count(*) FROM jobq.dequeue('l', 10)}), 0,
	'those that were on the shelf before keep their places once they block');
sql(q{SELECT jobq.alter_queue('l', '{"group_on_retry": "skip"}')});
is(sql(q{SELECT count(*) FROM jobq.dequeue('l', 10)}), 4,
	'and none when they do not');
sql(q{SELECT jobq.alter_queue('l', '{"group_limit": null}')});
is(sql(q{SELECT count(*) FROM jobq.dequeue('l', 10)}), 2, 'without a limit all go');
audit_ok($node, 'limits changed');

# ---- in order, whatever happens ----

sql(q{
SELECT jobq.create_queue('p', '{"group_limit": 1, "max_attempts": 1000000, "lease_for": "1 s",
	"backoff": {"base": "0 s"}}');
SELECT jobq.create_queue('n', '{"group_limit": 3, "max_attempts": 1000000, "lease_for": "1 s",
	"backoff": {"base": "0 s"}}');
CREATE TABLE done (queue text, key int, n int, PRIMARY KEY (queue, key, n));
CREATE TABLE running (queue text, key int, id bigint);

-- What was delivered is allowed to run now.
CREATE FUNCTION check_delivery(q text, limit_ int, k int, number int, job bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c bigint;
BEGIN
	INSERT INTO running VALUES (q, k, job);
	SELECT count(*) INTO c FROM running r WHERE r.queue = q AND r.key = k;
	IF c > limit_ THEN
		RAISE EXCEPTION 'queue %, key %: % run at once', q, k, c;
	END IF;
	IF limit_ = 1 THEN
		SELECT count(*) INTO c FROM done d WHERE d.queue = q AND d.key = k AND d.n < number;
		IF c <> number - 1 THEN
			RAISE EXCEPTION 'key %: job % runs after % jobs', k, number, c;
		END IF;
	END IF;
END $$;

CREATE PROCEDURE work(q text, limit_ int, total int, chaos float8) LANGUAGE plpgsql AS $$
DECLARE
	d jobq.delivery[];
	dice float8;
BEGIN
	LOOP
		SELECT array_agg(x) INTO d FROM jobq.dequeue(q, 1 + (random() * 3)::int) x;
		IF d IS NULL THEN
			COMMIT;
			EXIT WHEN (SELECT count(*) FROM done WHERE queue = q) >= total;
			PERFORM pg_sleep(0.002);
			CONTINUE;
		END IF;
		FOR i IN 1 .. array_length(d, 1) LOOP
			PERFORM check_delivery(q, limit_, (d[i].payload->>'key')::int,
				(d[i].payload->>'n')::int, d[i].id);
		END LOOP;
		dice := random() / chaos;
		IF dice < 0.1 THEN
			ROLLBACK;
			CONTINUE;
		ELSIF dice < 0.2 THEN
			-- its lease runs out
			DELETE FROM running r WHERE r.id IN (SELECT (unnest(d)).id);
			COMMIT;
			CONTINUE;
		ELSIF dice < 0.6 THEN
			COMMIT;
		END IF;
		BEGIN
			FOR i IN 1 .. array_length(d, 1) LOOP
				dice := random() / chaos;
				DELETE FROM running r WHERE r.id = d[i].id;
				IF dice < 0.15 THEN
					PERFORM jobq.fail(d[i].id, d[i].lease, retry_in =>
						CASE WHEN random() < 0.3 THEN interval '50 ms' ELSE '0' END);
				ELSIF dice < 0.3 THEN
					PERFORM jobq.release(d[i].id, d[i].lease, delay =>
						CASE WHEN random() < 0.3 THEN interval '20 ms' ELSE '0' END);
				ELSE
					PERFORM jobq.complete(d[i].id, d[i].lease);
					INSERT INTO done VALUES (q, (d[i].payload->>'key')::int,
						(d[i].payload->>'n')::int);
				END IF;
				IF random() / chaos < 0.05 THEN
					RAISE EXCEPTION 'undo' USING ERRCODE = 'JQ999';
				END IF;
			END LOOP;
		EXCEPTION WHEN SQLSTATE 'JQ999' OR SQLSTATE 'JQ001' THEN
			-- whoever lost a lease to the clock has nothing to settle
			DELETE FROM running r WHERE r.id IN (SELECT (unnest(d)).id);
		END;
		COMMIT;
	END LOOP;
END $$;
});

# All workers until everything is done, or the server is gone.
sub start_workers
{
	my ($queue, $limit) = @_;
	my @workers;

	foreach my $i (1 .. $WORKERS)
	{
		my %w = (out => '', err => '');

		$w{run} = IPC::Run::start(
			[
				'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d',
				$node->connstr('postgres'), '-c',
				"CALL work('$queue', $limit, $KEYS * $JOBS, 0.5)"
			],
			'>', \$w{out}, '2>', \$w{err});
		push @workers, \%w;
	}
	return @workers;
}

sub finish_workers
{
	my (@workers) = @_;
	my @errors;

	foreach my $w (@workers)
	{
		$w->{run}->finish;
		push @errors, $w->{err} if $w->{err} =~ /ERROR/;
	}
	return join('', @errors);
}

foreach my $case ([ 'p', 1, 'in order' ], [ 'n', 3, 'three at once' ])
{
	my ($queue, $limit, $name) = @$case;

	enqueue($queue, $KEYS, $JOBS);
	is(finish_workers(start_workers($queue, $limit)), '', "$name: no worker saw a fault");
	is(sql("SELECT count(*) FROM done WHERE queue = '$queue'"),
		$KEYS * $JOBS, "$name: all were done");
	is(sql("SELECT count(*) FROM running WHERE queue = '$queue'"), 0, "$name: none runs");
	audit_ok($node, $name);
}

# ---- over a crash ----

sql('DELETE FROM done; DELETE FROM running');
sql(q{SELECT jobq.create_queue('c', '{"group_limit": 1}')});
enqueue('c', 3, 3);
my @held = split(/\n/,
	sql(q{SELECT id || ' ' || lease FROM jobq.dequeue('c', 10) ORDER BY id}));
is(scalar @held, 3, 'one of each key runs');
my ($id1, $lease1) = split(/ /, $held[0]);
my ($id2, $lease2) = split(/ /, $held[1]);
my ($id3, $lease3) = split(/ /, $held[2]);
sql("SELECT jobq.fail($id1, $lease1, retry_in => '1 hour')");
sql("SELECT jobq.release($id2, $lease2)");
sql(q{SELECT jobq.create_queue('g', '{"group_limit": 1}')});
enqueue('g', 1, 2);
my ($grace, $lease4) = split(/ /, sql(q{SELECT id || ' ' || lease FROM jobq.dequeue('g', 10)}));
sql("SELECT jobq.cancel($grace, grace => '1 hour')");
kill_server($node);
$node->start;
await_keeper($node);
is(sql(q{SELECT count(*) FROM jobq.dequeue('g', 10)}), 0, 'grace goes on after a crash');
is(sqlstate($node, "SELECT jobq.complete($grace, $lease4)"), 'JQ014',
	'its worker learns it');
is(sql(q{SELECT count(*) FROM jobq.dequeue('g', 10)}), 1, 'and then the next one goes');
is(sql(q{SELECT string_agg(id::text, ' ') FROM jobq.dequeue('c', 10)}), $id2,
	'after a crash: the released one goes first, those that run or wait keep their places');
sql("SELECT jobq.complete($id3, $lease3)");
is(sql(q{SELECT count(*) FROM jobq.dequeue('c', 10)}), 1, 'the place of one that ran gets free');
sql("SELECT jobq.cancel($id1)");
is(sql(q{SELECT count(*) FROM jobq.dequeue('c', 10)}), 1, 'and of one that waited');
audit_ok($node, 'after a crash');

is(conflicts_logged($node), 0, 'the unique index had nothing to refuse');
$node->stop;
done_testing();
