#!/bin/bash
# worker.sh QUEUE NAME [COMMAND ...]: a worker written with bash and psql. Each
# job's payload names a file: {"file": "..."}. The worker runs the command
# (default sha256sum) on it and completes the job with {"sha256": "..."}, the
# first word that it printed, or fails it with what it wrote to its standard
# error. Ends on SIGTERM, after the job in hand. The connection comes from
# PGHOST, PGDATABASE and so on; the role needs `dequeue` on the queue.
set -euo pipefail

queue=$1
name=$2
shift 2
[ $# -gt 0 ] || set -- sha256sum

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
stop=
trap 'stop=yes' TERM

# sql [-v NAME=VALUE ...]: runs the statement on standard input. Values reach
# it as psql variables, quoted by psql (:'NAME'), so that no file name or error
# text can be taken for SQL.
sql() {
	psql -X -q -A -t -F $'\t' -v ON_ERROR_STOP=1 -v queue="$queue" \
		-v name="$name" "$@"
}

while [ -z "$stop" ]; do
	job=$(sql <<-'SQL'
		SELECT id, lease, payload->>'file'
		FROM jobq.dequeue(:'queue', wait => '1 s', worker => :'name');
	SQL
	)
	[ -n "$job" ] || continue	# nothing to do meanwhile
	id=${job%%$'\t'*}
	job=${job#*$'\t'}
	lease=${job%%$'\t'*}
	file=${job#*$'\t'}

	if output=$("$@" "$file" 2>"$errors"); then
		sum=${output#\\}			# sha256sum marks names with a backslash so
		sql -v id="$id" -v lease="$lease" -v sum="${sum%% *}" <<-'SQL'
			SELECT jobq.complete(:'id', :'lease',
				jsonb_build_object('sha256', :'sum'::text));
		SQL
	else
		sql -v id="$id" -v lease="$lease" -v error="$(head -c 500 "$errors")" <<-'SQL'
			SELECT jobq.fail(:'id', :'lease', :'error');
		SQL
	fi >/dev/null || echo "$name: job $id was not settled" >&2
done
