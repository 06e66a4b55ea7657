# JobqTest.pm: what the TAP tests share: a server with the extension, the
# auditor that proves the tables and shared memory sound, and helpers that wait
# for something to become true. Changes no job by itself.
package JobqTest;

use strict;
use warnings;

use Exporter qw(import);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(start_node start_audited becomes_ok kill_server kill_backend await await_keeper add_auditor
  audit audit_ok sqlstate conflicts_logged test_functions wait_lock
  commit_with_late_word $SMALL_EPOCHS);

# Settings that make many epochs of few jobs.
our $SMALL_EPOCHS = "jobq.epoch_rows = 100\njobq.epoch_age = 100ms";

my $TIMEOUT = $PostgreSQL::Test::Utils::timeout_default;

# A server with the library preloaded; extra lines for postgresql.conf, to which
# JOBQ_CONF adds, such as "jobq.max_live_jobs = 100"; options for init.
sub start_node
{
	my ($name, $conf, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%options);
	$node->append_conf(
		'postgresql.conf', qq{
shared_preload_libraries = 'pg_jobq'
shared_buffers = 16MB
max_connections = 40
max_prepared_transactions = 5
fsync = on
autovacuum = off
restart_after_crash = on
jobq.max_live_jobs = 20000
log_line_prefix = '%m [%p] %b '
log_statement = none
});
	$node->append_conf('postgresql.conf', $conf) if defined $conf;
	$node->append_conf('postgresql.conf', $ENV{JOBQ_CONF})
	  if defined $ENV{JOBQ_CONF};
	$node->start;
	return $node;
}

# The same with the extension, the auditor and what test builds have besides;
# $sql makes what else is to be there.
sub start_audited
{
	my ($name, $conf, $sql) = @_;
	my $node = start_node($name, $conf);

	$node->safe_psql('postgres', "CREATE EXTENSION pg_jobq;\n" . ($sql // ''));
	add_auditor($node);
	test_functions($node);
	return $node;
}

# A query's result is what is expected, within some seconds.
sub becomes_ok
{
	my ($node, $sql, $expected, $name, $seconds) = @_;
	my $last = '';
	my $ok = await(sub { ($last = $node->safe_psql('postgres', $sql)) eq $expected }, $seconds // 20);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($ok, $name) || diag("$sql: $last, not $expected");
}

# True as soon as the code returns true, false after the time is over.
sub await
{
	my ($code, $seconds) = @_;
	my $deadline = time() + ($seconds // $TIMEOUT);

	until ($code->())
	{
		return 0 if time() > $deadline;
		usleep(20_000);
	}
	return 1;
}

# A query's result, undefined when there is nobody to answer it. A psql that
# cannot connect may be gone before it has read the query.
sub answer
{
	my ($node, $database, $sql) = @_;
	my ($rc, $out);

	eval { ($rc, $out) = $node->psql($database, $sql); };
	return defined $rc && $rc == 0 ? $out : undef;
}

sub await_keeper
{
	my ($node, $database) = @_;

	return await(
		sub {
			my $out = answer($node, $database // 'postgres',
				q{SELECT count(*) FROM jobq.health()
				  WHERE item = 'keeper' AND status = 'ok'});
			return defined $out && $out eq '1';
		});
}

# The postmaster's children, and theirs.
sub children_of
{
	my ($pid) = @_;
	my @children;

	foreach my $stat (glob('/proc/[0-9]*/stat'))
	{
		open(my $file, '<', $stat) or next;
		my $line = <$file>;
		close($file);
		next unless defined $line && $line =~ /^(\d+) \(.*\) \S (\d+) /;
		push @children, $1 if $2 == $pid;
	}
	return @children;
}

# kill -9 of the postmaster; returns when its processes have noticed. One that
# is stopped at a pause point does not, so they can be killed, too.
sub kill_server
{
	my ($node, %options) = @_;
	my @children = children_of($node->{_pid});

	$node->kill9;
	kill(9, @children) if $options{children};
	await(sub { !grep { kill(0, $_) } @children }, 60)
	  or die "processes of a killed server go on";
	return;
}

# kill -9 of one backend, chosen by a query for its pid; returns when the
# server works again.
sub kill_backend
{
	my ($node, $pid) = @_;
	my $epoch = qq{SELECT pg_postmaster_start_time() || ' ' ||
		min(backend_start) FROM pg_stat_activity
		WHERE backend_type = 'checkpointer'};
	my $before = $node->safe_psql('postgres', $epoch);

	kill(9, $pid) or return 0;
	await(
		sub {
			my $out = answer($node, 'postgres', $epoch);
			return defined $out && $out ne $before;
		}) or die "the server does not come back after a crash";
	return 1;
}

# SQLSTATE of a statement, 00000 when it works.
sub sqlstate
{
	my ($node, $sql, $database) = @_;
	my ($rc, $out, $err) =
	  $node->psql($database // 'postgres', "\\set VERBOSITY sqlstate\n$sql");

	return '00000' if $err !~ /(?:ERROR|FATAL)/;
	return $err =~ /(?:ERROR|FATAL):\s+(\w{5})/ ? $1 : "unknown: $err";
}

# Wait until a background session's backend waits for a lock.
sub wait_lock
{
	my ($node, $pid) = @_;

	return $node->poll_query_until('postgres',
		"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid"
	);
}

# The functions of test builds.
sub test_functions
{
	my ($node, $database) = @_;

	$node->safe_psql(
		$database // 'postgres', q{
CREATE FUNCTION public.pause_at(text) RETURNS void LANGUAGE c STRICT
	AS 'pg_jobq', 'jobq_test_pause_at';
CREATE FUNCTION public.paused() RETURNS int LANGUAGE c STRICT
	AS 'pg_jobq', 'jobq_test_paused';
});
	return;
}

# A session that has committed a statement, of which those in memory have heard
# but not the caches of other sessions: pause_at('') lets it go on.
sub commit_with_late_word
{
	my ($node, $statement, $name) = @_;
	my $session = $node->background_psql('postgres');

	$node->safe_psql('postgres', q{SELECT pause_at('published')});
	$session->{stdin} .= "$statement;\n";
	$session->{run}->pump_nb;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	becomes_ok($node, 'SELECT paused()', 1, $name);
	return $session;
}

# Second ends of a job that only the unique index has refused, ever.
sub conflicts_logged
{
	my ($node) = @_;
	my @hits =
	  slurp_file($node->logfile) =~ /unique index on the outcomes refused/g;

	return scalar @hits;
}

# Make the auditor. Tables and columns have no protection against a
# database's owner, so it reads them all by itself, trusting no function of
# the extension but where it compares with one.
sub add_auditor
{
	my ($node, $database) = @_;

	$node->safe_psql($database // 'postgres', <<'SQL');
CREATE SCHEMA audit;
-- What clients enqueued, written in the same transaction.
CREATE TABLE audit.ledger (id bigint);
-- Effects of jobs done, in the transaction that completed them.
CREATE TABLE audit.effect (id bigint);
-- Completions whose commit the server has acknowledged.
CREATE TABLE audit.acknowledged (id bigint);
-- With a row in it, epochs may be gone: what is nowhere is no problem then. That
-- it has ended is still proved, by the totals.
CREATE TABLE audit.forgetful (yes bool);

CREATE FUNCTION audit.check_dispatch() RETURNS text LANGUAGE c
	AS 'pg_jobq', 'jobq_test_check_dispatch';

-- A claim's tickets: LEB128 differences.
CREATE FUNCTION audit.unpack(packed bytea) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	tickets bigint[] := '{}';
	last bigint := 0;
	number bigint := 0;
	shift int := 0;
	byte int;
BEGIN
	FOR i IN 0 .. length(packed) - 1 LOOP
		byte := get_byte(packed, i);
		number := number | ((byte & 127)::bigint << shift);
		shift := shift + 7;
		CONTINUE WHEN byte >= 128;
		last := last + number;
		tickets := tickets || last;
		number := 0;
		shift := 0;
	END LOOP;
	RETURN tickets;
END $$;

-- Everything on disk, with one snapshot, past all indexes.
CREATE FUNCTION audit.read_tables() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	n int;
BEGIN
	SET LOCAL enable_indexscan = off;
	SET LOCAL enable_indexonlyscan = off;
	SET LOCAL enable_bitmapscan = off;
	SET LOCAL client_min_messages = error;
	DROP TABLE IF EXISTS job, claim, outcome, shelf;
	CREATE TEMP TABLE job (epoch int, ticket bigint, id bigint, queue_id int,
		attempt int, max_attempts int, headers jsonb, retry_of bigint);
	CREATE TEMP TABLE claim (epoch int, lease bigint, flag "char", ticket bigint);
	CREATE TEMP TABLE outcome (epoch int, ticket bigint, lease bigint,
		ended "char", attempt_outcome "char", next bigint, moved_to bigint,
		queue_id int, finished_at timestamptz);
	CREATE TEMP TABLE shelf AS SELECT * FROM jobq.shelf;
	FOR n IN SELECT epoch FROM jobq.epoch LOOP
	BEGIN
		EXECUTE format('INSERT INTO job SELECT %1$s, ticket, id, queue_id,
			coalesce(attempt, 0), max_attempts, headers, retry_of FROM jobq.job_%1$s', n);
		EXECUTE format('INSERT INTO claim SELECT %1$s, lease, flag,
			unnest(audit.unpack(tickets)) FROM jobq.claim_%1$s', n);
		EXECUTE format('INSERT INTO outcome SELECT %1$s, ticket, lease, ended,
			attempt_outcome, next, moved_to, queue_id, finished_at
			FROM jobq.outcome_%1$s', n);
	EXCEPTION WHEN undefined_table THEN
		-- dropped since the snapshot was taken
		IF NOT EXISTS (SELECT FROM audit.forgetful) THEN
			RAISE;
		END IF;
	END;
	END LOOP;
	ANALYZE job, claim, outcome, shelf;
	SET LOCAL enable_indexscan = on;
	SET LOCAL enable_bitmapscan = on;
END $$;

-- When dead rows of a queue may have left the shelf; at once when it is gone.
CREATE FUNCTION audit.dead_retention(queue_id int) RETURNS interval
LANGUAGE sql STABLE AS $$
	SELECT coalesce((SELECT coalesce(CASE jsonb_typeof(q.options->'dead_retention')
			WHEN 'number' THEN (q.options->>'dead_retention')::float8 * interval '1 s'
			ELSE (q.options->>'dead_retention')::interval END, '30 days')
		FROM jobq.queue q WHERE q.queue_id = $1), '0')
$$;

-- One row for each thing that is wrong.
CREATE FUNCTION audit.problems() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	forgetful bool := EXISTS (SELECT FROM audit.forgetful);
BEGIN
	PERFORM audit.read_tables();

	-- tickets
	RETURN QUERY SELECT format('ticket %s exists %s times', ticket, count(*))
		FROM job GROUP BY ticket HAVING count(*) > 1;
	RETURN QUERY SELECT format('ticket %s has %s outcomes', ticket, count(*))
		FROM outcome GROUP BY ticket HAVING count(*) > 1;
	RETURN QUERY SELECT format('outcome of ticket %s without its job row', o.ticket)
		FROM outcome o LEFT JOIN job j USING (epoch, ticket)
		WHERE j.ticket IS NULL OR j.queue_id <> o.queue_id;
	RETURN QUERY SELECT format('ticket %s was dequeued %s times', ticket, count(*))
		FROM claim WHERE flag IN ('d', 'c', 'p') GROUP BY ticket HAVING count(*) > 1;
	RETURN QUERY SELECT format('claim of ticket %s without its job row', c.ticket)
		FROM claim c LEFT JOIN job j USING (epoch, ticket)
		WHERE j.ticket IS NULL;
	RETURN QUERY SELECT format('ticket %s ended under lease %s, but was claimed under %s',
			ticket, o.lease, c.lease)
		FROM outcome o JOIN claim c USING (epoch, ticket)
		WHERE c.flag IN ('d', 'c', 'p') AND o.lease IS DISTINCT FROM c.lease;

	-- each job is at exactly one place
	RETURN QUERY
		SELECT format('job %s is at %s places', id, sum(places))
		FROM (SELECT j.id, count(*) FILTER (WHERE o.ticket IS NULL)
					+ count(*) FILTER (WHERE o.ended <> 'm') AS places
				FROM job j LEFT JOIN outcome o USING (epoch, ticket)
				GROUP BY j.id
			UNION ALL
			SELECT s.id, 1 FROM shelf s WHERE state IN ('s', 'r')) p
		GROUP BY id HAVING sum(places) > 1
			OR (sum(places) = 0 AND NOT forgetful);
	RETURN QUERY SELECT format('dead job %s: %s outcomes, %s dead rows', id,
			coalesce(o.n, 0), coalesce(s.n, 0))
		FROM (SELECT j.id, count(*) AS n, bool_and(o.finished_at
					+ audit.dead_retention(o.queue_id) <= clock_timestamp()) AS over
				FROM job j JOIN outcome o USING (epoch, ticket)
				WHERE o.ended = 'd' GROUP BY 1) o
			FULL JOIN (SELECT id, count(*) AS n FROM shelf
				WHERE state = 'd' GROUP BY 1) s USING (id)
		WHERE (o.n, coalesce(s.n, o.over::int)) IS DISTINCT FROM (1::bigint, 1::bigint)
			AND NOT (forgetful AND o.n IS NULL AND s.n = 1);

	-- its way there
	RETURN QUERY
		SELECT format('job %s: ticket %s (%s of %s) ended %s, goes on with %s, next is %s',
			id, ticket, nth, n, ended, next, following)
		FROM (SELECT j.id, j.ticket, o.ended, o.next,
				row_number() OVER w AS nth,
				count(*) OVER (PARTITION BY j.id) AS n,
				lead(j.ticket) OVER w AS following,
				first_value(j.ticket) OVER w AS first
			FROM job j LEFT JOIN outcome o USING (epoch, ticket)
			WINDOW w AS (PARTITION BY j.id ORDER BY j.ticket)) t
		WHERE (nth < n AND ended IS DISTINCT FROM 'm')
			OR (next IS NOT NULL AND next IS DISTINCT FROM following
				AND NOT (forgetful AND NOT EXISTS
					(SELECT FROM job x WHERE x.ticket = t.next)))
			OR (nth = n AND next IS NOT NULL AND NOT forgetful)
			OR (first <> id AND NOT forgetful);
	RETURN QUERY
		SELECT format('job %s: attempt goes from %s to %s', id, before, attempt)
		FROM (SELECT j.id, j.attempt,
				lag(j.attempt) OVER (PARTITION BY j.id ORDER BY j.ticket) AS before
			FROM job j) t
		WHERE attempt < before;
	RETURN QUERY
		SELECT format('ticket %s: attempt %s after all of %s', ticket, attempt,
			max_attempts)
		FROM job WHERE attempt >= max_attempts;

	-- dead-letter copies
	RETURN QUERY SELECT format('dead job %s has %s copies', o.ticket, count(c.id))
		FROM (SELECT j.id, o.ticket, o.moved_to FROM outcome o
				JOIN job j USING (epoch, ticket) WHERE o.moved_to IS NOT NULL) o
			LEFT JOIN (SELECT id, headers FROM job
				WHERE ticket = id
				UNION SELECT id, headers FROM shelf) c
			ON c.id = o.moved_to AND (c.headers->'dead_letter'->>'id')::bigint = o.id
		GROUP BY o.ticket HAVING count(c.id) > 1
			OR (count(c.id) = 0 AND NOT forgetful);
	RETURN QUERY SELECT format('job %s was dead-lettered %s times',
			headers->'dead_letter'->>'id', count(*))
		FROM (SELECT DISTINCT id, headers FROM job WHERE headers ? 'dead_letter') c
		GROUP BY headers->'dead_letter'->>'id' HAVING count(*) > 1;

	-- who holds a key while it is live shares it with nobody
	RETURN QUERY SELECT format('a unique key of queue %s has %s live jobs',
			u.queue_id, count(DISTINCT u.id))
		FROM jobq.ukey u WHERE u.unique_while = 'l' AND (EXISTS
			(SELECT FROM job j WHERE j.id = u.id AND NOT EXISTS
				(SELECT FROM outcome o WHERE o.ticket = j.ticket))
			OR EXISTS (SELECT FROM shelf s WHERE s.id = u.id AND s.state IN ('s', 'r')))
		GROUP BY u.queue_id, u.key, u.scope HAVING count(DISTINCT u.id) > 1;

	-- what clients know
	RETURN QUERY SELECT format('job %s was enqueued and is nowhere', id)
		FROM (SELECT id FROM audit.ledger
			EXCEPT (SELECT id FROM job UNION SELECT id FROM shelf)) l
		WHERE NOT forgetful;
	RETURN QUERY SELECT format('nobody has enqueued job %s', id)
		FROM ((SELECT id FROM job UNION SELECT id FROM shelf)
			EXCEPT (SELECT id FROM audit.ledger
				UNION SELECT moved_to FROM outcome
				UNION SELECT id FROM job WHERE retry_of IS NOT NULL
				UNION SELECT id FROM shelf WHERE retry_of IS NOT NULL
				UNION SELECT id FROM job WHERE headers ? 'schedule'
				UNION SELECT id FROM job WHERE forgetful AND headers ? 'dead_letter'
				UNION SELECT id FROM shelf WHERE forgetful AND headers ? 'dead_letter')) l;
	RETURN QUERY SELECT format('dead job %s was run again %s times', r.retry_of,
			count(*))
		FROM (SELECT DISTINCT id, retry_of FROM job
			UNION SELECT id, retry_of FROM shelf) r
		WHERE EXISTS (SELECT FROM job j JOIN outcome o USING (epoch, ticket)
			WHERE j.id = r.retry_of AND (o.ended = 'd'
				OR (o.ended = 'e' AND o.moved_to IS NOT NULL)))
		GROUP BY r.retry_of HAVING count(*) > 1;
	RETURN QUERY SELECT format('job %s was handed out as new twice', id)
		FROM audit.ledger GROUP BY id HAVING count(*) > 1;
	RETURN QUERY SELECT format('effect of job %s: %s times, completed %s times',
			id, e.n, coalesce(c.n, 0))
		FROM (SELECT id, count(*) AS n FROM audit.effect GROUP BY 1) e
			LEFT JOIN (SELECT j.id, count(*) AS n FROM job j
				JOIN outcome o USING (epoch, ticket)
				WHERE o.ended = 'c' GROUP BY 1) c USING (id)
		WHERE (e.n, c.n) IS DISTINCT FROM (1::bigint, 1::bigint)
			AND NOT (forgetful AND e.n = 1 AND c.n IS NULL);
	RETURN QUERY SELECT format('acknowledged completion of job %s: %s times', id,
			count(*))
		FROM audit.acknowledged GROUP BY id HAVING count(*) > 1;
	RETURN QUERY SELECT format('acknowledged completion of job %s is lost', id)
		FROM (SELECT id FROM audit.acknowledged
			EXCEPT SELECT j.id FROM job j JOIN outcome o USING (epoch, ticket)
			WHERE o.ended = 'c') l
		WHERE NOT forgetful OR EXISTS (SELECT FROM job j WHERE j.id = l.id);

	-- epochs
	RETURN QUERY SELECT format('epoch %s is drained, but ticket %s lives', e.epoch,
			j.ticket)
		FROM jobq.epoch e JOIN job j USING (epoch)
		WHERE e.drained_at IS NOT NULL AND NOT EXISTS
			(SELECT FROM outcome o WHERE o.ticket = j.ticket);
	RETURN QUERY SELECT format('epoch %s, queue %s: totals do not agree', epoch,
			queue_id)
		FROM (SELECT t.epoch, t.queue_id, t.completed, t.failed, t.dead, t.cancelled
				FROM jobq.epoch_total t WHERE t.epoch <> 0) t
			FULL JOIN (SELECT o.epoch, o.queue_id,
				count(*) FILTER (WHERE o.ended = 'c') AS completed,
				count(*) FILTER (WHERE o.attempt_outcome IN ('f', 'l', 'b')) AS failed,
				count(*) FILTER (WHERE o.ended = 'd') AS dead,
				count(*) FILTER (WHERE o.ended = 'x') AS cancelled
				FROM outcome o JOIN jobq.epoch e USING (epoch)
				WHERE e.drained_at IS NOT NULL GROUP BY 1, 2) w
			USING (epoch, queue_id)
		WHERE (t.completed, t.failed, t.dead, t.cancelled) IS DISTINCT FROM
			(w.completed, w.failed, w.dead, w.cancelled)
			AND EXISTS (SELECT FROM job j
				WHERE j.epoch = coalesce(t.epoch, w.epoch));
	RETURN QUERY SELECT format('class %s has %s open epochs', c.class, count(e.epoch))
		FROM jobq.class c LEFT JOIN jobq.epoch e
			ON e.class = c.class AND e.closed_at IS NULL
		GROUP BY c.class HAVING count(e.epoch) <> 1;
END $$;

-- All deliveries of a queue that have ended.
CREATE FUNCTION audit.deliveries(name text) RETURNS TABLE (group_key text,
	claimed_at timestamptz, finished_at timestamptz, how "char", probe boolean)
LANGUAGE plpgsql AS $$
DECLARE
	n int;
BEGIN
	FOR n IN SELECT epoch FROM jobq.epoch LOOP
		RETURN QUERY EXECUTE format('SELECT j.group_key, o.claimed_at,
			o.finished_at, o.attempt_outcome, EXISTS (SELECT FROM jobq.claim_%1$s c
				WHERE c.flag = ''p'' AND c.lease = o.lease)
			FROM jobq.outcome_%1$s o JOIN jobq.job_%1$s j USING (ticket)
			JOIN jobq.queue q ON q.queue_id = o.queue_id
			WHERE q.queue = $1 AND o.attempt_outcome IS NOT NULL
			AND o.claimed_at IS NOT NULL', n) USING name;
	END LOOP;
END $$;

-- So many deliveries of a queue, or of a group of it, were there at a time. Those
-- that were rolled back do not say when they ended.
CREATE FUNCTION audit.most_at_once(name text, by_group bool) RETURNS bigint
LANGUAGE sql AS $$
	WITH d AS MATERIALIZED (SELECT CASE WHEN by_group THEN group_key END AS key,
			claimed_at, finished_at FROM audit.deliveries(name) WHERE how <> 'b')
	SELECT coalesce(max(n), 0) FROM (SELECT sum(step) OVER
			(PARTITION BY key ORDER BY at, step) AS n
		FROM (SELECT key, claimed_at AS at, 1 AS step FROM d
			UNION ALL SELECT key, finished_at, -1 FROM d) s) x
$$;

-- The same for shared memory, to be called when all is quiet.
CREATE FUNCTION audit.memory_problems() RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM audit.read_tables();
	RETURN QUERY SELECT 'shared memory: ' || c FROM audit.check_dispatch() c
		WHERE c IS NOT NULL;
	RETURN QUERY SELECT format('health: %s: %s', h.item, h.detail)
		FROM jobq.health() h
		WHERE h.item = 'index_conflicts' AND h.status <> 'ok';
	-- where memory is too small it does not hold all there is
	IF current_setting('jobq.max_live_jobs')::int < (SELECT count(*) FROM job j
		WHERE NOT EXISTS (SELECT FROM outcome o WHERE o.ticket = j.ticket))
	THEN
		RETURN;
	END IF;

	RETURN QUERY
		SELECT format('queue %s: stats say %s, tables say %s', q.queue,
			s.have, t.want)
		FROM jobq.queue q,
			LATERAL (SELECT jsonb_build_object(
				'live', s.available + s.blocked + s.running + s.retryable,
				'scheduled', s.scheduled,
				'completed', s.completed_total, 'failed', s.failed_total,
				'dead', s.dead_total, 'cancelled', s.cancelled_total,
				'expired', s.expired_total) AS have
				FROM jobq.queue_stats s WHERE s.queue = q.queue) s,
			LATERAL (SELECT jsonb_build_object(
				'live', (SELECT count(*) FROM job j
						WHERE j.queue_id = q.queue_id AND NOT EXISTS
						(SELECT FROM outcome o WHERE o.ticket = j.ticket))
					+ (SELECT count(*) FROM shelf
						WHERE queue_id = q.queue_id AND state = 'r'),
				'scheduled', (SELECT count(*) FROM shelf
					WHERE queue_id = q.queue_id AND state = 's'),
				'completed', coalesce(max(g.completed), 0)
					+ count(*) FILTER (WHERE o.ended = 'c'),
				'failed', coalesce(max(g.failed), 0)
					+ count(*) FILTER (WHERE o.attempt_outcome IN ('f', 'l', 'b')),
				'dead', coalesce(max(g.dead), 0)
					+ count(*) FILTER (WHERE o.ended = 'd'),
				'cancelled', coalesce(max(g.cancelled), 0)
					+ count(*) FILTER (WHERE o.ended = 'x'),
				'expired', coalesce(max(g.expired), 0)
					+ count(*) FILTER (WHERE o.ended = 'e')) AS want
				FROM (SELECT) one
					LEFT JOIN outcome o ON o.queue_id = q.queue_id
					LEFT JOIN jobq.epoch_total g
						ON g.queue_id = q.queue_id AND g.epoch = 0) t
		WHERE s.have <> t.want;

	-- what is on the belt is in memory, in the state that the tables say;
	-- what waits is not where other databases take the places
	RETURN QUERY
		SELECT format('job %s: tables say %s, memory says %s', id,
			d.state, m.state)
		FROM (SELECT j.id, CASE WHEN c.ticket IS NOT NULL
				THEN 'running' ELSE 'available' END AS state
				FROM job j LEFT JOIN (SELECT DISTINCT ticket FROM claim
					WHERE flag IN ('d', 'c', 'p')) c USING (ticket)
				WHERE NOT EXISTS
				(SELECT FROM outcome o WHERE o.ticket = j.ticket)) d
			FULL JOIN (SELECT j.id, 'running' AS state FROM jobq.jobs j
				WHERE j.state = 'running'
				UNION ALL
				SELECT p.id, 'available' FROM jobq.queue q,
					LATERAL jobq.peek(q.queue, 1000000) p) m USING (id)
		WHERE d.state IS DISTINCT FROM m.state
			AND NOT (m.state IS NULL AND d.state = 'available' AND EXISTS
				(SELECT FROM jobq.health() h
				WHERE h.item = 'live_jobs' AND h.detail LIKE '%wait on disk%'));
END $$;
SQL
	return;
}

# One function of the auditor, all in one snapshot.
sub problems
{
	my ($node, $database, $function) = @_;

	return $node->safe_psql($database // 'postgres',
		"BEGIN ISOLATION LEVEL REPEATABLE READ;
		SELECT * FROM audit.$function() LIMIT 20; COMMIT");
}

# All that is wrong, as lines; '' when nothing is. While the keeper is still
# at work memory and tables may differ, so they get some seconds to agree.
sub audit
{
	my ($node, $database) = @_;
	my $start = time();
	my $found = problems($node, $database, 'problems');
	my $tries = 0;

	note(sprintf('audit of the tables: %.1f s', time() - $start));
	return $found if $found ne '';
	await(
		sub {
			$tries++;
			$found = problems($node, $database, 'memory_problems');
			return $found eq '';
		},
		15);
	note(sprintf('memory agreed at attempt %d, after %.1f s', $tries,
			time() - $start));
	return $found;
}

sub audit_ok
{
	my ($node, $name, $database) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(audit($node, $database), '', "audit: $name");
}

1;
