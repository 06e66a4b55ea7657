# Which commits wait for the disk: not those of transactions that have written
# claims and nothing else, also when a library that was loaded after pg_jobq
# writes while it commits (health() warns of one that was loaded before); and
# what a session has set is its own again afterwards.
use strict;
use warnings;

use File::Basename qw(dirname);
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Nobody else writes or flushes: the log is where the session has left it.
my $node = start_node('lazy', 'wal_level = minimal
max_wal_senders = 0
wal_writer_delay = 10s
bgwriter_delay = 10s
checkpoint_timeout = 1h
synchronous_commit = on');
$node->safe_psql('postgres', q{
CREATE EXTENSION pg_jobq;
CREATE TABLE t (n int);
SELECT jobq.create_queue('q');
SELECT jobq.create_queue('limited', '{"max_active": 1000}');
SELECT count(*) FROM jobq.dequeue('q');
SELECT cardinality(jobq.enqueue_many(q, array_fill('1'::jsonb, ARRAY[200])))
	FROM unnest('{q,limited}'::text[]) q;});

# The tests' own installation has no headers.
chomp(my $include = qx{@{[$ENV{JOBQ_PG_CONFIG} // "pg_config"]} --includedir-server});
my $library = PostgreSQL::Test::Utils::tempdir . '/late_writer.so';
system_or_bail('gcc', '-shared', '-fPIC', "-I$include", '-o', $library,
	dirname(__FILE__) . '/late_writer.c');
$node->safe_psql('postgres',
	"CREATE FUNCTION late_write() RETURNS void LANGUAGE c AS '$library', 'late_write'");

my $wal_writer = $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
kill('STOP', $wal_writer);

END
{
	# without a word about the status of the test
	kill('CONT', $wal_writer) if defined $wal_writer;
}

my $session = $node->background_psql('postgres');

# Has the last commit been left to the WAL writer?
sub lazy
{
	my ($sql) = @_;

	$session->query_safe('INSERT INTO t VALUES (0)');
	$session->query_safe($sql);
	return is_left();
}

sub is_left
{
	return $session->query_safe('SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()');
}

# Who reads a page for the first time may clean it, and log that.
is_left();

my $dequeue = "SELECT count(*) FROM jobq.dequeue('q')";
my $insert = 'INSERT INTO t VALUES (1)';

is(lazy($insert), 'f', 'an INSERT waits for the disk');
is(lazy("BEGIN; SET LOCAL synchronous_commit = off; $insert; COMMIT"),
	't', 'an INSERT that need not does not');

is(lazy($dequeue), 't', 'a claim does not wait');
is($session->query_safe('SHOW synchronous_commit'), 'on', 'the setting is what it was');
is(lazy($insert), 'f', 'and is followed');
is(lazy("BEGIN; $dequeue; $dequeue; COMMIT"), 't', 'several claims do not wait');
is(lazy("CALL jobq.receive('q')"), 't', 'receive does not');
is(lazy("BEGIN; SAVEPOINT s; $dequeue; RELEASE s; COMMIT"), 't', 'nor in a subtransaction');

is(lazy("SET jobq.claim_durability = on; $dequeue"), 'f', 'claim_durability = on: it waits');
$session->query_safe('RESET jobq.claim_durability');
is(lazy("SELECT count(*) FROM jobq.dequeue('limited')"), 'f', 'a queue with a limit: it waits');
is(lazy("BEGIN; $insert; $dequeue; COMMIT"), 'f', 'an INSERT before the claim');
is(lazy("BEGIN; $dequeue; $insert; COMMIT"), 'f', 'an INSERT after the claim');
is(lazy("BEGIN; $dequeue; $insert; $dequeue; COMMIT"), 'f', 'an INSERT between claims');
is(lazy("BEGIN; $dequeue; SELECT pg_logical_emit_message(true, 'x', 'y'); COMMIT"),
	'f', 'whatever else writes');
is(lazy("BEGIN; SELECT jobq.enqueue('q'); $dequeue; COMMIT"), 'f', 'a job is enqueued');
is(lazy("BEGIN; SELECT jobq.complete(id, lease) FROM jobq.dequeue('q'); COMMIT"),
	'f', 'a job is completed');
is(lazy("SELECT jobq.complete_and_dequeue('q', ARRAY[id], lease) FROM jobq.dequeue('q')"),
	'f', 'complete_and_dequeue');
is(lazy("BEGIN; SELECT late_write(); $dequeue; COMMIT"),
	'f', 'another library writes while it commits');
is(lazy($dequeue), 't', 'and then does not');

# What was set in the transaction ends with it, too.
is( lazy("BEGIN; SET LOCAL synchronous_commit = local; $dequeue; COMMIT"), 't',
	'SET LOCAL before a claim');
is($session->query_safe('SHOW synchronous_commit'), 'on', 'SET LOCAL is over');
is( lazy("BEGIN; SET synchronous_commit = local; $dequeue; COMMIT"), 't', 'SET before a claim');
is($session->query_safe('SHOW synchronous_commit'), 'local', 'SET stays');
is(lazy($insert), 'f', 'and is followed');
$session->query_safe('RESET synchronous_commit');

$session->quit;

kill('CONT', $wal_writer);
$node->stop;
done_testing();
