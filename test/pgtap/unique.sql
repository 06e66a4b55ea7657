-- Unique keys, seen from one session: the four modes, how long a key is held,
-- whose it is, and what every other function does with the job that holds it.
\ir setup.psql
CREATE FUNCTION pg_temp.state(bigint) RETURNS text LANGUAGE sql AS
	$$SELECT state FROM jobq.job($1)$$;
SELECT jobq.create_queue('uq', '{"max_attempts": 5, "backoff": {"base": "1 h", "jitter": 0}}') AS x,
	jobq.create_queue('uq2') AS y \gset

-- ---- ignore ----

SELECT id AS a, outcome AS oa FROM jobq.enqueue_unique('uq', '1', unique_key => 'k') \gset
SELECT id AS b, outcome AS ob FROM jobq.enqueue_unique('uq', '2', unique_key => 'k') \gset
SELECT is(:'oa'::text, 'inserted', 'the first is inserted');
SELECT is(:'ob'::text, 'existing', 'the second exists');
SELECT is(:a::bigint, :b::bigint, 'the same job');
SELECT is(jobq.enqueue('uq', '3', unique_key => 'k'), :a::bigint, 'enqueue says the same');
SELECT is(payload, '1', 'ignore changes nothing') FROM jobq.job(:a);
SELECT is(unique_key, 'k', 'the key shows') FROM jobq.jobs WHERE id = :a;
SELECT is(count(*), 1::bigint, 'one job') FROM jobq.jobs WHERE queue = 'uq';
SELECT isnt(jobq.enqueue('uq', unique_key => 'K'), :a::bigint, 'case counts');
SELECT isnt(jobq.enqueue('uq2', unique_key => 'k'), :a::bigint, 'another queue');
SELECT is(outcome, 'inserted', 'no key, no conflict') FROM jobq.enqueue_unique('uq');
SELECT is(outcome, 'inserted', 'an empty key is a key') FROM jobq.enqueue_unique('uq', unique_key => '');
SELECT is(outcome, 'existing', 'and held') FROM jobq.enqueue_unique('uq', unique_key => '');
SELECT is(jobq.purge_queue('uq'), 4::bigint, 'purged');
SELECT is(outcome, 'inserted', 'purging frees the key') FROM jobq.enqueue_unique('uq', unique_key => 'k');
SELECT ok(bool_and(jobq.cancel(id)), 'cancelled') FROM jobq.jobs WHERE queue = 'uq';
SELECT id AS a, outcome AS oa FROM jobq.enqueue_unique('uq', unique_key => 'k', delay => '1 h') \gset
SELECT is(:'oa'::text, 'inserted', 'so does cancelling');
SELECT is(jobq.enqueue('uq', unique_key => 'k'), :a::bigint, 'a scheduled job holds its key');
SELECT ok(jobq.reschedule(:a), 'made due');
SELECT is(jobq.enqueue('uq', unique_key => 'k'), :a::bigint, 'an available one does');
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT is(jobq.enqueue('uq', unique_key => 'k'), :a::bigint, 'a running one does');
SELECT is(jobq.fail(:a, :lease), 'retryable', 'failed');
SELECT is(jobq.enqueue('uq', unique_key => 'k'), :a::bigint, 'a retrying one does');
SELECT jobq.reschedule(:a) AS x \gset
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT jobq.complete(:a, :lease) \g /dev/null
SELECT is(outcome, 'inserted', 'a completed one does not') FROM jobq.enqueue_unique('uq', unique_key => 'k');
SELECT id AS a, lease FROM jobq.dequeue('uq') \gset
SELECT jobq.fail(:a, :lease, 'x', false) AS x \gset
SELECT is(outcome, 'inserted', 'nor does a dead one') FROM jobq.enqueue_unique('uq', unique_key => 'k');
SELECT id AS a, lease FROM jobq.dequeue('uq') \gset
SELECT ok(jobq.cancel(:a, grace => '1 h'), 'cancelled with grace');
SELECT is(outcome, 'inserted', 'nor one that is being cancelled') FROM jobq.enqueue_unique('uq', unique_key => 'k');
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- error ----

SELECT jobq.enqueue('uq', unique_key => 'e') AS a \gset
SELECT throws_ok($$SELECT jobq.enqueue('uq', unique_key => 'e', on_conflict => 'error')$$, 'JQ008',
	'the unique key is taken in queue "uq"');
SELECT lives_ok($$SELECT jobq.enqueue('uq', unique_key => 'e2', on_conflict => 'error')$$, 'a free key');
DO $$
DECLARE
	detail text;
BEGIN
	PERFORM jobq.enqueue('uq', unique_key => 'e', on_conflict => 'error');
EXCEPTION WHEN SQLSTATE 'JQ008' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	PERFORM set_config('uq.detail', detail, false);
END
$$;
SELECT is(current_setting('uq.detail'), format('Job %s holds it.', :a), 'it says who');
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- replace ----

SELECT jobq.enqueue('uq', '{"n": 1}', unique_key => 'r') AS a \gset
SELECT jobq.enqueue('uq', '{"n": 2}', priority => 1) AS other \gset
SELECT is(outcome, 'replaced', 'replaced') FROM jobq.enqueue_unique('uq', '{"n": 3}', kind => 'x',
	priority => 5, max_attempts => 2, group_key => 'g', headers => '{"h": 1}',
	unique_key => 'r', on_conflict => 'replace') WHERE id = :a;
SELECT is(payload::text || kind || priority || max_attempts || group_key || headers, '{"n": 3}x52g{"h": 1}', 'payload and options') FROM jobq.job(:a);
SELECT is(array_agg(id), ARRAY[:other, :a]::bigint[], 'its place in the order') FROM jobq.peek('uq');
SELECT ok(run_at < clock_timestamp() - '0 s'::interval AND enqueued_at <= run_at, 'run_at stays') FROM jobq.job(:a);
SELECT id AS other, lease FROM jobq.dequeue('uq') \gset
SELECT jobq.complete(:other, :lease) \g /dev/null
SELECT lease, payload AS p, attempt AS t FROM jobq.dequeue('uq') \gset
SELECT is(:'p'::text, '{"n": 3}', 'delivered as it is now');
SELECT is(outcome, 'existing', 'a running one is not replaced') FROM jobq.enqueue_unique('uq', '{"n": 4}', unique_key => 'r', on_conflict => 'replace');
SELECT jobq.fail(:a, :lease, 'oops') AS x \gset
SELECT is(outcome, 'replaced', 'a retrying one is') FROM jobq.enqueue_unique('uq', '{"n": 5}', unique_key => 'r', on_conflict => 'replace');
SELECT is(concat_ws(' ', state, attempt, max_attempts, last_error, payload), 'retryable 1 6 oops {"n": 5}', 'with all attempts to come') FROM jobq.job(:a);
SELECT ok(run_at > clock_timestamp() + '50 min', 'at its time') FROM jobq.job(:a);
SELECT is(outcome, 'replaced', 'with a time of its own') FROM jobq.enqueue_unique('uq', '{"n": 6}', delay => '2 h', unique_key => 'r', on_conflict => 'replace');
SELECT ok(run_at > clock_timestamp() + '110 min', 'that counts') FROM jobq.job(:a);
SELECT is(outcome, 'replaced', 'and now') FROM jobq.enqueue_unique('uq', '{"n": 7}', run_at => clock_timestamp() - interval '1 h', unique_key => 'r', on_conflict => 'replace');
SELECT is(concat_ws(' ', state, payload), 'available {"n": 7}', 'due at once') FROM jobq.job(:a);
SELECT is(outcome, 'replaced', 'back to the shelf') FROM jobq.enqueue_unique('uq', '{"n": 8}', delay => '1 h', unique_key => 'r', on_conflict => 'replace');
SELECT is(concat_ws(' ', state, payload), 'retryable {"n": 8}', 'waiting') FROM jobq.job(:a);
SELECT is(concat_ws(' ', available, scheduled, retryable, running), '0 0 1 0', 'and counted') FROM jobq.queue_stats WHERE queue = 'uq';
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- debounce ----

SELECT jobq.enqueue('uq', '1', delay => '10 min', unique_key => 'd') AS a \gset
SELECT enqueued_at AS at FROM jobq.job(:a) \gset
SELECT is(outcome, 'debounced', 'debounced') FROM jobq.enqueue_unique('uq', '2', delay => '20 min', unique_key => 'd', on_conflict => 'debounce') WHERE id = :a;
SELECT ok(payload = '2' AND run_at >= :'at'::timestamptz + '20 min' AND enqueued_at = :'at', 'pushed') FROM jobq.job(:a);
SELECT is(outcome, 'debounced', 'again') FROM jobq.enqueue_unique('uq', '3', delay => '20 min', unique_key => 'd', on_conflict => 'debounce', debounce_max => '15 min');
SELECT is(run_at, :'at'::timestamptz + '15 min', 'never past enqueued_at + debounce_max') FROM jobq.job(:a);
SELECT is(outcome, 'debounced', 'and again') FROM jobq.enqueue_unique('uq', '4', delay => '20 min', unique_key => 'd', on_conflict => 'debounce', debounce_max => '0');
SELECT is(concat_ws(' ', state, payload), 'available 4', 'the bound has passed') FROM jobq.job(:a);
SELECT run_at AS at FROM jobq.job(:a) \gset
SELECT is(outcome, 'debounced', 'and once more') FROM jobq.enqueue_unique('uq', '5', delay => '20 min', unique_key => 'd', on_conflict => 'debounce', debounce_max => '0');
SELECT is(run_at, :'at', 'a due job keeps its place') FROM jobq.job(:a);
SELECT is(outcome, 'debounced', 'no bound') FROM jobq.enqueue_unique('uq', '6', delay => '20 min', unique_key => 'd', on_conflict => 'debounce');
SELECT is(pg_temp.state(:a), 'scheduled', 'back to the shelf');
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- unique_while waiting ----

SELECT jobq.enqueue('uq', '1', unique_key => 'w', unique_while => 'waiting') AS a \gset
SELECT is(jobq.enqueue('uq', '2', unique_key => 'w', unique_while => 'waiting'), :a::bigint, 'held while it waits');
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT id AS b, outcome AS o FROM jobq.enqueue_unique('uq', '3', unique_key => 'w', unique_while => 'waiting') \gset
SELECT is(:'o'::text, 'inserted', 'free at the claim');
SELECT is(jobq.enqueue('uq', '4', unique_key => 'w', unique_while => 'waiting'), :b::bigint, 'held by the newer one');
SELECT is(jobq.fail(:a, :lease, 'no luck'), 'cancelled', 'fail says so');
SELECT is(concat_ws(' ', state, attempt, last_error), 'cancelled 1 superseded', 'superseded') FROM jobq.history WHERE id = :a;
SELECT is(concat_ws(' ', outcome, error), 'failed no luck', 'its attempt has failed') FROM jobq.attempts(:a);
SELECT is(pg_temp.try(format('fail(%s, %s)', :a, :lease)), 'JQ015', 'settled under this lease');
SELECT is(concat_ws(' ', failed_total, cancelled_total > 0), '4 t', 'counted') FROM jobq.queue_stats WHERE queue = 'uq';
SELECT is(payload, '3', 'the newer one runs') FROM jobq.peek('uq');

-- released: the same
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT jobq.enqueue('uq', '5', unique_key => 'w', unique_while => 'waiting') AS c \gset
SELECT is(outcome, 'cancelled', 'released') FROM jobq.settle_jobs(jsonb_build_array(jsonb_build_object('id', :b, 'lease', :lease, 'do', 'release')));
SELECT is(concat_ws(' ', state, attempt, last_error), 'cancelled 0 superseded', 'superseded') FROM jobq.history WHERE id = :b;
SELECT is(pg_temp.try(format('release(%s, %s)', :b, :lease)), 'JQ015', 'settled');

-- nobody has come: it holds its key again
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT is(jobq.fail(:c, :lease), 'retryable', 'nobody has come');
SELECT is(jobq.enqueue('uq', '6', unique_key => 'w', unique_while => 'waiting'), :c::bigint, 'it holds its key again');

-- somebody has come and is running, or has ended
SELECT jobq.reschedule(:c) AS x \gset
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT jobq.enqueue('uq', '7', unique_key => 'w', unique_while => 'waiting') AS d \gset
SELECT lease AS lease2 FROM jobq.dequeue('uq') \gset
SELECT is(jobq.fail(:c, :lease), 'retryable', 'a newer one runs');
SELECT is(jobq.enqueue('uq', '8', unique_key => 'w', unique_while => 'waiting'), :c::bigint, 'it has its key back');
SELECT is(jobq.fail(:d, :lease2), 'cancelled', 'now the newer one is superseded');
SELECT jobq.reschedule(:c) AS x \gset
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT jobq.enqueue('uq', '9', unique_key => 'w', unique_while => 'live') AS e \gset
SELECT lease AS lease2 FROM jobq.dequeue('uq') \gset
SELECT is(jobq.fail(:c, :lease), 'cancelled', 'one that is unique while live holds the key while it runs');
SELECT is(jobq.enqueue('uq', '9', unique_key => 'w', unique_while => 'waiting'), :e::bigint, 'for everybody');
SELECT is(jobq.fail(:e, :lease2), 'retryable', 'and keeps it');
SELECT is(jobq.enqueue('uq', '9', unique_key => 'w'), :e::bigint, 'while it waits');
SELECT jobq.purge_queue('uq') AS x \gset

-- dead is dead
SELECT jobq.enqueue('uq', '1', unique_key => 'w', unique_while => 'waiting') AS a \gset
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT jobq.enqueue('uq', '2', unique_key => 'w', unique_while => 'waiting') AS b \gset
SELECT is(jobq.fail(:a, :lease, 'x', false), 'dead', 'one that would not wait again dies');
SELECT jobq.purge_queue('uq') AS x \gset

-- rolled back: the keeper finds it superseded
SELECT jobq.enqueue('uq', '1', unique_key => 'w', unique_while => 'waiting') AS a \gset
BEGIN;
SELECT lease FROM jobq.dequeue('uq') \gset
ROLLBACK;
CALL pg_temp.await(format('(SELECT state = ''retryable'' AND attempt = 1 FROM jobq.job(%s))', :a));
SELECT is(jobq.enqueue('uq', '2', unique_key => 'w', unique_while => 'waiting'), :a::bigint, 'rolled back: it waits');
SELECT jobq.reschedule(:a) AS x \gset
SELECT lease FROM jobq.dequeue('uq', lease_for => '1 s') \gset
SELECT jobq.enqueue('uq', '3', unique_key => 'w', unique_while => 'waiting') AS b \gset
CALL pg_temp.await(format('(SELECT state = ''cancelled'' FROM jobq.job(%s))', :a));
SELECT is(concat_ws(' ', attempt, last_error), '2 superseded', 'its lease has expired') FROM jobq.history WHERE id = :a;
SELECT is(array_agg(outcome), '{rolled_back,lease_expired}', 'attempts') FROM jobq.attempts(:a);
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- unique_for ----

SELECT jobq.enqueue('uq', '1', unique_key => 'f', unique_for => '1 h') AS a \gset
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT jobq.complete(:a, :lease) \g /dev/null
SELECT is(jobq.enqueue('uq', '2', unique_key => 'f'), :a::bigint, 'held after its end');
SELECT is(outcome, 'existing', 'not to be replaced') FROM jobq.enqueue_unique('uq', '2', unique_key => 'f', on_conflict => 'replace');
SELECT is(pg_temp.try($$enqueue('uq', unique_key => 'f', on_conflict => 'error')$$), 'JQ008', 'or an error');
SELECT isnt(jobq.retry(:a), :a::bigint, 'but not against itself');
SELECT jobq.purge_queue('uq') AS x \gset
SELECT jobq.enqueue('uq', '1', unique_key => 'f2', unique_while => 'waiting', unique_for => '1 h') AS a \gset
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT is(jobq.enqueue('uq', '2', unique_key => 'f2'), :a::bigint, 'held after the claim');
SELECT is(jobq.fail(:a, :lease), 'retryable', 'nobody could come');
SELECT jobq.purge_queue('uq') AS x \gset
SELECT jobq.enqueue('uq', '1', unique_key => 'f3', unique_for => '0.2 s') AS a \gset
SELECT jobq.cancel(:a) AS x \gset
CALL pg_temp.await($$(SELECT outcome = 'inserted' FROM jobq.enqueue_unique('uq', unique_key => 'f3'))$$);
SELECT ok(clock_timestamp() >= enqueued_at + '0.2 s', 'not before') FROM jobq.job(:a);
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- jobs that start too late ----

SELECT jobq.enqueue('uq', '1', unique_key => 't', expires_at => clock_timestamp() + '0.1 s') AS a \gset
SELECT is(jobq.enqueue('uq', '2', unique_key => 't'), :a::bigint, 'held in time');
CALL pg_temp.await(format('(SELECT clock_timestamp() > expires_at FROM jobq.job(%s))', :a));
SELECT isnt(jobq.enqueue('uq', '2', unique_key => 't'), :a::bigint, 'but not by a job that will never run');
SELECT is(pg_temp.state(:a), 'expired', 'which has expired');
SELECT jobq.purge_queue('uq') AS x \gset
-- its own transaction's too, before the keeper could know
BEGIN;
SELECT jobq.enqueue('uq', '1', unique_key => 't', expires_at => clock_timestamp() + '20 ms') AS a,
	jobq.enqueue('uq', '1', unique_key => 't2', expires_at => clock_timestamp() + '20 ms') AS b \gset
SELECT pg_temp.await_clock(expires_at) FROM jobq.job(:b) \g /dev/null
SELECT isnt(jobq.enqueue('uq', '2', unique_key => 't'), :a::bigint, 'an own one');
SELECT is(outcome, 'inserted', 'is not replaced') FROM jobq.enqueue_unique('uq', '2', unique_key => 't2', on_conflict => 'replace');
COMMIT;
SELECT is(pg_temp.state(:a) || pg_temp.state(:b), 'expiredexpired', 'both have expired');
SELECT jobq.purge_queue('uq') AS x \gset
-- replacing renews the queue's ttl
SELECT jobq.create_queue('uq ttl', '{"ttl": "1 h"}') AS x \gset
SELECT jobq.enqueue('uq ttl', unique_key => 't', expires_at => clock_timestamp() + '2 h') AS a \gset
SELECT is(outcome, 'replaced', 'replaced') FROM jobq.enqueue_unique('uq ttl', unique_key => 't', on_conflict => 'replace');
SELECT is(expires_at, run_at + '1 h', 'run_at + ttl') FROM jobq.job(:a);
SELECT jobq.drop_queue('uq ttl', true) \g /dev/null

-- ---- one transaction ----

BEGIN;
SELECT jobq.enqueue('uq', '1', unique_key => 'x') AS a \gset
SELECT is(jobq.enqueue('uq', '2', unique_key => 'x'), :a::bigint, 'an own uncommitted job holds its key');
SELECT is(outcome, 'replaced', 'is replaced') FROM jobq.enqueue_unique('uq', '3', unique_key => 'x', on_conflict => 'replace');
SELECT is(outcome, 'debounced', 'is debounced') FROM jobq.enqueue_unique('uq', '4', delay => '1 h', unique_key => 'x', on_conflict => 'debounce');
SELECT is(outcome, 'debounced', 'and back') FROM jobq.enqueue_unique('uq', '5', unique_key => 'x', on_conflict => 'debounce');
SELECT lease, payload AS p FROM jobq.dequeue('uq') \gset
SELECT is(:'p'::text, '5', 'and delivered');
SELECT is(jobq.enqueue('uq', '6', unique_key => 'x'), :a::bigint, 'held while it runs');
SELECT jobq.complete(:a, :lease) \g /dev/null
SELECT isnt(jobq.enqueue('uq', '7', unique_key => 'x'), :a::bigint, 'free when it has ended');
COMMIT;
SELECT is(array_agg(payload), '{7}', 'and so it is') FROM jobq.peek('uq');
SELECT jobq.purge_queue('uq') AS x \gset

BEGIN;
SAVEPOINT s;
SELECT jobq.enqueue('uq', '1', unique_key => 'x') AS a \gset
ROLLBACK TO s;
SELECT isnt(jobq.enqueue('uq', '2', unique_key => 'x'), :a::bigint, 'a subtransaction that was undone leaves nothing');
COMMIT;
SELECT id AS a FROM jobq.peek('uq') \gset
BEGIN;
SELECT lease FROM jobq.dequeue('uq') \gset
SAVEPOINT s;
SELECT jobq.complete(:a, :lease) \g /dev/null
SELECT isnt(jobq.enqueue('uq', '3', unique_key => 'x'), :a::bigint, 'complete and enqueue again');
ROLLBACK TO s;
SELECT is(jobq.enqueue('uq', '4', unique_key => 'x'), :a::bigint, 'undone: it runs on');
SELECT jobq.complete(:a, :lease) \g /dev/null
COMMIT;
BEGIN;
SELECT jobq.enqueue('uq', '5', unique_key => 'x') AS a \gset
SAVEPOINT s;
SELECT is(outcome, 'replaced', 'replaced') FROM jobq.enqueue_unique('uq', '6', unique_key => 'x', on_conflict => 'replace');
ROLLBACK TO s;
COMMIT;
SELECT is(payload, '5', 'and undone') FROM jobq.job(:a);
BEGIN;
SELECT is(outcome, 'replaced', 'replaced') FROM jobq.enqueue_unique('uq', '7', unique_key => 'x', on_conflict => 'replace');
ROLLBACK;
SELECT is(payload, '5', 'and undone, as a whole') FROM jobq.job(:a);
BEGIN;
SELECT ok(jobq.cancel(:a), 'cancelled here');
SELECT isnt(jobq.enqueue('uq', '8', unique_key => 'x'), :a::bigint, 'so the key is free here');
ROLLBACK;
SELECT is(jobq.enqueue('uq', '9', unique_key => 'x'), :a::bigint, 'and not free after all');
SELECT jobq.purge_queue('uq') AS x \gset

-- every isolation level
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT jobq.enqueue('uq', unique_key => 'x') AS a \gset
SELECT is(jobq.enqueue('uq', unique_key => 'x'), :a::bigint, 'serializable');
COMMIT;
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- prepared transactions ----

BEGIN;
SELECT jobq.enqueue('uq', unique_key => 'p') AS a \gset
PREPARE TRANSACTION 'uq';
SET lock_timeout = '100 ms';
SELECT is(pg_temp.try($$enqueue('uq', unique_key => 'p')$$), '55P03', 'a prepared transaction is waited for');
SELECT is(pg_temp.try($$enqueue('uq', unique_key => 'p2')$$), 'ok', 'for its key only');
RESET lock_timeout;
COMMIT PREPARED 'uq';
SELECT is(jobq.enqueue('uq', unique_key => 'p'), :a::bigint, 'committed: it holds its key');
BEGIN;
SELECT jobq.enqueue('uq', unique_key => 'p', on_conflict => 'replace') AS x \gset
\set ON_ERROR_STOP 0
PREPARE TRANSACTION 'uq';
\set ON_ERROR_STOP 1
SELECT is(:'SQLSTATE'::text, '0A000', 'replacing changes a job');
SELECT is(count(*), 0::bigint, 'which cannot be prepared') FROM pg_prepared_xacts;
CALL pg_temp.await($$(SELECT available >= 1 FROM jobq.queue_stats WHERE queue = 'uq')$$);
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- retry and redrive ----

SELECT jobq.enqueue('uq', '1', unique_key => 'z', unique_while => 'waiting') AS a \gset
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT jobq.fail(:a, :lease, 'x', false) AS x \gset
SELECT jobq.enqueue('uq', '2', unique_key => 'z') AS b \gset
SELECT is(pg_temp.try(format('retry(%s)', :a)), 'JQ008', 'retry: the key is taken');
SELECT is(jobq.redrive('uq', died_after => (SELECT enqueued_at FROM jobq.job(:a))), 0::bigint, 'redrive: skipped and not counted');
SELECT jobq.cancel(:b) AS x \gset
SELECT jobq.retry(:a) AS c \gset
SELECT is(unique_key, 'z', 'retry: it has the key') FROM jobq.job(:c);
SELECT is(jobq.enqueue('uq', '3', unique_key => 'z'), :c::bigint, 'and holds it');
SELECT lease FROM jobq.dequeue('uq') \gset
SELECT isnt(jobq.enqueue('uq', '4', unique_key => 'z'), :c::bigint, 'on the same terms');
SELECT is(jobq.fail(:c, :lease), 'cancelled', 'so it can be superseded');
SELECT jobq.purge_queue('uq') AS x \gset

SELECT jobq.create_queue('uq from', '{"dead_letter": "uq dead", "max_attempts": 1}') AS x \gset
SELECT jobq.enqueue('uq from', '1', unique_key => 'z') AS a \gset
SELECT jobq.fail(id, lease) AS x FROM jobq.dequeue('uq from') \gset
SELECT jobq.enqueue('uq from', '2', unique_key => 'z') AS b \gset
SELECT jobq.fail(id, lease) AS x FROM jobq.dequeue('uq from') \gset
SELECT is(count(*), 2::bigint, 'copies of dead jobs hold no key') FROM jobq.jobs WHERE queue = 'uq dead' AND unique_key = 'z';
SELECT is(outcome, 'inserted', 'so it is free') FROM jobq.enqueue_unique('uq dead', unique_key => 'z');
SELECT jobq.fail(id, lease, 'x') AS x, pg_temp.check_dispatch() AS y FROM jobq.dequeue('uq dead', 1) \gset
SELECT is(jobq.purge_queue('uq dead', '{retryable}'), 1::bigint, 'a copy fails like any job');
SELECT jobq.cancel(id) AS x FROM jobq.jobs WHERE queue = 'uq dead' AND headers IS NULL \gset
SELECT jobq.enqueue('uq from', '3', unique_key => 'z') AS c \gset
SELECT is(jobq.redrive('uq dead'), 0::bigint, 'redrive: its key is taken');
SELECT is(count(*), 1::bigint, 'it stays where it is') FROM jobq.jobs WHERE queue = 'uq dead';
SELECT jobq.cancel(:c) AS x \gset
SELECT is(jobq.redrive('uq dead'), 1::bigint, 'now it is free');
SELECT is(concat_ws(' ', payload, unique_key), '2 z', 'it runs again') FROM jobq.jobs WHERE queue = 'uq from';
SELECT is(jobq.enqueue('uq from', '4', unique_key => 'z'), id, 'and holds its key') FROM jobq.peek('uq from');
SELECT jobq.drop_queue('uq from', true) \g /dev/null
SELECT jobq.drop_queue('uq dead', true) \g /dev/null
-- two of one key: one of them
SELECT jobq.enqueue('uq', n::text::jsonb, unique_key => 'y') AS x FROM generate_series(1, 1) n \gset
SELECT jobq.fail(id, lease, 'x', false) AS x FROM jobq.dequeue('uq') \gset
SELECT jobq.enqueue('uq', '2', unique_key => 'y') AS x \gset
SELECT jobq.fail(id, lease, 'x', false) AS x FROM jobq.dequeue('uq') \gset
SELECT jobq.redrive('uq') AS n \gset
SELECT is(count(*), 1::bigint, 'of two dead jobs of one key one is redriven') FROM jobq.jobs WHERE queue = 'uq' AND unique_key = 'y';
SELECT jobq.purge_queue('uq') AS x \gset

-- ---- whose key it is ----

CREATE ROLE uq_a;
CREATE ROLE uq_b;
CREATE ROLE uq_reader;
SELECT jobq.create_queue('uq roles') AS x,
	jobq.grant_queue('uq roles', 'uq_a', '{enqueue}') AS y,
	jobq.grant_queue('uq roles', 'uq_b', '{enqueue}') AS z,
	jobq.grant_queue('uq roles', 'uq_reader', '{enqueue,read}') AS zz \gset
SET ROLE uq_a;
SELECT jobq.enqueue('uq roles', '"a"', unique_key => 'k') AS a \gset
SELECT is(outcome, 'existing', 'one''s own') FROM jobq.enqueue_unique('uq roles', unique_key => 'k');
SET ROLE uq_b;
SELECT id AS b, outcome AS o FROM jobq.enqueue_unique('uq roles', '"b"', unique_key => 'k', on_conflict => 'error') \gset
SELECT is(:'o'::text, 'inserted', 'a conflict never reveals another role''s job');
SELECT is(outcome, 'replaced', 'nor is that touched') FROM jobq.enqueue_unique('uq roles', '"b2"', unique_key => 'k', on_conflict => 'replace') WHERE id = :b;
SET ROLE uq_reader;
SELECT is(outcome, 'existing', 'who may see the job conflicts with it') FROM jobq.enqueue_unique('uq roles', unique_key => 'k') WHERE id IN (:a, :b);
SELECT is(pg_temp.try($$enqueue('uq roles', unique_key => 'k', on_conflict => 'replace')$$), '42501', 'but may not change it');
SELECT is(pg_temp.try($$enqueue('uq roles', unique_key => 'k', on_conflict => 'error')$$), 'JQ008', 'nor take its key');
RESET ROLE;
SELECT is(outcome, 'replaced', 'a manager may change it') FROM jobq.enqueue_unique('uq roles', '"m"', unique_key => 'k', on_conflict => 'replace') WHERE id = :b;
SELECT is(enqueued_by, 'uq_b', 'it stays whose it was') FROM jobq.job(:b);
SELECT is(payload, '"a"', 'the other one is as it was') FROM jobq.job(:a);
GRANT uq_a TO uq_b;
SET ROLE uq_b;
SELECT is(outcome, 'existing', 'one''s own comes first') FROM jobq.enqueue_unique('uq roles', unique_key => 'k') WHERE id = :b;
SELECT ok(jobq.cancel(:b), 'cancelled');
SELECT is(outcome, 'existing', 'then that of a role one is a member of') FROM jobq.enqueue_unique('uq roles', unique_key => 'k') WHERE id = :a;
RESET ROLE;
REVOKE uq_a FROM uq_b;
-- superseded only by what its enqueuer may see
SELECT jobq.purge_queue('uq roles') AS x \gset
SET ROLE uq_a;
SELECT jobq.enqueue('uq roles', '1', unique_key => 's', unique_while => 'waiting') AS a \gset
RESET ROLE;
SELECT lease FROM jobq.dequeue('uq roles') \gset
SET ROLE uq_b;
SELECT jobq.enqueue('uq roles', '2', unique_key => 's', unique_while => 'waiting') AS b \gset
RESET ROLE;
SELECT is(jobq.fail(:a, :lease), 'retryable', 'not by a job that its enqueuer may not see');
SELECT jobq.purge_queue('uq roles') AS x \gset
SET ROLE uq_reader;
SELECT jobq.enqueue('uq roles', '1', unique_key => 's', unique_while => 'waiting') AS a \gset
RESET ROLE;
SELECT lease FROM jobq.dequeue('uq roles') \gset
SET ROLE uq_b;
SELECT jobq.enqueue('uq roles', '2', unique_key => 's', unique_while => 'waiting') AS b \gset
RESET ROLE;
SELECT is(jobq.fail(:a, :lease), 'retryable', 'nor by one whose enqueuer could not see it');
SELECT jobq.purge_queue('uq roles') AS x \gset
SET ROLE uq_reader;
SELECT jobq.enqueue('uq roles', '1', unique_key => 's', unique_while => 'waiting') AS a \gset
RESET ROLE;
SELECT lease FROM jobq.dequeue('uq roles') \gset
SELECT jobq.enqueue('uq roles', '2', unique_key => 's', unique_while => 'waiting') AS b \gset
SELECT is(jobq.fail(:a, :lease), 'cancelled', 'but by any other role''s');

-- ---- words and bounds ----

SELECT is(pg_temp.try(call), 'JQ007', call) FROM unnest(ARRAY[
	$$enqueue('uq', unique_key => repeat('x', 256))$$,
	$$enqueue('uq', unique_key => 'k', on_conflict => 'nothing')$$,
	$$enqueue('uq', on_conflict => 'nothing')$$,
	$$enqueue('uq', unique_key => 'k', unique_while => 'running')$$,
	$$enqueue('uq', unique_key => 'k', unique_for => '-1 s')$$,
	$$enqueue('uq', unique_key => 'k', unique_for => '1000 years')$$,
	$$enqueue('uq', unique_key => 'k', on_conflict => 'debounce', debounce_max => '-1 s')$$,
	$$enqueue('uq', unique_key => 'k', debounce_max => '1 s')$$]) call;
SELECT is(pg_temp.try(call), 'ok', call) FROM unnest(ARRAY[
	$$enqueue('uq', unique_key => repeat('x', 255))$$,
	$$enqueue('uq', unique_key => 'k', on_conflict => NULL, unique_while => NULL)$$,
	$$enqueue('uq', on_conflict => 'error', unique_while => 'waiting', unique_for => '1 s')$$]) call;

-- ---- what is left of it ----

SELECT is(count(*), 0::bigint, 'no rows of queues that are gone') FROM jobq.ukey u
	WHERE NOT EXISTS (SELECT FROM jobq.queue q WHERE q.queue_id = u.queue_id);
SELECT jobq.purge_queue('uq') AS x \gset
SELECT jobq.enqueue('uq', '1', unique_key => 'kept') AS a \gset
SELECT jobq.enqueue('uq', '1', unique_key => 'gone') AS b \gset
SELECT jobq.enqueue('uq', '1', unique_key => 'young') AS c \gset
SELECT ok(jobq.cancel(:b) AND jobq.cancel(:c), 'two keys are free');
UPDATE jobq.ukey SET free_at = free_at - interval '2 days' WHERE key <> 'young';
SELECT jobq.run_maintenance() \g /dev/null
SELECT is(count(*), 0::bigint, 'rows of old free keys go') FROM jobq.ukey WHERE key = 'gone';
SELECT is(count(*), 2::bigint, 'others do not') FROM jobq.ukey WHERE key IN ('kept', 'young');
SELECT is(jobq.enqueue('uq', '2', unique_key => 'kept'), :a::bigint, 'a live job holds its key for ever');
SELECT is(outcome, 'inserted', 'a key begins anew') FROM jobq.enqueue_unique('uq', '2', unique_key => 'gone');
SELECT is(gen, 1::bigint, 'from one') FROM jobq.ukey WHERE key = 'gone';

SELECT is(pg_temp.check_dispatch(), NULL, 'shared memory is consistent');
SELECT jobq.drop_queue('uq', true), jobq.drop_queue('uq2', true), jobq.drop_queue('uq roles', true) \g /dev/null
SELECT is(count(*), 0::bigint, 'drop_queue takes the keys along') FROM jobq.ukey;
DROP ROLE uq_a, uq_b, uq_reader;
SELECT * FROM finish();
