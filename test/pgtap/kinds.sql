-- What a queue demands of all jobs: allowed_kinds, sizes in bytes, nesting, keys
-- and strings; at their bounds, by every way to enqueue.
\ir setup.psql

-- the same payload, kind and headers by every way
CREATE FUNCTION pg_temp.by_all(queue text, payload text, kind text DEFAULT NULL, headers text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(DISTINCT pg_temp.try(call), ' ') FROM unnest(ARRAY[
		format('enqueue(%L, %L, kind => %L, headers => %L)', queue, payload, kind, headers),
		format('enqueue_unique(%L, %L, kind => %L, headers => %L, unique_key => gen_random_uuid()::text)', queue, payload, kind, headers),
		format('enqueue_many(%L, ARRAY[''{}'', %L]::jsonb[], kind => %L, headers => %L)', queue, payload, kind, headers),
		format('enqueue_jobs(%L)', jsonb_build_array(jsonb_build_object('queue', queue, 'kind', kind, 'payload', payload::jsonb, 'headers', headers::jsonb))),
		format('schedule(''s'', ''0 0 1 1 *'', %L, %L, kind => %L, headers => %L)', queue, payload, kind, headers)]) call
$$;

-- ---- kinds ----

SELECT jobq.create_queue('kinds', '{"allowed_kinds": ["mail", "sms", "m"]}') AS x \gset
SELECT is(pg_temp.by_all('kinds', '{}', kind), 'ok', 'taken: ' || kind) FROM unnest(ARRAY['mail', 'sms', 'm']) kind;
SELECT is(pg_temp.by_all('kinds', '{}', kind), 'JQ017', 'refused: ' || coalesce(kind, 'none')) FROM unnest(ARRAY['Mail', 'mai', 'mails', '', ' sms', NULL]) kind;
SELECT is(pg_temp.told('enqueue(''kinds'', kind => ''secret'')'),
	'JQ017|queue "kinds" does not take jobs of this kind|Its allowed_kinds are: m, sms, mail.|Pass one of them as kind, or change allowed_kinds with jobq.alter_queue().', 'the message');
SELECT alike(pg_temp.told('enqueue_jobs(''[{"queue": "kinds", "kind": "sms"}, {"queue": "kinds", "kind": "x"}]'')'), '%|Job 2 of the call: Its%', 'which one');
-- a schedule is held against what the queue takes when it runs
SELECT jobq.alter_queue('kinds', '{"allowed_kinds": ["fax"]}') AS x \gset
SELECT is(pg_temp.try('run_schedule(''s'')'), 'JQ017', 'a schedule whose kind is not taken any more');
SELECT jobq.unschedule('s') AS x \gset
SELECT jobq.alter_queue('kinds', '{"allowed_kinds": null}') AS x \gset
SELECT is(pg_temp.try('enqueue(''kinds'')'), 'ok', 'all kinds again');
SELECT is(pg_temp.try(format('alter_queue(''kinds'', ''{"allowed_kinds": %s}'')', value)), 'JQ007', 'not kinds: ' || left(value, 40))
	FROM unnest(ARRAY['"mail"', '[]', '[1]', '["a", null]', '[["a"]]', '{"a": 1}', 'true', '["' || repeat('x', 256) || '"]',
	(SELECT json_agg(i::text)::text FROM generate_series(1, 1001) i)]) value;
SELECT is(pg_temp.try(format('alter_queue(''kinds'', ''{"allowed_kinds": %s}'')', value)), 'ok', 'kinds: ' || left(value, 40))
	FROM unnest(ARRAY['["' || repeat('x', 255) || '"]', '["a", "a"]', (SELECT json_agg(i::text)::text FROM generate_series(1, 1000) i)]) value;
SELECT alike(pg_temp.told('enqueue(''kinds'', kind => ''a'')'), 'JQ017|%, ....|%', 'a long list is cut');

-- ---- bytes: exactly as many as allowed, headers included ----

SELECT jobq.create_queue('input') AS x \gset
-- a jsonb string takes 8 bytes more than its text
SELECT is(pg_temp.by_all('input', to_json(repeat('x', n - 8))::text), verdict, n || ' bytes')
	FROM (VALUES (1048576, 'ok'), (1048577, 'JQ004')) t(n, verdict);
SELECT is(pg_temp.try(format('enqueue(''input'', %L, headers => %L)', to_json(repeat('x', 1048576 - 8 - n)), headers)), verdict, 'with headers of ' || n)
	FROM (SELECT '{"a": "b"}'::jsonb AS headers, pg_column_size('{"a": "b"}'::jsonb) - 4 AS size) h,
	LATERAL (VALUES (size, 'ok'), (size - 1, 'JQ004')) t(n, verdict);
-- what is compressed or toasted counts as it is, and is not even read
CREATE TEMP TABLE stored (payload jsonb);
INSERT INTO stored VALUES (to_jsonb(repeat('x', 1048576 - 7)));
SELECT cmp_ok(pg_column_size(payload), '<', 20000, 'compressed') FROM stored;
SELECT throws_ok('SELECT jobq.enqueue(''input'', payload) FROM stored', 'JQ004', NULL, 'counts in full');
UPDATE stored SET payload = to_jsonb(repeat('x', 1048576 - 8));
SELECT lives_ok('SELECT jobq.enqueue(''input'', payload) FROM stored', 'one byte less');

-- ---- nesting ----

CREATE FUNCTION pg_temp.deep(open text, middle text, shut text, n int) RETURNS text LANGUAGE sql AS $$
	SELECT repeat(open, n) || middle || repeat(shut, n)
$$;
SELECT is(pg_temp.by_all('input', pg_temp.deep(open, middle, shut, 500)), 'ok', format('500 levels of %s%s%s', open, middle, shut)) FROM
	(VALUES ('[', '', ']'), ('[', '1', ']'), ('{"a":', 'null', '}')) t(open, middle, shut);
SELECT is(pg_temp.by_all('input', pg_temp.deep(open, middle, shut, n)), verdict, format('%s levels of %s%s%s', n + 1, open, middle, shut)) FROM
	(VALUES ('{"a":', '[]', '}'), ('[1,', '{}', ',"x"]'), ('[{},', '[]', ']'), ('{"":', '{}', '}')) t(open, middle, shut), (VALUES (499, 'ok'), (500, 'JQ004')) b(n, verdict);
SELECT is(pg_temp.by_all('input', pg_temp.deep('[', middle, ']', 501)), 'JQ004', '501 levels') FROM unnest(ARRAY['', '1', '"x"']) middle;
SELECT is(pg_temp.by_all('input', '{}', headers => pg_temp.deep('{"a":', '1', '}', n)), verdict, n || ' levels of headers')
	FROM (VALUES (500, 'ok'), (501, 'JQ004')) b(n, verdict);
SELECT alike(pg_temp.told(format('enqueue(''input'', %L)', pg_temp.deep('[', '"secret"', ']', 501))),
	'JQ004|the payload is nested too deep for queue "input"|The queue''s max_json_depth is 500.|%', 'the message');
SELECT ok(pg_temp.try(format('enqueue(''input'', %L)', pg_temp.deep('[', '', ']', n))) IN ('JQ004', '54001'), n || ' levels') FROM unnest(ARRAY[5000, 10000, 200000]) n;
SELECT jobq.alter_queue('input', '{"max_json_depth": 2}') AS x \gset
SELECT is(pg_temp.by_all('input', payload), verdict, 'two levels: ' || payload) FROM (VALUES ('1', 'ok'), ('{}', 'ok'), ('[[]]', 'ok'), ('{"a": {"b": 1}}', 'ok'),
	('[1, "x", {"a": null}, []]', 'ok'), ('[[[]]]', 'JQ004'), ('{"a": {"b": []}}', 'JQ004'), ('[1, "x", {"a": {}}]', 'JQ004')) t(payload, verdict);
SELECT jobq.alter_queue('input', '{"max_json_depth": null}') AS x \gset

-- ---- keys ----

SELECT jobq.alter_queue('input', '{"max_json_keys": 3}') AS x \gset
SELECT is(pg_temp.by_all('input', payload), verdict, 'three keys: ' || payload) FROM (VALUES ('{}', 'ok'), ('{"a": 1, "b": 2, "c": 3}', 'ok'), ('{"a": {"a": {"a": 1}}}', 'ok'),
	('[{"a": 1}, {"a": 1}, {"a": 1}]', 'ok'), ('[1, 2, 3, 4, 5, 6, 7, 8, 9]', 'ok'),
	('{"a": 1, "b": 2, "c": 3, "d": 4}', 'JQ004'), ('{"a": {"a": {"a": {"a": 1}}}}', 'JQ004'), ('[{"a": 1}, {"a": 1}, {"a": 1}, {"a": 1}]', 'JQ004'),
	('{"": {"": {"": {"": 1}}}}', 'JQ004')) t(payload, verdict);
SELECT is(pg_temp.by_all('input', '{"a": 1}', headers => '{"a": 1, "b": 2}'), 'ok', 'headers count');
SELECT is(pg_temp.by_all('input', '{"a": 1, "b": 2}', headers => '{"a": 1, "b": 2}'), 'JQ004', 'too');
SELECT is(pg_temp.told('enqueue(''input'', ''{"a": 1, "b": 2, "c": 3, "secret": 4}'')'),
	'JQ004|the payload has too many keys for queue "input"|The queue''s max_json_keys is 3.|Enqueue a simpler payload, or raise max_json_keys with jobq.alter_queue().', 'the message');
SELECT jobq.alter_queue('input', '{"max_json_keys": null}') AS x \gset
SELECT is(pg_temp.by_all('input', (SELECT json_object_agg(i, 1) FROM generate_series(1, 20000) i)::text), 'ok', '20,000 keys without a limit');

-- ---- strings, in characters ----

SELECT jobq.alter_queue('input', '{"max_json_string": 5}') AS x \gset
SELECT is(pg_temp.by_all('input', payload), verdict, 'five characters: ' || payload) FROM (VALUES ('"abcde"', 'ok'), ('"äöüäö"', 'ok'), ('"😀😀😀😀😀"', 'ok'), ('["abcde", "abcde", 1234567890]', 'ok'),
	('{"abcde": 1}', 'ok'), ('"abcdef"', 'JQ004'), ('"äöüäöü"', 'JQ004'), ('[[{"a": ["abcdef"]}]]', 'JQ004'), ('{"abcdef": 1}', 'JQ004'), ('{"a": 12345678, "b": "abcdef", "c": 1}', 'JQ004'),
	('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,"abcdef"]', 'JQ004'),
	('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,"abcde",[[]]]', 'ok')) t(payload, verdict);
SELECT is(pg_temp.by_all('input', '{}', headers => '{"a": "abcdef"}'), 'JQ004', 'in headers');
SELECT is(pg_temp.told('enqueue(''input'', ''"secret"'')'),
	'JQ004|a string in the payload is too long for queue "input"|The queue''s max_json_string is 5.|Enqueue a simpler payload, or raise max_json_string with jobq.alter_queue().', 'the message');
SELECT alike(pg_temp.told('enqueue_many(''input'', ''{1, "\"secret\""}'')'), '%|Job 2 of the call: The queue%', 'which one');
SELECT jobq.alter_queue('input', '{"max_json_string": null}') AS x \gset

SELECT is(pg_temp.try(format('alter_queue(''input'', ''{"%s": %s}'')', option, value)), 'JQ007', option || ' ' || value)
	FROM unnest(ARRAY['max_json_depth', 'max_json_keys', 'max_json_string']) option, unnest(ARRAY['0', '-1', '1.5', '"10"', '2147483648', 'true', '[]']) value;

-- headers are an object and nothing else
SELECT is(pg_temp.by_all('input', '{}', headers => value), 'JQ007', 'headers ' || value) FROM unnest(ARRAY['[]', '1', '"x"', 'true', '[{}]']) value;

-- what a refused call would have used of a rate is left
SELECT jobq.create_queue('input limited', '{"enqueue_limit": {"limit": 1, "period": "1 h"}, "allowed_kinds": ["a"]}') AS x \gset
SELECT is(pg_temp.try('enqueue(''input limited'', kind => ''b'')'), 'JQ017', 'refused') FROM generate_series(1, 3);
SELECT is(pg_temp.try('enqueue(''input limited'', kind => ''a'')'), 'ok', 'and nothing used');

SELECT jobq.drop_queue(q, true) AS x FROM unnest(ARRAY['kinds', 'input', 'input limited']) q;
SELECT * FROM finish();
