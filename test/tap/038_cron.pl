# One job a tick, whatever happens: over a restart, as catch_up says; over
# crashes before and after the keeper's commit; over a promotion; while somebody
# has the schedule's row in hand; and with a clock that is behind.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $CRASHES = $ENV{JOBQ_CRON_CRASHES} // 2;
my $DOWN = 6.5;					# seconds without a server: more than five ticks

my $node = start_node('cron', undef, allows_streaming => 1);
$node->safe_psql('postgres', 'CREATE EXTENSION pg_jobq');
add_auditor($node);
test_functions($node);
await_keeper($node);

sub schedule
{
	my ($name, $arguments) = @_;

	$node->safe_psql('postgres', "SELECT jobq.schedule('$name', '* * * * * *', $arguments)");
	return;
}

# The ticks that a schedule's jobs are of, as seconds.
sub ticks
{
	my ($on, $name) = @_;

	return split(/\n/, $on->safe_psql('postgres', qq{
		SELECT extract(epoch FROM (headers->'schedule'->>'tick')::timestamptz)::bigint
		FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j
		WHERE headers->'schedule'->>'name' = '$name' ORDER BY 1}));
}

sub misses
{
	my ($name) = @_;

	return $node->safe_psql('postgres',
		"SELECT misses FROM jobq.schedules WHERE name = '$name'");
}

# Wait until all of them have had so many more ticks.
sub await_ticks
{
	my ($on, $more, @names) = @_;

	foreach my $name (@names)
	{
		my $before = ticks($on, $name);

		await(sub { ticks($on, $name) >= $before + $more }, 30)
		  or die "schedule $name does not tick";
	}
	return;
}

# Each second from the first to the last, and each once.
sub is_complete
{
	my ($name, @ticks) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is("@ticks", join(' ', $ticks[0] .. $ticks[-1]), $name);
}

# ---- a restart ----

# One of each catch_up.
sub make_schedules
{
	my ($suffix) = @_;

	schedule("skip$suffix", q{payload => '"s"'});
	schedule("one$suffix", q{catch_up => 'one'});
	schedule("all$suffix", q{catch_up => 'all', kind => 'k', priority => 5});
	schedule("three$suffix", q{catch_up => 'all', catch_up_max => 3});
	await_ticks($node, 2, map { "$_$suffix" } qw(skip one all three));
	return;
}

make_schedules('');
is( $node->safe_psql('postgres', q{SELECT DISTINCT kind, priority, payload, enqueued_by,
		queue, run_at = (headers->'schedule'->>'tick')::timestamptz,
		enqueued_at - run_at BETWEEN '0' AND '10 s'
		FROM jobq.jobs WHERE headers->'schedule'->>'name' = 'all'}),
	'k|5|{}|postgres|default|t|t', 'a tick\'s job is what the schedule says');
ok($node->poll_query_until('postgres', q{SELECT l.last_job = j.id AND l.last_run = j.run_at
	FROM (SELECT last_job, last_run FROM jobq.schedules WHERE name = 'all') l, jobq.jobs j
	WHERE j.id = l.last_job}),
	'the schedule names its last job');

# What schedules have of the ticks that were missed.
sub made_up
{
	my ($ticks, $missed, $name) = @_;
	my %missed = map { $_ => 1 } @$missed;
	my @others = grep { !$missed{$_} } @{ $ticks->{$name} };

	is("@others", "@{ $ticks->{skip} }", "$name: every other tick has one job");
	return join(' ', grep { $missed{$_} } @{ $ticks->{$name} });
}

# The server stops and is down for some ticks; then each schedule does as its
# catch_up says.
sub miss_ticks
{
	my ($suffix, $stop) = @_;
	my @names = qw(skip one all three);

	$stop->();
	my $until = time() + $DOWN;
	sleep($until - time()) while time() < $until;
	$node->start;
	await_keeper($node);
	await_ticks($node, 2, map { "$_$suffix" } @names);

	# Up to a tick that all have had; those that skip has not are the missed ones.
	my %ticks = map { $_ => [ ticks($node, "$_$suffix") ] } reverse @names;
	my ($from) = sort { $b <=> $a } map { $_->[0] } values %ticks;
	my ($to) = sort { $a <=> $b } map { $_->[-1] } values %ticks;
	@$_ = grep { $_ >= $from && $_ <= $to } @$_ foreach values %ticks;
	is_complete('catch_up all: no tick is missing', @{ $ticks{all} });
	my %seen = map { $_ => 1 } @{ $ticks{skip} };
	my @missed = grep { !$seen{$_} } @{ $ticks{all} };
	cmp_ok(scalar @missed, '>=', 5, 'the server was down for five ticks');
	is_complete('catch_up skip: those are missing, no others', @missed);
	is(made_up(\%ticks, \@missed, 'one'), $missed[-1], 'catch_up one: the last of them');
	is(made_up(\%ticks, \@missed, 'three'), "@missed[-3 .. -1]", 'catch_up_max: the last three');
	is(misses("skip$suffix"), scalar @missed, 'skip counts them');
	is(misses("one$suffix"), @missed - 1, 'one counts all but one');
	is(misses("all$suffix"), 0, 'all counts none');
	is(misses("three$suffix"), @missed - 3, 'catch_up_max leaves the others');
	is( $node->safe_psql('postgres', qq{SELECT extract(epoch FROM last_miss)::bigint,
			last_miss_reason FROM jobq.schedules WHERE name = 'three$suffix'}),
		"$missed[-4]|it was not run in time, and the schedule's catch_up leaves it out",
		'the last miss is told');
	return;
}

miss_ticks('', sub { $node->stop });

# The same when it crashes.
make_schedules(' crash');
miss_ticks(' crash', sub { kill_server($node) });
$node->safe_psql('postgres', q{SELECT jobq.unschedule(name) FROM jobq.schedules WHERE name LIKE '% crash'});

# ---- a row in somebody's hands ----

my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT jobq.pause_schedule('all')});
await_ticks($node, 3, 'skip');
is( $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'pg_jobq keeper' AND wait_event_type = 'Lock'}),
	'0', 'the keeper waits for nobody\'s row');
$holder->query_safe('ROLLBACK');
$holder->quit;
await_ticks($node, 2, 'all');
is_complete('after a rollback its ticks are all there', ticks($node, 'all'));

# ---- a clock that is behind ----

$node->safe_psql('postgres', q{
UPDATE jobq.schedule SET last_tick = last_tick + interval '1 h' WHERE name = 'one';
SELECT jobq.unschedule('three')});
my $before = ticks($node, 'one');
my $three = ticks($node, 'three');
await_ticks($node, 3, 'skip');
is(ticks($node, 'one'), $before, 'ticks up to the last one are not repeated');
is(ticks($node, 'three'), $three, 'an unscheduled one has none');
cmp_ok(
	$node->safe_psql('postgres', q{SELECT extract(epoch FROM next_run - now())
		FROM jobq.schedules WHERE name = 'one'}),
	'>', 3000, 'the next one comes after it');

# ---- crashes ----

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);

$node->safe_psql('postgres', q{SELECT pause_at('before-keeper-commit')});
ok($node->poll_query_until('postgres', 'SELECT paused() = 1'),
	'the keeper is about to commit a tick');
kill_server($node, children => 1);
$node->start;
await_keeper($node);
await_ticks($node, 2, 'all');
is_complete('a crash before the commit: one job a tick', ticks($node, 'all'));
foreach my $crash (1 .. $CRASHES)
{
	sleep(rand(1.2));
	kill_server($node);
	$node->start;
	await_keeper($node);
	await_ticks($node, 1, 'all');
}
is_complete("$CRASHES crashes at any time: one job a tick", ticks($node, 'all'));
$node->safe_psql('postgres', 'SELECT jobq.unschedule(name) FROM jobq.schedules');
$node->safe_psql('postgres', q{INSERT INTO audit.ledger SELECT id
	FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j});
audit_ok($node, 'after the crashes');

# ---- a promotion ----

schedule('moved', q{catch_up => 'all'});
await_ticks($node, 1, 'moved');
$standby->start;
$node->wait_for_catchup($standby);
is( $standby->safe_psql('postgres',
		q{SELECT next_run > last_run FROM jobq.schedules WHERE name = 'moved'}),
	't', 'a standby shows when the next run is');
kill_server($node);
$standby->promote;
await_keeper($standby);
await_ticks($standby, 2, 'moved');
is_complete('a promotion: one job a tick', ticks($standby, 'moved'));

$standby->stop;
done_testing();
