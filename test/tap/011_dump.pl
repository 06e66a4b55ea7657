# Dump and restore: jobs in every state come through, in every format of
# pg_dump, dumped by the database's owner, also into a younger cluster that
# lacks roles. A copy is paused until jobq.adopt(): nothing of it runs or
# expires before that, and what had ended never runs again.
use strict;
use warnings;

use IPC::Run ();
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('dump');
my $young;
my $dir = $node->basedir;

# Time itself must stand still in the original while it is dumped.
$node->append_conf('postgresql.conf', "jobq.databases = '*'");
$node->safe_psql(
	'postgres', q{
CREATE ROLE boss LOGIN;
CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE ghost; CREATE ROLE ghost2;
CREATE ROLE "-odd, \"name\"";
CREATE DATABASE src OWNER boss;
});
$node->safe_psql('src', 'CREATE EXTENSION pg_jobq');

sub src
{
	return $node->safe_psql('src', $_[0]);
}

# ---- the original ----

src(q{
SELECT jobq.alter_queue('default', '{"max_batch": 77}');
SELECT jobq.create_queue('mail', '{"lease_for": "1 hour", "max_attempts": 2,
	"backoff": {"base": "1 h"}, "dead_letter": "mail dead"}');
SELECT jobq.create_queue('work', '{"lease_for": "1 hour", "backoff": {"base": "1 h"}}');
SELECT jobq.create_queue('gone');
SELECT jobq.drop_queue('gone');
SELECT jobq.create_queue('clock', '{"backoff": {"base": "1 s", "jitter": 0}}');
SELECT jobq.create_queue('still');
SELECT jobq.pause_queue('still');
SELECT jobq.grant_queue('mail', 'alice', '{enqueue,read}');
SELECT jobq.grant_queue('mail', 'bob', '{dequeue}');
SELECT jobq.grant_queue('work', 'bob', '{dequeue,manage}');
SELECT jobq.grant_queue('work', 'ghost', '{enqueue}');
SELECT jobq.grant_queue('work', 'ghost2', '{enqueue}');
SELECT jobq.grant_queue('work', '-odd, "name"', '{enqueue}');
});
my (%id, %lease);

sub enqueue
{
	my ($name, $arguments, $role) = @_;

	$id{$name} = src(($role ? qq{SET ROLE "$role"; } : '')
		  . "SELECT jobq.enqueue($arguments)");
	return;
}

# Enqueue a job and lease it.
sub lease
{
	my ($name, $queue) = @_;

	enqueue($name, "'$queue', '{\"is\": \"$name\"}', priority => -10");
	my ($got, $lease) =
	  split(/\|/, src("SELECT id, lease FROM jobq.dequeue('$queue', worker => 'w')"));
	is($got, $id{$name}, "$name is leased");
	$lease{$name} = $lease;
	return;
}

lease($_, 'mail') foreach qw(completed lettered retried running);
lease($_, 'work') foreach qw(done failed released extended lone);
src("SELECT jobq.complete($id{completed}, $lease{completed}, '[1]')");
src("SELECT jobq.complete($id{done}, $lease{done})");
src("SELECT jobq.fail($id{lettered}, $lease{lettered}, 'bad', retry => false)");
src("SELECT jobq.fail($id{failed}, $lease{failed}, 'never', retry => false)");
src("SELECT jobq.fail($id{retried}, $lease{retried}, 'not yet')");
src("SELECT jobq.release($id{released}, $lease{released})");
src(qq{SELECT jobq.extend($id{extended}, $lease{extended}, '2 h', '{"n": 1}')});
enqueue('cancelled', "'work'");
src("SELECT jobq.cancel($id{cancelled}, 'no')");
enqueue('scheduled', "'mail', delay => '1 h'");
enqueue('by alice', "'mail', priority => 5", 'alice');
enqueue('by ghost', "'work', priority => 5", 'ghost');
enqueue('by odd', "'work', priority => 6", '-odd, "name"');
enqueue("work $_", "'work', priority => $_, kind => 'k$_'") foreach 1 .. 4;
enqueue('still', "'still', '\"paused\"'");

# From here on no keeper works in the original.
$node->append_conf('postgresql.conf', "jobq.databases = 'postgres, dst'");
$node->reload;
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity
	WHERE datname = 'src' AND backend_type = 'pg_jobq keeper'});
enqueue('due', "'clock', delay => '1 s'");
enqueue('short', "'clock'");
(undef, $lease{short}) =
  split(/\|/, src("SELECT id, lease FROM jobq.dequeue('clock', lease_for => '1 s')"));

my $states = q{
SELECT id, queue, state, is_final, priority, run_at, attempt, max_attempts,
	enqueued_at, enqueued_by, worker, lease_expires_at, finished_at,
	last_error, progress, moved_to, result, payload, headers
FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j
WHERE queue <> 'clock' ORDER BY id;
SELECT id, a.* FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j,
	jobq.attempts(id) a WHERE queue <> 'clock' ORDER BY id, started_at;
SELECT * FROM jobq.dead_jobs ORDER BY id;
SELECT * FROM jobq.queues ORDER BY queue;
SELECT queue, available, scheduled, running, retryable, completed_total,
	failed_total, dead_total, cancelled_total
FROM jobq.queue_stats WHERE queue <> 'clock' ORDER BY queue;
SELECT p.id FROM jobq.peek('work', 100) p;
SELECT queue, grantee, privileges FROM jobq.queue_acl JOIN jobq.queue
	USING (queue_id) ORDER BY 1, grantee::text;
SELECT rolname, has_schema_privilege(rolname, 'jobq', 'USAGE'),
	has_function_privilege(rolname, 'jobq.dequeue(text, bigint, interval, text)', 'EXECUTE')
FROM pg_roles WHERE rolname IN ('alice', 'bob') ORDER BY 1};
my $before = src($states);
like($before, qr/\b$id{$_}\|/, "$_ is among them")
  foreach qw(completed lettered retried failed cancelled scheduled running);
my $order = join("\n", map { $id{$_} } 'released', 'work 1', 'work 2',
	'work 3', 'work 4', 'by ghost', 'by odd');
my $last = src('SELECT max(i) FROM unnest(ARRAY[' . join(',', values %id) . ']) i');

# ---- the dumps ----

$node->command_ok(
	[ 'pg_dump', '-U', 'boss', '-Fc', '-f', "$dir/src.dump", 'src' ],
	'the database\'s owner dumps');
$node->command_ok(
	[ 'pg_dump', '-U', 'boss', '-Fd', '-j', '2', '-f', "$dir/src.dir", 'src' ],
	'in parallel, too');
$node->command_ok([ 'pg_dump', '-f', "$dir/src.sql", 'src' ],
	'so does a superuser, as a script');
is( src(q{SET ROLE boss; SELECT has_table_privilege('jobq.queue', 'INSERT')
	OR has_table_privilege('jobq.installation', 'UPDATE')}),
	'f', 'but the owner may not write');

# ---- the copies ----

sub make_target
{
	my ($to) = @_;

	$to->safe_psql('postgres', 'DROP DATABASE IF EXISTS dst');
	$to->safe_psql('postgres', 'CREATE DATABASE dst');
	return;
}

# Somebody who asks for jobs all the time, also where there is no queue yet.
sub start_poller
{
	my ($to) = @_;
	my $out = '';
	my $loop = q{while [ ! -e "$0" ]; do psql -X -At -d dst -c "SELECT 'got ' || id
		FROM jobq.dequeue_any('{mail,work,mail dead,clock,default}', 100)"; done};

	local $ENV{PGHOST} = $to->host;
	local $ENV{PGPORT} = $to->port;
	unlink("$dir/stop");
	my $run = IPC::Run::start([ 'bash', '-c', $loop, "$dir/stop" ],
		'<', \undef, '>', \$out, '2>', '/dev/null');
	return { run => $run, out => \$out };
}

sub stop_poller
{
	my ($poller) = @_;

	append_to_file("$dir/stop", '');
	$poller->{run}->finish;
	return ${ $poller->{out} };
}

# All that was leased or has ended, as the tables say.
my $belt = q{SELECT string_agg(format('SELECT %L, count(*) FROM jobq.%I',
		left(relname, 5), relname), ' UNION ALL ' ORDER BY relname)
	FROM pg_class WHERE relnamespace = 'jobq'::regnamespace
	AND relname ~ '^(claim|outcome)_[0-9]+$'};

sub moves
{
	my ($on, $database) = @_;
	my $query = $on->safe_psql($database, $belt);

	return $on->safe_psql($database, "SELECT c, sum(n) FROM ($query) x (c, n)
		GROUP BY 1 ORDER BY 1") . $on->safe_psql($database,
		"SELECT '; ' || string_agg(id || state::text, ' ' ORDER BY id) FROM jobq.shelf");
}
my $moves = moves($node, 'src');

sub copy_item
{
	my ($to, $database) = @_;

	return $to->safe_psql($database,
		"SELECT status || coalesce(': ' || hint, '') FROM jobq.health() WHERE item = 'copy'");
}

# What a copy does not do.
sub is_paused
{
	my ($to, $database, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(await_keeper($to, $database), "$name: has a keeper");
	$to->poll_query_until($database,
		"SELECT status = 'warning' FROM jobq.health() WHERE item = 'copy'");
	is(copy_item($to, $database), 'warning: SELECT jobq.adopt();',
		"$name: health() says that it is a copy");
	is( $to->safe_psql($database,
			"SELECT count(*) FROM jobq.dequeue_any('{mail,work,mail dead,clock}', 100)"),
		'0', "$name: nothing is delivered");
	my ($rc, undef, $err) =
	  $to->psql($database, "SELECT jobq.complete($id{running}, $lease{running})",
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/ERROR:  JQ009.*jobq\.adopt\(\)/s,
		"$name: settling says what is to be done");
	is(sqlstate($to, "SELECT jobq.cancel($id{'work 1'})", $database),
		'JQ009', "$name: nor can a job be cancelled");
	return;
}

# What it does once it is adopted.
sub works
{
	my ($to, $database, $name, $expected, $before) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(await_keeper($to, $database), "$name: has a keeper again");
	is(copy_item($to, $database), 'ok', "$name: no copy any more");
	is($to->safe_psql($database, $states), $before, "$name: everything is as it was")
	  if defined $before;
	ok( await(
			sub {
				return $to->safe_psql($database, "SELECT string_agg(state, ' ' ORDER BY id)
					FROM jobq.jobs WHERE queue = 'clock'") eq 'available available';
			},
			30),
		"$name: time goes on");
	is( $to->safe_psql($database,
			"SELECT string_agg(outcome, ' ') FROM jobq.attempts($id{short})"),
		'lease_expired', "$name: the lease that ran out is an attempt");
	is( sqlstate($to, "SELECT jobq.complete($id{$_}, $lease{$_})", $database),
		'JQ015', "$name: $_ cannot end again")
	  foreach qw(completed done lettered failed retried released);
	foreach my $running (qw(running extended))
	{
		is( sqlstate($to, "SELECT jobq.complete($id{$running}, $lease{$running})", $database),
			'00000', "$name: $running ends under its old lease");
		is( sqlstate($to, "SELECT jobq.complete($id{$running}, $lease{$running})", $database),
			'JQ015', "$name: $running ends once");
	}
	my $new = $to->safe_psql($database, "SELECT jobq.enqueue('work', priority => 9)");
	cmp_ok($new, '>', $last, "$name: new ids are larger");
	my $leases = join(',', values %lease);
	is( $to->safe_psql($database, "SELECT id FROM jobq.dequeue('work', 100)
			WHERE lease > ALL (ARRAY[$leases]::bigint[])"),
		$expected . "\n$new", "$name: jobs run in order, under larger leases");
	is( $to->safe_psql($database, "SELECT headers->'dead_letter'->>'id'
			FROM jobq.dequeue('mail dead', 100)"),
		$id{lettered}, "$name: so does the dead letter");
	my $epoch = $to->safe_psql($database, 'SELECT min(epoch) FROM jobq.epoch');
	is(sqlstate($to, "DELETE FROM jobq.outcome_$epoch", $database),
		'42501', "$name: the belt is guarded");
	is( $to->safe_psql($database, q{SELECT count(*) FROM jobq.epoch e, pg_class c,
			aclexplode(c.relacl) a WHERE c.relnamespace = 'jobq'::regnamespace
			AND c.relname IN ('job_' || epoch, 'claim_' || epoch, 'outcome_' || epoch)
			AND a.grantee <> c.relowner
			AND (a.grantee::regrole::text, a.privilege_type) <> ('pg_database_owner', 'SELECT')}),
		'0', "$name: and nobody else has privileges there");
	add_auditor($to, $database);
	$to->safe_psql($database, q{INSERT INTO audit.ledger
		SELECT id FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j});
	audit_ok($to, $name, $database);
	my ($rc, undef, $err) = $to->psql($database, 'SELECT jobq.adopt()');
	is("$rc $err" =~ /^0 .*NOTICE:  this database is no copy/s ? 1 : 0, 1,
		"$name: there is nothing more to adopt");
	return;
}

sub restored_ok
{
	my ($to, $name, $command, $missing) = @_;
	my $poller;
	my $got;

	make_target($to);
	$poller = start_poller($to);
	if ($missing)
	{
		IPC::Run::run([ $to->installed_command(@$command) ],
			'>', \my $out, '2>', \my $err);
		note($err);
		unlike($err, qr/(?:COPY|job_|outcome_|shelf)/, "$name: restored but for roles");
	}
	else
	{
		$to->command_ok($command, "$name: restored");
	}
	is_paused($to, 'dst', $name);
	is(moves($to, 'dst'), $moves, "$name: nothing has moved, although it is due");
	my $extra = $to->safe_psql('dst', "SELECT jobq.enqueue('default', '\"new\"')");
	cmp_ok($extra, '>', $last, "$name: enqueue works, with larger ids");
	is($to->safe_psql('dst', "SELECT count(*) FROM jobq.dequeue('default')"),
		'0', "$name: but not even that is delivered");
	is(stop_poller($poller), '', "$name: nobody has got a job during the restore");
	$to->safe_psql('dst', 'SELECT jobq.adopt()');
	await_keeper($to, 'dst');
	is($to->safe_psql('dst', "SELECT id FROM jobq.dequeue('default')"),
		$extra, "$name: now it is");
	$to->safe_psql('dst', "SELECT jobq.complete($extra, lease) FROM jobq.attempts($extra)");
	return;
}

# A job of its own that was done is all that may differ.
sub without
{
	my ($extra) = @_;
	my $expected = $before;

	return $expected;
}

foreach my $case (
	[ 'pg_dump -Fc', 'pg_restore', '-d', 'dst', '--exit-on-error', "$dir/src.dump" ],
	[ 'pg_dump -Fd', 'pg_restore', '-d', 'dst', '--exit-on-error', '-j', '4', "$dir/src.dir" ],
	[ 'a script', 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'dst', '-f', "$dir/src.sql" ])
{
	my ($name, @command) = @$case;

	restored_ok($node, $name, \@command);
	works($node, 'dst', $name, $order, $before);
}
