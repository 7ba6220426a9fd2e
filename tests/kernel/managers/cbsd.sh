# CBSD: docs/managers/cbsd.md. The checkout is built as its Makefile does. Sourced by scenarios/managers.sh.
# shellcheck shell=sh

if [ ! -x "$KPORT_MANAGERS/cbsd/bin/cbsdsh/cbsd" ]; then
	skip "cbsd is not built"
	return
fi
if [ -e /usr/local/cbsd ] || id cbsd >/dev/null 2>&1; then
	skip "this host has a CBSD"
	return
fi
home=$place/cbsd
made /usr/local/cbsd /usr/local/bin/cbsd /usr/local/etc/sudoers.d/10_cbsd_sudoers
mkdir -p /usr/local/bin "$home" "$place/commands"
cp -R "$KPORT_MANAGERS/cbsd" /usr/local/cbsd
cp "$KPORT_MANAGERS/cbsd/bin/cbsdsh/cbsd" /usr/local/bin/cbsd
pw useradd cbsd -u 150 -s /bin/sh -d "$home" -c CBSD && echo cbsd >"$place/user"
# every command that it asks for has to be there: of those that the base system has not, jails need rsync(1), to copy
cat >"$place/commands/rsync" <<'END'
#!/bin/sh
for word; do from=${to-} to=$word; done
mkdir -p "$to" && cp -Rp "${from%/}/." "$to"
END
ln -s /usr/local/cbsd/misc/sqlcli "$place/commands/sqlite3"
printf '#!/bin/sh\nexit 0\n' >"$place/commands/nothing"
chmod 755 "$place/commands/rsync" "$place/commands/nothing"
tr -cs 'a-z0-9_.-' '\n' </usr/local/cbsd/misc/cmdboot | grep '^[a-z]' | sort -u | while read -r word; do
	PATH=$place/commands:$PATH command -v "$word" >/dev/null || ln -s nothing "$place/commands/$word"
done
cat >"$place/initenv.conf" <<END
nodename="host.test"
nodeip="192.0.2.1"
nodeip6="0"
jnameserver="192.0.2.1"
nodeippool="10.8.1.0/24"
natip="192.0.2.1"
nat_enable="pf"
mdtmp="0"
ipfw_enable="0"
zfsfeat="0"
hammerfeat="0"
fbsdrepo="0"
workdir="$home"
jail_interface="wan0"
parallel="5"
stable="0"
sqlreplica="0"
statsd_bhyve_enable="0"
statsd_jail_enable="0"
statsd_hoster_enable="0"
default_vs="0"
END
export NOINTER=1 NOCOLOR=1 workdir="$home"
runs 0 env POST_CBSD_CMD_PATH="$place/commands" /usr/local/cbsd/sudoexec/initenv inter=0 "$place/initenv.conf"
tree "$home/basejail/base_amd64_amd64_15.1"
loop=$(ifconfig lo create)
ifconfig "$loop" up

# create NAME ADDRESS
create() {
	runs 0 cbsd jcreate jname="$1" host_hostname="$1" ip4_addr="$2" interface="$loop" ver=15.1 arch=amd64 baserw=1 vnet=0 \
		pkg_bootstrap=0 etcupdate_init=0 applytpl=0 floatresolv=0 mount_ports=0 runasap=0 astart=0
}
# hooks NAME PORT: the page's lines
hooks() {
	page cbsd 1 | sed "s|jails-system/web|jails-system/$1|; s/8080:80/$2:80/" >"$place/hooks.sh"
	ran sh -e "$place/hooks.sh"
	is "the page's lines for $1" 0 "$st"
	# one behind it, which a hook must not read away
	printf '#!/bin/sh\necho "$jname" >>%s\n' "$place/others" >"$home/jails-system/$1/master_poststart.d/other"
	chmod 755 "$home/jails-system/$1/master_poststart.d/other"
}
create web 10.8.1.2/24
hooks web 8080
runs 0 cbsd jstart jname=web
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100
is "and the script beside it runs" web "$(cat "$place/others")"
gives 0 list --json web
says "\"jid\": $(jls -j web jid)"
says 10.8.1.2
held outside tcp,192.0.2.1,8080
runs 0 cbsd jstop jname=web
died "stopped"
let_go
is "web is stopped" no "$(running web)"
is "nothing of web is left in pf" "" "$(anchors)"
is "nor in the record" "" "$(records)"
runs 0 cbsd jstart jname=web
gives 0 gc
asks outside tcp,192.0.2.1,8080=web
runs 0 cbsd jstop jname=web fast=1
is "fast=1 unpublishes" "" "$(anchors)"

# a clone has the hooks of its original
runs 0 cbsd jclone old=web new=app host_hostname=app ip4_addr=10.8.1.3/24
runs 0 cbsd jstart jname=web
runs 0 cbsd jstart jname=app
printed 8080
is "a clone runs" yes "$(running app)"
is "without ports" 0 "$(published app)"
asks outside tcp,192.0.2.1,8080=web
runs 0 cbsd jstop jname=app
asks outside tcp,192.0.2.1,8080=web
hooks app 8081
runs 0 cbsd jstart jname=app
asks outside tcp,192.0.2.1,8081=app

# renamed with its hooks
runs 0 cbsd jrename old=app new=app2 host_hostname=app2 restart=1
is "the renamed jail runs" yes "$(running app2)"
asks outside tcp,192.0.2.1,8081=app2 tcp,192.0.2.1,8080=web
is "the old name has no ports" 0 "$(published app)"

# a start that fails: CBSD runs master_poststart.d and master_poststop.d
runs 0 cbsd jstop jname=app2
runs 0 cbsd jset jname=app2 exec_start=/nonexistent
ran cbsd jstart jname=app2
is "a jail that fails to start" no "$(running app2)"
is "has no ports" 0 "$(published app2)"
runs 0 cbsd jset jname=app2 exec_start='/bin/sh /etc/rc'

# without its hooks
jail -R web
asks outside tcp,192.0.2.1,8080=-
is "jail -R leaves its ports" 1 "$(published web)"
gives 0 gc
is "gc removes them" 0 "$(published web)"
ran cbsd jstart jname=web
asks outside tcp,192.0.2.1,8080=web

# a jail with a network stack of its own
bridge=$(ifconfig bridge create)
ifconfig "$bridge" inet 10.8.2.1/24 up
runs 0 cbsd jcreate jname=net host_hostname=net ip4_addr=10.8.2.2/24 interface="$bridge" ver=15.1 arch=amd64 baserw=1 vnet=1 \
	ci_gw4=10.8.2.1 pkg_bootstrap=0 etcupdate_init=0 applytpl=0 floatresolv=0 mount_ports=0 runasap=0 astart=0
hooks net 8082
runs 0 cbsd jstart jname=net
asks outside tcp,192.0.2.1,8082=net:80@192.0.2.100
runs 0 cbsd jstop jname=net
is "its ports are gone" 0 "$(published net)"

# the rules that CBSD loads replace the main ruleset
runs 0 cbsd naton
is "naton without kport's lines removes them" 0 "$(pfctl -sn 2>/dev/null | grep -c '^rdr-anchor "kport/')"
gives 1 doctor
says "$home/etc/pf.conf"
asks outside tcp,192.0.2.1,8080=-
gives 0 setup --pf-conf "$home/etc/pf.conf" --write
runs 0 cbsd naton
asks outside tcp,192.0.2.1,8080=web
runs 0 cbsd expose mode=add in=8090 out=80 jname=web
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8090=web
gives 3 publish app2 -a 10.8.1.3 8090:80
gives 0 import cbsd "$home/etc/pfrdr.conf"
says 8090:80
page cbsd 2 | sed 's/^# //' | grep -v import >"$place/over.sh"
runs 0 sh -e "$place/over.sh"
hooks web '8090:80 8080'
runs 0 cbsd jstop jname=web
runs 0 cbsd jstart jname=web
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8090=web

runs 0 cbsd jremove jname=web
is "jremove stops" no "$(running web)"
is "and unpublishes" 0 "$(published web)"
runs 0 cbsd jremove jname=app2
runs 0 cbsd jremove jname=net
unset workdir NOINTER NOCOLOR
main_rules
