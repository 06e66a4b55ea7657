# Every reason that explain_job() and explain_queue() know is produced, and is
# the one they give, with the number that decides. What views tell of pauses
# and of groups.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_audited(
	'reasons', 'jobq.max_live_jobs = 1000', q{
CREATE ROLE ann;
CREATE ROLE bob;
CREATE ROLE watcher IN ROLE jobq_monitor;
});
await_keeper($node);

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# A queue that role ann manages.
sub queue
{
	my ($queue, $options) = @_;

	sql(qq{SELECT jobq.create_queue('$queue', '$options');
		SELECT jobq.grant_queue('$queue', 'ann', '{manage}')});
	return;
}

# Enqueue some jobs; their ids.
sub put
{
	my ($queue, $n, $arguments) = @_;

	$arguments //= '';
	return split(/\n/,
		sql("SELECT jobq.enqueue('$queue'$arguments) FROM generate_series(1, $n)"));
}

# Dequeue; ids and the lease.
sub take
{
	my ($queue, $n) = @_;

	return split(/ /, sql("SELECT string_agg(id::text, ' ' ORDER BY id) || ' ' || max(lease)
		FROM jobq.dequeue('$queue', $n, lease_for => '1 hour')"));
}

my $TIME = qr/\d{4}-\d\d-\d\d [^,;"]*?\S/;

# The one row: reason, all of the detail (times are /time/), and the condition
# for `until`: in so many seconds, give or take, or undef for never.
sub reason_is
{
	my ($call, $reason, $detail, $until, $name) = @_;
	my ($is, $seconds, $got) = split(/\|/,
		sql("SELECT reason, extract(epoch FROM until - clock_timestamp()), detail FROM jobq.$call"), 3);
	my $expected = join($TIME, map { quotemeta } split(m{/time/}, $detail, -1));
	my $right = ($seconds eq '' && !defined $until)
	  || ($seconds ne '' && defined $until && abs($seconds - $until) < 5);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($is eq $reason && $got =~ /^$expected$/ && $right, "$call: $name")
	  || diag("$is: $got (until in '$seconds' s)\nexpected: $reason: $detail");
}

sub job_is
{
	my ($id, @expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return reason_is("explain_job($id)", @expected);
}

sub queue_is
{
	my ($queue, @expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return reason_is("explain_queue('$queue')", @expected);
}

# ---- nothing is wrong ----

queue('plain', '{"max_attempts": 2, "backoff": {"base": "1 h", "jitter": 0}}');
queue_is('plain', 'empty', 'No job is available: 0 run, 0 are scheduled, 0 wait for another attempt.', undef, 'empty');
my ($first, $second) = put('plain', 2);
job_is($first, 'next', 'The job is the next one of the queue, and nothing keeps it; none has been taken since the server was started.', undef, 'next');
job_is($second, 'in_line', '1 jobs of the queue come before it; none has been taken since the server was started.', undef, 'in line');
queue_is('plain', 'available', '2 jobs are available, and nothing keeps them.', undef, 'available');

# ---- the job's own state ----

my ($ran, $lease) = take('plain', 1);
job_is($ran, 'running', "Attempt 1 of 2 has been running since /time/, taken by worker \"051_reasons.pl\".", 3600, 'running');
sql("SELECT jobq.fail($ran, $lease, 'no')");
job_is($ran, 'retryable', '1 of 2 attempts have ended without success; the next one may begin at /time/.', 3600, 'retryable');
my ($later) = put('plain', 1, q{, delay => '30 min'});
job_is($later, 'scheduled', 'The job is scheduled for /time/.', 1800, 'scheduled');
my $session = $node->background_psql('postgres', on_error_stop => 1);
my $xid = $session->query_safe("BEGIN; SELECT jobq.cancel($second) \\gset x_\nSELECT pg_current_xact_id()");
job_is($second, 'busy', "Transaction $xid is ending or moving the job, and has not committed yet.", undef, 'marked');
queue_is('plain', 'busy', 'All 1 available jobs are being ended or moved by transactions that have not committed, or have expired.', undef, 'all marked');
$session->query_safe('COMMIT');
job_is($second, 'cancelled', 'The job ended as cancelled at /time/.', undef, 'cancelled');
queue_is('plain', 'empty', 'No job is available: 0 run, 1 are scheduled, 1 wait for another attempt.', 1800, 'empty until then');
($first) = put('plain', 1);
is($session->query_safe("BEGIN; SELECT id = $first FROM jobq.dequeue('plain')"), 't', 'taken');
$session->query_safe('ROLLBACK');
ok(await(sub { sql("SELECT state FROM jobq.job($first)") eq 'retryable'
	&& sql("SELECT detail LIKE '1 of 2%' FROM jobq.explain_job($first)") eq 't' }), 'a claim is rolled back');
job_is($first, 'retryable', '1 of 2 attempts have ended without success; the next one may begin at /time/.', 3600, 'rolled back');
($first) = put('plain', 1);
($ran, $lease) = take('plain', 1);
sql("SELECT jobq.cancel($ran, grace => '10 min')");
job_is($ran, 'cancelled', "The job was cancelled; worker \"051_reasons.pl\" has until then to learn it.", 600, 'in grace');
($first) = put('plain', 1);
($ran, $lease) = take('plain', 1);
sql("SELECT jobq.complete($ran, $lease)");
job_is($ran, 'completed', 'The job ended as completed at /time/.', undef, 'completed');
($first) = put('plain', 1);
($ran, $lease) = take('plain', 1);
sql("SELECT jobq.fail($ran, $lease, retry => false)");
job_is($ran, 'dead', 'The job died at /time/, after 1 of 2 attempts.', undef, 'dead');
($first) = put('plain', 1, q{, expires_at => clock_timestamp() + interval '0.1 s'});
ok(await(sub { sql("SELECT state FROM jobq.job($first)") eq 'expired' }), 'a job expires');
job_is($first, 'expired', 'The job ended as expired at /time/.', undef, 'expired');

# ---- the queue is stopped ----

queue('stop', '{}');
($first) = put('stop', 1);
sql(q{SET ROLE ann; SELECT jobq.pause_queue('stop')});
sql(q{SELECT jobq.pause_queue('stop')});
my $paused = 'Queue "stop" was paused by role "ann" at /time/.';
job_is($first, 'paused', $paused, undef, 'paused');
queue_is('stop', 'paused', $paused, undef, 'paused');
is(sql(q{SELECT paused, paused_by, paused_at BETWEEN now() - interval '1 min' AND now(), draining_by
	FROM jobq.queues WHERE queue = 'stop'}), 't|ann|t|', 'view queues says who');
sql(q{SELECT jobq.resume_queue('stop')});
is(sql(q{SELECT paused, paused_by, paused_at FROM jobq.queues WHERE queue = 'stop'}), 'f||', 'and nobody when it goes on');
sql(q{SET ROLE ann; SELECT jobq.drain_queue('stop')});
job_is($first, 'next', 'The job is the next one of the queue, and nothing keeps it; none has been taken since the server was started.', undef,
	'draining keeps no job');
is(sqlstate($node, q{SELECT jobq.enqueue('stop')}), 'JQ003', 'but a new one');
sql("SELECT jobq.cancel($first)");
queue_is('stop', 'draining',
	'No job is available, and new ones are refused: the queue was drained by role "ann" at /time/; 0 run, 0 are scheduled, 0 wait for another attempt.',
	undef, 'drained');
is(sql(q{SELECT draining, draining_by, draining_at IS NOT NULL FROM jobq.queues WHERE queue = 'stop'}), 't|ann|t',
	'view queues says so');
sql(q{SELECT jobq.schedule('nightly', '@daily', 'plain'), jobq.pause_schedule('nightly')});
is(sql(q{SELECT paused, paused_by = current_user, paused_at IS NOT NULL FROM jobq.schedules WHERE name = 'nightly'}),
	't|t|t', 'view schedules says who has paused one');
sql(q{SELECT jobq.resume_schedule('nightly')});
is(sql(q{SELECT paused, paused_by, paused_at FROM jobq.schedules WHERE name = 'nightly'}), 'f||', 'and nobody when it goes on');
# A role that goes leaves its number.
sql(q{SELECT jobq.grant_queue('stop', 'bob', '{manage}'), jobq.resume_queue('stop')});
my $bob = sql(q{SELECT 'bob'::regrole::oid});
sql(q{SET ROLE bob; SELECT jobq.pause_queue('stop')});
sql(q{SELECT jobq.revoke_queue('stop', 'bob', '{manage}')});
sql(q{DROP ROLE bob});
queue_is('stop', 'paused', "Queue \"stop\" was paused by role \"$bob\" at /time/.", undef, 'by one that is gone');

# ---- limits of the queue ----

queue('active', '{"max_active": 2}');
put('active', 3);
take('active', 2);
my $id = sql(q{SELECT id FROM jobq.jobs WHERE queue = 'active' AND state = 'available'});
my $why = 'The limit is reached: 2 of 2 jobs run.';
job_is($id, 'max_active', $why, undef, 'max_active');
queue_is('active', 'max_active', $why, undef, 'max_active');

queue('rate', '{"rate_limit": {"limit": 3, "period": "300 s"}}');
put('rate', 4);
take('rate', 3);
$id = sql(q{SELECT id FROM jobq.jobs WHERE queue = 'rate' AND state = 'available'});
$why = 'The limit is reached: 3 of 3 jobs were delivered in 300 s; the next one may be at /time/.';
job_is($id, 'rate_limit', $why, 300, 'rate_limit');
queue_is('rate', 'rate_limit', $why, 300, 'rate_limit');

queue('broken', '{"circuit_breaker": {"failures": 2, "window": "60 s", "open": "200 s"}, "backoff": {"base": "1 h"}}');
put('broken', 3);
my @taken = take('broken', 2);
sql("SELECT jobq.fail($_, $taken[2])") foreach @taken[ 0, 1 ];
$id = sql(q{SELECT id FROM jobq.jobs WHERE queue = 'broken' AND state = 'available'});
$why = 'The circuit breaker is open: it lets one job through at /time/.';
job_is($id, 'circuit_breaker', $why, 200, 'open');
queue_is('broken', 'circuit_breaker', $why, 200, 'open');

queue('probe', '{"circuit_breaker": {"failures": 1, "window": "60 s", "open": "0.1 s"}, "backoff": {"base": "1 h"}}');
put('probe', 3);
@taken = take('probe', 1);
sql("SELECT jobq.fail($taken[0], $taken[1])");
ok(await(sub { sql(q{SELECT count(*) FROM jobq.dequeue('probe', 2)}) eq '1' }), 'the probe runs');
$id = sql(q{SELECT id FROM jobq.jobs WHERE queue = 'probe' AND state = 'available'});
$why = 'The circuit breaker is half-open, and the one job that it has let through is running.';
job_is($id, 'circuit_breaker', $why, undef, 'half-open');
queue_is('probe', 'circuit_breaker', $why, undef, 'half-open');

# ---- groups ----

sub in_group
{
	my ($queue, $n, $key) = @_;

	return put($queue, $n, qq{, group_key => '$key'});
}

queue('g', '{"group_limit": 1, "backoff": {"base": "1 h", "jitter": 0}}');
($first, $second) = in_group('g', 2, 'customer 7');
($ran, $lease) = take('g', 5);
job_is($second, 'group_limit',
	"Group \"customer 7\" is busy: 1 of 1 places are taken, the last one by job $first since /time/.", undef, 'busy');
queue_is('g', 'group_limit',
	'Of 1 groups with jobs that wait 1 are full, 0 are paused and 0 are at their rate.', undef, 'all busy');
is(sql(q{SELECT available, blocked, running, oldest_available_seconds FROM jobq.queue_stats WHERE queue = 'g'}), '0|1|1|',
	'a blocked job is not available, and none of those is the oldest');
is(sql(q{SELECT available, blocked, running, oldest_seconds > 0 FROM jobq.groups WHERE queue = 'g'}), '0|1|1|t',
	'view groups has it');
sql("SELECT jobq.fail($ran, $lease, 'no')");
job_is($second, 'group_limit',
	"Group \"customer 7\" is busy: 1 of 1 places are taken, the last one by job $first since /time/, which waits for another attempt.",
	undef, 'a place is kept');
job_is($first, 'retryable', '1 of 10 attempts have ended without success; the next one may begin at /time/.', 3600,
	'by this one');
in_group('g', 1, 'other');
queue_is('g', 'available', '1 jobs are available, and nothing keeps them.', undef, 'another group may go');
ok(sql(q{SELECT oldest_available_seconds < extract(epoch FROM clock_timestamp() - (SELECT run_at FROM jobq.job(} . $second
	. q{))) FROM jobq.queue_stats WHERE queue = 'g'}) eq 't', 'and is the oldest one');

# The same after a restart; who takes the place then is known, too.
queue('h', '{"group_limit": 2, "group_on_retry": "block"}');
my @jobs = in_group('h', 3, 'k');
take('h', 1);
my ($last) = take('h', 1);
$session->quit;
$node->restart;
await_keeper($node);
job_is($jobs[2], 'group_limit',
	"Group \"k\" is busy: 2 of 2 places are taken, the last one by job $last since /time/.", undef, 'busy after a restart');
job_is($second, 'group_limit',
	"Group \"customer 7\" is busy: 1 of 1 places are taken, the last one by job $first, which waits for another attempt.",
	undef, 'kept after a restart');

# Who may not see the other job is not told of it.
sql(q{CREATE ROLE eve; SELECT jobq.grant_queue('h', 'eve', '{enqueue}')});
my $eves = sql(q{SET ROLE eve; SELECT jobq.enqueue('h', group_key => 'k')});
is(sql("SET ROLE eve; SELECT detail FROM jobq.explain_job($eves)"), 'Group "k" is busy: 2 of 2 places are taken.',
	'not to be told');

# After the first alter_group() of a queue the keeper has something to load.
sub await_loaded
{
	my ($id) = @_;

	return ok(await(sub { sql("SELECT reason <> 'loading' FROM jobq.explain_job($id)") eq 't' }), 'groups are loaded');
}

queue('p', '{}');
foreach my $key (1 .. 3)
{
	sql(qq{SET ROLE ann; SELECT jobq.alter_group('p', 'p$key',
		jsonb_build_object('paused_until', clock_timestamp() + interval '$key h'))});
	in_group('p', 2, "p$key");
}
sql(q{SELECT jobq.alter_group('p', 'p1', '{"weight": 2}')});
$id = sql(q{SELECT min(id) FROM jobq.jobs WHERE group_key = 'p1'});
await_loaded($id);
job_is($id, 'group_paused', 'Group "p1" was paused by role "ann" at /time/, until /time/.', 3600, 'paused');
queue_is('p', 'group_paused', 'Of 3 groups with jobs that wait 0 are full, 3 are paused and 0 are at their rate.', 3600,
	'all paused');
sql(q{SELECT jobq.alter_group('p', 'r' || i, '{"rate_limit": {"limit": 2, "period": "100 s"}}') FROM generate_series(1, 2) i});
sql(q{SELECT jobq.alter_group('p', 'b', '{"limit": 1}')});
in_group('p', 3, $_) foreach qw(r1 r2 b);
is(sql(q{SELECT count(*) FROM jobq.dequeue('p', 20)}), 5, 'what may go goes');
$id = sql(q{SELECT max(id) FROM jobq.jobs WHERE group_key = 'r1'});
job_is($id, 'group_rate_limit', 'Group "r1" has had 2 of 2 deliveries in 100 s; the next one may be at /time/.', 100,
	'at its rate');
queue_is('p', 'group_paused', 'Of 6 groups with jobs that wait 1 are full, 3 are paused and 2 are at their rate.', 100,
	'this and that');
sql(q{SELECT jobq.alter_group('p', 'p' || i, '{"paused_until": null}') FROM generate_series(1, 3) i});
is(sql(q{SELECT count(*) FROM jobq.dequeue('p', 20)}), 6, 'what was paused goes');
queue_is('p', 'group_rate_limit', 'Of 3 groups with jobs that wait 1 are full, 0 are paused and 2 are at their rate.', 100,
	'most are at their rate');

# What the view says of a pause.
sql(q{SET ROLE ann; SELECT jobq.alter_group('p', 'b', jsonb_build_object('paused_until', clock_timestamp() + interval '1 h'))});
is(sql(q{SELECT available, blocked, running, paused_until > now(), paused_by, paused_at < clock_timestamp()
	FROM jobq.groups WHERE group_key = 'b'}), '0|2|1|t|ann|t', 'view groups says who has paused one');
is(sql(q{SELECT group_key, paused_until FROM jobq.groups WHERE group_key = 'r1'}), 'r1|', 'and nothing of others');
is(sql(q{SET ROLE watcher; SELECT available, blocked, running, paused_by FROM jobq.groups WHERE group_key = 'b'}), '0|2|1|ann',
	'a monitor sees groups');
is(sql(q{SET ROLE eve; SELECT group_key, available + blocked + running FROM jobq.groups}), 'k|1', 'others what they may');

# A group that has some of its rate left is not what keeps a job.
queue('some', '{"group_rate_limit": {"limit": 2, "period": "100 s"}}');
@jobs = in_group('some', 2, 'k');
take('some', 1);
is(sql("SELECT reason, until IS NULL FROM jobq.explain_job($jobs[1])"), 'next|t', 'one more may go');

# A job that waits for another attempt has no place where groups skip it.
queue('skips', '{"group_limit": 2, "backoff": {"base": "1 h"}}');
sql(q{SELECT jobq.alter_group('skips', 'other', '{"limit": 1}')});
@jobs = in_group('skips', 4, 'k');
await_loaded($jobs[3]);
@taken = take('skips', 1);
sql("SELECT jobq.fail($taken[0], $taken[1])");
take('skips', 2);
job_is($jobs[3], 'group_limit',
	"Group \"k\" is busy: 2 of 2 places are taken, the last one by job $jobs[2] since /time/.", undef, 'two of two');

# Nor is it named as the one that has the last place, when there are fewer.
queue('fewer', '{"group_limit": 2, "group_on_retry": "skip"}');
@jobs = in_group('fewer', 3, 'k');
take('fewer', 1);
@taken = take('fewer', 1);
sql("SELECT jobq.fail($taken[0], $taken[1], retry_in => '0')");
sql(q{SELECT jobq.alter_queue('fewer', '{"group_limit": 1}')});
job_is($jobs[2], 'group_limit', 'Group "k" is busy: 1 of 1 places are taken.', undef, 'none that has no place');

# ---- many groups that may not go do not hide the one that may ----

queue('many', '{}');
sql(q{SELECT jobq.alter_group('many', 'g' || i, jsonb_build_object('paused_until', clock_timestamp() + interval '1 h'))
	FROM generate_series(1, 150) i});
sql(q{SELECT jobq.enqueue('many', group_key => 'g' || i) FROM generate_series(1, 150) i});
await_loaded(put('many', 1, q{, priority => 5}));
is(sql(q{CALL jobq.wait_for_jobs('many', '0')}), 't', 'there is a job behind 150 groups that are paused');
queue_is('many', 'available', '151 jobs are available, and nothing keeps them.', undef, 'behind many');
take('many', 1);
queue_is('many', 'group_paused', 'Of 150 groups with jobs that wait 0 are full, 150 are paused and 0 are at their rate.', 3600,
	'then all are');

# ---- a group that has no job, but a rate, does not wait in vain ----

queue('again', '{"group_rate_limit": {"limit": 2, "period": "1 h"}}');
in_group('again', 1, 'x');
@taken = take('again', 1);
sql("SELECT jobq.complete($taken[0], $taken[1])");
($first) = in_group('again', 1, 'x');
is(sql(q{SELECT id FROM jobq.dequeue('again')}), $first, 'the second of two is delivered, though the first is done');

# ---- the oldest, where groups count ----

queue('old', '{"group_limit": 1}');
($first) = in_group('old', 1, 'busy');
take('old', 1);
in_group('old', 1, 'busy');
put('old', 1, q{, group_key => 'mixed', priority => 50});
sql('SELECT pg_sleep(0.3)');
put('old', 1, qq{, group_key => 'mixed', priority => $_}) foreach (0, 10);
put('old', 1);
is(sql(q{SELECT abs(s.oldest_available_seconds - extract(epoch FROM clock_timestamp() - j.run_at)) < 0.2
	FROM jobq.queue_stats s, jobq.jobs j WHERE s.queue = 'old' AND j.queue = 'old' AND j.priority = 50}), 't',
	'it is not the blocked one, and may be of any priority');
is(sql(q{SELECT audit.check_dispatch()}), '', 'memory is sound');

# ---- the keeper is to load something first ----

queue('load', '{}');
($first) = in_group('load', 2, 'x');
sql(q{SELECT public.pause_at('groups-after-snapshot')});
sql(q{SELECT jobq.alter_queue('load', '{"group_limit": 1}')});
$why = 'The keeper is still loading what decides about the groups of queue "load".';
job_is($first, 'loading', $why, undef, 'loading');
ok(await(sub { sql('SELECT public.paused()') eq '1' }), 'the keeper is at it');
queue_is('load', 'loading', $why, undef, 'loading');
sql(q{SELECT public.pause_at('')});
ok(await(sub { sql(q{SELECT reason FROM jobq.explain_queue('load')}) eq 'available' }), 'it goes on');

# ---- on disk ----

queue('deep', '{"max_batch": 10000}');
sql(q{SELECT cardinality(jobq.enqueue_many('deep', array_fill('1'::jsonb, ARRAY[3000])))});
$id = sql(q{SELECT max(id) FROM jobq.jobs WHERE queue = 'deep'});
like(sql("SELECT reason || ' ' || detail FROM jobq.explain_job($id)"),
	qr/^spilled The job waits on disk, behind (\d+) jobs of the queue that are in memory: its position is (\d+) or later\.$/, 'spilled');
my ($behind, $position) = sql("SELECT detail FROM jobq.explain_job($id)") =~ /behind (\d+) .* is (\d+)/;
is($position, $behind + 1, 'at its position');
$session = $node->background_psql('postgres', on_error_stop => 1);
$xid = $session->query_safe("BEGIN; SELECT jobq.purge_queue('deep') \\gset x_\nSELECT pg_current_xact_id()");
queue_is('deep', 'busy', "Transaction $xid is ending jobs of the queue that are on disk; 3000 wait for its end.", undef,
	'all are being ended');
$session->query_safe('ROLLBACK');
$session->quit;
ok(await(sub { sql(q{SELECT reason FROM jobq.explain_queue('deep')}) eq 'available' }), 'and are not');
sql(q{SELECT public.pause_at('after-refill-snapshot')});
$why = 'available';
ok( await(
		sub {
			sql(q{SELECT count(*) FROM jobq.dequeue('deep', 3000)}) if $why =~ /^available/;
			$why = sql(q{SELECT reason || ' ' || detail FROM jobq.explain_queue('deep')});
			return $why =~ /^spilled All \d+ jobs that could be taken are on disk\.$/;
		},
		20),
	'all on disk') or diag($why);
sql(q{SELECT public.pause_at('')});
sql(q{SELECT jobq.drop_queue('deep', true)});

queue('fat', '{"group_limit": 1}');
sql(q{SELECT jobq.enqueue('fat', group_key => 'thin ' || i) FROM generate_series(1, 5) i});
sql(q{SELECT jobq.enqueue('fat', group_key => 'fat') FROM generate_series(1, 3000)});
$id = sql(q{SELECT max(id) FROM jobq.jobs WHERE queue = 'fat'});
my $found = '';
ok( await(
		sub {
			sql(q{SELECT jobq.run_maintenance()});
			$found = sql("SELECT reason || ' ' || detail FROM jobq.explain_job($id)");
			return $found =~
			  /^spilled The job waits on disk, behind (\d+) jobs of group "fat" that are in memory: its position in the group is (\d+) or later\.$/
			  && $2 == $1 + 1;
		},
		20),
	'behind its group') or diag($found);
sql(q{SELECT count(*) FROM jobq.dequeue('fat', 10)});
like(sql("SELECT detail FROM jobq.explain_job($id)"), qr/^Group "fat" is busy: 1 of 1 places/, 'but its group decides');
queue_is('fat', 'group_limit', 'Of 1 groups with jobs that wait 1 are full, 0 are paused and 0 are at their rate.', undef,
	'and of the queue, too');
sql(q{SELECT jobq.drop_queue('fat', true)});

# ---- more runs than memory holds ----

put('active', 1);
queue('runs', '{"max_batch": 10000}');
sql(q{SELECT cardinality(jobq.enqueue_many('runs', array_fill('1'::jsonb, ARRAY[400])));
	SELECT count(*) FROM jobq.dequeue('runs', 400, lease_for => '1 hour')});
$id = sql(q{SELECT max(id) FROM jobq.jobs WHERE queue = 'active'});
$node->append_conf('postgresql.conf', 'jobq.max_live_jobs = 100');
$node->restart;
ok(await(sub { sqlstate($node, "SELECT * FROM jobq.explain_job($id)") eq '00000' }, 30), 'the server is up');
$why = 'Running jobs have found no place in memory, so what runs is not known.';
job_is($id, 'lost_leases', $why, undef, 'not known');
queue_is('active', 'lost_leases', $why, undef, 'not known');

# ---- a copy ----

$node->append_conf('postgresql.conf', "jobq.max_live_jobs = 1000\njobq.start_paused = on");
$node->restart;
await_keeper($node);
$why = 'This database was restored, copied or upgraded, or jobq.start_paused is on: nothing runs in it.';
job_is($id, 'copy', $why, undef, 'a copy');
queue_is('active', 'copy', $why, undef, 'a copy');

$node->stop;
done_testing();
