# Fuzz.pm: calls every function, procedure and view of the schema, as found in
# the catalog, with values that programs pass by mistake and attackers on
# purpose, as superuser, as a role with all privileges on one queue and as a
# stranger to it. Judges SQLSTATEs; the log and the auditor are for the caller.
package Fuzz;

use strict;
use warnings;

use Exporter qw(import);
use List::Util qw(shuffle);
use JobqTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(fuzz_node fuzz fuzz_leaves_sound);

# Stands in every payload and text that must not be found in a log.
my $MARK = 'jobq-mark-7c1e';

my @ROLES = qw(postgres fuzz_app fuzz_stranger);
my $BATCH = 60;

# What a call may end with: pg_jobq's own states, and few of the server's.
my %EXPECTED = map { $_ => 1 } qw(
  JQ001 JQ002 JQ003 JQ004 JQ005 JQ006 JQ007 JQ008 JQ009 JQ010 JQ011 JQ012 JQ013
  JQ014 JQ015 JQ016 JQ017 JQ018 JQ019 JQ020
  42501 25001 25006 2BP01 40001 57014);
# What only the install script may do.
my %EXPECTED_OF = (_open_first_epoch => '55000');
# What only triggers may do.
my $NO_TRIGGER = '39P01';
# What nobody can call: its argument is of type internal.
my $UNCALLED = '_role_recv';
# At the end of a block, or in one that has failed.
my %EXPECTED_IN_BLOCK = map { $_ => 1 } qw(0A000 25P02 42704 53400);

my $LONG = 1024 * 1024;
my $texts = [
	q{''}, q{'fuzz'}, q{'fuzz 2'}, q{'default'}, q{'x'}, q{' '}, q{'FUZZ'}, q{'null'},
	q{'error'}, q{'skip'}, q{'keep'}, q{'replace'}, q{'debounce'}, q{'waiting'}, q{'all'},
	q{repeat('x', 63)}, q{repeat('x', 64)}, q{repeat('x', 255)}, q{repeat('x', 256)},
	q{repeat('x', 5001)}, qq{repeat('x', $LONG)}, qq{repeat(U&'\\00e9', $LONG)},
	q{repeat(U&'\00e9', 32)}, q{E'\x01'}, q{E'two\nlines'}, q{E'tab\t'}, q{E'\x7f'},
	q{U&'\0085'}, q{U&'\FEFF'}, q{U&'\202Edlrow'}, q{U&'\+01F600'}, q{U&'e\0301'},
	q{'''; DROP TABLE public.canary; --'}, q{'"; DROP TABLE public.canary; --'},
	q{'$$ $1 %s %n %1$I'}, q{E'\\\\'}, q{'{fuzz}'}, q{'[1]'}, q{'-1'}, q{'1e400'},
	q{'infinity'}, q{'pg_catalog.pg_sleep'}, q{'public'}, q{'postgres'}, q{'fuzz_other'},
	q{'* * * * *'}, q{'@daily'}, q{'UTC'}, q{'../../etc/passwd'},
	"'$MARK'", "repeat('$MARK ', 100000)",
	q{(SELECT t FROM public.toasted WHERE id = 1)},
	q{(SELECT t FROM public.toasted WHERE id = 2)}];
my $jsons = [
	map({ "'$_'" } 'null', '0', '-0', '-1', '1.5', '1e131071', '9223372036854775808', 'true',
		'""', '[]', '{}', '[[]]', '[{}]', '[null]', '{"":""}', '{"a":null}',
		'"1 s"', '"-1 s"', '"infinity"', '"2999-01-01T00:00:00Z"', '"\\u0001"',
		'"\\ud83d\\ude00"', '[1,"fuzz",{}]', '{"limit":1,"period":"1 s"}',
		'{"limit":-1,"period":0}', '{"limit":1e300,"period":"178000000 years"}',
		'{"base":"0 s"}', '{"dead_letter":{"queue":"fuzz","id":1}}',
		'{"failures":1,"window":"1 ms","open":"1 ms"}',
		'{"$ref":"#"}', '{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}',
		'{"type":"object","additionalProperties":false}', '{"pattern":"(a*)*b"}'),
	"'\"$MARK\"'", "'{\"$MARK\":\"$MARK\"}'",
	qq{(repeat('[', 500) || '"$MARK"' || repeat(']', 500))::jsonb},
	q{(repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb},
	q{(repeat('[', 4000) || repeat(']', 4000))::jsonb},
	"jsonb_build_object('$MARK', repeat('$MARK ', 100000))",
	"to_jsonb(repeat('$MARK', 300000))",
	'jsonb_build_object(repeat(\'k\', 100000), 1)',
	'(SELECT jsonb_object_agg(i, i) FROM generate_series(1, 10000) i)',
	'(SELECT jsonb_agg(i) FROM generate_series(1, 10000) i)',
	'(SELECT j FROM public.toasted WHERE id = 1)'];
my $times = [
	map { "timestamptz '$_'" } 'infinity', '-infinity', '294276-12-31 23:59:59.999999+00',
	'4714-11-24 00:00:00+00 BC', '1970-01-01 00:00:00+00', '2000-01-01 00:00:00+00',
	'2999-12-31 23:59:60+15:59', 'now', 'tomorrow'];
my $spans = [
	map { "interval '$_'" } '0', '1 microsecond', '-1 microsecond', '1 ms', '1 s', '1 day',
	'1 month', '-1 month', '1 month -30 days', '178000000 years', '-178000000 years',
	'2147483647 days', '-2147483648 days', '2562047788:00:54.775807',
	'-2562047788:00:54.775807', '178956970 years 7 months 2147483647 days 2562047788:00:54'];

# NULL is with each of them. Types that are not here fail the test.
my %VALUES = (
	text => $texts,
	jsonb => $jsons,
	'timestamp with time zone' => $times,
	interval => $spans,
	boolean => [qw(true false)],
	integer => [qw(0 1 -1 2 100 101 -101 1000001 2147483647 -2147483648)],
	bigint => [qw(0 1 -1 2 100 1000001 2147483648 9223372036854775807 -9223372036854775808)],
	'double precision' => [map { "float8 '$_'" } qw(0 -0 1 -1 NaN Infinity -Infinity 1e308 5e-324)],
	numeric => [map { "numeric '$_'" } qw(0 1 -1 NaN Infinity -Infinity 1e131071 1e-16383)],
	oid => [qw(0 1 10 4294967295)],
	bytea => [q{''}, q{'\x00'}, q{'\xff'}, qq{convert_to(repeat('x', $LONG), 'UTF8')}],
	uuid => [q{'00000000-0000-0000-0000-000000000000'}, 'gen_random_uuid()'],
	cstring => [q{''}, q{'postgres'}, q{'-'}, q{'no such role'}, q{'4294967295'}, q{E'\x01'}],
	'jobq.role' => [q{oid '0'}, q{oid '10'}, q{oid '4294967295'}, q{'postgres'}, q{'-'}],
	'text[]' => [
		q{'{}'}, q{ARRAY[NULL]}, q{ARRAY['fuzz', NULL]}, q{ARRAY['']}, q{'{{fuzz}}'},
		q{'{{fuzz},{x}}'}, q{'[0:1]={fuzz,fuzz}'}, q{'[-5:-4]={fuzz,x}'},
		q{'{{{{{{x}}}}}}'}, q{array_fill('fuzz'::text, ARRAY[1000])},
		qq{ARRAY[repeat('x', $LONG)]}, q{'{fuzz,fuzz}'}, q{'{read}'}, q{'{available}'},
		q{ARRAY['''; DROP TABLE public.canary']}],
	'bigint[]' => [
		q{'{}'}, q{'{NULL}'}, q{'{1,NULL}'}, q{'{{1}}'}, q{'{{1},{2}}'}, q{'[0:0]={1}'},
		q{'[-5:-4]={1,2}'}, q{'{0,-1,9223372036854775807,-9223372036854775808}'},
		q{array_fill(1::bigint, ARRAY[10000])},
		q{(SELECT array_agg(i) FROM generate_series(1, 10000) i)}],
	'jsonb[]' => [
		q{'{}'}, q{'{NULL}'}, q{'{1,NULL}'}, q{'{{1}}'}, q{'{{1},{2}}'}, q{'[0:1]={1,2}'},
		qq{ARRAY[to_jsonb('$MARK'::text)]},
		q{array_fill('{}'::jsonb, ARRAY[1000])}, q{array_fill('{}'::jsonb, ARRAY[10001])},
		qq{ARRAY['1', to_jsonb(repeat('$MARK', 200000))]}],
);

# Values that let a call get far, by the name of the argument.
my %SENSIBLE = (
	queue => [q{'fuzz'}, q{'fuzz'}, q{'fuzz 2'}],
	from_queue => [q{'fuzz'}, q{'fuzz dead'}],
	queues => [q{ARRAY['fuzz']}, q{ARRAY['fuzz', 'fuzz 2']}],
	role => [q{'fuzz_other'}],
	privileges => [q{'{read}'}, q{'{enqueue,dequeue,read,manage}'}],
	group_key => ['NULL', q{'g1'}, q{'g2'}],
	unique_key => ['NULL', q{'u1'}, q{'u2'}],
	on_conflict => [q{'ignore'}, q{'replace'}, q{'debounce'}, q{'error'}],
	unique_while => [q{'live'}, q{'waiting'}],
	unique_for => ['NULL', q{'1 s'}],
	debounce_max => ['NULL'],
	if_exists => [q{'keep'}, q{'alter'}],
	on_lost => [q{'skip'}, q{'error'}],
	states => [q{'{available,scheduled}'}],
	cron => [q{'@yearly'}, q{'0 0 1 1 *'}],
	timezone => [q{'UTC'}, q{'Europe/Paris'}],
	catch_up => [q{'skip'}, q{'one'}, q{'all'}],
	name => [q{'fuzz'}],
	run_at => ['NULL', 'now()'],
	delay => ['NULL', q{'0'}, q{'1 s'}],
	wait => [q{'0'}, q{'1 ms'}],
	lease_for => ['NULL', q{'1 min'}],
	retry_in => ['NULL', q{'0'}],
	grace => [q{'0'}, q{'1 min'}],
	worker => ['NULL', q{'w'}],
	expires_at => ['NULL', q{now() + interval '1 hour'}],
	max_attempts => ['NULL', '3'],
	priority => ['0', '5'],
	to_queue => ['NULL', q{'fuzz 2'}],
	headers => ['NULL', "'{\"traceparent\": \"$MARK\"}'"],
	force => ['false'],
	purpose => [q{'sign'}, q{'seal'}],
	sign => [q{'fuzz'}],
	seal => [q{'fuzz'}],
);
my %SENSIBLE_TYPE = (
	text => [q{'x'}], jsonb => [q{'{}'}], 'text[]' => [q{'{}'}], 'jsonb[]' => [q{'{1}'}],
	integer => ['1'], bigint => ['1'], boolean => [qw(true false)], interval => [q{'1 s'}],
	'timestamp with time zone' => ['now()'],
);

# Arguments and keys whose text must show up nowhere.
my $CONFIDENTIAL = qr/^(?:payloads?|headers|result|progress|error|reason|data)$/;

my (@ids, @leases);		# of jobs that there are

sub one_of { return $_[rand @_] }

# ---- the world ----

# A server with roles, values that are stored out of line, and a table that must
# survive. Statements with errors are not logged: values are written in them.
sub fuzz_node
{
	my ($name) = @_;
	my $node = start_audited($name,
		"log_line_prefix = '%m [%p] %b %e '\nrestart_after_crash = off\n"
		  . "jobq.secret_file = 'secret'\n");

	$node->safe_psql('postgres', <<"SQL");
CREATE ROLE fuzz_app LOGIN;
CREATE ROLE fuzz_stranger LOGIN;
CREATE ROLE fuzz_other;
ALTER ROLE postgres SET log_min_error_statement = panic;
ALTER ROLE fuzz_app SET log_min_error_statement = panic;
ALTER ROLE fuzz_stranger SET log_min_error_statement = panic;
CREATE TABLE public.toasted (id int, t text, j jsonb);
ALTER TABLE public.toasted ALTER t SET STORAGE EXTERNAL;
INSERT INTO public.toasted VALUES
	(1, repeat('toast ', 100000), jsonb_build_object('a', repeat('toast ', 100000)));
ALTER TABLE public.toasted ALTER t SET STORAGE MAIN;
INSERT INTO public.toasted VALUES (2, repeat('x', $LONG), '{}');
GRANT SELECT ON public.toasted TO PUBLIC;
CREATE TABLE public.canary AS SELECT 'alive' AS canary;
SQL

	# what keys are made from; the path is relative to the data directory
	append_to_file($node->data_dir . '/secret', '1:' . '0123456789abcdef' x 4 . "\n");
	chmod 0600, $node->data_dir . '/secret';
	return $node;
}

# After all that: nobody has crashed, nothing was made or destroyed outside, the
# log is fit to be read, and tables and memory are sound.
sub fuzz_leaves_sound
{
	my ($node) = @_;
	my @log = split /\n/, slurp_file($node->logfile);

	is($node->safe_psql('postgres', 'SELECT canary FROM public.canary'), 'alive',
		'the canary lives');
	is($node->safe_psql('postgres',
			q{SELECT (SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
				WHERE relnamespace = 'public'::regnamespace),
			(SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc
				WHERE pronamespace = 'public'::regnamespace),
			(SELECT count(*) FROM pg_roles WHERE rolname !~ '^(pg|jobq|fuzz)_')}),
		'canary toasted|pause_at paused|1', 'no table, function or role was made');
	ok(await_keeper($node), 'the keeper is at work');
	is(join("\n", grep { /PANIC:|TRAP:|was terminated by signal|exited with exit code/ } @log),
		'', 'nothing has crashed');
	is(join("\n", grep { /^\S+ \S+ \S+ \[\d+\] .* XX\d{3} / } @log), '', 'no internal error');
	is(join("\n", map { substr($_, 0, 1000) } grep { /\Q$MARK\E/ } @log),
		'', 'no payload in the log');
	is(join("\n", map { substr($_, 0, 1000) } grep { length > 10_000 } @log),
		'', 'no message is as long as what was passed');

	# what calls have enqueued is known to be there
	$node->safe_psql('postgres', q{INSERT INTO audit.forgetful VALUES (true);
BEGIN;
SELECT audit.read_tables();
INSERT INTO audit.ledger SELECT id FROM job UNION SELECT id FROM shelf;
COMMIT});
	audit_ok($node, 'tables and memory');
	return;
}

# Queues with jobs in all states; what calls have made of them before is gone.
sub refresh
{
	my ($node) = @_;

	my $found = $node->safe_psql('postgres', <<"SQL");
SET client_min_messages = error;
SELECT jobq.drop_queue(queue, true) FROM jobq.queues
	WHERE queue <> 'fuzz stranger''s' ORDER BY id \\g /dev/null
SELECT jobq.create_queue('fuzz', '{"backoff": {"base": "0 s"}, "lease_for": "1 hour",
		"max_attempts": 3, "dead_letter": "fuzz dead", "max_batch": 10000}'),
	jobq.create_queue('fuzz 2', '{"ordering": "fair", "group_limit": 2, "notify": true}'),
	jobq.create_queue('fuzz stranger''s', '{}', 'keep'),
	jobq.grant_queue('fuzz stranger''s', 'fuzz_stranger', '{enqueue,dequeue,read,manage}'),
	jobq.grant_queue('fuzz', 'fuzz_app', '{enqueue,dequeue,read,manage}'),
	jobq.grant_queue('fuzz 2', 'fuzz_app', '{enqueue,dequeue,read,manage}') \\g /dev/null
SELECT jobq.enqueue_many('fuzz', array_fill('"$MARK"'::jsonb, ARRAY[9])),
	jobq.enqueue('fuzz', '"$MARK"', delay => '1 day'),
	jobq.enqueue('fuzz', '"$MARK"', unique_key => 'u1'),
	jobq.enqueue_many('fuzz 2', array_fill('"$MARK"'::jsonb, ARRAY[3]), group_key => 'g1'),
	jobq.schedule('fuzz', '\@yearly', 'fuzz') \\g /dev/null
SELECT jobq.fail(id, lease, '$MARK', false) FROM jobq.dequeue('fuzz', 2) \\g /dev/null
SELECT jobq.complete(id, lease) FROM jobq.dequeue('fuzz') \\g /dev/null
SELECT jobq.cancel(min(id)) FROM jobq.jobs WHERE queue = 'fuzz' \\g /dev/null
SELECT id, lease FROM jobq.dequeue('fuzz', 3);
SELECT id, 0 FROM jobq.jobs WHERE queue = ANY ('{fuzz,fuzz 2,fuzz dead}');
SELECT id, 0 FROM (SELECT id FROM jobq.dead_jobs UNION SELECT id FROM jobq.history
	ORDER BY id DESC LIMIT 10) h;
SQL
	my @rows = map { [ split /\|/ ] } split /\n/, $found;
	@ids = map { $_->[0] } @rows;
	@leases = grep { $_ } map { $_->[1] } @rows;
	return;
}

# What a stranger must leave as it is.
sub belongings
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q{
SELECT id, queue, payload, priority, headers, max_attempts, state, lease_expires_at
	FROM jobq.jobs WHERE queue <> 'fuzz stranger''s' ORDER BY id;
SELECT id FROM jobq.dead_jobs WHERE queue <> 'fuzz stranger''s' ORDER BY id;
SELECT queue, owner, paused, draining, options FROM jobq.queues
	WHERE owner <> 'fuzz_stranger' AND queue <> 'fuzz stranger''s' ORDER BY id;
SELECT a::text FROM jobq.queue_acl a ORDER BY a::text;
SELECT name, queue, cron, paused FROM jobq.schedules
	WHERE queue <> 'fuzz stranger''s' ORDER BY name});
}

# ---- what there is to call ----

sub find_calls
{
	my ($node) = @_;
	my @calls;

	my $found = $node->safe_psql('postgres', q{
SELECT p.proname, p.prokind, p.proretset OR t.typtype = 'c', p.pronargs - p.pronargdefaults,
	p.prorettype = 'trigger'::regtype,
	(SELECT string_agg(coalesce(a.name, '') || '=' || format_type(a.type, NULL), ';' ORDER BY a.n)
	FROM unnest(coalesce(p.proargnames, array_fill(''::text, ARRAY[p.pronargs::int])),
		coalesce(p.proallargtypes, p.proargtypes::oid[]),
		coalesce(p.proargmodes, array_fill('i'::"char", ARRAY[p.pronargs::int])))
		WITH ORDINALITY a (name, type, mode, n)
	WHERE a.mode IN ('i', 'b', 'v'))
FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
WHERE p.pronamespace = 'jobq'::regnamespace
	AND NOT 'internal'::regtype = ANY (p.proargtypes)
ORDER BY p.proname});
	foreach my $line (split /\n/, $found)
	{
		my ($name, $kind, $rows, $required, $trigger, $args) = split /\|/, $line;
		my @args;

		$EXPECTED_OF{$name} = $NO_TRIGGER if $trigger eq 't';
		foreach my $arg (split /;/, $args // '')
		{
			my ($argname, $type) = $arg =~ /^(.*?)=(.*)$/;
			push @args, { name => $argname, type => $type, required => @args < $required };
		}
		push @calls,
		  {
			name => $name,
			procedure => $kind eq 'p',
			rows => $rows eq 't',
			args => \@args
		  };
	}
	push @calls, map { { name => $_, view => 1, args => [] } }
	  split /\n/, $node->safe_psql('postgres',
		q{SELECT relname FROM pg_class WHERE relnamespace = 'jobq'::regnamespace AND relkind = 'v' ORDER BY 1});
	return @calls;
}

# Keys that objects may have: errors name them when they refuse one.
sub learn_keys
{
	my ($node, $calls) = @_;

	foreach my $call (@$calls)
	{
		foreach my $arg (grep { $_->{type} eq 'jsonb' } @{ $call->{args} })
		{
			foreach my $shape (q{'{"?": 1}'}, q{'[{"?": 1}]'})
			{
				my (undef, undef, $err) = $node->psql('postgres',
					'BEGIN; ' . statement($call, $arg, $shape, 1));
				next unless $err =~ /Valid are: (.*)\.$/m;
				$arg->{keys} = [ split /, /, $1 ];
				$arg->{list} = $shape =~ /\[/;
			}
		}
	}
	return;
}

# ---- one call ----

sub sensible
{
	my ($arg, $plain) = @_;
	my $name = $arg->{name};

	return $SENSIBLE{$name}[-1] if $plain && $SENSIBLE{$name};
	return one_of(@ids) if $name eq 'id';
	return one_of(@leases) if $name eq 'lease';
	return 'ARRAY[' . join(', ', map { one_of(@ids) } 1 .. 3) . ']::bigint[]'
	  if $name eq 'ids' || $name eq 'done';
	return one_of(@{ $SENSIBLE{$name} }) if $SENSIBLE{$name};
	return one_of(@{ $SENSIBLE_TYPE{ $arg->{type} } // ['NULL'] });
}

sub nasty_values
{
	my ($arg) = @_;
	my @values = @{ $VALUES{ $arg->{type} } // [] };

	@values = map { s/\Q$MARK\E/x/gr } @values if $arg->{name} !~ $CONFIDENTIAL;
	return ('NULL', @values);
}

# A JSON text with some of the keys that the argument knows.
sub object
{
	my ($arg) = @_;
	my @members;

	foreach my $key ((shuffle @{ $arg->{keys} })[ 0 .. int(rand 4) ])
	{
		next unless defined $key;
		my $like = { name => $key, type => 'jsonb' };
		my $value =
			$key eq 'id' ? one_of(@ids)
		  : $key eq 'lease' ? one_of(@leases)
		  : rand() < 0.4
		  && $SENSIBLE{$key} ? 'to_jsonb(' . one_of(@{ $SENSIBLE{$key} }) . '::text)'
		  : one_of(nasty_values($like)) . '::jsonb';
		push @members, "'$key', $value";
	}
	push @members, q{'queue', 'fuzz'::text}
	  if $arg->{list} && rand() < 0.7 && !grep { /^'queue'/ } @members;
	return 'jsonb_build_object(' . join(', ', @members) . ')';
}

sub nasty
{
	my ($arg) = @_;

	return one_of(nasty_values($arg)) unless $arg->{keys} && rand() < 0.8;
	return object($arg) unless $arg->{list};
	return 'jsonb_build_array('
	  . join(', ', map { object($arg) } 1 .. 1 + int(rand 3)) . ')';
}

# The call with one argument given, all others sensible or left out; or, without
# one, each as it comes.
sub statement
{
	my ($call, $focus, $value, $plain) = @_;
	my @given;

	return "SELECT * FROM jobq.$call->{name} v"
	  . one_of('', q{ WHERE v::text LIKE '%fuzz%'}, ' LIMIT 1')
	  if $call->{view};
	foreach my $arg (@{ $call->{args} })
	{
		my $what;

		if (defined $focus)
		{
			$what = $arg == $focus ? $value
			  : $arg->{required} || (!$plain && rand() < 0.2) ? sensible($arg, $plain) : undef;
		}
		elsif ($arg->{required} || rand() < 0.5)
		{
			$what = rand() < 0.5 ? sensible($arg) : nasty($arg);
		}
		next unless defined $what;
		# a CALL takes no query in its arguments
		$what = 'NULL' if $call->{procedure} && $what =~ /\(SELECT/;
		push @given,
		  ($arg->{name} ne '' ? "\"$arg->{name}\" => " : '') . "CAST($what AS $arg->{type})";
	}
	return
		($call->{procedure} ? 'CALL ' : $call->{rows} ? 'SELECT * FROM ' : 'SELECT ')
	  . "jobq.$call->{name}("
	  . join(', ', @given) . ')';
}

# ---- many ----

# Every call with every value of every argument, those of one call not one after
# the other.
sub all_single_faults
{
	my ($calls) = @_;
	my @todo;

	foreach my $call (@$calls)
	{
		my @mine = ([ $call, undef, undef ]);
		foreach my $arg (@{ $call->{args} })
		{
			push @mine, map { [ $call, $arg, $_ ] } nasty_values($arg);
		}
		@mine = shuffle @mine;
		# one of each first, then spread evenly
		push @todo, [ rand() / @$calls, $mine[0] ],
		  map { [ ($_ + rand()) / @mine, $mine[$_] ] } 1 .. $#mine;
	}
	return map { $_->[1] } sort { $a->[0] <=> $b->[0] } @todo;
}

# Lines for psql: alone, or some in a block that ends in one way or another.
sub script
{
	my ($timeout, @statements) = @_;
	my @lines = ('\o /dev/null', 'SET client_min_messages = error;',
		"SET statement_timeout = '$timeout ms';", '\set VERBOSITY sqlstate');

	while (@statements)
	{
		my @some = splice(@statements, 0, 1 + int(rand 6));
		if (rand() < 0.6)
		{
			push @lines, map { "$_;" } @some;
			next;
		}
		push @lines, '\set ON_ERROR_ROLLBACK ' . one_of('on', 'on', 'off'),
		  'BEGIN' . one_of('', '', ' ISOLATION LEVEL REPEATABLE READ', ' READ ONLY') . '; -- block';
		push @lines, map { "$_; -- block" } @some;
		push @lines, one_of(
			'ROLLBACK; -- block',
			'COMMIT; -- block',
			q{PREPARE TRANSACTION 'fuzz'; ROLLBACK PREPARED 'fuzz'; -- block},
			q{PREPARE TRANSACTION 'fuzz'; COMMIT PREPARED 'fuzz'; -- block});
	}
	return @lines;
}

# Fuzz for so many statements, or seconds beyond all single faults; returns what
# went wrong, as texts.
sub fuzz
{
	my ($node, %options) = @_;
	my (%wrong, %codes, %called, $statements);
	my $start = time();

	srand($options{seed});
	refresh($node);
	my @calls = find_calls($node);
	cmp_ok(scalar(grep { !$_->{view} } @calls), '>', 50, 'functions are found');
	is($node->safe_psql('postgres',
			q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc
			WHERE pronamespace = 'jobq'::regnamespace}
			  . sprintf(' AND NOT proname::text = ANY (ARRAY[%s])',
				join(', ', map { "'$_->{name}'" } grep { !$_->{view} } @calls))),
		$UNCALLED, 'and nothing is left out');
	foreach my $type (map { $_->{type} } map { @{ $_->{args} } } @calls)
	{
		$wrong{"no values for arguments of type $type"} = 1 unless $VALUES{$type};
	}
	learn_keys($node, \@calls);
	ok((grep { $_->{keys} } map { @{ $_->{args} } } @calls) >= 4, 'keys of options are found');

	my %todo = map { $_ => [ all_single_faults(\@calls) ] } @ROLES;
	$statements = 0;
	while (1)
	{
		my $role = $ROLES[ int($statements / $BATCH) % @ROLES ];
		my @batch = splice(@{ $todo{$role} }, 0, $BATCH);
		last if $options{statements} && $statements >= $options{statements};
		last if !@batch && $options{seconds} && time() - $start > $options{seconds};
		# by chance, when all has been tried one by one
		push @batch, [ one_of(@calls), undef, undef ] while @batch < $BATCH;
		$statements += @batch;

		refresh($node);
		my $before = $role eq 'fuzz_stranger' ? belongings($node) : '';
		my @lines = script($options{timeout} // 300, map { statement(@$_) } @batch);
		$called{ $_->[0]{name} }++ foreach @batch;
		my ($rc, undef, $err) = $node->psql(
			'postgres', join("\n", @lines),
			on_error_stop => 0,
			extra_params => [ '-U', $role ]);
		foreach my $line (split /\n/, $err)
		{
			next if $line =~ /^\s*$/;
			my ($at, $code) = $line =~ /^psql:<stdin>:(\d+): (?:ERROR|FATAL):\s+(\w{5})$/;
			my $what = $at ? $lines[ $at - 1 ] : join("\n", @lines);

			$codes{ $code // 'none' }++;
			next if defined $code
			  && ($EXPECTED{$code} || $what =~ /-- block$/ && $EXPECTED_IN_BLOCK{$code});
			my ($name) = $at ? $what =~ /jobq\.(\w+)/ : undef;
			next if ($EXPECTED_OF{ $name // '' } // '') eq ($code // 'none');
			my $key = ($code // $line) . ' of ' . ($name // 'a batch');
			$wrong{$key} //= "$key, as $role: " . substr($what, 0, 2000);
		}
		if ($role eq 'fuzz_stranger' && belongings($node) ne $before)
		{
			$wrong{"stranger $statements"} =
			  "a stranger has changed something, with one of:\n" . join("\n", @lines);
		}
		last if $rc > 1;
	}
	note(sprintf('%d statements in %.0f s, seed %d; by SQLSTATE: %s',
			$statements, time() - $start, $options{seed},
			join(', ', map { "$_ $codes{$_}" } sort keys %codes)));
	foreach my $call (grep { !$called{ $_->{name} } } @calls)
	{
		$wrong{"$call->{name} was never called"} = "$call->{name} was never called";
	}
	return map { $wrong{$_} eq '1' ? $_ : $wrong{$_} } sort keys %wrong;
}

1;
