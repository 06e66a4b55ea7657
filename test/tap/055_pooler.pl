# Behind PgBouncer in transaction mode, with one server connection for all: what
# a client has leased it settles in another transaction, whoever had the
# connection in between; a role lasts for a transaction; a client that goes away
# leaves nothing behind; procedures that wait work, too.
use strict;
use warnings;

use IPC::Run ();
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'there is no PgBouncer' unless $ENV{JOBQ_PGBOUNCER};

my $node = start_node('pooler');
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();

$node->safe_psql('postgres', q{
CREATE EXTENSION pg_jobq;
CREATE ROLE ann; CREATE ROLE bob; CREATE ROLE watcher IN ROLE jobq_monitor;
CREATE ROLE web LOGIN NOINHERIT IN ROLE ann, bob;
GRANT watcher TO web;
SELECT jobq.create_queue('shared', '{"isolation": "owner", "lease_for": "1 h", "backoff": {"base": 0}}');
SELECT jobq.grant_queue('shared', r, '{enqueue,dequeue,read}') FROM unnest(ARRAY['ann', 'bob']) r;
CREATE FUNCTION count_jobs() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT count(*) FROM jobq.jobs);
END $$;
});

# ---- the pooler ----

append_to_file("$dir/users.txt", qq{"web" ""\n});
append_to_file("$dir/pgbouncer.ini", join("\n",
		'[databases]',
		'app = host=' . $node->host . ' port=' . $node->port . ' dbname=postgres user=web',
		'[pgbouncer]',
		"listen_port = $port",
		'listen_addr =',
		"unix_socket_dir = $dir",
		'auth_type = trust',
		"auth_file = $dir/users.txt",
		'pool_mode = transaction',
		'default_pool_size = 1',
		'ignore_startup_parameters = extra_float_digits',
		"logfile = $dir/pgbouncer.log",
		''));
my $log = '';
my $pooler;
{
	local $ENV{LD_LIBRARY_PATH} = $ENV{JOBQ_PGBOUNCER_LIBRARIES} // '';
	$pooler = IPC::Run::start([ $ENV{JOBQ_PGBOUNCER}, '-q', "$dir/pgbouncer.ini" ],
		'<', \undef, '>', \$log, '2>', \$log);
}

# A client of the pooler: several statements, one transaction each.
sub client
{
	my (@statements) = @_;
	my ($out, $err);
	my $in = join(";\n", @statements) . ";\n";

	IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-v', 'VERBOSITY=sqlstate',
			'-h', $dir, '-p', $port, '-U', 'web', '-d', 'app' ],
		'<', \$in, '>', \$out, '2>', \$err);
	chomp($out);
	return $err =~ /(?:ERROR|FATAL):\s+(\w{5})/ ? $1 : $err ne '' ? $err : $out;
}

sub as
{
	my ($role, $statement) = @_;

	return client('BEGIN', "SET LOCAL ROLE $role", $statement, 'COMMIT');
}

ok(await(sub { return client('SELECT 1') eq '1' }, 30), 'the pooler pools')
  or diag($log);
my $backend = client('SELECT pg_backend_pid()');
is(client('SELECT pg_backend_pid()'), $backend, 'all clients have the same backend');

# ---- roles ----

my $job = as('ann', q{SELECT jobq.enqueue('shared', '"ann"', unique_key => 'k')});
like($job, qr/^\d+$/, 'ann enqueues');
is(client('SELECT current_user'), 'web', 'and is gone after her transaction');
like(client("SELECT jobq.enqueue('shared')"), qr/^42501$/, 'the pooler\'s own role may do nothing');
is(as('ann', 'SELECT public.count_jobs()'), '1', 'a cached plan for ann');
is(as('bob', 'SELECT public.count_jobs()'), '0', 'shows bob nothing');
is(as('watcher', 'SELECT public.count_jobs()'), '42501', 'nor anybody else');
is(as('ann', 'SELECT public.count_jobs()'), '1', 'and ann her job');
is(as('bob', "SELECT jobq.cancel($job)"), 'JQ020', 'bob cannot reach it');
isnt(as('bob', q{SELECT jobq.enqueue('shared', unique_key => 'k')}), $job, 'her key is not his');

# ---- leases outlive transactions ----

my ($id, $lease) = split(/\|/, as('bob', q{SELECT id, lease FROM jobq.dequeue('shared') WHERE payload = '"ann"'}));
is($id, $job, 'bob leases a job');
is(as('ann', "SELECT state FROM jobq.job($job)"), 'running', 'which ann sees');
is(client('SELECT pg_backend_pid()'), $backend, 'still the same backend');
is(as('bob', "SELECT jobq.complete($id, $lease, '7')"), '', 'bob completes it in another transaction');
is(as('ann', "SELECT result FROM jobq.job($job)"), '7', 'for ann');

# ---- one that goes away ----

my $lost = as('ann', q{SELECT jobq.enqueue('shared', '"lost"', priority => -5)});
my ($in, $out) = ("BEGIN;\nSET LOCAL ROLE bob;\nSELECT id FROM jobq.dequeue('shared');\n", '');
my $victim = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-h', $dir, '-p', $port, '-U', 'web', '-d', 'app' ],
	'<', \$in, '>', \$out, '2>', '/dev/null');
ok(await(sub { $victim->pump_nb(); return $out =~ /\d/ }, 30), 'a client is inside its transaction');
is($out, "$lost\n", 'with the job');
$victim->kill_kill;
ok($node->poll_query_until('postgres',
		"SELECT state = 'available' FROM jobq.job($lost)"), 'when it dies the job comes back');
is($node->safe_psql('postgres', "SELECT string_agg(outcome, ' ') FROM jobq.attempts($lost)"), 'rolled_back', 'as rolled back');
is(client('SELECT current_user'), 'web', 'and the next one starts afresh');

# ---- procedures ----

$node->safe_psql('postgres', q{SELECT jobq.purge_queue('shared');
GRANT USAGE ON SCHEMA jobq TO web;
SELECT jobq.create_queue('mine');
SELECT jobq.grant_queue('mine', 'web', '{enqueue,dequeue}')});
is(client(q{CALL jobq.receive('mine', wait => '100 ms')}), '[]', 'receive waits in vain');
$out = '';
my $waiter = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-h', $dir, '-p', $port, '-U', 'web', '-d', 'app',
		'-c', q{CALL jobq.receive('mine', wait => '60 s')} ],
	'<', \undef, '>', \$out, '2>&1');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE usename = 'web' AND query LIKE 'CALL%' AND state = 'active' AND wait_event_type = 'Extension'"),
	'receive waits');
is($node->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE usename = 'web'"),
	't', 'holding no snapshot');
$job = $node->safe_psql('postgres', q{SELECT jobq.enqueue('mine', '"wake"')});
$waiter->finish;
like($out, qr/"id": $job\b.*"payload": "wake"/, 'and is woken');
($lease) = $out =~ /"lease": (\d+)/;
is(client("SELECT jobq.complete($job, $lease)"), '', 'the next transaction completes the job');

$pooler->kill_kill;
$node->stop;
done_testing();
