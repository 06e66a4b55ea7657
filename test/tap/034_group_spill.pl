# Groups in queues that are larger than memory: one group's backlog, blocked or
# not, does not keep the others on disk, and the order within each stays exact.
# SPILL_JOBS scales it.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $JOBS = $ENV{SPILL_JOBS} // 400;
my $KEYS = 12;

my $node = start_node('spill', 'jobq.max_live_jobs = 100');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_jobq');
add_auditor($node);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub enqueue
{
	my ($queue, $n, $key) = @_;

	sql(qq{INSERT INTO audit.ledger
		SELECT jobq.enqueue('$queue', jsonb_build_object('n', i), group_key => '$key')
		FROM generate_series(1, $n) i});
	return;
}

# Deliver and complete up to n jobs; "key.number" of each, in order.
sub work
{
	my ($queue, $n) = @_;

	return split(
		/ /,
		sql(qq{SELECT string_agg(d.group_key || '.' || (d.payload->>'n'), ' ')
			FROM (SELECT * FROM jobq.dequeue('$queue', $n)) d,
				LATERAL (SELECT jobq.complete(d.id, d.lease) OFFSET 0) c}) // '');
}

# Until so many are done; the numbers of each key, in the order of delivery.
sub work_off
{
	my ($queue, $total, $batch) = @_;
	my %seen;
	my $n = 0;

	await(
		sub {
			foreach my $job (work($queue, $batch))
			{
				my ($key, $number) = split(/\./, $job);

				push @{ $seen{$key} }, $number;
				$n++;
			}
			return $n >= $total;
		},
		60);
	is($n, $total, "queue $queue: $total jobs");
	return \%seen;
}

sub in_order
{
	my ($seen, $name) = @_;
	my $wrong = 0;

	foreach my $key (keys %$seen)
	{
		my @numbers = @{ $seen->{$key} };

		$wrong++ if "@numbers" ne join(' ', sort { $a <=> $b } @numbers);
	}
	is($wrong, 0, "$name: every key in order");
	return;
}

# ---- a blocked backlog in front of all others ----

sql(q{SELECT jobq.create_queue('f', '{"group_limit": 1, "backoff": {"base": "0 s"}}')});
enqueue('f', $JOBS, 'A');
my ($held, $lease) = split(/ /, sql(q{SELECT id || ' ' || lease FROM jobq.dequeue('f', 1)}));
enqueue('f', 5, "k$_") foreach (1 .. $KEYS);
my $others = work_off('f', 5 * $KEYS, 3);
is(join(' ', sort keys %$others), join(' ', sort map { "k$_" } (1 .. $KEYS)),
	'all the others are delivered');
in_order($others, 'others');
is(scalar work('f', 10), 0, 'and nothing of the blocked one');
audit_ok($node, 'blocked backlog');

is(sql(q{SELECT count(*) FROM jobq.jobs WHERE queue = 'f' AND state = 'blocked'}),
	$JOBS - 1, 'those on disk are blocked, too');

# It goes on, in order, with a retry in between.
sql("SELECT jobq.fail($held, $lease)");
ok(await(sub { sql(q{SELECT count(*) FROM jobq.dequeue('f', 1, '1 s') WHERE id = } . $held) eq '1' }),
	'the failed one first');
($lease) = sql("SELECT max(lease) FROM jobq.attempts($held)");
sql("SELECT jobq.complete($held, $lease)");
enqueue('f', 3, 'late');
my $rest = work_off('f', $JOBS - 1 + 3, 2);
in_order($rest, 'the backlog');
audit_ok($node, 'backlog worked off');

# ---- turns ----

sql(q{SELECT jobq.create_queue('t', '{"ordering": "fair"}')});
enqueue('t', $JOBS, 'A');
work('t', 1);
enqueue('t', 1, 'B');
my $until_b = 0;
await(
	sub {
		my @jobs = work('t', 1);

		$until_b += @jobs;
		return @jobs && $jobs[0] =~ /^B/;
	},
	30);
cmp_ok($until_b, '<=', 100, "B runs as delivery $until_b behind $JOBS jobs of A");
in_order(work_off('t', $JOBS - $until_b, 7), 'turns');
audit_ok($node, 'turns');

# ---- more keys than there is room for ----

sql(q{SELECT jobq.create_queue('m', '{"group_limit": 1}')});
sql(qq{INSERT INTO audit.ledger
	SELECT jobq.enqueue('m', jsonb_build_object('n', n), group_key => 'm' || k)
	FROM generate_series(1, 2) n, generate_series(1, $JOBS) k});
in_order(work_off('m', 2 * $JOBS, 20), 'many keys');
audit_ok($node, 'many keys');

$node->stop;
done_testing();
