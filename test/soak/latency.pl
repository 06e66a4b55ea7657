# How long it takes from a job's commit to its delivery, at JOBQ_LATENCY_RATE
# jobs a second with JOBQ_LATENCY_WORKERS workers that wait; beside workers of a
# plain table that LISTEN, or poll. And what many sessions that wait for nothing
# cost. Clients are C, on the same machine.
use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(sleep time);

my $RATE = setting('LATENCY_RATE', 100, 50);
my $WORKERS = setting('LATENCY_WORKERS', 8, 4);
my $SECONDS = setting('LATENCY_SECONDS', 60, 2);
my $POLL_MS = setting('LATENCY_POLL_MS', 100, 100);
my $WAITERS = setting('WAITERS', 50, 20);
my $IDLE = setting('IDLE_SECONDS', 30, 2);
my $dir = PostgreSQL::Test::Utils::tempdir;
my $client = "$dir/latency_client";

# The tests' own installation may be a copy of the server only.
my $include;
my ($pg_config) = grep {
	chomp($include = `$_ --includedir`);
	-e "$include/libpq-fe.h"
} 'pg_config', '/usr/bin/pg_config';
die 'the headers of libpq are not there' unless defined $pg_config;
chomp(my $lib = `$pg_config --libdir`);
system_or_bail('gcc', '-O2', '-o', $client, dirname(__FILE__) . '/latency_client.c',
	"-I$include", "-L$lib", '-lpq');

my $node = soak_node('latency', "max_connections = 150\n");
sql($node, q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('lat');
SELECT jobq.create_queue('idle');
CREATE TABLE plain (id bigserial PRIMARY KEY, payload jsonb);
CREATE FUNCTION put_plain() RETURNS bigint LANGUAGE sql AS $$
	INSERT INTO plain (payload) VALUES ('{"data": 1}') RETURNING id $$;
CREATE FUNCTION put_plain_and_notify() RETURNS bigint LANGUAGE sql AS $$
	SELECT pg_notify('plain', ''); SELECT put_plain() $$;
});
ok(await_keeper($node), 'the keeper is there');

my $TAKE_PLAIN = q{DELETE FROM plain WHERE id = (SELECT id FROM plain
	ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id};

sub start_client
{
	my ($out, @arguments) = @_;
	my ($mode, @rest) = @arguments;

	return IPC::Run::start(
		[ $client, $mode, $node->connstr('postgres'), @rest ],
		'<', \undef, '>', $out, '2>', "$out.err");
}

# Processor time of the server's processes, in s.
sub processor
{
	my $ticks = 0;

	foreach my $pid (split(/\n/, sql($node, 'SELECT pid FROM pg_stat_activity')))
	{
		open(my $file, '<', "/proc/$pid/stat") or next;
		my @fields = split(/ /, (<$file> =~ s/^.*\) //r));
		close($file);
		$ticks += $fields[11] + $fields[12];
	}
	return $ticks / 100;
}

# Workers take what a producer puts at the rate; latencies in ms, from the
# moment the producer sends its statement, and from the moment it knows of the
# commit.
sub measure
{
	my ($name, $put, @take) = @_;
	my @files = map { "$dir/$name.$_" } 1 .. $WORKERS;
	my @workers = map { start_client($_, 'take', @take) } @files;
	my (%got, @from_call, @from_commit);

	sleep(1);
	my $used = processor();
	start_client("$dir/$name.put", 'put', $put, $RATE, $SECONDS)->finish;
	sleep(1);
	$used = processor() - $used;
	$_->kill_kill for @workers;
	is(-s "$dir/$name.put.err", 0, "$name: the producer has no trouble");
	foreach my $file (@files)
	{
		is(-s "$file.err", 0, "$name: nor has a worker");
		foreach my $line (split(/\n/, slurp_file($file)))
		{
			my ($id, $at) = split(/ /, $line);
			$got{$id} = $at;
		}
	}
	my $missing = 0;
	foreach my $line (split(/\n/, slurp_file("$dir/$name.put")))
	{
		my ($id, $before, $after) = split(/ /, $line);

		$missing++, next unless $got{$id};
		push @from_call, ($got{$id} - $before) / 1000;
		push @from_commit, ($got{$id} > $after ? $got{$id} - $after : 0) / 1000;
	}
	is($missing, 0, "$name: every job is delivered");
	cmp_ok(scalar @from_call, '>=', int($RATE * $SECONDS), 'all of them');
	foreach my $what ([ 'from commit', \@from_commit ], [ 'from call', \@from_call ])
	{
		my @values = @{ $what->[1] };

		figure("latency $name, $what->[0]",
			map { sprintf('p%s %.2f ms', $_, percentile($_, @values)) }
			  50, 95, 99, 99.9);
	}
	figure("processor $name", sprintf('%.3f of a core', $used / ($SECONDS + 1)));
	return @from_commit;
}

# ---- delivery ----

my $COMPLETE = 'SELECT jobq.complete($1::bigint, $2::bigint)';
my @latencies = measure('receive', q{SELECT jobq.enqueue('lat', '{"data": 1}')},
	q{CALL jobq.receive('lat', 1, '1 hour')}, $COMPLETE, '', 0);
unless (short())
{
	cmp_ok(percentile(50, @latencies), '<', 1, 'p50 below 1 ms');
	cmp_ok(percentile(99, @latencies), '<', 5, 'p99 below 5 ms');
}
measure('dequeue', q{SELECT jobq.enqueue('lat', '{"data": 1}')},
	q{SELECT id, lease FROM jobq.dequeue('lat', 1, '20 s')}, $COMPLETE, '', 0);
measure('listen', 'SELECT put_plain_and_notify()', $TAKE_PLAIN, '', 'plain', 0);
measure("poll-$POLL_MS-ms", 'SELECT put_plain()', $TAKE_PLAIN, '', '', $POLL_MS);

# ---- waiting for nothing, and who is woken ----

# Times the waiting sessions' processes have gone to sleep.
sub sleeps
{
	my $count = 0;

	foreach my $pid (split(/\n/, sql($node,
			q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL jobq.receive%'})))
	{
		$count += $1
		  if slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	}
	return $count;
}

my @waiters = map {
	start_client("$dir/idle.$_", 'take', q{CALL jobq.receive('idle', 1, '1 hour')},
		$COMPLETE, '', 0)
} 1 .. $WAITERS;
ok($node->poll_query_until('postgres',
		qq{SELECT count(*) = $WAITERS FROM pg_stat_activity
		WHERE query LIKE 'CALL jobq.receive%' AND state = 'active'
		AND wait_event_type = 'Extension' AND backend_xmin IS NULL AND backend_xid IS NULL}),
	"$WAITERS sessions wait, without snapshot and transaction id");
my $position = q{SELECT pg_current_wal_insert_lsn() || ' ' ||
	pg_snapshot_xmax(pg_current_snapshot())};
# when each began its present transaction
my $begun = q{SELECT md5(string_agg(pid || ' ' || xact_start, ',' ORDER BY pid))
	FROM pg_stat_activity WHERE query LIKE 'CALL jobq.receive%'};
sql($node, 'CHECKPOINT');
sleep(2);
my ($before, $used, $slept, $since) =
  (sql($node, $position), processor(), sleeps(), sql($node, $begun));
sleep($IDLE);
my $core = (processor() - $used) / $IDLE;
is(sql($node, $position), $before, "$IDLE s: no transaction id, no WAL");
is(sleeps() - $slept, 0, 'nobody wakes up');
is(sql($node, $begun), $since, 'nobody begins a transaction');
figure("$WAITERS waiting", sprintf('%.4f of a core', $core));
cmp_ok($core, '<', 0.01, 'less than one percent of a core') unless short();

$slept = sleeps();
start_client("$dir/idle.put", 'put', q{SELECT jobq.enqueue('idle')}, $RATE, $SECONDS)->finish;
sleep(1);
figure("$WAITERS waiting, $RATE jobs a second",
	sprintf('%.2f sleeps of theirs a job', (sleeps() - $slept) / $RATE / $SECONDS));
$_->kill_kill for @waiters;

$node->stop;
done_testing();
