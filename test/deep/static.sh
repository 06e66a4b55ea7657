#!/bin/bash
# static.sh COPY PG_CONFIG: the C code under gcc's analyser, cppcheck and
# clang-tidy, with all that they can find but what the lists beside this file
# leave out, each with its reason. Prints TAP, one test a tool. Changes nothing.
set -uo pipefail

cd "$1" || exit 1
include=$("$2" --includedir-server)
shopt -s lastpipe
c_files=(src/*.c src/*/*.c)
number=0
bad=0

# found NAME: passes when nothing arrives on standard input.
found() {
	local what
	what=$(head -n 200)
	number=$((number + 1))
	if [ -n "$what" ]; then
		bad=1
		echo "not ok $number - $1"
		echo "$what"
	else
		echo "ok $number - $1"
	fi
}

# without LIST: the names that a list begins its lines with.
without() {
	sed -n 's/^\([a-z][a-zA-Z0-9-]*\)[[:space:]].*/\1/p' "test/deep/$1"
}

# For the shells that xargs starts.
export include quiet checks
quiet=$(without analyzer.txt | sed 's/^/-Wno-/' | tr '\n' ' ')
checks="-*,bugprone-*,cert-*$(without clang-tidy.txt | sed 's/^/,-/' | tr -d '\n')"

# shellcheck disable=SC2016
printf '%s\0' "${c_files[@]}" | xargs -0 -P2 -n1 bash -c \
	'gcc -std=gnu11 -O2 -fPIC -fanalyzer $quiet -isystem "$include" -Isrc \
		-DJOBQ_TEST_BUILD -c -o /dev/null "$0"' 2>&1 | found 'gcc -fanalyzer'

cppcheck -q -j2 --enable=warning,performance,portability --inconclusive \
	--force --inline-suppr --std=c11 -Isrc -DJOBQ_TEST_BUILD \
	--suppressions-list=test/deep/cppcheck.txt \
	--template='{file}:{line}: {id}: {message}' "${c_files[@]}" 2>&1 |
	found 'cppcheck, all configurations'

# shellcheck disable=SC2016
printf '%s\0' "${c_files[@]}" | xargs -0 -P2 -n4 bash -c \
	'clang-tidy --quiet --checks="$checks" "$0" "$@" -- -std=gnu11 \
		-isystem "$include" -Isrc -DJOBQ_TEST_BUILD' 2>/dev/null |
	grep -E 'warning:|error:' | sort -u | found 'clang-tidy bugprone, cert'

echo "1..$number"
exit "$bad"
