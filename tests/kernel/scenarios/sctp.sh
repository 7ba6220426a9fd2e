#!/bin/sh
# sctp: pf redirects its address, and leaves its port.
# backends: native pfctl

if ! kldload -n sctp 2>/dev/null && ! sysctl -q net.inet.sctp >/dev/null 2>&1; then
	skip "no sctp(4)"
	exit 0
fi
network
serve web sctp,9899
gives 0 publish web 9899/sctp
asks outside sctp,192.0.2.1,9899=web:9899@192.0.2.100 tcp,192.0.2.1,9899=-
asks other sctp,10.0.0.2,9899=web
gives 8 publish web 9899:80/sctp
held outside sctp,192.0.2.1,9899
gives 0 publish web 9899/sctp
lives "the same again"
gives 0 unpublish web
died "unpublished"
asks outside sctp,192.0.2.1,9899=-
