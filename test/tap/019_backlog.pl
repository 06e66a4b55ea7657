# The short form of test/soak/backlog.pl: more jobs than memory holds, in exact
# order, recovered after kill -9, none lost. No rates: those are measured by
# make check SUITES=soak.
use strict;
use warnings;

use FindBin;
use JobqTest;

$ENV{JOBQ_SHORT} = 1;
do "$FindBin::RealBin/../soak/backlog.pl" or die $@ || $!;
