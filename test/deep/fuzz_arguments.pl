# Every function, procedure and view of the schema with every value of every
# argument's list, by superuser, application role and stranger; then calls with
# several such values, for JOBQ_FUZZ_SECONDS in all. JOBQ_SEED repeats a run.
use strict;
use warnings;

use Fuzz;
use Test::More;

my $node = fuzz_node('fuzz');

is( join(
		"\n",
		fuzz(
			$node,
			seconds => $ENV{JOBQ_FUZZ_SECONDS} // 600,
			timeout => 1000,
			seed => $ENV{JOBQ_SEED} // time() % 1_000_000)),
	'',
	'calls end with SQLSTATEs that are documented');
fuzz_leaves_sound($node);

$node->stop;
done_testing();
