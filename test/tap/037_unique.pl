# Unique keys under concurrency: sessions race for one key in all four modes,
# with workers that end, fail and roll back, and crashes; never do two jobs hold
# it. The second of two open transactions waits for the first, the keeper waits
# for nobody. Keys outlive crashes, a missing keeper, spill, dump and restore.
# JOBQ_UNIQUE_SESSIONS, _ROUNDS, _SECONDS, _CRASHES: how large the races are.
use strict;
use warnings;

use IPC::Run ();
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $SESSIONS = $ENV{JOBQ_UNIQUE_SESSIONS} // 12;
my $ROUNDS = $ENV{JOBQ_UNIQUE_ROUNDS} // 10;
my $SECONDS = $ENV{JOBQ_UNIQUE_SECONDS} // 2;
my $CRASHES = $ENV{JOBQ_UNIQUE_CRASHES} // 1;

my $node = start_node('unique',
	'max_connections = ' . ($SESSIONS + 40) . "\njobq.max_live_jobs = 300\n");
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('race');
SELECT jobq.create_queue('q', '{"lease_for": "1 h", "backoff": {"base": "1 h"}}');
SELECT jobq.create_queue('live', '{"max_attempts": 1000000, "backoff": {"base": 0}}');
SELECT jobq.create_queue('waiting', '{"max_attempts": 1000000, "backoff": {"base": 0}}');
CREATE TABLE seen (mode text, round int, id bigint, outcome text);
CREATE TABLE counted (mode text, round int, live bigint, ended bigint);
CREATE TABLE begun (queue text, key text, id bigint, at timestamptz);
CREATE TABLE ended (id bigint, at timestamptz);

-- One call, and what came of it.
CREATE FUNCTION race_once(mode text, round int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	got record;
BEGIN
	SELECT * INTO got FROM jobq.enqueue_unique('race', to_jsonb(pg_backend_pid()),
		unique_key => 'k', on_conflict => mode);
	INSERT INTO seen VALUES (mode, round, got.id, got.outcome);
EXCEPTION WHEN SQLSTATE 'JQ008' THEN
	INSERT INTO seen VALUES (mode, round, NULL, 'error');
END $$;

-- Count the live jobs, and end them.
CREATE PROCEDURE end_round(mode text, round int) LANGUAGE plpgsql AS $$
DECLARE
	live bigint := (SELECT count(*) FROM jobq.jobs WHERE queue = 'race');
BEGIN
	INSERT INTO counted SELECT mode, round, live, count(jobq.complete(id, lease))
		FROM jobq.dequeue('race', 1000);
END $$;

-- A round begins when all sessions wait for it, at an advisory lock.
CREATE PROCEDURE run_rounds(mode text, rounds int, sessions int) LANGUAGE plpgsql AS $$
BEGIN
	FOR round IN 1 .. rounds LOOP
		FOR i IN 1 .. 30000 LOOP
			EXIT WHEN (SELECT count(*) FROM pg_locks
				WHERE locktype = 'advisory' AND NOT granted) = sessions;
			PERFORM pg_sleep(0.002);
		END LOOP;
		IF round > 1 THEN
			CALL end_round(mode, round - 1);
		END IF;
		COMMIT;
		PERFORM pg_advisory_lock(round + 1), pg_advisory_unlock(round);
	END LOOP;
END $$;

-- What a worker does with a job: most end, some come back, some transactions
-- are rolled back.
CREATE FUNCTION work(queue text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	d record;
	what float := random();
BEGIN
	SELECT * INTO d FROM jobq.dequeue(queue);
	IF d.id IS NULL THEN
		PERFORM pg_sleep(0.001);
		RETURN;
	END IF;
	PERFORM pg_sleep(random() * 0.005);
	IF what < 0.6 THEN
		INSERT INTO ended VALUES (d.id, clock_timestamp());
		PERFORM jobq.complete(d.id, d.lease);
	ELSIF what < 0.75 THEN
		PERFORM jobq.fail(d.id, d.lease);
	ELSIF what < 0.85 THEN
		PERFORM jobq.release(d.id, d.lease);
	ELSIF what < 0.9 THEN
		INSERT INTO ended VALUES (d.id, clock_timestamp());
		PERFORM jobq.cancel(d.id);
	ELSE
		RAISE 'rolled back';
	END IF;
END $$;
CREATE PROCEDURE work_once(queue text) LANGUAGE plpgsql AS $$
DECLARE
	d record;
BEGIN
	-- claimed in the transaction that ends it, or not
	IF random() < 0.5 THEN
		BEGIN
			PERFORM work(queue);
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
		RETURN;
	END IF;
	SELECT * INTO d FROM jobq.dequeue(queue);
	COMMIT;
	IF d.id IS NOT NULL AND random() < 0.5 THEN
		PERFORM jobq.fail(d.id, d.lease);
	ELSIF d.id IS NOT NULL THEN
		INSERT INTO ended VALUES (d.id, clock_timestamp());
		PERFORM jobq.complete(d.id, d.lease);
	END IF;
END $$;
});
test_functions($node);
add_auditor($node);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# What has no ledger of its own is taken as enqueued.
sub audit_all
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	sql(q{INSERT INTO audit.ledger (SELECT id FROM jobq.jobs UNION
		SELECT id FROM jobq.history) EXCEPT SELECT id FROM audit.ledger});
	return audit_ok($node, $name);
}

sub script
{
	my ($name, $text) = @_;
	my $file = $node->basedir . "/$name.sql";

	unlink($file);
	append_to_file($file, $text);
	return $file;
}

sub start_pgbench
{
	my (@arguments) = @_;
	my $run = { err => '' };

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	$run->{run} = IPC::Run::start([ 'pgbench', '-n', @arguments, 'postgres' ],
		'<', \undef, '>', '/dev/null', '2>', \$run->{err});
	return $run;
}

# ---- races: each round all sessions ask for the same key at once ----

foreach my $mode ('ignore', 'error', 'replace', 'debounce')
{
	my $starter = $node->background_psql('postgres');
	$starter->query_safe('SELECT pg_advisory_lock(1)');
	my $bench = start_pgbench(
		'-c', $SESSIONS, '-j', 2, '-t', $ROUNDS, '-D', 'round=0',
		'-f', script("race_$mode", "\\set round :round + 1
			SELECT pg_advisory_lock_shared(:round);
			SELECT pg_advisory_unlock_shared(:round);
			SELECT race_once('$mode', :round);\n"));
	$starter->query_safe("CALL run_rounds('$mode', $ROUNDS, $SESSIONS)");
	ok($bench->{run}->finish, "$mode: the sessions do not fail") or diag($bench->{err});
	sql("CALL end_round('$mode', $ROUNDS)");
	$starter->quit;

	my %other = (ignore => 'existing', error => 'error',
		replace => 'replaced', debounce => 'debounced');
	is( sql("SELECT count(*) FROM counted WHERE mode = '$mode' AND live = 1 AND ended = 1"),
		$ROUNDS, "$mode: exactly one live job each round");
	is( sql("SELECT count(*) FROM (SELECT FROM seen WHERE mode = '$mode'
			GROUP BY round HAVING count(DISTINCT id) = 1
			AND count(*) FILTER (WHERE outcome = 'inserted') = 1
			AND count(*) FILTER (WHERE outcome = '$other{$mode}') = $SESSIONS - 1) x"),
		$ROUNDS, "$mode: inserted once, all others $other{$mode}");
}
is(sql("SELECT count(*) FROM pg_locks WHERE locktype = 'object'
		AND classid = 'jobq.ukey'::regclass"), 0, 'no lock of a key is left');

# ---- churn: sessions enqueue, workers end, fail, roll back ----

sub start_churn
{
	my ($while, $seconds) = @_;
	my $enqueue = script("enqueue_$while", "\\set k random(1, 3)
		\\set m random(1, 3)
		WITH e AS (SELECT * FROM jobq.enqueue_unique('$while', unique_key => :k::text,
			on_conflict => ('{ignore,replace,debounce}'::text[])[:m],
			delay => CASE WHEN random() < 0.1 THEN interval '2 ms' END,
			unique_while => '$while'))
			INSERT INTO begun SELECT '$while', :k, id, clock_timestamp() FROM e
			WHERE outcome = 'inserted';\n");
	my $work = script("work_$while", "CALL work_once('$while');\n");

	return start_pgbench('-c', 8, '-j', 2, '-T', $seconds, '-f', "$enqueue\@2",
		'-f', "$work\@3");
}

# By what clients have seen: the one before had ended when the next began.
my $overlaps = q{SELECT count(*) FROM begun n JOIN begun h
	ON h.queue = n.queue AND h.key = n.key AND h.id < n.id
	WHERE n.queue = 'live' AND NOT EXISTS
	(SELECT FROM ended e WHERE e.id = h.id AND e.at < n.at)};

# Keys with more than one job: live ones, or ones that wait.
sub doubles
{
	my ($while) = @_;
	my $which = $while eq 'live' ? '' : q{AND state <> 'running'};

	return sql("SELECT count(*) FROM (SELECT unique_key FROM jobq.jobs
		WHERE queue = '$while' $which GROUP BY 1 HAVING count(*) > 1) x");
}

sub churned_well
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(await(sub { doubles('waiting') eq '0' }, 20), "$name: at most one waiting job a key")
	  or diag(sql("SELECT * FROM jobq.jobs WHERE queue = 'waiting'; TABLE jobq.ukey"));
	is(doubles('live'), '0', "$name: at most one live job a key");
	is(sql($overlaps), '0', "$name: the one before had ended");
	audit_all($name);
	return;
}

foreach my $while ('live', 'waiting')
{
	my $bench = start_churn($while, $SECONDS);
	ok($bench->{run}->finish, "churn, $while: no errors") or diag($bench->{err});
	cmp_ok(sql("SELECT count(*) FROM begun WHERE queue = '$while'"),
		'>', 20, "churn, $while: jobs came and went");
}
churned_well('churn');
cmp_ok(sql(q{SELECT count(*) FROM jobq.history WHERE queue = 'waiting'
		AND last_error = 'superseded'}), '>', 0, 'some were superseded');

# ---- crashes ----

foreach my $round (1 .. $CRASHES)
{
	my @benches = map { start_churn($_, 60) } 'live', 'waiting';
	my $before = sql('SELECT count(*) FROM begun');
	await(sub { sql('SELECT count(*) FROM begun') > $before + 50 });
	kill_server($node);
	$_->{run}->finish foreach @benches;
	$node->start;
	ok(await_keeper($node), "crash $round: the keeper is back");
	churned_well("crash $round");
}
# For a minute after a crash dequeue needs the keeper; a clean start ends that.
$node->restart;
await_keeper($node);
sql("SELECT jobq.purge_queue('live'), jobq.purge_queue('waiting')");

# A claim that is lost in a crash, and a job that came while it ran.
{
	my $id = sql("SELECT jobq.enqueue('q', unique_key => 'lost', unique_while => 'waiting')");
	my $worker = $node->background_psql('postgres', on_error_stop => 0);
	is($worker->query_safe("BEGIN; SELECT id FROM jobq.dequeue('q')"), $id, 'claimed');
	my $newer = sql("SELECT jobq.enqueue('q', unique_key => 'lost', unique_while => 'waiting')");
	isnt($newer, $id, 'a newer one came');
	kill_server($node);
	eval { $worker->quit };
	$node->start;
	ok( $node->poll_query_until('postgres',
			"SELECT state || last_error = 'cancelledsuperseded' FROM jobq.history WHERE id = $id"),
		'after the crash the older one gives way');
	is(sql("SELECT jobq.enqueue('q', unique_key => 'lost', unique_while => 'waiting')"),
		$newer, 'the newer one holds the key');
	$node->restart;
	await_keeper($node);
	sql("SELECT jobq.purge_queue('q')");
}

# ---- two open transactions ----

my %pid;

sub session
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$pid{$session} = $session->query_safe('SELECT pg_backend_pid()');
	return $session;
}

# Begin a statement that waits; then its answer and SQLSTATE.
sub ask
{
	my ($session, $statement) = @_;

	$session->{stdout} = '';
	$session->{stdin} .= "$statement;\n\\echo answered :SQLSTATE\n";
	$session->{run}->pump_nb;
	return;
}

sub answer
{
	my ($session) = @_;

	$session->{run}->pump
	  until $session->{stdout} =~ /answered \w{5}\n/
	  || $session->{timeout}->is_expired;
	my ($answer, $state) = $session->{stdout} =~ /^(.*?)\n?answered (\w{5})\n/s;
	$session->{stdout} = '';
	$session->{stderr} = '';
	return $state eq '00000' ? $answer : $state;
}

sub waits
{
	my ($session, $statement) = @_;

	ask($session, $statement);
	return wait_lock($node, $pid{$session});
}

my $one = session();
my $two = session();
my $n = 0;

# What the first does to the holder, and how the second's call turns out when
# the first commits, and when it rolls back: h = the holder, n = a new job.
foreach my $case (
	[ 'enqueue', undef, "SELECT jobq.enqueue('q', unique_key => '%k')", 'first', 'new' ],
	[ 'cancel', 'available', 'SELECT jobq.cancel(%h)', 'new', 'holder' ],
	[ 'cancel', 'scheduled', 'SELECT jobq.cancel(%h)', 'new', 'holder' ],
	[ 'reschedule', 'available', "SELECT jobq.reschedule(%h, now() + interval '1 h')", 'holder', 'holder' ],
	[ 'complete', 'running', 'SELECT jobq.complete(%h, %l)', 'new', 'holder' ],
	[ 'fail', 'running', 'SELECT jobq.fail(%h, %l)', 'holder', 'holder' ],
	[ 'replace', 'available', "SELECT jobq.enqueue('q', unique_key => '%k', on_conflict => 'replace')", 'holder', 'holder' ],
	[ 'debounce', 'scheduled', "SELECT jobq.enqueue('q', unique_key => '%k', on_conflict => 'debounce')", 'holder', 'holder' ])
{
	my ($what, $state, $first, @expected) = @$case;

	foreach my $end ('COMMIT', 'ROLLBACK')
	{
		my $key = 'two ' . $n++;
		my ($holder, $lease) = (0, 0);
		my $name = "$what, $end" . ($state ? ", $state holder" : '');

		$holder = sql("SELECT jobq.enqueue('q', unique_key => '$key'"
			  . ($state eq 'scheduled' ? ", delay => '1 h')" : ')')) if $state;
		$lease = sql("SELECT lease FROM jobq.dequeue('q')") if $state && $state eq 'running';
		my $statement = $first =~ s/%k/$key/r =~ s/%h/$holder/r =~ s/%l/$lease/r;

		my $got = $one->query_safe("BEGIN; $statement");
		ok(waits($two, "SELECT jobq.enqueue('q', unique_key => '$key')"),
			"$name: the second waits");
		$one->query_safe($end);
		my $id = answer($two);
		my $is = $id eq $holder ? 'holder' : $id eq $got ? 'first' : 'new';
		is($is, $expected[ $end eq 'COMMIT' ? 0 : 1 ], "$name: then it goes on");
		is(sql("SELECT count(*) FROM jobq.jobs WHERE unique_key = '$key'"),
			1, "$name: one live job");
		sql(q{SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'q'});
	}
}

# Jobs of other roles are not waited for, and locks of keys time out.
sql(q{CREATE ROLE stranger; SELECT jobq.grant_queue('q', 'stranger', '{enqueue}')});
$one->query_safe("BEGIN; SELECT jobq.enqueue('q', unique_key => 'hidden')");
is(sql("SET ROLE stranger; SELECT outcome FROM jobq.enqueue_unique('q', unique_key => 'hidden')"),
	'inserted', 'what one may not see is not waited for');
is(sqlstate($node, "SET lock_timeout = '50 ms'; SELECT jobq.enqueue('q', unique_key => 'hidden')"),
	'55P03', 'lock_timeout applies');
is(sql("SELECT outcome FROM jobq.enqueue_unique('q', unique_key => 'other')"),
	'inserted', 'other keys are free');
$one->query_safe('COMMIT');

# What becomes of a holder between the look at it and its change.
foreach my $case (
	[ 'completed', 'inserted', "SELECT jobq.complete(id, lease) FROM jobq.dequeue('q')" ],
	[ 'running', 'existing', "SELECT id FROM jobq.dequeue('q')" ],
	[ 'put off', 'replaced', "SELECT jobq.reschedule(id, now() + interval '1 h') FROM jobq.peek('q')" ])
{
	my ($name, $expected, $statement) = @$case;

	sql("SELECT jobq.purge_queue('q'); SELECT jobq.enqueue('q', unique_key => 'meanwhile')");
	sql("SELECT pause_at('before-key-conflict')");
	ask($one, "SELECT outcome FROM jobq.enqueue_unique('q', '1', unique_key => 'meanwhile', on_conflict => 'replace')");
	$node->poll_query_until('postgres', 'SELECT paused() > 0');
	sql($statement);
	sql("SELECT pause_at('')");
	is(answer($one), $expected, "meanwhile $name: $expected");
	is(sql("SELECT count(*) FROM jobq.jobs WHERE queue = 'q' AND unique_key = 'meanwhile'"),
		1, "meanwhile $name: one live job");
	sql("SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'q'");
}

# Opposite orders: one of them is told.
$one->query_safe("BEGIN; SELECT jobq.enqueue('q', unique_key => 'a')");
$two->query_safe("BEGIN; SELECT jobq.enqueue('q', unique_key => 'b')");
ask($one, "SELECT jobq.enqueue('q', unique_key => 'b')");
ask($two, "SELECT jobq.enqueue('q', unique_key => 'a')");
my @answers = (answer($one), answer($two));
is(scalar(grep { $_ eq '40P01' } @answers), 1, 'a deadlock ends one of two');
$_->query_safe('ROLLBACK') foreach $one, $two;
sql("SELECT jobq.purge_queue('q')");

# ---- a job that comes back, and somebody who is taking its key ----

foreach my $end ('COMMIT', 'ROLLBACK')
{
	my $expected = $end eq 'COMMIT' ? 'cancelled' : 'retryable';
	my $call = "SELECT jobq.enqueue('q', unique_key => 'w', unique_while => 'waiting')";

	my $id = sql($call);
	my $lease = sql("SELECT lease FROM jobq.dequeue('q')");
	$one->query_safe("BEGIN; $call");
	ok(waits($two, "SELECT jobq.fail($id, $lease)"), "fail, $end: waits for whoever takes the key");
	$one->query_safe($end);
	is(answer($two), $expected, "fail, $end: then it is $expected");
	sql("SELECT jobq.purge_queue('q')");

	# The keeper goes on with others.
	$id = sql($call);
	sql("SELECT lease FROM jobq.dequeue('q', lease_for => '1 s')");
	my $other = sql("SELECT jobq.enqueue('q')");
	sql("SELECT lease FROM jobq.dequeue('q', lease_for => '1 s')");
	$one->query_safe("BEGIN; $call");
	ok($node->poll_query_until('postgres',
			"SELECT state = 'retryable' FROM jobq.job($other)"),
		"keeper, $end: another job's lease expires");
	is(sql("SELECT state FROM jobq.job($id)"), 'running',
		"keeper, $end: that job is left alone");
	$one->query_safe($end);
	ok($node->poll_query_until('postgres',
			"SELECT state = '$expected' FROM jobq.job($id)"),
		"keeper, $end: then it is $expected");
	sql("SELECT jobq.purge_queue('q')");
}
audit_all('two transactions');

# ---- more jobs than memory holds ----

my @spilled = split(/\n/, sql(q{
	SELECT jobq.enqueue('q') FROM generate_series(1, 1000);
	SELECT jobq.enqueue('q', unique_key => 'spilled ' || n,
		unique_while => CASE WHEN n < 3 THEN 'live' ELSE 'waiting' END)
	FROM generate_series(1, 6) n}));
@spilled = @spilled[ -6 .. -1 ];
like(sql(q{SELECT detail FROM jobq.health() WHERE item = 'live_jobs'}),
	qr/wait on disk/, 'they are on disk');
is(sql("SELECT string_agg(jobq.enqueue('q', unique_key => 'spilled ' || n)::text, ',' ORDER BY n)
		FROM generate_series(1, 6) n"), join(',', @spilled), 'and hold their keys');
is(sql("SELECT id || outcome FROM jobq.enqueue_unique('q', '7', unique_key => 'spilled 2',
		on_conflict => 'replace')"), "$spilled[1]replaced", 'one is replaced');
is(sql("SELECT id || outcome FROM jobq.enqueue_unique('q', '8', unique_key => 'spilled 4',
		delay => '1 h', on_conflict => 'debounce')"), "$spilled[3]debounced", 'one is debounced');
is(sql("SELECT string_agg(payload::text || state, ' ' ORDER BY id) FROM jobq.jobs
		WHERE id IN ($spilled[1], $spilled[3])"), '7available 8scheduled', 'as they should be');
sql("SELECT jobq.cancel($spilled[0])");
isnt(sql("SELECT jobq.enqueue('q', unique_key => 'spilled 1')"), $spilled[0], 'one is cancelled');
audit_all('spill');
sql("SELECT jobq.purge_queue('q')");

# ---- without a keeper ----

sql(q{SET jobq.claim_durability = on;
	SELECT jobq.enqueue('q', unique_key => 'runs', unique_while => 'waiting', priority => -1);
	SELECT lease FROM jobq.dequeue('q');
	SELECT jobq.enqueue('q', unique_key => 'waits', unique_while => 'waiting');
	SELECT jobq.enqueue('q', unique_key => 'shelved', delay => '1 h');
	SELECT jobq.enqueue('q', unique_key => 'live');
	ALTER SYSTEM SET jobq.databases = 'none'});
$node->restart;
is( sql(q{SELECT string_agg(outcome, ' ' ORDER BY n)
	FROM unnest('{runs,waits,shelved,live,new}'::text[]) WITH ORDINALITY k (key, n),
	jobq.enqueue_unique('q', unique_key => key, unique_while => 'waiting')}),
	'inserted existing existing existing inserted',
	'without a keeper the tables say who holds a key');
is(sqlstate($node, "SELECT jobq.enqueue('q', unique_key => 'live', on_conflict => 'error')"),
	'JQ008', 'also for an error');
sql('ALTER SYSTEM RESET jobq.databases');
$node->reload;
ok(await_keeper($node), 'the keeper is back');

# ---- dump and restore ----

sql(q{CREATE ROLE ghost; SELECT jobq.grant_queue('q', 'ghost', '{enqueue}');
	CREATE ROLE ghost2; SELECT jobq.grant_queue('q', 'ghost2', '{enqueue}');
	SET ROLE ghost; SELECT jobq.enqueue('q', unique_key => 'waits');
	SET ROLE ghost2; SELECT jobq.enqueue('q', unique_key => 'waits')});
my $holders = sql(q{SELECT string_agg(id::text, ',' ORDER BY unique_key) FROM jobq.jobs
	WHERE queue = 'q' AND unique_key IN ('waits', 'shelved', 'live')
	AND enqueued_by = 'postgres'});
my $dump = $node->basedir . '/unique.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'copy' ], 'restored');
is(sqlstate($node, "SELECT jobq.enqueue('q', unique_key => 'live')", 'copy'),
	'JQ009', 'before adopt() nobody can say whether a job still holds its key');
$node->safe_psql('copy', 'SELECT jobq.adopt()');
ok(await_keeper($node, 'copy'), 'adopted');
is( $node->safe_psql('copy', q{SELECT string_agg(jobq.enqueue('q', unique_key => key)::text, ',')
		FROM unnest('{live,shelved,waits}'::text[]) key}),
	$holders, 'restored jobs hold their keys');
is( $node->safe_psql('copy', q{SELECT jobq.purge_queue('q') > 0;
		SELECT string_agg(outcome, ' ') FROM unnest('{live,shelved,waits}'::text[]) key,
		jobq.enqueue_unique('q', unique_key => key)}),
	"t\ninserted inserted inserted", 'until they end');

$one->quit;
$two->quit;
is(conflicts_logged($node), 0, 'the unique index has saved nobody');
unlike(slurp_file($node->logfile), qr/is not where it should be|PANIC:|TRAP:/,
	'nothing went wrong in the log');
$node->stop;
done_testing();
