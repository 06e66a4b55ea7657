INSERT INTO two (payload) VALUES (:payload::jsonb);
