-- Copies of a database.

CREATE FUNCTION jobq.adopt() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'jobq_sql_adopt';
COMMENT ON FUNCTION jobq.adopt() IS
	'Takes the jobs of a restored dump or of a copied database over, so that they run here; until then a copy is paused.';

