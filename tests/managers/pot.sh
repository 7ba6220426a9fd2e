#!/bin/sh
# Plays pot: create NAME ADDRESS, set-hook -p NAME -s|-S|-t|-T FILE, start NAME, stop NAME, crash NAME, rename OLD NEW,
# clone OLD NEW ADDRESS, destroy -F NAME.
#
# Hooks are executables of the pot, run with what "pot info -E" prints; their statuses are not looked at (start.sh, stop.sh). The number
# is told while the pot runs. A pot that is not persistent and comes to its end runs poststop alone.
. "$(dirname "$0")/world.sh"
# pot's rc script adds this one
POT_PATH=$RC_PATH:/usr/local/bin
# run HOOK NAME
run() {
	script="$WORLD/pot/$2/$1.sh"
	[ -x "$script" ] || return 0
	number=$(jid "$2")
	set -- PATH="$POT_PATH" _POT_NAME="$2" _POT_IP="$(cat "$WORLD/pot/$2/address")"
	[ -z "$number" ] || set -- "$@" _POT_JID="$number"
	here "$(cat "$script")" >"$script.here"
	chmod 755 "$script.here"
	env -i "$@" "$script.here" </dev/null
	return 0
}

case $1 in
create)
	mkdir -p "$WORLD/pot/$2"
	echo "$3" >"$WORLD/pot/$2/address"
	;;
set-hook)
	case $4 in
	-s) hook=prestart ;;
	-S) hook=poststart ;;
	-t) hook=prestop ;;
	-T) hook=poststop ;;
	esac
	[ -x "$5" ] || exit 1
	cp "$5" "$WORLD/pot/$3/$hook.sh"
	;;
start)
	run prestart "$2"
	# the address is set by the pot's own rc, at the same time as the hook runs
	jail_up "$2" "" >/dev/null
	run poststart "$2"
	echo "$(jid "$2") $(cat "$WORLD/pot/$2/address")" >"$WORLD/jails/$2"
	host_json
	;;
stop)
	[ -z "$(jid "$2")" ] || run prestop "$2"
	jail_down "$2"
	run poststop "$2"
	;;
crash)
	jail_down "$2"
	run poststop "$2"
	;;
rename)
	[ -z "$(jid "$2")" ] || exit 1
	mv "$WORLD/pot/$2" "$WORLD/pot/$3"
	;;
clone)
	cp -R "$WORLD/pot/$2" "$WORLD/pot/$3"
	echo "$4" >"$WORLD/pot/$3/address"
	;;
destroy)
	"$0" stop "$3"
	rm -r "$WORLD/pot/$3"
	;;
*) exit 64 ;;
esac
