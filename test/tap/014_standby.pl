# A hot standby shows what has been replicated and refuses to write. Promoted,
# it goes on: leases stay good, numbers only grow, and where it was synchronous
# nothing acknowledged is lost.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $ROUNDS = $ENV{JOBQ_STANDBY_ROUNDS} // 3;
my $LOAD_JOBS = 400 * ($ENV{JOBQ_STANDBY_SCALE} // 1);

# A synchronous standby of a node, to which a commit waits for that much.
sub make_standby
{
	my ($primary, $name, $commit) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);

	$primary->safe_psql('postgres',
		'ALTER SYSTEM RESET synchronous_standby_names');
	$primary->reload;
	$primary->backup($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->start;
	$primary->safe_psql('postgres', qq{
ALTER SYSTEM SET synchronous_standby_names = '*';
ALTER SYSTEM SET synchronous_commit = '$commit'});
	$primary->reload;
	$primary->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_replication
		  WHERE sync_state = 'sync'}) or die 'no synchronous standby';
	return $standby;
}

# The standby becomes the primary; it has no standby of its own yet.
sub take_over
{
	my ($standby) = @_;

	$standby->append_conf('postgresql.auto.conf',
		"synchronous_standby_names = ''");
	$standby->reload;
	$standby->promote;
	return;
}

sub await_state
{
	my ($node, $id, $state, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(
		await(
			sub {
				$node->safe_psql('postgres',
					"SELECT state FROM jobq.job($id)") eq $state;
			},
			30),
		$name);
}

my $primary = start_node('one', 'autovacuum = on', allows_streaming => 1);
$primary->safe_psql('postgres', 'CREATE EXTENSION pg_jobq');
add_auditor($primary);
await_keeper($primary);
my $standby = make_standby($primary, 'two', 'remote_apply');

# ---- jobs of every state ----

$primary->safe_psql('postgres', q{
SELECT jobq.create_queue('s', '{"lease_for": "1 hour", "backoff": {"base": "1 h"}}');
SELECT jobq.create_queue('short', '{"lease_for": "3 s", "backoff": {"base": "0 s"}}');
SELECT jobq.create_queue('sd', '{"dead_letter": "sd_dead"}');
SELECT jobq.create_queue('load', '{"lease_for": "2 s", "backoff": {"base": "0 s"},
	"max_attempts": 1000}');
CREATE ROLE reader;
SELECT jobq.grant_queue('s', 'reader', '{read}')});

my (%id, %lease);
foreach my $name (qw(running completed retryable dead))
{
	$id{$name} = $primary->safe_psql('postgres',
		"INSERT INTO audit.ledger SELECT jobq.enqueue('s', '\"$name\"') RETURNING id");
	$lease{$name} = $primary->safe_psql('postgres',
		"SET jobq.claim_durability = on; SELECT lease FROM jobq.dequeue('s')");
}
my ($c, $r, $d) = map { "$id{$_}, $lease{$_}" } qw(completed retryable dead);
$primary->safe_psql('postgres', qq{
SELECT jobq.complete($c, '{"done": true}');
SELECT jobq.fail($r, 'not yet');
SELECT jobq.fail($d, 'never', false);
INSERT INTO audit.ledger SELECT jobq.enqueue('s', delay => '1 day');
INSERT INTO audit.ledger SELECT jobq.enqueue('sd')});
$id{available} = $primary->safe_psql('postgres',
	q{INSERT INTO audit.ledger SELECT jobq.enqueue('s') RETURNING id});
$primary->safe_psql('postgres', q{
SELECT jobq.fail(id, lease, 'bad', false) FROM jobq.dequeue('sd')});

# Groups: of one all jobs wait, another one is paused.
$primary->safe_psql('postgres', q{
SELECT jobq.create_queue('g', '{"group_limit": 2}');
INSERT INTO audit.ledger SELECT jobq.enqueue('g', group_key => k) FROM unnest('{k1,k1,k1,k2}'::text[]) k;
SELECT jobq.alter_group('g', 'k2', '{"paused_until": "2999-01-01T00:00:00Z"}');
SELECT jobq.schedule('yearly', '@yearly', 's'), jobq.schedule('off', '@daily', 'g'), jobq.pause_schedule('off')});

# ---- looking ----

my %same = (
	'groups' => q{SELECT queue, group_key, available, blocked, running, oldest_seconds > 0,
		paused_until, paused_by, paused_at FROM jobq.groups ORDER BY 1, 2},
	'schedules' => 'SELECT * FROM jobq.schedules ORDER BY name',
	'jobs that do not run' => q{SELECT * FROM jobq.jobs
		WHERE state <> 'running' AND id <> } . "$id{running} ORDER BY id",
	'history' => 'SELECT * FROM jobq.history ORDER BY id',
	'dead_jobs' => 'SELECT * FROM jobq.dead_jobs ORDER BY id',
	'queues' => 'SELECT * FROM jobq.queues ORDER BY id',
	'job()' => "SELECT * FROM jobq.job($id{completed})",
	'attempts()' => "SELECT a.* FROM jobq.attempts($id{retryable}) a",
	'attempts() of a dead job' => "SELECT a.* FROM jobq.attempts($id{dead}) a",
	'what a reader sees' => q{SET ROLE reader;
		SELECT id, state FROM jobq.jobs WHERE state <> 'running'
		AND id <> } . "$id{running} ORDER BY id");
foreach my $what (sort keys %same)
{
	my $expected = $primary->safe_psql('postgres', $same{$what});

	isnt($expected, '', "$what: the primary shows something");
	is($standby->safe_psql('postgres', $same{$what}),
		$expected, "$what: the standby shows the same");
}
is( $standby->safe_psql('postgres',
		"SELECT queue, payload FROM jobq.job($id{running})"),
	's|"running"', 'a running job is seen');
is( $standby->safe_psql(
		'postgres', qq{SET default_transaction_isolation = 'repeatable read';
		BEGIN; SELECT state FROM jobq.job($id{completed}); COMMIT}),
	'completed', 'at every isolation level');

my $start = time();
is(sqlstate($standby, $_), 'JQ009', "$_ is not known here")
  for ((map { "SELECT * FROM jobq.$_" } qw(queue_stats queue_minutes queue_hours
		kinds workers explain_job(1) explain_queue('s') metrics())), q{SELECT * FROM jobq.peek('s')});
cmp_ok(time() - $start, '<', 3, 'and nobody waits for it');
foreach my $item (qw(launcher keeper standby))
{
	like(
		$standby->safe_psql('postgres',
			"SELECT status, detail FROM jobq.health() WHERE item = '$item'"),
		qr/^ok\|.*standby/, "health(), $item: a standby, which is no fault");
}
is( $standby->safe_psql('postgres',
		q{SELECT item, detail FROM jobq.health() WHERE status <> 'ok'}),
	'', 'health() has nothing to complain about');
is( $standby->safe_psql('postgres',
		q{SELECT item, detail FROM jobq.check_install() WHERE status <> 'ok'}),
	'', 'check_install() neither');

# ---- writing ----

my ($l, $t) = ($id{running}, $lease{running});
my %writing = (
	'create_queue' => q{create_queue('new')},
	'alter_queue' => q{alter_queue('s', '{"max_batch": 5}')},
	'drop_queue' => q{drop_queue('s', true)},
	'pause_queue' => q{pause_queue('s')},
	'resume_queue' => q{resume_queue('s')},
	'purge_queue' => q{purge_queue('s')},
	'grant_queue' => q{grant_queue('s', 'reader', '{read}')},
	'revoke_queue' => q{revoke_queue('s', 'reader', '{read}')},
	'enqueue' => q{enqueue('s')},
	'enqueue_many' => q{enqueue_many('s', '{1,2}')},
	'dequeue' => q{dequeue('s')},
	'dequeue_any' => q{dequeue_any('{s}')},
	'receive' => q{CALL receive('s')},
	'receive_any' => q{CALL receive_any('{s}')},
	'complete' => "complete($l, $t)",
	'complete_many' => "complete_many('{$l}', $t)",
	'complete_and_dequeue' => "complete_and_dequeue('s', '{$l}', $t)",
	'fail' => "fail($l, $t)",
	'release' => "release($l, $t)",
	'extend' => "extend($l, $t)",
	'extend_many' => "extend_many('{$l}', $t)",
	'settle_jobs' => qq{settle_jobs('[{"id": $l, "lease": $t, "do": "complete"}]')},
	'cancel' => "cancel($id{available})",
	'reschedule' => "reschedule($id{available})",
	'retry' => "retry($id{completed})",
	'redrive' => q{redrive('s')},
	'alter_group' => q{alter_group('s', 'k', '{"limit": 1}')},
	'drain_queue' => q{drain_queue('s')},
	'enqueue_jobs' => q{enqueue_jobs('[{"queue": "s"}]')},
	'enqueue_unique' => q{enqueue_unique('s', unique_key => 'k')},
	'schedule' => q{schedule('t', '@daily', 's')},
	'unschedule' => q{unschedule('t')},
	'pause_schedule' => q{pause_schedule('t')},
	'resume_schedule' => q{resume_schedule('t')},
	'run_schedule' => q{run_schedule('t')},
	'adopt' => 'adopt()',
	'create_key' => q{create_key('k', 'sign')},
	'rotate_key' => q{rotate_key('k')},
	'revoke_key' => q{revoke_key('k')},
	'reseal' => q{reseal('s')},
	'create_access_key' => q{create_access_key('k', 's', '{enqueue}')},
	'rotate_access_key' => q{rotate_access_key('k')},
	'revoke_access_key' => q{revoke_access_key('k')},
	'rate_limit_take' => q{rate_limit_take('r', 1, '1 s')},);
my @reading = qw(peek preview_schedule job attempts explain_job explain_queue
  metrics health check_install run_maintenance wait_for wait_for_result
  wait_for_jobs wait_until_idle verify_audit verify_signature use_access_key);
# Calls of a newer version must come in here, too, or this test fails.
my @calls = split(
	/\n/,
	$standby->safe_psql(
		'postgres', q{SELECT DISTINCT substring(call FROM '^\w+') FROM jobq.call
		WHERE NOT is_view AND call NOT LIKE '\_%'}));
foreach my $call (sort @calls)
{
	next if grep { $_ eq $call } @reading;
	my $statement = $writing{$call};

	if (!defined $statement)
	{
		fail("$call is not known to this test");
		next;
	}
	$start = time();
	is( sqlstate($standby,
			$statement =~ /^CALL/ ? $statement =~ s/CALL /CALL jobq./r :
			  "SELECT jobq.$statement"),
		'25006', "$call refuses on a standby");
	cmp_ok(time() - $start, '<', 3, "$call does not wait");
}
is(sqlstate($standby, 'SELECT jobq.run_maintenance()'),
	'JQ009', 'run_maintenance() has no keeper here');
is(sqlstate($standby, "CALL jobq.$_"), 'JQ009', "nobody is woken here: $_")
  for q{wait_for_jobs('s')}, q{wait_until_idle('s')},
  "wait_for_result($id{available})";
is(sqlstate($standby, "SELECT * FROM jobq.wait_for($id{available})"),
	'JQ009', 'nor from wait_for');
is($standby->safe_psql('postgres', "SELECT state FROM jobq.wait_for($id{completed})"),
	'completed', 'but what has ended shows');

# ---- promotion ----

my @short = map {
	$primary->safe_psql('postgres',
		q{INSERT INTO audit.ledger SELECT jobq.enqueue('short') RETURNING id})
} 1 .. 2;
my $short_lease = $primary->safe_psql('postgres',
	q{SET jobq.claim_durability = on; SELECT max(lease) FROM jobq.dequeue('short', 2)});
my $last_id = $short[-1];
kill_server($primary);
take_over($standby);
$start = time();
ok(await_keeper($standby), 'promoted: a keeper comes');
note(sprintf('the keeper was ready %.1f s after promotion', time() - $start));
is( $standby->safe_psql('postgres',
		q{SELECT detail FROM jobq.health() WHERE item = 'standby'}),
	'This server is a primary.', 'promoted: health() knows');
is($standby->safe_psql('postgres', "SELECT state FROM jobq.job($id{running})"),
	'running', 'promoted: what ran is running');
is(sqlstate($standby, "SELECT jobq.complete($l, $t)"),
	'00000', 'promoted: its lease is good');
is(sqlstate($standby, "SELECT jobq.complete($l, $t)"),
	'JQ015', 'promoted: once');
await_state($standby, $_, 'available', 'promoted: other leases expire')
  for @short;
is( $standby->safe_psql('postgres',
		"SELECT string_agg(outcome, ' ') FROM jobq.attempts($short[0])"),
	'lease_expired', 'promoted: and are counted');
is( $standby->safe_psql('postgres',
		"SELECT state FROM jobq.job($id{retryable})"),
	'retryable', 'promoted: who waits, waits');
cmp_ok(
	$standby->safe_psql('postgres',
		q{INSERT INTO audit.ledger SELECT jobq.enqueue('short') RETURNING id}),
	'>', $last_id, 'promoted: ids go on');
cmp_ok(
	$standby->safe_psql('postgres',
		q{SELECT min(lease) FROM jobq.dequeue('short', 10)}),
	'>', $short_lease, 'promoted: leases go on');
audit_ok($standby, 'promoted');

# ---- load, the primary dies, nothing acknowledged is lost ----

my $dir = PostgreSQL::Test::Utils::tempdir;
my $client = "$dir/client.sql";
append_to_file($client, q{
\pset tuples_only on
\pset format unaligned
\set ON_ERROR_STOP on
} . q{
INSERT INTO audit.ledger SELECT jobq.enqueue('load', delay =>
	CASE WHEN random() < 0.1 THEN '0.2 s'::interval END) RETURNING 'E ' || id;
INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('load',
	array_fill('{}'::jsonb, ARRAY[3]))) RETURNING 'E ' || id;
SELECT coalesce(array_agg(id)::text, '{}') AS ids,
	coalesce(max(lease), 0) AS lease FROM jobq.dequeue('load', 5) \gset
\echo L :lease
SELECT 'C ' || unnest(jobq.complete_many(:'ids', :lease, 'skip'));
SELECT 'L ' || lease FROM (SELECT lease, jobq.fail(id, lease, 'x')
	FROM jobq.dequeue('load')) f;
} x ($LOAD_JOBS * 20));

my (%enqueued, $last_lease);

# Let clients work until the server dies under them; what they were told.
sub work_until_killed
{
	my ($node) = @_;
	my @outputs = map { "$dir/out$_" } 1 .. 4;
	my @clients = map {
		IPC::Run::start(
			[
				'psql', '-X', '-q', '-f', $client, '-h', $node->host,
				'-p', $node->port, 'postgres'
			],
			'<', \undef, '>', $_, '2>', '/dev/null')
	} @outputs;
	my $before = $node->safe_psql('postgres',
		q{SELECT count(*) FROM jobq.history WHERE queue = 'load'});
	my %told = (E => [], C => [], L => []);

	$node->poll_query_until('postgres',
		"SELECT count(*) >= $before + $LOAD_JOBS FROM jobq.history WHERE queue = 'load'")
	  or die 'no load';
	kill_server($node);
	foreach my $started (@clients)
	{
		eval { $started->finish };
	}
	foreach my $output (@outputs)
	{
		# The last line may be cut off.
		foreach my $line (slurp_file($output) =~ /^(.*)\n/mg)
		{
			push @{ $told{$1} }, $2 if $line =~ /^([ECL]) (\d+)$/;
		}
	}
	return \%told;
}

$primary = $standby;
foreach my $round (1 .. $ROUNDS)
{
	$standby = make_standby($primary, "standby$round", 'on');
	my $told = work_until_killed($primary);
	my ($acknowledged, $completed) =
	  map { '{' . join(',', @$_) . '}' } @$told{qw(E C)};

	take_over($standby);
	ok(await_keeper($standby), "round $round: the keeper is there");
	note(sprintf('round %d: %d enqueued, %d completed, acknowledged',
			$round, scalar @{ $told->{E} }, scalar @{ $told->{C} }));
	is( $standby->safe_psql('postgres',
			"SELECT count(*) FROM (SELECT unnest('$acknowledged'::bigint[])
			 EXCEPT SELECT id FROM audit.ledger) lost"),
		'0', "round $round: no job that was acknowledged is lost");
	is(scalar(grep { $enqueued{$_}++ } @{ $told->{E} }),
		0, "round $round: no id came twice");
	$standby->safe_psql('postgres',
		"INSERT INTO audit.acknowledged SELECT unnest('$completed'::bigint[])");
	$last_lease = (sort { $b <=> $a } @{ $told->{L} })[0];
	my ($id, $lease) = split(
		/\|/,
		$standby->safe_psql(
			'postgres', q{
INSERT INTO audit.ledger SELECT jobq.enqueue('load', priority => -100);
SELECT id, lease FROM jobq.dequeue('load')}));
	cmp_ok($lease, '>', $last_lease, "round $round: leases only grow");
	is(scalar(grep { $_ >= $id } keys %enqueued),
		0, "round $round: ids only grow");
	$standby->safe_psql('postgres', "SELECT jobq.complete($id, $lease)");
	audit_ok($standby, "round $round");
	$primary = $standby;
}

# What was left over is worked off.
ok( await(
		sub {
			$primary->safe_psql('postgres',
				q{SELECT count(jobq.complete(id, lease))
				  FROM jobq.dequeue('load', 1000)});
			return $primary->safe_psql('postgres',
				q{SELECT count(*) FROM jobq.jobs WHERE queue = 'load'}) eq '0';
		},
		30),
	'all jobs are done in the end');
audit_ok($primary, 'in the end');
is(conflicts_logged($primary), 0, 'the unique index has saved nobody');

$primary->stop;
done_testing();
