# Access keys between sessions: which secret files are refused, and how a
# secret is replaced; how long a key is in use; that revoking, expiry and DROP
# EXTENSION end it everywhere at once; that uses are counted and written down;
# that a key is found in no file, and its hash survives a dump.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use File::Find;
use JobqTest;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('keys', 'log_min_messages = info', allows_streaming => 1);
my $secret_file = $node->basedir . '/jobq.secret';
my $first = 'a' x 32;
my $second = 'the second secret of this server, longer';

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub key_of
{
	my ($name, $privileges, $more) = @_;

	return sql("SET ROLE boss; SELECT jobq.create_access_key('$name', 'q', '{$privileges}'"
		  . (defined $more ? ", '$more'" : '') . ')');
}

# What a statement of a role with a connection of its own ends with.
sub told_app
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql",
		extra_params => [ '-U', 'app' ]);

	return $err eq '' ? 'ok' : $err;
}

sub session
{
	my $psql = $node->background_psql('postgres', on_error_stop => 0,
		extra_params => [ '-U', 'app' ]);

	$psql->query_safe("\\set VERBOSITY verbose");
	return $psql;
}

sub told
{
	my ($session, $sql) = @_;

	$session->{stderr} = '';
	$session->query($sql);
	my $err = $session->{stderr};
	$session->{stderr} = '';
	return $err =~ /ERROR:\s+(\w{5}): ([^\n]*)/ ? "$1 $2" : 'ok';
}

sub write_secret
{
	my ($text, $mode) = @_;

	unlink $secret_file;
	append_to_file($secret_file, $text);
	chmod($mode // 0600, $secret_file) or die "chmod: $!";
	return;
}

sub set_secret_file
{
	sql("ALTER SYSTEM SET jobq.secret_file = '$_[0]'");
	$node->reload;
	return $node->poll_query_until('postgres', "SELECT current_setting('jobq.secret_file') = '$_[0]'");
}

sql(q{
CREATE EXTENSION pg_jobq;
CREATE FUNCTION public.meters_ahead(bigint) RETURNS void LANGUAGE c STRICT
	AS 'pg_jobq', 'jobq_test_meters_ahead';
CREATE ROLE boss;
CREATE ROLE app LOGIN IN ROLE jobq_key_user;
GRANT USAGE ON SCHEMA jobq TO boss;
GRANT EXECUTE ON FUNCTION jobq.create_queue(text, jsonb, text) TO boss;
SET ROLE boss;
SELECT jobq.create_queue('q');
});
await_keeper($node) or die 'there is no keeper';

# ---- secret files that are refused ----

my $create = "SELECT jobq.create_access_key('refused', 'q', '{enqueue}')";

sub refused
{
	my ($why, $pattern) = @_;
	my ($rc, $out, $err) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE boss; $create");

	like($err, qr/ERROR:  JQ013: the server's secret cannot be used\nDETAIL:  [^\n]*$pattern/,
		"refused: $why");
	like($err, qr/\nHINT:  /, "$why: with a hint");
	unlike($err, qr/\Q$secret_file\E|a{8}/, "$why: neither the file's name nor its text is told");
	is($out, '', "$why: no key is made");
	return;
}

refused('not set', 'is not set');
set_secret_file($secret_file);
refused('missing', 'cannot be opened: No such file');
mkdir $secret_file;
refused('a directory', 'is not a regular file');
rmdir $secret_file;
POSIX::mkfifo($secret_file, 0600);
refused('a pipe', 'is not a regular file');
foreach my $case (
	[ 'empty', '', 'There is no secret' ],
	[ 'only comments', "# 1:$first\n\n", 'There is no secret' ],
	[ 'short', '1:' . substr($first, 1) . "\n", 'line 1 .* less than 32 bytes' ],
	[ 'short but for blanks', '1:' . substr($first, 1) . " \t\r\n", 'line 1 .* less than 32 bytes' ],
	[ 'a short one besides', "2:$first\n1:aaaa\n", 'line 2 .* less than 32 bytes' ],
	[ 'a version twice', "1:$first\n2:$first\n# a\n1:$first$first\n", 'Line 4 .* an earlier line has' ],
	[ 'no version', "$first\n", 'Line 1 .* not a version' ],
	[ 'an empty version', ":$first\n", 'Line 1 .* not a version' ],
	[ 'version 0', "0:$first\n", 'Line 1 .* not a version' ],
	[ 'a negative version', "-1:$first\n", 'Line 1 .* not a version' ],
	[ 'a version that is no number', "1:$first\nv2:$first\n", 'Line 2 .* not a version' ],
	[ 'a version that is too large', "2147483648:$first\n", 'Line 1 .* not a version' ],
	[ 'a version larger than that', "99999999999999999999:$first\n", 'Line 1 .* not a version' ],
	[ 'a NUL', "1:$first\0$first\n", 'Line 1 .* not a version' ],
	[ 'too large', "1:$first\n" . "# comment\n" x 7000, 'more than 65535 bytes' ],
	[ 'readable by everybody', "1:$first\n", 'accessible to everybody', 0604 ],
	[ 'executable by everybody', "1:$first\n", 'accessible to everybody', 0601 ],
	[ 'readable by the group', "1:$first\n", 'accessible to its group', 0640 ],
	[ 'writable by the group', "1:$first\n", 'accessible to its group', 0620 ])
{
	write_secret($case->[1], $case->[3]);
	refused($case->[0], $case->[2]);
}
write_secret(join('', map { "$_:$first\n" } 1 .. 101));
refused('101 versions', 'more than 100 versions');
set_secret_file('/etc/passwd');
refused("root's, but readable", 'accessible to everybody');
set_secret_file($secret_file);

# ---- one that is good, and another version ----

my $boss = $node->background_psql('postgres', on_error_stop => 0);
$boss->query_safe("\\set VERBOSITY verbose\nSET ROLE boss;");
my $app = session();

write_secret("# of this server\r\n\r\n1:$first \r\n");
my $old = $boss->query_safe("SELECT jobq.create_access_key('old', 'q', '{enqueue}')");
like($old, qr/^jq_[0-9a-f]{64}$/, 'with comments, blanks and CR: a key is made');
is(sql("SELECT secret_version || ' ' || prefix || ' ' || encode(digest, 'hex')
		FROM jobq.access_key WHERE name = 'old'"),
	'1 ' . substr($old, 0, 12) . ' ' . hmac_sha256_hex("access key|$old", $first),
	'stored are its prefix and its HMAC-SHA256 with the secret');
chmod(0644, $secret_file);
like(told($app, "SELECT jobq.use_access_key('$old')"), qr/^JQ013 the server's secret/,
	'whoever has read the file looks at it again');
chmod(0600, $secret_file);
is(told($app, "SELECT jobq.use_access_key('$old')"), 'ok', 'and again');

# the new version comes first, and is larger than one digit's order would have it
write_secret("10:$second\n9:$first$first\n1:$first\n");
my $new = $boss->query_safe("SELECT jobq.create_access_key('new', 'q', '{enqueue}')");
is(sql("SELECT secret_version || ' ' || encode(digest, 'hex') FROM jobq.access_key WHERE name = 'new'"),
	'10 ' . hmac_sha256_hex("access key|$new", $second), 'a new key is made with the largest version');
is(told($app, "SELECT jobq.use_access_key('$_')"), 'ok', 'keys of both versions are good') foreach $old, $new;
write_secret("10:$second\n");
is(told($app, "SELECT jobq.use_access_key('$old')"), 'JQ013 the access key is not known',
	'without its version the old key is not');
is(told($app, "SELECT jobq.use_access_key('$new')"), 'ok', 'the new one is');
write_secret("10:$second\n1:$first\n");
is(told($app, "SELECT jobq.use_access_key('$old')"), 'ok', 'with it, it is again');

# ---- for how long ----

is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ002 queue "q" does not exist', 'for a statement only');
foreach my $end ('COMMIT', 'ROLLBACK')
{
	is(told($app, "BEGIN; SELECT jobq.use_access_key('$old'); SELECT jobq.enqueue('q')"),
		'ok', "in use until $end");
	is(told($app, $end), 'ok', $end);
	is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ002 queue "q" does not exist', "not after $end");
}
told($app, "BEGIN; SELECT jobq.use_access_key('$old'); SELECT 1/0; COMMIT");
is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ002 queue "q" does not exist', 'nor after an error');
told($app, "BEGIN; SELECT jobq.use_access_key('$old', true); ROLLBACK");
is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ002 queue "q" does not exist',
	'what was rolled back is not in use for the session, either');
my $consumer = key_of('consumer', 'dequeue');
told($app, "SELECT jobq.use_access_key('$old', for_session => true)");
is(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'for the session');
is(told($app, "BEGIN; SELECT jobq.use_access_key('$consumer'); SELECT jobq.enqueue('q')"),
	'42501 permission denied for queue "q"', 'another one for a transaction');
told($app, 'ROLLBACK');
is(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'the first one again');
like(told_app(q{SELECT jobq.enqueue('q')}), qr/JQ002/, 'in its own session only');
told($app, 'DISCARD ALL');
is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ002 queue "q" does not exist', 'DISCARD ALL ends it');

# one round trip each, as through a pooler: the procedures commit on their own
is(told($app, "SELECT jobq.use_access_key('$consumer', true); CALL jobq.receive('q', wait => '0 s')"),
	'ok', 'long polls take the session form');
told($app, 'SELECT jobq.use_access_key(NULL)');
is(told($app, q{CALL jobq.receive('q', wait => '0 s')}), 'JQ002 queue "q" does not exist', 'let go');
sql("SELECT jobq.purge_queue('q')");

# ---- revoked: the next call fails ----

told($app, "SELECT jobq.use_access_key('$old', true)");
is(told($app, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class; '
		. q{SELECT jobq.enqueue('q')}), 'ok', 'a transaction with a snapshot and a key');
$boss->query_safe(q{BEGIN; SELECT jobq.revoke_access_key('old')});
is(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'to be revoked is not revoked');
$boss->query_safe('ROLLBACK');
is(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'nor is what was not to be');
$boss->query_safe(q{SELECT jobq.revoke_access_key('old')});
is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ013 the access key has been revoked',
	'revoked: the next call fails, in the same transaction');
told($app, 'ROLLBACK');
is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ013 the access key has been revoked', 'and all after it');
is(told($app, 'TABLE jobq.queues'), 'JQ013 the access key has been revoked', 'views, too');
is(told($app, "SELECT jobq.use_access_key('$old')"), 'JQ013 the access key has been revoked',
	'it is not taken again');
is(told($app, "SELECT jobq.use_access_key('$new', true)"), 'ok', 'another is');
is(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'and goes');
sql("SELECT jobq.purge_queue('q')");

# nothing is revoked in silence that is not revoked
$boss->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
my $late = key_of('late', 'enqueue');
is(told($boss, q{SELECT jobq.revoke_access_key('late')}),
	'40001 could not serialize access due to concurrent update',
	'REPEATABLE READ: a key that is younger than the snapshot cannot be revoked');
$boss->query_safe('ROLLBACK');
is(told($app, "SELECT jobq.use_access_key('$late')"), 'ok', 'which stays good');

# one who waits for jobs gets none
told($app, "SELECT jobq.use_access_key('$consumer', true)");
$app->query_until(qr/waits/, "\\echo waits\nSELECT 'got ' || id FROM jobq.dequeue('q', wait => '20 s');\n\\echo done\n");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE usename = 'app' AND wait_event_type = 'Extension'});
$boss->query_safe(q{SELECT jobq.revoke_access_key('consumer')});
sql("SELECT jobq.enqueue('q')");
my $waited = $app->query_until(qr/done/, '');
unlike($waited, qr/got/, 'who waited with a key that was revoked gets no job');
like($app->{stderr}, qr/JQ013: the access key has been revoked/, 'but JQ013');
is(sql("SELECT available FROM jobq.queue_stats WHERE queue = 'q'"), '1', 'the job is still there');

# ---- expired ----

my $brief = key_of('brief', 'enqueue', '3 s');
told($app, "SELECT jobq.use_access_key('$brief', true)");
is(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'before it expires');
$node->poll_query_until('postgres', q{SELECT clock_timestamp() >= expires_at
	FROM jobq.access_keys WHERE name = 'brief'});
is(told($app, q{SELECT jobq.enqueue('q')}), 'JQ013 the access key has expired', 'after it has expired');
is(sql(q{SELECT state FROM jobq.access_keys WHERE name = 'brief'}), 'expired', 'and is marked so');

# ---- uses ----

my $counted = key_of('counted', 'enqueue');

sub uses
{
	return sql(q{SELECT uses || ' ' || coalesce((last_used_at - (SELECT max(created_at)
			FROM jobq.access_keys WHERE name = 'counted') > '2 min')::text, 'never')
		FROM jobq.access_keys WHERE name = 'counted'});
}

is(uses(), '0 never', 'not used yet');
told($app, "SELECT jobq.use_access_key('$counted')") foreach 1 .. 3;
told($app, "SELECT jobq.use_access_key('$counted', true)");
told($app, q{SELECT jobq.enqueue('q')}) foreach 1 .. 3;
is(uses(), '4 false', 'each time it is presented counts');
sql('SELECT public.meters_ahead(180000000)');
told($app, q{SELECT jobq.enqueue('q')});
is(uses(), '4 true', 'each minute of its use shows');
sql('SELECT public.meters_ahead(0)');
sql('SELECT jobq.run_maintenance()');
is(sql(q{SELECT u.uses FROM jobq.access_key_use u JOIN jobq.access_key USING (key_id)
	WHERE name = 'counted'}), '4', 'the keeper writes it down');
is(uses(), '4 true', 'where it counts once');
told($app, "SELECT jobq.use_access_key('$counted')");
is(uses(), '5 true', 'what is new comes on top');
sql('SELECT jobq.run_maintenance()');
is(sql(q{SELECT u.uses FROM jobq.access_key_use u JOIN jobq.access_key USING (key_id)
	WHERE name = 'counted'}), '5', 'also on disk');
told($app, 'SELECT jobq.use_access_key(NULL)');
$app->quit;
$boss->quit;
$node->restart;
await_keeper($node);
is(uses(), '5 true', 'it survives a restart');

# ---- a key is in no file ----

# Files below the data directory, and the log, that have any of these in them.
sub files_with
{
	my @wanted = @_;
	my @found;

	find({ no_chdir => 1, wanted => sub {
		return unless -f $_;
		my $content = eval { slurp_file($_) } // '';
		push @found, $_ if grep { index($content, $_) >= 0 } @wanted;
	} }, $node->data_dir, $node->logfile);
	return @found;
}

my $hidden = key_of('hidden', 'enqueue');
my $expired = key_of('hidden and expired', 'enqueue', '1 s');
my $script = $node->basedir . '/use.sql';
append_to_file($script, q{
BEGIN;
SELECT jobq.use_access_key(:key);
SELECT jobq.enqueue('q');
COMMIT;
});
foreach my $settings ('log_min_duration_statement = -1',
	"log_min_duration_statement = 0\nlog_parameter_max_length = 0")
{
	$node->append_conf('postgresql.conf', $settings);
	$node->reload;
	my @load = ('pgbench', '-n', '-M', 'extended', '-t', '3', '-f', $script, '-U', 'app');
	$node->command_ok([ @load, '-D', "key=$hidden", 'postgres' ], 'the key as a parameter');
	$node->poll_query_until('postgres', q{SELECT clock_timestamp() >= expires_at
		FROM jobq.access_keys WHERE name = 'hidden and expired'});
	$node->command_fails([ @load, '-D', "key=$expired", 'postgres' ], 'also one that is refused');
}
like(slurp_file($node->logfile), qr/the access key has expired/, 'which is in the log');
sql('SELECT jobq.run_maintenance(); CHECKPOINT');
isnt(join(' ', files_with(substr($hidden, 0, 12))), '', 'the prefix is found in a file');
foreach my $key ($hidden, $expired)
{
	my $hex = substr($key, 3);

	is(join(' ', files_with($hex, uc $hex, pack('H*', $hex))), '',
		'the key is found neither in data files, nor in WAL, nor in the log');
}
is(join(' ', files_with($second)), '', 'nor is the secret');

# ---- a standby ----

my $reader = key_of('reader', 'read');
$node->backup('standby');
my $standby = PostgreSQL::Test::Cluster->new('keys_standby');
$standby->init_from_backup($node, 'standby', has_streaming => 1);
$standby->start;
my $count = sql("SELECT count(*) FROM jobq.jobs WHERE queue = 'q'");
cmp_ok($count, '>', 0, 'there are jobs');
my ($rc, $out, $err) = $standby->psql('postgres',
	"SELECT count(*) FROM jobq.jobs; BEGIN; SELECT jobq.use_access_key('$reader'); SELECT count(*) FROM jobq.jobs",
	extra_params => [ '-U', 'app' ]);
is("$out$err", "0\n\n$count", 'on a standby keys are good, too');
sql(q{SELECT jobq.revoke_access_key('reader')});
$node->wait_for_catchup($standby);
($rc, $out, $err) = $standby->psql('postgres', "SELECT jobq.use_access_key('$reader')",
	extra_params => [ '-U', 'app' ]);
like($err, qr/the access key has been revoked/, 'and revoked when the primary says so');
$standby->stop;

# ---- dump and restore ----

my $dump = $node->basedir . '/keys.dump';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
my $text = slurp_file($dump);
ok(index($text, substr($hidden, 0, 12)) >= 0, 'a dump has the prefix');
ok(index($text, substr($hidden, 12)) < 0 && index($text, $second) < 0, 'but neither key nor secret');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ],
	'restore');
($rc, $out, $err) = $node->psql('copy', "BEGIN; SELECT jobq.use_access_key('$hidden'); SELECT jobq.enqueue('q'); COMMIT",
	extra_params => [ '-U', 'app' ]);
is($err, '', 'keys are good in the copy');
is($node->safe_psql('copy', q{SELECT state, uses FROM jobq.access_keys WHERE name = 'counted'}),
	'active|5', 'with what is known of their use');
is($node->safe_psql('copy', q{SELECT state FROM jobq.access_keys WHERE name = 'old'}), 'revoked',
	'what was revoked stays so');

# ---- another extension of the same name ----

$app = session();
told($app, "SELECT jobq.use_access_key('$hidden', true)");
is(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'a key in use');
my $number = sql(q{SELECT key_id FROM jobq.access_key WHERE name = 'hidden'});
sql(q{DROP EXTENSION pg_jobq; CREATE EXTENSION pg_jobq; SELECT jobq.create_queue('q')});
sql(qq{SELECT jobq.create_access_key('k' || i, 'q', '{enqueue}') FROM generate_series(1, $number) i});
is(sql(q{SELECT max(key_id) FROM jobq.access_key}), $number, 'one of the same number now');
isnt(told($app, q{SELECT jobq.enqueue('q')}), 'ok', 'is not taken for it');

$app->quit;
$node->stop;
done_testing();
