-- The option validator: what it accepts and refuses, with whose rights it runs,
-- what it cannot do, what is told of it.
\set QUIET 1
SET client_min_messages = warning;
SELECT no_plan();
\ir setup.psql
CREATE ROLE val_owner;
CREATE ROLE val_author;
CREATE ROLE val_maker;
CREATE ROLE val_manager;
CREATE ROLE val_other;
CREATE SCHEMA val;
GRANT USAGE, CREATE ON SCHEMA val TO val_owner, val_author, val_manager, val_maker;
GRANT USAGE ON SCHEMA jobq TO val_owner;

CREATE FUNCTION pg_temp.message(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
	context text;
BEGIN
	EXECUTE 'SELECT jobq.' || call;
	RETURN 'ok';
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws('|', SQLSTATE, message, detail, hint, context);
END
$$;
-- a function with that body, and what becomes of a job that it is asked about
CREATE FUNCTION pg_temp.verdict(body text, payload text DEFAULT '{"n": 4711}') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE FUNCTION val.body(p jsonb) RETURNS boolean LANGUAGE plpgsql AS %L', body);
	RETURN split_part(pg_temp.message(format('enqueue(''val'', %L)', payload)), '|', 1);
END
$$;

SELECT jobq.create_queue('val other') AS x, jobq.enqueue('val other', '{"secret": "of another tenant"}') AS secret \gset
SELECT jobq.create_queue('val root') AS x \gset
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO val_owner, val_manager;
SET ROLE val_owner;
SELECT jobq.create_queue('val') AS x \gset
SELECT jobq.grant_queue('val', 'val_maker', '{enqueue}') AS x, jobq.grant_queue('val', 'val_manager', '{manage,enqueue}') AS y \gset
RESET ROLE;
SELECT jobq.grant_queue('val root', 'val_manager', '{manage,enqueue}') AS x \gset
CREATE FUNCTION val.body(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
ALTER FUNCTION val.body(jsonb) OWNER TO val_author;

-- ---- yes, no, neither ----

SET ROLE val_owner;
SELECT jobq.alter_queue('val', '{"validator": "val.body"}') AS x \gset
RESET ROLE;
SELECT is(pg_temp.verdict('BEGIN RETURN true; END'), 'ok', 'true');
SELECT is(pg_temp.verdict('BEGIN RETURN false; END'), 'JQ018', 'false');
SELECT is(pg_temp.verdict('BEGIN RETURN NULL; END'), 'JQ018', 'null');
SELECT is(pg_temp.verdict('BEGIN RAISE EXCEPTION ''no''; END'), 'JQ018', 'an error');
SELECT is(pg_temp.verdict('BEGIN RETURN p #>> ''{n}'' = ''1''; END', '{"n": 1}'), 'ok', 'it sees the payload');
SELECT is(pg_temp.verdict('BEGIN RETURN p #>> ''{n}'' = ''1''; END', '{"n": 2}'), 'JQ018', 'and looks at it');
SELECT is(pg_temp.verdict('BEGIN PERFORM 1 / 0; RETURN true; END'), 'JQ018', 'an error of the server''s');
SELECT is(pg_temp.verdict('BEGIN BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN END; RETURN true; END'), 'ok', 'an error that it catches');
SELECT is(pg_temp.verdict('BEGIN PERFORM val.body(p); RETURN true; END'), 'JQ018', 'itself, without end');
SELECT is(pg_temp.verdict('BEGIN RETURN p <> ''{"n": 3}''; END'), 'ok', 'ready for several');
SELECT is(pg_temp.try(call), 'JQ018', call) FROM unnest(ARRAY['enqueue_many(''val'', ''{"{\"n\": 1}", "{\"n\": 3}"}'')',
	'enqueue_unique(''val'', ''{"n": 3}'', unique_key => ''k'')',
	'enqueue_jobs(''[{"queue": "val", "payload": {"n": 1}}, {"queue": "val", "payload": {"n": 3}}]'')',
	'schedule(''s'', ''0 0 1 1 *'', ''val'', ''{"n": 3}'')']) call;
SELECT alike(pg_temp.message('enqueue_many(''val'', ''{"{\"n\": 1}", "{\"n\": 3}"}'')'), '%|Job 2 of the call: It returned false.|%', 'which one');
SELECT jobq.schedule('s', '0 0 1 1 *', 'val', '{"n": 1}') AS x \gset
SELECT is(pg_temp.try('run_schedule(''s'')'), 'ok', 'a schedule');
SELECT is(pg_temp.verdict('BEGIN RETURN false; END'), 'JQ018', 'nothing is taken any more');
SELECT is(pg_temp.try('run_schedule(''s'')'), 'JQ018', 'also of the schedule');
SELECT jobq.unschedule('s') AS x \gset

-- ---- nothing of the payload is told, whatever it raises ----

SELECT is(pg_temp.verdict(format('BEGIN RAISE EXCEPTION USING MESSAGE = p::text, DETAIL = p::text, HINT = p::text, ERRCODE = %L; END', state)), told, 'raises ' || state)
	FROM (VALUES ('P0001', 'JQ018'), ('22000', 'JQ018'), ('JQ016', 'JQ018'), ('42501', 'JQ018'), ('54001', 'JQ018'),
	('40001', '40001'), ('57014', '57014'), ('53200', '53200'), ('55P03', '55P03'), ('XX000', 'XX000')) t(state, told);
CREATE TEMP TABLE told (state text, message text);
DO $$
DECLARE
	s text;
BEGIN
	FOREACH s IN ARRAY '{P0001,22000,JQ016,42501,40001,57014,53200,55P03,XX000}'::text[] LOOP
		PERFORM pg_temp.verdict(format('BEGIN RAISE EXCEPTION USING MESSAGE = p::text, DETAIL = p::text, HINT = p::text, ERRCODE = %L; END', s));
		INSERT INTO told VALUES (s, pg_temp.message('enqueue(''val'', jsonb_build_object(''n'', 47 * 100 + 11))'));
	END LOOP;
END
$$;
SELECT unalike(message, '%4711%', 'nothing of the payload: ' || state) FROM told;
SELECT alike(message, '%SQLSTATE ' || state || '.%', 'but its SQLSTATE: ' || state) FROM told;

-- ---- as whom it runs, and what it cannot do ----

SELECT is(pg_temp.verdict('BEGIN RETURN current_user = ''val_owner''; END'), 'ok', 'it runs as the queue''s owner');
SELECT is(pg_temp.verdict('BEGIN RETURN current_setting(''search_path'') = ''pg_catalog, pg_temp''; END'), 'ok', 'with a pinned search_path');
SET ROLE val_maker;
SELECT is(pg_temp.try('enqueue(''val'', ''{}'')'), 'ok', 'whoever enqueues');
RESET ROLE;
SELECT is(current_user::text, session_user::text, 'and everything is as it was');
SELECT is(pg_temp.verdict(format('BEGIN %s; RETURN true; END', body)), 'JQ018', 'it cannot: ' || body) FROM unnest(ARRAY[
	'EXECUTE ''SET ROLE val_other''', 'EXECUTE ''RESET ROLE''', 'EXECUTE ''SET SESSION AUTHORIZATION DEFAULT''', 'EXECUTE ''SET LOCAL transaction_read_only = off''',
	'EXECUTE ''CREATE TABLE val.made (x int)''', 'EXECUTE ''CREATE TEMP TABLE made (x int)''', 'EXECUTE ''CREATE FUNCTION val.made() RETURNS int LANGUAGE sql AS $f$ SELECT 1 $f$''',
	'EXECUTE ''GRANT val_owner TO val_author''', 'EXECUTE ''LISTEN x''', 'EXECUTE ''DECLARE c CURSOR WITH HOLD FOR SELECT 1''',
	'PERFORM jobq.enqueue(''val'', ''{}'')', 'PERFORM jobq.alter_queue(''val'', ''{"validator": null}'')', 'PERFORM jobq.enqueue(''val other'', ''{}'')',
	'PERFORM * FROM jobq.dequeue(''val other'')', 'PERFORM payload FROM jobq.job_1', 'PERFORM * FROM jobq.shelf', 'INSERT INTO val.data VALUES (1)',
	'COMMIT', 'PERFORM pg_catalog.pg_read_file(''postgresql.conf'')']) body;
CREATE TABLE val.data (x int);
GRANT ALL ON val.data TO val_owner;
SELECT is(pg_temp.verdict('BEGIN INSERT INTO val.data VALUES (1); RETURN true; END'), 'JQ018', 'nor write what its owner may');
SELECT is(pg_temp.verdict('BEGIN PERFORM * FROM val.data FOR UPDATE; RETURN true; END'), 'JQ018', 'nor lock it');
SELECT is(pg_temp.verdict('BEGIN RETURN NOT EXISTS (SELECT FROM val.data); END'), 'ok', 'but read it');
SELECT is(pg_temp.verdict('BEGIN RETURN NOT EXISTS (SELECT FROM jobq.jobs WHERE queue = ''val other''); END'), 'ok', 'another tenant''s queue is empty for it');
SELECT is(pg_temp.verdict('BEGIN RETURN EXISTS (SELECT FROM jobq.jobs WHERE queue = ''val''); END'), 'ok', 'its own is not');
-- what was written before and after it in the transaction is not in its way
BEGIN;
INSERT INTO val.data VALUES (1);
SELECT jobq.enqueue('val', '{}') AS x \gset
INSERT INTO val.data VALUES (2);
SAVEPOINT s;
SELECT throws_ok('SELECT jobq.enqueue(''val'', ''{"n": 1}'') FROM (SELECT pg_temp.verdict(''BEGIN RETURN false; END'')) x', 'JQ018', NULL, 'refused');
ROLLBACK TO s;
INSERT INTO val.data VALUES (3);
SELECT is(current_setting('transaction_read_only'), 'off', 'reading and writing');
COMMIT;
SELECT is(count(*), 3::bigint, 'all is written') FROM val.data;

-- ---- who may set it, and to what ----

SELECT is(pg_temp.try(format('alter_queue(''val'', %L)', jsonb_build_object('validator', name))), 'JQ007', 'no validator: ' || name) FROM unnest(ARRAY['body', 'val.no', 'no.body', '', '.', 'val.', 'a.val.body', 'val.body(text)', 'val.body(jsonb) ', 'pg_catalog.jsonb_typeof',
	'pg_catalog.jsonb_array_elements', 'val.body; SELECT 1', '"val.body"', 'val."body']) name;
SELECT is(pg_temp.try('alter_queue(''val'', ''{"validator": 1}'')'), 'JQ007', 'nor is a number');
CREATE FUNCTION val.several(p jsonb) RETURNS SETOF boolean LANGUAGE sql AS 'SELECT true';
CREATE AGGREGATE val.every(jsonb) (sfunc = jsonb_concat, stype = jsonb);
CREATE FUNCTION val."Body 2"(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT p = ''1''';
ALTER FUNCTION val."Body 2" OWNER TO val_author;
SELECT is(pg_temp.try('alter_queue(''val'', ''{"validator": "val.several"}'')'), 'JQ007', 'nor one that returns a set');
SELECT is(pg_temp.try('alter_queue(''val'', ''{"validator": "val.every"}'')'), 'JQ007', 'nor an aggregate');
SELECT is(pg_temp.try(format('alter_queue(''val'', %L)', jsonb_build_object('validator', name))), 'ok', name) FROM unnest(ARRAY['val.body(jsonb)', 'VAL.body', ' val . body', 'val."Body 2"']) name;
SELECT is(pg_temp.try('enqueue(''val'', ''1'')'), 'ok', 'a name in double quotes');
SELECT is(pg_temp.try('enqueue(''val'', ''2'')'), 'JQ018', 'and it is asked');
REVOKE EXECUTE ON FUNCTION val."Body 2" FROM PUBLIC;
SELECT alike(pg_temp.message('enqueue(''val'', ''1'')'), '42501|permission denied for function val."Body 2"|Role "val_owner" may not execute it.|%', 'EXECUTE has gone: checked when it runs');
SELECT is(pg_temp.try('alter_queue(''val'', ''{"validator": "val.\"Body 2\""}'')'), '42501', 'and when it is set, of the owner');
GRANT EXECUTE ON FUNCTION val."Body 2" TO val_owner;
SELECT is(pg_temp.try('enqueue(''val'', ''1'')'), 'ok', 'and it has come back');
REVOKE USAGE ON SCHEMA val FROM val_owner;
SELECT is(pg_temp.try('enqueue(''val'', ''1'')'), '42501', 'the schema counts too');
GRANT USAGE ON SCHEMA val TO val_owner;

-- a role that may manage the queue cannot have code run as its owner
SET ROLE val_manager;
CREATE FUNCTION val.mine(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
SELECT is(pg_temp.try('alter_queue(''val'', ''{"validator": "val.mine"}'')'), '42501', 'not with manage alone');
SELECT is(pg_temp.try('alter_queue(''val root'', ''{"validator": "val.mine"}'')'), '42501', 'not of a superuser''s queue');
SELECT is(pg_temp.try('create_queue(''val'', ''{"validator": "val.mine"}'', ''alter'')'), '42501', 'nor by creating it');
SELECT is(pg_temp.try('alter_queue(''val'', ''{"max_attempts": 3}'')'), 'ok', 'other options are no matter');
RESET ROLE;
SELECT is(pg_temp.try('alter_queue(''val root'', ''{"validator": "val.mine"}'')'), '42501', 'a superuser''s queue runs superusers'' functions only');
-- EXECUTE of who sets it
SET ROLE val_owner;
SELECT is(pg_temp.try('alter_queue(''val'', ''{"validator": "val.\"Body 2\""}'')'), 'ok', 'the owner');
RESET ROLE;
GRANT val_owner TO val_other;
REVOKE EXECUTE ON FUNCTION val.mine FROM PUBLIC;
GRANT EXECUTE ON FUNCTION val.mine TO val_owner;
ALTER ROLE val_other NOINHERIT;
SET ROLE val_other;
SELECT is(pg_temp.try('alter_queue(''val'', ''{"validator": "val.mine"}'')') IN ('42501', 'JQ002'), true, 'a member that does not inherit');
RESET ROLE;

-- the function of a queue of a superuser that somebody else has made anew
CREATE FUNCTION val.rooted(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
SELECT is(pg_temp.try('alter_queue(''val root'', ''{"validator": "val.rooted"}'')'), 'ok', 'a superuser''s function');
SELECT is(pg_temp.try('enqueue(''val root'')'), 'ok', 'runs');
DROP FUNCTION val.rooted;
SELECT alike(pg_temp.message('enqueue(''val root'')'), 'JQ007|invalid value for "validator"|There is no function val.rooted with one argument of type jsonb.|%', 'dropped');
SET ROLE val_author;
CREATE FUNCTION val.rooted(p jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
RESET ROLE;
SELECT is(pg_temp.try('enqueue(''val root'')'), '42501', 'and made by somebody else');
SELECT is(pg_temp.try('alter_queue(''val root'', ''{"validator": null}'')'), 'ok', 'gone');
SELECT is(pg_temp.try('enqueue(''val root'')'), 'ok', 'nothing is asked any more');

SELECT jobq.drop_queue(q, true) AS x FROM unnest(ARRAY['val', 'val other', 'val root']) q;
DROP SCHEMA val CASCADE;
DO $$
BEGIN
	EXECUTE (SELECT string_agg(format('DROP OWNED BY %I', rolname), ';') FROM pg_roles WHERE rolname LIKE 'val\_%');
	EXECUTE (SELECT string_agg(format('DROP ROLE %I', rolname), ';') FROM pg_roles WHERE rolname LIKE 'val\_%');
END
$$;
SELECT * FROM finish();
