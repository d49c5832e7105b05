# Managed by privnet. guard.sh prepare|hold|begin|load|apply|peers|listing|away: the guard, and the barrier that needs no
# firewall. Its tables have an owner (NFT_TABLE_F_OWNER, Linux 5.12): one nft process, which alone can change them and with
# which they go. No other program's `nft flush ruleset` takes them away.
set -eu
. /etc/privnet/guard.conf
state=/run/privnet

# In numbers: names are those of files such as /etc/protocols, which any package may bring later.
listing() {
	rules=$(
		nft -n -s -t list table inet privnet && nft -n -s -t list table bridge privnet &&
			nft -n -s list set inet privnet peers && nft -n -s list set inet privnet peers6
	) || return 1
	printf '%s\n' "$rules" | sed 's/ # progname .*//' | sha256sum | cut -d ' ' -f 1
}

# Whether the owner has died. Who waits for it in vain, in a reload, keeps systemd from noticing.
has_died() {
	[ -e "$state/guard.pid" ] && read -r pid < "$state/guard.pid" && ! kill -0 "$pid" 2> /dev/null
}

# One at a time: a reload that is half recorded must not look like rules that somebody has touched.
locked() {
	mkdir -p "$state"
	exec 9> "$state/guard.lock"
	tries=0
	# Somebody frozen in the middle must not keep the guard from being loaded.
	until flock -w 1 9 || [ "$tries" -ge 10 ] || has_died; do
		tries=$((tries + 1))
	done
}

# With a status of its own: only then is it of any use to begin another one.
unheard() {
	rm -f "$state/guard.$id"
	echo "the guard's nft does not answer; a new one takes its place by: systemctl restart privnet-guard" >&2
	exit 3
}

# When the owner has done all that it was told before. It does not say so of what succeeds: it is asked for a table that is
# not there, and its answer has that name.
answered() {
	tries=0
	echo "list table inet $1" >&8
	until grep -qF "$1" "$state/guard.answers"; do
		tries=$((tries + 1))
		# It may have died, and another one have begun.
		if [ "$tries" -gt 1000 ] || has_died || [ ! /proc/self/fd/8 -ef "$state/guard.commands" ]; then
			unheard
		fi
		sleep 0.01
	done
}

# Commands from standard input, in one transaction.
apply() {
	id=$$-$(cat /proc/sys/kernel/random/uuid)
	[ -p "$state/guard.commands" ] || unheard
	# Opened for both, or it would wait here for a reader that has died.
	exec 8<> "$state/guard.commands"
	size=$(stat -c %s "$state/guard.answers") || unheard
	[ "$size" -lt 65536 ] || : > "$state/guard.answers"
	# What somebody who was killed here has left to be done comes first.
	answered "before-$id"
	cat > "$state/guard.$id" || {
		rm -f "$state/guard.$id"
		exit 1
	}
	echo "include \"$state/guard.$id\"" >&8
	answered "after-$id"
	rm "$state/guard.$id"
	# Between both names: the last line of the first answer, what went wrong, the first line of the second.
	said=$(sed "1,/before-$id/d; /after-$id/,\$d" "$state/guard.answers" | sed '1d; $d')
	case $said in
	*Error:*)
		echo "$said" >&2
		exit 1
		;;
	esac
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
	rules=$(cat /etc/privnet/guard.nft && every_peer)
	printf '%s\n' "$rules" | apply
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

# All devices with these beginnings, at once: `links up|down pnx...`. One that goes meanwhile must not keep the others.
links() {
	to=$1
	shift
	for name; do
		for path in /sys/class/net/"$name"*; do
			[ ! -e "$path" ] || echo "link set dev ${path##*/} $to"
		done
	done | ip -force -batch - || true
}

# Without the guard no VXLAN device may be up, and no container's port. The units of the former follow, one after the other;
# this is all at once.
away() {
	links down pnx pnc
}

# Beside the owner, which alone holds this FIFO for writing: it ends with the owner, and all goes down before systemd has heard
# of anything. Told to end with the owner, it does this first.
witness() {
	trap '' TERM
	exec 6< "$state/guard.alive" 7>&-
	read -r _ <&6 || away
}

# Whether the rules in the kernel are those that were loaded.
sound() {
	listed=$(listing 2> /dev/null) && [ "$listed" = "$(cat "$state/guard.sum" 2> /dev/null)" ]
}

case $1 in
prepare)
	rm -f "$state"/guard.*-* "$state/guard.commands" "$state/guard.alive" "$state/guard.pid"
	mkfifo -m 0600 "$state/guard.commands" "$state/guard.alive"
	: > "$state/guard.answers"
	# Tables without an owner, from a saved set of rules for example, cannot be given one.
	for family in inet bridge; do
		nft delete table $family privnet 2> /dev/null || true
	done
	;;
hold)
	echo $$ > "$state/guard.pid"
	exec 7<> "$state/guard.alive"
	witness &
	# A FIFO that it has opened for both never ends.
	exec nft -i <> "$state/guard.commands" >> "$state/guard.answers" 2>&1
	;;
begin)
	# Rules that cannot be loaded are tried again, after a while.
	trap 'has_died || sleep 5' EXIT
	locked
	[ -e "$state/guard.begun" ] || first=yes
	: > "$state/guard.begun"
	load
	trap - EXIT
	# At the first attempt of a boot they are still to come. Later, when an owner has died or could not load its rules, all
	# are down, also those that systemd has not yet stopped.
	links up pnc
	if [ "${first:-no}" = no ] || systemctl is-active --quiet privnet-networks.target; then
		for link in /etc/systemd/system/privnet-networks.target.wants/privnet-overlay@*; do
			[ ! -L "$link" ] || echo "${link##*/}"
		done | xargs -r systemctl restart --no-block || true
	fi
	;;
load)
	locked
	load
	;;
apply)
	locked
	apply < "$2"
	;;
peers)
	# A guard that is not loaded, or not as it was, gets them when it is loaded.
	locked
	if sound; then
		{ echo 'flush set inet privnet peers; flush set inet privnet peers6' && every_peer; } | apply
		listing > "$state/guard.sum"
	fi
	;;
listing)
	listing
	;;
away)
	away
	;;
esac
