#!/bin/sh
# Plays CBSD: jcreate NAME ADDRESS, jstart NAME, jstart-that-fails NAME, jstop [fast] NAME, jrename OLD NEW, jclone OLD NEW ADDRESS,
# jremove NAME.
#
# Every executable of jails-system/NAME/master_poststart.d and so on runs on the host, in the order of find(1), with jname, ipv4_first
# and others exported; statuses are not looked at, and poststart runs for a jail that did not start as well (sudoexec/jstart, jstop,
# subr/jcreate.subr).
. "$(dirname "$0")/world.sh"
system() {
	echo "$WORLD/cbsd/jails-system/$1"
}
run() {
	dir=$(system "$2")/$1.d
	[ -d "$dir" ] || return 0
	address=$(cat "$(system "$2")/address")
	# the names of the others are its standard input
	find "$dir" -type f ! -name '*.here' | while read -r script; do
		[ -x "$script" ] || continue
		here "$(cat "$script")" >"$script.here"
		chmod 755 "$script.here"
		env -i PATH=$RC_PATH:/usr/local/sbin:/usr/local/bin jname="$2" ipv4_first="$address" ipv6_first= \
			ip4_addr="$address" nic_address=0 "$script.here"
	done
	return 0
}

case $1 in
jcreate)
	for hook in poststart prestop poststop; do
		mkdir -p "$(system "$2")/master_$hook.d"
	done
	echo "$3" >"$(system "$2")/address"
	;;
jstart)
	jail_up "$2" "$(cat "$(system "$2")/address")" >/dev/null
	run master_poststart "$2"
	;;
jstart-that-fails)
	run master_poststart "$2"
	run master_poststop "$2"
	;;
jstop)
	# fast leaves out what the jail itself runs, not this
	[ "$2" != fast ] || shift
	run master_prestop "$2"
	jail_down "$2"
	run master_poststop "$2"
	;;
jrename)
	[ -z "$(jid "$2")" ] || "$0" jstop "$2"
	mv "$(system "$2")" "$(system "$3")"
	;;
jclone)
	cp -R "$(system "$2")" "$(system "$3")"
	echo "$4" >"$(system "$3")/address"
	;;
jremove)
	"$0" jstop "$2"
	rm -r "$(system "$2")"
	;;
*) exit 64 ;;
esac
