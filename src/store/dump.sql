-- What pg_dump takes along besides the epochs' tables, which are no members,
-- and what the database's owner may read for that, and nothing else.

SELECT pg_catalog.pg_extension_config_dump('jobq.audit_entry', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.audit_chain', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.audit_mark', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.queue', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.queue_queue_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.queue_acl', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.queue_group', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.crypto_key', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.class', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.epoch', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.epoch_total', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.shelf', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.schedule', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.schedule_schedule_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.ukey', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.access_key', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.access_key_key_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.access_key_use', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.lease_mark', '');
SELECT pg_catalog.pg_extension_config_dump('jobq.number_block', '');

GRANT USAGE ON SCHEMA jobq TO pg_database_owner;
GRANT SELECT ON TABLE jobq.queue, jobq.queue_queue_id_seq, jobq.queue_acl,
	jobq.queue_group, jobq.crypto_key, jobq.class, jobq.epoch, jobq.epoch_total, jobq.shelf, jobq.ukey, jobq.schedule,
	jobq.schedule_schedule_id_seq, jobq.access_key, jobq.access_key_key_id_seq,
	jobq.access_key_use, jobq.lease_mark, jobq.number_block,
	jobq.audit_entry, jobq.audit_chain, jobq.audit_mark
	TO pg_database_owner;

