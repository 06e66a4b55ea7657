# What leaves the database, and by which way: no payload in the server's log at
# its default settings, no socket in keeper and launcher, TLS where it is wanted,
# nothing of one database in another, and no name that is more than a name.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $MARK = 'card-4929-1234';
my $node = start_audited('hygiene', undef, q{
SELECT jobq.create_queue('log', '{"max_payload_bytes": 400, "max_batch": 3, "max_attempts": 2,
	"backoff": {"base": "0 s"}, "dead_letter": "log dead", "lease_for": "1 s"}');
CREATE ROLE stranger LOGIN;
CREATE ROLE producer LOGIN;
SELECT jobq.create_queue('other'), jobq.grant_queue('other', 'stranger', '{enqueue,dequeue}'),
	jobq.grant_queue('log', 'producer', '{enqueue}')});
await_keeper($node) or die 'no keeper';

sub sql
{
	return $node->safe_psql($_[1] // 'postgres', $_[0]);
}

# ---- the log ----

# Bound parameters, as drivers send them: statements have $1 in their place.
sub with_parameter
{
	my ($call, $role) = @_;
	my $file = $node->basedir . '/call.sql';
	my ($out, $err);

	unlink $file;
	append_to_file($file, "$call;\n");
	IPC::Run::run(
		[ 'pgbench', '-n', '-M', 'extended', '-t', '1', '-h', $node->host, '-p', $node->port,
			'-U', $role // 'postgres', '-D', qq(text=$MARK), '-D', qq(json={"card": "$MARK"}),
			'-D', qq(jobs=[{"queue": "log", "payload": "$MARK"}, {"queue": "log", "priority": 101, "payload": "$MARK"}]),
			'-D', qq(done=[{"id": 0, "lease": 1, "do": "complete", "result": "$MARK"}]),
			'-D', 'many={"\"' . $MARK . '\"",1,2,3}', '-f', $file, 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
	return $err;
}

my @works = (
	q{SELECT jobq.enqueue('log', :json::jsonb, headers => :json::jsonb)},
	q{SELECT jobq.enqueue('log', :json::jsonb, expires_at => now() + interval '1 s')},
	q{SELECT jobq.enqueue('log', :json::jsonb, delay => '1 ms', unique_key => 'u')},
	q{SELECT jobq.enqueue('log', :json::jsonb, unique_key => 'u', on_conflict => 'replace')},
	q{SELECT count(*) FROM (SELECT jobq.fail(id, lease, :text) FROM jobq.dequeue('log')) f},
	q{SELECT count(*) FROM (SELECT jobq.complete(id, lease, :json::jsonb) FROM jobq.dequeue('log')) f},
	q{SELECT count(*) FROM (SELECT jobq.extend(id, lease, progress => :json::jsonb) FROM jobq.dequeue('log')) f},
	q{SELECT jobq.cancel(id, :text) FROM jobq.jobs LIMIT 1},
	q{SELECT jobq.schedule('s', '* * * * *', 'log', :json::jsonb)},
	q{SELECT jobq.run_schedule('s')});
my @refused = (
	q{SELECT jobq.enqueue('log', :json::jsonb, priority => 101)},
	q{SELECT jobq.enqueue('log', to_jsonb(repeat(:text::text, 50)))},
	q{SELECT jobq.enqueue('log', headers => to_jsonb(:text::text))},
	q{SELECT jobq.enqueue('log', :json::jsonb, unique_key => 'u', on_conflict => 'error')},
	q{SELECT jobq.enqueue('nowhere', :json::jsonb)},
	q{SELECT jobq.enqueue_many('log', :many::jsonb[])},
	q{SELECT jobq.enqueue_jobs(:jobs::jsonb)},
	q{SELECT jobq.complete(0, 1, :json::jsonb)},
	q{SELECT jobq.complete(id, 1, :json::jsonb) FROM jobq.jobs LIMIT 1},
	q{SELECT jobq.complete(id, 1, to_jsonb(repeat(:text::text, 50))) FROM jobq.jobs LIMIT 1},
	q{SELECT jobq.fail(id, 1, :text) FROM jobq.jobs LIMIT 1},
	q{SELECT jobq.extend(id, 1, progress => :json::jsonb) FROM jobq.jobs LIMIT 1},
	q{SELECT jobq.settle_jobs(:done::jsonb)},
	q{SELECT jobq.cancel(0, :text)},
	q{SELECT jobq.cancel(id, repeat(:text::text, 100)) FROM jobq.jobs LIMIT 1});
foreach my $call (@works, @refused)
{
	# something to work on
	sql(qq{SELECT jobq.enqueue('log', '"$MARK"')});
	my $before = -s $node->logfile;
	my $told = with_parameter($call);
	my $log = substr(slurp_file($node->logfile), $before);

	is($told =~ /ERROR/ ? 1 : 0, (grep { $_ eq $call } @refused) ? 1 : 0,
		"does what it should: $call") or diag($told);
	unlike($told, qr/\Q$MARK\E/, "nothing is told: $call");
	unlike($log, qr/\Q$MARK\E/, "nothing is logged: $call");
}
foreach my $role ('stranger', 'producer')
{
	like(with_parameter(q{SELECT jobq.complete(id, 1, :json::jsonb) FROM unnest(ARRAY[1, 2]) id}, $role),
		qr/ERROR/, "$role is refused");
}

# what the keeper does with them: leases run out, jobs expire, die and are copied
sql(qq{SELECT jobq.enqueue('log', '"$MARK"', max_attempts => 1);
SELECT count(*) FROM jobq.dequeue('log', 100)});
becomes_ok($node, q{SELECT count(*) > 0 FROM jobq.jobs WHERE queue = 'log dead'}, 't',
	'a lease ran out and the job was dead-lettered');
sql('SELECT jobq.run_maintenance()');
kill_backend($node, sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_jobq keeper'}));
await_keeper($node) or die 'no keeper';
my $log = slurp_file($node->logfile);
cmp_ok(scalar(() = $log =~ / ERROR: /g), '>=', 15, 'errors are logged');
unlike($log, qr/\Q$MARK\E/, 'but no payload, result, progress, error or reason');

# ---- sockets ----

# Descriptors of a process that lead out of it.
sub sockets_of
{
	my ($pid) = @_;

	return grep { /^socket:/ } map { readlink($_) // '' } glob("/proc/$pid/fd/*");
}

SKIP:
{
	skip 'no /proc here', 4 unless -d "/proc/$$/fd";
	my $session = $node->background_psql('postgres');
	cmp_ok(scalar(sockets_of($session->query_safe('SELECT pg_backend_pid()'))), '>=', 1,
		'a session has a socket');
	$session->quit;
	sql(q{SELECT jobq.enqueue('log'), jobq.run_maintenance()});
	foreach my $type ('keeper', 'launcher')
	{
		my ($pid) = split /\n/,
		  sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_jobq $type'");
		is(join(' ', sockets_of($pid)), '', "the $type has none");
	}
	is(scalar(sockets_of($node->{_pid})), 1, 'the server listens where it was told to only');
}

# ---- TLS ----

my $dir = $node->data_dir;
SKIP:
{
	skip 'no openssl here', 3
	  if system("cd '$dir' && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
		  . '-keyout server.key -out server.crt -addext subjectAltName=DNS:localhost >/dev/null 2>&1') != 0;
	chmod 0600, "$dir/server.key";
	$node->append_conf('postgresql.conf',
		"ssl = on\nlisten_addresses = '127.0.0.1'\n");
	$node->append_conf('pg_hba.conf',
		"hostssl all all 127.0.0.1/32 trust\nhostnossl all all 127.0.0.1/32 reject\n");
	# the first line that fits decides
	my $hba = slurp_file("$dir/pg_hba.conf");
	unlink "$dir/pg_hba.conf";
	append_to_file("$dir/pg_hba.conf", join("\n", grep { !/^host\s/ } split /\n/, $hba) . "\n");
	$node->restart;
	await_keeper($node) or die 'no keeper';
	my $tls = 'host=localhost hostaddr=127.0.0.1 port=' . $node->port
	  . " dbname=postgres user=producer sslrootcert=$dir/server.crt sslmode=";
	my ($rc, $out, $err) = $node->psql('postgres', q{
SELECT ssl, version >= 'TLSv1.2' FROM pg_stat_ssl WHERE pid = pg_backend_pid();
SELECT jobq.enqueue('log', '{"over": "tls"}') > 0}, connstr => $tls . 'verify-full');
	is($out, "t|t\nt", 'everything works over verified TLS') or diag($err);
	($rc) = $node->psql('postgres', 'SELECT 1', connstr => $tls . 'disable');
	isnt($rc, 0, 'and nothing asks for less');
	($rc) = $node->psql('postgres', 'SELECT 1',
		connstr => ($tls . 'verify-full') =~ s/host=localhost/host=example.com/r);
	isnt($rc, 0, 'a server of another name is refused');
}

# ---- another database ----

$node->safe_psql('postgres', 'CREATE DATABASE elsewhere');
sql('CREATE EXTENSION pg_jobq', 'elsewhere');
await_keeper($node, 'elsewhere') or die 'no keeper';
my ($id, $lease) = split /\|/, sql(q{SELECT jobq.purge_queue('log') \g /dev/null
SELECT jobq.enqueue('log', '"here"') \g /dev/null
SELECT id, lease FROM jobq.dequeue('log', lease_for => '1 h')});
is(sql('SELECT count(*) FROM jobq.jobs', 'elsewhere'), '0', 'no job of one database in another');
is(sqlstate($node, "SELECT jobq.complete($id, $lease)", 'elsewhere'), 'JQ020',
	'a lease is good where it was given');
is(sqlstate($node, "SELECT jobq.cancel($id)", 'elsewhere'), 'JQ020', 'and an id, too');
is(sqlstate($node, q{SELECT * FROM jobq.dequeue('log')}, 'elsewhere'), 'JQ002', 'as is a queue');
is(sqlstate($node, "SELECT jobq.complete($id, $lease)"), '00000', 'there it is still good');

# ---- a channel's name ----

my $name = q{"; DROP TABLE canary; --'};
sql(q{CREATE TABLE canary ()});
sql(qq{SELECT jobq.create_queue(\$q\$$name\$q\$, '{"notify": true}')});
my ($rc, $out) = $node->psql('postgres',
	q{LISTEN "jobq.""; DROP TABLE canary; --'"} . ";\nSELECT jobq.enqueue(\$q\$$name\$q\$) > 0;\nSELECT 1");
like($out, qr/notification "jobq\."; DROP TABLE canary; --'" received/, 'a channel of a hostile name');
is(sql(q{SELECT count(*) FROM canary}), '0', 'and the canary lives');

$node->stop;
done_testing();
