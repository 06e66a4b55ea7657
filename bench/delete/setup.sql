-- Plain SQL: a job is deleted by the transaction that takes it.
CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload jsonb NOT NULL, created timestamptz NOT NULL DEFAULT now());
