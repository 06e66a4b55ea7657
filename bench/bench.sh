#!/bin/bash
# bench.sh [full|instructions]: measures pg_jobq beside its peers on a throw-away server with
# a release build, and writes results/NAME.* here: raw data, conditions, table,
# plots. Environment: CASES, WHO (names; default all of make bench's), ROUNDS,
# SECS, HELD_SECS, NAME, LIVE_JOBS, SHARED_BUFFERS, KEEP=1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/cluster.sh
. "$here/../test/cluster.sh"

arguments=()
packages=(make gcc libc6-dev libssl-dev libpq-dev python3 postgresql-15
	postgresql-server-dev-15 gnuplot-nox)
settings=()
case ${1:-} in
full)
	arguments=(--full)
	: "${ROUNDS:=5}" "${SECS:=6}"
	;;
instructions)
	packages+=(valgrind)
	settings=('log_disconnections = on' "log_line_prefix = '%p %a '")
	: "${CASES:=instructions}" "${ROUNDS:=1}" "${SHARED_BUFFERS:=256MB}"
	;;
esac
read -r -a cases <<<"${CASES:-}"
read -r -a who <<<"${WHO:-}"
name=${NAME:-$(date +%Y%m%d-%H%M%S)}

"$here/../test/setup.sh" "${packages[@]}"
# What is compared with may be missing: then it is left out, and that is told.
"$here/../test/setup.sh" postgresql-15-pgq3 || true

# The peers for Node.js and the Node.js that the lock file names. Whoever calls
# this runs npm, since its settings may be theirs; nobody's scripts are run.
get_node() {
	local found
	command -v npm >/dev/null || "$here/../test/setup.sh" npm || return 0
	(
		cd "$home/src/bench/node"
		npm ci --ignore-scripts --no-audit --no-fund
	) >"$home/out/npm.log" 2>&1 || {
		tail -n 3 "$home/out/npm.log"
		return 0
	}
	for found in "$home"/src/bench/node/node_modules/node-linux-*/bin/node; do
		ln -sf "$found" "$home/src/bench/node/node"
	done
}

make_home
build release WERROR=1
install_build release
if [ ${#cases[@]} -eq 0 ] || [[ " ${cases[*]} " =~ \ (node|latency)\  ]]; then
	get_node
fi
as_server gcc -O2 -o out/latency_client src/test/soak/latency_client.c \
	-I"$("$system_pg_config" --includedir)" -L"$("$system_pg_config" --libdir)" -lpq
if [ "${1:-}" = instructions ]; then
	as_server mkdir out/callgrind
	server_environment=("CALLGRIND_FILES=$home/out/callgrind" "POSTGRES=$bindir/postgres")
	server_program=$home/src/bench/postgres-callgrind
	server_patience=300
	arguments=(--callgrind "$home/out/callgrind" --server-log "$home/out/postgresql.log")
fi
start_cluster "shared_buffers = '${SHARED_BUFFERS:-2GB}'" "max_wal_size = '8GB'" \
	"min_wal_size = '4GB'" 'max_connections = 200' 'max_worker_processes = 32' \
	"jobq.max_live_jobs = ${LIVE_JOBS:-2000000}" 'jobq.max_queues = 2048' \
	"${settings[@]}"
mkdir -p "$here/results"
as_server mkdir out/scratch
status=0
as_server /usr/bin/python3 src/bench/bench.py --cases "${cases[@]}" --who "${who[@]}" \
	--rounds "${ROUNDS:-3}" --seconds "${SECS:-2}" --held "${HELD_SECS:-120}" \
	--node "$home/src/bench/node" --latency-client "$home/out/latency_client" \
	--scratch "$home/out/scratch" --out "$home/out/$name" "${arguments[@]}" || status=$?
cp "$home/out/$name"* "$here/results/"
/usr/bin/python3 "$here/report.py" "$here/results/$name"
exit "$status"
