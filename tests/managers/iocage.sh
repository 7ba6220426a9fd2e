#!/bin/sh
# Plays iocage: set KEY=VALUE NAME, start NAME ADDRESS, stop [--force] NAME, rename OLD NEW, clone OLD NEW, destroy -f NAME.
#
# The jail's name is ioc-NAME with "." as "_". A hook is split as shlex.split() does and joined by spaces, so that quotes vanish
# (runscript() of ioc_common.py). poststart has JNAME and JID (1.12 and later; IOCAGE_OLD plays one before), stop hooks have
# neither; a poststart that fails is a forced stop; a prestop that fails keeps the jail running unless --force, which leaves it out; a
# poststop that fails is logged.
. "$(dirname "$0")/world.sh"
IOCAGE_PATH=$RC_PATH:/usr/local/sbin:/usr/local/bin
jail_of() {
	printf 'ioc-%s\n' "$1" | tr . _
}
value() {
	cat "$WORLD/iocage/$2/$1" 2>/dev/null
}
# script KEY NAME [VARIABLE=VALUE...]
script() {
	text=$(value "$1" "$2")
	shift 2
	[ -n "$text" ] || return 0
	hook "$(printf '%s\n' "$text" | xargs printf '%s ')" PATH="$IOCAGE_PATH" "$@"
}
# ends NAME: what a stop does after the hooks
ends() {
	jail_down "$(jail_of "$1")"
	script exec_poststop "$1" || echo "iocage: $1: poststop failed" >&2
}

case $1 in
set)
	mkdir -p "$WORLD/iocage/$3"
	printf '%s\n' "${2#*=}" >"$WORLD/iocage/$3/${2%%=*}"
	;;
start)
	name=$(jail_of "$2")
	jid=$(jail_up "$name" "$3")
	set -- "$2" "JNAME=$name" "JID=$jid"
	[ -z "${IOCAGE_OLD-}" ] || set -- "$1"
	script exec_poststart "$@" || {
		echo "iocage: refusing to start $1" >&2
		ends "$1"
		exit 1
	}
	;;
stop)
	if [ "$2" = --force ]; then
		shift
	else
		script exec_prestop "$2" || exit 1
	fi
	ends "$2"
	;;
rename)
	[ -z "$(jid "$(jail_of "$2")")" ] || "$0" stop "$2"
	mv "$WORLD/iocage/$2" "$WORLD/iocage/$3"
	;;
clone)
	cp -R "$WORLD/iocage/$2" "$WORLD/iocage/$3"
	;;
destroy)
	"$0" stop --force "$3"
	rm -r "$WORLD/iocage/$3"
	;;
*) exit 64 ;;
esac
