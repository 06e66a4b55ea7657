# The short form of test/soak/bulk.pl: jobs in and beyond memory are cancelled, put
# off and purged by SQL over the views, while other traffic goes on. No rates:
# those are measured by make check SUITES=soak.
use strict;
use warnings;

use FindBin;
use JobqTest;

$ENV{JOBQ_SHORT} = 1;
do "$FindBin::RealBin/../soak/bulk.pl" or die $@ || $!;
