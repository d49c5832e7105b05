# Managed by privnet. names.sh started|reading|follow|read NETWORK [PID]: the resolver of one private network.
# Root, with no capability but what the resolver itself has, notes in /run/privnet which names and which configuration it
# has read; the resolver is told to read them again by its own user.
set -eu
names=/etc/privnet/names/$2
mark=/run/privnet/names.$2
reading=/run/privnet/reading.$2

sum() {
	sha256sum "$1" | cut -d ' ' -f 1
}

case $1 in
started)
	rm -f "$reading"
	echo "$(sum "$names.hosts") $(sum "$names.conf")" > "$mark"
	;;
reading)
	echo "$(sum "$names.hosts") $(cut -d ' ' -f 2 "$mark")" > "$reading"
	;;
follow)
	kill -HUP "$3"
	;;
read)
	mv -T "$reading" "$mark"
	;;
esac
