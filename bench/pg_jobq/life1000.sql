SELECT array_agg(id) AS ids, max(lease) AS lease, string_agg(payload::text, '') AS payloads FROM jobq.dequeue('q', 1000, '1 s') \gset
SELECT jobq.complete_many(:ids, :lease) AS done \gset
