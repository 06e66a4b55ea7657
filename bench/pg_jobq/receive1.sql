CALL jobq.receive('q') \gset
SELECT jobq.complete((:deliveries::jsonb #>> '{0,id}')::bigint, (:deliveries::jsonb #>> '{0,lease}')::bigint);
