# Schedules and their surroundings: a role that may not enqueue any more, or is
# gone; a queue that is dropped; nothing to do costs nothing; many at the same
# moment; a dump takes them along, and its copy does not tick before adopt().
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $IDLE = 3;					# seconds
my $MANY = 250;

my $node = start_node('schedules');
$node->safe_psql('postgres', q{
CREATE DATABASE src;
CREATE ROLE app; CREATE ROLE leaver});
$node->safe_psql('src', q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('q', '{"max_attempts": 3}');
SELECT jobq.grant_queue('q', 'app', '{enqueue}');
SELECT jobq.grant_queue('q', 'leaver', '{enqueue}')});
await_keeper($node, 'src');

sub src
{
	return $node->safe_psql('src', $_[0]);
}

sub seen
{
	my ($query, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('src', $query), $name);
}

sub count_jobs
{
	my ($name, $database) = @_;

	return $node->safe_psql($database // 'src', qq{SELECT count(*) FROM jobq.jobs
		WHERE headers->'schedule'->>'name' = '$name'});
}

sub awaits_jobs
{
	my ($name, $more, $what) = @_;
	my $before = count_jobs($name);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(await(sub { count_jobs($name) >= $before + $more }, 30), $what);
}

# ---- who may ----

src(q{SET ROLE app; SELECT jobq.schedule('mine', '* * * * * *', 'q', headers => '{"h": 1}')});
src(q{SET ROLE leaver; SELECT jobq.schedule('left', '* * * * * *', 'q')});
awaits_jobs('mine', 2, 'a schedule ticks');
is(src(q{SELECT DISTINCT enqueued_by, max_attempts, headers->'h' FROM jobq.jobs
		WHERE headers->'schedule'->>'name' = 'mine'}),
	'app|3|1', 'its jobs are enqueued by the role that made it');
src(q{SELECT jobq.revoke_queue('q', 'app', '{enqueue}')});
seen(q{SELECT misses >= 2 AND last_miss_reason = 'permission denied for queue "q"'
		AND last_miss > last_run FROM jobq.schedules WHERE name = 'mine'},
	'without the privilege its ticks are misses');
my $before = count_jobs('mine');
awaits_jobs('left', 2, 'others go on');
is(count_jobs('mine'), $before, 'and enqueue nothing');
unlike(slurp_file($node->logfile), qr/ERROR/, 'the log is not filled with it');
src(q{SELECT jobq.grant_queue('q', 'app', '{enqueue}')});
awaits_jobs('mine', 2, 'with the privilege later ticks have their jobs');
src(q{SELECT jobq.revoke_queue('q', 'leaver', '{enqueue}')});
$node->safe_psql('postgres', 'DROP ROLE leaver');
seen(q{SELECT misses >= 1 AND owner ~ '^[0-9]+$'
		AND last_miss_reason = 'the owner of schedule "left" does not exist'
		FROM jobq.schedules WHERE name = 'left'},
	'a role that is gone enqueues nothing');
src(q{SELECT jobq.unschedule('left')});

# a job that the queue has become too narrow for
src(q{SELECT jobq.schedule('wide', '* * * * * *', 'q', '"12345678"')});
awaits_jobs('wide', 1, 'a payload that fits');
src(q{SELECT jobq.alter_queue('q', '{"max_payload_bytes": 15}')});
seen(q{SELECT misses >= 1 AND last_miss_reason = 'the payload of schedule "wide" is too large for queue "q"'
		FROM jobq.schedules WHERE name = 'wide'},
	'what has become too large is a miss');
src(q{SELECT jobq.unschedule('wide')});
src(q{SELECT jobq.alter_queue('q', '{"max_payload_bytes": null}')});

# ---- pausing ----

src(q{SET ROLE app; SELECT jobq.pause_schedule('mine')});
src(q{SELECT jobq.schedule('clock', '* * * * * *')});
$before = count_jobs('mine');
my $misses = src(q{SELECT misses FROM jobq.schedules WHERE name = 'mine'});
awaits_jobs('clock', 3, 'time passes');
is(count_jobs('mine'), $before, 'a paused schedule has no ticks');
src(q{SELECT jobq.resume_schedule('mine')});
awaits_jobs('mine', 1, 'a resumed one has');
is( src(q{SELECT count(*) FROM (SELECT run_at - lag(run_at) OVER (ORDER BY run_at) AS pause
		FROM jobq.jobs WHERE headers->'schedule'->>'name' = 'mine'
		AND run_at > (SELECT max(run_at) - interval '9 s' FROM jobq.jobs)) p
		WHERE pause > '2.5 s'}) . ' ' . src(q{SELECT misses FROM jobq.schedules WHERE name = 'mine'}),
	"1 $misses", 'those in between are neither made up for nor counted');

# ---- what lasts only a moment ----

my $clock = q{SELECT count(*) = extract(epoch FROM max(run_at) - min(run_at)) + 1
	FROM jobq.jobs WHERE headers->'schedule'->>'name' = 'clock'};
my $holder = $node->background_psql('src');
my $epoch = src('SELECT max(epoch) FROM jobq.epoch');
$holder->query_safe("BEGIN; LOCK TABLE jobq.job_$epoch IN SHARE MODE");
ok(await(sub { slurp_file($node->logfile) =~ /ERROR:  canceling statement due to lock timeout/ }, 30),
	'the keeper cannot enqueue');
$holder->query_safe('ROLLBACK');
$holder->quit;
awaits_jobs('clock', 3, 'a moment later it can');
is(src($clock), 't', 'no tick is missing');
is(src(q{SELECT misses FROM jobq.schedules WHERE name = 'clock'}), '0', 'or counted as a miss');

# ---- a very long time without ticks ----

src(q{SELECT jobq.schedule('ancient', '* * * * * *', 'q', catch_up => 'one')});
src(q{UPDATE jobq.schedule SET last_tick = '2001-01-01' WHERE name = 'ancient';
	SELECT jobq.schedule('news', '@yearly', 'q')});
seen(q{SELECT misses BETWEEN 1900000 AND 2000000 AND last_run > now() - interval '30 s'
		FROM jobq.schedules WHERE name = 'ancient'},
	'of a very long time only a part is looked at');
is( src(q{SELECT count(*) BETWEEN 3 AND 120, count(*) =
		extract(epoch FROM max(run_at) - min(run_at)) + 1
		FROM jobq.jobs WHERE headers->'schedule'->>'name' = 'ancient'}),
	't|t', 'what is not late, and one tick before it, have jobs');
src(q{SELECT jobq.unschedule('ancient'), jobq.unschedule('news')});

# ---- not in a prepared transaction ----

is( sqlstate($node, qq{BEGIN; SELECT jobq.$_; PREPARE TRANSACTION 'p'}, 'src'),
	'0A000', "$_ cannot be prepared")
  foreach "schedule('p', '\@daily', 'q')", "pause_schedule('clock')",
  "resume_schedule('clock')", "unschedule('clock')", "run_schedule('mine')";

# ---- a queue that goes ----

is(sqlstate($node, q{SELECT jobq.drop_queue('default')}, 'src'), '2BP01',
	'a queue is not dropped under a schedule');
src(q{SELECT jobq.drop_queue('default', true)});
is(src(q{SELECT name FROM jobq.schedules}), 'mine', 'unless by force');

# ---- many at once ----

src(qq{SELECT jobq.schedule('many ' || i, to_char(now() at time zone 'utc' + interval '3 s',
		'SS MI HH24 DD MM "*"'), 'q') FROM generate_series(1, $MANY) i});
seen(qq{SELECT count(*) = $MANY AND count(DISTINCT headers->'schedule'->>'name') = $MANY
		AND count(DISTINCT run_at) = 1
		FROM jobq.jobs WHERE headers->'schedule'->>'name' LIKE 'many %'},
	"$MANY schedules tick in the same second");
cmp_ok(src(q{SELECT extract(epoch FROM max(enqueued_at - run_at)) FROM jobq.jobs
		WHERE headers->'schedule'->>'name' LIKE 'many %'}),
	'<', 5, 'soon');
src(q{SELECT count(jobq.unschedule(name)) FROM jobq.schedules WHERE name LIKE 'many %'});

# ---- nothing to do ----

src(q{SELECT jobq.pause_schedule('mine'); SELECT jobq.schedule('rare', '@yearly', 'q')});
my $work = q{SELECT state_change FROM pg_stat_activity
	WHERE datname = 'src' AND backend_type = 'pg_jobq keeper' AND state = 'idle'};
my ($last, $since) = ('', 0);
ok( await(
		sub {
			my $now = src("$work UNION ALL SELECT now()");
			my ($changed) = split(/\n/, $now);

			$since = $changed eq $last ? $since + 1 : 0;
			$last = $changed;
			sleep(0.1);
			return $since >= $IDLE * 10;
		},
		30),
	"a schedule that is not due costs nothing for $IDLE seconds");

# ---- a dump ----

src(q{SELECT jobq.resume_schedule('mine')});
awaits_jobs('mine', 1, 'a schedule that ticks is dumped');
my $dump = $node->basedir . '/src.dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'src' ], 'dumped');
src(q{SELECT jobq.pause_schedule('mine')});
$node->safe_psql('postgres', 'CREATE DATABASE dst');
$node->command_ok([ 'pg_restore', '-d', 'dst', '--exit-on-error', $dump ], 'restored');
await_keeper($node, 'dst');
is( $node->safe_psql('dst', q{SELECT string_agg(name || ' ' || owner || ' ' || cron, ', ' ORDER BY name)
		FROM jobq.schedules}),
	'mine app * * * * * *, rare postgres @yearly', 'the copy has the schedules');
my $mark = 'SELECT md5(string_agg(s::text, $$ $$)) FROM jobq.schedule s';
my $rows = $node->safe_psql('dst', $mark);
$node->safe_psql('dst', q{SELECT jobq.schedule('early', '* * * * * *', 'q');
	SELECT jobq.unschedule('early')});
sleep(2.5);
is($node->safe_psql('dst', $mark), $rows, 'but they do not tick there');
$node->safe_psql('dst', 'SELECT jobq.adopt()');
await_keeper($node, 'dst');
$before = count_jobs('mine', 'dst');
ok(await(sub { count_jobs('mine', 'dst') >= $before + 2 }, 30), 'until it is adopted');
is( $node->safe_psql('dst', q{SELECT count(DISTINCT run_at) = count(*) FROM jobq.jobs
		WHERE headers->'schedule'->>'name' = 'mine'}),
	't', 'and then each tick has one job');
$node->safe_psql('dst', q{SELECT jobq.schedule('new', '@daily', 'q')});

$node->stop;
done_testing();
