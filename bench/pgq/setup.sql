-- PgQ 3: an event bus, one consumer reads ready-made batches of events.
CREATE EXTENSION pgq;
SELECT pgq.create_queue('q');
SELECT pgq.register_consumer('q', 'c');
UPDATE pgq.queue SET queue_ticker_max_count = 1, queue_ticker_max_lag = '0';
