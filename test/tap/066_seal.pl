# Sealed payloads in the world: nothing of them is in the files of the cluster,
# its WAL, its log or a dump, whatever way the jobs have gone. A key that is
# missing costs no job; a restored dump can be opened with the server's secret
# and not without it.
use strict;
use warnings;

use File::Find;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $MARKER = 'Sealed3Marker';
my $CLEAR = 'Clear3Marker';
my $node = start_audited('seal', $SMALL_EPOCHS);
my $secret = $node->basedir . '/secret';

sub write_secret
{
	my ($file, $line) = @_;

	unlink($file);
	open(my $to, '>', $file) or die "$file: $!";
	chmod(0600, $file);
	print $to "$line\n";
	close($to);
	return;
}

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

my $line = '1:' . 'c' x 32;
write_secret($secret, $line);
$node->append_conf('postgresql.conf', "jobq.secret_file = '$secret'");
$node->reload;
await_keeper($node);
sql(q{
SELECT jobq.create_key('box', 'seal');
SELECT jobq.create_queue('dead', '{"backoff": {"base": "1 s", "jitter": 0}}');
SELECT jobq.create_queue('busy', '{"retention": 0}');
SELECT jobq.create_queue('sealed', '{"seal": "box", "retention": 0, "max_attempts": 2, "dead_letter": "dead",
	"backoff": {"base": "1 s", "jitter": 0}, "lease_for": "1 h"}');
SELECT jobq.create_queue('short', '{"seal": "box", "max_attempts": 1, "dead_letter": "dead", "lease_for": "1 s"}')});

sub marked
{
	my ($what, $queue, $arguments) = @_;

	return sql("SELECT jobq.enqueue('" . ($queue // 'sealed') . qq{', '{"is": "$MARKER $what"}'}
		  . ($arguments // '') . ')');
}

sub payload_of
{
	my ($id) = @_;

	return sql("SELECT payload->>'is' FROM jobq.job($id)");
}

# ---- the ways of a job ----

my $done = marked('done');
is(sql("SELECT payload->>'is' FROM jobq.dequeue('sealed')"), "$MARKER done", 'a delivery is opened');
sql("SELECT jobq.complete($done, lease) FROM jobq.attempts($done)");

my $dead = marked('dead');
sql("SELECT jobq.fail(id, lease, 'once') FROM jobq.dequeue('sealed')");
is(payload_of($dead), "$MARKER dead", 'on the shelf');
becomes_ok($node, "SELECT state FROM jobq.job($dead)", 'available', 'and moved to the belt by the keeper');
is(sql("SELECT payload->>'is' || jobq.fail(id, lease, 'twice') FROM jobq.dequeue('sealed')"),
	"$MARKER deaddead", 'it is what it was');
my $copy = sql("SELECT moved_to FROM jobq.dead_jobs WHERE id = $dead");
is(payload_of($copy), "$MARKER dead", 'its copy can be opened, too');
is(sql(q{SELECT jobq.redrive('dead')}), '1', 'and goes back');
is(sql("SELECT payload->>'is' FROM jobq.dequeue('sealed')"), "$MARKER dead", 'as it was');

my $lost = marked('lost', 'short');
sql(q{SELECT jobq.dequeue('short')});
becomes_ok($node, "SELECT state FROM jobq.job($lost)", 'dead', 'the keeper makes copies as well');
is(sql("SELECT payload->>'is' FROM jobq.jobs WHERE queue = 'dead' AND id > $lost"), "$MARKER lost", 'that can be opened');

my $later = marked('later', 'sealed', ", delay => '1 h'");
# in one transaction, so that they are few in their epoch
my ($carried, $running) = split(/\|/, sql(qq{
	SELECT jobq.enqueue('sealed', '{"is": "$MARKER carried"}', priority => 90),
		jobq.enqueue('sealed', '{"is": "$MARKER running"}', priority => -90)
	FROM jobq.enqueue_many('busy', array_fill('{}'::jsonb, '{100}'))}));
is(sql(q{SELECT id FROM jobq.dequeue('sealed')}), $running, 'one runs');

# Has the job had a ticket since this one?
sub ticket_of
{
	my ($id) = @_;

	return sql(qq{
		CREATE OR REPLACE FUNCTION pg_temp.ticket() RETURNS bigint LANGUAGE plpgsql AS \$\$
		DECLARE
			n int;
			found bigint;
			newest bigint := 0;
		BEGIN
			FOR n IN SELECT epoch FROM jobq.epoch LOOP
				BEGIN
					EXECUTE format('SELECT max(ticket) FROM jobq.job_%s WHERE id = $id', n) INTO found;
					newest := greatest(newest, found);
				EXCEPTION WHEN undefined_table THEN
				END;
			END LOOP;
			RETURN newest;
		END \$\$;
		SELECT pg_temp.ticket()});
}
ok(await(
		sub {
			sql(q{SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('busy', 100)});
			return ticket_of($carried) > $carried && ticket_of($running) > $running;
		}, 30),
	'two are carried to another epoch');
is(payload_of($carried), "$MARKER carried", 'which can be opened');
is(payload_of($running), "$MARKER running", 'also the one that runs');

# ---- nothing of it is on disk ----

sql(qq{SELECT jobq.enqueue('busy', '"$CLEAR"', delay => '1 h')});
sql('CHECKPOINT');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'a dump');

# Files of the cluster and around it that have a string in them.
sub files_with
{
	my ($string) = @_;
	my @found;

	find(
		{
			no_chdir => 1,
			wanted => sub {
				return unless -f $_;
				push @found, $_ if index(slurp_file($_), $string) >= 0;
			}
		},
		$node->data_dir, $dump, $node->logfile);
	return join("\n", @found);
}
$node->stop;
is(files_with($MARKER), '', 'no file of the cluster, no WAL, no log and no dump has a sealed payload');
is(files_with('c' x 32), '', 'nor the secret');
my $clear = files_with($CLEAR);
like($clear, qr{/base/}, 'of others the tables have them');
like($clear, qr{/pg_wal/}, 'and the WAL');
like($clear, qr{/dump\.sql}, 'and the dump');
$node->start;
await_keeper($node);

# ---- a key that is missing ----

my $waits = marked('waits', 'sealed', ', priority => -50');
my $fails = marked('fails', 'short');
sql('CREATE VIEW jobq_state AS SELECT id, queue, state, attempt FROM jobq.jobs');
my $lease = sql("SELECT lease FROM jobq.dequeue('short', lease_for => '2 s')");
unlink($secret);
is(sqlstate($node, q{SELECT jobq.dequeue('sealed', 10)}), 'JQ013', 'without the secret nothing is delivered') foreach 1 .. 3;
my $plain = sql(q{SELECT jobq.create_queue('plain'); SELECT jobq.enqueue('plain')}) =~ s/.*\n//sr;
is(sqlstate($node, q{SELECT jobq.dequeue_any('{plain,sealed}', 10)}), 'JQ013', 'nor together with others');
is(sql("SELECT state, attempt FROM jobq_state WHERE id = $plain"), 'available|0', 'which lose no attempt either');
is(sqlstate($node, q{CALL jobq.receive('sealed')}), 'JQ013', 'or received');
is(sqlstate($node, q{SELECT * FROM jobq.peek('sealed')}), 'JQ013', 'or shown');
is(sqlstate($node, qq{SELECT jobq.enqueue('sealed', '1')}), 'JQ013', 'or taken');
is(sqlstate($node, qq{SELECT payload FROM jobq.jobs WHERE id = $waits}), 'JQ013', 'or seen');
is(sqlstate($node, qq{SELECT jobq.fail($fails, $lease, 'no')}), 'JQ013', 'or copied');
is(sql("SELECT state, attempt FROM jobq_state WHERE id = $waits"), 'available|0', 'and no attempt is lost');
ok(sql(q{SELECT jobq.enqueue('busy', '1')}) > 0, 'other queues work');
ok($node->wait_for_log(qr/the server's secret cannot be used/), 'the keeper cannot end what has lost its lease');
is(sql("SELECT state FROM jobq_state WHERE id = $fails"), 'running', 'so it stays');
is(sql(q{SELECT count(*) FROM jobq.dequeue('busy', 10)}), '1', 'and others are not held up');
write_secret($secret, '1:' . 'e' x 32);
is(sqlstate($node, q{SELECT jobq.dequeue('sealed')}), 'JQ013', 'nor is anything delivered with another secret');
is(sqlstate($node, qq{SELECT jobq.fail($fails, $lease, 'no')}), 'JQ013', 'or ended without a copy');
write_secret($secret, $line);
becomes_ok($node, "SELECT count(*) FROM jobq.dead_jobs WHERE id = $fails AND moved_to IS NOT NULL", '1',
	'until the secret is back', 60);
is(sql("SELECT payload->>'is', attempt FROM jobq.dequeue('sealed')"), "$MARKER waits|1", 'then the next one comes');
is(sql('SELECT audit.check_dispatch()'), '', 'memory is sound');

is(sql("SELECT state FROM jobq.wait_for($waits, '0')"), 'running', 'one can wait for it');

# ---- jobs that nobody can open ----

# What is damaged: the ciphertext, the version of the key, the format.
my @damaged;
foreach my $byte (40, 4, 0)
{
	my $id = marked('damaged', 'sealed', ", delay => '1 h', priority => -99");

	sql("UPDATE jobq.shelf SET sealed = set_byte(sealed, $byte, 255 - get_byte(sealed, $byte)) WHERE id = $id");
	sql("SELECT jobq.reschedule($id)");
	push @damaged, $id;
}
my $sound = marked('sound', 'sealed', ', priority => -98');
is(sql(q{SELECT payload->>'is', attempt FROM jobq.dequeue('sealed')}), "$MARKER sound|1", 'the one behind them is delivered');
is( sql('SELECT id, attempt, last_error, moved_to FROM jobq.dead_jobs WHERE id IN (' . join(', ', @damaged) . ') ORDER BY id'),
	join("\n", map { "$_|1|the payload could not be opened|" } @damaged),
	'they are dead, without copies');

# A dead letter of somebody else's whose key is revoked.
sql(q{
SELECT jobq.purge_queue('dead');
SELECT jobq.create_key('theirs', 'seal');
SELECT jobq.create_queue('theirs', '{"seal": "theirs", "max_attempts": 1, "dead_letter": "dead"}')});
marked('gone', 'theirs') foreach 1 .. 2;
my @gone = split(/\n/, sql(q{
	SELECT jobq.fail(id, lease) FROM jobq.dequeue('theirs', 2) \g /dev/null
	SELECT id FROM jobq.jobs WHERE queue = 'dead' ORDER BY id}));
is(scalar(@gone), 2, 'dead letters');
my @kept = map { sql("SELECT jobq.enqueue('dead', '$_')") } 1 .. 3;
sql(q{SELECT jobq.revoke_key('theirs')});
is(sql("SELECT state FROM jobq.wait_for($gone[0], '0')"), 'available', 'one can wait for a job that cannot be opened');
is(sqlstate($node, "SELECT * FROM jobq.job($gone[0])"), 'JQ013', 'but not see it');
is(sql(q{BEGIN; SELECT count(*) FROM jobq.dequeue('dead', 2); ROLLBACK}), '2', 'they are passed over');
is(sql("SELECT count(*) FROM jobq_state WHERE id IN ($gone[0], $gone[1])"), '2', 'and dead only with the transaction');
becomes_ok($node, q{SELECT count(*) FROM jobq_state WHERE queue = 'dead' AND state = 'available'}, '5',
	'like all that were taken in it');
my @received = sql(q{CALL jobq.receive('dead', 10)}) =~ /"id": (\d+)/g;
is(join(' ', sort { $a <=> $b } @received), "@kept", 'all others are delivered');
is(sql("SELECT string_agg(DISTINCT state, ',') FROM jobq_state WHERE id IN ($kept[0], $kept[1], $kept[2])"), 'running', 'and run');
is( sql("SELECT id, state, last_error FROM jobq.dead_jobs WHERE id IN ($gone[0], $gone[1]) ORDER BY id"),
	join("\n", map { "$_|dead|the payload could not be opened" } @gone),
	'they are dead');
is(sql("SELECT state FROM jobq.wait_for($gone[0], '0')"), 'dead', 'which one who waits for it learns');
becomes_ok($node, qq{SELECT count(DISTINCT job_id) FROM jobq.audit
	WHERE outcome = 'refused' AND sqlstate = 'JQ013' AND queue = 'dead' AND job_id IN ($gone[0], $gone[1])}, '2',
	'the audit names them');
is(sql('SELECT audit.check_dispatch()'), '', 'memory is sound');

# ---- a dump elsewhere ----

$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'copy', '-f', $dump ], 'restored');
is($node->safe_psql('copy', "SELECT payload->>'is' FROM jobq.jobs WHERE id = $later"),
	"$MARKER later", 'with the secret it can be opened');
my $other = start_node('elsewhere');
$other->safe_psql('postgres', 'CREATE DATABASE copy');
$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'copy', '-f', $dump ], 'restored elsewhere');
$other->safe_psql('copy', 'SELECT jobq.adopt()');
await_keeper($other, 'copy');
my $read = "SELECT payload->>'is' FROM jobq.jobs WHERE id = $later";
is(sqlstate($other, $read, 'copy'), 'JQ013', 'without the secret it cannot');
is(sqlstate($other, q{SELECT jobq.dequeue('sealed')}, 'copy'), 'JQ013', 'nor be delivered');
my $theirs = $other->basedir . '/secret';
write_secret($theirs, '1:' . 'd' x 32);
$other->append_conf('postgresql.conf', "jobq.secret_file = '$theirs'");
$other->reload;
is(sqlstate($other, $read, 'copy'), 'JQ013', 'nor with another one');
is(sqlstate($other, q{SELECT jobq.dequeue('sealed')}, 'copy'), 'JQ013', 'nor be delivered with it');
write_secret($theirs, '2:' . 'c' x 32);
is(sqlstate($other, q{SELECT jobq.dequeue('sealed')}, 'copy'), 'JQ013', 'or without its version');
write_secret($theirs, $line);
ok($other->poll_query_until('copy', $read, "$MARKER later"), 'with the right one it can');
is($other->safe_psql('copy', q{SELECT payload->>'is', attempt FROM jobq.dequeue('sealed') WHERE id > 0}),
	"$MARKER carried|1", 'and be delivered, with no attempt lost');
$other->stop;
$node->stop;
done_testing();
