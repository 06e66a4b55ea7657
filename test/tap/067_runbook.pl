# The statements of SECURITY.md, "What do I do after an incident?", run as they
# stand there by who is meant to: a member of jobq_admin who owns the database
# and may administer roles. And they do what they are for.
use strict;
use warnings;

use FindBin;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($runbook) = slurp_file("$FindBin::Bin/../../SECURITY.md") =~
  /^## What do I do after an incident\?\n(.*?)^## /ms;
my @steps = $runbook =~ /^\*\*(\w[\w ]*?)\.?\*\*.*?```sql\n(.*?)```/msg;
is(scalar @steps, 10, 'five steps with statements');
my %step = @steps;

my $node = start_node('runbook', "jobq.secret_file = 'secret'\n");
append_to_file($node->data_dir . '/secret', '1:' . '0123456789abcdef' x 4 . "\n");
chmod 0600, $node->data_dir . '/secret';
$node->safe_psql('postgres', q{
CREATE EXTENSION pg_jobq;
CREATE ROLE app LOGIN;
CREATE ROLE officer LOGIN CREATEROLE IN ROLE jobq_admin, pg_signal_backend;
ALTER DATABASE postgres OWNER TO officer});
await_keeper($node) or die 'no keeper';
$node->safe_psql('postgres', q{
SELECT jobq.create_queue('mail', '{"audit": true}');
SELECT jobq.create_key('mail seal', 'seal');
SELECT jobq.alter_queue('mail', '{"seal": "mail seal"}');
SELECT jobq.grant_queue('mail', 'app', '{enqueue,dequeue}');
SELECT jobq.create_access_key('mail app', 'mail', '{enqueue}')},
	extra_params => [ '-U', 'officer' ]);
$node->safe_psql('postgres', q{
SELECT jobq.enqueue('mail', '{"to": "ann"}'), jobq.enqueue('mail', '{"to": "bob"}');
SELECT jobq.complete(id, lease) FROM jobq.dequeue('mail', worker => 'w1')},
	extra_params => [ '-U', 'app' ]);
my $session = $node->background_psql('postgres', extra_params => [ '-U', 'app' ]);
$session->query_safe('SELECT 1');

# Each statement of a step, as an officer; what they give together.
sub follow
{
	my ($name) = @_;
	my $said = '';

	foreach my $statement (split /;\n/, $step{$name})
	{
		my ($rc, $out, $err) =
		  $node->psql('postgres', $statement, extra_params => [ '-U', 'officer' ]);
		is($rc, 0, "$name: $statement") or diag($err);
		$said .= "$out\n";
	}
	return $said;
}

sub refused
{
	my ($sql) = @_;

	return ($node->psql('postgres', $sql, extra_params => [ '-U', 'app' ]))[0] != 0;
}

follow('Contain');
ok(refused(q{SELECT 1}), 'the role is locked out');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'}),
	'0', 'its sessions have ended');
is($node->safe_psql('postgres', q{SELECT paused FROM jobq.queues WHERE queue = 'mail'}),
	't', 'the queue is paused');
follow('Keep the evidence');
is($node->safe_psql('postgres', q{SELECT count(*) > 0 FROM public.incident_audit}), 't',
	'the audit is kept');
my $found = follow('Assess');
like($found, qr/\bapp\b.*dequeue/, 'who has done what');
like($found, qr/\bw1\b/, 'which worker had which job');
follow('Rotate');
follow('Review');
is($node->safe_psql('postgres', q{SELECT jobq.enqueue('mail', '{"to": "cyd"}') > 0},
		extra_params => [ '-U', 'app' ]), 't', 'the role can enqueue again');
ok(refused(q{SELECT * FROM jobq.dequeue('mail')}), 'and nothing else');

eval { $session->quit };
$node->stop;
done_testing();
