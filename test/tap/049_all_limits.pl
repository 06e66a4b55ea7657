# A queue with all limits at once, sixteen sessions that do everything there is to
# do with its jobs, a kill -9 while they are at it: each limit holds by what the
# tables and the sessions have recorded, no job is lost, and all that the limits
# allow can be used in the end.
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

my $SECONDS = $ENV{JOBQ_SECONDS} || 3;
my $ACTIVE = 6;
my $DEPTH = 60;
my $node = start_limits('all');

create('all', qq{"max_active": $ACTIVE, "rate_limit": {"limit": 90, "period": "500 ms"},
	"group_limit": 3, "group_rate_limit": {"limit": 30, "period": "400 ms"},
	"circuit_breaker": {"failures": 10, "window": "200 ms", "open": "50 ms"},
	"max_depth": $DEPTH, "enqueue_limit": {"limit": 40, "period": "100 ms", "per": "group"}}, 30, 3);

my @everything = map { "CALL $_('all');" } ('produce', 'produce', 'work', 'work', 'work', 'purge');

sub all_hold
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(await_idle('all'), "$name: all is quiet");
	my $most = most_running('all');
	cmp_ok($most, '<=', $ACTIVE, "$name: max_active");
	cmp_ok($most, '>', 2, "$name: and there were some");
	cmp_ok(most_running('all', 'group_key'), '<=', 3, "$name: group_limit");
	is(too_fast('all', 90, '500 ms'), '0|t', "$name: rate_limit");
	is(too_fast('all', 30, '400 ms', 'group_key IS NOT NULL'), '0|t', "$name: group_rate_limit");
	like(false_probes('all', '50 ms'), qr/^0\|0\|/, "$name: circuit_breaker");
	# what ran at the crash in open transactions waits again
	cmp_ok(most_waiting('all'), '<=', $DEPTH + $ACTIVE, "$name: max_depth");
	is(sql(q{SELECT count(*) FROM (SELECT enqueued_at AS at, lead(enqueued_at, 40) OVER
			(PARTITION BY group_key ORDER BY enqueued_at) AS later
		FROM (SELECT enqueued_at, group_key FROM jobq.jobs WHERE queue = 'all'
			UNION ALL SELECT enqueued_at, group_key FROM jobq.history WHERE queue = 'all') j) x
		WHERE later - at <= '100 ms'}), 0, "$name: enqueue_limit");
	audit_ok($node, $name);
	return;
}

load($SECONDS, @everything);
all_hold('before the crash');
load_and_crash($SECONDS, @everything);
load($SECONDS, @everything);
all_hold('over the crash');

# ---- all of it can be used again ----

sub empty
{
	sql(q{SELECT jobq.cancel(id) FROM jobq.jobs WHERE queue = 'all'});
	usleep(600_000);
	return;
}

# How many are to be had of each group.
sub groups_to_be_had
{
	return sql(q{SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n
		FROM jobq.dequeue('all', 1000) GROUP BY group_key ORDER BY 1) x});
}

empty();
fill('all', $DEPTH, 3);
is(sqlstate($node, q{SELECT jobq.enqueue('all')}), 'JQ006', 'the whole depth, and no more');
empty();
is(sqlstate($node, q{INSERT INTO audit.ledger SELECT unnest(jobq.enqueue_many('all',
		array_fill('{}'::jsonb, ARRAY[40]), group_key => 'g0'));
	SELECT jobq.enqueue('all', group_key => 'g0')}), 'JQ005', 'no more than the rate of enqueuing');
is(sql(q{SELECT available + blocked FROM jobq.queue_stats WHERE queue = 'all'}), 40, 'but all of it');
usleep(150_000);
fill('all', 20, 2);
sql(q{SELECT jobq.alter_queue('all', '{"circuit_breaker": null}')});
is(groups_to_be_had(), '3 3', 'all places, of each group and of the queue');
empty();
sql(q{SELECT jobq.alter_queue('all', '{"max_active": null, "group_limit": null,
	"max_depth": null, "enqueue_limit": null}')});
fill('all', 300, 3);
is(groups_to_be_had(), '30 30 30', 'the whole rates, of each group and of the queue');
empty();

audit_ok($node, 'at the end');
done_testing();
