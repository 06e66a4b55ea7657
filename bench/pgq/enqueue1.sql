SELECT pgq.insert_event('q', 't', :payload);
