#!/bin/sh
# kport.conf: check, apply, hooks without ports; what stays and what goes when the file changes.
# backends: native pfctl

network
conf=$WORK/kport.conf

# lines LINE...: the file
lines() { printf '%s\n' "$@" >"$conf"; }
# hook JAIL ARGUMENT...: kport as jail(8) calls it
hook() {
	JNAME=$1 JID=$(jls -j "$1" jid)
	export JNAME JID
	shift
	gives 0 --config "$conf" "$@"
	unset JNAME JID
}

lines '# all of it' 'web 8080:80 8081:81 --family inet' '/^a/ 8090:80 --sources 192.0.2.0/24' 'flat 8100:80' 'none 9999'
gives 0 --config "$conf" check
gives 0 --config "$conf" apply
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=web tcp,192.0.2.1,8090=app tcp,192.0.2.1,8100=flat
is "anchors" 3 "$(anchors | wc -l | tr -d ' ')"
everything >"$WORK/once"
gives 0 --config "$conf" apply
everything >"$WORK/twice"
is "apply again changes nothing" "" "$(diff "$WORK/once" "$WORK/twice")"

# a line changes, one is gone; what was made by hand stays, and so does a connection
gives 0 publish --add web 9000:82 --family inet
held outside tcp,192.0.2.1,8081
lines 'web 8081:81 8082:82 --family inet' 'app 8100:80'
gives 0 --config "$conf" apply --dry-run
says 'kport unpublish web 8080:80/tcp'
says 'kport publish --add app 8100:80'
gives 0 --config "$conf" apply
lives "another port of the jail is gone"
let_go
asks outside tcp,192.0.2.1,8080=- tcp,192.0.2.1,8081=web:81 tcp,192.0.2.1,8082=web:82 tcp,192.0.2.1,9000=web:82 \
	tcp,192.0.2.1,8090=- tcp,192.0.2.1,8100=app

# two jails exchange their ports
lines 'web 8100:80' 'app 8081:80'
gives 0 --config "$conf" apply
asks outside tcp,192.0.2.1,8100=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,9000=web:82

# hooks without ports, the same for every jail
lines 'web 8080:80' '/^app$/ auto:80'
hook web publish --hook
hook app publish --hook
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,9000=web:82 tcp,192.0.2.1,8081=- tcp,192.0.2.1,8100=-
hook flat publish --hook
is "flat has no line" "" "$(redirects flat)"
hook flat publish --hook --dry-run
for jail in web app flat; do hook $jail unpublish --hook; done
is "nothing of kport is left in pf" "" "$(anchors)"

# what pf lost, and a jail that is gone, by the same command; also if the file has a mistake
lines 'web 8080:80' 'app 8081:80'
gives 0 --config "$conf" apply
pfctl -q -a kport/web -F all 2>/dev/null
jail -R app
lines 'web 8080:80' 'app 8081:x'
gives 2 --config "$conf" apply
says "kport.conf:2: at byte 9"
is "app is gone" "" "$(redirects app)"
asks outside tcp,192.0.2.1,8080=web
inside app inner0 10.0.0 fd00 3
serve app

# what is wrong with a file
lines 'web 8080:80' 'app *:8080:80'
gives 3 --config "$conf" check
says "is also for"
gives 3 --config "$conf" apply
lines 'web em9:80:80'
gives 5 --config "$conf" check
lines 'web 8080:80 --sources <nobody>'
gives 5 --config "$conf" check
says "no table <nobody>"
lines 'web 8080:80'
chmod 666 "$conf"
gives 4 --config "$conf" apply
says "others can write to it"
chmod 644 "$conf"

for jail in web app; do gives 0 unpublish $jail; done
is "nothing of kport is left in pf" "" "$(anchors)"
