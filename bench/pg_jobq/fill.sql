SET synchronous_commit = off;
SELECT format('SELECT cardinality(jobq.enqueue_many(''q'', array_fill(%L::jsonb, ARRAY[%s])))', :'payload', least(10000, :n - done))
FROM generate_series(0, :n - 1, 10000) done \gexec
