SELECT jobq.enqueue('q', :payload);
SELECT id, lease, payload FROM jobq.dequeue('q') \gset
SELECT jobq.complete(:id, :lease);
