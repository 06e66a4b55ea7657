# The crash campaign, widened: JOBQ_CRASH_ROUNDS rounds with small epochs, less
# memory than jobs, prepared transactions that stay open, a standby promoted in
# every tenth round, and kill -9 of the keeper in the middle of what it does to
# epochs. The database "postgres" keeps all history for the auditor; in the
# database "brief" it is dropped at once, and a ledger tells what was done.
use strict;
use warnings;

use CrashLoad;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(usleep time);

my $ROUNDS = setting('CRASH_ROUNDS', 100, 10);
my $SESSIONS = setting('CRASH_SESSIONS', 6);
my @POINTS = qw(before-seal inside-carry before-drop inside-drop);
my @WAYS = (qw(postmaster backend immediate), map { "keeper $_" } @POINTS);

my $seed = $ENV{JOBQ_SEED} || time() ^ $$;
srand($seed);
note("JOBQ_SEED=$seed");
leave_prepared();

my $node = start_node('crash0', 'max_prepared_transactions = 500
max_connections = 60
wal_level = replica
max_wal_senders = 5
wal_keep_size = 256MB
jobq.epoch_rows = 500
jobq.epoch_age = 1s
jobq.max_live_jobs = ' . (200 + int(rand(800))));
$node->safe_psql('postgres', 'CREATE DATABASE brief');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_jobq');
make_crash_queues($node);
$node->safe_psql(
	'brief', q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('brief', '{"retention": 0, "max_attempts": 1000000,
	"lease_for": "1 s", "backoff": {"base": "0 s"}}');
CREATE TABLE ledger (id bigint);
CREATE TABLE effect (id bigint);
});
add_auditor($node);
test_functions($node);

# ---- the database that forgets ----

my $work = q{BEGIN;
SELECT count(*) AS n, coalesce(max(lease), 0) AS lease,
	coalesce(array_agg(id), '{}')::text AS ids FROM jobq.dequeue('brief', 20) \gset
\if :n > 0
INSERT INTO effect SELECT unnest(jobq.complete_many(:ids, :lease));
\endif
END;
};
sub start_brief
{
	return start_bench(
		$node,
		database => 'brief',
		clients => 2,
		seconds => 1_000_000,
		scripts => {
			enqueue => [ 9, "INSERT INTO ledger SELECT jobq.enqueue('brief') FROM generate_series(1, 20);\n" ],
			work => [ 9, $work ],
			# a few take until their lease ends: what carry is for
			abandon => [ 1, "SELECT count(*) FROM jobq.dequeue('brief', lease_for => '20 s');\n" ] });
}

# The server it works on is about to go, or has gone.
sub end_brief
{
	my ($bench) = @_;

	$bench->{run}->signal('TERM');
	eval { $bench->{run}->finish };
	return;
}

sub brief_problems
{
	return $node->safe_psql('brief', q{
SELECT format('job %s was done %s times', id, count(*)) FROM effect
	GROUP BY id HAVING count(*) > 1 LIMIT 5;
SELECT format('job %s was done and never enqueued', id)
	FROM (SELECT id FROM effect EXCEPT SELECT id FROM ledger) e LIMIT 5;
SELECT 'health: ' || detail FROM jobq.health()
	WHERE item = 'index_conflicts' AND status <> 'ok'});
}

# ---- ways to crash ----

sub crash_keeper_at
{
	my ($point) = @_;

	$node->safe_psql('postgres', "SELECT pause_at('$point')");
	my $there = await(
		sub { return $node->safe_psql('postgres', 'SELECT paused()') > 0 }, 10);
	$count{"keeper killed at $point"}++ if $there;
	# Whose keeper it is does not matter: one crash is everybody's.
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'pg_jobq keeper' ORDER BY random() LIMIT 1});
	kill_backend($node, $pid);
	return;
}

sub crash
{
	my ($how) = @_;

	if ($how =~ /^keeper (.*)/)
	{
		crash_keeper_at($1);
	}
	else
	{
		crash_server($node, $how);
	}
	return;
}

# A standby to which every commit is sent before it is acknowledged.
sub start_standby
{
	my ($round) = @_;
	my $standby = PostgreSQL::Test::Cluster->new("crash$round");

	$node->backup("b$round");
	$standby->init_from_backup($node, "b$round", has_streaming => 1);
	$standby->start;
	$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = '*'");
	$node->reload;
	ok( $node->poll_query_until('postgres',
			q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'}),
		"round $round: the standby is synchronous");
	return $standby;
}

# The primary dies, the standby takes over for good.
sub promote
{
	my ($standby) = @_;

	kill_server($node);
	$standby->promote;
	$node = $standby;
	$count{promoted}++;
	return;
}

# Prepared transactions end in a later round than they began in, most of them.
sub end_prepared
{
	my ($share) = @_;

	foreach my $name (split(/\n/, $node->safe_psql('postgres',
		'SELECT gid FROM pg_prepared_xacts')))
	{
		next if rand() > $share;
		my $how = rand() < 0.5 ? 'COMMIT' : 'ROLLBACK';
		$node->safe_psql('postgres', "$how PREPARED '$name'");
		$count{"later: $how PREPARED"}++;
	}
	return;
}

# ---- rounds ----

foreach my $round (1 .. $ROUNDS)
{
	my $how = $round % 10 == 0 ? 'promotion' : $WAYS[ $round % @WAYS ];
	my $start = time();
	my $standby = $how eq 'promotion' ? start_standby($round) : undef;
	my @sessions = start_sessions($node, $round, $SESSIONS);
	my $brief = start_brief();

	# At a random moment, not when something is true.
	usleep(300_000 + rand(1_200_000));
	end_prepared(0.2);
	if ($standby) { promote($standby) }
	else { crash($how) }
	end_brief($brief);
	end_sessions($node, @sessions);
	ok(await_keeper($node), "round $round ($how): the queue is back");
	ok(await_keeper($node, 'brief'), "round $round: the other, too");
	audit_ok($node, "round $round");
	promises_ok($node, "round $round");
	is(brief_problems(), '', "round $round: the ledger");
	note(sprintf("round %d took %.1f s", $round, time() - $start));
	end_prepared(0.5);

	# For a minute after a crash claims are committed by the keeper; a clean
	# restart ends that.
	$node->restart if $round % 2 == 0;
	await_keeper($node) && await_keeper($node, 'brief');
}
end_prepared(1);

# ---- whatever is left can be delivered and completed ----

empty_crash_queues($node, 600);
ok( await(
		sub {
			$node->safe_psql('brief', q{INSERT INTO effect SELECT id FROM
	(SELECT id, jobq.complete(id, lease) FROM jobq.dequeue('brief', 1000)) d});
			return $node->safe_psql('brief', 'SELECT count(*) FROM jobq.jobs') eq '0';
		}, 600),
	'the other one, too');
audit_ok($node, 'all done');
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM audit.ledger l WHERE NOT EXISTS
		(SELECT FROM jobq.history h WHERE h.id = l.id)'),
	'0', 'every job that was ever committed is final');
is(brief_problems(), '', 'nothing was done twice');
is( $node->safe_psql('brief',
		'SELECT count(*) FROM (SELECT id FROM ledger EXCEPT SELECT id FROM effect) l'),
	'0', 'everything was done');

is(join("\n", @strange), '', 'nobody was told anything strange');
note("$_: $count{$_}") for sort keys %count;
cmp_ok($count{$_} // 0, '>', 0, "$_ has happened")
  for step_names(), map { "keeper killed at $_" } @POINTS;
cmp_ok($count{promoted} // 0, '==', int($ROUNDS / 10), 'standbys were promoted');
figure('crashes', "$ROUNDS rounds",
	$node->safe_psql('postgres', q{SELECT count(*) || ' enqueued' FROM audit.ledger}),
	$node->safe_psql('brief', q{SELECT count(*) || ' enqueued in the other' FROM ledger}),
	$node->safe_psql('brief', q{SELECT max(epoch) || ' epochs there' FROM jobq.epoch}),
	map { "$_ " . ($count{$_} // 0) } 'promoted', map { "keeper killed at $_" } @POINTS);
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:/, 'no panic');

$node->stop;
done_testing();
