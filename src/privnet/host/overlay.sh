# Managed by privnet. overlay.sh create|up|guarded|down VNI: the VXLAN device of one private network, behind the guard.
set -eu
. "/etc/privnet/overlay/$2.conf"

wait_for() {
	tries=0
	until [ -e "/sys/class/net/$1" ]; do
		tries=$((tries + 1))
		if [ "$tries" -gt 300 ]; then
			echo "$1: networkd has not made this device within 30 s; see: networkctl status $1" >&2
			exit 1
		fi
		sleep 0.1
	done
}

# A host without IPv6, and a device whose MTU is too small for it (RFC 8200, 5), have nothing to switch off.
no_ipv6() {
	[ ! -e "/proc/sys/net/ipv6/conf/$1" ] || echo 1 > "/proc/sys/net/ipv6/conf/$1/disable_ipv6"
}

# What a bridge has behind a device by somebody's hand: `foreign DEVICE PLACE`.
foreign() {
	own=$(cat "/sys/class/net/$1/address")
	bridge fdb show dev "$1" | awk -v own="$own" '/ master / && $1 != own { print $1 }' |
		while read -r mac; do bridge fdb del "$mac" dev "$1" "$2"; done
}

case $1 in
create)
	# networkd makes nothing whose removal it has not noticed yet, and does not say so: it is asked until the devices are there.
	tries=0
	until [ -e "/sys/class/net/$BRIDGE" ] && [ -e "/sys/class/net/$VXLAN" ]; do
		[ $((tries % 10)) -ne 0 ] || networkctl reload
		tries=$((tries + 1))
		[ "$tries" -le 300 ] || break # the unit that needs them says so
		sleep 0.1
	done
	;;
up)
	sh /etc/privnet/lib/neighbour-table.sh
	wait_for "$BRIDGE"
	wait_for "$VXLAN"
	ip link set dev "$BRIDGE" mtu "$MTU"
	ip link set dev "$VXLAN" mtu "$MTU"
	no_ipv6 "$BRIDGE"
	no_ipv6 "$VXLAN"
	# The host takes no part in the network: an address here would let it reach containers.
	for device in "$BRIDGE" "$VXLAN"; do
		ip address flush dev "$device"
		ip -4 route flush table all dev "$device"
	done
	[ "$(cat "/sys/class/net/$BRIDGE/address")" = "$BRIDGE_MAC" ] || ip link set dev "$BRIDGE" address "$BRIDGE_MAC"
	# A bridge that ages nothing learns nothing, whoever puts a port into it.
	ip link set dev "$BRIDGE" nomaster type bridge ageing_time 0 stp_state 0 mcast_snooping 0 group_fwd_mask 0 \
		nf_call_iptables 0 nf_call_ip6tables 0 nf_call_arptables 0
	# A kernel without this setting refuses it.
	! grep -qs 1 "/sys/class/net/$BRIDGE/bridge/vlan_filtering" ||
		ip link set dev "$BRIDGE" type bridge vlan_filtering 0
	ip link set dev "$BRIDGE" up
	ip link set dev "$VXLAN" master "$BRIDGE"
	# A frame from another host must not teach the bridge where a local container is.
	ip link set dev "$VXLAN" type bridge_slave learning off flood on hairpin off isolated off neigh_suppress off guard off \
		root_block off fastleave off mcast_flood on bcast_flood on mcast_to_unicast off vlan_tunnel off locked off \
		proxy_arp off proxy_arp_wifi off group_fwd_mask 0
	foreign "$BRIDGE" self
	foreign "$VXLAN" master
	# A port that was made to forward nothing does so again after it was down.
	[ "$(cat "/sys/class/net/$VXLAN/brport/state")" = 3 ] || ip link set dev "$VXLAN" down
	bridge -batch "/etc/privnet/overlay/$2.fdb"
	ip link set dev "$VXLAN" up
	# Neighbours go when a device goes down, so they come after it is up.
	ip -batch "/etc/privnet/overlay/$2.neighbours"
	;;
guarded)
	# A start that was broken off because the guard has gone may have brought it up after all others had gone down.
	systemctl is-active --quiet privnet-guard.service || sh "$0" down "$2"
	;;
down)
	if [ -e "/sys/class/net/$VXLAN" ]; then
		ip link set dev "$VXLAN" down
	fi
	;;
esac
