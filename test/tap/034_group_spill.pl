# Groups in queues that are larger than memory: one group's backlog, blocked or
# not, does not keep the others on disk, and the order within each stays exact.
# JOBQ_SPILL_JOBS scales it.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $JOBS = $ENV{JOBQ_SPILL_JOBS} // 400;
my $KEYS = 12;

my $node = start_audited('spill', 'jobq.max_live_jobs = 100');

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

sql(q{
CREATE TABLE seen (queue text, at bigint GENERATED ALWAYS AS IDENTITY, key text, n int);

-- Deliver and complete jobs, n at a time, until so many are done, or one of this
-- key; give up after a while.
CREATE PROCEDURE work(q text, total int, batch int, until_key text DEFAULT '')
LANGUAGE plpgsql AS $$
DECLARE
	d record;
	done int := 0;
	deadline timestamptz := clock_timestamp() + interval '60 s';
BEGIN
	WHILE done < total AND clock_timestamp() < deadline LOOP
		FOR d IN SELECT * FROM jobq.dequeue(q, batch) LOOP
			PERFORM jobq.complete(d.id, d.lease);
			INSERT INTO seen (queue, key, n) VALUES (q, d.group_key, (d.payload->>'n')::int);
			done := done + 1;
		END LOOP;
		COMMIT;
		EXIT WHEN d.group_key = until_key;
	END LOOP;
END $$;
});

# Exactly so many are done then.
sub work_off
{
	my ($queue, $total, $batch) = @_;
	my $before = sql("SELECT count(*) FROM seen WHERE queue = '$queue'");

	sql("CALL work('$queue', $total, $batch)");
	is(sql("SELECT count(*) - $before FROM seen WHERE queue = '$queue'"),
		$total, "queue $queue: $total jobs");
	return;
}

sub in_order
{
	my ($queue) = @_;

	is( sql(qq{SELECT count(*) FROM (SELECT n, lag(n) OVER (PARTITION BY key ORDER BY at) AS before
			FROM seen WHERE queue = '$queue') s WHERE n <= before}),
		0, "queue $queue: every key in order");
	return;
}

# ---- a blocked backlog in front of all others ----

sql(q{SELECT jobq.create_queue('f', '{"group_limit": 1, "backoff": {"base": "0 s"}}')});
enqueue('f', $JOBS, 'A');
my ($held, $lease) = split(/ /, sql(q{SELECT id || ' ' || lease FROM jobq.dequeue('f', 1)}));
enqueue('f', 5, "k$_") foreach (1 .. $KEYS);
work_off('f', 5 * $KEYS, 3);
is(sql(q{SELECT count(DISTINCT key) FROM seen WHERE key <> 'A'}), $KEYS,
	'all the others are delivered');
is(sql(q{SELECT count(*) FROM jobq.dequeue('f', 10)}), 0, 'and nothing of the blocked one');
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
work_off('f', $JOBS - 1 + 3, 2);
in_order('f');
audit_ok($node, 'backlog worked off');

# ---- turns ----

sql(q{SELECT jobq.create_queue('t', '{"ordering": "fair"}')});
enqueue('t', $JOBS, 'A');
work_off('t', 1, 1);
enqueue('t', 1, 'B');
sql("CALL work('t', $JOBS, 1, 'B')");
my $until_b = sql(q{SELECT count(*) FROM seen WHERE queue = 't'}) - 1;
is(sql(q{SELECT count(*) FROM seen WHERE queue = 't' AND key = 'B'}), 1, 'B has its turn');
cmp_ok($until_b, '<', $JOBS / 2, 'long before the backlog is done');
note("figure: B runs as delivery $until_b behind $JOBS jobs of A");
work_off('t', $JOBS - $until_b, 7);
in_order('t');
audit_ok($node, 'turns');

# ---- more keys than there is room for ----

sql(q{SELECT jobq.create_queue('m', '{"group_limit": 1}')});
sql(qq{INSERT INTO audit.ledger
	SELECT jobq.enqueue('m', jsonb_build_object('n', n), group_key => 'm' || k)
	FROM generate_series(1, 2) n, generate_series(1, $JOBS) k});
work_off('m', 2 * $JOBS, 20);
in_order('m');
audit_ok($node, 'many keys');

$node->stop;
done_testing();
