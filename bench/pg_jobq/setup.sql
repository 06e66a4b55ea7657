-- The empty dequeue waits until the keeper of the new database is ready.
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('q');
SELECT count(*) FROM jobq.dequeue('q');
