INSERT INTO one (payload) VALUES (:payload::jsonb);
