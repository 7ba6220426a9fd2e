# iocage: docs/managers/iocage.md. Its own code needs Python and ZFS: here a script has its calls of jail(8) and of hooks (ioc_start.py,
# ioc_stop.py, runscript() of ioc_common.py). Sourced by scenarios/managers.sh.
# shellcheck shell=sh

mkdir -p "$place/iocage"
cat >"$place/iocage/iocage" <<'END'
#!/bin/sh
here=$(dirname "$0")
# runscript KEY NAME [VARIABLE=VALUE...]: split as shlex.split() does, joined by spaces, so that quotes vanish
runscript() {
	text=$(cat "$here/$2.$1" 2>/dev/null)
	shift 2
	[ -z "$text" ] || env "$@" /bin/sh -c "$(printf '%s\n' "$text" | xargs printf '%s ')"
}
jail_of() { printf 'ioc-%s\n' "$1" | tr . _; }
ends() {
	jail -q -r "$(jail_of "$1")"
	runscript exec_poststop "$1" A= || echo "  + Executing poststop FAILED"
}
case $1 in
set)
	printf '%s\n' "${2#*=}" >"$here/$3.${2%%=*}"
	;;
start)
	jail -c name="$(jail_of "$2")" persist path="$here/$2" host.hostname="$2" mount.devfs exec.clean ip4.addr="$(cat "$here/$2.ip4_addr")"
	jexec "$(jail_of "$2")" /bin/sh /etc/rc
	runscript exec_poststart "$2" JID="$(jls -j "$(jail_of "$2")" jid)" JNAME="$(jail_of "$2")" || {
		ends "$2"
		echo "Refusing to start $2: exec_poststart failed"
		exit 1
	}
	;;
stop)
	if [ "$2" = --force ]; then
		shift
	else
		runscript exec_prestop "$2" A= || exit 1
		jexec "$(jail_of "$2")" /bin/sh /etc/rc.shutdown
	fi
	ends "$2"
	;;
esac
END
chmod 755 "$place/iocage/iocage"
PATH=$place/iocage:$PATH
loop=$(ifconfig lo create)
ifconfig "$loop" up
# hooks NAME JAIL PORT: the page's lines, for a jail and with a port
hooks() {
	page iocage 1 | sed "s/ioc-web/$2/; s/ web\$/ $1/; s/8080:80/$3:80/" >"$place/hooks.sh"
	ran sh -e "$place/hooks.sh"
	is "the page's lines for $1" 0 "$st"
}
for name in web my.app; do tree "$place/iocage/$name"; done
iocage set ip4_addr="$loop|10.9.7.2/32" web
iocage set ip4_addr="$loop|10.9.7.3/32" my.app
hooks web ioc-web 8080
runs 0 iocage start web
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100
gives 0 list --json ioc-web
says "\"jid\": $(jls -j ioc-web jid)"
held outside tcp,192.0.2.1,8080
runs 0 iocage stop web
died "stopped"
let_go
is "nothing of web is left in pf" "" "$(anchors)"
is "nor in the record" "" "$(records)"
runs 0 iocage start web
gives 0 gc
asks outside tcp,192.0.2.1,8080=web

# the hooks of another jail, as after a clone or a rename
hooks my.app ioc-web 8081
runs 1 iocage start my.app
printed 'Refusing to start'
is "a jail with another's hooks does not run" no "$(running ioc-my_app)"
asks outside tcp,192.0.2.1,8080=web
hooks my.app ioc-my_app 8080
runs 1 iocage start my.app
printed ioc-web
is "nor one whose port is taken" no "$(running ioc-my_app)"
hooks my.app ioc-my_app 8081
runs 0 iocage start my.app
asks outside tcp,192.0.2.1,8081=my tcp,192.0.2.1,8080=web
runs 0 iocage stop --force my.app
is "stop --force unpublishes" 0 "$(published ioc-my_app)"
runs 0 iocage start my.app
jail -R ioc-my_app
is "jail -R leaves its ports" 1 "$(published ioc-my_app)"
gives 0 gc
is "gc removes them" 0 "$(published ioc-my_app)"
runs 0 iocage stop web
