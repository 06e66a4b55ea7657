# Soak.pm: what the measuring tests share: settings from the environment, a
# server, load by pgbench, samples of the queue and the disk, latencies. With
# JOBQ_SHORT they run for seconds and assert no rate. Judges nothing itself.
package Soak;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(short setting soak_node sql sql_file figure start_bench
  stop_bench finish_bench run_bench latencies percentile median ratio mix_queue
  start_mix stop_mix calibrate sample samples rate_of course_of drain probe
  probe_latencies epochs_between belt_dead conflicts $BELT $PAYLOAD);

# Names of the belt's tables.
our $BELT = '^(job|claim|outcome)_[0-9]+$';
our $PAYLOAD = '{"data": "' . 'x' x 244 . '"}';

my $dir = PostgreSQL::Test::Utils::tempdir;
my $benches = 0;

sub short
{
	return $ENV{JOBQ_SHORT} ? 1 : 0;
}

# JOBQ_name of the environment, else the full or the short value.
sub setting
{
	my ($name, $full, $short) = @_;

	return $ENV{"JOBQ_$name"} // (short() ? $short : $full);
}

# A server as one would have it, but for the size of the epochs.
sub soak_node
{
	my ($name, $conf) = @_;

	return start_node($name,
		(short() ? "shared_buffers = 32MB\n" : "shared_buffers = 256MB\n")
		  . "max_connections = 60
max_prepared_transactions = 50
max_worker_processes = 16
max_wal_size = 16GB
checkpoint_timeout = 1h
autovacuum = on
autovacuum_naptime = 10s
" . ($conf // ''));
}

sub sql
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub sql_file
{
	my ($name, $text) = @_;
	my $file = "$dir/$name.sql";

	open(my $out, '>', $file) or die "$file: $!";
	print $out $text;
	close($out);
	return $file;
}

# One line of the table of figures.
sub figure
{
	my ($name, @facts) = @_;

	diag("figure: $name: " . join(', ', @facts));
	return;
}

# ---- pgbench ----

# Options: clients, seconds or transactions (of each client), rate, and
# scripts: name => [weight, text].
sub start_bench
{
	my ($node, %o) = @_;
	my $prefix = "$dir/bench" . ++$benches;
	my @command = (
		'pgbench', '-n', '-M', 'prepared', '-c', $o{clients}, '-j',
		$o{clients} > 1 ? 2 : 1);

	push @command, '-T', $o{seconds} if $o{seconds};
	push @command, '-t', $o{transactions} if $o{transactions};
	push @command, '-R', $o{rate} if $o{rate};
	push @command, '-l', '--log-prefix', $prefix if $o{log};
	foreach my $name (sort keys %{ $o{scripts} })
	{
		my ($weight, $text) = @{ $o{scripts}{$name} };
		push @command, '-f', sql_file("$name$benches", $text) . "\@$weight";
	}
	my $database = $o{database} // 'postgres';
	my $run = IPC::Run::start([ @command, $node->connstr($database) ],
		'<', \undef, '>', "$prefix.out", '2>', "$prefix.err");
	return {
		run => $run,
		prefix => $prefix,
		started => time(),
		name => join(' ', sort keys %{ $o{scripts} })
	};
}

# Lines that say that a client gave up.
sub complaints
{
	my ($bench) = @_;

	return join("\n",
		grep { /error|abort|fatal/i } split(/\n/, slurp_file("$bench->{prefix}.err")));
}

# Wait for the end; sets seconds, transactions and tps.
sub finish_bench
{
	my ($bench) = @_;

	$bench->{run}->finish;
	$bench->{seconds} = time() - $bench->{started};
	is(complaints($bench), '', "$bench->{name}: no client failed")
	  or die 'clients have failed';
	my $out = slurp_file("$bench->{prefix}.out");
	($bench->{transactions}) =
	  $out =~ /transactions actually processed: (\d+)/;
	($bench->{tps}) = $out =~ /tps = ([\d.]+)/;
	return $bench;
}

# End one that has no end of its own, as its own alarm would: clients finish
# what they are at, so that no lease is left, and logs are complete.
sub stop_bench
{
	my ($bench) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$bench->{run}->signal('ALRM');
	return finish_bench($bench);
}

sub run_bench
{
	return finish_bench(start_bench(@_));
}

# [second of the clock, milliseconds] of each transaction of a logged run;
# those of clients that were told to wait count from when they were due.
sub latencies
{
	my ($bench) = @_;
	my @found;

	foreach my $file (glob("$bench->{prefix}.[0-9]*"))
	{
		foreach my $line (split(/\n/, slurp_file($file)))
		{
			my @field = split(/ /, $line);
			next if @field < 6 || $field[2] !~ /^\d+$/;
			push @found, [ $field[4] + $field[5] / 1e6, $field[2] / 1000 ];
		}
	}
	return @found;
}

sub percentile
{
	my ($percent, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;

	return 0 unless @sorted;
	my $index = int(@sorted * $percent / 100);
	return $sorted[ $index > $#sorted ? $#sorted : $index ];
}

sub median
{
	return percentile(50, @_);
}

sub ratio
{
	my ($part, $whole) = @_;

	return $whole > 0 ? $part / $whole : 0;
}

# ---- the mixed load ----

# The queue, and the tables that say what went in and what was done.
sub mix_queue
{
	my ($node, $retention) = @_;

	await_keeper($node) or die 'there is no keeper';
	sql( $node, qq{
CREATE SCHEMA soak;
CREATE TABLE soak.ledger (id bigint) WITH (autovacuum_enabled = off);
CREATE TABLE soak.effect (id bigint) WITH (autovacuum_enabled = off);
CREATE TABLE soak.held (n int);
-- The lease of one job, as soon as there is one.
CREATE FUNCTION soak.take(queue text) RETURNS bigint LANGUAGE plpgsql AS \$\$
DECLARE
	taken bigint;
BEGIN
	FOR i IN 1 .. 10000 LOOP
		SELECT lease INTO taken FROM jobq.dequeue(queue);
		EXIT WHEN FOUND;
		PERFORM pg_sleep(0.001);
	END LOOP;
	RETURN taken;
END \$\$;
SELECT jobq.create_queue('mix', '{"retention": "$retention", "max_attempts": 1000,
	"lease_for": "10 s",
	"backoff": {"base": "1 s", "cap": "2 s"}}');
SELECT jobq.create_queue('probe', '{"retention": "$retention"}');
});
	return;
}

sub producer_scripts
{
	my ($ledger, $keys) = @_;
	my $into = $ledger ? 'INSERT INTO soak.ledger SELECT' : 'SELECT';

	return {
		one => [ 16, qq{\\set p random(-2, 2)
$into jobq.enqueue('mix', '$PAYLOAD', priority => :p);
}
		],
		batch => [ 2, qq{\\set p random(-2, 2)
$into unnest(jobq.enqueue_many('mix', array_fill('$PAYLOAD'::jsonb, ARRAY[20]), priority => :p));
}
		],
		later =>
		  [ 1, "$into jobq.enqueue('mix', '$PAYLOAD', delay => '1 s');\n" ],
		$keys ? (keyed => [ 1, qq{\\set k random(1, 1000000000)
$into jobq.enqueue('mix', '$PAYLOAD', unique_key => 'k' || :k);
} ]) : () };
}

sub consumer_scripts
{
	my ($ledger) = @_;
	my $into = $ledger ? 'INSERT INTO soak.effect SELECT' : 'SELECT';
	my $dequeue = q{SELECT count(*) AS n, coalesce(max(lease), 0) AS lease,
	coalesce(min(id), 0) AS id, coalesce(array_agg(id), '{}')::text AS ids
FROM jobq.dequeue('mix', 10) \gset
};
	my $idle = "\\else\nSELECT pg_sleep(0.002);\n\\endif";
	return {
		work => [ 9, $dequeue . qq{\\if :n > 0
$into unnest(jobq.complete_many(:ids, :lease));
$idle
}
		],
		fails => [ 1, $dequeue . qq{\\if :n > 0
SELECT jobq.fail(:id, :lease, 'oops');
$into unnest(jobq.complete_many(array_remove(:ids::bigint[], :id::bigint), :lease));
$idle
}
		] };
}

# Four producers and four consumers until stop_mix(); keys: some jobs have a
# unique one.
sub start_mix
{
	my ($node, %o) = @_;
	my @common = (clients => 4, seconds => $o{seconds} // 1_000_000);

	return [
		start_bench($node, @common, rate => $o{rate},
			scripts => producer_scripts($o{ledger}, $o{keys})),
		start_bench($node, @common, scripts => consumer_scripts($o{ledger})) ];
}

sub stop_mix
{
	my ($mix) = @_;

	stop_bench($_) foreach @$mix;
	return;
}

# What the machine can do: the rate of producer transactions at which
# consumers keep up. Nothing is left of it.
sub calibrate
{
	my ($node, %o) = @_;
	my $seconds = setting('CALIBRATION_SECONDS', 15, 2);
	my $before = sample($node);
	my $mix = start_mix($node, %o, seconds => $seconds);

	finish_bench($_) foreach @$mix;
	my $after = sample($node);
	my $done = $after->{completed} - $before->{completed};
	my $waiting = $after->{available} - $before->{available};
	my $share = $done / ($done + ($waiting > 0 ? $waiting : 0) || 1);

	drain($node);
	figure('capacity', sprintf('%.0f jobs/s', $done / $seconds),
		sprintf('%.0f producer transactions/s', $mix->[0]{tps}),
		sprintf('consumers keep up with %.0f %%', 100 * $share));
	return {
		tps => $mix->[0]{tps},
		# unlimited when consumers are the faster ones
		balanced => $share > 0.95 ? undef : $mix->[0]{tps} * $share * 0.9 };
}

# Complete all there is, what waits for a time included.
sub drain
{
	my ($node) = @_;

	my $load = start_bench($node, clients => 2, seconds => 1_000_000,
		scripts => { work => consumer_scripts(1)->{work} });
	my $empty = await(
		sub {
			usleep(200_000);
			my $now = sample($node);
			return $now->{live} == 0;
		},
		setting('DRAIN_SECONDS', 600, 60));
	stop_bench($load);
	return $empty;
}

# ---- a second queue, served one by one ----

# Enqueues a job, takes it and completes it, some times a second; at work when
# this returns. What it watches in a short form may take but 50 ms.
sub probe
{
	my ($node, %o) = @_;
	my $before = probes($node);

	my $bench = start_bench(
		$node,
		clients => 1,
		seconds => $o{seconds} // 1_000_000,
		rate => short() ? 400 : 20,
		log => 1,
		scripts => {
			probe => [ 1, q{SELECT jobq.enqueue('probe') AS id \gset
SELECT soak.take('probe') AS lease \gset
SELECT jobq.complete(:id, :lease);
} ] });
	ok(await(sub { return probes($node) > $before }),
		'the other queue is served');
	return $bench;
}

sub probes
{
	my ($node) = @_;

	return sql($node,
		q{SELECT completed_total FROM jobq.queue_stats WHERE queue = 'probe'});
}

# Milliseconds of its transactions between two times.
sub probe_latencies
{
	my ($bench, $from, $to) = @_;

	my @found =
	  map { $_->[1] } grep { $_->[0] >= $from && $_->[0] < $to } latencies($bench);

	cmp_ok(scalar @found, '>', 0, 'the other queue was watched');
	return @found;
}

# ---- samples ----

my @COLUMNS = qw(at completed ended live available epochs last_epoch
  belt shelf ukey catalog);

sub sample
{
	my ($node) = @_;
	my $line = sql($node,
		qq{SELECT concat_ws('|', extract(epoch FROM clock_timestamp()),
	s.completed_total, s.completed_total + s.dead_total + s.cancelled_total,
	s.available + s.scheduled + s.retryable + s.running, s.available,
	e.n, e.last, c.belt, c.shelf, c.ukey, c.catalog)
FROM jobq.queue_stats s,
	(SELECT count(*) AS n, max(epoch) AS last FROM jobq.epoch) e,
	(SELECT coalesce(sum(size) FILTER (WHERE relname ~ '$BELT'), 0) AS belt,
		coalesce(sum(size) FILTER (WHERE relname = 'shelf'), 0) AS shelf,
		coalesce(sum(size) FILTER (WHERE relname = 'ukey'), 0) AS ukey,
		coalesce(sum(size) FILTER (WHERE space = 'pg_catalog'), 0) AS catalog
		FROM (SELECT relname, relnamespace::regnamespace::text AS space,
			pg_total_relation_size(oid) AS size FROM pg_class
			WHERE relkind = 'r' AND relnamespace IN
			('jobq'::regnamespace, 'pg_catalog'::regnamespace)) t) c
WHERE s.queue = 'mix'});
	my %sample;

	@sample{@COLUMNS} = split(/\|/, $line);
	return \%sample;
}

# One sample a second, or as told.
sub samples
{
	my ($node, $seconds, $pause) = @_;
	my $end = time() + $seconds;
	my @samples = (sample($node));

	while (time() < $end)
	{
		usleep(1e6 * ($pause // 1));
		push @samples, sample($node);
	}
	return @samples;
}

# Completed jobs a second from the first to the last of some samples.
sub rate_of
{
	my @samples = @_;

	return 0 if @samples < 2;
	return ($samples[-1]{completed} - $samples[0]{completed}) /
	  ($samples[-1]{at} - $samples[0]{at});
}

# The same for each ten seconds, to see what a mean hides.
sub course_of
{
	my @samples = @_;
	my @course;
	my $from = 0;

	foreach my $i (1 .. $#samples)
	{
		next if $samples[$i]{at} < $samples[$from]{at} + 10;
		push @course, sprintf('%.0f', rate_of(@samples[ $from .. $i ]));
		$from = $i;
	}
	return join(' ', @course);
}

# Epochs opened and dropped between two samples.
sub epochs_between
{
	my ($from, $to) = @_;
	my $opened = $to->{last_epoch} - $from->{last_epoch};

	return ($opened, $opened - ($to->{epochs} - $from->{epochs}));
}

sub belt_dead
{
	my ($node) = @_;

	return sql($node, "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables
		WHERE schemaname = 'jobq' AND relname ~ '$BELT'");
}

sub conflicts
{
	my ($node) = @_;

	return sql($node, q{SELECT count(*) FROM jobq.health()
		WHERE item = 'index_conflicts' AND status <> 'ok'});
}

1;
