-- Queues: create, alter, pause, resume, drop, and what is refused.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_jobq_queues SUPERUSER;
SET ROLE regress_jobq_queues;
SELECT queue, owner = current_user AS mine, paused, options
	FROM jobq.queues ORDER BY queue;

-- create
SELECT jobq.create_queue('orders', '{"lease_for": "1 min", "max_attempts": 3}');
SELECT jobq.create_queue('orders');
SELECT jobq.create_queue('orders', if_exists => 'keep');
SELECT jobq.create_queue('orders', '{"max_attempts": 5}', 'keep');
SELECT jobq.create_queue('orders', '{"max_attempts": 5}', 'alter');
SELECT jobq.create_queue('orders', if_exists => 'maybe');
SELECT jobq.create_queue('orders', NULL, NULL);
SELECT queue, paused, options FROM jobq.queues WHERE queue = 'orders';

-- names
SELECT jobq.create_queue(NULL);
SELECT jobq.create_queue('');
SELECT jobq.create_queue(E'two\nlines');
SELECT jobq.create_queue(E'del\x7f');
SELECT jobq.create_queue(repeat('x', 64));
SELECT jobq.create_queue(repeat('x', 63));
SELECT jobq.create_queue(repeat(E'\u00e9', 32));
SELECT jobq.create_queue(repeat(E'\u00e9', 31));
SELECT jobq.create_queue(E'c1 \u0085');
SELECT jobq.create_queue('A "quoted" one; it''s -- odd');
SELECT jobq.create_queue(' ');
SELECT queue FROM jobq.queues ORDER BY queue COLLATE "C";
SELECT jobq.drop_queue(queue) FROM jobq.queues
	WHERE queue NOT IN ('default', 'orders') ORDER BY queue;

-- alter
SELECT jobq.alter_queue('orders', '{"backoff": {"base": 1}, "retention": "2 days"}');
SELECT jobq.alter_queue('orders', '{"lease_for": null, "max_attempts": 5}');
SELECT options FROM jobq.queues WHERE queue = 'orders';
SELECT jobq.alter_queue('orders', '{}');
SELECT jobq.alter_queue('orders', NULL);
SELECT jobq.alter_queue(NULL, '{}');
SELECT jobq.alter_queue('nowhere', '{}');
SELECT options FROM jobq.queues WHERE queue = 'orders';

-- pause and resume
SELECT jobq.pause_queue('orders');
SELECT jobq.pause_queue('orders');
SELECT queue, paused FROM jobq.queues ORDER BY queue;
SELECT jobq.resume_queue('orders');
SELECT jobq.resume_queue('orders');
SELECT queue, paused FROM jobq.queues ORDER BY queue;
SELECT jobq.pause_queue('nowhere');
SELECT jobq.resume_queue(NULL);

-- the dead-letter queue is made, and never one that leads back
SELECT jobq.alter_queue('orders', '{"dead_letter": "orders dead"}');
SELECT queue, owner = current_user AS mine, options
	FROM jobq.queues ORDER BY queue;
SELECT jobq.alter_queue('orders dead', '{"dead_letter": "orders dead"}');
SELECT jobq.alter_queue('orders dead', '{"dead_letter": "orders"}');
SELECT jobq.alter_queue('orders dead', '{"dead_letter": "third"}');
SELECT jobq.alter_queue('third', '{"dead_letter": "orders"}');
SELECT jobq.create_queue('self', '{"dead_letter": "self"}');
SELECT jobq.create_queue('other', '{"dead_letter": "orders dead"}');
SELECT count(*) FROM jobq.queues WHERE queue = 'self';

-- drop
SELECT jobq.drop_queue('orders dead');
SELECT jobq.drop_queue('orders dead', true);
SELECT queue, options FROM jobq.queues ORDER BY queue;
SELECT jobq.drop_queue('orders dead');
SELECT jobq.drop_queue('orders', NULL);
SELECT jobq.drop_queue(NULL);

-- with jobs
SELECT jobq.enqueue('other', '1') > 0 AS enqueued;
SELECT jobq.enqueue('other', '2', delay => '1 hour') > 0 AS enqueued;
SELECT jobq.drop_queue('other');
SELECT jobq.drop_queue('other', true);
SELECT count(*) FROM jobq.jobs WHERE queue = 'other';
SELECT jobq.create_queue('other');
SELECT count(*) FROM jobq.jobs WHERE queue = 'other';
SELECT jobq.drop_queue('other');
SELECT jobq.drop_queue('third');

-- a transaction sees its own changes, and nothing of them after a rollback
BEGIN;
SELECT jobq.create_queue('mine');
SELECT jobq.pause_queue('mine');
SELECT queue, paused FROM jobq.queues ORDER BY queue;
SAVEPOINT a;
SELECT jobq.resume_queue('mine');
SELECT jobq.alter_queue('default', '{"max_attempts": 1}');
SELECT queue, paused, options FROM jobq.queues ORDER BY queue;
ROLLBACK TO a;
SELECT queue, paused, options FROM jobq.queues ORDER BY queue;
ROLLBACK;
SELECT queue, paused, options FROM jobq.queues ORDER BY queue;
SELECT jobq.pause_queue('mine');

-- not where nothing may be written
BEGIN READ ONLY;
SELECT jobq.create_queue('mine');
ROLLBACK;

RESET ROLE;
DROP ROLE regress_jobq_queues;
