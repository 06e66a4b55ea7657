-- A tick after each :batch events makes batches of that size.
SET synchronous_commit = off;
SELECT format('INSERT INTO %s (ev_time, ev_type, ev_data) SELECT now(), ''t'', %L FROM generate_series(1, %s)', pgq.current_event_table('q'), :'payload', :batch) AS put, 'SELECT pgq.ticker(''q'')' AS tick
FROM generate_series(1, :n / :batch) \gexec
