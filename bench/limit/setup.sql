-- Plain tables: with one index, and with the two that a job of pg_jobq has.
CREATE TABLE one (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload jsonb NOT NULL);
CREATE TABLE two (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue_id int NOT NULL DEFAULT 1, priority int NOT NULL DEFAULT 0, run_at timestamptz NOT NULL DEFAULT now(), payload jsonb NOT NULL);
CREATE INDEX ON two (queue_id, priority, run_at, id);
