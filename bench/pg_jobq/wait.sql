CALL jobq.receive('q', 1, :wait) \gset
