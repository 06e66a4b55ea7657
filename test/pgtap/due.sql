-- What the keeper does when a time has come: scheduled jobs become available,
-- failed ones run again, leases expire, grace ends. Polls, never sleeps long.
\ir setup.psql
SELECT jobq.create_queue('due', '{"max_attempts": 3, "backoff": {"base": 1, "factor": 1, "jitter": 0}}') AS x \gset

-- ---- scheduled ----

SELECT jobq.enqueue('due', '1', delay => '0.3 s') AS a,
	jobq.enqueue('due', '2', run_at => clock_timestamp() + '0.2 s') AS b,
	jobq.enqueue('due', '3', delay => '1 h') AS c \gset
SELECT jobq.enqueue_many('due', '{4,5}', delay => '0.1 s') AS ds, clock_timestamp() AS start \gset
SELECT is(count(*), 0::bigint, 'not before their time') FROM jobq.dequeue('due', 10);
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
SELECT ok(clock_timestamp() - :'start' < '2 s', 'in time');
SELECT is(array_agg(payload), '{4,5,2,1}', 'in the order of their times') FROM jobq.peek('due');
SELECT ok(bool_and(attempt = 1 AND run_at > enqueued_at AND run_at <= clock_timestamp()), 'due')
	FROM jobq.dequeue('due', 10);
SELECT is(state, 'scheduled', 'another one waits') FROM jobq.job(:c);
SELECT ok(bool_and(jobq.cancel(id)), 'cancelled') FROM jobq.jobs WHERE queue = 'due';

-- put off and brought forward
SELECT jobq.enqueue('due', '1', delay => '1 h') AS a, jobq.enqueue('due', '2') AS b \gset
SELECT jobq.reschedule(:a, clock_timestamp() + '0.2 s') AS x,
	jobq.reschedule(:b, clock_timestamp() + '0.1 s', 5) AS y \gset
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
SELECT is(array_agg(payload), '{1,2}', 'by priority first') FROM jobq.dequeue('due', 10);
SELECT ok(bool_and(jobq.cancel(id)), 'cancelled') FROM jobq.jobs WHERE queue = 'due';

-- an uncommitted schedule is nobody's business
BEGIN;
SELECT jobq.enqueue('due', '1', delay => '0.05 s') AS a \gset
SELECT pg_sleep_until(run_at) AS x FROM jobq.job(:a) \gset
SELECT jobq.run_maintenance() AS x \gset
SELECT state AS before FROM jobq.job(:a) \gset
COMMIT;
SELECT is(:'before'::text, 'scheduled', 'not before it is committed');
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
SELECT lease FROM jobq.dequeue('due') \gset

-- ---- failed ----

SELECT jobq.fail(:a, :lease, 'once') AS x, clock_timestamp() AS start \gset
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
SELECT ok(clock_timestamp() - :'start' BETWEEN '0.99 s' AND '3 s', 'after its backoff');
SELECT lease AS two, attempt, last_error FROM jobq.dequeue('due') \gset
SELECT is((:attempt, :'last_error')::text, '(2,once)', 'delivered again');
SELECT jobq.release(:a, :two, '0.1 s') AS x \gset
SELECT is((state, attempt)::text, '(retryable,1)', 'released for later') FROM jobq.job(:a);
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
SELECT is((id, attempt)::text, format('(%s,2)', :a), 'the same attempt again') FROM jobq.dequeue('due');
SELECT jobq.cancel(:a) AS x \gset

-- ---- expired leases ----

SELECT jobq.enqueue('due', '1') AS a, clock_timestamp() AS start \gset
SELECT lease AS one FROM jobq.dequeue('due', 1, '0', '1 s', 'w1') \gset
SELECT jobq.extend(:a, :one, '1 s', '{"half": true}') AS x \gset
CALL pg_temp.await(format('(SELECT state = ''retryable'' FROM jobq.job(%s))', :a));
SELECT ok(clock_timestamp() - :'start' BETWEEN '1 s' AND '3 s', 'expired in time');
SELECT is((attempt, worker, progress)::text, '(1,,"{""half"": true}")', 'a failed attempt') FROM jobq.job(:a);
SELECT is((attempt, lease = :one, worker, outcome)::text, '(1,t,w1,lease_expired)', 'named so') FROM jobq.attempts(:a);
SELECT is(pg_temp.try(format(call, :a, :one)), 'JQ001', 'expired: ' || call)
	FROM unnest(ARRAY['complete(%s, %s)', 'fail(%s, %s)', 'release(%s, %s)', 'extend(%s, %s)']) call;
CALL pg_temp.await(format('(SELECT state = ''available'' FROM jobq.job(%s))', :a));
SELECT lease AS two, attempt, progress::text FROM jobq.dequeue('due') \gset
SELECT is((:attempt, :'progress')::text, '(2,"{""half"": true}")', 'delivered again, with its progress');
SELECT is(pg_temp.try(format(call, :a, :one)), 'JQ001', 'delivered again: ' || call)
	FROM unnest(ARRAY['complete(%s, %s)', 'fail(%s, %s)', 'release(%s, %s)', 'extend(%s, %s)']) call;
SELECT is((state, attempt)::text, '(running,2)', 'nothing has changed') FROM jobq.job(:a);
SELECT is(pg_temp.try(format('complete(%s, %s)', :a, :two)), 'ok', 'the second holder completes');
SELECT is(string_agg(attempt || outcome, ' '), '1lease_expired 2completed', 'two attempts') FROM jobq.attempts(:a);
SELECT is(pg_temp.try(format('complete(%s, %s)', :a, :one)), 'JQ001', 'the first one''s lease expired');
SELECT is(pg_temp.try(format('complete(%s, %s)', :a, :two)), 'JQ015', 'the second one''s is settled');

-- the last attempt expires: dead, in the dead-letter queue
SELECT jobq.alter_queue('due', '{"max_attempts": 1, "dead_letter": "due dead"}') AS x \gset
SELECT jobq.enqueue('due', '1') AS a \gset
SELECT count(*) AS x FROM jobq.dequeue('due', 1, '0', '1 s') \gset
CALL pg_temp.await(format('(SELECT is_final FROM jobq.job(%s))', :a));
SELECT is((j.state, d.queue, d.headers #>> '{dead_letter,reason}', d.headers #>> '{dead_letter,attempts}')::text,
	'(dead,"due dead",max_attempts,1)', 'died of it') FROM jobq.job(:a) j, jobq.jobs d WHERE d.id = j.moved_to;
SELECT is(jobq.redrive('due dead'), 1::bigint, 'redriven');
SELECT is(jobq.purge_queue('due'), 1::bigint, 'purged');

-- many at once, on different queues
SELECT jobq.enqueue_many('due', array_fill('1'::jsonb, ARRAY[500])) AS ids \gset
SELECT count(*) AS x FROM jobq.dequeue('due', 500, '0', '1 s') \gset
CALL pg_temp.await('(SELECT dead_total >= 501 FROM jobq.queue_stats WHERE queue = ''due'')');
SELECT is(count(*), 500::bigint, '500 dead') FROM jobq.dead_jobs WHERE queue = 'due';
SELECT is(jobq.redrive('due dead', 400), 400::bigint, '400 redriven');
SELECT is(jobq.redrive('due dead'), 100::bigint, 'and the others');
SELECT is(jobq.purge_queue('due'), 500::bigint, 'purged');

-- ---- grace ----

SELECT jobq.enqueue('due', '1') AS a \gset
SELECT lease FROM jobq.dequeue('due') \gset
SELECT jobq.cancel(:a, 'why', '0.2 s') AS x \gset
CALL pg_temp.await('(SELECT running = 0 FROM jobq.queue_stats WHERE queue = ''due'')');
SELECT is(pg_temp.try(format('complete(%s, %s)', :a, :lease)), 'JQ014', 'after its grace too');
SELECT is(state, 'cancelled', 'cancelled') FROM jobq.job(:a);

SELECT is(pg_temp.check_dispatch(), NULL, 'memory is consistent');
SELECT is((available, scheduled, retryable, running)::text, '(0,0,0,0)', 'nothing is left') FROM jobq.queue_stats WHERE queue = 'due';
SELECT jobq.drop_queue('due', true) AS x, jobq.drop_queue('due dead', true) AS y \gset
SELECT * FROM finish();
