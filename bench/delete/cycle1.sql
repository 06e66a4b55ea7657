INSERT INTO job (payload) VALUES (:payload::jsonb);
DELETE FROM job WHERE id = (SELECT id FROM job ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id, payload \gset
