-- Wrong input for every argument of every function: its SQLSTATE and nothing
-- changed. Then what is just right, parameters without types, smaller
-- integers, and read-only transactions.
\set QUIET 1
SET client_min_messages = warning;
CREATE ROLE inputs_reader;
SELECT jobq.create_queue('inputs', '{"max_payload_bytes": 1000, "max_batch": 5,
	"max_attempts": 1, "lease_for": "1 h"}') AS made \gset
SELECT jobq.enqueue('inputs', '"dead"') AS dead \gset
SELECT lease FROM jobq.dequeue('inputs') \gset
SELECT jobq.fail(:dead, :lease) AS made \gset
SELECT jobq.enqueue('inputs', '"done"') AS done \gset
SELECT lease AS done_lease FROM jobq.dequeue('inputs') \gset
SELECT jobq.complete(:done, :done_lease) AS made \gset
SELECT jobq.enqueue('inputs', '"leased"') AS leased \gset
SELECT lease FROM jobq.dequeue('inputs') \gset
SELECT jobq.enqueue('inputs', '"waiting"') AS waiting \gset
SELECT jobq.enqueue('inputs', '"later"', delay => '1 day') AS later \gset
SELECT jobq.schedule('inputs', '@yearly', 'inputs') AS made \gset
SELECT jobq.create_access_key('inputs', 'inputs', '{read}') AS made \gset

BEGIN;
SELECT no_plan();

-- ---- how it is tried ----

-- $w, $l, $s, $d, $c stand for the waiting, leased, scheduled, dead and
-- completed job, $t for the lease, $e for the completed job's.
CREATE FUNCTION pg_temp.fill(call text) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT replace(replace(replace(replace(replace(replace(replace(call,
		'$w', current_setting('inputs.waiting')),
		'$l', current_setting('inputs.leased')),
		'$s', current_setting('inputs.later')),
		'$d', current_setting('inputs.dead')),
		'$c', current_setting('inputs.done')),
		'$t', current_setting('inputs.lease')),
		'$e', current_setting('inputs.done_lease'))
$$;
SELECT set_config('inputs.waiting', :'waiting', true),
	set_config('inputs.leased', :'leased', true),
	set_config('inputs.later', :'later', true),
	set_config('inputs.dead', :'dead', true),
	set_config('inputs.done', :'done', true),
	set_config('inputs.lease', :'lease', true),
	set_config('inputs.done_lease', :'done_lease', true) \g /dev/null

-- Everything that a call could have changed, in tables and in memory.
CREATE FUNCTION pg_temp.world() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ',
		(SELECT md5(string_agg(j::text, '|' ORDER BY id)) FROM jobq.jobs j),
		(SELECT md5(string_agg(j::text, '|' ORDER BY id)) FROM jobq.history j),
		(SELECT md5(string_agg(j::text, '|' ORDER BY id)) FROM jobq.dead_jobs j),
		(SELECT md5(string_agg(q::text, '|' ORDER BY id)) FROM jobq.queues q),
		(SELECT md5(string_agg((queue, available, scheduled, blocked, retryable,
			running, completed_total, failed_total, dead_total,
			cancelled_total, expired_total)::text, '|' ORDER BY queue))
			FROM jobq.queue_stats),
		(SELECT count(*) FROM jobq.queue_acl),
		(SELECT md5(string_agg(k::text, '|' ORDER BY key_id)) FROM jobq.access_key k),
		(SELECT md5(string_agg(s::text, '|' ORDER BY schedule_id)) FROM jobq.schedule s),
		(SELECT md5(string_agg(p::text, '|')) FROM jobq.peek('inputs', 100) p))
$$;

-- 'ok', or the SQLSTATE, 'without detail', 'at length' or 'changed something'.
CREATE FUNCTION pg_temp.try(call text, read_only boolean DEFAULT false)
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before text := pg_temp.world();
	result text;
	message text;
	detail text;
	hint text;
BEGIN
	BEGIN
		IF read_only THEN
			SET LOCAL transaction_read_only = on;
		END IF;
		EXECUTE CASE WHEN call LIKE 'CALL %' THEN 'CALL jobq.' ELSE 'SELECT jobq.' END
			|| replace(pg_temp.fill(call), 'CALL ', '');
		RAISE EXCEPTION 'ok' USING ERRCODE = 'YES01';
	EXCEPTION
		WHEN SQLSTATE 'YES01' THEN
			result := 'ok';
		WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT,
				detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
			result := SQLSTATE;
			IF length(message || detail || hint) > 2000 THEN
				result := result || ', at length';
			END IF;
			IF (SQLSTATE LIKE 'JQ%' OR SQLSTATE = '25001') AND (detail = '' OR hint = '') THEN
				result := result || ' without detail and hint';
			END IF;
	END;
	IF pg_temp.world() <> before THEN
		result := result || ', but something has changed';
	END IF;
	RETURN result;
END
$$;

CREATE TEMP TABLE wrong (
	n int GENERATED ALWAYS AS IDENTITY,
	call text,
	state text DEFAULT 'JQ007'
);

-- ---- queues' names ----

CREATE TEMP TABLE named (call text);
INSERT INTO named VALUES
	('create_queue(%s)'),
	('create_queue(%s, NULL, ''keep'')'),
	('alter_queue(%s, ''{}'')'),
	('alter_group(%s, ''k'', ''{}'')'),
	('drop_queue(%s)'),
	('drop_queue(%s, true)'),
	('pause_queue(%s)'),
	('drain_queue(%s)'),
	('resume_queue(%s)'),
	('purge_queue(%s)'),
	('grant_queue(%s, ''inputs_reader'', ''{read}'')'),
	('revoke_queue(%s, ''inputs_reader'', ''{read}'')'),
	('create_access_key(''new'', %s, ''{read}'')'),
	('enqueue(%s)'),
	('enqueue_unique(%s)'),
	('enqueue_unique(%s, unique_key => ''k'')'),
	('enqueue_many(%s, ''{1}'')'),
	('enqueue_jobs(jsonb_build_array(jsonb_build_object(''queue'', %s)))'),
	('dequeue(%s)'),
	('dequeue_any(ARRAY[''inputs'', %s])'),
	('CALL receive(%s)'),
	('CALL receive_any(ARRAY[''inputs'', %s])'),
	('CALL wait_for_jobs(%s)'),
	('CALL wait_until_idle(%s)'),
	('complete_and_dequeue(%s, ''{}'', NULL)'),
	('complete_and_dequeue(%s, ''{$l}'', $t)'),
	('redrive(%s)'),
	('schedule(''new'', ''@daily'', %s)'),
	('reseal(%s)'),
	('peek(%s)');
INSERT INTO wrong (call)
	SELECT format(call, name) FROM named, unnest(ARRAY[
		'NULL', '''''', quote_literal(repeat('x', 64)),
		quote_literal(repeat(E'\u00e9', 32)), quote_literal(E'a\x01'),
		quote_literal(E'two\nlines'), quote_literal(E'\x7f'),
		quote_literal(E'c1 \u0085')]) name
		WHERE name <> 'NULL' OR call NOT LIKE 'schedule(%';
INSERT INTO wrong (call, state)
	SELECT format(call, quote_literal('nowhere')), 'JQ002' FROM named
		WHERE call NOT LIKE 'create_queue%';
INSERT INTO wrong (call, state) VALUES
	('create_queue(''inputs'')', 'JQ008'),
	('create_queue(''inputs'', NULL, NULL)', 'JQ008'),
	('redrive(''inputs'', to_queue => '''')', DEFAULT),
	('redrive(''inputs'', to_queue => E''\t'')', DEFAULT),
	('redrive(''inputs'', to_queue => repeat(''x'', 64))', DEFAULT),
	('redrive(''inputs'', to_queue => ''nowhere'')', 'JQ002');

-- ---- ids and leases ----

INSERT INTO wrong (call, state)
	SELECT format(call, id), CASE id WHEN 'NULL' THEN 'JQ007' ELSE 'JQ020' END
		FROM unnest(ARRAY['complete(%s, $t)', 'fail(%s, $t)',
			'release(%s, $t)', 'extend(%s, $t)', 'cancel(%s)',
			'reschedule(%s)', 'retry(%s)']) call,
		unnest(ARRAY['NULL', '0', '-1', '9223372036854775807',
			'-9223372036854775808']) id;
INSERT INTO wrong (call, state)
	SELECT format(call, lease), CASE lease WHEN 'NULL' THEN 'JQ007' ELSE 'JQ001' END
		FROM unnest(ARRAY['complete($l, %s)', 'fail($l, %s)',
			'release($l, %s)', 'extend($l, %s)',
			'complete_many(''{$l}'', %s)',
			'complete_and_dequeue(''inputs'', ''{$l}'', %s)']) call,
		unnest(ARRAY['NULL', '0', '-1', '1', '$t - 1', '$t + 1',
			'9223372036854775807', '-9223372036854775808']) lease;
-- a lease of another job, a job without one, one that has ended
INSERT INTO wrong (call, state)
	SELECT format(call, job, lease), state
		FROM unnest(ARRAY['complete(%s, %s)', 'fail(%s, %s)',
			'release(%s, %s)', 'extend(%s, %s)',
			'complete_many(ARRAY[%s], %s)']) call,
		(VALUES ('$w', '$t', 'JQ001'), ('$w', '0', 'JQ001'),
			('$s', '$t', 'JQ001'), ('$s', '0', 'JQ001'),
			('$d', '$t', 'JQ001'), ('$d', '0', 'JQ001'),
			('$c', '$t', 'JQ001'), ('$c', '0', 'JQ001'),
			('$c', '$e', 'JQ015')) v (job, lease, state);
INSERT INTO wrong (call, state) VALUES
	('job(NULL)', 'JQ007'),
	('attempts(NULL)', 'JQ007'),
	('explain_job(NULL)', 'JQ007'),
	('explain_queue(NULL)', 'JQ007'),
	('explain_queue('''')', 'JQ007'),
	('explain_queue(repeat(''x'', 64))', 'JQ007'),
	('explain_queue(''no such queue'')', 'JQ002'),
	('retry($w)', 'JQ007'),
	('retry($l)', 'JQ007'),
	('retry($s)', 'JQ007');

-- ---- arrays ----

INSERT INTO wrong (call)
	SELECT format(call, ids)
		FROM unnest(ARRAY['complete_many(%s, $t)', 'complete_many(%s, $t, ''skip'')',
			'extend_many(%s, $t)',
			'complete_and_dequeue(''inputs'', %s, $t)']) call,
		unnest(ARRAY['ARRAY[$l, NULL]', 'ARRAY[NULL]::bigint[]',
			'ARRAY[[$l], [$w]]', 'ARRAY[[$l]]']) ids;
INSERT INTO wrong (call, state) VALUES
	('extend_many(''{$l}'', NULL)', 'JQ007'),
	('complete_many(''{$l}'', $t, ''maybe'')', 'JQ007'),
	('complete_many(''{$l}'', $t, '''')', 'JQ007'),
	('complete_many(''{$l}'', $t, ''SKIP'')', 'JQ007'),
	('complete_many(''{}'', NULL, ''maybe'')', 'JQ007'),
	('complete_many(''{$l, $w}'', $t)', 'JQ001'),
	('complete_many(''{$l, 0}'', $t)', 'JQ020'),
	('dequeue_any(NULL)', 'JQ007'),
	('dequeue_any(ARRAY[NULL])', 'JQ007'),
	('dequeue_any(ARRAY[''inputs'', NULL])', 'JQ007'),
	('dequeue_any(''{{inputs}}'')', 'JQ007'),
	('dequeue_any(array_fill(''inputs''::text, ARRAY[10001]))', 'JQ007'),
	('dequeue_any(array_fill(''inputs''::text, ARRAY[1000000]))', 'JQ007'),
	('enqueue_many(''inputs'', NULL)', 'JQ007'),
	('enqueue_many(''inputs'', ARRAY[''1'', NULL]::jsonb[])', 'JQ007'),
	('enqueue_many(''inputs'', ''{{1}}'')', 'JQ007'),
	('enqueue_many(''inputs'', ''{{1},{2}}'')', 'JQ007'),
	('enqueue_many(''inputs'', ''{1,2,3,4,5,6}'')', 'JQ007'),
	('purge_queue(''inputs'', ''{running}'')', 'JQ007'),
	('purge_queue(''inputs'', ''{available,dead}'')', 'JQ007'),
	('purge_queue(''inputs'', ''{Available}'')', 'JQ007'),
	('purge_queue(''inputs'', ''{""}'')', 'JQ007'),
	('purge_queue(''inputs'', ''{available,NULL}'')', 'JQ007'),
	('purge_queue(''inputs'', ''{{available}}'')', 'JQ007'),
	('grant_queue(''inputs'', NULL, ''{read}'')', 'JQ007'),
	('grant_queue(''inputs'', '''', ''{read}'')', 'JQ007'),
	('grant_queue(''inputs'', ''nobody at all'', ''{read}'')', 'JQ007'),
	('grant_queue(''inputs'', ''inputs_reader'', NULL)', 'JQ007'),
	('grant_queue(''inputs'', ''inputs_reader'', ''{read,write}'')', 'JQ007'),
	('grant_queue(''inputs'', ''inputs_reader'', ''{read,NULL}'')', 'JQ007'),
	('grant_queue(''inputs'', ''inputs_reader'', ''{{read}}'')', 'JQ007'),
	('revoke_queue(''inputs'', NULL, ''{read}'')', 'JQ007'),
	('revoke_queue(''inputs'', ''nobody at all'', ''{read}'')', 'JQ007'),
	('revoke_queue(''inputs'', ''inputs_reader'', NULL)', 'JQ007'),
	('revoke_queue(''inputs'', ''inputs_reader'', ''{READ}'')', 'JQ007'),
	('revoke_queue(''inputs'', ''inputs_reader'', ''{{read}}'')', 'JQ007'),
	('create_access_key(''inputs'', ''inputs'', ''{read}'')', 'JQ008'),
	('create_access_key(''new'', ''inputs'', NULL)', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{}'')', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{read,manage}'')', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{read,write}'')', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{read,NULL}'')', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{{read}}'')', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{read}'', ''0 s'')', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{read}'', ''-1 day'')', 'JQ007'),
	('create_access_key(''new'', ''inputs'', ''{read}'', ''102 years'')', 'JQ007'),
	('rotate_access_key(''nothing'')', 'JQ020'),
	('rotate_access_key(''inputs'', ''-1 s'')', 'JQ007'),
	('rotate_access_key(''inputs'', ''102 years'')', 'JQ007'),
	('rotate_access_key(''inputs'', queue => ''nowhere'')', 'JQ002'),
	('rotate_access_key(''inputs'', queue => ''default'')', 'JQ020'),
	('revoke_access_key(''nothing'')', 'JQ020'),
	('revoke_access_key(''inputs'', ''nowhere'')', 'JQ002'),
	('revoke_access_key(''inputs'', ''default'')', 'JQ020'),
	('use_access_key(''jq_'')', 'JQ013'),
	('use_access_key(''jq_'' || repeat(''0'', 64))', 'JQ013');
INSERT INTO wrong (call)
	SELECT format(call, name) FROM unnest(ARRAY[
		'create_access_key(%s, ''inputs'', ''{read}'')',
		'rotate_access_key(%s)', 'revoke_access_key(%s)']) call,
		unnest(ARRAY['NULL', '''''', quote_literal(repeat('x', 64)),
			quote_literal(E'two\nlines')]) name;

-- ---- times, spans and numbers ----

INSERT INTO wrong (call)
	SELECT format(call, span)
		FROM unnest(ARRAY['dequeue(''inputs'', 1, NULL, %s)',
			'dequeue_any(''{inputs}'', 1, NULL, %s)',
			'CALL receive(''inputs'', 1, NULL, %s)',
			'CALL receive_any(''{inputs}'', 1, NULL, %s)', 'extend($l, $t, %s)',
			'extend_many(''{$l}'', $t, %s)', 'extend_many(''{}'', NULL, %s)',
			'complete_and_dequeue(''inputs'', ''{$l}'', $t, 1, NULL, %s)']) call,
		unnest(ARRAY['''0''', '''-1 s''', '''0.999 s''', '''7 days 0.001 s''',
			'''1 month''', '''-1 month''', '''178000000 years''',
			'''-178000000 years''', '''2147483647 days''']) span;
INSERT INTO wrong (call)
	SELECT format(call, span)
		FROM unnest(ARRAY['dequeue(''inputs'', 1, %s)',
			'dequeue_any(''{inputs}'', 1, %s)',
			'complete_and_dequeue(''inputs'', ''{}'', NULL, 1, %s)',
			'CALL receive(''inputs'', 1, %s)',
			'CALL receive_any(''{inputs}'', 1, %s)',
			'CALL wait_for_jobs(''inputs'', %s)',
			'CALL wait_until_idle(''inputs'', %s)', 'wait_for($w, %s)',
			'CALL wait_for_result($w, %s)']) call,
		unnest(ARRAY['''-1 microsecond''', '''-1 month''',
			'''178000000 years''', '''-178000000 years''']) span;
INSERT INTO wrong (call) VALUES
	('dequeue_any(array_fill(''inputs''::text, ARRAY[65]), 1, ''1 s'')'),
	('CALL receive_any(array_fill(''inputs''::text, ARRAY[65]))'),
	('wait_for(NULL)'), ('CALL wait_for_result(NULL)');
-- procedures that wait have to commit
INSERT INTO wrong (call, state) VALUES
	('CALL receive(''inputs'')', '25001'),
	('CALL receive_any(''{inputs}'')', '25001'),
	('CALL wait_for_jobs(''inputs'')', '25001'),
	('CALL wait_until_idle(''inputs'')', '25001'),
	('CALL wait_for_result($w)', '25001');
INSERT INTO wrong (call)
	SELECT format(call, span)
		FROM unnest(ARRAY['enqueue(''inputs'', delay => %s)',
			'enqueue_many(''inputs'', ''{1}'', delay => %s)',
			'enqueue_many(''inputs'', ''{}'', delay => %s)',
			'fail($l, $t, retry_in => %s)', 'fail($l, $t, NULL, false, %s)',
			'release($l, $t, %s)', 'cancel($l, grace => %s)',
			'cancel($w, grace => %s)', 'cancel($c, grace => %s)']) call,
		unnest(ARRAY['''-1 microsecond''', '''-1 month''',
			'''178000000 years''', '''-178000000 years''']) span;
INSERT INTO wrong (call)
	SELECT format(call, t)
		FROM unnest(ARRAY['enqueue(''inputs'', run_at => %s)',
			'enqueue_many(''inputs'', ''{1}'', run_at => %s)',
			'reschedule($w, %s)', 'reschedule($s, %s)', 'reschedule($l, %s)',
			'redrive(''inputs'', died_after => %s)']) call,
		unnest(ARRAY['''infinity''', '''-infinity''']) t;
INSERT INTO wrong (call)
	SELECT format(call, n)
		FROM unnest(ARRAY['dequeue(''inputs'', %s)',
			'dequeue_any(''{inputs}'', %s)', 'dequeue_any(''{}'', %s)',
			'CALL receive(''inputs'', %s)',
			'complete_and_dequeue(''inputs'', ''{$l}'', $t, %s)',
			'peek(''inputs'', %s)', 'redrive(''inputs'', %s)']) call,
		unnest(ARRAY['0', '-1', '-9223372036854775808']) n;
INSERT INTO wrong (call)
	SELECT format(call, n)
		FROM unnest(ARRAY['enqueue(''inputs'', priority => %s)',
			'enqueue_many(''inputs'', ''{1}'', priority => %s)',
			'reschedule($w, priority => %s)',
			'reschedule($s, NULL, %s)']) call,
		unnest(ARRAY['101', '-101', '65536', '2147483647', '-2147483648']) n;
INSERT INTO wrong (call)
	SELECT format(call, n)
		FROM unnest(ARRAY['enqueue(''inputs'', max_attempts => %s)',
			'enqueue_many(''inputs'', ''{1}'', max_attempts => %s)']) call,
		unnest(ARRAY['0', '-1', '1000001', '2147483647']) n;
INSERT INTO wrong (call, state) VALUES
	('enqueue(''inputs'', run_at => now(), delay => ''1 s'')', 'JQ007'),
	('enqueue_many(''inputs'', ''{1}'', run_at => now(), delay => ''1 s'')', 'JQ007'),
	('enqueue(''inputs'', run_at => ''294277-01-01'')', '22008'),
	('dequeue(''inputs'', 9223372036854775808)', '42883');

-- ---- rate limits ----

INSERT INTO wrong (call)
	SELECT format('rate_limit_take(%s)', args) FROM unnest(ARRAY[
		'NULL, 5, ''1 s''', ''''', 5, ''1 s''', 'repeat(''x'', 64), 5, ''1 s''',
		'E''a\x01'', 5, ''1 s''', '''n'', NULL, ''1 s''', '''n'', 0, ''1 s''',
		'''n'', -1, ''1 s''', '''n'', 1000001, ''1 s''',
		'''n'', 9223372036854775807, ''1 s''', '''n'', 5, NULL',
		'''n'', 5, ''0''', '''n'', 5, ''-1 s''', '''n'', 5, ''1 day 1 s''',
		'''n'', 5, ''178000000 years''', '''n'', 5, ''0.9 ms''',
		'''n'', 5, ''1 s'', -1', '''n'', 5, ''1 s'', 6',
		'''n'', 5, ''1 s'', 9223372036854775807']) args;

-- ---- words, texts and JSON ----

INSERT INTO wrong (call)
	SELECT format(call, headers)
		FROM unnest(ARRAY['enqueue(''inputs'', headers => %s)',
			'enqueue_many(''inputs'', ''{1}'', headers => %s)']) call,
		unnest(ARRAY['''null''', '''1''', '''"x"''', '''true''', '''[]''',
			'''[{}]''', '''{"dead_letter": {}}''', '''{"schedule": {}}''']) headers;
INSERT INTO wrong (call)
	SELECT format(call, options)
		FROM unnest(ARRAY['create_queue(''new'', %s)',
			'create_queue(''inputs'', %s, ''keep'')',
			'create_queue(''inputs'', %s, ''alter'')',
			'alter_queue(''inputs'', %s)']) call,
		unnest(ARRAY['''null''', '''1''', '''[]''', '''[{}]''', '''"x"''',
			'''{"unknown": 1}''', '''{"lease_for": "soon"}''',
			'''{"max_attempts": "3"}''', '''{"backoff": {"base": -1}}''',
			'''{"dead_letter": ""}''',
			'''{"dead_letter": "a\u0007"}''']) options;
INSERT INTO wrong (call, state) VALUES
	('alter_queue(''inputs'', NULL)', 'JQ007'),
	('alter_group(''inputs'', NULL, ''{}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', NULL)', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''[]'')', 'JQ007'),
	('alter_group(''inputs'', repeat(''k'', 256), ''{}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"limit": 0}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"weight": 0.5}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"group_limit": 1}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"rate_limit": {"limit": 1}}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"paused_until": 5}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"paused_until": "soon"}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"paused_until": "-infinity"}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"paused_until": "infinity"}'')', 'JQ007'),
	('alter_group(''inputs'', ''k'', ''{"paused_until": "2999-01-01T00:00:00"}'')', 'JQ007'),
	('alter_queue(''inputs'', ''{"dead_letter": "inputs"}'')', 'JQ007'),
	('create_queue(''new'', ''{"dead_letter": "new"}'')', 'JQ007'),
	('create_queue(''new'', if_exists => '''')', 'JQ007'),
	('create_queue(''new'', if_exists => ''Keep'')', 'JQ007'),
	('enqueue(''inputs'', kind => repeat(''k'', 256))', 'JQ007'),
	('enqueue_many(''inputs'', ''{1}'', repeat(''k'', 256))', 'JQ007'),
	('enqueue(''inputs'', unique_key => repeat(''k'', 256))', 'JQ007'),
	('enqueue(''inputs'', unique_key => ''k'', on_conflict => '''')', 'JQ007'),
	('enqueue(''inputs'', unique_key => ''k'', on_conflict => ''Ignore'')', 'JQ007'),
	('enqueue(''inputs'', unique_key => ''k'', unique_while => ''running'')', 'JQ007'),
	('enqueue(''inputs'', unique_key => ''k'', unique_for => ''-1 us'')', 'JQ007'),
	('enqueue(''inputs'', unique_key => ''k'', unique_for => ''200 years'')', 'JQ007'),
	('enqueue(''inputs'', unique_key => ''k'', debounce_max => ''1 s'')', 'JQ007'),
	('enqueue(''inputs'', unique_key => ''k'', on_conflict => ''debounce'','
		|| ' debounce_max => ''-1 us'')', 'JQ007'),
	('enqueue_unique(''inputs'', unique_key => ''k'', on_conflict => ''x'')', 'JQ007'),
	('enqueue_unique(''inputs'', unique_key => ''k'', priority => 101)', 'JQ007'),
	('cancel($w, repeat(''r'', 1001))', 'JQ007'),
	('enqueue(''inputs'', to_jsonb(repeat(''x'', 1000)))', 'JQ004'),
	('enqueue(''inputs'', to_jsonb(repeat(''x'', 500)),'
		|| ' headers => jsonb_build_object(''h'', repeat(''x'', 500)))', 'JQ004'),
	('enqueue_many(''inputs'', ARRAY[''1'', to_jsonb(repeat(''x'', 1000))])', 'JQ004'),
	('complete($l, $t, to_jsonb(repeat(''x'', 1000)))', 'JQ004'),
	('extend($l, $t, NULL, to_jsonb(repeat(''x'', 1000)))', 'JQ004'),
	('settle_jobs(jsonb_build_array(jsonb_build_object(''id'', $l, ''lease'', $t,'
		|| ' ''do'', ''complete'', ''result'', repeat(''x'', 1000))))', 'JQ004'),
	('drop_queue(''inputs'')', '2BP01'),
	('drop_queue(''inputs'', NULL)', '2BP01');

-- ---- keys; more in sign.sql ----

INSERT INTO wrong (call)
	SELECT format(call, name)
		FROM unnest(ARRAY['create_key(%s, ''sign'')', 'rotate_key(%s)', 'revoke_key(%s)',
			'verify_signature(%s, 1, ''1'', ''{}'')']) call,
		unnest(ARRAY['NULL', '''''', 'repeat(''x'', 64)', 'E''a\x01''']) name;
INSERT INTO wrong (call, state) VALUES
	('create_key(''new'', NULL)', 'JQ007'),
	('create_key(''new'', '''')', 'JQ007'),
	('create_key(''new'', ''Sign'')', 'JQ007'),
	('rotate_key(''nowhere'')', 'JQ013'),
	('revoke_key(''nowhere'')', 'JQ013'),
	('reseal(''inputs'')', 'JQ007'),
	('alter_queue(''inputs'', ''{"sign": true}'')', 'JQ007'),
	('alter_queue(''inputs'', ''{"seal": ""}'')', 'JQ007'),
	('alter_queue(''inputs'', ''{"seal": "nowhere"}'')', 'JQ013'),
	('create_queue(''new'', ''{"sign": "nowhere"}'')', 'JQ013'),
	('verify_signature(''k'', NULL, ''1'', ''{}'')', 'JQ007'),
	('verify_signature(''k'', 1, NULL, ''{}'')', 'JQ007'),
	('verify_signature(''k'', 1, ''1'', NULL)', 'JQ007'),
	('verify_signature(''k'', 1, ''1'', ''[]'')', 'JQ007'),
	('verify_signature(''k'', 1, ''1'', ''{}'', ''-1 s'')', 'JQ007'),
	('verify_signature(''k'', 1, ''1'', ''{}'', NULL, ''True'')', 'JQ007'),
	('verify_signature(''k'', 1, ''1'', ''{}'')', 'JQ019');

-- ---- schedules; every fault of an expression is in the unit test ----

INSERT INTO wrong (call)
	SELECT format(call, cron)
		FROM unnest(ARRAY['schedule(''new'', %s)', 'schedule(''inputs'', %s, ''inputs'')',
			'preview_schedule(%s)']) call,
		unnest(ARRAY['NULL', '''''', '''* * * *''', '''60 * * * *''',
			'''0 0 30 2 *''', '''@reboot''', 'repeat(''*'', 256)',
			'''* * * * ' || U&'\00e9' || '''']) cron;
INSERT INTO wrong (call)
	SELECT format(call, zone)
		FROM unnest(ARRAY['schedule(''new'', ''@daily'', timezone => %s)',
			'preview_schedule(''@daily'', %s)']) call,
		unnest(ARRAY['''''', '''Nowhere''', '''+02''', '''CET-1''',
			'repeat(''x'', 256)']) zone;
INSERT INTO wrong (call, state)
	SELECT format(call, name), CASE name WHEN '''nowhere''' THEN 'JQ020' ELSE 'JQ007' END
		FROM unnest(ARRAY['unschedule(%s)', 'pause_schedule(%s)',
			'resume_schedule(%s)', 'run_schedule(%s)']) call,
		unnest(ARRAY['NULL', '''''', 'repeat(''x'', 256)', '''nowhere''']) name;
INSERT INTO wrong (call, state) VALUES
	('schedule(NULL, ''@daily'')', 'JQ007'),
	('schedule('''', ''@daily'')', 'JQ007'),
	('schedule(repeat(''x'', 256), ''@daily'')', 'JQ007'),
	('schedule(''inputs'', ''@daily'', ''inputs'', to_jsonb(repeat(''x'', 1000)))', 'JQ004'),
	('schedule(''inputs'', ''@daily'', ''inputs'', to_jsonb(repeat(''x'', 500)),'
		|| ' headers => jsonb_build_object(''h'', repeat(''x'', 500)))', 'JQ004'),
	('schedule(''new'', ''@daily'', headers => ''1'')', 'JQ007'),
	('schedule(''new'', ''@daily'', headers => ''{"dead_letter": 1}'')', 'JQ007'),
	('schedule(''new'', ''@daily'', headers => ''{"schedule": {}}'')', 'JQ007'),
	('schedule(''new'', ''@daily'', catch_up => '''')', 'JQ007'),
	('schedule(''new'', ''@daily'', catch_up => ''All'')', 'JQ007'),
	('schedule(''new'', ''@daily'', catch_up_max => 0)', 'JQ007'),
	('schedule(''new'', ''@daily'', catch_up_max => 10001)', 'JQ007'),
	('schedule(''new'', ''@daily'', kind => repeat(''k'', 256))', 'JQ007'),
	('schedule(''new'', ''@daily'', group_key => repeat(''k'', 256))', 'JQ007'),
	('schedule(''new'', ''@daily'', priority => 101)', 'JQ007'),
	('schedule(''new'', ''@daily'', priority => -101)', 'JQ007'),
	('schedule(''new'', ''@daily'', max_attempts => 0)', 'JQ007'),
	('preview_schedule(''@daily'', n => 0)', 'JQ007'),
	('preview_schedule(''@daily'', n => 1000001)', 'JQ007'),
	('verify_audit(1)', 'JQ007'),
	('verify_audit(known_hash => sha256(''''))', 'JQ007'),
	('verify_audit(0, sha256(''''))', 'JQ007'),
	('verify_audit(1, ''short'')', 'JQ007');

-- ---- settle_jobs ----

INSERT INTO wrong (call)
	SELECT format('settle_jobs(%L)', jobs) FROM unnest(ARRAY[
		'null', '1', '"x"', 'true', '{}', '{"id": $l, "lease": $t, "do": "complete"}',
		'[1]', '[null]', '["x"]', '[[]]', '[{}]',
		'[{"lease": $t, "do": "complete"}]',
		'[{"id": $l, "do": "complete"}]',
		'[{"id": $l, "lease": $t}]',
		'[{"id": null, "lease": $t, "do": "complete"}]',
		'[{"id": $l, "lease": null, "do": "complete"}]',
		'[{"id": $l, "lease": $t, "do": null}]',
		'[{"id": "$l", "lease": $t, "do": "complete"}]',
		'[{"id": $l.5, "lease": $t, "do": "complete"}]',
		'[{"id": 1e30, "lease": $t, "do": "complete"}]',
		'[{"id": 9223372036854775808, "lease": $t, "do": "complete"}]',
		'[{"id": [$l], "lease": $t, "do": "complete"}]',
		'[{"id": $l, "lease": "$t", "do": "complete"}]',
		'[{"id": $l, "lease": 1e30, "do": "complete"}]',
		'[{"id": $l, "lease": $t, "do": "Complete"}]',
		'[{"id": $l, "lease": $t, "do": ""}]',
		'[{"id": $l, "lease": $t, "do": 1}]',
		'[{"id": $l, "lease": $t, "do": ["complete"]}]',
		'[{"id": $l, "lease": $t, "do": "complete", "unknown": 1}]',
		'[{"id": $l, "lease": $t, "do": "fail", "error": 1}]',
		'[{"id": $l, "lease": $t, "do": "fail", "error": {}}]',
		'[{"id": $l, "lease": $t, "do": "fail", "retry": "yes"}]',
		'[{"id": $l, "lease": $t, "do": "fail", "retry": 1}]',
		'[{"id": $l, "lease": $t, "do": "fail", "retry_in": -1}]',
		'[{"id": $l, "lease": $t, "do": "fail", "retry_in": "-1 s"}]',
		'[{"id": $l, "lease": $t, "do": "fail", "retry_in": "soon"}]',
		'[{"id": $l, "lease": $t, "do": "fail", "retry_in": 1e30}]',
		'[{"id": $l, "lease": $t, "do": "fail", "retry_in": true}]',
		'[{"id": $l, "lease": $t, "do": "release", "delay": -0.1}]',
		'[{"id": $l, "lease": $t, "do": "release", "delay": "1 parsec"}]',
		'[{"id": $l, "lease": $t, "do": "release", "delay": []}]',
		'[{"id": $l, "lease": $t, "do": "complete"}, {"id": $l}]',
		'[{"id": $l, "lease": $t, "do": "complete"}, 1]'
	]) jobs;
-- whatever a key or a name is, messages show the beginning of it
INSERT INTO wrong (call) VALUES
	('settle_jobs(jsonb_build_array(jsonb_build_object(''id'', $l, ''lease'', $t,'
		|| ' ''do'', ''complete'', repeat(''k'', 100000), 1)))'),
	('enqueue_jobs(jsonb_build_array(jsonb_build_object(repeat(''k'', 100000), 1)))'),
	('alter_queue(''inputs'', jsonb_build_object(repeat(''k'', 100000), 1))'),
	('alter_queue(''inputs'', jsonb_build_object(''backoff'','
		|| ' jsonb_build_object(repeat(''k'', 100000), 1)))'),
	('alter_queue(''inputs'', jsonb_build_object(''schema'','
		|| ' jsonb_build_object(repeat(''k'', 50000), 1)))'),
	('alter_queue(''inputs'', jsonb_build_object(''validator'','
		|| ' ''public.'' || repeat(''f'', 100000)))'),
	('alter_group(''inputs'', ''g'', jsonb_build_object(repeat(''k'', 100000), 1))');
INSERT INTO wrong (call, state) VALUES
	('enqueue_jobs(NULL)', 'JQ007'),
	('settle_jobs(NULL)', 'JQ007'),
	('settle_jobs(''[{"id": 4503599627370495, "lease": 1, "do": "complete"}]'')', 'JQ020'),
	('settle_jobs(''[{"id": $w, "lease": $t, "do": "complete"}]'')', 'JQ001'),
	('settle_jobs(''[{"id": $c, "lease": $e, "do": "fail"}]'')', 'JQ015'),
	('settle_jobs(''[{"id": $l, "lease": $t, "do": "release"},'
		|| ' {"id": $w, "lease": $t, "do": "release"}]'')', 'JQ001'),
	('settle_jobs(''[{"id": $l, "lease": $t, "do": "complete"},'
		|| ' {"id": $l, "lease": $t, "do": "complete"}]'')', 'JQ015'),
	('settle_jobs(''[{"id": $l, "lease": $t, "do": "release"},'
		|| ' {"id": $l, "lease": $t, "do": "complete"}]'')', 'JQ015');

SELECT is(pg_temp.try(call), state, replace(call, E'\n', '\n'))
	FROM wrong ORDER BY n;

SELECT is_empty($$
	SELECT proname FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace
		AND proname NOT LIKE '\_%' 
		AND proname NOT IN ('health', 'check_install', 'run_maintenance', 'adopt', 'metrics')
		AND NOT EXISTS (SELECT FROM wrong WHERE replace(call, 'CALL ', '') LIKE proname || '(%')
	$$, 'every function was given something wrong');

-- ---- nothing to do is not wrong ----

SELECT is(pg_temp.try(call), 'ok', call) FROM unnest(ARRAY[
	'complete_many(NULL, NULL)', 'complete_many(''{}'', $t)',
	'complete_many(''{}'', NULL, NULL)', 'extend_many(NULL, NULL)',
	'extend_many(''{}'', $t)', 'settle_jobs(''[]'')',
	'complete_many(''{$w, 0, -1}'', $t, ''skip'')',
	'extend_many(''{$w, 0}'', $t)',
	'enqueue_many(''inputs'', ''{}'')', 'dequeue_any(''{}'')',
	'enqueue_jobs(''[]'')', 'enqueue_jobs(''[{"queue": "inputs"}]'')',
	'purge_queue(''inputs'', ''{}'')', 'purge_queue(''inputs'', ''{blocked}'')',
	'grant_queue(''inputs'', ''inputs_reader'', ''{}'')',
	'use_access_key(NULL)', 'use_access_key(NULL, NULL)',
	'create_access_key(''new'', ''inputs'', ''{read}'', NULL)',
	'create_access_key(repeat(''x'', 63), ''inputs'', ''{enqueue,dequeue,read}'', ''1 s'')',
	'rotate_access_key(''inputs'', NULL, NULL)', 'rotate_access_key(''inputs'', ''0 s'')',
	'revoke_access_key(''inputs'', ''inputs'')',
	'alter_queue(''inputs'', ''{}'')', 'job(0)', 'job(-1)', 'attempts(0)',
	'explain_job(0)', 'explain_job(-1)', 'explain_queue(''inputs'')', 'metrics()',
	'cancel($c)', 'reschedule($c)', 'reschedule($l)']) call;
SELECT is_empty('SELECT FROM jobq.job(0)', 'no job, no row');
SELECT is_empty('SELECT FROM jobq.attempts(0)', 'no job, no attempts');
SELECT is_empty('SELECT FROM jobq.explain_job(0)', 'no job, no reason');
SELECT ok(NOT jobq.cancel(:done), 'false: it has ended');
SELECT ok(NOT jobq.cancel(:dead), 'false: it is dead');
SELECT ok(NOT jobq.reschedule(:leased), 'false: it runs');
SELECT ok(NOT jobq.reschedule(:dead), 'false: it is dead');
SELECT is(jobq.complete_many(NULL, NULL), '{}', 'no ids: none settled');
SELECT is(jobq.enqueue_many('inputs', '{}'), '{}', 'no payloads: no ids');

-- ---- NULL means the default, and the outermost values are right ----

-- a committed job would come back from a claim undone only after its backoff
SELECT ok(jobq.create_queue('inputs own'), 'a queue of this transaction');
SELECT ok(jobq.enqueue('inputs own') > 0, 'and a job');
SELECT is(pg_temp.try(call), 'ok', call) FROM unnest(ARRAY[
	'create_queue(''new'', NULL, NULL)',
	'purge_queue(''inputs'', NULL)',
	'enqueue(''inputs'', NULL, NULL, NULL, NULL, NULL, NULL, NULL)',
	'enqueue_unique(''inputs'', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)',
	'enqueue_unique(''inputs'', unique_key => ''k'', on_conflict => NULL, unique_while => NULL, unique_for => NULL, debounce_max => NULL)',
	'enqueue_many(''inputs'', ''{"null"}'', NULL, NULL, NULL, NULL, NULL, NULL)',
	'dequeue(''inputs own'', NULL, NULL, NULL, NULL)',
	'dequeue_any(''{inputs own,inputs own}'', NULL, NULL, NULL, NULL)',
	'wait_for($d, NULL)',
	'wait_for(0, NULL)',
	'wait_for($w, ''0'')',
	'complete($l, $t, NULL)',
	'complete_many(''{$l}'', $t, NULL)',
	'complete_many(''[0:0]={$l}'', $t)',
	'fail($l, $t, NULL, NULL, NULL)',
	'release($l, $t, NULL)',
	'extend($l, $t, NULL, NULL)',
	'extend_many(''{$l}'', $t, NULL)',
	'complete_and_dequeue(''inputs own'', NULL, NULL, NULL, NULL, NULL, NULL)',
	'cancel($l, NULL, NULL)',
	'reschedule($w, NULL, NULL)',
	'redrive(''inputs'', NULL, NULL, NULL, NULL)',
	'peek(''inputs'', NULL)',
	'enqueue(''inputs'', ''null'', headers => ''{}'')',
	'enqueue(''inputs'', priority => 100, max_attempts => 1000000, delay => ''0'')',
	'enqueue(''inputs'', priority => -100, max_attempts => 1, delay => ''100 years'')',
	'enqueue(''inputs'', run_at => ''4713-01-01 BC'')',
	'enqueue(''inputs'', run_at => ''294276-12-31'')',
	'enqueue(''inputs'', kind => repeat(''k'', 255))',
	'enqueue(''inputs'', kind => '''')',
	'enqueue(''inputs'', unique_key => repeat(''k'', 255), unique_for => ''100 years'')',
	'enqueue(''inputs'', unique_key => '''', on_conflict => ''debounce'', debounce_max => ''0'')',
	'enqueue_many(''inputs'', ''{1,2,3,4,5}'')',
	'dequeue(''inputs own'', 9223372036854775807, ''0'', ''1 s'', repeat(''w'', 100000))',
	'dequeue(''inputs own'', 1, ''100 years'', ''7 days'', '''')',
	'extend($l, $t, ''7 days'', ''null'')',
	'fail($l, $t, repeat(''e'', 100000), retry_in => ''0'')',
	'fail($l, $t, '''', retry => false)',
	'cancel($w, repeat(''r'', 1000), ''7 days'')',
	'reschedule($s, ''4713-01-01 BC'', -100)',
	'reschedule($w, ''294276-12-31'', 100)',
	'redrive(''inputs'', 9223372036854775807, ''default'', '''', ''4713-01-01 BC'')',
	'peek(''inputs'', 9223372036854775807)',
	'create_queue('' '')', 'create_queue(repeat(''x'', 63))',
	'schedule(''new'', ''@daily'', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)',
	'schedule(repeat(''x'', 255), ''0 0 * * *'', ''inputs'', ''null'', ''utc'', ''all'', 10000,'
		|| ' repeat(''k'', 255), 100, 1000000, repeat(''g'', 255), ''{}'')',
	'pause_schedule(''inputs'')', 'resume_schedule(''inputs'')',
	'run_schedule(''inputs'')', 'unschedule(''inputs'')',
	'preview_schedule(''@daily'', NULL, NULL)',
	'verify_signature(''k'', 0, '''', ''{}'', NULL, ''false'')',
	'create_key(repeat(''k'', 63), ''seal'')',
	'preview_schedule(''@yearly'', ''utc'', 1000000)',
	'settle_jobs(''[{"id": $l, "lease": $t, "do": "fail", "error": null,'
		|| ' "retry": null, "retry_in": null, "delay": null, "result": null}]'')',
	'settle_jobs(''[{"id": $l.0, "lease": $t, "do": "fail", "retry_in": "1 min"}]'')',
	'settle_jobs(''[{"id": $l, "lease": $t, "do": "release", "delay": 0.5}]'')'
]) call;

-- ---- one signature a name; parameters without types resolve ----

SELECT is_empty($$
	SELECT proname FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace
		GROUP BY proname HAVING count(*) > 1
	$$, 'no name is overloaded');

-- Prepared with `given` parameters; the types they get.
CREATE FUNCTION pg_temp.prepared(function regproc, given int, named boolean)
	RETURNS regtype[] LANGUAGE plpgsql AS $$
DECLARE
	names text[] := (SELECT proargnames FROM pg_proc WHERE oid = function);
	types regtype[];
BEGIN
	EXECUTE format('PREPARE untyped AS SELECT * FROM %s(%s)', function,
		(SELECT string_agg(CASE WHEN named THEN quote_ident(names[i]) || ' => '
				ELSE '' END || '$' || i, ', ' ORDER BY i)
			FROM generate_series(1, given) i));
	types := (SELECT parameter_types FROM pg_prepared_statements
		WHERE name = 'untyped');
	DEALLOCATE untyped;
	RETURN types;
END
$$;
SELECT is(pg_temp.prepared(p.oid, given, named),
		(proargtypes::regtype[])[0:given - 1]::text::regtype[],
		format('%s with %s untyped parameters%s', proname, given,
			CASE WHEN named THEN ', named' ELSE '' END))
	FROM pg_proc p,
		generate_series(pronargs - pronargdefaults, pronargs::int) given,
		unnest(ARRAY[false, true]) named
	WHERE pronamespace = 'jobq'::regnamespace AND proname NOT LIKE '\_%'
		AND prokind = 'f'
	ORDER BY proname, given, named;

PREPARE untyped_enqueue AS SELECT jobq.enqueue($1, $2, $3, $4, $5, $6, $7, $8, headers => $9);
EXECUTE untyped_enqueue('inputs', '{"a": 1}', 'k', '5', NULL, '0 s', '3', NULL, '{"h": 1}') \gset
SELECT results_eq(format('SELECT payload, kind, priority, max_attempts, headers
	FROM jobq.job(%s)', :enqueue),
	$$VALUES ('{"a": 1}'::jsonb, 'k', 5, 3, '{"h": 1}'::jsonb)$$,
	'strings arrive as what they stand for');
PREPARE untyped_complete AS SELECT jobq.complete($1, $2);
EXECUTE untyped_complete(:'leased', :'lease');
SELECT is(state, 'completed', 'a driver''s strings complete a job')
	FROM jobq.job(:leased);

-- smallint and int where bigint stands; arrays too
SELECT is(pg_temp.try(call), state, call) FROM (VALUES
	('dequeue(''inputs own'', 1::smallint)', 'ok'),
	('dequeue(''inputs own'', 1::int)', 'ok'),
	('dequeue_any(''{inputs own}'', 1::smallint)', 'ok'),
	('complete(0::smallint, 1::int)', 'JQ020'),
	('complete(0::int, 1::smallint)', 'JQ020'),
	('complete_many(ARRAY[0]::int[], 1::smallint)', 'JQ020'),
	('complete_many(ARRAY[0]::smallint[], 1)', 'JQ020'),
	('fail(0::smallint, 1::int)', 'JQ020'),
	('release(0::int, 1::smallint)', 'JQ020'),
	('extend(0::smallint, 1::int)', 'JQ020'),
	('extend_many(ARRAY[0]::int[], 1::smallint)', 'ok'),
	('complete_and_dequeue(''inputs'', ARRAY[0]::int[], 1::smallint, 1::int)', 'JQ020'),
	('cancel(0::smallint)', 'JQ020'),
	('cancel(0::int)', 'JQ020'),
	('reschedule(0::smallint, NULL, 1::smallint)', 'JQ020'),
	('retry(0::smallint)', 'JQ020'),
	('redrive(''inputs'', 1::smallint)', 'ok'),
	('peek(''inputs'', 1::smallint)', 'ok'),
	('preview_schedule(''@daily'', ''utc'', 1::smallint)', 'ok'),
	('verify_audit(1::smallint, sha256(''''))', 'ok'),
	('preview_schedule(''@daily''::varchar, ''utc''::name, 1::int)', 'ok'),
	('schedule(''new''::name, ''@daily''::varchar, catch_up_max => 1::smallint, priority => 1::smallint)', 'ok'),
	('job(0::smallint)', 'ok'),
	('attempts(0::int)', 'ok'),
	('explain_job(0::smallint)', 'ok'),
	('explain_queue(''inputs''::name)', 'ok'),
	('wait_for(0::smallint)', 'ok'),
	('verify_signature(''k''::name, 1::smallint, ''1''::varchar, ''{}'')', 'JQ019'),
	('enqueue(''inputs'', priority => 1::smallint, max_attempts => 1::smallint)', 'ok'),
	('enqueue_unique(''inputs'', priority => 1::smallint, max_attempts => 1::smallint, unique_key => ''k''::name)', 'ok'),
	('enqueue(''inputs''::name, kind => ''k''::varchar, run_at => current_date)', 'ok')
) v (call, state);

-- ---- read-only transactions ----

SELECT is(pg_temp.try(call, true), '25006', call || ', read only')
	FROM unnest(ARRAY['create_queue(''new'')', 'alter_queue(''inputs'', ''{}'')',
		'alter_group(''inputs'', ''k'', ''{}'')', 'drop_queue(''inputs'', true)',
		'pause_queue(''inputs'')',
		'drain_queue(''inputs'')', 'resume_queue(''inputs'')',
		'purge_queue(''inputs'')', 'enqueue_jobs(''[]'')',
		'grant_queue(''inputs'', ''inputs_reader'', ''{read}'')',
		'revoke_queue(''inputs'', ''inputs_reader'', ''{read}'')',
		'create_access_key(''new'', ''inputs'', ''{read}'')',
		'rotate_access_key(''inputs'')', 'revoke_access_key(''inputs'')',
		'enqueue(''inputs'')', 'enqueue_unique(''inputs'', unique_key => ''k'')',
		'enqueue_many(''inputs'', ''{1}'')',
		'dequeue(''inputs'')', 'dequeue_any(''{inputs}'')',
		'CALL receive(''inputs'')', 'CALL receive_any(''{inputs}'')',
		'complete($l, $t)', 'complete_many(''{$l}'', $t)', 'fail($l, $t)',
		'release($l, $t)', 'extend($l, $t)', 'extend_many(''{$l}'', $t)',
		'settle_jobs(''[{"id": $l, "lease": $t, "do": "complete"}]'')',
		'complete_and_dequeue(''inputs'', ''{}'', NULL)', 'cancel($w)',
		'reschedule($w)', 'retry($c)', 'redrive(''inputs'')',
		'schedule(''new'', ''@daily'')', 'unschedule(''inputs'')',
		'pause_schedule(''inputs'')', 'resume_schedule(''inputs'')',
		'run_schedule(''inputs'')', 'create_key(''new'', ''sign'')',
		'rotate_key(''nowhere'')', 'revoke_key(''nowhere'')', 'reseal(''inputs'')']) call;
SELECT is(pg_temp.try(call, true), 'ok', call || ', read only')
	FROM unnest(ARRAY['peek(''inputs'')', 'job($w)', 'attempts($w)', 'wait_for($d)',
		'explain_job($w)', 'explain_job($d)', 'explain_queue(''inputs'')',
		'use_access_key(NULL)',
		'metrics()', 'health()', 'check_install()', 'run_maintenance()', 'verify_audit()',
		'preview_schedule(''@daily'')',
		'verify_signature(''k'', 1, ''1'', ''{}'', NULL, ''false'')']) call;

SELECT * FROM finish();
ROLLBACK;
SELECT jobq.drop_queue('inputs', true) \g /dev/null
DROP ROLE inputs_reader;
