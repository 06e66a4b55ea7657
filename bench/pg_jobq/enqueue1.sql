SELECT jobq.enqueue('q', :payload);
