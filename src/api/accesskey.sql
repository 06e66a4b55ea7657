-- Access keys: for producers and consumers that share a database role.

CREATE FUNCTION jobq.create_access_key(
	name text,
	queue text,
	privileges text[],
	expires_in interval DEFAULT NULL
) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_create_access_key';
COMMENT ON FUNCTION jobq.create_access_key(text, text, text[], interval) IS
	'Makes a key that gives whoever presents it these privileges (enqueue, dequeue, read) on one queue. Returns it, the only time that it is seen.';

CREATE FUNCTION jobq.rotate_access_key(
	name text,
	overlap interval DEFAULT '1 day',
	queue text DEFAULT NULL
) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_rotate_access_key';
COMMENT ON FUNCTION jobq.rotate_access_key(text, interval, text) IS
	'Makes another key of the same name, privileges and time to live, and returns it; the present one stays good for the overlap at most. The queue need be named only where several have a key of this name.';

CREATE FUNCTION jobq.revoke_access_key(
	name text,
	queue text DEFAULT NULL
) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_revoke_access_key';
COMMENT ON FUNCTION jobq.revoke_access_key(text, text) IS
	'Ends all keys of this name: once it has committed, the next call of whoever uses one fails with JQ013.';

CREATE FUNCTION jobq.use_access_key(
	key text,
	for_session boolean DEFAULT false
) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_use_access_key';
COMMENT ON FUNCTION jobq.use_access_key(text, boolean) IS
	'The current role has the key''s privileges, too, to the end of the transaction or, for_session, of the session; undone like SET LOCAL and SET. NULL: no key is in use any more.';

CREATE FUNCTION jobq._access_keys(
	OUT name text,
	OUT queue text,
	OUT prefix text,
	OUT privileges text[],
	OUT created_by text,
	OUT created_at timestamptz,
	OUT expires_at timestamptz,
	OUT revoked_at timestamptz,
	OUT last_used_at timestamptz,
	OUT uses bigint,
	OUT state text,
	OUT replaced_at timestamptz,
	OUT secret_version int
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100
	AS 'MODULE_PATHNAME', 'jobq_view_access_keys';
COMMENT ON FUNCTION jobq._access_keys() IS
	'Rows of view jobq.access_keys; use the view.';

CREATE VIEW jobq.access_keys WITH (security_barrier) AS
	SELECT k.name, k.queue, k.prefix, k.privileges, k.created_by,
		k.created_at, k.expires_at, k.revoked_at, k.last_used_at, k.uses,
		k.state, k.replaced_at, k.secret_version
	FROM jobq._access_keys() k;
COMMENT ON VIEW jobq.access_keys IS
	'Access keys of queues that the caller manages. state is active, expired or revoked; replaced_at says since when there is a newer key of the name; uses counts how often the key was presented, last_used_at is the minute of its last use.';
