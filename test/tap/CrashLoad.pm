# CrashLoad.pm: sessions of random steps for tests that crash the server, and
# what they were told: leases and ids handed out twice, errors that nobody
# should see. Needs the queues fast and slow (with the dead-letter queue
# graves) and the auditor's tables. Crashes nothing itself.
package CrashLoad;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_session read_session step_names leave_prepared %count
  @strange);

our (%count, @strange);			# steps and SQLSTATEs; what must not be
my (%leases, %ids);
my $STEPS = 700;				# more than a session gets done in a round
my $dir = PostgreSQL::Test::Utils::tempdir;

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
