# Secrets in error texts: none of their bytes gets to disk, not even into the
# WAL or the log; in databases of several encodings.
use strict;
use warnings;

use File::Find;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('redact', q{
log_statement = none
log_min_duration_statement = -1
log_min_error_statement = panic
jobq.redact_patterns = 'CUST-######'
});

my %encodings = (utf8 => 'UTF8', latin1 => 'LATIN1', eucjp => 'EUC_JP', ascii => 'SQL_ASCII');
my $fails = q{
SELECT jobq.create_queue('r', '{"backoff": {"base": 0}, "dead_letter": "dead", "max_attempts": 3}');
SELECT jobq.enqueue('r') FROM generate_series(1, 3);
SELECT jobq.fail(id, lease, 'login with password=zqhunterzq at postgres://u:zqhunterzq@h/x') FROM jobq.dequeue('r');
SELECT jobq.settle_jobs(jsonb_build_array(jsonb_build_object('id', id, 'lease', lease, 'do', 'fail',
	'error', E'{"token": "zqhunterzq"}\nAuthorization: Bearer zqhunterzq'))) FROM jobq.dequeue('r');
SELECT jobq.fail(id, lease, repeat('x', 4995) || ' token=zqhunterzq', false) FROM jobq.dequeue('r');
SELECT jobq.cancel(id, 'as secret=zqhunterzq') FROM jobq.jobs WHERE queue = 'r' LIMIT 1;
SELECT jobq.cancel(id, 'as secret: zqhunterzq1', '1 min') FROM jobq.dequeue('r');
SELECT jobq.enqueue('r');
SELECT jobq.fail(id, lease, 'CUST-471147 is blocked') FROM jobq.dequeue('r');
};

foreach my $name (sort keys %encodings)
{
	$node->safe_psql('postgres',
		"CREATE DATABASE $name ENCODING $encodings{$name} LOCALE 'C' TEMPLATE template0");
	$node->safe_psql($name, 'CREATE EXTENSION pg_jobq');
	ok(await_keeper($node, $name), "$name: the keeper is there");
	$node->safe_psql($name, $fails);
	is( $node->safe_psql($name, q{SELECT count(*) FROM (
		SELECT last_error AS e FROM jobq.jobs UNION ALL SELECT last_error FROM jobq.history
		UNION ALL SELECT last_error FROM jobq.dead_jobs) x WHERE e LIKE '%***%'}),
		3, "$name: what is left says that something was there");
	is($node->safe_psql($name, q{SELECT count(*) FROM jobq.dead_jobs
		WHERE last_error = repeat('x', 4995) || ' toke... (truncated)'}), 1, "$name: and is cut");
}

# Characters of several bytes before, in and after a secret, and where it is cut.
my $hex = $node->safe_psql('eucjp', q{
SET client_encoding = 'EUC_JP';
SELECT jobq.enqueue('r', priority => -5);
SELECT jobq.fail(id, lease, convert_from('\xb4c1' || 'password='::bytea || '\xbbfa31' || ' '::bytea || '\xb4c1', 'EUC_JP')
	|| repeat(convert_from('\xb4c1', 'EUC_JP'), 6000)) FROM jobq.dequeue('r');
SELECT encode(convert_to(left(last_error, 15), 'EUC_JP'), 'hex') || ' ' || length(last_error)
	FROM jobq.jobs WHERE last_error LIKE '%truncated)'}) =~ s/.*\n//sr;
is($hex, unpack('H*', "\xb4\xc1password=*** \xb4\xc1") . ' 5015', 'whole characters in EUC_JP');

$node->safe_psql('postgres', 'CHECKPOINT');
$node->stop;

my @found;
my $files = 0;
find({ no_chdir => 1, wanted => sub {
	return unless -f $_;
	$files++;
	my $data = slurp_file($_);
	push @found, $_ if index($data, 'zqhunterzq') >= 0 || index($data, 'CUST-471147') >= 0;
} }, $node->data_dir);
cmp_ok($files, '>', 1000, 'the files of the server');
is(scalar @found, 0, 'no secret in any of them') or diag("@found");
is(index(slurp_file($node->logfile), 'zqhunterzq'), -1, 'nor in the log');
done_testing();
