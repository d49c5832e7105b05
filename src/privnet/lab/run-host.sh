#!/bin/sh
# Runs one lab host until it is powered off: run-host.sh DIRECTORY
#
# DIRECTORY/settings holds shell assignments, DIRECTORY/{pair,port,uplink}.batch lines for `ip -batch`,
# DIRECTORY/nspawn one argument of systemd-nspawn a line. A host that reboots gets a new network namespace:
# in the old one its devices, tables and rules would have survived, and the reboot would prove nothing.
set -eu
directory=$1
# shellcheck source=/dev/null
. "$directory/settings"

# One keeper a host, also when a second is started while this one is still at the beginning.
exec 9>"$directory/keeper.lock"
flock --nonblock 9 || exit 0

# A process id is given again; with its start time it is an identity.
record() {
    set -- "$1" "$(cat "/proc/$2/stat")"
    # shellcheck disable=SC2086 # the fields are wanted one by one; the name before them has no space
    set -- "$1" $2
    file=$1
    shift
    printf '%s %s\n' "$1" "${22}" >"$file.new"
    mv "$file.new" "$file"
}

# In cgroup v2 a group has the controllers that the groups above it pass on.
delegate() {
    [ "$1" != "$delegated" ] || return 0
    delegate "${1%/*}"
    for controller in $(cat "${1%/*}/cgroup.controllers" 2>/dev/null); do
        echo "+$controller" >"${1%/*}/cgroup.subtree_control" 2>/dev/null || true # not all can be shared
    done
}

# nspawn and the host are alone in a control group: two hosts in one would see and end each other's services.
enter() {
    read -r self _ </proc/self/stat # in a subshell, $$ is the shell that began
    for root in $control_groups; do
        # twice: another lab may just be removing the directory above
        mkdir -p "$root/$1" 2>/dev/null || mkdir -p "$root/$1"
        echo "$self" >"$root/$1/cgroup.procs" 2>/dev/null || true # cpuset takes none until it is set up
        delegate "$root/$1" # now that nobody is left in a group that has others below it
    done
}

unplug() {
    ip -n "$fabric" link delete dev "$port" 2>/dev/null || true
    ip netns delete "$namespace" 2>/dev/null || true
}

plug() {
    unplug
    ip netns add "$namespace"
    ip -batch "$directory/pair.batch"
    ip -n "$fabric" -batch "$directory/port.batch"
    ip -n "$namespace" -batch "$directory/uplink.batch"
}

host() {
    enter host
    set --
    while IFS= read -r argument; do
        set -- "$@" "$argument"
    done <"$directory/nspawn"
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network exec systemd-nspawn "$@" 9>&-
}

delegated=/sys/fs/cgroup
if [ -z "$control_groups" ]; then # started in a systemd scope of its own
    control_groups=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
    delegated=$control_groups
fi
record "$directory/keeper.process" $$
enter keeper
status=133 # systemd-nspawn's word for "start me again"
while [ "$status" -eq 133 ]; do
    plug
    host &
    record "$directory/nspawn.process" $!
    status=0
    wait $! || status=$?
done
unplug
exit "$status"
