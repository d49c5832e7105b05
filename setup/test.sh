#!/bin/sh
# make test: what is missing, then the whole test suite, two files at a time, those that boot hosts first. With
# PYTEST_STATUS=FILE its exit status goes there and ours is 0, so that `make` has nothing to add after pytest's own summary.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
    printf 'error: the tests boot real hosts on this machine, which needs root\n  = help: sudo make test, or: make check\n' >&2
    exit 2
fi
sh setup/setup.sh
[ $# -gt 0 ] || set -- -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/machines
status=0
.venv/bin/python -m pytest "$@" </dev/null || status=$?
[ -n "${PYTEST_STATUS:-}" ] || exit "$status"
echo "$status" >"$PYTEST_STATUS"
