# What tenants can learn of each other without being told: nobody waits for a
# foreign transaction, a foreign queue is looked for as one that is not there, and
# EXPLAIN of a foreign key or job gives no more than of none.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('tenants');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# As a role that would give up soon rather than wait.
sub state_as
{
	my ($role, $statement) = @_;

	return sqlstate($node, "SET ROLE $role; SET lock_timeout = '300 ms'; SET statement_timeout = '10 s'; $statement");
}

sql(q{
CREATE EXTENSION pg_jobq;
CREATE ROLE ann; CREATE ROLE bob;
SELECT jobq.create_queue('shared', '{"isolation": "owner", "lease_for": "1 h"}');
SELECT jobq.create_queue('of ann');
SELECT jobq.create_queue('of bob');
SELECT jobq.grant_queue('shared', r, '{enqueue,dequeue,read}') FROM unnest(ARRAY['ann', 'bob']) r;
SELECT jobq.grant_queue('of ann', 'ann', '{enqueue,dequeue,read,manage}');
SELECT jobq.grant_queue('of bob', 'bob', '{enqueue,dequeue,read,manage}');
});

# ---- nobody waits ----

my %job;
foreach my $queue ('shared', 'of ann')
{
	my $id = sql("SET ROLE ann; SELECT jobq.enqueue('$queue')");
	my $lease = sql("SET ROLE ann; SELECT lease FROM jobq.dequeue('$queue')");
	$job{$queue} = [ $id, $lease, sql("SET ROLE ann; SELECT jobq.enqueue('$queue', priority => 9)") ];
}
my $ann = $node->background_psql('postgres');
$ann->query_safe("SET ROLE ann; BEGIN; SELECT jobq.enqueue('shared', unique_key => 'k', delay => '1 h')");
foreach my $queue ('shared', 'of ann')
{
	$ann->query_safe("SELECT jobq.complete($job{$queue}[0], $job{$queue}[1])");
	$ann->query_safe("SELECT jobq.cancel($job{$queue}[2])");
}
is(state_as('ann', q{SELECT jobq.enqueue('shared', unique_key => 'k')}), '55P03',
	'another session of the same tenant waits for the key');
is(state_as('ann', "SELECT jobq.complete($job{shared}[0], $job{shared}[1])"), '55P03', 'and for the job');
is(state_as('bob', qq{BEGIN; SELECT jobq.enqueue('shared', unique_key => 'k', on_conflict => '$_'); ROLLBACK}), '00000',
	"another tenant does not wait for the key, $_")
  foreach qw(ignore error replace debounce);
foreach my $queue ('shared', 'of ann')
{
	my ($id, $lease, $other) = @{ $job{$queue} };

	is(state_as('bob', "SELECT jobq.complete($id, $lease)"), 'JQ020', "$queue: nor for a job that is being settled");
	is(state_as('bob', "SELECT jobq.extend($id, $lease)"), 'JQ020', "$queue: nor extends it");
	is(state_as('bob', "SELECT jobq.cancel($_)"), 'JQ020', "$queue: nor for one that is being cancelled")
	  foreach $id, $other;
	is(sql("SET ROLE bob; SELECT jobq.complete_many(ARRAY[$id], $lease, 'skip')"), '{}', "$queue: it is passed over");
}
$ann->query_safe('COMMIT');
$ann->quit;
is(sql("SELECT string_agg(state, ' ') FROM jobq.job($job{$_}[0])"), 'completed', "$_: ann's transaction was not disturbed")
  foreach 'shared', 'of ann';

# ---- a foreign queue and none ----

# How often a failing call reads the catalog of queues; the first one may read
# what is not known yet.
sql(q{
CREATE FUNCTION reads(queue text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before bigint[];
	after bigint[];
	reads CONSTANT text := 'SELECT array_agg(pg_stat_get_xact_numscans(c.oid) + pg_stat_get_xact_tuples_returned(c.oid)
		+ pg_stat_get_xact_tuples_fetched(c.oid) ORDER BY c.oid)
		FROM pg_class c WHERE c.relnamespace = ''jobq''::regnamespace AND c.relkind IN (''r'', ''i'')';
BEGIN
	FOR i IN 1..5 LOOP
		EXECUTE reads INTO before;
		BEGIN
			PERFORM jobq.enqueue(queue);
		EXCEPTION WHEN SQLSTATE 'JQ002' THEN
			NULL;
		END;
		EXECUTE reads INTO after;
	END LOOP;
	RETURN (SELECT coalesce(sum(a - b), 0) FROM unnest(after, before) u (a, b));
END $$});
is(sql("SET ROLE bob; SELECT public.reads('$_')"), '0', "a call for queue \"$_\" reads nothing")
  foreach 'of ann', 'nowhere';

# ---- a foreign key and none, a foreign job and none ----

# Plan and buffers of a statement, after another one that has the caches filled.
sub buffers
{
	my ($before, $statement) = @_;
	my $plan = sql(qq{SET ROLE bob; BEGIN; $before; EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) $statement; ROLLBACK});
	my ($hit) = $plan =~ /Buffers: shared hit=(\d+)/;

	$plan =~ s/^.*?(?=^Result|^Function Scan)//sm;
	$plan =~ s/^ *Buffers:.*\n?|^Planning:\n?//mg;
	return ($hit, $plan =~ s/\d+/N/gr);
}
sql("SET ROLE ann; SELECT jobq.enqueue('shared', unique_key => 'taken', delay => '1 h')");
my $waiting = sql("SET ROLE ann; SELECT jobq.enqueue('of ann')");
my $none = 4503599627370495;
foreach my $case (
	[ 'a key', q{SELECT jobq.enqueue('shared', unique_key => 'other', on_conflict => 'error')},
		q{SELECT jobq.enqueue('shared', unique_key => 'taken', on_conflict => 'error')},
		q{SELECT jobq.enqueue('shared', unique_key => 'token', on_conflict => 'error')} ],
	[ 'a job', "SELECT FROM jobq.job($none)",
		"SELECT * FROM jobq.job($waiting)", "SELECT * FROM jobq.job($none)" ])
{
	my ($name, $before, $foreign, $nothing) = @$case;
	my ($foreign_hit, $foreign_plan) = buffers($before, $foreign);
	my ($nothing_hit, $nothing_plan) = buffers($before, $nothing);

	note("$foreign_hit and $nothing_hit buffers");
	is($foreign_plan, $nothing_plan, "$name: the same plan, the same rows");
	cmp_ok(abs($foreign_hit - $nothing_hit), '<', 10, "$name: but for reading the row, the same buffers");
}

$node->stop;
done_testing();
