#!/bin/sh
# Ranges, several protocols, both families, chosen ports.
# backends: native pfctl

network

gives 0 publish web 8000-8010:9000
asks outside tcp,192.0.2.1,7999=- tcp,192.0.2.1,8000=web:9000 tcp,192.0.2.1,8005=web:9005 tcp,192.0.2.1,8010=web:9010 \
	tcp,192.0.2.1,8011=- udp,192.0.2.1,8005=- tcp,2001:db8::1,8007=web:9007
is "a range is one rule a family" 2 "$(redirects web | wc -l | tr -d ' ')"

gives 0 publish web 8100-8104:9000-9004/tcp,udp 8200-8203:80
asks outside tcp,192.0.2.1,8102=web:9002 udp,192.0.2.1,8102=web:9002 udp,2001:db8::1,8104=web:9004 udp,192.0.2.1,8105=- \
	tcp,192.0.2.1,8203=web:83 tcp,192.0.2.1,8000=-
gives 2 publish web 8000-8010:9000-9009
gives 2 publish web 8010-8000:9000

# part of a range is as much in the way as all of it
gives 3 publish app 8103:80
says web
gives 3 publish app 8104-8110:9004/udp
gives 0 publish app 8105-8110:9005

# of a jail with one family only that one is published
inside four inner0 10.0.0 - 44
inside six inner0 - fd00 66
serve four
serve six
gives 0 publish four 8300:80
gives 0 publish six 8301:80
asks outside tcp,192.0.2.1,8300=four tcp,2001:db8::1,8300=- tcp,192.0.2.1,8301=- tcp,2001:db8::1,8301=six

# a free port is chosen, and kept; ones that are taken are passed over
serve host tcp,41000,192.0.2.1
gives 0 publish four --auto-range 41000-41001 auto:80
says 'tcp 41001 on wan0 -> 10.0.0.44:80'
asks outside tcp,192.0.2.1,41001=four
gives 3 publish app --auto-range 41000-41001 auto:80
gives 0 publish four --auto-range 41000-41001 auto:81
asks outside tcp,192.0.2.1,41001=four:81

# added, and taken away one by one
gives 0 publish --add four 8302:82
asks outside tcp,192.0.2.1,8302=four:82 tcp,192.0.2.1,41001=four:81
gives 0 unpublish four 8302:82
asks outside tcp,192.0.2.1,8302=- tcp,192.0.2.1,41001=four:81

for jail in web app four six; do gives 0 unpublish $jail; done
is "nothing of kport is left in pf" "" "$(anchors)"
