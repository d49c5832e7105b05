# Managed by privnet. change.sh begin|done|confirm|back|boot: what a host does so that no change can cut it off for good.
# `begin` takes the host's lease, keeps its managed files as they are and sets a timer; `confirm`, over a new SSH
# connection, ends all that. Without it the timer, or the next boot, puts the host back to what it was.
set -eu
umask 077
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
memory=/var/lib/privnet
armed=$memory/armed
lease=/run/privnet/lease
etc=/etc/privnet
units=/etc/systemd/system
wants=$units/privnet-networks.target.wants

# Every managed file but the host's own key, as paths below /.
own() {
	{
		find $etc -mindepth 1 ! -path "$etc/.stage.*" ! -path "$etc/wireguard.key*" ! -type d -print0
		find /etc/systemd/network /etc/systemd/networkd.conf.d -maxdepth 2 -path '*privnet*' ! -type d -print0
		find $units \( -path '*/privnet-*' -o -path '*/wg-quick@privnet.service*' \) ! -type d -print0
		find /etc/netns -mindepth 2 -maxdepth 2 -path '*.ap-*/resolv.conf' -print0
	} 2> /dev/null | sed -z 's|^/||'
}

refuse() {
	echo "privnet: $1: $2" >&2
	exit 75
}

# --- the lease --------------------------------------------------------------------------------------

# Who calls holds the lock of all programs (script.py), so nobody else comes between a look and what follows.
claim() {
	if [ -e $lease ]; then
		held=$(cat $lease/run 2> /dev/null || true)
		if [ -z "$held" ]; then
			refuse locked "its lease is damaged, so it counts as held. If no run is under way: rm -r $lease"
		elif [ "$held" != "$run" ] && [ "$held" != "$broken" ] && [ "$(cat $lease/token)" != "$token" ] && ! is_over; then
			refuse locked "run $held of $(cat $lease/owner) has it since $age s. If that run is dead, the host puts itself back within $(cat $lease/seconds) s of its last step; or take it over now: privnet deploy INVENTORY --break-lease $held"
		fi
	fi
	# In one step: half of a lease would be nobody's, and held for ever.
	rm -rf $lease.new
	mkdir $lease.new
	echo "$token" > $lease.new/token
	echo "$owner" > $lease.new/owner
	echo "$seconds" > $lease.new/seconds
	date +%s > $lease.new/since
	echo "$run" > $lease.new/run
	rm -rf $lease
	mv -T $lease.new $lease
}

# Of a run that died before there was anything to take back: nobody else would end its lease.
is_over() {
	age=$(($(date +%s) - $(tr -cd 0-9 < $lease/since)))
	[ ! -d $armed ] && [ "$age" -ge "$(cat $lease/seconds)" ] 2> /dev/null
}

give_back() {
	[ "$(cat $lease/run 2> /dev/null || true)" != "$1" ] || rm -rf $lease
}

# --- before and after a wave ------------------------------------------------------------------------

generation() {
	cat $memory/generation 2> /dev/null || echo none
}

mark() {
	echo "$*" > $memory/generation.new
	mv -T $memory/generation.new $memory/generation
}

uptime() {
	cut -d . -f 1 /proc/uptime
}

# How long from now on a confirmation may take; by the clock that nobody sets.
allow() {
	echo $(($(uptime) + $1)) > "$2/deadline.new"
	mv -T "$2/deadline.new" "$2/deadline"
}

# What is kept is the last confirmed state: a wave that comes over a new connection confirms the one before it.
arm() {
	rm -rf $armed.new
	mkdir $armed.new
	if [ -d $armed ] && [ "$(cat $armed/run)" != "$run" ]; then
		cp -p $armed/files.tar $armed.new/
	else
		own | tar -C / --null --no-recursion --files-from=- -cf $armed.new/files.tar
	fi
	cp change.sh $armed.new/
	echo "$run" > $armed.new/run
	allow "$seconds" $armed.new
	sync -f $armed.new
	start_timer
	rm -rf $armed.old
	[ ! -d $armed ] || mv -T $armed $armed.old
	mv -T $armed.new $armed
	rm -rf $armed.old
	if [ ! -e $units/privnet-restore.service ]; then
		cp privnet-restore.service $units/
		chmod 0644 $units/privnet-restore.service
		systemctl daemon-reload
	fi
	[ -e $units/sysinit.target.wants/privnet-restore.service ] || systemctl enable --quiet privnet-restore.service
}

# Before there is anything to take back, so that nothing is ever without it. One that is there already waits longer by
# itself: it reads the time anew.
start_timer() {
	! systemctl --quiet is-active privnet-rollback.timer privnet-rollback.service || return 0
	stop_timer
	# A host whose disk is full cannot go back: it tries again until it can.
	systemd-run --quiet --collect --unit=privnet-rollback --on-active="${seconds}s" --timer-property=AccuracySec=1s \
		--property=Restart=on-failure --property=RestartSec=10s /bin/sh $armed/change.sh back
}

stop_timer() {
	systemctl stop privnet-rollback.timer privnet-rollback.service 2> /dev/null || true
}

disarm() {
	rm -rf $armed.old
	[ ! -d $armed ] || mv -T $armed $armed.old
	sync -f $memory
	rm -rf $armed.old
}

# --- back to what was --------------------------------------------------------------------------------

# Unpack what was kept, and list what differs: changed, gone or new.
unpack() {
	rm -rf $memory/old
	mkdir $memory/old
	tar -C $memory/old -xpf $armed/files.tar
	tar -tf $armed/files.tar > $memory/kept
	: > $memory/differs
	{
		own | tr '\0' '\n'
		cd $memory/old && find . ! -type d | sed 's|^[.]/||'
	} | sort -u | while IFS= read -r path; do
		same "/$path" "$memory/old/$path" || echo "/$path" >> $memory/differs
	done
}

same() {
	if [ -L "$1" ] || [ -L "$2" ]; then
		[ -L "$1" ] && [ -L "$2" ] && [ "$(readlink "$1")" = "$(readlink "$2")" ]
	else
		[ -e "$1" ] && [ -e "$2" ] && cmp -s "$1" "$2" && [ "$(stat -c '%a %u %g' "$1")" = "$(stat -c '%a %u %g' "$2")" ]
	fi
}

put_back() {
	while IFS= read -r path; do
		if [ -e "$memory/old$path" ] || [ -L "$memory/old$path" ]; then
			(umask 022 && mkdir -p "${path%/*}")
			mv -T "$memory/old$path" "$path"
		else
			rm -f "$path"
			rmdir --ignore-fail-on-non-empty "${path%/*}" 2> /dev/null || true
		fi
	done < $memory/differs
	sync
	[ ! -e $etc/mesh.conf ] || sh $etc/lib/mesh.sh assemble
}

was() {
	grep -qxF "${wants#/}/$1" $memory/kept
}

changed() {
	grep -qxF "$1" $memory/differs
}

is_active() {
	systemctl is-active --quiet "$1"
}

# Units that were not there before end while the files that they need for it are still there.
stop_new() {
	systemctl list-units --all --plain --no-legend 'privnet-container@*' 'privnet-namespace@*' 'privnet-overlay@*' \
		'privnet-dns@*' privnet-forwarder.service | awk '{ print $1 }' | while read -r unit; do
		case $unit in
		privnet-namespace@*) was "privnet-container@${unit#*@}" || end "$unit" ;;
		*) was "$unit" || end "$unit" ;;
		esac
	done
}

end() {
	systemctl stop "$1"
	systemctl reset-failed "$1" 2> /dev/null
	id=${1#*@}
	case $1 in
	privnet-dns@*) rm -f "/run/privnet/names.${id%.service}" ;;
	privnet-forwarder.service) rm -f /run/privnet/forwarder ;;
	esac
}

remove_new_devices() {
	for path in /sys/class/net/pnx[0-9]* /sys/class/net/pnb[0-9]*; do
		device=${path##*/}
		[ ! -e "$path" ] || [ -e "$etc/overlay/${device#pn?}.conf" ] || ip link delete dev "$device"
	done
}

settle_guard() {
	if [ -e $etc/guard.nft ]; then
		systemctl start privnet-guard.service
		systemctl reload privnet-guard.service
		[ ! -e $wants/privnet-guard-watch.service ] || systemctl start privnet-guard-watch.service
	else
		systemctl stop privnet-guard-watch.service privnet-guard.service
		nft delete table inet privnet
		nft delete table bridge privnet
		ip route del unreachable "$(cat /run/privnet/guard.mesh)" metric 4294967295
		rm -f /run/privnet/guard.mesh /run/privnet/guard.sum /run/privnet/guard.structure
	fi
}

settle_mesh() {
	if [ ! -e $etc/mesh.conf ]; then
		systemctl stop wg-quick@privnet.service
	elif ! is_active wg-quick@privnet.service || [ ! -e /sys/class/net/privnet ]; then
		sh $etc/lib/mesh.sh up restart
	elif changed $etc/mesh.conf; then
		address=$(sed -n 's/^Address = //p' $etc/mesh.conf)
		if ip -o addr show dev privnet | grep -qF " $address "; then
			wg-quick strip privnet | wg syncconf privnet /dev/stdin
		else
			sh $etc/lib/mesh.sh up restart
		fi
	fi
}

settle_overlay() {
	vni=$1
	sh $etc/lib/overlay.sh create "$vni"
	if is_active "privnet-overlay@$vni.service"; then
		systemctl reload "privnet-overlay@$vni.service"
	else
		systemctl start "privnet-overlay@$vni.service"
	fi
	bridge fdb show dev "pnx$vni" | awk '$2 == "dst" { print $1, $3 }' | while read -r mac vtep; do
		grep -qF " $mac " "$etc/overlay/$vni.fdb" || bridge fdb del "$mac" dev "pnx$vni" dst "$vtep" self
	done
	ip -4 neigh show dev "pnx$vni" nud permanent | while read -r address _; do
		grep -qF " $address " "$etc/overlay/$vni.neighbours" || ip neigh del "$address" dev "pnx$vni"
	done
}

settle_ports() {
	for link in $wants/privnet-container@*; do
		[ -L "$link" ] || continue
		unit=${link##*/} port=${link##*@}
		port=${port%.service}
		if ! is_active "$unit"; then
			systemctl start "$unit"
		elif changed "$etc/containers/$port.conf"; then
			systemctl reload "$unit"
		fi
	done
}

settle_names() {
	for link in $wants/privnet-dns@* $wants/privnet-forwarder.service; do
		[ -L "$link" ] || continue
		unit=${link##*/} id=${link##*@}
		id=${id%.service}
		if ! is_active "$unit"; then
			systemctl start "$unit"
		elif changed "$etc/names/$id.conf" || changed $etc/forwarder.conf; then
			systemctl restart "$unit"
		elif changed "$etc/names/$id.hosts"; then
			systemctl reload "$unit"
		fi
	done
}

# The kernel and systemd follow the files. One thing that cannot be had back must not keep the others from it.
settle() (
	set +e
	systemctl daemon-reload
	remove_new_devices
	networkctl reload
	settle_guard
	settle_mesh
	for conf in $etc/overlay/*.conf; do
		[ ! -e "$conf" ] || { vni=${conf##*/} && settle_overlay "${vni%.conf}"; }
	done
	settle_ports
	settle_names
	if [ -e $units/multi-user.target.wants/privnet-networks.target ]; then
		systemctl start --no-block privnet-networks.target
	else
		systemctl stop privnet-networks.target
	fi
)

back() {
	run=$(cat $armed/run)
	logger -s -t privnet "run $run was not confirmed: this host goes back to what it was before" || true
	[ -e $memory/restored ] || unpack
	stop_new || true
	[ -e $memory/restored ] || put_back
	settle
	mark "back $run"
	give_back "$run"
	disarm
	rm -rf $memory/old $memory/kept $memory/differs $memory/restored
}

# Until the time is up; a wave that took longer than that has moved it.
wait_for_time() {
	while :; do
		exec 8> /run/privnet/program.lock
		flock 8
		[ -d $armed ] || exit 0
		[ ! -e $memory/restored ] || return 0
		left=$(($(cat $armed/deadline) - $(uptime)))
		[ "$left" -gt 0 ] || return 0
		exec 8>&-
		sleep "$left"
	done
}

case $1 in
begin)
	run=$2 wave=$3 expected=$4 seconds=$5 token=$6 owner=$7 broken=$8
	mkdir -p $memory
	claim
	if [ "$(generation)" != "$expected" ]; then
		give_back "$run"
		refuse stale "it has been changed, or has put itself back, since this run asked it. Run again"
	fi
	arm
	mark "$run $wave begun"
	;;
done)
	run=$2 wave=$3 serial=$4 checksum=$5
	(umask 022 && echo "$serial $checksum $run" > $etc/.applied.new)
	mv -T $etc/.applied.new $etc/applied
	allow "$(cat $lease/seconds)" $armed
	mark "$run $wave done"
	;;
confirm)
	run=$2
	# Not while the host is on its way back.
	exec 8> /run/privnet/program.lock
	flock 8
	[ "$(cat $armed/run 2> /dev/null || true)" = "$run" ] ||
		refuse stale "it has put itself back to what it was before: no confirmation came in time. Run again"
	# In this order a death in between leaves a host that goes back by itself, or one that is done.
	give_back "$run"
	disarm
	stop_timer
	;;
back)
	mkdir -p /run/privnet
	wait_for_time
	back
	;;
boot)
	# Before anything of ours starts: the files first, all else when the boot is over.
	[ -d $armed ] || exit 0
	mkdir -p /run/privnet
	rm -f $memory/restored
	unpack
	put_back
	: > $memory/restored
	systemctl daemon-reload
	# This boot has them on its list already.
	sed -n "s|^$wants/||p" $memory/differs | while read -r unit; do
		was "$unit" || systemctl stop --no-block "$unit"
	done
	systemd-run --quiet --no-block --collect --unit=privnet-rollback --property=After=privnet-networks.target \
		--property=After=wg-quick@privnet.service /bin/sh $armed/change.sh back
	;;
esac
