# Managed by privnet. overlay.sh up|down VNI: the VXLAN device of one private network, behind the guard.
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

no_ipv6() {
	echo 1 > "/proc/sys/net/ipv6/conf/$1/disable_ipv6"
}

case $1 in
up)
	wait_for "$BRIDGE"
	wait_for "$VXLAN"
	# A host without IPv6 has nothing to switch off.
	if [ -d /proc/sys/net/ipv6 ]; then
		no_ipv6 "$BRIDGE"
		no_ipv6 "$VXLAN"
	fi
	# The host takes no part in the network: an address here would let it reach containers.
	ip address flush dev "$BRIDGE"
	ip address flush dev "$VXLAN"
	ip link set dev "$BRIDGE" mtu "$MTU" up
	ip link set dev "$VXLAN" mtu "$MTU" master "$BRIDGE"
	# A frame from another host must not teach the bridge where a local container is.
	bridge link set dev "$VXLAN" learning off flood on
	bridge -batch "/etc/privnet/overlay/$2.fdb"
	ip link set dev "$VXLAN" up
	# Neighbours go when a device goes down, so they come after it is up.
	ip -batch "/etc/privnet/overlay/$2.neighbours"
	;;
down)
	if [ -e "/sys/class/net/$VXLAN" ]; then
		ip link set dev "$VXLAN" down
	fi
	;;
esac
