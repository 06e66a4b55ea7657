SELECT jobq.enqueue_many('q', array_fill(:payload::jsonb, ARRAY[100])) AS ids \gset
