# The life of epochs: opened by rows and age, sealed, drained, carried, dropped;
# what is kept goes in time, what is live never.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_audited(
	'epochs', $SMALL_EPOCHS, q{
SELECT jobq.create_queue('long', '{"backoff": {"base": "0 s"}}');
SELECT jobq.create_queue('short', '{"retention": "0.5 s", "backoff": {"base": "0 s"}}');
});

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub enqueue
{
	my ($queue, $n, $arguments) = @_;

	$arguments //= '';
	return split(/\n/,
		sql("INSERT INTO audit.ledger SELECT jobq.enqueue('$queue'$arguments)
			FROM generate_series(1, $n) RETURNING id"));
}

sub work_off
{
	my ($queue) = @_;

	return sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('$queue', 10000)");
}

sub class_of
{
	my ($queue) = @_;

	return sql("SELECT class FROM jobq.queue WHERE queue = '$queue'");
}

sub open_epoch
{
	my ($class) = @_;

	return sql("SELECT epoch FROM jobq.epoch WHERE class = $class AND closed_at IS NULL");
}

my $short = class_of('short');
my $epochs_of_short = "SELECT count(*) FROM jobq.epoch WHERE class = $short";
await_keeper($node);

# ---- opened by rows and age, not when idle ----

isnt($short, 1, 'another retention is another class');
my $first = open_epoch(1);
enqueue('long', 99);
is(open_epoch(1), $first, 'an epoch with room is kept');
enqueue('long', 1);
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE class = 1 AND epoch > $first",
	'1', 'a full epoch has a successor');
becomes_ok($node, "SELECT sealed_at IS NOT NULL FROM jobq.epoch WHERE epoch = $first",
	't', 'and is sealed');
is(sql("SELECT drained_at IS NULL FROM jobq.epoch WHERE epoch = $first"),
	't', 'but not drained');
is(work_off('long'), 100, 'its jobs are delivered');
becomes_ok($node, "SELECT drained_at IS NOT NULL FROM jobq.epoch WHERE epoch = $first",
	't', 'now it is drained', 5);
is( sql("SELECT completed FROM jobq.epoch_total WHERE epoch = $first"),
	'100', 'its totals are noted');
audit_ok($node, 'after the first epoch');

enqueue('short', 3);
is(work_off('short'), 3, 'jobs of the short queue are done');
becomes_ok($node, "$epochs_of_short AND opened_at = closed_at", '0', 'no epoch is closed empty');
becomes_ok($node, 'SELECT count(*) FROM jobq.history WHERE queue = \'short\'',
	'0', 'short history is forgotten');
becomes_ok($node, $epochs_of_short, '1', 'one empty epoch is left');
sql('INSERT INTO audit.forgetful VALUES (true)');
is(sql('SELECT count(*) FROM jobq.history WHERE queue = \'long\''),
	'100', 'long history is kept');
my $idle = open_epoch($short);
sleep(1);
is(open_epoch($short), $idle, 'idleness makes no epochs');
audit_ok($node, 'after a drop');

is( sql("SELECT completed_total FROM jobq.queue_stats WHERE queue = 'short'"),
	'3', 'totals outlive their epochs');
$node->restart;
await_keeper($node);
is( sql("SELECT completed_total FROM jobq.queue_stats WHERE queue = 'short'"),
	'3', 'also over a restart');
audit_ok($node, 'after a restart');

# ---- a job that is gone ----

my ($gone) = enqueue('short', 1);
my $lease = sql("SELECT lease FROM jobq.dequeue('short')");
sql("SELECT jobq.complete($gone, $lease)");
is(sqlstate($node, "SELECT jobq.complete($gone, $lease)"),
	'JQ015', 'a second settle is known as such');
becomes_ok($node, "SELECT count(*) FROM jobq.job($gone)", '0', 'the job is forgotten');
is(sqlstate($node, "SELECT jobq.complete($gone, $lease)"),
	'JQ020', 'and its lease with it');

# ---- seal waits for writers ----

my $before = open_epoch($short);
my $writer = $node->background_psql('postgres', on_error_stop => 0);
$writer->query_safe("BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('short')");
sql("BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('short'); PREPARE TRANSACTION 'p'");
enqueue('short', 100);
becomes_ok($node, "SELECT closed_at IS NOT NULL FROM jobq.epoch WHERE epoch = $before",
	't', 'closed under a writer');
is(work_off('short'), 100, 'the others are delivered');
sleep(1);
is(sql("SELECT sealed_at IS NULL FROM jobq.epoch WHERE epoch = $before"),
	't', 'not sealed under a writer');
$writer->query_safe('COMMIT');
sleep(1);
is(sql("SELECT sealed_at IS NULL FROM jobq.epoch WHERE epoch = $before"),
	't', 'nor under a prepared one');
sql("COMMIT PREPARED 'p'");
becomes_ok($node, "SELECT sealed_at IS NOT NULL FROM jobq.epoch WHERE epoch = $before",
	't', 'sealed when both are done');
my $late = 0;
ok(await(sub { ($late += work_off('short')) == 2 }, 20), 'late jobs are delivered');
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $before", '0', 'and it goes');

# ---- drop waits for readers and dumps ----

sub a_full_epoch
{
	my $epoch = open_epoch($short);

	enqueue('short', 100);
	work_off('short');
	becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch AND drained_at IS NULL",
		'0', 'epoch drained', 5);
	return $epoch;
}

$writer->query_safe('BEGIN');
my $read = open_epoch($short);
$writer->query_safe("SELECT count(*) FROM jobq.outcome_$read");
is(a_full_epoch(), $read, 'an epoch with a reader');
sleep(2);
is(sql("SELECT count(*) FROM jobq.epoch WHERE epoch = $read"),
	'1', 'is not dropped');
$writer->query_safe('COMMIT');
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $read", '0',
	'until the reader is done', 5);

$writer->query_safe("SET application_name = 'pg_dump'; BEGIN; SELECT 1");
$read = a_full_epoch();
sleep(2);
is(sql("SELECT count(*) FROM jobq.epoch WHERE epoch = $read"),
	'1', 'nothing is dropped under pg_dump');
$writer->query_safe('COMMIT; RESET application_name');
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $read", '0',
	'until it is done', 5);
audit_ok($node, 'after blocked drops');

# ---- what fails leaves the rest alone ----

my $seen = open_epoch($short);
sql("CREATE VIEW onlooker AS SELECT ticket FROM jobq.job_$seen");
is(a_full_epoch(), $seen, 'an epoch that a view depends on');
ok( await(
		sub { slurp_file($node->logfile) =~ /because other objects depend on/ }),
	'its drop fails, which is logged');
my $next = a_full_epoch();
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $next", '0',
	'the next one goes all the same');
is(sql("SELECT count(*) FROM jobq.epoch WHERE epoch = $seen"), '1', 'it stays');
sql('DROP VIEW onlooker');
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $seen", '0',
	'until the view is gone');

$writer->query_safe('BEGIN');
$read = open_epoch($short);
$writer->query_safe("SELECT count(*) FROM jobq.outcome_$read");
a_full_epoch();
sql(q{
CREATE FUNCTION no_table() RETURNS event_trigger LANGUAGE plpgsql
	AS $$ BEGIN RAISE 'no table today'; END $$;
CREATE EVENT TRIGGER no_table ON ddl_command_start WHEN TAG IN ('CREATE TABLE')
	EXECUTE FUNCTION no_table();
});
my $full = open_epoch($short);
enqueue('short', 100);
ok(await(sub { slurp_file($node->logfile) =~ /no table today/ }),
	'a new epoch cannot be made');
$writer->query_safe('COMMIT');
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $read", '0',
	'old ones go all the same');
is(open_epoch($short), $full, 'the full one stays open');
is(work_off('short'), 100, 'and its jobs are delivered');
sql('DROP EVENT TRIGGER no_table; DROP FUNCTION no_table()');
becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $full AND closed_at IS NULL",
	'0', 'it is closed when that can be', 30);
audit_ok($node, 'after failures');

# ---- crashes in the middle ----

foreach my $point ('before-seal', 'before-drop', 'inside-drop')
{
	my $total =
	  sql("SELECT completed_total FROM jobq.queue_stats WHERE queue = 'short'");
	my $epoch = open_epoch($short);

	sql("SELECT pause_at('$point')");
	enqueue('short', 100);
	work_off('short');
	ok($node->poll_query_until('postgres', 'SELECT paused() > 0'),
		"the keeper stops $point");
	kill_server($node, children => 1);
	$node->start;
	ok(await_keeper($node), "killed $point");
	becomes_ok($node, "SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch", '0',
		"killed $point: the epoch goes");
	is( sql("SELECT completed_total FROM jobq.queue_stats WHERE queue = 'short'"),
		$total + 100, "killed $point: totals are right");
	audit_ok($node, "killed $point");
}

$writer->quit;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|epoch \d+ is gone/,
	'no surprise in the log');
$node->stop;
done_testing();
