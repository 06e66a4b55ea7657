SELECT ARRAY[id] AS done, lease, payload FROM jobq.complete_and_dequeue('q', :done::bigint[], :lease) \gset
