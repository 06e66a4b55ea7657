#!/bin/bash
# lint.sh BUILD PG_CONFIG: checks of the source and of the generated script in
# a built copy of the checkout. Prints TAP, one test a rule. Changes nothing.
set -uo pipefail

cd "$1" || exit 1
include=$("$2" --includedir-server)
shopt -s nullglob lastpipe
c_files=(src/*.c src/*/*.c)
h_files=(src/*.h src/*/*.h)
script=(pg_jobq--*.sql)
number=0
bad=0

# rule NAME: passes when nothing arrives on standard input.
rule() {
	local found
	found=$(head -n 50)
	number=$((number + 1))
	if [ -n "$found" ]; then
		bad=1
		echo "not ok $number - $1"
		echo "$found"
	else
		echo "ok $number - $1"
	fi
}

# ---- the generated script ----

grep -niE 'OR REPLACE|(CREATE|ALTER|DROP)[A-Z ]* IF (NOT )?EXISTS' "${script[@]}" |
	rule 'script: plain CREATE only'

awk '/^\\echo/ || /^--/ || /^[ \t]*$/ { next }
	{ if ($0 != "SET LOCAL search_path TO pg_catalog, pg_temp;") print; exit }' \
	"${script[@]}" | rule 'script: pins search_path first'

awk '/^[ \t]*$/ { next } { last = $0 }
	END { if (last !~ /^SELECT jobq\._open_first_epoch\(\);$/) print last }' \
	"${script[@]}" | rule 'script: opens the first epoch last'

# Statements, one a line, without comments and dollar-quoted bodies.
statements=$(awk '
	{ sub(/^[ \t]*--.*/, "") }
	/\$[a-z]*\$/ { n = gsub(/\$[a-z]*\$/, "&"); if (n % 2) body = !body }
	{ text = text " " $0 }
	!body && /;[ \t]*$/ { gsub(/[ \t]+/, " ", text); print text; text = "" }' \
	"${script[@]}")

grep -E '^ CREATE FUNCTION' <<<"$statements" |
	grep -vE ' (VOLATILE|STABLE|IMMUTABLE)( |;)' |
	rule 'script: every function says its volatility'

grep -E '^ CREATE FUNCTION' <<<"$statements" | grep -vE ' PARALLEL ' |
	rule 'script: every function says its parallel safety'

grep -E '^ CREATE FUNCTION.* SECURITY DEFINER' <<<"$statements" |
	grep -vE 'SET search_path (TO|=) pg_catalog, pg_temp' |
	rule 'script: every security definer function pins search_path'

grep -E '^ CREATE VIEW' <<<"$statements" | grep -v 'security_barrier' |
	rule 'script: every view is a security barrier'

# Objects made and objects commented on, by kind and name.
objects() {
	grep -oE "^ $1 (UNLOGGED )?$2 jobq\.[a-z_]+" <<<"$statements" |
		sed -E 's/.* jobq\.//' | sort -u
}
for kind in FUNCTION PROCEDURE TABLE VIEW SEQUENCE TYPE; do
	comm -23 <(objects CREATE "$kind") <(objects 'COMMENT ON' "$kind") |
		rule "script: a comment on every ${kind,,}"
done

# Functions, procedures and views for users, in the script and in calls.tsv.
comm -3 <({ objects CREATE FUNCTION; objects CREATE PROCEDURE; objects CREATE VIEW; } | grep -v '^_' | sort -u) \
	<(sed -E '/^(#|$)/d; s/^view //; s/[(\t].*//; /^_/d' src/security/calls.tsv | sort -u) |
	rule 'calls.tsv lists every function and view, and no others'

# ---- C ----

grep -nE 'PG_VERSION_NUM' "${c_files[@]}" "${h_files[@]}" |
	grep -v '^src/compat\.h:' | rule 'C: versions differ in compat.h only'

awk '/ereport\((ERROR|FATAL|PANIC)/ { line = FNR; text = $0; has = 0 }
	/errcode/ { has = 1 }
	line && FNR == line + 3 { if (!has) print FILENAME ":" line ": " text; line = 0 }' \
	"${c_files[@]}" | rule 'C: every error has an SQLSTATE'

grep -nwE 'sprintf|vsprintf|strcpy|strcat|strncpy|gets|atoi|system|popen' \
	"${c_files[@]}" | grep -vE ':[[:space:]]*(/?\*)' |
	rule 'C: none of the dangerous functions'

grep -nE 'Define[A-Z][a-z]+CustomVariable' "${c_files[@]}" | grep -v '^src/guc\.c:' |
	grep -v '^src/pause\.c:' | rule 'C: settings are defined in guc.c only'

for file in "${c_files[@]}" "${h_files[@]}"; do
	head -n 2 "$file" | tail -n 1 | grep -q "^ \* ${file##*/}: " || echo "$file"
done | rule 'C: every file begins with what it is responsible for'

for file in "${c_files[@]}" "${h_files[@]}" test/unit/*.c; do
	expand -t 4 "$file" | awk -v f="$file" 'length($0) > 90 && !/"/ { print f ":" NR ": " $0 }'
done | rule 'C: no long lines (79 columns, 90 at the very most, texts apart)'

# Rooms of the house that must not know others.
grep -nE '#include "(engine|api|worker|security)/' src/dispatch/*.[ch] |
	rule 'C: dispatch knows neither rules nor faces'
grep -nE '#include "(engine|dispatch)/' src/store/*.[ch] |
	rule 'C: store knows neither rules nor shared memory'

unfinished='TO''DO|FIX''ME|XX''X'
grep -rnwE "$unfinished" src sql test bench examples docs ./*.md |
	rule 'nothing is left unfinished'

# ---- security ----

# Keys and passwords that look real. What redaction is tested with looks real,
# too, so it stands in files of its own.
secrets='-----BEGIN [A-Z ]*PRIVATE KEY|[a-z+]{3,12}://[^ /:@"<>$]*:[^ /@"<>$]+@'
secrets+='|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bglpat-[A-Za-z0-9_-]{20}'
secrets+='|\bxox[abprs]-[A-Za-z0-9-]{10}|\b[sr]k_live_[A-Za-z0-9]{16}|\bAIza[0-9A-Za-z_-]{35}'
secrets+='|\bjq_[0-9a-f]{64}\b|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}'
secrets+='|(PGPASSWORD|password) *= *['\''"]?[A-Za-z0-9+/]{8,}'
grep -rnIE -e "$secrets" --exclude-dir=.git --exclude='redact*' --exclude='*_redact*' \
	--exclude='lint.sh' . | cut -c1-200 | rule 'no file holds a key or a password'

find . -name '.env*' -o -name '*.pem' -o -name '*.key' -o -name '.pgpass' |
	rule 'no file is one that holds secrets'

# Tests that SECURITY.md names are there.
grep -oE '\b(test|sql|bench)/[A-Za-z0-9_/.-]*[A-Za-z0-9_]' SECURITY.md | sort -u |
	while read -r file; do
		[ -e "$file" ] || echo "$file"
	done | rule 'SECURITY.md names only tests that exist'

# Every promise of the five documents that this project began with has one row.
promises=$(
	for n in 0:26 1:27 2:17 3:19 4:23; do
		seq -f "P${n%:*}-%02g" "${n#*:}"
	done
)
comm -3 <(sort <<<"$promises") \
	<(sed -nE 's/^\| (P[0-9]-[0-9]{2}) \|.*/\1/p' SECURITY.md | sort) |
	rule 'SECURITY.md has one row for each promise'
sed -nE '/^\| P[0-9]-[0-9]{2} \|/{/^\|[^|]+\|[^|]+\|[^|]+\|[^|]+\|$/!p}' SECURITY.md |
	rule 'SECURITY.md: each row says what, how and where it is proved'

# ---- measurements ----

python3 -B bench/selftest.py 2>&1 |
	rule 'bench: cells are complete, lost work is an error, missed targets show'

# ---- tools ----

# Without the server's headers cppcheck does not know that ereport(ERROR) never
# returns; what is initialised, the compiler checks.
if command -v cppcheck >/dev/null; then
	cppcheck -q -j2 --enable=warning --inline-suppr --std=c11 -Isrc \
		--suppress=missingInclude --suppress=unknownMacro \
		--suppress=nullPointerRedundantCheck --suppress=uninitvar \
		--template='{file}:{line}: {id}: {message}' "${c_files[@]}" 2>&1 |
		rule 'cppcheck'
fi

if command -v clang-tidy >/dev/null; then
	checks='-*,bugprone-*'
	for noise in assignment-in-if-condition branch-clone \
		easily-swappable-parameters implicit-widening-of-multiplication-result \
		macro-parentheses narrowing-conversions reserved-identifier \
		sizeof-expression; do
		checks+=,-bugprone-$noise
	done
	# shellcheck disable=SC2016
	printf '%s\0' "${c_files[@]}" | xargs -0 -P2 -n4 bash -c \
		'clang-tidy --quiet --checks="$0" "${@:2}" -- -std=gnu11 -isystem "$1" -Isrc' \
		"$checks" "$include" 2>/dev/null |
		grep -E 'warning:|error:' | sort -u | rule 'clang-tidy'
fi

if command -v shellcheck >/dev/null; then
	shellcheck -f gcc -x test/*.sh test/deep/*.sh test/deep/postgres-valgrind \
		examples/*.sh bench/*.sh .ci/run | rule 'shellcheck'
fi

echo "1..$number"
exit "$bad"
