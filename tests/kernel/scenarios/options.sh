#!/bin/sh
# Who may connect, how often, and what else is chosen with a publication.
# backends: native pfctl

network
jexec outside ifconfig "$(jexec outside ifconfig -l | tr ' ' '\n' | grep '^epair')" inet 192.0.2.101/32 alias

gives 0 publish web --sources 192.0.2.100 --sources 203.0.113.0/24 '*:8080:80'
asks outside tcp,192.0.2.1,8080,192.0.2.100=web@192.0.2.100 tcp,192.0.2.1,8080,192.0.2.101=- tcp,2001:db8::1,8080=-
asks uplink tcp,203.0.113.1,8080=web

# a table of the main ruleset, which has to be there
gives 5 publish web --sources '<friends>' 8080:80
main_rules 'table <friends> persist { 192.0.2.101 }'
gives 0 publish web --sources '<friends>' 8080:80
asks outside tcp,192.0.2.1,8080,192.0.2.100=- tcp,192.0.2.1,8080,192.0.2.101=web
pfctl -q -t friends -T add 192.0.2.100
asks outside tcp,192.0.2.1,8080,192.0.2.100=web

# no more at a time than this
gives 0 publish web --max-connections 2 8080:80
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8080=web tcp,192.0.2.1,8080=-
gives 0 publish web --max-connections-per-source 2 8081:80/udp
asks outside udp,192.0.2.1,8081,192.0.2.100,41000=web udp,192.0.2.1,8081,192.0.2.100,41001=web \
	udp,192.0.2.1,8081,192.0.2.100,41002=- udp,192.0.2.1,8081,192.0.2.101,41000=web
gives 8 publish web --rate 5/10 8080:80/udp

# a narrower reach list
gives 0 publish web --reach inner0 8080:80
asks app tcp,10.0.0.2,80=web
asks other tcp,10.0.0.2,80=-
asks outside tcp,192.0.2.1,8080=web

# the last word is that of the rules after kport's
printf '%s\n' "$TRANSLATION" 'block log all' 'pass quick inet6 proto ipv6-icmp' "$FILTER" \
	'block in on wan0 inet proto tcp from 192.0.2.101' | pfctl -q -f -
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080,192.0.2.101=web
gives 0 publish web --no-quick 8080:80
asks outside tcp,192.0.2.1,8080,192.0.2.101=- tcp,192.0.2.1,8080,192.0.2.100=web

# what starts a connection is logged; what it then carries is not
main_rules
gives 0 publish web --log 8080:80
ifconfig pflog0 >/dev/null 2>&1 || ifconfig pflog0 create
ifconfig pflog0 up
if command -v tcpdump >/dev/null; then
	tcpdump -n -U -i pflog0 -w "$WORK/log" 2>"$WORK/tcpdump.err" &
	dump=$!
	turns=0
	while ! grep -q listening "$WORK/tcpdump.err" && [ $turns -lt 100 ]; do
		sleep 0.1
		turns=$((turns + 1))
	done
	asks outside tcp,192.0.2.1,8080=web
	turns=0
	while [ "$(tcpdump -n -r "$WORK/log" dst port 80 2>/dev/null | wc -l)" -lt 1 ] && [ $turns -lt 50 ]; do
		sleep 0.1
		turns=$((turns + 1))
	done
	kill $dump
	is "one packet of the connection is logged" 1 "$(tcpdump -n -r "$WORK/log" dst port 80 2>/dev/null | wc -l | tr -d ' ')"
else
	skip "no tcpdump(1): what is logged"
fi
gives 0 unpublish web
