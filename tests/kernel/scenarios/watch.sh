#!/bin/sh
# kport watch: jails crash, are removed, get other addresses; pf is flushed, reloaded, disabled; forty jails; SIGKILL in between.
# backends: native pfctl

network
conf=$WORK/kport.conf
lines() { printf '%s\n' "$@" >"$conf"; }

# the watcher, in the background
watch() {
	"$KPORT" --config "$conf" watch --json >>"$WORK/reports" 2>>"$WORK/watch.err" </dev/null &
	watcher=$!
}
# ends SIGNAL
ends() {
	kill -"$1" $watcher 2>/dev/null
	wait $watcher 2>/dev/null
}
# soon TEXT EXPECTED SECONDS COMMAND...: the output of a command is this within that time
soon() {
	text=$1 expected=$2 turns=$(($3 * 5)) turn=0
	shift 3
	until got=$("$@") && [ "$got" = "$expected" ] || [ $turn -ge $turns ]; do
		sleep 0.2
		turn=$((turn + 1))
	done
	if [ "$got" = "$expected" ]; then
		ok "$text"
		note "$text: after $((turn * 2 / 10)).$((turn * 2 % 10)) s"
	else
		not_ok "$text: expected $(line "$expected"), got $(line "$got")"
	fi
}
# to JAIL: where its ports lead to; count: how many anchors there are
to() { redirects "$1" | sed -n 's/.*-> \([^ ]*\) port.*/\1/p' | sort -u | tr '\n' ' ' | sed 's/ $//'; }
count() { anchors | wc -l | tr -d ' '; }
SLOW=30

lines 'web 8080:80 --family inet' '/^app$/ 8081:80' 'flat 8100:80'
: >"$WORK/reports"
watch
soon "three jails are published at the start" 3 $SLOW count
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,8100=flat

# gone, in each way
held outside tcp,192.0.2.1,8081
jail -R app
soon "jail -R" "" $SLOW to app
died "of a jail that is gone"
let_go
inside app inner0 10.0.0 fd00 3
serve app
soon "the jail comes again" "10.0.0.3 fd00::3" $SLOW to app
jail -r app
soon "jail -r" "" $SLOW to app
is "its interface has returned" yes "$(turn=0; while [ -z "$(ifconfig -l | tr ' ' '\n' | grep "^${far}$")" ] && [ $turn -lt 40 ]; do sleep 0.2; turn=$((turn + 1)); done; [ $turn -lt 40 ] && echo yes)"
jail -c name=app host.hostname=app path=/ vnet vnet.interface="$far" children.max=4 allow.raw_sockets command=/bin/sleep 15 >/dev/null 2>&1 &
crashes=$!
sleep 1
jexec app ifconfig "$far" inet 10.0.0.3/24 up 2>/dev/null
soon "a jail whose command runs" 10.0.0.3 $SLOW to app
wait $crashes
soon "its command has ended" "" $SLOW to app
ifconfig "${far%b}a" destroy 2>/dev/null
inside app inner0 10.0.0 fd00 3
serve app
soon "the jail comes again" "10.0.0.3 fd00::3" $SLOW to app

# other addresses: DHCP
mine=$(jexec web ifconfig -l | tr ' ' '\n' | grep epair)
jexec web ifconfig "$mine" inet 10.0.0.2/24 -alias
jexec web ifconfig "$mine" inet 10.0.0.22/24 alias
jexec web route -q add default 10.0.0.1 2>/dev/null
soon "another address" 10.0.0.22 $SLOW to web
asks outside tcp,192.0.2.1,8080=web
jexec web ifconfig "$mine" inet 10.0.0.22/24 -alias
soon "no address" "" $SLOW to web
jexec web ifconfig "$mine" inet 10.0.0.2/24 alias
jexec web route -q add default 10.0.0.1 2>/dev/null
soon "the first one again" 10.0.0.2 $SLOW to web
# of a jail on the host's stack
ifconfig "$loop" inet 10.9.0.9/32 alias
jail -m name=flat ip4.addr=10.9.0.9
soon "jail -m ip4.addr=" 10.9.0.9 $SLOW to flat
jail -m name=flat ip4.addr=10.9.0.2
soon "and back" 10.9.0.2 $SLOW to flat
asks outside tcp,192.0.2.1,8100=flat
# a family that comes late
jexec app ifconfig "$far" inet6 fd00::3 -alias 2>/dev/null
soon "one family" 10.0.0.3 $SLOW to app
jexec app ifconfig "$far" inet6 fd00::33/64 no_dad alias
soon "the other one comes late" "10.0.0.3 fd00::33" $SLOW to app

# pf
pfctl -q -a kport/web -F nat
pfctl -q -a kport/web -F rules
soon "an anchor that was flushed" 10.0.0.2 $SLOW to web
pfctl -q -F all
pfctl -q -f "$WORK/pf.conf"
soon "after pfctl -F all" 3 $SLOW count
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8100=flat
printf 'pass\n' | pfctl -q -f -
soon "a main ruleset without the calls is reported" yes $SLOW sh -c "grep -q 'does not call' '$WORK/reports' && echo yes"
pfctl -q -d
pfctl -q -f "$WORK/pf.conf"
pfctl -q -e
soon "pf that works again is reported" yes $SLOW sh -c "grep -q 'evaluates the rules again' '$WORK/reports' && echo yes"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app

# the gateway interface
route -q delete default
route -q add default 203.0.113.100
soon "another gateway interface" wan1 $SLOW sh -c 'pfctl -a kport/flat -sn -P 2>/dev/null | sed -n "s/^rdr on \([^ ]*\) .*/\1/p" | sort -u'
route -q delete default
route -q add default 192.0.2.100
soon "and back" wan0 $SLOW sh -c 'pfctl -a kport/flat -sn -P 2>/dev/null | sed -n "s/^rdr on \([^ ]*\) .*/\1/p" | sort -u'

# the file
lines 'web 8082:80 --family inet' 'flat 8100:80'
kill -HUP $watcher
soon "SIGHUP: two jails have lines" 2 $SLOW count
soon "SIGHUP: web has another port" 8082 $SLOW sh -c 'pfctl -a kport/web -sn -P 2>/dev/null | sed -n "s/^rdr .* port = \([0-9]*\) tag .*/\1/p"'
asks outside tcp,192.0.2.1,8082=web tcp,192.0.2.1,8080=- tcp,192.0.2.1,8081=-
gives 0 publish --add flat 8101:80
gives 0 unpublish web
soon "unpublished by hand, and published by the file" 10.0.0.2 90 to web
asks outside tcp,192.0.2.1,8101=flat

# forty jails, and SIGKILL in between
{
	cat "$conf"
	echo '/^c[0-9]+$/ auto:80'
} >"$WORK/more"
cp "$WORK/more" "$conf"
kill -HUP $watcher
number=1
while [ $number -le 40 ]; do
	shared c$number 10.9.1.$number
	case $((number % 8)) in
	0)
		ends KILL
		watch
		;;
	esac
	number=$((number + 1))
done
soon "forty jails start, the watcher is killed five times" 42 120 count
began=$(ps -o time= -p $watcher)
sleep 20
note "the watcher of 43 jails has used $began of CPU, and $(ps -o time= -p $watcher) 20 s later"
number=1
while [ $number -le 40 ]; do
	jail -R c$number
	[ $((number % 16)) -ne 0 ] || { ends KILL; watch; }
	number=$((number + 1))
done
soon "forty jails are removed" 2 120 count

"$KPORT" -q metrics | grep kport_watch_reports_total >"$WORK/counted"
is "metrics count what it did" yes "$(grep -q 'what="restored"' "$WORK/counted" && echo yes)"
ends TERM
is "SIGTERM leaves everything" 2 "$(count)"
is "nothing was said on standard error" "" "$(cat "$WORK/watch.err")"
for jail in web flat; do gives 0 unpublish $jail; done
is "nothing of kport is left in pf" "" "$(anchors)"
