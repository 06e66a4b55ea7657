# Groups in the order of priority where jobs are on disk: nothing is delivered
# before a job on disk that comes first, also after the order was altered; and
# where there are more groups than memory has room for, none of them stands still.
use strict;
use warnings;

use JobqTest;
use Order;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_audited('order', 'jobq.max_live_jobs = 100', $TAKEN);
await_keeper($node);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub queue
{
	my ($name, $options) = @_;

	sql(qq{SELECT jobq.create_queue('$name', '{"backoff": {"base": "0 s"}, $options}')});
	# from then on memory knows what it must of its groups
	sql("SELECT jobq.dequeue('$name')");
	return;
}

# In one transaction; those that have to be on disk only are in a prepared one.
sub enqueue
{
	my ($queue, $n, $key, $priority, $prepared) = @_;
	my $end = $prepared ? "PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'" : 'COMMIT';

	sql(qq{BEGIN; INSERT INTO audit.ledger
		SELECT jobq.enqueue('$queue', group_key => '$key', priority => $priority)
		FROM generate_series(1, $n); $end});
	return;
}

sub stop_keeper_at
{
	my ($point) = @_;

	sql("SELECT pause_at('$point')");
	return;
}

# The keeper stops in a refill: of this queue, which gets a job on disk.
sub stop_keeper_by
{
	my ($queue, $key, $priority, $point) = @_;

	stop_keeper_at($point // 'after-refill-snapshot');
	enqueue($queue, 1, $key, $priority, 1);
	ok($node->poll_query_until('postgres', 'SELECT paused() > 0'),
		"the keeper is refilling queue $queue");
	return;
}

sub start_running
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->{stdin} .= "$sql;\n\\echo answered :SQLSTATE\n";
	$session->{run}->pump_nb;
	return ($session, $pid);
}

# Let all go on, and return the answer.
sub answer_of
{
	my ($session) = @_;

	stop_keeper_at('');
	$session->{run}->pump until $session->{stdout} =~ /answered (\w+)/
	  || $session->{timeout}->is_expired;
	my ($out) = $session->{stdout} =~ /^(.*)answered 00000/s;
	$session->quit;
	$out =~ s/\s+$// if defined $out;
	return $out;
}

# Run it to the point where it has an answer or waits for the keeper.
sub run_with_stopped_keeper
{
	my ($sql) = @_;
	my ($session, $pid) = start_running($sql);

	$node->poll_query_until('postgres',
		"SELECT state = 'idle' AND query <> 'SELECT pg_backend_pid()' OR wait_event_type = 'Extension'
			FROM pg_stat_activity WHERE pid = $pid");
	return answer_of($session);
}

# What was taken of the queue was in order: of the queue, or of each key.
sub in_order
{
	my ($queue, $jobs, $of, $aging) = @_;
	my $window = $of eq 'key' ? 'PARTITION BY key' : '';
	my $place = defined $aging ? "(run_at + priority * interval '$aging', id)" :
	  '(priority, run_at, id)';

	is(sql("SELECT count(*) FROM taken WHERE queue = '$queue'"),
		$jobs, "queue $queue: $jobs jobs");
	is( sql(qq{SELECT count(*) FROM (SELECT $place < lag($place) OVER ($window ORDER BY n) AS late
			FROM taken WHERE queue = '$queue') s WHERE late}),
		0, "queue $queue: in order by $of");
	sql("DELETE FROM taken WHERE queue = '$queue'");
	return;
}

# ---- what is on disk comes first ----

queue('one', '"group_limit": 1');
enqueue('one', 3, 'A', 5);
stop_keeper_by('one', 'A', 0);
run_with_stopped_keeper("CALL take('one', 4, 1)");
in_order('one', 4, 'key');
audit_ok($node, 'the first of its group on disk');

# of another group, too
queue('many', '"group_limit": 9');
enqueue('many', 3, 'A', 5);
stop_keeper_by('many', 'B', 0);
run_with_stopped_keeper("CALL take('many', 4, 2)");
in_order('many', 4, 'queue');

# an own job that is not committed does not overtake those of its group
queue('own', '"group_limit": 1');
stop_keeper_by('own', 'A', 0);
is( run_with_stopped_keeper(
		q{BEGIN; CREATE TEMP TABLE mine AS SELECT jobq.enqueue('own', group_key => 'A') AS id;
		SELECT count(*), count(mine.id) FROM jobq.dequeue('own', 1) d LEFT JOIN mine USING (id); ROLLBACK}),
	'1|0',
	'not before one that is on disk');
ok(await(sub { sql("SELECT state FROM jobq.jobs WHERE queue = 'own'") eq 'available' }),
	'it was rolled back');
sql("CALL take('own', 1, 1)");
audit_ok($node, 'first on disk');

# ---- the order is altered ----

queue('x', '"group_limit": 1');
queue('aging', '"group_limit": 50');
enqueue('aging', 1, "k$_", 3 - $_) foreach (0 .. 5);
is( sql("SELECT string_agg(priority::text, ' ') FROM jobq.peek('aging', 6)"),
	'-2 -1 0 1 2 3', 'by priority');
stop_keeper_by('x', 'A', 0);
sql(q{SELECT jobq.alter_queue('aging', '{"aging": "1 ms"}')});
run_with_stopped_keeper("CALL take('aging', 3, 1)");
enqueue('aging', 150, "a$_", 3 - $_) foreach (0 .. 2);
sql("CALL take('aging', 153, 20)");
in_order('aging', 156, 'queue', '1 ms');
enqueue('aging', 150, "b$_", 3 - $_) foreach (0 .. 2);
sql("CALL take('aging', 100, 20)");
in_order('aging', 100, 'queue', '1 ms');
sql(q{SELECT jobq.alter_queue('aging', '{"aging": null}')});
sql("CALL take('aging', 350, 20)");
in_order('aging', 350, 'queue');
audit_ok($node, 'order altered');

# ---- more than a transaction remembers ----

queue('filler', '"group_limit": 1');
queue('big', '"group_limit": 1');
queue('wide', '"group_limit": 50');
sql(q{BEGIN; INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('filler', array_fill('{}'::jsonb, ARRAY[10000])));
	INSERT INTO audit.ledger SELECT jobq.enqueue(q, group_key => 'k' || i % 7, priority => i % 3)
	FROM unnest(ARRAY['big', 'wide']) q, generate_series(1, 150) i; COMMIT});
foreach my $queue ('big', 'wide')
{
	enqueue($queue, 20, "k$_", $_ % 2) foreach (0 .. 6);
	sql("CALL take('$queue', 1000, 9)");
	in_order($queue, 290, $queue eq 'big' ? 'key' : 'queue');
}
sql(q{SELECT jobq.purge_queue('filler')});
audit_ok($node, 'more than a transaction remembers');

# ---- a group that has most of its jobs on disk holds those that come after ----

enqueue('wide', 300, 'A', 0);
enqueue('wide', 20, 'B', 5);
enqueue('wide', 30, 'C', -1);
enqueue('wide', 20, 'B', 5);
sql("CALL take('wide', 1000, 21)");
in_order('wide', 370, 'queue');
audit_ok($node, 'held by a group');

# ---- a refill for one group passes over none that it has nothing for ----

queue('blocked', '"group_limit": 1');
enqueue('blocked', 200, 'A', 0);
sql(q{CREATE TABLE held AS SELECT id, lease FROM jobq.dequeue('blocked', 1)});

# what comes from disk while a dequeue has looked in vain is found
stop_keeper_at('before-await-refill');
my ($session) = start_running(q{SELECT group_key, jobq.complete(id, lease) FROM jobq.dequeue('blocked', 1)});
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'a dequeue has looked');
enqueue('blocked', 1, 'C', 0, 1);
ok( $node->poll_query_until(
		'postgres', q{SELECT EXISTS (SELECT FROM jobq.peek('blocked', 300) WHERE group_key = 'C')}),
	'a job has come into memory');
is(answer_of($session), 'C|', 'it finds it');

enqueue('blocked', 200, 'B', 1);
sql("CALL take('blocked', 200, 1)");
sql('SELECT jobq.complete(id, lease) FROM held');
sql("CALL take('blocked', 199, 1)");
in_order('blocked', 399, 'key');
audit_ok($node, 'one group after the other');

# ---- a refill is not held up by what groups leave on disk ----

# The refill that is going on ends, and no other one is done: so many jobs can
# be had by then.
sub has_come
{
	my ($queue, $jobs, $name) = @_;

	stop_keeper_at('after-refill-snapshot');
	$node->psql('postgres', "CALL take('$queue', $jobs, 1)");
	is(sql("SELECT count(*) FROM taken WHERE queue = '$queue'"), $jobs, $name);
	stop_keeper_at('');
	sql("DELETE FROM taken WHERE queue = '$queue'");
	return;
}

queue('left', '"group_limit": 1');
enqueue('left', 200, 'A', 0);
sql(q{CREATE TABLE busy AS SELECT id, lease FROM jobq.dequeue('left', 1)});
enqueue('left', 6, $_, 5) foreach qw(B C D);
ok( $node->poll_query_until(
		'postgres', q{SELECT count(*) = 18 FROM jobq.peek('left', 300) WHERE group_key <> 'A'}),
	'three groups behind a busy one');
sql('SELECT jobq.run_maintenance()');
stop_keeper_by('left', 'C', 9, 'refill-before-look');
enqueue('left', 1, 'A', 0);
has_come('left', 3, 'not by one that has come meanwhile');

# The same in a refill for groups, with one that is no business of it.
enqueue('left', 200, 'F', 1);
my $f = sql(q{SELECT max(id) FROM jobq.jobs WHERE group_key = 'F'});
my $in_memory;
ok( await(
		sub {
			sql('SELECT jobq.run_maintenance()');
			($in_memory) = sql("SELECT detail FROM jobq.explain_job($f)") =~ /behind (\d+) jobs of group "F"/;
			return defined $in_memory && $in_memory <= 16;
		}),
	'most of a group is on disk');
stop_keeper_at('refill-before-look');
sql("CALL take('left', $in_memory - 7, 1)");
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'the keeper gets more of it');
sql(q{DELETE FROM taken WHERE queue = 'left'});
enqueue('left', 1, 'A', 0);
has_come('left', 12, 'nor one for a group by what another one leaves there');
sql('SELECT jobq.complete(id, lease) FROM busy');
sql("CALL take('left', 1000, 1)");
is(sql(q{SELECT count(*) FROM jobq.jobs WHERE queue = 'left'}), 0, 'all is done');
sql(q{DELETE FROM taken WHERE queue = 'left'});
audit_ok($node, 'left on disk by groups');

# ---- more groups than there is room for ----

# The last that come in are the first: those in memory make room.
enqueue('one', 1, "a$_", 5) foreach (1 .. 70);
cmp_ok(sql('SELECT count(*) FROM jobq.peek($$one$$, 100)'), '<', 65, 'all there is room for');
enqueue('one', 1, "b$_", 0) foreach (1 .. 70);
sql("CALL take('one', 70, 9)");
is(sql("SELECT count(*) FROM taken WHERE queue = 'one' AND priority = 0"), 70,
	'the more urgent ones first');
sql("CALL take('one', 100, 9)");
in_order('one', 140, 'queue');
audit_ok($node, 'groups make room');

# All their first jobs fail: they keep their places, and take all the room.
queue('kept', '"group_limit": 1, "max_attempts": 5');
sql(q{INSERT INTO audit.ledger SELECT jobq.enqueue('kept', group_key => 'k' || k)
	FROM generate_series(1, 2) n, generate_series(1, 150) k});
sql(q{DO $$
DECLARE
	d record;
	deadline timestamptz := clock_timestamp() + interval '30 s';
BEGIN
	WHILE EXISTS (SELECT FROM jobq.jobs WHERE queue = 'kept') AND clock_timestamp() < deadline LOOP
		FOR d IN SELECT * FROM jobq.dequeue('kept', 20) LOOP
			IF d.attempt = 1 THEN
				PERFORM jobq.fail(d.id, d.lease);
			ELSE
				PERFORM jobq.complete(d.id, d.lease);
				INSERT INTO taken (queue, key, priority, run_at, id)
				SELECT d.queue, d.group_key, d.priority, d.enqueued_at, d.id;
			END IF;
		END LOOP;
		COMMIT;
	END LOOP;
END $$});
in_order('kept', 300, 'key');
audit_ok($node, 'places kept in all groups');

# Altered groups have room, whatever waits; and so does what runs when a queue
# begins to have groups.
enqueue('one', 1, "c$_", 0) foreach (1 .. 70);
sql(qq{SELECT jobq.alter_group('one', 'altered $_', '{"limit": 3}')}) foreach (1 .. 8);
sql("CALL take('one', 70, 9)");
in_order('one', 70, 'queue');
sql(qq{SELECT jobq.alter_group('one', 'altered $_', '{"limit": null}')}) foreach (1 .. 8);

queue('late', '"max_attempts": 5');
enqueue('late', 1, "k$_", 0) foreach (1 .. 90);
sql(q{CREATE TABLE running AS SELECT id, lease FROM jobq.dequeue('late', 50)});
sql(q{SELECT jobq.alter_queue('late', '{"group_limit": 1}')});
sql("CALL take('late', 20, 5)");
is(sql(q{SELECT count(jobq.complete(id, lease)) FROM running}), 50, 'those that ran are completed');
sql("CALL take('late', 90, 5)");
in_order('late', 40, 'queue');
audit_ok($node, 'running jobs in more groups than usual');

$node->stop;
done_testing();
