# 100,000 life cycles leave no dead row in the belt, and a system with nothing
# to do takes no transaction id and writes no WAL.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $JOBS = 100_000;
my $BATCH = 1000;
my $IDLE = 60;					# seconds

my $node = start_node('idle', 'synchronous_commit = off');
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_jobq;
CREATE EXTENSION pgstattuple;
SELECT jobq.create_queue('q', '{"lease_for": "1 hour"}');
});

my $cycle = qq{
SELECT cardinality(jobq.enqueue_many('q', array_fill('{"n": 1}'::jsonb, ARRAY[$BATCH]))) \\g |cat >/dev/null
SELECT array_agg(id)::text AS ids, max(lease) AS lease FROM jobq.dequeue('q', $BATCH) \\gset
SELECT cardinality(jobq.complete_many(:'ids', :lease)) AS n \\gset
\\echo :n
};
my $start = time();
my $out = $node->safe_psql('postgres', $cycle x ($JOBS / $BATCH));
note(sprintf('%d cycles in %.1f s', $JOBS, time() - $start));
my $n = 0;
$n += $_ for split(/\n/, $out);
is($n, $JOBS, "$JOBS jobs enqueued, dequeued and completed");

# A job of its own for each way through the belt that is no rollback.
$node->safe_psql('postgres', q{
SELECT jobq.enqueue('q') FROM generate_series(1, 300);
DO $$
DECLARE
	d record;
BEGIN
	FOR i IN 1 .. 200 LOOP
		SELECT * INTO d FROM jobq.dequeue('q');
		IF i % 4 = 0 THEN
			PERFORM jobq.release(d.id, d.lease);
		ELSIF i % 4 = 1 THEN
			PERFORM jobq.extend(d.id, d.lease);
			PERFORM jobq.complete(d.id, d.lease, '{}');
		ELSIF i % 4 = 2 THEN
			PERFORM jobq.fail(d.id, d.lease, 'x', retry_in => '0 s');
		ELSE
			PERFORM jobq.cancel(d.id);
		END IF;
	END LOOP;
END $$;
});

my $tables = q{
SELECT c.relname, t.dead_tuple_count
FROM pg_class c, LATERAL pgstattuple(c.oid) t
WHERE c.relnamespace = 'jobq'::regnamespace AND c.relkind = 'r'
	AND c.relname ~ '^(job|claim|outcome)_\d+$' ORDER BY 1};
my @tables = split(/\n/, $node->safe_psql('postgres', $tables));
cmp_ok(scalar @tables, '>=', 3, 'the belt has its tables');
foreach my $line (@tables)
{
	my ($table, $dead) = split(/\|/, $line);

	$table =~ s/_\d+$//;
	is($dead, '0', "no dead row in $table");
}
ok( $node->poll_query_until('postgres',
		qq{SELECT pg_stat_force_next_flush() IS NOT NULL
			AND sum(n_tup_ins) FILTER (WHERE relname LIKE 'job%') >= $JOBS
			AND sum(n_tup_upd + n_tup_del + n_dead_tup) = 0
			AND sum(vacuum_count + autovacuum_count) = 0
		   FROM pg_stat_user_tables
		   WHERE schemaname = 'jobq' AND relname ~ '^(job|claim|outcome)_[0-9]+\$'}),
	'and the statistics say so: inserts only, never vacuumed');
is( $node->safe_psql('postgres',
		q{SELECT completed_total FROM jobq.queue_stats WHERE queue = 'q'}),
	$node->safe_psql('postgres',
		q{SELECT count(*) FROM jobq.history WHERE state = 'completed'}),
	'counted as completed');

# ---- idleness, with a lease and a scheduled job far away ----

$node->safe_psql('postgres', q{
SELECT jobq.enqueue('q', delay => '1 hour');
SELECT count(*) FROM jobq.dequeue('q')});
my $position = q{SELECT pg_current_wal_insert_lsn() || ' ' ||
	pg_snapshot_xmax(pg_current_snapshot())};
my $last = '';
my $since = time();
$node->safe_psql('postgres', 'CHECKPOINT');
ok( await(
		sub {
			my $now = $node->safe_psql('postgres', $position);

			$since = time() if $now ne $last;
			$last = $now;
			return time() - $since > 2;
		},
		60),
	'the system settles');
sleep($IDLE);
is($node->safe_psql('postgres', $position), $last,
	"$IDLE s of idleness: no transaction id, no WAL");

$node->stop;
done_testing();
