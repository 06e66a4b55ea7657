\set number random(1, :queues)
SELECT jobq.enqueue('q' || :number, :payload);
SELECT id, lease, payload FROM jobq.dequeue('q' || :number) \gset
SELECT jobq.complete(:id, :lease);
