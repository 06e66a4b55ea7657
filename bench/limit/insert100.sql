INSERT INTO two (payload) SELECT :payload::jsonb FROM generate_series(1, 100);
