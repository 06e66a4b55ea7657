# pg_upgrade to the same major version: --check and the real thing pass with
# the library preloaded; jobs, leases, history and all that decides about jobs are
# there; the new cluster is paused as a copy until jobq.adopt().
use strict;
use warnings;

use Carried;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = start_node('old');
my $new = start_node('new');
my (%id, %lease);

sub old
{
	return $old->safe_psql('postgres', $_[0]);
}

sub new
{
	return $new->safe_psql('postgres', $_[0]);
}

old(q{
CREATE ROLE alice;
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('q', '{"lease_for": "1 hour", "backoff": {"base": "1 h"},
	"dead_letter": "q dead"}');
SELECT jobq.grant_queue('q', 'alice', '{enqueue,dequeue}');
});
foreach my $name (qw(completed dead failed running))
{
	$id{$name} = old("SELECT jobq.enqueue('q', '{\"is\": \"$name\"}')");
	$lease{$name} = old("SET jobq.claim_durability = on;
		SELECT lease FROM jobq.dequeue('q')");
}
old("SELECT jobq.complete($id{completed}, $lease{completed})");
old("SELECT jobq.fail($id{dead}, $lease{dead}, 'bad', retry => false)");
old("SELECT jobq.fail($id{failed}, $lease{failed}, 'again')");
$id{$_} = old("SET ROLE alice; SELECT jobq.enqueue('q', priority => $_)")
  foreach 2, 1;
$id{scheduled} = old("SELECT jobq.enqueue('q', delay => '1 h')");
make_carried($old, 'postgres');
my $states = q{
SELECT id, queue, state, priority, run_at, attempt, enqueued_by, worker,
	lease_expires_at, finished_at, last_error, moved_to, payload
FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j ORDER BY id;
SELECT * FROM jobq.queues ORDER BY queue;
SELECT queue, available, scheduled, running, retryable, completed_total,
	failed_total, dead_total, cancelled_total FROM jobq.queue_stats ORDER BY queue;
SELECT grantee, privileges FROM jobq.queue_acl;
SELECT has_function_privilege('alice', 'jobq.dequeue(text, bigint, interval, interval, text)', 'EXECUTE')};
my $before = old($states);
my $settings = old($CARRIED_SETTINGS);
my $minutes = old($CARRIED_MINUTES);
my $last = old('SELECT max(id) FROM jobq.jobs');
$_->stop foreach $old, $new;

my $bindir = $old->config_data('--bindir');
my @upgrade = (
	'pg_upgrade', '--no-sync', '-b', $bindir, '-B', $bindir, '-s', $new->host,
	'-d', $old->data_dir, '-D', $new->data_dir, '-p', $old->port, '-P',
	$new->port);
chdir($old->basedir) or die;
command_ok([ @upgrade, '--check' ], 'pg_upgrade --check');
command_ok([@upgrade], 'pg_upgrade');
chdir('/') or die;

# As pg_upgrade starts a server.
command_ok([ 'pg_ctl', '-D', $old->data_dir, '-l', $old->logfile, '-w',
		'-o', '-b', 'start' ], 'a server in binary upgrade mode');
is( old(q{SELECT count(*) FILTER (WHERE backend_type LIKE 'pg_jobq%'), count(*) > 0
		FROM pg_stat_activity, pg_sleep(0.5)}),
	'0|t', 'has none of our workers');
command_ok([ 'pg_ctl', '-D', $old->data_dir, '-w', 'stop' ], 'and stops');
$new->start;

ok(await_keeper($new), 'upgraded: has a keeper');
is( new("SELECT status || ': ' || hint FROM jobq.health() WHERE item = 'copy'"),
	'warning: SELECT jobq.adopt();', 'upgraded: it is a copy');
is(new("SELECT count(*) FROM jobq.dequeue('q', 10)"), '0',
	'upgraded: nothing is delivered');
is(sqlstate($new, "SELECT jobq.complete($id{running}, $lease{running})"),
	'JQ009', 'upgraded: nor settled');
new('SELECT jobq.adopt()');
ok(await_keeper($new), 'adopted: has a keeper');
is(new($states), $before, 'adopted: everything is as it was');
is( new(q{SELECT count(*) FILTER (WHERE NOT (relrowsecurity AND relforcerowsecurity)),
		count(*) FILTER (WHERE relname !~ '_[0-9]+$' AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
			AND has_table_privilege('pg_database_owner', c.oid, 'SELECT'))
		FROM pg_class c WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'r'}),
	'0|0', 'adopted: row level security and its policies');
is(new($CARRIED_SETTINGS), $settings, 'adopted: so are settings');
is(new($CARRIED_MINUTES), $minutes, 'adopted: and what minutes have counted');
carried_ok($new, 'postgres', 'adopted');
is(sqlstate($new, "SELECT jobq.complete($id{completed}, $lease{completed})"),
	'JQ015', 'adopted: what has ended stays so');
is(sqlstate($new, "SELECT jobq.complete($id{running}, $lease{running})"),
	'00000', 'adopted: the running job ends under its old lease');
cmp_ok(my $next = new("SELECT jobq.enqueue('q', priority => 3)"), '>', $last,
	'adopted: new ids are larger');
is(new("SELECT id FROM jobq.dequeue('q', 10)"),
	join("\n", $id{1}, $id{2}, $next), 'adopted: jobs run in order');
new(q{SELECT jobq.pause_queue('q')});
ok( await(
		sub {
			return new(q{SELECT string_agg(call, ' ' ORDER BY seq) FROM jobq.audit
				WHERE call IN ('grant_queue', 'adopt', 'pause_queue')}) eq
			  'grant_queue adopt pause_queue';
		}),
	'adopted: the audit log goes on');
is(new('SELECT whole, is_own FROM jobq.verify_audit()'), 't|t', 'adopted: its chain is whole');
add_auditor($new);
new('INSERT INTO audit.ledger SELECT id FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j');
audit_ok($new, 'adopted');
new('DROP EXTENSION pg_jobq');
is(new("SELECT count(*) FROM pg_namespace WHERE nspname = 'jobq'"),
	'0', 'adopted: the tables go with the extension');
$new->stop;
done_testing();
