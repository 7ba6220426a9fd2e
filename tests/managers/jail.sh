#!/bin/sh
# Plays jail(8): jail.sh -c CONF NAME ADDRESS, jail.sh -r CONF NAME, jail.sh -R NAME.
#
# Hooks of the host run in the order of their lines, by way of sh(1), with JNAME, JPATH and, but for prestart, JID. A poststart that
# fails removes the jail, and prestop, stop, poststop and release do not run; a prestop that fails keeps it running; a poststop
# that fails makes the status (usr.sbin/jail/command.c and jail.c; seen on 15.1).
. "$(dirname "$0")/world.sh"

# commands KEY: of the jail's block, one a line; "=" discards what was there (config.c), $name is the jail's
commands() {
	awk -v key="$1" -v name="$name" -v conf_name="$name" '
		$2 == "{" { inside = ($1 == conf_name || $1 == "*"); next }
		$1 == "}" { inside = 0 }
		inside && $1 == key {
			op = $2
			text = $0
			sub(/^[^=]*=[ \t]*/, "", text)
			quote = substr(text, 1, 1)
			sub(/;[ \t]*$/, "", text)
			text = substr(text, 2, length(text) - 2)
			if (quote == "\"") { gsub(/\$\{name\}|\$name/, name, text) }
			if (op == "=") { count = 0 }
			found[++count] = text
		}
		END { for (i = 1; i <= count; i++) print found[i] }
	' "$conf"
}

# run KEY [JID=N]: status of the first that fails
run() {
	key=$1
	shift
	commands "$key" >"$WORLD/commands.$$"
	status=0
	while IFS= read -r command; do
		hook "$command" PATH="${PLAYED_PATH:-$RC_PATH}" JNAME="$name" JPATH="/jails/$name" "$@" || {
			status=$?
			echo "jail: $name: $command: failed" >&2
			break
		}
	done <"$WORLD/commands.$$"
	rm -f "$WORLD/commands.$$"
	return "$status"
}

case $1 in
-c)
	conf=$2 name=$3
	run exec.prestart || exit 1
	jid=$(jail_up "$name" "$4")
	if ! run exec.poststart JID="$jid"; then
		jail_down "$name"
		exit 1
	fi
	;;
-r)
	conf=$2 name=$3 status=0
	jid=$(jid "$name")
	run exec.prestop JID="$jid" || exit 1
	jail_down "$name"
	run exec.poststop JID="$jid" || status=1
	exit "$status"
	;;
-R)
	jail_down "$2"
	;;
*)
	exit 64
	;;
esac
