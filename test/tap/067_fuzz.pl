# The short form of test/deep/fuzz_arguments.pl: every function, procedure and
# view at least once by each kind of caller, and a sample of all wrong values.
# JOBQ_FUZZ_STATEMENTS, JOBQ_SEED: how many, and which.
use strict;
use warnings;

use Fuzz;
use Test::More;

my $node = fuzz_node('fuzz');

is( join(
		"\n",
		fuzz(
			$node,
			statements => $ENV{JOBQ_FUZZ_STATEMENTS} // 1500,
			timeout => 150,
			seed => $ENV{JOBQ_SEED} // 6)),
	'',
	'calls end with SQLSTATEs that are documented');
fuzz_leaves_sound($node);

$node->stop;
done_testing();
