#!/bin/sh
# Prepares a Debian 12 or 13 machine for privnet: missing packages, and .venv with privnet in it.
#
# Run as often as you like: what is there is left alone. Python packages are those of requirements.lock and no others. No
# Debian package starts or enables a network service (nftables.service and wg-quick@ stay disabled; of dnsmasq only the
# program is installed, not the daemon).
set -eu
cd "$(dirname "$0")/.."

packages='
    bind9-dnsutils dnsmasq-base dpkg-dev git iproute2 iputils-ping make mmdebstrap netcat-openbsd nftables
    openssh-client procps python3-venv systemd-container tcpdump util-linux wireguard-go wireguard-tools
'
python_at_least='(3, 11)'
began=$(date +%s)

say() {
    printf '[setup %3d s] %s\n' "$(($(date +%s) - began))" "$1"
}

refuse() {
    printf 'error: %s\n  = help: %s\n' "$1" "$2" >&2
    exit 2
}

missing_packages() {
    # shellcheck disable=SC2086 # one argument a package
    dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' $packages 2>/dev/null |
        sed -n 's/^installed //p' | sort >"$work/installed"
    # shellcheck disable=SC2086
    printf '%s\n' $packages | sort | comm -23 - "$work/installed" | tr '\n' ' '
}

install_packages() {
    [ "$(id -u)" -eq 0 ] || refuse "these Debian packages are missing: $1" "run it as root, or: apt-get install $1"
    say "installing Debian packages: $1"
    apt-get --quiet --quiet update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet --yes --no-install-recommends install $1 >"$work/apt.log" 2>&1 ||
        { cat "$work/apt.log" >&2 && refuse "apt-get could not install: $1" 'see what it said above'; }
}

# The environment is made again only when what it is made from has changed.
fingerprint() {
    { cat pyproject.toml requirements.lock setup/setup.sh && python3 --version && pwd; } | sha256sum | cut -d ' ' -f 1
}

# Debian's own python3, or the one that comes before it in PATH if that can make environments.
usable_python() {
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -c "import ensurepip, sys; sys.exit(sys.version_info < $python_at_least)" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    refuse "no python3 here is new enough ($python_at_least) and has the module ensurepip" 'use Debian 12 or later'
}

pip_install() {
    .venv/bin/python -m pip install --quiet "$@" >"$work/pip.log" 2>&1 ||
        { cat "$work/pip.log" >&2 && refuse "pip could not install: $*" 'see what it said above'; }
}

make_environment() {
    [ -w . ] && { [ ! -e .venv ] || [ -w .venv ]; } ||
        refuse "$(id -un) may not write to $(pwd)/.venv" 'run it as the user whose clone this is, or in a clone of your own'
    python=$(usable_python)
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
        say 'making .venv'
        rm -rf .venv
        "$python" -m venv .venv
    fi
    say 'installing privnet and what it needs into .venv (about half a minute)'
    pip_install --require-hashes --requirement requirements.lock
    pip_install --no-deps --no-build-isolation --editable .
    .venv/bin/python -m pip check >"$work/pip.log" 2>&1 ||
        { cat "$work/pip.log" >&2 && refuse 'requirements.lock does not have all that pyproject.toml asks for' 'make lock'; }
}

[ -f /etc/debian_version ] || refuse 'this is not a Debian machine' 'privnet and its lab are made for Debian 12 and 13'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
missing=$(missing_packages)
[ -z "$missing" ] || install_packages "$missing"

stamp=.venv/.setup
wanted=$(fingerprint)
exec 9<. # this directory
flock 9 # two at once would install into one environment
if [ "$(cat $stamp 2>/dev/null || true)" != "$wanted" ]; then
    make_environment
    echo "$wanted" >$stamp
    say 'done'
fi
# pyinfra writes no bytecode (sys.dont_write_bytecode), so each run would compile privnet anew.
.venv/bin/python -m compileall -q src || :
