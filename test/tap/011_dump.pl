# Dump and restore: jobs in every state, and all that decides about them, come
# through, in every format of pg_dump, dumped by the database's owner, also into a younger cluster that
# lacks roles. A copy is paused until jobq.adopt(): nothing of it runs or
# expires before that, and what had ended never runs again.
use strict;
use warnings;

use Carried;
use IPC::Run ();
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('dump');
my $young;
my $dir = $node->basedir;

$node->safe_psql(
	'postgres', q{
CREATE ROLE boss LOGIN;
CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE ghost; CREATE ROLE ghost2;
CREATE ROLE "-odd, ""name""";
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

	$id{$name} = src(($role ? qq{SET ROLE $role; } : '')
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
enqueue('by odd', "'work', priority => 6", '"-odd, ""name"""');
enqueue("work $_", "'work', priority => $_, kind => 'k$_'") foreach 1 .. 4;
enqueue('still', "'still', '\"paused\"'");

make_carried($node, 'src');
$id{'carried'} = src(q{SELECT max(id) FROM jobq.jobs});
$node->restart;
ok(await_keeper($node, 'src'), 'a restart');
is(src('SELECT count(*) > 0 FROM jobq.queue_minute'), 't', 'by which minutes are written down');

# From here on no keeper works in the original.
$node->append_conf('postgresql.conf', "jobq.databases = 'postgres, dst'");
$node->reload;
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity
	WHERE datname = 'src' AND backend_type = 'pg_jobq keeper'});
enqueue('due', "'clock', delay => '1 s'");
enqueue('short', "'clock'");
(undef, $lease{short}) =
  split(/\|/, src("SELECT id, lease FROM jobq.dequeue('clock', lease_for => '1 s')"));

# as if its clock had been ahead
my $mark = src('UPDATE jobq.lease_mark SET lease = lease + 4096::bigint * 1000 * 86400 * 365
	RETURNING lease');

my $states = q{
SELECT id, queue, state, is_final, priority, run_at, attempt, max_attempts,
	enqueued_at, enqueued_by, worker, lease_expires_at, finished_at,
	last_error, progress, moved_to, result, payload, headers
FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j
WHERE queue NOT IN ('clock', 'default') ORDER BY id;
SELECT id, a.* FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j,
	jobq.attempts(id) a WHERE queue NOT IN ('clock', 'default') ORDER BY id, started_at;
SELECT * FROM jobq.dead_jobs ORDER BY id;
SELECT * FROM jobq.queues ORDER BY queue;
SELECT queue, available, scheduled, running, retryable, completed_total,
	failed_total, dead_total, cancelled_total
FROM jobq.queue_stats WHERE queue NOT IN ('clock', 'default') ORDER BY queue;
SELECT p.id FROM jobq.peek('work', 100) p;
SELECT queue, grantee, privileges FROM jobq.queue_acl JOIN jobq.queue
	USING (queue_id) ORDER BY 1, grantee::text;
SELECT rolname, has_schema_privilege(rolname, 'jobq', 'USAGE'),
	has_function_privilege(rolname, 'jobq.dequeue(text, bigint, interval, interval, text)', 'EXECUTE')
FROM pg_roles WHERE rolname IN ('alice', 'bob') ORDER BY 1};
my $before = src($states);
my $settings = src($CARRIED_SETTINGS);
my $minutes = src($CARRIED_MINUTES);
like($before, qr/\b$id{$_}\|/, "$_ is among them")
  foreach qw(completed lettered retried failed cancelled scheduled running);
my $order = join("\n", map { $id{$_} } 'released', 'work 1', 'work 2',
	'work 3', 'work 4', 'by ghost', 'by odd');
my $last = src('SELECT max(i) FROM unnest(ARRAY[' . join(',', values %id) . ']) i');

# ---- the dumps ----

$node->command_ok(
	[ 'pg_dump', '-U', 'boss', '--enable-row-security', '-Fc', '-f', "$dir/src.dump", 'src' ],
	'the database\'s owner dumps');
$node->command_ok(
	[ 'pg_dump', '-U', 'boss', '--enable-row-security', '-Fd', '-j', '2', '-f', "$dir/src.dir", 'src' ],
	'in parallel, too');
$node->command_fails_like([ 'pg_dump', '-U', 'boss', '-f', "$dir/none.sql", 'src' ],
	qr/row-level security policy/, 'and is told when it does not ask for that');
$node->command_ok([ 'pg_dump', '--inserts', '-f', "$dir/src.sql", 'src' ],
	'so does a superuser, as a script of INSERTs');
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
	is(sqlstate($to, "SELECT jobq.purge_queue('work')", $database),
		'JQ009', "$name: nor can jobs be purged");
	return;
}

# What it does once it is adopted.
sub works
{
	my ($to, $database, $name, $expected, $before) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(await_keeper($to, $database), "$name: has a keeper again");
	is(copy_item($to, $database), 'ok', "$name: no copy any more");
	is($to->safe_psql($database, $states), $before, "$name: everything is as it was");
	is($to->safe_psql($database, $CARRIED_SETTINGS), $settings, "$name: so are settings");
	carried_ok($to, $database, $name);
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
	is( $to->safe_psql($database, "SELECT id FROM jobq.dequeue('work', 100)
			WHERE lease > $mark"),
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
	is( $to->safe_psql($database, q{SELECT count(*) FROM pg_class
			WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r'
			AND NOT (relrowsecurity AND relforcerowsecurity)}),
		'0', "$name: every table has row level security");
	is( $to->safe_psql($database, q{SELECT string_agg(DISTINCT array_to_string(p, ' '), ', ')
			FROM (SELECT array_agg(polname) FROM pg_policy p
				JOIN pg_class c ON c.oid = p.polrelid
				WHERE relnamespace = 'jobq'::regnamespace GROUP BY c.oid) x (p)}),
		'dump', "$name: with one policy where the database's owner reads");
	my $chains = $name eq 'a template' ? 'own whole' : 'other whole, own whole';
	ok( await(
			sub {
				return $to->safe_psql($database, q{SELECT string_agg(
					CASE WHEN is_own THEN 'own' ELSE 'other' END
					|| CASE WHEN whole THEN ' whole' ELSE '' END, ', ' ORDER BY is_own)
					FROM jobq.verify_audit() WHERE last_seq > 0}) eq $chains;
			},
			30),
		"$name: the audit log is whole, and goes on");
	is($to->safe_psql($database, "SELECT count(seq) FROM jobq.audit WHERE call = 'grant_queue'"),
		'6', "$name: it has what was done in the original");
	add_auditor($to, $database);
	$to->safe_psql($database, q{INSERT INTO audit.ledger
		SELECT id FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j});
	audit_ok($to, $name, $database);
	my ($rc, undef, $err) = $to->psql($database, 'SELECT jobq.adopt()');
	is("$rc $err" =~ /^0 .*NOTICE:  this database is no copy/s ? 1 : 0, 1,
		"$name: there is nothing more to adopt");
	return;
}

# The copy is made under the eyes of a poller, stays paused, and is adopted.
sub copied_ok
{
	my ($to, $name, $make) = @_;
	my $poller;

	$poller = start_poller($to);
	$make->($to);
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
	return;
}

# ---- one after the other ----

foreach my $case (
	[ 'pg_dump -Fc', 'pg_restore', '-d', 'dst', '--exit-on-error', "$dir/src.dump" ],
	[ 'pg_dump -Fd', 'pg_restore', '-d', 'dst', '--exit-on-error', '-j', '4', "$dir/src.dir" ],
	[ 'a script', 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', 'dst', '-f', "$dir/src.sql" ])
{
	my ($name, @command) = @$case;

	make_target($node);
	copied_ok($node, $name,
		sub { $node->command_ok(\@command, "$name: restored") });
	is($node->safe_psql('dst', $CARRIED_MINUTES), '', "$name: minutes are in no dump");
	works($node, 'dst', $name, $order, $before);
	$node->safe_psql('dst', 'DROP EXTENSION pg_jobq');
	is( $node->safe_psql('dst',
			"SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'"),
		'0', "$name: the tables go with the extension");
}

# A copy of the files: the tables say where they were made.
$node->safe_psql('postgres', 'DROP DATABASE dst');
copied_ok($node, 'a template',
	sub { $_[0]->safe_psql('postgres', 'CREATE DATABASE dst TEMPLATE src') });
is($node->safe_psql('dst', $CARRIED_MINUTES), $minutes, 'a template: minutes are in its tables');
works($node, 'dst', 'a template', $order, $before);

# A cluster that is younger and does not know everybody.
$young = start_node('young');
$young->safe_psql('postgres',
	'CREATE ROLE alice; CREATE ROLE bob; CREATE DATABASE dst');
$node->safe_psql('postgres', q{SET synchronous_commit = off;
	DO $$BEGIN FOR i IN 1 .. 3000 LOOP
		PERFORM pg_current_xact_id(); COMMIT; END LOOP; END$$});
my $xmax = 'SELECT pg_snapshot_xmax(pg_current_snapshot())';
cmp_ok($young->safe_psql('postgres', $xmax), '<',
	$node->safe_psql('postgres', $xmax), 'the other cluster is younger');
copied_ok(
	$young,
	'a younger cluster',
	sub {
		my ($to) = @_;
		my ($out, $err) = run_command([ 'pg_restore', '-d',
			$to->connstr('dst'), '-j', '4', "$dir/src.dir" ]);
		my @errors = $err =~ /error: (.*)/g;

		is(scalar(grep { !/role ".*" does not exist/ } @errors), 0,
			'a younger cluster: only grants to unknown roles fail')
		  || diag($err);
	});
my $expected = $before;
$expected =~ s/\|(?:ghost|-odd, "name")\|/|-|/g;
$expected =~ s/^work\|(?:ghost2|-)\|1\n//mg;
works($young, 'dst', 'a younger cluster', $order, $expected);

# ---- what adopt() refuses ----

sub adopt_error
{
	my ($rc, undef, $err) = $node->psql('dst', 'SELECT jobq.adopt()',
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return $err;
}

make_target($node);
$node->safe_psql('dst', 'CREATE EXTENSION pg_jobq');
my $early = $node->safe_psql('dst', "SELECT jobq.enqueue('default')");
cmp_ok($early, '<=', $last, 'a job that came before the restore has a number of its jobs');
$node->command_ok([ 'pg_restore', '-d', 'dst', "$dir/src.dump" ],
	'a dump is restored there');
like(adopt_error(),
	qr/ERROR:  55000: jobs were enqueued .* before the restore.*has given out $early itself/s,
	'two jobs of one number are refused');

make_target($node);
$node->command_ok([ 'pg_restore', '-d', 'dst', "$dir/src.dump" ], 'once more');
my $n = $node->safe_psql('dst', 'SELECT min(epoch) FROM jobq.epoch');
my %damage = (
	"index jobq.outcome_${n}_ticket" =>
	  ["DROP INDEX jobq.outcome_${n}_ticket",
		"CREATE UNIQUE INDEX outcome_${n}_ticket ON jobq.outcome_$n (ticket)"],
	"index jobq.job_${n}_order" =>
	  ["UPDATE pg_index SET indisvalid = false
		WHERE indexrelid = 'jobq.job_${n}_order'::regclass",
		"REINDEX INDEX jobq.job_${n}_order"],
	"index jobq.job_${n}_id" =>
	  ["DROP INDEX jobq.job_${n}_id; CREATE INDEX job_${n}_id ON jobq.job_$n (ticket)",
		"DROP INDEX jobq.job_${n}_id; CREATE INDEX job_${n}_id ON jobq.job_$n (id)"],
	"table jobq.claim_$n" =>
	  ["ALTER TABLE jobq.claim_$n RENAME worker TO who",
		"ALTER TABLE jobq.claim_$n RENAME who TO worker"],
	"table jobq.job_$n" =>
	  ["ALTER TABLE jobq.job_$n RENAME TO somewhere",
		"ALTER TABLE jobq.somewhere RENAME TO job_$n"]);
foreach my $lacking (sort keys %damage)
{
	my ($break, $mend) = @{ $damage{$lacking} };

	$node->safe_psql('dst', "SET allow_system_table_mods = on; $break");
	like(adopt_error(), qr/ERROR:  55000: epoch $n is not complete.*$lacking/s,
		"adopt() misses $lacking");
	is($node->safe_psql('dst', 'SELECT count(*) FROM jobq.epoch e,
			jobq.installation i WHERE e.installation = i.id'),
		'1', "nothing is adopted without $lacking");
	$node->safe_psql('dst', $mend);
}
# what a dump may lack, or a restore may do otherwise, is made good
$node->safe_psql('dst', qq{
DROP TRIGGER refuse_write ON jobq.outcome_$n;
ALTER TABLE jobq.claim_$n DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
CREATE POLICY everybody ON jobq.job_$n USING (true);
ALTER TABLE jobq.job_$n OWNER TO alice;
ALTER TABLE jobq.job_$n RESET (autovacuum_enabled);
GRANT ALL ON jobq.claim_$n TO bob;
SELECT setval('jobq.number_block', 1, false);
});
is(sqlstate($node, 'SELECT jobq.adopt()', 'dst'), '00000', 'mended, it is adopted');
is( $node->safe_psql('dst', "SELECT pg_get_userbyid(relowner),
		'autovacuum_enabled=off' = ANY (reloptions) FROM pg_class
		WHERE oid = 'jobq.job_$n'::regclass"),
	'postgres|t', 'the owner and the options are those of pg_jobq');
works($node, 'dst', 'mended', $order, $before);
is(sqlstate($node, 'SET ROLE bob; SELECT jobq.adopt()', 'dst'),
	'42501', 'not everybody may adopt');

# ---- rows that are restored while the keeper is about to take due ones ----

$node->append_conf('postgresql.conf', "jobq.databases = '*'");
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE race');
$node->safe_psql('race', 'CREATE EXTENSION pg_jobq');
test_functions($node, 'race');
await_keeper($node, 'race');
$node->safe_psql('race', q{SELECT pause_at('before-shelf');
	SELECT jobq.enqueue('default', delay => '10 ms')});
$node->poll_query_until('race', 'SELECT paused() = 1');
$node->safe_psql('race', q{INSERT INTO jobq.shelf (id, run_at, enqueued_at,
	queue_id, attempt, max_attempts, enqueued_by, priority, payload, state)
	VALUES (100000, now(), now(), 1, 0, 3, 'postgres', 0, '{}', 's')});
$node->safe_psql('race', q{SELECT pause_at('')});
$node->poll_query_until('race',
	"SELECT status = 'warning' FROM jobq.health() WHERE item = 'copy'");
ok(await_keeper($node, 'race'), 'a race: the keeper goes on');
is($node->safe_psql('race', 'SELECT count(*) FROM jobq.shelf'), '2',
	'a race: no restored job goes to the belt');
$node->safe_psql('race', 'SELECT jobq.adopt()');
ok( await(sub {
			return $node->safe_psql('race', 'SELECT count(*) FROM jobq.dequeue($$default$$, 10)
				HAVING count(*) > 0') eq '2';
		}, 30),
	'a race: once adopted, they run');

# ---- a retention class that has another number ----

$node->safe_psql('race', 'INSERT INTO jobq.class SELECT 3, retention FROM jobq.class');
is( $node->safe_psql('race', 'SELECT c.class, q.class, e.class FROM jobq.class c,
		jobq.queue q, jobq.epoch e'),
	'3|3|3', 'a class of the same retention replaces ours');
ok( $node->poll_query_until('race',
		"SELECT status = 'warning' FROM jobq.health() WHERE item = 'copy'"),
	'that, too, is taken for a restore');

# ---- physical copies ----

$young->append_conf('postgresql.conf', 'jobq.start_paused = on');
$young->restart;
my $job = $young->safe_psql('dst', "SELECT jobq.enqueue('default')");
await_keeper($young, 'dst');
is(copy_item($young, 'dst'), 'warning: SELECT jobq.adopt();',
	'jobq.start_paused: health() says that it is a copy');
is($young->safe_psql('dst', "SELECT count(*) FROM jobq.dequeue('default')"), '0',
	'jobq.start_paused: nothing is delivered');
$young->safe_psql('dst', 'SELECT jobq.adopt()');
await_keeper($young, 'dst');
my $keeper = q{SELECT pid FROM pg_stat_activity
	WHERE datname = 'dst' AND backend_type = 'pg_jobq keeper'};
my $pid = $young->safe_psql('dst', $keeper);
$young->safe_psql('dst', "SELECT pg_terminate_backend($pid)");
$young->poll_query_until('dst', "SELECT pid <> $pid FROM ($keeper) k");
await_keeper($young, 'dst');
is( $young->safe_psql('dst', "SELECT id FROM jobq.dequeue('default')
		WHERE id = $job"),
	$job, 'jobq.start_paused: adopted, it runs, also with another keeper');

$young->stop;
is(conflicts_logged($_), 0, 'the unique index has saved nobody')
  foreach $node, $young;

$node->stop;
done_testing();
