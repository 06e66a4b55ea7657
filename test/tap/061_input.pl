# What a queue demands of new jobs, over several sessions and over restarts: a
# change of schema, kinds or validator counts from its commit on in every session;
# schemas are not compiled again for changes elsewhere; the keeper holds the jobs of
# schedules against them, but runs no validator; a dump keeps them.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('input', "jobq.epoch_age = '1h'");
$node->safe_psql('postgres', q{CREATE EXTENSION pg_jobq;
	CREATE SCHEMA app;
	CREATE FUNCTION app.even(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT (p ->> ''n'')::int % 2 = 0';
	CREATE FUNCTION app.odd(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT (p ->> ''n'')::int % 2 = 1';
	CREATE FUNCTION app.slow(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT pg_sleep(3600) IS NOT NULL';
	SELECT jobq.create_queue('q'), jobq.create_queue('other'), jobq.create_queue('ticks')});

sub sql { return $node->safe_psql('postgres', $_[0]) }

# One session that stays, which remembers what it has seen.
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe(q{CREATE FUNCTION pg_temp.try(payload jsonb, kind text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM jobq.enqueue('q', payload, kind => kind);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$});

sub answers
{
	my ($wanted, $name, $payload, $kind) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($session->query_safe(sprintf(q{SELECT pg_temp.try('%s', '%s')}, $payload // '{"n": 1}', $kind // 'a')), $wanted, $name);
	return;
}

sub alter { return sql("SELECT jobq.alter_queue('$_[0]', '$_[1]')") }

# ---- another session's changes ----

answers('ok', 'nothing is demanded');
alter('q', '{"schema": {"required": ["m"]}}');
answers('JQ016', 'a schema comes');
alter('q', '{"schema": {"required": ["n"]}}');
answers('ok', 'it changes');
alter('q', '{"schema": {"properties": {"n": {"maximum": 0}}}}');
answers('JQ016', 'and again');
answers('ok', 'for others', '{"n": -1}');
alter('q', '{"schema": null, "allowed_kinds": ["b"]}');
answers('JQ017', 'kinds come');
answers('ok', 'which are taken', undef, 'b');
alter('q', '{"allowed_kinds": ["a"]}');
answers('ok', 'they change');
answers('JQ017', 'for others', undef, 'b');
alter('q', '{"allowed_kinds": null, "validator": "app.even"}');
answers('JQ018', 'a validator comes');
alter('q', '{"validator": "app.odd"}');
answers('ok', 'it changes');
sql(q{CREATE OR REPLACE FUNCTION app.odd(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT false'});
answers('JQ018', 'the function changes');
sql('DROP FUNCTION app.odd(jsonb)');
answers('JQ007', 'and goes');
alter('q', '{"validator": null, "max_json_depth": 1}');
answers('JQ004', 'a limit comes', '{"n": []}');
alter('q', '{"max_json_depth": null}');
answers('ok', 'and goes', '{"n": []}');

# a change that is rolled back is none
my $other = $node->background_psql('postgres');
$other->query_safe(q{BEGIN; SELECT jobq.alter_queue('q', '{"schema": false}')});
answers('ok', 'not committed yet');
$other->query_safe('ROLLBACK');
answers('ok', 'rolled back');
$other->query_safe(q{BEGIN; SELECT jobq.alter_queue('q', '{"schema": false}')});
$other->query_safe('COMMIT');
answers('JQ016', 'committed');
$other->quit;

# ---- what is kept is let go, and is kept where nothing has changed ----

sub contexts
{
	return $session->query_safe(q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'jobq demands'});
}
is(contexts(), 1, 'one queue, one schema in memory');
alter('q', qq({"schema": {"maxProperties": $_}})), answers('ok', "schema $_") foreach (1 .. 5);
is(contexts(), 1, 'of the last one only');

# a schema that takes long to compile, many times
my $wide = join(', ', map { qq("p$_": {"pattern": "^(a|b|c|d){1,40}[0-9a-f]{1,40}\$"}) } (1 .. 100));
alter('q', qq({"schema": {"properties": {$wide}}}));
my $took = sub {
	my ($changed) = @_;

	return $session->query_safe(qq{DO \$\$
		DECLARE
			began timestamptz := clock_timestamp();
		BEGIN
			FOR i IN 1 .. 20 LOOP
				PERFORM jobq.alter_queue('$changed', jsonb_build_object('max_batch', i));
				PERFORM jobq.enqueue('q');
			END LOOP;
			PERFORM set_config('t.took', (extract(epoch FROM clock_timestamp() - began) * 1000)::int::text, false);
		END \$\$; SELECT current_setting('t.took')});
};
my $compiling = $took->('q');
my $keeping = $took->('other');
cmp_ok($keeping, '<', $compiling / 3, "a change elsewhere compiles nothing ($keeping ms against $compiling ms)");
alter('q', '{"schema": null}');

# ---- the keeper ----

sub await_ticks
{
	my ($condition, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('postgres', "SELECT $condition FROM jobq.schedules WHERE name = 's'"), $name);
	return;
}
sql(q{SELECT jobq.schedule('s', '* * * * * *', 'ticks', '{"n": 1}', kind => 'a')});
await_ticks('last_job IS NOT NULL', 'ticks');
alter('ticks', '{"schema": {"required": ["m"]}}');
await_ticks('misses > 0', 'a schema that they break: they are missed');
alter('ticks', '{"schema": null, "allowed_kinds": ["b"]}');
my $misses = sql(q{SELECT misses FROM jobq.schedules});
await_ticks("misses > $misses + 1", 'a kind that is not taken');
alter('ticks', '{"allowed_kinds": null, "validator": "app.slow"}');
my $last = sql(q{SELECT coalesce(last_job, 0) FROM jobq.schedules});
await_ticks("last_job > $last", 'no validator stops the keeper');
sql(q{SELECT jobq.unschedule('s')});

# a statement's time limit holds for validators, and its SQLSTATE is told
is(sqlstate($node, q{SET statement_timeout = '300ms'; SELECT jobq.enqueue('ticks')}), '57014', 'a validator that takes long is cancelled');

# ---- dump and restore ----

alter('q', '{"schema": {"required": ["n"]}, "allowed_kinds": ["a"], "validator": "app.even"}');
my $dump = $node->backup_dir . '/input.sql';
mkdir $node->backup_dir;
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-q', '-f', $dump, $node->connstr('again') ], 'restore');
sub again { return sqlstate($node, "SELECT jobq.enqueue('q', $_[0])", 'again') }
is($node->safe_psql('again', q{SELECT options - 'max_batch' FROM jobq.queues WHERE queue = 'q'}),
	sql(q{SELECT options - 'max_batch' FROM jobq.queues WHERE queue = 'q'}), 'the options are there');

is(again($_->[0]), $_->[1], "and hold: $_->[0]") foreach (
	[ q{'{}', kind => 'a'}, 'JQ016' ], [ q{'{"n": 2}', kind => 'b'}, 'JQ017' ],
	[ q{'{"n": 1}', kind => 'a'}, 'JQ018' ], [ q{'{"n": 2}', kind => 'a'}, '00000' ]);

$session->quit;
$node->stop;
done_testing();
