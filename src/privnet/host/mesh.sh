# Managed by privnet. mesh.sh key|assemble|up|start|follow|greet: this host's WireGuard key, and wg-quick's file with the key in it.
set -eu
umask 077
key=/etc/wireguard/privnet.key
old=/etc/privnet/wireguard.key # where earlier versions kept it
[ -s "$key" ] || [ ! -s "$old" ] || key=$old

# wireguard-go's device has a link-local address of its own otherwise; nothing of ours speaks IPv6. The kernel gives a
# device IPv6 anew, switched on, when its MTU becomes large enough for it (RFC 8200, 5).
no_ipv6() {
	[ ! -e /proc/sys/net/ipv6/conf/privnet ] || echo 1 > /proc/sys/net/ipv6/conf/privnet/disable_ipv6
}

# How large a packet between hosts may be is in mesh.conf. Without the lock the kernel takes anybody's word that it is
# less (ICMP's "fragmentation needed", which can be forged), and VXLAN is cut into pieces or has containers send less.
hold_mtu() {
	. /etc/privnet/guard.conf
	address=$(sed -n 's|^Address = \(.*\)/.*|\1|p' /etc/privnet/mesh.conf)
	mtu=$(sed -n 's/^MTU = //p' /etc/privnet/mesh.conf)
	# An interface that is down has no route; the next run sees to the one that it gets.
	ip route replace "$MESH" dev privnet proto kernel scope link src "$address" mtu lock "$mtu" || true
}

case $1 in
key)
	key=/etc/wireguard/privnet.key
	mkdir -p /etc/wireguard
	# What a link leads to may be anybody's to read.
	if [ -s "$old" ] || [ -L "$key" ] || [ ! -s "$key" ]; then
		if [ -s "$old" ]; then cat "$old"; elif [ -s "$key" ]; then cat "$key"; else wg genkey; fi > "$key.new"
		sync "$key.new"
		mv -T "$key.new" "$key"
	fi
	chown 0:0 "$key"
	chmod 0600 "$key"
	wg pubkey < "$key" > /dev/null
	;;
assemble)
	# First, so that whoever is interrupted here does it again: who is to be a peer is let in.
	sh /etc/privnet/lib/guard.sh peers || {
		# Its owner does not answer. Who went back would never come to where another one is begun.
		[ $? = 3 ] && systemctl restart --no-block privnet-guard.service
	}
	# The key is a shell builtin's argument here, never a program's.
	mkdir -p /etc/wireguard
	private=$(cat "$key")
	while IFS= read -r line; do
		printf '%s\n' "$line"
		[ "$line" != "[Interface]" ] || printf 'PrivateKey = %s\n' "$private"
	done < /etc/privnet/mesh.conf > /etc/wireguard/.privnet.conf.new
	sync /etc/wireguard/.privnet.conf.new
	mv -T /etc/wireguard/.privnet.conf.new /etc/wireguard/privnet.conf
	;;
up)
	# wireguard-go is now and then not ready yet when wg-quick configures its interface.
	tries=0
	until systemctl "$2" wg-quick@privnet.service; do
		tries=$((tries + 1))
		[ "$tries" -lt 10 ] || exit 1 # the run shows what the unit has written
		sleep 0.5
	done
	;;
start)
	# What wg-quick@privnet.service executes. wg-quick refuses an interface that is there; one that works is taken over.
	if ! wg show privnet > /dev/null 2>&1; then
		[ ! -e /sys/class/net/privnet ] || ip link delete dev privnet
		exec wg-quick up privnet
	fi
	address=$(sed -n 's/^Address = //p' /etc/privnet/mesh.conf)
	ip -o -4 address show dev privnet | awk '{ print $4 }' | while read -r old; do
		[ "$old" = "$address" ] || ip address delete "$old" dev privnet
	done
	ip address replace "$address" dev privnet
	ip link set dev privnet up
	sh "$0" follow
	;;
follow)
	# `wg syncconf` would take its addresses from each peer for a moment, also from those that stay as they are.
	[ "$(wg show privnet public-key)" = "$(wg pubkey < "$key")" ] || wg set privnet private-key "$key"
	port=$(sed -n 's/^ListenPort = //p' /etc/privnet/mesh.conf)
	[ "$(wg show privnet listen-port)" = "$port" ] || wg set privnet listen-port "$port"
	ip link set dev privnet mtu "$(sed -n 's/^MTU = //p' /etc/privnet/mesh.conf)"
	no_ipv6
	hold_mtu
	# The first line of `dump` is the interface's own, with its private key.
	{ echo && wg show privnet dump | tail -n +2; } | awk '
		NR == FNR { running[$1, $3, $4, $8]; next }
		$1 == "PublicKey" { peer = $3 }
		$1 == "Endpoint" { endpoint = $3 }
		$1 == "AllowedIPs" { allowed = $3 }
		$1 == "PersistentKeepalive" && !((peer, endpoint, allowed, $3) in running) {
			print "[Peer]\nPublicKey = " peer "\nEndpoint = " endpoint "\nAllowedIPs = " allowed
			print "PersistentKeepalive = " $3
		}' - /etc/privnet/mesh.conf | wg addconf privnet /dev/stdin
	{ echo && wg show privnet peers; } | awk '
		NR == FNR { if (FNR > 1) left[$1]; next }
		$1 == "PublicKey" { delete left[$3] }
		END { for (peer in left) print "peer", peer, "remove" }' - /etc/privnet/mesh.conf | xargs -r -n 300 wg set privnet
	;;
greet)
	# wireguard-go 0.0.20231211 and newer hands several datagrams to the kernel as one where that can take them (UDP GRO,
	# Linux 6.2), by a device with IFF_VNET_HDR. It takes them apart behind the guard, which has looked at the first alone:
	# a peer could speak as anybody in the others.
	if [ $(($(cat /sys/class/net/privnet/tun_flags 2> /dev/null || echo 0) & 0x4000)) -ne 0 ]; then
		echo "this wireguard-go joins datagrams, which the guard cannot look into: boot a kernel that has WireGuard, or install wireguard-go 0.0.20220316 (Debian 12's)" >&2
		exit 1
	fi
	# wireguard-go sends to all peers by one socket. What waits for a neighbour that does not answer counts as sent by it, and
	# may be as much as its whole buffer (unres_qlen_bytes, net.core.wmem_default; ip-sysctl): one dead host on this link would
	# hold up packets for all others.
	if [ -e /sys/class/net/privnet/tun_flags ]; then
		for file in /proc/sys/net/ipv[46]/neigh/*/unres_qlen_bytes; do
			case $file in
			*/lo/* | */pn[bcux][0-9a-f]*/* | */privnet/*) ;;
			*) [ "$(cat "$file")" -le 16384 ] || echo 16384 > "$file" ;;
			esac
		done
	fi
	no_ipv6
	hold_mtu
	# The peers of a host that was restarted still hold its old session, and would send into it for 15 s before they begin
	# a new one (WireGuard whitepaper, 6.5). A keepalive sent now makes this side begin it.
	for interval in 1 off; do
		wg show privnet peers | sed "s|.*|peer & persistent-keepalive $interval|" | xargs -r -n 400 wg set privnet
	done
	;;
esac
