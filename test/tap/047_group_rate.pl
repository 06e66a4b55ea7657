# group_rate_limit, and the rates of single groups that alter_group() sets:
# exact for sixteen sessions, whatever becomes of what was delivered, and over a
# crash; what has not been delivered uses nothing up.
#
# JOBQ_SECONDS: how long the sessions are at it.
use strict;
use warnings;

use JobqTest;
use LimitLoad;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $SECONDS = $ENV{JOBQ_SECONDS} || 2;
my $node = start_limits('grouprate', "jobq.epoch_rows = 100\njobq.epoch_age = 100ms\n");
test_functions($node);

# How many jobs of each group are to be had.
sub take_groups
{
	my ($queue) = @_;

	return sql(qq{SELECT coalesce(string_agg(key || n, ' ' ORDER BY key), '') FROM
		(SELECT coalesce(group_key, '-') || ':' AS key, count(*) AS n
		 FROM jobq.dequeue('$queue', 100000) GROUP BY 1) x});
}

# ---- what a limit needs to know is not dropped ----

sql(q{SELECT jobq.create_queue('kept', '{"retention": 0}');
	SELECT jobq.alter_group('kept', 'g0', '{"rate_limit": {"limit": 40, "period": "1 h"}}')});
my $epoch = sql(q{SELECT max(epoch) FROM jobq.epoch JOIN jobq.queue USING (class) WHERE queue = 'kept'});
sql(q{SELECT jobq.enqueue_many('kept', array_fill('{}'::jsonb, ARRAY[30]), group_key => 'g' || g)
	FROM generate_series(0, 1) g});
sql(q{SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('kept', 1000)});

sub kept
{
	return sql("SELECT count(*) FROM jobq.epoch WHERE epoch = $epoch");
}

ok(await(sub { sql("SELECT drained_at IS NOT NULL FROM jobq.epoch WHERE epoch = $epoch") eq 't' }),
	'all jobs of an epoch have ended');
sql('SELECT jobq.run_maintenance()') for 1 .. 2;
is(kept(), 1, 'it stays as long as the rate of a single group needs it');
$node->restart;
await_keeper($node);
fill('kept', 200, 2);
is(take_groups('kept'), 'g0:10 g1:100', 'so that its deliveries count after a restart');
sql(q{SELECT jobq.alter_group('kept', 'g0', '{"rate_limit": null}')});
ok(await(sub { kept() eq '0' }, 20), 'without its rate the epoch goes');
sql(q{SELECT jobq.purge_queue('kept'); SELECT jobq.cancel(id) FROM jobq.jobs;
	INSERT INTO audit.forgetful VALUES (true)});

# ---- what is not delivered does not count ----

# Somebody takes the last place while a transaction is about to take its own job.
create('own', '"max_active": 1, "lease_for": "1 h", "group_rate_limit": {"limit": 2, "period": "1 h"}');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe(q{BEGIN; INSERT INTO audit.ledger
	SELECT jobq.enqueue('own', group_key => 'a') FROM generate_series(1, 3)});
sql(q{SELECT pause_at('before-own-claim')});
$session->{stdin} .= "SELECT 'got ' || count(*) FROM jobq.dequeue('own');\n";
$session->{run}->pump_nb;
ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'a transaction is about to take its own job');
fill('own', 1);
is(take('own'), 1, 'somebody else gets the only place');
sql(q{SELECT pause_at('')});
$session->{run}->pump until $session->{stdout} =~ /got \d/ || $session->{timeout}->is_expired;
like($session->{stdout}, qr/got 0/, 'so its own is refused');
$session->{stdout} = '';
$session->query_safe('COMMIT');
sql(q{SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'own' AND state = 'running';
	SELECT jobq.alter_queue('own', '{"max_active": null}')});
is(take_groups('own'), 'a:2', 'their group has its whole rate');

# ---- a rate that is changed ----

create('changed', '"group_rate_limit": {"limit": 4, "period": "1 h"}', 20, 2);
is(sql(q{SELECT count(*) FROM jobq.dequeue('changed', 2)}), 2, 'two delivered');
sql(q{SELECT jobq.alter_queue('changed', '{"group_rate_limit": {"limit": 5, "period": "1 h"}}')});
is(take_groups('changed'), 'g0:3 g1:5', 'under another rate they count once');
is(sql(q{SELECT jobq.alter_queue('changed', '{"group_rate_limit": {"limit": 7, "period": "1 h"}}');
	BEGIN; SELECT count(*) FROM jobq.dequeue('changed', 1); ROLLBACK}) =~ s/\s+//r, 1, 'one is rolled back');
sql(q{SELECT jobq.alter_queue('changed', '{"group_rate_limit": {"limit": 6, "period": "1 h"}}')});
is(take_groups('changed'), 'g1:1', 'and counts, too');

# ---- what is being settled was delivered, too ----

# Run it while one of the queue's two jobs, which all runs, is being completed by
# a transaction; then give the queue a rate, and commit.
sub settled_meanwhile
{
	my ($queue, $point) = @_;
	my $settler = $node->background_psql('postgres', on_error_stop => 1);
	my $complete;

	create($queue, '"lease_for": "1 h"', 2, 1);
	$complete = sql(qq{SELECT format('SELECT jobq.complete(%s, %s)', id, lease) FROM jobq.dequeue('$queue')});
	$settler->query_safe("BEGIN; $complete") unless $point;
	sql("SELECT pause_at('$point')") if $point;
	sql(qq{SELECT jobq.alter_queue('$queue', '{"group_rate_limit": {"limit": 1, "period": "1 h"}}')});
	if ($point)
	{
		is(sql("SELECT reason FROM jobq.explain_queue('$queue')"), 'loading', 'the keeper is asked to count');
		ok($node->poll_query_until('postgres', 'SELECT paused() > 0'), 'the keeper counts deliveries');
		$settler->query_safe("BEGIN; $complete; COMMIT");
		sql(q{SELECT pause_at('')});
	}
	is(take_groups($queue), '', "$queue: the group has had its job");
	$settler->query_safe('COMMIT') unless $point;
	is(take_groups($queue), '', "$queue: nor is there another one afterwards");
	$settler->quit;
	return;
}

settled_meanwhile('marked');
settled_meanwhile('ended', 'groups-after-snapshot');

# ---- over a restart ----

create('grace', '"group_limit": 5, "group_rate_limit": {"limit": 1, "period": "1 h"}, "lease_for": "1 h"', 4, 2);
is(take_groups('grace'), 'g0:1 g1:1', 'one of each group');
sql(q{SELECT jobq.cancel(id, grace => '10 min') FROM jobq.jobs WHERE queue = 'grace'
	AND state = 'running' AND group_key = 'g0'});

$node->restart;
await_keeper($node);
is(take_groups('grace'), '', 'those that run count after a restart, and those in grace');

# ---- sixteen sessions ----

create('load', '"group_rate_limit": {"limit": 12, "period": "400 ms"}', 4000 * $SECONDS, 4);
sql(q{SELECT jobq.alter_group('load', 'g3', '{"rate_limit": {"limit": 5, "period": "300 ms"}}')});

sub none_too_fast
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(too_fast('load', 12, '400 ms', q{group_key <> 'g3'}), '0|t', "$name: no group ever gets more than its rate");
	is(too_fast('load', 5, '300 ms', q{group_key = 'g3'}), '0|t', "$name: nor one that has its own");
	return;
}

load($SECONDS, q{CALL work('load');});
cmp_ok(sql(q{SELECT min(n) FROM (SELECT count(*) AS n FROM ran WHERE queue = 'load' GROUP BY group_key) x}),
	'>=', 5 * $SECONDS / 0.3 * 0.7, 'each group gets about what it may');
ok(await_idle('load'), 'all is quiet');
none_too_fast('before a crash');
load_and_crash($SECONDS, q{CALL work('load');});
load(1, q{CALL work('load');});
ok(await_idle('load'), 'all is quiet again');
none_too_fast('over a crash');
usleep(500_000);
is(take_groups('load'), 'g0:12 g1:12 g2:12 g3:5', 'and the whole rate is to be had');

# ---- a delivery that the keeper does not record, for a minute after a crash ----

create('starts', '"group_rate_limit": {"limit": 3, "period": "1 h"}', 10, 1);
my $keeper = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper'
	AND datname = 'postgres'});
kill('STOP', $keeper);
is(sqlstate($node, q{SET statement_timeout = '300 ms'; SELECT count(*) FROM jobq.dequeue('starts', 10)}),
	'57014', 'without a start record nothing is handed out');
kill('CONT', $keeper);
is(take_groups('starts'), 'g0:3', 'nor does it count');

audit_ok($node, 'at the end');
done_testing();
