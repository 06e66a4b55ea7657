# The short form of test/soak/standby.pl: an epoch is dropped while somebody
# reads on a standby. Who has touched its tables gives way after a time, who has
# not goes on, and the primary does not notice.
use strict;
use warnings;

use FindBin;
use JobqTest;

$ENV{JOBQ_SHORT} = 1;
do "$FindBin::RealBin/../soak/standby.pl" or die $@ || $!;
