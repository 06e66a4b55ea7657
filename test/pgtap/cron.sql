-- Schedules: ticks against a table of every moment of two years in three zones,
-- made without pg_jobq; then schedules as their owners and others see them.
-- Nothing is committed, so nothing ticks: that is for the TAP tests.
BEGIN;
SET client_min_messages = warning;
\set QUIET 1
SELECT no_plan();

-- ---- ticks ----

-- Zones that change at different hours, one of them by half an hour only. All
-- offsets are multiples of half an hour, so these minutes go over into each
-- other.
CREATE TEMP TABLE minute (minute int);
INSERT INTO minute VALUES (0), (7), (15), (22), (30), (37), (45), (52);
CREATE TEMP TABLE clock AS
	SELECT zone, t, local,
		date_part('minute', local)::int AS minute,
		date_part('hour', local)::int AS hour,
		date_part('day', local)::int AS day,
		date_part('month', local)::int AS month,
		date_part('dow', local)::int AS weekday
	FROM unnest('{Europe/Berlin,America/New_York,Australia/Lord_Howe}'::text[]) zone,
		generate_series(date_trunc('hour', now()) - interval '1 hour',
			now() + interval '2 years 3 days', '1 hour') h,
		minute m,
		LATERAL (SELECT h + m.minute * interval '1 min') x (t),
		LATERAL (SELECT x.t AT TIME ZONE zone) y (local);
CREATE INDEX ON clock (zone, local);
ANALYZE clock;

-- Wall-clock times that never come, and the moment when the clock has gone past.
CREATE TEMP TABLE gap AS
	SELECT zone, local,
		(SELECT min(c.t) FROM clock c WHERE c.zone = z.zone AND c.local > w.local) AS t,
		date_part('minute', local)::int AS minute,
		date_part('hour', local)::int AS hour,
		date_part('day', local)::int AS day,
		date_part('month', local)::int AS month,
		date_part('dow', local)::int AS weekday
	FROM (SELECT DISTINCT zone FROM clock) z,
		generate_series(date_trunc('hour', now()::timestamp) + interval '1 day',
			now()::timestamp + interval '2 years', '1 hour') h,
		minute m,
		LATERAL (SELECT h + m.minute * interval '1 min') w (local)
	WHERE NOT EXISTS (SELECT FROM clock c WHERE c.zone = z.zone AND c.local = w.local);
SELECT is(count(*), CASE zone WHEN 'Australia/Lord_Howe' THEN 8 ELSE 16 END::bigint,
	'two gaps in ' || zone) FROM gap GROUP BY zone ORDER BY zone;
SELECT is(count(*), CASE zone WHEN 'Australia/Lord_Howe' THEN 8 ELSE 16 END::bigint,
	'two repetitions in ' || zone)
	FROM (SELECT zone, local FROM clock GROUP BY 1, 2 HAVING count(*) > 1) r
	GROUP BY zone ORDER BY zone;

-- What an expression means, taken apart by hand; NULL = all values. either: day
-- or weekday is enough; elapsed: has a wildcard for second, minute or hour.
CREATE TEMP TABLE meaning (cron text, minutes int[], hours int[], days int[],
	months int[], weekdays int[], either bool, elapsed bool, seconds int[]);
INSERT INTO meaning VALUES
	('30 2 * * *', '{30}', '{2}', NULL, NULL, NULL, false, false, '{0}'),
	('30 1 * * *', '{30}', '{1}', NULL, NULL, NULL, false, false, '{0}'),
	('0 3 * * *', '{0}', '{3}', NULL, NULL, NULL, false, false, '{0}'),
	('7,37 1-3 * * *', '{7,37}', '{1,2,3}', NULL, NULL, NULL, false, false, '{0}'),
	('0,15,30,45 0-23 * * *', '{0,15,30,45}', NULL, NULL, NULL, NULL, false, false, '{0}'),
	('22-52/15 2 * mar,apr,oct,nov 0', '{22,37,52}', '{2}', NULL, '{3,4,10,11}', '{0}', false, false, '{0}'),
	('15 2 * * Sun', '{15}', '{2}', NULL, NULL, '{0}', false, false, '{0}'),
	('0 2 1,15 * mon', '{0}', '{2}', '{1,15}', NULL, '{1}', true, false, '{0}'),
	('0 2 */7 * mon', '{0}', '{2}', '{1,8,15,22,29}', NULL, '{1}', false, false, '{0}'),
	('0 2 1-9 * */2', '{0}', '{2}', '{1,2,3,4,5,6,7,8,9}', NULL, '{0,2,4,6}', false, false, '{0}'),
	('45 23 31 * *', '{45}', '{23}', '{31}', NULL, NULL, false, false, '{0}'),
	('0 12 29 2 *', '{0}', '{12}', '{29}', '{2}', NULL, false, false, '{0}'),
	('52 1-23/2 * 6-8 fri-7', '{52}', '{1,3,5,7,9,11,13,15,17,19,21,23}', NULL, '{6,7,8}', '{5,6,0}', false, false, '{0}'),
	('*/15 * * * *', '{0,15,30,45}', NULL, NULL, NULL, NULL, false, true, '{0}'),
	('0 */2 * * *', '{0}', '{0,2,4,6,8,10,12,14,16,18,20,22}', NULL, NULL, NULL, false, true, '{0}'),
	('*/15 2 * * 7', '{0,15,30,45}', '{2}', NULL, NULL, '{0}', false, true, '{0}'),
	('30 * * * sun', '{30}', NULL, NULL, NULL, '{0}', false, true, '{0}'),
	('0 30 2 * * *', '{30}', '{2}', NULL, NULL, NULL, false, false, '{0}'),
	('5,35 45 1,2 * * *', '{45}', '{1,2}', NULL, NULL, NULL, false, false, '{5,35}'),
	('*/20 30 1,2 * * *', '{30}', '{1,2}', NULL, NULL, NULL, false, true, '{0,20,40}'),
	('@hourly', '{0}', NULL, NULL, NULL, NULL, false, true, '{0}'),
	('@daily', '{0}', '{0}', NULL, NULL, NULL, false, false, '{0}'),
	('@weekly', '{0}', '{0}', NULL, NULL, '{0}', false, false, '{0}'),
	('@monthly', '{0}', '{0}', '{1}', NULL, NULL, false, false, '{0}'),
	('@yearly', '{0}', '{0}', '{1}', '{1}', NULL, false, false, '{0}');

CREATE FUNCTION pg_temp.is_meant(m meaning, c clock) RETURNS boolean
	LANGUAGE sql IMMUTABLE AS $$
	SELECT (c.minute = ANY (m.minutes))
		AND (m.hours IS NULL OR c.hour = ANY (m.hours))
		AND (m.months IS NULL OR c.month = ANY (m.months))
		AND CASE WHEN m.either THEN c.day = ANY (m.days) OR c.weekday = ANY (m.weekdays)
			ELSE (m.days IS NULL OR c.day = ANY (m.days))
				AND (m.weekdays IS NULL OR c.weekday = ANY (m.weekdays)) END
$$;

CREATE FUNCTION pg_temp.expected(m meaning, in_zone text) RETURNS SETOF timestamptz
	LANGUAGE sql STABLE AS $$
	SELECT c.t + s * interval '1 s'
		FROM (SELECT c.t, c.local, min(c.t) OVER (PARTITION BY c.local) AS first
				FROM clock c WHERE c.zone = in_zone AND pg_temp.is_meant(m, c)) c,
			unnest(m.seconds) s
		WHERE m.elapsed OR c.t = c.first
	UNION
	SELECT g.t FROM gap g
		WHERE g.zone = in_zone AND NOT m.elapsed AND pg_temp.is_meant(m,
			(g.zone, g.t, g.local, g.minute, g.hour, g.day, g.month, g.weekday)::clock)
$$;

-- How many ticks there are in the two years, or how the two lists differ.
CREATE FUNCTION pg_temp.compare(m meaning, zone text) RETURNS text
	LANGUAGE plpgsql AS $$
DECLARE
	starts timestamptz := now() + interval '10 min';
	ends timestamptz := now() + interval '2 years';
	expected timestamptz[];
	got timestamptz[];
	reached timestamptz;
BEGIN
	SELECT array_agg(e ORDER BY e) INTO expected
		FROM pg_temp.expected(m, zone) e WHERE e > starts AND e < ends;
	SELECT array_agg(tick) FILTER (WHERE tick > starts AND tick < ends), max(tick)
		INTO got, reached
		FROM jobq.preview_schedule(m.cron, zone, coalesce(cardinality(expected), 0) + 100);
	IF reached < ends THEN
		RETURN format('preview ends at %s', reached);
	ELSIF got IS DISTINCT FROM expected THEN
		RETURN format('missing %s; too many %s',
			(SELECT min(e) FROM unnest(expected) e WHERE e <> ALL (got)),
			(SELECT min(g) FROM unnest(got) g WHERE g <> ALL (expected)));
	END IF;
	RETURN 'same';
END
$$;
SELECT is(pg_temp.compare(m, zone), 'same', format('%s in %s', m.cron, zone))
	FROM meaning m, (SELECT DISTINCT zone FROM clock) z ORDER BY zone, m.cron;

SELECT is(count(*), 10::bigint, 'ten ticks by default')
	FROM jobq.preview_schedule('@hourly');
SELECT ok(bool_and(local_time = tick AT TIME ZONE 'Asia/Kolkata'
		AND date_part('minute', local_time) = 0),
	'the local time is shown, too')
	FROM jobq.preview_schedule('@hourly', 'asia/kolkata', 3);

-- ---- schedules and who may do what with them ----

CREATE ROLE ct_owner;
CREATE ROLE ct_member IN ROLE ct_owner;
CREATE ROLE ct_other;
CREATE ROLE ct_manager;
CREATE ROLE ct_monitor IN ROLE jobq_monitor;
SELECT jobq.create_queue('ct', '{"max_payload_bytes": 1000, "max_attempts": 7,
	"ttl": "1 day"}') \g /dev/null
SELECT jobq.grant_queue('ct', role, privileges) FROM (VALUES
	('ct_owner', '{enqueue}'::text[]), ('ct_other', '{enqueue}'),
	('ct_manager', '{manage}')) g (role, privileges) \g /dev/null

SET ROLE ct_owner;
SELECT jobq.schedule('nightly', '30 2 * * *', 'ct', '{"a": 1}', 'europe/berlin',
	'all', 5, 'report', 3, 2, 'g', '{"x": "y"}') \g /dev/null
SELECT results_eq($$
	SELECT name, queue, cron, timezone, paused, last_run, last_job, misses,
		owner, catch_up, catch_up_max, kind, priority, max_attempts, group_key,
		headers, payload FROM jobq.schedules $$,
	$$ VALUES ('nightly', 'ct', '30 2 * * *', 'Europe/Berlin', false,
		NULL::timestamptz, NULL::bigint, 0::bigint, 'ct_owner', 'all', 5,
		'report', 3, 2, 'g', '{"x": "y"}'::jsonb, '{"a": 1}'::jsonb) $$,
	'a schedule shows as it was made');
SELECT is(next_run, (SELECT tick FROM jobq.preview_schedule(cron, timezone, 1)),
	'its next run is the first of the preview') FROM jobq.schedules;
RESET ROLE;

-- the same name replaces
UPDATE jobq.schedule SET last_tick = '2026-01-01', misses = 3, last_job = 77;
SET ROLE ct_owner;
SELECT jobq.schedule('nightly', '30 2 * * *', 'ct', timezone => 'Europe/Berlin') \g /dev/null
SELECT results_eq('SELECT catch_up, kind, priority, payload, misses, last_job FROM jobq.schedules',
	$$ VALUES ('skip', NULL, 0, '{}'::jsonb, 3::bigint, 77::bigint) $$, 'the same name replaces');
RESET ROLE;
SELECT is(last_tick, '2026-01-01', 'no tick is lost when nothing else changes')
	FROM jobq.schedule;
SET ROLE ct_owner;
SELECT jobq.pause_schedule('nightly') \g /dev/null
SELECT jobq.schedule('nightly', '30 3 * * *', 'ct', timezone => 'Europe/Berlin') \g /dev/null
SELECT ok(paused AND next_run IS NULL, 'it stays paused') FROM jobq.schedules;
SELECT jobq.resume_schedule('nightly') \g /dev/null
SELECT ok(NOT paused AND next_run > now(), 'until it is resumed') FROM jobq.schedules;
RESET ROLE;
SELECT ok(last_tick > now() - interval '1 h', 'other ticks begin now') FROM jobq.schedule;
UPDATE jobq.schedule SET last_tick = now() + interval '3 days', paused = true;
SELECT jobq.resume_schedule('nightly') \g /dev/null
SELECT is(last_tick, now() + interval '3 days', 'ticks are never repeated')
	FROM jobq.schedule;
UPDATE jobq.schedule SET last_tick = '2026-01-01';
SELECT jobq.resume_schedule('nightly') \g /dev/null
SELECT is(last_tick, '2026-01-01', 'what is not paused need not be resumed')
	FROM jobq.schedule;

-- names are per owner; members and managers may do all with it
SET ROLE ct_member;
SELECT jobq.pause_schedule('nightly') \g /dev/null
SELECT ok(paused, 'a member sees and pauses it') FROM jobq.schedules;
RESET ROLE;
SET ROLE ct_manager;
SELECT jobq.resume_schedule('nightly') \g /dev/null
SELECT ok(NOT paused AND payload IS NOT NULL, 'so does who manages the queue')
	FROM jobq.schedules;
RESET ROLE;
SET ROLE ct_monitor;
SELECT ok(payload IS NULL AND headers IS NULL AND next_run IS NOT NULL,
	'a monitor does not see the payload') FROM jobq.schedules;
RESET ROLE;
SET ROLE ct_other;
SELECT is_empty('SELECT FROM jobq.schedules', 'others do not see it');
SELECT throws_ok($$SELECT jobq.pause_schedule('nightly')$$, 'JQ020');
SELECT throws_ok($$SELECT jobq.run_schedule('nightly')$$, 'JQ020');
SELECT throws_ok($$SELECT jobq.unschedule('nightly')$$, 'JQ020');
SELECT jobq.schedule('nightly', '@daily', 'ct') \g /dev/null
SELECT is(cron, '@daily', 'but have one of that name themselves') FROM jobq.schedules;
SELECT jobq.pause_schedule('nightly') \g /dev/null
RESET ROLE;
SELECT results_eq('SELECT owner, paused FROM jobq.schedules ORDER BY 1',
	$$ VALUES ('ct_other', true), ('ct_owner', false) $$, 'their own is meant');
SET ROLE ct_manager;
SELECT throws_like($$SELECT jobq.run_schedule('nightly')$$, 'more than one role has a schedule "nightly"');
RESET ROLE;

-- by hand, for the owner
SET ROLE ct_owner;
SELECT jobq.schedule('by "hand"', '@yearly', 'ct', '[1]', kind => 'k', priority => -3,
	group_key => 'gk', headers => '{"x": 1}') \g /dev/null
RESET ROLE;
SET ROLE ct_manager;
SELECT jobq.run_schedule('by "hand"') AS job \gset
RESET ROLE;
SELECT results_eq(format($$
	SELECT queue, kind, state, priority, group_key, max_attempts, enqueued_by, payload,
		headers - 'schedule', headers->'schedule'->>'name',
		(headers->'schedule'->>'tick')::timestamptz = run_at,
		expires_at - run_at FROM jobq.job(%s)$$, :job),
	$$ VALUES ('ct', 'k', 'available', -3, 'gk', 7, 'ct_owner', '[1]'::jsonb,
		'{"x": 1}'::jsonb, 'by "hand"', true, interval '1 day') $$,
	'run_schedule enqueues what a tick would');
SELECT ok(last_run IS NULL AND last_job IS NULL, 'which is no tick')
	FROM jobq.schedules WHERE name = 'by "hand"';
SELECT jobq.revoke_queue('ct', 'ct_owner', '{enqueue}') \g /dev/null
SELECT throws_like($$SELECT jobq.run_schedule('by "hand"')$$,
	'permission denied for queue "ct"', 'the owner must be allowed to');
SELECT jobq.alter_queue('ct', '{"max_payload_bytes": 2}') \g /dev/null
SELECT jobq.grant_queue('ct', 'ct_owner', '{enqueue}') \g /dev/null
SELECT throws_ok($$SELECT jobq.run_schedule('by "hand"')$$, 'JQ004');
SELECT jobq.alter_queue('ct', '{"max_payload_bytes": null}') \g /dev/null

-- a queue that is in use
SELECT jobq.purge_queue('ct') \g /dev/null
CREATE FUNCTION pg_temp.detail(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ' ' || detail;
END
$$;
SELECT is(pg_temp.detail($$SELECT jobq.drop_queue('ct')$$),
	'2BP01 It is the queue of 3 schedules: "by "hand"", "nightly", "nightly".',
	'a queue with schedules is not dropped');
SELECT is(pg_temp.detail($$SELECT jobq.schedule('s', '0 0 31 feb,apr *', 'ct')$$),
	'JQ007 In "0 0 31 feb,apr *", field day of month: there is no such date in any of its months.',
	'what never comes is refused');
SELECT is(pg_temp.detail($$SELECT jobq.schedule('s', '61 * * * *', 'ct')$$),
	'JQ007 In "61 * * * *", field minute: "61" is not between 0 and 59.',
	'an error names the field');
SELECT jobq.drop_queue('ct', true) \g /dev/null
SELECT is_empty('SELECT FROM jobq.schedule', 'force drops them, too');

-- a dump may come from a server that knew more zones
SELECT jobq.schedule('far', '@daily') \g /dev/null
UPDATE jobq.schedule SET timezone = 'Mars/Olympus';
SELECT ok(next_run IS NULL, 'an unknown zone has no next run') FROM jobq.schedules;
SELECT jobq.unschedule('far') \g /dev/null

-- nobody's: the newer one of an unknown role is a different one
SELECT jobq.schedule('orphan', '@daily'), jobq.schedule('other orphan', '@daily') \g /dev/null
UPDATE jobq.schedule SET owner = 0::oid, name = 'orphan';
SELECT ok(owner = '-' AND count(*) = 2, 'nobody''s schedules may have the same name')
	FROM jobq.schedules GROUP BY owner;
SELECT throws_like($$SELECT jobq.run_schedule('orphan')$$,
	'the owner of schedule "orphan" does not exist');
SELECT jobq.unschedule('orphan'), jobq.unschedule('orphan') \g /dev/null
SELECT is_empty('SELECT FROM jobq.schedule', 'an administrator removes them');

-- zones that are none
SELECT ok(pg_temp.detail(format('SELECT jobq.preview_schedule(%L, %L)', '@daily', zone))
		LIKE state, 'zone ' || zone)
	FROM (VALUES ('Europe/Berlin', 'no error'), ('UTC', 'no error'), ('EST5EDT', 'no error'),
		('Etc/GMT+5', 'no error'), ('gmt0', 'no error'),
		('Europe/Berlin2', 'JQ007 %'), ('UTC+2', 'JQ007 %'), ('<+03>-3', 'JQ007 %'),
		('Nowhere', 'JQ007 %'), ('', 'JQ007 %'), ('../etc/passwd', 'JQ007 %')) v (zone, state);

SELECT * FROM finish();
ROLLBACK;
