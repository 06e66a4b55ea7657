-- Named keys: for signing deliveries and for sealing payloads.

CREATE FUNCTION jobq.create_key(name text, purpose text) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_create_key';
COMMENT ON FUNCTION jobq.create_key(text, text) IS
	'Makes a key with the purpose sign or seal from the server''s secret. Returns a signing key in hexadecimal, this once; of a sealing key only its id. For members of jobq_admin and whoever manages a queue.';

CREATE FUNCTION jobq.rotate_key(name text, overlap interval DEFAULT NULL) RETURNS text
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_rotate_key';
COMMENT ON FUNCTION jobq.rotate_key(text, interval) IS
	'Makes a new version of a key, which is used from the commit on, and returns what create_key does. Signatures by former versions are good for the overlap, a day unless it is given; what was sealed with them can still be opened. For the key''s owner and members of jobq_admin.';

CREATE FUNCTION jobq.revoke_key(name text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_revoke_key';
COMMENT ON FUNCTION jobq.revoke_key(text) IS
	'Refuses all versions of a key from the commit on: what it has sealed can never be opened again. For the key''s owner and members of jobq_admin.';

CREATE FUNCTION jobq.reseal(queue text) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_reseal';
COMMENT ON FUNCTION jobq.reseal(text) IS
	'Seals the payloads of waiting jobs with the newest version of the queue''s key, those that were not sealed yet, too; how many it were. Running jobs are left as they are.';

CREATE FUNCTION jobq.verify_signature(
	key text,
	id bigint,
	payload text,
	headers jsonb,
	max_age interval DEFAULT NULL,
	on_wrong text DEFAULT 'error'
) RETURNS boolean
	LANGUAGE c STABLE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_verify_signature';
COMMENT ON FUNCTION jobq.verify_signature(text, bigint, text, jsonb, interval, text) IS
	'Do these headers have the signature of this job by this key? A wrong one is an error (JQ019), or false with on_wrong => ''false''.';
