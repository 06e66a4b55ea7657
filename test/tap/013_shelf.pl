# The shelf: jobs go to the belt in time and in order, no index entry is walked
# again and again however long a snapshot is held, whatever commits late or
# rolls back is found, and dead jobs leave when their retention is over.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = start_audited('shelf', undef, q{
SELECT jobq.create_queue('q', '{"lease_for": "1 hour", "backoff": {"base": "0 s"}}');
SELECT jobq.create_queue('r', '{"lease_for": "1 hour"}');
});

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub session
{
	return $node->background_psql('postgres', on_error_stop => 1);
}

sub state_of
{
	my ($id) = @_;

	return sql("SELECT state FROM jobq.job($id)");
}

sub becomes
{
	my ($id, $state, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(await(sub { state_of($id) eq $state }, 20), $name);
}

# One that is due in a moment, enqueued by a query of its own.
sub enqueue
{
	my ($arguments) = @_;

	return sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q', $arguments) RETURNING id");
}

# Complete all that is available in order; returns the payloads.
sub drain
{
	my ($queue) = @_;
	my @payloads;

	while (1)
	{
		my $out = sql("SELECT payload, jobq.complete(id, lease) FROM jobq.dequeue('$queue', 5000)");

		last if $out eq '';
		push @payloads, map { /^(\d+)/ } split(/\n/, $out);
	}
	return @payloads;
}

# ---- no entry is walked again ----

# Entries of the index by run_at that have been walked. Statistics of the
# keeper come at most once a second, at the end of a transaction.
sub walked
{
	sleep(1.1);
	becomes(enqueue(q{'0', delay => '0.05 s'}), 'available', 'one more is moved');
	drain('q');
	return sql(q{SELECT idx_tup_read FROM pg_stat_user_indexes
		WHERE indexrelname = 'shelf_run_at'});
}

sub rounds
{
	my ($n) = @_;

	foreach my $i (1 .. $n)
	{
		my $id = enqueue(q{'0', delay => '0.02 s'});

		await(sub { state_of($id) eq 'available' }, 20)
		  or return fail("round $i: the job is moved");
	}
	return pass("$n rounds");
}

my $ROWS = 6000;
my $holder = session();
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM jobq.shelf');

# Two queues mixed, due one after the other; and many at the same time.
sql(qq{INSERT INTO audit.ledger
	SELECT jobq.enqueue(CASE WHEN i % 3 = 0 THEN 'r' ELSE 'q' END, to_jsonb(i),
		run_at => t + i * interval '0.1 ms')
	FROM (SELECT now() + interval '1 s' AS t) x, generate_series(1, $ROWS) i});
ok( await(sub { sql("SELECT sum(scheduled) FROM jobq.queue_stats") eq '0' }, 30),
	"$ROWS jobs are moved");
is_deeply([ drain('q') ], [ grep { $_ % 3 } 1 .. $ROWS ], 'in order');
is_deeply([ drain('r') ], [ grep { $_ % 3 == 0 } 1 .. $ROWS ],
	'in the other queue, too');
sql(qq{INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('q',
	(SELECT array_agg(to_jsonb(i) ORDER BY i) FROM generate_series(1, $ROWS) i),
	delay => '0.5 s'))});
ok( await(sub { sql("SELECT sum(scheduled) FROM jobq.queue_stats") eq '0' }, 30),
	"$ROWS of the same time are moved");
is_deeply([ drain('q') ], [ 1 .. $ROWS ], 'in order');
my $all = walked();
cmp_ok($all, '<', 3 * 2 * $ROWS,
	'with a held snapshot each entry is walked about once');

rounds(30);
my $after = walked();
cmp_ok($after - $all, '<', 2000, 'rounds later on do not walk them again');

# Entries that are not due yet, of jobs that are gone.
sql(qq{WITH j AS (SELECT unnest(jobq.enqueue_many('q', array_fill('1'::jsonb, ARRAY[3000]),
		delay => '1 h')) AS id)
	INSERT INTO audit.ledger SELECT id FROM j});
is(sql(q{SELECT count(*) FROM (SELECT jobq.cancel(id) FROM jobq.jobs WHERE state = 'scheduled') x}),
	'3000', 'a lot is scheduled and cancelled');
$all = walked();
rounds(20);
cmp_ok(walked() - $all, '<', 6000, 'nor is what is far ahead');
$holder->query_safe('COMMIT');
drain('q');
audit_ok($node, 'moved');

# ---- late commits, rollbacks ----

# Others that come later and are moved, so that the mark passes.
sub pass_by
{
	my ($name) = @_;
	my $id = enqueue(q{'0', delay => '0.1 s'});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return becomes($id, 'available', "$name: the mark passes");
}

my $late = session();
my $id = $late->query_safe(q{BEGIN;
	INSERT INTO audit.ledger SELECT jobq.enqueue('q', delay => '0.05 s') RETURNING id});
pass_by('late commit');
$late->query_safe('COMMIT');
becomes($id, 'available', 'what commits late is found');

$id = $late->query_safe(q{BEGIN;
	INSERT INTO audit.ledger SELECT jobq.enqueue('q', delay => '0.05 s') RETURNING id});
sql("SELECT pause_at('between-move-writes')");
my $other = enqueue(q{'0', delay => '0.1 s'});
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'),
	'the keeper has walked and not committed');
$late->query_safe('COMMIT');
sql("SELECT pause_at('')");
becomes($id, 'available', 'what commits during the walk is found');
becomes($other, 'available', 'and so is what was walked');

foreach my $how ('ROLLBACK', 'COMMIT')
{
	my @ids = map { enqueue(q{'0', delay => '0.5 s'}) } 1 .. 3;

	$late->query_safe("BEGIN; SELECT jobq.reschedule(i, clock_timestamp() + '1 h') FROM unnest('{$ids[0],$ids[1]}'::bigint[]) i");
	becomes($ids[2], 'available', "rescheduled in an open transaction: others are moved");
	pass_by('rescheduled');
	is(state_of($ids[0]), 'scheduled', 'but not these');
	$late->query_safe($how);
	if ($how eq 'ROLLBACK')
	{
		becomes($_, 'available', 'rolled back: moved at last') foreach @ids[0, 1];
	}
	else
	{
		rounds(5);
		is(sql("SELECT count(*) FROM jobq.jobs WHERE id IN ($ids[0], $ids[1]) AND state = 'scheduled'"),
			'2', 'committed: they wait for their new time');
		sql("SELECT jobq.cancel($_)") foreach @ids[0, 1];
	}
}

# More of them than the keeper looks at in one go, and the open transaction
# stands in nobody's way.
sql(qq{INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('q', array_fill('0'::jsonb, ARRAY[7000]), delay => '1 s'))});
$id = enqueue(q{'0', delay => '1 s'});
$late->query_safe(q{BEGIN; SELECT count(jobq.reschedule(id, clock_timestamp() + '1 h')) FROM jobq.jobs WHERE state = 'scheduled' AND run_at < clock_timestamp() + '10 s'});
pass_by('thousands being rescheduled');
rounds(3);
$late->query_safe('ROLLBACK');
becomes($id, 'available', 'rolled back: moved, the last one as well');
ok( await(sub { sql("SELECT scheduled FROM jobq.queue_stats WHERE queue = 'q'") eq '0' }, 20),
	'all of them');
$late->quit;

$late = session();
$id = $late->query_safe(q{BEGIN;
	INSERT INTO audit.ledger SELECT jobq.enqueue('q', delay => '0.05 s') RETURNING id});
$late->query_safe(q{PREPARE TRANSACTION 'shelf'});
$late->quit;
pass_by('prepared');
sql(q{COMMIT PREPARED 'shelf'});
becomes($id, 'available', 'what was prepared is found');
drain('q');
audit_ok($node, 'late commits');

# ---- moves are committed lazily ----

$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
$id = sql(q{SET synchronous_commit = local;
	INSERT INTO audit.ledger SELECT jobq.enqueue('q', delay => '0.1 s') RETURNING id});
becomes($id, 'available', 'a move does not wait for a standby');
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;

# ---- crashes ----

foreach my $point ('between-move-writes', 'before-keeper-commit')
{
	sql("SELECT pause_at('$point')");
	my @ids = map { enqueue(q{'1', delay => '0.1 s'}) } 1 .. 20;
	ok($node->poll_query_until('postgres', 'SELECT paused() > 0'),
		"the keeper stops at $point");
	kill_server($node, children => 1);
	$node->start;
	ok(await_keeper($node), 'after a crash');
	ok( await(sub { sql("SELECT scheduled FROM jobq.queue_stats WHERE queue = 'q'") eq '0' }, 20),
		'all are moved');
	audit_ok($node, "killed $point");
	sql("SELECT count(jobq.cancel(id)) FROM jobq.jobs");
}
$node->restart;
await_keeper($node);

# ---- dead jobs ----

sub die_of
{
	my ($queue) = @_;

	my $id = sql("INSERT INTO audit.ledger SELECT jobq.enqueue('$queue') RETURNING id");

	sql("SELECT jobq.fail(id, lease, 'x', false) FROM jobq.dequeue('$queue')");
	return $id;
}

sql(q{SELECT jobq.create_queue('mortal', '{"dead_retention": "2 s"}'),
	jobq.create_queue('kept', '{}'),
	jobq.create_queue('letters', '{"dead_letter": "dead letters", "dead_retention": 0}')});
my $start = time();
my $dead = die_of('mortal');
my $kept = die_of('kept');
my $waiting = sql("INSERT INTO audit.ledger SELECT jobq.enqueue('mortal', delay => '1 h') RETURNING id");
my $failed = sql("INSERT INTO audit.ledger SELECT jobq.enqueue('mortal') RETURNING id");
sql("SELECT jobq.fail(id, lease, 'x', retry_in => '1 h') FROM jobq.dequeue('mortal')");
is(sql('SELECT string_agg(id::text, \' \' ORDER BY id) FROM jobq.dead_jobs'), "$dead $kept",
	'dead jobs are kept');
ok(await(sub { state_of($dead) eq '' }, 20), 'one is gone after its dead_retention');
cmp_ok(time() - $start, '>=', 2, 'not before');
cmp_ok(time() - $start, '<', 6, 'but soon');
is(sqlstate($node, "SELECT jobq.retry($dead)"), 'JQ020', 'it cannot be retried');
is(sql("SELECT string_agg(state, ' ' ORDER BY id) FROM jobq.jobs WHERE queue = 'mortal'"),
	'scheduled retryable', 'what waits stays');
is(state_of($kept), 'dead', 'what is to be kept stays');
# However long it takes until the word that the catalog has changed is out.
my $altering = commit_with_late_word($node,
	q{SELECT jobq.alter_queue('kept', '{"dead_retention": "0 s"}')}, 'a retention changes');
sleep(1.5);	# so that the keeper could look too early; it pauses for a second
sql(q{SELECT pause_at('')});
$altering->quit;
ok(await(sub { state_of($kept) eq '' }, 20), 'a shorter retention counts at once');

# The copy in a dead-letter queue outlives its original's row.
$dead = die_of('letters');
my $copy = sql("SELECT id FROM jobq.peek('dead letters')");
ok(await(sub { state_of($dead) eq '' }, 20), 'the original is gone');
is(state_of($copy), 'available', 'its copy is not');
is(sqlstate($node, "SELECT jobq.retry($dead)"), 'JQ020', 'the original cannot be retried');
is(sql(q{SELECT jobq.redrive('dead letters')}), '1', 'the copy can be redriven');
is(sql(q{SELECT jobq.redrive('dead letters')}), '0', 'once');
is(sql("SELECT count(*) FROM jobq.jobs WHERE queue = 'letters' AND retry_of = $dead"),
	'1', 'it is back');
is(sqlstate($node, "SELECT jobq.retry($dead)"), 'JQ020', 'and not a second time');

# More than one batch, another session has some in its hands, a crash between.
sql(q{SELECT jobq.alter_queue('mortal', '{"dead_retention": "1 h"}');
	INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('mortal', array_fill('1'::jsonb, ARRAY[2500])));
	SELECT count(jobq.fail(id, lease, 'x', false)) FROM jobq.dequeue('mortal', 2500)});
my $mine = sql("SELECT min(id) FROM jobq.dead_jobs WHERE queue = 'mortal'");
$late = session();
$late->query_safe("BEGIN; SELECT jobq.retry($mine)");
sql(q{SELECT pause_at('before-keeper-commit')});
sql(q{SELECT jobq.alter_queue('mortal', '{"dead_retention": "0 s"}')});
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'the keeper deletes');
sql(q{SELECT pause_at('')});
ok( await(sub { sql("SELECT count(*) FROM jobq.dead_jobs WHERE queue = 'mortal'") eq '1' }, 30),
	'thousands go, but one that is being retried');
$late->query_safe('ROLLBACK');
$late->quit;
ok(await(sub { state_of($mine) eq '' }, 20), 'then that one, too');
is(sql("SELECT count(*) FROM jobq.shelf WHERE id IN ($waiting, $failed)"), '2',
	'what waits is still there');
audit_ok($node, 'dead jobs gone');

# A dead row whose queue is gone; it was no restore that brought it.
sql(q{INSERT INTO jobq.shelf (id, run_at, enqueued_at, queue_id, attempt,
		max_attempts, enqueued_by, priority, payload, state, died_at)
	VALUES (1, 'infinity', now(), 9999, 1, 1, '-', 0, '{}', 'd', now());
	DELETE FROM jobq.restored});
$node->restart;
await_keeper($node);
ok( await(sub { sql('SELECT count(*) FROM jobq.shelf WHERE queue_id = 9999') eq '0' }, 20),
	'a dead row without its queue goes');

# ---- jobs that expire ----

sub expired_late
{
	my ($id) = @_;

	return sql("SELECT extract(epoch FROM finished_at - expires_at) FROM jobq.job($id) WHERE state = 'expired'");
}

# Two of each kind expire: one before the server is killed, one after that.
sub enqueue_expiring
{
	my ($after) = @_;
	my %job;

	foreach my $kind ('available', 'retried', 'scheduled', 'running')
	{
		$job{$kind} = sql("INSERT INTO audit.ledger SELECT jobq.enqueue('short', '\"$kind\"', priority => "
			  . ($kind eq 'retried' || $kind eq 'running' ? -1 : 0)
			  . ($kind eq 'scheduled' ? ", delay => '0.2 s'" : '')
			  . ", expires_at => clock_timestamp() + interval '$after') RETURNING id");
		next if $kind eq 'available' || $kind eq 'scheduled';
		my $lease = sql("SET jobq.claim_durability = on; SELECT lease FROM jobq.dequeue('short')");
		sql("SELECT jobq.fail($job{$kind}, $lease, 'x', retry_in => '1 h')")
		  if $kind eq 'retried';
	}
	return %job;
}

sub await_expiry
{
	my ($name, %job) = @_;

	foreach my $kind ('available', 'retried', 'scheduled')
	{
		becomes($job{$kind}, 'expired', "$name, $kind: expired");
		my $late = expired_late($job{$kind});
		cmp_ok($late, '>=', 0, "$name, $kind: not before its time ($late s)");
		cmp_ok($late, '<', 1, "$name, $kind: within a second");
	}
	is(state_of($job{running}), 'running', "$name: what runs goes on");
	return;
}

sql(q{SELECT jobq.create_queue('short', '{"lease_for": "1 hour", "dead_letter": "shorts"}')});
await_expiry('idle', enqueue_expiring('1.5 s'));
audit_ok($node, 'expired');
sql(q{SELECT jobq.alter_queue('short', '{"expired_to": "dead_letter"}')});
my %before = enqueue_expiring('2 s');
my %long = enqueue_expiring('6 s');
kill_server($node);
$node->start;
ok(await_keeper($node), 'after a crash');
becomes($before{$_}, 'expired', "$_: expires after a crash")
  foreach 'available', 'retried', 'scheduled';
await_expiry('after a crash', %long);
is(sql("SELECT count(*) FROM jobq.jobs WHERE queue = 'shorts'"), '6', 'with copies');

# Killed while they are being ended: nothing is done twice.
$node->restart;
await_keeper($node);
my %killed = enqueue_expiring('2 s');
sql(q{SELECT pause_at('before-keeper-commit')});
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'the keeper ends them');
kill_server($node, children => 1);
$node->start;
ok(await_keeper($node), 'killed in it');
becomes($killed{$_}, 'expired', "$_: expires after that")
  foreach 'available', 'retried', 'scheduled';
audit_ok($node, 'expired over crashes');

# ---- jobs that cannot be moved or ended stop nobody else ----

# An index of an administrator in which some payloads have no room.
my $big = q{(SELECT to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, 400) i)};
my $fine = q{'"fine"'};
sql(q{SELECT jobq.create_queue('stuck', '{"dead_letter": "stuck letters", "expired_to": "dead_letter"}')});
my @bad = map { sql("INSERT INTO audit.ledger SELECT jobq.enqueue('stuck', $big, $_) RETURNING id") }
  "delay => '6 s'", "expires_at => clock_timestamp() + '6 s'",
  "delay => '6 s', expires_at => clock_timestamp() + '6.5 s'";
# What is there already is in an older epoch.
my $epoch = sql('SELECT max(epoch) FROM jobq.epoch');
sql('ALTER SYSTEM SET jobq.epoch_rows = 100');
$node->reload;
ok($node->poll_query_until('postgres', "SELECT max(epoch) > $epoch FROM jobq.epoch"),
	'a new epoch');
sql('ALTER SYSTEM RESET jobq.epoch_rows');
$node->reload;
$epoch = sql('SELECT max(epoch) FROM jobq.epoch');
sql("CREATE INDEX too_small ON jobq.job_$epoch (payload)");
$id = sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q', $fine, delay => '7 s') RETURNING id");
$other = sql("INSERT INTO audit.ledger SELECT jobq.enqueue('short', $fine, expires_at => clock_timestamp() + '7 s') RETURNING id");
becomes($id, 'available', 'jobs that cannot be moved: others are');
becomes($other, 'expired', 'jobs that cannot expire: others do');
is( sql(q{SELECT string_agg(state, ' ' ORDER BY id) FROM jobq.jobs WHERE queue = 'stuck'}),
	'scheduled available scheduled', 'they are where they were');
like(slurp_file($node->logfile), qr/ERROR:  index row /, 'the log tells');
sql('DROP INDEX jobq.too_small');
becomes($bad[0], 'available', 'then it is moved');
becomes($_, 'expired', 'then it expires') foreach @bad[1, 2];
audit_ok($node, 'stuck for a while');

is(conflicts_logged($node), 0, 'the unique index has saved nobody');
unlike(slurp_file($node->logfile), qr/is not where it should be|PANIC:|TRAP:/,
	'no surprise in the log');
$node->stop;
done_testing();
