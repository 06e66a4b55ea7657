# A transaction that enqueues very many jobs needs no memory for each of them,
# however it does so; what it counts is right when it has committed or rolled
# back in part.
#
# JOBQ_BIG_TRANSACTION: how many jobs each of them enqueues.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'no /proc/PID/status here' unless -r "/proc/$$/status";

my $JOBS = $ENV{JOBQ_BIG_TRANSACTION} || 60_000;
my $FIRST = 20_000;				# these are kept in memory, up to 10,000
my $BYTES_A_JOB = 24;

my $node = start_audited('big_transaction',
	"fsync = off\nsynchronous_commit = off\nmax_wal_size = 4GB", q{
	SELECT jobq.create_queue('plain');
	SELECT jobq.create_queue('deep', '{"max_depth": 100000000}');
	SELECT jobq.create_queue('rate', '{"enqueue_limit": {"limit": 1000000, "period": "60 s", "per": "role"}}');
	SELECT jobq.create_queue('q' || i) FROM generate_series(0, 199) i;});
await_keeper($node);

# Memory of the backend's own, in bytes.
sub own_memory
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;

	return $kb * 1024;
}

sub enqueue
{
	my ($session, $n, $call) = @_;

	$session->query_safe(
		"DO \$\$ BEGIN FOR i IN 1..$n LOOP $call; END LOOP; END \$\$");
	return;
}

# What one job more needs, in an open transaction that has many already.
sub needs_nothing
{
	my ($name, $call) = @_;
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my ($before, $more);

	$session->query_safe('BEGIN');
	enqueue($session, $FIRST, $call);
	$before = own_memory($pid);
	enqueue($session, $JOBS - $FIRST, $call);
	$more = (own_memory($pid) - $before) / ($JOBS - $FIRST);
	cmp_ok($more, '<', $BYTES_A_JOB, sprintf('%s: %.1f bytes a job', $name, $more));
	$session->query_safe('COMMIT');
	$session->quit;
	return;
}

sub enqueued
{
	my ($queue) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT available + scheduled FROM jobq.queue_stats WHERE queue = '$queue'});
}

my $one = q{PERFORM jobq.enqueue('%s', '{"a": 1}')};

needs_nothing('one queue', sprintf($one, 'plain'));
is(enqueued('plain'), $JOBS, 'all of them are there');
needs_nothing('max_depth', sprintf($one, 'deep'));
needs_nothing('enqueue_limit', sprintf($one, 'rate'));
needs_nothing('200 queues', q{PERFORM jobq.enqueue('q' || i % 200, '{"a": 1}')});
is(enqueued('q7'), $JOBS / 200, 'a two-hundredth is in each');
needs_nothing('a subtransaction each', sprintf(
	"BEGIN $one; EXCEPTION WHEN division_by_zero THEN NULL; END", 'plain'));
is(enqueued('plain'), 2 * $JOBS, 'all of those are there');
needs_nothing('a subtransaction each, max_depth', sprintf(
	"BEGIN $one; EXCEPTION WHEN division_by_zero THEN NULL; END", 'deep'));
is(enqueued('deep'), 2 * $JOBS, 'and of those');
needs_nothing('scheduled',
	q{PERFORM jobq.enqueue('plain', '{"a": 1}', delay => '1 day')});
is(enqueued('plain'), 3 * $JOBS, 'and the scheduled ones');

# ---- what is joined comes apart again ----

sub room
{
	my ($queue) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT count(*) FROM generate_series(1, 100) i WHERE
		jobq_test_sqlstate('SELECT jobq.enqueue(''$queue'')') = '00000'});
}

# Twelve thousand jobs into a hundred queues, so that the log has an index; then
# subtransactions into the same ones, some of which roll back.
$node->safe_psql('postgres', q{
	CREATE FUNCTION jobq_test_sqlstate(command text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN EXECUTE command; RETURN '00000';
	EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
	SELECT jobq.create_queue('small', '{"max_depth": 90}');
	SELECT jobq.create_queue('fast', '{"enqueue_limit": {"limit": 90, "period": "1 day"}}');
	DO $$ BEGIN
		FOR i IN 1..12000 LOOP PERFORM jobq.enqueue('q' || i % 100); END LOOP;
		FOR i IN 1..30 LOOP
			BEGIN
				PERFORM jobq.enqueue('small'), jobq.enqueue('fast'), jobq.enqueue('q' || i % 10);
				BEGIN
					PERFORM jobq.enqueue('small'), jobq.enqueue('fast'), jobq.enqueue('q' || i % 10);
					IF i % 3 = 0 THEN RAISE division_by_zero; END IF;
				EXCEPTION WHEN division_by_zero THEN NULL; END;
				IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
			EXCEPTION WHEN division_by_zero THEN NULL; END;
		END LOOP;
	END $$});
# Of 30, those with odd numbers stay: 15, each with one more unless divisible by
# three, which five of them are: 25.
is(enqueued('small'), 25, 'what was rolled back is not counted');
is(room('small'), 65, 'nor does it take room');
is(room('fast'), 65, 'nor of the rate');
# 3, 13 and 23 stay, with one more each, but for 3.
is(enqueued('q3'), $JOBS / 200 + 120 + 5, 'nor in a queue without limits');
is($node->safe_psql('postgres', 'SELECT audit.check_dispatch()'), '',
	'memory is sound');
done_testing();
