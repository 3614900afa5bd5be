#!/bin/sh
# Runs every example and compares what it prints with expected/NAME.txt, which is written by hand from what the program must print.
#
#   check.sh BUILD NAME…    BUILD holds the programs; `make check` calls it
#   RUNNER, TIMEOUT         environment: a command in front of each program; seconds that one may take (60)
#
# What differs from run to run is masked: a number in parentheses is a pid and becomes (PID), a date with its time becomes TIME. Where
# the expected text says (PID1), (PID2), …, pids are numbered as they appear, so that it also says which ones are the same.
# The lines have one order, unless the expected text begins with a directive:
#   # order: any        the lines may come in every order
#   # args: WORDS       the program's arguments
# A program must also exit with 0, print nothing on stderr, and leave no process behind that holds its output open.
set -u
cd "$(dirname "$0")" || exit 2
build=${1:?directory with the programs}
shift
limit=${TIMEOUT:-60}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

directive() { # directive NAME FILE
    sed -n "s/^# $1: //p" "$2"
}

mask() { # mask NUMBERED
    awk -v numbered="$1" '
        {
            line = ""
            while (match($0, /\([0-9]+\)/)) {
                pid = substr($0, RSTART + 1, RLENGTH - 2)
                if (!(pid in number)) number[pid] = ++pids
                line = line substr($0, 1, RSTART) "PID" (numbered ? number[pid] : "")
                $0 = substr($0, RSTART + RLENGTH - 1)
            }
            line = line $0
            gsub(/[0-9]+-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]/, "TIME", line)
            print line
        }'
}

check() { # check NAME: says what is wrong with it, or nothing
    expected=expected/$1.txt
    [ -f "$expected" ] || { echo "$expected is missing"; return; }
    rm -f "$work"/*
    # shellcheck disable=SC2046,SC2086 # the words of RUNNER and of the arguments are meant to be split
    { timeout -k 5 "$limit" ${RUNNER:-} "$build/$1" $(directive args "$expected") 2>"$work/stderr"; echo $? >"$work/status"; } |
        timeout "$((limit + 10))" cat >"$work/stdout" || echo "a process that it left behind still holds its output open"

    grep -q '(PID[0-9]' "$expected" && numbered=1 || numbered=0
    grep -v '^# [a-z]*: ' "$expected" >"$work/expected"
    mask "$numbered" <"$work/stdout" >"$work/actual"
    if [ "$(directive order "$expected")" = any ]; then
        for text in expected actual; do sort -o "$work/$text" "$work/$text"; done
    fi

    status=$(cat "$work/status")
    [ "$status" = 124 ] && echo "it did not end within $limit seconds"
    [ "$status" = 0 ] || echo "exit status $status"
    [ -s "$work/stderr" ] && sed 's/^/stderr: /' "$work/stderr"
    diff -u -L expected -L actual "$work/expected" "$work/actual"
}

for name; do
    problem=$(check "$name")
    if [ -z "$problem" ]; then
        echo "ok      $name"
        passed=$((passed + 1))
    else
        echo "FAILED  $name"
        echo "$problem" | sed 's/^/        /'
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
