# Roles and the extension's own rights: an owner that is no superuser lives with
# the row level security that is forced on its tables; owners change, roles are
# renamed and dropped while sessions and jobs go on; SECURITY DEFINER functions.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('roles', $SMALL_EPOCHS);

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub as
{
	my ($role, $statement) = @_;

	return sql("SET ROLE $role; $statement");
}

sub state_as
{
	my ($role, $statement) = @_;

	return sqlstate($node, "SET ROLE $role; $statement");
}

sql(q{
CREATE ROLE installer SUPERUSER;
CREATE ROLE successor;
CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN;
SET ROLE installer;
CREATE EXTENSION pg_jobq;
});
ok(await_keeper($node), 'there is a keeper');

# ---- an owner that is no superuser ----

# All that is written by SQL rather than by the belt's own way.
sub lives_ok
{
	my ($name) = @_;
	my $ok = sqlstate($node, q{
SELECT jobq.create_queue('work', '{"backoff": {"base": 0}, "dead_letter": "work dead", "retention": "2 days"}', 'alter');
SELECT jobq.grant_queue('work', 'ann', '{enqueue,read}');
SELECT jobq.grant_queue('work', 'bob', '{dequeue}');
SELECT jobq.alter_group('work', 'g', '{"limit": 5}');
SELECT jobq.pause_queue('work');
SELECT jobq.resume_queue('work');
SELECT jobq.schedule('s', '@yearly', 'work');
SELECT jobq.run_schedule('s');
SELECT jobq.purge_queue('work');});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($ok, '00000', "$name: queues, grants, groups, schedules");
	my $key = $name =~ s/\W//gr;
	my $id = as('ann', qq{SELECT jobq.enqueue('work', '"$key"', unique_key => '$key')});
	is(as('ann', qq{SELECT jobq.enqueue('work', unique_key => '$key')}), $id, "$name: unique keys");
	my $lease = as('bob', "SELECT lease FROM jobq.dequeue('work') WHERE id = $id");
	is(as('bob', "SELECT jobq.fail($id, $lease, 'x', retry_in => '1 s')"), 'retryable', "$name: to the shelf");
	is(as('ann', "SELECT state FROM jobq.job($id)"), 'retryable', "$name: it shows");
	ok($node->poll_query_until('postgres', "SELECT state = 'available' FROM jobq.job($id)"),
		"$name: and back by the keeper");
	$lease = as('bob', "SELECT lease FROM jobq.dequeue('work') WHERE id = $id");
	is(as('bob', "SELECT jobq.fail($id, $lease, 'x', retry => false)"), 'dead', "$name: dead");
	is(as('ann', "SELECT count(*) FROM jobq.dead_jobs WHERE id = $id"), '1', "$name: dead_jobs");
	is(sql("SELECT jobq.redrive('work dead')"), '1', "$name: redriven");
	sql("SELECT jobq.purge_queue('work')");
	my $epoch = sql('SELECT max(epoch) FROM jobq.epoch');
	sql("SELECT jobq.enqueue_many('work', array_fill('{}'::jsonb, ARRAY[200]))");
	ok($node->poll_query_until('postgres', "SELECT max(epoch) > $epoch FROM jobq.epoch"),
		"$name: the keeper makes epochs");
	is( sql(q{SELECT count(*) FROM pg_class WHERE relnamespace = 'jobq'::regnamespace
			AND relkind = 'r' AND NOT (relrowsecurity AND relforcerowsecurity)}),
		'0', "$name: with row level security, too");
	is( sql(q{SELECT string_agg(item || ': ' || detail, '; ') FROM jobq.check_install() WHERE status <> 'ok'}),
		'', "$name: check_install() is content");
	sql("SELECT jobq.purge_queue('work')");
	return;
}
lives_ok('a superuser');
sql('ALTER ROLE installer NOSUPERUSER');
lives_ok('a plain role');
sql('REASSIGN OWNED BY installer TO successor');
is( sql(q{SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'jobq'::regnamespace}),
	'successor', 'everything has a new owner');
sql('DROP OWNED BY installer; DROP ROLE installer');
lives_ok('another one');
is( state_as('successor', "INSERT INTO jobq.queue_acl VALUES (1, 'ann', 15)"),
	'42501', 'not even the owner writes by hand');
is(as('successor', 'SELECT count(*) FROM jobq.queue'), '0', 'nor sees anything');

# ---- sessions that go on while privileges change ----

my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe(q{SET ROLE ann;
PREPARE produce AS SELECT jobq.enqueue('work');
PREPARE look AS SELECT count(*) FROM jobq.jobs WHERE queue = 'work'});
like($session->query('EXECUTE produce'), qr/^\d+$/, 'a session produces');
is($session->query('EXECUTE look'), '1', 'and looks');
sql("SELECT jobq.revoke_queue('work', 'ann', '{enqueue,read}')");
sql("SELECT jobq.grant_queue('default', 'ann', '{enqueue,read}')");
is($session->query('EXECUTE produce'), '', 'what was revoked is refused in the next call');
is($session->query('EXECUTE look'), '1', 'but an enqueuer sees its jobs');
sql('ALTER ROLE ann RENAME TO anna');
sql("SELECT jobq.grant_queue('work', 'anna', '{enqueue}')");
like($session->query('EXECUTE produce'), qr/^\d+$/, 'a renamed role is the same');
is(sql("SELECT DISTINCT enqueued_by FROM jobq.jobs WHERE queue = 'work'"), 'anna', 'in views, too');
$session->quit;

# ---- a role that is gone ----

my $oid = sql(q{SELECT oid FROM pg_roles WHERE rolname = 'anna'});
sql('DROP OWNED BY anna; DROP ROLE anna; CREATE ROLE anna');
sql("SELECT jobq.grant_queue('work', 'anna', '{enqueue}')");
is(sql("SELECT DISTINCT enqueued_by FROM jobq.jobs WHERE queue = 'work'"), $oid, 'its jobs keep its number');
is(as('anna', 'SELECT count(*) FROM jobq.jobs'), '0', 'another role of its name does not see them');
my $left = sql("SELECT min(id) FROM jobq.jobs WHERE queue = 'work'");
is(state_as('anna', "SELECT jobq.cancel($left)"), 'JQ020', 'nor cancels them');
is(sql("SELECT jobq.cancel($left)"), 't', 'an administrator does');
sql("SELECT jobq.purge_queue('work')");

# ---- SECURITY DEFINER ----

sql(q{
CREATE ROLE app;
SELECT jobq.create_queue('shared', '{"isolation": "owner"}');
SELECT jobq.grant_queue('shared', 'app', '{enqueue,dequeue,read}');
SELECT jobq.grant_queue('shared', 'bob', '{enqueue,dequeue,read}');
CREATE FUNCTION put() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$SELECT jobq.enqueue('shared', priority => -1)$$;
CREATE FUNCTION take(OUT id bigint, OUT lease bigint) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$SELECT d.id, d.lease FROM jobq.dequeue('shared') d$$;
CREATE FUNCTION done(id bigint, lease bigint) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$SELECT jobq.complete(id, lease)$$;
ALTER FUNCTION put() OWNER TO app;
ALTER FUNCTION take() OWNER TO app;
ALTER FUNCTION done(bigint, bigint) OWNER TO app;
CREATE ROLE nobody;
});
my $put = as('nobody', 'SELECT public.put()');
is(as('nobody', "SELECT count(*) FROM pg_roles WHERE rolname = 'nobody'"), '1', 'somebody without any privilege');
is(as('app', "SELECT enqueued_by FROM jobq.job($put)"), 'app', 'the owner of a function is who enqueues');
is(as('bob', "SELECT count(*) FROM jobq.job($put)"), '0', 'and is kept apart from others');
my ($id, $lease) = split(/\|/, as('bob', 'SELECT id, lease FROM public.take()'));
is($id, $put, 'a function leases for its owner');
is(state_as('bob', "SELECT jobq.complete($id, $lease)"), 'JQ020', 'not for its caller');
is(state_as('nobody', "SELECT public.done($id, $lease)"), '00000', 'and settles for it');

$node->stop;
done_testing();
