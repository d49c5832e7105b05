# What `privnet import` asks a host, once: what it remembers, and what really runs there. Changes nothing, prints no secret.
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
section() { printf '\n##privnet %s\n' "$1"; }
etc=/etc/privnet

# All of it is read before any of it runs, and nothing of it can read the rest as its input.
{
section user
id -u

section record
cat $etc/record.json 2> /dev/null

section applied
head -n 1 $etc/applied 2> /dev/null

section key
# The private key is read by wg alone.
for key in $etc/wireguard.key /etc/wireguard/privnet.key; do
	[ ! -s $key ] || { wg pubkey < $key 2> /dev/null; break; }
done

section peers
sed -n 's/^PublicKey = //p; s/^AllowedIPs = //p' $etc/mesh.conf 2> /dev/null | paste -d ' ' - -

section forwarding
bridge fdb show 2> /dev/null | awk '$3 ~ /^pnx[0-9]+$/ { for (i = 4; i < NF; i++) if ($i == "dst") print $1, $3, $(i + 1) }'

section containers
for path in /run/netns/*.ap-*; do
	[ -e "$path" ] || continue
	printf '%s %s\n' "${path##*/}" "$(nsenter --net="$path" ip -o -4 addr show dev pn0 2> /dev/null | awk '{ print $4; exit }')"
done

section end
} < /dev/null
