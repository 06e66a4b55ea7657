# The server is killed again and again under load; after each restart the
# auditor proves that every committed job is waiting, running or final, that
# none ended twice, and that every acknowledged completion is there.
use strict;
use warnings;

use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $ROUNDS = $ENV{JOBQ_ROUNDS} || 20;
my $SESSIONS = 8;
my $STEPS = 700;				# more than a session gets done in a round

my $seed = $ENV{JOBQ_SEED} || time() ^ $$;
srand($seed);
note("JOBQ_SEED=$seed");

my $node = start_node('crash', 'max_prepared_transactions = 50');
$node->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('fast', '{"backoff": {"base": "0 s"}, "max_attempts": 5,
	"lease_for": "2 s"}');
SELECT jobq.create_queue('slow', '{"backoff": {"base": "1 s", "cap": "1 s"},
	"max_attempts": 3, "lease_for": "1 s", "dead_letter": "graves"}');
});
add_auditor($node);

# ---- what a session does ----

sub queue
{
	return (qw(fast fast slow))[ int(rand(3)) ];
}

my $INTO_LEDGER = 'INSERT INTO audit.ledger SELECT';
# What fails must not say again what the last one has said.
my $NOTHING_YET = "\\unset id\n\\unset ids\n";

# Nothing to dequeue: no ids and lease 0, which settles nothing.
sub dequeue
{
	my ($max, $options) = @_;
	my $queue = queue();

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
		my $delay = rand(3);
		return "$NOTHING_YET$INTO_LEDGER jobq.enqueue('$queue', delay => '$delay s') RETURNING id \\gset\n"
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
		my $queue = queue();
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
	(qw(enqueue enqueue_many work work_in_one_transaction)) x 4,
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

# ---- rounds ----

# What a client may be told; anything else is a bug.
my %expected = map { $_ => 1 }
  qw(JQ001 JQ008 JQ009 JQ014 JQ015 JQ020 25P02 57P01 57P02 57P03);
my (%leases, %ids, %count, @strange);
my $dir = PostgreSQL::Test::Utils::tempdir;

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

sub start_session
{
	my ($name) = @_;
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

sub crash
{
	my ($how) = @_;

	if ($how eq 'backend')
	{
		my $pid = $node->safe_psql('postgres',
			q{SELECT pid FROM pg_stat_activity WHERE application_name = 'load'
			  OR backend_type = 'pg_jobq keeper' ORDER BY random() LIMIT 1});
		kill_backend($node, $pid) if $pid ne '';
	}
	elsif ($how eq 'postmaster')
	{
		kill_server($node);
		$node->start;
	}
	else
	{
		$node->stop('immediate');
		$node->start;
	}
	return;
}

my @ways = qw(postmaster backend immediate);
foreach my $round (1 .. $ROUNDS)
{
	my $how = $ways[ $round % 3 ];
	my $start = time();
	my @sessions = map { start_session("r${round}_$_") } 1 .. $SESSIONS;
	my @done;

	# At a random moment, not when something is true.
	usleep(300_000 + rand(1_200_000));
	crash($how);
	$_->{run}->finish for @sessions;
	push @done, read_session($_->{file}) for @sessions;
	ok(await_keeper($node), "round $round ($how): the queue is back");
	$node->safe_psql('postgres',
			"INSERT INTO audit.acknowledged SELECT unnest('{"
		  . join(',', @done)
		  . "}'::bigint[])")
	  if @done;
	audit_ok($node, "round $round");
	note(sprintf("round %d took %.1f s", $round, time() - $start));

	# For a minute after a crash claims are committed by the keeper; a clean
	# restart ends that.
	$node->restart if $round % 2 == 0;
	await_keeper($node);
}

# Transactions that a crash found prepared.
foreach my $name (
	split(/\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts')))
{
	$node->safe_psql('postgres', "COMMIT PREPARED '$name'");
	note("$name was left prepared");
}

# Whatever is left can be delivered and completed.
ok( await(
		sub {
			$node->safe_psql(
				'postgres', qq{
SELECT count(jobq.complete(id, lease)) FROM jobq.dequeue('$_', 1000);})
			  for qw(fast slow graves);
			return $node->safe_psql('postgres', 'SELECT count(*) FROM jobq.jobs')
			  eq '0';
		}),
	'the queues can be emptied')
  or diag($node->safe_psql('postgres',
		'SELECT id, queue, state, run_at FROM jobq.jobs LIMIT 20'));
audit_ok($node, 'all done');
is( $node->safe_psql('postgres',
		'SELECT count(*) FROM audit.ledger l WHERE NOT EXISTS
		(SELECT FROM jobq.history h WHERE h.id = l.id)'),
	'0', 'every job that was ever committed is final');

is(join("\n", @strange), '', 'nobody was told anything strange');
is(conflicts_logged($node), 0, 'the unique index has saved nobody');
my $grand = $node->safe_psql('postgres',
	q{SELECT (SELECT count(*) FROM audit.ledger) || ' enqueued, ' ||
		(SELECT count(*) FROM audit.acknowledged) || ' known to be completed, ' ||
		(SELECT count(*) FROM jobq.history WHERE state = 'completed') || ' completed'});
note($grand);
note("$_: $count{$_}") for sort keys %count;
cmp_ok($count{$_} // 0, '>', 0, "$_ has happened") for sort keys %steps;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:/, 'no panic');

$node->stop;
done_testing();
