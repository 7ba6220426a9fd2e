#!/bin/sh
# Plays Kleene's daemon: boot, start ID ADDRESS RECORDS, connect ID RECORDS, end ID.
#
# The container's network is set up before its jail is made, in the foreground and without persist, so that no hook of jail(8) would
# be in time: the daemon itself calls kport, before "jail -c" and in its cleanup, which a stop and the end of the process both
# reach (lib/core/exec.ex, container.ex). The page's lines are in $LINES_FILE.
. "$(dirname "$0")/world.sh"
# line N, with $id
line() {
	command=$(here "$(sed -n "$1p" "$LINES_FILE")")
	(
		id=$2
		export id
		[ -z "${3-}" ] || printf '%s\n' "$3" >records.json
		eval "$command"
	)
}

case $1 in
boot) line 3 '' ;;
start)
	line 1 "$2" "$4" || exit 1
	jail_up "$2" "$3" >/dev/null
	;;
connect) line 1 "$2" "$3" ;;
end)
	jail_down "$2"
	line 2 "$2"
	;;
*) exit 64 ;;
esac
