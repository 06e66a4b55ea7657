-- Beside pg_jobq's own: the queue has limits, which are never reached, and its
-- clients are a role that has privileges on it and no others (bench.py: USER_OF).
CREATE EXTENSION pg_jobq;
SELECT 'CREATE ROLE bench_app LOGIN' WHERE to_regrole('bench_app') IS NULL \gexec
SELECT jobq.create_queue('q', '{"max_depth": 100000000, "max_json_keys": 1000, "max_json_string": 100000,
	"enqueue_limit": {"limit": 1000000, "period": "1 s", "per": "role"}}');
SELECT jobq.grant_queue('q', 'bench_app', '{enqueue,dequeue}');
SELECT count(*) FROM jobq.dequeue('q');
