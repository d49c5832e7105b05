#!/bin/sh
# Installs QEMU if it is missing, for the tests on hosts that have kernels of their own.
set -eu
cd "$(dirname "$0")/.."

if ! command -v qemu-system-x86_64 >/dev/null; then
    if [ "$(id -u)" -ne 0 ]; then
        printf 'error: QEMU is missing\n  = help: run it as root, or: apt-get install --no-install-recommends qemu-system-x86\n' >&2
        exit 2
    fi
    echo 'installing QEMU'
    apt-get --quiet --quiet update
    DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet --yes --no-install-recommends install qemu-system-x86 >/dev/null
fi
