# The audit log under fire: sessions that commit and roll back acts at the same
# time, a transaction that stays open, a crash, a keeper that was away, more
# refusals than there is room for; whoever changes the tables as a superuser is
# found out; what has been kept for long enough leaves, and the rest verifies.
#
# JOBQ_SECONDS: how long the load takes.
use strict;
use warnings;

use IPC::Run ();
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $SECONDS = $ENV{JOBQ_SECONDS} || 3;
my $node = start_audited('audit', 'synchronous_commit = on', q{
	CREATE ROLE nobody LOGIN;
	GRANT USAGE ON SCHEMA jobq TO nobody;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA jobq TO nobody;
	SELECT jobq.create_queue('own');
	CREATE TABLE done (who int, n int);
	SELECT jobq.create_queue('q' || n) FROM generate_series(0, 5) n;
});

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub chained
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return becomes_ok($node, 'SELECT count(*) FROM jobq.audit WHERE seq IS NULL', '0', "$name: every entry is in the chain");
}

sub whole
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( sql('SELECT whole, problem, unchained FROM jobq.verify_audit()'),
		't||0', "$name: the chain is whole");
	is( sql('SELECT count(*) = max(seq) - min(seq) + 1 FROM jobq.audit'),
		't', "$name: and has no gaps");
	return;
}

# ---- many at a time ----

# Acts that commit, leave a row each; those that do not, must leave nothing.
my $script = $node->basedir . '/acts.sql';
append_to_file($script, q{
\set roll random(1, 3)
BEGIN;
SELECT jobq.pause_queue('q' || :client_id);
SAVEPOINT a;
SELECT jobq.drain_queue('q' || :client_id);
\if :roll = 1
ROLLBACK;
\elif :roll = 2
ROLLBACK TO a;
INSERT INTO done VALUES (:client_id, 1);
COMMIT;
\else
INSERT INTO done VALUES (:client_id, 2);
COMMIT;
\endif
});

sub start_load
{
	my ($seconds) = @_;
	my $out = '';

	return {
		out => \$out,
		run => IPC::Run::start(
			[ 'pgbench', '-n', '-c', '6', '-j', '2', '-T', $seconds, '-f', $script,
				'-h', $node->host, '-p', $node->port, 'postgres' ],
			'<', \undef, '>&', \$out)
	};
}

sub acts_match
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is( sql(q{SELECT d.who, sum(d.n) FROM done d GROUP BY 1 ORDER BY 1}),
		sql(q{SELECT substr(queue, 2)::int, count(*) FROM jobq.audit
			WHERE call IN ('pause_queue', 'drain_queue') AND queue LIKE 'q_' GROUP BY 1 ORDER BY 1}),
		"$name: an entry for each act that was committed, none for others");
	return;
}

my $open = $node->background_psql('postgres');
$open->query_safe(q{BEGIN; SELECT jobq.pause_queue('own')});
my $load = start_load($SECONDS);
$load->{run}->finish;
like(${ $load->{out} }, qr/number of transactions actually processed/,
	'sessions act side by side');
chained('with a transaction open');
my $seen = sql('SELECT max(seq) FROM jobq.audit');
cmp_ok($seen, '>', 20, 'nobody waits for a transaction that stays open');
$open->query_safe('COMMIT');
$open->quit;
becomes_ok($node, qq{SELECT seq > $seen FROM jobq.audit WHERE queue = 'own' AND call = 'pause_queue'},
	't', 'whose entry has its place when it has committed');
acts_match('after the load');
whole('after the load');

# ---- crash ----

my $last = sql('SELECT last_seq FROM jobq.verify_audit()');
my $hash = sql('SELECT last_hash FROM jobq.verify_audit()');
$load = start_load(60);
usleep(1_500_000);
kill_server($node);
eval { $load->{run}->finish; };
$node->start;
ok(await_keeper($node), 'there is a keeper after a crash');
chained('after a crash');
acts_match('after a crash');
whole('after a crash');
is( sql(qq{SELECT whole, last_seq > $last FROM jobq.verify_audit($last, '$hash')}),
	't|t', 'what was known before the crash is still so');

# ---- without a keeper ----

$node->append_conf('postgresql.conf', "jobq.databases = 'elsewhere'");
$node->reload;
becomes_ok($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper'},
	'0', 'the keeper has gone');
sql(q{SELECT jobq.resume_queue('own')});
is(sqlstate($node, q{SET ROLE nobody; SELECT jobq.peek('own')}), 'JQ002', 'a call is refused');
usleep(300_000);
is( sql(q{SELECT count(*), count(seq) FROM jobq.audit WHERE queue = 'own' AND call IN ('resume_queue', 'peek')}),
	'1|0', 'without a keeper an act has no place yet, a refusal no entry');
is(sql(q{SELECT detail ~ ' 1 wait' FROM jobq.health() WHERE item = 'audit'}),
	't', 'health() knows that one waits');
$node->append_conf('postgresql.conf', "jobq.databases = '*'");
$node->reload;
becomes_ok($node, q{SELECT count(*), count(seq) FROM jobq.audit WHERE queue = 'own' AND call IN ('resume_queue', 'peek')},
	'2|2', 'when it comes back they have');
whole('after that');

# ---- before anybody has looked at the database ----

$node->append_conf('postgresql.conf', "jobq.databases = 'elsewhere'");
$node->restart;
is(sqlstate($node, 'SET ROLE nobody; SELECT jobq.health()'), '42501', 'the first call after a restart is refused');
$node->append_conf('postgresql.conf', "jobq.databases = '*'");
$node->reload;
becomes_ok($node, q{SELECT count(*) FROM jobq.audit WHERE role = 'nobody' AND call = 'health' AND outcome = 'refused'},
	'1', 'and written down');
whole('after a restart');

# ---- too many ----

my $lost = q{SELECT coalesce(sum(substring(detail FROM '^\d+')::int), 0) FROM jobq.audit WHERE outcome = 'lost'};
my $refused = q{SELECT count(*) FROM jobq.audit WHERE outcome = 'refused' AND call = 'dequeue'};
is(sql($lost), '0', 'nothing was lost so far');
is(sql(q{SELECT status FROM jobq.health() WHERE item = 'audit'}), 'ok', 'health() is content');
sql(q{SET ROLE nobody; DO $$BEGIN
	FOR i IN 1 .. 5000 LOOP
		BEGIN
			PERFORM jobq.dequeue('own');
		EXCEPTION WHEN SQLSTATE 'JQ002' THEN NULL;
		END;
	END LOOP;
	END$$});
becomes_ok($node, "SELECT ($refused) + ($lost)", '5000', 'each refusal is written down or counted');
cmp_ok(sql($lost), '>', 1000, 'there are too many of them to have one entry each');
cmp_ok(sql($refused), '>=', 256, 'but what there is room for is kept');
like(sql(q{SELECT status, detail FROM jobq.health() WHERE item = 'audit'}),
	qr/^warning\|\d+ refused calls could not be recorded/, 'health() says so');
chained('after too many');
whole('after too many');

# ---- tampering ----

# As a superuser, who can do anything; what verify_audit() finds, undone.
sub tamper
{
	my ($name, $like, $how) = @_;
	my $found = sql(qq{
		BEGIN;
		ALTER TABLE jobq.audit_entry DISABLE TRIGGER USER;
		ALTER TABLE jobq.audit_chain DISABLE TRIGGER USER;
		ALTER TABLE jobq.audit_mark DISABLE TRIGGER USER;
		$how;
		SELECT first_bad_seq, problem FROM jobq.verify_audit() WHERE NOT whole;
		ROLLBACK});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($found, qr/^$like$/, "found out: $name");
	return;
}

my $end = sql('SELECT last_seq FROM jobq.verify_audit()');
my $entry = '(SELECT c.id FROM jobq.audit_chain c WHERE c.seq = 10)';
my $end1 = $end + 1;
tamper('a detail', qr/10\|the entry or its link was changed/,
	"UPDATE jobq.audit_entry SET detail = 'nothing' WHERE id = $entry");
tamper("$_->[0]", qr/10\|the entry or its link was changed/,
	"UPDATE jobq.audit_entry SET $_->[0] = $_->[1] WHERE id = $entry")
  foreach ([ 'role', "'somebody'" ], [ 'session_role', "'somebody'" ], [ 'at', "at + '1 us'" ],
	[ 'client_addr', "'::1'" ], [ 'application_name', "NULL" ], [ 'call', "'peek'" ],
	[ 'queue', "'other'" ], [ 'job_id', '7' ], [ 'outcome', "'refused'" ],
	[ 'sqlstate', "'42501'" ], [ 'latency_us', 'latency_us + 1' ], [ 'arguments', "'{}'" ]);
tamper('an entry that is gone', qr/10\|the entry is missing/,
	"DELETE FROM jobq.audit_entry WHERE id = $entry");
tamper('a link that is gone', qr/10\|the link is missing/,
	'DELETE FROM jobq.audit_chain WHERE seq = 10');
tamper('the beginning that is gone', qr/1\|the link is missing/,
	'DELETE FROM jobq.audit_chain WHERE seq <= 10');
tamper('the end that is gone', qr/$end\|links are missing at the end/,
	"DELETE FROM jobq.audit_chain WHERE seq = $end");
tamper('all of it gone', qr/1\|links are missing at the end/, 'DELETE FROM jobq.audit_chain');
tamper('the mark that is gone', qr/$end\|the mark of the end is missing/,
	'DELETE FROM jobq.audit_mark');
tamper('an added link', qr/$end1\|the entry or its link was changed/,
	qq{INSERT INTO jobq.audit_entry SELECT origin, 1000000000, at, role, session_role, client_addr,
		application_name, call, queue, job_id, outcome, sqlstate, detail, latency_us, arguments
		FROM jobq.audit_entry WHERE id = $entry;
	INSERT INTO jobq.audit_chain SELECT chain, $end1, origin, 1000000000, hash
		FROM jobq.audit_chain WHERE seq = $end});
tamper('two that have changed places', qr/10\|the entry or its link was changed/,
	'UPDATE jobq.audit_chain SET seq = -10 WHERE seq = 10;
	UPDATE jobq.audit_chain SET seq = 10 WHERE seq = 11;
	UPDATE jobq.audit_chain SET seq = 11 WHERE seq = -10');
like( sql(q{BEGIN; ALTER TABLE jobq.audit_entry DISABLE TRIGGER guard;
		SELECT detail FROM jobq.check_install() WHERE item = 'audit' AND status = 'error'; ROLLBACK}),
	qr/trigger guard of audit_entry/, 'check_install() sees that a trigger is disabled');
whole('after all this was undone');

# One that stays: what comes after it does not hide it.
sql(qq{BEGIN; ALTER TABLE jobq.audit_entry DISABLE TRIGGER USER; ALTER TABLE jobq.audit_chain DISABLE TRIGGER USER;
	WITH gone AS (DELETE FROM jobq.audit_chain WHERE seq = $end RETURNING id)
	DELETE FROM jobq.audit_entry e USING gone WHERE e.id = gone.id;
	ALTER TABLE jobq.audit_entry ENABLE ALWAYS TRIGGER guard; ALTER TABLE jobq.audit_entry ENABLE ALWAYS TRIGGER guard_row;
	ALTER TABLE jobq.audit_entry ENABLE ALWAYS TRIGGER note_restore;
	ALTER TABLE jobq.audit_chain ENABLE ALWAYS TRIGGER guard; ALTER TABLE jobq.audit_chain ENABLE ALWAYS TRIGGER guard_row;
	ALTER TABLE jobq.audit_chain ENABLE ALWAYS TRIGGER note_restore;
	COMMIT});
sql(q{SELECT jobq.pause_queue('own')});
chained('after the end was cut off');
is( sql('SELECT first_bad_seq, problem FROM jobq.verify_audit()'),
	"$end|the link is missing", 'an end that was cut off stays visible when the chain goes on');
is(sql('SELECT count(*) FROM jobq.check_install() WHERE status <> \'ok\''), '0', 'the triggers are back');

# ---- retention ----

is(sql('SHOW jobq.audit_retention'), '90d', 'entries are kept for 90 days');
my $before = sql('SELECT max(seq) FROM jobq.audit');
usleep(1_200_000);
$node->append_conf('postgresql.conf', "jobq.audit_retention = '1s'");
$node->reload;
becomes_ok($node, "SELECT count(*) FROM jobq.audit WHERE seq < $before", '0', 'old entries leave');
$node->append_conf('postgresql.conf', "jobq.audit_retention = '90d'");
$node->reload;
sql(q{SELECT jobq.resume_queue('own')});
chained('after a cut');
whole('after a cut');
is( sql(q{SELECT count(*) > 0 FROM jobq.audit WHERE call = 'audit' AND detail ~ 'were removed'}),
	't', 'the cut is written down');
is( sql(qq{SELECT problem FROM jobq.verify_audit($last, '$hash')}),
	'the link that was written down is no longer kept', 'what has left cannot be compared');
cmp_ok(sql('SELECT count(*) FROM jobq.audit_entry'), '<', 10, 'the entries have gone with their links');
tamper('a cut that was moved', qr/\d+\|there is a link where the chain was cut/,
	'INSERT INTO jobq.audit_mark SELECT chain, true, seq, hash FROM jobq.audit_chain ORDER BY seq DESC LIMIT 1');

# ---- quiet ----

usleep(700_000);
my $lsn = sql('SELECT pg_current_wal_insert_lsn()');
$end = sql('SELECT last_seq FROM jobq.verify_audit()');
usleep(1_500_000);
is(sql('SELECT last_seq FROM jobq.verify_audit()'), $end, 'where nothing happens nothing is written');
is( sql("SELECT pg_current_wal_insert_lsn() - '$lsn' < 1000"), 't', 'no WAL, either');

unlike(slurp_file($node->logfile), qr/(?:PANIC|TRAP|was terminated by signal)/, 'the server has not crashed by itself');
$node->stop;
done_testing();
