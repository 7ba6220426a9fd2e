# pot: docs/managers/pot.md. Sourced by scenarios/managers.sh.
# shellcheck shell=sh

. "$here/managers/pot-host.sh"
runs 0 pot create -p web -t single -b 15.1 -N public-bridge -i auto
# hooks POT [FROM TO]: the page's lines, with another port
hooks() {
	(
		cd "$place" && page pot 1 | sed "s/-p web/-p $1/; s/${2-8080:80}/${3-8080:80}/" >hooks.sh && sh -e hooks.sh
	) >"$WORK/err" 2>&1
	is "the page's lines for $1" 0 $?
}
hooks web

runs 0 pot start web
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100
gives 0 list --json web
says "\"jid\": $(jls -j web jid)"
says '10.8.0.2'
held outside tcp,192.0.2.1,8080
runs 0 pot stop web
died "stopped"
let_go
is "nothing of web is left in pf" "" "$(anchors)"
is "nor in the record" "" "$(records | grep web)"
runs 0 pot start web
gives 0 apply
asks outside tcp,192.0.2.1,8080=web

# a clone has the hooks of its original
runs 0 pot clone -p app -P web -i auto -F
runs 0 pot start app
printed web
is "a clone runs" yes "$(running app)"
is "without ports" 0 "$(published app)"
asks outside tcp,192.0.2.1,8080=web
runs 0 pot stop app
asks outside tcp,192.0.2.1,8080=web
hooks app 8080:80 8081:80

# two from one list: a hook does not read it
printf 'web\napp\n' | while read -r name; do pot stop "$name" || break; done >"$WORK/err" 2>&1
is "a list of pots is stopped" "no no" "$(running web) $(running app)"
is "with their ports" "" "$(anchors)"
printf 'web\napp\n' | while read -r name; do pot start "$name" || break; done >"$WORK/err" 2>&1
is "a list of pots is started" "yes yes" "$(running web) $(running app)"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app

runs 1 pot rename -p app -n "app_2"
runs 0 pot stop app
runs 0 pot rename -p app -n "app_2"
runs 0 pot start "app_2"
asks outside tcp,192.0.2.1,8081=app_2 tcp,192.0.2.1,8080=web
gives 0 list app
is "the old name has no ports" 0 "$(published app)"

# without its hooks
jail -R web
asks outside tcp,192.0.2.1,8080=-
is "jail -R leaves its ports" 1 "$(published web)"
gives 0 apply
is "apply removes them" 0 "$(published web)"
ran pot stop web
runs 0 pot start web
asks outside tcp,192.0.2.1,8080=web
jail -R web
ran pot stop web
is "stop after jail -R removes them, too" 0 "$(published web)"

# a pot that is not persistent ends with its command
runs 0 pot set-attribute -p web -A persistent -V NO
runs 0 pot set-cmd -p web -c 'sh /etc/task'
pot start web >"$place/start" 2>&1 </dev/null &
until_true jls -j web jid
asks outside tcp,192.0.2.1,8080=web
pkill -j web sleep
until_true gone web
wait $!
is "a pot that ends is gone" no "$(running web)"
is "with its ports" 0 "$(published web)"
runs 0 pot set-attribute -p web -A persistent -V YES
runs 0 pot set-cmd -p web -c 'sh /etc/rc'

# pot's anchors are missing: pot loads /etc/pf.conf. An empty anchor outlives its last call for a time.
TRANSLATION=$plain
main_rules
TRANSLATION=$with_pot
without_pot_rdr() { ! pfctl -sA 2>/dev/null | grep -q 'pot-rdr$'; }
until_true without_pot_rdr
runs 0 pot start web
is "pot loads /etc/pf.conf" 1 "$(pfctl -sn 2>/dev/null | grep -c '^rdr-anchor "pot-rdr/')"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app_2
main_rules

# from export-ports to kport
runs 0 pot stop web
runs 0 pot export-ports -p web -e 80:8090 -e udp:81
runs 0 pot start web
gives 3 publish "app_2" 8090:80
says pot-rdr/web
gives 0 import pot "$pots/jails/web/conf/pot.conf"
says 8090:80
says auto:81/udp
runs 1 pot export-ports -p web
runs 0 pot stop web
page pot 2 | sed "s|/opt/pot|$pots|; s/^# //" | grep -v import >"$place/over.sh"
runs 0 sh -e "$place/over.sh"
hooks web 8080:80 '8080:80 8090:80'
runs 0 pot start web
asks outside tcp,192.0.2.1,8090=web tcp,192.0.2.1,8080=web

runs 1 pot destroy -p web
asks outside tcp,192.0.2.1,8080=web
runs 0 pot destroy -F -p web
is "destroy -F stops" no "$(running web)"
runs 0 pot destroy -F -p "app_2"
TRANSLATION=$plain
main_rules
