# cluster.sh: for scripts to source. A directory of our own under /tmp with a
# copy of this checkout, a build of it, a private copy of the installed
# PostgreSQL that the build goes into, and a server on it. Everything runs as an
# unprivileged user and is stopped and removed when the script ends. Must not
# write outside that directory.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
system_pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
umask 022
unset MAKEFLAGS MFLAGS MAKELEVEL CDPATH "${!PG@}"

# Who builds and runs servers: never root.
if [ "$(id -u)" -eq 0 ]; then
	server_user=postgres
else
	server_user=$(id -un)
fi

# What servers are given in their environment besides.
server_environment=()

# Run a command as that user in our directory, with nothing inherited from the
# environment but JOBQ_*, which tests may use for knobs.
as_server() {
	local environment=(
		HOME="$home" LANG=C.UTF-8 LC_ALL=C.UTF-8 TMPDIR="$home/tmp" TZ=UTC
		PATH="${bindir:+$bindir:}/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
		PGHOST="$home/sock" PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
		"${server_environment[@]}"
	)
	local name
	for name in ${!JOBQ_@}; do
		environment+=("$name=${!name}")
	done
	(
		cd "$home" || exit
		if [ "$(id -u)" -eq 0 ]; then
			exec runuser -u "$server_user" -- env -i "${environment[@]}" "$@"
		else
			exec env -i "${environment[@]}" "$@"
		fi
	)
}

# Processes that work inside our directory, whoever started them: servers with
# their data directory there, tests that lost their parent.
strays() {
	local link
	for link in /proc/[0-9]*/cwd; do
		case $(readlink "$link" 2>/dev/null) in
		"$home" | "$home"/*)
			link=${link#/proc/}
			[ "${link%/cwd}" = "$$" ] || echo "${link%/cwd}"
			;;
		esac
	done
}

clean_up() {
	local status=$? pids try
	trap - EXIT
	trap '' INT TERM HUP
	for try in TERM QUIT QUIT KILL KILL; do
		mapfile -t pids < <(strays)
		[ ${#pids[@]} -gt 0 ] || break
		kill -s "$try" "${pids[@]}" 2>/dev/null || true
		for _ in {1..20}; do
			[ -n "$(strays)" ] || break
			sleep 0.1
		done
	done
	if mountpoint -q "$home/small"; then
		umount "$home/small"
	fi
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $home"
	else
		rm -rf "$home"
	fi
	exit "$status"
}

# Make our directory and copy the checkout into it: the user that runs the
# server may not be able to read where it is.
make_home() {
	home=$(mktemp -d /tmp/pg_jobq.XXXXXX)
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	mkdir "$home/src" "$home/tmp" "$home/sock" "$home/out"
	tar -C "$top" -cf - --exclude=./.git --exclude='*.o' --exclude='*.bc' \
		--exclude='*.so' --exclude=./results --exclude=./calls.sql \
		--exclude='./pg_jobq--*.sql' . | tar -C "$home/src" -xf -
	chmod -R u+rwX "$home/src"
	if [ "$(id -u)" -eq 0 ]; then
		chown -R "$server_user:" "$home"
	fi
}

# build NAME [MAKE-VARIABLE...]: compile a copy of the source in $home/NAME.
build() {
	local name=$1 log=$home/out/build-$1.log
	shift
	as_server cp -R src "$name"
	if ! as_server make -s -C "$name" -j2 PG_CONFIG="$system_pg_config" \
		with_llvm=no "$@" >"$log" 2>&1; then
		echo "the $name build failed:" >&2
		head -n 60 "$log" >&2
		return 1
	fi
}

# install_build NAME: copy the installed PostgreSQL, which finds its files
# relative to its programs, and install a build into the copy.
install_build() {
	local directory
	for directory in "$("$system_pg_config" --bindir)" \
		"$("$system_pg_config" --pkglibdir)" \
		"$("$system_pg_config" --sharedir)"; do
		as_server mkdir -p "tree-$1${directory%/*}"
		as_server cp -R "$directory" "tree-$1${directory%/*}/"
	done
	as_server make -C "$1" install PG_CONFIG="$system_pg_config" \
		with_llvm=no DESTDIR="$home/tree-$1" >"$home/out/install-$1.log" 2>&1 || {
		tail -n 20 "$home/out/install-$1.log" >&2
		return 1
	}
	bindir=$home/tree-$1$("$system_pg_config" --bindir)
}

# A program to start the server with instead of its own, and how many seconds
# starting and stopping may take.
server_program=
server_patience=60

# start_cluster [SETTING...]: a server with the library preloaded that listens
# on a socket in our directory only.
start_cluster() {
	as_server initdb -D data -U postgres -A trust -E UTF8 --locale=C.UTF-8 \
		--no-sync >"$home/out/initdb.log" 2>&1 || {
		cat "$home/out/initdb.log" >&2
		return 1
	}
	printf '%s\n' "listen_addresses = ''" \
		"unix_socket_directories = '$home/sock'" \
		"shared_preload_libraries = 'pg_jobq'" "$@" |
		as_server tee -a data/postgresql.conf >/dev/null
	as_server pg_ctl -D data -l out/postgresql.log -w -t "$server_patience" \
		${server_program:+-p "$server_program"} start \
		>"$home/out/pg_ctl.log" 2>&1 || {
		cat "$home/out/pg_ctl.log" "$home/out/postgresql.log" >&2
		return 1
	}
}

stop_cluster() {
	as_server pg_ctl -D data -m fast -w -t "$server_patience" stop \
		>"$home/out/pg_ctl.log" 2>&1
}
