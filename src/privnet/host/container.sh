# Managed by privnet. container.sh namespace|name|up|down|forget PORT: one network namespace and its interface in its private
# network. Naming the namespace and taking its name needs the host's own mounts; all the rest runs in a unit's sandbox.
set -eu
port=$2
. "/etc/privnet/containers/$port.conf"
path=/run/netns/$NETNS
namespace=$path

# Only the network is the namespace's; `ip -n` would mount a /sys of it, which the unit's sandbox forbids.
within() {
	nsenter --net="$namespace" "$@"
}

inside() {
	within ip "$@"
}

# Both ends by their indexes: the only proof that the namespace's interface is this port's.
attached() {
	[ -e "/sys/class/net/$port" ] && [ "$(cat "/sys/class/net/$port/address")" = "$HOST_MAC" ] &&
		inside -o link show dev pn0 2> /dev/null | grep -q " pn0@if$(cat "/sys/class/net/$port/ifindex"): "
}

is_namespace() {
	[ "$(stat -f -c %T "$path" 2> /dev/null)" = nsfs ]
}

# Whether the name leads to what is not this container's: the host's own namespace, or that of another container.
foreign() {
	[ ! "$path" -ef /proc/self/ns/net ] || return 0
	other=$(inside -o link show dev pn0 2> /dev/null | sed -n 's/.* pn0@if\([0-9]*\): .*/\1/p')
	[ -n "$other" ] || return 1
	other=$(grep -lsx "$other" /sys/class/net/pnc*/ifindex | cut -d / -f 5)
	[ -e "/etc/privnet/containers/$other.conf" ] && ! grep -qx "NETNS=$NETNS" "/etc/privnet/containers/$other.conf"
}

forget_name() {
	! is_namespace || umount --lazy "$path"
	rm -f "$path"
}

give_name() {
	(umask 777 && : > "$path")
	mount --bind "$1" "$path"
}

guarded() {
	nft list tables bridge | grep -qx 'table bridge privnet'
}

case $1 in
namespace)
	# What `ip netns add` does, but that the unit comes with a network namespace of its own already, which is given its name
	# here: so it needs neither sockets nor the right to make namespaces.
	mkdir -p -m 755 /run/netns
	(
		flock 9
		# With peers of its own, not those of /run: there each name would be mounted once more, below it, and systemd looks at
		# all mounts many times for each command that it starts in a sandbox.
		mountpoint -q /run/netns || { mount --bind /run/netns /run/netns && mount --make-private /run/netns; }
		mount --make-rshared /run/netns
	) 9< /run/netns
	if ! is_namespace; then
		rm -f "$path"
		give_name /proc/self/ns/net
	fi
	;;
name)
	# By a run, with the host's own mounts. The name gets back the namespace that has this port's other end: what lies under
	# another mount, or what a process still lives in. Ends with 1 where a new one has to be made.
	until attached || [ "$(awk -v path="$path" '$5 == path' /proc/self/mountinfo | wc -l)" -lt 2 ]; do
		umount --lazy "$path"
	done
	if ! attached && [ -e "/sys/class/net/$port" ]; then
		stat -L -c '%i %n' /proc/[0-9]*/ns/net 2> /dev/null | sort -u -k 1,1 | while read -r _ namespace; do
			if attached; then
				forget_name
				give_name "$namespace"
				break
			fi
		done
	fi
	if ! attached && { ! is_namespace || foreign; }; then
		forget_name
		exit 1
	fi
	;;
up)
	tries=0
	until [ -e "/sys/class/net/$BRIDGE" ]; do
		tries=$((tries + 1))
		if [ "$tries" -gt 300 ]; then
			echo "$BRIDGE: networkd has not made this bridge within 30 s; see: networkctl status $BRIDGE" >&2
			exit 1
		fi
		sleep 0.1
	done
	inside link set dev lo up
	if ! attached; then
		if foreign; then
			echo "$path is the namespace of the host, or of another container: the next run repairs it" >&2
			exit 1
		fi
		# The namespace of an application that has changed its network keeps everything but its interface.
		inside link del dev pn0 2> /dev/null || true
		ip link del dev "$port" 2> /dev/null || true
		ip link add name "$port" address "$HOST_MAC" mtu "$MTU" type veth \
			peer name pn0 address "$MAC" mtu "$MTU" netns "$NETNS"
	fi
	# Before IPv6 is switched off: a device whose MTU is too small for it (RFC 8200, 5) has nothing to switch off.
	ip link set dev "$port" mtu "$MTU"
	inside link set dev pn0 mtu "$MTU"
	[ ! -e "/proc/sys/net/ipv6/conf/$port" ] || echo 1 > "/proc/sys/net/ipv6/conf/$port/disable_ipv6"
	within sh -c '[ ! -e /proc/sys/net/ipv6/conf/pn0 ] || echo 1 > /proc/sys/net/ipv6/conf/pn0/disable_ipv6'
	ip address flush dev "$port"
	ip -4 route flush table all dev "$port"
	ip link set dev "$port" master "$BRIDGE"
	# The one MAC of this port is known; frames for any other are not its business.
	ip link set dev "$port" type bridge_slave learning off flood off guard off hairpin off isolated off neigh_suppress off \
		root_block off fastleave off mcast_flood on bcast_flood on mcast_to_unicast off vlan_tunnel off locked off \
		proxy_arp off proxy_arp_wifi off group_fwd_mask 0
	bridge fdb show dev "$port" | awk -v own="$MAC" -v host="$HOST_MAC" '/ master / && $1 != own && $1 != host { print $1 }' |
		while read -r mac; do bridge fdb del "$mac" dev "$port" master; done
	bridge fdb replace "$MAC" dev "$port" master static
	# A port that was made to forward nothing does so again after it was down.
	[ "$(cat "/sys/class/net/$port/brport/state")" = 3 ] || ip link set dev "$port" down
	inside link set dev pn0 address "$MAC"
	inside -o -4 addr show dev pn0 | awk '{ print $4 }' | while read -r old; do
		[ "$old" = "$ADDRESS" ] || inside addr del "$old" dev pn0
	done
	inside addr replace "$ADDRESS" dev pn0
	inside link set dev pn0 up
	# Without the guard a container could speak as its neighbour and to its host. Who loads the guard brings up all ports.
	! guarded || ip link set dev "$port" up
	# It may have gone in between.
	guarded || ip link set dev "$port" down
	;;
down)
	ip link del dev "$port" 2> /dev/null || true
	;;
forget)
	# The namespace goes with its last port: a container whose application changed its network has a new one already.
	if [ "$(grep -lsx "NETNS=$NETNS" /etc/privnet/containers/*.conf | grep -cv "/$port.conf$")" -eq 0 ]; then
		forget_name
	fi
	;;
esac
