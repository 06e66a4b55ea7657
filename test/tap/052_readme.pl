# What the README says under "How to" works: calls with all their arguments
# succeed, and whatever else it names exists.
use strict;
use warnings;

use FindBin;
use JobqTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_node('readme');
$node->safe_psql('postgres', q{CREATE EXTENSION pg_jobq; SELECT jobq.create_queue('mail')});

my ($howto) = slurp_file("$FindBin::Bin/../../README.md") =~ /^## How to\n(.*?)^## /ms;
$howto =~ s/\n\s*/ /g;
my @code = $howto =~ /`([^`]+)`/g;
my @calls = grep { /^(?:CALL )?jobq\.\w+\('.*\)$/ } @code;
cmp_ok(scalar @calls, '>=', 8, 'there are calls');
foreach my $call (@calls)
{
	# nothing else empties the queue that is waited for
	$node->safe_psql('postgres', q{SELECT jobq.purge_queue('mail')});
	is(sqlstate($node, $call =~ /^CALL/ ? $call : "SELECT $call"), '00000', $call);
}

my %named = map { $_ => 1 } map { /\bjobq\.(\w+)/g } @code;
my $missing = $node->safe_psql('postgres', 'SELECT name FROM unnest(ARRAY['
	  . join(', ', map { "'$_'" } sort keys %named)
	  . q{]) name WHERE to_regclass('jobq.' || name) IS NULL
	AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'jobq'::regnamespace AND proname = name)});
cmp_ok(scalar keys %named, '>=', 25, 'functions and views are named');
is($missing, '', 'and are all there');

$node->stop;
done_testing();
