#!/bin/bash
# check.sh: runs the test suites on a throw-away build and server, and ends
# with "N passed, N failed". Environment: SUITES (names, default all but the
# hours of soak), TESTS (names of single files), KEEP=1 (leave the directory).
# A suite without files counts nothing, one that dies counts as failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/cluster.sh
. "$here/cluster.sh"
# shellcheck source=test/suites.sh
. "$here/suites.sh"

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

"$here/setup.sh" make gcc libc6-dev perl postgresql-15 \
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
			;;
		regress | isolation | pgtap)
			if [ -z "$server" ]; then
				server=started
				start_cluster 'fsync = off' 'max_prepared_transactions = 10' \
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
