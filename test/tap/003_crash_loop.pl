# The server is killed again and again under load; after each restart the
# auditor proves that every committed job is waiting, running or final, that
# none ended twice, and that every acknowledged completion is there.
use strict;
use warnings;

use CrashLoad;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $ROUNDS = $ENV{JOBQ_ROUNDS} || 20;
my $SESSIONS = 8;

my $seed = $ENV{JOBQ_SEED} || time() ^ $$;
srand($seed);
note("JOBQ_SEED=$seed");

my $node = start_node('crash', 'max_prepared_transactions = 50');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_jobq');
make_crash_queues($node);
add_auditor($node);

my @ways = qw(postmaster backend immediate);
foreach my $round (1 .. $ROUNDS)
{
	my $how = $ways[ $round % 3 ];
	my $start = time();
	my @sessions = start_sessions($node, $round, $SESSIONS);

	# At a random moment, not when something is true.
	usleep(300_000 + rand(1_200_000));
	crash_server($node, $how);
	end_sessions($node, @sessions);
	ok(await_keeper($node), "round $round ($how): the queue is back");
	audit_ok($node, "round $round");
	promises_ok($node, "round $round");
	note(sprintf("round %d took %.1f s", $round, time() - $start));

	# For a minute after a crash claims are committed by the keeper; a clean
	# restart ends that.
	$node->restart if $round % 2 == 0;
	await_keeper($node);
}

# Transactions that a crash found prepared.
foreach my $name (
	split(/\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts')))
{
	$node->safe_psql('postgres', "COMMIT PREPARED '$name'");
	note("$name was left prepared");
}

# Whatever is left can be delivered and completed.
empty_crash_queues($node);
audit_ok($node, 'all done');
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM audit.ledger l WHERE NOT EXISTS
		(SELECT FROM jobq.history h WHERE h.id = l.id)'),
	'0', 'every job that was ever committed is final');

is(join("\n", @strange), '', 'nobody was told anything strange');
is(conflicts_logged($node), 0, 'the unique index has saved nobody');
my $grand = $node->safe_psql('postgres',
	q{SELECT (SELECT count(*) FROM audit.ledger) || ' enqueued, ' ||
		(SELECT count(*) FROM audit.acknowledged) || ' known to be completed, ' ||
		(SELECT count(*) FROM jobq.history WHERE state = 'completed') || ' completed'});
note($grand);
note("$_: $count{$_}") for sort keys %count;
cmp_ok($count{$_} // 0, '>', 0, "$_ has happened") for step_names();
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:/, 'no panic');

$node->stop;
done_testing();
