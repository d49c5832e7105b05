# Managed by privnet. neighbour-table.sh: how many neighbours this host's kernel may know, of all namespaces together. Never
# fewer than it may already. Started by each overlay, and by a run that finds fewer.
set -eu
. /etc/privnet/neighbour-table.conf

at_least() {
	# A host that is a container itself has no limits of its own.
	[ -e "$1" ] || return 0
	# `read` would get one byte: it asks for them one by one, and the kernel has no second answer for a setting.
	[ "$(cat "$1")" -ge "$2" ] || echo "$2" > "$1"
}

for family in ipv4 ipv6; do
	entries=$IPV4
	[ $family = ipv4 ] || entries=$IPV6
	at_least /proc/sys/net/$family/neigh/default/gc_thresh3 "$entries"
	# From here on the kernel looks for entries that nobody needs, at each new one.
	at_least /proc/sys/net/$family/neigh/default/gc_thresh2 $((entries / 2))
done
