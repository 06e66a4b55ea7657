# Signatures in the world: openssl verifies what a worker got, also by
# receive(); a key that is revoked or rotated is so for all sessions at once; one
# that cannot be made from the server's secret any more is refused.
use strict;
use warnings;

use IPC::Run ();
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('sign');
my $secret = $node->basedir . '/secret';

# The server's secrets from now on.
sub write_secret
{
	my (@lines) = @_;

	unlink($secret);
	open(my $file, '>', $secret) or die "$secret: $!";
	chmod(0600, $secret);
	print $file "$_\n" foreach @lines;
	close($file);
	return;
}

sub sql
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

my $one = '1:' . 'a' x 32;
my $two = '2:' . 'b' x 32;
write_secret($one);
$node->append_conf('postgresql.conf', "jobq.secret_file = '$secret'");
$node->reload;
sql('CREATE EXTENSION pg_jobq');
await_keeper($node);

# ---- openssl ----

my $key = sql(q{SELECT jobq.create_key('hook', 'sign')});
sql(q{SELECT jobq.create_queue('signed', '{"sign": "hook", "backoff": {"base": 0}}')});

# The example of docs/sign-and-seal.md.
sub openssl
{
	my ($hexkey, $message) = @_;
	my $file = $node->basedir . '/message';

	open(my $to, '>:raw', $file) or die "$file: $!";
	print $to $message;
	close($to);
	my ($out, $err) = run_command(
		[ 'openssl', 'dgst', '-sha256', '-mac', 'HMAC', '-macopt', "hexkey:$hexkey", $file ]);
	return $out =~ /([0-9a-f]{64})$/ ? "sha256=$1" : "failed: $err";
}

sql(q{SELECT jobq.enqueue('signed', '{"to": "bob@example.com", "text": "häß€", "n": 1.50}',
	headers => '{"traceparent": "00-1"}')});
my ($id, $time, $signature, $by, $payload) = split(/\t/, $node->safe_psql(
	'postgres', q{SELECT id, headers->'signature_time', headers->>'signature', headers->>'signature_key', payload
		FROM jobq.dequeue('signed')}, extra_params => [ '-F', "\t" ]));
is($by, 'hook:1', 'the key is named');
is(openssl($key, "$id.$time.$payload"), $signature, 'openssl computes the signature of a delivery');
isnt(openssl($key, "$id.$time.$payload "), $signature, 'of this one only');

sql(q{SELECT jobq.enqueue('signed', '"received"')});
my $received = sql(q{CALL jobq.receive('signed')});
my ($received_key, $received_signature, $received_time, $received_id) = split(
	/\|/, sql(qq{SELECT d->'headers'->>'signature_key', d->'headers'->>'signature', d->'headers'->>'signature_time', d->>'id'
		FROM jsonb_array_elements('$received') d}));
is(openssl($key, qq{$received_id.$received_time."received"}), $received_signature, 'and one that was received');

# ---- other sessions ----

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $verify = qq{SELECT jobq.verify_signature('hook', $id, '$payload', jsonb_build_object(
	'signature', '$signature', 'signature_key', 'hook:1', 'signature_time', $time));};
is($session->query($verify), 't', 'a session verifies');
my $key2 = sql(q{SELECT jobq.rotate_key('hook', '1 h')});
sql(q{SELECT jobq.enqueue('signed', '2')});
is($session->query(q{SELECT headers->>'signature_key' FROM jobq.dequeue('signed');}),
	'hook:2', 'a rotated key is used at once');
is($session->query($verify), 't', 'what was signed before is good');

# The answer of a session whose errors do not end it.
sub last_state
{
	my ($sql) = @_;
	my $out = $session->query("$sql\n\\echo state :SQLSTATE");

	return $out =~ /state (\w+)/ ? $1 : $out;
}

# ---- the secret ----

write_secret($one, $two);
is(last_state($verify), '00000', 'a newer secret changes nothing');
my $new = sql(q{SELECT jobq.create_key('new', 'sign')});
write_secret($two);
is(sqlstate($node, $verify), 'JQ013', 'without the old one the key cannot be made');
sql(q{SELECT jobq.enqueue('signed', '3')});
is(sqlstate($node, q{SELECT jobq.dequeue('signed')}), 'JQ013', 'and nothing delivered');
is(sqlstate($node, qq{SELECT jobq.verify_signature('new', 1, '1',
		'{"signature": "sha256=${\ ('0' x 64)}", "signature_key": "new:1", "signature_time": 1}')}),
	'JQ019', 'keys made from the newer one work');
write_secret('1:' . 'x' x 32, $two);
is(sqlstate($node, $verify), 'JQ013', 'another secret of the same version is noticed');
unlink($secret);
is(last_state($verify), 'JQ013', 'without the file keys are refused, also where they were in use');
is(sqlstate($node, q{SELECT jobq.create_key('none', 'sign')}), 'JQ013', 'nor are any made');
write_secret($one, $two);
chmod(0644, $secret);
is(last_state($verify), 'JQ013', 'a file that everybody can read is none');
write_secret($one, $two);
is(last_state($verify), '00000', 'with the file they work');

# ---- revoked ----

sql(q{SELECT jobq.enqueue('signed', '"waits"')});
sql(q{SELECT jobq.revoke_key('hook')});
is(last_state($verify), 'JQ013', 'a revoked key is refused at once');
is(last_state(q{SELECT jobq.dequeue('signed');}), 'JQ013', 'in deliveries, too');
is(sql(q{SELECT state, attempt FROM jobq.jobs WHERE payload = '"waits"'}), 'available|0', 'which costs no attempt');
$session->quit;

my $log = slurp_file($node->logfile);
foreach my $what ($key, $key2, $new, 'a' x 32, 'b' x 32)
{
	unlike($log, qr/$what/, 'the log has no key and no secret');
	is(sql(qq{SELECT count(*) FROM jobq.crypto_key k WHERE strpos(k::text, '$what') > 0}), '0', 'nor has the table');
}
$node->stop;
done_testing();
