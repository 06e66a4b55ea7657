WITH c AS MATERIALIZED (SELECT id FROM job WHERE vt <= clock_timestamp() ORDER BY vt, id FOR UPDATE SKIP LOCKED LIMIT 100), d AS (UPDATE job j SET vt = clock_timestamp() + interval '5 min', read_ct = read_ct + 1 FROM c WHERE j.id = c.id RETURNING j.id, j.payload) SELECT array_agg(id) AS ids, string_agg(payload::text, '') AS payloads FROM d \gset
DELETE FROM job WHERE id = ANY (:ids::bigint[]);
