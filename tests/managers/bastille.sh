#!/bin/sh
# Plays Bastille: create NAME [oci|vnet], edit NAME <lines, start NAME ADDRESS, stop [-f] NAME, rename OLD NEW, clone OLD NEW,
# destroy [-a] NAME.
#
# start does not look at the status of jail(8) (start.sh). stop -f removes the jail and evaluates the text of its hook lines, with
# nothing of jail(8) in the environment (stop.sh). rename and clone write the name into the block, and leave hooks alone.
. "$(dirname "$0")/world.sh"
jail="$(dirname "$0")/jail.sh"
conf() {
	echo "$WORLD/bastille/$1/jail.conf"
}

case $1 in
create)
	mkdir -p "$WORLD/bastille/$2"
	{
		echo "$2 {"
		echo "  host.hostname = $2;"
		case ${3-} in
		# the process of an OCI jail is a hook
		oci) echo "  exec.poststart = 'touch $WORLD/application';" ;;
		vnet)
			echo "  exec.prestop += \"touch $WORLD/unplugged\";"
			echo "  exec.poststop += \"touch $WORLD/destroyed\";"
			;;
		esac
		echo "}"
	} >"$(conf "$2")"
	;;
edit)
	lines=$(cat)
	sed -i.bak '$d' "$(conf "$2")"
	printf '%s\n}\n' "$lines" >>"$(conf "$2")"
	;;
start)
	"$jail" -c "$(conf "$2")" "$2" "$3"
	exit 0
	;;
stop)
	if [ "$2" = -f ]; then
		for key in exec.prestop exec.poststop; do
			grep "$key" "$(conf "$3")" | sed -E 's%^.*= "(.*)";$%\1%' >>"$WORLD/evaluated"
		done
		jail_down "$3"
		while read -r command; do
			# the lines behind it are its standard input
			(PATH=$RC_PATH; eval "$(here "$command")")
		done <"$WORLD/evaluated"
		rm -f "$WORLD/evaluated"
	else
		"$jail" -r "$(conf "$2")" "$2"
	fi
	exit 0
	;;
rename | clone)
	[ "$1" = clone ] || [ -z "$(jid "$2")" ] || exit 1
	mkdir -p "$WORLD/bastille/$3"
	sed "s/^$2 {/$3 {/; s/hostname = $2/hostname = $3/" "$(conf "$2")" >"$(conf "$3")"
	[ "$1" = clone ] || rm -r "$WORLD/bastille/$2"
	;;
destroy)
	if [ "$2" = -a ]; then
		"$0" stop "$3"
		shift
	fi
	[ -z "$(jid "$2")" ] || exit 1
	rm -r "$WORLD/bastille/$2"
	;;
*) exit 64 ;;
esac
