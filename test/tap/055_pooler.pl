# Behind PgBouncer in transaction mode, with one server connection for all: what
# a client has leased it settles in another transaction, whoever had the
# connection in between; a role and an access key last for a transaction; a client
# that goes away leaves nothing behind; procedures that wait work, too.
use strict;
use warnings;

use IPC::Run ();
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'there is no PgBouncer' unless $ENV{JOBQ_PGBOUNCER};

my $node = start_node('pooler', "jobq.secret_file = 'jobq.secret'\n");
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = PostgreSQL::Test::Cluster::get_free_port();

append_to_file($node->data_dir . '/jobq.secret', "1:a secret of no more than this very test\n");
chmod(0600, $node->data_dir . '/jobq.secret') or die "chmod: $!";

$node->safe_psql('postgres', q{
CREATE EXTENSION pg_jobq;
CREATE ROLE ann; CREATE ROLE bob; CREATE ROLE watcher IN ROLE jobq_monitor;
CREATE ROLE shop IN ROLE jobq_key_user;
CREATE ROLE web LOGIN NOINHERIT IN ROLE ann, bob, shop;
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

# ---- access keys ----

my $key = $node->safe_psql('postgres', q{SELECT jobq.create_queue('keyed');
	SELECT jobq.create_access_key('shop', 'keyed', '{enqueue}')});
($key) = $key =~ /(jq_\w+)/;
my $keyed = q{SELECT jobq.enqueue('keyed')};

# With the key in use for the transaction, or for longer.
sub with_key
{
	my ($end, $more, @statements) = @_;

	return client('BEGIN', 'SET LOCAL ROLE shop',
		"DO \$\$ BEGIN PERFORM jobq.use_access_key('$key'$more); END \$\$", @statements, $end);
}
is(as('shop', $keyed), 'JQ002', 'without a key there is no queue');
like(with_key('COMMIT', '', $keyed), qr/^\d+$/, 'with one there is');
is(as('shop', $keyed), 'JQ002', 'the next client has none, in the same role');
like(with_key('ROLLBACK', '', $keyed), qr/^\d+$/, 'a transaction that is rolled back');
is(as('shop', $keyed), 'JQ002', 'leaves none either');
is(with_key('COMMIT', '', 'SELECT 1/0'), '22012', 'nor does one that fails');
is(as('shop', $keyed), 'JQ002', 'which the next client sees');
($in, $out) = ("BEGIN;\nSET LOCAL ROLE shop;\nDO \$\$ BEGIN PERFORM jobq.use_access_key('$key'); END \$\$;\n$keyed;\n", '');
$victim = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-h', $dir, '-p', $port, '-U', 'web', '-d', 'app' ],
	'<', \$in, '>', \$out, '2>', '/dev/null');
ok(await(sub { $victim->pump_nb(); return $out =~ /\d/ }, 30), 'a client uses the key');
$victim->kill_kill;
is(as('shop', $keyed), 'JQ002', 'when it dies, nobody has it');

# the form for sessions is not for such poolers: the pooler's session goes on
$backend = client('SELECT pg_backend_pid()');
like(with_key('COMMIT', ', true', $keyed), qr/^\d+$/, 'a key for the session');
like(as('shop', $keyed), qr/^\d+$/, 'is that of the next client, too, as the documentation warns');
is(as('ann', $keyed), 'JQ002', 'in the same role');
is(client('SELECT pg_backend_pid()'), $backend, 'all that in one backend');
is(client('DISCARD ALL', 'SELECT 1'), '1', 'DISCARD ALL, which PgBouncer can be told to run,');
is(as('shop', $keyed), 'JQ002', 'ends it');
with_key('COMMIT', ', true');
$node->safe_psql('postgres', q{SELECT jobq.revoke_access_key('shop', 'keyed')});
is(as('shop', $keyed), 'JQ013', 'and so does revoking it, for whoever has it');
is(client('DISCARD ALL', 'SELECT 1'), '1', 'the connection is clean again');

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
