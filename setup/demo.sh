#!/bin/sh
# make demo: a fleet of three hosts on this machine, from nothing to an audited private network. Run as often as you like.
set -eu
cd "$(dirname "$0")/.."
began=$(date +%s)
bin=.venv/bin

if [ -t 1 ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m')
else
    bold='' plain=''
fi

step() {
    printf '\n%s[demo %3d s] %s%s\n' "$bold" "$(($(date +%s) - began))" "$1" "$plain"
}

# show HELP COMMAND...: print a command as one would type it, and run it.
show() {
    help=$1
    shift
    printf '$ %s\n' "$*"
    "$@" || stop "$*" "$help"
}

# A container, its host, and the name of another one of its network on another host: HOST NAMESPACE NAME.
two_containers() {
    $bin/privnet names inventory/lab --format json | $bin/python -c '
import json, sys

one = [row for row in json.load(sys.stdin) if row["type"] == "A" and row["name"].split(".")[0].isdigit()]
pairs = ((a, b) for a in one for b in one if a["network"] == b["network"] and a["hosts"] != b["hosts"])
for a, b in pairs:
    print(a["hosts"][0], ".".join(a["name"].split(".")[:3]), b["name"])
    break
'
}

stop() {
    printf '\nerror: this failed: %s\n  = help: %s\n' "$1" "$2" >&2
    exit 1
}

if [ "$(id -u)" -ne 0 ]; then
    printf 'error: the demo boots three hosts on this machine, which needs root\n  = help: sudo make demo\n' >&2
    exit 2
fi

step '1 of 6: what is missing on this machine (the first time: about a minute)'
sh setup/setup.sh

step '2 of 6: three Debian hosts on an underlay of their own (the first time: about a minute more)'
show 'do as it says above, or begin again: git checkout inventory/lab; make down' \
    $bin/privnet check inventory/lab
show 'it says above what is missing, or that the lab runs another fleet: `PRIVNET_LAB=demo make demo` leaves that alone' \
    $bin/privnet lab up inventory/lab

step '3 of 6: two private networks over them, with the one command there is'
show 'it says above which host failed and why; `make demo` again goes on from there, `make down` begins from nothing' \
    $bin/pyinfra -y inventory/lab.py deploys/private_network.py

step '4 of 6: are they what the YAML says? The audit asks every host and believes nobody'
show 'the deviations are above; `make demo` again repairs them' \
    $bin/privnet audit inventory/lab

step '5 of 6: every name that a container can ask for'
show 'it says above why' $bin/privnet names inventory/lab

step '6 of 6: one container asks for another by name and reaches it on another host, through WireGuard'
two_containers | while read -r host namespace name; do
    show 'the audit says more: .venv/bin/privnet audit inventory/lab' \
        $bin/privnet lab exec "$host" -- ip netns exec "$namespace" ping -c 2 -i 0.2 "$name" </dev/null
done

step 'done; the hosts stay up'
cat <<'TEXT'
What to try next (README.md has the whole tour):

  . .venv/bin/activate                          privnet and pyinfra without .venv/bin/

  edit inventory/lab/projects/shop.yaml         in storefront, make web: [lab-1, lab-2] into web: [lab-1, lab-3]
  privnet plan inventory/lab                    what will change: one container moves and keeps its address
  pyinfra inventory/lab.py deploys/private_network.py
                                                the same command as above; it asks before it changes anything
  privnet audit inventory/lab                   all as planned again

  privnet lab exec lab-1 -- wg show             look around; any command, on any host
  make down                                     remove the hosts
TEXT
