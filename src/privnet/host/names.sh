# Managed by privnet. names.sh started|reload NETWORK [PID]: the resolver of one private network.
# names.sh forwarder: the one of all networks, for other names.
set -eu
names=/etc/privnet/names/${2-}
mark=/run/privnet/names.${2-}

sum() {
	sha256sum "$1" | cut -d ' ' -f 1
}

# Which names, and which configuration, the running resolver has read.
case $1 in
started)
	mkdir -p /run/privnet
	echo "$(sum "$names.hosts") $(sum "$names.conf")" > "$mark"
	;;
forwarder)
	mkdir -p /run/privnet
	sum /etc/privnet/forwarder.conf > /run/privnet/forwarder
	;;
reload)
	new=$(sum "$names.hosts")
	kill -HUP "$3"
	echo "$new $(cut -d ' ' -f 2 "$mark")" > "$mark.new"
	mv -T "$mark.new" "$mark"
	;;
esac
