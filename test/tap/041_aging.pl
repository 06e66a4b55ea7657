# The option aging: jobs go by run_at + priority × aging, exactly, from memory
# and from disk, with jobs that come in meanwhile, after the option was altered
# and after restarts; and a job of low priority is not starved.
use strict;
use warnings;

use JobqTest;
use Order;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $JOBS = $ENV{JOBQ_AGING_JOBS} // 1200;

my $node = start_node('aging', q{
jobq.max_live_jobs = 100
jobq.epoch_rows = 500
synchronous_commit = off
});
$node->safe_psql('postgres', "CREATE EXTENSION pg_jobq;\n$TAKEN" . <<'SQL');
CREATE FUNCTION check_dispatch() RETURNS text LANGUAGE c
	AS 'pg_jobq', 'jobq_test_check_dispatch';
-- Random priorities, a few jobs a transaction and at least a millisecond between
-- transactions: so steps of a few milliseconds matter, but not alone.
CREATE PROCEDURE fill(queue text, jobs int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. jobs LOOP
		PERFORM jobq.enqueue(queue, priority => floor(random() * 7)::int - 3);
		IF i % 3 = 0 THEN
			COMMIT;
			PERFORM pg_sleep(0.001);
		END IF;
	END LOOP;
END $$;
-- How many came before one that should have come first; and how often a more
-- urgent one had to wait for a less urgent one, and an older for a younger one.
CREATE FUNCTION judge(queue text, aging interval, OUT wrong int, OUT urgent_waits int, OUT old_waits int)
LANGUAGE sql AS $$
	SELECT count(*) FILTER (WHERE (place, id) < before),
		count(*) FILTER (WHERE priority < priority_before),
		count(*) FILTER (WHERE run_at < run_at_before)
	FROM (SELECT place, id, priority, run_at, lag((place, id)) OVER w AS before,
			lag(priority) OVER w AS priority_before, lag(run_at) OVER w AS run_at_before
		FROM (SELECT *, run_at + priority * judge.aging AS place FROM taken
			WHERE taken.queue = judge.queue) t
		WINDOW w AS (ORDER BY n)) t
$$;
SQL
await_keeper($node);

sub value
{
	return $node->safe_psql('postgres', shift);
}

# All that was taken of a queue is in order, and was not in another one, too.
sub in_order
{
	my ($queue, $aging, $jobs, $what) = @_;
	my ($wrong, $urgent, $old) =
	  split(/\|/, value("SELECT * FROM judge('$queue', '$aging')"));

	is(value("SELECT count(*) FROM taken WHERE queue = '$queue'"),
		$jobs, "$what: $jobs jobs");
	is($wrong, 0, "$what: in order");
	cmp_ok($urgent, '>', 0, "$what: waiting has counted");
	cmp_ok($old, '>', 0, "$what: priority has counted");
	is(value('SELECT coalesce(check_dispatch(), $$sound$$)'),
		'sound', "$what: memory is consistent");
	value("DELETE FROM taken WHERE queue = '$queue'");
	return;
}

sub queue
{
	my ($name, $aging) = @_;

	value("SET synchronous_commit = on; SELECT jobq.create_queue('$name', '{\"aging\": \"$aging\"}')");
	return;
}

my $step = '2 ms';

# ---- in memory ----

queue('memory', $step);
value("CALL fill('memory', 60)");
is( value('SELECT string_agg(id::text, $$ $$) FROM jobq.peek($$memory$$, 100)'),
	value("SELECT string_agg(id::text, ' ' ORDER BY run_at + priority * interval '$step', id)
		FROM jobq.jobs WHERE queue = 'memory'"),
	'peek shows the order');
value("CALL take('memory', 60, 7)");
in_order('memory', $step, 60, 'in memory');

# Our own jobs that are not committed stand among the others.
value('SELECT count(jobq.enqueue($$memory$$, priority => p)) FROM unnest(ARRAY[0, 3, -3]) p');
value(q{BEGIN; SELECT count(jobq.enqueue('memory', priority => p)) FROM unnest(ARRAY[3, -3, 0]) p;
	INSERT INTO taken (queue, priority, run_at, id) SELECT queue, priority, run_at, id FROM jobq.dequeue('memory', 6);
	COMMIT});
is(value("SELECT wrong FROM judge('memory', '$step')"), 0, 'own ones in order');
is(value('SELECT count(*) FROM taken'), 6, 'all six');
value('SELECT jobq.purge_queue($$memory$$)');
value('DELETE FROM taken');

# ---- on disk, in several epochs ----

$step = '50 ms';
queue('disk', $step);
value("CALL fill('disk', $JOBS / 2)");
ok(await(sub { value('SELECT max(epoch) FROM jobq.epoch') > 1 }), 'they are in more than one epoch');
value("CALL fill('disk', $JOBS / 2)");
is( value('SELECT string_agg(id::text, $$ $$) FROM jobq.peek($$disk$$, 5)'),
	value("SELECT string_agg(id::text, ' ') FROM (SELECT id FROM jobq.jobs WHERE queue = 'disk'
		ORDER BY run_at + priority * interval '$step', id LIMIT 5) t"),
	'the first ones are in memory');
value("CALL take('disk', $JOBS / 2, 7)");
is( value("SELECT count(*) FROM jobq.jobs j, (SELECT run_at, priority, id FROM taken ORDER BY n DESC LIMIT 1) t
		WHERE j.queue = 'disk' AND (j.run_at + j.priority * interval '$step', j.id)
			< (t.run_at + t.priority * interval '$step', t.id)"),
	0, 'none that is left should have come before');
value("CALL take('disk', $JOBS, 7)");
in_order('disk', $step, $JOBS, 'from disk');

# ---- one large transaction ----

value(q{BEGIN; SELECT count(*) FROM generate_series(3, -2, -1) p,
	unnest(jobq.enqueue_many('disk', array_fill('{}'::jsonb, ARRAY[2000]), priority => p)); COMMIT});
value("CALL take('disk', 500, 100)");
is(value("SELECT wrong FROM judge('disk', '$step')"), 0, 'more than a transaction remembers: in order');
is(value('SELECT count(*) FROM taken'), 500, '500 of them');
value('DELETE FROM taken');
value('SELECT jobq.purge_queue($$disk$$)');

# ---- a prepared transaction ----

value("CALL fill('disk', 300)");
value(q{BEGIN; SELECT count(*) FROM generate_series(-3, 3) p,
	unnest(jobq.enqueue_many('disk', array_fill('{}'::jsonb, ARRAY[20]), priority => p));
	SELECT count(*) FROM jobq.enqueue_jobs('[{"queue": "disk"}, {"queue": "disk", "priority": -3}]');
	PREPARE TRANSACTION 'aging'});
value("CALL fill('disk', 300)");
value("CALL take('disk', 100, 10)");
value('DELETE FROM taken');
value('COMMIT PREPARED $$aging$$');
ok(await(sub { value('SELECT count(*) FROM jobq.jobs WHERE state = $$available$$ AND queue = $$disk$$')
			== value('SELECT available FROM jobq.queue_stats WHERE queue = $$disk$$') }),
	'the prepared ones are there');
value("CALL take('disk', 1000, 10)");
in_order('disk', $step, 642, 'with prepared ones');

# ---- the option is altered on the way ----

value("CALL fill('disk', $JOBS)");
value("CALL take('disk', 100, 10)");
in_order('disk', $step, 100, 'before it is altered');
value('SELECT jobq.alter_queue($$disk$$, $${"aging": null}$$)');
value("CALL take('disk', 100, 10)");
is( value(q{SELECT count(*) FROM (SELECT (priority, run_at, id) > lag((priority, run_at, id)) OVER (ORDER BY n) AS after
		FROM taken WHERE queue = 'disk') t WHERE NOT after}),
	0, 'without aging: by priority');
is( value(q{SELECT count(*) FROM jobq.jobs WHERE queue = 'disk' AND (priority, run_at, id) <
		(SELECT priority, run_at, id FROM taken ORDER BY n DESC LIMIT 1)}),
	0, 'and none was left out');
value('DELETE FROM taken');
value(qq{SELECT jobq.alter_queue('disk', '{"aging": "$step"}')});
$node->restart;
await_keeper($node);
value("CALL fill('disk', 60)");
value("CALL take('disk', $JOBS, 10)");
in_order('disk', $step, $JOBS - 140, 'altered back and restarted');

# An alteration that is rolled back changes nothing.
value("CALL fill('disk', 300)");
value(q{BEGIN; SELECT jobq.alter_queue('disk', '{"aging": "1 h"}'); ROLLBACK});
value("CALL take('disk', 1000, 10)");
in_order('disk', $step, 300, 'an alteration rolled back');

# ---- after a crash, a queue that never had a job ----

$step = '2 ms';
queue('fresh', $step);
kill_server($node);
$node->start;
await_keeper($node);
value("CALL fill('fresh', 60)");
value("CALL take('fresh', 60, 7)");
in_order('fresh', $step, 60, 'empty at the start');

# ---- it fires: a job is not starved by more urgent ones ----

# Two urgent jobs come for each that is taken; how many go before the other.
value(<<'SQL');
CREATE FUNCTION starve(queue text, turns int, OUT before int) LANGUAGE plpgsql AS $$
DECLARE
	normal bigint := jobq.enqueue(queue);
	got bigint;
BEGIN
	FOR turn IN 1 .. turns LOOP
		PERFORM jobq.enqueue(queue, priority => -5), jobq.enqueue(queue, priority => -5);
		SELECT id INTO got FROM jobq.dequeue(queue);
		EXIT WHEN got = normal;
		before := turn;
		PERFORM pg_sleep(0.002);
	END LOOP;
END $$;
SQL
value('SELECT jobq.create_queue($$unfair$$)');
queue('fair', '0.01 s');
is(value("SELECT starve('unfair', 60)"), 60, 'without aging it waits for ever');
my $before = value("SELECT starve('fair', 500)");
cmp_ok($before, '<', 100, "with aging its turn comes ($before were before it)");
cmp_ok($before, '>', 0, 'but not at once');

is(conflicts_logged($node), 0, 'no job was about to end twice');
$node->stop;
done_testing();
