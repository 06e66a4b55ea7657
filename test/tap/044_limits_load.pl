# Sixteen sessions against each limit: they complete, fail, release, roll back,
# let leases expire, cancel. Nobody may ever see more than a limit allows, and in
# the end all that it allows must be there.
#
# JOBQ_SECONDS: how long each case takes.
use strict;
use warnings;

use JobqTest;
use LimitLoad;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $SECONDS = $ENV{JOBQ_SECONDS} || 2;
my $JOBS = 1000 * $SECONDS;
my $node = start_limits('load');

# ---- max_active ----

create('active', '"max_active": 5', $JOBS * 4);
load($SECONDS, "CALL work('active');");
my $most = most_running('active');
cmp_ok($most, '<=', 5, 'never more than max_active run');
cmp_ok($most, '>', 1, 'and more than one');
ok(await_idle('active'), 'all places are given back');
is(take('active'), 5, 'and can be had');

# ---- rate_limit ----

create('rate', '"rate_limit": {"limit": 20, "period": "500 ms"}', $JOBS);
load($SECONDS, "CALL work('rate');");
is(too_fast('rate', 20, '500 ms'), '0|t', 'never more in a period than the rate');
cmp_ok(sql(q{SELECT count(*) FROM ran WHERE queue = 'rate'}), '>=',
	20 * ($SECONDS * 2 - 2) * 0.8, 'and about as many as it allows');
ok(await_idle('rate'), 'all is quiet');
usleep(500_000);
is(take('rate'), 20, 'then a whole rate is to be had');

# ---- circuit_breaker ----

create('breaker',
	'"circuit_breaker": {"failures": 5, "window": "200 ms", "open": "200 ms"}',
	$JOBS * 2);
load($SECONDS, "CALL work('breaker');");
is(false_probes('breaker', '200 ms'), '0|0|t',
	'each probe is alone, and nothing comes while the breaker is open');
ok(await_idle('breaker'), 'all is quiet');
ok(await(sub { take('breaker') > 0 }, 10), 'it does not stay open');

# ---- enqueue_limit ----

create('slowly', '"enqueue_limit": {"limit": 30, "period": "300 ms", "per": "group"}', 1);
load($SECONDS, "CALL produce('slowly');");
is(sql(q{SELECT count(*) FILTER (WHERE later - at <= '300 ms'), count(*) > 100 FROM
	(SELECT enqueued_at AS at, lead(enqueued_at, 30) OVER
		(PARTITION BY group_key ORDER BY enqueued_at) AS later
	 FROM jobq.jobs WHERE queue = 'slowly') x}), '0|t',
	'no group enqueues faster than it may');

audit_ok($node, 'at the end');
done_testing();
