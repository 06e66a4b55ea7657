-- From shared memory; audit.sql gives the same from the tables.
SELECT sum(available + scheduled + blocked + retryable + running + completed_total + dead_total + cancelled_total + expired_total), sum(completed_total) FROM jobq.queue_stats;
