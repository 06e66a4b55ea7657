# pg_jobq: builds the extension with PGXS.
#
#   make                 build            make install      install
#   make check           all tests        make demo         the demonstration
#   make check-deep      sanitizers, valgrind, analysers, fuzzers: an hour or two
#   make bench           measures, five minutes; make bench-full, longer;
#                        make bench-instructions counts instructions
#
# WERROR=1 turns warnings into errors, TEST_BUILD=1 adds the pause points that
# the tests need, SANITIZE=1 stops at undefined behaviour. make check, make demo
# and make bench install what they need from Debian, build in a temporary
# directory and leave nothing else behind but bench/results.

EXTENSION = pg_jobq
EXTVERSION = 0.1.0

MODULE_big = pg_jobq
PGFILEDESC = "pg_jobq - job queue"
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c $(srcdir)/src/*/*.c)))
PG_CPPFLAGS = -I$(srcdir)/src
SHLIB_LINK = -lcrypto
PG_CFLAGS = -Wno-declaration-after-statement

ifdef WERROR
PG_CPPFLAGS += -isystem $(includedir_server)
PG_CFLAGS += -Wall -Wextra -Werror -Wno-unused-parameter
endif
ifdef TEST_BUILD
PG_CPPFLAGS += -DJOBQ_TEST_BUILD -DUSE_ASSERT_CHECKING
endif
ifdef SANITIZE
PG_CFLAGS += -fsanitize=undefined,float-cast-overflow,float-divide-by-zero \
	-fno-sanitize-recover=all
endif

# The script, joined in this order: what comes later may use what is before.
SQL_PARTS = \
	src/api/install_start.sql \
	src/security/roles.sql \
	src/store/role.sql \
	src/store/queue.sql \
	src/store/group.sql \
	src/store/cryptokey.sql \
	src/store/belt.sql \
	src/store/shelf.sql \
	src/store/schedule.sql \
	src/store/ukey.sql \
	src/store/stats.sql \
	src/store/rate.sql \
	src/store/accesskey.sql \
	src/api/types.sql \
	src/api/queues.sql \
	src/api/produce.sql \
	src/api/consume.sql \
	src/api/wait.sql \
	src/api/steer.sql \
	src/api/schedule.sql \
	src/api/look.sql \
	src/api/group.sql \
	src/api/seeing.sql \
	src/api/rate.sql \
	src/api/adopt.sql \
	src/api/accesskey.sql \
	src/security/security.sql \
	src/security/audit.sql \
	src/security/keys.sql \
	src/store/copy.sql \
	src/security/revoke.sql \
	src/store/dump.sql \
	src/security/rls.sql \
	calls.sql \
	src/api/install_end.sql

DATA_built = $(EXTENSION)--$(EXTVERSION).sql
EXTRA_CLEAN = calls.sql results regression.diffs regression.out output_iso

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
REGRESS_OPTS = --load-extension=pg_jobq
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=pg_jobq

# These must run where PostgreSQL is not installed yet.
OWN_GOALS = check check-deep demo bench bench-full bench-instructions
ifneq ($(filter-out $(OWN_GOALS),$(or $(MAKECMDGOALS),all)),)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h)

calls.sql: src/security/calls.awk src/security/calls.tsv
	awk -f $^ > $@.tmp
	mv $@.tmp $@

$(DATA_built): $(SQL_PARTS)
	cat $^ > $@.tmp
	mv $@.tmp $@
else

.PHONY: $(OWN_GOALS)

# make check [SUITES="regress tap"] [TESTS="names"] [KEEP=1]
check:
	@test/check.sh

# make check-deep [PARTS="valgrind fuzz"] [KEEP=1]
check-deep:
	@test/deep/deep.sh

demo:
	@examples/demo.sh

# make bench [CASES="enqueue1 cad1"] [WHO="pg_jobq limit"] [ROUNDS=3] [SECS=2]
bench:
	@bench/bench.sh

bench-full:
	@bench/bench.sh full

bench-instructions:
	@bench/bench.sh instructions

export SUITES TESTS PARTS KEEP CASES WHO ROUNDS SECS HELD_SECS NAME LIVE_JOBS SHARED_BUFFERS
endif
