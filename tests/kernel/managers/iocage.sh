# iocage: docs/managers/iocage.md. zfs(8) and zpool(8) are stand-ins of ours. Sourced by scenarios/managers.sh.
# shellcheck shell=sh

python=${KPORT_PYTHON:-$(command -v python3)}
if [ ! -x "$python" ]; then
	skip "iocage needs python3 with its modules: KPORT_PYTHON"
	return
fi
mkdir -p "$place/iocage"
cat >"$place/iocage/iocage" <<END
#!/bin/sh
exec $python $KPORT_MANAGERS/iocage/iocage "\$@"
END
# without zfs.ko the rest of sysctl(8) is needed all the same
cat >"$place/iocage/sysctl" <<'END'
#!/bin/sh
[ "$*" != vfs.zfs.version.spa ] || exec echo vfs.zfs.version.spa: 5000
exec /sbin/sysctl "$@"
END
chmod 755 "$place/iocage/iocage" "$place/iocage/sysctl"
PATH=$place/iocage:$here/managers:$PATH
export ZFS_STATE="$place/zfs-iocage"
made /var/log/iocage.log /tmp/iocage_nat_pf.conf /tmp/iocage_nat_lock

zfs create -o mountpoint="$place/zroot" zroot
runs 0 iocage activate zroot
runs 0 iocage list
release=$place/zroot/iocage/releases/15.1-RELEASE
zfs create -p zroot/iocage/releases/15.1-RELEASE/root
tree "$release/root"
echo 'USERLAND_VERSION="15.1-RELEASE"' >"$release/root/bin/freebsd-version"
echo '127.0.0.1 localhost' >"$release/root/etc/hosts"
loop=$(ifconfig lo create)
ifconfig "$loop" up
runs 0 iocage create -r 15.1-RELEASE -n web ip4_addr="$loop|10.9.7.2/32" boot=off
# hooks NAME JAIL PORT: the page's lines, for a jail and with a port
hooks() {
	page iocage 1 | sed "s/ioc-web/$2/; s/ web\$/ $1/; s/8080:80/$3:80/" >"$place/hooks.sh"
	ran sh -e "$place/hooks.sh"
	is "the page's lines for $1" 0 "$st"
}
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
runs 0 iocage restart web
gives 0 gc
asks outside tcp,192.0.2.1,8080=web

# a clone has the hooks of its original, and JNAME is another name
runs 0 iocage clone web -n app
runs 0 iocage set ip4_addr="$loop|10.9.7.3/32" app
ran iocage start app
printed 'Refusing to start'
is "a clone with the hooks of its original does not start" no "$(running ioc-app)"
asks outside tcp,192.0.2.1,8080=web
hooks app ioc-app 8080
ran iocage start app
printed 'Refusing to start'
printed ioc-web
is "nor with a port that is taken" no "$(running ioc-app)"
hooks app ioc-app 8081
runs 0 iocage start app
asks outside tcp,192.0.2.1,8081=app tcp,192.0.2.1,8080=web

runs 0 iocage stop --force app
is "stop --force unpublishes" 0 "$(published ioc-app)"
runs 0 iocage start app
jail -R ioc-app
is "jail -R leaves its ports" 1 "$(published ioc-app)"
gives 0 gc
is "gc removes them" 0 "$(published ioc-app)"
runs 0 iocage start app
asks outside tcp,192.0.2.1,8081=app

# the new name has the old hooks
ran iocage stop app
runs 0 iocage rename app my.app
ran iocage start my.app
printed 'Refusing to start'
hooks my.app ioc-my_app 8081
runs 0 iocage start my.app
is "the jail of my.app is" yes "$(running ioc-my_app)"
is "its ports are" 1 "$(published ioc-my_app)"

# nat=1 replaces the main ruleset
runs 0 iocage stop web
runs 0 iocage set nat=1 nat_interface=wan0 nat_backend=pf nat_forwards='tcp(80:8090),udp(81)' web
ran iocage start web
note "start with nat=1 is status $st"
is "nat=1 replaces the main ruleset" 0 "$(pfctl -sn 2>/dev/null | grep -c '^rdr-anchor "kport/')"
gives 0 import iocage "$place/zroot/iocage/jails/web/config.json"
says 8090:80
says 81:81/udp
ran iocage stop --force web
page iocage 2 | sed 's/^# //' | grep -v import >"$place/over.sh"
runs 0 sh -e "$place/over.sh"
runs 0 iocage set ip4_addr="$loop|10.9.7.2/32" web
main_rules
runs 0 iocage start web
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=my

runs 0 iocage destroy -f my.app
is "destroy -f stops" no "$(running ioc-my_app)"
is "and unpublishes" 0 "$(published ioc-my_app)"
runs 0 iocage destroy -f web
