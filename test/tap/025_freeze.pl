# Sealed epochs that get old are frozen by a process of their own, without
# autovacuum: it gives way to everybody, leaves open epochs alone, and does not
# try again and again what a held horizon makes impossible.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $ROWS = 1000;				# a slow freezer takes a minute for them
my $MAX_AGE = 100_000;			# the least that PostgreSQL takes
my $SOON = 20;					# seconds

my $node = start_node(
	'freeze', qq{
autovacuum_freeze_max_age = $MAX_AGE
autovacuum_multixact_freeze_max_age = 10000
jobq.epoch_rows = $ROWS
max_worker_processes = 16
deadlock_timeout = 100ms
});

sub sql
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'postgres', $sql);
}

sub becomes
{
	my ($sql, $expected, $name, $seconds, $database) = @_;
	my $last = '';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = await(sub { ($last = sql($sql, $database)) eq $expected },
		$seconds // 20);
	diag("$sql: $last, not $expected") unless $ok;
	return ok($ok, $name);
}

sub set
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET $name = $value");
	$node->reload;
	$node->poll_query_until('postgres',
		"SELECT current_setting('$name') ~ '^$value'") or die "no $name";
	return;
}

# Fill an epoch with jobs; returns its number when it is sealed.
sub fill_epoch
{
	my ($database) = @_;
	my $epoch = sql('SELECT epoch FROM jobq.epoch WHERE closed_at IS NULL', $database);

	sql(qq{SELECT cardinality(jobq.enqueue_many('q',
		array_fill(jsonb_build_object('x', repeat('x', 1000)), ARRAY[$ROWS])))}, $database);
	$node->poll_query_until($database,
		"SELECT sealed_at IS NOT NULL FROM jobq.epoch WHERE epoch = $epoch")
	  or die 'not sealed';
	return $epoch;
}

sub work_off
{
	return sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', $ROWS)");
}

sub burn_until
{
	my ($xid) = @_;

	sql("SET synchronous_commit = off;
DO \$\$ BEGIN WHILE pg_current_xact_id() < '$xid' LOOP COMMIT; END LOOP; END \$\$");
	return;
}

# An expression over all tables of an epoch, TOAST included.
sub of_tables
{
	my ($expression, $epoch) = @_;

	return "SELECT $expression FROM pg_class c
	JOIN pg_class o ON o.oid IN (c.oid, c.reltoastrelid)
	WHERE c.oid IN ('jobq.job_$epoch'::regclass, 'jobq.claim_$epoch'::regclass,
		'jobq.outcome_$epoch'::regclass)";
}

sub vacuums
{
	my ($epoch) = @_;

	return "SELECT sum(vacuum_count) FROM pg_stat_user_tables
	WHERE schemaname = 'jobq' AND relname ~ '^(job|claim|outcome)_$epoch\$'";
}

sub health
{
	return sql(q{SELECT status || ' ' || detail FROM jobq.health() WHERE item = 'freezing'});
}

# Have the freezer of a database at work on a table of an epoch.
sub await_freezer
{
	my ($database, $epoch) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return becomes(
		"SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE a.backend_type = 'pg_jobq freezer' AND l.relation = 'jobq.job_$epoch'::regclass
		AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted",
		'1', "$database: an epoch is being frozen, slowly", 20, $database);
}

# What a slow freezer must not keep waiting.
sub is_soon
{
	my ($database, $statement, $name) = @_;
	my $start = time();

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sqlstate($node, $statement, $database), '00000', $name);
	return cmp_ok(time() - $start, '<', $SOON, "$name soon");
}

# ---- epochs that will be old ----

my %old;
foreach my $database (qw(postgres bare gone))
{
	sql("CREATE DATABASE $database") if $database ne 'postgres';
	sql(q{CREATE EXTENSION pg_jobq; SELECT jobq.create_queue('q', '{"lease_for": "1 hour"}')},
		$database);
	await_keeper($node, $database) or die 'no keeper';
	$old{$database} = fill_epoch($database);
}
my $drained = $old{postgres};
my $draining = fill_epoch('postgres');
sql(q{SELECT jobq.enqueue('q', to_jsonb(string_agg(md5(random()::text), '')))
	FROM generate_series(1, 500)});
my $kept = fill_epoch('postgres');
my $open = sql(q{SELECT epoch FROM jobq.epoch WHERE closed_at IS NULL});
sql(q{SELECT jobq.enqueue('q')});
my $frozen_of_open = sql(of_tables('string_agg(o.relfrozenxid::text, \' \')', $open));
is(work_off(), $ROWS, 'the jobs of an epoch are done');
becomes("SELECT drained_at IS NOT NULL FROM jobq.epoch WHERE epoch = $drained",
	't', 'it is drained');
like(health(), qr/^ok /, 'health() is content');

# ---- a held horizon ----

my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
sql('SELECT jobq.run_maintenance()');
is(sql(vacuums($_)), '0', 'nothing is frozen while it is young')
  for ($drained, $draining, $kept);
burn_until(0.53 * $MAX_AGE);
sql('SELECT jobq.run_maintenance()');
becomes(vacuums($_), '3', 'old epochs are tried') for ($drained, $draining, $kept);
sleep(5);
is(sql(vacuums($_)), '3', 'in vain, and not again and again')
  for ($drained, $draining, $kept);
cmp_ok(sql(of_tables('min(age(o.relfrozenxid))', $_)), '>', $MAX_AGE / 2, 'it is still old')
  for ($drained, $draining, $kept);
burn_until(0.93 * $MAX_AGE);
like(health(), qr/^warning .*(job|claim|outcome|pg_toast)_\d+ \(9\d %\)/, 'health() warns');
$holder->query_safe('COMMIT');
$holder->quit;

# ---- everybody is more important than a freezer ----

set('autovacuum_vacuum_cost_limit', 1);
set('autovacuum_vacuum_cost_delay', 100);
sql('SELECT jobq.run_maintenance()', $_) for qw(postgres bare gone);
await_freezer($_, $old{$_}) for qw(postgres bare gone);
is_soon('postgres', "BEGIN; LOCK TABLE jobq.job_$drained; COMMIT",
	'a session gets its lock');
is_soon('bare', 'DROP EXTENSION pg_jobq', 'the extension is dropped');
is_soon('postgres', 'DROP DATABASE gone', 'the database is dropped');

# The next one is being frozen when it is to be dropped.
await_freezer('postgres', $draining);
set('jobq.max_history_size', 0);
is(work_off(), $ROWS, 'the jobs of the epoch that is being frozen are done');
becomes("SELECT count(*) FROM jobq.epoch WHERE epoch IN ($drained, $draining)",
	'0', 'epochs are dropped though a freezer was at work', $SOON);
await_freezer('postgres', $kept);
is_soon('postgres', "BEGIN; LOCK TABLE jobq.job_$kept; COMMIT",
	'a session gets another lock');

# ---- and so they get frozen ----

set('autovacuum_vacuum_cost_limit', 200);
set('autovacuum_vacuum_cost_delay', 2);
sql('SELECT jobq.run_maintenance()');
becomes(of_tables("max(age(o.relfrozenxid)) < $MAX_AGE / 2 AND count(*) = 6", $kept),
	't', 'an old epoch gets frozen, TOAST tables included');
is(sql(of_tables('string_agg(o.relfrozenxid::text, \' \')', $open)),
	$frozen_of_open, 'an open one is left alone');
is(sql(vacuums($open)), '0', 'in every way');
like(health(), qr/^ok /, 'health() is content again');

# Multixacts, each of a transaction and one of its subtransactions.
sql(q{CREATE TABLE burn (n int PRIMARY KEY);
INSERT INTO burn SELECT generate_series(1, 5100);
DO $$ BEGIN
	PERFORM FROM burn FOR KEY SHARE;
	FOR i IN 1 .. 5100 LOOP
	BEGIN
		PERFORM FROM burn WHERE n = i FOR SHARE;
	EXCEPTION WHEN division_by_zero THEN
		RAISE;
	END;
	END LOOP;
END $$});
cmp_ok(sql(of_tables('min(mxid_age(o.relminmxid))', $kept)),
	'>', 5000, 'its multixacts are old');
sql('SELECT jobq.run_maintenance()');
becomes(of_tables('max(mxid_age(o.relminmxid)) < 5000', $kept),
	't', 'they make it old, too');

# ---- frozen is not dead ----

is(sql(of_tables('max(age(o.relfrozenxid)) < ' . $MAX_AGE / 2, $kept)),
	't', 'it has stayed young');
is( sql(q{SELECT count(*) FROM jobq.jobs WHERE payload->>'x' = repeat('x', 1000)}),
	$ROWS, 'jobs of a frozen epoch are there');
work_off();
sql("SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('q', 10)");
becomes("SELECT count(*) FROM jobq.epoch WHERE epoch = $kept",
	'0', 'a frozen epoch can be dropped');
unlike(slurp_file($node->logfile), qr/(?:PANIC|TRAP):|freezer (?:ERROR|FATAL)(?!:  terminating)/,
	'no freezer has failed');
is( sql(q{SELECT count(*) FROM pg_stat_user_tables WHERE autovacuum_count > 0}),
	'0', 'autovacuum had no part in it');

$node->stop;
done_testing();
