#!/bin/sh
# pf is reloaded, flushed, disabled; jails go without a word: what stays, what `list` says, restore and gc.
# backends: native pfctl

network
cp "$WORK/pf.conf" /etc/pf.conf

# state JAIL: what list says of its first mapping
state() { "$KPORT" -q list "$1" 2>/dev/null | awk 'NR == 2 { print $NF }'; }

gives 0 publish web 8080:80
gives 0 publish app 8081:80
gives 0 publish flat 8100:80
pfctl -q -f /etc/pf.conf
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,8100=flat
service pf onereload >/dev/null 2>&1
asks outside tcp,192.0.2.1,8080=web
pfctl -q -F all
is "with an empty main ruleset the record still has it" 0 "$("$KPORT" -q list web >/dev/null 2>&1; echo $?)"
pfctl -q -f /etc/pf.conf
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8100=flat
is "list" live "$(state web)"

# kport's own anchor is flushed
pfctl -q -a kport/web -F nat
pfctl -q -a kport/web -F rules
is "list of what was flushed" missing "$(state web)"
is "list of the other" live "$(state app)"
asks outside tcp,192.0.2.1,8080=- tcp,192.0.2.1,8081=app
gives 0 apply
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app
everything >"$WORK/once"
gives 0 apply
everything >"$WORK/twice"
is "apply again changes nothing" "" "$(diff "$WORK/once" "$WORK/twice")"

# half of it, by hand
pfctl -q -a kport/app -F rules
gives 0 apply
asks outside tcp,192.0.2.1,8081=app
# something that is not kport's, in its anchor
echo 'pass in quick on wan0 proto tcp to port 2323' | pfctl -q -a kport/app -f -
gives 0 publish app 8081:80
is "what another put into the anchor is gone" 0 "$(pfctl -a kport/app -sr 2>/dev/null | grep -c 2323)"
asks outside tcp,192.0.2.1,8081=app

# the ids of states begin again with the time in seconds (pf_start in sys/netpfil/pf/pf_ioctl.c): after more states than seconds, pf
# drops the packets for which it makes an id that a state still has
pfctl -q -d
pfctl -q -F states
pfctl -q -e
asks outside tcp,192.0.2.1,8080=web

# jails that go without their hooks
gives 0 apply
is "apply leaves running jails alone" live "$(state web)"
jail -R app
gives 0 apply
is "the anchor of a jail that is gone" "" "$(pfctl -a kport/app -sn 2>/dev/null)"
is "its record" "" "$(records | grep app)"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8100=flat tcp,192.0.2.1,8081=-
# an anchor without a record
echo 'rdr on wan0 inet proto tcp from any to any port 8181 -> 10.0.0.9 port 80' | pfctl -q -a kport/nobody -f -
is "list of an anchor without a record" stale "$(state nobody)"
gives 0 apply
is "an anchor without a record" "" "$(pfctl -a kport/nobody -sn 2>/dev/null)"
# the jail comes again
inside app inner0 10.0.0 fd00 3
serve app
gives 0 publish app 8081:80
asks outside tcp,192.0.2.1,8081=app

for jail in web app flat; do gives 0 unpublish $jail; done
gives 0 apply
is "nothing of kport is left in pf" "" "$(anchors)"
