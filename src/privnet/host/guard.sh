# Managed by privnet. guard.sh load|peers|listing|check|watch: the guard, and the barrier that needs no firewall.
set -eu
. /etc/privnet/guard.conf
state=/run/privnet

listing() {
	{
		nft -s -t list table inet privnet && nft -s -t list table bridge privnet &&
			nft -s list set inet privnet peers && nft -s list set inet privnet peers6
	} | sha256sum | cut -d ' ' -f 1
}

# One at a time: a reload that is half recorded must not look like rules that somebody has touched.
locked() {
	mkdir -p "$state"
	exec 9> "$state/guard.lock"
	# Somebody frozen in the middle must not keep the guard from being loaded.
	flock -w 10 9 || true
}

# Commands that fill a set with the endpoints of mesh.conf: `address:port`, or `[address]:port`.
peers() {
	found=$(sed -n "s/^Endpoint = $2:[0-9]*\$/\\1/p" /etc/privnet/mesh.conf 2> /dev/null | sort -u | paste -s -d ,)
	[ -z "$found" ] || echo "add element inet privnet $1 { $found }"
}

every_peer() {
	peers peers '\([0-9.]*\)'
	peers peers6 '\[\([0-9a-f:.]*\)\]'
}

load() {
	# In one transaction, so that no packet of a peer meets an empty set.
	{ cat /etc/privnet/guard.nft && every_peer; } | nft -f -
	# While the mesh is away its prefix must not be reached by the default route.
	ip route replace unreachable "$MESH" metric 4294967295
	# The barrier of a prefix that the mesh had before goes.
	old=$(cat "$state/guard.mesh" 2> /dev/null || true)
	[ -z "$old" ] || [ "$old" = "$MESH" ] || ip route del unreachable "$old" metric 4294967295 2> /dev/null || true
	echo "$MESH" > "$state/guard.mesh"
	# What nft makes of the rules just loaded: a later listing that differs has been touched.
	listing > "$state/guard.sum"
	# Which rules they were, whatever the members of the sets.
	sed '/^\t\telements = {$/,/^\t\t}$/d; /^$/d' /etc/privnet/guard.nft | sha256sum | cut -d ' ' -f 1 > "$state/guard.structure"
}

# Whether the rules in the kernel are those that were loaded.
sound() {
	[ "$(listing 2> /dev/null)" = "$(cat "$state/guard.sum" 2> /dev/null)" ]
}

# Without the guard no VXLAN device may be up. They go down at once; the restart loads the guard and brings them back.
restore() {
	for path in /sys/class/net/pnx*; do
		[ ! -e "$path" ] || ip link set dev "${path##*/}" down
	done
	echo "the guard was changed, removed or stopped by another program; restoring it" >&2
	# A restart of nftables.service has stopped it and is about to start it: once is enough.
	if systemctl is-active --quiet privnet-guard.service; then
		systemctl restart privnet-guard.service
	else
		systemctl start privnet-guard.service
	fi
	# A restart brings the devices back that were up before. One that was stopped with nftables.service is not among them.
	! systemctl is-active --quiet privnet-networks.target || systemctl start --no-block privnet-networks.target
}

case $1 in
load)
	locked
	load
	;;
peers)
	# A guard that is not loaded, or not as it was, gets them when it is loaded.
	locked
	if sound; then
		{ echo 'flush set inet privnet peers; flush set inet privnet peers6' && every_peer; } | nft -f -
		listing > "$state/guard.sum"
	fi
	;;
listing)
	listing
	;;
check)
	# The lock is gone before systemd is asked for a restart, which takes it.
	(
		locked
		# Stopping nftables.service stops the guard, also when there was nothing to stop and no rule has gone.
		sound && systemctl is-active --quiet privnet-guard.service
	) || restore
	;;
watch)
	# Every change of nft's tables is announced; members of sets are not, they change with each run. A look now and then
	# covers what an overrun of the announcements would hide.
	{
		echo start
		(while sleep 30; do echo tick; done) &
		trap 'kill $!' EXIT
		nft monitor
	} | while read -r event; do
		case $event in
		start | tick | *privnet*) ;;
		*) continue ;;
		esac
		case $event in
		*" element "*) continue ;;
		esac
		sh /etc/privnet/lib/guard.sh check
	done
	;;
esac
