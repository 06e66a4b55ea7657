-- :queues more queues with :n jobs in all.
SET synchronous_commit = off;
SELECT format('SELECT jobq.create_queue(%L)', 'q' || n), format('SELECT cardinality(jobq.enqueue_many(%L, array_fill(%L::jsonb, ARRAY[%s])))', 'q' || n, :'payload', :n / :queues)
FROM generate_series(1, :queues) n \gexec
