-- Jobs that must start in time: expires_at, the queue options ttl and
-- expired_to, what becomes of those that did not. Polls, never sleeps long.
\ir setup.psql
SELECT jobq.create_queue('ttl', '{"backoff": {"base": 1, "factor": 1, "jitter": 0}}') AS x \gset

-- ---- arguments ----

SELECT is(pg_temp.try('enqueue(''ttl'', expires_at => ' || value || ')'), 'JQ007', 'refused: ' || value)
	FROM unnest(ARRAY['''infinity''', '''-infinity''', 'now() - interval ''1 s''', 'now()',
		'now() + interval ''1 h'', delay => ''2 h''', 'now() + interval ''1 h'', run_at => now() + interval ''1 h''']) value;
SELECT is(pg_temp.try('enqueue_many(''ttl'', ''{1}'', expires_at => now() - interval ''1 s'')'), 'JQ007', 'refused for many');
SELECT jobq.enqueue('ttl', expires_at => now() + interval '1 h') AS a,
	jobq.enqueue('ttl', delay => '1 h', expires_at => now() + interval '2 h') AS b,
	jobq.enqueue('ttl') AS c \gset
SELECT results_eq(format('SELECT id, expires_at IS NULL, expires_at > now() FROM jobq.jobs WHERE id IN (%s, %s, %s) ORDER BY id', :a, :b, :c),
	format('VALUES (%s::bigint, false, true), (%s, false, true), (%s, true, NULL)', :a, :b, :c), 'shown');
SELECT jobq.enqueue_many('ttl', '{1,2}', run_at => '2100-01-01', expires_at => '2100-01-01 00:00:10') AS ids \gset
SELECT ok(bool_and(expires_at = run_at + interval '10 s'), 'many have it too') FROM jobq.jobs WHERE id = ANY (:'ids');
SELECT is(jobq.purge_queue('ttl'), 5::bigint, 'purged');

-- ---- options ----

SELECT is(pg_temp.try(format('alter_queue(''ttl'', %L)', options)), 'JQ007', 'refused: ' || options)
	FROM unnest(ARRAY['{"ttl": 0}', '{"ttl": "-1 s"}', '{"ttl": true}', '{"ttl": "infinity"}', '{"ttl": "4000 days"}',
		'{"expired_to": "dead_letter"}', '{"expired_to": "heaven"}', '{"expired_to": 1}', '{"expired_to": {}}']) options;
SELECT is(pg_temp.try('create_queue(''ttl2'', ''{"expired_to": "dead_letter"}'')'), 'JQ007', 'contradiction at creation');
SELECT is(pg_temp.try('create_queue(''ttl2'', ''{"expired_to": "dead_letter"}'', ''alter'')'), 'JQ007', 'also when it may exist');
SELECT is(pg_temp.try('create_queue(''ttl'', ''{"expired_to": "dead_letter"}'', ''alter'')'), 'JQ007', 'also when it does');
SELECT is(pg_temp.try('alter_queue(''ttl'', ''{"ttl": "1 h", "expired_to": "drop"}'')'), 'ok', 'set');
SELECT jobq.enqueue('ttl') AS a, jobq.enqueue('ttl', delay => '3 h') AS b, jobq.enqueue('ttl', expires_at => now() + interval '5 s') AS c \gset
SELECT is(array_agg(expires_at - run_at = interval '1 h' ORDER BY id), '{t,t,f}', 'counted from run_at') FROM jobq.jobs WHERE queue = 'ttl';
SELECT is(jobq.enqueue('ttl', run_at => '294276-12-31 23:30:00 UTC') > 0, true, 'beyond the end of time: never');
SELECT is(pg_temp.try('alter_queue(''ttl'', ''{"ttl": null, "expired_to": null}'')'), 'ok', 'back to the default');
SELECT jobq.enqueue('ttl') AS d \gset
SELECT is(expires_at, NULL::timestamptz, 'none') FROM jobq.job(:d);
SELECT ok(jobq.reschedule(:c, now() + interval '1 h'), 'may be put off beyond its end');
SELECT is(run_at = expires_at, true, 'then that is its time') FROM jobq.job(:c);
SELECT jobq.purge_queue('ttl') AS x \gset

-- ---- an available job expires ----

SELECT jobq.enqueue('ttl', '1', expires_at => clock_timestamp() + interval '0.2 s') AS a, clock_timestamp() AS start \gset
SELECT is(state, 'available', 'not yet') FROM jobq.job(:a);
CALL pg_temp.await(format('(SELECT is_final FROM jobq.job(%s))', :a));
SELECT ok(clock_timestamp() - :'start' BETWEEN '0.2 s' AND '2 s', 'in time');
SELECT is((state, is_final, attempt, last_error, moved_to, finished_at >= expires_at)::text, '(expired,t,0,expired,,t)', 'expired') FROM jobq.job(:a);
SELECT is((SELECT state FROM jobq.history WHERE id = :a), 'expired', 'in the history');
SELECT is(count(*), 0::bigint, 'not live, not dead') FROM (SELECT id FROM jobq.jobs UNION ALL SELECT id FROM jobq.dead_jobs) x WHERE id = :a;
SELECT is((available, completed_total, dead_total, cancelled_total > 0, expired_total)::text, '(0,0,0,t,1)', 'counted') FROM jobq.queue_stats WHERE queue = 'ttl';
SELECT is(jobq.cancel(:a), false, 'too late to cancel');
SELECT is(pg_temp.try(format('complete(%s, 1)', :a)), 'JQ001', 'and to complete');
SELECT is(count(*), 0::bigint, 'not delivered') FROM jobq.dequeue('ttl', 10);

-- a job nobody has met is not delivered late, before the keeper has come
SELECT jobq.enqueue('ttl', '1', expires_at => clock_timestamp() + interval '0.05 s') AS a, jobq.enqueue('ttl', '2') AS b,
	cardinality(jobq.enqueue_many('ttl', array_fill('3'::jsonb, ARRAY[200]), priority => -1, expires_at => clock_timestamp() + interval '0.05 s')) AS n \gset
DO $$
BEGIN
	WHILE (SELECT expires_at >= clock_timestamp() FROM jobq.job((SELECT max(id) FROM jobq.jobs WHERE payload = '3'))) LOOP
	END LOOP;
END $$;
SELECT is(array_agg(payload), '{2}', 'not in a peek') FROM jobq.peek('ttl', 300);
SELECT is(array_agg(payload), '{2}', 'only the other one') FROM jobq.dequeue('ttl', 300);
CALL pg_temp.await('(SELECT expired_total = 202 FROM jobq.queue_stats WHERE queue = ''ttl'')');
SELECT jobq.cancel(:b) AS x \gset

-- our own, uncommitted
BEGIN;
SELECT jobq.enqueue('ttl', '1', expires_at => clock_timestamp() + interval '0.05 s') AS a, jobq.enqueue('ttl', '2') AS b \gset
SELECT pg_sleep_until(expires_at) AS x FROM jobq.job(:a) \gset
SELECT array_agg(payload) AS got FROM jobq.dequeue('ttl', 10) \gset
COMMIT;
SELECT is(:'got'::text, '{2}', 'own ones as well');
CALL pg_temp.await(format('(SELECT state = ''expired'' FROM jobq.job(%s))', :a));
SELECT jobq.cancel(:b) AS x \gset

-- a running job does not expire; one that failed may
SELECT jobq.enqueue('ttl', '1', expires_at => clock_timestamp() + interval '0.3 s') AS a, jobq.enqueue('ttl', '2', expires_at => clock_timestamp() + interval '0.3 s') AS b,
	jobq.enqueue('ttl', '3', expires_at => clock_timestamp() + interval '0.3 s') AS c, clock_timestamp() AS start \gset
SELECT max(lease) AS lease, count(*) AS n FROM jobq.dequeue('ttl', 3) \gset
SELECT jobq.fail(:a, :lease, 'boom') AS x \gset
SELECT is((state, run_at = expires_at)::text, '(retryable,t)', 'waits no longer than it may') FROM jobq.job(:a);
CALL pg_temp.await(format('(SELECT is_final FROM jobq.job(%s))', :a));
SELECT is((state, attempt, last_error)::text, '(expired,1,expired)', 'expired instead of a retry') FROM jobq.job(:a);
SELECT ok(clock_timestamp() - :'start' < '1 s', 'before its backoff is over');
SELECT is(string_agg(attempt || outcome || coalesce(error, ''), ' '), '1failedboom', 'its attempt stays known') FROM jobq.attempts(:a);
SELECT is(state, 'running', 'a running one goes on') FROM jobq.job(:b);
SELECT is(pg_temp.try(format('complete(%s, %s)', :b, :lease)), 'ok', 'and completes');
SELECT jobq.release(:c, :lease) AS x \gset
CALL pg_temp.await(format('(SELECT state = ''expired'' FROM jobq.job(%s))', :c));
SELECT pass('one given back too late expires');

-- a scheduled one
SELECT jobq.enqueue('ttl', '1', delay => '0.1 s', expires_at => clock_timestamp() + interval '0.2 s') AS a \gset
CALL pg_temp.await(format('(SELECT state = ''expired'' FROM jobq.job(%s))', :a));
SELECT jobq.enqueue('ttl', '1', delay => '1 h', expires_at => clock_timestamp() + interval '2 h') AS b \gset
SELECT is(state, 'scheduled', 'waits') FROM jobq.job(:b);
SELECT jobq.cancel(:b) AS x \gset

-- a cancel that is rolled back brings it back to those that expire
SELECT jobq.enqueue('ttl', '1', expires_at => clock_timestamp() + interval '0.1 s') AS a \gset
BEGIN;
SELECT jobq.cancel(:a) AS x \gset
SELECT pg_sleep_until(expires_at) AS x FROM jobq.job(:a) \gset
SELECT jobq.run_maintenance() AS x \gset
SELECT is(pg_temp.check_dispatch(), NULL, 'memory is consistent');
ROLLBACK;
CALL pg_temp.await(format('(SELECT state = ''expired'' FROM jobq.job(%s))', :a));
SELECT pass('expired after all');

-- ---- retry ----

SELECT jobq.retry(:a) AS again \gset
SELECT is((state, retry_of = :a, expires_at)::text, '(available,t,)', 'a new job, without an end of its own') FROM jobq.job(:again);
SELECT jobq.alter_queue('ttl', '{"ttl": "2 h"}') AS x, jobq.retry(:a) AS again2 \gset
SELECT is(expires_at - run_at, interval '2 h', 'or with the queue''s') FROM jobq.job(:again2);
SELECT jobq.purge_queue('ttl') AS x \gset

-- ---- to the dead letters ----

SELECT jobq.alter_queue('ttl', '{"ttl": "0.1 s", "dead_letter": "ttl dead", "expired_to": "dead_letter"}') AS x \gset
SELECT is(pg_temp.try('alter_queue(''ttl'', ''{"dead_letter": null}'')'), 'JQ007', 'the dead-letter queue is needed');
SELECT jobq.alter_queue('ttl dead', '{"ttl": "1 h"}') AS x,
	(SELECT expired_total FROM jobq.queue_stats WHERE queue = 'ttl') AS before \gset
SELECT jobq.enqueue('ttl', '{"n": 1}', kind => 'k', headers => '{"h": 1}') AS a, jobq.enqueue('ttl', '{"n": 2}', delay => '0.1 s') AS b,
	jobq.enqueue('ttl', '{"n": 3}') AS c, jobq.enqueue('ttl', '{"n": 4}') AS d \gset
CALL pg_temp.await(format('(SELECT count(*) = 4 FROM jobq.history WHERE id IN (%s, %s, %s, %s))', :a, :b, :c, :d));
SELECT is(array_agg(state || (moved_to IS NOT NULL) ORDER BY id), '{expiredtrue,expiredtrue,expiredtrue,expiredtrue}', 'expired, with a copy')
	FROM jobq.history WHERE id IN (:a, :b, :c, :d);
SELECT is((expired_total - :before, dead_total)::text, '(4,0)', 'counted as expired') FROM jobq.queue_stats WHERE queue = 'ttl';
SELECT is((d.queue, d.state, d.kind, d.payload, d.headers->'h', d.headers #>> '{dead_letter,reason}', d.headers #>> '{dead_letter,queue}',
		(d.headers #>> '{dead_letter,id}')::bigint = :a, d.expires_at - d.run_at)::text,
	'("ttl dead",available,k,"{""n"": 1}",1,expired,ttl,t,01:00:00)', 'the copy')
	FROM jobq.job(:a) j, jobq.jobs d WHERE d.id = j.moved_to;
SELECT is(count(*), 0::bigint, 'it is no dead job') FROM jobq.dead_jobs;

-- each runs again at most once
SELECT moved_to AS copy_a FROM jobq.job(:a) \gset
SELECT moved_to AS copy_b FROM jobq.job(:b) \gset
SELECT jobq.alter_queue('ttl', '{"ttl": null}') AS x, jobq.retry(:a) AS again \gset
SELECT is((state, last_error)::text, '(cancelled,redriven)', 'the copy of one that is retried does not run') FROM jobq.job(:copy_a);
SELECT is(pg_temp.try(format('retry(%s)', :a)), 'JQ008', 'only once');
SELECT is(count(*), 1::bigint, 'a copy runs') FROM jobq.dequeue('ttl dead');
SELECT is(pg_temp.try(format('retry(%s)', id)), 'JQ008', 'then the original does not')
	FROM (SELECT retry_of, (headers #>> '{dead_letter,id}')::bigint AS id FROM jobq.jobs WHERE queue = 'ttl dead' AND state = 'running') x;
SELECT jobq.redrive('ttl dead') AS n \gset
SELECT is(:n, 2, 'the others are redriven');
SELECT is(pg_temp.try(format('retry(%s)', headers #>> '{dead_letter,id}')), 'JQ008', 'not twice')
	FROM jobq.history WHERE queue = 'ttl dead' AND last_error = 'redriven';
SELECT is(array_agg(payload->'n' ORDER BY payload->'n'), '{1,2,4}'::jsonb[], 'they are back') FROM jobq.jobs WHERE queue = 'ttl';

-- ---- the end ----

SELECT is(pg_temp.check_dispatch(), NULL, 'memory is consistent');
SELECT jobq.drop_queue('ttl dead', true) AS x \gset
SELECT ok(NOT options ?| ARRAY['dead_letter', 'expired_to'], 'with its dead-letter queue a queue loses what needs it')
	FROM jobq.queues WHERE queue = 'ttl';
SELECT jobq.drop_queue('ttl', true) AS x \gset
SELECT * FROM finish();
