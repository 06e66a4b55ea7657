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
