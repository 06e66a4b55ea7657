# Between the moment a transaction can be seen and the moment it has published
# its jobs, others may find them on disk, and end them. Whatever they do, the
# late publisher brings nothing back; nor does anybody who gives up.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_audited('late', 'jobq.max_live_jobs = 100',
	q{SELECT jobq.create_queue('q', '{"lease_for": "1 hour", "backoff": {"base": "0 s"}}')});

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sub begin_statement
{
	my ($session, $statement) = @_;

	$session->{stdin} .= "$statement;\n\\echo answered :SQLSTATE\n";
	$session->{run}->pump_nb;
	return;
}

sub answer_of
{
	my ($session) = @_;

	$session->{run}->pump
	  until $session->{stdout} =~ /answered (\w+)/
	  || $session->{timeout}->is_expired;
	my ($state) = $session->{stdout} =~ /answered (\w+)/;
	$session->{stdout} = '';
	return $state;
}

# A session that has committed a job and stands before publishing it; the
# others pass.
sub late_publisher
{
	my ($statement) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	sql("SELECT pause_at('one:before-publish')");
	begin_statement($session, $statement
		  // "INSERT INTO audit.ledger SELECT jobq.enqueue('q')");
	$node->poll_query_until('postgres', 'SELECT paused() > 0');
	return ($session, sql('SELECT max(id) FROM audit.ledger'));
}

sub goes_on
{
	my ($session, $name) = @_;

	sql("SELECT pause_at('')");
	is(answer_of($session), '00000', "$name: the publisher goes on");
	$session->quit;
	return;
}

# How often dequeue hands this job out, until nothing is left.
sub delivered
{
	my ($id) = @_;
	my $n = 0;

	await(
		sub {
			$n += sql("SELECT count(*) FILTER (WHERE id = $id)
				FROM (SELECT id, jobq.complete(id, lease) FROM jobq.dequeue('q', 1000)) j");
			return sql('SELECT count(*) FROM jobq.jobs') eq '0';
		},
		60);
	return $n;
}

# ---- ended before it was published ----

my ($session, $id) = late_publisher();
is(sql("SELECT jobq.cancel($id)"), 't', 'a job is cancelled before it is published');
goes_on($session, 'cancel');
is(sql("SELECT state FROM jobq.job($id)"), 'cancelled', 'cancel: stays cancelled');
is(delivered($id), 0, 'cancel: is not delivered');
audit_ok($node, 'cancel');

($session, $id) = late_publisher();
is(sql("SELECT jobq.reschedule($id, now() + interval '1 hour')"), 't',
	'a job is rescheduled before it is published');
goes_on($session, 'reschedule');
is(sql("SELECT count(*) FROM jobq.dequeue('q', 10)"), 0, 'reschedule: is not delivered');
audit_ok($node, 'reschedule');
is(sql("SELECT jobq.cancel($id)"), 't', 'reschedule: it waits on the shelf');

# A job that ran in the transaction that enqueued it.
($session, $id) = late_publisher("BEGIN; INSERT INTO audit.ledger SELECT jobq.enqueue('q');
	SELECT lease FROM jobq.dequeue('q'); COMMIT");
my $canceller = $node->background_psql('postgres', on_error_stop => 0);
begin_statement($canceller, "SELECT jobq.cancel($id)");
goes_on($session, 'own claim');
is(answer_of($canceller), '00000', 'own claim: cancel waits for it to be published');
$canceller->quit;
is(sql("SELECT state FROM jobq.job($id)"), 'cancelled', 'own claim: cancelled');
is(delivered($id), 0, 'own claim: is not delivered');
audit_ok($node, 'own claim');

# The same by the keeper, which loads what is on disk.
sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q') FROM generate_series(1, 300)");
($session, $id) = late_publisher();
is(delivered($id), 1, 'refill: delivered and done before it is published');
goes_on($session, 'refill');
is(delivered($id), 0, 'refill: and not once more');
audit_ok($node, 'refill');

# ---- put on the shelf, where it keeps its place in a group ----

# Two jobs of a group of one at a time; the first one's id and lease.
sub head_of
{
	my ($queue) = @_;

	sql(qq{SELECT jobq.create_queue('$queue', '{"group_limit": 1, "lease_for": "1 hour"}');
		INSERT INTO audit.ledger SELECT jobq.enqueue('$queue', group_key => 'k')
			FROM generate_series(1, 2)});
	return split(/ /, sql("SELECT id || ' ' || lease FROM jobq.dequeue('$queue', 2)"));
}

sub ids_from
{
	my ($queue) = @_;

	return sql("SELECT coalesce(string_agg(id::text, ' '), 'none') FROM jobq.dequeue('$queue', 2)");
}

# Its group goes on with it, and then with the next one.
sub goes_first
{
	my ($queue, $head) = @_;

	ok(await(sub { ids_from($queue) eq $head }), "$queue: it comes back, not for nothing");
	sql("SELECT jobq.complete($head, (SELECT max(lease) FROM jobq.attempts($head)))");
	ok(await(sub { ids_from($queue) eq $head + 1 }), "$queue: then its group goes on");
	audit_ok($node, $queue);
	return;
}

sql("SELECT jobq.create_queue('probe')");

# It is due before the one who has put it there has ended his commit; others
# that are due before and after it have the keeper come upon it.
sub due_before_it_is_told
{
	my ($queue, $head, $statement) = @_;
	my ($session) = late_publisher($statement);
	my $probe = sql("INSERT INTO audit.ledger SELECT jobq.enqueue('probe', delay => d)
		FROM unnest('{0.1 s,0.5 s}'::interval[]) d RETURNING id");

	$probe =~ s/.*\n//s;
	ok(await(sub { sql("SELECT state FROM jobq.job($probe)") eq 'available' }),
		"$queue: the keeper moves what is due");
	goes_on($session, $queue);
	goes_first($queue, $head);
	return;
}

# Who cancels it then waits, and the group goes on with the next one.
sub cancelled_meanwhile
{
	my ($queue, $head, $session) = @_;
	my $canceller = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $canceller->query_safe('SELECT pg_backend_pid()');

	begin_statement($canceller, "SELECT jobq.cancel($head)");
	ok( $node->poll_query_until('postgres',
			"SELECT wait_event_type IN ('Lock', 'Extension') FROM pg_stat_activity WHERE pid = $pid"),
		"$queue: cancel waits");
	is(sql("SELECT state FROM jobq.job($head)"), 'scheduled', "$queue: it is still there");
	goes_on($session, $queue);
	is(answer_of($canceller), '00000', "$queue: cancelled");
	$canceller->quit;
	is(ids_from($queue), $head + 1, "$queue: its group goes on");
	audit_ok($node, $queue);
	return;
}

# Where it is put there in a subtransaction, whose own lock is gone by then.
foreach my $in ('', '_nested')
{
	my $inside = sub { $in ? "BEGIN; SAVEPOINT s; $_[0]; RELEASE s; COMMIT" : $_[0] };

	my ($head, $lease) = head_of("due$in");
	due_before_it_is_told("due$in", $head, $inside->("SELECT jobq.release($head, $lease, delay => '0.4 s')"));

	# The same when it was there before.
	($head, $lease) = head_of("sooner$in");
	sql("SELECT jobq.release($head, $lease, delay => '1 hour')");
	due_before_it_is_told("sooner$in", $head,
		$inside->("SELECT jobq.reschedule($head, clock_timestamp() + interval '0.4 s')"));

	# It is cancelled then.
	($head, $lease) = head_of("off$in");
	($session) = late_publisher($inside->("SELECT jobq.release($head, $lease, delay => '1 hour')"));
	cancelled_meanwhile("off$in", $head, $session);

	# It is on the shelf already, and is put back there.
	($head, $lease) = head_of("later$in");
	sql("SELECT jobq.release($head, $lease, delay => '1 hour')");
	($session) = late_publisher(
		$inside->("SELECT jobq.reschedule($head, clock_timestamp() + interval '2 hours')"));
	cancelled_meanwhile("later$in", $head, $session);

	# Cancelled by somebody who saw it on the shelf before it was moved, taken and
	# put back; the one who puts it back is late.
	($head, $lease) = head_of("again$in");
	sql("SELECT pause_at('before-shelf-take');
		SELECT jobq.release($head, $lease, delay => '1 s')");
	$canceller = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $canceller->query_safe('SELECT pg_backend_pid()');
	begin_statement($canceller, "SELECT jobq.cancel($head)");
	ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), "again$in: on its way to the shelf");
	ok(await(sub { sql("SELECT state FROM jobq.job($head)") eq 'available' }), "again$in: moved");
	$session = $node->background_psql('postgres', on_error_stop => 0);
	sql("SELECT pause_at('before-shelf-take before-publish')");
	begin_statement($session,
		$inside->("SELECT jobq.release(id, lease, delay => '1 hour') FROM jobq.dequeue('again$in')"));
	ok($node->poll_query_until('postgres', 'SELECT paused() > 1'), "again$in: put back");
	sql("SELECT pause_at('one:before-publish')");
	ok( $node->poll_query_until('postgres',
			"SELECT wait_event_type IN ('Lock', 'Extension') FROM pg_stat_activity WHERE pid = $pid"),
		"again$in: cancel waits");
	is(sql("SELECT state FROM jobq.job($head)"), 'scheduled', "again$in: it is still there");
	goes_on($session, "again$in");
	is(answer_of($canceller), '00000', "again$in: cancelled");
	$canceller->quit;
	is(ids_from("again$in"), $head + 1, "again$in: its group goes on");
	audit_ok($node, "again$in");

	# Brought to the belt, it is taken and put back before the one who has brought
	# it there has ended his commit.
	($head, $lease) = head_of("back$in");
	sql("SELECT jobq.release($head, $lease, delay => '1 hour')");
	$session = $node->background_psql('postgres', on_error_stop => 0);
	sql("SELECT pause_at('one:new-places-known')");
	begin_statement($session, $inside->("SELECT jobq.reschedule($head, clock_timestamp())"));
	ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), "back$in: brought to the belt");
	is(sql("SELECT count(jobq.release(id, lease, delay => '1 hour')) FROM jobq.dequeue('back$in')"),
		1, "back$in: taken and put back");
	goes_on($session, "back$in");
	is(ids_from("back$in"), 'none', "back$in: it keeps its place");
	sql("SELECT jobq.reschedule($head, clock_timestamp())");
	is(ids_from("back$in"), $head, "back$in: and goes first");
	audit_ok($node, "back$in");

	# Taken out of its group, and put into another one by somebody else before
	# that was told.
	sql(qq{SELECT jobq.create_queue('group$in', '{"group_limit": 1, "lease_for": "1 hour"}');
		INSERT INTO audit.ledger SELECT jobq.enqueue('group$in', group_key => 'a', unique_key => 'u')});
	($head, $lease) = split(/ /, sql("SELECT id || ' ' || lease FROM jobq.dequeue('group$in')"));
	sql("SELECT jobq.release($head, $lease, delay => '1 hour');
		INSERT INTO audit.ledger SELECT jobq.enqueue('group$in', group_key => 'b')");
	my $again = "unique_key => 'u', on_conflict => 'replace', delay => '2 hours'";
	($session) = late_publisher($inside->("SELECT jobq.enqueue('group$in', $again)"));
	my $other = $node->background_psql('postgres', on_error_stop => 0);
	$pid = $other->query_safe('SELECT pg_backend_pid()');
	begin_statement($other, "SELECT jobq.enqueue('group$in', $again, group_key => 'b')");
	ok( $node->poll_query_until('postgres',
			"SELECT wait_event_type IN ('Lock', 'Extension') FROM pg_stat_activity WHERE pid = $pid"),
		"group$in: who replaces it again waits");
	goes_on($session, "group$in");
	is(answer_of($other), '00000', "group$in: replaced again");
	$other->quit;
	is(ids_from("group$in"), 'none', "group$in: it keeps a place in the other one");
	audit_ok($node, "group$in");
}

sql(q{SELECT count(jobq.purge_queue(q)) FROM (SELECT queue FROM jobq.queues WHERE queue <> 'q') x (q);
	SELECT count(jobq.complete(id, lease)) FROM jobq.jobs, jobq.attempts(id) a
	WHERE state = 'running' AND a.finished_at IS NULL});

# ---- somebody gives up ----

sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q') FROM generate_series(1, 300)");
$id = sql('SELECT max(id) FROM audit.ledger');
my $purger = $node->background_psql('postgres', on_error_stop => 0);
my $other = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $other->query_safe('SELECT pg_backend_pid()');
$purger->query_safe("BEGIN; SELECT jobq.purge_queue('q')");
begin_statement($other, "SELECT jobq.cancel($id)");
ok(wait_lock($node, $pid), 'cancelling what is being purged waits');
$purger->query_safe('COMMIT');
is(answer_of($other), '00000', 'and then finds it final');
is(delivered($id), 0, 'it is not delivered');
audit_ok($node, 'purge');

sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q') FROM generate_series(1, 300)");
$id = sql('SELECT max(id) FROM audit.ledger');
$other->query_safe("BEGIN; SELECT jobq.cancel($id); ROLLBACK");
is(delivered($id), 1, 'a cancel that is rolled back leaves the job as it was');
$other->quit;

# ---- a refill that fails ----

sql("INSERT INTO audit.ledger SELECT jobq.enqueue('q') FROM generate_series(1, 300)");
sql("SELECT pause_at('after-refill-snapshot')");
sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 60)");
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'the keeper refills');
sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type = 'pg_jobq keeper'");
$purger->query_safe("SET statement_timeout = '30 s'");
sql("SELECT pause_at('')");
my $left = sql("SELECT count(*) FROM jobq.jobs");
is($purger->query_safe("SELECT jobq.purge_queue('q')"), $left,
	'purge_queue works though the keeper has died in a refill');
$purger->quit;
is(sql('SELECT count(*) FROM jobq.jobs'), 0, 'nothing is left');
audit_ok($node, 'a refill that failed');

# ---- no slot is left ----

sql(q{SELECT jobq.create_queue('full', '{"lease_for": "1 hour"}')});
sql("SELECT count(jobq.enqueue('full')) FROM generate_series(1, 300)");
my $running = 0;
await(
	sub {
		$running += sql("SELECT count(*) FROM jobq.dequeue('full', 95 - $running)");
		return $running >= 90;
	},
	30);
cmp_ok($running, '>=', 90, 'nearly all slots are taken by running jobs');
is(sqlstate($node, "SELECT jobq.drop_queue('full', true)"),
	'00000', 'the queue can be dropped with all its jobs');

is(conflicts_logged($node), 0, 'the unique index has saved nobody');
unlike(slurp_file($node->logfile),
	qr/is not where it should be|could not be moved|PANIC:|TRAP:/,
	'no surprise in the log');
$node->stop;
done_testing();
