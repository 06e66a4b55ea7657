-- Named keys and signatures: what is signed can be computed by others, one
-- changed bit is noticed, and a key that is retired, revoked, of another
-- purpose or of another role is refused.
BEGIN;
\ir setup.psql

CREATE ROLE sign_owner;
CREATE ROLE sign_other;
CREATE ROLE sign_worker;
GRANT USAGE ON SCHEMA jobq TO sign_owner, sign_other;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO sign_owner, sign_other;

-- HMAC by its definition, for keys of 32 bytes.
CREATE FUNCTION pg_temp.hmac(key bytea, message bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
	inner_key bytea := key || decode(repeat('00', 32), 'hex');
	outer_key bytea := inner_key;
BEGIN
	FOR i IN 0..63 LOOP
		inner_key := set_byte(inner_key, i, get_byte(inner_key, i) # 54);
		outer_key := set_byte(outer_key, i, get_byte(outer_key, i) # 92);
	END LOOP;
	RETURN sha256(outer_key || sha256(inner_key || message));
END
$$;
SELECT is(encode(pg_temp.hmac(decode(repeat('0b', 32), 'hex'), 'Hi There'), 'hex'),
	'198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7', 'HMAC as others compute it');

-- ---- keys ----

SET ROLE sign_owner;
SELECT jobq.create_queue('signed', '{"backoff": {"base": 0}}') AS made \gset
SELECT jobq.create_key('hook', 'sign') AS hook \gset
SELECT jobq.create_key('box', 'seal') AS box \gset
SELECT matches(:'hook'::text, '^[0-9a-f]{64}$', 'a signing key is given once, in hexadecimal');
SELECT is(:'box'::text, 'box:1', 'a sealing key never: its id is');
SELECT throws_ok($$SELECT jobq.create_key('hook', 'sign')$$, 'JQ008', NULL, 'a name is taken once');
SELECT throws_ok($$SELECT jobq.create_key('k', 'other')$$, 'JQ007', NULL, 'no such purpose');
SELECT throws_ok($$SELECT jobq.create_key(NULL, 'sign')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.create_key('k', NULL)$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.create_key('', 'sign')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.rotate_key('nowhere')$$, 'JQ013', NULL, 'no such key');
SELECT throws_ok($$SELECT jobq.rotate_key('hook', '-1 s')$$, 'JQ007');
SELECT throws_ok($$SELECT jobq.rotate_key('box', '1 d')$$, 'JQ007', NULL, 'overlap is for signatures');
SELECT throws_ok($$SELECT jobq.alter_queue('signed', '{"sign": "nowhere"}')$$, 'JQ013');
SELECT throws_ok($$SELECT jobq.alter_queue('signed', '{"sign": "box"}')$$, 'JQ013', NULL, 'another purpose');
SELECT throws_ok($$SELECT jobq.alter_queue('signed', '{"seal": "hook"}')$$, 'JQ013', NULL, 'the other way round');
SELECT throws_ok($$SELECT jobq.alter_queue('signed', '{"sign": 1}')$$, 'JQ007');
SELECT lives_ok($$SELECT jobq.alter_queue('signed', '{"sign": "hook"}')$$, 'an own key');
SELECT jobq.grant_queue('signed', 'sign_worker', '{dequeue}') \g /dev/null
RESET ROLE;
SELECT is_empty(format('SELECT FROM jobq.crypto_key k WHERE strpos(k::text, %L) > 0', :'hook'),
	'the key is in no table');
SELECT is(count(DISTINCT salt), 2::bigint, 'each has a salt of its own')
	FROM jobq.crypto_key WHERE name IN ('hook', 'box');
SELECT is(owner::oid, 'sign_owner'::regrole::oid, 'it belongs to who made it') FROM jobq.crypto_key WHERE name = 'hook';

-- other roles
SET ROLE sign_worker;
SELECT is(pg_temp.try($$create_key('mine', 'sign')$$), '42501', 'who manages nothing makes no keys');
RESET ROLE;
SELECT jobq.create_queue('read only') AS made \gset
SELECT jobq.grant_queue('read only', 'sign_worker', '{read}') \g /dev/null
GRANT EXECUTE ON FUNCTION jobq.create_key(text, text) TO sign_worker;
SET ROLE sign_worker;
SELECT is(pg_temp.try($$create_key('mine', 'sign')$$), '42501', 'nor with EXECUTE');
SET ROLE sign_other;
SELECT jobq.create_queue('others') AS made \gset
SELECT throws_ok($$SELECT jobq.alter_queue('others', '{"sign": "hook"}')$$, '42501', NULL, 'the key of another role');
SELECT throws_ok($$SELECT jobq.create_queue('others 2', '{"sign": "hook"}')$$, '42501', NULL, 'at creation, too');
SELECT throws_ok($$SELECT jobq.rotate_key('hook')$$, 'JQ013');
SELECT throws_ok($$SELECT jobq.revoke_key('hook')$$, 'JQ013');
SELECT jobq.create_key('theirs', 'sign') AS theirs \gset
RESET ROLE;

-- ---- a delivery ----

SELECT jobq.enqueue('signed', '{"b": [1, 2.50, "ä€"], "a": null}',
	headers => '{"traceparent": "00-1", "signature": "sha256=forged", "signature_key": "hook:9"}') AS id \gset
SELECT is(headers->>'signature', 'sha256=forged', 'nothing is signed before it is delivered')
	FROM jobq.peek('signed');
SET ROLE sign_worker;
CREATE TEMP TABLE got AS SELECT * FROM jobq.dequeue('signed');
RESET ROLE;
SELECT is(headers - 'signature' - 'signature_time', '{"traceparent": "00-1", "signature_key": "hook:1"}'::jsonb,
	'the other headers stay, and the key is named') FROM got;
SELECT is(abs(extract(epoch FROM clock_timestamp()) * 1000 - (headers->>'signature_time')::numeric) < 60000, true,
	'signature_time is in milliseconds since 1970') FROM got;
SELECT is(headers->>'signature',
	'sha256=' || encode(pg_temp.hmac(decode(:'hook', 'hex'), convert_to(id || '.' || (headers->>'signature_time')
		|| '.' || payload::text, 'UTF8')), 'hex'), 'anybody with the key can compute the signature') FROM got;

-- ---- verifying ----

CREATE FUNCTION pg_temp.verify(payload text, headers jsonb, id bigint DEFAULT NULL, key text DEFAULT 'hook')
	RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN jobq.verify_signature(key, coalesce(verify.id, g.id), verify.payload, verify.headers, on_wrong => 'false') FROM got g;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT is(pg_temp.verify(payload::text, headers), 'true', 'it is right') FROM got;
SELECT is(jobq.verify_signature('hook', id, payload::text, headers, '1 min'), true, 'and young') FROM got;
SELECT pg_temp.await_clock(clock_timestamp() + '5 ms');
SELECT throws_ok(format('SELECT jobq.verify_signature(%L, %s, %L, %L, %L)', 'hook', id, payload, headers, '1 ms'),
	'JQ019', NULL, 'but not so young') FROM got;
-- each bit of the payload that leaves it text
SELECT is(count(*) FILTER (WHERE flipped IS DISTINCT FROM payload::text AND pg_temp.verify(flipped, headers) <> 'false'),
	0::bigint, 'one bit of the payload')
	FROM got, generate_series(1, length(payload::text)) i, generate_series(0, 6) b,
		LATERAL (SELECT overlay(payload::text PLACING chr(greatest(1, ascii(substr(payload::text, i, 1)) # (1 << b)))
			FROM i FOR 1) AS flipped) f;
SELECT is(count(*) FILTER (WHERE pg_temp.verify(payload::text, jsonb_set(headers, '{signature}',
		to_jsonb(overlay(headers->>'signature' PLACING digit FROM 7 + i FOR 1)))) <>
		CASE WHEN substr(headers->>'signature', 7 + i, 1) = digit THEN 'true' ELSE 'false' END),
	0::bigint, 'one digit of the signature')
	FROM got, generate_series(1, 64) i, unnest(string_to_array('0123456789abcdef', NULL)) digit;
SELECT is(pg_temp.verify(payload::text || ' ', headers), 'false', 'a space') FROM got;
SELECT is(pg_temp.verify(payload::text, headers, id + 1), 'false', 'another job') FROM got;
SELECT is(pg_temp.verify(payload::text, jsonb_set(headers, '{signature_time}',
	to_jsonb((headers->>'signature_time')::bigint + 1))), 'false', 'another time') FROM got;
SELECT is(pg_temp.verify(payload::text, jsonb_set(headers, ARRAY[name], value)), 'false', name || ' ' || value)
	FROM got, (VALUES ('signature', '1'::jsonb), ('signature', '""'), ('signature', '"sha256="'), ('signature_key', '1'),
		('signature_key', '"hook"'), ('signature_key', '"hook:"'), ('signature_key', '"hook:1x"'),
		('signature_key', '"hook:0"'), ('signature_key', '"hook:99999999999"'), ('signature_time', '"1"'),
		('signature_time', '1e400'), ('signature_time', '1.5'), ('signature_time', '-1')) v (name, value);
SELECT is(pg_temp.verify(payload::text, headers - name), 'false', 'without ' || name)
	FROM got, unnest('{signature,signature_key,signature_time}'::text[]) name;
SELECT is(pg_temp.verify(payload::text, headers || '{"signature_key": "hook:2"}'), 'JQ013', 'a version that is not there') FROM got;
SELECT throws_ok(format('SELECT jobq.verify_signature(%L, %s, %L, %L)', 'hook', id + 1, payload, headers),
	'JQ019', NULL, 'by default it is an error') FROM got;
SELECT throws_ok(format('SELECT jobq.verify_signature(%s)', arguments), 'JQ007', NULL, arguments)
	FROM unnest(ARRAY[$$NULL, 1, '1', '{}'$$, $$'hook', NULL, '1', '{}'$$, $$'hook', 1, NULL, '{}'$$,
		$$'hook', 1, '1', NULL$$, $$'hook', 1, '1', '[]'$$, $$'hook', 1, '1', '{}', '-1 s'$$,
		$$'hook', 1, '1', '{}', NULL, 'never'$$, $$'', 1, '1', '{}'$$]) arguments;
-- somebody else's signature, by a key of theirs
SELECT is(pg_temp.verify('1', jsonb_build_object('signature_key', 'theirs:1', 'signature_time', 1, 'signature',
	'sha256=' || encode(pg_temp.hmac(decode(:'theirs', 'hex'), convert_to(id || '.1.1', 'UTF8')), 'hex'))),
	'false', 'another key than the one that is expected') FROM got;
SELECT is(pg_temp.verify('1', jsonb_build_object('signature_key', 'theirs:1', 'signature_time', 1, 'signature',
	'sha256=' || encode(pg_temp.hmac(decode(:'theirs', 'hex'), convert_to(id || '.1.1', 'UTF8')), 'hex')), id, 'theirs'),
	'true', 'which is right by itself') FROM got;

-- ---- rotation ----

SET ROLE sign_owner;
SELECT jobq.rotate_key('hook', '1 h') AS hook2 \gset
RESET ROLE;
SELECT isnt(:'hook2'::text, :'hook', 'a new version is another key');
SELECT is(pg_temp.verify(payload::text, headers), 'true', 'the former one is good for the overlap') FROM got;
SELECT jobq.enqueue('signed', '1') AS id2 \gset
CREATE TEMP TABLE got2 AS SELECT * FROM jobq.dequeue('signed');
SELECT is(headers->>'signature_key', 'hook:2', 'new deliveries have the new one') FROM got2;
SELECT is(headers->>'signature', 'sha256=' || encode(pg_temp.hmac(decode(:'hook2', 'hex'),
	convert_to(id || '.' || (headers->>'signature_time') || '.1', 'UTF8')), 'hex'), 'and are signed with it') FROM got2;
SELECT jobq.rotate_key('hook', '0') AS hook3 \gset
SELECT is(pg_temp.verify(payload::text, headers), 'JQ013', 'the first retires before its time') FROM got;
SELECT is(jobq.rotate_key('box'), 'box:2', 'a sealing key');
SELECT is(count(retires_at), 0::bigint, 'whose versions do not retire') FROM jobq.crypto_key WHERE name = 'box';

-- ---- revocation ----

SELECT jobq.enqueue('signed', '2') AS id3 \gset
SET ROLE sign_owner;
SELECT jobq.revoke_key('hook') \g /dev/null
SELECT throws_ok($$SELECT jobq.rotate_key('hook')$$, 'JQ013', NULL, 'a revoked key has no future');
SELECT throws_ok($$SELECT jobq.create_key('hook', 'sign')$$, 'JQ008', NULL, 'and keeps its name');
SELECT throws_ok($$SELECT jobq.dequeue('signed')$$, 'JQ013', NULL, 'nothing is delivered without it');
RESET ROLE;
SELECT results_eq($$SELECT state, attempt FROM jobq.jobs WHERE queue = 'signed' AND payload = '2'$$,
	$$VALUES ('available', 0)$$, 'and no attempt is lost');
SELECT is(pg_temp.verify('1', headers), 'JQ013', 'what it signed is refused') FROM got2;
SELECT lives_ok($$SELECT jobq.alter_queue('signed', '{"sign": null}')$$);
SELECT ok(headers IS NULL, 'a queue without the option has no signatures') FROM jobq.dequeue('signed');

SELECT * FROM finish();
ROLLBACK;
