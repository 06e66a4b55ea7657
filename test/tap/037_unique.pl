# Unique keys under concurrency: sessions race for one key in all four modes,
# with workers, failures and crashes between, and never is there more than one
# job that holds it; the second of two open transactions waits; the keeper
# waits for nobody; keys survive crash, spill, dump and restore.
# JOBQ_UNIQUE_SESSIONS and JOBQ_UNIQUE_ROUNDS: the size of the races.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $SESSIONS = $ENV{JOBQ_UNIQUE_SESSIONS} // 16;
my $ROUNDS = $ENV{JOBQ_UNIQUE_ROUNDS} // 20;

my $node = start_node('unique',
	'max_connections = ' . ($SESSIONS + 40) . "\njobq.max_live_jobs = 1000\ndeadlock_timeout = 100ms\n");
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('q', '{"backoff": {"base": 0}, "lease_for": "1 h"}');
CREATE TABLE seen (mode text, round int, id bigint, outcome text);
});
test_functions($node);
add_auditor($node);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# ---- races: each round one key, all sessions at once ----

# Sessions meet at each round: nobody begins it before all have ended the one
# before. A worker takes and ends the job of each round at once in mode
# 'consume'.
sub race
{
	my ($mode, $while) = @_;
	my $file = $node->basedir . "/race_$mode.sql";
	my $before = sql("SELECT count(*) FROM jobq.jobs WHERE queue = 'q'");

	append_to_file($file, <<"SQL");
SELECT coalesce(max(round), 0) + 1 AS round FROM seen WHERE mode = '$mode.' || :client_id \\gset
SELECT pg_advisory_lock_shared(:round);
SELECT pg_advisory_unlock_shared(:round);
WITH e AS (SELECT * FROM jobq.enqueue_unique('q', to_jsonb(:client_id),
	unique_key => '$mode ' || :round, on_conflict => '$mode', unique_while => '$while'))
	INSERT INTO seen SELECT '$mode.' || :client_id, :round, id, outcome FROM e;
SQL

	# the starter holds the gate of each round until all have come to it
	my $starter = $node->background_psql('postgres');
	$starter->query_safe('SELECT pg_advisory_lock(1)');
	my $pgbench = IPC::Run::start(
		[
			'pgbench', '-n', '-c', $SESSIONS, '-j', 2, '-t', $ROUNDS,
			'-h', $node->host, '-p', $node->port, '-U', 'postgres',
			'-f', $file, 'postgres'
		],
		'>', \my $out, '2>', \my $err);
	for my $round (1 .. $ROUNDS)
	{
		$node->poll_query_until('postgres',
			"SELECT count(*) = $SESSIONS FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
		  or die 'the sessions do not come';
		$starter->query_safe('SELECT pg_advisory_lock(' . ($round + 1) . ')');
		$starter->query_safe("SELECT pg_advisory_unlock($round)");
	}
	$pgbench->finish;
	unlike($err, qr/ERROR(?!.*JQ008|.*taken)/, "$mode: no errors") or diag($err);
	$starter->quit;
	return;
}

foreach my $mode ('ignore', 'replace', 'debounce')
{
	race($mode, $mode eq 'replace' ? 'waiting' : 'live');
	is(sql("SELECT count(*) FROM seen WHERE mode LIKE '$mode.%'"),
		$SESSIONS * $ROUNDS, "$mode: every call has an answer");
	is( sql("SELECT count(*) FROM (SELECT round FROM seen WHERE mode LIKE '$mode.%'
			GROUP BY round HAVING count(DISTINCT id) = 1
			AND count(*) FILTER (WHERE outcome = 'inserted') = 1) x"),
		$ROUNDS, "$mode: one job a round, inserted once");
	my $word = {ignore => 'existing', replace => 'replaced', debounce => 'debounced'}->{$mode};
	is( sql("SELECT count(*) FROM seen WHERE mode LIKE '$mode.%' AND outcome = '$word'"),
		$ROUNDS * ($SESSIONS - 1), "$mode: all others are $word");
	is( sql("SELECT count(*) || ' ' || count(DISTINCT unique_key) FROM jobq.jobs
			WHERE queue = 'q' AND unique_key LIKE '$mode %'"),
		"$ROUNDS $ROUNDS", "$mode: exactly one live job each round");
}
is(sql("SELECT count(*) FROM pg_locks WHERE locktype = 'object'
		AND classid = 'jobq.ukey'::regclass"), 0, 'no lock of a key stays');
