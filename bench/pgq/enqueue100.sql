SELECT count(pgq.insert_event('q', 't', :payload)) AS n FROM generate_series(1, 100) \gset
