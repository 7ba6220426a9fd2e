#!/bin/sh
# kport is killed (SIGKILL) at many points of a publish and of an unpublish: the rules are the old or the new ones, and the next
# command completes or undoes the change. KPORT_KILLS: how many.
# backends: native pfctl

network
KILLS=${KPORT_KILLS:-16}
before='8080:80 8081:81' after='8080:82 9001-9005:9001 8090:80/udp'

# the rules of a jail, as they are loaded
rules_of() { pfctl -a "kport/$1" -sn -P 2>/dev/null; pfctl -a "kport/$1" -sr -P 2>/dev/null; }
# shellcheck disable=SC2086 # words
gives 0 publish web $after
rules_of web >"$WORK/new"
began=$("$PEER" run "$KPORT" publish web 8080:80 8081:81)
rules_of web >"$WORK/old"
long=${began%% *}
note "a publish takes $long ms"
gives 0 publish app 8200:80
: >"$WORK/none"

# one_of WHAT FILE...: the rules of web are those of one of these files
one_of() {
	# the pfctl(8) of a killed one may still load, and rules that are read meanwhile are of both
	while pgrep -qx pfctl; do sleep 0.02; done
	rules_of web >"$WORK/are"
	what=$1
	shift
	for file; do
		cmp -s "$WORK/are" "$WORK/$file" && { ok "$what: the rules are those of $file"; return; }
	done
	not_ok "$what: expected the rules of $*, got $(line "$(cat "$WORK/are")")"
}

turn=0
while [ $turn -lt "$KILLS" ]; do
	at=$((long * (2 * turn + 1) / (2 * KILLS)))
	# shellcheck disable=SC2086 # words
	ended=$("$PEER" run -k $at "$KPORT" publish web $after)
	one_of "publish, SIGKILL after $at ms ($ended)" old new
	case $((turn % 4)) in
	0)
		# shellcheck disable=SC2086
		gives 0 publish web $after
		one_of "published again" new
		;;
	1)
		gives 0 apply
		one_of "restored" old new
		is "and list says" "" "$("$KPORT" -q list web | awk 'NR > 1 && $NF != "live"')"
		;;
	2)
		gives 0 apply
		one_of "collected" old new
		;;
	3)
		gives 0 unpublish web
		one_of "unpublished" none
		;;
	esac
	# shellcheck disable=SC2086
	gives 0 publish web $before
	one_of "published as before" old
	turn=$((turn + 1))
done
asks outside tcp,192.0.2.1,8080=web:80 tcp,192.0.2.1,8200=app

turn=0
while [ $turn -lt $((KILLS / 2)) ]; do
	at=$((long * (2 * turn + 1) / KILLS))
	ended=$("$PEER" run -k $at "$KPORT" unpublish web)
	one_of "unpublish, SIGKILL after $at ms ($ended)" old none
	gives 0 unpublish web
	one_of "unpublished again" none
	# shellcheck disable=SC2086
	gives 0 publish web $before
	one_of "published" old
	turn=$((turn + 1))
done
asks outside tcp,192.0.2.1,8080=web:80 tcp,192.0.2.1,8200=app
gives 0 unpublish web
gives 0 unpublish app
is "nothing of kport is left in pf" "" "$(anchors)"
is "nothing of it is left in the record" "" "$(find /var/run/kport -type f | grep -E '/(web|app)\.json|@(web|app)$')"
