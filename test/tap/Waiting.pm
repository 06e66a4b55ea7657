# Waiting.pm: what the tests of waiting share: sessions that wait, one psql
# each, and what the server says of them. Asserts nothing itself.
package Waiting;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(start_wait_node start_waiting finish_waiting await_waiting wait_pid_of
  wakeups);

my $dir = PostgreSQL::Test::Utils::tempdir;
my $sessions = 0;

# A server whose keeper runs, with queues that $sql makes.
sub start_wait_node
{
	my ($name, $connections, $sql) = @_;
	my $node = start_node($name, "max_connections = $connections");

	$node->safe_psql('postgres', qq{
CREATE EXTENSION pg_jobq;
CREATE FUNCTION public.wakeups() RETURNS bigint LANGUAGE c
	AS 'pg_jobq', 'jobq_test_wakeups';
$sql});
	await_keeper($node) or die 'there is no keeper';
	return $node;
}

# A session that runs one statement; $options are lines before it.
sub start_waiting
{
	my ($node, $sql, $options) = @_;
	my $session = { out => '', err => '' };
	my $file = "$dir/" . ++$sessions;

	append_to_file($file, ($options // '') . "$sql;\n");
	$session->{run} = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate',
			'-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-f', $file
		],
		'<', \undef, '>', \$session->{out}, '2>', \$session->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $session;
}

# What it said, or the SQLSTATE it failed with.
sub finish_waiting
{
	my ($session) = @_;

	$session->{run}->finish;
	chomp(my $out = $session->{out});
	return $session->{err} =~ /(?:ERROR|FATAL):\s+(\w{5})/ ? $1 : $out;
}

# Sessions that sleep in one of our calls; on 15 and 16 the wait event has no
# name of its own.
my $WAITING = q{FROM pg_stat_activity WHERE wait_event_type = 'Extension'
	AND wait_event IN ('Extension', 'JobqDequeue', 'JobqWaitForJobs',
		'JobqWaitUntilIdle', 'JobqWaitForJob')
	AND backend_type = 'client backend' AND state = 'active'};

# Wait until so many sessions wait (whose query is like the pattern).
sub await_waiting
{
	my ($node, $n, $like) = @_;

	return $node->poll_query_until('postgres',
		"SELECT count(*) = $n $WAITING AND query LIKE '" . ($like // '%') . "'")
	  || die "no $n sessions wait";
}

sub wait_pid_of
{
	my ($node, $like) = @_;

	return $node->safe_psql('postgres',
		"SELECT pid $WAITING AND query LIKE '$like'");
}

# How often anybody was woken, ever; test builds only.
sub wakeups
{
	my ($node) = @_;

	return $node->safe_psql('postgres', 'SELECT public.wakeups()');
}

1;
