# Wrong access keys shut their client out, for longer each time, by address, or
# by role where the client is on the same machine; then not even the right key
# is looked at. Others are not concerned, and the table of it has its bounds.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('lockout', "listen_addresses = '127.0.0.1'\njobq.secret_file = 'jobq.secret'");
my $secret_file = $node->data_dir . '/jobq.secret';
my $wrong = 'jq_' . '0' x 64;
my $ahead = 0;

append_to_file($secret_file, '1:' . 'x' x 40 . "\n");
chmod(0600, $secret_file) or die "chmod: $!";

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# The clock of lock-outs goes on.
sub later
{
	my ($seconds) = @_;

	$ahead += $seconds;
	sql("SELECT public.meters_ahead(${ahead}::bigint * 1000000)");
	return;
}

my $key;
my $connstr = $node->connstr('postgres');
my $tcp = 'host=127.0.0.1 port=' . $node->port . ' dbname=postgres';

# What a role is told that presents keys, one after the other: good, unknown, or
# for how many ms it is shut out.
sub told
{
	my ($where, $role, @keys) = @_;
	my ($rc, $out, $err) = $node->psql(
		'postgres',
		join('', "\\set VERBOSITY verbose\n\\o /dev/null\n",
			map { "SELECT jobq.use_access_key('$_');\n\\warn :SQLSTATE\n" } @keys),
		connstr => $where,
		on_error_stop => 0,
		extra_params => [ '-U', $role ]);
	my @told;

	while ($err =~ /^(00000)$|^psql:.* JQ013: (.*)\nDETAIL:  (.*)/mg)
	{
		push @told, $1 ? 'good'
		  : $2 eq 'the access key is not known' ? 'unknown'
		  : $2 eq 'access keys from here are not looked at now' && $3 =~ /Retry after (\d+) ms\.$/ ? $1
		  : "$2, $3";
	}
	return @told;
}

sub is_told
{
	my ($where, $role, $keys, $expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(join(' ', told($where, $role, @$keys)), $expected, $name);
}

# Shut out now, and for how long the last wrong key has made it be.
sub is_shut_out
{
	my ($where, $role, $keys, $seconds, $name) = @_;
	my @told = told($where, $role, @$keys);
	my $left = $told[-1];

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($left =~ /^\d+$/ && $left > ($seconds - 60) * 1000
		  && $left > $seconds * 500 && $left <= $seconds * 1000 + 1, $name)
	  || diag("@told");
}

sql(q{
CREATE EXTENSION pg_jobq;
CREATE FUNCTION public.meters_ahead(bigint) RETURNS void LANGUAGE c STRICT
	AS 'pg_jobq', 'jobq_test_meters_ahead';
CREATE ROLE app LOGIN IN ROLE jobq_key_user;
CREATE ROLE app2 LOGIN IN ROLE jobq_key_user;
SELECT jobq.create_queue('q');
});
$key = sql(q{SELECT jobq.create_access_key('k', 'q', '{enqueue}')});

# ---- after a few wrong keys ----

is_told($connstr, 'app', [ ($wrong) x 4, $key ], 'unknown unknown unknown unknown good',
	'four wrong keys shut nobody out');
is_shut_out($connstr, 'app', [ $wrong, $key ], 1, 'the fifth does for a second, also with the right key');
later(1);
is_told($connstr, 'app', [$key], 'good', 'after it the right key is good');

# ---- doubled each time, to a quarter of an hour ----

my $expected = 1;
foreach my $n (6 .. 16)
{
	$expected = $expected * 2 > 900 ? 900 : $expected * 2;
	is_shut_out($connstr, 'app', [ $wrong, $key ], $expected, "wrong key $n shuts out for $expected s");
	later($expected);
}
is_told($connstr, 'app', [$key], 'good', 'and that ends');
is_shut_out($connstr, 'app', [ $wrong, $key ], 900, 'a good key does not make up for the wrong ones');
my ($left) = told($connstr, 'app', $key);
my @told = told($connstr, 'app', ($wrong) x 3, $key);
is(scalar(grep { /^\d+$/ && $_ <= $left } @told), 4,
	'while one is shut out wrong keys are not looked at, and do not make it longer');
is_told($connstr, 'app2', [$key], 'good', 'no other role of this machine is');
is_told($tcp, 'app', [$key], 'good', 'nor another address');
is(sql('SELECT uses FROM jobq.access_keys'), '5', 'only what was looked at counts as use');
later(900 + 14 * 60);
is_shut_out($connstr, 'app', [ $wrong, $key ], 900, 'a little time does not make up for them, either');
later(900 + 16 * 60);
is_told($connstr, 'app', [ ($wrong) x 4, $key ], 'unknown unknown unknown unknown good',
	'a quarter of an hour without any does');

# ---- by address ----

is_told($tcp, $_, [ $wrong, $wrong ], 'unknown unknown', "wrong keys of one address, role $_")
  foreach 'app', 'app2';
is_shut_out($tcp, 'app', [ $wrong, $key ], 1, 'count together');
foreach my $seconds (2, 4, 8, 16, 32, 64, 128)
{
	later($seconds);
	is_shut_out($tcp, 'app2', [ $wrong, $key ], $seconds, "whoever they are of, to $seconds s");
}
is_shut_out($tcp, 'app', [$key], 128, 'all roles are shut out');
is_told($connstr, 'app2', [$key], 'good', 'but not on this machine');

# ---- the audit log ----

my $unknown = 'presented an access key that is not known';
my $locked_out = 'locked out after too many wrong access keys';
becomes_ok(
	$node,
	q{SELECT DISTINCT role COLLATE "C", client_addr, detail COLLATE "C" FROM jobq.audit
		WHERE call = 'use_access_key' AND outcome = 'refused' AND sqlstate = 'JQ013' ORDER BY 1, 2, 3},
	join("\n", map { ("$_|$locked_out", "$_|$unknown") } 'app|127.0.0.1', 'app|', 'app2|127.0.0.1'),
	'wrong keys, and clients that are shut out, are written down, and where they came from');

# ---- more clients than there is room for ----

my $crowd = join('', map { qq{
CREATE ROLE crowd_$_ IN ROLE jobq_key_user;
SET SESSION AUTHORIZATION crowd_$_;
SELECT jobq.use_access_key('$wrong');
RESET SESSION AUTHORIZATION;
} } 1 .. 300);
my ($rc, $out, $err) = $node->psql('postgres', $crowd, on_error_stop => 0);
is(scalar(() = $err =~ /the access key is not known/g), 300, 'a wrong key of each of 300 others');
is_shut_out($tcp, 'app', [$key], 128, 'whoever is shut out stays so among them');
is_told($connstr, 'app2', [$key], 'good', 'and whoever is not is heard');
later(128);
is_told($tcp, 'app', [$key], 'good', 'it comes back');

$node->stop;
done_testing();
