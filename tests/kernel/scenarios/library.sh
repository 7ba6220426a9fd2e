#!/bin/sh
# libkport from C: c-examples/publish.c, which publishes, lists and takes it back.
# backends: native pfctl

if [ -z "$EXAMPLE" ] || [ ! -x "$EXAMPLE" ]; then
	skip "no compiler, and no KPORT_EXAMPLE"
	exit 0
fi
network
said_by() { LD_LIBRARY_PATH=$KPORT_LIB "$EXAMPLE" "$@" 2>&1; echo "status $?"; }

gives 0 publish web 8080:80
is "an example publishes" "published wan0:8090:80/tcp wan1:5353:53/udp
app: tcp port 8090 on wan0 -> 10.0.0.3 port 80
app: udp port 5353 on wan1 -> 10.0.0.3 port 53
unpublished app
status 0" "$(said_by app 10.0.0.3 'wan0:8090:80 wan1:5353:53/udp' | grep -v -e fd00 -e 'not answered')"
is "it is refused what the helper has published" "status 3" "$(said_by app 10.0.0.3 wan0:8080:80 | tail -n 1)"
is "and a bad spec" "status 2" "$(said_by app 10.0.0.3 wan0:80 | tail -n 1)"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8090=-
gives 0 unpublish web
