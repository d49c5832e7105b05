#!/bin/sh
# make check, make test, make test-deep: what is missing, then the tests of a tier (tests/tiers.py).
#
# test.sh check [ARGUMENTS]   tests without hosts
# test.sh test                these, and then the tests on hosts that prove a promise or a feature
# test.sh deep [ARGUMENTS]    all other tests on hosts, machines among them
# test.sh machines [ARGUMENTS]  of these, machines alone
# test.sh some ARGUMENTS      pytest with these arguments
#
# With PYTEST_STATUS=FILE the tests' exit status goes there and ours is 0, so that `make` adds nothing after pytest's own summary.
set -eu
cd "$(dirname "$0")/.."
tier=$1
shift

if [ "$tier" != check ] && [ "$(id -u)" -ne 0 ]; then
    printf 'error: the tests boot real hosts on this machine, which needs root\n  = help: sudo make test, or: make check\n' >&2
    exit 2
fi
sh setup/setup.sh
case $tier in deep | machines) sh setup/machines.sh ;; esac

tests() {
    .venv/bin/python -m pytest "$@" </dev/null
}
# Thousands of small files are written to be read once, and lock files wait for the disk: in memory, where 1 GiB is free.
memory=/dev/shm
# Some tests wait: one process more than processors.
without_hosts() (
    if [ -w $memory ] && [ "$(df --output=avail $memory | tail -n 1)" -gt 1048576 ]; then
        TMPDIR=$(mktemp -d -p $memory privnet-check.XXXXXX)
        export TMPDIR
        trap 'rm -rf "$TMPDIR"' EXIT
    fi
    tests -q -m check -n "$(($(nproc) + 1))" --dist worksteal "$@"
)
# One process runs all tests of a file, and modules in the order in which pytest has sorted them.
on_hosts() {
    tests -n 2 --dist loadfile --no-loadscope-reorder "$@"
}

status=0
case $tier in
    check) without_hosts "$@" || status=$? ;;
    test) { without_hosts && on_hosts -m test; } || status=$? ;;
    deep) on_hosts -m deep "$@" || status=$? ;;
    machines) tests -m machines "$@" || status=$? ;;
    some) tests "$@" || status=$? ;;
esac
[ -n "${PYTEST_STATUS:-}" ] || exit "$status"
echo "$status" >"$PYTEST_STATUS"
