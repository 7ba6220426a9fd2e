#!/bin/sh
# The table of Kleene's "Publishing ports", row by row: what arrives, and what does not.
# backends: native pfctl

network

# the gateway interface is that of the default route, wan0
none='tcp,192.0.2.1,8080=- udp,192.0.2.1,8080=-'
# shellcheck disable=SC2086 # words
asks outside $none

gives 0 publish web 8080
asks outside tcp,192.0.2.1,8080=web:8080@192.0.2.100 udp,192.0.2.1,8080=- tcp,192.0.2.1,8081=-
asks uplink tcp,203.0.113.1,8080=-

gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100 tcp,2001:db8::1,8080=web:80@2001:db8::100

gives 0 publish web wan1:8080:80
asks uplink tcp,203.0.113.1,8080=web:80@203.0.113.100
asks outside tcp,192.0.2.1,8080=-

gives 0 publish web 8080:80/udp
asks outside udp,192.0.2.1,8080=web:80@192.0.2.100 tcp,192.0.2.1,8080=-

gives 0 publish web 8080:80/tcp 8080:80/udp
asks outside udp,192.0.2.1,8080=web:80 tcp,192.0.2.1,8080=web:80 udp,2001:db8::1,8080=web:80

gives 0 publish web wan0:8080:80 wan1:8080:80
asks outside tcp,192.0.2.1,8080=web:80
asks uplink tcp,203.0.113.1,8080=web:80 tcp,2001:db8:1::1,8080=web:80

# "When a port is published, it becomes reachable by containers on all networks", udp too, and no other port does
gives 0 publish web 8080:80 8081:81/udp
asks other tcp,10.0.0.2,80=web@10.1.0.2 udp,10.0.0.2,81=web@10.1.0.2 tcp,10.0.0.2,81=- udp,10.0.0.2,80=-
asks app tcp,10.0.0.2,80=web
asks outside tcp,10.0.0.2,80=-

# the full syntax needs every field; neither syntax takes what is not there
gives 2 publish web wan1:8080
gives 2 publish web 8080:80/icmp
gives 2 publish web 0:80
asks outside tcp,192.0.2.1,8080=web:80

# the redirect leads to one address, of the networks that the jail is connected to
inside two inner0 10.0.0 fd00 20
inside two inner1 10.1.0 fd01 20
serve two
gives 0 publish two -a 10.1.0.20 -a 10.0.0.20 8090:80
is "the preferred address is the target" 1 "$(redirects two | grep -c -e '-> 10.1.0.20 ')"
asks outside tcp,192.0.2.1,8090=two
gives 0 unpublish two

# a container on the host's network cannot publish
jail -c name=hostnet path=/ ip4=inherit ip6=inherit persist >/dev/null
gives 8 publish hostnet 8099:80

gives 0 unpublish web
# shellcheck disable=SC2086 # words
asks outside $none
asks other tcp,10.0.0.2,80=-
gives 0 unpublish web
is "nothing of kport is left in pf" "" "$(anchors)"
