#!/bin/bash
# demo.sh: pg_jobq on real input. Three workers hash the copyright files of
# this machine; one worker is killed with -9 in the middle of a job, one job
# always fails. Ends by comparing every result with sha256sum, status 1 if
# anything is not as it should be. Uses a build and a server of its own.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/cluster.sh
. "$here/../test/cluster.sh"

jobs=400

say() {
	printf '\n== %s\n' "$*"
}

# sql [PSQL-OPTION ...]: statements from standard input, as the superuser of
# our server; values go in as psql variables.
sql() {
	as_server psql -X -q -v ON_ERROR_STOP=1 -d demo "$@"
}

value() {
	sql -A -t "$@"
}

mistakes=0
expect() {
	if [ "$2" = "$3" ]; then
		printf 'ok      %s\n' "$1"
	else
		printf 'WRONG   %s: expected %s, got %s\n' "$1" "$2" "$3"
		mistakes=$((mistakes + 1))
	fi
}

# await WHAT SECONDS: until the query on standard input says t.
await() {
	local query deadline=$((SECONDS + $2))
	query=$(cat)
	until [ "$(value <<<"$query")" = t ]; do
		if [ "$SECONDS" -ge "$deadline" ]; then
			echo "gave up waiting after $2 s: $1" >&2
			sql <<<'TABLE jobq.queue_stats' >&2
			tail -n 20 "$home/out/postgresql.log" >&2
			exit 1
		fi
		sleep 0.2
	done
}

"$here/../test/setup.sh" make gcc libc6-dev libssl-dev postgresql-15 \
	postgresql-server-dev-15

say "building pg_jobq and starting a server in a temporary directory"
make_home
build release
install_build release
start_cluster 'log_min_messages = info'
as_server createdb demo

sql <<'SQL'
CREATE EXTENSION pg_jobq;
SELECT jobq.create_queue('files', '{
	"lease_for": "4 s", "max_attempts": 3, "dead_letter": "files_dead",
	"backoff": {"base": "1 s", "factor": 1, "cap": "1 s", "jitter": 0}}') \gset
CREATE ROLE demo_worker LOGIN;
SELECT jobq.grant_queue('files', 'demo_worker', '{dequeue}') \gset
SQL

find -L /usr/share/doc -name copyright -type f ! -path $'*\n*' -print |
	sort | sed -n "1,${jobs}p" >"$home/out/files"
count=$(wc -l <"$home/out/files")
say "enqueueing $count files and one that does not exist, in one transaction"
held=$(head -n 1 "$home/out/files")
poison=/nonexistent/poison
value -v files="$(cat "$home/out/files")" -v poison="$poison" >"$home/out/ids" <<'SQL'
SELECT count(jobq.enqueue('files', jsonb_build_object('file', file), kind => 'sha256'))
FROM string_to_table(:'files' || E'\n' || :'poison', E'\n') AS file;
SQL
expect 'jobs enqueued' "$((count + 1))" "$(cat "$home/out/ids")"
id_of() {
	value -v file="$1" <<'SQL'
SELECT id FROM jobq.jobs WHERE queue = 'files' AND payload->>'file' = :'file';
SQL
}
held_id=$(id_of "$held")
poison_id=$(id_of "$poison")

# The command of the workers: sha256sum, but whoever comes first with the file
# `held` never gets to an end.
as_server tee out/hash >/dev/null <<'EOS'
#!/bin/bash
if [ "$2" = "$1" ] && mkdir "$(dirname "$0")/taken" 2>/dev/null; then
	exec sleep 1000
fi
exec sha256sum "$2"
EOS
as_server chmod +x out/hash

say "three workers, and one of them hangs on job $held_id"
for number in 1 2 3; do
	# shellcheck disable=SC2016
	as_server env PGUSER=demo_worker PGDATABASE=demo setsid \
		bash -c 'echo $$ >"$1"; shift; exec "$@"' - "out/worker-$number.pid" \
		src/examples/worker.sh files "worker-$number" out/hash "$held" \
		>"$home/out/worker-$number.log" 2>&1 </dev/null &
	disown
done
held_by=
deadline=$((SECONDS + 20))
until [ -d "$home/out/taken" ] && [ -n "$held_by" ]; do
	if [ "$SECONDS" -ge "$deadline" ]; then
		echo "no worker took job $held_id" >&2
		cat "$home"/out/worker-*.log "$home/out/postgresql.log" >&2
		exit 1
	fi
	sleep 0.1
	held_by=$(value -v id="$held_id" <<<"SELECT worker FROM jobq.job(:id)")
done
echo "kill -9 of $held_by, which holds job $held_id"
kill -9 -- "-$(cat "$home/out/$held_by.pid")"

say "the other two go on until no job is left"
await 'all jobs to end' 90 <<<"
SELECT NOT EXISTS (SELECT FROM jobq.jobs WHERE queue = 'files')"
for number in 1 2 3; do
	if [ "worker-$number" != "$held_by" ]; then
		kill -TERM "$(cat "$home/out/worker-$number.pid")"
		cat "$home/out/worker-$number.log"
	fi
done

say "attempts of job $held_id, whose first worker was killed"
sql -v id="$held_id" <<'SQL'
SELECT attempt, worker, outcome,
	date_trunc('milliseconds', finished_at - started_at) AS took
FROM jobq.attempts(:id) ORDER BY attempt;
SQL
say "attempts of job $poison_id, which always fails"
sql -v id="$poison_id" <<'SQL'
SELECT attempt, worker, outcome, error FROM jobq.attempts(:id) ORDER BY attempt;
SQL
say "dead jobs, and what waits in the dead-letter queue"
sql <<'SQL'
SELECT id, queue, kind, state, attempt, moved_to FROM jobq.dead_jobs ORDER BY id;
SELECT id, queue, payload, jsonb_pretty(headers) AS headers
FROM jobq.peek('files_dead');
SQL
say "statistics"
sql <<'SQL'
SELECT queue, available, scheduled, retryable, running, completed_total,
	failed_total, dead_total
FROM jobq.queue_stats ORDER BY queue;
SQL

say "is it right?"
outcomes() {
	value -v id="$1" <<'SQL'
SELECT string_agg(attempt || ' ' || outcome, ', ' ORDER BY attempt)
FROM jobq.attempts(:id);
SQL
}
expect "attempts of the killed worker's job" \
	'1 lease_expired, 2 completed' "$(outcomes "$held_id")"
expect 'its second attempt was by another worker' t "$(
	value -v id="$held_id" -v killed="$held_by" <<'SQL'
SELECT worker <> :'killed' FROM jobq.attempts(:id) WHERE attempt = 2;
SQL
)"
expect 'attempts of the poison job' \
	'1 failed, 2 failed, 3 failed' "$(outcomes "$poison_id")"
expect 'the poison job is dead, its copy waits in files_dead' t "$(
	value -v id="$poison_id" <<'SQL'
SELECT dead.state = 'dead' AND copy.queue = 'files_dead'
	AND copy.state = 'available'
	AND copy.headers->'dead_letter'->>'error' LIKE '%No such file%'
FROM jobq.job(:id) AS dead, LATERAL jobq.job(dead.moved_to) AS copy;
SQL
)"
expect 'totals of the queue: completed, failed attempts, dead' \
	"$count 4 1" "$(value -F ' ' <<'SQL'
SELECT completed_total, failed_total, dead_total
FROM jobq.queue_stats WHERE queue = 'files';
SQL
)"

while read -r file; do
	printf '%.64s  %s\n' "$(sha256sum <"$file")" "$file"
done <"$home/out/files" | LC_ALL=C sort >"$home/out/expected"
value <<'SQL' | LC_ALL=C sort >"$home/out/results"
SELECT result->>'sha256' || '  ' || (payload->>'file')
FROM jobq.history WHERE queue = 'files' AND state = 'completed';
SQL
expect "results that differ from sha256sum's, of $count" 0 "$(
	comm -3 "$home/out/expected" "$home/out/results" | wc -l)"

echo
if [ "$mistakes" -gt 0 ]; then
	echo "demo: $mistakes of these are wrong"
	exit 1
fi
echo "demo: all right, in $SECONDS s"
