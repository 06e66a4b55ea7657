SET synchronous_commit = off;
SELECT format('SELECT count(*) FROM graphile_worker.add_jobs(array_fill(ROW(''work'', %L::json, NULL, NULL, NULL, NULL, NULL, NULL)::graphile_worker.job_spec, ARRAY[%s]))', :'payload', least(10000, :n - done))
FROM generate_series(0, :n - 1, 10000) done \gexec
