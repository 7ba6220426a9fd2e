#!/bin/sh
# The three lines in jail.conf(5), by jail(8) and rc(8): start, stop, restart, a refused start, several at once, an address that is
# added late.
# backends: native pfctl

host_network
# the jail end of a cable to inner0, which jail(8) moves; one a jail, as that of a jail whose start failed may come back late
end() {
	near=$(ifconfig epair create)
	ifconfig "$near" up
	ifconfig inner0 addm "$near"
	echo "${near%a}b"
}
web_end=$(end)
late_end=$(end)
loop=$(ifconfig lo create)
ifconfig "$loop" up

# hooks SPEC...: the lines
hooks() {
	cat <<END
	exec.poststart += "$KPORT publish --hook --backend $BACKEND $*";
	exec.prestop += "$KPORT unpublish --hook --backend $BACKEND";
	exec.poststop += "$KPORT unpublish --hook --backend $BACKEND";
END
}
# flat_jail NAME ADDRESS SPEC
flat_jail() {
	cat <<END
$1 {
	ip4.addr = "$loop|$2/32";
	exec.start = "$PEER serve $1 tcp,80,$2";
$(hooks "$3")
}
END
}
{
	cat <<END
path = "/";
persist;
exec.clean;
mount.nodevfs;
web {
	vnet;
	vnet.interface = "$web_end";
	exec.start = "/sbin/ifconfig $web_end inet 10.0.0.2/24 up";
	exec.start += "/sbin/route -q add default 10.0.0.1";
	exec.start += "$PEER serve web tcp,80-89 udp,80-89";
$(hooks 8080:80 8081:81/udp)
}
late {
	vnet;
	vnet.interface = "$late_end";
	exec.start = "/sbin/ifconfig lo0 inet 127.0.0.1/8";
	exec.start += "$PEER serve late tcp,80";
	exec.start += "(sleep 3; /sbin/ifconfig $late_end inet 10.0.0.2/24 up; /sbin/route -q add default 10.0.0.1) >/dev/null 2>&1 &";
$(hooks --wait 60 8080:80)
}
END
	flat_jail f1 10.9.2.1 8201:80
	flat_jail f2 10.9.2.2 8202:80
	flat_jail f3 10.9.2.3 8203:80
	flat_jail thief 10.9.2.9 8201:80
} >/etc/jail.conf

# rc VERB JAIL...: by service(8); what it prints is kept for a failure
rc() { service jail "$@" >"$WORK/err" 2>&1; last="(none; service jail $*)"; }
running() { jls -j "$1" jid >/dev/null 2>&1 && echo yes || echo no; }

rc onestart web
is "web runs" yes "$(running web)"
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100 udp,192.0.2.1,8081=web:81
gives 0 list --json web
says "\"jid\": $(jls -j web jid)"
rc onerestart web
is "web runs again" yes "$(running web)"
asks outside tcp,192.0.2.1,8080=web udp,192.0.2.1,8081=web
gives 0 apply
asks outside tcp,192.0.2.1,8080=web
held outside tcp,192.0.2.1,8080
rc onestop web
is "web is stopped" no "$(running web)"
died "stopped"
let_go
is "nothing of web is left in pf" "" "$(anchors)"
is "nor in the record" "" "$(records | grep web)"

rc onestart f1 f2 f3
asks outside tcp,192.0.2.1,8201=f1 tcp,192.0.2.1,8202=f2 tcp,192.0.2.1,8203=f3
rc onestart thief
is "a jail whose port is taken does not start" no "$(running thief)"
asks outside tcp,192.0.2.1,8201=f1
rc onestop f1
rc onestart thief
is "it starts when the port is free" yes "$(running thief)"
asks outside tcp,192.0.2.1,8201=thief
rc onestop thief f2 f3
is "nothing is left in pf" "" "$(anchors)"

# as at boot, at once
for jail in f1 f2 f3; do
	jail -q -c -f /etc/jail.conf $jail >"$WORK/start.$jail" 2>&1 &
done
wait
is "three that are started at once run" "yes yes yes" "$(running f1) $(running f2) $(running f3)"
asks outside tcp,192.0.2.1,8201=f1 tcp,192.0.2.1,8202=f2 tcp,192.0.2.1,8203=f3

# pf is off: a jail does not start, and is not kept from stopping
pfctl -q -d
rc onestart web
is "without pf a jail that publishes does not start" no "$(running web)"
rc onestop f1
is "without pf a jail stops" no "$(running f1)"
pfctl -q -e

# without its hooks
jail -R f2
asks outside tcp,192.0.2.1,8202=-
gives 0 apply
is "apply after jail -R" "" "$(pfctl -a kport/f2 -sn 2>/dev/null)"
rc onestop f3
is "the rest of it is gone" "" "$(anchors)"

# the address is there three seconds after exec.start
rc onestart late
is "a jail whose address comes late runs" yes "$(running late)"
asks outside tcp,192.0.2.1,8080=late
rc onestop late
is "and is gone" "" "$(anchors)"

# a restart by jail(8) gives the hook the jid of the earlier start
jail -q -c -f /etc/jail.conf f1 >"$WORK/err" 2>&1
jail -q -rc -f /etc/jail.conf f1 >"$WORK/err" 2>&1
is "after jail -rc it runs" yes "$(running f1)"
gives 0 apply
asks outside tcp,192.0.2.1,8201=f1
gives 0 list --json f1
says "\"jid\": $(jls -j f1 jid)"

# a rename while it runs: the hooks of the old name find no jail
jail -m name=f9 jid="$(jls -j f1 jid)"
rc onestop f1
gives 0 apply
asks outside tcp,192.0.2.1,8201=f1
rc onestart thief
is "the port of a renamed jail is in use" no "$(running thief)"
jail -R f9
rc onestart thief
is "and free when that jail is gone" yes "$(running thief)"
asks outside tcp,192.0.2.1,8201=thief
rc onestop thief
is "nothing is left of both" "" "$(anchors)"

# a refusal before the jail is there, and after
cable=epair77
early_jail() {
	cat <<END
early {
	path = "/";
	persist;
	mount.nodevfs;
	vnet;
	exec.prestart = "/sbin/ifconfig $cable create";
	vnet.interface = "${cable}b";
	exec.start = "/sbin/ifconfig ${cable}b inet 10.0.0.9/24 up";
	exec.poststop = "/sbin/ifconfig ${cable}a destroy";
$1
$(hooks 8201:80)
}
END
}
jail -q -c -f /etc/jail.conf f1 >"$WORK/err" 2>&1
early_jail "	exec.prepare = \"$KPORT publish --hook --backend $BACKEND --dry-run 8201:80\";" >"$WORK/early.conf"
jail -q -c -f "$WORK/early.conf" early >"$WORK/err" 2>&1
is "exec.prepare refuses" no "$(running early)"
is "and leaves no interface behind" "" "$(ifconfig -l | tr ' ' '\n' | grep "^$cable")"
early_jail "" >"$WORK/early.conf"
jail -q -c -f "$WORK/early.conf" early >"$WORK/err" 2>&1
is "exec.poststart refuses" no "$(running early)"
is "and names what cleans up" 1 "$(grep -c 'jail -rC early' "$WORK/err")"
jail -q -rC -f "$WORK/early.conf" early >/dev/null 2>&1
is "which does" "" "$(ifconfig -l | tr ' ' '\n' | grep "^$cable")"
jail -q -r -f /etc/jail.conf f1 >"$WORK/err" 2>&1
early_jail "	exec.prepare = \"$KPORT publish --hook --backend $BACKEND --dry-run 8201:80\";" >"$WORK/early.conf"
jail -q -c -f "$WORK/early.conf" early >"$WORK/err" 2>&1
is "with a free port it starts" yes "$(running early)"
jail -q -r -f "$WORK/early.conf" early >"$WORK/err" 2>&1
is "nothing of it is left" "" "$(anchors)"

# jail(8) does not wait for a hook for ever, and does not end it
{
	echo 'slow { path = "/"; persist; mount.nodevfs; exec.timeout = 2;'
	echo "	ip4.addr = \"$loop|10.9.2.7/32\";"
	echo "	exec.poststart = \"sleep 5; $KPORT publish --hook --backend $BACKEND -a 10.9.2.7 8207:80 2>$WORK/slow; echo \$? >>$WORK/slow\";"
	echo '}'
} >"$WORK/slow.conf"
jail -q -c -f "$WORK/slow.conf" slow >"$WORK/err" 2>&1
is "jail(8) gave up" no "$(running slow)"
waited=0
until grep -q '^[0-9]*$' "$WORK/slow" 2>/dev/null || [ $waited -ge 60 ]; do
	sleep 1
	waited=$((waited + 1))
done
is "the hook publishes nothing" 5 "$(tail -n 1 "$WORK/slow")"
is "as the jail is gone" 1 "$(grep -c 'is gone' "$WORK/slow")"
is "and nothing is in pf" "" "$(anchors)"
