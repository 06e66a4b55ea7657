INSERT INTO job (payload) VALUES (:payload::jsonb);
