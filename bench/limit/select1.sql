SELECT 1 AS n \gset
