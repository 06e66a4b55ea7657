-- Access keys: what stands in for a role's own privileges on a queue.

CREATE TABLE jobq.access_key (
	key_id			int			GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	queue_id		int			NOT NULL,
	name			text		NOT NULL,
	digest			bytea		NOT NULL UNIQUE,
	secret_version	int			NOT NULL,
	prefix			text		NOT NULL,
	privileges		int			NOT NULL,
	created_by		jobq.role	NOT NULL,
	created_at		timestamptz	NOT NULL,
	expires_at		timestamptz,
	replaced_at		timestamptz,
	revoked_at		timestamptz
);
COMMENT ON TABLE jobq.access_key IS
	'One row per access key: not the key, but its HMAC-SHA256 with that version of the server''s secret, and its first 12 characters; privileges as in jobq.queue_acl. Written by create_access_key, rotate_access_key and revoke_access_key; rows leave with their queue, and 90 days after the key has expired or was revoked, when another key is made.';

CREATE TABLE jobq.access_key_use (
	key_id			int			PRIMARY KEY,
	uses			bigint		NOT NULL,
	last_used_at	timestamptz	NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE jobq.access_key_use IS
	'How often each access key was presented, and the minute of its last use. Written by the keeper, about once a minute while keys are in use; rows leave after their key has, when uses of others are written.';
