SELECT coalesce(pgq.next_batch('q', 'c'), 0) AS batch \gset
\if :batch
SELECT count(*) AS n, string_agg(ev_data, '') AS payloads FROM pgq.get_batch_events(:batch::bigint) \gset
SELECT pgq.finish_batch(:batch::bigint);
\else
\sleep 1 ms
\endif
