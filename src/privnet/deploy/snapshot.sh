# The one question a run asks a host: what is there of privnet, on disk and in the kernel. Changes nothing, prints no secret,
# and writes no file. What a program that fails does not say is not known: the end of the answer names each of them.
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
section() { printf '##privnet %s\n' "$1"; }
etc=/etc/privnet

# try PROGRAM...; may STATUS PROGRAM...: that status means that there is nothing to say.
try() { may 0 "$@"; }
may() {
	expected=$1
	shift
	case $absent in *" $1 "*) return 0 ;; esac
	"$@" || {
		status=$?
		# 141: whoever reads it has heard enough, or has failed.
		case $status in "$expected" | 141) ;; *) failed "$1" "$status" ;; esac
		return "$status"
	}
}
failed() { printf '%s %s\n' "$1" "$2" >&9; }

answer() {
absent=' '
packages=$(may 1 dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' \
	dpkg wireguard-tools wireguard-go nftables dnsmasq-base iproute2 2> /dev/null)
case $packages in *' dpkg '*) ;; *) failed dpkg-query 1 ;; esac
# Before the first run these may be missing. Where the package is installed, that is a failure as any other.
for tool in ip:iproute2 bridge:iproute2 ss:iproute2 wg:wireguard-tools nft:nftables; do
	command -v "${tool%:*}" > /dev/null || case $packages in
	*[a-z]"i  ${tool#*:} "*) ;;
	*) absent="$absent${tool%:*} " ;;
	esac
done

# A login shell may have said something without an end of its line.
echo
section system
# What a program, or a rollback, is doing at this moment is no state to compare with.
if [ -r /run/privnet/program.lock ]; then
	exec 8< /run/privnet/program.lock
	may 1 flock --shared --wait 20 8 || echo 'busy yes'
fi
printf 'user %s\n' "$(try id -u)"
printf 'machine %s\n' "$(try cat /etc/machine-id)"
# A kernel without modules has no modprobe.
if [ -e /sys/module/wireguard ] || {
	command -v modprobe > /dev/null && try modprobe --version > /dev/null && may 1 modprobe -nq wireguard
}; then
	echo 'wireguard kernel'
fi
[ -d /run/systemd/system ] && echo 'systemd yes'
set -- systemd-networkd.service systemd-networkd-wait-online.service privnet-guard.service privnet-restore.service \
	privnet-networks.target wg-quick@privnet.service
# It ends with 1 also for a unit that is disabled, and says nothing of one that is not there: one that always is comes first.
[ "$(systemctl is-enabled systemd-journald.service 2> /dev/null)" = static ] || failed systemctl 1
# It has a line for each, until it meets a unit that is not there.
states=$(systemctl is-enabled "$@" 2> /dev/null)
lines=0
for state in $states; do lines=$((lines + 1)); done
if [ $lines = $# ]; then
	for state in $states; do
		printf 'enabled %s %s\n' "$1" "$state"
		shift
	done
else
	for unit; do printf 'enabled %s %s\n' "$unit" "$(systemctl is-enabled "$unit" 2> /dev/null)"; done
fi
# Also one in /run that a file in /etc hides.
for folder in /etc/systemd/system /run/systemd/system; do
	look $folder -maxdepth 1 \( -name 'privnet-*' -o -name wg-quick@privnet.service -o -name wg-quick@.service \
		-o -name systemd-networkd.service -o -name dbus.service -o -name dbus.socket \) -lname /dev/null -printf 'masked %f\n'
done
# A host that is a container itself has no limits of its own.
for family in ipv4 ipv6; do
	limits=/proc/sys/net/$family/neigh/default/gc_thresh
	if [ -e ${limits}3 ]; then
		echo "neighbours $family $(cat ${limits}2) $(cat ${limits}3)"
	fi
done
printf 'time %s\n' "$(try date +%s)"
for path in /etc /run /var/lib; do
	try stat -f -c "disk $path %a %S %d" $path
done
# os-release(5); what comes first holds.
for path in /etc/os-release /usr/lib/os-release; do
	[ ! -r $path ] || try cat $path
done | try awk -F = -v q="[\"']" '
	{ gsub(q, "", $2); if (!($1 in said)) said[$1] = $2 }
	END {
		version = said["VERSION_ID"] != "" ? said["VERSION_ID"] : said["VERSION_CODENAME"]
		print "os", said["ID"] != "" ? said["ID"] : "unknown", version != "" ? version : "unknown"
	}'
printf 'release %s\n' "$(try systemctl --version | try awk 'NR == 1 { print $2 }')"
[ ! -r $etc/applied ] || printf 'applied %s\n' "$(try head -c 200 $etc/applied)"
[ ! -r /var/lib/privnet/generation ] || printf 'generation %s\n' "$(try head -c 200 /var/lib/privnet/generation)"
if [ -r /var/lib/privnet/armed/run ]; then
	token=
	[ ! -r /run/privnet/lease/token ] || token=$(try head -c 100 /run/privnet/lease/token)
	printf 'armed %s %s\n' "$(try head -c 100 /var/lib/privnet/armed/run)" "$token"
	[ ! -e /var/lib/privnet/armed/held ] || echo 'held yes'
fi
try ss -Huan | try awk '{ sub(/.*:/, "", $4); word = $1 == "UNCONN" ? "listens" : "client"; if (!seen[word $4]++) print word, $4 }'
# A VXLAN device that was made here and moved keeps its port here. Engines name namespaces of their overlays so.
for path in /run/docker/netns/*[-_]*; do
	[ -e "$path" ] && [ "$(try stat -f -c %T "$path")" = nsfs ] || continue
	nsenter --net="$path" ip -o -d link show type vxlan 2> /dev/null | try awk -v namespace="${path##*/}" '{
		device = $2; sub(/[:@].*/, "", device); vni = port = 0
		for (i = 3; i < NF; i++) { if ($i == "id" && $(i - 1) == "vxlan") vni = $(i + 1); if ($i == "dstport") port = $(i + 1) }
		print "hidden", namespace, device, vni, port
	}'
done
# One that leads nowhere has its kind in the place of a device. The last of all is the guard's barrier.
routes='$1 ~ /^(unreachable|blackhole|prohibit|throw)$/ { if (!table && !/metric 4294967295/) print "route", $2, $1; next }
	!/ dev privnet / { for (i = 2; i < NF; i++) if ($i == "dev") print "route", $1, $(i + 1) (table ? " " table : "") }'
try ip -4 route show | try awk "$routes"
# Tables that every packet is looked up in before the main one (ip-rule(8)); a route that throws goes on to the next.
try ip -4 rule show | try awk '$2 $3 $4 == "fromalllookup" { if ($5 == "main") exit; if (NF == 5 && $5 ~ /^[A-Za-z0-9_.-]+$/ && $5 != "local") print $5 }' |
	while read -r table; do
		# A rule may name a table that is not there.
		may 2 ip -4 route show table "$table" 2> /dev/null | try awk -v table="$table" "
			\$1 == \"throw\" { print \"route\", \$2, \"throw\", table; next } $routes"
	done
for path in /sys/class/net/*; do
	case ${path##*/} in
	lo | privnet | pn[bxcu][0-9a-f]*) ;;
	*) printf 'device %s\n' "${path##*/}" ;;
	esac
done
# A name that is no plain text is no file of ours, and cannot be spoken of line by line.
[ ! -d $etc ] || [ -z "$(look $etc -path '*[! -~]*' -printf odd -quit)" ] || echo 'names odd'

section packages
printf '%s\n' "$packages"

section files
files -printf '%y %m %U:%G %p\t%l\n'

section digests
files -type f ! -path $etc/wireguard.key ! -path /etc/wireguard/privnet.key -exec sha256sum {} +

section key
# What is no key is none.
# Where an earlier version kept it comes first: it is the one in use, and moves.
for key in $etc/wireguard.key /etc/wireguard/privnet.key; do
	[ -s $key ] || continue
	printf 'key %s\n' "$(wg pubkey < $key 2> /dev/null)"
	break
done
config=/etc/wireguard/privnet.conf
if [ -f $config ]; then
	digest=$(try sed '/^PrivateKey = /d' $config | try sha256sum)
	printf 'config %s %s\n' "$(try stat -c '%a %u:%g' $config)" "${digest%% *}"
	printf 'configkey %s\n' "$(try sed -n 's/^PrivateKey = //p' $config | wg pubkey 2> /dev/null)"
fi

section mesh
# The first line of a dump begins with the private key, the second field of the others is a preshared key.
case " $(try wg show interfaces) " in *' privnet '*)
	try wg show privnet dump |
		try awk -F '\t' '
			NR == 1 { print "interface", $2, $3, $4; next }
			{ print "peer", $1, $3, $4, $8, ($2 == "(none)" ? "no" : "yes") }'
	;;
esac

section links
# All of them: what is in a bridge of ours, or on it, may be of any kind.
try ip -d -j link show

section addresses
try ip -o addr show | try awk '$2 ~ /^(privnet|pnb[0-9]+|pnx[0-9]+|pn[cu][0-9a-f]+)$/ { print $2, $4 }'
# IPv6 that is on is an address to come.
set --
for path in /proc/sys/net/ipv6/conf/privnet/disable_ipv6 /proc/sys/net/ipv6/conf/pn[bxc]*/disable_ipv6; do
	[ ! -r "$path" ] || set -- "$@" "$path"
done
[ $# = 0 ] || try awk '$1 == 0 { split(FILENAME, part, "/"); print part[7], "ipv6" }' "$@"

section routes
try ip -4 route show type unreachable
try ip -4 route show table all type unicast | try awk '
	{ for (i = 2; i < NF; i++) if ($i == "dev" && $(i + 1) ~ /^(privnet|pn[bxcu][0-9a-f]+)$/) { print; next } }'

section fdb
try bridge fdb show | try awk '{ for (i = 2; i < NF; i++) if ($i == "dev" && $(i + 1) ~ /^pn[bcx]/) { print; break } }'

section neighbours
# What has no MAC answers nobody. Those of IPv6 go with it.
try ip -4 neigh show nud all | try awk '/ dev pnx.* lladdr /'

section firewall
# Frames within a bridge meet the rules for forwarded packets only where this is set.
bridged=
[ ! -r /proc/sys/net/bridge/bridge-nf-call-iptables ] || bridged=$(try cat /proc/sys/net/bridge/bridge-nf-call-iptables)
[ "$bridged" != 1 ] || echo 'bridged yes'
try nft list chains | try awk -v bridged="$bridged" '
	$1 == "table" { table = $2 " " $3; family = $2 }
	/type (filter|route)/ && family != "arp" && table != "inet privnet" && table != "bridge privnet" &&
		(bridged == 1 || family !~ /^(ip|ip6|inet)$/ || !/hook forward/) { print table }' |
	try sort -u | while read -r family table; do
	# A set can be longer than all the rest; what has a line too long to be sent is known to be there.
	nft -s -t list table "$family" "$table" 2> /dev/null | try awk 'length > 4000 { print "longer"; next } { print }'
done
# What iptables had before nftables, said as nft would say it. Rules may have come from a container with programs of its own.
for version in ip ip6; do
	[ -r "/proc/net/${version}_tables_names" ] && command -v "${version}tables-legacy-save" > /dev/null || continue
	while read -r table; do
		[ "$table" != nat ] || continue
		try "${version}tables-legacy-save" | "${version}tables-restore-translate" -f /dev/stdin 2> /dev/null |
			try awk 'length <= 4000'
		break
	done < "/proc/net/${version}_tables_names"
done
for table in filter nat; do
	[ -e "/sys/module/ebtable_$table" ] && command -v ebtables-legacy-save > /dev/null || continue
	try ebtables-legacy-save | try awk -v table="*$table" '
		/^[*]/ { here = $0 == table } here && /^[*:]|^-A / && length <= 4000'
done

section guard
note() {
	word=
	[ ! -r "/run/privnet/$1" ] || read -r word < "/run/privnet/$1" || [ -n "$word" ]
	printf '%s' "$word"
}
# A process as proc(5) shows it: running, sleeping, stopped; gone if it says nothing.
state_of() {
	[ ! -r "$1/status" ] || try awk '$1 == "State:" { print $2 }' "$1/status"
}
case $(try nft list tables) in *'table inet privnet'*)
	printf 'sum %s\n' "$(note guard.sum)"
	printf 'listing %s\n' "$(sh $etc/lib/guard.sh listing 2> /dev/null)"
	printf 'structure %s\n' "$(note guard.structure)"
	# Alive, not frozen, and where it can be told something and be heard.
	owner=/proc/$(note guard.pid)
	if [ "$owner/fd/0" -ef /run/privnet/guard.commands ] && [ "$owner/fd/2" -ef /run/privnet/guard.answers ]; then
		case $(state_of "$owner") in [DRS]) echo 'owner heard' ;; esac
	fi
	nft -j list set inet privnet speakers 2> /dev/null && echo
	nft -j list set bridge privnet ports 2> /dev/null && echo
	;;
esac

section namespaces
# nsenter, not `ip -n`: that makes a mount namespace for each look, which a host with a hundred containers feels.
for path in /run/netns/*; do
	[ -e "$path" ] || continue
	name=${path##*/}
	case $name in *.ap-* | pn-*) ;; *) continue ;; esac
	# A file that no namespace is mounted on any more is none.
	inside=
	[ "$(try stat -f -c %T "$path")" != nsfs ] || inside=$(try nsenter --net="$path" ip -d -j addr show type veth)
	printf '%s\t%s\n' "$name" "$inside"
done

section units
units=$(try systemctl show --no-pager --property=Id,LoadState,ActiveState,SubState,NeedDaemonReload,MainPID \
	'privnet-*' wg-quick@privnet.service systemd-networkd.service)
printf '%s\n' "$units" | try awk '!/^MainPID=/'

section names
pids=$(printf '%s\n' "$units" | try awk -F = '
	$1 == "" { id = pid = "" } $1 == "Id" { id = $2 } $1 == "MainPID" { pid = $2 }
	id != "" && pid > 0 && sub(/^privnet-/, "", id) && sub(/[.]service$/, "", id) { print id, pid; id = "" }')
for mark in /run/privnet/names.*; do
	[ -e "$mark" ] || continue
	name=${mark##*/names.}
	pid=$(printf '%s\n' "$pids" | try awk -v name="dns@$name" '$1 == name { print $2 }')
	same=no
	[ "/proc/$pid/ns/net" -ef "/run/netns/$name" ] && same=yes
	# What is stopped answers nobody.
	case $(state_of "/proc/$pid") in T | t) same=stopped ;; esac
	printf '%s %s %s\n' "$name" "$same" "$(note "names.$name")"
done

section answering
# Who hears questions in the resolvers' namespaces, and whom their forwarders ask.
printf '%s\n' "$pids" | try sed -n 's/^dns@\(pn-[^ ]*\) /\1 resolver /p'
printf '%s\n' "$pids" | try sed -n 's/^forwarder@\(pn-[^ ]*\) /\1 /p' | while read -r name pid; do
	# One that has ended, or is systemd still and becomes the forwarder next, asks nobody.
	[ ! "/proc/$pid/exe" -ef /proc/1/exe ] && [ ! "/proc/$pid/exe" -ef /usr/lib/systemd/systemd-executor ] || continue
	words=$(try tr '\0' ' ' 2> /dev/null < "/proc/$pid/cmdline")
	[ -z "$words" ] || printf '%s servers %s\n' "$name" "$words"
done
for path in /run/netns/pn-*; do
	[ -e "$path" ] && [ "$(try stat -f -c %T "$path")" = nsfs ] || continue
	try ss -N "${path##*/}" -Hlntup 'sport = :53' | try awk -v name="${path##*/}" '
		{ program = $0; sub(/^.*users:/, "users:", program); print name, $1, $5, program }'
done

section ways
# One program for all endpoints. What its kernel has no way to is not in the answer, and makes it end with 1.
[ -z "$endpoints" ] || printf 'route get %s\n' $endpoints | may 1 ip -o -force -batch - 2> /dev/null | try awk '
	{
		to = $1 == "local" ? $2 : $1; device = source = "-"; mtu = 0
		for (i = 2; i < NF; i++) {
			if ($i == "dev") device = $(i + 1)
			if ($i == "src") source = $(i + 1)
			if ($i == "mtu") mtu = $(i + ($(i + 1) == "lock" ? 2 : 1))
		}
		if (!(device in size)) { size[device] = 0; getline size[device] < ("/sys/class/net/" device "/mtu") }
		if (!mtu || mtu > size[device]) mtu = size[device]
		way = device " " source " " mtu
		line[way] = line[way] " " to
		# No line is longer than what is taken in.
		if (++count[way] % 150 == 0) { print way line[way]; line[way] = "" }
	}
	END { for (way in line) if (line[way] != "") print way line[way] }'

section networkd
# What others tell networkd and udev to do with devices; the first file of a name hides the others (systemd.network(5)).
set --
seen=' '
for folder in /etc /run /usr/local/lib /usr/lib; do
	for file in $folder/systemd/network/*.network $folder/systemd/network/*.link; do
		name=${file##*/}
		case $name in 05-privnet-* | 60-privnet-*) continue ;; esac
		case $seen in *"/$name/"*) continue ;; esac
		[ ! -e "$file" ] || seen="$seen/$name/"
		# An empty one (a link to /dev/null) is as good as none.
		[ ! -s "$file" ] || set -- "$@" "$file"
	done
done
[ $# = 0 ] || try awk '
	FNR == 1 { section = ""; print FILENAME "\t\t" }
	/^[ \t]*\[/ { section = $0; gsub(/[][ \t\r]/, "", section) }
	/^[ \t]*[A-Za-z]/ && /=/ && (section == "Match" || FILENAME ~ /[.]link$/ && section == "Link") {
		print FILENAME "\t" section "\t" substr($0, 1, 2000)
	}' "$@"
}

# All files of ours, as `find` goes through them with these arguments. A start that is not there would be a failure.
files() {
	[ ! -d $etc ] || {
		look $etc -mindepth 1 ! -path "$etc/.stage.*" ! -path $etc/applied ! -path '*[! -~]*' ! -type d "$@"
		look $etc ! -path "$etc/.stage.*" ! -path '*[! -~]*' -type d \( ! -perm 755 -o ! -uid 0 -o ! -gid 0 \) "$@"
	}
	for folder in /etc/systemd/network /etc/systemd/networkd.conf.d; do
		[ ! -d $folder ] || look $folder -maxdepth 2 -path '*privnet*' ! -path '*[! -~]*' ! -type d "$@"
	done
	for folder in /etc/systemd/system /run/systemd/system; do
		look $folder \( -path '*/privnet-*' -o -path '*/wg-quick@privnet.service*' \) ! -path '*[! -~]*' ! -type d "$@"
	done
	[ ! -d /etc/netns ] || look /etc/netns -mindepth 2 -maxdepth 2 -name resolv.conf "$@"
	[ ! -d /etc/wireguard ] || look /etc/wireguard -maxdepth 1 -name privnet.key "$@"
}
# What goes while it is looked at is not there.
look() {
	start=$1
	shift
	try find "$start" -ignore_readdir_race "$@"
}

exec 3>&1
failures=$(answer 9>&1 >&3)
section failed
[ -z "$failures" ] || printf '%s\n' "$failures"
section end
