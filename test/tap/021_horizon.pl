# The short form of test/soak/horizon.pl: whoever holds back the xmin horizon,
# epochs open and drop, no row of the belt is dead and the disk comes back. No
# rates: those are measured by make check SUITES=soak.
use strict;
use warnings;

use FindBin;
use JobqTest;

$ENV{JOBQ_SHORT} = 1;
do "$FindBin::RealBin/../soak/horizon.pl" or die $@ || $!;
