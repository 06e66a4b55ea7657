-- Rate limits for everybody, by name.

CREATE FUNCTION jobq.rate_limit_take(
	name text,
	"limit" bigint,
	period interval,
	cost bigint DEFAULT 1,
	OUT allowed boolean,
	OUT remaining bigint,
	OUT reset_at timestamptz,
	OUT retry_after float8
) RETURNS SETOF record
	LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1
	AS 'MODULE_PATHNAME', 'jobq_sql_rate_limit_take';
COMMENT ON FUNCTION jobq.rate_limit_take(text, bigint, interval, bigint) IS
	'Takes cost, 0 only to look, from what may be taken under this name of the caller''s in any window as long as period; takes nothing where that would be more than limit, and says after how many seconds it would not. Counts at once, also if the transaction is rolled back.';
