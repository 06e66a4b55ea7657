-- What rate_limit_take has let through lately, as of some moments ago.

CREATE TABLE jobq.rate_window (
	owner	oid				NOT NULL,
	name	text			NOT NULL,
	max		int				NOT NULL,
	period	bigint			NOT NULL,
	ends	timestamptz		NOT NULL,
	at		timestamptz[]	NOT NULL,
	taken	int[]			NOT NULL,
	PRIMARY KEY (owner, name)
) WITH (fillfactor = 70);
COMMENT ON TABLE jobq.rate_window IS
	'Times, and how much was taken at each, that count in a window of rate_limit_take. Written by the keeper within a sixtieth of the period of a change, a second at least and a minute at most; read when the server has started. A row leaves when it counts for nothing and others are written.';
