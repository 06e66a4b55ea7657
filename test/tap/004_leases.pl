# The server is killed while claims have been committed asynchronously. A
# client that remembers every lease proves that none, and no id or ticket, is
# ever handed out twice, that an old holder cannot settle a job that somebody
# else holds, and that durable claims survive.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $ROUNDS = $ENV{JOBQ_ROUNDS} || 50;
my $LAZY = 40;					# jobs a round
my $SURE = 3;

my $node = start_audited('leases', 'wal_writer_delay = 1s', q{
SELECT jobq.create_queue('lazy', '{"lease_for": "1 day", "max_attempts": 1000}');
SELECT jobq.create_queue('back');
SELECT jobq.create_queue('sure', '{"lease_for": "1 day", "max_attempts": 1000}');

CREATE FUNCTION try_complete(id bigint, lease bigint) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM jobq.complete(id, lease);
	RETURN 'completed';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
});
my $epoch = $node->safe_psql('postgres', 'SELECT max(epoch) FROM jobq.epoch');
my $dir = PostgreSQL::Test::Utils::tempdir;

# One job a time, lazily, each lease noted; jobs enqueued and given back by
# asynchronous commits, which the crash may undo, use up ids and tickets.
sub worker_script
{
	my ($round) = @_;
	my $sql = "SET jobq.claim_durability = on;
SELECT id, lease FROM jobq.dequeue('sure', $SURE, worker => 'old') ORDER BY id \\g |sed 's/^/sure /'
SET jobq.claim_durability = async;
";
	foreach my $i (1 .. $LAZY)
	{
		$sql .= "SELECT id, lease FROM jobq.dequeue('lazy', worker => 'old') \\gset
\\echo lazy :id|:lease
";
		next if $i % 8 != 0;
		$sql .= "SET synchronous_commit = off;
SELECT jobq.enqueue('back') AS id \\gset
\\echo id :id
SELECT id, lease FROM jobq.dequeue('back') \\gset
\\echo lease :lease
SELECT jobq.release(:id, :lease);
SELECT max(ticket) AS ticket FROM jobq.job_$epoch \\gset
\\echo id :ticket
RESET synchronous_commit;
";
	}
	return $sql;
}

my (%leases, %ids, @strange);

sub is_new
{
	my ($seen, $what, $number) = @_;

	push @strange, "$what $number was handed out twice" if $seen->{$number}++;
	return;
}

# Ask for many completions at once: a list of [id, lease]; answers by id.
sub try_complete
{
	my (@jobs) = @_;
	my %answers;

	return () unless @jobs;
	my $values = join(',', map { "($_->[0], $_->[1])" } @jobs);
	foreach my $line (split(/\n/, $node->safe_psql('postgres',
		"SELECT id, try_complete(id, lease) FROM (VALUES $values) v (id, lease)")))
	{
		my ($id, $answer) = split(/\|/, $line);
		$answers{$id} = $answer;
	}
	return %answers;
}

my ($lost, $kept) = (0, 0);
foreach my $round (1 .. $ROUNDS)
{
	my $file = "$dir/$round";

	# An unclean start makes claims durable for a minute, a clean one does not.
	is( $node->safe_psql('postgres',
			q{SELECT count(*) FROM jobq.health() WHERE item = 'careful' AND status <> 'ok'}),
		'0', "round $round: claims are lazy") if $round <= 2;
	foreach my $id (
		split(/\n/, $node->safe_psql('postgres', qq{
INSERT INTO audit.ledger SELECT jobq.enqueue('lazy') FROM generate_series(1, $LAZY) RETURNING id;
INSERT INTO audit.ledger SELECT jobq.enqueue('sure') FROM generate_series(1, $SURE) RETURNING id;
})))
	{
		is_new(\%ids, 'id', $id);
	}

	append_to_file("$file.sql", worker_script($round));
	my $worker = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$file.sql" ],
		'<', \undef, '>', "$file.out", '2>', "$file.err");
	my $enough = 1 + int(rand($LAZY));
	await(
		sub {
			my @got = -e "$file.out" ? slurp_file("$file.out") =~ /^lazy/mg : ();
			return @got >= $enough || !$worker->pumpable;
		}) or die "no leases";
	kill_server($node);
	$worker->finish;
	$node->start;

	my (@lazy, @sure);
	my $before = join(',', keys %ids);
	foreach my $line (split(/\n/, slurp_file("$file.out")))
	{
		if ($line =~ /^(lazy|sure) (\d+)\|(\d+)$/)
		{
			push @{ $1 eq 'lazy' ? \@lazy : \@sure }, [ $2, $3 ];
			is_new(\%leases, 'lease', $3) if $1 eq 'lazy';
		}
		is_new(\%leases, 'lease', $1) if $line =~ /^lease (\d+)$/;
		is_new(\%ids, 'id', $1) if $line =~ /^id (\d+)$/ && !$ids{$1};
	}
	is_new(\%leases, 'lease', $sure[0][1]) if @sure;

	# Somebody else takes all there is.
	my %taken;
	foreach my $queue (qw(lazy sure))
	{
		foreach my $line (
			split(/\n/, $node->safe_psql('postgres',
				"SELECT id, lease FROM jobq.dequeue('$queue', 1000, worker => 'new')")))
		{
			my ($id, $lease) = split(/\|/, $line);

			push @strange, "lease $lease was handed out twice"
			  if $leases{$lease};
			$taken{$id} = $lease;
		}
	}
	$leases{$_}++ for values %taken;

	my %answers = try_complete(@lazy, @sure);
	foreach my $job (@lazy)
	{
		my $id = $job->[0];

		if (exists $taken{$id})
		{
			push @strange, "old holder of $id was told $answers{$id}"
			  if $answers{$id} ne 'JQ001';
			$lost++;
		}
		else
		{
			push @strange, "only holder of $id was told $answers{$id}"
			  if $answers{$id} ne 'completed' && $answers{$id} ne 'JQ020';
			$kept++;
		}
	}
	foreach my $job (@sure)
	{
		push @strange, "durable claim of $job->[0] is lost: $answers{$job->[0]}"
		  if $answers{ $job->[0] } ne 'completed';
	}
	push @strange, "round $round: durable claims were not made"
	  if @sure != $SURE;

	%answers = try_complete(map { [ $_, $taken{$_} ] } sort keys %taken);
	foreach my $id (keys %answers)
	{
		push @strange, "new holder of $id was told $answers{$id}"
		  if $answers{$id} ne 'completed';
	}
	# An id that a lost transaction used must not come again.
	foreach my $id (
		split(/\n/, $node->safe_psql('postgres', qq{
INSERT INTO audit.ledger SELECT jobq.enqueue('lazy', delay => '1 day') RETURNING id;
})))
	{
		is_new(\%ids, 'id', $id);
	}
	$node->restart;
}

is(join("\n", @strange), '', "$ROUNDS rounds: nothing strange");
note("$lost claims were lost, $kept were kept");
cmp_ok($lost, '>', 0, 'claims were lost indeed');
is(conflicts_logged($node), 0, 'the unique index has saved nobody');
# What a worker's transaction enqueued is in no ledger of ours.
$node->safe_psql('postgres', qq{
INSERT INTO audit.ledger SELECT id FROM jobq.job_$epoch UNION SELECT id FROM jobq.shelf
	EXCEPT SELECT id FROM audit.ledger});
audit_ok($node, 'at the end');
$node->stop;
done_testing();
