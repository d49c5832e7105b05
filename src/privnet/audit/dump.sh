# What the audit asks a host, once: files, units and kernel of everything that privnet has there. Changes nothing, prints no
# secret, and writes no file. $MARK begins each section's line, so that no file name or unit can pose as one. What a program
# that fails does not say is not known: the end of the answer names each of them.
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
section() { printf '\n%s %s\n' "$MARK" "$1"; }
ours() { case $1 in *.ap-* | pn-*) return 0 ;; esac; return 1; }

# try PROGRAM...: with a status but 0 it has failed; 141 has who is read by somebody that has heard enough, or has failed.
try() {
	"$@" || {
		status=$?
		[ $status = 141 ] || printf '%s %s\n' "$1" $status >&9
		return $status
	}
}
# From where `find` is to look, as far as that is there; and with what.
look() {
	starts=
	for start in $1; do [ ! -e "$start" ] || starts="$starts $start"; done
	shift
	# A link to a file that an administrator has made is that file.
	[ -z "$starts" ] || try find -H $starts -ignore_readdir_race "$@"
}
files() {
	from=$1
	shift
	look "$from" ! -path '/etc/privnet/.stage.*' ! -path '*[! -~]*' \( -path '*privnet*' -o -path '/etc/netns/*' \) "$@"
}
PLACES='/etc/privnet /etc/systemd/network /etc/systemd/networkd.conf.d /etc/systemd/system /run/systemd/system /etc/netns'

answer() {
section user
try id -u

section told
printf 'time %s\n' "$(try date +%s)"
[ ! -r /etc/privnet/applied ] || printf 'applied %s\n' "$(try head -c 200 /etc/privnet/applied)"

section files
files "$PLACES /etc/wireguard" ! -type d -printf '%y %m %U:%G %p\t%l\n'
# Who may write into a directory of ours may replace what is in it.
look /etc/privnet ! -path '*[! -~]*' ! -path '/etc/privnet/.stage.*' -type d \( ! -perm 755 -o ! -uid 0 -o ! -gid 0 \) \
	-printf '%y %m %U:%G %p\t\n'

section digests
files "$PLACES" -type f ! -path /etc/privnet/wireguard.key -exec sha256sum {} +

section odd
# A name that is no plain text cannot be spoken of line by line, and is none of ours.
look /etc/privnet -path '*[! -~]*' -printf 'odd\n' -quit

section config
if [ -f /etc/wireguard/privnet.conf ]; then
	digest=$(try sed '/^PrivateKey = /d' /etc/wireguard/privnet.conf | try sha256sum)
	printf '%s\n' "${digest%% *}"
	# What is no key has no public one.
	try sed -n 's/^PrivateKey = //p' /etc/wireguard/privnet.conf | wg pubkey 2> /dev/null
fi

section units
try systemctl show --all --no-pager --property=Id,LoadState,ActiveState,SubState,NeedDaemonReload \
	'privnet-*' wg-quick@privnet.service systemd-networkd.service privnet-guard.service privnet-restore.service privnet-networks.target

section enabled
# From the files that a boot reads; `show` may know what they were. It ends with 1 also for a unit that is disabled.
[ "$(systemctl is-enabled systemd-journald.service 2> /dev/null)" = static ] || echo 'systemctl 1' >&9
for unit in wg-quick@privnet.service systemd-networkd.service privnet-guard.service privnet-restore.service privnet-networks.target; do
	printf '%s %s\n' $unit "$(systemctl is-enabled $unit 2> /dev/null)"
done

section wireguard
# A dump's first line begins with the private key; the second field of the others is the preshared key.
case " $(try wg show interfaces) " in *' privnet '*)
	try wg show privnet dump | try awk -F '\t' '
		NR == 1 { print "self", $2, $3, $4; next } { print "peer", $1, ($2 == "(none)" ? "no" : "yes"), $3, $4, $8 }'
	;;
esac

section links
try ip -d -j link show

section networkd
# By which file networkd has set up a device: index and path. A device may have gone meanwhile, and its file with it.
try awk 'BEGIN {
	for (i = 1; i < ARGC; i++) {
		while ((getline line < ARGV[i]) > 0) if (sub(/^NETWORK_FILE=/, "", line)) {
			index_of = ARGV[i]
			sub(/.*\//, "", index_of)
			print index_of, line
		}
		close(ARGV[i])
	}
}' /run/systemd/netif/links/*

section addresses
try ip -j addr show

section routes
for kind in unicast unreachable blackhole prohibit throw; do
	try ip -4 route show table all type $kind
done

section fdb
try bridge fdb show

section neighbours
try ip neigh show nud all

section sysctl
set --
for path in /proc/sys/net/ipv6/conf/privnet/disable_ipv6 /proc/sys/net/ipv6/conf/pn[bxc]*/disable_ipv6; do
	[ ! -r "$path" ] || set -- "$@" "$path"
done
[ $# = 0 ] || try awk '{ print FILENAME, $1 }' "$@"

section limits
for family in ipv4 ipv6; do
	limits=/proc/sys/net/$family/neigh/default/gc_thresh
	[ ! -e ${limits}3 ] || printf '%s %s %s\n' $family "$(try cat ${limits}2)" "$(try cat ${limits}3)"
done

section owner
# Whether it would hear something, where it can be told something and its answer be read.
owner=/proc/$(try systemctl show -P MainPID privnet-guard.service)
if [ "$owner/fd/0" -ef /run/privnet/guard.commands ] && [ "$owner/fd/2" -ef /run/privnet/guard.answers ]; then
	try sed -n 's/^State:[[:space:]]*//p' "$owner/status"
fi

section notes
# By what the guard and the resolvers have noted of themselves a run judges them.
for path in /run/privnet/guard.sum /run/privnet/guard.structure /run/privnet/names.*; do
	[ ! -r "$path" ] || printf '%s %s\n' "${path##*/}" "$(try head -c 200 "$path")"
done
printf 'listing %s\n' "$(sh /etc/privnet/lib/guard.sh listing 2> /dev/null)"

section tables
tables=$(try nft list tables)
[ -z "$tables" ] || printf '%s\n' "$tables"

section saved
# The host's own rules, where nftables.service and people keep them.
look '/etc/nftables.conf /etc/nftables /etc/nftables.d' -type f -exec awk '
	/^[[:space:]]*(add |create )?table (inet|bridge) privnet([[:space:]{]|$)/ && !seen[FILENAME]++ { print FILENAME }' {} +

for family in inet bridge; do
	section $family
	case $tables in *"table $family privnet"*) try nft -s list table $family privnet ;; esac
done

section namespaces
for path in /run/netns/*; do
	name=${path##*/}
	ours "$name" || continue
	# A file that no namespace is mounted on any more is none.
	[ "$(try stat -f -c %T "$path")" = nsfs ] || continue
	printf '%s\t%s\t%s\n' "$name" "$(try nsenter --net="$path" ip -d -j addr show)" \
		"$(try nsenter --net="$path" ip route show table all default | try awk 'NR == 1')"
done

section listeners
for path in /run/netns/pn-*; do
	[ -e "$path" ] && [ "$(try stat -f -c %T "$path")" = nsfs ] || continue
	try ss -N "${path##*/}" -Hlntup 'sport = :53' | try awk -v name="${path##*/}" '
		{ users = $0; sub(/^.*users:/, "users:", users); print name, $1, $5, (users == $0 ? "" : users) }'
done

section processes
pids=$(try systemctl show --no-pager --property=Id,MainPID 'privnet-dns@*' 'privnet-forwarder@*' | try awk -F = '
	$1 == "" { id = pid = "" } $1 == "Id" { id = $2 } $1 == "MainPID" { pid = $2 }
	id != "" && pid > 0 { print id, pid; id = "" }')
printf '%s\n' "$pids" | while read -r unit pid; do
	# Who is stopped answers nobody.
	[ -z "$unit" ] || case $(try sed -n 's/^State:[[:space:]]*//p' "/proc/$pid/status" 2> /dev/null) in
	T* | t*) printf '%s 0\n' "$unit" ;;
	*) printf '%s %s\n' "$unit" "$pid" ;;
	esac
done

section servers
# The words after its program, of each forwarder that runs.
printf '%s\n' "$pids" | try sed -n 's/^privnet-forwarder@\(.*\)[.]service /\1 /p' | while read -r name pid; do
	# One that has ended, or is systemd still and becomes the forwarder next, asks nobody.
	[ ! "/proc/$pid/exe" -ef /proc/1/exe ] && [ ! "/proc/$pid/exe" -ef /usr/lib/systemd/systemd-executor ] || continue
	words=$(try tr '\0' ' ' 2> /dev/null < "/proc/$pid/cmdline")
	[ -z "$words" ] || printf '%s %s\n' "$name" "$(printf '%s\n' "$words" | try cut -d ' ' -f 3-)"
done
}

# All of it is read before any of it runs, and nothing of it can read the rest as its input.
{
exec 3>&1
failures=$(answer 9>&1 >&3)
section failed
[ -z "$failures" ] || printf '%s\n' "$failures"
section end
} < /dev/null
