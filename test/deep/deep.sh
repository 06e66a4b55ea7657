#!/bin/bash
# deep.sh: the checks that take too long for make check, each on a build and a
# server of its own: sanitize, valgrind, static, sqlsmith, fuzz. PARTS names
# some of them; docs/deep-checks.md says what each does and how long it takes.
# Ends with "N passed, N failed". Must not change the checkout.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# a part runs all files of a suite
unset SUITES TESTS
# shellcheck source=test/check.sh
. "$here/check.sh"

all_parts=(sanitize valgrind static sqlsmith fuzz)
read -r -a parts <<<"${PARTS:-${all_parts[*]}}"
packages=(make gcc libc6-dev libssl-dev openssl perl postgresql-15
	postgresql-server-dev-15 libipc-run-perl libio-pty-perl)
for part in "${parts[@]}"; do
	case $part in
	sanitize) packages+=(postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl) ;;
	valgrind) packages+=(valgrind libc6-dbg) ;;
	static) packages+=(cppcheck clang-tidy) ;;
	sqlsmith) packages+=(sqlsmith) ;;
	fuzz) ;;
	*)
		echo "no part \"$part\"; there are: ${all_parts[*]}" >&2
		exit 2
		;;
	esac
done

# make_build NAME [MAKE-VARIABLE...]: build and install what a part runs on.
make_build() {
	[ ! -d "$home/$1" ] || return 0
	build "$@" && install_build "$1" && return 0
	failed=$((failed + 1))
	return 1
}

start_server() {
	make_secret
	start_cluster "jobq.secret_file = '$home/secret'" 'fsync = off' \
		'max_prepared_transactions = 10' 'max_worker_processes = 16' \
		'log_min_messages = info' && return 0
	failed=$((failed + 1))
	return 1
}

# The server of a part has stopped; nothing of it must meet the next one.
forget_server() {
	rm -rf "$home/data"
	[ ! -e "$home/out/postgresql.log" ] ||
		mv "$home/out/postgresql.log" "$home/out/postgresql-$1.log"
	server_environment=()
	server_program=
	server_patience=60
}

# Assertions, and a stop at each undefined operation of our own code: the log
# then says "runtime error:", which suite "server" looks for.
part_sanitize() {
	make_build sanitize TEST_BUILD=1 SANITIZE=1 || return 0
	server_environment=(UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1)
	start_server || return 0
	for suite in regress isolation pgtap; do
		run_suite "$suite"
	done
	run_suite server
}

# The server that Debian ships, under valgrind.
part_valgrind() {
	make_build build TEST_BUILD=1 || return 0
	as_server mkdir -p out/valgrind
	server_environment=("VALGRIND_LOGS=$home/out/valgrind" "POSTGRES=$bindir/postgres")
	server_program=$home/src/test/deep/postgres-valgrind
	server_patience=300
	start_server || return 0
	suite_regress >"$home/out/regress.log" 2>&1 || true
	run_suite server
	run_suite valgrind
}

# Reports with a function of ours on the stack; all others are the server's.
# What the tests say does not count: here some run into timeouts.
suite_valgrind() {
	local reports log=$home/out/regress.log
	if [ "$(grep -cE '^test .* (ok|FAILED) ' "$log")" -eq "$(names sql .sql | wc -l)" ]; then
		echo "ok 1 - all test files were run"
	else
		echo "not ok 1 - all test files were run"
	fi
	echo "# processes: $(find "$home/out/valgrind" -name '*.log' | wc -l)"
	reports=$(awk -v ours="($home/build/src/" '
		function flush() { if (mine) print report; report = ""; mine = 0 }
		FNR == 1 { flush() }
		{ text = $0; sub(/^==[^=]*== ?/, "", text) }
		text == "" { flush(); next }
		{ report = report "\n" $0; if (index(text, ours)) mine = 1 }
		END { flush() }' "$home"/out/valgrind/*.log)
	if [ -n "$reports" ]; then
		echo "not ok 2 - valgrind reports nothing of pg_jobq"
		echo "$reports"
	else
		echo "ok 2 - valgrind reports nothing of pg_jobq"
	fi
}

part_static() {
	as_server cp -R src static
	run_suite static
}

suite_static() {
	as_server static/test/deep/static.sh static "$system_pg_config"
}

# Tests that make servers of their own.
part_sqlsmith() {
	make_build build TEST_BUILD=1 || return 0
	run_suite sqlsmith
}

suite_sqlsmith() {
	run_perl sqlsmith 1 "$home/src/test/deep/sqlsmith.pl"
}

part_fuzz() {
	make_build build TEST_BUILD=1 || return 0
	run_suite fuzz
}

suite_fuzz() {
	run_perl fuzz 1 "$home/src/test/deep/fuzz_arguments.pl"
}

"$here/setup.sh" "${packages[@]}"
pgxs=$(dirname "$("$system_pg_config" --pgxs)")/../..
make_home
for part in "${parts[@]}"; do
	echo "== $part"
	"part_$part"
	forget_server "$part"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
