# enqueue_jobs with unique keys: sessions with overlapping sets of keys, in orders
# of their own, in all modes, alone and while others work on the jobs: nobody ends
# in a deadlock, no key ever has two live jobs, answers say what has happened.
#
# JOBQ_UNIQUE_SESSIONS, JOBQ_SECONDS: how large the races are.
use strict;
use warnings;

use JobqTest;
use LimitLoad qw(start_sessions sessions_ok);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $SESSIONS = $ENV{JOBQ_UNIQUE_SESSIONS} // 12;
my $SECONDS = $ENV{JOBQ_SECONDS} // 1;
my $KEYS = 6;					# of each of two queues
my $node = start_node('uniquejobs', 'max_connections = ' . ($SESSIONS + 40));

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

sql(<<'SQL');
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue(q, '{"max_attempts": 1000000, "backoff": {"base": 0}}')
	FROM unnest('{one,two}'::text[]) q;
CREATE TABLE answered (queue text, key text, id bigint, outcome text);
CREATE TABLE refused (n int);

-- Some keys of both queues, in any order, and a job without one. Where that is
-- a mistake, no key twice, and few, so that no other is taken now and then.
CREATE FUNCTION some_jobs(modes text[], keys int) RETURNS jsonb
LANGUAGE sql VOLATILE AS $$
	WITH j AS MATERIALIZED (
		SELECT jsonb_build_object('queue', q, 'unique_key', k, 'on_conflict',
			modes[1 + floor(random() * cardinality(modes))::int]) AS j
		FROM unnest('{one,two}'::text[]) q, (SELECT n::text FROM generate_series(1, keys) n) k(k),
			generate_series(1, CASE WHEN 'error' = ANY (modes) THEN 1 ELSE 2 END)
		WHERE random() < CASE WHEN 'error' = ANY (modes) THEN 0.1 ELSE 0.4 END)
	SELECT coalesce(jsonb_agg(j ORDER BY random()), '[]') || '[{"queue": "one"}]' FROM j
$$;

CREATE FUNCTION enqueue_some(modes text[], keys int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	jobs jsonb := some_jobs(modes, keys);
BEGIN
	INSERT INTO answered
		SELECT jobs->(ord - 1)->>'queue', jobs->(ord - 1)->>'unique_key', id, outcome
		FROM jobq.enqueue_jobs(jobs);
EXCEPTION WHEN SQLSTATE 'JQ008' THEN
	INSERT INTO refused VALUES (1);
END $$;

CREATE PROCEDURE enqueue(modes text[], keys int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM enqueue_some(modes, keys);
	IF random() < 0.2 THEN
		ROLLBACK;
	END IF;
END $$;

CREATE PROCEDURE work(name text) LANGUAGE plpgsql AS $$
DECLARE
	d record;
	how float := random();
BEGIN
	SELECT * INTO d FROM jobq.dequeue(name);
	IF d.id IS NULL THEN
		RETURN;
	END IF;
	IF how < 0.4 THEN
		COMMIT;
	END IF;
	IF how < 0.7 THEN
		PERFORM jobq.complete(d.id, d.lease);
	ELSIF how < 0.8 THEN
		PERFORM jobq.fail(d.id, d.lease);
	ELSIF how < 0.9 THEN
		PERFORM jobq.release(d.id, d.lease);
	ELSE
		ROLLBACK;
	END IF;
END $$;
SQL
add_auditor($node);
await_keeper($node);

# Sessions that choose from these statements do not fail.
sub race
{
	my ($name, @statements) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return sessions_ok(start_sessions($node, $SESSIONS, $SECONDS, @statements), "$name: no session fails");
}

# Live jobs of each key.
my $live = 'SELECT count(*) AS n FROM jobq.jobs WHERE unique_key IS NOT NULL GROUP BY queue, unique_key';

my %other = (ignore => 'existing', error => 'error', replace => 'replaced',
	debounce => 'debounced');

foreach my $mode (sort keys %other)
{
	sql(q{SELECT jobq.purge_queue(queue) FROM jobq.queues; DELETE FROM answered});
	race($mode, "CALL enqueue('{$mode}', $KEYS);");
	is(sql("SELECT count(*) || ' ' || max(n) FROM ($live) x"), 2 * $KEYS . ' 1',
		"$mode: exactly one live job of each key");
	is(sql(qq{SELECT count(*) FROM (SELECT count(*) FILTER (WHERE outcome = 'inserted') AS inserted,
			count(DISTINCT id) AS ids FROM answered
		WHERE key IS NOT NULL GROUP BY queue, key) x WHERE inserted = 1 AND ids = 1}),
		2 * $KEYS, "$mode: inserted once, and all were told of the same job");
	is(sql(qq{SELECT count(*) FROM answered WHERE outcome NOT IN ('inserted', '$other{$mode}')
		OR (key IS NULL AND outcome <> 'inserted')}), 0, "$mode: nothing else was answered");
}
cmp_ok(sql('SELECT count(*) FROM refused'), '>', 0, 'calls with a key that is taken were refused');
cmp_ok(sql(q{SELECT count(*) FROM answered WHERE outcome = 'replaced'}), '>', 0, 'jobs were replaced');

race('all at once',
	"CALL enqueue('{ignore,replace,debounce}', $KEYS);", "CALL enqueue('{error}', 2);",
	"CALL work('one');", "CALL work('two');", "CALL work('one');", "CALL work('two');");
is(sql("SELECT count(*) FROM ($live) x WHERE n > 1"), 0, 'at most one live job of each key');
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'there was no deadlock');
is(sql(q{SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'jobq.ukey'::regclass}),
	0, 'no lock of a key is left');
is(conflicts_logged($node), 0, 'the unique index had nothing to refuse');

# What has no ledger of its own is taken as enqueued.
sql('INSERT INTO audit.ledger SELECT id FROM jobq.jobs UNION SELECT id FROM jobq.history');
audit_ok($node, 'at the end');
done_testing();
