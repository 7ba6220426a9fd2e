#!/bin/sh
# A jail on the LAN: the outer interface is a member of its bridge, its address is one of the LAN, its default route is the LAN's router.
# Addresses that come while publish waits, in both families.
# backends: native pfctl

host_network
# outside is the router of the LAN, too, and beyond is behind it
stack web
ifconfig "$(ifconfig bridge create)" name lan9 >/dev/null
ifconfig lan9 addm wan0 up
epair - web
ifconfig lan9 addm "$near"
end=$far
serve web
stack beyond
cable=$(ifconfig epair create)
ifconfig "$cable" vnet outside
ifconfig "${cable%a}b" vnet beyond
jexec outside ifconfig "$cable" inet 198.51.100.1/24 up
jexec beyond ifconfig "${cable%a}b" inet 198.51.100.100/24 up
jexec beyond route -q add default 198.51.100.1
jexec outside sysctl -q net.inet.ip.forwarding=1 >/dev/null
# what stays on the LAN is no business of this test
main_rules 'pass quick on lan9'

# waits ARGUMENT...: publishes in the background, and returns when it waits
waits() {
	last="publish $*"
	"$KPORT" -vv publish "$@" >"$WORK/waiting" 2>&1 </dev/null &
	waiting=$!
	until_it_says 'waiting: '
}
until_it_says() {
	while ! grep -qF -- "$1" "$WORK/waiting" && kill -0 $waiting 2>/dev/null; do sleep 0.1; done
	if grep -qF -- "$1" "$WORK/waiting"; then
		ok "kport $last says \"$1\""
	else
		not_ok "kport $last: expected \"$1\", got $(line "$(tail -n 2 "$WORK/waiting")")"
	fi
}
published() {
	st=0
	wait $waiting || st=$?
	is "kport $last is status 0" 0 "$st"
	[ "$st" = 0 ] || note "$(line "$(tail -n 2 "$WORK/waiting")")"
	for target; do
		is "a redirect leads to $target" 1 "$(redirects web | grep -c -e "-> $target ")"
	done
}

# an address that is not believed first, then that of the LAN
waits --wait 120 --family inet --trust 192.0.2.0/24 web 8080:80
jexec web ifconfig "$end" inet 198.51.100.5/32 up
until_it_says 'reports 198.51.100.5, which is on no network of the host'
jexec web ifconfig "$end" inet 192.0.2.50/24 alias
jexec web ifconfig "$end" inet 198.51.100.5 -alias
jexec web route -q add default 192.0.2.100
published 192.0.2.50
gives 5 publish web 8080:80
says 'are to be believed with --trust'

# without translation the jail answers the LAN directly, and beyond by the router
asks outside tcp,192.0.2.50,80=web
asks outside tcp,192.0.2.1,8080=-
asks beyond tcp,192.0.2.1,8080=-
gives 5 trace tcp 192.0.2.100 192.0.2.1:8080
gives 5 trace tcp 198.51.100.100 192.0.2.1:8080
# that is a jail of this machine here, of which trace does not know what it sends on
says 'the router of jail web'
k doctor
says '--hairpin or --masquerade'

gives 0 publish --trust 192.0.2.0/24 --hairpin web 8080:80
asks outside tcp,192.0.2.1,8080=web:80
asks beyond tcp,192.0.2.1,8080=-
gives 0 trace tcp 192.0.2.100 192.0.2.1:8080
gives 5 trace tcp 198.51.100.100 192.0.2.1:8080

gives 0 publish -a 192.0.2.0/24 --masquerade web 8080:80 8053:53/udp 9000-9010:9000
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.1 udp,192.0.2.1,8053=web:53@192.0.2.1 tcp,192.0.2.1,9010=web:9010@192.0.2.1
asks beyond tcp,192.0.2.1,8080=web:80@192.0.2.1 udp,192.0.2.1,8053=web:53@192.0.2.1
gives 0 trace tcp 192.0.2.100 192.0.2.1:8080
gives 0 trace tcp 198.51.100.100 192.0.2.1:8080

# the sources are those of the clients
gives 0 publish --trust 192.0.2.0/24 --masquerade --sources 198.51.100.0/24 web 8080:80
asks outside tcp,192.0.2.1,8080=-
asks beyond tcp,192.0.2.1,8080=web:80@192.0.2.1

# two mappings to one port of the jail
gives 0 publish --trust 192.0.2.0/24 --masquerade web 8080:80 8081:80
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.1 tcp,192.0.2.1,8081=web:80@192.0.2.1

# the host as the jail's router
jexec web route -q delete default
jexec web route -q add default 192.0.2.1
gives 0 publish --trust 192.0.2.0/24 web 8080:80
asks beyond tcp,192.0.2.1,8080=web:80@198.51.100.100
asks outside tcp,192.0.2.1,8080=-
gives 0 trace tcp 198.51.100.100 192.0.2.1:8080
jexec web route -q delete default
gives 5 trace tcp 198.51.100.100 192.0.2.1:8080
says 'has no default route'

# both families: the second one comes later, the first IPv6 address is deprecated
waits --wait 120 --family inet,inet6 --trust 192.0.2.0/24 --trust 2001:db8::/64 --masquerade web 8080:80
until_it_says 'has no IPv6 address'
jexec web ifconfig "$end" inet6 2001:db8::51/64 no_dad deprecated
published 192.0.2.50 2001:db8::51
jexec web ifconfig "$end" inet6 2001:db8::50/64 no_dad
gives 0 publish --trust 192.0.2.0/24 --trust 2001:db8::/64 --masquerade web 8080:80
is "the preferred address is published" 1 "$(redirects web | grep -c -e '-> 2001:db8::50 ')"
asks outside tcp,2001:db8::1,8080=web:80@2001:db8::1 tcp,192.0.2.1,8080=web:80@192.0.2.1
gives 5 publish web 8080:80 --trust 192.0.2.0/24
says 'or publish by IPv4 only with --family'
gives 0 publish web 8080:80 --trust 192.0.2.0/24 --family inet
gives 0 unpublish web
