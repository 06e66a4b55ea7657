-- Named keys for signing and sealing. The keys themselves are made anew in each
-- process from the server's secret, which is in a file.

CREATE TABLE jobq.crypto_key (
	name			text		NOT NULL COLLATE pg_catalog."C",
	version			int			NOT NULL,
	owner			jobq.role	NOT NULL,
	purpose			text		NOT NULL,
	secret_version	int			NOT NULL,
	salt			bytea		NOT NULL,
	check_value		bytea		NOT NULL,
	created_at		timestamptz	NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	retires_at		timestamptz,
	revoked_at		timestamptz,
	PRIMARY KEY (name, version)
);
COMMENT ON TABLE jobq.crypto_key IS
	'One row for each version of a named key. The key is no part of it: it is an HMAC of purpose, version, salt and name with that version of the server''s secret; check_value tells a wrong secret. Written by create_key, rotate_key and revoke_key; rows never leave, as what was signed or sealed names them.';
