SELECT put, put - (SELECT count(*) FROM graphile_worker._private_jobs)
FROM (SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('graphile_worker._private_jobs', 'id')::regclass), 0) AS put) s;
