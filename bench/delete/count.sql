SELECT put, put - (SELECT count(*) FROM job) FROM (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS put FROM job_id_seq) s;
