SELECT (SELECT count(*) FROM one) + (SELECT count(*) FROM two), 0;
