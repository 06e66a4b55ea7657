# rate_limit_take: exact with a hundred callers at once, at the end of a window,
# over restarts; names of roles, how many there may be, what leaves. JOBQ_CALLERS:
# how many callers.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $CALLERS = $ENV{JOBQ_CALLERS} // 100;
my $node = start_audited('rate', q{
max_connections = 130
jobq.max_rate_limits = 16
}, q{
CREATE TABLE got (name text, allowed boolean, remaining bigint, at timestamptz DEFAULT clock_timestamp());
SELECT jobq.create_queue('q');
CREATE ROLE a; CREATE ROLE b; CREATE ROLE c; CREATE ROLE d; CREATE ROLE e;
SELECT jobq.grant_queue('q', r, '{read}') FROM unnest('{a,b,c,d,e}'::text[]) r;
GRANT ALL ON got TO PUBLIC;
});
ok(await_keeper($node), 'the keeper is there');

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# What a role gets: allowed, remaining, and seconds to wait.
sub take
{
	my ($role, $args) = @_;

	return sql(qq{SET ROLE $role; SELECT allowed, remaining, round(retry_after::numeric, 1)
		FROM jobq.rate_limit_take($args)});
}

sub state_of
{
	my ($role, $args) = @_;

	return sqlstate($node, qq{SET ROLE $role; SELECT jobq.rate_limit_take($args)});
}

# ---- many callers at once ----

my $script = $node->basedir . '/take.sql';
append_to_file($script, q{SET ROLE a;
INSERT INTO got SELECT 'many', allowed, remaining FROM jobq.rate_limit_take('many', 30, '60 s');
});
$node->command_ok([ 'pgbench', '-n', '-c', $CALLERS, '-j', 2, '-t', 1, '-f', $script, 'postgres' ],
	"$CALLERS callers");
is(sql(q{SELECT count(*), count(*) FILTER (WHERE allowed) FROM got}), "$CALLERS|30", 'of whom thirty pass');
is(sql(q{SELECT count(DISTINCT remaining) FROM got WHERE allowed}), 30, 'each is told what remains');
is(sql(q{SELECT max(remaining) FROM got WHERE NOT allowed}), 0, 'nothing, for the others');
like(take('a', q{'many', 30, '60 s'}), qr/^f\|0\|\d+/, 'nor for the next one');
is(take('a', q{'many', 31, '60 s'}), 't|0|0.0', 'refused calls have taken nothing');

# ---- the first leaves the window ----

sql(q{SET ROLE a; INSERT INTO got SELECT 'slide', (jobq.rate_limit_take('slide', 30, '3 s')).allowed
	FROM generate_series(1, 30)});
my $tries = 0;
ok( await(sub { $tries++; sql(q{SET ROLE a; INSERT INTO got SELECT 'next', allowed, remaining
	FROM jobq.rate_limit_take('slide', 30, '3 s') RETURNING allowed}) eq 't' }, 20),
	'another one passes in the end');
cmp_ok($tries, '>', 1, 'not before');
is(sql(q{SELECT count(*) FROM (SELECT at, lead(at, 30) OVER (ORDER BY at) AS later FROM got
	WHERE name IN ('slide', 'next') AND allowed) x WHERE later - at < '3 s'::interval - '100 ms'}),
	0, 'never thirty-one within the period');
cmp_ok(sql(q{SELECT extract(epoch FROM max(at) - min(at)) FROM got WHERE name IN ('slide', 'next') AND allowed}),
	'<', 6, 'but soon after it');
take('a', q{'retry', 2, '2 s', 2});
my $wait = sql(q{SET ROLE a; SELECT retry_after FROM jobq.rate_limit_take('retry', 2, '2 s')});
cmp_ok($wait, '>', 0.1, 'there is something to wait for');
usleep(1_000_000 * ($wait + 0.01));
is(take('a', q{'retry', 2, '2 s'}) =~ s/\|.*//r, 't', 'after the seconds it was told to wait');

# ---- costs, names, roles ----

is(take('b', q{'cost', 10, '1 h', 7}), 't|3|0.0', 'a call that costs seven');
is(take('b', q{'cost', 10, '1 h', 4}) =~ s/\|[\d.]+$//r, 'f|3', 'four are too many');
is(take('b', q{'cost', 10, '1 h', 3}), 't|0|0.0', 'three are not');
is(take('b', q{'cost', 10, '1 h', 0}), 't|0|0.0', 'looking costs nothing');
is(take('b', q{'Cost', 10, '1 h', 10}), 't|0|0.0', 'another name');
is(take('c', q{'cost', 10, '1 h'}), 't|9|0.0', 'another role');
is(state_of('b', q{'cost', 10, '1 h', 11}), 'JQ007', 'more than the limit');

# ---- how many names ----

is(take('d', qq{'d$_', 1, '4 s'}), 't|0|0.0', "name $_ of a role") for 1 .. 4;
is(state_of('d', q{'d5', 1, '4 s'}), 'JQ006', 'a role may have a fourth of all');
is(take('d', q{'d5', 1, '4 s', 0}), 't|1|0.0', 'but look at as many as it likes');
is(take('e', q{'e1', 1, '1 h'}), 't|0|0.0', 'another role has room');
ok(await(sub { state_of('d', q{'d5', 1, '4 s'}) ne 'JQ006' }, 20), 'again when nothing counts any more');
# a: many (60 s); b: cost, Cost; c: cost; d: d5; e: e1
is(take('c', qq{'c$_', 1, '1 h'}), 't|0|0.0', "c$_") for 1 .. 3;
is(take('b', qq{'b$_', 1, '1 h'}), 't|0|0.0', "b$_") for 1 .. 2;
is(take('e', qq{'e$_', 1, '1 h'}), 't|0|0.0', "e$_") for 2 .. 4;
my $room;
for my $i (1 .. 8)
{
	$room = state_of($i % 2 ? 'a' : 'd', qq{'more$i', 1, '1 h'});
	last if $room eq 'JQ006';
}
is($room, 'JQ006', 'no more than all together');
is(take('c', q{'cost', 10, '1 h'}), 't|8|0.0', 'those that are there go on');

# ---- restarts ----

sql(q{SELECT jobq.run_maintenance()});
is(sql(q{SELECT count(*) FROM jobq.rate_window WHERE ends > now()}), 16, 'all are on disk when they have to be');
kill_server($node);
$node->start;
ok(await_keeper($node), 'after kill -9');
is(take('b', q{'cost', 10, '1 h'}) =~ s/\|[\d.]+$//r, 'f|0', 'what was taken counts');
is(take('c', q{'cost', 10, '1 h'}), 't|7|0.0', 'for each');
like(take('a', q{'many', 30, '10 min'}), qr/^f\|0\|/, 'also of many');
$node->restart;
ok(await_keeper($node), 'after a restart, without asking');
is(take('c', q{'cost', 10, '1 h'}), 't|6|0.0', 'the same');

# ---- by itself, soon ----

sql(q{DROP EXTENSION pg_jobq CASCADE; CREATE EXTENSION pg_jobq; SELECT jobq.create_queue('q');
	SELECT jobq.grant_queue('q', r, '{read}') FROM unnest('{a,b,c,d,e}'::text[]) r});
ok(await_keeper($node), 'installed again');
is(take('b', q{'cost', 10, '1 min', 4}), 't|6|0.0', 'nothing is left of the old ones');
becomes_ok($node, q{SELECT taken::text FROM jobq.rate_window}, '{4}', 'saved by itself', 30);
is(take('b', q{'cost', 10, '1 min', 2}), 't|4|0.0', 'two more');
becomes_ok($node, q{SELECT taken::text FROM jobq.rate_window}, '{4,2}', 'again', 30);
my $writes = sql(q{SELECT pg_current_wal_insert_lsn()});
usleep(2_500_000);
is(sql(q{SELECT pg_current_wal_insert_lsn()}), $writes, 'nothing is written while nothing happens');
sql(q{SET ROLE a; SELECT (jobq.rate_limit_take('full', 1000, '1 h')).allowed FROM generate_series(1, 200)});
sql(q{SELECT jobq.run_maintenance()});
is(sql(q{SELECT cardinality(at) <= 64, (SELECT sum(t) FROM unnest(taken) t) FROM jobq.rate_window WHERE name = 'full'}),
	't|200', 'many times are saved as few');
kill_server($node);
$node->start;
ok(await_keeper($node), 'after another kill -9');
is(take('a', q{'full', 1000, '1 h', 0}), 't|800|0.0', 'all of them count');
$node->stop;
done_testing();
