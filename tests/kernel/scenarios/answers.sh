#!/bin/sh
# By which interface an answer leaves: `far` is behind the router `uplink` of wan1, and the default route is wan0's.
# backends: native pfctl

network
stack far
cable=$(ifconfig epair create)
ifconfig "$cable" vnet uplink
ifconfig "${cable%a}b" vnet far
jexec uplink sysctl -q net.inet.ip.forwarding=1 net.inet6.ip6.forwarding=1 >/dev/null
jexec uplink ifconfig "$cable" inet 198.51.100.1/24 up
jexec uplink ifconfig "$cable" inet6 2001:db8:2::1/64 no_dad
jexec far ifconfig "${cable%a}b" inet 198.51.100.100/24 up
jexec far ifconfig "${cable%a}b" inet6 2001:db8:2::100/64 no_dad
jexec far route -q add default 198.51.100.1
jexec far route -q -6 add default 2001:db8:2::1

router=203.0.113.100 router6=2001:db8:1::100
ports='wan1:9101:80 wan1:9102:53/udp wan1:9103-9104:80-81/tcp,udp'

# the router is unknown: the network of wan1 is answered, nobody behind the router is
# shellcheck disable=SC2086 # words
gives 0 publish web $ports
says 'not answered'
asks uplink tcp,203.0.113.1,9101=web udp,203.0.113.1,9102=web tcp,2001:db8:1::1,9101=web
asks far tcp,203.0.113.1,9101=- udp,203.0.113.1,9102=- tcp,2001:db8:1::1,9101=-
gives 5 trace --on wan1 tcp 198.51.100.100 203.0.113.1:9101
gives 0 trace --on wan1 tcp 203.0.113.100 203.0.113.1:9101
k doctor
says 'are not answered'

everybody() {
	asks far tcp,203.0.113.1,9101=web@198.51.100.100 udp,203.0.113.1,9102=web tcp,203.0.113.1,9104=web:81 \
		udp,203.0.113.1,9103=web tcp,2001:db8:1::1,9101=web udp,2001:db8:1::1,9102=web
	asks uplink tcp,203.0.113.1,9101=web udp,203.0.113.1,9102=web tcp,2001:db8:1::1,9101=web
	gives 0 trace --on wan1 tcp 198.51.100.100 203.0.113.1:9101
	k doctor
	says 'pf has exactly what is recorded'
	says 'connections are answered, by the interface that they came in on'
}
# shellcheck disable=SC2086 # words
gives 0 publish --reply-to $router,$router6 web $ports
everybody
held far tcp,203.0.113.1,9101
lives 'through the router'
# the rules of one backend are those of the other
for other in native pfctl; do
	k --backend $other list
	says live
	k --backend $other doctor
	says 'pf has exactly what is recorded'
done
let_go

# with limits, a log, and without quick
# shellcheck disable=SC2086 # words
gives 0 publish --reply-to $router,$router6 --max-connections 50 --max-connections-per-source 9 --log web $ports
everybody
main_rules 'pass out all'
# shellcheck disable=SC2086 # words
gives 0 publish --reply-to $router,$router6 --no-quick web $ports
everybody
main_rules

# any address
gives 0 publish --reply-to $router,$router6 web '*:9101:80'
asks far tcp,203.0.113.1,9101=web tcp,2001:db8:1::1,9101=web
asks outside tcp,192.0.2.1,9101=web

# a jail on the host's stack
gives 0 publish --reply-to $router flat wan1:9111:80
asks far tcp,203.0.113.1,9111=flat
gives 0 unpublish flat

# a route names the router
route -q add 198.18.0.0/15 $router
route -q -6 add 2001:db8:18::/48 $router6
# shellcheck disable=SC2086 # words
gives 0 publish web $ports
everybody
route -q delete 198.18.0.0/15
route -q -6 delete 2001:db8:18::/48

# shellcheck disable=SC2086 # words
gives 0 publish --reply-to none web $ports
asks uplink tcp,203.0.113.1,9101=web
asks far tcp,203.0.113.1,9101=-
gives 1 publish --reply-to 198.18.0.1 web wan0:9101:80
says 'no interface of wan0'

# a tunnel needs no router
tunnel=$(ifconfig gif create 2>/dev/null)
if [ -n "$tunnel" ]; then
	ifconfig "$tunnel" tunnel 203.0.113.1 203.0.113.100
	ifconfig "$tunnel" inet 10.99.0.1 10.99.0.2
	other_end=$(jexec uplink ifconfig gif create)
	jexec uplink ifconfig "$other_end" tunnel 203.0.113.100 203.0.113.1
	jexec uplink ifconfig "$other_end" inet 10.99.0.2 10.99.0.1
	main_rules 'pass quick on wan1 proto ipencap'
	gives 0 publish web "$tunnel:9121:80" "$tunnel:9122:53/udp"
	asks far tcp,10.99.0.1,9121=web@198.51.100.100 udp,10.99.0.1,9122=web
	asks uplink tcp,10.99.0.1,9121=web@10.99.0.2
	main_rules
else
	skip "no gif(4)"
fi

# wan1 in FIB 1, which does not have the networks of the jails
if [ "$(sysctl -n net.fibs)" -gt 1 ]; then
	# the routes to its networks come and go with the addresses, in the FIB of that moment
	ifconfig wan1 inet 203.0.113.1/24 -alias
	ifconfig wan1 inet6 2001:db8:1::1 -alias
	ifconfig wan1 fib 1
	ifconfig wan1 inet 203.0.113.1/24
	ifconfig wan1 inet6 2001:db8:1::1/64 no_dad
	setfib 1 route -q add default $router
	setfib 1 route -q -6 add default $router6
	gives 0 publish web wan1:9101:80 wan1:9102:53/udp wan0:9105:80
	asks far tcp,203.0.113.1,9101=web@198.51.100.100 udp,203.0.113.1,9102=web tcp,2001:db8:1::1,9101=web
	asks uplink tcp,203.0.113.1,9101=web
	asks outside tcp,192.0.2.1,9105=web
	gives 0 trace --on wan1 tcp 198.51.100.100 203.0.113.1:9101
	setfib 1 route -q delete default
	setfib 1 route -q -6 delete default
	ifconfig wan1 inet 203.0.113.1/24 -alias
	ifconfig wan1 inet6 2001:db8:1::1 -alias
	ifconfig wan1 fib 0
else
	skip "net.fibs is 1: set it in loader.conf(5)"
fi
gives 0 unpublish web
