# CBSD: docs/managers/cbsd.md, as far as it is about hooks and pf: the functions of CBSD that run master_*.d, in its own shell, around
# jail(8) as sudoexec/jstart and jstop have them. Its database is not used. Sourced by scenarios/managers.sh.
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
made /usr/local/cbsd /usr/local/bin/cbsd
mkdir -p /usr/local/bin "$home/etc" "$home/tmp" "$home/ftmp" "$place/commands"
cp -R "$KPORT_MANAGERS/cbsd" /usr/local/cbsd
cp "$KPORT_MANAGERS/cbsd/bin/cbsdsh/cbsd" /usr/local/bin/cbsd
pw useradd cbsd -u 150 -s /bin/sh -d "$home" -c CBSD && echo cbsd >"$place/user"
# it asks for many commands that hooks do not need
printf '#!/bin/sh\nexit 0\n' >"$place/commands/nothing"
chmod 755 "$place/commands/nothing"
tr -cs 'a-z0-9_.-' '\n' </usr/local/cbsd/misc/cmdboot | grep '^[a-z]' | sort -u | while read -r word; do
	PATH=$place/commands:$PATH command -v "$word" >/dev/null || ln -s nothing "$place/commands/$word"
done
export NOINTER=1 NOCOLOR=1 workdir="$home"
runs 0 env POST_CBSD_CMD_PATH="$place/commands" /usr/local/cbsd/misc/cmdboot
loop=$(ifconfig lo create)
ifconfig "$loop" up

cat >"$place/around" <<'END'
. ${subrdir}/nc.subr
. ${subrdir}/tools.subr
. ${subrdir}/jcreate.subr
quiet=0 vnet=0 nic_address=0
data="${workdir}/jails-data/${jname}-data"
case "$1" in
start | fails)
	export_jail_data_for_external_hook
	external_exec_master_script "master_prestart.d"
	[ "$1" = fails ] || ${JAIL_CMD} -c name=${jname} persist path=${data} host.hostname=${jname} mount.devfs \
		ip4.addr="${interface}|${ip4_addr%/*}" exec.clean exec.start="/bin/sh /etc/rc"
	external_exec_master_script "master_poststart.d"
	[ "$1" != fails ] || external_exec_master_script "master_poststop.d"
	;;
stop | fast)
	geniplist ${ip4_addr}
	export_jail_data_for_external_hook
	external_exec_master_script "master_prestop.d"
	if [ "$1" = fast ]; then ${JAIL_CMD} -rR ${jname}; else ${JAIL_CMD} -r ${jname}; fi
	external_exec_master_script "master_poststop.d"
	;;
esac
exit 0
END
# jcreate NAME PORT: the directories of a jail, and the page's lines
jcreate() {
	tree "$home/jails-data/$1-data"
	mkdir -p "$home/jails-system/$1/master_prestart.d" "$home/jails-system/$1/master_poststart.d" \
		"$home/jails-system/$1/master_prestop.d" "$home/jails-system/$1/master_poststop.d"
	hooks "$1" "$2"
}
hooks() {
	page cbsd 1 | sed "s|jails-system/web|jails-system/$1|; s/8080:80/$2:80/" >"$place/hooks.sh"
	ran sh -e "$place/hooks.sh"
	is "the page's lines for $1" 0 "$st"
	# the names of all are the standard input of each
	for other in a z; do
		printf '#!/bin/sh\necho "$jname %s" >>%s\n' $other "$place/others" >"$home/jails-system/$1/master_poststart.d/$other"
		chmod 755 "$home/jails-system/$1/master_poststart.d/$other"
	done
}
# around VERB NAME ADDRESS
around() { runs 0 env jname="$2" ip4_addr="$3" interface="$loop" cbsd "$place/around" "$1"; }
jcreate web 8080
around start web 10.8.1.2/24
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100
is "and the scripts beside kport's run" "web a|web z" "$(sort "$place/others" | tr '\n' '|' | sed 's/|$//')"
gives 0 list --json web
says "\"jid\": $(jls -j web jid)"
held outside tcp,192.0.2.1,8080
around stop web 10.8.1.2/24
died "stopped"
let_go
is "nothing of web is left in pf" "" "$(anchors)"
is "nor in the record" "" "$(records)"
around start web 10.8.1.2/24
gives 0 apply
asks outside tcp,192.0.2.1,8080=web
around fast web 10.8.1.2/24
is "fast=1 unpublishes" "" "$(anchors)"
around fails web 10.8.1.2/24
printed 'did not start'
is "after a start that failed there are no ports" 0 "$(published web)"
around start web 10.8.1.2/24

# a clone is a copy of jails-system/NAME, a rename moves it
jcreate app 8080
around start app 10.8.1.3/24
printed 8080
is "a jail whose port is taken runs" yes "$(running app)"
is "without ports" 0 "$(published app)"
asks outside tcp,192.0.2.1,8080=web
around stop app 10.8.1.3/24
asks outside tcp,192.0.2.1,8080=web
hooks app 8081
mv "$home/jails-system/app" "$home/jails-system/a%b"
mv "$home/jails-data/app-data" "$home/jails-data/a%b-data"
around start a%b 10.8.1.3/24
is "a name with % has its port" 1 "$(published a%b)"
asks outside tcp,192.0.2.1,8081=a%b
jail -R a%b
gives 0 apply
is "apply after jail -R" 0 "$(published a%b)"

# the main ruleset of `cbsd naton` is made of CBSD's own template, and of the lines that its expose writes
sed "s:%%CBSD_WORKDIR%%:$home:g" /usr/local/cbsd/etc/defaults/pf.conf.tpl >"$home/etc/pf.conf"
printf 'pass out quick on lo\nblock log all\npass quick inet6 proto ipv6-icmp\n' >>"$home/etc/pf.conf"
echo 'nat on wan0 from 10.0.0.0/8 to ! 10.0.0.0/8 -> 192.0.2.1' >"$home/etc/pfnat.conf"
echo 'rdr pass proto tcp from {any} to 192.0.2.1 port 8090 -> 10.8.1.2 port 80 # // Setup by CBSD expose: tcp-80-web from IPs any' \
	>"$home/etc/pfrdr.conf"
runs 0 pfctl -q -f "$home/etc/pf.conf"
asks outside tcp,192.0.2.1,8080=-
gives 0 setup --pf-conf "$home/etc/pf.conf" --write
runs 0 pfctl -q -f "$home/etc/pf.conf"
asks outside tcp,192.0.2.1,8080=web
gives 3 publish web 8090:80
gives 0 import cbsd "$home/etc/pfrdr.conf"
says 8090:80
around stop web 10.8.1.2/24
unset workdir NOINTER NOCOLOR
main_rules
