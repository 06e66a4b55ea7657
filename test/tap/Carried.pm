# Carried.pm: queues that have something to remember besides jobs: limits that
# are reached, groups of their own, an open breaker, unique keys, a drain,
# schedules; and whether a copy remembers it. For the tests of dump and upgrade.
package Carried;

use strict;
use warnings;

use Exporter qw(import);
use JobqTest;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(make_carried carried_ok $CARRIED_SETTINGS $CARRIED_MINUTES);

# Nothing of them can be taken, whatever waits there.
my %keeps = (
	'c active' => 'max_active',
	'c rate' => 'rate_limit',
	'c groups' => 'group_limit',
	'c breaker' => 'circuit_breaker');

sub make_carried
{
	my ($node, $database) = @_;

	$node->safe_psql($database, q{
SELECT jobq.create_queue('c active', '{"max_active": 2, "lease_for": "1 hour"}');
SELECT jobq.enqueue('c active') FROM generate_series(1, 4);
SELECT count(*) FROM jobq.dequeue('c active', 10);

SELECT jobq.create_queue('c rate', '{"rate_limit": {"limit": 2, "period": "1 h"}, "lease_for": "1 hour"}');
SELECT jobq.enqueue('c rate') FROM generate_series(1, 3);
SELECT jobq.complete(id, lease) FROM jobq.dequeue('c rate');
SELECT count(*) FROM jobq.dequeue('c rate', 10);

SELECT jobq.create_queue('c groups', '{"group_limit": 2, "lease_for": "1 hour"}');
SELECT jobq.alter_group('c groups', 'one', '{"limit": 1}'),
	jobq.alter_group('c groups', 'slow', '{"rate_limit": {"limit": 1, "period": "1 h"}, "weight": 3}'),
	jobq.alter_group('c groups', 'stopped', '{"paused_until": "2999-01-01T00:00:00Z"}');
SELECT jobq.enqueue('c groups', group_key => k)
	FROM unnest('{one,one,two,two,two,slow,slow,stopped}'::text[]) k;
SELECT count(*) FROM jobq.dequeue('c groups', 10, worker => 'grouped');
SELECT jobq.complete(j.id, a.lease) FROM jobq.jobs j, jobq.attempts(j.id) a
	WHERE j.group_key = 'slow' AND j.state = 'running';

SELECT jobq.create_queue('c breaker', '{"backoff": {"base": "1 h"},
	"circuit_breaker": {"failures": 2, "window": "1 h", "open": "1 h"}}');
SELECT jobq.enqueue('c breaker') FROM generate_series(1, 3);
SELECT jobq.fail(id, lease) FROM jobq.dequeue('c breaker', 2);

SELECT jobq.create_queue('c keys');
SELECT jobq.enqueue('c keys', unique_key => 'free'),
	jobq.enqueue('c keys', unique_key => 'held', unique_for => '1 day');
SELECT jobq.complete(id, lease) FROM jobq.dequeue('c keys', 2);
SELECT jobq.enqueue('c keys', unique_key => 'live');

SELECT jobq.create_queue('c drained');
SELECT jobq.enqueue('c drained');
SELECT jobq.drain_queue('c drained');

SELECT jobq.schedule('paused', '@yearly', 'c keys', catch_up => 'all', catch_up_max => 7),
	jobq.pause_schedule('paused'),
	jobq.schedule('other', '30 2 29 2 *', 'c active', '[1]', 'Europe/Berlin', 'one', kind => 'k',
		priority => 7, max_attempts => 3, group_key => 'g', headers => '{"h": 1}')});
	is($node->safe_psql($database, q{SELECT sum(running) FROM jobq.queue_stats
			WHERE queue IN ('c active', 'c rate', 'c groups')}), 2 + 1 + 3, 'what may run does');
	return;
}

# What the tables say of all that.
our $CARRIED_SETTINGS = q{
SELECT queue, g.* FROM jobq.queue_group g JOIN jobq.queue USING (queue_id) ORDER BY 1, 3;
SELECT queue, draining, draining_by, draining_at, options FROM jobq.queues WHERE queue LIKE 'c %' ORDER BY 1;
SELECT * FROM jobq.schedule ORDER BY name;
SELECT queue_id, scope::oid, key, id, free_at, unique_while FROM jobq.ukey ORDER BY 1, 2, 3, 4};

our $CARRIED_MINUTES = q{SELECT queue, sum(enqueued), sum(completed), sum(failed) FROM jobq.queue_minutes
	WHERE queue LIKE 'c %' GROUP BY 1 ORDER BY 1};

# To be called once in a copy, when it works.
sub carried_ok
{
	my ($node, $database, $name) = @_;
	my $sql = sub { return $node->safe_psql($database, $_[0]) };

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $queue (sort keys %keeps)
	{
		is($sql->("SELECT count(*) FROM jobq.dequeue('$queue', 10)"), '0', "$name: nothing of $queue");
	}
	foreach my $queue (grep { $_ ne 'c groups' } sort keys %keeps)
	{
		is($sql->("SELECT reason FROM jobq.explain_queue('$queue')"), $keeps{$queue},
			"$name: because of $keeps{$queue}");
	}
	is( $sql->(q{SELECT string_agg(group_key || ' ' || e.reason, ', ' ORDER BY group_key) FROM jobq.jobs j,
			jobq.explain_job(j.id) e WHERE queue = 'c groups' AND state IN ('available', 'blocked')}),
		'one group_limit, slow group_rate_limit, stopped group_paused, two group_limit',
		"$name: every group has its own reason");
	$sql->(q{SELECT jobq.complete(j.id, a.lease) FROM (SELECT min(id) AS id FROM jobq.jobs
		WHERE queue = 'c active' AND state = 'running') j, jobq.attempts(j.id) a});
	is($sql->(q{SELECT count(*) FROM jobq.dequeue('c active', 10)}), '1', "$name: a place that is free is taken");
	$sql->(q{SELECT jobq.alter_group('c groups', 'stopped', '{"paused_until": null}')});
	is($sql->(q{SELECT group_key FROM jobq.dequeue('c groups', 10)}), 'stopped', "$name: a pause can be ended");
	is( $sql->(q{SELECT string_agg(outcome, ' ') FROM unnest('{free,held,live}'::text[]) k,
			jobq.enqueue_unique('c keys', unique_key => k)}),
		'inserted existing existing', "$name: unique keys are taken or free");
	is(sqlstate($node, q{SELECT jobq.enqueue('c drained')}, $database), 'JQ003', "$name: a drain goes on");
	is($sql->(q{SELECT count(*) FROM jobq.dequeue('c drained', 10)}), '1', "$name: and gives its jobs");
	is(sqlstate($node, q{SELECT jobq.resume_queue('c drained'), jobq.enqueue('c drained')}, $database), '00000',
		"$name: until it is ended");
	return;
}

1;
