# No space left, no slot left, no connection and no worker slot left: errors
# say what is missing, nothing crashes, no job is lost, and all goes on when
# there is room again. The full disk is JOBQ_SMALL_DISK, an empty file system
# of some 100 MB that the server may write; without it that part is skipped.
use strict;
use warnings;

use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Soak;
use Test::More;
use Time::HiRes qw(time usleep);

my $disk = $ENV{JOBQ_SMALL_DISK};
my $conf = "jobq.epoch_rows = 2000\nmin_wal_size = 32MB\nshared_buffers = 16MB\n";

sub keeper_pid
{
	my ($node) = @_;

	return sql($node, q{SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'pg_jobq keeper'});
}

# Everything there is, completed; true when the ledger's jobs were all there.
sub nothing_lost
{
	my ($node, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(drain($node), "$name: all jobs can be completed");
	is( sql($node, 'SELECT count(*) FROM (SELECT id FROM soak.ledger
			EXCEPT SELECT id FROM soak.effect) l'),
		'0', "$name: no job is lost");
	is( sql($node, 'SELECT count(*) - count(DISTINCT id) FROM soak.effect'),
		'0', "$name: none was done twice");
	is(conflicts($node), 0, "$name: no job was about to end twice");
	unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal/,
		"$name: no crash");
	return;
}

# Enqueue until it fails; the SQLSTATE.
sub enqueue_until_failure
{
	my ($node, $calls) = @_;
	my $state = '00000';

	for (my $i = 0; $i < $calls && $state eq '00000'; $i++)
	{
		$state = sqlstate($node, qq{INSERT INTO soak.ledger SELECT
			unnest(jobq.enqueue_many('mix', array_fill('$PAYLOAD'::jsonb, ARRAY[1000])))});
	}
	return $state;
}

# ---- the disk ----

# A file that takes the rest of the disk but so much; its removal is the
# administrator's remedy.
sub fill_disk
{
	my ($leave_mb) = @_;
	my ($free) = (split(' ', (split(/\n/, `df -Pk $disk`))[1]))[3];
	my $mb = int($free / 1024) - $leave_mb;

	system_or_bail('dd', 'if=/dev/zero', "of=$disk/filler", 'bs=1M',
		"count=$mb", 'status=none');
	return;
}

# What is on the small disk: one database by its tablespace, or all of them. The
# log of changes is elsewhere.
sub disk_full
{
	my ($name, $place) = @_;
	my $node = soak_node($name, $conf);

	$place->($node);
	sql($node, 'CREATE EXTENSION pg_jobq');
	mix_queue($node, '1 day');
	my $keeper = keeper_pid($node);
	fill_disk(setting('LEAVE_MB', 24, 8));

	my $state = enqueue_until_failure($node, 300);
	is($state, '53100', "$name: enqueuing says that the disk is full");
	# retries, delays and claims too, for as long as it lasts
	my $end = time() + setting('FULL_SECONDS', 20, 3);
	my %states;
	while (time() < $end)
	{
		$states{ sqlstate($node, $_) }++ foreach (
			"INSERT INTO soak.ledger SELECT jobq.enqueue('mix', '$PAYLOAD')",
			"INSERT INTO soak.ledger SELECT jobq.enqueue('mix', delay => '0.1 s')",
			"INSERT INTO soak.effect SELECT id FROM (SELECT id, jobq.complete(id, lease)
				FROM jobq.dequeue('mix', 5)) d",
			"SELECT jobq.fail(id, lease, 'oops') FROM jobq.dequeue('mix', 5)",
			"SELECT count(*) FROM jobq.health()");
	}
	is(join(' ', grep { !/^(?:00000|53100|JQ009)$/ } sort keys %states),
		'', "$name: nobody is told anything else");
	ok(-d $node->data_dir && sql($node, 'SELECT 1') eq '1', "$name: the server lives");

	unlink("$disk/filler") or die "filler: $!";
	ok(await_keeper($node), "$name: the keeper is there when there is room");
	is(sqlstate($node, "INSERT INTO soak.ledger SELECT jobq.enqueue('mix')"),
		'00000', "$name: enqueuing works again");
	nothing_lost($node, $name);
	figure(
		"disk full, $name",
		(map { "$_: $states{$_}" } sort keys %states),
		'keeper ' . (keeper_pid($node) eq $keeper ? 'the same' : 'restarted'));
	$node->stop;
	return;
}

SKIP:
{
	skip 'JOBQ_SMALL_DISK is not set: no file system to fill (root can mount one)', 1
	  unless defined $disk;

	mkdir("$disk/space") or die "$disk/space: $!";
	disk_full('tablespace', sub {
		my ($node) = @_;

		sql($node, "CREATE TABLESPACE small LOCATION '$disk/space'");
		$node->safe_psql('template1', 'ALTER DATABASE postgres SET TABLESPACE small');
	});
	system_or_bail('rm', '-rf', "$disk/space");
	disk_full('base', sub {
		my ($node) = @_;
		my $base = $node->data_dir . '/base';

		$node->stop;
		system_or_bail('cp', '-R', $base, "$disk/base");
		system_or_bail('rm', '-rf', $base);
		symlink("$disk/base", $base) or die "symlink: $!";
		$node->start;
	});
	system_or_bail('rm', '-rf', "$disk/base");
}

# ---- slots ----

# More jobs running than there are slots is impossible: consumers get what
# there is, then nothing, and no error but "not ready".
my $node = soak_node('slots', "${conf}jobq.max_live_jobs = 100\n");
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 day');
is(enqueue_until_failure($node, setting('WAITING_JOBS', 20_000, 2000) / 1000),
	'00000', 'slots: enqueuing needs none');
my %states;
sql($node, 'CREATE TABLE soak.leased (id bigint, lease bigint)');
# Calls in vain wait for some seconds each.
my ($leased, $in_vain) = (0, 0);
while ($in_vain < 2)
{
	$states{ sqlstate($node, q{INSERT INTO soak.leased
		SELECT id, lease FROM jobq.dequeue('mix', 10, lease_for => '1 h')}) }++;
	my $now = sql($node, 'SELECT count(*) FROM soak.leased');
	$in_vain++ if $now == $leased;
	$leased = $now;
}
figure('out of slots', "$leased of 100 slots leased",
	map { "$_: $states{$_}" } sort keys %states);
cmp_ok($leased, '>=', 50, 'slots: jobs are handed out');
cmp_ok($leased, '<=', 100, 'slots: no more than there are');
is(join(' ', grep { !/^(?:00000|JQ009)$/ } sort keys %states),
	'', 'slots: nobody is told anything but "not ready"');
is(enqueue_until_failure($node, 1), '00000', 'slots: enqueuing still works');
is( sql($node, q{SELECT count(*) FROM jobq.health()
		WHERE item = 'live_jobs' AND status <> 'ok' AND hint LIKE '%jobq.max_live_jobs%'}),
	'1', 'slots: health() names the setting');
sql($node, q{INSERT INTO soak.effect SELECT unnest(jobq.complete_many(array_agg(id), lease))
	FROM soak.leased GROUP BY lease});
nothing_lost($node, 'slots');
$node->stop;

# ---- connections and worker slots ----

$node = soak_node('connections', "${conf}max_connections = 10
superuser_reserved_connections = 2\n");
sql($node, 'CREATE EXTENSION pg_jobq');
mix_queue($node, '1 day');
sql($node, 'CREATE ROLE worker LOGIN');
sql($node, 'GRANT USAGE ON SCHEMA soak TO worker');
my @sessions;
my $refused = '';
for (1 .. 12)
{
	my ($rc, $out, $err) = $node->psql('postgres', 'SELECT 1',
		extra_params => [ '-U', 'worker' ]);
	$refused = $err;
	last if $rc != 0;
	my ($in, $buffer) = ("SELECT 1;\n", '');
	push @sessions,
	  IPC::Run::start([ 'psql', '-XAtq', '-U', 'worker', '-d',
			$node->connstr('postgres') ], '<', \$in, '>', \$buffer);
	$sessions[-1]->pump until $buffer =~ /1/;
}
like($refused, qr/(?:remaining connection slots|too many clients)/,
	'connections: refused when all are taken');
my $pid = keeper_pid($node);
sql($node, "SELECT pg_terminate_backend($pid)");
ok( await(sub { my $now = keeper_pid($node); return $now ne '' && $now ne $pid }),
	'connections: a keeper needs none of them');
is(enqueue_until_failure($node, 1), '00000', 'connections: the queue works');
$_->kill_kill foreach @sessions;
nothing_lost($node, 'connections');
$node->stop;

# Worker slots for the launchers, ours and that of logical replication.
$node = soak_node('workers', "${conf}max_worker_processes = 2\n");
sql($node, 'CREATE EXTENSION pg_jobq');
sql($node, 'CREATE SCHEMA soak; CREATE TABLE soak.ledger (id bigint)');
is( sqlstate($node, q{INSERT INTO soak.ledger SELECT jobq.enqueue('default')}),
	'00000', 'workers: enqueuing goes on without a keeper');
my ($rc, $out, $err) =
  $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM jobq.dequeue('default')");
like($err, qr/JQ009.*max_worker_processes/s,
	'workers: dequeuing says which setting helps');
ok( await(
		sub {
			return sql($node, q{SELECT count(*) FROM jobq.health() WHERE item = 'keeper'
			AND status = 'error' AND hint LIKE '%max_worker_processes%'}) eq '1';
		},
		30),
	'workers: so does health()');
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
$node->restart;
ok(await_keeper($node), 'workers: with more of them there is a keeper');
is( sql($node, q{SELECT (SELECT id FROM jobq.dequeue('default')) = id FROM soak.ledger}),
	't', 'workers: the job is there');
$node->stop;
done_testing();
