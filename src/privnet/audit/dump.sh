# What the audit asks a host, once: files, units and kernel of everything that privnet has there. Changes nothing, prints no
# secret. $MARK begins each section's line, so that no file name or unit can pose as one.
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
section() { printf '\n%s %s\n' "$MARK" "$1"; }
ours() { case $1 in *.ap-* | pn-*) return 0 ;; esac; return 1; }

# All of it is read before any of it runs, and nothing of it can read the rest as its input.
{
section user
id -u

section files
find /etc/privnet /etc/systemd/network /etc/systemd/networkd.conf.d /etc/systemd/system /run/systemd/system /etc/netns \
	/etc/wireguard/privnet.conf \( -path '/etc/privnet/.stage.*' -prune \) -o \
	\( -path '/etc/privnet/*' -o -name '*privnet*' -o -path '*/privnet-*' -o -path '/etc/netns/*' \) \
	! -type d -printf '%y %m %U:%G %p\t%l\n' 2> /dev/null

section digests
find /etc/privnet /etc/systemd/network /etc/systemd/networkd.conf.d /etc/systemd/system /run/systemd/system /etc/netns \
	-type f \( -path '/etc/privnet/*' -o -name '*privnet*' -o -path '*/privnet-*' -o -path '/etc/netns/*' \) \
	! -path /etc/privnet/wireguard.key ! -path '/etc/privnet/.stage.*' -exec sha256sum {} + 2> /dev/null

section config
if [ -r /etc/wireguard/privnet.conf ]; then
	sed '/^PrivateKey = /d' /etc/wireguard/privnet.conf | sha256sum | cut -d ' ' -f 1
	sed -n 's/^PrivateKey = //p' /etc/wireguard/privnet.conf | wg pubkey 2> /dev/null
fi

section units
systemctl show --all --no-pager --property=Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload \
	'privnet-*' wg-quick@privnet.service systemd-networkd.service privnet-guard.service privnet-restore.service privnet-networks.target

section wireguard
# A dump's first line begins with the private key; the second field of the others is the preshared key.
wg show privnet dump 2> /dev/null |
	awk -F '\t' 'NR == 1 { print "self", $2, $3, $4; next } { print "peer", $1, ($2 == "(none)" ? "no" : "yes"), $3, $4, $8 }'

section links
ip -d -j link show

section addresses
ip -j addr show

section routes
ip -4 route show table all type unreachable
ip -4 route show table all type unicast

section fdb
bridge fdb show

section neighbours
ip neigh show nud all

section sysctl
for path in /proc/sys/net/ipv6/conf/pn[bxc]*/disable_ipv6; do
	[ -e "$path" ] && printf '%s %s\n' "$path" "$(cat "$path")"
done

section owner
# Whether it would hear something, where it can be told something and its answer be read.
owner=/proc/$(systemctl show -P MainPID privnet-guard.service)
if [ "$owner/fd/0" -ef /run/privnet/guard.commands ] && [ "$owner/fd/2" -ef /run/privnet/guard.answers ]; then
	sed -n 's/^State:[[:space:]]*//p' "$owner/status"
fi

section tables
nft list tables

section saved
# The host's own rules, where nftables.service and people keep them.
grep -rlsE -D skip '^[[:space:]]*(add |create )?table (inet|bridge) privnet([[:space:]{]|$)' \
	/etc/nftables.conf /etc/nftables /etc/nftables.d

section inet
nft -s list table inet privnet 2> /dev/null

section bridge
nft -s list table bridge privnet 2> /dev/null

section namespaces
for path in /run/netns/*; do
	name=${path##*/}
	ours "$name" || continue
	printf '%s\t%s\t%s\n' "$name" "$(nsenter --net="/run/netns/$name" ip -d -j addr show 2> /dev/null)" \
		"$(nsenter --net="/run/netns/$name" ip route show table all default 2> /dev/null | head -n 1)"
done

section end
} < /dev/null
