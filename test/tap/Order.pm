# Order.pm: what the tests of order share: jobs are taken and completed, so many
# at a time, and in which order that was is written down. Asserts nothing itself.
package Order;

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT = qw($TAKEN);

our $TAKEN = <<'SQL';
CREATE TABLE taken (n bigserial, queue text, key text, priority int, run_at timestamptz, id bigint);

-- Deliver and complete jobs, n at a time, until so many are done or there are
-- none.
CREATE PROCEDURE take(q text, jobs int, batch int) LANGUAGE plpgsql AS $$
DECLARE
	ids bigint[];
	got bigint;
BEGIN
	WHILE jobs > 0 LOOP
		WITH d AS MATERIALIZED (SELECT * FROM jobq.dequeue(q, least(batch, jobs))),
			t AS (INSERT INTO taken (queue, key, priority, run_at, id)
				SELECT d.queue, d.group_key, d.priority, d.run_at, d.id FROM d)
			SELECT array_agg(d.id), max(d.lease) FROM d INTO ids, got;
		EXIT WHEN ids IS NULL;
		PERFORM jobq.complete_many(ids, got);
		jobs := jobs - cardinality(ids);
		COMMIT;
	END LOOP;
END $$;
SQL

1;
