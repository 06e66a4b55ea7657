# CrashLoad.pm: queues, sessions of random steps for tests that crash the server,
# and what they were told: leases and ids handed out twice, errors that nobody
# should see; and whether limits, groups and schedules have kept their promises.
# Needs the auditor.
package CrashLoad;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(make_crash_queues start_sessions end_sessions crash_server step_names
  leave_prepared promises_ok empty_crash_queues %count @strange);

our (%count, @strange);			# steps and SQLSTATEs; what must not be
my (%leases, %ids);
my $STEPS = 700;				# more than a session gets done in a round
my $dir = PostgreSQL::Test::Utils::tempdir;

# ---- queues ----

my $ACTIVE = 3;
my @QUEUES = qw(fast slow graves grouped active keyed ticked);

sub make_crash_queues
{
	my ($node) = @_;

	$node->safe_psql('postgres', qq{
SELECT jobq.create_queue('fast', '{"backoff": {"base": "0 s"}, "max_attempts": 5,
	"lease_for": "2 s"}');
SELECT jobq.create_queue('slow', '{"backoff": {"base": "1 s", "cap": "1 s"},
	"max_attempts": 3, "lease_for": "1 s", "dead_letter": "graves"}');
SELECT jobq.create_queue(q, o || '{"backoff": {"base": "0 s"}, "max_attempts": 5, "lease_for": "1 s"}')
FROM (VALUES ('grouped', '{"group_limit": 1}'::jsonb), ('active', '{"max_active": $ACTIVE}'),
	('keyed', '{}'), ('ticked', '{}')) v (q, o)});
	return;
}

# What must not be, also while jobs run. The keeper may be moving a job from one
# view to another one.
sub promises_ok
{
	my ($node, $name) = @_;
	my $found;

	await(sub { ($found = broken_promises($node)) eq '' }, 5);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($found, '', "limits, groups, ticks: $name");
}

sub broken_promises
{
	my ($node) = @_;

	return $node->safe_psql('postgres', qq{
SELECT format('%s jobs of a group at a time', n) FROM audit.most_at_once('grouped', true) n WHERE n > 1;
SELECT format('%s jobs of group %s run', count(*), group_key) FROM jobq.jobs
	WHERE queue = 'grouped' AND state = 'running' GROUP BY group_key HAVING count(*) > 1;
SELECT format('%s jobs active at a time', n) FROM audit.most_at_once('active', false) n WHERE n > $ACTIVE;
SELECT format('%s jobs are active', count(*)) FROM jobq.jobs
	WHERE queue = 'active' AND state = 'running' HAVING count(*) > $ACTIVE;
SELECT format('%s: of %s ticks %s have one of %s jobs', name, max(tick) - min(tick) + 1, count(DISTINCT tick),
		count(*))
	FROM (SELECT headers->'schedule'->>'name' AS name,
			extract(epoch FROM (headers->'schedule'->>'tick')::timestamptz) AS tick
		FROM (TABLE jobq.jobs UNION ALL TABLE jobq.history) j
		WHERE queue = 'ticked' AND retry_of IS NULL) t GROUP BY name
	HAVING count(*) <> count(DISTINCT tick) OR count(*) <> max(tick) - min(tick) + 1});
}

# Whatever is left can be delivered and completed.
sub empty_crash_queues
{
	my ($node, $seconds) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('postgres', q{
SELECT jobq.alter_queue('grouped', '{"group_limit": null}'), jobq.alter_queue('active', '{"max_active": null}')});
	return ok( await(
			sub {
				$node->safe_psql('postgres',
					"SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('$_', 1000)")
				  for @QUEUES;
				return $node->safe_psql('postgres', 'SELECT count(*) FROM jobq.jobs') eq '0';
			},
			$seconds),
		'the queues can be emptied')
	  || diag($node->safe_psql('postgres', 'SELECT id, queue, state, run_at FROM jobq.jobs LIMIT 20'));
}

# ---- what a session does ----

# Where plain jobs go, and where jobs are taken from.
sub queue
{
	return (qw(fast fast slow))[ int(rand(3)) ];
}

sub any_queue
{
	return rand() < 0.6 ? queue() : (qw(grouped active keyed ticked))[ int(rand(4)) ];
}

my $INTO_LEDGER = 'INSERT INTO audit.ledger SELECT';
# What fails must not say again what the last one has said.
my $NOTHING_YET = "\\unset id\n\\unset ids\n";

# Nothing to dequeue: no ids and lease 0, which settles nothing.
sub dequeue
{
	my ($max, $options) = @_;
	my $queue = any_queue();

	return qq{\\set ids '{}'
\\set lease 0
\\set id 0
SELECT coalesce(max(lease), 0) AS lease, coalesce(array_agg(id), '{}')::text AS ids,
	coalesce(min(id), 0) AS id FROM jobq.dequeue('$queue', $max) \\gset
\\echo lease :lease :ids
};
}

my $COMPLETE =
  q{SELECT jobq.complete_many(:'ids', :lease, 'skip')::text AS done \gset
};
my $ACKNOWLEDGED = "\\echo completed :done\n";
my $FORGET = "\\set done '{}'\n";

# SQL for psql of one step, by name.
my %steps = (
	enqueue => sub {
		my $queue = queue();
		return "$NOTHING_YET$INTO_LEDGER jobq.enqueue('$queue', '{\"a\": 1}') RETURNING id \\gset\n"
		  . "\\echo enqueued {:id}\n";
	},
	enqueue_many => sub {
		my $queue = queue();
		return qq{${NOTHING_YET}WITH many AS ($INTO_LEDGER unnest(jobq.enqueue_many('$queue',
	array_fill('{}'::jsonb, ARRAY[20]))) RETURNING id)
SELECT array_agg(id)::text AS ids FROM many \\gset
\\echo enqueued :ids
};
	},
	enqueue_later => sub {
		my $queue = queue();
		my $delay = sprintf('%.3f', rand(3));
		return "$NOTHING_YET$INTO_LEDGER jobq.enqueue('$queue', delay => '$delay s') RETURNING id \\gset\n"
		  . "\\echo enqueued {:id}\n";
	},
	enqueue_limited => sub {
		my $arguments = (
			q{'grouped', group_key => 'g' || floor(random() * 3)::int},
			q{'active'},
			q{'keyed', unique_key => 'k' || floor(random() * 5)::int, on_conflict => 'error'})[ int(rand(3)) ];
		return "$NOTHING_YET$INTO_LEDGER jobq.enqueue($arguments) RETURNING id \\gset\n"
		  . "\\echo enqueued {:id}\n";
	},
	enqueue_rolled_back => sub {
		my $queue = queue();
		return
		  "BEGIN;\n$INTO_LEDGER jobq.enqueue('$queue') FROM generate_series(1, 3);\nROLLBACK;\n";
	},
	enqueue_savepoint => sub {
		my $queue = queue();
		return qq{BEGIN;
SAVEPOINT a;
$INTO_LEDGER jobq.enqueue('$queue');
ROLLBACK TO a;
$INTO_LEDGER jobq.enqueue('$queue', delay => '0.1 s');
SAVEPOINT b;
$INTO_LEDGER jobq.enqueue('$queue');
RELEASE b;
COMMIT;
};
	},
	work => sub {
		return $FORGET . dequeue(5) . $COMPLETE . $ACKNOWLEDGED;
	},
	work_one_by_one => sub {
		return dequeue(1)
		  . qq{SELECT jobq.complete(:id, :lease) FROM jobq.job(:id) \\g (tuples_only=on)
};
	},
	work_in_one_transaction => sub {
		return
			$FORGET
		  . "\\set ON_ERROR_ROLLBACK off\nBEGIN;\n"
		  . dequeue(2)
		  . "INSERT INTO audit.effect SELECT unnest(:'ids'::bigint[]);\n"
		  . "SELECT jobq.complete_many(:'ids', :lease)::text AS done \\gset\n"
		  . "COMMIT;\n\\if :ERROR\n\\else\n$ACKNOWLEDGED\\endif\n";
	},
	work_on_own => sub {
		my $queue = queue();
		return
			"BEGIN;\n$INTO_LEDGER jobq.enqueue('$queue', priority => -100) FROM generate_series(1, 2);\n"
		  . dequeue(1)
		  . $COMPLETE
		  . "COMMIT;\n";
	},
	work_turns => sub {
		my $queue = any_queue();
		my $turn = qq{SELECT coalesce(max(lease), 0) AS lease,
	coalesce(array_agg(id), '{}')::text AS ids
FROM jobq.complete_and_dequeue('$queue', :'ids', nullif(:lease, 0), 3) \\gset
\\if :ERROR
\\else
\\echo lease :lease :ids
\\endif
};
		return "\\set ids '{}'\n\\set lease 0\n" . $turn x 3 . $COMPLETE;
	},
	complete_twice => sub {
		return $FORGET
		  . dequeue(2)
		  . "BEGIN;\n$COMPLETE ROLLBACK;\n"
		  . $COMPLETE
		  . $ACKNOWLEDGED
		  . $COMPLETE;
	},
	fail => sub {
		return dequeue(1) . "SELECT jobq.fail(:id, :lease, 'oops');\n";
	},
	fail_for_good => sub {
		return dequeue(1)
		  . "SELECT jobq.fail(:id, :lease, 'no', retry => false);\n";
	},
	release => sub {
		my $delay = rand() < 0.5 ? '0' : '0.2 s';
		return dequeue(1) . "SELECT jobq.release(:id, :lease, '$delay');\n";
	},
	extend => sub {
		return
			$FORGET
		  . dequeue(2)
		  . "SELECT * FROM jobq.extend_many(:'ids', :lease, '3 s');\n"
		  . (rand() < 0.5 ? $COMPLETE . $ACKNOWLEDGED : '');
	},
	abandon => sub {
		return dequeue(1);
	},
	dequeue_rolled_back => sub {
		return "BEGIN;\n" . dequeue(2) . "ROLLBACK;\n";
	},
	dequeue_savepoint => sub {
		return
			"BEGIN;\nSAVEPOINT a;\n"
		  . dequeue(2)
		  . "ROLLBACK TO a;\n"
		  . dequeue(2)
		  . "SAVEPOINT b;\n"
		  . $COMPLETE
		  . "ROLLBACK TO b;\n"
		  . $COMPLETE
		  . "COMMIT;\n";
	},
	enqueue_prepared => sub {
		my $queue = queue();
		my $name = 'p' . int(rand(1_000_000_000));
		return qq{BEGIN;
$INTO_LEDGER jobq.enqueue('$queue') FROM generate_series(1, 2);
$INTO_LEDGER jobq.enqueue('$queue', delay => '0.2 s');
PREPARE TRANSACTION '$name';
COMMIT PREPARED '$name';
};
	},
	redrive => sub {
		return "SELECT jobq.redrive('graves', 3);\nSELECT jobq.redrive('fast', 3);\n";
	},
	retry => sub {
		return qq{\\set id 0
SELECT id FROM jobq.dead_jobs ORDER BY random() LIMIT 1 \\gset
SELECT jobq.retry(:id) WHERE :id > 0;
};
	},
	purge => sub {
		return "SELECT jobq.purge_queue('slow', '{retryable}');\n";
	},
	steer => sub {
		return qq{\\set id 0
SELECT id FROM jobq.jobs ORDER BY random() LIMIT 1 \\gset
SELECT jobq.cancel(:id) WHERE :id > 0;
};
	},
	reschedule => sub {
		return qq{\\set id 0
SELECT id FROM jobq.jobs WHERE state = 'scheduled' LIMIT 1 \\gset
SELECT jobq.reschedule(:id) WHERE :id > 0;
};
	},);
my @often = (
	(qw(enqueue enqueue_many enqueue_limited work work_in_one_transaction)) x 4,
	(grep { !/^(?:steer|reschedule|retry|redrive|purge)$/ } sort keys %steps) x 2,
	qw(steer reschedule retry redrive purge));

sub script
{
	my $sql = "\\set VERBOSITY verbose\n\\set ids '{}'\n";

	for (1 .. $STEPS)
	{
		my $name = $often[ int(rand(@often)) ];
		$sql .= "\\echo step $name\n" . $steps{$name}->();
	}
	return $sql;
}

# ---- what it is told ----

# What a client may be told; anything else is a bug.
my %expected = map { $_ => 1 }
  qw(JQ001 JQ008 JQ009 JQ014 JQ015 JQ020 25P02 57P01 57P02 57P03);

# The step that a line of a script belongs to.
sub step_of
{
	my ($file, $line) = @_;
	my $name = '';

	foreach my $text ((split(/\n/, slurp_file("$file.sql")))[ 0 .. $line - 1 ])
	{
		$name = $1 if $text =~ /^\\echo step (\w+)/;
	}
	return $name;
}

# Read what a session has written; returns the completions it knows of.
sub read_session
{
	my ($file) = @_;
	my ($out, $err) = ("$file.out", "$file.err");
	my @done;

	foreach my $line (split(/\n/, slurp_file($out)))
	{
		$count{$1}++ if $line =~ /^step (\w+)/;
		push @done, split(/,/, $1) if $line =~ /^completed \{([\d,]*)\}/;
		if ($line =~ /^lease (\d+)/ && $1 > 0)
		{
			push @strange, "lease $1 was handed out twice" if $leases{$1}++;
		}
		if ($line =~ /^enqueued \{([\d,]+)\}/)
		{
			foreach my $id (split(/,/, $1))
			{
				push @strange, "id $id was handed out twice" if $ids{$id}++;
			}
		}
	}
	foreach my $line (split(/\n/, slurp_file($err)))
	{
		if ($line =~ /(?:ERROR|FATAL|PANIC|WARNING):\s+(\w{5}): /)
		{
			$count{"SQLSTATE $1"}++;
			next if $expected{$1};
			push @strange,
			  $line =~ /:(\d+): / ? step_of($file, $1) . ": $line" : $line;
		}
	}
	return @done;
}

# So many, and a schedule that ticks until they are ended.
sub start_sessions
{
	my ($node, $round, $sessions) = @_;

	$node->safe_psql('postgres',
		"SELECT jobq.schedule('tick $round', '* * * * * *', 'ticked', catch_up => 'all')");
	return map { start_session($node, "r${round}_$_") } 1 .. $sessions;
}

sub start_session
{
	my ($node, $name) = @_;
	my $file = "$dir/$name";

	append_to_file("$file.sql", script());
	local $ENV{PGAPPNAME} = 'load';
	my $run = IPC::Run::start(
		[
			'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f',
			"$file.sql"
		],
		'<', \undef, '>', "$file.out", '2>', "$file.err");
	return { run => $run, file => $file };
}

# The auditor wants it quiet. No tick has been missed until now.
sub end_ticks
{
	my ($node) = @_;
	my $now = $node->safe_psql('postgres', 'SELECT clock_timestamp()');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until('postgres',
			"SELECT last_run >= '$now' AND misses = 0 FROM jobq.schedules"),
		'it ticks, and has missed nothing');
	$node->safe_psql('postgres', 'SELECT jobq.unschedule(name) FROM jobq.schedules');
	return;
}

# They end by themselves when the server goes; what they have completed for sure
# is noted for the auditor.
sub end_sessions
{
	my ($node, @sessions) = @_;

	$_->{run}->finish for @sessions;
	my @done = map { read_session($_->{file}) } @sessions;
	await_keeper($node) or die 'the server does not come back';
	end_ticks($node);
	$node->safe_psql('postgres',
		"INSERT INTO audit.acknowledged SELECT unnest('{" . join(',', @done) . "}'::bigint[])");
	return;
}

sub crash_server
{
	my ($node, $how) = @_;

	if ($how eq 'backend')
	{
		my $pid = $node->safe_psql('postgres',
			q{SELECT pid FROM pg_stat_activity WHERE application_name = 'load'
			  OR backend_type = 'pg_jobq keeper' ORDER BY random() LIMIT 1});
		kill_backend($node, $pid) if $pid ne '';
		return;
	}
	if ($how eq 'immediate') { $node->stop('immediate') }
	else { kill_server($node) }
	$node->start;
	return;
}

# Some prepared transactions stay open from now on, for the caller to end.
sub leave_prepared
{
	$steps{leave_prepared} = sub {
		my $name = 'left' . int(rand(1_000_000_000));
		return qq{BEGIN;
$INTO_LEDGER jobq.enqueue('fast') FROM generate_series(1, 3);
$INTO_LEDGER jobq.enqueue('slow', delay => '0.5 s');
PREPARE TRANSACTION '$name';
};
	};
	push @often, 'leave_prepared';
	$expected{53400} = 1;		# too many of them
	return;
}

sub step_names
{
	return sort keys %steps;
}

1;
