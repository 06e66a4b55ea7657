-- Batches of 1, 10, 100 and 10,000 through the whole life, and the edge of
-- max_batch.
\set VERBOSITY terse
SELECT jobq.create_queue('batches');

CREATE PROCEDURE batch(size int) LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
	got bigint[];
	held bigint[];
	extended bigint;
	done bigint[];
BEGIN
	ids := jobq.enqueue_many('batches',
		ARRAY(SELECT jsonb_build_object('n', g) FROM generate_series(1, size) g));
	COMMIT;
	SELECT array_agg(d.id ORDER BY d.ord), array_agg(DISTINCT d.lease)
		INTO got, held
		FROM jobq.dequeue('batches', size) WITH ORDINALITY AS d(id, lease,
			attempt, max_attempts, queue, kind, priority, group_key, payload,
			headers, enqueued_at, run_at, lease_expires_at, last_error, progress,
			ord);
	COMMIT;
	SELECT count(e.lease_expires_at) INTO extended
		FROM jobq.extend_many(got, held[1], '10 min') e;
	COMMIT;
	done := jobq.complete_many(got, held[1]);
	COMMIT;
	RAISE NOTICE 'batch of %: % enqueued, in order: %, leases: %, extended: %, completed: %',
		size, cardinality(ids), got = ids, cardinality(held), extended,
		cardinality(done);
END $$;

CALL batch(1);
CALL batch(10);
CALL batch(100);
CALL batch(10000);
SELECT available, running, completed_total FROM jobq.queue_stats
	WHERE queue = 'batches';

-- one more than max_batch: refused, nothing is there
SELECT jobq.enqueue_many('batches',
	ARRAY(SELECT to_jsonb(g) FROM generate_series(1, 10001) g));
SELECT count(*) FROM jobq.jobs WHERE queue = 'batches';

DROP PROCEDURE batch(int);
SELECT jobq.drop_queue('batches');
