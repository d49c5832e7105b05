#!/bin/sh
# make test-faults: strike runs at every n-th place, from the k-th (PART=k/n). With EACH=command it is one place of each command,
# and every n-th of these. So many labs as JOBS says share the places, side by side; NUMBER is that of one of them, which this
# script starts of itself.
set -eu
cd "$(dirname "$0")/.."
export PART="${PART:-1/1}" JOBS="${JOBS:-1}" PRIVNET_FAULT_EACH="${EACH:-}"
if [ -z "${PRIVNET_FAULT_SEED:-}" ]; then
    # All labs draw the same, or two of them would strike at one command and none at another.
    PRIVNET_FAULT_SEED=$(shuf -i 0-999999 -n 1)
    export PRIVNET_FAULT_SEED
fi

if [ "$JOBS" = 1 ]; then
    export PRIVNET_FAULTS="$PART"
    exec sh setup/test.sh some -s tests/faults "$@"
fi
if [ -z "${NUMBER:-}" ]; then
    sh setup/setup.sh
    # Unlike a job in the background its processes are ended by ^C, and so take their hosts down.
    seq "$JOBS" | xargs -P "$JOBS" -I "{}" env "NUMBER={}" sh setup/faults.sh "$@"
    exit
fi

k=${PART%/*} n=${PART#*/}
PRIVNET_FAULTS=$((k + n * (NUMBER - 1)))/$((n * JOBS))
PYTEST_STATUS=$(mktemp)
export PRIVNET_FAULTS PYTEST_STATUS
# What is beside the places needs to be tested once.
tests=tests/faults
[ "$NUMBER" = 1 ] || tests=tests/faults/test_kill_anywhere.py
sh setup/test.sh some -s "$tests" "$@" 2>&1 | (trap '' INT && exec sed -u "s|^|$PRIVNET_FAULTS: |")
status=$(cat "$PYTEST_STATUS")
rm "$PYTEST_STATUS"
exit "$status"
