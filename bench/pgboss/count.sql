SELECT count(*), count(*) FILTER (WHERE state = 'completed') FROM pgboss.job WHERE name = 'q';
