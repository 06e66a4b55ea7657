# DROP EXTENSION and DROP DATABASE while the queues are busy: quick, and
# nothing stays behind.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = start_node('drop');
my $dir = PostgreSQL::Test::Utils::tempdir;
my $file = "$dir/load.sql";

append_to_file(
	$file, q{
\set q random(1, 3)
SELECT jobq.enqueue('q' || :q, delay => CASE random() < 0.2 WHEN true THEN '0.1 s'::interval END);
SELECT jobq.enqueue_many('q' || :q, array_fill('{}'::jsonb, ARRAY[10]));
SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q' || :q, 3);
SELECT count(jobq.fail(id, lease, 'x')) FROM jobq.dequeue('q' || :q, 3);
BEGIN;
SELECT count(*) FROM jobq.dequeue('q' || :q, 3);
SELECT jobq.enqueue('q' || :q);
ROLLBACK;
SELECT count(*) FROM jobq.jobs WHERE queue = 'q1' AND state = 'running';
SELECT jobq.cancel(id) FROM jobq.peek('q1') LIMIT 1;
});

# Clients that go on until they are told otherwise.
sub start_load
{
	my ($database) = @_;

	$node->safe_psql(
		$database, q{
SELECT jobq.create_queue('q' || n,
	'{"lease_for": "1 s", "backoff": {"base": "0 s"}, "max_attempts": 3}',
	'keep') FROM generate_series(1, 3) n});
	my @clients = map {
		IPC::Run::start(
			[
				'pgbench', '-n', '-c', '1', '-T', '60', '-f', $file,
				'-h', $node->host, '-p', $node->port, $database
			],
			'<', \undef, '>', '/dev/null', '2>', "$dir/err$_")
	} 1 .. 6;
	ok( $node->poll_query_until($database,
			q{SELECT sum(completed_total) > 20 FROM jobq.queue_stats}),
		'there is load');
	return @clients;
}

sub stop_load
{
	my (@clients) = @_;

	foreach my $client (@clients)
	{
		$client->signal('TERM');
		$client->finish;
	}
	return;
}

sub workers
{
	my ($database) = @_;

	return $node->safe_psql('postgres',
		qq{SELECT count(*) FROM pg_stat_activity
		   WHERE backend_type = 'pg_jobq keeper' AND datname = '$database'});
}

sub log_lines
{
	my ($from, $pattern) = @_;
	my @lines = grep { /$pattern/ }
	  split(/\n/, substr(slurp_file($node->logfile), $from));

	return @lines;
}

my $WORKER_COMPLAINT = qr/pg_jobq (?:keeper|launcher) (?:WARNING|ERROR|FATAL|PANIC):/;

# ---- DROP EXTENSION, and CREATE again, several times in one server ----

$node->safe_psql('postgres', 'CREATE DATABASE busy');
foreach my $round (1 .. 6)
{
	$node->safe_psql('busy', 'CREATE EXTENSION pg_jobq');
	$node->safe_psql('busy', 'CREATE FUNCTION check_dispatch() RETURNS text
		LANGUAGE c AS $$pg_jobq$$, $$jobq_test_check_dispatch$$')
	  if $round == 1;
	ok(await_keeper($node, 'busy'), "round $round: there is a keeper");
	my @clients = start_load('busy');
	my $position = -s $node->logfile;
	my $start = time();
	my ($rc, $out, $err) = $node->psql('busy', 'DROP EXTENSION pg_jobq');
	my $took = time() - $start;

	is($rc, 0, "round $round: DROP EXTENSION under load") or diag($err);
	cmp_ok($took, '<', 2, "round $round: returns within 2 s");
	note(sprintf('DROP EXTENSION took %.2f s', $took));
	ok(await(sub { workers('busy') eq '0' }, 5),
		"round $round: the keeper is gone");
	is( $node->safe_psql('busy',
			q{SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq')
			+ (SELECT count(*) FROM pg_class WHERE relname ~ '^(job|claim|outcome)_\d+'
				AND relkind = 'r')}),
		'0', "round $round: its tables are gone");
	is($node->safe_psql('busy', 'SELECT check_dispatch()'), '',
		"round $round: shared memory is sound");
	is(join("\n", log_lines($position, $WORKER_COMPLAINT)),
		'', "round $round: the workers have nothing to complain about");
	is(join("\n", log_lines($position, qr/deadlock|XX000|could not open relation|cache lookup/)),
		'', "round $round: nor have others been told nonsense");
	stop_load(@clients);
}

# What is created afterwards is new.
$node->safe_psql('busy', 'CREATE EXTENSION pg_jobq');
ok(await_keeper($node, 'busy'), 'created again: there is a keeper');
is($node->safe_psql('busy', q{SELECT count(*) FROM jobq.jobs}), '0',
	'created again: no job is left over');
is( $node->safe_psql('busy', q{SELECT jobq.create_queue('q1');
SELECT jobq.enqueue('q1') > 0; SELECT count(*) FROM jobq.dequeue('q1', 10)}),
	"t\nt\n1", 'created again: it works');
is( $node->safe_psql('busy',
		q{SELECT available + running + scheduled + completed_total FROM jobq.queue_stats WHERE queue = 'q1'}),
	'1', 'created again: counters start anew');
my $quiet = -s $node->logfile;

# ---- a rolled-back DROP EXTENSION under load ----

my @clients = start_load('busy');
$node->safe_psql('busy', 'BEGIN; DROP EXTENSION pg_jobq; ROLLBACK');
my $done = $node->safe_psql('busy',
	'SELECT sum(completed_total) FROM jobq.queue_stats');
ok( $node->poll_query_until('busy',
		"SELECT sum(completed_total) > $done + 20 FROM jobq.queue_stats"),
	'a rolled-back DROP EXTENSION: it goes on');
stop_load(@clients);
is($node->safe_psql('busy', 'SELECT check_dispatch()'), '',
	'shared memory is sound');

# ---- DROP DATABASE, the keeper still having work ----

$node->safe_psql('busy', q{
SELECT jobq.create_queue('due', '{"lease_for": "1 s"}');
SELECT count(jobq.enqueue('due', delay => (n * 0.001) * '1 s'::interval))
	FROM generate_series(1, 5000) n;
SELECT count(*) FROM jobq.dequeue('q1', 1000)});
my $start = time();
my ($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE busy');
is($rc, 0, 'DROP DATABASE beside a keeper at work, without FORCE')
  or diag($err);
cmp_ok(time() - $start, '<', 5, 'within its 5 s');
note(sprintf('DROP DATABASE took %.2f s', time() - $start));
is(workers('busy'), '0', 'no keeper is left');

# One with clients fails as it should, and its queue goes on.
$node->safe_psql('postgres', 'CREATE DATABASE busy2');
$node->safe_psql('busy2', 'CREATE EXTENSION pg_jobq');
await_keeper($node, 'busy2');
@clients = start_load('busy2');
($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE busy2');
like($err, qr/is being accessed by other users/,
	'DROP DATABASE with clients fails');
$done = $node->safe_psql('busy2',
	'SELECT sum(completed_total) FROM jobq.queue_stats');
ok(await_keeper($node, 'busy2'), 'and the keeper comes back');
ok( $node->poll_query_until('busy2',
		"SELECT sum(completed_total) > $done + 20 FROM jobq.queue_stats"),
	'and the queue goes on');
$start = time();
($rc, $out, $err) =
  $node->psql('postgres', 'DROP DATABASE busy2 WITH (FORCE)');
is($rc, 0, 'DROP DATABASE WITH (FORCE) under load') or diag($err);
note(sprintf('DROP DATABASE WITH (FORCE) took %.2f s', time() - $start));
stop_load(@clients);

# Everything is free again.
$node->safe_psql('postgres', 'CREATE DATABASE next');
$node->safe_psql('next', 'CREATE EXTENSION pg_jobq');
ok(await_keeper($node, 'next'), 'the next database has its keeper');
$node->safe_psql('next', q{SELECT jobq.create_queue('q1')});
is( $node->safe_psql('next',
		q{SELECT substring(detail FROM '\d+') FROM jobq.health() WHERE item = 'live_jobs'}),
	'0', 'no slot is taken');
my @complaints = grep { !/terminating background worker|terminating connection/ }
  log_lines($quiet, $WORKER_COMPLAINT);
is(join("\n", @complaints), '', 'the workers have had nothing to complain about');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal/,
	'nobody has crashed');

$node->stop;
done_testing();
