#!/bin/sh
# IPv6 clients of a jail that has only an IPv4 address: --af-to, which pf of 15 has.
# backends: native pfctl

host_network
inside web inner0 10.0.0 - 2
serve web
if [ "$(sysctl -n kern.osreldate)" -lt 1500000 ]; then
	gives 8 publish web --af-to 8080:80
	says "15 does"
	return 0
fi
# a jail stands for the client, so its checksums are to be there already
for side in wan0 inner0; do
	ifconfig $side -txcsum -txcsum6 2>/dev/null
done
for member in $(ifconfig -l); do
	case $member in epair*a) ifconfig "$member" -txcsum -txcsum6 ;; esac
done
for jail in outside web; do
	for end in $(jexec $jail ifconfig -l); do
		case $end in epair*) jexec $jail ifconfig "$end" -txcsum -txcsum6 ;; esac
	done
done

gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web tcp,2001:db8::1,8080=-
gives 0 publish web --af-to 8080:80 8081:81/udp 9000-9010
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100 tcp,2001:db8::1,8080=web:80@10.0.0.1 udp,2001:db8::1,8081=web:81@10.0.0.1 \
	tcp,2001:db8::1,9005=web:9005@10.0.0.1 tcp,2001:db8::1,8082=-
gives 0 list web
says "by af-to"
gives 0 publish web --af-to 8080:80 8081:81/udp 9000-9010
all_rules >"$WORK/once"
gives 0 apply
all_rules >"$WORK/twice"
is "apply changes nothing" "" "$(diff "$WORK/once" "$WORK/twice")"
held outside tcp,2001:db8::1,8080
gives 0 publish web --af-to --sources 2001:db8:ffff::/48 8080:80
died "other sources"
asks outside tcp,2001:db8::1,8080=-
let_go
gives 0 publish web --af-to --max-connections 1 8080:80
held outside tcp,2001:db8::1,8080
asks outside tcp,2001:db8::1,8080=-
let_go
gives 0 unpublish web
asks outside tcp,2001:db8::1,8080=-
