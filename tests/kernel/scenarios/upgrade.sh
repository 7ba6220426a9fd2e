#!/bin/sh
# An earlier kport, KPORT_BEFORE, is replaced while jails run: connections stay, and this one lists, completes, changes and removes
# what that one has published. Of previews whose lines of pf.conf were "kport/*", too (KPORT_BEFORE_LINES).
# backends: native pfctl

if [ ! -x "${KPORT_BEFORE:-}" ]; then
	skip "no KPORT_BEFORE"
	exit 0
fi
network
lines "${KPORT_BEFORE_LINES:-kport}"
main_rules
# before STATUS ARGUMENT...: by the earlier kport
before() {
	local expected
	expected=$1
	shift
	st=0
	"$KPORT_BEFORE" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null || st=$?
	last="(before) $*"
	is "before: kport $* is status $expected" "$expected" "$st"
}

before 0 --version
note "before: $(cat "$WORK/out")"
before 0 publish web 8080:80 8081-8082:81/tcp,udp
before 0 publish --add web --hairpin 8090:82
before 0 publish app --sources 192.0.2.0/24 192.0.2.7:8085:80
before 0 publish other wan1:8080:80
before 0 publish flat 8100:80
asks outside tcp,192.0.2.1,8080=web udp,192.0.2.1,8082=web:82 tcp,192.0.2.7,8085=app tcp,192.0.2.1,8100=flat
held outside tcp,192.0.2.1,8080
all_rules >"$WORK/rules"

# the files are replaced: nothing else has happened
gives 0 list
for jail in web app other flat; do says "$jail "; done
if [ "${KPORT_BEFORE_LINES:-kport}" = kport ]; then
	is "all of it is live" 0 "$(grep -c -e missing -e stale -e inert "$WORK/out")"
else
	# nothing in the anchor kport calls them yet, and that they arrive all the same is the main ruleset's doing
	is "all of it is missing, or live" 0 "$(grep -c -e stale -e inert "$WORK/out")"
fi
all_rules >"$WORK/now"
is "a list changes no rule" "" "$(diff "$WORK/rules" "$WORK/now")"

# what rc(8) runs
gives 0 apply
lives "apply"
gives 0 list
is "all of it is live after apply" 0 "$(grep -c -e missing -e stale -e inert "$WORK/out")"
asks outside tcp,192.0.2.1,8080=web udp,192.0.2.1,8082=web:82 tcp,192.0.2.7,8085=app tcp,192.0.2.1,8100=flat tcp,192.0.2.1,8091=-
asks uplink tcp,203.0.113.1,8080=other
asks app tcp,192.0.2.1,8090=web:82

# the lines of now, after apply: no connection is lost on the way
lines kport
main_rules
lives "the lines of pf.conf"
asks outside tcp,192.0.2.1,8080=web udp,192.0.2.1,8082=web:82 tcp,192.0.2.7,8085=app tcp,192.0.2.1,8100=flat
asks uplink tcp,203.0.113.1,8080=other
gives 0 apply
gives 0 list
is "all of it is still live" 0 "$(grep -c -e missing -e stale -e inert "$WORK/out")"

# ports are taken, repeated, added, removed
gives 3 publish app 8080:80
says 'is published by jail "web"'
gives 0 publish flat 8100:80
gives 0 publish --add web 8200:83
gives 0 unpublish web 8081-8082:81/udp
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8200=web:83 tcp,192.0.2.1,8082=web:82 udp,192.0.2.1,8082=-
lives "more and fewer ports"
# both at once, as a hook of the one and a command of the other
before 0 list
gives 0 unpublish web
died "unpublish"
let_go
jail -R app
gives 0 apply
for jail in other flat; do gives 0 unpublish $jail; done
is "nothing of kport is left in pf" "" "$(anchors)"
is "nor in the records" "" "$(records | grep -v -e lock -e watch.json)"
