# Managed by privnet. guard.sh load: the guard, and the barrier that needs no firewall.
set -eu
. /etc/privnet/guard.conf

listing() {
	nft -s -t list table inet privnet && nft -s -t list table bridge privnet
}

case $1 in
load)
	nft -f /etc/privnet/guard.nft
	# While the mesh is away its prefix must not be reached by the default route.
	ip route replace unreachable "$MESH" metric 4294967295
	# What nft makes of the rules just loaded: a later listing that differs has been touched.
	mkdir -p /run/privnet
	listing | sha256sum | cut -d ' ' -f 1 > /run/privnet/guard.sum
	# Which rules they were, whatever the members of the sets.
	sed '/^\t\telements = {$/,/^\t\t}$/d; /^$/d' /etc/privnet/guard.nft | sha256sum | cut -d ' ' -f 1 > /run/privnet/guard.structure
	;;
listing)
	listing | sha256sum | cut -d ' ' -f 1
	;;
esac
