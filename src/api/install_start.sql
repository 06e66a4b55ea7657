\echo Use "CREATE EXTENSION pg_jobq" to load this file. \quit
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE SCHEMA jobq;
COMMENT ON SCHEMA jobq IS 'Job queue.';

