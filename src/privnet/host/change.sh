# Managed by privnet. change.sh begin|done|extend|lost|hold|confirm|undo|withdraw|back|boot: what a host does so that no change can
# cut it off for good.
# `begin` takes the host's lease, keeps its managed files as they are and sets a timer; `confirm`, over a new SSH
# connection, ends all that. Without it the timer, or the next boot, puts the host back to what it was; `undo` and `withdraw`
# do so at once. `lost` says which peers answered before the change and do not any more. `hold` waits longer, for a person.
set -eu
umask 077
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
memory=/var/lib/privnet
armed=$memory/armed
lease=/run/privnet/lease
waits=/run/privnet/rollback.waits
etc=/etc/privnet
units=/etc/systemd/system
wants=$units/privnet-networks.target.wants

# Every managed file but the host's own key, and what goes on with a rollback after a boot; as paths below /.
own() {
	{
		find $etc -mindepth 1 ! -path "$etc/.stage.*" ! -path "$etc/wireguard.key*" ! -type d -print0
		find /etc/systemd/network /etc/systemd/networkd.conf.d -maxdepth 2 -path '*privnet*' ! -type d -print0
		find $units \( -path '*/privnet-*' -o -path '*/wg-quick@privnet.service*' \) ! -name privnet-restore.service \
			! -type d -print0
		find /etc/netns -mindepth 2 -maxdepth 2 -path '*.ap-*/resolv.conf' ! -type d -print0
	} 2> /dev/null | sed -z 's|^/||'
}

refuse() {
	echo "privnet: $1: $2" >&2
	exit 75
}

# --- the lease --------------------------------------------------------------------------------------

# Who calls holds the lock of all programs (script.py), so nobody else comes between a look and what follows.
claim() {
	if [ -e $armed/held ] && [ "$(cat $armed/run)" != "$run" ] && [ "$(cat $armed/run)" != "$broken" ]; then
		refuse locked "run $(cat $armed/run) waits there for a person: privnet confirm INVENTORY, or privnet undo INVENTORY"
	fi
	if [ -e $lease ] && ! is_ours; then
		! is_damaged || refuse locked "its lease is damaged, so it counts as held. If no run is under way: rm -r $lease"
		age=$(($(date +%s) - $(part since)))
		is_over || refuse "$(who_withdraws)" "run $(part run) of $(part owner) has it since $age s. If that run is dead, the host rolls back within $(part seconds) s of its last step; or take it over now: privnet deploy INVENTORY --break-lease $(part run)"
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

# Of two runs that have a host of each other the one that began later stops, and withdraws from all. The other may try again
# until then, if this host will then be what its program was made for.
who_withdraws() {
	if [ "$(part run)" \> "$run" ] && [ "$(cat $armed/before 2> /dev/null)" = "$expected" ]; then
		echo later
	else
		echo locked
	fi
}

part() {
	head -c 200 "$lease/$1" 2> /dev/null || true
}

# This run's, of another one of the same machine and directory, which cannot be under way, or of the one that is told.
is_ours() {
	held=$(part run)
	[ -n "$held" ] && { [ "$held" = "$run" ] || [ "$held" = "$broken" ] || [ "$(part token)" = "$token" ]; }
}

# Not as claim writes one. Nobody can say when such a one is over.
is_damaged() {
	for word in "$(part run)" "$(part token)"; do
		case $word in
		'' | *[!A-Za-z0-9.-]*) return 0 ;;
		esac
	done
	case $(part owner) in
	'' | *[[:cntrl:]]*) return 0 ;;
	esac
	! is_number "$(part seconds)" || ! is_number "$(part since)" || [ "$(part since)" -gt "$(date +%s)" ]
}

# Up to ten digits: a shell reckons with no more, and takes one that begins with 0 for octal.
is_number() {
	case $1 in
	'' | *[!0-9]* | 0* | ???????????*) return 1 ;;
	esac
}

# Of a run that died before there was anything to take back: nobody else would end its lease.
is_over() {
	[ ! -d $armed ] && [ "$age" -ge "$(part seconds)" ]
}

give_back() {
	[ "$(cat $lease/run 2> /dev/null || true)" != "$1" ] || rm -rf $lease
}

# --- before and after a wave ------------------------------------------------------------------------

generation() {
	if [ -e $memory/generation ]; then
		head -n 1 $memory/generation | grep -xE '[0-9A-Za-z. -]{1,80}' || echo damaged
	else
		echo none
	fi
}

mark() {
	echo "$*" > $memory/generation.new
	sync $memory/generation.new
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

# What is kept is the last confirmed state: a wave that comes over a new connection confirms the one before it. One
# rename of a link leads from the one to the other.
arm() {
	tidy
	kept=$(mktemp -d $armed.XXXXXX)
	if [ -d $armed ] && { [ -n "$for_person" ] || [ "$(cat $armed/run)" != "$run" ]; }; then
		cp -p $armed/files.tar "$kept/"
		[ ! -e $armed/first ] || : > "$kept/first"
		# Nothing of a run that is to be held is confirmed by its next wave.
		[ "$(cat $armed/run)" != "$run" ] || [ ! -e $armed/before ] || cp -p $armed/before "$kept/"
	else
		own | tar -C / --null --no-recursion --files-from=- -cf "$kept/files.tar"
		# What a dead run had begun there is not all: it may have been confirmed elsewhere. Hence not above.
		echo "$found" > "$kept/before"
	fi
	cp change.sh "$kept/"
	[ ! -e peers.pl ] || cp peers.pl "$kept/"
	echo "$run" > "$kept/run"
	allow "$seconds" "$kept"
	sync -f "$kept"
	start_timer
	ln -s "${kept##*/}" $armed.new
	# Not `mv -T`: that of uutils takes a link to a directory for the directory.
	perl -e 'rename $ARGV[0], $ARGV[1] or die "$ARGV[1]: $!\n"' $armed.new $armed
	sync -f $memory
	tidy
	if [ ! -e $units/privnet-restore.service ]; then
		: > "$kept/first"
		cp privnet-restore.service $units/
		chmod 0644 $units/privnet-restore.service
		systemctl daemon-reload
	fi
	[ -e $units/sysinit.target.wants/privnet-restore.service ] || systemctl enable --quiet privnet-restore.service
}

# Before there is anything to take back, so that nothing is ever without it. One that is there already waits longer by
# itself: it reads the time anew. One that is about to end has taken its mark away, under the lock that we hold.
start_timer() {
	[ "$(systemctl show --property=SubState --value privnet-rollback.timer)" != waiting ] || return 0
	[ ! -e $waits ] || ! is_active privnet-rollback.service || return 0
	stop_timer
	go_back_later --collect --on-active="${seconds}s" --timer-property=AccuracySec=1s
}

# A host whose disk is full cannot go back: it tries again until it can.
go_back_later() {
	systemd-run --quiet --unit=privnet-rollback --property=Restart=on-failure --property=RestartSec=10s "$@" \
		--property='RestartForceExitStatus=SIGTERM SIGHUP' \
		/bin/sh -c "[ ! -e $armed/change.sh ] || exec sh $armed/change.sh back"
}

stop_timer() {
	systemctl stop privnet-rollback.timer privnet-rollback.service 2> /dev/null || true
	rm -f $waits
}

disarm() {
	rm -f $armed
	sync -f $memory
	tidy
}

# Of programs that were killed. An upload that is under way has locked its own.
forget_uploads() {
	for path in $etc/.stage.*; do
		[ ! -d "$path" ] || (flock -n 7 && rm -rf "$path") 7< "$path" || true
	done
}

# What nothing leads to.
tidy() {
	for path in $armed.*; do
		[ "${path##*/}" = "$(readlink $armed)" ] || rm -rf "$path"
	done
}

# --- back to what was --------------------------------------------------------------------------------

# Unpack what was kept, and list what differs: changed, gone or new. What an attempt that was cut short has put back
# already stays on the list: the kernel has not followed it yet.
unpack() {
	has_room
	rm -rf $memory/old
	mkdir $memory/old
	tar -C $memory/old -xpf $armed/files.tar
	tar -tf $armed/files.tar > $memory/kept
	{
		own | tr '\0' '\n'
		cd $memory/old && find . ! -type d | sed 's|^[.]/||'
	} | sort -u | while IFS= read -r path; do
		same "/$path" "$memory/old/$path" || echo "/$path"
	done > $memory/differs.now
	touch $memory/differs
	sort -u $memory/differs $memory/differs.now > $memory/differs.new
	mv -T $memory/differs.new $memory/differs
	rm $memory/differs.now
}

# For files twice, and for what units write when they start: half of a rollback is neither what was nor what is new.
has_room() {
	if ! head -c 8388608 /dev/zero > $memory/room; then
		rm -f $memory/room
		echo "privnet: there is no room to go back; trying again" >&2
		return 1
	fi
	rm $memory/room
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
		if [ -d "$path" ] && [ ! -L "$path" ] && ! rmdir "$path"; then
			echo "privnet: $path is a directory with something in it, and is left as it is" >&2
			continue
		fi
		if [ -e "$memory/old$path" ] || [ -L "$memory/old$path" ]; then
			(umask 022 && mkdir -p "${path%/*}")
			mv -T "$memory/old$path" "$path"
		else
			rm -f "$path"
			rmdir --ignore-fail-on-non-empty "${path%/*}" 2> /dev/null || true
		fi
	done < $memory/differs
	sync
	# Programs of an earlier version look for the key there.
	if grep -qs "^key=$etc/wireguard.key" $etc/lib/mesh.sh && [ ! -s $etc/wireguard.key ]; then
		cp -p /etc/wireguard/privnet.key $etc/wireguard.key
	fi
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
		# Its process does not answer, or is one that the file which is back does not know of.
		systemctl reload privnet-guard.service || systemctl restart privnet-guard.service
	else
		# Its program is gone already, so its end is a failure.
		end privnet-guard.service
		# Those of an older privnet's guard stay when it stops.
		nft delete table inet privnet 2> /dev/null
		nft delete table bridge privnet 2> /dev/null
		ip route del unreachable "$(cat /run/privnet/guard.mesh)" metric 4294967295
		rm -f /run/privnet/guard.*
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
			sh $etc/lib/mesh.sh follow
		else
			sh $etc/lib/mesh.sh up restart
		fi
	fi
}

settle_overlay() {
	vni=$1
	device=pnx$vni
	# networkd leaves a device as it is whose file has changed.
	if changed "/etc/systemd/network/05-privnet-$vni-vxlan.netdev" && [ -e "/sys/class/net/$device" ]; then
		ip link delete dev "$device"
	fi
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
	true
)

# From the mark on nothing can be confirmed any more, and the next program first goes on with it. Its argument: what the host
# has been through then.
back() {
	run=$(cat $armed/run)
	logger -s -t privnet "run $run was not confirmed: this host rolls back to what it was before" || true
	[ -e $memory/restored ] || unpack
	mark "going back $run"
	stop_new || true
	[ -e $memory/restored ] || put_back
	settle
	[ ! -e $armed/first ] || rm -f $units/privnet-restore.service $units/sysinit.target.wants/privnet-restore.service
	mark "${1:-back $run}"
	give_back "$run"
	# Before the last word, so that none of it is met by the next one that rolls back.
	rm -rf $memory/old $memory/kept $memory/differs $memory/restored
	disarm
	rm -f $waits
}

# Until the time is up; a wave that took longer than that has moved it.
wait_for_time() {
	while :; do
		exec 8> /run/privnet/program.lock
		flock 8
		if [ ! -d $armed ]; then
			rm -f $waits
			exit 0
		fi
		: > $waits
		[ ! -e $memory/restored ] || return 0
		left=$(($(cat $armed/deadline 2> /dev/null || echo 0) - $(uptime)))
		[ "$left" -gt 0 ] || return 0
		exec 8>&-
		sleep "$left"
	done
}

case $1 in
begin)
	run=$2 wave=$3 expected=$4 seconds=$5 token=$6 owner=$7 broken=$8 for_person=${9:-}
	mkdir -p $memory
	found=$(generation)
	if [ "$found" != "${found#going back }" ] && [ -d $armed ]; then
		(back)
		found=$(generation)
	fi
	claim
	if [ "$found" != "$expected" ]; then
		give_back "$run"
		# The one that this run knew of is dead; any other may be at work elsewhere.
		known=${expected##*back }
		known=${known%% *}
		case $found in
		*"back $run" | *"back $known" | "$run "* | none | damaged) refuse stale "it has rolled back since this run asked it. Run again" ;;
		*"back "*) refuse locked "run ${found##*back } has been at work there since this run asked it, and was taken back. Run again" ;;
		*) refuse locked "run ${found%% *} has changed it since this run asked it. Run again, with the lock file of that run" ;;
		esac
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
confirm | extend | hold | lost | undo | withdraw)
	run=$2 expected=$3
	# Not while the host rolls back, nor what a program has left half done.
	exec 8> /run/privnet/program.lock
	flock 8
	found=$(generation)
	if [ "$(cat $armed/run 2> /dev/null || true)" != "$run" ] || [ "$found" != "$expected" ]; then
		case $found in
		*"back "* | "$run "* | none | damaged) refuse stale "it has rolled back to what it was before: no confirmation came in time. Run again" ;;
		*) refuse stale "run ${found%% *} has changed it meanwhile. Take its lock file, and run again" ;;
		esac
	fi
	case $1 in
	lost)
		# Whoever rolls back need not wait for it.
		exec 8>&-
		exec perl $armed/peers.pl lost "$4" $armed/answering
		;;
	hold)
		echo "$4" > $lease/seconds
		: > $armed/held
		allow "$4" $armed
		exit 0
		;;
	extend)
		allow "$(cat $lease/seconds)" $armed
		exit 0
		;;
	undo | withdraw)
		# To withdraw is to leave it as if nothing had been: a run that has waited for that goes on.
		[ "$1" = undo ] || before=$(cat $armed/before 2> /dev/null || true)
		back "${before:-back $run}"
		stop_timer
		exit 0
		;;
	esac
	forget_uploads
	sync -f $etc
	# In this order a death in between leaves a host that rolls back by itself, or one that is done.
	give_back "$run"
	disarm
	stop_timer
	;;
back)
	mkdir -p /run/privnet
	wait_for_time
	forget_uploads
	back
	;;
boot)
	# Before anything of ours starts: the files first, all else when the boot is over.
	[ -d $armed ] || exit 0
	mkdir -p /run/privnet
	rm -f $memory/restored
	# Should there be no room now, the host rolls back as soon as there is. The time was by the clock of another boot.
	rm -f $armed/deadline
	go_back_later --no-block --collect --property=After=privnet-networks.target --property=After=wg-quick@privnet.service
	unpack
	mark "going back $(cat $armed/run)"
	put_back
	: > $memory/restored
	systemctl daemon-reload
	# This boot has them on its list already.
	sed -n "s|^$wants/||p" $memory/differs | while read -r unit; do
		was "$unit" || systemctl stop --no-block "$unit"
	done
	;;
esac
