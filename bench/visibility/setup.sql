-- Plain SQL: who takes a job hides it for a while, and deletes it when done.
CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, vt timestamptz NOT NULL DEFAULT now(), read_ct int NOT NULL DEFAULT 0, payload jsonb NOT NULL);
CREATE INDEX ON job (vt, id);
