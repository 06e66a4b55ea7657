#!/bin/bash
# setup.sh PACKAGE...: installs those Debian packages that are missing, as root
# or with sudo. Must not touch an existing cluster, nor let the installation of
# PostgreSQL create one.
set -euo pipefail

missing=()
for package in "$@"; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
	root=()
elif command -v sudo >/dev/null; then
	root=(sudo)
else
	echo "missing packages, and neither root nor sudo: ${missing[*]}" >&2
	exit 1
fi

# Debian's postgresql-15 creates and starts a cluster when it is first
# installed, unless told otherwise.
no_cluster=/etc/postgresql-common/createcluster.d/pg_jobq_setup.conf
made_directory=
if [ ! -d "${no_cluster%/*}" ]; then
	made_directory=${no_cluster%/*}
fi
log=$(mktemp /tmp/pg_jobq-apt.XXXXXX)
restore() {
	rm -f "$log"
	"${root[@]}" rm -f "$no_cluster"
	if [ -n "$made_directory" ]; then
		"${root[@]}" rmdir --ignore-fail-on-non-empty "$made_directory" || true
	fi
}
trap restore EXIT
trap 'exit 130' INT TERM HUP
"${root[@]}" mkdir -p "${no_cluster%/*}"
echo 'create_main_cluster = false' | "${root[@]}" tee "$no_cluster" >/dev/null

echo "== installing ${missing[*]}"
apt() {
	if ! "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get \
		-q -y -o DPkg::Lock::Timeout=600 "$@" >"$log" 2>&1 </dev/null; then
		tail -n 30 "$log" >&2
		return 1
	fi
}
apt update
apt install --no-install-recommends --no-upgrade "${missing[@]}"
