#!/bin/sh
# What was there before: a peer that reached the host itself at a port that is then published, and goes on from the same port.
# backends: native pfctl

network
serve outside udp,7000
serve host udp,5399 tcp,5398
main_rules 'pass in quick on wan0 inet proto { tcp udp } from any to 192.0.2.1 port { 5398 5399 }' \
	'pass out quick on wan0 inet proto udp from 192.0.2.1 to any'
asks outside udp,192.0.2.1,5399,192.0.2.100,40000=host
held outside tcp,192.0.2.1,5398 two
# of the host itself, from the port that is published
held host udp,192.0.2.100,7000,192.0.2.1,5400 three
# --force: the host listens on that port
gives 0 publish --force web 5399:80/udp 5400:81/udp
says "before they were redirected: 1"
asks outside udp,192.0.2.1,5399,192.0.2.100,40000=web:80
lives "to another port of the host" two
lives "the host's own from that port" three
# what was redirected stays
held outside udp,192.0.2.1,5399 one
gives 0 publish --force --add web 5401:82/udp
lives "one more" one

# pf loses the redirects for a moment
pfctl -q -a kport/web -F nat
asks outside udp,192.0.2.1,5399,192.0.2.100,40001=host
gives 0 apply
asks outside udp,192.0.2.1,5399,192.0.2.100,40001=web:80
lives "restored" one
let_go
gives 0 unpublish web
