#!/bin/bash
# check.sh: runs the test suites on a throw-away build and server, and ends
# with "N passed, N failed". Environment: SUITES (names, default all but the
# hours of soak), TESTS (names of single files), KEEP=1 (leave the directory).
# A suite without files counts nothing, one that dies counts as failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/cluster.sh
. "$here/cluster.sh"

# Tests that compile something ask it for the headers.
export JOBQ_PG_CONFIG=$system_pg_config

all_suites=(unit lint release regress isolation pgtap tap)
read -r -a suites <<<"${SUITES:-${all_suites[*]}}"
read -r -a wanted <<<"${TESTS:-}"
for suite in "${suites[@]}"; do
	case " ${all_suites[*]} soak " in
	*" $suite "*) ;;
	*)
		echo "no suite \"$suite\"; there are: ${all_suites[*]} soak" >&2
		exit 2
		;;
	esac
done

passed=0
failed=0

# files DIRECTORY EXTENSION: the suite's files, all or those asked for, as
# paths below $home/src, one a line.
files() {
	local file name
	for file in "$home/src/$1"/*"$2"; do
		[ -e "$file" ] || continue
		name=$(basename "$file" "$2")
		case " ${wanted[*]} " in
		"  " | *" $name "* | *" $name$2 "*) echo "$file" ;;
		esac
	done
}

# names: the same without directory and extension.
names() {
	local file
	files "$1" "$2" | while read -r file; do
		basename "$file" "$2"
	done
}

# Everything that can be asked for by TESTS, else the suite is run as a whole.
suite_files() {
	case $1 in
	unit) files test/unit _test.c ;;
	regress) files sql .sql ;;
	isolation) files test/isolation/specs .spec ;;
	pgtap) files test/pgtap .sql ;;
	tap) files test/tap .pl ;;
	soak) files test/soak .pl ;;
	*) [ ${#wanted[@]} -gt 0 ] || echo "$1" ;;
	esac
}

# A test is called like the only file of the sources that it needs; if it needs
# more of a room it has a line "Sources:".
suite_unit() {
	local file name status=0 pattern sources
	while read -r file; do
		name=$(basename "$file" _test.c)
		pattern=$(sed -n 's/^ \* Sources: //p' "$file")
		mapfile -t sources < <(compgen -G "src/*/${pattern:-$name.c}")
		as_server gcc -std=c11 -g -O1 -Wall -Wextra -Werror \
			-fsanitize=address,undefined -fno-sanitize-recover \
			-Isrc/src -o "out/${name}_test" "$file" "${sources[@]/#/src/}"
		as_server "out/${name}_test" || status=1
	done < <(suite_files unit)
	return "$status"
}

suite_lint() {
	as_server build/test/lint.sh build "$system_pg_config"
}

# What a library that opens no connection and starts no program never calls.
network_calls='(socket|socketpair|connect|bind|listen|accept4?|getaddrinfo|PQ[a-z].*)'
process_calls='(system|popen|fork|vfork|posix_spawnp?|exec[lv].*|dlopen|OpenPipeStream)'
unsafe_calls='(sprintf|vsprintf|strcpy|strcat|gets|rand|random|srand)'

# What is shipped has no test code in it and exports nothing unexpected.
suite_release() {
	local symbols
	build release WERROR=1
	symbols=$(as_server nm --defined-only release/pg_jobq.so | awk '{ print $3 }')
	if grep -q '^jobq_pause' <<<"$symbols"; then
		echo "not ok 1 - a release build has no pause points"
	else
		echo "ok 1 - a release build has no pause points"
	fi
	symbols=$(as_server nm -D --defined-only release/pg_jobq.so | awk '{ print $3 }' |
		grep -vE '^(jobq_|pg_finfo_jobq_|Pg_magic_func$|_PG_init$)' || true)
	if [ -n "$symbols" ]; then
		echo "not ok 2 - exported names start with jobq_"
		echo "$symbols"
	else
		echo "ok 2 - exported names start with jobq_"
	fi
	symbols=$(as_server nm -D --undefined-only release/pg_jobq.so |
		awk '{ sub(/@.*/, "", $2); print $2 }' |
		grep -xE "$network_calls|$process_calls|$unsafe_calls" || true)
	if [ -n "$symbols" ]; then
		echo "not ok 3 - nothing is called that reaches the network or starts a program"
		echo "$symbols"
	else
		echo "ok 3 - nothing is called that reaches the network or starts a program"
	fi
	symbols=$(as_server readelf -d release/pg_jobq.so |
		sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
		grep -vxE 'libc\.so\.6|libm\.so\.6|libcrypto\.so\.3' || true)
	if [ -n "$symbols" ]; then
		echo "not ok 4 - no library is linked but libc, libm and libcrypto"
		echo "$symbols"
	else
		echo "ok 4 - no library is linked but libc, libm and libcrypto"
	fi
}

suite_regress() {
	mapfile -t tests < <(names sql .sql)
	as_server mkdir -p out/regress
	as_server "$pgxs/src/test/regress/pg_regress" --bindir="$bindir" \
		--host="$home/sock" --port=5432 --user=postgres \
		--dbname=contrib_regression --load-extension=pg_jobq \
		--inputdir=src --outputdir=out/regress "${tests[@]}"
}

suite_isolation() {
	mapfile -t tests < <(names test/isolation/specs .spec)
	as_server mkdir -p out/isolation
	as_server env PGISOLATIONTIMEOUT=60 \
		"$pgxs/src/test/isolation/pg_isolation_regress" --bindir="$bindir" \
		--host="$home/sock" --port=5432 --user=postgres \
		--dbname=isolation_regression --load-extension=pg_jobq \
		--inputdir=src/test/isolation --outputdir=out/isolation "${tests[@]}"
}

suite_pgtap() {
	mapfile -t tests < <(suite_files pgtap)
	as_server createdb pgtap
	as_server psql -X -q -d pgtap -v ON_ERROR_STOP=1 \
		-c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION pg_jobq'
	as_server pg_prove --verbose --psql-bin "$bindir/psql" -d pgtap "${tests[@]}"
}

# run_perl SUITE JOBS TEST...: so many files at a time; they mostly wait.
run_perl() {
	local suite=$1 jobs=$2
	shift 2
	as_server mkdir -p "out/$suite"
	as_server env TESTDIR="$home/out/$suite" \
		PG_REGRESS="$pgxs/src/test/regress/pg_regress" \
		PG_TEST_TIMEOUT_DEFAULT="${JOBQ_TEST_TIMEOUT:-120}" \
		prove --verbose --merge --jobs "$jobs" -I "$pgxs/src/test/perl" -I src/test/tap \
		-I src/test/soak "$@"
}

suite_tap() {
	mapfile -t tests < <(suite_files tap)
	run_perl tap 3 "${tests[@]}"
}

# Measurements, on what is shipped; crashes need the pause points of the test
# build.
suite_soak() {
	local status=0
	# sessions hold on for minutes
	local JOBQ_TEST_TIMEOUT=900
	mapfile -t tests < <(suite_files soak | grep '/crash\.pl$')
	[ ${#tests[@]} -eq 0 ] || run_perl soak 1 "${tests[@]}" || status=1
	mapfile -t tests < <(suite_files soak | grep -v '/crash\.pl$')
	if [ ${#tests[@]} -gt 0 ]; then
		[ -d "$home/release" ] || build release WERROR=1
		install_build release
		run_perl soak 1 "${tests[@]}" || status=1
	fi
	return "$status"
}

# What keys are made with.
make_secret() {
	local digits
	digits=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
	as_server sh -c "umask 077; echo '1:$digits' > secret"
}

# A file system that tests can fill; only root can have one, without they skip.
make_small_disk() {
	[ "$(id -u)" -eq 0 ] || return 0
	as_server mkdir "$home/small"
	if mount -t tmpfs -o "size=96m,uid=$(id -u "$server_user")" \
		pg_jobq "$home/small" 2>"$home/out/mount.log"; then
		export JOBQ_SMALL_DISK=$home/small
	fi
}

# promtool alone, without the server that Debian packs it with. Where it cannot
# be had, the tests that want it skip.
get_promtool() {
	local directory=$home/promtool
	if command -v promtool >/dev/null; then
		JOBQ_PROMTOOL=$(command -v promtool)
		export JOBQ_PROMTOOL
		return 0
	fi
	mkdir "$directory"
	if (
		cd "$directory"
		apt-get -q download prometheus
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
	) >"$home/promtool.log" 2>&1; then
		export JOBQ_PROMTOOL=$directory/usr/bin/promtool
	fi
}

# The same with PgBouncer, whose package would start a service.
get_pgbouncer() {
	local directory=$home/pgbouncer package
	if command -v pgbouncer >/dev/null; then
		JOBQ_PGBOUNCER=$(command -v pgbouncer)
		export JOBQ_PGBOUNCER
		return 0
	fi
	mkdir "$directory"
	if (
		cd "$directory"
		apt-get -q download pgbouncer libevent-2.1-7 libc-ares2
		for package in *.deb; do
			dpkg-deb --extract "$package" .
		done
		test -x usr/sbin/pgbouncer
	) >"$home/pgbouncer.log" 2>&1; then
		export JOBQ_PGBOUNCER=$directory/usr/sbin/pgbouncer
		JOBQ_PGBOUNCER_LIBRARIES=$(echo "$directory"/usr/lib/*-linux-gnu*)
		export JOBQ_PGBOUNCER_LIBRARIES
	fi
}

# The server that regress, isolation and pgtap used never crashed and stops.
suite_server() {
	local crashes
	crashes=$(grep -E 'PANIC:|TRAP:|was terminated by signal|exited with exit code 2|runtime error:' \
		"$home/out/postgresql.log" || true)
	if [ -n "$crashes" ]; then
		echo "not ok 1 - the server did not crash"
		echo "$crashes"
		tail -n 60 "$home/out/postgresql.log"
	else
		echo "ok 1 - the server did not crash"
	fi
	if stop_cluster; then
		echo "ok 2 - the server stops"
	else
		echo "not ok 2 - the server stops"
		tail -n 60 "$home/out/postgresql.log"
	fi
}

# Passed and failed of a suite's log: pg_regress's own format or TAP.
count() {
	awk '
	/^(test | {4,}).* \.\.\. ok / { ok++; next }
	/^(test | {4,}).* \.\.\. FAILED/ { bad++; next }
	/^ok [0-9]+/ { if (tolower($0) ~ /# skip/) skipped++; else ok++ }
	/^not ok [0-9]+/ { if (tolower($0) !~ /# todo/) bad++ }
	END { print ok + 0, bad + 0, skipped + 0 }' "$1"
}

# What a reader needs of a failed suite.
show_failure() {
	local name=$1 log=$2 file
	grep -nE -A 8 '^not ok |FAILED' "$log" | head -n 100 || true
	echo "-- end of $name's output"
	tail -n 60 "$log"
	for file in "$home/out/$name/regression.diffs" \
		"$home/out/$name/output_iso/regression.diffs"; do
		if [ -s "$file" ]; then
			echo "-- $(basename "$file")"
			head -n 200 "$file"
		fi
	done
	if [ -d "$home/out/$name/tmp_check" ]; then
		for file in "$home/out/$name"/tmp_check/log/*; do
			# Signal 9 is what crash tests send themselves; a test that dies
			# says why in its own log.
			if grep -qE 'PANIC:|TRAP:|terminated by signal ([0-8]|1[0-9]):|Looks like your test exited' "$file"; then
				echo "-- end of $(basename "$file")"
				tail -n 40 "$file"
			fi
		done
	fi
}

run_suite() {
	local name=$1 log=$home/out/$1.log status=0 started=$SECONDS ok bad skipped
	# In the background, so that a signal is answered at once.
	(
		set -e
		"suite_$name"
	) >"$log" 2>&1 </dev/null &
	wait $! || status=$?
	read -r ok bad skipped < <(count "$log")
	if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$ok" -eq 0 ]; }; then
		echo "suite $name died with status $status" >>"$log"
		bad=1
	fi
	passed=$((passed + ok))
	failed=$((failed + bad))
	printf '%-10s %4d passed %4d failed %4d skipped %5d s\n' \
		"$name" "$ok" "$bad" "$skipped" $((SECONDS - started))
	if [ "$name" = soak ]; then
		sed -n 's/^# figure: //p' "$log"
	fi
	if [ "$bad" -gt 0 ]; then
		show_failure "$name" "$log"
	fi
}

# The deep checks take the suites from here, and run them their own way.
[ "${BASH_SOURCE[0]}" = "$0" ] || return 0

"$here/setup.sh" make gcc libc6-dev libssl-dev openssl perl postgresql-15 \
	postgresql-server-dev-15 libipc-run-perl libio-pty-perl \
	postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl \
	cppcheck shellcheck python3
pgxs=$(dirname "$("$system_pg_config" --pgxs)")/../..

make_home
server=
if build build WERROR=1 TEST_BUILD=1 && install_build build; then
	for suite in "${suites[@]}"; do
		[ -n "$(suite_files "$suite")" ] || continue
		case $suite in
		tap | soak)
			[ -d "$home/small" ] || make_small_disk
			[[ ! $(suite_files "$suite") =~ metrics ]] || get_promtool
			[[ ! $(suite_files "$suite") =~ pooler ]] || get_pgbouncer
			;;
		regress | isolation | pgtap)
			if [ -z "$server" ]; then
				server=started
				make_secret
				start_cluster "jobq.secret_file = '$home/secret'" \
					'fsync = off' 'max_prepared_transactions = 10' \
					'max_worker_processes = 16' 'log_min_messages = info' ||
					server=dead
			fi
			;;
		esac
		run_suite "$suite"
	done
	[ -z "$server" ] || run_suite server
else
	failed=1
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
