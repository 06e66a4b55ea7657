# metrics() is text that a strict reader and promtool accept, says what
# queue_stats says, and is complete for awkward names.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('metrics');
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('q');
SELECT jobq.create_queue('a "quoted" \ name, {with} = all');
SELECT jobq.create_queue('ünïcode');
SELECT jobq.pause_queue('ünïcode');
SELECT jobq.enqueue('q') FROM generate_series(1, 10);
SELECT jobq.enqueue('q', delay => '1 hour');
SELECT jobq.complete_many(array_agg(id), max(lease)) FROM jobq.dequeue('q', 4);
SELECT jobq.dequeue('q', 2);
CREATE ROLE stranger;
});

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

my $text = sql('SELECT jobq.metrics()');

# ---- a strict reader ----

my (%family, %value, @wrong);
my $current = '';
my @lines = split(/\n/, $text);
my $name = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
my $quoted = qr/"(?:[^"\\\n]|\\["\\n])*"/;
my $label = qr/[a-zA-Z_][a-zA-Z0-9_]*=$quoted/;

is(pop @lines, '# EOF', 'it ends with # EOF');
foreach my $line (@lines)
{
	if ($line =~ /^# HELP ($name) (\S.*)$/)
	{
		push @wrong, "again: $line" if $family{$1};
		$family{$1} = { samples => 0 };
		$current = $1;
	}
	elsif ($line =~ /^# TYPE ($name) (counter|gauge|summary)$/)
	{
		push @wrong, "not after its HELP: $line"
		  if $1 ne $current || $family{$1}{type};
		$family{$current}{type} = $2;
		push @wrong, "suffix: $line" if ($2 eq 'counter') != ($1 =~ /_total$/ ? 1 : 0);
	}
	elsif ($line =~ /^($name)(?:\{($label(?:,$label)*)\})? (-?\d+(?:\.\d+)?)$/)
	{
		my ($sample, $labels, $number) = ($1, $2 // '', $3);
		my $of = $sample;

		$of =~ s/_(?:sum|count)$// if ($family{$current}{type} // '') eq 'summary';
		push @wrong, "not of its family: $line" if $of ne $current;
		push @wrong, "again: $line" if exists $value{"$sample\{$labels}"};
		push @wrong, "quantile: $line"
		  if $labels =~ /quantile/ && $family{$current}{type} ne 'summary';
		$value{"$sample\{$labels}"} = $number;
		$family{$current}{samples}++;
	}
	else
	{
		push @wrong, "cannot be read: $line";
	}
}
is(join("\n", @wrong), '', 'every line is right');
is(join(' ', grep { !$family{$_}{type} || !$family{$_}{samples} } sort keys %family),
	'', 'each family has a type and samples');
cmp_ok(scalar keys %family, '>=', 15, 'there are many');

# ---- promtool ----

SKIP:
{
	my $promtool = $ENV{JOBQ_PROMTOOL};

	skip 'promtool cannot be had', 1 unless $promtool;
	my $file = PostgreSQL::Test::Utils::tempdir . '/metrics';
	append_to_file($file, "$text\n");
	my $said = `'$promtool' check metrics <'$file' 2>&1`;
	is("$said$?", '0', 'promtool check metrics has nothing to say');
}

# ---- what it says ----

is($value{'jobq_jobs{queue="q",state="available"}'}, 4, 'available');
is($value{'jobq_jobs{queue="q",state="scheduled"}'}, 1, 'scheduled');
is($value{'jobq_jobs{queue="q",state="running"}'}, 2, 'running');
is($value{'jobq_enqueued_total{queue="q"}'}, 11, 'enqueued');
is($value{'jobq_completed_total{queue="q"}'}, 4, 'completed');
is($value{'jobq_wait_seconds_count{queue="q"}'}, 6, 'waits');
is($value{'jobq_run_seconds_count{queue="q"}'}, 4, 'runs');
cmp_ok($value{'jobq_wait_seconds_sum{queue="q"}'}, '>', 0, 'which took time');
ok(exists $value{'jobq_run_seconds{queue="q",quantile="0.99"}'}, 'quantiles');
cmp_ok($value{'jobq_oldest_available_seconds{queue="q"}'}, '>', 0, 'the oldest');
is($value{'jobq_oldest_available_seconds{queue="default"}'}, '0.000000', 'none is not old');
is($value{'jobq_queue_paused{queue="ünïcode"}'}
	  // $value{"jobq_queue_paused{queue=\"\xfcn\xefcode\"}"}, 1, 'paused');
is($value{'jobq_keeper_running{}'}, 1, 'the keeper runs');
ok(exists $value{'jobq_jobs{queue="a \"quoted\" \\\\ name, {with} = all",state="running"}'},
	'a name is escaped');

# ---- who may ask ----

is(sqlstate($node, 'GRANT USAGE ON SCHEMA jobq TO stranger; GRANT EXECUTE ON FUNCTION jobq.metrics() TO stranger;
	SET ROLE stranger; SELECT jobq.metrics()'), '42501', 'not everybody');

$node->stop;
done_testing();
