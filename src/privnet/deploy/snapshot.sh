# The one question a run asks a host: what is there of privnet, on disk and in the kernel. Changes nothing, prints no secret.
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
section() { printf '##privnet %s\n' "$1"; }
etc=/etc/privnet

section system
# What a program, or a way back, is doing at this moment is no state to compare with.
if [ -r /run/privnet/program.lock ]; then
	exec 8< /run/privnet/program.lock
	flock --shared --wait 20 8 || echo 'busy yes'
fi
printf 'user %s\n' "$(id -u)"
printf 'machine %s\n' "$(cat /etc/machine-id)"
if [ -e /sys/module/wireguard ] || modprobe -nq wireguard 2> /dev/null; then echo 'wireguard kernel'; fi
[ -d /run/systemd/system ] && echo 'systemd yes'
set -- systemd-networkd.service systemd-networkd-wait-online.service privnet-guard.service privnet-restore.service \
	privnet-networks.target wg-quick@privnet.service
# systemctl has a line for each, until it meets a unit that is not there.
states=$(systemctl is-enabled "$@" 2> /dev/null)
if [ "$(printf '%s\n' "$states" | wc -l)" = $# ]; then
	for state in $states; do
		printf 'enabled %s %s\n' "$1" "$state"
		shift
	done
else
	for unit; do printf 'enabled %s %s\n' "$unit" "$(systemctl is-enabled "$unit" 2> /dev/null)"; done
fi
# Also one in /run that a file in /etc hides.
find /etc/systemd/system /run/systemd/system -maxdepth 1 \( -name 'privnet-*' -o -name wg-quick@privnet.service \) \
	-lname /dev/null -printf 'masked %f\n' 2> /dev/null
[ ! -r /run/privnet/forwarder ] || printf 'forwarder %s\n' "$(cat /run/privnet/forwarder)"
printf 'time %s\n' "$(date +%s)"
for path in /etc /run /var/lib; do
	stat -f -c "disk $path %a %S %d" $path
done
printf 'release %s\n' "$(systemctl --version | awk 'NR == 1 { print $2 }')"
[ ! -r $etc/applied ] || printf 'applied %s\n' "$(head -c 200 $etc/applied)"
[ ! -r /var/lib/privnet/generation ] || printf 'generation %s\n' "$(head -c 200 /var/lib/privnet/generation)"
[ ! -r /var/lib/privnet/armed/run ] ||
	printf 'armed %s %s\n' "$(head -c 100 /var/lib/privnet/armed/run)" "$(head -c 100 /run/privnet/lease/token 2> /dev/null)"
ss -Hlun | awk '{ print $4 }' | sed 's/.*://; s/^/listens /' | sort -u
routes='$1 != "unreachable" && !/ dev privnet / { for (i = 2; i < NF; i++) if ($i == "dev") print "route", $1, $(i + 1) (table ? " " table : "") }'
ip -4 route show | awk "$routes"
# Tables that every packet is looked up in before the main one (ip-rule(8)); a route that throws goes on to the next.
ip -4 rule show | awk '$2 $3 $4 == "fromalllookup" { if ($5 == "main") exit; if (NF == 5 && $5 ~ /^[A-Za-z0-9_.-]+$/ && $5 != "local") print $5 }' |
	while read -r table; do
		ip -4 route show table "$table" 2> /dev/null | awk -v table="$table" "
			\$1 == \"throw\" { print \"route\", \$2, \"throw\", table; next } $routes"
	done
# By which files networkd, while it is off, would set up devices that are there, were it started; but for ours.
systemctl is-active --quiet systemd-networkd.service || {
	devices=$(ls /sys/class/net | grep -vx -e lo -e privnet -e 'pn[bxcu][0-9a-f]*')
	seen=' '
	for file in /etc/systemd/network/*.network /run/systemd/network/*.network /usr/local/lib/systemd/network/*.network \
		/usr/lib/systemd/network/*.network; do
		name=${file##*/}
		case $name in 05-privnet-* | 60-privnet-*) continue ;; esac
		# The first of a name hides the others, and an empty one (a link to /dev/null) is as good as none.
		case $seen in *"/$name/"*) continue ;; esac
		seen="$seen/$name/"
		[ -s "$file" ] || continue
		globs=$(awk '/^\[/ { here = /^\[Match\]/ } here && /^[ \t]*(Name|OriginalName)[ \t]*=/ { sub(/^[^=]*=/, ""); print }' "$file")
		case $globs in
		'' | *!*)
			# Chosen by something else than a name; what systemd ships so is for wireless devices.
			case $file in /usr/lib/*) continue ;; esac
			;;
		*)
			(
				set -f
				for glob in $globs; do
					for device in $devices; do
						case $device in $glob) exit 0 ;; esac
					done
				done
				exit 1
			) || continue
			;;
		esac
		printf 'configures %s\n' "$file"
	done
}
# A name that is no plain text is no file of ours, and cannot be spoken of line by line.
[ -z "$(find $etc -path '*[! -~]*' 2> /dev/null | head -n 1)" ] || echo 'names odd'
[ -r /etc/ssh/ssh_host_ed25519_key.pub ] && cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub | sed 's/^/ssh /'

section packages
dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' wireguard-tools wireguard-go nftables dnsmasq-base iproute2 2> /dev/null

section files
{
	find $etc -mindepth 1 ! -path "$etc/.stage.*" ! -path $etc/applied ! -path '*[! -~]*' ! -type d -print0
	find $etc ! -path "$etc/.stage.*" ! -path '*[! -~]*' -type d \( ! -perm 755 -o ! -uid 0 -o ! -gid 0 \) -print0
	find /etc/systemd/network /etc/systemd/networkd.conf.d -maxdepth 2 -path '*privnet*' ! -path '*[! -~]*' ! -type d -print0
	find /etc/systemd/system \( -path '*/privnet-*' -o -path '*/wg-quick@privnet.service.d/*' \) ! -type d -print0
	find /etc/netns -mindepth 2 -maxdepth 2 -name resolv.conf -print0
} 2> /dev/null | {
	list=$(mktemp) && cat > "$list"
	find -files0-from "$list" -maxdepth 0 -printf '%y %m %U:%G %p\t%l\n' 2> /dev/null
	section digests
	grep -zv "^$etc/wireguard.key" "$list" | xargs -0r -n 500 sh -c 'for f; do [ -L "$f" ] || [ -d "$f" ] || printf "%s\0" "$f"; done' - |
		xargs -0r sha256sum 2> /dev/null
	rm -f "$list"
}

section key
if [ -s $etc/wireguard.key ]; then printf 'key %s\n' "$(wg pubkey < $etc/wireguard.key 2> /dev/null)"; fi
if [ -e /etc/wireguard/privnet.conf ]; then
	printf 'config %s %s\n' "$(stat -c %a /etc/wireguard/privnet.conf)" \
		"$(sed '/^PrivateKey = /d' /etc/wireguard/privnet.conf | sha256sum | cut -d ' ' -f 1)"
	printf 'configkey %s\n' "$(sed -n 's/^PrivateKey = //p' /etc/wireguard/privnet.conf | wg pubkey 2> /dev/null)"
fi

section mesh
# The first line of a dump begins with the private key, the second field of the others is a preshared key.
wg show privnet dump 2> /dev/null | awk -F '\t' 'NR == 1 { print "interface", $2, $3; next } { print "peer", $1, $3, $4, $8 }'

section links
for kind in bridge vxlan veth; do ip -d -j link show type $kind; echo; done
if [ -e /sys/class/net/privnet ]; then ip -d -j link show dev privnet; echo; fi

section addresses
ip -o addr show | awk '$2 ~ /^(privnet|pnb[0-9]+|pnx[0-9]+|pn[cu][0-9a-f]+)$/ { print $2, $4 }'
# IPv6 that is on is an address to come.
grep -sl 0 /proc/sys/net/ipv6/conf/pn[bxc]*/disable_ipv6 | cut -d / -f 7 | sed 's/$/ ipv6/'

section routes
ip -4 route show type unreachable
ip -4 route show dev privnet 2> /dev/null | sed 's/^/mesh /'

section fdb
bridge fdb show | awk '{ for (i = 2; i < NF; i++) if ($i == "dev" && $(i + 1) ~ /^pn[cx]/) { print; break } }'

section neighbours
ip -4 neigh show nud permanent | grep ' dev pnx'

section firewall
# Only where bridged frames pass through it does forwarding in the host's own firewall meet private networks.
bridged=$(cat /proc/sys/net/bridge/bridge-nf-call-iptables 2> /dev/null)
[ "$bridged" != 1 ] || echo 'bridged yes'
nft list chains 2> /dev/null | awk -v bridged="$bridged" '
	$1 == "table" { table = $2 " " $3 }
	table ~ /^(ip|inet) / && table != "inet privnet" && /type filter/ && (/hook input/ || (bridged == 1 && /hook forward/)) { print table }' |
	sort -u | while read -r family table; do
	# A set can be longer than all the rest; what has a line too long to be sent is known to be there.
	nft -s -t list table "$family" "$table" 2> /dev/null | awk 'length > 4000 { print "longer"; next } { print }'
done
if [ "$bridged" = 1 ] && grep -qs filter /proc/net/ip_tables_names; then
	iptables-legacy -S 2> /dev/null | awk '
		/^-P FORWARD DROP/ { drops = 1 }
		/^-A FORWARD / { last = $0 }
		/-i pnb[+] .*-j ACCEPT/ { passes = 1 }
		END { if ((drops || last ~ /^-A FORWARD -j (DROP|REJECT)( |$)/) && !passes) print "legacy drops" }'
fi

section guard
if [ -r /run/privnet/guard.sum ] && nft list table inet privnet > /dev/null 2>&1; then
	printf 'sum %s\n' "$(cat /run/privnet/guard.sum)"
	printf 'listing %s\n' "$(sh $etc/lib/guard.sh listing 2> /dev/null)"
	printf 'structure %s\n' "$(cat /run/privnet/guard.structure)"
	# Alive, not frozen, and where it can be told something and be heard.
	owner=/proc/$(cat /run/privnet/guard.pid 2> /dev/null)
	if grep -qs '^State:.[DRS]' "$owner/status" && [ "$owner/fd/0" -ef /run/privnet/guard.commands ] &&
		[ "$owner/fd/2" -ef /run/privnet/guard.answers ]; then
		echo 'owner heard'
	fi
	nft -j list set inet privnet speakers 2> /dev/null && echo
	nft -j list set bridge privnet ports 2> /dev/null && echo
fi

section namespaces
# nsenter, not `ip -n`: that makes a mount namespace for each look, which a host with a hundred containers feels.
for path in /run/netns/*; do
	[ -e "$path" ] || continue
	name=${path##*/}
	case $name in
	*.ap-*) printf '%s\t%s\n' "$name" "$(nsenter --net="$path" ip -d -j addr show dev pn0 2> /dev/null)" ;;
	pn-*)
		printf '%s\t%s\t%s\n' "$name" "$(nsenter --net="$path" ip -d -j addr show dev pn0 2> /dev/null)" \
			"$(nsenter --net="$path" ip -j addr show dev pnu0 2> /dev/null)"
		;;
	esac
done

section units
units=$(systemctl show --no-pager --property=Id,LoadState,ActiveState,SubState,NeedDaemonReload,MainPID \
	'privnet-*' wg-quick@privnet.service systemd-networkd.service)
[ -z "$units" ] || printf '%s\n' "$units" | grep -v '^MainPID='

section names
pids=$(printf '%s\n' "$units" | awk -F = '
	$1 == "" { id = pid = "" } $1 == "Id" { id = $2 } $1 == "MainPID" { pid = $2 }
	id != "" && pid != "" && sub(/^privnet-dns@/, "", id) && sub(/[.]service$/, "", id) { print id, pid; id = "" }')
for mark in /run/privnet/names.*; do
	[ -e "$mark" ] || continue
	name=${mark##*/names.}
	pid=$(printf '%s\n' "$pids" | sed -n "s/^$name //p")
	same=no
	[ "$(stat -L -c %i "/proc/$pid/ns/net" 2> /dev/null)" = "$(stat -L -c %i "/run/netns/$name" 2> /dev/null)" ] && same=yes
	printf '%s %s %s\n' "$name" "$same" "$(cat "$mark")"
done

section end
