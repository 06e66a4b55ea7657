# The short form of test/soak/diskfull.pl: no space, no slot, no connection and
# no worker slot left; clear errors, no crash, nothing lost.
use strict;
use warnings;

use FindBin;
use JobqTest;

$ENV{JOBQ_SHORT} = 1;
do "$FindBin::RealBin/../soak/diskfull.pl" or die $@ || $!;
