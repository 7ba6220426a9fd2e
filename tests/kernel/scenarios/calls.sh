#!/bin/sh
# The anchor kport calls the anchors of the jails, by port and by address: in place, after a flush, after kills, with the lines of
# earlier versions, and with both backends by turns.
# backends: native pfctl

network
cp "$WORK/pf.conf" /etc/pf.conf

# calls KIND: what kport's ruleset calls: -sn, -sr
calls() { pfctl -q -P -a kport "$1" 2>/dev/null; }
state() { "$KPORT" -q list "$1" 2>/dev/null | awk 'NR == 2 { print $NF }'; }

gives 0 publish web 8080:80
gives 0 publish app 8081:80
gives 0 publish other '8300-8310:80-90' 5300:53/udp
is "who has which port" 'rdr-anchor "web" proto tcp from any to any port = 8080' "$(calls -sn | grep '"web"')"
is "and where his packets go" 2 "$(calls -sr | grep -c '"web" inet6* from any to')"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,8305=other tcp,192.0.2.1,8311=- udp,192.0.2.1,5300=other
gives 0 unpublish app
is "a call less" "" "$(calls -sn | grep '"app"')"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=- tcp,192.0.2.1,8305=other
gives 0 publish app 8081:80
gives 0 doctor

# the calls are flushed, then some of them are other ones
pfctl -q -a kport -F nat
pfctl -q -a kport -F rules
is "without calls" missing "$(state web)"
asks outside tcp,192.0.2.1,8080=-
k doctor
says 'kport apply'
gives 0 apply
is "restored" live "$(state web)"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,8305=other
pfctl -q -a kport -F nat
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app
echo 'rdr-anchor "web" proto tcp from any to any port 8089' | pfctl -q -a kport -f -
k doctor
says 'kport apply'
gives 0 apply
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,8305=other
gives 0 doctor

# so many that they are a tree: addresses and ports of one jail
many=
port=9000
while [ $port -lt 9100 ]; do
	many="$many $port:80"
	port=$((port + 3))
done
# shellcheck disable=SC2086 # words
gives 0 publish web $many 8080:80
asks outside tcp,192.0.2.1,9000=web tcp,192.0.2.1,9099=web tcp,192.0.2.1,9001=- tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app
# pfctl(8) cannot show what nodes call
if [ "$BACKEND" = native ]; then
	is "a node for these ports" 1 "$(calls -sn | grep -c '^rdr-anchor "+calls/tcp\.')"
	is "pfctl lists them" live "$("$KPORT" -q --backend pfctl list web | awk 'NR == 2 { print $NF }')"
	is "and all" "" "$("$KPORT" -q --backend pfctl list | awk 'NR > 1 && $NF != "live"')"
	gives 0 --backend pfctl doctor
fi
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,9000=- tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app
is "no node is left" "" "$(calls -sn | grep +calls)"

# one port of many addresses
many=
number=11
while [ $number -le 60 ]; do
	ifconfig wan0 inet "192.0.2.$number/32" alias
	many="$many 192.0.2.$number:7000:$((80 + number % 10))"
	number=$((number + 1))
done
# shellcheck disable=SC2086 # words
gives 0 publish web $many 8080:80
asks outside tcp,192.0.2.11,7000=web:81 tcp,192.0.2.59,7000=web:89 tcp,192.0.2.60,7000=web:80 tcp,192.0.2.7,7000=- \
	tcp,192.0.2.11,7001=- tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app
[ "$BACKEND" = pfctl ] || is "nodes for these addresses" 4 "$(calls -sn | grep -c '^rdr-anchor "+calls/host\.192\.0\.2\.')"
gives 0 doctor
gives 0 publish web 8080:80
asks outside tcp,192.0.2.11,7000=- tcp,192.0.2.1,8080=web

# kills
turn=0
while [ $turn -lt 8 ]; do
	"$KPORT" -q publish web 8080:80 "82$turn"0:80 >/dev/null 2>&1 &
	sleep 0.0$turn
	kill -9 $! 2>/dev/null
	wait $! 2>/dev/null
	turn=$((turn + 1))
done
asks outside tcp,192.0.2.1,8081=app tcp,192.0.2.1,8305=other
gives 0 apply
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,8305=other tcp,192.0.2.1,8210=-
gives 0 doctor

# the backends by turns
for backend in pfctl native pfctl native; do
	gives 0 --backend $backend publish web 8080:80 "86${#backend}0:80"
	asks outside tcp,192.0.2.1,8080=web "tcp,192.0.2.1,86${#backend}0=web" tcp,192.0.2.1,8081=app
	gives 0 --backend $backend publish web 8080:80
	is "$backend: live" live "$(state app)"
done

# the lines of earlier versions, and then these again
lines 'kport/*'
main_rules
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=app tcp,192.0.2.1,8305=other tcp,192.0.2.1,8311=-
gives 0 publish app 8081:80 8082:80
asks outside tcp,192.0.2.1,8082=app
gives 0 unpublish web
asks outside tcp,192.0.2.1,8080=- tcp,192.0.2.1,8081=app
lines kport
main_rules
asks outside tcp,192.0.2.1,8081=app tcp,192.0.2.1,8082=app tcp,192.0.2.1,8080=-
for jail in app other; do gives 0 unpublish $jail; done
is "nothing is called" "" "$(calls -sn; calls -sr)"
